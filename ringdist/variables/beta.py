"""Beta components, for numbers within bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, gamma_logs, is_concrete, namespace, without_warnings
from ringdist.variables.checks import check_name, check_values, observed, parameters
from ringdist.variables.gamma_functions import (
    HALF_LOG_2PI,
    deviance,
    log_gap,
    log_gap_derivative,
    stirling_error,
)
from ringdist.variables.placing import centres_and_widths
from ringdist.variables.protocol import Family
from ringdist.variables.tails import regularised_beta

NEWTON_STEPS = 8  # of one M-step, each of the largest size below that gains
GAIN = 1e-9  # nats per row of a component, below which steps stop: the remaining error is about its square
LENGTHS = 1.0, 0.3, 0.05
LONGEST = 3.0  # largest change of the log odds of the mean and of log(alpha + beta) in a step


class BetaMixture(Family):
    """A bounded variable with beta components.

    p(x | s) = u^(α − 1) (1 − u)^(β − 1) / (B(α, β) (high − low)), u = (x − low) / (high − low),
    α = alphas[s], β = betas[s], for low < x < high

    The bounds themselves are outside the support, because densities there are 0 or infinite:
    `WithAtoms(BetaMixture(...), [low, high])` gives them probabilities. Samples lie strictly
    between the bounds. An EM step is Newton's method for the concave likelihood of α and β.

    Args:
        alphas: (N,) positive.
        betas: (N,) positive.
        low: lower bound, finite.
        high: upper bound, finite and greater.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a parameter is not positive and finite, or low is not below high.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> shares = rd.BetaMixture([1.0, 2.0], [1.0, 8.0])
        >>> shares.cdf(np.array([0.1, 0.5])).round(4)
        array([[0.1   , 0.2252],
               [0.5   , 0.9805]])
        >>> rd.BetaMixture([3.0], [1.0], low=-1, high=1).means()
        array([0.5])
    """

    positive = ("alphas", "betas")
    stacks = True
    streams = True
    has_variance = True

    def __init__(
        self,
        alphas: Array,
        betas: Array,
        low: float = 0.0,
        high: float = 1.0,
        name: str | None = None,
        *,
        validate: bool = True,
    ):
        arrays = parameters(alphas=alphas, betas=betas)
        low, high = float(low) + 0.0, float(high) + 0.0
        if not (math.isfinite(low) and math.isfinite(high - low) and low < high):
            raise ValueError(f"low must be below high, both finite, found {low:g} and {high:g}")
        if validate:
            for label, array in arrays.items():
                check_values(label, array, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
        self._set(int(arrays["alphas"].shape[0]), check_name(name), arrays, (("low", low), ("high", high)))

    def _set(
        self, num_components: int, name: str | None, arrays: dict[str, Array], options: Iterable[tuple[str, Any]] = ()
    ) -> Self:
        super()._set(num_components, name, arrays, options)
        self.support = self._options["low"], self._options["high"]
        return self

    def log_density(self, x: Array) -> Array:
        xp, inside = namespace(x), self._inside(x)
        u, v = self._shares(xp.where(inside, x, self.typical_value()))
        with without_warnings(x):
            logs = _log_odds_density(u, v, **self._arrays) - xp.log(u) - xp.log(v) - math.log(self._width)
        return xp.where(inside[..., None], logs, -math.inf)

    def cdf(self, x: Array) -> Array:
        xp, inside = namespace(x), self._inside(x)
        u, v = self._shares(xp.where(inside, x, self.typical_value()))
        a, b = self._arrays["alphas"] + 0 * u, self._arrays["betas"] + 0 * u
        with without_warnings(x):
            values = regularised_beta(a, b, u + 0 * a, v + 0 * a, a * v - b * u)
        outside = xp.astype(x >= self.support[1], values.dtype)[..., None]
        return xp.where(inside[..., None], values, outside)

    def sample(self, component: Array, rng: Any) -> Array:
        alphas, betas = self._pick("alphas", component), self._pick("betas", component)
        xp = namespace(alphas)
        both = gamma_logs(rng, xp.stack([alphas, betas]))
        odds = both[0, ...] - both[1, ...]
        with without_warnings(odds):
            share = 1 / (1 + xp.exp(xp.abs(odds)))  # the distance from the nearer bound
        (low, high), (least, most) = self.support, self._ends(alphas)
        x = xp.where(odds < 0, low + self._width * share, high - self._width * share)
        return xp.clip(x, min=least, max=most)

    def means(self) -> Array:
        """low + (high − low) α / (α + β), (N,)."""
        alphas, betas = self._arrays["alphas"], self._arrays["betas"]
        return self.support[0] + self._width * (alphas / (alphas + betas))

    def variances(self) -> Array:
        """(high − low)² α β / ((α + β)² (α + β + 1)), (N,)."""
        alphas, betas = self._arrays["alphas"], self._arrays["betas"]
        total = alphas + betas
        return self._width**2 * ((alphas / total) * (betas / total) / (total + 1))

    def centres(self) -> Array:
        means = self.means()
        least, most = self._ends(means)
        return namespace(means).clip(means, min=least, max=most)

    def inner(self, other: Any) -> Array:
        """B(α + α' − 1, β + β' − 1) / (B(α, β) B(α', β') (high − low)), (N, N'); inf where it diverges."""
        self._check_sibling(other)
        if other.support != self.support:
            raise ValueError(f"inner products need the same bounds, found {self.support} and {other.support}")
        left = {key: array[:, None] for key, array in self._arrays.items()}
        right = {key: array[None, :] for key, array in other._arrays.items()}
        product = {key: left[key] + right[key] - 1 for key in left}
        xp = namespace(*product.values())
        finite = (product["alphas"] > 0) & (product["betas"] > 0)
        a, b = xp.where(finite, product["alphas"], 1.0), xp.where(finite, product["betas"], 1.0)
        u, v = a / (a + b), b / (a + b)  # where all three densities are large, so that no large terms cancel
        log = _log_odds_density(u, v, **left) + _log_odds_density(u, v, **right) - _log_odds_density(u, v, a, b)
        return xp.where(finite, xp.exp(log - xp.log(u) - xp.log(v)) / self._width, math.inf)

    def in_support(self, x: Array) -> Array:
        return namespace(x).isnan(x) | self._inside(x)

    def _finding(self, value: float) -> str:
        low, high = self.support
        hint = f"; rd.WithAtoms(variable, [{value:g}]) gives it a probability" if value in self.support else ""
        return f"values lie strictly between {low:g} and {high:g}, found {value:g}{hint}"

    def typical_value(self) -> float:
        return self.support[0] + 0.5 * self._width

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        """Components with means at values of the data, wide enough to overlap their neighbours."""
        bounds = cls([1.0], [1.0], **options)
        bounds.check(observed)
        found, widths = centres_and_widths(observed - bounds.support[0], num_components, method, limits)
        tiny = float(limits.eps) / 4
        share = np.clip(found / bounds._width, tiny, 1 - tiny)
        total = np.clip(share * (1 - share) / (widths / bounds._width) ** 2 - 1, 4.0, 1 / tiny)
        return cls(share * total, (1 - share) * total, **options)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sums of logit u − logit m and of KL(m ‖ u), with m the component's mean of u and v = 1 − u.

        Both are linear in the sufficient statistics log u and log v, and accurate for narrow
        components too.
        """
        xp = namespace(x)
        x = xp.where(self._inside(x), x, xp.nan)
        _, weights = observed(x, responsibilities)
        u, v = self._shares(xp.where(xp.isnan(x), self.typical_value(), x))
        mean, rest, _ = self._mean()
        gap = mean * v - rest * u
        terms = {
            "tilt": (xp.log(u) - xp.log(v)) - (xp.log(mean) - xp.log(rest)),
            "spread": deviance(mean, u, gap) + deviance(rest, v, -gap),
        }
        return {"count": xp.sum(weights, axis=0), **{key: xp.sum(weights * t, axis=0) for key, t in terms.items()}}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        mean, rest, total = self._mean()
        gaps = log_gap(mean * total), log_gap(rest * total)
        spread = mean * gaps[0] + rest * gaps[1] - log_gap(total)
        return {"count": weights, "tilt": weights * (gaps[1] - gaps[0]), "spread": weights * spread}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        """As in `Family`; α and β of components narrower than `least_std`, or than the rounding of u, are reduced."""
        alphas, betas = self._arrays["alphas"], self._arrays["betas"]
        xp = namespace(alphas)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        row = {key: xp.where(seen, statistics[key] / count, 0.0) for key in ("tilt", "spread")}
        mean, rest, total = _maximised(*self._mean(), row["tilt"], row["spread"])
        least = max(least_std / self._width, 4 * float(xp.finfo(alphas.dtype).eps))
        total = xp.minimum(total, xp.clip(mean * rest / least**2 - 1, min=1e-3))
        arrays = xp.where(seen, mean * total, alphas), xp.where(seen, rest * total, betas)
        return type(self)(*arrays, **self._options, name=self.name)

    @property
    def _width(self) -> float:
        return self.support[1] - self.support[0]

    def _ends(self, array: Array) -> tuple[float, float]:
        """The numbers of the dtype next to the bounds, none of them subnormal."""
        limits = namespace(array).finfo(array.dtype)
        least, spacing = float(limits.smallest_normal), 2 * float(limits.eps)
        low, high = self.support
        return low + max(abs(low) * spacing, least), high - max(abs(high) * spacing, least)

    def _inside(self, x: Array) -> Array:
        return (x > self.support[0]) & (x < self.support[1])

    def _shares(self, x: Array) -> tuple[Array, Array]:
        """u and 1 − u of x inside the bounds, (..., 1), each to full relative precision."""
        xp, (low, high) = namespace(x), self.support
        least = float(xp.finfo(x.dtype).smallest_normal)
        u, v = (x - low) / self._width, (high - x) / self._width
        return xp.clip(u, min=least)[..., None], xp.clip(v, min=least)[..., None]

    def _mean(self) -> tuple[Array, Array, Array]:
        """E u, E (1 − u) and α + β, each (N,)."""
        alphas, betas = self._arrays["alphas"], self._arrays["betas"]
        total = alphas + betas
        return alphas / total, betas / total, total


def _log_odds_density(u: Array, v: Array, alphas: Array, betas: Array) -> Array:
    """log(u^α v^β / B(α, β)), as a sum of terms that are small near the mode."""
    xp, total = namespace(alphas), alphas + betas
    gap = alphas * v - betas * u
    distance = deviance(alphas + 0 * u, total * u, gap) + deviance(betas + 0 * u, total * v, -gap)
    errors = stirling_error(total) - stirling_error(alphas) - stirling_error(betas)
    return 0.5 * (xp.log(alphas) + (xp.log(betas) - xp.log(total))) - HALF_LOG_2PI + errors - distance


def _maximised(mean: Array, rest: Array, total: Array, tilt: Array, spread: Array) -> tuple[Array, Array, Array]:
    """A mean, 1 − mean and α + β of higher likelihood, from statistics per row about the current mean.

    The log-likelihood per row, as a function of the mean m and of n = α + β, with m_0 the current mean,

        n ((m − m_0) tilt − spread − KL(m ‖ m_0)) + log(n m (1 − m)) / 2 + δ(n) − δ(n m) − δ(n (1 − m))

    is maximised in the log odds of m and log n by Newton's method. The Hessian is that in α and β, in which the
    likelihood is concave.
    """
    xp = namespace(mean)
    start_mean, start_rest = mean, rest

    def value(m: Array, r: Array, n: Array) -> Array:
        change = m * start_rest - r * start_mean  # m − m_0
        distance = deviance(m, start_mean, change) + deviance(r, start_rest, -change)
        errors = stirling_error(n) - stirling_error(n * m) - stirling_error(n * r)
        return n * (change * tilt - spread - distance) + 0.5 * (xp.log(n) + xp.log(m) + xp.log(r)) + errors

    odds, log_total = xp.log(mean) - xp.log(rest), xp.log(total)
    start_odds, best = odds, value(mean, rest, total)
    for _ in range(NEWTON_STEPS):
        a, b, n = mean * total, rest * total, total
        change = mean * start_rest - rest * start_mean
        distance = deviance(mean, start_mean, change) + deviance(rest, start_rest, -change)
        weight = n * mean * rest
        by_odds = weight * (start_odds - odds + tilt + log_gap(a) - log_gap(b))
        by_total = n * (change * tilt - spread - distance) + a * log_gap(a) + b * log_gap(b) - n * log_gap(n)
        derivatives = log_gap_derivative(a), log_gap_derivative(b)
        first = weight * weight * (1 / a + 1 / b - derivatives[0] - derivatives[1])
        second = n * n * log_gap_derivative(n) - a * a * derivatives[0] - b * b * derivatives[1]
        cross = weight * (b * derivatives[1] - a * derivatives[0])
        determinant = xp.clip(first * second - cross * cross, min=1e-6 * first * second)
        newton = second * by_odds - cross * by_total, first * by_total - cross * by_odds
        step = [xp.clip(each / determinant, min=-LONGEST, max=LONGEST) for each in newton]
        before = best
        for length in LENGTHS:
            new_odds = xp.clip(odds + length * step[0], min=-40.0, max=40.0)
            new_log_total = xp.clip(log_total + length * step[1], min=-20.0, max=80.0)
            new = 1 / (1 + xp.exp(-new_odds)), 1 / (1 + xp.exp(new_odds)), xp.exp(new_log_total)
            gained = value(*new)
            better = gained > best
            best = xp.where(better, gained, best)
            odds, log_total = xp.where(better, new_odds, odds), xp.where(better, new_log_total, log_total)
            mean, rest, total = (xp.where(better, *pair) for pair in zip(new, (mean, rest, total), strict=True))
            if is_concrete(better) and bool(xp.all(better)):
                break
        if is_concrete(best) and not bool(xp.any(best > before + GAIN)):
            break
    return mean, rest, total
