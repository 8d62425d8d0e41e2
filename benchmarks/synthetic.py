"""How like real rows are the rows that a ring draws, beside a Gaussian copula and a variational autoencoder?

Models learn from one half of a table and draw as many rows as the other half has, which they are compared with.
`sdmetrics` judges shapes (of single columns) and trends (of pairs); *detection* is the accuracy with which gradient
boosting tells real rows from drawn ones, 0.5 for rows that are alike. At last rows are asked for under a rare
condition: an exact model draws valid rows only, the others draw and reject.

Needs the packages sdmetrics, copulas and ctgan.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score

import ringdist as rd

from . import report
from .data import SHARED
from .tables_data import Table, table

TABLES = "adult", "california"
CONDITIONS: dict[str, dict[str, Any]] = {
    "adult": {"age": rd.Interval(70, None), "income": {">50K"}},
    "california": {"ocean_proximity": {"NEAR BAY"}, "median_income": rd.Interval(8, None)},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=SHARED / "tables", help="folder of CSV files with heads")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rows", type=int, default=20_000, help="of a table at most, drawn at random")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of each fit of ours")
    parser.add_argument("--epochs", type=int, default=100, help="of the variational autoencoder")
    parser.add_argument("--conditional-rows", type=int, default=200, help="asked for under the rare condition")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    sections: dict[str, list[dict[str, Any]]] = {}
    for name in args.tables:
        chosen = table(name, pd.read_csv(args.data / f"{name}.csv"), args.rows, np.random.default_rng(0))
        half = len(chosen.frame) // 2
        train, real = chosen.frame[:half].reset_index(drop=True), chosen.frame[half:].reset_index(drop=True)
        rows = [judged("other real rows", chosen, real, train, 0.0, 0.0)]
        conditional = []
        for model in (Ring(args.budget), Copula(), Autoencoder(args.epochs)):
            begin = time.perf_counter()
            model.fit(chosen, train)
            fitted = time.perf_counter()
            drawn = model.sample(len(real))
            rows.append(judged(model.title, chosen, real, drawn, fitted - begin, time.perf_counter() - fitted))
            print(report.table(rows[-1:]), flush=True)
            conditional.append(conditioned(model, CONDITIONS[name], args.conditional_rows))
        sections[name] = rows
        share = float(np.mean(valid(real, CONDITIONS[name])))
        sections[f"{name}, under {described(CONDITIONS[name])} ({share:.2%} of the real rows)"] = conditional
    report.write(args.out, "synthetic", "Synthetic tables", TEXT, sections, report.environment(), None)


TEXT = """\
All scores of `sdmetrics` are between 0 and 1, higher is better. *Other real rows* is the half that the models learn
from, which no model should beat. For *shape* and *trend*, drawn numbers are clipped to the range of the real ones:
`sdmetrics` divides the range of each table into ten bins, so that a single number outside would shift all bins.
*Detection* is the accuracy with which gradient boosting tells real rows from drawn ones, without clipping, in a
five-fold cross-validation: 0.5 if it cannot. Under a condition, *valid* is the share of rows that fulfil it, and
*seconds* is the time until all rows were found, by rejection for all models but the ring."""


GRID = 2000  # over the range of a column and five standard deviations on both sides


class Ring:
    """`TensorRingDensity` with its defaults."""

    def __init__(self, budget: float):
        self.title = "ring"
        self.model = rd.TensorRingDensity(budget=budget, random_state=0)

    def fit(self, chosen: Table, frame: pd.DataFrame) -> None:
        self.model.fit(frame)

    def sample(self, n: int) -> pd.DataFrame:
        drawn: pd.DataFrame = self.model.sample(n, random_state=0)
        return drawn

    def under(self, event: dict[str, Any], n: int) -> pd.DataFrame:
        drawn: pd.DataFrame = self.model.sample_given({}, n, event=event)
        return drawn


class Copula:
    """`copulas`' Gaussian copula over kernel densities; categories as numbers spread within their cell (`rdt`).

    Its own quantiles, a root search for every draw over all kernels, take minutes for 10 000 rows. Here they are
    interpolated on a grid whose step is a thirtieth of the kernels' standard deviation.
    """

    def __init__(self) -> None:
        self.title = "Gaussian copula"

    def fit(self, chosen: Table, frame: pd.DataFrame) -> None:
        from copulas.multivariate import GaussianMultivariate
        from copulas.univariate import GaussianKDE
        from rdt import HyperTransformer
        from rdt.transformers import FloatFormatter, UniformEncoder

        class Kernels(GaussianKDE):
            def percent_point(self, share: np.ndarray, method: str = "") -> np.ndarray:
                values = np.linspace(*self._get_bounds(), GRID)
                return np.interp(share, self.cumulative_distribution(values), values)

        types = {name: "categorical" if name in chosen.categorical else "numerical" for name in frame.columns}
        self.coder = HyperTransformer()
        self.coder.set_config(
            {
                "sdtypes": types,
                "transformers": {
                    name: UniformEncoder()
                    if kind == "categorical"
                    else FloatFormatter(missing_value_replacement="mean")
                    for name, kind in types.items()
                },
            }
        )
        self.model = GaussianMultivariate(distribution=Kernels, random_state=0)
        self.model.fit(self.coder.fit_transform(frame))

    def sample(self, n: int) -> pd.DataFrame:
        drawn: pd.DataFrame = self.coder.reverse_transform(self.model.sample(n))
        return drawn


class Autoencoder:
    """`ctgan`'s TVAE; it knows no missing entries, which become the mean or a category of their own."""

    def __init__(self, epochs: int) -> None:
        self.title = f"TVAE, {epochs} epochs"
        self.epochs = epochs

    def fit(self, chosen: Table, frame: pd.DataFrame) -> None:
        from ctgan import TVAE

        complete = frame.copy()
        for name in frame.columns:
            if name in chosen.categorical:
                complete[name] = complete[name].astype(object).where(complete[name].notna(), MISSING)
            else:
                complete[name] = complete[name].fillna(complete[name].mean())
        self.model = TVAE(epochs=self.epochs, enable_gpu=False)
        self.model.set_random_state(0)
        self.model.fit(complete, discrete_columns=chosen.categorical)

    def sample(self, n: int) -> pd.DataFrame:
        drawn: pd.DataFrame = self.model.sample(n).replace(MISSING, np.nan)
        return drawn


MISSING = "missing"
Model = Ring | Copula | Autoencoder


def judged(
    title: str, chosen: Table, real: pd.DataFrame, drawn: pd.DataFrame, fit: float, sample: float
) -> dict[str, Any]:
    from sdmetrics.reports import QualityReport

    kinds = {name: {"sdtype": "categorical" if name in chosen.categorical else "numerical"} for name in real.columns}
    quality = QualityReport()
    metadata = {"tables": {"table": {"columns": kinds}}, "relationships": []}
    inside = drawn.copy()
    for name in chosen.numeric:
        inside[name] = drawn[name].astype(float).clip(real[name].min(), real[name].max())
    frames = ({"table": plain(chosen, frame)} for frame in (real, inside))
    quality.generate(*frames, metadata, verbose=False)
    scores = quality.get_properties().set_index("Property")["Score"]
    return {
        "rows": title,
        "shape": f"{scores['Column Shapes']:.4f}",
        "trend": f"{scores['Column Pair Trends']:.4f}",
        "detection": detection(chosen, real, drawn),
        "seconds of the fit": fit or None,
        "seconds of the rows": sample or None,
    }


def plain(chosen: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """Categories as strings, since rivals give them back in other types."""
    frame = frame.copy()
    for name in frame.columns:
        if name in chosen.categorical:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None).map(str, na_action="ignore")
        else:
            frame[name] = frame[name].astype(float)
    return frame


def detection(chosen: Table, real: pd.DataFrame, drawn: pd.DataFrame) -> str:
    """Accuracy of gradient boosting on as many real as drawn rows, cross-validated, with its standard error."""
    size = min(len(real), len(drawn))
    both = pd.concat([plain(chosen, real)[:size], plain(chosen, drawn)[:size]], ignore_index=True)
    for name in chosen.categorical:
        codes, _ = pd.factorize(both[name])
        both[name] = np.where(codes < 0, np.nan, codes)
    shuffled = np.random.default_rng(0).permutation(2 * size)
    labels = np.repeat([0, 1], size)[shuffled]
    model = HistGradientBoostingClassifier(random_state=0)
    accuracy = cross_val_score(model, both.iloc[shuffled], labels, cv=5, scoring="accuracy")
    return f"{accuracy.mean():.3f} ± {accuracy.std() / np.sqrt(5):.3f}"


def conditioned(model: Model, event: dict[str, Any], n: int, limit: int = 400_000) -> dict[str, Any]:
    """n rows under the condition, or what rejection finds among `limit` drawn ones."""
    begin = time.perf_counter()
    if isinstance(model, Ring):
        kept, drawn = model.under(event, n), n
        share = float(np.mean(valid(kept, event)))
    else:
        parts: list[pd.DataFrame] = []
        drawn = 0
        while drawn < limit and sum(map(len, parts)) < n:
            rows = model.sample(20_000)
            parts.append(rows[valid(rows, event)])
            drawn += len(rows)
        kept = pd.concat(parts)
        share = len(kept) / drawn
    seconds = time.perf_counter() - begin
    return {
        "rows": model.title,
        "found": min(n, len(kept)),
        "drawn": drawn,
        "valid": f"{share:.2%}",
        "seconds": seconds,
    }


def valid(frame: pd.DataFrame, event: dict[str, Any]) -> np.ndarray:
    fine = np.ones(len(frame), dtype=bool)
    for name, wanted in event.items():
        if isinstance(wanted, rd.Interval):
            low = -np.inf if wanted.low is None else wanted.low
            high = np.inf if wanted.high is None else wanted.high
            fine &= frame[name].astype(float).between(low, high).to_numpy()
        else:
            fine &= frame[name].isin(list(wanted)).to_numpy()
    return fine


def described(event: dict[str, Any]) -> str:
    parts = []
    for name, wanted in event.items():
        parts.append(f"{name} ≥ {wanted.low:g}" if isinstance(wanted, rd.Interval) else f"{name} in {sorted(wanted)}")
    return " and ".join(parts)
