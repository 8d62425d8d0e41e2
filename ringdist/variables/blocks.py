"""Sums over the integers of an interval, accurate to rounding, from the probabilities of some of them.

Integers next to the ends of the interval are evaluated one by one. Then blocks follow, whose length grows with the
distance from the end; a block is evaluated at 12 of its integers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ringdist.backend import Array, astype, index_dtype, like, namespace, take
from ringdist.variables.panels import NODES, Panels, ratio

SINGLE = 64  # integers next to an end of an interval that are separate panels
GROWTH = 1.5  # factor of the distance from the end for every block of integers
FARTHEST = 2.0**62  # largest integer in the search for a quantile


class Blocks(Panels):
    """Components restricted to the integers low, ..., high.

    A component is not resolved if its distance from both ends is large compared with its width.

    Args:
        log_density: from integers (q,) to the logarithm of their probabilities, (q, N).
        low, high: finite integers, or high inf.
        prototype: an array of the backend, dtype and device of the results.
    """

    def __init__(self, log_density: Callable[[Array], Array], low: float, high: float, prototype: Array):
        xp = namespace(prototype)
        self.low, self.high = low, high
        count = min(high, FARTHEST) - low + 1
        self.forward = _blocks(count if math.isinf(high) else math.ceil(count / 2))
        self.backward = _blocks(0 if math.isinf(high) else math.floor(count / 2))
        offsets = [self.forward.nodes, (count - 1) - self.backward.nodes]
        offset = like(np.concatenate(offsets), prototype)
        logs = like(log_density(xp.reshape(offset, (-1,)) + low), prototype)
        self.offsets = offset[..., None]
        parts = (self.forward, self.backward)
        weights, legendre = (np.concatenate([getattr(p, name) for p in parts]) for name in ("weights", "legendre"))
        logs = xp.reshape(logs, (*offset.shape, -1))
        super().__init__(logs, like(weights, prototype)[..., None], like(legendre, prototype))

    def mean_and_variance(self) -> tuple[Array, Array]:
        """Mean and variance of each component, (N,)."""
        mean, variance = self.moments(self.offsets)
        return self.low + mean, variance

    def sums(self, centre: Array) -> tuple[Array, Array, Array]:
        """Σ p, Σ p (x − centre) and Σ p (x − centre)² of each component, (N,)."""
        distance = (self.offsets - centre) + self.low
        return self.sum(0 * distance + 1), self.sum(distance), self.sum(distance**2)

    def cdf(self, x: Array) -> Array:
        """P(X <= x | the interval, s) of integers x (...) inside it, (..., N)."""
        xp = namespace(x)
        split = len(self.forward.starts)
        inside = xp.broadcast_to((x - self.low + 1)[..., None], (*x.shape, self.masses.shape[1]))
        total = self._before(self.forward, inside, 0)
        if len(self.backward.starts):
            above = xp.broadcast_to((self.high - x)[..., None], (*x.shape, self.masses.shape[1]))
            total = total + xp.sum(self.masses[split:], axis=0) - self._before(self.backward, above, split)
        return ratio(total, xp.sum(self.masses, axis=0))

    def _before(self, blocks: _Layout, count: Array, first: int) -> Array:
        """The mass of the first `count` (..., N) integers of the blocks, numbered from `first`."""
        xp, number = namespace(count), len(blocks.starts)
        starts, lengths = (like(part, count) for part in (blocks.starts, blocks.lengths))
        count = xp.clip(count, min=0.0, max=float(blocks.starts[-1] + blocks.lengths[-1]))
        place = astype(xp.sum(starts <= count[..., None], axis=-1) - 1, index_dtype(count))
        flat = xp.reshape(place, (-1,))
        share = (count - xp.reshape(take(starts, flat), count.shape)) / xp.reshape(take(lengths, flat), count.shape)
        masses = self.masses[first : first + number]
        before = xp.concat([0 * masses[:1], xp.cumulative_sum(masses, axis=0)])
        mass = xp.take_along_axis(before, xp.reshape(place, (-1, place.shape[-1])), axis=0)
        return xp.reshape(mass, place.shape) + self.below(place + first, 2 * share - 1)

    def sample(self, component: Array, u: Array, v: Array) -> Array:
        """One draw from each of n components, from uniform numbers u and v."""
        xp, split = namespace(u), len(self.forward.starts)
        panel, t = self.draw(component, u, v)
        starts, lengths = (
            take(like(np.concatenate([getattr(p, name) for p in (self.forward, self.backward)]), u), panel)
            for name in ("starts", "lengths")
        )
        offset = starts + xp.clip(xp.floor(0.5 * (t + 1) * lengths), max=lengths - 1)
        return xp.where(panel < split, self.low + offset, (self.high if self.high < math.inf else 0.0) - offset)


class _Layout(NamedTuple):
    """Blocks of integers by their offsets from an end of an interval."""

    starts: np.ndarray  # (P,)
    lengths: np.ndarray  # (P,)
    nodes: np.ndarray  # (P, n), repeated where there are fewer
    weights: np.ndarray  # (P, n), 0 of those repeated
    legendre: np.ndarray  # (P, n, n)


@functools.lru_cache(maxsize=64)
def _blocks(count: float) -> _Layout:
    """The blocks that cover the first `count` integers."""
    starts, lengths, start = [], [], 0.0
    while start < count:
        length = 1.0 if start < SINGLE else min(max(float(NODES), math.floor(start * (GROWTH - 1))), count - start)
        starts.append(start)
        lengths.append(length)
        start += length
    shape = (len(starts), NODES)
    nodes, weights, legendre = np.zeros(shape), np.zeros(shape), np.zeros((*shape, NODES))
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        own, matrix = _block(length)
        number = len(own)
        nodes[i], nodes[i, :number] = start + own[0], start + own
        legendre[i, :number, :number] = matrix
        weights[i, :number] = 2 * matrix[0]
    return _Layout(np.asarray(starts), np.asarray(lengths), nodes, weights, legendre)


@functools.lru_cache(maxsize=1024)
def _block(length: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes among 0, ..., length − 1, and the matrix from their probabilities to Legendre coefficients.

    The coefficients are those of the density on [−1, 1] whose integral over the cell of each of these integers is the
    integer's probability.
    """
    angles = (np.arange(NODES) + 0.5) * (np.pi / NODES)
    spread = np.arange(length) if length <= NODES else np.floor(length * (1 - np.cos(angles)) / 2)
    own = np.unique(spread)
    inner, weights = np.polynomial.legendre.leggauss(NODES // 2)  # exact, without differences of large numbers
    points = np.add.outer(own, (inner + 1) / 2) * (2 / length) - 1
    cells = np.polynomial.legendre.legvander(points, len(own) - 1)
    return own, np.linalg.inv(np.einsum("kqm,q->km", cells, weights / length))
