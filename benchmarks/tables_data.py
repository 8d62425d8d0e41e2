"""Mixed tables: read from CSV files and from scikit-learn, with what is hidden from them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

FEW = 20  # distinct values up to which an integer column is treated as categorical by all rivals
SPREAD = 10  # distinct values from which a column of numbers has a density
# The class of those tables that have one; the others are regression tables.
TARGETS = {
    "adult": "income",
    "blood": "whether he/she donated blood in March 2007",
    "california": "ocean_proximity",
    "climate": "20",
    "credit": "15",
    "letter": "16",
    "obesity": "NObeyesdad",
    "parkinsons": "status",
    "wine": "quality",
    "yeast": "8",
    "bike": "Seasons",
    "breast_cancer": "target",
    "digits": "target",
    "iris": "target",
    "wine_cultivars": "target",
}


class Table(NamedTuple):
    name: str
    frame: pd.DataFrame
    categorical: list[str]  # for the rivals, who cannot find out by themselves
    target: str | None

    @property
    def numeric(self) -> list[str]:
        return [name for name in self.frame.columns if name not in self.categorical]

    @property
    def measured(self) -> list[str]:
        """Columns of numbers with enough distinct values to be spread over their resolution."""
        return [
            name
            for name in self.frame.columns
            if name != self.target and self.frame[name].dtype.kind in "fiu" and self.frame[name].nunique() >= SPREAD
        ]


def tables(folder: Path, rows: int, rng: np.random.Generator) -> list[Table]:
    """All tables, at most `rows` random rows of each."""
    frames = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    return [table(name, frame, rows, rng) for name, frame in (frames | shipped()).items()]


def table(name: str, frame: pd.DataFrame, rows: int, rng: np.random.Generator) -> Table:
    """The frame with string names, without constant columns; missing strings are NaN."""
    frame = frame.rename(columns=str).replace("?", np.nan)
    frame = frame.iloc[rng.permutation(len(frame))[:rows]].reset_index(drop=True)
    frame = frame.loc[:, frame.nunique() > 1]
    target = TARGETS.get(name)
    categorical = [
        column
        for column in frame.columns
        if column == target or frame[column].dtype.kind not in "fiu" or frame[column].nunique() <= few(frame)
    ]
    return Table(name, frame, categorical, target)


def few(frame: pd.DataFrame) -> int:
    return min(FEW, len(frame) // 10)


def shipped() -> dict[str, pd.DataFrame]:
    """What scikit-learn ships."""
    from sklearn import datasets

    loaders = {
        "breast_cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
        "iris": datasets.load_iris,
        "wine_cultivars": datasets.load_wine,
        "linnerud": datasets.load_linnerud,
    }
    return {name: load(as_frame=True).frame for name, load in loaders.items()}


def dequantised(table: Table, rng: np.random.Generator) -> np.ndarray:
    """The measured columns (n, d) spread over their resolution, complete rows only.

    Measurements are rounded, and a density of rounded numbers has no upper bound. The least distance between two
    different values is the resolution, up to a thousandth of the standard deviation at least.
    """
    x = table.frame[table.measured].dropna().to_numpy(np.float64, copy=True)
    for k in range(x.shape[1]):
        step = np.diff(np.unique(x[:, k]))
        width = max(float(step.min(initial=np.inf)), 1e-3 * float(x[:, k].std())) if step.size else 1.0
        x[:, k] += width * rng.random(len(x))
    return x


def hidden_at_random(frame: pd.DataFrame, share: float, rng: np.random.Generator) -> np.ndarray:
    """(n, d) booleans: entries to hide, independent of everything; never one that is missing already."""
    return (rng.random(frame.shape) < share) & frame.notna().to_numpy()


def hidden_by_value(table: Table, share: float, rng: np.random.Generator) -> np.ndarray:
    """Entries are hidden more often where another column of the row is large: the pattern depends on values.

    Every column has a driver, drawn at random among the numeric columns (or the categories by code). The probability
    rises with the rank of the driver's value, from 0 to twice the share.
    """
    frame = table.frame
    codes = frame.apply(lambda column: column if column.dtype.kind in "fiu" else pd.factorize(column)[0])
    ranks = codes.rank(pct=True).fillna(0.5).to_numpy()
    d = frame.shape[1]
    hidden = np.zeros(frame.shape, dtype=bool)
    for k in range(d):
        driver = (k + int(rng.integers(1, d))) % d
        hidden[:, k] = rng.random(len(frame)) < 2 * share * ranks[:, driver]
    return hidden & frame.notna().to_numpy()
