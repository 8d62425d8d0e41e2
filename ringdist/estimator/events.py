"""Events and values in a table's own labels, converted to those of its ring: intervals of numbers, sets of codes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column, level_of, listed
from ringdist.estimator.families import LOCATION_SCALE
from ringdist.estimator.frames import Raw, is_missing, near
from ringdist.estimator.scalars import CLOCKS
from ringdist.variables import Interval

Event = Interval | set[int]


def is_event(value: Any) -> bool:
    """Whether the user's condition on a column is an event, and not a single value."""
    return isinstance(value, Interval | set | frozenset | list | tuple | range | np.ndarray)


def as_events(columns: Sequence[Column], event: Mapping[Any, Any], place: Mapping[Any, int]) -> dict[int, Event]:
    """The user's events as events of the ring, by column index.

    Raises:
        TypeError: if `event` is not a mapping.
        ValueError: if a column is unknown, or an event does not fit its column.
    """
    if not isinstance(event, Mapping):
        raise TypeError(
            f"an event must be a dict from columns to intervals or sets, such as {{'age': rd.Interval(50, None)}}, "
            f"found {event!r}"
        )
    return {column_of(name, place): as_event(columns[column_of(name, place)], value) for name, value in event.items()}


def column_of(name: Any, place: Mapping[Any, int]) -> int:
    """The index of a column given by its name or index; `ValueError` if there is none."""
    if not isinstance(name, Hashable):
        raise ValueError(f"a column is one name or one index, found {name!r}; ask for one column at a time")
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
    """The user's event of one column as an event of the ring."""
    if isinstance(value, Interval) and (column.categories is None or column.categories.dtype.kind in "fiub"):
        _check_kind(column, value)
    if column.categories is not None:
        return _codes(column, value)
    if isinstance(value, Interval):
        return _interval(column, value)
    is_text = isinstance(value, str) and column.scalars.notation not in CLOCKS
    if is_missing(value) or is_text or isinstance(value, slice) or hasattr(value, "closed"):  # a pandas Interval
        raise ValueError(
            f"{column.label}: an event of a {column.type} column must be an rd.Interval, found {value!r}; write "
            "rd.Interval(low, high), with None for no bound, or leave the column out"
        )
    values = list(value) if is_event(value) else [value]
    numbers = np.sort(_numbers(column, values)) if values else np.zeros(0)
    step = column.scalars.step
    if numbers.size == 0:
        raise ValueError(
            f"{column.label}: an event must allow at least one value, found none; write an rd.Interval, or leave the "
            "column out"
        )
    consecutive = bool(step) and bool(np.allclose(np.diff(numbers), step))
    if consecutive or (numbers.size == 1 and numbers[0] in column.atoms):
        return _interval(column, Interval(float(numbers[0]), float(numbers[-1])))
    raise ValueError(
        f"{column.label}: an event of a {column.type} column must be an rd.Interval, because a single real number has "
        f"probability 0, found {value!r}; write rd.Interval({numbers[0]:g}, {numbers[-1]:g}) for all numbers between"
    )


def as_value(column: Column, value: Any) -> float:
    """One value of a column as a number or code of the ring; `ValueError` if it is missing or does not fit."""
    if is_missing(value):
        raise ValueError(
            f"{column.label}: a value to condition on must not be missing, found {value!r}; leave the column out if "
            "its value is not known"
        )
    if column.categories is None:
        return float(_numbers(column, [value])[0])
    return float(_level(column, value))


def _numbers(column: Column, values: Sequence[Any]) -> np.ndarray:
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return column.scalars.to_float(objects, column.label)


def _check_kind(column: Column, value: Interval) -> None:
    """`ValueError` if bounds are dates and entries are not, and likewise for durations and numbers."""
    expected = {"datetime": "dates", "date": "dates", "timedelta": "durations"}.get(column.scalars.notation, "numbers")
    if value.is_unbounded or value.kind == expected:
        return
    example = {
        "dates": "such as rd.Interval(pandas.Timestamp('2020-01-31'), None)",
        "durations": "such as rd.Interval(pandas.Timedelta(hours=1), None)",
        "numbers": "such as rd.Interval(1, None)",
    }
    raise ValueError(
        f"{column.label}: bounds of an interval must be {expected}, as the entries are, found {value.kind} in "
        f"{value!r}; write {expected}, {example[expected]}"
    )


def _interval(column: Column, value: Interval) -> Interval:
    """The interval of the ring's numbers that stand for the values in an interval.

    A column of integers with a density has all numbers that are rounded to them. If the interval contains the end of
    the column's support, numbers beyond the end are included.
    """
    low, high, step = value.low, value.high, column.scalars.step
    if column.half_step:
        low = (math.ceil(low / step - 1e-9) - 0.5) * step if math.isfinite(low) else low
        high = (math.floor(high / step + 1e-9) + 0.5) * step if math.isfinite(high) else high
        if low >= high:
            raise ValueError(f"{column.label}: {value!r} contains none of its values, the multiples of {step:g}")
    if column.type in LOCATION_SCALE and value.high < column.scalars.low:  # no values, but there may be density
        return Interval(None, -float(np.finfo(np.float64).max))
    if value.low <= column.scalars.low and value.high >= column.scalars.low:
        low = -math.inf
    return Interval(None if low == -math.inf else low, None if high == math.inf else high)


def _codes(column: Column, value: Any) -> set[int]:
    categories: Any = column.categories
    if isinstance(value, Interval):
        if categories.dtype.kind not in "fiub":
            raise ValueError(
                f"{column.label}: categories have no order, so they cannot lie in {value!r}; write a set of them, such "
                f"as {{{', '.join(map(repr, categories[:2].tolist()))}}}"
            )
        levels = {int(s) for s in np.flatnonzero((categories >= value.low) & (categories <= value.high))}
        if not levels:
            raise ValueError(f"{column.label}: {value!r} contains none of its categories {listed(categories)}")
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
            f"{column.label}: the {column.rare.size} rarest categories are merged, so an event must name all or none "
            f"of them, found {len(rare)}"
        )
    return {min(s, last) for s in levels}


def _level(column: Column, value: Any, *, merged: bool = True) -> int:
    categories: Any = column.categories
    objects = np.empty(1, dtype=object)
    objects[0] = value
    if is_missing(value):
        raise ValueError(f"{column.label}: an event must not be missing, found {value!r}; leave the column out")
    code = int(level_of(Raw(objects, np.zeros(1, dtype=bool)).observed, categories)[0])
    if code < 0:
        raise ValueError(
            f"{column.label}: category {value!r} was not in the table of fit, known are {listed(categories)}; "
            f"{near(value, categories.tolist())}name one of these"
        )
    return min(code, column.num_codes - 1) if merged else code
