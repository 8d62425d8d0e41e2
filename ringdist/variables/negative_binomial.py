"""Negative binomial components, for counts that vary more than Poisson counts."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    dtype_name,
    gamma_logs,
    namespace,
    poisson,
    stop_gradient,
    take,
    without_warnings,
)
from ringdist.variables.checks import check_name, check_values, observed, parameters
from ringdist.variables.gamma_functions import excess_share
from ringdist.variables.negative_binomial_functions import (
    DISPERSIONS,
    falling_sums,
    log_growths,
    log_mass,
    log_none,
    product,
    raised,
    rest_of_log_mass,
)
from ringdist.variables.placing import centres_and_widths
from ringdist.variables.poisson_functions import stirling_error
from ringdist.variables.protocol import Family
from ringdist.variables.tails import regularised_beta

JUMPS = 1 / 4, 1 / 1.4, 1.4, 4.0  # multiples of the dispersion whose likelihood is compared
RULED_OUT = -1e30


class NegativeBinomialMixture(Family):
    """A count with negative binomial components.

    p(x | s) = Γ(x + r) / (Γ(r) x!) (α μ)^x / (1 + α μ)^(x + r),
    μ = means[s], α = dispersions[s], r = 1 / α

    The mean is μ and the variance μ + α μ²: a Poisson distribution of rate μ where α = 0, and a
    mixture of Poisson distributions over gamma-distributed rates otherwise. Gradients flow to the
    parameters, not to counts. The EM step of the mean is exact. For α it maximises a bound of the
    likelihood that agrees with it to second order, so it converges like Newton's method, or it jumps
    if this gains more. The likelihood never decreases.

    Args:
        means: (N,) expected counts, finite and not negative.
        dispersions: (N,) finite and not negative.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, or a mean or a dispersion is negative or not finite.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> visits = rd.NegativeBinomialMixture([2.0, 2.0], [0.0, 1.0])  # Poisson, geometric
        >>> np.exp(visits.log_density(np.array([0.0, 5.0]))).round(4)
        array([[0.1353, 0.3333],
               [0.0361, 0.0439]])
        >>> visits.variances()
        array([2., 6.])
    """

    integer = True
    support = (0.0, math.inf)
    positive = ("means", "dispersions")
    stacks = True
    streams = True

    def __init__(self, means: Array, dispersions: Array, name: str | None = None, *, validate: bool = True):
        arrays = parameters(means=means, dispersions=dispersions)
        if validate:
            for label, array in arrays.items():
                check_values(label, array, lambda v: np.isfinite(v) & (v >= 0), "not negative and finite")
        self._set(int(arrays["means"].shape[0]), check_name(name), arrays)

    def log_density(self, x: Array) -> Array:
        means, dispersions = self._arrays["means"], self._arrays["dispersions"]
        xp = namespace(means)
        x = stop_gradient(x)[..., None]
        inside = (x >= 0) & xp.isfinite(x) & (x == xp.floor(x))
        some = inside & (x > 0)
        with without_warnings(means):
            count = xp.where(some, x, 1.0) + 0 * stop_gradient(means)
            logs = log_mass(count, stirling_error(count), xp.where(means > 0, means, 1.0), dispersions)
            logs = xp.where(some, xp.where(means > 0, logs, -math.inf), log_none(means, dispersions))
            return xp.where(inside, logs, -math.inf)

    def cdf(self, x: Array) -> Array:
        """P(X <= x | s) = P(Beta(r, x + 1) <= 1 / (1 + α μ))."""
        means, dispersions = self._arrays["means"], self._arrays["dispersions"]
        xp = namespace(means)
        x = xp.floor(stop_gradient(x)[..., None])
        is_regular = (x >= 0) & xp.isfinite(x) & (means > 0)
        above = xp.where(is_regular, x, 0.0) + 1
        tiny = 1e-20 if dtype_name(means.dtype) == "float32" else 1e-30  # as good as 0
        spread = xp.clip(dispersions, min=tiny) + 0 * above
        mean = xp.where(is_regular, means, 1.0)
        odds = 1 + spread * mean
        least = float(xp.finfo(means.dtype).smallest_normal)
        with without_warnings(means):
            share = xp.clip(spread * mean / odds, min=least)
            values = regularised_beta(1 / spread, above, 1 / odds, share, (mean - above) / odds)
        return xp.where(x >= 0, xp.where(is_regular, values, 1.0), 0.0)

    def sample(self, component: Array, rng: Any) -> Array:
        means, dispersions = self._pick("means", component), self._pick("dispersions", component)
        xp, stream = namespace(means), Stream(rng, means)
        varied = dispersions > 0
        shapes = 1 / xp.where(varied, dispersions, 1.0)
        factor = xp.exp(gamma_logs(stream.next(), shapes) - xp.log(shapes))
        return poisson(stream.next(), means * xp.where(varied, factor, 1.0))

    def means(self) -> Array:
        return self._arrays["means"]

    def variances(self) -> Array:
        """means + dispersions means², (N,)."""
        means = self._arrays["means"]
        with without_warnings(means):
            return means * (1 + self._arrays["dispersions"] * means)

    def inner(self, other: Any) -> Array:
        """Σ_x p(x | s) p(x | t), (N, N'), by summation of small counts and quadrature over large ones."""
        self._check_sibling(other)
        left = self._arrays["means"][:, None], self._arrays["dispersions"][:, None]
        right = other._arrays["means"][None, :], other._arrays["dispersions"][None, :]
        with without_warnings(left[0]):
            return product(*left, *right)

    def in_support(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.isnan(x) | ((x >= 0) & ~xp.isinf(x) & (x == xp.floor(x)))

    def _finding(self, value: float) -> str:
        return f"counts are integers from 0, found {value:g}"

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        """Components with means at values of the data, wide enough to overlap their neighbours."""
        cls([1.0], [1.0]).check(observed)
        found, widths = centres_and_widths(observed, num_components, method, limits)
        means = np.maximum(found, 1e-3)
        return cls(means, np.clip((widths / means - 1 / widths) * (widths / means), 0.02, 10.0), **options)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sums of x, of Σ_{j<x} g_j and Σ_{j<x} g_j² with g_j = j / (1 + α j), and of log-densities after jumps."""
        x, weights = observed(x, responsibilities)
        xp, dispersions = namespace(weights), self._arrays["dispersions"]
        different = xp.unique_inverse(x)  # functions are evaluated once for each distinct count
        counts = different.values[:, None] + 0 * dispersions
        bend, square = falling_sums(counts, dispersions)
        known = log_growths(counts, dispersions)
        jumps = {f"jump_{j}": log_growths(counts, other) - known for j, other in enumerate(self._jumps())}
        tables = {"total": counts, "bend": bend, "square": square, **jumps}
        found = {key: take(table, different.inverse_indices) for key, table in tables.items()}
        return {"count": xp.sum(weights, axis=0), **{key: xp.sum(weights * v, axis=0) for key, v in found.items()}}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        """As in `Family`, with an upper bound of Σ g_j², which makes steps shorter, and values that exclude jumps."""
        means, dispersions = self._arrays["means"], self._arrays["dispersions"]
        xp, positive = namespace(means), dispersions > 0
        inverse = 1 / xp.where(positive, dispersions, 1.0)
        bend = means * xp.where(positive, excess_share(dispersions * means) * inverse, 0.5 * means)
        second, third = means * means * (1 + dispersions), means**3 * (1 + dispersions) * (1 + 2 * dispersions)
        square = second / 2 + third / 3  # of Σ j², by factorial moments
        square = xp.where(positive, xp.minimum(square, bend * inverse), square)
        jumps = {f"jump_{j}": weights * RULED_OUT for j in range(len(JUMPS))}
        return {"count": weights, "total": weights * means, "bend": weights * bend, "square": weights * square, **jumps}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        means, dispersions = self._arrays["means"], self._arrays["dispersions"]
        xp = namespace(means)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        row = {key: xp.where(seen, total / count, 0.0) for key, total in statistics.items()}
        mean = row["total"]
        found, gained = raised(dispersions, mean, row["bend"], row["square"])
        least = 0.01 * float(xp.finfo(means.dtype).eps) ** 0.5 * (1 + mean)
        for j, other in enumerate(self._jumps()):
            change = rest_of_log_mass(mean, other) - rest_of_log_mass(mean, dispersions)
            more = row[f"jump_{j}"] - change
            better = (mean > 0) & (more > xp.maximum(gained, least)) & (other <= DISPERSIONS[1])
            found, gained = xp.where(better, other, found), xp.where(better, more, gained)
        return type(self)(xp.where(seen, mean, means), xp.where(seen, found, dispersions), name=self.name)

    def _jumps(self) -> list[Array]:
        """Dispersions whose likelihood is compared with that after a step of the bound."""
        means, dispersions = self._arrays["means"], self._arrays["dispersions"]
        xp = namespace(means)
        near = xp.maximum(dispersions, 0.01 / xp.clip(means, min=0.01))
        return [multiple * near for multiple in JUMPS]
