"""Gaussian components over several columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    identity,
    indices,
    like,
    namespace,
    normal,
    take,
)
from ringdist.variables import factors
from ringdist.variables.checks import check_covariances, check_names, check_values, floating
from ringdist.variables.form import Form
from ringdist.variables.gaussian import GaussianMixture
from ringdist.variables.multivariate_functions import (
    AT_ONCE,
    Given,
    by_rows,
    common_correlations,
    correlations,
    floored,
    scaled,
)
from ringdist.variables.multivariate_placing import centres_and_covariances
from ringdist.variables.protocol import Family, rebuild


class MultivariateGaussianMixture(Family):
    """w real columns that share a component, with a full covariance matrix in each.

    p(x | s) = N(x; means[s], covariances[s]) for x of shape (..., w)

    By default the w columns of the variable follow each other in x; `TensorRing(..., columns=...)` places them
    anywhere. Given any observed entries of a row, densities, moments and draws of the others are those of the
    conditional Gaussian, exactly. A ring of one such variable with rank 1 is a Gaussian mixture with full covariances.
    For few rows, see `num_factors` and `shrinkage` of `fit_em`.

    Args:
        means: (N, w) means, w >= 2, finite, in the units of the data.
        covariances: (N, w, w) covariance matrices, symmetric, finite and positive definite in their dtype. The squares
            of standard deviations must lie in the range of the dtype.
        names: w names of the columns, each a string or None; None if no column has a name.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes do not fit, a value is not finite, or a matrix is not symmetric or not positive definite.
        TypeError: if a name is neither a string nor None, or an array is not floating point.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> size = rd.MultivariateGaussianMixture([[170.0, 70.0]], [[[100.0, 60.0], [60.0, 100.0]]], names=["cm", "kg"])
        >>> ring = rd.TensorRing([np.ones((1, 1, 1))], [size])
        >>> ring.mean([[180.0, np.nan], [np.nan, 80.0]])
        array([[180.,  76.],
               [176.,  80.]])
    """

    positive = ("stds",)
    streams = True
    has_variance = True
    _noise: Array | None = None  # (N, w) Ψ of covariances ΛΛᵀ + Ψ that an M step has found, to start the next one from

    def __init__(
        self,
        means: Array,
        covariances: Array,
        names: Sequence[str | None] | None = None,
        *,
        validate: bool = True,
    ):
        means, covariances = floating("means", means), floating("covariances", covariances)
        namespace(means, covariances)
        if means.ndim != 2 or means.shape[0] == 0 or means.shape[1] < 2:
            found = f"found {tuple(means.shape)}"
            raise ValueError(f"means must have shape (N, w) with w >= 2, {found}; one column is an rd.GaussianMixture")
        size, width = (int(n) for n in means.shape)
        if tuple(covariances.shape) != (size, width, width):
            raise ValueError(
                f"covariances must have shape (N, w, w), {(size, width, width)} for these means, found "
                f"{tuple(covariances.shape)}"
            )
        if validate:
            check_values("means", means, np.isfinite, "finite")
            check_covariances(covariances)
        options = (("names", check_names(names, width)),)
        self._set(size, None, {"means": means, "covariances": covariances}, options)

    def _set(
        self, num_components: int, name: str | None, arrays: dict[str, Array], options: Iterable[tuple[str, Any]] = ()
    ) -> Self:
        super()._set(num_components, name, arrays, options)
        self.width = len(self._options["names"])
        return self

    @property
    def names(self) -> tuple[str | None, ...]:
        names: tuple[str | None, ...] = self._options["names"]
        return names

    def __repr__(self) -> str:
        names = "" if set(self.names) == {None} else f", names={list(self.names)!r}"
        return f"MultivariateGaussianMixture({self.num_components} of {self.width} columns{names})"

    def free_arrays(self) -> dict[str, Array]:
        """Means, standard deviations, and the Cholesky factor of the correlations, each row over its diagonal entry.

        Any numbers, with positive standard deviations, are those of a variable.
        """
        covariances = self._arrays["covariances"]
        xp = namespace(covariances)
        factor = xp.linalg.cholesky(correlations(covariances))
        rows = factor / xp.linalg.diagonal(factor)[:, :, None]
        return {"means": self._arrays["means"], "stds": self.standard_deviations(), "rows": xp.tril(rows, k=-1)}

    def with_free_arrays(self, arrays: dict[str, Array]) -> Family:
        xp, rows, stds = namespace(arrays["rows"]), arrays["rows"], arrays["stds"]
        rows = xp.tril(rows, k=-1) + identity(self.width, rows)
        rows = rows / xp.sqrt(xp.sum(rows * rows, axis=-1, keepdims=True)) * stds[:, :, None]
        return self.with_arrays({"means": arrays["means"], "covariances": rows @ rows.mT})

    # --------------------------------------------------------------------------------- the density

    def log_density(self, x: Array) -> Array:
        """log p(observed entries | s), (..., N) of x (..., w), NaN where missing; 0 where nothing is observed."""
        xp, size = namespace(x), self.num_components
        rows = xp.reshape(x, (-1, self.width))
        logs = by_rows(lambda some: self._given(some).log_density(), size * self.width**2, rows)
        return xp.reshape(logs, (*x.shape[:-1], size))

    def sample(self, component: Array, rng: Any) -> Array:
        """One row for each entry of `component` (...), (..., w)."""
        return self.sample_given(component, None, rng)

    def sample_given(self, component: Array, x: Array | None, rng: Any) -> Array:
        """Rows x (n, w) with their NaN entries drawn from p(missing | observed, component), for components (n,)."""
        means = self._arrays["means"]
        xp, flat = namespace(means), namespace(component).reshape(component, (-1,))
        noise = normal(rng, (flat.shape[0], self.width), means)
        if x is None:
            factor = xp.linalg.cholesky(correlations(self._arrays["covariances"]))
            stds = self.standard_deviations()

            def drawn(c: Array, z: Array) -> Array:
                return take(means, c) + take(stds, c) * xp.sum(take(factor, c) * z[:, None, :], axis=-1)

            return xp.reshape(by_rows(drawn, 2 * self.width**2, flat, noise), (*component.shape, self.width))

        def completed(rows: Array, c: Array, z: Array) -> Array:
            return xp.where(xp.isnan(rows), self._given(rows).drawn(c, z), rows)

        return by_rows(completed, 4 * self.width**2, x, flat, noise)

    def means(self) -> Array:
        """E[X | s], (N, w)."""
        return self._arrays["means"]

    def variances(self) -> Array:
        """Var[X | s] of every column, (N, w)."""
        return namespace(self._arrays["covariances"]).linalg.diagonal(self._arrays["covariances"])

    def covariances(self) -> Array:
        return self._arrays["covariances"]

    def inner(self, other: Any) -> Array:
        """N(means[s]; other.means[t], covariances[s] + other.covariances[t]), (N, N')."""
        self._check_sibling(other)
        if self.width != other.width:
            raise ValueError(f"inner products need as many columns, found {self.width} and {other.width}")
        means, others = self._arrays["means"][:, None], other._arrays["means"][None]
        xp = namespace(means, others)
        total = self._arrays["covariances"][:, None] + other._arrays["covariances"][None]
        size, width = total.shape[:2], self.width
        arrays = {
            "means": xp.reshape(means - others, (-1, width)),
            "covariances": xp.reshape(total, (-1, width, width)),
        }
        pairs: Any = rebuild(self.form._replace(num_components=size[0] * size[1]), arrays)
        zero = 0 * pairs._arrays["means"][:1]
        return xp.reshape(xp.exp(pairs.log_density(zero)), size)

    # ---------------------------------------------------------------------------- some columns, given others

    def marginal(self, places: Sequence[int]) -> Family:
        means, covariances = self._arrays["means"], self._arrays["covariances"]
        return self._part(means, covariances, places)

    def conditioned(self, x: Array, places: Sequence[int]) -> Family:
        given = self._given(x[None])
        free = given.free_factor()[0]
        covariances = scaled(free @ free.mT, given.stds)
        return self._part(given.expected()[0], covariances, places)

    def conditional(self, x: Array, place: int) -> Family:
        xp = namespace(x)
        here = like(np.arange(self.width) == place, x, xp.bool)

        def parameters(rows: Array) -> Array:
            given = self._given(xp.where(here, xp.nan, rows))
            means, stds = given.expected()[..., place], given.spreads()[..., place]
            return xp.stack([means, xp.broadcast_to(stds, means.shape)], axis=1)

        found = by_rows(parameters, self.num_components * self.width**2, x)  # (b, 2, N)
        arrays = {"means": found[:, 0], "stds": found[:, 1]}
        family: Family = rebuild(Form(GaussianMixture, self.num_components, self.names[place]), arrays)
        return family

    def conditional_means(self, x: Array) -> Array:
        return by_rows(lambda some: self._given(some).expected(), self.num_components * self.width**2, x)

    def _part(self, means: Array, covariances: Array, places: Sequence[int]) -> Family:
        """The columns at some places, in this order, of Gaussians with these parameters."""
        xp, names = namespace(means), tuple(self.names[j] for j in places)
        index = indices(list(places), means)
        means, covariances = take(means, index, axis=1), take(take(covariances, index, axis=1), index, axis=2)
        if len(names) == 1:
            arrays = {"means": means[:, 0], "stds": xp.sqrt(covariances[:, 0, 0])}
            form = Form(GaussianMixture, self.num_components, names[0])
        else:
            arrays = {"means": means, "covariances": covariances}
            form = self.form._replace(options=(("names", names),))
        part: Family = rebuild(form, arrays)
        return part

    def _given(self, x: Array) -> Given:
        return Given(self._arrays["means"], self._arrays["covariances"], x)

    # ------------------------------------------------------------------------------------ learning

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        """As in `Family`, of rows (n, w) with NaN where missing: centres of k-means whatever the method."""
        return cls(*centres_and_covariances(observed, num_components, limits), **options)

    @classmethod
    def width_of(cls, names: Sequence[str | None] | None = None, **options: Any) -> int | None:
        return None if names is None else len(names)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Of x (n, w): sums of the responsibilities, alone, times E[offset], times E[offset offsetᵀ].

        Offsets are from the means, in standard deviations; expectations are those of the missing entries given the
        observed ones. A row counts unless all of its entries are missing.
        """
        step = max(1, AT_ONCE // (self.num_components * self.width**2))
        sums: dict[str, Array] = {}
        for start in range(0, max(1, x.shape[0]), step):
            some = self._statistics(x[start : start + step], responsibilities[start : start + step])
            sums = {name: sums[name] + value for name, value in some.items()} if sums else some
        return sums

    def _statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        given, xp = self._given(x), namespace(responsibilities)
        weights = xp.where(xp.any(given.observed, axis=-1)[:, None], responsibilities, 0.0)
        offsets = xp.permute_dims(given.offsets(), (1, 0, 2))  # (N, n, w)
        weighted = weights.T[:, :, None] * offsets
        return {
            "count": xp.sum(weights, axis=0),
            "offset": xp.sum(weighted, axis=1),
            "square": weighted.mT @ offsets + given.free_covariance(weights),
        }

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        shape = correlations(self._arrays["covariances"])
        return {
            "count": weights,
            "offset": 0 * weights[:, None] * self._arrays["means"],
            "square": weights[:, None, None] * shape,
        }

    def shrunk(self, statistics: dict[str, Array], rows: float) -> dict[str, Array]:
        """With `rows` in every component at its own mean, of the correlations that components have in common.

        Their variances are those of the component beside rows / width rows of the typical ones.
        """
        if rows == 0:
            return statistics
        count, offset, square = (statistics[name] for name in ("count", "offset", "square"))
        stds = self.standard_deviations()
        scale = stds[:, :, None] * stds[:, None, :]
        shift = offset / namespace(count).where(count > 0, count, 1.0)[:, None]
        moved = shift[:, :, None] * shift[:, None, :]
        prior = common_correlations((square - count[:, None, None] * moved) * scale, count, rows / self.width) / scale
        return {
            "count": count + rows,
            "offset": offset + rows * shift,
            "square": square + rows * (prior + moved),
        }

    def from_statistics(self, statistics: dict[str, Array], least_std: Any = 0.0) -> Self:
        """As in `Family`.

        Args:
            statistics: as there.
            least_std: (w,), or one number: covariances are at least diag(least_std²), in that every eigenvalue of
                diag(1 / least_std) Σ diag(1 / least_std) is at least 1. Beside it stands what rounding asks for.
        """
        return self.from_factors(statistics, least_std, None)

    def from_factors(self, statistics: dict[str, Array], least_std: Any, num_factors: int | None) -> Self:
        """As in `Family`; the noise of every column is at least least_std²."""
        means, covariances = self._arrays["means"], self._arrays["covariances"]
        xp, stds = namespace(means), self.standard_deviations()
        eps = float(xp.finfo(means.dtype).eps)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)[:, None]
        shift, square = statistics["offset"] / count, statistics["square"] / count[:, :, None]
        found = square - shift[:, :, None] * shift[:, None, :]
        found = xp.where(seen[:, None, None], 0.5 * (found + found.mT), correlations(covariances))
        variance, raw = xp.linalg.diagonal(found), xp.linalg.diagonal(square)
        moved = means + xp.where(seen[:, None], shift, 0.0) * stds
        clear = ~seen[:, None] | (variance > 16 * eps * raw)  # below, the difference is made of rounding
        clear = clear & (xp.sqrt(xp.where(clear, variance, 1.0)) * stds > 2 * eps * xp.abs(moved))
        floor = like(np.asarray(least_std, dtype=np.float64), means) / stds  # (N, w)
        kept = xp.where(floor > 0, floor, 1.0)  # a constant column keeps its standard deviation if there is no floor
        rounding = xp.sqrt(16 * self.width * eps * xp.where(clear, variance, 0.0))
        least = xp.where(clear, xp.maximum(floor, rounding), kept)
        return self._moved(moved, found, least, num_factors)

    def factored(self, num_factors: int) -> Self:
        eps = float(namespace(self._arrays["means"]).finfo(self._arrays["means"].dtype).eps)
        least = 0 * self._arrays["means"] + (16 * self.width * eps) ** 0.5
        return self._moved(self._arrays["means"], correlations(self._arrays["covariances"]), least, num_factors)

    def _moved(self, means: Array, found: Array, least: Array, num_factors: int | None) -> Self:
        """With these means and the best covariances for `found` (N, w, w); that and `least` in standard deviations."""
        stds, noise = self.standard_deviations(), None
        if num_factors is None or num_factors >= self.width - 1:  # every covariance has w - 1 factors
            covariances = floored(found, least)
        else:
            start, steps = self._noise, factors.STEPS
            if start is None:
                start, steps = factors.FIRST_NOISE * stds * stds, factors.FIRST_STEPS
            covariances, noise = factors.factored(found, start / stds / stds, least, num_factors, steps)
            noise = astype(noise * stds * stds, means.dtype)
        arrays = {"means": means, "covariances": scaled(covariances, stds)}
        dtype = self._arrays["means"].dtype
        result: Any = self.with_arrays({name: astype(array, dtype) for name, array in arrays.items()})
        result._noise = noise
        return result
