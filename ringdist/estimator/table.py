"""Tables of users as tables of numbers and back: arrays or pandas frames, categories of any kind as codes 0..N-1.

Nothing here imports pandas: a frame is known by its `iloc`.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from ringdist.interop.tensorfile import fields

_KINDS = {"f": "float", "i": "int", "u": "int", "b": "bool", "O": "str"}
_TYPES = {"float": float, "int": int, "bool": bool, "str": str}


class Raw(NamedTuple):
    """One column as the user holds it."""

    values: np.ndarray  # (n,) of dtype kind f, i, u, b or O; what stands at missing entries does not matter
    missing: np.ndarray  # (n,) booleans
    declared: np.ndarray | None  # the categories of a pandas dtype


@dataclass(frozen=True)
class Column:
    """What the values of one column are."""

    label: str  # in messages
    categories: np.ndarray | None  # by code; None for real numbers
    declared: bool = False  # by a pandas dtype

    def encode(self, raw: Raw) -> np.ndarray:
        """(n,) float64: real numbers, or codes; NaN where missing."""
        result = np.full(raw.values.shape, np.nan)
        seen = ~raw.missing
        observed = raw.values[seen]
        categories, label = self.categories, self.label
        result[seen] = _real(observed, label) if categories is None else _codes(observed, categories, label)
        return result

    def decode(self, values: np.ndarray) -> np.ndarray:
        """The user's values of real numbers or codes, none missing."""
        return values if self.categories is None else self.categories[values.astype(np.int64)]


def columns_of(x: Any, names: Sequence[str] | None, categorical_features: Any) -> list[Column]:
    """How each column of a training table is encoded; see `TensorRingDensity` for `categorical_features`.

    Raises:
        ValueError: if `categorical_features` does not fit, or a column has no observed entry.
        TypeError: if a column holds neither numbers nor strings.
    """
    raws = raw_columns(x)
    labels = [f"column {k}" if names is None else f"column {k} ({str(names[k])!r})" for k in range(len(raws))]
    named = _named_columns(categorical_features, len(raws), names)
    columns = []
    for k, (raw, label) in enumerate(zip(raws, labels, strict=True)):
        observed = raw.values[~raw.missing]
        if observed.size == 0 and raw.declared is None:
            raise ValueError(f"{label}: fit needs an observed entry, found none")
        if named is not None:
            categorical = k in named
        elif isinstance(categorical_features, str) and categorical_features == "from_dtype":
            categorical = raw.declared is not None
        else:
            categorical = raw.declared is not None or not _looks_real(observed, label)
        categories = _categories(raw, label) if categorical else None
        columns.append(Column(label, categories, categorical and raw.declared is not None))
    return columns


def encode(columns: Sequence[Column], x: Any) -> np.ndarray:
    """(n, d) float64: real numbers, or codes; NaN where missing.

    Raises:
        ValueError: if a category is unknown, or a real number is infinite or no number.
    """
    return np.stack([c.encode(raw) for c, raw in zip(columns, raw_columns(x), strict=True)], axis=1)


def decode(columns: Sequence[Column], rows: np.ndarray) -> np.ndarray:
    """(n, d) array of the user's values: of a numeric dtype that holds all columns, else of objects."""
    decoded = [column.decode(rows[:, k]) for k, column in enumerate(columns)]
    if any(values.dtype.kind == "O" for values in decoded):
        decoded = [values.astype(object) for values in decoded]
    return np.stack(decoded, axis=1)


def decode_frame(columns: Sequence[Column], rows: np.ndarray, names: Sequence[str]) -> Any:
    """A pandas frame of the user's values, of a categorical dtype where it was one that declared the categories."""
    import pandas

    data = {}
    for k, (name, column) in enumerate(zip(names, columns, strict=True)):
        if column.declared:
            data[name] = pandas.Categorical.from_codes(rows[:, k].astype(np.int64), categories=column.categories)
        else:
            data[name] = column.decode(rows[:, k])
    return pandas.DataFrame(data)


def filled(columns: Sequence[Column], x: Any, completed: np.ndarray, missing: np.ndarray) -> Any:
    """A copy of the user's table with its missing entries taken from `completed` (n, d)."""
    frame = hasattr(x, "iloc")
    result = x.copy()
    for k, column in enumerate(columns):
        gaps = missing[:, k]
        if not gaps.any():
            continue
        values = column.decode(completed[gaps, k])
        if frame:
            array = result.iloc[:, k].array.copy()
            if is_declared(result.iloc[:, k]):
                known = set(array.categories)
                array = array.add_categories([c for c in dict.fromkeys(values.tolist()) if c not in known])
            array[gaps] = values
            result.isetitem(k, array)
        else:
            result[gaps, k] = values
    return result


def raw_columns(x: Any) -> list[Raw]:
    """The columns of a pandas frame or of an (n, d) array."""
    if hasattr(x, "iloc"):
        return [_from_series(x.iloc[:, k]) for k in range(x.shape[1])]
    return [_from_array(x[:, k]) for k in range(x.shape[1])]


def is_declared(series: Any) -> bool:
    """Whether a series has pandas' categorical dtype."""
    return getattr(series.dtype, "categories", None) is not None


def to_json(column: Column) -> dict[str, Any]:
    """The column as JSON can hold it, the inverse of `from_json`; `ValueError` for categories of another kind."""
    if column.categories is None:
        return {"label": column.label, "kind": "real", "declared": False}
    values = column.categories.tolist()
    kind = _KINDS[column.categories.dtype.kind]
    if kind == "str" and not all(isinstance(value, str) for value in values):
        raise ValueError(f"{column.label}: only strings and numbers can be saved, found categories {values[:5]}")
    return {"label": column.label, "kind": kind, "declared": column.declared, "categories": values}


def from_json(entry: Any) -> Column:
    """The column that `to_json` described; `ValueError` for anything else."""
    real = isinstance(entry, dict) and entry.get("kind") == "real"
    names = ["label", "kind", "declared"] + ["categories"] * (not real)
    label, kind, declared, *rest = fields(entry, names, "a column")
    if not isinstance(label, str) or not isinstance(declared, bool):
        raise ValueError(f"a column has a label and is declared or not, found {short(entry)}")
    if real:
        return Column(label, None)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"{label}: categories are of the kinds {', '.join(_TYPES)}, found {short(kind)}")
    values, known = rest[0], _TYPES[kind]
    if not isinstance(values, list) or not all(type(value) is known for value in values):
        raise ValueError(f"{label}: categories must be a list of {kind}, found {short(values)}")
    if len(set(values)) != len(values) or (known is float and np.isnan(values).any()):
        raise ValueError(f"{label}: categories must differ and not be NaN, found {short(values)}")
    return Column(label, np.array(values, dtype=_dtype(values, known)), declared)


def _dtype(values: list[Any], known: type) -> Any:
    if known is int:
        return np.uint64 if max(values, default=0) > np.iinfo(np.int64).max else np.int64
    return np.object_ if known is str else known


def _from_series(series: Any) -> Raw:
    missing = np.asarray(series.isna(), dtype=bool)
    kind = series.dtype.kind
    if is_declared(series):
        declared = _plain(np.asarray(series.dtype.categories))
        return Raw(np.asarray(series.to_numpy(dtype=object)), missing, declared)
    if kind not in "fiub":
        return Raw(np.asarray(series.to_numpy(dtype=object)), missing, None)
    values: np.ndarray = np.zeros(
        missing.shape, dtype={"f": np.float64, "b": np.bool_, "u": np.uint64}.get(kind, np.int64)
    )
    values[~missing] = np.asarray(series[~missing].to_numpy(dtype=values.dtype))
    return Raw(values, missing, None)


def _from_array(values: np.ndarray) -> Raw:
    match values.dtype.kind:
        case "f":
            return Raw(values, np.isnan(values), None)
        case "i" | "u" | "b":
            return Raw(values, np.zeros(values.shape, dtype=bool), None)
    values = values.astype(object)
    return Raw(values, np.array([_is_missing(value) for value in values], dtype=bool), None)


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _only_numbers(observed: np.ndarray) -> bool:
    return all(isinstance(value, numbers.Real | np.bool_) for value in observed)


def _looks_real(observed: np.ndarray, label: str) -> bool:
    """Whether "auto" takes a column for real numbers: floats, or objects among which there are floats."""
    if observed.dtype.kind != "O":
        return observed.dtype.kind == "f"
    if _only_numbers(observed):
        return any(not isinstance(value, numbers.Integral | np.bool_) for value in observed)
    _check_strings(observed, label)
    return False


def _check_strings(observed: np.ndarray, label: str) -> None:
    for value in observed:
        if not isinstance(value, str):
            raise TypeError(
                f"{label}: the argument must be a column of strings only or numbers only, "
                f"found {value!r} of type {type(value).__name__}"
            )


def _categories(raw: Raw, label: str) -> np.ndarray:
    if raw.declared is not None:
        return raw.declared
    observed = raw.values[~raw.missing]
    if observed.dtype.kind == "O":
        if not _only_numbers(observed):
            _check_strings(observed, label)
            return np.array(sorted(set(observed.tolist())), dtype=object)
        observed = np.asarray(observed.tolist())
    if observed.dtype.kind == "f":
        _real(observed, label)
    return np.unique(observed)


def _codes(observed: np.ndarray, categories: np.ndarray, label: str) -> np.ndarray:
    """The position of each value among the categories."""
    if categories.dtype.kind != "O" and observed.dtype.kind == "O" and _only_numbers(observed):
        observed = np.asarray(observed.tolist())
    if categories.dtype.kind != "O" and observed.dtype.kind != "O":
        by_value = np.argsort(categories)
        place = np.searchsorted(categories, observed, sorter=by_value)
        codes = by_value[np.minimum(place, categories.size - 1)]
        unknown = categories[codes] != observed
    else:
        lookup = {category: code for code, category in enumerate(categories.tolist())}
        codes = np.array([lookup.get(value, -1) for value in observed.tolist()], dtype=np.int64)
        unknown = codes < 0
    if unknown.any():
        value = observed[int(unknown.argmax())]
        value = value.item() if isinstance(value, np.generic) else value
        raise ValueError(f"{label}: category {value!r} was not there in fit, known are {_listed(categories)}")
    return codes


def _plain(categories: np.ndarray) -> np.ndarray:
    return categories if categories.dtype.kind in "fiub" else categories.astype(object)


def _real(observed: np.ndarray, label: str) -> np.ndarray:
    if observed.dtype.kind == "O" and not _only_numbers(observed):
        wrong = next(value for value in observed if not isinstance(value, numbers.Real))
        raise ValueError(f"{label}: a continuous column holds numbers, found {wrong!r}")
    result = np.asarray(observed, dtype=np.float64)
    if np.isinf(result).any():
        raise ValueError(f"{label}: numbers must be finite, found infinity")
    return result


def _named_columns(features: Any, d: int, names: Sequence[str] | None) -> set[int] | None:
    """Column numbers of an explicit `categorical_features`, None for the automatic ones."""
    if features is None:
        return set()
    if isinstance(features, str):
        if features not in ("auto", "from_dtype"):
            raise ValueError(f"categorical_features must be auto, from_dtype, None or list columns, found {features!r}")
        return None
    listed = np.asarray(features)
    if listed.ndim != 1:
        raise ValueError(f"categorical_features must list columns, found an array of shape {listed.shape}")
    if listed.size == 0:
        return set()
    if listed.dtype.kind == "b":
        if listed.size != d:
            raise ValueError(f"categorical_features must mark all {d} columns, found {listed.size} marks")
        return set(np.flatnonzero(listed).tolist())
    if listed.dtype.kind in "iu":
        outside = listed[(listed < 0) | (listed >= d)]
        if outside.size:
            raise ValueError(f"categorical_features must be columns 0..{d - 1}, found {outside[0]}")
        return set(listed.tolist())
    if names is None or not all(isinstance(name, str) for name in listed.tolist()):
        raise ValueError(
            f"categorical_features must be indices, marks, or names of a table that has them, found {features!r}"
        )
    place = {name: k for k, name in enumerate(names)}
    unknown = [name for name in listed.tolist() if name not in place]
    if unknown:
        raise ValueError(f"categorical_features names {unknown[0]!r}, which is none of {list(names)}")
    return {place[name] for name in listed.tolist()}


def _listed(categories: np.ndarray) -> str:
    values = categories.tolist()
    return ", ".join(map(repr, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")
