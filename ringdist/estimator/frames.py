"""The columns of a user's table: an array, masked array, pandas frame or dictionary.

Nothing here imports pandas: a frame is recognised by its attributes.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Raw(NamedTuple):
    """One column of the user's table."""

    values: np.ndarray  # (n,) of dtype kind f, i, u, b, M, m or O; arbitrary where missing
    missing: np.ndarray  # (n,) booleans
    declared: np.ndarray | None = None  # the categories of a categorical pandas dtype
    ordered: bool = False  # whether that dtype is ordered
    dtype: str = "float64"  # the name of the dtype of the user's column

    @property
    def observed(self) -> np.ndarray:
        """The entries that are not missing."""
        return self.values[~self.missing]


def is_frame(x: Any) -> bool:
    """Whether x is a pandas frame."""
    return hasattr(x, "iloc") and hasattr(x, "columns")


def is_mapping(x: Any) -> bool:
    """Whether x is a dictionary from columns to values; some sparse matrices of SciPy are dicts, but do not count."""
    return isinstance(x, Mapping) and not hasattr(x, "dtype")


def unmasked(x: Any) -> Any:
    """A NumPy masked array with its masked entries as NaN among floats, else as None; other tables unchanged."""
    if not isinstance(x, np.ma.MaskedArray):
        return x
    mask = np.ma.getmaskarray(x)
    if not mask.any():
        return np.asarray(x.data)
    if x.dtype.kind == "f":
        return x.filled(np.nan)
    values = x.data.astype(object)
    values[mask] = None
    return values


def matched(x: Any, names: Sequence[Any]) -> Any:
    """The frame with the columns `names` in that order; entries of absent columns are missing.

    Raises:
        ValueError: if it has a column twice, or one that fit did not have.
    """
    given = list(x.columns)
    repeated = [name for name in dict.fromkeys(given) if given.count(name) > 1]
    if repeated:
        raise ValueError(
            f"a table must have every column once, found {repeated[0]!r} {given.count(repeated[0])} times; rename "
            "them, or keep the first of each by frame.loc[:, ~frame.columns.duplicated()]"
        )
    known = set(names)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"column {unknown[0]!r} was not in the table of fit, whose columns are {_listed(names)}; "
            f"{near(unknown[0], names)}drop it by frame.drop(columns=[{unknown[0]!r}])"
        )
    if given == list(names):
        return x
    return x.reindex(columns=list(names))


def of_mapping(row: Mapping[Any, Any], names: Sequence[Any], label: str = "a row") -> list[list[Any]]:
    """For every column of `names` its values in a dictionary, one or several; None where it has none.

    Raises:
        ValueError: if it names an unknown column, or its columns have different lengths.
    """
    known = set(names)
    for name in row:
        if name not in known:
            raise ValueError(
                f"{label} names an unknown column {name!r}, columns are {_listed(names)}; {near(name, names)}leave it "
                "out"
            )
    lengths = {len(value) for value in row.values() if _is_listed(value)}
    if len(lengths) > 1:
        found = {name: len(value) for name, value in row.items() if _is_listed(value)}
        raise ValueError(f"{label} must have columns of one length, or single values for all rows, found {found}")
    n = lengths.pop() if lengths else 1
    columns = []
    for name in names:
        value: Any = row.get(name)
        columns.append(list(value) if _is_listed(value) else [value] * n)
    return columns


def _is_listed(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) == 1


def near(name: Any, names: Sequence[Any]) -> str:
    """The part of a message that suggests a known name similar to `name`; empty if there is none."""
    known = {str(candidate).strip().lower(): candidate for candidate in names}
    found = difflib.get_close_matches(str(name).strip().lower(), list(known), n=1)
    return f"did you mean {known[found[0]]!r}? Or " if found else ""


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, list(names)[:12]))
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def raw_columns(x: Any) -> list[Raw]:
    """The columns of a pandas frame or of an (n, d) array."""
    if is_frame(x):
        return [_from_series(x.iloc[:, k]) for k in range(x.shape[1])]
    return [_from_array(x[:, k]) for k in range(x.shape[1])]


def is_declared(series: Any) -> bool:
    """Whether a series has the categorical dtype of pandas."""
    return getattr(series.dtype, "categories", None) is not None


def _from_series(series: Any) -> Raw:
    missing = np.asarray(series.isna(), dtype=bool)
    kind, dtype = series.dtype.kind, str(series.dtype)
    if is_declared(series):
        categories = np.asarray(series.dtype.categories)
        declared = categories if categories.dtype.kind in "fiub" else np.asarray(series.dtype.categories.astype(object))
        objects = np.asarray(series.to_numpy(dtype=object))
        return Raw(objects, missing, declared, bool(series.dtype.ordered), "category")
    if kind in "Mm":
        return Raw(_times(series, kind), missing, dtype=dtype)
    if kind not in "fiub":
        return Raw(np.asarray(series.to_numpy(dtype=object)), missing, dtype=dtype)
    widest = {"f": np.float64, "b": np.bool_, "u": np.uint64}.get(kind, np.int64)
    values: np.ndarray = np.zeros(missing.shape, dtype=widest)
    values[~missing] = np.asarray(series[~missing].to_numpy(dtype=widest))
    return Raw(values, missing, dtype=dtype)


def _times(series: Any, kind: str) -> np.ndarray:
    """Dates or durations as NumPy arrays in microseconds; dates with a time zone are converted to UTC."""
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(series.to_numpy()).astype(f"{kind}8[us]")


def _from_array(values: np.ndarray) -> Raw:
    dtype = str(values.dtype)
    match values.dtype.kind:
        case "f":
            return Raw(values, np.isnan(values), dtype=dtype)
        case "i" | "u" | "b":
            return Raw(values, np.zeros(values.shape, dtype=bool), dtype=dtype)
        case "M" | "m":
            return Raw(values.astype(f"{values.dtype.kind}8[us]"), np.isnat(values), dtype=dtype)
    values = values.astype(object)
    return Raw(values, np.array([is_missing(value) for value in values], dtype=bool), dtype="object")


def is_missing(value: Any) -> bool:
    """Whether an object is a missing entry: None, NaN, or NA or NaT of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def only_numbers(observed: np.ndarray) -> bool:
    """Whether all objects are numbers; decimals and booleans count as numbers."""
    return all(isinstance(value, numbers.Real | np.bool_ | decimal.Decimal) for value in observed)


def only_integers(observed: np.ndarray) -> bool:
    """Whether all objects are integers or booleans."""
    return all(isinstance(value, numbers.Integral | np.bool_) for value in observed)


def clock_of(observed: np.ndarray) -> str | None:
    """The name of the Python type of objects that are all dates, datetimes or durations; None for others."""
    for kind in (datetime.datetime, datetime.date, datetime.timedelta):
        if len(observed) and all(isinstance(value, kind) for value in observed):
            return kind.__name__
    return None
