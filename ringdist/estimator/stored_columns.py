"""Columns as JSON objects, and back, with checks of all values in a file."""

from __future__ import annotations

import math
import re
from reprlib import repr as short
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column
from ringdist.estimator.families import FAMILIES
from ringdist.estimator.scalars import NOTATIONS, Scalars
from ringdist.interop.tensorfile import fields

_KINDS = {"f": "float", "i": "int", "u": "int", "b": "bool", "O": "str"}
_TYPES = {"float": float, "int": int, "bool": bool, "str": str}
_DTYPE = re.compile(r"[A-Za-z0-9\[\], /_+:-]{0,60}")
_CATEGORICAL = ("ordered", "rare", "dtype")  # in addition to those of files of the first version
_NUMERIC = ("type", "atoms", "bounds", "scalars", "dtype")


def to_json(column: Column) -> dict[str, Any]:
    """The column as a JSON object, the inverse of `from_json`; `ValueError` for categories of another kind."""
    if column.categories is None:
        written = column.scalars
        return {
            "label": column.label,
            "kind": "real",
            "declared": False,
            "type": column.type,
            "atoms": list(column.atoms),
            "bounds": None if column.bounds is None else list(column.bounds),
            "scalars": [written.notation, written.step, _finite(written.low), _finite(written.high)],
            "dtype": column.dtype,
        }
    values = column.categories.tolist()
    kind = _KINDS[column.categories.dtype.kind]
    if kind == "str" and not all(isinstance(value, str) for value in values):
        raise ValueError(f"{column.label}: only strings and numbers can be saved, found categories {values[:5]}")
    return {
        "label": column.label,
        "kind": kind,
        "declared": column.declared,
        "categories": values,
        "ordered": column.ordered,
        "rare": column.rare.tolist(),
        "dtype": column.dtype,
    }


def from_json(entry: Any) -> Column:
    """The column that `to_json` described; `ValueError` for anything else."""
    real = isinstance(entry, dict) and entry.get("kind") == "real"
    names = ["label", "kind", "declared"] + ["categories"] * (not real)
    added = _NUMERIC if real else _CATEGORICAL
    recent = isinstance(entry, dict) and "dtype" in entry
    label, kind, declared, *rest = fields(entry, [*names, *(added if recent else ())], "a column")
    if not isinstance(label, str) or not isinstance(declared, bool):
        raise ValueError(f"a column needs a string label and a boolean declared, found {short(entry)}")
    if recent and not (isinstance(rest[-1], str) and _DTYPE.fullmatch(rest[-1])):
        raise ValueError(f"{label}: dtype must be the name of a dtype, found {short(rest[-1])}")
    if real:
        return _numeric(label, *rest) if recent else Column(label)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"{label}: the kind of categories must be one of {', '.join(_TYPES)}, found {short(kind)}")
    values, known = rest[0], _TYPES[kind]
    if not isinstance(values, list) or not all(type(value) is known for value in values):
        raise ValueError(f"{label}: categories must be a list of {kind}, found {short(values)}")
    if len(set(values)) != len(values) or (known is float and np.isnan(values).any()):
        raise ValueError(f"{label}: categories must differ and not be NaN, found {short(values)}")
    categories = np.array(values, dtype=_dtype(values, known))
    if not recent:
        return Column(label, categories, declared, type="categorical")
    ordered, rare, dtype = rest[1:]
    counts = _numbers(rare, f"{label}: counts of rare categories")
    if not isinstance(ordered, bool) or len(counts) > len(values) or any(count < 0 for count in counts):
        raise ValueError(f"{label}: ordered must be a boolean, and rare a list of counts, found {short(entry)}")
    return Column(label, categories, declared, ordered, "categorical", rare=np.array(counts), dtype=dtype)


def _numeric(label: str, kind: Any, atoms: Any, bounds: Any, written: Any, dtype: str) -> Column:
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{label}: the type must be one of {', '.join(FAMILIES)}, found {short(kind)}")
    values = tuple(_numbers(atoms, f"{label}: atoms"))
    ends = None if bounds is None else _numbers(bounds, f"{label}: bounds")
    if ends is not None and (len(ends) != 2 or ends[0] >= ends[1] or kind != "beta"):
        raise ValueError(f"{label}: bounds must be two ascending numbers of a beta column, found {short(bounds)}")
    if not isinstance(written, list) or len(written) != 4 or written[0] not in NOTATIONS:
        raise ValueError(f"{label}: scalars must be a notation, a step and two ends, found {short(written)}")
    step, low, high = (
        infinite if value is None else _numbers([value], f"{label}: scalars")[0]
        for value, infinite in zip(written[1:], (0.0, -math.inf, math.inf), strict=True)
    )
    if step < 0 or low > high:
        raise ValueError(f"{label}: scalars need a non-negative step and ascending ends, found {short(written)}")
    scalars = Scalars(written[0], step, low, high)
    return Column(
        label, None, type=kind, atoms=values, bounds=(ends[0], ends[1]) if ends else None, scalars=scalars, dtype=dtype
    )


def _numbers(values: Any, label: str) -> list[float]:
    if not isinstance(values, list) or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise ValueError(f"{label} must be a list of finite numbers, found {short(values)}")
    return [float(value) for value in values]


def _dtype(values: list[Any], known: type) -> Any:
    if known is int:
        return np.uint64 if max(values, default=0) > np.iinfo(np.int64).max else np.int64
    return np.object_ if known is str else known


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
