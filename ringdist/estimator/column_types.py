"""The type of each column of a training table, inferred from its values or given by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ringdist.estimator import families, repeats, scalars
from ringdist.estimator.columns import COUNTS, Column, Unknown
from ringdist.estimator.frames import Raw, clock_of, near, only_integers, only_numbers
from ringdist.estimator.notices import warn

TYPES = ("categorical", *families.FAMILIES)
FEW_VALUES = 5  # distinct integers that are categories for any number of rows
MOST_VALUES = 20  # distinct numbers that are categories if there are
ROWS_PER_VALUE = 5  # rows for each of them on average, if they are integers
FLOAT_ROWS, ROWS_PER_FLOAT = 100, 20  # rows in total and for each of them on average, if they are real numbers
FEW_ZEROS = 0.2  # share of the rows of a column of counts below which zeros are not an atom
MOST_LEVELS = 256  # levels of a categorical column with a code of their own
INTEGER_ROWS = 20  # fewest rows of floats without missing entries that are not integers by chance
REFUSED_LEVELS = 2000  # a column with more levels, and fewer than two rows for each, is refused
WARNING_ROWS = 20  # fewest rows for a warning about a constant or an identifier


def columns_of(
    raws: Sequence[Raw],
    names: Sequence[Any] | None,
    categorical_features: Any,
    column_types: Any,
    unknown: Unknown,
    seed: int,
) -> list[Column]:
    """The columns of a training table, with types and encodings; see `TensorRingDensity` for the options.

    Raises:
        ValueError: if an option does not fit, a column has no observed entry, or values do not fit their type.
        TypeError: if a column contains neither numbers nor strings.
    """
    labels = [f"column {k}" if names is None else f"column {k} ({str(names[k])!r})" for k in range(len(raws))]
    named = _named_columns(categorical_features, len(raws), names)
    chosen = chosen_types(column_types, len(raws), names)
    columns = []
    for k, (raw, label) in enumerate(zip(raws, labels, strict=True)):
        if raw.observed.size == 0 and raw.declared is None:
            raise ValueError(f"{label}: fit needs an observed entry, found none; drop the column")
        kind = chosen.get(k)
        if kind is None and named is not None:
            kind = "categorical" if k in named else None
        elif kind is None and categorical_features == "from_dtype":
            kind = "categorical" if raw.declared is not None else None
        elif kind is None:
            kind = "categorical" if _is_categorical(raw, label) else None
        name = k if names is None else names[k]
        column = _categorical(raw, label, unknown) if kind == "categorical" else _numeric(raw, label, kind, seed + k)
        _warn_of_useless(raw, column, name)
        columns.append(column)
    return columns


def _is_categorical(raw: Raw, label: str) -> bool:
    """Whether a column is categorical under "auto"."""
    observed = raw.observed
    if raw.declared is not None or observed.dtype.kind == "b":
        return True
    if observed.dtype.kind in "Mm" or clock_of(observed) not in (None, "timedelta"):
        return _refuse_dates(observed, label)
    if observed.dtype.kind == "O":
        if clock_of(observed) is not None:
            return False
        if not only_numbers(observed):
            _check_strings(observed, label)
            return True
        if not only_integers(observed):
            return False
        return all(isinstance(v, bool | np.bool_) for v in observed) or _are_few(np.array(observed.tolist()))
    if observed.dtype.kind == "f" and not (raw.missing.any() and _are_integers(raw)):
        return _are_settings(observed)
    return _are_few(observed)


def _are_integers(raw: Raw) -> bool:
    """Whether floats are integers that pandas or a file has converted, because of missing entries for example."""
    observed = raw.observed
    if not observed.size or not (raw.missing.any() or observed.size >= INTEGER_ROWS):
        return False
    return bool((np.abs(observed) < 2**53).all() and (observed % 1 == 0).all())


def _refuse_dates(observed: np.ndarray, label: str) -> bool:
    """Raise `TypeError` for dates; False for durations, which are numbers."""
    if observed.dtype.kind == "m":
        return False
    found = observed[0] if observed.dtype.kind == "O" else f"Timestamp('{observed[0]}')"
    name = label.split("'")[1] if "'" in label else label.split()[-1]
    raise TypeError(
        f"{label}: dates need an explicit type, found {found}; replace the column by its relevant parts, such as "
        f"month, weekday or days since a start, or model it as a number by column_types={{{name!r}: 'gaussian'}}"
    )


def _are_few(values: np.ndarray) -> bool:
    """Whether distinct integers are few enough to be categories."""
    distinct = np.unique(values).size
    return distinct <= FEW_VALUES or (distinct <= MOST_VALUES and values.size >= ROWS_PER_VALUE * distinct)


def _are_settings(values: np.ndarray) -> bool:
    """Whether real numbers are a few distinct settings, each in many rows, and so categories."""
    if values.size < FLOAT_ROWS:
        return False
    distinct = np.unique(values)
    if not 2 <= distinct.size <= min(MOST_VALUES, values.size // ROWS_PER_FLOAT) or np.isinf(values).any():
        return False
    return bool((np.diff(distinct) > 1e-6 * np.abs(distinct).max()).all())  # not one number with rounding errors


def _check_strings(observed: np.ndarray, label: str) -> None:
    strings = [value for value in observed if isinstance(value, str)]
    others = [value for value in observed if not isinstance(value, str)]
    if not others:
        return
    number = next((value for value in others if only_numbers(np.array([value], dtype=object))), None)
    if strings and number is not None:
        found = f"both {strings[0]!r} and {number!r}"
        remedy = (
            "convert it by pandas.to_numeric(frame[name], errors='coerce') if it contains numbers, or by "
            "frame[name].astype(str) if it contains names"
        )
    else:
        found = f"{others[0]!r} of type {type(others[0]).__name__}"
        remedy = {
            "Period": "convert it to dates by frame[name].dt.to_timestamp(), and give these a type by column_types",
            "time": "convert it to a number, such as hours since midnight",
        }.get(type(others[0]).__name__, "convert it, such as by frame[name].astype(str), or drop it")
    raise TypeError(f"{label}: the argument must be a column of only strings or only numbers, found {found}; {remedy}")


# ------------------------------------------------------------------------------------------------- categories


def _categorical(raw: Raw, label: str, unknown: Unknown) -> Column:
    categories = _categories(raw, label)
    ordered = raw.ordered and raw.declared is not None
    notation = scalars.Scalars()
    column = Column(
        label, categories, raw.declared is not None, ordered, "categorical", scalars=notation, dtype=raw.dtype
    )
    if categories.size <= MOST_LEVELS and unknown != "rare":
        return column
    return _with_rare_levels(column, raw, unknown)


def _categories(raw: Raw, label: str) -> np.ndarray:
    if raw.declared is not None:
        return raw.declared
    observed = raw.observed
    if observed.dtype.kind in "Mm" or (observed.dtype.kind == "O" and clock_of(observed) is not None):
        raise ValueError(
            f"{label}: categories must be strings, numbers or booleans, found {observed[0]!r}; convert them, such as "
            "by frame[name].astype(str)"
        )
    if observed.dtype.kind == "O":
        if not only_numbers(observed):
            _check_strings(observed, label)
            return np.array(sorted(set(observed.tolist())), dtype=object)
        observed = np.asarray(observed.tolist())
    if observed.dtype.kind == "f":
        scalars.real(observed, label)
    return np.unique(observed)


def _with_rare_levels(column: Column, raw: Raw, unknown: Unknown) -> Column:
    """The column with its rarest levels merged if there are too many levels, or unseen levels count as rare."""
    categories: Any = column.categories
    if categories.size > max(REFUSED_LEVELS, raw.observed.size // 2):
        raise ValueError(
            f"{column.label}: a categorical column needs several rows for each category, found {categories.size} "
            f"categories in {raw.observed.size} rows; drop the column if it is an identifier, group its categories, or "
            "give it a numeric type in column_types"
        )
    levels = column.encode(raw)[0]
    count = np.bincount(levels[~np.isnan(levels)].astype(np.int64), minlength=categories.size)
    by_count = np.argsort(-count, kind="stable")
    common = min(MOST_LEVELS - 1, categories.size) if categories.size > MOST_LEVELS else categories.size
    if unknown == "rare":
        common = min(common, int((count > max(1, count.sum() // 1000)).sum()))
    rare = np.sort(by_count[common:])
    if rare.size == 0:
        return column
    if categories.size > MOST_LEVELS and (count[count > 0].max() > 1 or raw.declared is not None):
        warn(
            f"{column.label}: {categories.size} categories are more than {MOST_LEVELS}, so the {rare.size} rarest, in "
            f"{100 * count[rare].sum() / max(1, count.sum()):.0f} % of the rows, are merged; group the categories "
            "yourself to keep important ones apart, or drop the column",
            UserWarning,
        )
    kept = np.sort(by_count[:common])
    found = np.concatenate([categories[kept], categories[rare]])
    return Column(
        column.label,
        found,
        column.declared,
        column.ordered,
        "categorical",
        rare=count[rare].astype(np.float64),
        dtype=column.dtype,
    )


# ---------------------------------------------------------------------------------------------------- numbers


def _atoms(values: np.ndarray, integers: bool, label: str) -> tuple[float, ...]:
    """Values that are repeated too often for a density; but zeros of small counts are part of the counts."""
    found = repeats.atoms(values, label)
    counts = integers and np.median(values) <= families.LARGEST_COUNT and (values == 0).mean() < FEW_ZEROS
    return () if counts and found == (0.0,) else found


def _numeric(raw: Raw, label: str, kind: str | None, seed: int) -> Column:
    """A column of numbers; its family is chosen by held-out likelihood if `kind` is None."""
    observed = raw.observed
    notation = scalars.described(observed, label)
    values = notation.to_float(observed, label)
    if observed.dtype.kind == "f" and _are_integers(raw):
        notation = scalars.Scalars(step=1.0, low=notation.low)
    integers = notation.step == 1.0 and notation.notation in ("integer", "real", "decimal")
    if kind is None:
        atoms = _atoms(values, integers, label)
        families.check_sizes(values, atoms, label)
        kind, bounds = families.chosen(values, atoms, integers, seed)
    else:
        families.check_values(kind, values, label)
        atoms = () if kind in COUNTS else repeats.atoms(values, label)
        families.check_sizes(values, atoms, label)
        bounds = families.bounds_of(values) if kind == "beta" else None
    atoms = tuple(sorted({*atoms, *families.needed_atoms(kind)}))
    others = values[~np.isin(values, atoms)]
    if others.size == 0:
        kind, atoms, bounds = "gaussian", (), None
    elif kind == "beta":
        low, high = families.ends_of(others)
        notation = replace(notation, low=min((low, *atoms)), high=max((high, *atoms)))
    return Column(label, None, type=kind, atoms=atoms, bounds=bounds, scalars=notation, dtype=raw.dtype)


# -------------------------------------------------------------------------------------- warnings and options


def _warn_of_useless(raw: Raw, column: Column, name: Any) -> None:
    """Warn of a constant column and of an identifier."""
    observed = raw.observed
    if observed.size < WARNING_ROWS or clock_of(observed) is not None:
        return
    distinct = len(set(observed.tolist()))
    if distinct == 1 and (column.categories is None or column.categories.size == 1):
        value = observed[0].item() if isinstance(observed[0], np.generic) else observed[0]
        text = f"all {observed.size} entries are {value!r}, so the column has no information; drop it"
    elif distinct == observed.size and _is_identifier(observed, str(name)):
        text = (
            f"all {observed.size} entries differ, like those of an identifier; drop it, or give its type by "
            f"column_types={{{name!r}: ...}}"
        )
    else:
        return
    warn(f"{column.label}: {text}", UserWarning)


def _is_identifier(observed: np.ndarray, name: str) -> bool:
    """Whether distinct values are names of rows: strings, integers without large gaps, or integers called an id."""
    if observed.dtype.kind == "O" and not only_numbers(observed):
        return True
    integers = observed.dtype.kind in "iu" or (observed.dtype.kind == "O" and only_integers(observed))
    if not integers:
        return False
    extent = float(max(observed.tolist())) - float(min(observed.tolist())) + 1
    return extent <= 2 * observed.size or re.search(r"(^|_)id$|Id$|ID$", name) is not None


def chosen_types(column_types: Any, d: int, names: Sequence[Any] | None) -> dict[int, str]:
    """The types that the user gives, by column index."""
    if isinstance(column_types, str) and column_types == "auto":
        return {}
    if not isinstance(column_types, Mapping):
        raise ValueError(
            f"column_types must be 'auto' or a dict from columns to types, such as {{'age': 'count'}}, "
            f"found {column_types!r}"
        )
    place = {} if names is None else {name: k for k, name in enumerate(names)}
    found = {}
    for key, kind in column_types.items():
        k = place.get(key)
        key = int(key) if names is None and isinstance(key, str) and key.isdecimal() else key  # read from a file
        if k is None and isinstance(key, int | np.integer) and not isinstance(key, bool) and 0 <= key < d:
            k = int(key)
        if k is None:
            known = list(names) if names is not None else list(range(d))
            raise ValueError(
                f"column_types names an unknown column {key!r}, columns are {known}; {near(key, known)}leave it out"
            )
        if kind not in TYPES and kind != "auto":
            raise ValueError(
                f"column_types: {key!r} must be one of {', '.join(TYPES)}, found {kind!r}; leave it out for the "
                "inferred type"
            )
        if kind != "auto":
            found[k] = str(kind)
    return found


def _named_columns(features: Any, d: int, names: Sequence[Any] | None) -> set[int] | None:
    """Column indices of an explicit `categorical_features`; None if it is "auto" or "from_dtype"."""
    if features is None:
        return set()
    if isinstance(features, str):
        if features not in ("auto", "from_dtype"):
            raise ValueError(
                f"categorical_features must be auto, from_dtype, None or a list of columns, found {features!r}"
            )
        return None
    listed = np.asarray(features)
    if listed.ndim != 1:
        raise ValueError(f"categorical_features must be a list of columns, found an array of shape {listed.shape}")
    if listed.size == 0:
        return set()
    if listed.dtype.kind == "b":
        if listed.size != d:
            raise ValueError(f"a mask of categorical_features must have {d} entries, found {listed.size}")
        return set(np.flatnonzero(listed).tolist())
    if listed.dtype.kind in "iu":
        outside = listed[(listed < 0) | (listed >= d)]
        if outside.size:
            raise ValueError(f"indices of categorical_features must be in 0..{d - 1}, found {outside[0]}")
        return set(listed.tolist())
    if names is None or not all(isinstance(name, str) for name in listed.tolist()):
        raise ValueError(
            f"categorical_features must be indices, a mask, or names if the table has them, found {features!r}"
        )
    place = {name: k for k, name in enumerate(names)}
    unknown = [name for name in listed.tolist() if name not in place]
    if unknown:
        raise ValueError(f"categorical_features names an unknown column {unknown[0]!r}, columns are {list(names)}")
    return {place[name] for name in listed.tolist()}
