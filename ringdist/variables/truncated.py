"""Components restricted to an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

from ringdist.backend import Array, astype, like, namespace, stop_gradient, without_warnings
from ringdist.variables.atoms import WithAtoms
from ringdist.variables.checks import check_name
from ringdist.variables.fixed import Fixed
from ringdist.variables.foreign import as_family
from ringdist.variables.form import Form
from ringdist.variables.interval import Interval
from ringdist.variables.protocol import Family, rebuild
from ringdist.variables.variable import Variable
from ringdist.variables.within import widened


class Truncated(Fixed):
    """The components of a variable, each restricted to an interval and normalised on it.

    p(x | s, low <= X <= high) = p(x | s) / P(low <= X <= high | s) within the interval, 0 outside

    `TensorRing.condition` returns these for columns that an event restricts. Gaussian and Poisson
    components are accurate to rounding for intervals arbitrarily far in their tails. For other families
    the distribution function is used if its differences do not cancel. Otherwise, and for moments, the
    density is integrated numerically; this is accurate to rounding if the density is smooth in the
    interval, except at the component's mean.

    The parameters are those of the variable. EM does not change them, because truncated components have
    no closed-form update; only cores are fitted.

    Args:
        variable: of any family but `Categorical`; a truncated one is restricted further.
        interval: a part of the variable's support.
        name: the column's name; None for that of the variable.

    Raises:
        ValueError: if the variable is categorical or has several columns, or the interval does not
            intersect that of a truncated variable.
        TypeError: if `variable` is not a variable, or `interval` not an `Interval`.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> tail = rd.Truncated(rd.GaussianMixture([0.0], [1.0]), rd.Interval(40, None))
        >>> tail.means().round(4), tail.cdf(np.array([39.0, 40.0, 40.1])).round(4)
        (array([40.025]), array([[0.    ],
               [0.    ],
               [0.9818]]))
    """

    inner_family: Family

    def __init__(self, variable: Variable, interval: Interval, name: str | None = None):
        if not isinstance(interval, Interval):
            raise TypeError(f"interval must be an rd.Interval, found {interval!r}")
        if not isinstance(variable, Family) and not isinstance(variable, Variable):
            raise TypeError(f"variable must follow the protocol rd.Variable, found {variable!r}")
        family = as_family(variable)
        name = family.name if name is None else check_name(name)
        if isinstance(family, Truncated):
            both = interval.intersection(family.interval)
            if both is None:
                raise ValueError(f"intervals must intersect, found {interval!r} and {family.interval!r}")
            family, interval = family.inner_family, both
        if family.values_are_components or family.width != 1:
            what = "categories have no order" if family.values_are_components else f"found {family.width} columns"
            raise ValueError(f"a truncated variable must be one column of numbers: {what}")
        options = (("variable", family.form._replace(name=None)), ("interval", interval))
        self._set(family.num_components, name, family.arrays(), options)

    def _set(
        self, num_components: int, name: str | None, arrays: dict[str, Array], options: Iterable[tuple[str, Any]] = ()
    ) -> Self:
        super()._set(num_components, name, arrays, options)
        form: Form = self._options["variable"]
        self.inner_family = family = as_family(rebuild(form, arrays))
        interval = self.interval
        self.integer, self.positive, self.tells_support = family.integer, family.positive, family.tells_support
        self.support = max(interval.low, family.support[0]), min(interval.high, family.support[1])
        return self

    @property
    def interval(self) -> Interval:
        """The interval, within that of any previous restriction."""
        interval: Interval = self._options["interval"]
        return interval

    @property
    def can_move(self) -> bool:
        return self.inner_family.can_move

    @property
    def measure(self) -> str:
        return self.inner_family.measure

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"Truncated({self.inner_family!r}, {self.interval!r}{name})"

    # --------------------------------------------------------------------------------- the density

    def log_density(self, x: Array) -> Array:
        x = self._floating(x)
        family, mass = widened(self.inner_family), self._log_mass()
        xp = namespace(mass)
        alive = mass > -math.inf
        inside = self.interval.holds(x)[..., None] & alive
        with without_warnings(mass):
            wide = x if isinstance(family, WithAtoms) else like(x, mass)  # atoms are compared in the dtype of x
            logs = like(family.log_density(wide), mass) - xp.where(alive, mass, 0.0)
        return astype(xp.where(inside, logs, -math.inf), x.dtype)

    def cdf(self, x: Array) -> Array:
        if self.interval.is_unbounded:
            return self.inner_family.cdf(x)
        x = self._floating(x)
        xp, (low, high) = namespace(x), self._finite(x)
        values = like(self.inner_family.cdf_within(xp.clip(x, min=low, max=high), *self._bounds), x)
        return xp.where((x < low)[..., None], 0.0, xp.where((x >= high)[..., None], 1.0, values))

    def sample(self, component: Array, rng: Any) -> Array:
        if self.interval.is_unbounded:
            return self.inner_family.sample(component, rng)
        return self.inner_family.sample_within(component, *self._bounds, rng)

    def means(self) -> Array:
        return self._moments()[0]

    def variances(self) -> Array:
        return self._moments()[1]

    def standard_deviations(self) -> Array:
        if self.interval.is_unbounded:
            return self.inner_family.standard_deviations()
        means, (_, variances) = self.inner_family.means(), self.inner_family.moments_within(*self._bounds)
        return like(namespace(variances).sqrt(variances), means)

    def inner(self, other: Any) -> Array:
        """∫ p(x | s) q(x | t) dx, (N, N'), of Gaussian components; 0 if the intervals do not intersect.

        Raises:
            ValueError: if the families differ or are not Gaussian.
        """
        self._check_sibling(other)
        both = self.interval.intersection(other.interval)
        masses = self._log_mass()[:, None], other._log_mass()[None, :]
        xp, zero = namespace(*masses), 0 * self.means()[:, None] * other.means()
        if both is None:
            return zero
        logs = self.inner_family.log_inner_within(other.inner_family, both.low, both.high)
        alive = (masses[0] > -math.inf) & (masses[1] > -math.inf)
        logs = logs - xp.where(alive, masses[0] + masses[1], 0.0)
        return like(xp.where(alive, xp.exp(xp.where(alive, logs, 0.0)), 0.0), zero)

    def log_probability(self, low: float, high: float) -> Array:
        log_total = self._log_mass()
        xp = namespace(log_total)
        if max(low, self.interval.low) > min(high, self.interval.high):
            return 0 * xp.where(log_total > -math.inf, log_total, 0.0) - math.inf
        part = self.inner_family.log_probability(max(low, self.interval.low), min(high, self.interval.high))
        return part - xp.where(log_total > -math.inf, log_total, 0.0)

    # --------------------------------------------------------------------------------- the support

    def in_support(self, x: Array) -> Array:
        """As in the untruncated variable; values outside the interval have density 0."""
        return self.inner_family.in_support(x)

    def check(self, x: Array) -> None:
        self.inner_family.check(x)

    def typical_value(self) -> Any:
        prototype = stop_gradient(self.inner_family.means())
        low, high = self._finite(prototype)
        if self.integer:
            low, high = math.ceil(low), math.floor(high)
        value = like(self.inner_family.typical_value(), prototype)
        return namespace(prototype).clip(value, min=float(low), max=float(high))

    def is_endless(self, x: Array) -> Any:
        return math.isinf(self.interval.high) and self.inner_family.is_endless(x)

    # ----------------------------------------------------------------------------------------- own

    @property
    def _bounds(self) -> tuple[float, float]:
        return self.interval.low, self.interval.high

    def _finite(self, array: Array) -> tuple[float, float]:
        """The bounds within the range of the dtype."""
        end = float(namespace(array).finfo(array.dtype).max)
        return min(max(self.interval.low, -end), end), max(min(self.interval.high, end), -end)

    def _floating(self, x: Array) -> Array:
        return x if namespace(x).isdtype(x.dtype, "real floating") else astype(x, self.means().dtype)

    def _log_mass(self) -> Array:
        return self.inner_family.log_probability(*self._bounds)

    def _moments(self) -> tuple[Array, Array]:
        if self.interval.is_unbounded:
            return self.inner_family.means(), self.inner_family.variances()
        means = self.inner_family.means()
        mean, variance = self.inner_family.moments_within(*self._bounds)
        return like(mean, means), like(variance, means)
