"""Inversion of monotone functions, by bisection, or with fewer evaluations by interpolation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ringdist.backend import Array, from_ordered_integers, like, namespace, ordered_integers, to_numpy, without_warnings

GROWTH, GROWTHS = 4.0, 300  # of steps until two points are on either side
SEARCHES = 100  # between them


def first_reached(reached: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The smallest number in (low, high] where a monotone predicate is true; high if there is none.

    The search bisects the integers that represent floating point numbers in ascending order. So it takes as many steps
    as the dtype has bits, for numbers of any scale.

    Args:
        reached: from numbers (n,) to booleans (n,).
        low, high: (n,), the ends of the search.
    """
    xp, array = namespace(low), low
    low, high = ordered_integers(low), ordered_integers(high)
    with without_warnings(array):
        for _ in range(xp.finfo(array.dtype).bits):
            # The mean of two integers, rounded down, whose sum may overflow.
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            inside = reached(from_ordered_integers(middle, array))
            low, high = xp.where(inside, low, middle), xp.where(inside, middle, high)
    return from_ordered_integers(high, array)


def crossing(excess: Callable[[Array], Array], centre: Array, scale: Array, low: float, high: float) -> Array:
    """The zeros of continuous increasing functions between low and high (n,), accurate to rounding.

    Steps from a centre by growing multiples of the scale find points on both sides of the zero. Chandrupatla's method,
    which is inverse quadratic interpolation where that is safe and bisection elsewhere, then finds the zero with about
    ten evaluations. The result is −inf or inf if there is no point on one side.

    Args:
        excess: from numbers (n,) to numbers (n,), which are negative at `low` and not at `high`.
        centre, scale: (n,), concrete.
    """

    def values(z: np.ndarray) -> np.ndarray:
        return to_numpy(excess(like(z, centre))).astype(np.float64)

    step, z = to_numpy(scale).astype(np.float64), np.clip(to_numpy(centre).astype(np.float64), low, high)
    with np.errstate(all="ignore"):
        ends = _either_side(values, z, step, low, high)
        found = _between(values, float(namespace(centre).finfo(centre.dtype).eps), *ends)
    return like(found, centre)


def _either_side(
    values: Callable[[np.ndarray], np.ndarray], z: np.ndarray, step: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, ...]:
    """Points below and above the zero and their values, which are −1 and 1 if not computed."""
    a, b = np.full_like(z, low), np.full_like(z, high)
    at_a, at_b = np.full_like(z, -1.0), np.full_like(z, 1.0)
    known = np.zeros((2, len(z)), dtype=bool)
    for _ in range(GROWTHS):
        f = values(z)
        above = f >= 0
        a, at_a, b, at_b = (
            np.where(above, a, z),
            np.where(above, at_a, f),
            np.where(above, z, b),
            np.where(above, f, at_b),
        )
        known |= np.stack([~above, above])
        reached = known | np.stack([a == low, b == high]) & np.isfinite([a, b])
        if reached.all():
            break
        moved = np.clip(z + np.where(above, -step, step), low, high)
        z, step = np.where(reached.all(axis=0), z, moved), step * GROWTH
    return a, at_a, b, at_b


def _between(
    values: Callable[[np.ndarray], np.ndarray],
    eps: float,
    low: np.ndarray,
    at_low: np.ndarray,
    high: np.ndarray,
    at_high: np.ndarray,
) -> np.ndarray:
    """The upper end of an interval, as wide as a few rounding errors, in which values change sign."""
    b, fb, a, fa = low, at_low, high, at_high
    t = np.full_like(a, 0.5)
    done = ~np.isfinite(a) | ~np.isfinite(b)
    for _ in range(SEARCHES):
        best = np.where(np.abs(fa) < np.abs(fb), a, b)
        least = (2 * eps * np.abs(best) + np.finfo(np.float64).tiny) / np.abs(b - a)
        done = done | (least > 0.5) | (a == b)
        if done.all():
            break
        x = np.where(done, a, a + np.clip(t, least, 1 - least) * (b - a))
        f = values(np.where(np.isfinite(x), x, 0.0))
        same = (f >= 0) == (fa >= 0)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(done | same, b, a), np.where(done | same, fb, fa)
        a, fa = np.where(done, a, x), np.where(done, fa, f)
        ratio, share = (a - b) / (c - b), (fa - fb) / (fc - fb)
        safe = (share**2 < ratio) & ((1 - share) ** 2 < 1 - ratio)
        quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = np.where(safe & np.isfinite(quadratic), quadratic, 0.5)
    found = np.where(fa >= 0, a, b)
    return np.where(np.isinf(low), low, np.where(np.isinf(high), high, found))
