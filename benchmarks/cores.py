"""What do CP cores gain over dense cores of the same ranks, and over the paper's official code?

The setting is that of the page Speed: 100 columns, 10 Gaussians each, 128 rows, float32. A CP core has as many hidden
states as its rank, c = m, and an identity as its left factor where possible: a hidden Markov model. *Log-likelihood*
uses a ring made beforehand. *Training step* starts from the parameters and uses Adam. Calls of all candidates of a row
alternate. *Memory* is the peak of two training steps on top of model and data, in a process of its own. *Floor* is the
least that is needed: parameters, gradients, two moments of Adam, and the states of all rows (d b r m numbers).

*Switching* compares training steps of the prior `TRIP` (40 latents, 128 codes drawn from it, Gaussians of their own for
all hidden states), whose transitions are matrices or diag(stay) + leave enterᵀ, and of a mixture with as many
components.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import ringdist as rd

from . import reference, report, rivals
from .measure import default_device, in_fresh_process, interleaved, memory_mark, memory_peak

RANKS = {"train": (20, 100, 512), "ring": (20, 100)}
LATENTS = 40
STATES = (64, 128, 304, 600)  # of switching cores
DENSE_UP_TO = 100  # dense cores of rank 512 are a gigabyte
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", type=Path, metavar="PATH", help="a checkout of insilicomedicine/TRIP")
    parser.add_argument("--ranks", type=int, nargs="+", help="of trains and rings, in place of 20, 100 and 512")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings behind a median")
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice by default")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    device = default_device() if args.device == "auto" else args.device
    env = report.environment(device)
    sections: dict[str, list[Row]] = {"Log-likelihood": [], "Training step": [], "Peak memory of a training step": []}
    for topology, ranks in RANKS.items():
        for rank in args.ranks or ranks:
            for head, row in compared(topology, rank, device, args.repeats, args.reference).items():
                sections[head].append(row)
                print(report.table([{head: "", **row}]), flush=True)
    for states in STATES if args.ranks is None else args.ranks:
        row = switching(states, device, args.repeats)
        sections.setdefault("Switching", []).append(row)
        print(report.table([{"Switching": "", **row}]), flush=True)
    report.write(args.out, "cores", "CP cores", __doc__ or "", sections, env, figure(sections))


def compared(topology: str, rank: int, device: str, repeats: int, checkout: Path | None) -> dict[str, Row]:
    """A row for each section."""
    kinds = ["cp", "dense"] if rank <= DENSE_UP_TO else ["cp"]
    models = {kind: Model(topology, rank, kind, device) for kind in kinds}
    timings = functools.partial(interleaved, repeats=repeats, device=device)
    place = {"topology": topology, "rank": rank}
    asked = {kind: model.evaluate for kind, model in models.items()}
    if rank > DENSE_UP_TO:
        asked["dense, rank 100"] = Model(topology, DENSE_UP_TO, "dense", device).evaluate
    elif checkout and rank == DENSE_UP_TO:
        official = rivals.Reference(rivals.Start.draw(rank, device), reference.load(checkout))
        asked["official ring"] = official.evaluate
    likelihood = timings(asked)
    columns = ("cp", "dense", "official ring", "dense, rank 100")
    training = timings({kind: rivals.trainer(model) for kind, model in models.items()})
    memory = {kind: in_fresh_process(peak_memory, topology, rank, kind, device) for kind in kinds}
    return {
        "Log-likelihood": place | in_units({name: likelihood.get(name) for name in columns}, "ms") | ratios(likelihood),
        "Training step": place | in_units(training, "ms") | ratios(training),
        "Peak memory of a training step": place | in_units(memory, "MB") | floors(models),
    }


def switching(states: int, device: str, repeats: int) -> Row:
    """Training steps of priors with so many hidden states, or components."""
    from adapters import TRIP, GaussianMixturePrior

    def step(prior: Any) -> Callable[[], object]:
        codes = prior.to(device).sample(128)
        model: Any = SimpleNamespace(parameters=[*prior.parameters()], log_prob=lambda: prior.log_prob(codes))
        return rivals.trainer(model)

    options: Any = {"rank": states, "private_components": True, "seed": 0}
    priors = {
        "matrices": TRIP(LATENTS, core="cp", **options),
        "switching": TRIP(LATENTS, core="switching", **options),
        "mixture": GaussianMixturePrior(LATENTS, states, seed=0),
    }
    times = interleaved({name: step(prior) for name, prior in priors.items()}, repeats=repeats, device=device)
    ratio = {"matrices / switching": times["matrices"] / times["switching"]}
    return {"states": states} | in_units({**times}, "ms") | ratio


class Model:
    """A ring of random cores, and the parameters it can be made of anew."""

    def __init__(self, topology: Any, rank: int, kind: Any, device: str) -> None:
        start = rivals.Start.draw(1, device)
        self.x = start.x
        parameters = zip(start.means, start.log_stds, strict=True)
        gaussians = [rd.GaussianMixture(mean, log_std.exp()) for mean, log_std in parameters]
        self.ring = rd.TensorRing.random(
            gaussians, rank, topology=topology, core=kind, rng=0, xp=torch, dtype=torch.float32, device=device
        )
        self.factors = [
            {name: array.clone().requires_grad_() for name, array in _arrays(core).items()} for core in self.ring.cores
        ]
        self.parameters = [factor for factors in self.factors for factor in factors.values()]

    @torch.no_grad()
    def evaluate(self) -> torch.Tensor:
        return self.ring.log_prob(self.x)

    def log_prob(self) -> torch.Tensor:
        cores = [_core({name: factor.abs() for name, factor in factors.items()}) for factors in self.factors]
        ring = rd.TensorRing(cores, self.ring.variables, self.ring.order, validate=False, copy=False)
        return ring.log_prob(self.x)

    @property
    def states(self) -> int:
        """Numbers in the states of all rows."""
        return len(self.x) * min(self.ring.ranks) * sum(self.ring.ranks)


def _arrays(core: Any) -> dict[str, torch.Tensor]:
    return core.arrays() if isinstance(core, rd.CPCore) else {"": core}


def _core(arrays: dict[str, torch.Tensor]) -> Any:
    return arrays[""] if "" in arrays else rd.CPCore(**arrays)


def peak_memory(topology: str, rank: int, kind: str, device: str) -> float:
    """Megabytes that the first training steps take on top of model and data."""
    rivals.trainer(Model(topology, 2, kind, device))()  # libraries allocate their own buffers once
    step = rivals.trainer(Model(topology, rank, kind, device))
    before = memory_mark(device)
    step()
    step()
    return (memory_peak(device) - before) / 1e6


def in_units(values: dict[str, float | None], unit: str) -> Row:
    return {f"{name}, {unit}": value for name, value in values.items()}


def ratios(times: dict[str, float]) -> Row:
    """How many times as fast CP cores are."""
    rivals = {name: times.get(name) for name in ("dense", "official ring", "dense, rank 100")}
    return {f"{name} / cp": value and value / times["cp"] for name, value in rivals.items()}


def floors(models: dict[str, Model]) -> Row:
    """Megabytes of gradients and moments (three times the parameters) and states."""
    cp = models["cp"]
    return {"floor of cp, MB": 4e-6 * (3 * sum(p.numel() for p in cp.parameters) + cp.states)}


def figure(sections: dict[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12, 3.5), layout="constrained")
    heads = [head for head in sections if head != "Switching"]
    for axes, (head, rows) in zip(fig.subplots(1, len(heads)), ((h, sections[h]) for h in heads), strict=True):
        unit = "MB" if "memory" in head else "ms"
        for topology in RANKS:
            for kind in ("cp", "dense"):
                points = [
                    (row["rank"], row[f"{kind}, {unit}"])
                    for row in rows
                    if row["topology"] == topology and row.get(f"{kind}, {unit}") is not None
                ]
                axes.loglog(*zip(*points, strict=True), "o-" if kind == "cp" else "s--", label=f"{topology}, {kind}")
        axes.set(title=head, xlabel="rank", ylabel=unit)
        ranks = sorted({row["rank"] for row in rows})
        axes.set_xticks(ranks, labels=[str(rank) for rank in ranks])
        axes.set_xticks([], minor=True)
        axes.legend()
    return fig
