"""Functions of the negative binomial distribution, down to its Poisson limit.

With r = 1 / α, the density of x is r / (r + x) times a binomial probability of r among r + x in
Loader's saddle-point form. Every term of it is a smooth function of α, also at α = 0.
"""

from __future__ import annotations

import math

import numpy as np

from ringdist.backend import Array, like, namespace, special, stop_gradient
from ringdist.variables.gamma_functions import (
    HALF_LOG_2PI,
    deviance,
    excess_share,
    log1p_share,
    polynomial,
    stirling_error,
    trigamma,
)

DISPERSIONS = 1e-12, 1e8  # bounds under EM, unless the dispersion is 0
EVEN = 0.05  # dispersion below which sums over j < x are integrals with corrections at their ends
HALVINGS = 60
SUMMED = 256  # counts below which a sum over counts is formed term by term
REACH, POINTS = 5.6, 511  # of the trapezoidal rule, in arsinh of the distance from the greatest density
ENDS = [1 / 24, -17 / 5760, 367 / 967680]  # coefficients of central differences at the end of an integral


def log_mass(x: Array, error: Array, means: Array, dispersions: Array) -> Array:
    """log p(x) from deviances and the errors of Stirling's formula, smooth in x.

    Args:
        x: positive.
        error: δ(x).
        means: positive.
        dispersions: not negative.
    """
    xp, odds, growth = namespace(means), 1 + dispersions * means, dispersions * x
    gap = (x - means) / odds
    shape = 1 / xp.clip(dispersions, min=0.01)  # r where it is small
    errors = stirling_error(shape + x, dispersions / (1 + growth)) - stirling_error(shape, dispersions) - error
    # D(r, n / (1 + α μ)) with n = r + x: gap − log((1 + α x) / (1 + α μ)) / α
    near = xp.abs(dispersions * gap) < 0.3
    logs = xp.log1p(growth) - xp.log1p(dispersions * means)
    far = gap - logs / xp.where(near, 1.0, dispersions)
    rest = xp.where(near, gap * excess_share(xp.where(near, dispersions * gap, 0.0)), far)
    distance = deviance(x, (1 + growth) * (means / odds), gap) + rest
    return errors - distance - 0.5 * (xp.log1p(growth) + xp.log(x)) - HALF_LOG_2PI


def log_none(means: Array, dispersions: Array) -> Array:
    """log p(0) = −log(1 + α μ) / α."""
    return -means * log1p_share(dispersions * means)


def falling_sums(x: Array, dispersions: Array) -> tuple[Array, Array]:
    """Σ_{j<x} g_j and Σ_{j<x} g_j² for g_j = j / (1 + α j).

    They follow from the Euler-Maclaurin formula for small α, and from differences of ψ and ψ' otherwise.
    """
    xp = namespace(x)
    even, some = dispersions < EVEN, x > 1
    top, small, large = (
        xp.where(some, x, 2.0),
        xp.where(even, dispersions, 0.0) + 0 * x,
        xp.where(even, 1.0, dispersions) + 0 * x,
    )
    share = 1 / (1 + small * top)
    growth = small * top
    first = top * top * _mean_share(growth) - 0.5 * top * share
    for k, coefficient in enumerate((1 / 12, -1 / 120, 1 / 252, -1 / 240)):
        first = first + coefficient * small ** (2 * k) * (share ** (2 * k + 2) - 1)
    second = top**3 * _mean_square(growth) - 0.5 * (top * share) ** 2 + top * share**3 / 6
    for k, (coefficient, n) in enumerate(((-12 / 720, 4), (240 / 30240, 6), (-10080 / 1209600, 8))):
        second = second + coefficient * small ** (2 * k + 1) * (share**n - (n / 2) * share ** (n + 1) + (n / 2 - 1))
    shape = 1 / large
    falling = top - shape * (special("digamma", top + shape) - special("digamma", shape))
    squares = trigamma(shape) - trigamma(top + shape)
    first, second = (
        xp.where(even, first, falling * shape),
        xp.where(even, second, shape * shape * (2 * falling - top + shape * shape * squares)),
    )
    return xp.where(some, xp.clip(first, min=0.0), 0.0), xp.where(some, xp.clip(second, min=0.0), 0.0)


def log_growths(x: Array, dispersions: Array) -> Array:
    """Σ_{j<x} log(1 + α j), the terms of log p(x) that depend on x and α but not on μ."""
    growth = dispersions * x
    logs, shape = namespace(x).log1p(growth), 1 / namespace(x).clip(dispersions, min=0.01)
    errors = stirling_error(shape + x, dispersions / (1 + growth)) - stirling_error(shape, dispersions)
    return x * (logs - excess_share(growth)) - 0.5 * logs + errors


def rest_of_log_mass(mean: Array, dispersions: Array) -> Array:
    """(μ + 1 / α) log(1 + α μ), which is subtracted in E[log p(x)] if E[x] = μ."""
    return mean * namespace(mean).log1p(dispersions * mean) + mean * log1p_share(dispersions * mean)


def _mean_share(y: Array) -> Array:
    """(y − log(1 + y)) / y², 1/2 at 0; times x² it is ∫ j / (1 + α j) dj from 0 to x for y = α x."""
    xp = namespace(y)
    near = y < 1e-4
    inner, outer = xp.where(near, y, 0.0), xp.where(near, 1.0, y)
    return xp.where(near, 0.5 - inner / 3 + inner * inner / 4, excess_share(outer) / outer)


def _mean_square(y: Array) -> Array:
    """(y − 2 log(1 + y) + y / (1 + y)) / y³, 1/3 at 0; times x³ it is the integral of the square."""
    xp = namespace(y)
    near = y < 0.03
    inner, outer = xp.where(near, y, 0.0), xp.where(near, 1.0, y)
    series = polynomial([(-1) ** k * (k + 1) / (k + 3) for k in range(8)], inner)
    return xp.where(near, series, (2 * excess_share(outer) - outer / (1 + outer)) / (outer * outer))


def raised(old: Array, mean: Array, bend: Array, square: Array) -> tuple[Array, Array]:
    """The dispersion that maximises a lower bound of the log-likelihood per row, and the gain of the bound.

    The mean μ is already the mean of the counts, which maximises the likelihood for every dispersion.

    The only term of log p that the statistics do not determine at every α is Σ_{j<x} log(1 + α j).
    With Δ = α − old, its derivative Σ g_j / (1 + Δ g_j) is at least bend² / (bend + Δ square) by the
    Cauchy-Schwarz inequality. For Δ < 0 it is at most bend − Δ square old / α, because every
    g_j < 1 / old. Both bounds agree with the derivative to first order.
    """
    xp = namespace(mean)
    low, high = DISPERSIONS
    varied = (bend > 0) & (mean > 0)
    bend, mean = xp.where(varied, bend, 1.0), xp.where(varied, mean, 1.0)

    def known(a: Array) -> Array:
        return mean * excess_share(a * mean) / a

    def slope(a: Array) -> Array:
        change = a - old
        above = bend * (bend / (bend + xp.where(change > 0, change, 0.0) * square))
        below = bend - xp.where(change < 0, change, 0.0) * square * (old / a)
        return xp.where(change > 0, above, below) - known(a)

    start = xp.clip(old, min=low)
    grows = bend > xp.where(old > low, known(start), 0.5 * mean * mean)
    below, above = xp.log(xp.where(grows, start, low)), xp.log(xp.where(grows, high, start))
    for _ in range(HALVINGS):
        middle = 0.5 * (below + above)
        positive = slope(xp.exp(middle)) > 0
        below, above = xp.where(positive, middle, below), xp.where(positive, above, middle)
    found = xp.exp(0.5 * (below + above))
    found = xp.where(~grows & (old <= low), old, found)
    gained = gain(found, old, mean, bend, square)
    better = gained >= -64 * float(xp.finfo(mean.dtype).eps) * (1 + mean)
    return xp.where(varied, xp.where(better, found, old), 0.0), xp.where(varied & better, gained, 0.0)


def gain(new: Array, old: Array, mean: Array, bend: Array, square: Array) -> Array:
    """The difference of the bound between two dispersions."""
    xp = namespace(new)
    change, safe = new - old, xp.where(square > 0, square, 1.0)
    above = xp.where(square > 0, bend * bend / safe * xp.log1p(xp.clip(change, min=0.0) * square / bend), bend * change)
    rest = old * (xp.log(xp.where(change < 0, old, 1.0)) - xp.log(xp.where(change < 0, new, 1.0))) + xp.clip(
        change, max=0.0
    )
    below = bend * change - square * old * rest
    return xp.where(change > 0, above, below) - (rest_of_log_mass(mean, new) - rest_of_log_mass(mean, old))


def product(mean: Array, dispersion: Array, other_mean: Array, other_dispersion: Array) -> Array:
    """Σ_x p(x) q(x) for parameters of the shapes (N, 1) and (1, N').

    Terms below SUMMED are added one by one. The rest is the integral over all x > 0 minus that over
    the summed part, corrected at its end by the Euler-Maclaurin formula.
    """
    xp = namespace(mean, other_mean)
    some = (mean > 0) & (other_mean > 0)
    first, second = (xp.where(some, m, 1.0)[..., None] for m in (mean, other_mean))
    laws = (first, dispersion[..., None] + 0 * first), (second, other_dispersion[..., None] + 0 * second)

    def density(x: Array) -> Array:
        error = stirling_error(x)
        return xp.exp(sum(log_mass(x, error, *law) for law in laws[1:]) + log_mass(x, error, *laws[0]))

    counts = density(like(np.arange(1.0, SUMMED + 3), some, first.dtype) + 0 * first)
    nodes, weights = (like(values, first) for values in _panels())
    covered = xp.sum(weights * density(nodes + 0 * first), axis=-1)
    ends = 0 * covered
    for k, coefficient in enumerate(ENDS):
        for i in range(2 * k + 2):
            ends = ends + coefficient * (-1) ** i * math.comb(2 * k + 1, i) * counts[..., SUMMED - 1 + k - i]
    centre, scale = _centre(*(tuple(map(stop_gradient, law)) for law in laws))
    y = like(REACH * np.linspace(-1, 1, POINTS), first)
    x = xp.exp(xp.clip(centre + scale * xp.sinh(y), min=-80.0, max=80.0))
    step = 2 * REACH / (POINTS - 1) * scale * xp.cosh(y)
    beyond = xp.sum(density(x) * x * step, axis=-1) - covered
    none = xp.exp(log_none(mean, dispersion) + log_none(other_mean, other_dispersion))
    return none + xp.where(some, xp.sum(counts[..., : SUMMED - 1], axis=-1) + beyond + ends, 0.0)


def _panels() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of quadrature from 0 to SUMMED − 1/2."""
    edges = np.array([0.0, *10.0 ** np.arange(-6, 0), *np.arange(1.0, 16.0) ** 2, SUMMED - 0.5])
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def _centre(*laws: tuple[Array, Array]) -> tuple[Array, Array]:
    """The maximum of x p(x) q(x) in log x, and its width."""
    xp = namespace(laws[0][0])

    def rises(x: Array) -> Array:
        before = xp.clip(x - 0.5, min=0.0)
        total = 1 / x
        for mean, dispersion in laws:
            total = total + xp.log((1 + dispersion * before) / (1 + before)) + xp.log(mean / (1 + dispersion * mean))
        return total > 0

    low, high = (0 * laws[0][0] + end for end in (-40.0, 80.0))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        upward = rises(xp.exp(middle))
        low, high = xp.where(upward, middle, low), xp.where(upward, high, middle)
    x = xp.exp(low)
    return low, 1 / xp.sqrt(1 + sum((x / (1 + dispersion * x) for _, dispersion in laws[1:]), x / (1 + laws[0][1] * x)))
