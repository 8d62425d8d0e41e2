"""Rows of data as evidence: one weight per component of every column, and the logarithm of a common factor.

A missing entry (NaN) has weight 1 for every component, which is what marginalises it (paper Eq. 2). An event gives it
the mass of the event under every component.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    exp,
    indices,
    is_concrete,
    like,
    like_zeros,
    namespace,
    on_accelerator,
    stop_gradient,
    take,
    unstack,
)
from ringdist.network.events import Events, bounds_at
from ringdist.network.rows import values_of
from ringdist.network.structure import Network
from ringdist.variables import Family, log_density_within, postponed


class Weights(NamedTuple):
    """Weights of the components at a group of sites."""

    logs: Array  # (g, b, N), less each row's maximum
    offset: Array  # (b,) the sum of those maxima over the sites, in the accumulator's dtype

    @classmethod
    def of(cls, log_density: Array, prototype: Array) -> Weights:
        """The weights for log p(x_k | s) (g, b, N)."""
        xp = namespace(log_density)
        top = stop_gradient(xp.max(log_density, axis=-1))
        top = xp.where(top == -xp.inf, 0.0, top)
        return cls(log_density - top[..., None], xp.sum(astype(top, accumulator(prototype)), axis=0))

    def computed(self) -> Weights:
        return self

    def with_missing_row(self) -> Weights:
        xp, (size, _, width) = namespace(self.offset), self.logs.shape
        logs = xp.concat([self.logs, like_zeros((size, 1, width), self.logs)], axis=1)
        return Weights(logs, xp.concat([self.offset, like_zeros((1,), self.offset)]))

    def rows(self, index: Array) -> Weights:
        return Weights(take(self.logs, index, axis=1), take(self.offset, index))

    def detach(self) -> Weights:
        return Weights(stop_gradient(self.logs), stop_gradient(self.offset))

    def arrays(self) -> list[Array]:
        return [self.logs]


class Postponed(NamedTuple):
    """Densities at a group of sites that are computed when their weights are needed, or within a sweep."""

    densities: Any  # `Densities`, from which PyTorch alone is imported

    def computed(self) -> Weights:
        return Weights.of(self.densities.logs(), self.densities.values)

    def with_missing_row(self) -> Postponed:
        return Postponed(self.densities.with_missing_row())

    def rows(self, index: Array) -> Postponed:
        return Postponed(self.densities.rows(index))

    def detach(self) -> Postponed:
        return Postponed(self.densities.detach())

    def arrays(self) -> list[Array]:
        return list(self.densities)


class Evidence:
    """The weights of the components of every site given b rows.

    `log_weights(k)` is (b, N_k), log p(x_k | s) less the row's maximum over s, and `offset` (b,) the sum of those
    maxima: log p(x_k | s) for all k and s is their sum, exactly. The maxima carry no gradient; it flows through the
    weights, whose product with exp(offset) does not depend on them. At the site of a wide variable x_k are the entries
    of its columns that the row observes.
    """

    def __init__(self, groups: Sequence[tuple[tuple[int, ...], Weights | Postponed]], num_rows: int):
        self._groups = list(groups)
        self._place = {k: (g, i) for g, (sites, _) in enumerate(self._groups) for i, k in enumerate(sites)}
        self._computed: dict[int, Weights] = {}
        self._weights: dict[int, Array] = {}
        self._parts: dict[int, Sequence[Array]] = {}
        self.num_rows = num_rows

    @classmethod
    def of_rows(cls, ring: Network, rows: Array, events: Events | None = None) -> Evidence:
        """The evidence of rows (b, d), and of events in every row.

        A missing entry in the column of an event has the masses of the event as weights, an observed one its density if
        it is in the event, and none if it is not.
        """
        events = events or {}
        groups = _groups(ring, events)
        return cls._of_values(ring, groups, [values_of(ring, rows, sites) for sites in groups], events, rows)

    @classmethod
    def of_site(cls, ring: Network, i: int, values: Array) -> Evidence:
        """The evidence at one site only, of values (b,), or (b, width) of a wide variable."""
        return cls._of_values(ring, [(i,)], [values[None]], {}, values)

    @classmethod
    def _of_values(
        cls,
        ring: Network,
        groups: Sequence[tuple[int, ...]],
        values: Sequence[Array],
        events: Events,
        prototype: Array,
    ) -> Evidence:
        found: list[tuple[tuple[int, ...], Weights | Postponed]] = []
        for sites, own in zip(groups, values, strict=True):
            families = [ring.families[i] for i in sites]
            densities = None if ring.is_dense or events else postponed(families, own, ring.prototype)
            if densities is None:
                found.append((sites, Weights.of(_log_weights(ring, sites, own, events), prototype)))
            else:
                found.append((sites, Postponed(densities)))
        return cls(found, prototype.shape[0])

    @classmethod
    def missing(cls, ring: Network) -> Evidence:
        """The evidence of one row in which every entry is missing."""
        core = ring.prototype
        offset = like_zeros((1,), core, accumulator(core))
        return cls([(c, Weights(like_zeros((len(c), 1, ring.shape[c[0]]), core), offset)) for c in ring.groups], 1)

    @property
    def offset(self) -> Array:
        """(b,), in the accumulator's dtype."""
        return self.offset_without(())

    def offset_without(self, groups: Sequence[int]) -> Array | float:
        """The part of `offset` that does not come from these groups."""
        others = [self._group(g).offset for g in range(len(self._groups)) if g not in groups]
        return sum(others[1:], others[0]) if others else 0.0

    def postponed(self) -> dict[int, tuple[tuple[int, ...], Any]]:
        """The groups whose densities have not been computed: their sites and `Densities`."""
        return {
            g: (sites, group.densities)
            for g, (sites, group) in enumerate(self._groups)
            if isinstance(group, Postponed) and g not in self._computed
        }

    def log_weights(self, k: int) -> Array:
        group, position = self._place[k]
        return self._group(group).logs[position]

    def weights(self, k: int) -> Array:
        """exp(log_weights(k)), computed once for all sites of a group."""
        group, position = self._place[k]
        if group not in self._parts:  # taken apart in one operation, whose gradient is one operation too
            weights = self._exp(group)
            self._parts[group] = unstack(weights)
        return self._parts[group][position]

    def weights_stacked(self, sequence: Sequence[int]) -> Array | None:
        """(d, b, N) weights of the sites in sequence where all are one group, else None."""
        if len(self._groups) != 1:
            return None
        columns, weights = self._groups[0][0], self._exp(0)
        if tuple(sequence) == columns:
            return weights
        position = {k: i for i, k in enumerate(columns)}
        return take(weights, indices([position[k] for k in sequence], weights))

    def _group(self, group: int) -> Weights:
        if group not in self._computed:
            self._computed[group] = self._groups[group][1].computed()
        return self._computed[group]

    def _exp(self, group: int) -> Array:
        if group not in self._weights:
            self._weights[group] = exp(self._group(group).logs)
        return self._weights[group]

    def with_missing_row(self) -> Evidence:
        """The rows, followed by one in which every entry is missing."""
        return Evidence([(sites, group.with_missing_row()) for sites, group in self._groups], self.num_rows + 1)

    def arrays(self) -> list[Array]:
        """All arrays through which gradients can flow."""
        return [array for _, group in self._groups for array in group.arrays()]

    def rows(self, index: Array) -> Evidence:
        """The evidence of the rows with these indices."""
        return Evidence([(sites, group.rows(index)) for sites, group in self._groups], index.shape[0])

    def detach(self) -> Evidence:
        return Evidence([(sites, group.detach()) for sites, group in self._groups], self.num_rows)


def _groups(ring: Network, events: Events) -> list[tuple[int, ...]]:
    """Groups of sites that are evaluated together; a site with an event is a group of its own."""
    if not events:
        return list(ring.groups)
    alone = {ring.place(k)[0]: None for k in events}
    rest = [tuple(i for i in group if i not in alone) for group in ring.groups]
    return [group for group in rest if group] + [(i,) for i in alone]


def _log_weights(ring: Network, sites: Sequence[int], values: Array, events: Events) -> Array:
    """Log-weights (g, b, N) of the components of some sites, from entries (g, b), or (1, b, width)."""
    xp, first = namespace(values), ring.families[sites[0]]
    if first.width > 1:
        bounds = bounds_at(ring, sites[0], events)
        density = log_density_within(first, values[0], bounds) if bounds else first.log_density(values[0])
        return like(density, ring.prototype)[None]
    event = events.get(ring.columns[sites[0]][0])
    missing = _missing(values)
    log_weights = _log_density([ring.families[i] for i in sites], values, missing, ring.prototype)
    unobserved: Any = 0.0
    if event is not None:
        unobserved = like(event.log_weights(ring.prototype), ring.prototype)
        log_weights = xp.where(event.holds(values)[..., None], log_weights, -xp.inf)
    return log_weights if missing is None else xp.where(missing[..., None], unobserved, log_weights)


def _missing(values: Array) -> Array | None:
    """The mask of missing entries; None if there are none and this can be seen without synchronisation."""
    missing = namespace(values).isnan(values)
    if is_concrete(values) and not on_accelerator(values) and not bool(namespace(values).any(missing)):
        return None
    return missing


def _log_density(families: Sequence[Family], values: Array, missing: Array | None, core: Array) -> Array:
    """log p(x | s) at g sites of one kind, (g, b, N), with arbitrary values for missing entries."""
    first, xp = families[0], namespace(values)
    filled = values if missing is None else xp.where(missing, like(first.typical_value(), values), values)
    if first.stacks:
        return like(first.stack(families).log_density(filled), core)
    return like(first.log_density(filled[0])[None], core)
