"""Events: columns within an interval or among some categories, as evidence about the components.

An event weights every component of its column by the component's mass in it, as a value does by its density. Engines
see only the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ringdist.backend import Array, is_concrete, like, namespace, nonzero_rows, stop_gradient
from ringdist.network.layout import Column
from ringdist.network.structure import Network
from ringdist.variables import Family, Interval
from ringdist.variables import restricted as restricted_family

N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Event:
    """The event of one column: an interval, or categories in ascending order."""

    column: int
    allowed: Interval | tuple[int, ...]
    family: Family  # of the column; of a wide variable the marginal of it
    label: str  # the column as errors name it

    def __str__(self) -> str:
        found = repr(self.allowed) if isinstance(self.allowed, Interval) else f"{{{', '.join(map(str, self.allowed))}}}"
        return f"{self.label} in {found}"

    def log_weights(self, core: Array) -> Array:
        """log P(event | s), (N,), in the accumulator's dtype of the variable, or that of a core."""
        if isinstance(self.allowed, Interval):
            return self.family.log_probability(self.allowed.low, self.allowed.high)
        return like([0.0 if s in self.allowed else -math.inf for s in range(self.family.num_components)], core)

    def holds(self, values: Array) -> Array:
        """Whether values, none of them missing, are in the event."""
        if isinstance(self.allowed, Interval):
            return self.allowed.holds(values)
        return namespace(values).any(values[..., None] == like(list(self.allowed), values), axis=-1)


Events = Mapping[int, Event]


def is_event(value: Any) -> bool:
    """Whether a value given for a column is an event instead of a number."""
    return isinstance(value, Interval | set | frozenset | list | tuple | range)


def as_events(ring: Network, event: Mapping[Column, Any]) -> dict[int, Event]:
    """Events by the index of their column.

    Raises:
        TypeError: if `event` is not a mapping, or what it says of a column is not an event.
        ValueError: if a column is unknown or named twice, or what is said of it does not fit it.
    """
    if not isinstance(event, Mapping):
        raise TypeError(f"an event must be a mapping from columns to intervals or sets, found {type(event).__name__}")
    events = {ring.column(k): value for k, value in event.items()}
    if len(events) != len(event):
        raise ValueError(f"the columns of an event must differ, found {list(event)}")
    return {k: _event(ring, k, value) for k, value in events.items()}


def _event(ring: Network, k: int, value: Any) -> Event:
    label, (site, place) = ring.describe(k), ring.place(k)
    family = ring.families[site].marginal([place])
    if not is_event(value):
        raise TypeError(f"{label}: an event is an rd.Interval or a set of categories, found {value!r}")
    if isinstance(value, Interval):
        if family.values_are_components:
            raise ValueError(
                f"{label}: categories have no order, so they cannot lie in {value!r}; name them in a set, such as "
                f"{{0, {family.num_components - 1}}}"
            )
        return Event(k, value, family, label)
    if not family.values_are_components:
        raise ValueError(
            f"{label}: a set names categories, found {value!r} for a {family.kind.__name__}; use an rd.Interval"
        )
    if len(value) == 0:
        raise ValueError(f"{label}: an event must allow at least one category, found none")
    return Event(k, tuple(sorted({_category(label, family, entry) for entry in value})), family, label)


def _category(label: str, family: Family, value: Any) -> int:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{label}: categories are integers, found {value!r}") from None
    try:
        if math.isnan(number):
            raise ValueError("a category must be a number, found NaN")
        family.check(np.asarray([number]))
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    return int(number)


def check_masses(events: Events, core: Array) -> None:
    """Raise `ValueError` naming the first event that no component of its column has any mass in."""
    for event in events.values():
        logs = stop_gradient(event.log_weights(core))
        if is_concrete(logs) and float(namespace(logs).max(logs)) == -math.inf:
            raise ValueError(f"an event must have positive mass, found zero mass for {event}")


def check_observed(events: Events, rows: Array, row_numbers: np.ndarray) -> None:
    """Raise `ValueError` naming the first observed entry of rows (b, d) that contradicts an event."""
    for k, event in events.items():
        values = rows[:, k]
        if not is_concrete(values):
            return
        outside = nonzero_rows(~(namespace(values).isnan(values) | event.holds(values)))
        if outside.shape[0]:
            i = int(outside[0])
            raise ValueError(
                f"{event.label}: what a row observes must be in the event, found {float(values[i]):g} in row "
                f"{int(row_numbers[i])} for {event}"
            )


def bounds_at(ring: Network, i: int, events: Events) -> dict[int, Interval]:
    """The intervals of events at a site, by the column's place in its variable."""
    own = {j: events[k].allowed for j, k in enumerate(ring.columns[i]) if k in events}
    return {j: allowed for j, allowed in own.items() if isinstance(allowed, Interval) and not allowed.is_unbounded}


def restricted(ring: N, events: Events) -> N:
    """The ring with the variables of the columns given the events, and the same cores.

    Categories stay, those outside a set without mass.
    """
    changed = {}
    for i in {ring.place(k)[0]: None for k in events}:
        bounds = bounds_at(ring, i, events)
        if bounds:
            changed[i] = restricted_family(ring.families[i], bounds).variable
    if not changed:
        return ring
    return ring.with_values(ring.links, [changed.get(i, variable) for i, variable in enumerate(ring.variables)])


def described(events: Events) -> str:
    """All events, as error messages name them."""
    return ", ".join(map(str, events.values()))
