"""Densities of real numbers on an interval, integrated by quadrature to rounding accuracy.

Every component is divided into panels of equal width in log |x − end|, from both ends of the interval and from the
component's centre. So there are panels for any scale, such as that of a density far in its tail. The density is
evaluated at the Gauss-Legendre nodes of each panel. Differences of a distribution function are not used, because they
cancel where they are small.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ringdist.backend import Array, astype, index_dtype, like, namespace, take
from ringdist.variables.panels import NODES, Panels, ratio

PANELS = 96  # of a ray
REACH = 40.0  # extent of a ray in log distance, on both sides of the component's scale


class _Ray(NamedTuple):
    """Numbers at the distance scale × exp(u) from `start`, for −REACH <= u <= REACH or up to the end of the ray."""

    start: Array  # (N,)
    sign: int
    scale: Array  # (N,)
    step: Array  # (N,), width of a panel in u
    length: Array  # (N,), inf where it has no end


class Rays(Panels):
    """Components restricted to [low, high], each divided at a centre (N,).

    Args:
        log_density: from offsets (q, N) to the logarithm of the density at centre + offset, up to a constant for each
            component.
        low, high: the interval; −inf or inf if it is unbounded.
        centre, scale: (N,) of each component, the centre within the interval and the scale positive.
    """

    def __init__(self, log_density: Callable[[Array], Array], low: float, high: float, centre: Array, scale: Array):
        xp = namespace(centre)
        self.low, self.high, self.centre = low, high, centre
        self.rays = self._cut(scale)
        nodes, weights, legendre = _gauss_legendre()
        place = like(np.add.outer(np.arange(PANELS), (nodes + 1) / 2).ravel(), centre)[:, None]  # in panels
        offsets, logs = [], []
        for ray in self.rays:
            u = place * ray.step - REACH
            distance = ray.scale * xp.exp(u)
            offsets.append((ray.start - centre) + ray.sign * distance)
            alive = xp.isfinite(distance) & (ray.length > 0)
            width = xp.where(alive, ray.step * 0.5, 1.0)
            logs.append(xp.where(alive, u + xp.log(width) + xp.log(ray.scale), -math.inf))
        offset = xp.concat(offsets)
        inside = xp.isfinite(offset)
        found = like(log_density(xp.where(inside, offset, 0.0)), centre)
        logs = xp.where(inside & (found > -math.inf), xp.concat(logs) + found, -math.inf)  # NaN neither
        shape = (len(self.rays) * PANELS, NODES, centre.shape[0])
        self.offsets = xp.reshape(xp.where(inside, offset, 0.0), shape)
        super().__init__(xp.reshape(logs, shape), like(weights, centre)[None, :, None], like(legendre, centre)[None])
        self.scaled(self._beyond())

    def _cut(self, scale: Array) -> list[_Ray]:
        xp, rays = namespace(scale), []
        for end, sign in ((self.low, -1), (self.high, 1)):
            half = 0 * scale + math.inf if math.isinf(end) else 0.5 * xp.abs(end - self.centre)
            unit = xp.minimum(scale, xp.where(half > 0, half, 1.0))
            reach = xp.where(xp.isfinite(half) & (half > 0), half, 1.0) / unit
            reach = xp.where(xp.isfinite(half), xp.clip(xp.log(reach), min=0.0, max=REACH), REACH)
            step = (reach + REACH) / PANELS
            outward = _Ray(self.centre, sign, unit, step, half)
            inward = [] if math.isinf(end) else [_Ray(0 * scale + end, -sign, unit, step, half)]
            rays += [*inward, outward] if sign < 0 else [outward, *inward]
        return rays  # from the lowest to the highest numbers

    def _beyond(self) -> Array:
        """Factors of the panels at the ends of the rays, which account for the mass beyond them.

        Near the start of a ray a density is a power of the distance, so the masses of further panels are a geometric
        series. The same is assumed beyond the last panel of an unbounded ray.
        """
        xp, factors = namespace(self.masses), []
        for r, ray in enumerate(self.rays):
            masses = self.masses[r * PANELS : (r + 1) * PANELS]
            first, last = _series(masses[0], masses[1]), _series(masses[-1], masses[-2])
            last = xp.where(xp.isfinite(ray.length), 1.0, last)
            ones = 0 * masses[1:-1] + 1
            factors += [first[None], ones, last[None]]
        return xp.concat(factors)

    def mean_and_variance(self) -> tuple[Array, Array]:
        """Of each component, (N,)."""
        mean, variance = self.moments(self.offsets)
        return self.centre + mean, variance

    def cdf(self, x: Array) -> Array:
        """P(X <= x | the interval, s) of numbers x (...) inside it, (..., N)."""
        xp = namespace(x)
        x = x[..., None] + 0 * self.centre
        total = 0 * x
        for r, ray in enumerate(self.rays):
            masses = self.masses[r * PANELS : (r + 1) * PANELS]
            whole, passed = xp.sum(masses, axis=0), ray.sign * (x - ray.start)
            distance = xp.clip(passed, min=0.0)
            end = xp.where(xp.isfinite(ray.length), ray.length, math.inf)
            distance = xp.where(distance < end, distance, end)
            position = (xp.log(xp.where(distance > 0, distance, 1.0)) - xp.log(ray.scale) + REACH) / ray.step
            position = xp.where(distance > 0, xp.clip(position, min=0.0, max=float(PANELS)), 0.0)
            panel = astype(xp.clip(xp.floor(position), max=PANELS - 1.0), index_dtype(x))
            before = xp.concat([0 * masses[:1], xp.cumulative_sum(masses, axis=0)])
            partial = self.below(panel + r * PANELS, 2 * (position - astype(panel, x.dtype)) - 1)
            mass = xp.take_along_axis(before, xp.reshape(panel, (-1, panel.shape[-1])), axis=0)
            mass = xp.reshape(mass, panel.shape) + partial
            total = total + (mass if ray.sign > 0 else whole - mass)
        return ratio(total, xp.sum(self.masses, axis=0))

    def sample(self, component: Array, u: Array, v: Array) -> Array:
        """One draw from each of n components, from uniform numbers u and v."""
        xp = namespace(u)
        panel, t = self.draw(component, u, v)
        drawn = 0 * u
        for r, ray in enumerate(self.rays):
            start, scale, step = (take(part, component) for part in (ray.start, ray.scale, ray.step))
            place = astype(panel - r * PANELS, u.dtype) + 0.5 * (t + 1)
            distance = scale * xp.exp(place * step - REACH)
            drawn = xp.where(panel // PANELS == r, start + ray.sign * distance, drawn)
        return drawn


@functools.cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, weights, and the matrix from values at the nodes to Legendre coefficients."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    degrees = np.arange(NODES)
    return nodes, weights, (degrees[:, None] + 0.5) * np.polynomial.legendre.legvander(nodes, NODES - 1).T * weights


def _series(last: Array, before: Array) -> Array:
    """1 + q + q² + ... for q = last / before, or 1 if that diverges."""
    xp = namespace(last)
    converges = (last > 0) & (last < 0.999 * before)
    return 1 / (1 - xp.where(converges, last / xp.where(converges, before, 1.0), 0.0))
