"""Gaussian components."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    dtype_name,
    like,
    namespace,
    normal,
    reciprocal,
    special,
    uniform,
    without_warnings,
)
from ringdist.variables.checks import check_name, check_values, observed, parameters
from ringdist.variables.gaussian_functions import HALF_LOG_2PI, draw_within, log_mass, standardised
from ringdist.variables.placing import centres_and_widths
from ringdist.variables.protocol import Family


class GaussianMixture(Family):
    """A real variable with Gaussian components.

    p(x | s) = N(x; means[s], stds[s]²)

    Values may be anywhere in the range of the dtype, because only `variances` squares a standard
    deviation. A log-density beyond the range is −inf and has no gradient.

    Args:
        means: (N,) means, finite, in the units of the data.
        stds: (N,) standard deviations, positive, with a reciprocal in the range of the dtype: 1.2e-38
            to 4.2e37 in float32, 2.3e-308 to 2.2e307 in float64.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a mean is not finite or a standard deviation is out of range.

    Examples:
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
        arrays = parameters(means=means, stds=stds)
        means, stds = arrays["means"], arrays["stds"]
        if validate:
            check_values("means", means, np.isfinite, "finite")
            check_values("stds", stds, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
            least, most = std_range(stds)
            check_values("stds", stds, lambda v: (v >= least) & (v <= most), f"between {least:.3g} and {most:.3g}")
        self._set(int(means.shape[0]), check_name(name), arrays)

    def log_density(self, x: Array) -> Array:
        means, stds = self._arrays["means"], self._arrays["stds"]
        if backend_name(means) == "torch":
            from ringdist.variables import gaussian_torch

            if gaussian_torch.applies(x, means, stds):
                return gaussian_torch.log_density(x, means, stds)
        with without_warnings(means):
            z = _standardised(x, means, stds)
            return -0.5 * z * z - (namespace(stds).log(stds) + HALF_LOG_2PI)

    def cdf(self, x: Array) -> Array:
        with without_warnings(x):
            # Not ndtr, which PyTorch rounds to 0 below 6e-8 (float32) or 1e-16 (float64).
            z = _standardised(x, self._arrays["means"], self._arrays["stds"])
            return 0.5 * special("erfc", -math.sqrt(0.5) * z)

    def sample(self, component: Array, rng: Any) -> Array:
        means, stds = self._pick("means", component), self._pick("stds", component)
        return means + stds * normal(rng, means.shape, means)

    def means(self) -> Array:
        return self._arrays["means"]

    def variances(self) -> Array:
        """stds², (N,): inf or 0 in float32 for standard deviations above 1.8e19 or below 1e-23."""
        stds = self._arrays["stds"]
        with without_warnings(stds):
            return stds * stds

    def standard_deviations(self) -> Array:
        return self._arrays["stds"]

    def inner(self, other: Any) -> Array:
        """N(means[s]; other.means[t], stds[s]² + other.stds[t]²), (N, N')."""
        self._check_sibling(other)
        stds, others = self._arrays["stds"], other._arrays["stds"]
        xp = namespace(stds, others)
        with without_warnings(stds):
            std = _root_of_squares(stds[:, None], others[None, :])
            z = _standardised(self._arrays["means"], other._arrays["means"], std)
            return xp.exp(-0.5 * z * z) * (reciprocal(std) / math.sqrt(2 * math.pi))

    def log_probability(self, low: float, high: float) -> Array:
        with without_warnings(self._arrays["means"]):
            return log_mass(*self._wide(), low, high)

    def cdf_within(self, x: Array, low: float, high: float) -> Array:
        means, stds = self._wide()
        xp = namespace(means)
        with without_warnings(means):
            log_total, part = log_mass(means, stds, low, high), log_mass(means, stds, low, like(x, means))
            has_mass = log_total > -math.inf
            return xp.where(has_mass, xp.exp(xp.where(has_mass, part, 0.0) - xp.where(has_mass, log_total, 0.0)), 0.0)

    def sample_within(self, component: Array, low: float, high: float, rng: Any) -> Array:
        means, stds = (astype(self._pick(name, component), accumulator(a)) for name, a in self._arrays.items())
        end = float(namespace(means).finfo(means.dtype).max)
        with without_warnings(means):
            drawn = draw_within(means, stds, low, high, uniform(rng, means.shape, means))
        return namespace(means).clip(drawn, min=max(low, -end), max=min(high, end))

    def log_density_beside(self, points: Array, offsets: Array) -> Array:
        """−t (z + t / 2) with the point's z-score z and t = offset / std, which does not cancel."""
        means, stds = self._wide()
        with without_warnings(means):
            t = offsets * reciprocal(stds)
            return -t * (standardised(points, means, stds) + 0.5 * t)

    def log_inner_within(self, other: Any, low: float, high: float) -> Array:
        """log N(m; m', s² + s'²) plus the log mass of the interval under the product, which is a Gaussian."""
        self._check_sibling(other)
        (m, s), (n, t) = self._wide(), other._wide()
        xp = namespace(m, n)
        m, s, n, t = xp.broadcast_arrays(m[:, None], s[:, None], n[None, :], t[None, :])
        with without_warnings(m):
            root = _root_of_squares(s, t)
            z, share = standardised(m, n, root), s * reciprocal(root)
            logs = -0.5 * z * z - xp.log(root) - HALF_LOG_2PI
            return logs + log_mass(m + (n - m) * share * share, t * share, low, high)

    def _wide(self) -> tuple[Array, Array]:
        """Means and standard deviations in the accumulator's dtype."""
        means, stds = self._arrays["means"], self._arrays["stds"]
        return astype(means, accumulator(means)), astype(stds, accumulator(stds))

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        return cls(*centres_and_widths(observed, num_components, method, limits), **options)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sums of responsibilities, of responsibility × offset from the mean, and of responsibility × offset².

        The unit of an offset is stds[s] times a large power of two: its square stays in range.
        """
        x, weights = observed(x, responsibilities)
        xp = namespace(weights)
        with without_warnings(weights):
            # About the current mean: no cancellation in the variance.
            offset = _standardised(x, self._arrays["means"], self._arrays["stds"]) / _unit(weights)
        return {
            "count": xp.sum(weights, axis=0),
            "offset": xp.sum(weights * offset, axis=0),
            "square": xp.sum(weights * offset * offset, axis=0),
        }

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {"count": weights, "offset": 0 * weights, "square": weights / _unit(weights) ** 2}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        """As in `Family`.

        A component whose values are equal up to rounding gets the least standard deviation, or
        keeps its own if that is 0.
        """
        means, stds = self._arrays["means"], self._arrays["stds"]
        xp = namespace(means)
        eps, (least, most) = float(xp.finfo(stds.dtype).eps), std_range(stds)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        shift, square = xp.where(seen, statistics["offset"] / count, 0.0), statistics["square"] / count
        variance = square - shift * shift
        positive = seen & (variance > 16 * eps * square)  # below, the difference is rounding error
        std = xp.sqrt(xp.where(positive, variance, _unit(stds) ** -2)) * _unit(stds) * stds
        means = means + (shift * _unit(stds)) * stds
        positive = positive & (std > 2 * eps * xp.abs(means))
        kept = xp.where(seen | (stds < least_std), least_std, stds) if least_std else stds
        std = xp.clip(xp.where(positive, std, kept), min=max(least, least_std), max=most)
        return type(self)(means, std, name=self.name)


def _standardised(x: Array, means: Array, stds: Array) -> Array:
    """The z-scores (x − mean) / std under every component, (..., N)."""
    x = x if namespace(means).isdtype(x.dtype, "real floating") else astype(x, means.dtype)
    return standardised(x[..., None], means, stds)


def _root_of_squares(a: Array, b: Array) -> Array:
    """sqrt(a² + b²) for positive numbers; the gradient of JAX's own hypot overflows."""
    xp = namespace(a, b)
    a, b = xp.broadcast_arrays(a, b)
    large = xp.maximum(a, b)
    ratio = xp.minimum(a, b) * reciprocal(large)
    return large * xp.sqrt(1 + ratio * ratio)


def _unit(array: Array) -> float:
    """A power of two near the fourth root of the largest number of the dtype."""
    return 2.0**32 if dtype_name(array.dtype) == "float32" else 2.0**256


def std_range(stds: Array) -> tuple[float, float]:
    """The least and the greatest standard deviation, for which also 1 / sqrt(a² + b²) stays in range."""
    least = float(namespace(stds).finfo(stds.dtype).smallest_normal)
    return least, 0.5 / least
