"""The logarithm of the gamma function and its derivatives without cancellation, for arguments of any size.

With D(x, λ) = x log(x / λ) + λ − x, which is 0 at x = λ, and the error δ of Stirling's formula,

    log Γ(x) = (x − 1/2) log x − x + log(2π) / 2 + δ(x)

densities with gamma functions are sums of such terms, none of which is much larger than the result
(Loader, Fast and accurate computation of binomial probabilities, 2000).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ringdist.backend import Array, dtype_name, namespace, special

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
NEAR = 0.1  # |x − λ| / (x + λ) below which D is summed as a series
TERMS = [1 / (2 * k + 3) for k in range(8)]  # (atanh(v) − v) / v³ in powers of v²
# Asymptotic series in powers of x⁻²: of x δ(x), and of x² times the next functions without their leading terms.
DELTA = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156]
PSI = [1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12]
PSI_SLOPE = [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6]
LARGE = 12  # above which the series are accurate in float64


def polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """Σ_k coefficients[k] x^k by Horner's rule."""
    total: Array = 0 * x + coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def stirling_error(x: Array, inverse: Array | None = None) -> Array:
    """δ(x) for x > 0; from `inverse` = 1 / x if x may exceed the range of the dtype."""
    xp = namespace(x)
    large = x >= (LARGE if dtype_name(x.dtype) == "float64" else 3)
    inverse = 1 / xp.where(large, x, 1.0) if inverse is None else xp.where(large, inverse, 0.0)
    small = xp.where(large, 1.0, x)
    direct = special("gammaln", small) - (small - 0.5) * xp.log(small) + small - HALF_LOG_2PI
    return xp.where(large, inverse * polynomial(DELTA, inverse * inverse), direct)


def deviance(x: Array, mean: Array, gap: Array) -> Array:
    """D(x, mean) for positive numbers, with `gap` = x − mean known to full relative precision."""
    xp = namespace(gap)
    ratio = gap / (x + mean)
    near = xp.abs(ratio) < NEAR
    v = xp.where(near, ratio, 0.0)
    series = gap * v + 2 * x * v * v * v * polynomial(TERMS, v * v)
    return xp.where(near, series, x * (xp.log(x) - xp.log(mean)) - gap)


def excess(y: Array) -> Array:
    """y − log(1 + y) for y > −1, about y² / 2 near 0."""
    xp = namespace(y)
    v = y / (2 + y)
    near = xp.abs(v) < NEAR
    v = xp.where(near, v, 0.0)
    inner = xp.where(near, y, 0.0)
    series = v * v * (2 + inner - 2 * v * polynomial(TERMS, v * v))
    outer = xp.where(near, 1.0, y)
    return xp.where(near, series, outer - xp.log1p(outer))


def log1p_share(y: Array) -> Array:
    """log(1 + y) / y for y > −1, 1 at 0."""
    xp = namespace(y)
    near = xp.abs(y) < NEAR
    outer = xp.where(near, 1.0, y)
    return xp.where(near, 1 - excess_share(xp.where(near, y, 0.0)), xp.log1p(outer) / outer)


def excess_share(y: Array) -> Array:
    """1 − log(1 + y) / y for y > −1, about y / 2 near 0, and 0 at 0."""
    xp = namespace(y)
    v = y / (2 + y)
    near = xp.abs(v) < NEAR
    inner, v = xp.where(near, y, 0.0), xp.where(near, v, 0.0)
    outer = xp.where(near, 1.0, y)
    series = v * (1 - 2 * v * polynomial(TERMS, v * v) / (2 + inner))
    return xp.where(near, series, 1 - xp.log1p(outer) / outer)


def log_gap(x: Array) -> Array:
    """log x − ψ(x) for x > 0, between 1 / (2x) and 1 / x."""
    xp = namespace(x)
    large = x >= LARGE
    inverse = 1 / xp.where(large, x, x + LARGE)
    far = inverse * (0.5 + inverse * polynomial(PSI, inverse * inverse))
    small = xp.where(large, 1.0, x)
    steps = sum((1 / (small + k) for k in range(1, LARGE)), 1 / small)
    return xp.where(large, far, far + steps - xp.log1p(LARGE / small))


def log_gap_derivative(x: Array) -> Array:
    """The derivative of `log_gap`, 1 / x − ψ'(x)."""
    xp = namespace(x)
    large = x >= LARGE
    inverse = 1 / xp.where(large, x, x + LARGE)
    far = -inverse * inverse * (0.5 + inverse * polynomial(PSI_SLOPE, inverse * inverse))
    small = xp.where(large, 1.0, x)
    steps = sum((1 / (small + k) ** 2 for k in range(1, LARGE)), 1 / small**2)
    return xp.where(large, far, far - steps + LARGE / (small * (small + LARGE)))


def trigamma(x: Array) -> Array:
    """ψ'(x) for x > 0."""
    return 1 / x - log_gap_derivative(x)


def inverse_log_gap(value: Array) -> Array:
    """The x with log x − ψ(x) = `value` > 0, by Newton's method in logarithms, in which it is nearly linear."""
    xp = namespace(value)
    logs = -xp.log(value) - 0.4  # x is between 1 / 2 and 1 of 1 / value
    for _ in range(6):
        x = xp.exp(logs)
        gap = log_gap(x)
        logs = logs - (xp.log(gap) - xp.log(value)) * gap / (x * log_gap_derivative(x))
    return xp.exp(logs)
