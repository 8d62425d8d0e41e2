"""Tail probabilities by quadrature, with small relative error and at a cost that does not depend on parameters.

A tail is written as density × ∫_0^∞ exp(−E(t)) dt, t the distance from the point on a scale on which
the density is log-concave, so that E is convex, E(0) = 0. With t = L exp(y − exp(−y)) and L near the
root of E(L) = 1, the trapezoidal rule in y converges exponentially (double exponential formula,
Takahasi and Mori 1974). The regularised incomplete beta function is the tail of the log-odds:

    P(Beta(a, b) <= p) = B(a, b)⁻¹ ∫_{w < log(p / q)} e^(a w) (1 + e^w)^(−a − b) dw,    q = 1 − p
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ringdist.backend import Array, dtype_name, is_concrete, like, namespace, on_accelerator, stop_gradient
from ringdist.variables.gamma_functions import HALF_LOG_2PI, deviance, excess, polynomial, stirling_error

# Values of y and the step between them; made once, as torch.compile does not trace how.
RULES: dict[str, tuple[list[float], float]] = {
    name: (np.linspace(low, high, size).tolist(), (high - low) / (size - 1))
    for name, low, high, size in (("float64", -3.7, 4.0, 56), ("float32", -2.75, 3.1, 32))
}
STEEP = 3  # absolute derivative of the log-density above which the decreasing tail is integrated
MODERATE = 1e4
NEWTON_STEPS = 5  # the scale L need not be exact
GROWTH = [1 / math.factorial(k) for k in range(2, 18)]  # (e^t − 1 − t) / t² in powers of t


def tail_integral(
    exponent: Callable[[Array], Array], scale: Array, factor: Callable[[Array], Array] | None = None
) -> Array:
    """∫_0^∞ f(t) exp(−E(t)) dt for convex E with E(scale) near 1, of the shape of `scale`; f is smooth, 1 if None."""
    xp = namespace(scale)
    nodes, step = RULES[dtype_name(scale.dtype)]
    total = 0 * scale
    for y in nodes:
        t = scale * math.exp(y - math.exp(-y))
        value = (step * (1 + math.exp(-y))) * t * xp.exp(-exponent(t))
        total = total + (value if factor is None else value * factor(t))
    return total


def regularised_beta(a: Array, b: Array, p: Array, q: Array, gap: Array) -> Array:
    """P(Beta(a, b) <= p) for arrays of one shape, with a, b > 0, and p and q = 1 − p inside (0, 1).

    Args:
        gap: a q − b p to full relative precision, the derivative of the log-density of the log-odds.
    """
    xp = namespace(a)
    # Integrate the decreasing tail; near the mode, the side away from even odds, where the integrand is smooth.
    left = xp.where(xp.abs(gap) >= STEEP, gap >= 0, p < 0.5)
    a, b = xp.where(left, a, b), xp.where(left, b, a)
    p, q, gap = xp.where(left, p, q), xp.where(left, q, p), xp.where(left, gap, -gap)
    tail = _lower_tail(a, b, p, q, gap)
    return xp.clip(xp.where(left, tail, 1 - tail), min=0.0, max=1.0)


def _lower_tail(a: Array, b: Array, p: Array, q: Array, slope: Array) -> Array:
    """P(Beta(a, b) <= p); for small a by the recurrence from a + 1, whose tail is shorter."""
    xp = namespace(a)
    density = _log_odds_density(a, b, p, q, slope)
    long = a < 1
    raised, steeper = xp.where(long, a + 1, a), xp.where(long, slope + q, slope)
    make = _direct_exponent if _is_moderate(raised + b) else _exponent
    fixed = tuple(stop_gradient(array) for array in (raised, b, p, q, steeper))
    integral = tail_integral(make(raised, b, p, q, steeper), _scale(*fixed))
    share = xp.where(long, p * (a + b) / a, 1.0)  # of the densities of a + 1 and a at the point
    return density * (share * integral + xp.where(long, 1 / a, 0.0))


def _log_odds_density(a: Array, b: Array, p: Array, q: Array, slope: Array) -> Array:
    """The density of the log-odds, p^a q^b / B(a, b)."""
    xp, n = namespace(a), a + b
    errors = stirling_error(n) - stirling_error(a) - stirling_error(b)
    distance = deviance(a, n * p, slope) + deviance(b, n * q, -slope)
    return xp.exp(0.5 * (xp.log(a) + (xp.log(b) - xp.log(n))) - HALF_LOG_2PI + errors - distance)


def _exponent(a: Array, b: Array, p: Array, q: Array, slope: Array) -> Callable[[Array], Array]:
    """The log-density at a point minus that at a distance t to its left: slope t + n (log(q + p e^−t) + p t)."""
    xp, few, n = namespace(a), p < 0.5, a + b
    share, sign = xp.where(few, p, q), xp.where(few, like(-1.0, p), 1.0)
    top = 600.0 if dtype_name(a.dtype) == "float64" else 80.0

    def exponent(t: Array) -> Array:
        signed = xp.clip(sign * t, max=top)
        small = xp.abs(signed) < 0.5
        s = xp.where(small, signed, 0.0)
        growth = xp.expm1(signed)
        second = xp.where(small, s * s * polynomial(GROWTH, s), growth - signed)
        change = share * growth
        near = change < 1
        bend = share * second - excess(xp.where(near, change, 0.0))
        bend = xp.where(near, bend, xp.log1p(xp.where(near, 0.0, change)) - share * signed)
        beyond = xp.where(few, 0.0, t - signed) * (1 - share)
        return slope * t + n * (bend + beyond)

    return exponent


def _direct_exponent(a: Array, b: Array, p: Array, q: Array, slope: Array) -> Callable[[Array], Array]:
    """`_exponent` for moderate a and b, with fewer operations."""
    xp, few, n = namespace(a), p < 0.5, a + b
    share, sign = xp.where(few, p, q), xp.where(few, like(-1.0, p), 1.0)
    steep = slope * sign - n * share

    def exponent(t: Array) -> Array:
        signed = xp.clip(sign * t, max=600.0)
        return steep * signed + n * xp.log1p(share * xp.expm1(signed))

    return exponent


def _is_moderate(n: Array) -> bool:
    """Whether n times the rounding error of a logarithm is negligible compared with 1."""
    if not is_concrete(n) or on_accelerator(n) or dtype_name(n.dtype) != "float64":
        return False
    return bool(namespace(n).all(n < MODERATE))


def _scale(a: Array, b: Array, p: Array, q: Array, slope: Array) -> Array:
    """The L with E(L) near 1, by Newton's method for the convex E."""
    xp = namespace(a)
    rising = slope < 0
    mode = xp.log1p(xp.where(rising, -slope, 0.0) / (a * q))  # the distance at which E is least
    width = xp.where(rising, a * (b / (a + b)), (a + b) * p * q)
    scale = xp.log1p(1 / width + xp.sqrt(2 / width))
    scale = mode + xp.where(slope * scale > 1, 1 / xp.where(rising, 1.0, slope), scale)
    exponent = _exponent(a, b, p, q, slope)
    for _ in range(NEWTON_STEPS):
        share = -xp.expm1(-scale) / (q + p * xp.exp(-scale))
        rise = slope + (a + b) * p * q * share
        scale = xp.maximum(scale + (1 - exponent(scale)) / rise, 1e-2 * scale)
    return scale
