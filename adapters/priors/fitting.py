"""Gaussian mixtures fitted to latent codes, for the re-initialisation of priors."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adapters.priors.base import real_rows
from adapters.priors.mixture import DiagonalMixture
from ringdist.backend import exp, logsumexp
from ringdist.engines import budget
from ringdist.engines.budget import rows_within

LEAST_STD = 1e-3  # the standard deviation in a dimension in which the codes do not vary
LEAST_GAIN = 1e-3  # nats per code, with which EM goes on


def codes(z: Tensor, width: int, least: int) -> Tensor:
    """Latent codes (n, width), detached and in float64, after checks.

    Raises:
        TypeError: if z is not a floating point tensor.
        ValueError: if z is not an (n, width) table, has fewer than `least` rows, or an entry is NaN or infinite.
    """
    z = real_rows("z", z, width).detach()
    if z.ndim != 2:
        raise ValueError(f"z must have shape (n, {width}), found {tuple(z.shape)}")
    if z.shape[0] < least:
        raise ValueError(f"re-initialisation needs at least {least} rows of codes, found {z.shape[0]}")
    wrong = (~z.isfinite()).nonzero()
    if wrong.shape[0]:
        row, column = wrong[0].tolist()
        raise ValueError(f"codes must be finite, found {z[row, column].item():g} in row {row}, column {column}")
    return z.double()


class FittedGaussians(NamedTuple):
    """K Gaussians in d dimensions: log_weights (K,), means (K, d), log_stds (K, d), float64 on the CPU."""

    log_weights: Tensor
    means: Tensor
    log_stds: Tensor


def fit_gaussians(
    z: Tensor, num_components: int, *, max_iter: int, init: Literal["kmeans", "k-means++"], seed: int
) -> FittedGaussians:
    """A mixture with diagonal covariances, fitted by EM to codes (n, d), n >= num_components.

    It stops after an iteration that changes the mean log-likelihood by less than `LEAST_GAIN`. The iterations are those
    of scikit-learn's mixture, on parts of the codes that stay in the cache.

    Args:
        z: finite codes.
        num_components: K.
        max_iter: iterations of EM.
        init: "kmeans" starts from the clusters of k-means, "k-means++" from codes that are far from each other.
        seed: of the initialisation.
    """
    rows = z.double().cpu()
    centre = rows.mean(0)
    rows = rows - centre  # variances are differences of squares
    squared = torch.cat([rows, rows.square()], dim=1)
    value, sums = -torch.inf, _initial_sums(squared, num_components, init, seed)
    for _ in range(max_iter):
        previous = value
        value, sums = _expectation(squared, _maximum(sums))
        if abs(value - previous) < LEAST_GAIN:
            break
    mixture = _maximum(sums)
    return FittedGaussians(mixture.log_weights, mixture.means + centre, mixture.stds.log())


class _Sums(NamedTuple):
    """Expected numbers of rows (K,), and sums of their entries and of their squares, (K, 2 d)."""

    counts: Tensor
    moments: Tensor


def _initial_sums(squared: Tensor, size: int, init: Literal["kmeans", "k-means++"], seed: int) -> _Sums:
    """Those of the clusters of k-means, or of single rows that are far from each other."""
    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    rows = squared[:, : squared.shape[1] // 2].numpy()
    random = np.random.RandomState(seed)
    if init == "k-means++":
        chosen = torch.from_numpy(kmeans_plusplus(rows, size, random_state=random)[1])
        return _Sums(torch.ones(size, dtype=squared.dtype), squared[chosen])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of equal codes, and of fewer than K different ones
        labels = KMeans(size, n_init=1, random_state=random).fit(rows).labels_
    member = torch.from_numpy(labels).long()
    moments = squared.new_zeros(size, squared.shape[1]).index_add_(0, member, squared)
    return _Sums(torch.bincount(member, minlength=size).to(squared), moments)


def _maximum(sums: _Sums) -> DiagonalMixture:
    """The mixture of the largest expected log-likelihood."""
    counts = sums.counts + 10 * torch.finfo(sums.counts.dtype).eps
    means, squares = (sums.moments / counts[:, None]).chunk(2, dim=1)
    variances = (squares - means.square()).clamp(min=0.0) + LEAST_STD**2
    return DiagonalMixture((counts / counts.sum()).log(), means, variances.sqrt())


def _expectation(squared: Tensor, mixture: DiagonalMixture) -> tuple[float, _Sums]:
    """The mean log-likelihood of rows, given with their squares (n, 2 d), and the sums of each component."""
    size, d = mixture.means.shape
    total, sums = 0.0, _Sums(squared.new_zeros(size), squared.new_zeros(size, 2 * d))
    for part in squared.split(rows_within(budget.CACHED, size)):
        joint = mixture.log_joint(part[:, :d])
        logs = logsumexp(joint)
        shares = exp(joint - logs[:, None])
        total += logs.sum().item()
        sums.counts.add_(shares.sum(0))
        sums.moments.addmm_(shares.T, part)
    return total / len(squared), sums


def global_seed() -> int:
    """A seed for other libraries from PyTorch's global generator, so that they follow `torch.manual_seed` too."""
    return int(torch.randint(2**31, ()))
