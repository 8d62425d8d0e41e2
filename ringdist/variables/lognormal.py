"""Log-normal components, for positive numbers whose logarithm is Gaussian."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ringdist.backend import Array, namespace, without_warnings
from ringdist.variables.checks import check_name
from ringdist.variables.gaussian import GaussianMixture
from ringdist.variables.placing import centres_and_widths
from ringdist.variables.protocol import Family


class LogNormalMixture(Family):
    """A positive variable with log-normal components.

    p(x | s) = N(log x; means[s], stds[s]²) / x for x > 0

    Zeros have no density: `WithAtoms(LogNormalMixture(...), [0.0])` gives them a probability.

    Args:
        means: (N,) means of log x, finite.
        stds: (N,) standard deviations of log x, positive, in the range of `GaussianMixture`.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a mean is not finite or a standard deviation is out of range.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> incomes = rd.LogNormalMixture([0.0, 3.0], [1.0, 0.5])
        >>> incomes.cdf(np.array([1.0, np.exp(3.0)])).round(3)
        array([[0.5  , 0.   ],
               [0.999, 0.5  ]])
        >>> incomes.means().round(3)  # exp(mean + std² / 2)
        array([ 1.649, 22.76 ])
    """

    support = (0.0, float("inf"))
    positive = ("stds",)
    stacks = True
    streams = True
    has_variance = True

    def __init__(self, means: Array, stds: Array, name: str | None = None, *, validate: bool = True):
        gaussian = GaussianMixture(means, stds, validate=validate)
        self._set(gaussian.num_components, check_name(name), gaussian.arrays())

    @property
    def _gaussian(self) -> GaussianMixture:
        """The distribution of log x."""
        return GaussianMixture.__new__(GaussianMixture)._set(self.num_components, None, self._arrays)

    def log_density(self, x: Array) -> Array:
        positive, logs = _logs(x)
        xp = namespace(logs)
        return xp.where(positive[..., None], self._gaussian.log_density(logs) - logs[..., None], -xp.inf)

    def cdf(self, x: Array) -> Array:
        xp = namespace(x)
        logs = xp.log(xp.where(x > 0, x, 1.0))
        return xp.where((x > 0)[..., None], self._gaussian.cdf(logs), 0.0)

    def sample(self, component: Array, rng: Any) -> Array:
        return _exp(self._gaussian.sample(component, rng))

    def means(self) -> Array:
        """exp(means + stds² / 2), (N,); inf beyond the range of the dtype."""
        means, stds = self._arrays["means"], self._arrays["stds"]
        with without_warnings(means):
            return namespace(means).exp(means + 0.5 * stds * stds)

    def variances(self) -> Array:
        """(exp(stds²) − 1) exp(2 means + stds²), (N,)."""
        means, stds = self._arrays["means"], self._arrays["stds"]
        xp = namespace(means)
        with without_warnings(means):
            return xp.expm1(stds * stds) * xp.exp(2 * means + stds * stds)

    def standard_deviations(self) -> Array:
        means, stds = self._arrays["means"], self._arrays["stds"]
        xp = namespace(means)
        with without_warnings(means):
            square = stds * stds
            log_growth = xp.where(square > 30, square, xp.log(xp.expm1(xp.clip(square, max=30.0))))
            return _exp(means + 0.5 * (square + log_growth))

    def inner(self, other: Any) -> Array:
        """∫ p(x | s) q(x | t) dx, the inner product of the Gaussians times E[1 / x] under their product, (N, N')."""
        self._check_sibling(other)
        mean, std = self._arrays["means"][:, None], self._arrays["stds"][:, None]
        other_mean, other_std = other._arrays["means"][None, :], other._arrays["stds"][None, :]
        share = 1 / (1 + (std / other_std) ** 2)  # weight of the other's variance
        product_mean = share * mean + (1 - share) * other_mean
        product_variance = share * std * std
        gaussian = self._gaussian.inner(other._gaussian)
        return gaussian * namespace(mean, other_mean).exp(0.5 * product_variance - product_mean)

    def in_support(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.isnan(x) | ((x > 0) & ~xp.isinf(x))

    def _finding(self, value: float) -> str:
        hint = "; rd.WithAtoms(variable, [0.0]) gives zeros a probability" if value == 0 else ""
        return f"log-normal values are positive and finite, found {value:g}{hint}"

    def typical_value(self) -> float:
        return 1.0

    def centres(self) -> Array:
        return _exp(self._arrays["means"])

    def scales(self) -> Array:
        stds = self._arrays["stds"]
        return _exp(self._arrays["means"]) * namespace(stds).clip(stds, max=1.0)

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        cls([0.0], [1.0]).check(observed)
        return cls(*centres_and_widths(np.log(observed), num_components, method, limits), **options)

    def floored(self, x: np.ndarray) -> np.ndarray:
        """log x, because `least_std` is a standard deviation of logarithms."""
        return np.log(np.where(x > 0, x, np.nan))

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        xp = namespace(x)
        return self._gaussian.statistics(xp.where(x > 0, _logs(x)[1], xp.nan), responsibilities)

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return self._gaussian.expected_statistics(weights)

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        """As in `GaussianMixture`; a logarithm is only as accurate as the rounding of x allows."""
        eps = float(namespace(self._arrays["stds"]).finfo(self._arrays["stds"].dtype).eps)
        gaussian = self._gaussian.from_statistics(statistics, max(least_std, 4 * eps))
        return type(self)(**gaussian.arrays(), name=self.name)


def _logs(x: Array) -> tuple[Array, Array]:
    """Whether x is positive and finite, and log x, or 0 if it is not."""
    xp = namespace(x)
    inside = (x > 0) & xp.isfinite(x)
    return inside, xp.log(xp.where(inside, x, 1.0))


def _exp(logs: Array) -> Array:
    """exp(logs), clipped to the positive numbers of the dtype."""
    xp = namespace(logs)
    limits = xp.finfo(logs.dtype)
    with without_warnings(logs):
        return xp.clip(xp.exp(logs), min=float(limits.smallest_normal), max=float(limits.max))
