"""Poisson components, for counts."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    backend_name,
    dtype_name,
    namespace,
    poisson,
    special,
    stop_gradient,
    without_warnings,
)
from ringdist.variables.checks import check_name, check_values, observed, parameter
from ringdist.variables.placing import centres
from ringdist.variables.poisson_functions import cdf_of_large_counts, log_mass
from ringdist.variables.protocol import Family

LARGE_COUNT = {
    True: 20.0,
    False: 200.0,
}  # above which the expansion of the cdf is accurate in float32, float64
TINY = 1e-4  # product of two rates below which the inner product is a power series


class PoissonMixture(Family):
    """A count with Poisson components.

    p(x | s) = rates[s]^x exp(-rates[s]) / x!

    Densities and distribution functions are accurate for counts and rates of any size. Gradients flow
    to rates, not to counts.

    Args:
        rates: (N,) expected counts, finite and not negative.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if a rate is negative or not finite.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> np.exp(rd.PoissonMixture([0.0, 1.0]).log_density(np.array([0.0, 1.0])))
        array([[1.        , 0.36787944],
               [0.        , 0.36787944]])
    """

    integer = True
    support = (0.0, math.inf)
    positive = ("rates",)
    stacks = True
    streams = True

    def __init__(self, rates: Array, name: str | None = None, *, validate: bool = True):
        rates = parameter("rates", rates)
        if validate:
            check_values("rates", rates, lambda v: np.isfinite(v) & (v >= 0), "not negative and finite")
        self._set(int(rates.shape[0]), check_name(name), {"rates": rates})

    def log_density(self, x: Array) -> Array:
        rates = self._arrays["rates"]
        xp = namespace(rates)
        x = stop_gradient(x)[..., None]
        inside = (x >= 0) & xp.isfinite(x) & (x == xp.floor(x))
        fixed, positive = stop_gradient(rates), inside & (x > 0)
        with without_warnings(rates):
            logs = log_mass(xp.where(positive, x, 1.0), xp.where(fixed > 0, fixed, 1.0))
            logs = xp.where(positive, xp.where(fixed > 0, logs, -math.inf), -fixed)
            logs = xp.where(inside, logs, -math.inf)
            return logs + _zero_with_gradient(xp.where(inside, x, 0.0), rates)

    def cdf(self, x: Array) -> Array:
        rates = self._arrays["rates"]
        xp = namespace(rates)
        limit = LARGE_COUNT[dtype_name(rates.dtype) == "float32"]
        x = xp.floor(stop_gradient(x)[..., None]) + 0 * stop_gradient(rates)
        finite, positive = xp.isfinite(x), rates + 0 * x > 0
        large = finite & (x >= limit)
        count = xp.where((x >= 0) & finite & ~large, x, 0.0)
        with without_warnings(rates):
            small = special("gammaincc", count + 1, xp.where(positive & ~large, rates, 1.0))
            big = cdf_of_large_counts(xp.where(large, x, limit), xp.where(positive & large, rates, limit))
        at_zero = 1 - xp.where((x == 0) & ~positive, rates, 0.0)  # 1, with the gradient of exp(−rate)
        values = xp.where(positive & (x < math.inf), xp.where(large, big, small), at_zero)
        return xp.where(x >= 0, values, 0.0)

    def sample(self, component: Array, rng: Any) -> Array:
        return poisson(rng, self._pick("rates", component))

    def means(self) -> Array:
        return self._arrays["rates"]

    def variances(self) -> Array:
        return self._arrays["rates"]

    def inner(self, other: Any) -> Array:
        """Σ_x p(x | a) p(x | b) = exp(−(√a − √b)²) i0e(2 √(a b))."""
        self._check_sibling(other)
        a, b = self._arrays["rates"][:, None], other._arrays["rates"][None, :]
        xp = namespace(a, b)
        a, b = a + 0 * b, b + 0 * a
        tiny = (a < TINY) | (b < TINY) | (a * b < TINY)  # where the square roots have no gradient
        root_a, root_b = xp.sqrt(xp.where(tiny, 1.0, a)), xp.sqrt(xp.where(tiny, 1.0, b))
        gap = xp.where(tiny, 0.0, a - b) / (root_a + root_b)
        rest = xp.exp(-gap * gap) * special("i0e", 2 * root_a * root_b)
        product = xp.where(tiny, a * b, 0.0)
        series = 1 + product * (1 + product * (1 / 4 + product / 36))
        return xp.where(tiny, xp.exp(-xp.where(tiny, a + b, 0.0)) * series, rest)

    def in_support(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.isnan(x) | ((x >= 0) & ~xp.isinf(x) & (x == xp.floor(x)))

    def _finding(self, value: float) -> str:
        return f"counts are integers from 0, found {value:g}"

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        found = cls(np.maximum(centres(observed, num_components, method), 1e-3), **options)
        found.check(observed)
        return found

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        x, weights = observed(x, responsibilities)
        xp = namespace(weights)
        return {"count": xp.sum(weights, axis=0), "total": xp.sum(weights * x[:, None], axis=0)}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {"count": weights, "total": weights * self._arrays["rates"]}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        rates = self._arrays["rates"]
        xp = namespace(rates)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        return type(self)(xp.where(seen, statistics["total"] / count, rates), name=self.name)


def _zero_with_gradient(x: Array, rates: Array) -> Array:
    """0, with the gradient of x log λ − λ, which is that of log p(x | λ)."""
    if backend_name(rates) == "numpy":
        return 0.0
    xp = namespace(rates)
    moving = x * xp.log(xp.where(rates > 0, rates, 1.0)) - rates
    return xp.where(xp.isfinite(moving), moving - stop_gradient(moving), 0.0)
