"""How the cost grows up to 100 000 columns and up to rank 512, for rings, trains and CP cores."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .. import scaling
from .rings import KINDS
from .session import Item, Options, Session

COLUMNS = (1000, 100_000, 100, 10_000)
RANKS = (128, 512, 32)
OPERATIONS = ("log-likelihood", "sampling")
SMALL = {"columns": (5, 20), "ranks": (2, 3)}
Row = dict[str, Any]


def items(session: Session) -> Iterable[Item]:
    """The ends of the curves come last: what is before them fits into any time."""
    options = session.options
    columns, ranks = (SMALL["columns"], SMALL["ranks"]) if options.small else (COLUMNS, RANKS)
    for axis, sizes in (("rank", ranks), ("columns", columns)):
        for size in sizes:
            for kind in KINDS:
                for topology, name in itertools.product(("ring", "train"), OPERATIONS):
                    measurement = functools.partial(measure, options, axis, size, topology, kind, name)
                    yield Item(f"scaling, {name}, {axis} {size}, {topology}, {kind}", measurement)


def measure(options: Options, axis: str, size: int, topology: Any, kind: str, name: str) -> list[Row]:
    columns, rank = (size, scaling.RANK_THEN) if axis == "columns" else (scaling.COLUMNS_THEN, size)
    ring = build(topology, columns, rank, options.device, kind)
    x = torch.randn(scaling.BATCH, columns, generator=torch.Generator().manual_seed(1)).to(options.device)
    operations = {"log-likelihood": lambda: ring.log_prob(x), "sampling": lambda: ring.sample(scaling.BATCH, rng=1)}
    milliseconds = least(operations[name], options.device, 0.0 if options.small else 0.4)
    place = {"axis": axis, "topology": topology, "cores": kind, "columns": columns, "rank": rank}
    return [place | {f"{name}, ms": milliseconds}]


@functools.lru_cache(maxsize=1)
def build(topology: Any, columns: int, rank: int, device: str, kind: str) -> Any:
    """The ring, kept for the next measurement: that of a long one takes seconds to make."""
    core = {} if kind == "dense" else {"core": kind}
    return scaling.build(topology, columns, rank, device, **core)


@torch.no_grad()
def least(operation: Callable[[], object], device: str, seconds: float) -> float:
    """Least milliseconds of at least two calls after a first one, which may take long."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    operation()
    end, times = time.monotonic() + seconds, []
    while len(times) < 2 or time.monotonic() < end:
        synchronize()
        begin = time.perf_counter()
        operation()
        synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return min(times)
