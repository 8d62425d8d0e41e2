"""What TF32 and bfloat16 products cost in nats, and what they bring in time."""

import functools
from collections.abc import Iterable
from typing import Any

from .. import precision
from ..measure import interleaved
from ..rivals import Ours, Start, trainer
from .session import Item, Options, Session

RANKS, SMALL_RANKS = (20, 100, 10, 50), (2,)
Row = dict[str, Any]


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for rank in SMALL_RANKS if options.small else RANKS:
        yield Item(f"precision, rank {rank}", functools.partial(errors, options, rank))
    for rank in SMALL_RANKS if options.small else RANKS[:2]:
        yield Item(f"precision, times, rank {rank}", functools.partial(times, options, rank))


def errors(options: Options, rank: int) -> list[Row]:
    return precision.measure(rank, options.device)


def times(options: Options, rank: int) -> list[Row]:
    """Milliseconds at each setting of PyTorch's switch."""
    ours = Ours(Start.draw(rank, options.device))
    repeats, seconds = (1, 0.0) if options.small else (5, 0.4)
    rows = []
    for name in ("highest", "high", "medium"):
        with precision.switched(name):
            operations = {"log-likelihood": ours.evaluate, "training step": trainer(ours)}
            found = interleaved(operations, repeats=repeats, device=options.device, seconds=seconds)
        rows.append({"rank": rank, "products": name, **{f"{key}, ms": value for key, value in found.items()}})
    return rows
