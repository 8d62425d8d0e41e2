"""Where does the time of a ring go, and how far is it from the floor?

The setting is that of the paper's Table 5 (100 columns, 10 Gaussians each, 128 rows, float32). All calls start from the
parameters, as those of `python -m benchmarks speed` do: ring and normaliser are made anew. The floor has three parts.
*Arithmetic* is the operations of a full ring's products at the rate of PyTorch's own batched products of 100 x 100.
*Memory* is the cores read once and one matrix per row and column written and read once, at the bandwidth of a copy.
*Calls* is the number of library calls times the time of the smallest one. The first two count what the rows need, not
the making of ring and normaliser.

The other columns split the measured time by PyTorch's profiler: *products*, all other *array operations*, and *Python*
(everything outside of them). The profiler slows calls down, so the shares of array operations and Python are slightly
too large at low ranks. A training step counts as three times the products of the log-likelihood. Sampling has no such
floor, because it works on the ring's own tree of products and not on rows. *Before* is the first working version of
this library (commit f5e2bae), run on the same machine minutes earlier. At rank 100 its training step is faster: it
stored all products, which are now recomputed to save memory.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import report
from .measure import interleaved
from .rivals import BATCH, COLUMNS, COMPONENTS, Ours, Start, trainer
from .speed import batched_product

PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings behind a median")
    parser.add_argument("--before", type=Path, help="profile.json of an earlier version, for a column beside ours")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    before = json.loads(args.before.read_text())["results"] if args.before else {}
    sections: dict[str, list[Row]] = {}
    limits = {
        "products, GFLOP/s": product_rate(args.device, args.repeats),
        "copy, GB/s": bandwidth(args.device, args.repeats),
        "smallest call, µs": call(args.device, args.repeats),
    }
    for rank in args.ranks:
        ours = Ours(Start.draw(rank, args.device))
        floors = {"Log-likelihood": 1, "Training step": 3, "Sampling": 0}
        calls = {"Log-likelihood": ours.evaluate, "Training step": trainer(ours), "Sampling": ours.sample}
        for head, operation in calls.items():
            row = {"rank": rank, **split(operation, args.device, args.repeats)}
            if floors[head]:
                row |= floor(rank, floors[head], row["calls"], *limits.values())
            earlier = next((old for old in before.get(head, []) if old["rank"] == rank), None)
            if earlier:
                row |= {"before, ms": earlier["ms"], "before, calls": earlier["calls"]}
            sections.setdefault(head, []).append(row)
    sections["Limits of the machine"] = [limits]
    env = report.environment(args.device)
    report.write(args.out, "profile", "Where the time goes", __doc__ or "", sections, env, figure(sections))


def split(operation: Callable[[], object], device: str, repeats: int) -> Row:
    """Milliseconds of a call, its library calls, and the shares of products, of other array operations, of the rest."""
    from torch.profiler import ProfilerActivity, profile

    milliseconds = interleaved({"it": operation}, repeats=repeats, device=device)["it"]
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=kinds) as profiled:
        begin = time.perf_counter()
        operation()
        if device == "cuda":
            torch.cuda.synchronize()
        total = 1e6 * (time.perf_counter() - begin)
    events = [event for event in profiled.key_averages() if event.key.startswith("aten::")]
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    spent = {event.key: getattr(event, own) for event in events}
    products = sum(value for key, value in spent.items() if key in PRODUCTS)
    others = sum(spent.values()) - products
    return {
        "ms": milliseconds,
        "products": f"{products / total:.0%}",
        "array operations": f"{others / total:.0%}",
        "Python": f"{max(0.0, 1 - (products + others) / total):.0%}",
        "calls": sum(event.count for event in events if spent[event.key] > 0),
    }


def floor(rank: int, times: int, calls: int, rate: float, copy: float, smallest: float) -> Row:
    """The three parts of the floor in milliseconds."""
    operations = 2 * BATCH * COLUMNS * rank**2 * (rank + COMPONENTS)
    numbers = COLUMNS * rank**2 * (COMPONENTS + 2 * BATCH)
    return {
        "arithmetic, ms": times * operations / rate / 1e6,
        "memory, ms": times * 4 * numbers / copy / 1e6,
        "calls, ms": calls * smallest / 1e3,
    }


def product_rate(device: str, repeats: int, rank: int = 100) -> float:
    """Operations per nanosecond of batched products."""
    milliseconds = interleaved({"it": batched_product(rank, device)}, repeats=repeats, device=device)["it"]
    return 2 * BATCH * COLUMNS * rank**3 / milliseconds / 1e6


def bandwidth(device: str, repeats: int) -> float:
    """Bytes per nanosecond, read and written, of a copy that no cache holds."""
    source, target = torch.zeros(2, 2**26, device=device)
    copy = functools.partial(target.copy_, source)
    return 2 * 4 * 2**26 / interleaved({"it": copy}, repeats=repeats, device=device)["it"] / 1e6


def call(device: str, repeats: int) -> float:
    """Microseconds of an operation on one number."""
    number = torch.zeros(1, device=device)

    def thousand() -> None:
        for _ in range(1000):
            torch.add(number, number, out=number)

    return interleaved({"it": thousand}, repeats=repeats, device=device)["it"]


def figure(sections: dict[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    heads = [head for head in sections if "Limits" not in head]
    fig = Figure(figsize=(4 * len(heads), 3), layout="constrained")
    for axes, head in zip(fig.subplots(1, len(heads)), heads, strict=True):
        rows, below = sections[head], [0.0] * len(sections[head])
        places = range(len(rows))
        for part in ("products", "array operations", "Python"):
            heights = [float(row[part].rstrip("%")) for row in rows]
            axes.bar(places, heights, bottom=below, label=part)
            below = [a + b for a, b in zip(below, heights, strict=True)]
        axes.set_xticks(places, [f"{row['rank']}\n{report.cell(row['ms'])} ms" for row in rows])
        axes.set(title=head, xlabel="rank", ylabel="% of time")
    fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
