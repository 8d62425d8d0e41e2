"""How the cost grows up to 100 000 columns and up to rank 512, for rings, trains and CP cores."""

import argparse
import functools
from collections.abc import Iterable
from typing import Any

from .. import scaling
from .rings import core_kinds
from .session import Item, Options, Session

COLUMNS = (1000, 100_000, 100, 10_000)
RANKS = (128, 512, 32)
SMALL = {"columns": (5, 20), "ranks": (2, 3)}
Row = dict[str, Any]


def items(session: Session) -> Iterable[Item]:
    """The ends of the curves come last: what is before them fits into any time."""
    options = session.options
    columns, ranks = (SMALL["columns"], SMALL["ranks"]) if options.small else (COLUMNS, RANKS)
    for axis, sizes in (("rank", ranks), ("columns", columns)):
        for size in sizes:
            for topology in ("ring", "train"):
                for kind in core_kinds():
                    name = f"scaling, {axis} {size}, {topology}, {kind}"
                    yield Item(name, functools.partial(measure, options, axis, size, topology, kind))


def measure(options: Options, axis: str, size: int, topology: Any, kind: str) -> list[Row]:
    place = {"columns": size, "rank": scaling.RANK_THEN} if axis == "columns" else {}
    place = place or {"columns": scaling.COLUMNS_THEN, "rank": size}
    args = argparse.Namespace(device=options.device, repeats=2, seconds=0.0 if options.small else 0.4)
    core = {} if kind == "dense" else {"core": kind, "inner": place["rank"]}
    found = scaling.measure(topology, place["columns"], place["rank"], args, **core)
    return [{"axis": axis, "topology": topology, "cores": kind, **place, **found}]
