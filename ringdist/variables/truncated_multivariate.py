"""Gaussian components over several columns, some of them hidden, restricted to a box."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    accumulator,
    astype,
    indices,
    is_concrete,
    lasting,
    like,
    like_zeros,
    namespace,
    records_gradient,
    take,
)
from ringdist.variables.checks import check_names
from ringdist.variables.fixed import Fixed
from ringdist.variables.form import Form
from ringdist.variables.gaussian import GaussianMixture
from ringdist.variables.interval import Interval
from ringdist.variables.multivariate_functions import by_rows
from ringdist.variables.multivariate_gaussian import MultivariateGaussianMixture
from ringdist.variables.protocol import Family, rebuild
from ringdist.variables.truncated import Truncated
from ringdist.variables.truncated_given import (
    GivenBox,
    by_rows_that_observe,
    columns_within,
    described,
    ends,
    log_joint_of_one,
    log_mass_of_products,
    moments,
)


class TruncatedMultivariateGaussianMixture(Fixed):
    """A wide variable with Gaussian components, some of whose columns, visible or hidden, lie in intervals.

    p(x | s) = ∫ N((x, h); means[s], covariances[s]) 1[(x, h) in the box] dh / P(box | s)

    x are the first `width` of the W columns. The others, h, are hidden: they are integrated over their intervals.
    `TensorRing.condition` returns this for a wide variable (`rd.MultivariateGaussianMixture`) if an event restricts its
    columns. Marginals, which hide columns, and conditioning keep the class.

    Accuracy depends on the number of columns with an interval that are not observed; a distribution function counts its
    own column too. Relative errors of masses are 1e-10 for at most two columns, and 1e-8 for three, unless these nearly
    determine each other. Other masses, and moments of three or more columns, are integrated on a lattice, usually to
    1e-4, for six columns to 1e-3, at worst to 1e-2. Samples within three or more intervals are drawn by rejection: they
    are exact, or raise a `ValueError` if the box is too improbable. EM does not change the parameters, only cores.

    Args:
        means: (N, W), W >= 2. covariances: (N, W, W), as of `rd.MultivariateGaussianMixture`.
        intervals: the interval of each of the W columns; `rd.Interval()` for an unbounded one.
        names: names of the visible columns, each a string or None; None for W visible columns without a name.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: as of `rd.MultivariateGaussianMixture`, or if there are not W intervals, or more names than columns.
        TypeError: if `intervals` are not of `rd.Interval`.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> size = rd.MultivariateGaussianMixture([[170.0, 70.0]], [[[100.0, 60.0], [60.0, 100.0]]], names=["cm", "kg"])
        >>> ring = rd.TensorRing([np.ones((1, 1, 1))], [size])
        >>> tall = ring.condition({"cm": rd.Interval(180, None)})
        >>> tall.variables[0]
        TruncatedMultivariateGaussianMixture(1 of 2 columns, names=['cm', 'kg'], cm in Interval(180, None))
        >>> tall.mean().round(2), round(float(tall.marginal(["kg"]).quantile("kg", 0.5, [np.nan])), 2)
        (array([185.25,  79.15]), 79.09)
    """

    _remembered: Array | None
    smooth = True

    def __init__(
        self,
        means: Array,
        covariances: Array,
        intervals: Sequence[Interval],
        names: Sequence[str | None] | None = None,
        *,
        validate: bool = True,
    ):
        gaussian = MultivariateGaussianMixture(means, covariances, validate=validate)
        intervals = tuple(intervals)
        other = next((interval for interval in intervals if not isinstance(interval, Interval)), None)
        if other is not None:
            raise TypeError(f"intervals must be a list of rd.Interval, found {other!r}")
        if len(intervals) != gaussian.width:
            raise ValueError(f"there must be {gaussian.width} intervals, one for each column, found {len(intervals)}")
        names = [None] * gaussian.width if names is None else names
        if not 1 <= len(names) <= gaussian.width:
            raise ValueError(f"there must be 1 to {gaussian.width} names of visible columns, found {len(names)}")
        options = (("intervals", intervals), ("names", check_names(names, len(names))))
        self._set(gaussian.num_components, None, gaussian.arrays(), options)

    def _set(
        self, num_components: int, name: str | None, arrays: dict[str, Array], options: Iterable[tuple[str, Any]] = ()
    ) -> Self:
        super()._set(num_components, name, arrays, options)
        self.width, self._remembered = len(self._options["names"]), None
        if self.width == 1:
            self.support = self.intervals[0].low, self.intervals[0].high
        return self

    @property
    def names(self) -> tuple[str | None, ...]:
        names: tuple[str | None, ...] = self._options["names"]
        return names

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals of the visible columns, then of the hidden ones."""
        intervals: tuple[Interval, ...] = self._options["intervals"]
        return intervals

    @property
    def supports(self) -> list[tuple[float, float]]:
        return [(interval.low, interval.high) for interval in self.intervals[: self.width]]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_components} of {described(self.names, self.intervals)})"

    @property
    def _bounded(self) -> list[int]:
        """The indices of columns with a bounded interval."""
        return [j for j, interval in enumerate(self.intervals) if not interval.is_unbounded]

    def log_density(self, x: Array) -> Array:
        """log p(observed entries | s), (..., N) of x (..., width), NaN where missing; of x (...) of one column."""
        x = self._floating(x)
        if self.width == 1:
            logs = log_joint_of_one(self._arrays["means"], self._arrays["covariances"], self.intervals, x)
            return astype(logs - self._divisor(), x.dtype)
        return astype(self.log_joint(x) - self._divisor(), x.dtype)

    def log_joint(self, x: Array) -> Array:
        """log p(observed entries, box | s) of the Gaussians, (..., N) of x (..., width)."""
        x, xp = self._floating(x), namespace(x)
        rows, size = xp.reshape(x, (-1, self.width)), self.num_components * len(self.intervals) ** 2
        logs = by_rows_that_observe(lambda some: self._given(some).log_joint(), size, rows)
        return xp.reshape(logs, (*x.shape[:-1], self.num_components))

    def _given(self, rows: Array) -> GivenBox:
        """The Gaussians of all W columns given rows (b, width)."""
        xp, hidden = namespace(rows), len(self.intervals) - self.width
        full = xp.concat([rows, like_zeros((rows.shape[0], hidden), rows) + math.nan], axis=1) if hidden else rows
        return GivenBox(self._arrays["means"], self._arrays["covariances"], self.intervals, full)

    def cdf(self, x: Array) -> Array:
        """P(X <= x | s), (..., N), of a variable with one visible column."""
        x = self._floating(x)
        xp, bounded = namespace(x), sorted({0, *self._bounded})
        low, high = ends([self.intervals[j] for j in bounded], self._arrays["means"])
        end = float(xp.finfo(x.dtype).max)
        x = xp.clip(x, min=max(self.intervals[0].low, -end), max=min(self.intervals[0].high, end))
        first = like(np.arange(len(bounded)) == 0, x, xp.bool)
        upper = xp.where(first, astype(x, low.dtype)[..., None, None], high)
        part = columns_within(self._arrays["means"], self._arrays["covariances"], bounded, low, upper)
        logs = part.log_mass() - self._divisor()
        return astype(xp.clip(xp.exp(logs), min=0.0, max=1.0), x.dtype)

    def log_probability(self, low: float, high: float) -> Array:
        """log P(low <= X <= high | s), (..., N), of a variable with one visible column."""
        interval = self.intervals[0].intersection(Interval(low, high))
        if interval is None:
            return 0 * self._divisor() - math.inf
        return self.log_probability_within({0: interval})

    def sample(self, component: Array, rng: Any) -> Array:
        if self.width > 1:
            return self.sample_given(component, None, rng)
        xp, bounded = namespace(component), sorted({0, *self._bounded})
        means, covariances = (take(self._arrays[a], xp.reshape(component, (-1,))) for a in ("means", "covariances"))
        drawn = columns_within(means, covariances, bounded, *ends([self.intervals[j] for j in bounded], means)).draw(
            rng
        )[:, 0]
        return xp.reshape(astype(drawn, means.dtype), component.shape)

    def sample_given(self, component: Array, x: Array | None, rng: Any) -> Array:
        """Rows x (n, width), completed: first the columns in intervals, then the others, which are Gaussian given them.

        Raises:
            ValueError: as of `Box.draw`.
        """
        xp, means = namespace(component), self._arrays["means"]
        flat = xp.reshape(component, (-1,))
        rows = like(np.full((flat.shape[0], self.width), np.nan), means) if x is None else x
        stream = Stream(rng, means)

        def completed(some: Array, c: Array) -> Array:
            given = self._given(some)
            full = given.rows
            if given.open:
                drawn = astype(given.box(c).draw(stream.next()), full.dtype)
                for position, j in enumerate(given.open):
                    here = like(np.arange(full.shape[1]) == j, full, xp.bool)
                    full = xp.where(here & xp.isnan(full), drawn[:, position][:, None], full)
            return self._gaussian.sample_given(c, full, stream.next())[:, : self.width]

        found = by_rows(completed, self.num_components * len(self.intervals) ** 2, rows, flat)
        return found if x is not None else xp.reshape(found, (*component.shape, self.width))

    def means(self) -> Array:
        """E[X | s], (N, width), or (..., N) of one column."""
        return self._moments()[0][..., 0] if self.width == 1 else self._moments()[0]

    def variances(self) -> Array:
        """Var[X | s], (N, width), or (..., N) of one column."""
        covariances = self.covariances()
        variances = namespace(covariances).linalg.diagonal(covariances)
        return variances[..., 0] if self.width == 1 else variances

    def covariances(self) -> Array:
        return self._moments()[1]

    def surroundings(self) -> tuple[Array, Array]:
        variances = self._arrays["covariances"][..., 0, 0]
        return self._arrays["means"][..., 0], namespace(variances).sqrt(variances)

    def conditional_means(self, x: Array) -> Array:
        """E[X | observed entries of x, s], (b, N, width), of x (b, width)."""
        size = self.num_components * len(self.intervals) ** 2
        return by_rows_that_observe(lambda rows: self._given(rows).expected()[..., : self.width], size, x)

    def _moments(self) -> tuple[Array, Array]:
        return moments(self._arrays["means"], self._arrays["covariances"], self.intervals, self.width)

    @classmethod
    def of(cls, gaussian: MultivariateGaussianMixture) -> Self:
        """The same Gaussians with unbounded intervals."""
        options = (("intervals", (Interval(),) * gaussian.width), ("names", gaussian.names))
        return cls.__new__(cls)._set(gaussian.num_components, None, gaussian.arrays(), options)

    def within(self, bounds: Mapping[int, Interval]) -> Self:
        intervals = list(self.intervals)
        for j, interval in bounds.items():
            both = interval.intersection(intervals[j])
            if both is None:
                raise ValueError(f"intervals must intersect, found {interval!r} and {intervals[j]!r}")
            intervals[j] = both
        return self._made(intervals, self.names, self._arrays)

    def log_density_within(self, x: Array, bounds: Mapping[int, Interval]) -> Array:
        if any(interval.intersection(self.intervals[j]) is None for j, interval in bounds.items()):
            return 0 * self._divisor() - math.inf + like_zeros((*x.shape[:-1], 1), x)
        return self.within(bounds).log_joint(x) - self._divisor()

    def log_probability_within(self, bounds: Mapping[int, Interval]) -> Array:
        return self.within(bounds).log_mass() - self._divisor()

    def marginal(self, places: Sequence[int]) -> Family:
        return self._part(self._arrays["means"], self._arrays["covariances"], places)

    def conditioned(self, x: Array, places: Sequence[int]) -> Family:
        given = self._given(x[None])
        return self._part(
            given.given.expected()[0], given.covariances[0], places, [*places, *range(self.width, len(self.intervals))]
        )

    def conditional(self, x: Array, place: int) -> Family:
        xp = namespace(x)
        if self.width == 1:
            return self
        here = like(np.arange(self.width) == place, x, xp.bool)
        means, covariances, hidden = self._given(xp.where(here, xp.nan, x)).column(place)
        arrays = {"means": means, "covariances": covariances}
        return self._made([self.intervals[j] for j in (place, *hidden)], self.names[place : place + 1], arrays)

    def _part(
        self, means: Array, covariances: Array, places: Sequence[int], left: Sequence[int] | None = None
    ) -> Family:
        """The variable of the columns at some places, in this order, with those in intervals among `left` hidden."""
        left = range(len(self.intervals)) if left is None else left
        hidden = [j for j in self._bounded if j not in places and j in left]
        columns = [*places, *hidden]
        intervals, names = [self.intervals[j] for j in columns], tuple(self.names[j] for j in places)
        index = indices(columns, means)
        means = take(means, index, axis=-1)
        covariances = take(take(covariances, index, axis=-1), index, axis=-2)
        if len(columns) > 1:
            arrays = {"means": means, "covariances": covariances}
            if not all(interval.is_unbounded for interval in intervals):
                return self._made(intervals, names, arrays)
            gaussian: Family = rebuild(self._gaussian.form._replace(options=(("names", names),)), arrays)
            return gaussian
        xp = namespace(means)
        arrays = {"means": means[:, 0], "stds": xp.sqrt(covariances[:, 0, 0])}
        column: Any = rebuild(Form(GaussianMixture, self.num_components, names[0]), arrays)
        return column if intervals[0].is_unbounded else Truncated(column, intervals[0])

    def inner(self, other: Any) -> Array:
        """∫ p(x | s) q(x | t) dx, (N, N'), of variables without hidden columns.

        Raises:
            ValueError: if one of them has hidden columns, or the other is of another family or width.
        """
        self._check_sibling(other)
        if {len(self.intervals), len(other.intervals), other.width} != {self.width}:
            raise ValueError("inner products within intervals need variables of equal width without hidden columns")
        means, covariances = ([v._arrays[name] for v in (self, other)] for name in ("means", "covariances"))
        mass = log_mass_of_products(means, covariances, (self.intervals, other.intervals))
        apart = self._gaussian.inner(other._gaussian)
        return apart * like(namespace(mass).exp(mass - self._divisor()[:, None] - other._divisor()[None, :]), apart)

    @property
    def _gaussian(self) -> Any:
        """The untruncated Gaussians of all W columns."""
        options = (("names", (None,) * len(self.intervals)),)
        return rebuild(Form(MultivariateGaussianMixture, self.num_components, None, options), self._arrays)

    def log_mass(self) -> Array:
        """log P(box | s), (..., N)."""
        bounded, (means, covariances) = self._bounded, (self._arrays[name] for name in ("means", "covariances"))
        if not bounded:
            return astype(0 * means[..., 0], accumulator(means))
        return columns_within(
            means, covariances, bounded, *ends([self.intervals[j] for j in bounded], means)
        ).log_mass()

    def _divisor(self) -> Array:
        """`log_mass`, with 0 for components without mass; remembered if it records no gradient."""
        if self._remembered is not None:
            return self._remembered
        arrays = list(self._arrays.values())
        with lasting(arrays[0]):
            mass = self.log_mass()
            divisor = namespace(mass).where(mass > -math.inf, mass, 0.0)
        if is_concrete(*arrays, divisor) and not records_gradient(divisor):
            self._remembered = divisor
        return divisor

    def _made(self, intervals: Sequence[Interval], names: Sequence[str | None], arrays: dict[str, Array]) -> Self:
        options = (("intervals", tuple(intervals)), ("names", tuple(names)))
        return type(self).__new__(type(self))._set(self.num_components, None, arrays, options)

    def _floating(self, x: Array) -> Array:
        xp = namespace(x)
        return x if xp.isdtype(x.dtype, "real floating") else astype(x, self._arrays["means"].dtype)
