"""How well does a ring fill the holes of a mixed table, beside scikit-learn's imputers?

Real measurements with categorical columns among them, 30 % of the entries removed at random. Every method sees the
incomplete table only, learns from it and fills it.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import ringdist as rd

from . import report
from .imputers import chained, constant, neighbours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--missing", type=float, default=0.3, help="share of the entries that are removed")
    parser.add_argument("--repeats", type=int, default=3, help="different holes")
    parser.add_argument("--epochs", type=int, default=60)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    methods: dict[str, Callable[..., np.ndarray]] = {"column mean, most frequent category": constant}
    methods |= {f"KNNImputer, {k} neighbours": neighbours(k) for k in (5, 10, 20)}
    methods |= {"IterativeImputer, logistic regression": chained()}
    for start, topology, rank in SETTINGS:
        name = topology + (" from mixture" if start == "mixture" else "")
        methods[f"{name}, rank {rank}"] = ring(start, topology, rank, args.epochs)
    sections: dict[str, list[dict[str, Any]]] = {}
    for table in (tumours(), wines(), digits()):
        errors: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
        for seed in range(args.repeats):
            rng = np.random.default_rng(seed)
            holes = rng.random(table.x.shape) < args.missing
            for name, method in methods.items():
                begin = time.process_time()
                filled = method(np.where(holes, np.nan, table.x), table.categorical, seed)
                errors[name].append((*error(table, holes, filled), time.process_time() - begin))
        sections[table.title] = [summarised(name, np.array(values)) for name, values in errors.items()]
        print(report.table(sections[table.title]), flush=True)
    env = report.environment()
    report.write(args.out, "mixed", "Holes in mixed tables", TEXT, sections, env, figure(sections))


SETTINGS = (
    *(("quantile", topology, rank) for topology, rank in (("ring", 4), ("ring", 8), ("train", 8), ("train", 16))),
    *(("mixture", topology, rank) for topology, rank in (("ring", 8), ("train", 8), ("train", 16), ("train", 32))),
)

TEXT = """\
The tables show the RMSE of the removed numeric entries, in standard deviations of their columns, and the share of
removed categorical entries that are imputed incorrectly. Values are means over the repeats with their standard
deviation. scikit-learn includes no mixed table that needs no download, so these are its real tables with their class
and with some measurements binned; a binned measurement is in the table once, as a category. KNNImputer sees categories
one-hot, and the largest indicator is used. IterativeImputer sees their codes, and a logistic regression on the
completed table imputes the categories. Both see standardised numeric columns. The rings are `TensorRingDensity` with 8
components per column, started from random cores or near a mixture of products. They impute conditional means and the
most probable categories. Their epoch is chosen by the likelihood of held-out rows. No setting was chosen by these
errors: all are shown.

IterativeImputer is a linear regression, which suits strongly and linearly correlated measurements. A ring needs many
states for such a correlation (see [continuous tables](continuous.md)). In addition to an imputation a ring has a
density: the conditional spread of missing entries, joint draws of them, and scores of rows."""


class Table(NamedTuple):
    title: str
    x: np.ndarray  # (n, d), categories as integers
    categorical: list[int]


def tumours() -> Table:
    from sklearn.datasets import load_breast_cancer

    loaded = load_breast_cancer()
    binned = [0, 4, 8, 21]  # mean radius, mean smoothness, mean symmetry, worst texture: in four equally frequent bins
    x = np.column_stack([loaded.data, loaded.target])
    x[:, binned] = np.stack([quartiles(loaded.data[:, k]) for k in binned], axis=1)
    return Table("Breast cancer: 26 measurements, 4 binned ones, diagnosis", x, [*binned, 30])


def wines() -> Table:
    from sklearn.datasets import load_wine

    loaded = load_wine()
    x = np.column_stack([loaded.data, loaded.target])
    x[:, [4, 9]] = np.stack([quartiles(loaded.data[:, k]) for k in (4, 9)], axis=1)  # magnesium, colour
    return Table("Wine: 11 measurements, 2 binned ones, cultivar", x, [4, 9, 13])


def digits() -> Table:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    pixels = loaded.images[:, 1:7, 1:7]
    ink = pixels[:, ::2, ::2].reshape(len(pixels), -1) > 7
    grey = pixels[:, 1::2, :].reshape(len(pixels), -1)
    x = np.column_stack([grey, ink, loaded.target])
    d, e = grey.shape[1], ink.shape[1]
    return Table("Digits: 18 grey pixels, 9 black or white ones, label", x, list(range(d, d + e + 1)))


def quartiles(column: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(column, [0.25, 0.5, 0.75]), column).astype(np.float64)


def error(table: Table, holes: np.ndarray, filled: np.ndarray) -> tuple[float, float]:
    """RMSE over standard deviations, and share of wrong categories."""
    numeric = [k for k in range(table.x.shape[1]) if k not in table.categorical]
    gap = (filled - table.x) / table.x.std(axis=0)
    wrong = filled[:, table.categorical] != table.x[:, table.categorical]
    return (
        float(np.sqrt(np.mean(gap[:, numeric][holes[:, numeric]] ** 2))),
        float(np.mean(wrong[holes[:, table.categorical]])),
    )


def summarised(name: str, values: np.ndarray) -> dict[str, Any]:
    mean, std = values.mean(axis=0), values.std(axis=0)
    spread = [f" ± {value:.3f}" if len(values) > 1 else "" for value in std]
    return {
        "method": name,
        "numeric RMSE": f"{mean[0]:.3f}{spread[0]}",
        "categorical error": f"{mean[1]:.3f}{spread[1]}",
        "processor seconds": mean[2],
    }


def ring(start: str, topology: str, rank: int, epochs: int) -> Callable[..., np.ndarray]:
    def impute(x: np.ndarray, categorical: list[int], seed: int) -> np.ndarray:
        model = rd.TensorRingDensity(
            rank=rank,
            num_components=8,
            topology=topology,
            start=start,
            max_epochs=epochs,
            batch_size=None,
            pseudocount=10.0,
            categorical_features=categorical,
            validation_fraction=0.15,
            variance_floor=1e-2,
            random_state=seed,
        )
        return np.asarray(model.fit(x).impute(x))

    return impute


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 3.5))
    for axes, (title, rows) in zip(fig.subplots(1, len(sections)), sections.items(), strict=True):
        for row, marker in zip(rows, "xvvv^oossD***"[: len(rows)], strict=True):
            numeric, categories = (float(row[key].split()[0]) for key in ("numeric RMSE", "categorical error"))
            axes.plot(numeric, categories, marker, label=row["method"])
        axes.set(title=title.partition(":")[0], xlabel="numeric RMSE, standard deviations", ylabel="categorical error")
    axes.legend(fontsize=8, bbox_to_anchor=(1.2, 1), loc="upper left").set_in_layout(False)
    fig.tight_layout()
    return fig
