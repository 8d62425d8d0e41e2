"""Counts with Poisson components."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ringdist._backend import Array, namespace, special
from ringdist._random import poisson
from ringdist.variables.checks import check_name, check_values, observed, parameter
from ringdist.variables.protocol import Family


class PoissonMixture(Family):
    """A count with Poisson components.

    p(x | s) = rates[s]^x exp(-rates[s]) / x!

    Args:
        rates: (N,) expected counts, finite and not negative.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if a rate is negative or not finite.

    Example:
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
        x = x[..., None]
        # A rate of 0 puts all its mass on the count 0; xlogy(0, 0) = 0.
        return special("xlogy", x, rates) - rates - special("gammaln", x + 1)

    def cdf(self, x: Array) -> Array:
        xp = namespace(x)
        rates = self._arrays["rates"]
        x = x[..., None] + 0 * rates
        return xp.where(x >= 0, special("gammaincc", xp.floor(xp.where(x >= 0, x, 0.0)) + 1, rates + 0 * x), 0.0)

    def sample(self, component: Array, rng: Any) -> Array:
        return poisson(rng, self._pick("rates", component))

    def means(self) -> Array:
        return self._arrays["rates"]

    def variances(self) -> Array:
        return self._arrays["rates"]

    def inner(self, other: Any) -> Array:
        self._check_sibling(other)
        xp = namespace(self._arrays["rates"], other._arrays["rates"])
        a, b = xp.sqrt(self._arrays["rates"])[:, None], xp.sqrt(other._arrays["rates"])[None, :]
        return xp.exp(-((a - b) ** 2)) * special("i0e", 2 * a * b)  # Σ_x Poisson(x; a²) Poisson(x; b²)

    def in_support(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.isnan(x) | ((x >= 0) & ~xp.isinf(x) & (x == xp.floor(x)))

    def _finding(self, value: float) -> str:
        return f"counts are whole numbers from 0, found {value:g}"

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
