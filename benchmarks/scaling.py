"""How does the cost of a ring and of a train grow with the number of columns and with the rank?

The cost of a likelihood should be linear in the number of columns for both. In the rank it should grow with the third
power for rings and with the second for trains, at large ranks, where arithmetic dominates. *Slopes* are exponents,
fitted in logarithms to the upper half of each curve. Times are the minimum of several calls. *Operations* are those of
the likelihood's products, 2 · rows · Σ m m' (cut + N). Products of larger matrices run at a higher rate, which flattens
the rings' curve over the rank. At rank 512 the train's cores (126 MB) exceed the cache, which bends its curve upwards.

Sampling uses a ring that stays the same. It keeps its tree of products and the weights of components, as long as each
is at most 2²⁴ numbers, which is up to some 16 000 columns here; their cost is not in these times. Beyond that,
components are drawn column by column, and the times jump. Trains of rank 256 and more are swept instead.
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch

import ringdist as rd

from . import report
from .measure import interleaved

Topology = Literal["ring", "train"]
COMPONENTS, BATCH = 10, 32
NUM_COLUMNS = [30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000]
RANK_THEN = 10  # while the number of columns grows
RANKS = {"ring": [8, 16, 32, 64, 128, 256, 512], "train": [16, 32, 64, 128, 256, 512]}
COLUMNS_THEN = 12  # while the rank grows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--columns", type=int, nargs="+", default=NUM_COLUMNS, help=f"at rank {RANK_THEN}")
    parser.add_argument("--ranks", type=int, nargs="+", help=f"with {COLUMNS_THEN} columns; default: {RANKS}")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    env = report.environment(args.device)
    curves: dict[str, list[dict[str, Any]]] = {"columns": [], "rank": []}
    for topology in get_args(Topology):
        for columns in args.columns:
            row = {"topology": topology, "columns": columns, "rank": RANK_THEN}
            curves["columns"].append(row | measure(topology, columns, RANK_THEN, args))
        for rank in args.ranks or RANKS[topology]:
            row = {"topology": topology, "columns": COLUMNS_THEN, "rank": rank}
            curves["rank"].append(row | measure(topology, COLUMNS_THEN, rank, args))
        print(f"{topology} done", flush=True)
    sections = {
        "Slopes": slopes(curves),
        "Growing number of columns": curves["columns"],
        "Growing rank": curves["rank"],
    }
    report.write(args.out, "scaling", "Scaling", __doc__ or "", sections, env, figure(curves))


@torch.no_grad()
def measure(topology: Topology, columns: int, rank: int, args: argparse.Namespace) -> dict[str, float]:
    """Least milliseconds of one log-likelihood and one drawing of a batch; the former for a million operations too."""
    ring = build(topology, columns, rank, args.device)
    x = ring.sample(BATCH, rng=1)
    engine: Any = "sweep" if args.device == "cpu" else "auto"
    operations = {
        "log-likelihood, ms": lambda: ring.log_prob(x, engine=engine),
        "sampling, ms": lambda: ring.sample(BATCH, rng=1),
    }
    # What else the machine does only adds time, and would bend the curves: the least time is the one that scales.
    times = interleaved(operations, repeats=args.repeats, device=args.device, seconds=1.0, statistic=min)
    cut = min(ring.ranks)
    work = 2 * BATCH * sum(left * right * (cut + COMPONENTS) for _, left, right in (core.shape for core in ring.cores))
    return times | {"log-likelihood, µs per 10⁶ operations": times["log-likelihood, ms"] / work * 1e9}


def build(topology: Topology, columns: int, rank: int, device: str, **core: Any) -> rd.TensorRing:
    """A random ring; what is said of `core` goes to `TensorRing.random`.

    On a GPU its values are not checked: that would wait for the device, once for every column.
    """
    means, stds = torch.linspace(-5, 5, COMPONENTS), torch.ones(COMPONENTS)
    variables = [rd.GaussianMixture(means, stds) for _ in range(columns)]
    ring = rd.TensorRing.random(variables, rank, topology=topology, rng=0, xp=torch, dtype=torch.float32, **core)
    if device == "cpu":
        return ring
    variables = [rd.GaussianMixture(means.to(device), stds.to(device), validate=False) for _ in range(columns)]
    return rd.TensorRing([_moved(core, device) for core in ring.cores], variables, validate=False)


def _moved(core: Any, device: str) -> Any:
    if isinstance(core, torch.Tensor):
        return core.to(device)
    return core.with_arrays({name: array.to(device) for name, array in core.arrays().items()})


def slopes(curves: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    expected = {("columns", "ring"): 1, ("columns", "train"): 1, ("rank", "ring"): 3, ("rank", "train"): 2}
    return [
        {
            "topology": topology,
            "cost in": axis,
            "expected power": power,
            "log-likelihood": slope(*curve(curves[axis], topology, axis, "log-likelihood, ms")),
            "sampling": slope(*curve(curves[axis], topology, axis, "sampling, ms")),
        }
        for (axis, topology), power in expected.items()
    ]


def curve(rows: list[dict[str, Any]], topology: str, axis: str, quantity: str) -> tuple[list[float], list[float]]:
    rows = [row for row in rows if row["topology"] == topology]
    return [row[axis] for row in rows], [row[quantity] for row in rows]


def slope(sizes: Sequence[float], times: Sequence[float]) -> float | None:
    """The power of the size that the upper half of the times follows."""
    half = len(sizes) // 2
    if len(sizes) - half < 2:
        return None
    return float(np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)[0])


def figure(curves: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9, 7))
    for row_of_axes, (axis, rows) in zip(fig.subplots(2, 2), curves.items(), strict=True):
        for axes, quantity in zip(row_of_axes, ("log-likelihood, ms", "sampling, ms"), strict=True):
            for topology in get_args(Topology):
                sizes, times = curve(rows, topology, axis, quantity)
                power = slope(sizes, times)
                (line,) = axes.loglog(sizes, times, "o", label=f"{topology}: power {power or math.nan:.2f}")
                if power is not None:
                    upper = sizes[len(sizes) // 2 :]
                    fitted = [times[-1] * (size / sizes[-1]) ** power for size in upper]
                    axes.loglog(upper, fitted, "-", color=line.get_color(), alpha=0.5)
            axes.set(xlabel="columns" if axis == "columns" else "rank", ylabel=quantity)
            axes.legend()
    fig.tight_layout()
    return fig
