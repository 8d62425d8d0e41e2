"""How fast does exact EM fit a train, by its size and its kind of core, and beside public libraries?

Log-likelihoods are means in nats. *Units* are the operations of an epoch: n d m² for CP cores and n d N m² for dense
ones (n rows, d columns, rank m, N categories). The cost per unit should not grow along any axis. *Seconds to a given
likelihood* counts the start and the epochs until the training rows reach it. *By function* is the output of Python's
profiler over an epoch: the own time of each function.

Beside public libraries, both sides start from the same parameters and take the same number of steps, in the same
precision and with the same number of threads. Calls alternate, and times are the minimum of all rounds. The hidden
Markov model treats a row as a sequence. hmmlearn works in double precision, the gradient steps in single precision. Of
tensorkrowch's ways to contract a train the fastest is shown. It does not rescale, so the number of columns is small
enough to keep its masses in range. cirkit has no EM, so a step of gradient descent is compared, for the hidden Markov
model with parameters of its own in every column. pyjuice, which has EM for such circuits, needs CUDA: without it, its
forward pass raises an error.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import ringdist as rd

from . import data, em_rivals, report
from .em_rivals import Hmm, Score
from .measure import interleaved

LIBRARIES: dict[str, ModuleType] = {"NumPy": np, "PyTorch": torch}
KINDS = ("cp", "dense")
GOAL = 3.0  # times as fast as a public library
MOST_UNITS = 2e9  # of an epoch that is timed
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--columns", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--categories", type=int, default=4)
    parser.add_argument("--data", type=Path, default=data.SHARED / "density", help="folder of plants.train.data")
    parser.add_argument("--fit-rank", type=int, default=32, help="of the trains that learn Plants")
    parser.add_argument("--target", type=float, default=-12.4, help="mean log-likelihood of the rows they learn")
    parser.add_argument("--max-epochs", type=int, default=40, help="for that target")
    parser.add_argument("--epochs", type=int, default=3, help="of a timed fit")
    parser.add_argument("--repeats", type=int, default=3, help="rounds behind a time")
    parser.add_argument("--threads", type=int, default=1)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads):
        sections = {f"Cost of an epoch by {axis}": rows for axis, rows in costs(args).items()}
        if (args.data / "plants.train.data").exists():
            sections["Seconds to a given likelihood"] = to_target(args)
        sections |= {f"An epoch by function, {name}": functions(args, xp) for name, xp in LIBRARIES.items()}
        sections["EM of a hidden Markov model"] = against_hmmlearn(args)
        sections["A gradient step"] = against_gradients(args)
        sections["Public libraries"] = [
            {"package": name, "version": em_rivals.installed(name) or "not installed"} for name in em_rivals.PEERS
        ]
    env = report.environment()
    sections = {head: rows for head, rows in sections.items() if rows}
    report.write(args.out, "em", "Speed of EM", __doc__ or "", sections, env, figure(sections))


# --- by size --------------------------------------------------------------------------------------------------------


def costs(args: argparse.Namespace) -> dict[str, list[Row]]:
    """Each axis around the middle of the others."""
    found = {}
    for axis in AXES:
        sizes = [{**middle(args), axis: value} for value in getattr(args, axis)]
        found[axis] = [cost(*size.values(), args) for size in sizes]
        print(report.table(found[axis]), flush=True)
    return found


AXES = ("rows", "columns", "ranks")


def middle(args: argparse.Namespace) -> dict[str, int]:
    values = {axis: sorted(getattr(args, axis)) for axis in AXES}
    return {axis: found[(len(found) - 1) // 2] for axis, found in values.items()}


def cost(n: int, d: int, rank: int, args: argparse.Namespace) -> Row:
    """Milliseconds of an epoch, and nanoseconds per unit, of every kind of core in every library."""
    x = np.random.default_rng(0).integers(args.categories, size=(n, d))
    units = {"cp": n * d * rank**2, "dense": n * d * args.categories * rank**2}
    pairs = {f"{kind}, {name}": (kind, xp) for kind in KINDS for name, xp in LIBRARIES.items()}
    fits = {pair: fit(x, kind, rank, xp, args) for pair, (kind, xp) in pairs.items() if units[kind] <= MOST_UNITS}
    times = interleaved(fits, repeats=args.repeats, device="cpu", seconds=0, statistic=min) if fits else {}
    row: Row = {"rows": n, "columns": d, "rank": rank}
    for pair, (kind, _) in pairs.items():
        milliseconds = times[pair] / args.epochs if pair in times else None
        row[f"{pair}, ms"] = milliseconds
        row[f"{pair}, ns / unit"] = None if milliseconds is None else 1e6 * milliseconds / units[kind]
    return row


def fit(x: np.ndarray, kind: str, rank: int, xp: ModuleType, args: argparse.Namespace) -> Callable[[], object]:
    """Epochs from a random train; the rows do not matter to the cost."""
    start = rd.TensorRing.random(
        [rd.Categorical(args.categories)] * x.shape[1],
        rank,
        topology="train",
        core=kind,
        rng=0,
        xp=xp,
        dtype=xp.float32,
    )
    return lambda: rd.fit_em(start, x, max_epochs=args.epochs)


def to_target(args: argparse.Namespace) -> list[Row]:
    """Plants, in the order by mutual information, from a mixture."""
    x = data.binary(args.data, "plants").train
    variables = [rd.Categorical(2)] * x.shape[1]
    order = rd.ordering.mutual_information(x, variables, topology="train")
    rows: list[Row] = []
    for kind in KINDS:
        for name, xp in LIBRARIES.items():
            begin = time.perf_counter()
            ring = rd.initialize(
                x,
                variables,
                args.fit_rank,
                method="mixture",
                core=kind,
                topology="train",
                order=order,
                rng=0,
                xp=xp,
                dtype=xp.float32,
            )
            started = time.perf_counter()
            history = rd.fit_em(ring, x, max_epochs=args.max_epochs).history["train"]
            ended = time.perf_counter()
            rows.append(
                {
                    "core": kind,
                    "library": name,
                    "rank": args.fit_rank,
                    **reached(history, args.target, started - begin, ended - started),
                }
            )
            print(report.table(rows), flush=True)
    dense = {row["library"]: row["seconds"] for row in rows if row["core"] == "dense"}
    for row in rows:
        both = row["seconds"] and dense[row["library"]]
        row["dense / this"] = dense[row["library"]] / row["seconds"] if both else None
    return rows


def reached(history: Sequence[float], target: float, start: float, seconds: float) -> Row:
    """Epochs and seconds until the target; every epoch costs the same."""
    needed = next((epoch for epoch, value in enumerate(history, 1) if value >= target), None)
    return {
        "start, s": start,
        "s / epoch": seconds / len(history),
        "target": target,
        "epochs": needed,
        "seconds": None if needed is None else start + seconds * needed / len(history),
        f"after {len(history)} epochs": f"{history[-1]:.3f}",
    }


# --- by function ----------------------------------------------------------------------------------------------------


def functions(args: argparse.Namespace, xp: ModuleType, most: int = 8) -> list[Row]:
    """The functions of the largest own time in a fit of CP cores, at the middle of all sizes."""
    n, d, rank = middle(args).values()
    x = np.random.default_rng(0).integers(args.categories, size=(n, d))
    operation = fit(x, "cp", rank, xp, args)
    operation()
    profile = cProfile.Profile()
    profile.runcall(operation)
    stats = pstats.Stats(profile)
    total = stats.total_tt  # type: ignore[attr-defined]
    own = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:most]  # type: ignore[attr-defined]
    return [
        {
            "function": _where(path, name),
            "share": f"{100 * timing[2] / total:.1f}%",
            "calls per epoch": timing[1] / args.epochs,
        }
        for (path, _, name), timing in own
    ]


def _where(path: str, name: str) -> str:
    """Module and function, without the folder that the library lies in."""
    if path == "~":
        return name.strip("<>")
    parts = Path(path).with_suffix("").parts
    top = next((i for i, part in enumerate(parts) if part in ("ringdist", "numpy", "torch")), len(parts) - 1)
    return f"{'.'.join(parts[top:])}.{name}"


# --- beside public libraries ----------------------------------------------------------------------------------------


def against_hmmlearn(args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for rank in args.ranks:
        rng = np.random.default_rng(rank)
        n, d, _ = middle(args).values()
        x = Hmm.draw(rank, args.categories, rng).sample(n, d, rng)
        start = Hmm.draw(rank, args.categories, rng)
        sides: dict[str, Callable[[Hmm, np.ndarray, int], Score]] = {"ringdist": em_rivals.ours}
        if em_rivals.installed("hmmlearn"):
            sides["hmmlearn"] = em_rivals.hmmlearn
        scores = {name: side(start, x, args.epochs)() for name, side in sides.items()}
        fits = {name: _call(side, start, x, args.epochs) for name, side in sides.items()}
        times = interleaved(fits, repeats=args.repeats, device="cpu", seconds=0, statistic=min)
        row: Row = {"rows": n, "columns": d, "states": rank}
        rows.append(row | compared(times, scores, args.epochs))
    return rows


def against_gradients(args: argparse.Namespace, batch: int = 128) -> list[Row]:
    rows: list[Row] = []
    _, d, _ = middle(args).values()
    for rank in args.ranks:
        rng = np.random.default_rng(rank)
        train = em_rivals.Train.draw(d, 2, rank, rng)
        x = rng.integers(2, size=(batch, d))
        sides: dict[str, Callable[[], float]] = {"ringdist": em_rivals.our_train(train, x)}
        if em_rivals.installed("tensorkrowch"):
            sides |= {f"tensorkrowch, {way}": step for way, step in em_rivals.tensorkrowch_steps(train, x).items()}
        rows.append({"model": "train, dense cores", "columns": d, "rank": rank} | stepped(sides, args))

        hmm = Hmm.draw(rank, args.categories, rng)
        x = rng.integers(args.categories, size=(batch, d))
        sides = {"ringdist": em_rivals.our_hmm(hmm, x)}
        if em_rivals.installed("libcirkit"):
            sides["cirkit"] = em_rivals.cirkit_step(hmm, x)
        rows.append({"model": "hidden Markov model, CP cores", "columns": d, "rank": rank} | stepped(sides, args))
    return sorted(rows, key=lambda row: row["model"])


def stepped(sides: Mapping[str, Callable[[], float]], args: argparse.Namespace) -> Row:
    """Our step beside the fastest other one."""
    times = interleaved(sides, repeats=args.repeats, device="cpu", seconds=0, statistic=min)
    fastest = min((name for name in sides if name != "ringdist"), key=times.__getitem__, default=None)
    kept = [name for name in ("ringdist", fastest) if name]
    return compared({name: times[name] for name in kept}, {name: sides[name]() for name in kept}, 1)


def _call(side: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: side(*arguments)


def compared(times: Mapping[str, float], scores: Mapping[str, float], steps: int) -> Row:
    """Milliseconds per step and likelihoods of ours and of at most one other library."""
    other = next((name for name in times if name != "ringdist"), None)
    ratio = times[other] / times["ringdist"] if other else None
    return {
        "ringdist, ms": times["ringdist"] / steps,
        "other": other or "not installed",
        "other, ms": times[other] / steps if other else None,
        "other / ringdist": ratio,
        f"goal {GOAL:g}": None if ratio is None else ("met" if ratio >= GOAL else "not met"),
        "ringdist, nats": f"{scores['ringdist']:.4f}",
        "other, nats": f"{scores[other]:.4f}" if other else None,
    }


def figure(sections: Mapping[str, Sequence[Row]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 3.5))
    panels = fig.subplots(1, 4)
    for axes, (axis, key) in zip(panels, zip(AXES, ("rows", "columns", "rank"), strict=True), strict=False):
        rows = sections[f"Cost of an epoch by {axis}"]
        for kind, marker in zip(KINDS, "os", strict=True):
            for name in LIBRARIES:
                values = [row[f"{kind}, {name}, ns / unit"] or np.nan for row in rows]
                axes.plot([row[key] for row in rows], values, marker=marker, label=f"{kind}, {name}")
        axes.set(xscale="log", yscale="log", xlabel=key, ylabel="ns per unit")
    panels[0].legend(fontsize=8)
    for head, key in (("EM of a hidden Markov model", "states"), ("A gradient step", "rank")):
        for model in dict.fromkeys(row.get("model", head) for row in sections[head]):
            rows = [row for row in sections[head] if row.get("model", head) == model and row["other / ringdist"]]
            if rows:
                other = rows[0]["other"].partition(",")[0]
                panels[3].plot([row[key] for row in rows], [row["other / ringdist"] for row in rows], "o-", label=other)
    panels[3].axhline(GOAL, color="grey", linestyle="--", label="goal")
    panels[3].set(xscale="log", xlabel="rank", ylabel="times as fast")
    panels[3].legend(fontsize=8)
    fig.tight_layout()
    return fig
