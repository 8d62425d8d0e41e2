"""Multivariate Gaussian components evaluated on rows with missing entries.

The pattern of a row is the set of the w entries that it observes. With the observed entries before the missing ones,
the Cholesky factor of a covariance is

    Σ = L Lᵀ,  L = [[L_oo, 0], [L_mo, L_mm]]

and determines all results for a pattern: z = L_oo⁻¹ (x_o − μ_o) is standard normal, log p(x_o) = −|z|²/2 − log det L_oo
− |o| log(2π) / 2, E[x_m | x_o] = μ_m + L_mo z, and Cov[x_m | x_o] = L_mm L_mmᵀ, which rounding cannot make indefinite.
There is one factor for each pattern and component, and each row uses those of its pattern.

Columns are in units of each component's standard deviations, so Σ is a correlation matrix for any scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    backend_name,
    cached_property,
    identity,
    indices,
    is_concrete,
    like,
    namespace,
    stop_gradient,
    sum_by_index,
    take,
    to_numpy,
    value_range,
    without_warnings,
)
from ringdist.variables.gaussian_functions import HALF_LOG_2PI, overflowing

MOST_BITS = 62  # largest number of entries whose pattern fits in one integer
CACHED = 2**18  # numbers in the matrices of one batched product
AT_ONCE = 2**23  # numbers in memory together
LEAST_SHARE = 1e-3  # of a column's mean variance: lower bound of a component's variance in the geometric mean


class Patterns(NamedTuple):
    """P patterns, and the index of each row's pattern."""

    observed: Array  # (P, w) bool
    of_row: Array | None  # (b,); None where there is one pattern, or one for each row
    complete: bool = False  # whether it is certain that nothing is missing


def patterns_of(x: Array) -> Patterns:
    """The patterns of rows x (b, w), NaN where missing; under tracing every row has its own pattern."""
    missing = namespace(x).isnan(x)
    if not is_concrete(missing):
        return Patterns(~missing, None)
    mask = to_numpy(missing)
    if not mask.any():
        return Patterns(like(np.ones((1, x.shape[1])), x, namespace(x).bool), None, complete=True)
    keys = mask @ (1 << np.arange(x.shape[1], dtype=np.int64)) if x.shape[1] <= MOST_BITS else mask
    _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    observed = like(~mask[first], x, namespace(x).bool)
    return Patterns(observed, indices(np.reshape(index, -1), x) if first.shape[0] > 1 else None)


class Given:
    """N Gaussians of w columns given the observed entries of each of b rows.

    Args:
        means: (N, w). covariances: (N, w, w), positive definite.
        x: (b, w), NaN where missing.
    """

    def __init__(self, means: Array, covariances: Array, x: Array):
        xp = self.xp = namespace(means, covariances, x)
        x = x if xp.isdtype(x.dtype, "real floating") else astype(x, means.dtype)
        dtype = xp.result_type(means.dtype, covariances.dtype, x.dtype)
        means, covariances, x = (astype(array, dtype) for array in (means, covariances, x))
        self.patterns, missing = patterns_of(x), xp.isnan(x)
        self.observed, self.means = ~missing, means  # (b, w), (N, w)
        self.stds = xp.sqrt(xp.linalg.diagonal(covariances))  # (N, w)
        observed = self.patterns.observed
        order = xp.argsort(astype(~observed, xp.int32), axis=-1, stable=True)  # (P, w)
        self._known = value_range(x.shape[1], x) < astype(xp.sum(observed, axis=-1), dtype)[:, None]  # (P, w)
        place = xp.argsort(order, axis=-1)
        ordered = xp.linalg.cholesky(_permuted(correlations(covariances), order))  # (P, N, w, w)
        self.factor = xp.take_along_axis(ordered, place[:, None, :, None], axis=2)  # rows: columns of x
        inverse = xp.linalg.solve(ordered, xp.broadcast_to(identity(x.shape[1], x), ordered.shape))
        inverse = xp.where(self._known[:, None, :, None], inverse, 0.0)
        self.whitening = xp.take_along_axis(inverse, place[:, None, None, :], axis=3)  # columns: columns of x
        logs = xp.log(xp.linalg.diagonal(ordered)) + xp.log(xp.take_along_axis(self.stds[None], order[:, None], axis=2))
        self._log_scale = xp.sum(xp.where(self._known[:, None], logs + HALF_LOG_2PI, 0.0), axis=-1)  # (P, N)
        self._filled = xp.where(missing, 0.0, x)

    @cached_property
    def residuals(self) -> Array:
        """(x − μ) / σ of every component, (b, N, w); arbitrary where missing."""
        with without_warnings(self._filled):
            return (self._filled[:, None, :] - self.means) / self.stds

    def log_density(self) -> Array:
        """log p(observed | s), (b, N); 0 where nothing is observed, −inf where the square of a residual overflows."""
        bound = overflowing(self.residuals)
        z = _applied(self.whitening, self.patterns.of_row, self.xp.clip(self.residuals, min=-bound, max=bound))
        with without_warnings(z):
            square = self.xp.sum(z * z, axis=-1)
        return -0.5 * square - self._of_rows(self._log_scale)

    def offsets(self) -> Array:
        """E[x | observed, s] − μ, in standard deviations, (b, N, w)."""
        if self.patterns.complete:
            return self.residuals
        known = self.xp.where(self._known[:, None, None, :], self.factor, 0.0)
        expected = _applied(known @ self.whitening, self.patterns.of_row, self.residuals)
        return self.xp.where(self.observed[:, None, :], self.residuals, expected)

    def free_factor(self) -> Array:
        """F (P, N, w, w) with Cov[x | observed, s] = F Fᵀ in standard deviations; rows of observed entries are 0."""
        return self.xp.where(self._known[:, None, None, :], 0.0, self.factor)

    def spreads(self) -> Array:
        """The conditional standard deviation of each column given the observed ones, (b, N, w); 0 where observed."""
        free = self.free_factor()
        variances = self._of_rows(self.xp.sum(free * free, axis=-1))
        missing = ~self.observed[:, None, :]
        return self.xp.where(missing, self.xp.sqrt(self.xp.where(missing, variances, 1.0)), 0.0) * self.stds

    def expected(self) -> Array:
        """E[x | observed, s], (b, N, w)."""
        return self.means + self.offsets() * self.stds

    def free_covariance(self, weights: Array) -> Array:
        """Σ_rows weights[row, s] Cov[x | observed, s] in standard deviations, (N, w, w), for weights (b, N)."""
        free, index = self.free_factor(), self.patterns.of_row
        if free.shape[0] == 1:
            counts = self.xp.sum(weights, axis=0, keepdims=True)
        else:
            counts = weights if index is None else sum_by_index(weights, index, free.shape[0])
        return self.xp.sum(counts[..., None, None] * (free @ free.mT), axis=0)

    def drawn(self, component: Array, noise: Array) -> Array:
        """Samples (b, w) of p(x | observed, component) from standard normal numbers (b, w); arbitrary where observed.

        Args:
            component: (b,) integers.
        """
        xp, (patterns, size, width, _) = self.xp, self.factor.shape
        pattern = self.patterns.of_row
        if pattern is None:
            pattern = component * 0 if patterns == 1 else indices(range(patterns), component)
        flat, place = (patterns * size, width, width), pattern * size + component
        factor, whitening = (take(xp.reshape(part, flat), place) for part in (self.factor, self.whitening))
        means, stds = take(self.means, component), take(self.stds, component)
        z = xp.sum(whitening * ((self._filled - means) / stds)[:, None, :], axis=-1)
        z = xp.where(take(self._known, pattern), z, noise)
        return means + stds * xp.sum(factor * z[:, None, :], axis=-1)

    def _of_rows(self, array: Array) -> Array:
        """The entries (b, ...) of each row's pattern, or (1, ...) if all rows have the same."""
        return array if self.patterns.of_row is None else take(array, self.patterns.of_row)


def correlations(covariances: Array) -> Array:
    """Σ / (σ σᵀ), (N, w, w)."""
    xp = namespace(covariances)
    stds = xp.sqrt(xp.linalg.diagonal(covariances))
    return covariances / stds[:, :, None] / stds[:, None, :]


def common_correlations(scatter: Array, count: Array, rows: float) -> Array:
    """Covariances (N, w, w) with the pooled correlations within components and each component's own variances.

    The variances of a component are shrunk, by a prior of `rows` rows, towards the geometric mean of those of all
    components. Components may have very different widths, and share their correlations rather than their variances.

    Args:
        scatter: sums of squares about the means, (N, w, w). count: of how many rows, (N,).
    """
    xp, total = namespace(scatter), namespace(count).sum(count)
    within = xp.sum(scatter, axis=0) / xp.where(total > 0, total, 1.0)
    variances = xp.linalg.diagonal(within)
    own = xp.linalg.diagonal(scatter) / xp.where(variances > 0, variances, 1.0)  # (N, w), of mean variance 1
    shares = xp.clip(own / xp.where(count > 0, count, 1.0)[:, None], min=LEAST_SHARE)
    typical = xp.exp(xp.sum(count[:, None] * xp.log(shares), axis=0) / xp.where(total > 0, total, 1.0))
    stds = xp.sqrt(xp.clip(own + rows * typical, min=0.0) / (count[:, None] + rows))
    return scaled(within, stds)


def scaled(covariances: Array, stds: Array) -> Array:
    """diag(stds) Σ diag(stds) for Σ (..., w, w), exactly symmetric, also after conversion to another precision."""
    return 0.5 * (covariances + covariances.mT) * (stds[..., :, None] * stds[..., None, :])


def floored(covariances: Array, least: Array) -> Array:
    """The covariances of highest expected log-likelihood among those that are at least diag(least²).

    With D = diag(least), the eigenvalues of D⁻¹ Σ D⁻¹ that are below 1 become 1: in these coordinates the maximiser of
    −(log det Σ + tr Σ⁻¹ S) / 2 has the eigenvectors of S, and each eigenvalue is maximised independently.

    Args:
        covariances: S (N, w, w), symmetric. least: (N, w), positive.
    """
    xp = namespace(covariances)
    values, vectors = xp.linalg.eigh(covariances / least[:, :, None] / least[:, None, :])
    raised = (vectors * xp.clip(values, min=1.0)[:, None, :]) @ vectors.mT
    raised = scaled(raised, least)
    return xp.where(stop_gradient(xp.min(values, axis=-1))[:, None, None] < 1, raised, covariances)


def by_rows(function: Callable[..., Array], numbers_per_row: int, *arrays: Array) -> Array:
    """The function of arrays (b, ...) with results (b, ...), applied to a bounded number of rows at a time."""
    rows, step = arrays[0].shape[0], max(1, AT_ONCE // numbers_per_row)
    if rows <= step or not is_concrete(*arrays):
        return function(*arrays)
    parts = [function(*(array[i : i + step] for array in arrays)) for i in range(0, rows, step)]
    return namespace(arrays[0]).concat(parts)


def _permuted(matrices: Array, order: Array) -> Array:
    """Matrices (N, w, w) with rows and columns permuted by each of the orders (P, w), (P, N, w, w)."""
    xp, (size, width, _) = namespace(matrices), matrices.shape
    place = xp.reshape(order[:, :, None] * width + order[:, None, :], (-1,))
    found = take(xp.reshape(matrices, (size, width * width)), place, axis=1)
    return xp.permute_dims(xp.reshape(found, (size, order.shape[0], width, width)), (1, 0, 2, 3))


def _applied(matrices: Array, index: Array | None, vectors: Array) -> Array:
    """The products of each row's matrices among (P, N, w, w) and its vectors (b, N, w)."""
    xp = namespace(vectors)
    if matrices.shape[0] == 1:  # one product for each component
        return xp.permute_dims(xp.permute_dims(vectors, (1, 0, 2)) @ matrices[0].mT, (1, 0, 2))
    if index is None:
        return (matrices @ vectors[..., None])[..., 0]
    rows, width = vectors.shape[0], vectors.shape[2]
    step = max(1, rows if backend_name(vectors) == "jax" else CACHED // (vectors.shape[1] * width**2))
    blocks = [slice(i, i + step) for i in range(0, rows, step)]
    return xp.concat([(take(matrices, index[own]) @ vectors[own, ..., None])[..., 0] for own in blocks])
