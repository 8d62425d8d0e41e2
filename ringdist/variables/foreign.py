"""Adapters for classes that follow the protocol `Variable` but do not inherit from `Family`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, is_concrete, like, namespace, stop_gradient, to_numpy
from ringdist.variables.protocol import Family, rebuild
from ringdist.variables.variable import Variable

FAR = 1e9  # standard deviations at which a log-density of unbounded support may be finite


def as_family(variable: Variable) -> Family:
    """The variable as a `Family`: itself if it is one, otherwise in an adapter.

    Only the adapter inspects which optional members a class has.

    Examples:
        >>> import ringdist as rd
        >>> from ringdist.variables import as_family
        >>> gaussian = rd.GaussianMixture([0.0], [1.0])
        >>> as_family(gaussian) is gaussian
        True
    """
    return variable if isinstance(variable, Family) else Foreign(variable)


class Foreign(Family):
    """An adapter around a variable of a user's class. Methods that return a variable return an adapter."""

    def __init__(self, variable: Any):
        if isinstance(variable, type) or not hasattr(variable, "num_components"):
            raise TypeError(
                f"a variable must be an instance of a family, such as rd.Categorical(3), found {variable!r}; the "
                "`variables` of the ring that rd.initialize makes have their components on the data"
            )
        self._variable = variable
        self.name, self.num_components = getattr(variable, "name", None), variable.num_components
        self.width = int(getattr(variable, "width", 1))
        self.integer = bool(getattr(variable, "integer", False))
        self.support = getattr(variable, "support", (0.0 if self.integer else -math.inf, math.inf))
        self.positive = tuple(getattr(variable, "positive", ()))
        self.stacks = hasattr(type(variable), "stack")
        self.streams = all(hasattr(variable, f"{name}statistics") for name in ("", "expected_", "from_"))
        self.has_variance = bool(getattr(variable, "has_variance", False))
        self.tells_support = hasattr(variable, "in_support")

    @property
    def variable(self) -> Any:
        """The user's own object."""
        return self._variable

    @property
    def kind(self) -> type:
        """The user's class."""
        return type(self._variable)

    @classmethod
    def stack(cls, variables: Sequence[Any]) -> Self:
        return cls(variables[0].kind.stack([v.variable for v in variables]))

    def arrays(self) -> dict[str, Array]:
        arrays: dict[str, Array] = self._variable.arrays()
        return arrays

    def options(self) -> dict[str, Any]:
        return {}

    def with_arrays(self, arrays: dict[str, Array]) -> Foreign:
        return Foreign(rebuild(self.form, arrays))

    def component(self, s: int) -> Foreign:
        return Foreign(rebuild(*self._component(s)))

    def log_density(self, x: Array) -> Array:
        return self._variable.log_density(x)

    def cdf(self, x: Array) -> Array:
        return self._variable.cdf(x)

    def sample(self, component: Array, rng: Any) -> Array:
        return self._variable.sample(component, rng)

    def means(self) -> Array:
        return self._variable.means()

    def variances(self) -> Array:
        return self._variable.variances()

    def inner(self, other: Any) -> Array:
        return self._variable.inner(getattr(other, "variable", other))

    def in_support(self, x: Array) -> Array:
        """By the variable's own `in_support`; without one, the finite numbers that pass its `check`."""
        if self.tells_support:
            return self._variable.in_support(x)
        xp = namespace(x)
        inside = ~xp.isinf(x)
        finite = xp.isfinite(x)
        if not is_concrete(x) or self._passes(x[finite]):
            return inside
        values = to_numpy(x)
        wrong = [v for v in np.unique(values[to_numpy(finite)]) if not self._passes(like(np.asarray([v]), x))]
        return inside & like(~np.isin(values, wrong), x, xp.bool)

    def _passes(self, values: Array) -> bool:
        try:
            self._variable.check(values)
        except ValueError:
            return False
        return True

    def check(self, x: Array) -> None:
        self._variable.check(x)

    def typical_value(self) -> Array:
        return stop_gradient(self._variable.means())[0]

    def is_endless(self, x: Array) -> Array:
        """Whether the density far above x is positive, unless the class declares an upper end of its support."""
        if self.support[1] != math.inf:
            return False
        xp = namespace(x)
        means, stds = like(self.means(), x), like(self.standard_deviations(), x)
        scale = xp.abs(x) + xp.max(xp.where(xp.isfinite(means), xp.abs(means), 0.0))
        scale = scale + xp.max(xp.where(xp.isfinite(stds), stds, 0.0))
        point = xp.clip(x + FAR * scale, max=float(xp.finfo(x.dtype).max) / 4)
        point = xp.floor(point) if self.integer else point
        return xp.any(like(self.log_density(point), x) > -math.inf, axis=-1)

    def update(self, x: Array, responsibilities: Array) -> Foreign:
        return Foreign(self._variable.update(x, responsibilities))

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        statistics: dict[str, Array] = self._variable.statistics(x, responsibilities)
        return statistics

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        statistics: dict[str, Array] = self._variable.expected_statistics(weights)
        return statistics

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Foreign:
        least = [least_std**2] if self.has_variance and least_std else []
        return Foreign(self._variable.from_statistics(statistics, *least))

    def __repr__(self) -> str:
        return repr(self._variable)
