"""The base class of variables.

A variable with `N` components maps a value to `N` numbers, log p(x | s). Families do not depend on rings.
Users write a class that follows the protocol `Variable`. The rest of the library uses `Family`, which has
a default for every optional method. `as_family` converts any variable to a `Family`.
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
        width: number of columns that the variable covers. If it is above 1, the variable is wide: x has
            shape (..., width), with NaN for missing entries. `log_density` and `statistics` marginalise
            them, `sample_given` completes them. `means` and `variances` have shape (N, width).
        integer: whether values are non-negative integers.
        support: the least and the greatest value; −inf and inf if the density is unbounded.
        positive: names of parameters that gradient descent must keep positive.
        values_are_components: whether a value is the index of its component, as in `Categorical`.
        stacks: whether `stack` is available, so that one operation evaluates all columns of one `kind`
            and N.
        streams: whether `statistics`, `expected_statistics` and `from_statistics` are available.
        smooth: whether quantiles are found by interpolation of `cdf`, which is continuous and costly.
        has_variance: whether `from_statistics` respects a least standard deviation.
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
        """The reference measure of densities; those of two variables are comparable if it is the same."""
        return "counts" if self.integer else "reals"

    @property
    def form(self) -> Form:
        """All arguments of the constructor that are not arrays, and the class."""
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
        """The variable with its arrays replaced, unchecked."""
        changed: Family = rebuild(self.form, arrays)
        return changed

    def with_rows(self, change: Callable[[Array], Array]) -> Family:
        """The variable with arrays (b, ...) of b rows changed; itself if its parameters do not depend on rows."""
        if self.surroundings()[0].ndim == 1:
            return self
        return self.with_arrays({name: change(array) for name, array in self.arrays().items()})

    def free_arrays(self) -> dict[str, Array]:
        """The parameters that gradient descent changes; `positive` ones are represented by their logarithm."""
        return self.arrays()

    def with_free_arrays(self, arrays: dict[str, Array]) -> Family:
        """The inverse of `free_arrays`."""
        return self.with_arrays(arrays)

    def component(self, s: int) -> Family:
        """The variable with only component s, unchecked."""
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
        """Var[X | s], shape (N,); inf or 0 if the square is out of the range of the dtype."""
        raise NotImplementedError

    def standard_deviations(self) -> Array:
        """The square root of Var[X | s], shape (N,), finite also if the variance overflows."""
        variances = self.variances()
        return namespace(variances).sqrt(variances)

    def inner(self, other: Any) -> Array:
        """Σ or ∫ p(x | s) q(x | t) over x, shape (N, N'), for a variable of the same family."""
        raise NotImplementedError

    def sample_given(self, component: Array, x: Array | None, rng: Any) -> Array:
        """Rows x (n, width) of a wide variable, with NaN entries sampled given the others and the component (n,)."""
        raise NotImplementedError

    def covariances(self) -> Array:
        """Cov[X | s], (N, width, width)."""
        return self.variances()[:, None, None]

    def marginal(self, places: Sequence[int]) -> Family:
        """The variable of some of its columns, given by their indices 0..width-1, in this order."""
        return self

    def conditioned(self, x: Array, places: Sequence[int]) -> Family:
        """The variable of the columns at some indices, which are NaN in x (width,), given the observed entries of x."""
        raise NotImplementedError

    def conditional(self, x: Array, place: int) -> Family:
        """The column at an index given the other observed entries of rows x (b, width), with parameters (b, N).

        It is the variable itself, with parameters (N,), if that has one column.
        """
        return self

    def conditional_means(self, x: Array) -> Array:
        """E[X | observed entries of x, s] of a wide variable, (b, N, width) for rows x (b, width)."""
        raise NotImplementedError

    def log_probability(self, low: float, high: float) -> Array:
        """log P(low <= X <= high | s), shape (N,), in the accumulator's dtype; bounds may be infinite."""
        return within.log_probability(within.widened(self), low, high)

    def cdf_within(self, x: Array, low: float, high: float) -> Array:
        """P(X <= x | low <= X <= high, s), shape (..., N), for x within the interval."""
        return within.cdf(within.widened(self), x, low, high)

    def sample_within(self, component: Array, low: float, high: float, rng: Any) -> Array:
        """One draw for each entry of `component`, of its shape, given low <= X <= high."""
        return within.sample(within.widened(self), component, low, high, rng)

    def moments_within(self, low: float, high: float) -> tuple[Array, Array]:
        """E[X | low <= X <= high, s] and Var[X | low <= X <= high, s], each of shape (N,)."""
        return within.moments(within.widened(self), low, high)

    def log_density_beside(self, points: Array, offsets: Array) -> Array:
        """log p(points[s] + offsets[:, s] | s), (q, N), for (N,) and (q, N), up to a constant for each s."""
        return within.log_density_beside(self, points, offsets)

    def log_inner_within(self, other: Any, low: float, high: float) -> Array:
        """log ∫ p(x | s) q(x | t) dx over low <= x <= high, (N, N')."""
        raise ValueError(f"inner products within an interval need Gaussian components, found {self.kind.__name__}")

    def in_support(self, x: Array) -> Array:
        """Whether each entry of x is in the support, of the shape of x; NaN counts as inside."""
        return ~namespace(x).isinf(x)

    def check(self, x: Array) -> None:
        """Raise `ValueError` naming the rule and the finding unless every x is in the support."""
        xp = namespace(x)
        outside = x[~self.in_support(x)]
        if outside.shape[0] > 0:
            raise ValueError(self._finding(float(xp.reshape(outside, (-1,))[0])))

    def typical_value(self) -> Any:
        """A value inside the support that replaces missing entries of x; broadcast against x."""
        return 0.0

    def is_endless(self, x: Array) -> Any:
        """Whether the support is unbounded above x (n,), as booleans (n,) or a single one."""
        return self.support[1] == math.inf

    def _finding(self, value: float) -> str:
        return f"values must be finite, found {value:g}"

    def surroundings(self) -> tuple[Array, Array]:
        """Rough locations and scales of the components, both (N,), from which the search for a quantile starts."""
        return self.means(), self.standard_deviations()

    def centres(self) -> Array:
        """A point inside the support near which each component has a large density, (N,)."""
        return self.means()

    def scales(self) -> Array:
        """A distance over which the density of each component changes, (N,), finite."""
        return self.standard_deviations()

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Family:
        """A variable with its components placed on the data, as a starting point.

        Args:
            observed: (n,) finite values in NumPy, at least one.
            num_components: N; fewer if there are fewer distinct values.
            method: "kmeans" for centres of clusters, otherwise quantiles.
            limits: those of the dtype in which the variable is to be used.
            options: further arguments of the constructor.

        Raises:
            ValueError: if a value is outside the support.
        """
        raise ValueError(f"the family must be able to place components, found {cls.__name__}; give a variable instead")

    @classmethod
    def width_of(cls, **options: Any) -> int | None:
        """The number of columns that a variable with these options covers; None if they do not determine it."""
        return 1

    def floored(self, x: np.ndarray) -> np.ndarray:
        """Values x (NumPy) in the units of `least_std`; NaN for values that belong to no component with a variance."""
        return x

    def update(self, x: Array, responsibilities: Array) -> Family:
        """The variable of highest expected log-likelihood, as in `Variable`."""
        return self.from_statistics(self.statistics(x, responsibilities))

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sufficient statistics of x (n,), sums weighted by responsibilities (n, N); NaN is ignored."""
        raise NotImplementedError

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        """The expected `statistics` of one row from this variable, with weights (N,) of the components."""
        raise NotImplementedError

    def shrunk(self, statistics: dict[str, Array], rows: float) -> dict[str, Array]:
        """Statistics plus those of a prior of `rows` rows per component that shrinks covariances together."""
        return statistics

    def from_statistics(self, statistics: dict[str, Array], least_std: Any = 0.0) -> Family:
        """The variable of highest expected log-likelihood; components without data do not change.

        Args:
            statistics: sums of the results of `statistics` of this variable, over any rows.
            least_std: least standard deviation of a component if `has_variance`; (width,) for a wide variable.
        """
        raise NotImplementedError

    def from_factors(self, statistics: dict[str, Array], least_std: Any, num_factors: int | None) -> Family:
        """As `from_statistics`, with `num_factors` factors in the covariances of a wide variable; None: unrestricted.

        This is a step towards the maximum; with as many factors as before, the likelihood never decreases.
        """
        return self.from_statistics(statistics, least_std)

    def factored(self, num_factors: int) -> Family:
        """A wide variable with nearby covariances of this number of factors; any other variable itself."""
        return self

    def _pick(self, name: str, component: Array) -> Array:
        """The parameter of each sampled component, of the shape of `component`."""
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
    """The variable of this form with these arrays; the arrays of a `Family` are not checked."""
    kind: Any = form.kind
    if issubclass(kind, Family):
        return kind.__new__(kind)._set(form.num_components, form.name, dict(arrays), form.options)
    return kind(**arrays, name=form.name) if arrays else kind(form.num_components, name=form.name)
