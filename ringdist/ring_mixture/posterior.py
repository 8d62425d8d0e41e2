"""Posteriors and conditionals of one column of a mixture of rings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ringdist.backend import Array, astype, indices, like, namespace
from ringdist.network.layout import Column
from ringdist.network.rows import as_rows
from ringdist.queries import posterior as queries
from ringdist.queries.posterior import (
    component_posteriors,
    conditional_family,
    levels_and_rest,
    point_and_rest,
    quantiles,
)
from ringdist.ring_mixture.density import possible, ring_posteriors
from ringdist.ring_mixture.structure import Mixture
from ringdist.variables import Family


def component_posterior(mixture: Mixture, k: Column, x: Any) -> Array:
    """Posterior weights of the components of column k given the observed entries of the row; x[..., k] itself is used.

    For a categorical column, where a component is a value, these are p(x_k | observed), shape (..., N_k). For another
    column a component is a pair (c, s) of a ring and one of its components, and these are p(c, s_k | observed), ring
    after ring, shape (..., Σ_c N_k of ring c). They sum to 1.

    Raises:
        ValueError: if the column is unknown, x does not fit, or a row's evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> near = rd.TensorRing([np.ones((1, 1, 1))], [rd.GaussianMixture([0.0], [1.0])])
        >>> wide = rd.TensorRing([np.ones((2, 1, 1))], [rd.GaussianMixture([-5.0, 5.0], [1.0, 1.0])])
        >>> mixture = rd.RingMixture([near, wide], [0.5, 0.5])
        >>> mixture.component_posterior(0, [[np.nan], [5.0]]).round(3)
        array([[0.5 , 0.25, 0.25],
               [0.  , 0.  , 1.  ]])
    """
    k = mixture.column(k)
    rows, shape = as_rows(mixture.rings[0], x)
    weights = _component_weights(mixture, k, rows)
    xp, site = namespace(rows), mixture.rings[0].place(k)[0]
    if mixture.rings[0].families[site].values_are_components:
        size = mixture.rings[0].shape[site]
        weights = xp.sum(xp.reshape(weights, (-1, mixture.num_rings, size)), axis=1)
    return xp.reshape(weights, (*shape, weights.shape[1]))


def _component_weights(mixture: Mixture, k: int, rows: Array) -> Array:
    """p(c, s_k | row) for rows (b, d), ring after ring, (b, Σ_c N_k)."""
    parts = [
        share[:, None] * component_posteriors(ring, possible(share, rows), [ring.place(k)[0]])[0]
        for ring, share in zip(mixture.rings, shares(mixture, rows), strict=True)
    ]
    return namespace(rows).concat(parts, axis=1)


def shares(mixture: Mixture, rows: Array) -> list[Array]:
    """p(ring c | row) for every ring, each (b,) in the rings' dtype."""
    posterior = astype(ring_posteriors(mixture, rows), rows.dtype)
    return [posterior[:, c] for c in range(mixture.num_rings)]


def cdf(mixture: Mixture, k: Column, x: Any) -> Array:
    """F(x_k | other observed entries) = Σ_c p(c | others) F_c(x_k | others), shape (...); the point is x[..., k].

    Raises:
        ValueError: if the column is unknown, x does not fit, the point is missing, or the evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.ones((1, 1, 1))], [rd.GaussianMixture([mean], [1.0])]) for mean in (-1.0, 1.0)
        ... )
        >>> rd.RingMixture([a, b], [0.5, 0.5]).cdf(0, [[-1.0], [0.0]]).round(4)
        array([0.2614, 0.5   ])
    """
    k = mixture.column(k)
    point, rest = point_and_rest(mixture.rings[0], k, x)
    rows, shape = as_rows(mixture.rings[0], rest)
    xp, d = namespace(rows), mixture.num_columns
    here, points = indices(range(d), rows) == k, xp.reshape(point, (-1, 1))
    parts = [
        share * queries.cdf(ring, k, xp.where(here, points, possible(share, rows)))
        for ring, share in zip(mixture.rings, shares(mixture, rows), strict=True)
    ]
    return xp.reshape(sum(parts[1:], parts[0]), shape)


def quantile(mixture: Mixture, k: Column, q: Any, x: Any) -> Array:
    """The smallest value of column k with F(value | other observed entries) >= q, shape (...).

    Args:
        k: the column, an index or a name.
        q: probabilities in [0, 1], broadcast against the leading shape of x.
        x: (..., d) evidence; x[..., k] is ignored.

    Computed by bisection of the distribution function of the mixture down to neighbouring floating-point numbers, at
    every scale; integers for integer-valued families.

    Raises:
        ValueError: if the column is unknown, x does not fit, q is outside [0, 1], or the evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.ones((1, 1, 1))], [rd.GaussianMixture([mean], [1.0])]) for mean in (-1.0, 1.0)
        ... )
        >>> rd.RingMixture([a, b], [0.5, 0.5]).quantile(0, [0.25, 0.75], [np.nan]).round(3)
        array([-1.051,  1.051])
    """
    k = mixture.column(k)
    levels, rest = levels_and_rest(mixture.rings[0], k, q, x)
    rows, shape = as_rows(mixture.rings[0], rest)
    families = [conditional_family(ring, k, rows) for ring in mixture.rings]
    return quantiles(_Joined(families, rows), _component_weights(mixture, k, rows), levels, shape)


class _Joined(Family):
    """The components that one column has in several rings, side by side, as far as quantiles ask for them."""

    def __init__(self, families: Sequence[Family], prototype: Array):
        self._families, self._prototype = list(families), prototype
        self.integer, self.support = families[0].integer, families[0].support
        self.smooth = any(family.smooth for family in families) and all(own.measure == "reals" for own in families)
        self._set(sum(family.num_components for family in families), families[0].name, {})

    def cdf(self, x: Array) -> Array:
        return namespace(x).concat([like(family.cdf(x), x) for family in self._families], axis=-1)

    def with_rows(self, change: Callable[[Array], Array]) -> Family:
        return _Joined([family.with_rows(change) for family in self._families], self._prototype)

    def means(self) -> Array:
        return self._side_by_side([family.means() for family in self._families])

    def surroundings(self) -> tuple[Array, Array]:
        centres, scales = zip(*(family.surroundings() for family in self._families), strict=True)
        return self._side_by_side(centres), self._side_by_side(scales)

    def _side_by_side(self, parts: Sequence[Array]) -> Array:
        """Parameters (N,) or (b, N) of the families, (..., Σ N)."""
        xp, parts = namespace(self._prototype), [like(part, self._prototype) for part in parts]
        rows = [part.shape[0] for part in parts if part.ndim == 2]
        if rows:
            parts = [xp.broadcast_to(part, (rows[0], part.shape[-1])) for part in parts]
        return xp.concat(parts, axis=-1)

    def is_endless(self, x: Array) -> Any:
        found = self._families[0].is_endless(x)
        for family in self._families[1:]:
            found = found | family.is_endless(x)
        return found
