"""Rows of data as evidence: one weight per component of every column, and the logarithm of a common factor.

A missing entry (NaN) has weight 1 for every component, which is what marginalises it (paper Eq. 2). An event gives it
the mass of the event under every component.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    exp,
    indices,
    is_array,
    is_concrete,
    like,
    like_zeros,
    namespace,
    on_accelerator,
    stack,
    stop_gradient,
    take,
    unstack,
)
from ringdist.network.checks import check_device
from ringdist.network.events import Events, bounds_at
from ringdist.network.structure import Network
from ringdist.variables import Family, log_density_within


def as_rows(ring: Network, x: Any) -> tuple[Array, tuple[int, ...]]:
    """x (..., d) as rows (b, d) in the dtype of the cores, checked, and its leading shape.

    Raises:
        TypeError: if x is of another backend, on another device or not numeric.
        ValueError: if the last axis is not d long, or an observed value is outside its variable's support.
    """
    table, shape = as_table(ring, x)
    return checked(ring, table), shape


def as_table(ring: Network, x: Any) -> tuple[Array, tuple[int, ...]]:
    """x (..., d) as rows (b, d) in its own dtype, without checking values, and its leading shape."""
    core = ring.prototype
    x = plain(ring, x)
    if not is_array(x):
        x = np.asarray(x)
        if x.dtype.kind not in "buif":
            remedy = "; write NaN for a missing entry" if x.dtype.kind == "O" else ""
            raise TypeError(f"x must hold real numbers, found dtype {x.dtype}{remedy}")
        x = like(x, core)
    xp = namespace(core, x)
    check_device((x,), core, "x")
    if not xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
        raise TypeError(f"x must hold real numbers, found dtype {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != ring.num_columns:
        raise ValueError(f"x must have shape (..., {ring.num_columns}), one entry per column, found {tuple(x.shape)}")
    return x if x.ndim == 2 else xp.reshape(x, (-1, ring.num_columns)), tuple(x.shape[:-1])


def checked(ring: Network, table: Array) -> Array:
    """Rows in the dtype of the cores; `ValueError` if an observed value is outside its variable's support."""
    rows = astype(table, ring.prototype.dtype)
    if ring.validate and is_concrete(ring.prototype, rows):
        check_values(ring, rows)
    return rows


def plain(ring: Network, x: Any) -> Any:
    """A pandas frame as an array with its columns in the order of the ring's, and a masked array as `unmasked`.

    Raises:
        ValueError: if the columns of the frame are not those of a ring whose columns have names, or two have one name.
    """
    if not (hasattr(x, "iloc") and hasattr(x, "columns")):
        return unmasked(x)
    names, own = list(ring.layout.names), list(x.columns)
    if None not in names and any(isinstance(name, str) for name in own):
        if sorted(map(str, own)) != sorted(map(str, names)):
            raise ValueError(f"a frame must have the columns of the ring, {names}, in any order, found {own}")
        x = x[names]
    try:
        return x.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TypeError(f"x must hold real numbers, codes for categories, but a column of the frame: {error}") from None


def unmasked(x: Any) -> Any:
    """A NumPy masked array with NaN where it is masked; anything else unchanged."""
    return np.ma.filled(x.astype(np.float64), np.nan) if isinstance(x, np.ma.MaskedArray) else x


def check_values(ring: Network, rows: Array) -> None:
    """Raise `ValueError` naming the column unless every observed entry is in its variable's support."""
    xp = namespace(rows)
    for sites in ring.groups:
        families = [ring.families[i] for i in sites]
        values = values_of(ring, rows, sites)
        if not is_concrete(values):  # within `jax.jit` results of constants are traced too
            return
        if families[0].stacks and families[0].tells_support:
            if bool(xp.all(families[0].stack(families).in_support(values))):
                continue
        for i in sites:
            for k in ring.columns[i]:
                observed = rows[~xp.isnan(rows[:, k]), k]
                try:
                    ring.variables[i].check(observed)
                except ValueError as error:
                    raise ValueError(f"{ring.describe(k)}: {error}") from None


def values_of(ring: Network, rows: Array, sites: Sequence[int]) -> Array:
    """The entries of rows (b, d) at some sites, (g, b); of one site with a wide variable (1, b, width)."""
    if ring.layout.is_plain:
        if tuple(sites) == tuple(range(rows.shape[1])):
            return rows.T
        return take(rows, indices(list(sites), rows), axis=1).T
    columns = [ring.columns[i] for i in sites]
    if len(columns[0]) > 1:
        return site_values(ring, rows, sites[0])[None]
    return take(rows, indices([k for own in columns for k in own], rows), axis=1).T


def site_values(ring: Network, rows: Array, i: int) -> Array:
    """The entries of rows (b, d) at one site, (b,), or (b, width) of a wide variable."""
    columns = ring.columns[i]
    if len(columns) == 1:
        return rows[:, columns[0]]
    if columns == tuple(range(columns[0], columns[0] + len(columns))):
        return rows[:, columns[0] : columns[-1] + 1]
    return take(rows, indices(list(columns), rows), axis=1)


def side_by_side(ring: Network, values: Sequence[Array]) -> Array:
    """Rows (b, d) from the entries at every site, as `site_values` gives them."""
    if ring.layout.is_plain:
        return stack(values, axis=1)
    rows = namespace(values[0]).concat([own if own.ndim == 2 else own[:, None] for own in values], axis=1)
    order = ring.layout.in_order
    return rows if order is None else take(rows, indices(list(order), rows), axis=1)


class Evidence:
    """The weights of the components of every site given b rows.

    `log_weights(k)` is (b, N_k), log p(x_k | s) less the row's maximum over s, and `offset` (b,) the sum of those
    maxima: log p(x_k | s) for all k and s is their sum, exactly. The maxima carry no gradient; it flows through the
    weights, whose product with exp(offset) does not depend on them. At the site of a wide variable x_k are the entries
    of its columns that the row observes.
    """

    def __init__(self, groups: Sequence[tuple[tuple[int, ...], Array]], offset: Array):
        self._groups = list(groups)  # (sites, log weights (g, b, N))
        self._place = {k: (g, i) for g, (columns, _) in enumerate(self._groups) for i, k in enumerate(columns)}
        self._weights: dict[int, Array] = {}
        self._parts: dict[int, Sequence[Array]] = {}
        self.offset = offset
        self.num_rows = offset.shape[0]

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
        xp, found, offsets = namespace(prototype), [], []
        for sites, own in zip(groups, values, strict=True):
            log_weights = _log_weights(ring, sites, own, events)
            top = stop_gradient(xp.max(log_weights, axis=-1))
            top = xp.where(top == -xp.inf, 0.0, top)
            found.append((sites, log_weights - top[..., None]))
            offsets.append(xp.sum(astype(top, accumulator(prototype)), axis=0))
        return cls(found, sum(offsets[1:], offsets[0]))

    @classmethod
    def missing(cls, ring: Network) -> Evidence:
        """The evidence of one row in which every entry is missing."""
        core = ring.prototype
        groups = [(c, like_zeros((len(c), 1, ring.shape[c[0]]), core)) for c in ring.groups]
        return cls(groups, like_zeros((1,), core, accumulator(core)))

    def log_weights(self, k: int) -> Array:
        group, position = self._place[k]
        return self._groups[group][1][position]

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

    def _exp(self, group: int) -> Array:
        if group not in self._weights:
            log_weights = self._groups[group][1]
            self._weights[group] = exp(log_weights)
        return self._weights[group]

    def with_missing_row(self) -> Evidence:
        """The rows, followed by one in which every entry is missing."""
        xp = namespace(self.offset)
        groups = [
            (columns, xp.concat([w, like_zeros((w.shape[0], 1, w.shape[2]), w)], axis=1)) for columns, w in self._groups
        ]
        return Evidence(groups, xp.concat([self.offset, like_zeros((1,), self.offset)]))

    def arrays(self) -> list[Array]:
        """All arrays through which gradients can flow."""
        return [log_weights for _, log_weights in self._groups]

    def rows(self, index: Array) -> Evidence:
        """The evidence of the rows with these indices."""
        groups = [(columns, take(w, index, axis=1)) for columns, w in self._groups]
        return Evidence(groups, take(self.offset, index))

    def detach(self) -> Evidence:
        return Evidence([(c, stop_gradient(w)) for c, w in self._groups], stop_gradient(self.offset))


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
