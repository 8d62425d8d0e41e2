"""The base class of variables that the library uses.

A variable with `N` components maps a value to `N` numbers, log p(x | s). Families do not know rings.
Users write a class that follows `Variable`. The rest of the library uses `Family`, which has a default
for every optional method. `as_family` converts any variable to a `Family`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, namespace, stack, take
from ringdist.variables import within
from ringdist.variables.form import Form


class Family:
    """A variable with all methods: those of `Variable`, and defaults for the optional ones.

    A built-in family is a subclass in one file. It calls `_set` with its parameters and overrides at
    least `log_density`, `cdf`, `sample`, `means`, `variances` and `inner`; for `fit_em` also
    `statistics`, `expected_statistics` and `from_statistics`, for `initialize` also `placed`.

    Attributes:
        name: the column's name, or None; None for a wide variable.
        names: the names of its columns.
        num_components: N.
        width: number of columns that the variable covers. If it is above 1 the variable is wide: x has
            shape (..., width) with NaN for missing entries, which `log_density`, `statistics` and `sample_given`
            marginalise or complete. `means` and `variances` then have shape (N, width).
        integer: whether values are integers from 0.
        support: the least and the greatest value; −inf and inf if the density is unbounded.
        positive: names of parameters that gradient descent must keep positive.
        values_are_components: whether a value is its component, with density 1.
        stacks: whether `stack` is available, so that one operation evaluates all columns of one `kind`
            and one N.
        streams: whether `statistics`, `expected_statistics` and `from_statistics` are available.
        smooth: whether quantiles are searched by the values of `cdf`, which is continuous and costly.
        has_variance: whether `from_statistics` takes a least standard deviation into account.
        can_move: whether a sample has a pathwise gradient.
        tells_support: whether `in_support` is implemented directly, and not by calls to `check`.
    """

    width: int = 1
    integer: bool = False
    support: tuple[float, float] = (-math.inf, math.inf)
    positive: tuple[str, ...] = ()
    values_are_components: bool = False
    stacks: bool = False
    streams: bool = False
    smooth: bool = False
    has_variance: bool = False
    tells_support: bool = True

    num_components: int
    name: str | None
    _arrays: dict[str, Array]
    _options: dict[str, Any]

    def _set(
        self,
        num_components: int,
        name: str | None,
        arrays: dict[str, Array],
        options: Iterable[tuple[str, Any]] = (),
    ) -> Self:
        self.num_components, self.name, self._arrays, self._options = num_components, name, arrays, dict(options)
        return self

    @property
    def variable(self) -> Any:
        """The user's object: the variable itself, or the object inside an adapter."""
        return self

    @property
    def kind(self) -> type:
        """The user's class, by which columns are grouped and from which variables are rebuilt."""
        return type(self)

    @property
    def can_move(self) -> bool:
        return not self.integer

    @property
    def measure(self) -> str:
        """What densities are relative to: those of two variables compare where it is the same."""
        return "counts" if self.integer else "reals"

    @property
    def form(self) -> Form:
        """All but the arrays."""
        return Form(self.kind, self.num_components, self.name, tuple(self.options().items()))

    @property
    def names(self) -> tuple[str | None, ...]:
        return (self.name,)

    @property
    def supports(self) -> list[tuple[float, float]]:
        """The support of each of its columns."""
        return [self.support] * self.width

    @classmethod
    def stack(cls, variables: Sequence[Any]) -> Family:
        """One object for variables of equal form: its methods take x of shape (len(variables), rows)."""
        first = variables[0]
        arrays = {key: stack([v._arrays[key] for v in variables])[:, None, :] for key in first._arrays}
        stacked: Family = rebuild(first.form._replace(name=None), arrays)
        return stacked

    def arrays(self) -> dict[str, Array]:
        """The parameters by the name of the constructor's argument."""
        return dict(self._arrays)

    def options(self) -> dict[str, Any]:
        """The other arguments of the constructor, as in `Form`."""
        return dict(self._options)

    def with_arrays(self, arrays: dict[str, Array]) -> Family:
        """The variable with other arrays in the places of its own, unchecked."""
        changed: Family = rebuild(self.form, arrays)
        return changed

    def with_rows(self, change: Callable[[Array], Array]) -> Family:
        """With arrays (b, ...) that have parameters of b rows changed; itself if there are none."""
        if self.surroundings()[0].ndim == 1:
            return self
        return self.with_arrays({name: change(array) for name, array in self.arrays().items()})

    def free_arrays(self) -> dict[str, Array]:
        """The parameters by which gradient descent moves the variable; those that are `positive` by their logarithm."""
        return self.arrays()

    def with_free_arrays(self, arrays: dict[str, Array]) -> Family:
        """The inverse of `free_arrays`."""
        return self.with_arrays(arrays)

    def component(self, s: int) -> Family:
        """The variable of component s alone, unchecked."""
        alone: Family = rebuild(*self._component(s))
        return alone

    def _component(self, s: int) -> tuple[Form, dict[str, Array]]:
        arrays = {name: array[s : s + 1] for name, array in self.arrays().items()}
        return self.form._replace(num_components=1), arrays

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"{type(self).__name__}({self.num_components}{name})"

    def log_density(self, x: Array) -> Array:
        """log p(x | s), shape (..., N); −inf outside the support."""
        raise NotImplementedError

    def cdf(self, x: Array) -> Array:
        """P(X <= x | s), shape (..., N)."""
        raise NotImplementedError

    def sample(self, component: Array, rng: Any) -> Array:
        """One draw for each entry of `component`, of its shape."""
        raise NotImplementedError

    def means(self) -> Array:
        """E[X | s], shape (N,)."""
        raise NotImplementedError

    def variances(self) -> Array:
        """Var[X | s], shape (N,); inf or 0 where the square leaves the range of the dtype."""
        raise NotImplementedError

    def standard_deviations(self) -> Array:
        """The square root of Var[X | s], shape (N,), finite also where the variance is not."""
        variances = self.variances()
        return namespace(variances).sqrt(variances)

    def inner(self, other: Any) -> Array:
        """Σ or ∫ p(x | s) q(x | t) over x, shape (N, N'), for a variable of the same family."""
        raise NotImplementedError

    def sample_given(self, component: Array, x: Array | None, rng: Any) -> Array:
        """Rows x (n, width) of a wide variable, their NaN entries drawn given the others and the component (n,)."""
        raise NotImplementedError

    def covariances(self) -> Array:
        """Cov[X | s], (N, width, width)."""
        return self.variances()[:, None, None]

    def marginal(self, places: Sequence[int]) -> Family:
        """The variable of some of its columns, by their places 0..width-1 and in this order."""
        return self

    def conditioned(self, x: Array, places: Sequence[int]) -> Family:
        """The variable of the columns at some places, which are NaN in x (width,), given what is observed there."""
        raise NotImplementedError

    def conditional(self, x: Array, place: int) -> Family:
        """The column at a place given what rows x (b, width) observe of the others: parameters are (b, N).

        Itself, with parameters (N,), if it is the only column.
        """
        return self

    def conditional_means(self, x: Array) -> Array:
        """E[X | observed entries of x, s] of a wide variable, (b, N, width) for rows x (b, width)."""
        raise NotImplementedError

    def log_probability(self, low: float, high: float) -> Array:
        """log P(low <= X <= high | s), shape (N,), in the accumulator's dtype; −inf or inf for no bound."""
        return within.log_probability(within.widened(self), low, high)

    def cdf_within(self, x: Array, low: float, high: float) -> Array:
        """P(X <= x | low <= X <= high, s), shape (..., N), of numbers x within the interval."""
        return within.cdf(within.widened(self), x, low, high)

    def sample_within(self, component: Array, low: float, high: float, rng: Any) -> Array:
        """One draw for each entry of `component`, of its shape, given low <= X <= high."""
        return within.sample(within.widened(self), component, low, high, rng)

    def moments_within(self, low: float, high: float) -> tuple[Array, Array]:
        """E[X | low <= X <= high, s] and Var[X | low <= X <= high, s], each of shape (N,)."""
        return within.moments(within.widened(self), low, high)

    def log_density_beside(self, points: Array, offsets: Array) -> Array:
        """log p(points[s] + offsets[:, s] | s) up to a constant of each s, for (N,) and (q, N): (q, N)."""
        return within.log_density_beside(self, points, offsets)

    def log_inner_within(self, other: Any, low: float, high: float) -> Array:
        """log ∫ p(x | s) q(x | t) dx over low <= x <= high, (N, N')."""
        raise ValueError(f"inner products within an interval need Gaussian components, found {self.kind.__name__}")

    def in_support(self, x: Array) -> Array:
        """Which entries of x have a density, of the shape of x; NaN counts as inside."""
        return ~namespace(x).isinf(x)

    def check(self, x: Array) -> None:
        """Raise `ValueError` naming the rule and the finding unless every x is in the support."""
        xp = namespace(x)
        outside = x[~self.in_support(x)]
        if outside.shape[0] > 0:
            raise ValueError(self._finding(float(xp.reshape(outside, (-1,))[0])))

    def typical_value(self) -> Any:
        """A value inside the support, to stand where an entry of x is missing; broadcast against x."""
        return 0.0

    def is_endless(self, x: Array) -> Any:
        """Whether values above x (n,) have a density however far they are: (n,) or one boolean."""
        return self.support[1] == math.inf

    def _finding(self, value: float) -> str:
        return f"values must be finite, found {value:g}"

    def surroundings(self) -> tuple[Array, Array]:
        """Where the components are and over which distance, (N,), roughly: where the search of a quantile starts."""
        return self.means(), self.standard_deviations()

    def centres(self) -> Array:
        """A point of each component near which its density is large, (N,), inside the support."""
        return self.means()

    def scales(self) -> Array:
        """A distance over which the density of each component changes, (N,), finite."""
        return self.standard_deviations()

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Family:
        """A variable with its components on the data, to start learning from.

        Args:
            observed: (n,) finite values in NumPy, at least one.
            num_components: N; fewer where there are fewer distinct values.
            method: "kmeans" for centres of clusters, any other for quantiles.
            limits: of the dtype in which the variable is to be used.
            options: further arguments of the constructor.

        Raises:
            ValueError: if a value is outside the support.
        """
        raise ValueError(f"a family whose components can be placed must be chosen, found {cls.__name__}")

    @classmethod
    def width_of(cls, **options: Any) -> int | None:
        """How many columns a variable with these options covers; None if they do not tell."""
        return 1

    def floored(self, x: np.ndarray) -> np.ndarray:
        """What `least_std` measures of values x in NumPy: NaN for what no component with a width explains."""
        return x

    def update(self, x: Array, responsibilities: Array) -> Family:
        """The variable of highest expected log-likelihood, as in `Variable`."""
        return self.from_statistics(self.statistics(x, responsibilities))

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sufficient statistics of x (n,), sums weighted by responsibilities (n, N); NaN is ignored."""
        raise NotImplementedError

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        """What `statistics` is on average for a row of this variable, weights (N,) of components."""
        raise NotImplementedError

    def shrunk(self, statistics: dict[str, Array], rows: float) -> dict[str, Array]:
        """Statistics with `rows` in every component of a prior that brings covariances near each other."""
        return statistics

    def from_statistics(self, statistics: dict[str, Array], least_std: Any = 0.0) -> Family:
        """The variable of highest expected log-likelihood; components that saw no data stay.

        Args:
            statistics: sums of what `statistics` returns for this variable, over any rows.
            least_std: least standard deviation of a component, where `has_variance`; (width,) of a wide variable.
        """
        raise NotImplementedError

    def from_factors(self, statistics: dict[str, Array], least_std: Any, num_factors: int | None) -> Family:
        """As `from_statistics`, with `num_factors` factors in the covariances of a wide variable; None: unrestricted.

        It is a step towards the maximum, never below the current covariances if they have as many factors.
        """
        return self.from_statistics(statistics, least_std)

    def factored(self, num_factors: int) -> Family:
        """With nearby covariances of this number of factors if the variable is wide; else itself."""
        return self

    def _pick(self, name: str, component: Array) -> Array:
        """The parameter of each component drawn, of the shape of `component`."""
        array = self._arrays[name]
        xp = namespace(array)
        if array.ndim == 1:
            return xp.reshape(take(array, xp.reshape(component, (-1,)), axis=0), component.shape)
        return xp.take_along_axis(array[:, 0, :], component, axis=-1)

    def _check_sibling(self, other: Any) -> None:
        if type(other) is not type(self):
            raise ValueError(
                f"inner products need variables of one family, found {type(self).__name__} and {type(other).__name__}"
            )


def rebuild(form: Form, arrays: dict[str, Array]) -> Any:
    """The variable of this form with these arrays; a `Family` checks nothing."""
    kind: Any = form.kind
    if issubclass(kind, Family):
        return kind.__new__(kind)._set(form.num_components, form.name, dict(arrays), form.options)
    return kind(**arrays, name=form.name) if arrays else kind(form.num_components, name=form.name)
