"""How good is a ring as the one model of a table, beside mixtures, imputers and gradient boosting?

Every table is asked three questions, in the same folds for all models. *Density*: held-out log-likelihood of its
numeric columns, spread over their resolution (measurements are rounded, and a density of rounded numbers has no upper
bound). *Imputation*: 20 % of the entries are hidden, at random or more often where another column is large. *Class*:
20 % of the features are missing in training and test rows. `TensorRingDensity` has its default
settings, but that in *Class* it is told the target, and a category which a fold has not seen counts as missing.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import wasserstein_distance
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, HistGradientBoostingClassifier
from sklearn.model_selection import KFold

import ringdist as rd

from . import report
from .data import SHARED
from .imputers import Imputer, chained, constant, neighbours
from .table_densities import DENSITIES
from .tables_data import Table, dequantised, hidden_at_random, hidden_by_value, tables

FOLDS = 3
DRAWS = 19  # of a hidden entry
MISSING = 0.2
IMPUTERS: dict[str, Imputer] = {
    "mean, most frequent": constant,
    "KNNImputer": neighbours(10),
    "IterativeImputer": chained(),
    "forest": chained(
        ExtraTreesRegressor(50, min_samples_leaf=3), lambda: ExtraTreesClassifier(50, min_samples_leaf=3), rounds=3
    ),
}
OURS = "ring"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=SHARED / "tables", help="folder of CSV files with heads")
    parser.add_argument("--tables", nargs="+", help="some of them, by name")
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--rows", type=int, default=5000, help="of a table at most, drawn at random")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of each fit of ours")
    parser.add_argument("--folds", type=int, default=FOLDS)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")  # of rivals that have not converged
    chosen = [
        t for t in tables(args.data, args.rows, np.random.default_rng(0)) if not args.tables or t.name in args.tables
    ]
    sections: dict[str, list[dict[str, Any]]] = {"Summary": []}
    for question in args.questions:
        rows = []
        for table in chosen:
            found = QUESTIONS[question](table, args)
            rows += found
            if found:
                print(report.table(found), flush=True)
        sections[question] = rows
    sections["Summary"] = [summary(question, sections[question]) for question in args.questions]
    report.write(args.out, "tables", "Tables", TEXT, sections, report.environment(), figure(sections))


TEXT = """\
*Density* is the mean log-likelihood per held-out row in nats, with numeric columns standardised. The mixtures choose
their number of components and their regularisation by an inner split, the kernel density its bandwidth. *Imputation*:
the error is the root mean square of hidden numeric entries over the standard deviation of their column; *wrong* is the
share of hidden categories imputed incorrectly; *distance* is the Wasserstein distance between the hidden and the
imputed values (for ours one draw), in standard deviations; *coverage* is the share of hidden values inside the central
80 % of their conditional distribution, which only a density has. *Class* is accuracy. The forest imputer is the
algorithm of MissForest (Stekhoven and Bühlmann 2012) with extremely randomised trees.

*Met* means: a density no worse than that of the best rival, up to the standard error; an error no larger than those of
KNNImputer and IterativeImputer; an accuracy at most 0.02 below that of gradient boosting."""


# --- density -----------------------------------------------------------------------------------------------------


def density(table: Table, args: argparse.Namespace) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    x = dequantised(table, rng)
    if x.shape[1] < 2:
        return []
    names = table.measured
    scores: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    for learn, held_out in KFold(args.folds, shuffle=True, random_state=0).split(x):
        centre, scale = x[learn].mean(axis=0), x[learn].std(axis=0)
        train, test = (x[learn] - centre) / scale, (x[held_out] - centre) / scale
        for name, method in {OURS: ours(names, args.budget), **DENSITIES}.items():
            begin = time.perf_counter()
            scores.setdefault(name, []).append(method(train, test))
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
    rows = {name: np.concatenate(parts) for name, parts in scores.items()}
    best = max((name for name in rows if name != OURS), key=lambda name: rows[name].mean())
    gap = rows[OURS] - rows[best]
    error = float(gap.std() / np.sqrt(len(gap)))
    return [
        {
            "table": table.name,
            "rows": len(x),
            "columns": x.shape[1],
            **{name: f"{values.mean():.3f}" for name, values in rows.items()},
            "ours − best rival": f"{gap.mean():.3f} ± {error:.3f}",
            "met": "yes" if gap.mean() >= -error else "no",
            "seconds": seconds[OURS] / args.folds,
        }
    ]


def ours(names: list[str], budget: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def score(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = rd.TensorRingDensity(budget=budget, random_state=0).fit(pd.DataFrame(train, columns=names))
        return np.asarray(model.score_samples(pd.DataFrame(test, columns=names)))

    return score


# --- imputation --------------------------------------------------------------------------------------------------


def imputation(table: Table, args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for pattern in ("at random", "by value"):
        rng = np.random.default_rng(2)
        hide = (
            hidden_at_random(table.frame, MISSING, rng)
            if pattern == "at random"
            else hidden_by_value(table, MISSING, rng)
        )
        frame, numbers = table.frame.mask(hide), coded(table)
        categorical = [table.frame.columns.get_loc(name) for name in table.categorical]
        results = {}
        for name, method in IMPUTERS.items():
            filled = method(np.where(hide, np.nan, numbers), categorical, 0)
            results[name] = judged(table, numbers, hide, filled, filled)
        begin = time.perf_counter()
        model = rd.TensorRingDensity(budget=args.budget, random_state=0).fit(frame)
        seconds = time.perf_counter() - begin
        filled, drawn = (coded(table, model.impute(frame, method, random_state=0)) for method in ("mean", "sample"))
        results[OURS] = judged(table, numbers, hide, filled, drawn)
        row = {"table": table.name, "hidden": pattern}
        for measure, label in (("error", "error"), ("wrong", "wrong"), ("distance", "distance")):
            row |= {f"{label}, {name}": result[measure] for name, result in results.items()}
        rival = min(results["KNNImputer"]["error"], results["IterativeImputer"]["error"])
        row |= {"coverage": coverage(model, table, frame, hide, rng), "seconds": seconds}
        row["met"] = "yes" if results[OURS]["error"] <= rival else "no"
        rows.append(row)
    return rows


def coded(table: Table, frame: pd.DataFrame | None = None) -> np.ndarray:
    """(n, d) float64, categories by their code in the whole table."""
    frame = table.frame if frame is None else frame
    columns = []
    for name in table.frame.columns:
        if name in table.categorical:
            levels = {level: code for code, level in enumerate(sorted(table.frame[name].dropna().unique()))}
            columns.append(frame[name].map(levels).to_numpy(np.float64, na_value=np.nan))
        else:
            columns.append(frame[name].to_numpy(np.float64, na_value=np.nan))
    return np.stack(columns, axis=1)


def judged(
    table: Table, truth: np.ndarray, hide: np.ndarray, filled: np.ndarray, drawn: np.ndarray
) -> dict[str, float]:
    """Errors of hidden entries; `drawn` is what the distance is of."""
    squares, wrong, distances = [], [], []
    for k, name in enumerate(table.frame.columns):
        hidden = hide[:, k]
        if not hidden.any():
            continue
        if name in table.categorical:
            wrong.append(filled[hidden, k] != truth[hidden, k])
        else:
            scale = np.nanstd(truth[:, k])
            squares.append(((filled[hidden, k] - truth[hidden, k]) / scale) ** 2)
            distances.append(wasserstein_distance(drawn[hidden, k], truth[hidden, k]) / scale)
    return {
        "error": float(np.sqrt(np.mean(np.concatenate(squares)))),
        "wrong": float(np.mean(np.concatenate(wrong))) if wrong else float("nan"),
        "distance": float(np.mean(distances)),
    }


def coverage(model: Any, table: Table, frame: pd.DataFrame, hide: np.ndarray, rng: np.random.Generator) -> float:
    """Share of hidden numbers inside the central 80 % of their conditional distribution.

    Of a number beside 19 draws each of 20 ranks has 5 %, equal ones in random order: so values that are rounded or have
    a probability of their own count right, where an interval between quantiles holds more than its nominal share.
    """
    drawn = coded(table, model.sample_given(frame, DRAWS, random_state=0)).reshape(len(frame), DRAWS, -1)
    truth, tenth, inside = coded(table), (DRAWS + 1) // 10, []
    for name in table.numeric:
        k = table.frame.columns.get_loc(name)
        value, draws = truth[hide[:, k], k, None], drawn[hide[:, k], :, k]
        ties = (draws == value).sum(axis=1)
        rank = (draws < value).sum(axis=1) + rng.integers(ties + 1)
        inside.append((rank >= tenth) & (rank < DRAWS + 1 - tenth))
    return float(np.mean(np.concatenate(inside)))


# --- class -------------------------------------------------------------------------------------------------------


def classification(table: Table, args: argparse.Namespace) -> list[dict[str, Any]]:
    if table.target is None:
        return []
    frame = table.frame[table.frame[table.target].notna()].reset_index(drop=True)
    hide = hidden_at_random(frame, MISSING, np.random.default_rng(3))
    hide[:, frame.columns.get_loc(table.target)] = False
    frame = frame.mask(hide).astype({table.target: table.frame[table.target].dtype})
    labels = frame[table.target].to_numpy()
    right: dict[str, list[np.ndarray]] = {OURS: [], "HistGradientBoosting": [], "most frequent": []}
    seconds = 0.0
    for learn, held_out in KFold(args.folds, shuffle=True, random_state=0).split(frame):
        train, test = frame.iloc[learn], frame.iloc[held_out].drop(columns=table.target)
        begin = time.perf_counter()
        types = {table.target: "categorical"}
        model = rd.TensorRingDensity(
            target=table.target, budget=args.budget, column_types=types, handle_unknown="missing", random_state=0
        ).fit(train)
        found = {OURS: np.asarray(model.predict(test, table.target))}
        seconds += time.perf_counter() - begin
        found["HistGradientBoosting"] = boosted(table, train, test)
        found["most frequent"] = np.repeat(train[table.target].mode()[0], len(test))
        for name, values in found.items():
            right[name].append(values == labels[held_out])
    accuracy = {name: float(np.mean(np.concatenate(parts))) for name, parts in right.items()}
    met = accuracy[OURS] >= accuracy["HistGradientBoosting"] - 0.02
    row = {"table": table.name, "rows": len(frame), **accuracy, "met": "yes" if met else "no"}
    return [{**row, "seconds": seconds / args.folds}]


def boosted(table: Table, train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    features = [name for name in train.columns if name != table.target]
    categorical = [name for name in features if name in table.categorical]
    both = pd.concat([train[features], test[features]])
    for name in categorical:
        codes, _ = pd.factorize(both[name])
        both[name] = np.where(codes < 0, np.nan, codes)
    model = HistGradientBoostingClassifier(
        categorical_features=categorical or None, early_stopping=False, random_state=0
    )
    model.fit(both[: len(train)], train[table.target])
    return np.asarray(model.predict(both[len(train) :]))


QUESTIONS: dict[str, Callable[[Table, argparse.Namespace], list[dict[str, Any]]]] = {
    "Density": density,
    "Imputation": imputation,
    "Class": classification,
}


def summary(question: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    met = sum(row["met"] == "yes" for row in rows)
    inside = sum(0.75 <= row["coverage"] <= 0.85 for row in rows if "coverage" in row)
    return {
        "question": question,
        "goal met": f"{met} of {len(rows)}",
        "coverage in 0.75 to 0.85": f"{inside} of {len(rows)}" if question == "Imputation" else None,
        "seconds of a fit, longest": max((row["seconds"] for row in rows), default=None),
    }


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 4))
    axes = fig.subplots(1, 3)
    for row in sections.get("Density", []):
        gap, _, error = row["ours − best rival"].partition(" ± ")
        axes[0].errorbar(float(gap), row["table"], xerr=float(error), fmt="o", color="C0")
    axes[0].axvline(0, color="black", linewidth=1)
    axes[0].set(title="Density", xlabel="nats above the best rival")
    for row in sections.get("Imputation", []):
        rival = min(row["error, KNNImputer"], row["error, IterativeImputer"])
        axes[1].plot(
            row[f"error, {OURS}"] / rival, row["table"], "o" if row["hidden"] == "at random" else "^", color="C0"
        )
    for marker, pattern in (("o", "hidden at random"), ("^", "hidden by value")):
        axes[1].plot([], [], marker, color="C0", label=pattern)
    axes[1].legend(fontsize="small")
    axes[1].axvline(1, color="black", linewidth=1)
    axes[1].set(title="Imputation", xlabel="error / the better of KNN and IterativeImputer")
    for row in sections.get("Class", []):
        axes[2].plot(row[OURS] - row["HistGradientBoosting"], row["table"], "o", color="C0")
    axes[2].axvline(-0.02, color="black", linewidth=1)
    axes[2].set(title="Class", xlabel="accuracy above gradient boosting")
    for ax in axes:
        ax.locator_params(axis="x", nbins=5)
    fig.tight_layout()
    return fig
