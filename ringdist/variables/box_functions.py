"""Helpers for integrals over boxes: functions of one column between bounds, and lattice points."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from ringdist.backend import Array, namespace, repeated, stop_gradient
from ringdist.variables.gaussian_functions import HALF_LOG_2PI, log_between

LATTICE = 2**11  # points


def finite(bound: Array) -> Array:
    """Bounds with large numbers instead of infinite ones."""
    xp = namespace(bound)
    most = float(xp.finfo(bound.dtype).max) / 8
    return xp.clip(bound, min=-most, max=most)


def between(z: Array, low: Array, high: Array) -> Array:
    """The point of the interval [low, high] that is nearest to z."""
    xp = namespace(z)
    return xp.minimum(xp.maximum(z, low), high)


def last_of(holds: Callable[[Array], Array], left: Array, right: Array, bits: int) -> Array:
    """The points (M,) between left and right up to which a condition of points (M, 1) is true, by bisection."""
    xp = namespace(left)

    def halved(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        true = holds(middle[:, None])[:, 0]
        return xp.where(true, middle, ends[0]), xp.where(true, ends[1], middle)

    left, right = repeated(halved, (stop_gradient(left), stop_gradient(right)), bits)
    return 0.5 * (left + right)


def exponent_derivative(z: Array, rho: Array, scale: Array, start: Array, end: Array, width: Array) -> Array:
    """The derivative by z of −z² / 2 + log P(start <= Y <= end), whose bounds decrease at the rate rho / scale."""
    xp, mass = namespace(z), log_between(start, end, width)
    at_start, at_end = (xp.exp(_log_ratio(bound, mass)) for bound in (start, end))
    return -z + rho / scale * (at_start - at_end)


def _log_ratio(bound: Array, mass: Array) -> Array:
    """log φ(bound) − log mass; a large negative number for a bound without influence."""
    xp = namespace(bound)
    near = xp.abs(bound) < 1e6
    logs = -0.5 * xp.where(near, bound, 0.0) ** 2 - HALF_LOG_2PI
    return xp.clip(xp.where(near & (mass > -math.inf), logs - xp.where(mass > -math.inf, mass, 0.0), -1e4), max=300.0)


def moments_between(start: Array, end: Array, width: Array) -> tuple[Array, Array]:
    """Mean and variance of a standard Gaussian between bounds."""
    xp, mass = namespace(start), log_between(start, end, width)
    low, high = (xp.exp(_log_ratio(bound, mass)) for bound in (start, end))
    mean = xp.minimum(xp.maximum(low - high, start), end)
    a, b = (xp.clip(bound, min=-1e6, max=1e6) for bound in (start, end))
    variance = 1 + a * low - b * high - (low - high) ** 2
    narrow = xp.minimum(width, 1e3 + 0 * width) ** 2 / 12  # the variance of a uniform distribution, an upper bound
    return mean, xp.clip(xp.minimum(variance, narrow), min=0.0)


@functools.cache
def lattice(dimensions: int) -> np.ndarray:
    """Lattice points (LATTICE, dimensions) in (0, 1): multiples of square roots of primes, with the tent transform."""
    primes = [n for n in range(2, 400) if all(n % k for k in range(2, n))]
    if dimensions > len(primes):
        raise ValueError(f"an event may have at most {len(primes) + 1} intervals in one variable")
    steps = np.sqrt(np.asarray(primes[:dimensions], dtype=np.float64))
    points = np.outer(np.arange(LATTICE) + 0.5, steps) % 1.0
    return np.clip(np.abs(2 * points - 1), 1e-12, 1 - 1e-12)
