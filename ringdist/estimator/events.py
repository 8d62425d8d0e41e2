"""Events and values in a table's own labels, as those of its ring: intervals of numbers, codes of categories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column, level_of, listed
from ringdist.estimator.families import LOCATION_SCALE
from ringdist.estimator.frames import Raw, is_missing, near
from ringdist.estimator.scalars import CLOCKS
from ringdist.variables import Interval

Event = Interval | set[int]


def is_event(value: Any) -> bool:
    """Whether what is said of a column is an event and not one value."""
    return isinstance(value, Interval | set | frozenset | list | tuple | range | np.ndarray)


def as_events(columns: Sequence[Column], event: Mapping[Any, Any], place: Mapping[Any, int]) -> dict[int, Event]:
    """Events of the ring, by column.

    Raises:
        TypeError: if `event` is not a mapping.
        ValueError: if a column is unknown, or what is said of it does not fit it.
    """
    if not isinstance(event, Mapping):
        raise TypeError(
            f"an event must be a dict from columns to intervals or sets, such as {{'age': rd.Interval(50, None)}}, "
            f"found {event!r}"
        )
    return {column_of(name, place): as_event(columns[column_of(name, place)], value) for name, value in event.items()}


def column_of(name: Any, place: Mapping[Any, int]) -> int:
    """The index of a column given by its name or index; `ValueError` if there is none."""
    if isinstance(name, str) or not isinstance(name, int | np.integer):
        if name in place:
            return place[name]
    elif name in place:
        return place[name]
    elif 0 <= name < len(place) and not isinstance(name, bool):
        return int(name)
    known = ", ".join(map(repr, place))
    raise ValueError(f"there is no column {name!r}; columns are {known}; {near(name, list(place))}name one of them")


def as_event(column: Column, value: Any) -> Event:
    """What is said of one column, as an event of the ring."""
    if column.categories is not None:
        return _codes(column, value)
    if isinstance(value, Interval):
        return _interval(column, value)
    words = isinstance(value, str) and column.scalars.notation not in CLOCKS
    if is_missing(value) or words or isinstance(value, slice) or hasattr(value, "closed"):  # an interval of pandas
        raise ValueError(
            f"{column.label}: an event of a {column.type} column is an rd.Interval, found {value!r}; write it as "
            "rd.Interval(low, high), None for no bound, or leave the column out"
        )
    values = list(value) if is_event(value) else [value]
    numbers = np.sort(_numbers(column, values)) if values else np.zeros(0)
    step = column.scalars.step
    if numbers.size == 0:
        raise ValueError(
            f"{column.label}: an event must allow at least one value, found none; give an rd.Interval, or leave the "
            "column out"
        )
    whole = bool(step) and bool(np.allclose(np.diff(numbers), step))
    if whole or (numbers.size == 1 and numbers[0] in column.atoms):
        return _interval(column, Interval(float(numbers[0]), float(numbers[-1])))
    raise ValueError(
        f"{column.label}: an event of a {column.type} column is an rd.Interval, found {value!r}; write "
        f"rd.Interval({numbers[0]:g}, {numbers[-1]:g}) for all numbers between them: a single real number has no "
        "probability"
    )


def as_value(column: Column, value: Any) -> float:
    """One value of a column as the ring's; `ValueError` if it is missing or does not fit."""
    if is_missing(value):
        raise ValueError(
            f"{column.label}: a value to condition on must be given, found {value!r}; leave the column out where its "
            "value is not known"
        )
    if column.categories is None:
        return float(_numbers(column, [value])[0])
    return float(_level(column, value))


def _numbers(column: Column, values: Sequence[Any]) -> np.ndarray:
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return column.scalars.to_float(objects, column.label)


def _interval(column: Column, value: Interval) -> Interval:
    """Of a column of integers under a density, all that is rounded to its integers; of one with an end, all beyond."""
    low, high, step = value.low, value.high, column.scalars.step
    if column.half_step:
        low = (math.ceil(low / step - 1e-9) - 0.5) * step if math.isfinite(low) else low
        high = (math.floor(high / step + 1e-9) + 0.5) * step if math.isfinite(high) else high
        if low >= high:
            raise ValueError(f"{column.label}: {value!r} holds no value of the column, which are multiples of {step:g}")
    if column.type in LOCATION_SCALE and value.high < column.scalars.low:  # no value is there, but density may be
        return Interval(None, -float(np.finfo(np.float64).max))
    if value.low <= column.scalars.low and value.high >= column.scalars.low:
        low = -math.inf
    return Interval(None if low == -math.inf else low, None if high == math.inf else high)


def _codes(column: Column, value: Any) -> set[int]:
    categories: Any = column.categories
    if isinstance(value, Interval):
        if categories.dtype.kind not in "fiub":
            raise ValueError(
                f"{column.label}: categories have no order, so they cannot lie in {value!r}; name them in a set, such "
                f"as {{{', '.join(map(repr, categories[:2].tolist()))}}}"
            )
        levels = {int(s) for s in np.flatnonzero((categories >= value.low) & (categories <= value.high))}
        if not levels:
            raise ValueError(f"{column.label}: {value!r} holds none of its categories {listed(categories)}")
    else:
        named: Iterable[Any] = value if is_event(value) else [value]
        levels = {_level(column, entry, merged=False) for entry in named}
        if not levels:
            raise ValueError(
                f"{column.label}: an event must allow at least one category, found none; name some of "
                f"{listed(categories)}, or leave the column out"
            )
    last = column.num_codes - 1
    rare = {s for s in levels if s >= last}
    if column.rare.size and rare and len(rare) < column.rare.size:
        raise ValueError(
            f"{column.label}: the {column.rare.size} rarest categories share one code, so that an event names all or "
            f"none of them, found {len(rare)}"
        )
    return {min(s, last) for s in levels}


def _level(column: Column, value: Any, *, merged: bool = True) -> int:
    categories: Any = column.categories
    objects = np.empty(1, dtype=object)
    objects[0] = value
    code = int(level_of(Raw(objects, np.zeros(1, dtype=bool)).observed, categories)[0])
    if code < 0:
        raise ValueError(
            f"{column.label}: category {value!r} was not there in fit, known are {listed(categories)}; "
            f"{near(value, categories.tolist())}name one of these"
        )
    return min(code, column.num_codes - 1) if merged else code
