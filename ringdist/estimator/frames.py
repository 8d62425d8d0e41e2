"""Tables as users hold them, column by column: arrays, masked arrays, pandas frames and dictionaries.

Nothing here imports pandas unless the user's table is one of its frames: a frame is known by its `iloc`.
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
    """One column as the user holds it."""

    values: np.ndarray  # (n,) of dtype kind f, i, u, b, M, m or O; what stands at missing entries does not matter
    missing: np.ndarray  # (n,) booleans
    declared: np.ndarray | None = None  # the categories of a pandas dtype
    ordered: bool = False  # whether those have an order
    dtype: str = "float64"  # the name of the dtype that the user's column has

    @property
    def observed(self) -> np.ndarray:
        """The entries that are not missing."""
        return self.values[~self.missing]


def is_frame(x: Any) -> bool:
    """Whether x is a frame of pandas."""
    return hasattr(x, "iloc") and hasattr(x, "columns")


def is_mapping(x: Any) -> bool:
    """Whether x is a dictionary from columns to values; a sparse matrix of scipy's may be a dict too."""
    return isinstance(x, Mapping) and not hasattr(x, "dtype")


def unmasked(x: Any) -> Any:
    """A masked array of NumPy's as an array: NaN among floats, None among others; anything else as it is."""
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
    """The frame with the columns of `names` in that order; columns that it lacks are missing entries.

    Raises:
        ValueError: if it has a column twice, one that was not there in fit, or none of `names`.
    """
    own = list(x.columns)
    twice = [name for name in dict.fromkeys(own) if own.count(name) > 1]
    if twice:
        raise ValueError(
            f"a table must have every column once, found {twice[0]!r} {own.count(twice[0])} times; rename them, or "
            "keep the first ones by frame.loc[:, ~frame.columns.duplicated()]"
        )
    known = set(names)
    unknown = [name for name in own if name not in known]
    if unknown:
        raise ValueError(
            f"there was no column {unknown[0]!r} in fit, whose columns are {_listed(names)}; "
            f"{near(unknown[0], names)}leave it out, such as by frame.drop(columns=[{unknown[0]!r}])"
        )
    if own == list(names):
        return x
    return x.reindex(columns=list(names))


def of_mapping(row: Mapping[Any, Any], names: Sequence[Any], label: str = "a row") -> list[list[Any]]:
    """The values of a dictionary for every column of `names`, a row or several, None where it has none.

    Raises:
        ValueError: if it names a column that is not there, or its columns have different lengths.
    """
    known = set(names)
    for name in row:
        if name not in known:
            raise ValueError(
                f"{label} names the column {name!r}, but columns are {_listed(names)}; {near(name, names)}leave it out"
            )
    lengths = {len(value) for value in row.values() if _is_listed(value)}
    if len(lengths) > 1:
        long = {name: len(value) for name, value in row.items() if _is_listed(value)}
        raise ValueError(f"{label} must have columns of one length, or single values for all rows, found {long}")
    n = lengths.pop() if lengths else 1
    columns = []
    for name in names:
        value: Any = row.get(name)
        columns.append(list(value) if _is_listed(value) else [value] * n)
    return columns


def _is_listed(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) == 1


def near(name: Any, names: Sequence[Any]) -> str:
    """What a message says of the known name that is most like another one; empty if none is."""
    known = {str(own).strip().lower(): own for own in names}
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
    """Whether a series has pandas' categorical dtype."""
    return getattr(series.dtype, "categories", None) is not None


def _from_series(series: Any) -> Raw:
    missing = np.asarray(series.isna(), dtype=bool)
    kind, dtype = series.dtype.kind, str(series.dtype)
    if is_declared(series):
        categories = np.asarray(series.dtype.categories)
        declared = categories if categories.dtype.kind in "fiub" else categories.astype(object)
        objects = np.asarray(series.to_numpy(dtype=object))
        return Raw(objects, missing, declared, bool(series.dtype.ordered), "category")
    if kind in "Mm":
        return Raw(_clock(series, kind), missing, dtype=dtype)
    if kind not in "fiub":
        return Raw(np.asarray(series.to_numpy(dtype=object)), missing, dtype=dtype)
    wide = {"f": np.float64, "b": np.bool_, "u": np.uint64}.get(kind, np.int64)
    values: np.ndarray = np.zeros(missing.shape, dtype=wide)
    values[~missing] = np.asarray(series[~missing].to_numpy(dtype=wide))
    return Raw(values, missing, dtype=dtype)


def _clock(series: Any, kind: str) -> np.ndarray:
    """Dates (in UTC where they have a time zone) or durations in NumPy, in microseconds."""
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
    """Whether an object stands for a missing entry: None, NaN, pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, decimal.Decimal):
        return value.is_nan()
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def only_numbers(observed: np.ndarray) -> bool:
    """Whether objects are all numbers, decimals and booleans among them."""
    return all(isinstance(value, numbers.Real | np.bool_ | decimal.Decimal) for value in observed)


def only_integers(observed: np.ndarray) -> bool:
    """Whether objects are all integers or booleans."""
    return all(isinstance(value, numbers.Integral | np.bool_) for value in observed)


def clock_of(observed: np.ndarray) -> str | None:
    """The Python type of objects that are all dates, all times or all durations; None for others."""
    for kind in (datetime.datetime, datetime.date, datetime.timedelta):
        if len(observed) and all(isinstance(value, kind) for value in observed):
            return kind.__name__
    return None
