"""Masses of intervals under Gaussians, and samples within intervals, without cancellation arbitrarily far out.

With Q(z) = P(Z > z) of a standard Gaussian and erfcx(x) = exp(x²) erfc(x), for 0 <= a <= b

    log Q(a) = log(erfcx(a / √2) / 2) − a² / 2
    D(a, b) = log Q(a) − log Q(b) = (b − a)(a + b) / 2 + log(erfcx(a / √2) / erfcx(b / √2))
    log P(a < Z < b) = log Q(a) + log(1 − exp(−D))

and by symmetry for intervals below 0. A sample is the z with D(a, z) = −log(1 − u (1 − exp(−D(a, b)))), found by
Newton's method with the hazard −Q'(z) / Q(z) = √(2/π) / erfcx(z / √2).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, Piece, erfcx, is_array, like, namespace, piecewise, reciprocal, repeated, special

ROOT_HALF = math.sqrt(0.5)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
LARGEST = 700.0  # D above which the far end is negligible
NEWTON = 8  # steps to the inverse of Q
NARROW = 1e-4  # (b − a) b below which the density between is exponential
FLAT = 1e-12  # and below which it is constant
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
NODES, WEIGHTS = (0.5 + 0.5 * _NODES).tolist(), (0.5 * _WEIGHTS).tolist()  # on [0, 1]


def standardised(x: Any, means: Array, stds: Array) -> Array:
    """(x − mean) / std, broadcast and clipped to a bound whose square overflows; there is no gradient beyond it.

    Halves are subtracted, because the difference of two large numbers may overflow.
    """
    xp = namespace(means)
    z = (0.5 * x - 0.5 * means) * (2 * reciprocal(stds))
    bound = overflowing(z)
    return xp.clip(z, min=-bound, max=bound)


def log_mass(means: Array, stds: Array, low: float, high: Any) -> Array:
    """log P(low <= X <= high | s), (N,), or (..., N) for an array `high` (...) of finite numbers."""
    if not is_array(high) and high == math.inf:
        return 0 * means if low == -math.inf else log_upper(standardised(low, means, stds))
    end = high[..., None] if is_array(high) else high
    z = standardised(end, means, stds)
    if low == -math.inf:
        return log_upper(-z)
    return log_between(0 * z + standardised(low, means, stds), z, _width(low, end, stds))


def draw_within(means: Array, stds: Array, low: float, high: float, u: Array) -> Array:
    """One sample from each of n Gaussians given low <= X <= high, from uniform numbers u (n,) in [0, 1).

    The interval has at least one finite end. Samples are computed as distances from the end that is nearer to the
    mean, so they are accurate for intervals that are narrow or far from the mean.
    """
    xp = namespace(u)
    start, end = (0 * u + b if math.isinf(b) else standardised(b, means, stds) for b in (low, high))
    width = 0 * u + math.inf if math.isinf(high - low) else 0 * u + _width(low, high, stds)
    draw = _drawn(start, end, width, u)
    distance = stds * draw.distance
    by_end = xp.where(
        draw.mirrored, (0.0 if math.isinf(high) else high) - distance, (0.0 if math.isinf(low) else low) + distance
    )
    return xp.where(draw.by_end, by_end, means + draw.z * stds)


def draw_standard(start: Array, end: Array, width: Array, u: Array) -> Array:
    """One sample from a standard Gaussian given start <= Z <= end, finite and with the difference `width`."""
    draw = _drawn(start, end, width, u)
    by_end = namespace(u).where(draw.mirrored, end - draw.distance, start + draw.distance)
    return namespace(u).where(draw.by_end, by_end, draw.z)


class _Draw(NamedTuple):
    """A standardised sample, and its distance from an end if that is more accurate."""

    z: Array
    distance: Array
    by_end: Array
    mirrored: Array  # whether that end is the upper one


def _drawn(start: Array, end: Array, width: Array, u: Array) -> _Draw:
    xp = namespace(u)
    mirrored = start + end < 0
    near, far = xp.where(mirrored, -end, start), xp.where(mirrored, -start, end)
    width = width + 0 * near if width.shape != near.shape else width
    in_tail, narrow = near > 0, xp.isfinite(far) & (width * far < NARROW)
    by_end = in_tail | narrow
    pieces = [
        Piece(narrow, _narrow_distance, (0.5, 0.5, 1.0, 1.0)),
        Piece(in_tail & ~narrow, _tail_distance, (0.5, 1.0, 1.5, 0.5)),
        Piece(~by_end, lambda u, *rest: 0 * u, (0.5, 0.0, 1.0, 1.0)),
    ]
    distance = piecewise(pieces, u, near, far, width)
    pieces = [
        Piece(~by_end, _across, (0.5, -1.0, 1.0)),
        Piece(by_end, lambda u, *rest: 0 * u, (0.5, -1.0, 1.0)),
    ]
    z = piecewise(pieces, u, near, far)
    return _Draw(xp.where(mirrored, -z, z), distance, by_end, mirrored)


def _narrow_distance(u: Array, near: Array, far: Array, width: Array) -> Array:
    """The distance of a sample from the near end of a narrow interval, where the density is exponential."""
    return _exponential(u, near + 0.5 * width, width)


def _tail_distance(u: Array, near: Array, far: Array, width: Array) -> Array:
    """The distance of a sample from the near end of an interval above 0, which may be unbounded."""
    xp, finite = namespace(u), namespace(u).isfinite(far)
    drop = xp.where(finite, _drop(near, xp.where(finite, far, near + 1), xp.where(finite, width, 1.0)), math.inf)
    return _fallen(near, -xp.log1p(u * xp.expm1(-drop)))


def log_upper(z: Array) -> Array:
    """log Q(z)."""
    xp = namespace(z)
    positive = z > 0
    above, below = xp.where(positive, z, 1.0), xp.where(positive, -1.0, z)
    tail = xp.log(erfcx(ROOT_HALF * above)) - math.log(2) - 0.5 * above * above
    return xp.where(positive, tail, xp.log1p(-0.5 * special("erfc", -ROOT_HALF * below)))


def log_between(low: Array, high: Array, width: Array) -> Array:
    """log P(low < Z < high) for finite low <= high with the difference `width`."""
    xp = namespace(low)
    mirrored = low + high < 0
    near, far = xp.where(mirrored, -high, low), xp.where(mirrored, -low, high)
    across = near <= 0
    narrow = ~across & (width * (near + width) < 1)
    pieces = [
        Piece(across, lambda a, b, width: _log_across(-a, b), (-1.0, 1.0, 2.0)),
        Piece(narrow, lambda a, b, width: _log_narrow(a, width), (0.0, 1.0, 1.0)),
        Piece(~across & ~narrow, _log_tail, (1.0, 3.0, 2.0)),
    ]
    return piecewise(pieces, near, far, width)


def _log_across(below: Array, above: Array) -> Array:
    """log P(−below < Z < above) for non-negative ends."""
    xp = namespace(below)
    total = 0.5 * (special("erf", ROOT_HALF * below) + special("erf", ROOT_HALF * above))
    return xp.where(total > 0, xp.log(xp.where(total > 0, total, 1.0)), -math.inf)


def _log_tail(a: Array, b: Array, width: Array) -> Array:
    """log P(a < Z < b) for 0 < a < b."""
    xp = namespace(a)
    drop = _drop(a, b, width)
    matters = drop < LARGEST
    return log_upper(a) + xp.where(matters, xp.log(-xp.expm1(-xp.where(matters, drop, 1.0))), 0.0)


def _log_narrow(a: Array, width: Array) -> Array:
    """log P(a < Z < a + width) if the density decreases by no more than a factor of about e²."""
    xp = namespace(a)
    t = width[..., None] * like(NODES, a)
    share = xp.sum(like(WEIGHTS, a) * xp.exp(-t * (a[..., None] + 0.5 * t)), axis=-1)
    logs = xp.where(width > 0, xp.log(xp.where(width > 0, width, 1.0)), -math.inf)
    return logs + xp.log(share) - 0.5 * a * a - HALF_LOG_2PI


def _drop(a: Array, b: Array, width: Array) -> Array:
    """D(a, b) for 0 <= a <= b = a + width."""
    xp = namespace(a)
    return width * (0.5 * a + 0.5 * b) + xp.log(erfcx(ROOT_HALF * a)) - xp.log(erfcx(ROOT_HALF * b))


def _fallen(a: Array, drop: Array) -> Array:
    """The t with D(a, a + t) = drop, for a >= 0, by Newton's method.

    The hazard increases and exceeds its argument. With the hazard at a, or with the argument as the hazard, t would be
    larger. Newton's method starts at the smaller of these two and decreases to the solution, because D is convex.
    """
    xp = namespace(a)
    t = xp.minimum(2 * drop / (a + xp.sqrt(a * a + 2 * drop) + (drop == 0)), drop / _hazard(a))

    def nearer(state: tuple[Array]) -> tuple[Array]:
        (t,) = state
        return (xp.clip(t - (_drop(a, a + t, t) - drop) / _hazard(a + t), min=0.0),)

    return repeated(nearer, (t,), NEWTON)[0]


def _hazard(z: Array) -> Array:
    """−Q'(z) / Q(z) for z >= 0."""
    return math.sqrt(2 / math.pi) / erfcx(ROOT_HALF * z)


def _across(u: Array, low: Array, high: Array) -> Array:
    """The z in low <= 0 <= high above which the share 1 − u of the interval's mass lies."""
    xp = namespace(u)
    upper, least = (0.5 * special("erfc", ROOT_HALF * end) for end in (low, high))
    share = xp.clip(upper + u * (least - upper), min=float(xp.finfo(u.dtype).smallest_normal))
    return -special("ndtri", share)


def _exponential(u: Array, rate: Array, width: Array) -> Array:
    """The u-quantile of an exponential distribution of the given rate on [0, width]."""
    xp = namespace(u)
    flat = rate * width < FLAT
    safe = xp.where(flat, 1.0, rate)
    return xp.where(flat, u * width, -xp.log1p(u * xp.expm1(-safe * width)) / safe)


def _width(low: float, high: Any, stds: Array) -> Array:
    """(high − low) / std, clipped to the bound of `standardised`."""
    width = (0.5 * high - 0.5 * low) * (2 * reciprocal(stds))
    return namespace(stds).clip(width, max=overflowing(width))


def overflowing(z: Array) -> float:
    """A number of z's dtype whose square overflows."""
    return 2 * math.sqrt(float(namespace(z).finfo(z.dtype).max))
