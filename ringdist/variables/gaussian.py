"""Gaussian components."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ringdist._backend import Array, namespace, special
from ringdist._random import normal
from ringdist.variables.checks import check_name, check_values, observed, parameter
from ringdist.variables.protocol import Family


class GaussianMixture(Family):
    """A real variable with Gaussian components.

    p(x | s) = N(x; means[s], stds[s]²)

    Args:
        means: (N,) means, finite, in the units of the data.
        stds: (N,) standard deviations, finite and positive.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a mean is not finite or a standard deviation is not positive and finite.

    Example:
        >>> import numpy as np, ringdist as rd
        >>> rd.GaussianMixture([0.0, 5.0], [1.0, 2.0]).cdf(np.array([0.0, 5.0]))
        array([[0.5       , 0.00620967],
               [0.99999971, 0.5       ]])
    """

    positive = ("stds",)
    stacks = True
    streams = True
    has_variance = True

    def __init__(self, means: Array, stds: Array, name: str | None = None, *, validate: bool = True):
        means, stds = parameter("means", means), parameter("stds", stds)
        namespace(means, stds)
        if means.shape != stds.shape:
            raise ValueError(f"means and stds must have one shape, found {tuple(means.shape)} and {tuple(stds.shape)}")
        if validate:
            check_values("means", means, np.isfinite, "finite")
            check_values("stds", stds, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
        self._set(int(means.shape[0]), check_name(name), {"means": means, "stds": stds})

    def log_density(self, x: Array) -> Array:
        means, stds = self._arrays["means"], self._arrays["stds"]
        xp = namespace(means)
        standardised = (x[..., None] - means) / stds
        return -0.5 * standardised * standardised - (xp.log(stds) + 0.5 * math.log(2 * math.pi))

    def cdf(self, x: Array) -> Array:
        return special("ndtr", (x[..., None] - self._arrays["means"]) / self._arrays["stds"])

    def sample(self, component: Array, rng: Any) -> Array:
        means, stds = self._pick("means", component), self._pick("stds", component)
        return means + stds * normal(rng, means.shape, means)

    def means(self) -> Array:
        return self._arrays["means"]

    def variances(self) -> Array:
        return self._arrays["stds"] ** 2

    def standard_deviations(self) -> Array:
        return self._arrays["stds"]

    def inner(self, other: Any) -> Array:
        self._check_sibling(other)
        xp = namespace(self._arrays["means"], other._arrays["means"])
        variance = self.variances()[:, None] + other.variances()[None, :]
        gap = self.means()[:, None] - other.means()[None, :]
        return xp.exp(-0.5 * gap**2 / variance) / xp.sqrt(2 * math.pi * variance)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        x, weights = observed(x, responsibilities)
        xp = namespace(weights)
        offset = x[:, None] - self._arrays["means"]  # about the current mean: no cancellation in the variance
        return {
            "count": xp.sum(weights, axis=0),
            "offset": xp.sum(weights * offset, axis=0),
            "square": xp.sum(weights * offset**2, axis=0),
        }

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {"count": weights, "offset": 0 * weights, "square": weights * self.variances()}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        means, stds = self._arrays["means"], self._arrays["stds"]
        xp = namespace(means)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        shift = xp.where(seen, statistics["offset"] / count, 0.0)
        variance = statistics["square"] / count - shift**2
        positive = seen & (variance > 0)
        if least_std:  # with a floor, components that saw one value get it
            stds = xp.where(seen | (stds < least_std), least_std, stds)
        deviation = xp.where(positive, xp.sqrt(xp.where(positive, variance, 1.0)), stds)
        deviation = xp.where(deviation < least_std, least_std, deviation)
        return type(self)(means + shift, deviation, name=self.name)
