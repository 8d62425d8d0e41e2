"""Gaussians of several columns within a box, given rows that observe some of the columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    cached_property,
    identity,
    indices,
    is_concrete,
    like,
    namespace,
    take,
)
from ringdist.variables.boxes import Box
from ringdist.variables.gaussian_functions import HALF_LOG_2PI
from ringdist.variables.interval import Interval
from ringdist.variables.multivariate_functions import Given, by_rows, scaled


class GivenBox:
    """N Gaussians of W columns in intervals, given the observed entries of each of b rows.

    Args:
        means: (N, W). covariances: (N, W, W).
        intervals: of the W columns.
        rows: (b, W), NaN where missing.
    """

    def __init__(self, means: Array, covariances: Array, intervals: Sequence[Interval], rows: Array):
        self.xp, self.rows, self.intervals = namespace(means, covariances, rows), rows, intervals
        self.given = Given(means, covariances, rows)
        restricted = [j for j, interval in enumerate(intervals) if not interval.is_unbounded]
        self.restricted = restricted
        self.open = [j for j in restricted if not self._observed_everywhere(j)]

    def log_joint(self) -> Array:
        """log p(observed, box | s), (b, N)."""
        xp, logs = self.xp, self.given.log_density()
        for j in self.restricted:
            value = self.rows[:, j]
            inside = xp.isnan(value) | self.intervals[j].holds(value)
            logs = xp.where(inside[:, None], logs, -math.inf)
        if not self.open:
            return logs
        mass = self.box().log_mass()
        return astype(logs, mass.dtype) + mass

    def expected(self) -> Array:
        """E[X | observed, box, s], (b, N, W); observed entries are unchanged."""
        xp, found = self.xp, self.given.expected()
        if self.open:
            box = self.box()
            index, observed = indices(self.open, self.rows), self._observed(self.open)
            moved = like(box.moments()[0], found) - self._of_open(observed, 0.0)[0]
            own = self._of_open(observed, 0.0)[1]
            cross = take(self.covariances, index, axis=-1)  # (b or 1, N, W, K)
            weights = xp.linalg.solve(own, xp.broadcast_to(cross.mT, (*own.shape[:2], *cross.mT.shape[2:])))
            found = found + xp.sum(weights * moved[..., None], axis=-2)
        return xp.where(self.given.observed[:, None, :], self.rows[:, None, :], found)

    @cached_property
    def covariances(self) -> Array:
        """Cov[X | observed, s] of each row, (b or 1, N, W, W); 0 for observed columns."""
        free, stds = self.given.free_factor(), self.given.stds
        found = scaled(free @ free.mT, stds)
        return found if self.given.patterns.of_row is None else take(found, self.given.patterns.of_row)

    def box(self, component: Array | None = None) -> Box:
        """The box of the missing columns in intervals, (b, N, K), or for one component per row, (b, K).

        An observed column is replaced by an independent, unbounded one.
        """
        xp, observed = self.xp, self._observed(self.open)
        means, covariances = self._of_open(observed, 0.0)
        wide = accumulator(means)
        low, high = ends([self.intervals[j] for j in self.open], means)
        low, high = (
            xp.where(observed, like(beyond, bound), xp.broadcast_to(bound, observed.shape))[:, None, :]
            for bound, beyond in ((low, -math.inf), (high, math.inf))
        )
        if component is not None:
            rows = means.shape[0]
            covariances = xp.broadcast_to(covariances, (rows, *covariances.shape[1:]))
            place = indices(range(rows), component) * means.shape[1] + component
            means = take(xp.reshape(means, (-1, *means.shape[2:])), place)
            covariances = take(xp.reshape(covariances, (-1, *covariances.shape[2:])), place)
            low, high = low[:, 0], high[:, 0]
        return Box(astype(means, wide), astype(covariances, wide), low, high)

    def column(self, place: int) -> tuple[Array, Array, list[int]]:
        """Parameters of a column that no row observes, and of the columns in intervals that some row does not observe.

        Returns:
            Means (b, N, 1 + K), covariances (b, N, 1 + K, 1 + K), and the K columns. In a row that observes one of
            these, it is replaced by an independent column in the same interval, whose mass cancels.
        """
        xp, hidden = self.xp, [j for j in self.open if j != place]
        columns = [place, *hidden]
        index, (size, count) = indices(columns, self.rows), (self.rows.shape[0], len(columns))
        means = take(self.given.expected(), index, axis=-1)
        covariances = take(take(self.covariances, index, axis=-1), index, axis=-2)
        observed = self._observed(columns)
        typical, spread = zip(*(_typical(self.intervals[j]) for j in columns), strict=True)
        means = xp.where(observed[:, None, :], like(typical, means), means)
        alone = identity(count, means) * like(spread, means)
        either = observed[:, :, None] | observed[:, None, :]
        covariances = xp.where(either[:, None], alone, covariances)
        return means, xp.broadcast_to(covariances, (size, *covariances.shape[1:])), hidden

    def _of_open(self, observed: Array, typical: float) -> tuple[Array, Array]:
        """Means (b, N, K) and covariances (b, N, K, K) of the columns in intervals; observed ones are independent."""
        xp, index = self.xp, indices(self.open, self.rows)
        means = xp.where(observed[:, None, :], typical, take(self.given.expected(), index, axis=-1))
        covariances = take(take(self.covariances, index, axis=-1), index, axis=-2)
        either = (observed[:, :, None] | observed[:, None, :])[:, None]
        return means, xp.where(either, identity(len(self.open), means), covariances)

    def _observed(self, columns: Sequence[int]) -> Array:
        return take(self.given.observed, indices(list(columns), self.rows), axis=1)

    def _observed_everywhere(self, j: int) -> bool:
        observed = self.given.observed[:, j]
        return is_concrete(observed) and bool(self.xp.all(observed))


def by_rows_that_observe(function: Callable[[Array], Array], numbers_per_row: int, rows: Array) -> Array:
    """`by_rows` of rows (b, width), with one result for all rows if none has an observed entry."""
    xp, missing = namespace(rows), namespace(rows).isnan(rows)
    if rows.shape[0] > 1 and is_concrete(missing) and bool(xp.all(missing)):
        found = function(rows[:1])
        return xp.broadcast_to(found, (rows.shape[0], *found.shape[1:])) + 0
    return by_rows(function, numbers_per_row, rows)


def log_joint_of_one(means: Array, covariances: Array, intervals: Sequence[Interval], x: Array) -> Array:
    """log p(x, box | s), (..., N), of the first of W columns x (...), for means (..., N, W)."""
    xp, hidden = namespace(x), [j for j, interval in enumerate(intervals) if j > 0 and not interval.is_unbounded]
    own = covariances[..., 0, 0]
    offset = x[..., None] - means[..., 0]
    z = offset / xp.sqrt(own)
    logs = astype(-0.5 * z * z - 0.5 * xp.log(own) - HALF_LOG_2PI, accumulator(means))
    if hidden:
        index = indices(hidden, means)
        cross = take(covariances[..., 0], index, axis=-1) / own[..., None]  # (..., N, K)
        shifted = take(means, index, axis=-1) + cross * offset[..., None]
        rest = take(take(covariances, index, axis=-1), index, axis=-2)
        rest = rest - cross[..., :, None] * cross[..., None, :] * own[..., None, None]
        logs = logs + Box(shifted, rest, *ends([intervals[j] for j in hidden], means)).log_mass()
    return xp.where(intervals[0].holds(x)[..., None], logs, -math.inf)


def moments(means: Array, covariances: Array, intervals: Sequence[Interval], width: int) -> tuple[Array, Array]:
    """Means (..., N, width) and covariances (..., N, width, width) of the first columns given the box."""
    xp, index = namespace(means), indices(range(width), means)
    seen = take(means, index, axis=-1), take(take(covariances, index, axis=-1), index, axis=-2)
    bounded = [j for j, interval in enumerate(intervals) if not interval.is_unbounded]
    if not bounded:
        return seen
    inner = indices(bounded, means)
    own = take(take(covariances, inner, axis=-1), inner, axis=-2)
    cross = take(take(covariances, inner, axis=-1), index, axis=-2)  # (..., N, width, K)
    box = columns_within(means, covariances, bounded, *ends([intervals[j] for j in bounded], means))
    expected, spread = (like(part, means) for part in box.moments())
    weights = xp.linalg.solve(own, cross.mT)  # (..., N, K, width)
    moved = seen[0] + xp.sum(weights * (expected - take(means, inner, axis=-1))[..., None], axis=-2)
    found = seen[1] - weights.mT @ (own - spread) @ weights
    for position, j in enumerate(bounded):  # moments of the restricted columns themselves, without rounding
        here = like(np.arange(width) == j, means, xp.bool)
        moved = xp.where(here, expected[..., position][..., None], moved)
        found = xp.where(here[:, None] & here, spread[..., position, position][..., None, None], found)
    return moved, found


def log_mass_of_products(means: Iterable[Array], covariances: Iterable[Array], intervals: Iterable[Any]) -> Array:
    """log P(both boxes), (N, N'), under the Gaussians proportional to the product of every two components."""
    (m, n), (c, e) = means, covariances
    both = [a.intersection(b) for a, b in zip(*intervals, strict=True)]
    if any(interval is None for interval in both):
        return 0 * m[:, None, 0] * n[None, :, 0] - math.inf
    xp, total = namespace(m, n), c[:, None] + e[None]
    gain = xp.linalg.solve(total, xp.broadcast_to(c[:, None], total.shape)).mT  # C (C + E)^-1
    shift = (gain @ (n[None] - m[:, None])[..., None])[..., 0]
    product = gain @ xp.broadcast_to(e[None], total.shape)
    return Box(m[:, None] + shift, 0.5 * (product + product.mT), *ends(both, m)).log_mass()


def columns_within(means: Array, covariances: Array, columns: Sequence[int], low: Array, high: Array) -> Box:
    """The box of some columns of Gaussians (..., W) within bounds, without observed entries."""
    index = indices(list(columns), means)
    return Box(take(means, index, axis=-1), take(take(covariances, index, axis=-1), index, axis=-2), low, high)


def ends(intervals: Sequence[Interval], array: Array) -> tuple[Array, Array]:
    """The bounds of intervals, (K,) each, in the accumulator's dtype."""
    low, high = [interval.low for interval in intervals], [interval.high for interval in intervals]
    return like(low, array, accumulator(array)), like(high, array, accumulator(array))


def described(names: Sequence[str | None], intervals: Sequence[Interval]) -> str:
    """A text with the names of columns, columns without a name as hidden, and their intervals."""
    shown = "" if set(names) == {None} else f", names={list(names)!r}"
    labels = [name or f"column {j}" for j, name in enumerate(names)] + ["hidden column"] * (len(intervals) - len(names))
    within = [f", {label} in {i!r}" for label, i in zip(labels, intervals, strict=True) if not i.is_unbounded]
    columns = "1 column" if len(names) == 1 else f"{len(names)} columns"
    return f"{columns}{shown}{''.join(within)}"


def _typical(interval: Interval) -> tuple[float, float]:
    """The mean and the variance of a Gaussian with most of its mass in an interval."""
    if interval.is_unbounded:
        return 0.0, 1.0
    if math.isinf(interval.low) or math.isinf(interval.high):
        return (interval.high if math.isinf(interval.low) else interval.low), 1.0
    return 0.5 * interval.low + 0.5 * interval.high, max(interval.high - interval.low, 1e-100) ** 2
