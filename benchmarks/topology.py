"""When is a ring worth its price beside a train?

A ring of rank m against trains of equal parameters, of equal capacity (every cut passes as much) and of equal time per
epoch, on data whose dependence closes a circle and on data whose dependence does not.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ringdist as rd

from . import data, report

PRIOR_ROWS = 2.0  # pseudocounts of a core in all, whatever its rank


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mnist", type=Path, default=data.SHARED / "mnist.npz")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 6], help="of the rings")
    parser.add_argument("--rows", type=int, default=3000, help="training and validation rows")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=2)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    curves = data.digit_curves(args.mnist, args.rows, rng)
    tables = {
        "closed chain": (chain(args.rows, closed=True, rng=rng), 6),
        "digits, closed contour": (curves["closed contour"], 2),
        "open chain": (chain(args.rows, closed=False, rng=rng), 6),
        "digits, open line": (curves["open line"], 2),
    }
    sections: dict[str, list[dict[str, Any]]] = {}
    for name, (rows, categories) in tables.items():
        sections[name] = []
        for rank in args.ranks:
            sections[name] += compared(rows, categories, rank, args)
            print(report.table(sections[name]), flush=True)
    env = report.environment()
    report.write(args.out, "topology", "Ring or train", TEXT, sections, env, figure(sections))


TEXT = """\
Test log-likelihood per row in nats. The epoch and the better of two random starts are chosen on validation rows. The
columns are in their natural order along the chain or the curve, so that only the topology differs. The chains are
Markov chains of 12 columns with 6 values each; a value is kept with probability 0.6. The closed chain is conditioned to
return to its start: it is a ring of rank 6 exactly and a train of rank 36. *Gain* is the log-likelihood of the ring
minus that of the train, with the standard error of the mean difference over test rows. The error does not include the
spread between random starts. Large trains start from random cores like all others, not from `ring.to_train()`, so part
of a ring's gain over a train of equal capacity may be due to the start."""


def chain(rows: int, *, closed: bool, rng: np.random.Generator, d: int = 12, values: int = 6) -> data.Split:
    """Exact samples of a Markov chain, or of one that is conditioned to close."""
    stay = 0.6
    change = (stay - (1 - stay) / (values - 1)) * np.eye(values) + (1 - stay) / (values - 1)
    core = np.eye(values)[:, :, None] * change  # (s, a, b): the bond carries the value
    cores = [core] * d
    if not closed:
        cores = [core.sum(axis=1, keepdims=True), *cores[1:-1], core.sum(axis=2, keepdims=True)]
    ring = rd.TensorRing(cores, [rd.Categorical(values)] * d)
    return data.split(
        ring.sample(rows + 10_000, rng=rng), rng, (0.15 * rows / (rows + 10_000), 10_000 / (rows + 10_000))
    )


def compared(rows: data.Split, categories: int, rank: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The ring and its three rivals."""
    variables = [rd.Categorical(categories)] * rows.train.shape[1]
    ring = rd.TensorRing.random(variables, rank, rng=rank)
    pace = epoch_seconds(ring, rows.train)
    rivals = {
        "train, equal parameters": rd.compare.matched_train_rank(ring, "parameters"),
        "train, equal capacity": rd.compare.matched_train_rank(ring, "capacity"),
        "train, equal time": rank_of_equal_time(variables, pace, rank, rows.train),
    }
    starts = {"ring": ring} | {
        label: rd.TensorRing.random(variables, m, topology="train", rng=m) for label, m in rivals.items()
    }
    found: list[dict[str, Any]] = []
    scores: dict[str, np.ndarray] = {}
    for label, start in starts.items():
        begin = time.process_time()
        fit = rd.fit_em(
            start,
            rows.train,
            validation=rows.validation,
            max_epochs=args.epochs,
            pseudocount=PRIOR_ROWS / max(core.size for core in start.cores),
            restarts=args.restarts,
            patience=10,
            rng=0,
        )
        seconds = time.process_time() - begin
        scores[label] = np.asarray(fit.ring.log_prob(rows.test))
        gain = scores["ring"] - scores[label]
        found.append(
            {
                "ring's rank": rank,
                "model": label,
                "rank": rivals.get(label, rank),
                "parameters": start.num_parameters,
                "validation": f"{max(fit.history['validation']):.3f}",
                "test": f"{scores[label].mean():.3f}",
                "ring's gain": None
                if label == "ring"
                else f"{gain.mean():+.3f} ± {gain.std() / np.sqrt(len(gain)):.3f}",
                "processor ms per epoch": 1000 * epoch_seconds(start, rows.train),
                "processor seconds": seconds,
            }
        )
    return found


def epoch_seconds(ring: rd.TensorRing, x: np.ndarray, epochs: int = 3) -> float:
    """Processor time of one epoch, the least of several."""
    times = []
    for _ in range(epochs):
        begin = time.process_time()
        rd.fit_em(ring, x, max_epochs=1)
        times.append(time.process_time() - begin)
    return min(times)


def rank_of_equal_time(variables: Sequence[Any], pace: float, rank: int, x: np.ndarray) -> int:
    """The greatest rank of a train, in steps of a quarter, whose epoch takes no longer."""
    best = candidate = rank
    while candidate <= rank * rank:
        train = rd.TensorRing.random(variables, candidate, topology="train", rng=0)
        if epoch_seconds(train, x) > pace:
            break
        best, candidate = candidate, max(candidate + 1, round(1.25 * candidate))
    return best


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(4 * len(sections), 3.5))
    for axes, (name, rows) in zip(fig.subplots(1, len(sections)), sections.items(), strict=True):
        for label, marker in zip(dict.fromkeys(row["model"] for row in rows), "osv^", strict=True):
            chosen = [row for row in rows if row["model"] == label]
            axes.semilogx(
                [row["parameters"] for row in chosen], [float(row["test"]) for row in chosen], f"{marker}-", label=label
            )
        axes.set(title=name, xlabel="parameters", ylabel="test log-likelihood, nats")
        axes.legend(fontsize=8)
    fig.tight_layout()
    return fig
