"""Functions of the Poisson distribution without cancellation, for counts and rates of any size.

With D(x, λ) = x log(x / λ) + λ − x, which is 0 at x = λ, and δ(x) the error of Stirling's formula,

    log p(x | λ) = −D(x, λ) − δ(x) − log(2πx) / 2                          (Loader 2000)
    P(X <= x | λ) = erfc(y) / 2 + exp(−y²) / sqrt(2πa) Σ_k c_k(η) / a^k    (Temme 1979)

with a = x + 1, y² = D(a, λ) = a η² / 2, and y and η with the sign of λ − a. No term is much larger
than the result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ringdist.backend import Array, astype, index_dtype, like, namespace, special, take
from ringdist.variables.gamma_functions import HALF_LOG_2PI, NEAR, TERMS, polynomial

FAR = 0.9  # beyond which x / λ might leave the range of the dtype
# δ(n) = log(n!) − (n + 1/2) log n + n − log(2π) / 2 for n = 1..15; for larger n in powers of n⁻²
STIRLING = [
    0.0,
    0.0810614667953272582,
    0.0413406959554092941,
    0.0276779256849983391,
    0.0207906721037650931,
    0.0166446911898211922,
    0.013876128823070748,
    0.0118967099458917701,
    0.0104112652619720965,
    0.00925546218271273292,
    0.00833056343336287126,
    0.00757367548795184079,
    0.00694284010720952987,
    0.00640899418800420707,
    0.00595137011275884774,
    0.00555473355196280137,
]
STIRLING_SERIES = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188]
# Taylor coefficients of c_0, ..., c_3 at η = 0, in exact fractions from the recurrence
# c_k = (dc_{k−1}/dη) / η + (−1)^k g_k / μ, with the coefficients g_k of Stirling's series.
TEMME = (
    [
        -1 / 3,
        1 / 12,
        -2 / 135,
        1 / 864,
        3.527336860670194e-4,
        -1.787551440329218e-4,
        3.919263178522438e-5,
        -2.185448510679992e-6,
        -1.85406221071516e-6,
        8.296711340953087e-7,
        -1.7665952736826078e-7,
        6.707853543401498e-9,
        1.0261809784240309e-8,
        -4.382036018453353e-9,
        9.14769958223679e-10,
    ],
    [
        -1 / 540,
        -1 / 288,
        2.6455026455026454e-3,
        -9.902263374485596e-4,
        2.0576131687242798e-4,
        -4.018775720164609e-7,
        -1.8098550334489977e-5,
        7.64916091608111e-6,
        -1.6120900894563446e-6,
        4.647127802807434e-9,
        1.378633446915721e-7,
        -5.752545603517705e-8,
    ],
    [
        4.133597883597883e-3,
        -2.6813271604938273e-3,
        7.716049382716049e-4,
        2.0093878600823047e-6,
        -1.073665322636516e-4,
        5.2923448829120125e-5,
        -1.2760635188618728e-5,
        3.423578734096138e-8,
        1.3721957309062934e-6,
    ],
    [
        6.494341563786008e-4,
        2.2947209362139917e-4,
        -4.691894943952557e-4,
        2.6772063206283885e-4,
        -7.561801671883977e-5,
        -2.396505113867297e-7,
        1.1082654115347302e-5,
    ],
)
SMALL_ETA = 0.3  # below which the c_k are summed as Taylor series


def log_mass(x: Array, rates: Array) -> Array:
    """log p(x | λ) for integers x >= 1 and rates λ > 0, broadcast; not to be differentiated."""
    xp = namespace(rates)
    parts = _Parts.of(x, rates)
    near = 2 * parts.v * parts.v * parts.bracket
    deviance = xp.where(parts.near, near, x * parts.log_ratio - 2 * parts.half_gap)
    return -deviance - (stirling_error(x) + 0.5 * xp.log(x) + HALF_LOG_2PI)


def cdf_of_large_counts(x: Array, rates: Array) -> Array:
    """P(X <= x | λ) for x >= 20 (float32, to 1e-6) or x >= 200 (float64, to 1e-13), and λ > 0."""
    xp = namespace(rates)
    # D >= (x − λ)² / (2 max(x, λ)): beyond 800 its exponential is 0.
    certain = xp.abs(0.5 * x - 0.5 * rates) > 20 * xp.sqrt(xp.maximum(x, rates))
    above, rates = x > rates, xp.where(certain, x, rates)
    a, root = x + 1, xp.sqrt(x + 1)
    parts = _Parts.of(x, rates, 1.0)
    # The signed root of the deviance, smooth where both numbers meet.
    deviance = xp.where(parts.near, 1.0, a * parts.log_ratio - 2 * parts.half_gap)
    y = xp.where(parts.near, -parts.v * xp.sqrt(2 * parts.bracket), -xp.sign(parts.half_gap) * xp.sqrt(deviance))
    c0, c1, c2, c3 = _temme(y * math.sqrt(2) / root, -2 * parts.half_gap / a)
    rest = xp.exp(-y * y) / (math.sqrt(2 * math.pi) * root) * (c0 + (c1 + (c2 + c3 / a) / a) / a)
    values = xp.clip(0.5 * special("erfc", y) + rest, min=0.0, max=1.0)
    return xp.where(certain, astype(above, values.dtype), values)


class _Parts(NamedTuple):
    """The parts of D(x, λ), which is 2 v² bracket near x = λ, else x log(x / λ) − 2 half_gap."""

    near: Array
    v: Array  # (x − λ) / (x + λ), 0 where not near
    bracket: Array  # (x + λ) / 2 + x (atanh(v) − v) / v
    log_ratio: Array  # log(x / λ), log 2 where near
    half_gap: Array  # (x − λ) / 2; halves do not overflow

    @classmethod
    def of(cls, x: Array, rates: Array, shift: float = 0.0) -> _Parts:
        """The parts of D(x + shift, λ); the shift counts also where x + shift is rounded to x."""
        xp = namespace(rates)
        half_gap = (0.5 * x - 0.5 * rates) + 0.5 * shift
        x = x + shift
        half_sum = 0.5 * x + 0.5 * rates
        ratio = half_gap / half_sum
        near, far = xp.abs(ratio) < NEAR, xp.abs(ratio) > FAR
        v = xp.where(near, ratio, 0.0)
        bracket = half_sum + x * v * polynomial(TERMS, v * v)
        quotient = xp.where(far | near, 2.0, x) / xp.where(far | near, 1.0, rates)
        log_ratio = xp.where(far, xp.log(x) - xp.log(rates), xp.log(quotient))
        return cls(near, v, bracket, log_ratio, half_gap)


def stirling_error(x: Array) -> Array:
    """log(x!) minus Stirling's formula, for integers x >= 1."""
    xp = namespace(x)
    small = x < len(STIRLING)
    index = astype(xp.where(small, x, 0.0), index_dtype(x))
    table = take(like(np.asarray(STIRLING), x), xp.reshape(index, (-1,)))
    inverse = 1 / xp.where(small, 1.0, x)
    return xp.where(small, xp.reshape(table, x.shape), inverse * polynomial(STIRLING_SERIES, inverse * inverse))


def _temme(eta: Array, mu: Array) -> list[Array]:
    """c_0, ..., c_3 at η, with μ − log(1 + μ) = η² / 2."""
    xp = namespace(eta)
    small = xp.abs(eta) < SMALL_ETA
    series = [polynomial(coefficients, xp.where(small, eta, 0.0)) for coefficients in TEMME]
    e, m = 1 / xp.where(small, 1.0, eta), 1 / xp.where(small, 1.0, mu)
    e2, m2 = e * e, m * m
    closed = (
        m - e,
        e * e2 - m * m2 - m2 - m / 12,
        -3 * e * e2 * e2 + m * m2 * (3 * m2 + 5 * m + 25 / 12) + m2 / 12 + m / 288,
        15 * e * e2**3
        - m2**2 * (m2 * (15 * m + 35) + 105 / 4 * m + 77 / 12)
        - m2 * (49 * m + 1) / 288
        + m * 139 / 51840,
    )
    return [xp.where(small, near, far) for near, far in zip(series, closed, strict=True)]
