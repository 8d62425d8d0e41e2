"""How fast is a ring, and how much memory does training it need, beside the paper's official code?

The setting is that of the paper's Table 5: 100 columns, 10 Gaussians each, 128 rows, float32. Both sides hold the same
parameters, see the same rows and use the same optimiser. Calls alternate, and medians are compared. All calls start
from the parameters: *ours* makes the ring and its normaliser anew each time, as the reference does. *Fixed ring* is
made beforehand and keeps log Z and its sampling tree between calls; it is not part of any ratio. Gradients are computed
in training steps only. Before the timing, the log-densities of both sides are compared.

*Bare ratio* is the ratio that a program would reach that only formed a full ring's matrices and multiplied them, one
column at a time, by PyTorch's own products into preallocated memory: no densities, no scaling, no guard against
underflow. *Goal* is the intended multiple of the reference's speed, *goal share* the intended share of the rate of
PyTorch's batched products. *Peak memory* includes gradients and the optimiser's state, 120 MB of ours at rank 100,
which the page Memory leaves out.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from . import report
from .measure import default_device, in_fresh_process, interleaved, memory_mark, memory_peak
from .rivals import BATCH, COLUMNS, COMPONENTS, FixedRing, agreement, build, trainer

RANKS = 1, 10, 20, 50, 100
# How many times the reference's speed, on two CPU cores and on one GPU of the H200's class.
GOALS: dict[str, dict[str, dict[int, float]]] = {
    "cpu": {
        "Log-likelihood": {1: 5, 10: 5, 20: 3.5, 50: 2.5, 100: 3.5},
        "Sampling": {20: 30, 100: 200},
        "Training step": {1: 4, 10: 4, 20: 4, 50: 3},
    },
    "cuda": {
        "Log-likelihood": {1: 50, 10: 50, 20: 50, 100: 10},
        "Sampling": dict.fromkeys((1, 10, 20, 50, 100), 200),
        "Training step": {1: 30, 10: 30, 20: 30},
    },
}
RATE_GOAL = {"cpu": {100: 0.7}, "cuda": {100: 0.5}}  # of the batched product rate, for the log-likelihood


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", type=Path, metavar="PATH", help="a checkout of insilicomedicine/TRIP")
    parser.add_argument("--ranks", type=int, nargs="+")
    parser.add_argument("--core", choices=["dense", "cp"], default="dense", help="cp: CP cores beside dense ones")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings behind a median")
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice by default")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    if args.core == "cp":
        from . import cores

        return cores.main(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = default_device() if args.device == "auto" else args.device
    env = report.environment(device)
    heads = GOALS[device]
    sections: dict[str, list[dict[str, Any]]] = {
        head: [] for head in (*heads, "Peak memory of a training step", "Agreement with the reference")
    }
    for rank in args.ranks or RANKS:
        models = build(rank, device, args.reference)
        timings = functools.partial(interleaved, repeats=args.repeats, device=device)
        products = {
            "batched": batched_product(rank, device),
            "single": single_product(rank, device),
            "bare": bare_sweep(rank, device),
        }
        goals = {head: goal.get(rank) for head, goal in heads.items()}
        if args.reference:
            sections["Agreement with the reference"].append({"rank": rank, **agreement(models)})

        asked = models | {"fixed ring": FixedRing(models["ours"])}
        times = timings({name: model.evaluate for name, model in asked.items()} | products)
        rates = efficiency(rank, times, RATE_GOAL[device].get(rank))
        sections["Log-likelihood"].append(compared(rank, times, goals["Log-likelihood"]) | rates)
        times = timings({name: model.sample for name, model in asked.items()})
        sections["Sampling"].append(compared(rank, times, goals["Sampling"]))
        times = timings({name: trainer(model) for name, model in models.items()})
        sections["Training step"].append(compared(rank, times, goals["Training step"]))
        if device == "cuda" or sys.platform == "linux":  # elsewhere a process cannot reset its peak
            memory = {name: in_fresh_process(peak_memory, name, rank, device, args.reference) for name in models}
            sections["Peak memory of a training step"].append(compared(rank, memory, None, unit="MB"))
        for head in heads:
            print(report.table([{head: "", **sections[head][-1]}]), flush=True)

    sections = {head: rows for head, rows in sections.items() if rows}
    report.write(args.out, "speed", "Speed", __doc__ or "", sections, env, figure(sections))


# --- what is measured --------------------------------------------------------------------------------------------


def batched_product(rank: int, device: str) -> Callable[[], object]:
    """The products that a sweep cannot avoid, and nothing else."""
    left, right = torch.rand(2, BATCH, rank, rank, device=device)
    return functools.partial(_products, left, right, torch.empty_like(left))


def single_product(rank: int, device: str) -> Callable[[], object]:
    """The same arithmetic, were the right factor the same for every row."""
    left, right = torch.rand(BATCH * rank, rank, device=device), torch.rand(rank, rank, device=device)
    return functools.partial(_products, left, right, torch.empty_like(left))


def bare_sweep(rank: int, device: str) -> Callable[[], object]:
    """Forming the matrices and multiplying them, with nothing else."""
    weights, cores = (
        torch.rand(BATCH, COMPONENTS, device=device),
        torch.rand(COLUMNS, COMPONENTS, rank**2, device=device),
    )
    state, product, matrices = torch.rand(3, BATCH, rank, rank, device=device)

    def sweep() -> None:
        for core in cores:
            torch.mm(weights, core, out=matrices.view(BATCH, -1))
            torch.bmm(state, matrices, out=product)

    return sweep


def _products(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    for _ in range(COLUMNS):
        torch.matmul(left, right, out=out)


def compared(rank: int, values: Mapping[str, float], goal: float | None, unit: str = "ms") -> dict[str, Any]:
    ours, theirs = values["ours"], values.get("reference")
    row: dict[str, Any] = {"rank": rank, f"ours, {unit}": ours}
    if theirs is not None:
        row |= {f"reference, {unit}": theirs, "ratio": theirs / ours}
    if theirs is not None and unit == "ms":
        row |= {"goal": goal, "met": goal and ("yes" if theirs >= goal * ours else "no")}
    if "fixed ring" in values:
        row[f"fixed ring, {unit}"] = values["fixed ring"]
    return row


def efficiency(rank: int, times: Mapping[str, float], goal: float | None) -> dict[str, Any]:
    """Achieved rate by the arithmetic that a full ring needs at least, beside that of bare products."""
    product = 2 * BATCH * COLUMNS * rank**3
    achieved = 2 * BATCH * COLUMNS * rank**2 * (rank + COMPONENTS) / times["ours"] / 1e6
    batched, single = (product / times[name] / 1e6 for name in ("batched", "single"))
    row: dict[str, Any] = {"GFLOP/s": achieved, "batched product": batched, "single product": single}
    if "reference" in times:
        row["bare ratio"] = times["reference"] / times["bare"]
    return row | {"share of batched": achieved / batched, "goal share": goal}


def peak_memory(name: str, rank: int, device: str, checkout: Path | None) -> float:
    """Megabytes that the first training steps take on top of model and data; optimiser state and gradients included."""
    trainer(build(2, device, checkout)[name])()  # libraries allocate their own buffers once
    model = build(rank, device, checkout)[name]
    step = trainer(model)
    before = memory_mark(device)
    step()
    step()
    return (memory_peak(device) - before) / 1e6


# --- the figure --------------------------------------------------------------------------------------------------


def figure(sections: Mapping[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12, 3))
    heads = [head for head in sections if not head.startswith("Agreement")]
    for axes, head in zip(fig.subplots(1, len(heads)), heads, strict=True):
        rows = sections[head]
        unit = "MB" if "memory" in head else "ms"
        for side in ("ours", "reference", "fixed ring"):
            if (key := f"{side}, {unit}") in rows[0]:
                axes.loglog([row["rank"] for row in rows], [row[key] for row in rows], "o-", label=side)
        axes.set(title=head, xlabel="rank", ylabel=unit)
        axes.legend()
    fig.tight_layout()
    return fig
