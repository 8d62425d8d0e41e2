"""Closed intervals of real numbers."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, cast

import numpy as np

from ringdist.backend import Array, is_array, is_concrete, namespace

Kind = Literal["numbers", "dates", "durations"]


@dataclass(frozen=True, init=False, repr=False)
class Interval:
    """The closed interval of real numbers x with low <= x <= high.

    An event {column: Interval} restricts a column to an interval; see `TensorRing.probability`,
    `TensorRing.condition` and `TensorRing.sample_given`. Intervals apply to counts as well.

    Args:
        low: the least number, or None for no bound. A date is converted to seconds since 1970 in UTC, and a duration to
            seconds, as in columns of `TensorRingDensity`.
        high: the greatest number, or None for no bound.

    Attributes:
        low, high: the bounds, −inf and inf if there is none.
        kind: what the bounds were given as, "numbers", "dates" or "durations". Equality does not depend on it.

    Raises:
        ValueError: if a bound is NaN, low is inf or high −inf, low > high, or the bounds are of two kinds.
        TypeError: if a bound is neither a real number, a date or a duration, nor None.

    Examples:
        >>> import ringdist as rd
        >>> adult = rd.Interval(18, None)
        >>> adult, 17 in adult, 18 in adult
        (Interval(18, None), False, True)
        >>> import datetime
        >>> rd.Interval(datetime.date(2020, 1, 1), None)
        Interval(1577836800, None)
    """

    low: float
    high: float
    kind: Kind = field(default="numbers", compare=False)

    def __init__(self, low: float | None = None, high: float | None = None):
        kinds = {_kind(bound) for bound in (low, high) if bound is not None} or {"numbers"}
        if len(kinds) > 1:
            raise ValueError(
                f"the bounds of an interval must be two numbers, two dates or two durations, found {low!r} and {high!r}"
            )
        object.__setattr__(self, "kind", kinds.pop())
        object.__setattr__(self, "low", _bound("low", low, -math.inf))
        object.__setattr__(self, "high", _bound("high", high, math.inf))
        if self.low == math.inf or self.high == -math.inf:
            raise ValueError(f"an interval must contain finite numbers, found {self!r}")
        if self.low > self.high:
            raise ValueError(f"an interval must have low <= high, found low = {self.low:g} and high = {self.high:g}")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __repr__(self) -> str:
        return f"Interval({_text(self.low)}, {_text(self.high)})"

    @property
    def is_unbounded(self) -> bool:
        """Whether it contains all numbers."""
        return self.low == -math.inf and self.high == math.inf

    def intersection(self, other: Interval) -> Interval | None:
        """The numbers in both intervals; None if there are none.

        Examples:
            >>> import ringdist as rd
            >>> rd.Interval(0, 5).intersection(rd.Interval(3, None))
            Interval(3, 5)
        """
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Interval(low, high) if low <= high else None

    def holds(self, x: Array) -> Array:
        """Whether each entry of x is in the interval, with the bounds rounded to the dtype of x; NaN is not."""
        end = float(namespace(x).finfo(x.dtype).max)
        low, high = (bound if math.isinf(bound) else min(max(bound, -end), end) for bound in (self.low, self.high))
        return (x >= low) & (x <= high)


def _bound(label: str, value: Any, unbounded: float) -> float:
    if value is None:
        return unbounded
    value = _seconds(value)
    if is_array(value) and value.ndim == 0:
        if not is_concrete(value):
            raise TypeError(f"{label} of an interval must be a concrete number, found a traced array")
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        remedy = f"; write a date as pandas.Timestamp({value!r})" if isinstance(value, str) else ""
        raise TypeError(
            f"{label} of an interval must be a real number, a date, a duration or None, found {value!r}{remedy}"
        )
    try:
        bound = float(cast(Any, value))
    except OverflowError:
        raise ValueError(f"{label} of an interval must be in the range of floating point numbers") from None
    if math.isnan(bound):
        raise ValueError(f"{label} of an interval must be a number or None, found NaN")
    return bound


def _kind(value: Any) -> Kind:
    match value:
        case np.datetime64() | datetime.date():
            return "dates"
        case np.timedelta64() | datetime.timedelta():
            return "durations"
    return "numbers"


def _seconds(value: Any) -> Any:
    """Dates and durations of Python, NumPy or pandas in seconds, NaN if missing; other values unchanged."""
    match value:
        case np.datetime64() | np.timedelta64():
            since = value - np.datetime64(0, "s") if isinstance(value, np.datetime64) else value
            return float(since / np.timedelta64(1, "s"))
        case datetime.timedelta():
            return value.total_seconds()
        case datetime.datetime():
            zone = datetime.UTC if value.tzinfo is not None else None
            return (value - datetime.datetime(1970, 1, 1, tzinfo=zone)).total_seconds()
        case datetime.date():
            return float((value - datetime.date(1970, 1, 1)).days) * 86_400.0
    return value


def _text(bound: float) -> str:
    if math.isinf(bound):
        return "None"
    return str(int(bound)) if bound.is_integer() and abs(bound) < 1e16 else repr(bound)
