"""Ours beside the official code as in the paper's Table 5: dense and CP cores, eager and in graphs."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

import ringdist as rd

from .. import profile, rivals, speed
from ..measure import interleaved, memory_mark, memory_peak
from . import graphs
from .rings import KINDS
from .session import Item, Options, Session

RANKS, SMALL_RANKS = (20, 100, 1, 10, 50), (2, 3)
SECONDS = 0.6  # of each comparison at least
Row = dict[str, Any]


class OursCP(rivals.Ours):
    """The same ring with cores in canonical polyadic form, as many hidden states as the rank."""

    def __init__(self, start: rivals.Start) -> None:
        super().__init__(start)
        generator = torch.Generator().manual_seed(0)
        (size, rank, _), device = start.roots[0].shape, start.x.device
        shapes = {"left": (rank, rank), "emission": (size, rank), "right": (rank, rank)}
        self.factors = [
            {
                name: (torch.rand(shape, generator=generator) / shape[0]).to(device).requires_grad_()
                for name, shape in shapes.items()
            }
            for _ in start.roots
        ]
        self.cores = [factor for factors in self.factors for factor in factors.values()]
        self.parameters = [*self.cores, *self.means, *self.log_stds]

    def ring(self, *, copy: bool = False) -> Any:
        cores = [rd.CPCore(**{name: array.abs() for name, array in f.items()}) for f in self.factors]
        gaussians = zip(self.means, self.log_stds, strict=True)
        variables = [rd.GaussianMixture(mean, log_std.exp(), validate=False) for mean, log_std in gaussians]
        return rd.TensorRing(cores, variables, validate=False, copy=copy)


def items(session: Session) -> Iterable[Item]:
    options = session.options
    yield Item("limits of the machine", functools.partial(limits, options))
    for rank in SMALL_RANKS if options.small else RANKS:
        for kind in KINDS:
            tasks = functools.partial(models, options, rank, kind)
            yield Item(f"log-likelihood, {kind}, rank {rank}", functools.partial(likelihood, options, rank, tasks))
            yield Item(f"sampling, {kind}, rank {rank}", functools.partial(sampling, options, rank, tasks))
            yield Item(f"training step, {kind}, rank {rank}", functools.partial(training, options, rank, tasks))
            yield Item(f"peak memory, {kind}, rank {rank}", functools.partial(memory, rank, tasks, options.device))
            if options.device == "cuda":
                for name in ("log-likelihood", "sampling", "training step"):
                    replay = functools.partial(replayed, rank, tasks, name)
                    yield Item(f"{name} in a graph, {kind}, rank {rank}", replay)


def limits(options: Options) -> list[Row]:
    """The rates that nothing here can be faster than."""
    repeats = 1 if options.small else 3
    return [
        {
            "products, GFLOP/s": profile.product_rate(options.device, repeats, rank=8 if options.small else 100),
            "copy, GB/s": None if options.small else profile.bandwidth(options.device, repeats),
            "smallest call, µs": profile.call(options.device, repeats),
        }
    ]


def models(options: Options, rank: int, kind: str) -> dict[str, Any]:
    """Ours of this kind and, beside dense cores, the official code."""
    found = rivals.build(rank, options.device, options.reference if kind == "dense" else None)
    return found if kind == "dense" else {"ours": OursCP(rivals.Start.draw(rank, options.device))}


Tasks = Callable[[], dict[str, Any]]


def likelihood(options: Options, rank: int, tasks: Tasks) -> list[Row]:
    sides = tasks()
    agreed = rivals.agreement(sides) if "reference" in sides else {}
    operations = {name: side.evaluate for name, side in sides.items()}
    operations |= {
        "fixed ring": rivals.FixedRing(sides["ours"]).evaluate,
        "batched": speed.batched_product(rank, options.device),
        "single": speed.single_product(rank, options.device),
        "bare": speed.bare_sweep(rank, options.device),
    }
    times = timed(options, operations)
    rates = speed.efficiency(rank, times, speed.RATE_GOAL[options.device].get(rank))
    return [speed.compared(rank, times, goal(options, "Log-likelihood", rank)) | rates | agreed]


def sampling(options: Options, rank: int, tasks: Tasks) -> list[Row]:
    sides = tasks()
    operations = {name: side.sample for name, side in sides.items()}
    operations["fixed ring"] = rivals.FixedRing(sides["ours"]).sample
    return [speed.compared(rank, timed(options, operations), goal(options, "Sampling", rank))]


def training(options: Options, rank: int, tasks: Tasks) -> list[Row]:
    operations = {name: rivals.trainer(side) for name, side in tasks().items()}
    return [speed.compared(rank, timed(options, operations), goal(options, "Training step", rank))]


def memory(rank: int, tasks: Tasks, device: str) -> list[Row]:
    """Megabytes of two training steps on top of model and data, gradients and the optimiser's state included."""
    found = {}
    for name in tasks():
        step = rivals.trainer(tasks()[name])
        before = memory_mark(device)
        step()
        step()
        found[name] = (memory_peak(device) - before) / 1e6
    return [speed.compared(rank, found, None, unit="MB")]


def replayed(rank: int, tasks: Tasks, name: str) -> list[Row]:
    """Ours as a captured graph, replayed: what is left when the host has nothing to do."""
    ours = tasks()["ours"]
    operations = {"log-likelihood": ours.evaluate, "sampling": ours.sample}
    step = graphs.training_step(ours.log_prob, ours.parameters)
    replay, _ = graphs.capture(operations.get(name, step))
    return [{"rank": rank, "graph, ms": interleaved({"it": replay}, repeats=5, device="cuda", seconds=0.3)["it"]}]


def timed(options: Options, operations: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of each."""
    repeats, seconds = (1, 0.0) if options.small else (5, SECONDS)
    return interleaved(operations, repeats=repeats, device=options.device, seconds=seconds)


def goal(options: Options, head: str, rank: int) -> float | None:
    return speed.GOALS[options.device][head].get(rank)
