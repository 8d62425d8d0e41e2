"""How well do rings model binary tables, beside trains, mixtures and published models?

NLTCS, Plants and Jester in their usual splits. Every choice (rank, pseudocount, start, order, epoch) is made on the
validation rows; the test rows are only reported.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ringdist as rd

from . import data, report

GOALS = {"nltcs": -6.02, "plants": -13.7, "jester": -52.9}  # test log-likelihood in nats
EPOCHS = {"nltcs": 60, "plants": 30, "jester": 12}  # at most; a fit from a mixture mostly stops sooner
MINUTES = 10  # for the chosen configuration
PUBLISHED = {
    "nltcs": {"HCLT": -6.00, "Strudel": -6.09},
    "plants": {"HCLT, 12 states, 4 trees": -14.26, "Strudel": -13.41, "HCLT, 100 states": -12.68},
    "jester": {"HCLT": -52.46, "Strudel": -55.62},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=data.SHARED / "density", help="folder of NAME.train.data and so on"
    )
    parser.add_argument("--datasets", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[16, 32, 64], help="of trains that start from a mixture"
    )
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    sections: dict[str, list[dict[str, Any]]] = {"Chosen on validation": []}
    for name in args.datasets:
        study = Study(name, data.binary(args.data, name), EPOCHS[name])
        study.run(args.ranks)
        sections["Chosen on validation"] += study.chosen()
        sections[name] = study.rows
        sections[f"{name}, published"] = [{"model": model, "test": value} for model, value in PUBLISHED[name].items()]
    env = report.environment()
    report.write(args.out, "density", "Density of binary tables", TEXT, sections, env, figure(args.datasets, sections))


TEXT = """\
Mean log-likelihoods per row in nats. *Mixture*: of products of Bernoulli distributions, by EM, which is a train of rank
K whose cores are diagonal, its cluster on the bond: `rd.initialize(..., method="mixture", spread=0)`. *From mixture*
starts exact EM there with a share `spread` of each core's mass off the diagonal, so that the bond may change its state
from column to column; *random* starts it from random cores. *MI* is the order by mutual information, *ring's MI* the
order read off the fitted train. Random starts, file order and rings are there for comparison and take part in the
choice all the same.

A ring of rank m costs m³ per row and column where a train costs m², and a random start leaves much behind: EM cannot
find in random cores the clusters that reach across all columns, and every column between them has to pass them on. So a
ring from a random start was not enough in the orders tried here (see the tables). From a mixture the cheap topology,
a train of high rank, is the better buy.

Seconds are wall-clock on a machine that other work may share, processor seconds are not; for fits from a mixture both
include the mixture's own fit."""


class Study:
    """All models of one table; every fit is a row."""

    def __init__(self, name: str, rows: data.Split, epochs: int):
        self.name, self.split, self.epochs = name, rows, epochs
        self.variables = [rd.Categorical(2)] * rows.train.shape[1]
        information = rd.ordering.dependence(rows.train, self.variables)
        given = tuple(range(len(self.variables)))
        self.orders = {
            ("given", "ring"): given,
            ("given", "train"): given,
            ("MI", "ring"): rd.ordering.tour(information, "ring"),
            ("MI", "train"): rd.ordering.tour(information, "train"),
        }
        self.rows: list[dict[str, Any]] = []

    def run(self, ranks: Sequence[int]) -> None:
        self.independent()
        for size in sorted({8, 128, *ranks}):
            self.mixture(size)
        # Spread and pseudocount at one rank, then rank, order and topology with the best of them.
        middle = sorted(ranks)[len(ranks) // 2]
        grid = [(spread, pseudocount) for spread in (0.02, 0.2) for pseudocount in (0.001, 0.01, 0.1)]
        tried = [
            (self.fit("train", "MI", middle, pseudocount, spread), spread, pseudocount) for spread, pseudocount in grid
        ]
        (_, train), spread, pseudocount = max(tried, key=lambda found: found[0][0])
        for rank in ranks:
            if rank != middle:
                self.fit("train", "MI", rank, pseudocount, spread)
        self.fit("train", "given", middle, pseudocount, spread)
        self.orders["ring's MI", "train"] = rd.ordering.tour(train.mutual_information(), "train")
        self.fit("train", "ring's MI", middle, pseudocount, spread)
        for rank in (8, 16) if len(self.variables) < 20 else (8,):
            self.fit("ring", "MI", rank, pseudocount, spread)
        for topology, rank in (("train", 16), ("ring", 8)):
            for order in ("given", "MI"):
                self.fit(topology, order, rank, 0.1, None)

    def independent(self) -> None:
        start = rd.initialize(self.split.train, self.variables, 1, rng=0)
        with Clock() as clock:
            ring = rd.fit_em(start, self.split.train, max_epochs=1, pseudocount=0.1).ring
        self.record("independent", clock, ring.num_parameters // 2, ring.log_prob, pseudocount=0.1)

    def mixture(self, size: int) -> None:
        """A mixture of products is the start itself, with nothing off the diagonal of its cores."""
        with Clock() as clock:
            ring = self.start("train", "given", size, 0.0)
        self.record("mixture", clock, size * (len(self.variables) + 1) - 1, ring.log_prob, rank=size)

    def start(self, topology: str, order: str, rank: int, spread: float | None) -> rd.TensorRing:
        """Near a mixture, or random if `spread` is None."""
        near = {"method": "quantile"} if spread is None else {"method": "mixture", "spread": spread}
        layout = {"order": self.orders[order, topology], "topology": topology}
        return rd.initialize(self.split.train, self.variables, rank, rng=0, dtype=np.float32, **layout, **near)

    def fit(
        self, topology: str, order: str, rank: int, pseudocount: float, spread: float | None
    ) -> tuple[float, rd.TensorRing]:
        """A ring or train and its validation value."""
        with Clock() as clock:
            ring, history = rd.fit_em(
                self.start(topology, order, rank, spread),
                self.split.train,
                validation=self.split.validation,
                max_epochs=self.epochs,
                pseudocount=pseudocount,
                patience=3,
            )
        self.record(
            topology,
            clock,
            ring.num_parameters,
            ring.log_prob,
            start="random" if spread is None else "mixture",
            order=order,
            rank=rank,
            pseudocount=pseudocount,
            spread=spread,
            epochs=len(history["train"]),
        )
        return max(history["validation"]), ring

    def record(self, model: str, clock: "Clock", parameters: int, log_prob: Any, **settings: Any) -> None:
        names = ("start", "order", "rank", "pseudocount", "spread", "epochs")
        row = {"model": model, **{name: settings.get(name) for name in names}}
        for part, rows in self.split._asdict().items():
            row[part] = digits(float(np.mean(log_prob(rows.astype(np.float32)), dtype=np.float64)))
        row |= {"parameters": parameters, "seconds": clock.wall, "processor seconds": clock.processor}
        self.rows.append(row)
        print(report.table([{"data": self.name, **row}]), flush=True)

    def chosen(self) -> list[dict[str, Any]]:
        """The best on validation of the mixtures, the trains and the rings, beside goal and published figures."""
        found = []
        for model in ("mixture", "train", "ring"):
            row = max((row for row in self.rows if row["model"] == model), key=lambda row: float(row["validation"]))
            goal = GOALS[self.name]
            met = float(row["test"]) >= goal and row["seconds"] <= 60 * MINUTES
            kept = ("model", "start", "order", "rank", "pseudocount", "validation", "test", "parameters", "seconds")
            found.append(
                {"data": self.name, **{name: row[name] for name in kept}, "goal": goal, "met": "yes" if met else "no"}
            )
        return found


class Clock:
    """Wall-clock and processor seconds of a block."""

    def __enter__(self) -> "Clock":
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._start[0]
        self.processor = time.process_time() - self._start[1]


def digits(value: float) -> str:
    """Log-likelihoods of this size differ in the third decimal."""
    return f"{value:.3f}"


def figure(names: Sequence[str], sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5 * len(names), 4))
    for axes, name in zip(np.atleast_1d(fig.subplots(1, len(names))), names, strict=True):
        rows = sections[name]
        groups = {
            "mixture": [row for row in rows if row["model"] == "mixture"],
            "train, random start": [row for row in rows if row["model"] == "train" and row["start"] == "random"],
            "train from mixture": [row for row in rows if row["model"] == "train" and row["start"] == "mixture"],
            "ring, random start": [row for row in rows if row["model"] == "ring" and row["start"] == "random"],
            "ring from mixture": [row for row in rows if row["model"] == "ring" and row["start"] == "mixture"],
        }
        for (label, group), marker in zip(groups.items(), "osDv^", strict=True):
            axes.semilogx([r["parameters"] for r in group], [float(r["test"]) for r in group], marker, label=label)
        for model, value in PUBLISHED[name].items():
            axes.axhline(value, color="grey", linestyle=":")
            axes.annotate(model, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
        axes.axhline(GOALS[name], color="black", linestyle="--", label="goal")
        axes.set(title=name, xlabel="parameters", ylabel="test log-likelihood, nats")
    axes.legend(fontsize=7)
    fig.tight_layout()
    return fig
