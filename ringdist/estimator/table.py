"""Conversion of users' tables to tables of numbers, and back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column, Unknown
from ringdist.estimator.frames import is_declared, is_frame, raw_columns


def encode(
    columns: Sequence[Column], x: Any, unknown: Unknown = "error", skip: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers or codes (n, d) in float64, NaN where missing, and log shares of rare categories (n, d).

    Args:
        skip: columns whose values are ignored and count as missing.

    Raises:
        ValueError: if a category is unknown, or an entry of a numeric column is not a finite number.
    """
    raws = raw_columns(x)
    rows = np.full((len(x), len(columns)), np.nan)
    shares = np.zeros(rows.shape)
    for k, (column, raw) in enumerate(zip(columns, raws, strict=True)):
        if k in skip:
            continue
        rows[:, k], logs = column.encode(raw, unknown)
        if logs is not None:
            shares[:, k] = logs
    return rows, shares


def decode(columns: Sequence[Column], rows: np.ndarray, rng: np.random.RandomState | None = None) -> np.ndarray:
    """The user's values as an (n, d) array, in a numeric dtype common to all columns if possible, otherwise objects."""
    decoded = [column.decode(rows[:, k], rng) for k, column in enumerate(columns)]
    if any(values.dtype.kind in "OMm" for values in decoded):
        decoded = [values.astype(object) for values in decoded]
    return np.stack(decoded, axis=1)


def decode_frame(
    columns: Sequence[Column],
    rows: np.ndarray,
    names: Sequence[Any],
    rng: np.random.RandomState | None = None,
    index: Any = None,
) -> Any:
    """A pandas frame of the user's values in the dtypes of the fitted columns."""
    import pandas

    data = {
        name: as_series(column, rows[:, k], rng).set_axis(range(len(rows)))
        for k, (name, column) in enumerate(zip(names, columns, strict=True))
    }
    frame = pandas.DataFrame(data, columns=pandas.Index(list(names)))
    return frame if index is None else frame.set_axis(index, axis=0)


def as_series(column: Column, values: np.ndarray, rng: np.random.RandomState | None = None) -> Any:
    """Decoded numbers or codes (n,), none missing, as a series in the column's dtype."""
    import pandas

    if column.declared:
        levels = column.spread(values, rng)
        return pandas.Series(
            pandas.Categorical.from_codes(levels, categories=list(column.categories), ordered=column.ordered)
            if column.categories is not None
            else values
        )
    decoded = column.decode(values, rng)
    if column.dtype.startswith("datetime64") and "," in column.dtype:
        return pandas.Series(decoded).dt.tz_localize("UTC").astype(column.dtype)
    series = pandas.Series(decoded, dtype=object if decoded.dtype.kind == "O" else None)
    return series.astype(column.dtype) if column.dtype and str(series.dtype) != column.dtype else series


def filled(
    columns: Sequence[Column],
    x: Any,
    completed: np.ndarray,
    missing: np.ndarray,
    rng: np.random.RandomState | None = None,
    absent: Collection[int] = (),
) -> Any:
    """A copy of the user's table with its missing entries taken from `completed` (n, d).

    Args:
        absent: columns that the user's table did not have; they get the dtype that they had in fit.
    """
    result = x.copy()
    for k, column in enumerate(columns):
        gaps = missing[:, k]
        if is_frame(x):
            if k in absent and gaps.all():
                result.isetitem(k, as_series(column, completed[:, k], rng).set_axis(result.index))
            elif gaps.any():
                result.isetitem(k, _filled_series(result.iloc[:, k], column, completed[:, k], gaps, rng))
            if k in absent:
                result.isetitem(k, _in_fitted_dtype(result.iloc[:, k], column))
        elif gaps.any():
            values = column.decode(completed[gaps, k], rng)
            result = result if result.dtype.kind == "O" or values.dtype.kind in "fiub" else result.astype(object)
            result[gaps, k] = values
    return result


def _in_fitted_dtype(series: Any, column: Column) -> Any:
    """A series without missing entries, in the dtype of the fitted column if that can hold them."""
    import pandas

    if column.declared:
        dtype: Any = pandas.CategoricalDtype(column.categories, ordered=column.ordered)
    else:
        dtype = column.dtype
    try:
        return series.astype(dtype) if dtype else series
    except (TypeError, ValueError):
        return series


def _filled_series(
    series: Any, column: Column, completed: np.ndarray, gaps: np.ndarray, rng: np.random.RandomState | None
) -> Any:
    """The series with missing entries filled, in its own dtype if that can hold the new values."""
    import pandas

    array = series.array.copy()
    if is_declared(series):
        values = column.decode(completed[gaps], rng)
        known = set(array.categories)
        array = array.add_categories([c for c in dict.fromkeys(values.tolist()) if c not in known])
        array[gaps] = values
        return pandas.Series(array, index=series.index, name=series.name)
    found = as_series(column, completed[gaps], rng)
    try:
        array[gaps] = found.astype(series.dtype).array
    except (TypeError, ValueError):  # new strings in a numeric dtype: a column without any entry
        mixed = series.astype(object)
        mixed[gaps] = found.astype(object).to_numpy()
        return mixed.astype(column.dtype) if column.dtype and not column.declared else mixed
    return pandas.Series(array, index=series.index, name=series.name)
