"""How well does a tied train, a homogeneous hidden Markov model, model text, beside an untied one and n-grams?

The rows are windows of 64 characters of English text, the language reference in CPython's `pydoc_data.topics`, over 28
characters: 26 letters, white space, anything else. A window may start within a word. Train, validation and test windows
follow each other in the text. Log-likelihoods are in nats per character.

*Tied train*: one core for all columns, `fit_em(..., tied=True)` from `initialize(..., tied=True)`. *Untied train*: a
core for every column, with the same rank and the same steps; it learns 64 times as many numbers from the same rows.
Both use stepwise EM, and the epoch of highest validation likelihood is kept. *n-gram*: P(character | the n - 1 before
it) from counts plus α, chosen on validation rows; the first characters of a window use shorter n-grams. The parameters
of untied trains are all entries of their cores, those of the other models are free parameters.

*Hidden characters*: a fifth of all characters of the test windows is hidden. Each is predicted by the most probable one
under P(character | all others of the window), by exact conditioning.

*Beside hmmlearn*: `CategoricalHMM` from the same start takes as many full-batch EM steps on the same windows with one
thread, both in double precision. Calls alternate, and times are the minimum of all rounds.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import ringdist as rd

from . import data, em_rivals, report
from .em_rivals import Hmm
from .measure import interleaved

CHARACTERS = 28
SMOOTHING = 0.5  # rows, of the trains
ALPHAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
HIDDEN = 0.2  # of the characters of test windows
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batches", type=int, default=40, help="steps of EM in an epoch")
    parser.add_argument("--order", type=int, default=4, help="of the longest n-gram")
    parser.add_argument("--windows", type=int, help="of each part at most, for a quick look")
    parser.add_argument("--rival-windows", type=int, default=200, help="that both libraries learn from")
    parser.add_argument("--rival-epochs", type=int, default=2)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    split = data.Split(*(part[: args.windows] for part in data.manual()))
    rows = ngrams(split, args.order)
    models: dict[tuple[int, bool], rd.TensorRing] = {}
    with threadpool_limits(1):
        for rank in args.ranks:
            for tied in (False, True):
                models[rank, tied], row = trained(split, rank, tied, args)
                rows.append(row)
                print(report.table(rows), flush=True)
        sections: dict[str, list[Row]] = {
            "Data": [{part: len(windows) for part, windows in split._asdict().items()} | {"characters": CHARACTERS}],
            "Nats per character": rows,
            "Hidden characters": hidden(split, models),
            "Beside hmmlearn": [against_hmmlearn(split.train, rank, args) for rank in args.ranks],
        }
    report.write(args.out, "sequences", "Sequences", __doc__ or "", sections, report.environment(), figure(rows))


# --- n-grams --------------------------------------------------------------------------------------------------------


def ngrams(split: data.Split, longest: int) -> list[Row]:
    """One row for each order; each takes the shorter ones for the first characters of a window."""
    rows: list[Row] = []
    known: list[np.ndarray] = []
    for n in range(1, longest + 1):
        begin = time.perf_counter()
        counts = counted(split.train, n)
        fits = {alpha: [*known, smoothed(counts, alpha)] for alpha in ALPHAS}
        values = {alpha: nats(tables, split.validation) for alpha, tables in fits.items()}
        best = max(values, key=values.__getitem__)
        known = fits[best]
        scores = {part: digits(nats(known, windows)) for part, windows in split._asdict().items()}
        numbers = counts.size // CHARACTERS * (CHARACTERS - 1)
        rows.append(
            {"model": f"{n}-gram", "rank": None, "alpha": best, "epochs": None}
            | scores
            | {"parameters": numbers, "seconds": time.perf_counter() - begin}
        )
    return rows


def counted(windows: np.ndarray, n: int) -> np.ndarray:
    """How often every string of n characters occurs, n axes of CHARACTERS."""
    strings = np.lib.stride_tricks.sliding_window_view(windows, n, axis=1).reshape(-1, n)
    places = np.ravel_multi_index(tuple(strings.T.astype(np.int64)), (CHARACTERS,) * n)
    return np.bincount(places, minlength=CHARACTERS**n).reshape((CHARACTERS,) * n)


def smoothed(counts: np.ndarray, alpha: float) -> np.ndarray:
    """P(last character | those before)."""
    return np.asarray((counts + alpha) / (counts + alpha).sum(axis=-1, keepdims=True))


def nats(tables: Sequence[np.ndarray], windows: np.ndarray) -> float:
    """Mean log-probability of a character; table n - 1 holds P(character | n - 1 before)."""
    total = 0.0
    for place in range(windows.shape[1]):
        n = min(place + 1, len(tables))
        total += float(np.log(tables[n - 1][tuple(windows[:, place + 1 - n : place + 1].T)]).sum())
    return total / windows.size


# --- trains ---------------------------------------------------------------------------------------------------------


def trained(split: data.Split, rank: int, tied: bool, args: argparse.Namespace) -> tuple[rd.TensorRing, Row]:
    length = split.train.shape[1]
    begin = time.perf_counter()
    start = rd.initialize(
        split.train,
        [rd.Categorical(CHARACTERS)] * length,
        rank,
        topology="train",
        core="cp",
        tied=tied,
        rng=0,
        dtype=np.float32,
    )
    ring, history = rd.fit_em(
        start,
        split.train,
        validation=split.validation,
        tied=tied,
        smoothing=SMOOTHING,
        max_epochs=args.epochs,
        batch_size=-(-len(split.train) // args.batches),
        step_decay="linear",
        patience=5,
        rng=0,
    )
    seconds = time.perf_counter() - begin
    scores = {part: digits(float(np.mean(ring.log_prob(x))) / length) for part, x in split._asdict().items()}
    shared = rank * (CHARACTERS - 1) + rank * (rank - 1) + rank - 1  # emissions, transitions, the first state
    return ring, {
        "model": "tied train" if tied else "untied train",
        "rank": rank,
        "alpha": None,
        "epochs": len(history["train"]),
        **scores,
        "parameters": shared if tied else ring.num_parameters,
        "seconds": seconds,
    }


def hidden(split: data.Split, models: Mapping[tuple[int, bool], rd.TensorRing]) -> list[Row]:
    """Share of hidden characters that are right."""
    away = np.random.default_rng(0).random(split.test.shape) < HIDDEN
    seen = np.where(away, np.nan, split.test)
    frequent = np.bincount(split.train.ravel(), minlength=CHARACTERS).argmax()
    rows: list[Row] = [{"model": "most frequent character", "rank": None, "right": share(split.test[away] == frequent)}]
    for (rank, tied), ring in models.items():
        found = split.test.copy()
        for k in range(seen.shape[1]):
            where = away[:, k]
            if where.any():
                found[where, k] = ring.component_posterior(k, seen[where].astype(np.float32)).argmax(axis=1)
        name = "tied train" if tied else "untied train"
        rows.append({"model": name, "rank": rank, "right": share(found[away] == split.test[away])})
    return rows


def against_hmmlearn(windows: np.ndarray, rank: int, args: argparse.Namespace) -> Row:
    x = windows[: args.rival_windows].astype(np.int64)
    start = Hmm.draw(rank, CHARACTERS, np.random.default_rng(rank))
    sides = {"ringdist": em_rivals.ours}
    if em_rivals.installed("hmmlearn"):
        sides["hmmlearn"] = em_rivals.hmmlearn
    scores = {name: side(start, x, args.rival_epochs)() / x.shape[1] for name, side in sides.items()}
    fits = {name: (lambda side=side: side(start, x, args.rival_epochs)) for name, side in sides.items()}
    times = interleaved(fits, repeats=2, device="cpu", seconds=0, statistic=min)
    row: Row = {"rank": rank, "windows": len(x), "steps": args.rival_epochs}
    row |= {f"{name}, nats": f"{value:.6f}" for name, value in scores.items()}
    row |= {f"{name}, s": value / 1000 for name, value in times.items()}
    return row | ({"times as fast": times["hmmlearn"] / times["ringdist"]} if "hmmlearn" in times else {})


def digits(value: float) -> str:
    return f"{value:.3f}"


def share(right: np.ndarray) -> str:
    return f"{100 * right.mean():.1f}%"


def figure(rows: Sequence[Row]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7, 3.5))
    axes = fig.subplots()
    for kind, marker in (("gram", "s"), ("untied train", "^"), ("tied train", "o")):
        group = [row for row in rows if row["model"].endswith(kind) and (kind != "tied train" or row["model"] == kind)]
        label = "n-grams" if kind == "gram" else kind
        axes.semilogx([row["parameters"] for row in group], [float(row["test"]) for row in group], marker, label=label)
        for row in group:
            note = f"rank {row['rank']}" if row["rank"] else row["model"]
            axes.annotate(
                note, (row["parameters"], float(row["test"])), fontsize=7, xytext=(4, -9), textcoords="offset points"
            )
    axes.margins(x=0.12)
    axes.set(xlabel="parameters", ylabel="test log-likelihood, nats per character")
    axes.legend(fontsize=7)
    fig.tight_layout()
    return fig
