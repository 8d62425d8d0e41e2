"""Families of one-dimensional component densities, and the protocol that they follow.

A variable with `N` components turns a value into `N` numbers, log p(x | s). Families know no rings, and rings know
families only through `Variable`, so that a new family is one class.

Built-in families broadcast: `stack` lays several variables of one family on a leading axis, so that a ring of a hundred
columns evaluates them in one operation. A family without `stack` is called column by column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    counted,
    frozen,
    is_array,
    is_concrete,
    like,
    namespace,
    normal,
    poisson,
    special,
    stack,
    take,
    to_numpy,
)


@runtime_checkable
class Variable(Protocol):
    """What a ring asks of a variable: `num_components` densities p(x | s) of one real number or whole number x.

    `x` has any shape `(...)`; `component` holds whole numbers 0..N-1. A family is rebuilt from
    `type(variable)(**variable.arrays(), name=variable.name)`, or from `num_components` where `arrays()` is empty; this
    is how rings move between backends and how `rd.load(path, families=(Family,))` reads a family back.

    Optional: the attributes `integer = True` for whole numbers from 0 and `positive`, the names of parameters that
    gradient descent must keep positive; `stack`, `in_support`, `statistics`, `expected_statistics` and
    `from_statistics` as in the built-in families, for speed and for learning from streamed data; and `has_variance`,
    true where `from_statistics` takes a least variance too.
    """

    name: str | None
    num_components: int

    def log_density(self, x: Array) -> Array:
        """log p(x | s), shape (..., N)."""

    def cdf(self, x: Array) -> Array:
        """P(X <= x | s), shape (..., N)."""

    def sample(self, component: Array, rng: Any) -> Array:
        """One draw from p(x | s) for each entry of `component`; `rng` is the backend's own generator or key."""

    def means(self) -> Array:
        """E[X | s], shape (N,)."""

    def variances(self) -> Array:
        """Var[X | s], shape (N,)."""

    def inner(self, other: Any) -> Array:
        """Σ or ∫ p(x | s) q(x | t) over x, shape (N, N'), for another variable of the same family."""

    def update(self, x: Array, responsibilities: Array) -> Any:
        """The variable of highest expected log-likelihood given x (n,) and responsibilities (n, N); NaN is ignored."""

    def arrays(self) -> dict[str, Array]:
        """The parameters by the name of the constructor's argument, each of shape (N,)."""

    def check(self, x: Array) -> None:
        """Raise `ValueError` naming the rule and the finding unless every x is in the support."""


def rebuild(family: Any, num_components: int, name: str | None, arrays: dict[str, Array]) -> Any:
    """A variable of `family` with the given parameters, the inverse of `arrays()`; built-in families check nothing."""
    if issubclass(family, _Stackable):
        variable = family.__new__(family)
        variable.num_components, variable.name, variable._arrays = num_components, name, dict(arrays)
        return variable
    return family(**arrays, name=name) if arrays else family(num_components, name=name)


class _Stackable:
    """Parameters on the last axis; `stack` puts variables on a leading axis, broadcast against (variables, rows)."""

    integer = False
    positive: tuple[str, ...] = ()  # parameters that gradient descent has to keep positive
    num_components: int
    name: str | None
    _arrays: dict[str, Array]

    @classmethod
    def stack(cls, variables: Sequence[Self]) -> Self:
        """One object for several variables of equal N: its methods take x of shape (len(variables), rows)."""
        stacked = cls.__new__(cls)
        stacked.num_components = variables[0].num_components
        stacked.name = None
        stacked._arrays = {}
        for key in variables[0]._arrays:
            stacked._arrays[key] = stack([v._arrays[key] for v in variables])[:, None, :]
        return stacked

    def arrays(self) -> dict[str, Array]:
        return dict(self._arrays)

    def _pick(self, parameter: str, component: Array) -> Array:
        """The parameter of each component drawn, of the shape of `component`."""
        array = self._arrays[parameter]
        xp = namespace(array)
        if array.ndim == 1:
            return xp.reshape(take(array, xp.reshape(component, (-1,)), axis=0), component.shape)
        return xp.take_along_axis(array[:, 0, :], component, axis=-1)

    def _check_sibling(self, other: Any) -> None:
        if type(other) is not type(self):
            raise ValueError(
                f"inner products need variables of one family, found {type(self).__name__} and {type(other).__name__}"
            )

    def in_support(self, x: Array) -> Array:
        """Which entries of x (NaN counts as inside) have a density, of the shape of x."""
        raise NotImplementedError

    def check(self, x: Array) -> None:
        xp = namespace(x)
        outside = x[~self.in_support(x)]
        if outside.shape[0] > 0:
            raise ValueError(self._finding(float(xp.reshape(outside, (-1,))[0])))

    def _finding(self, value: float) -> str:
        return f"values must be finite, found {value:g}"

    def update(self, x: Array, responsibilities: Array) -> Self:
        return self.from_statistics(self.statistics(x, responsibilities))

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Expected sufficient statistics, sums over rows of x (n,) with responsibilities (n, N); NaN is ignored."""
        raise NotImplementedError

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        """What `statistics` would be on average for data from this variable, with component probabilities (N,)."""
        raise NotImplementedError

    def from_statistics(self, statistics: dict[str, Array]) -> Self:
        """The variable that maximises the expected log-likelihood; components that saw no data keep their values."""
        raise NotImplementedError

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"{type(self).__name__}({self.num_components}{name})"


class Categorical(_Stackable):
    """A variable whose components are its values 0..N-1: p(x | s) = 1 if x = s else 0.

    Args:
        num_categories: number of values N, at least 1.
        name: the column's name, or None.
    """

    integer = True

    def __init__(self, num_categories: int, name: str | None = None):
        if isinstance(num_categories, bool) or not isinstance(num_categories, int | np.integer):
            raise TypeError(f"num_categories must be a whole number, found {num_categories!r}")
        if num_categories < 1:
            raise ValueError(f"num_categories must be at least 1, found {num_categories}")
        self.num_components = int(num_categories)
        self.name = check_name(name)
        self._arrays = {}

    def log_density(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.where(x[..., None] == self._values(x), 0.0, like(-np.inf, x))

    def cdf(self, x: Array) -> Array:
        return astype(self._values(x) <= x[..., None], x.dtype)

    def sample(self, component: Array, rng: Any) -> Array:
        return component

    def means(self) -> Array:
        return np.arange(self.num_components, dtype=np.float64)

    def variances(self) -> Array:
        return np.zeros(self.num_components)

    def inner(self, other: Any) -> Array:
        self._check_sibling(other)
        return np.eye(self.num_components, other.num_components)

    def in_support(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.isnan(x) | ((x >= 0) & (x < self.num_components) & (x == xp.floor(x)))

    def _finding(self, value: float) -> str:
        if value != value or math.isinf(value) or value == math.floor(value):
            return f"category {value:g} is outside 0..{self.num_components - 1}"
        return f"categories are whole numbers 0..{self.num_components - 1}, found {value:g}"

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        return {}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {}

    def from_statistics(self, statistics: dict[str, Array]) -> Self:
        return self

    def _values(self, x: Array) -> Array:
        return counted(self.num_components, x)


class GaussianMixture(_Stackable):
    """A real variable with Gaussian components: p(x | s) = N(x; means[s], stds[s]²).

    Args:
        means: (N,) means, finite, in the units of the data.
        stds: (N,) standard deviations, finite and positive.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a mean is not finite or a deviation is not positive and finite.
    """

    positive = ("stds",)
    has_variance = True

    def __init__(self, means: Array, stds: Array, name: str | None = None, *, validate: bool = True):
        means, stds = _parameter("means", means), _parameter("stds", stds)
        namespace(means, stds)
        if means.shape != stds.shape:
            raise ValueError(f"means and stds must have one shape, found {_shape(means)} and {_shape(stds)}")
        if validate:
            _check_values("means", means, np.isfinite, "finite")
            _check_values("stds", stds, lambda v: np.isfinite(v) & (v > 0), "positive and finite")
        self.num_components = int(means.shape[0])
        self.name = check_name(name)
        self._arrays = {"means": means, "stds": stds}

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

    def inner(self, other: Any) -> Array:
        self._check_sibling(other)
        xp = namespace(self._arrays["means"], other._arrays["means"])
        variance = self.variances()[:, None] + other.variances()[None, :]
        gap = self.means()[:, None] - other.means()[None, :]
        return xp.exp(-0.5 * gap**2 / variance) / xp.sqrt(2 * math.pi * variance)

    def in_support(self, x: Array) -> Array:
        return ~namespace(x).isinf(x)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        x, weights = _observed(x, responsibilities)
        xp = namespace(weights)
        offset = x[:, None] - self._arrays["means"]  # about the current mean: no cancellation in the variance
        return {
            "count": xp.sum(weights, axis=0),
            "offset": xp.sum(weights * offset, axis=0),
            "square": xp.sum(weights * offset**2, axis=0),
        }

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {"count": weights, "offset": 0 * weights, "square": weights * self.variances()}

    def from_statistics(self, statistics: dict[str, Array], least_variance: float = 0.0) -> Self:
        """See `Variable`; without a least variance, in squared units of the data, one of 0 leaves the deviation."""
        means, stds = self._arrays["means"], self._arrays["stds"]
        xp = namespace(means)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        shift = xp.where(seen, statistics["offset"] / count, 0.0)
        variance = statistics["square"] / count - shift**2
        if least_variance:
            variance = xp.where(variance < least_variance, least_variance, variance)
            stds = xp.where(stds < math.sqrt(least_variance), math.sqrt(least_variance), stds)
        positive = seen & (variance > 0)
        deviation = xp.sqrt(xp.where(positive, variance, 1.0))
        return type(self)(means + shift, xp.where(positive, deviation, stds), name=self.name)


class PoissonMixture(_Stackable):
    """A count with Poisson components: p(x | s) = rates[s]^x exp(-rates[s]) / x!.

    Args:
        rates: (N,) expected counts, finite and not negative.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if a rate is negative or not finite.
    """

    integer = True
    positive = ("rates",)

    def __init__(self, rates: Array, name: str | None = None, *, validate: bool = True):
        rates = _parameter("rates", rates)
        if validate:
            _check_values("rates", rates, lambda v: np.isfinite(v) & (v >= 0), "not negative and finite")
        self.num_components = int(rates.shape[0])
        self.name = check_name(name)
        self._arrays = {"rates": rates}

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
        x, weights = _observed(x, responsibilities)
        xp = namespace(weights)
        return {"count": xp.sum(weights, axis=0), "total": xp.sum(weights * x[:, None], axis=0)}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {"count": weights, "total": weights * self._arrays["rates"]}

    def from_statistics(self, statistics: dict[str, Array]) -> Self:
        rates = self._arrays["rates"]
        xp = namespace(rates)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        return type(self)(xp.where(seen, statistics["total"] / count, rates), name=self.name)


BUILT_IN: tuple[type, ...] = (Categorical, GaussianMixture, PoissonMixture)


def _observed(x: Array, responsibilities: Array) -> tuple[Array, Array]:
    """Missing values with zero weight instead of NaN."""
    xp = namespace(x, responsibilities)
    missing = xp.isnan(x)
    return xp.where(missing, 0.0, x), xp.where(missing[:, None], 0.0, responsibilities)


def _parameter(label: str, value: Array) -> Array:
    if not is_array(value):
        value = np.asarray(value, dtype=np.float64)
    if isinstance(value, np.ndarray):
        value = frozen(value, value.dtype)
    if value.ndim != 1 or value.shape[0] == 0:
        raise ValueError(f"{label} must have shape (N,) with N >= 1, found {_shape(value)}")
    if not namespace(value).isdtype(value.dtype, "real floating"):
        raise TypeError(f"{label} must be floating point, found {value.dtype}")
    return value


def _check_values(label: str, value: Array, rule: Any, text: str) -> None:
    if not is_concrete(value):
        return
    values = to_numpy(value)
    wrong = ~rule(values)
    if wrong.any():
        position = int(np.argmax(wrong))
        raise ValueError(f"{label} must be {text}, found {values[position]:g} at component {position}")


def check_name(name: str | None) -> str | None:
    """The name if it is one; `TypeError` else."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, found {name!r}")
    return name


def _shape(value: Array) -> tuple[int, ...]:
    return tuple(value.shape)
