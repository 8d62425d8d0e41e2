"""Sweep beside tree, eager and as a graph: what the choice of an engine on an accelerator rests on."""

import functools
from collections.abc import Iterable
from typing import Any

import torch

import ringdist as rd

from .. import rivals
from ..measure import interleaved
from . import graphs
from .session import Item, Options, Session

RANKS, SMALL_RANKS = (20, 50, 100), (3,)
KINDS = (("dense", "ring"), ("dense", "train"), ("cp", "train"))
Row = dict[str, Any]


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for rank in SMALL_RANKS if options.small else RANKS:
        for core, topology in KINDS:
            measurement = functools.partial(measure, options, rank, core, topology)
            yield Item(f"engines, {core} {topology}, rank {rank}", measurement)


@torch.no_grad()
def measure(options: Options, rank: int, core: Any, topology: Any) -> list[Row]:
    """Milliseconds of a likelihood of an unchecked ring in the setting of the speed page."""
    start = rivals.Start.draw(rank, options.device)
    gaussians = [rd.GaussianMixture(mean.cpu(), torch.ones(len(mean))) for mean in start.means]
    checked = rd.TensorRing.random(
        gaussians, rank, topology=topology, core=core, rng=0, xp=torch, dtype=torch.float32, device=options.device
    )
    ring = rd.TensorRing(checked.cores, checked.variables, checked.order, validate=False)
    row: Row = {"rank": rank, "cores": core, "topology": topology}
    operations = {name: functools.partial(ring.log_prob, start.x, engine=name) for name in ("sweep", "tree", "auto")}
    repeats, seconds = (1, 0.0) if options.small else (5, 0.3)
    times = interleaved(operations, repeats=repeats, device=options.device, seconds=seconds)
    row |= {f"{name}, ms": value for name, value in times.items()}
    if options.device == "cuda":
        for name in ("sweep", "tree"):
            replay, _ = graphs.capture(operations[name])
            replayed = interleaved({"it": replay}, repeats=5, device="cuda", seconds=0.2)["it"]
            row[f"{name} in a graph, ms"] = replayed
    return [row]
