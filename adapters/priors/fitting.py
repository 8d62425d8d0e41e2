"""Gaussian mixtures fitted to latent codes with scikit-learn, where priors are re-initialised."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adapters.priors.base import real_rows

LEAST_STD = 1e-3  # of a dimension in which the codes do not vary


def codes(z: Tensor, width: int, least: int) -> Tensor:
    """Latent codes (n, width) to fit a prior to, without gradient and in float64.

    Raises:
        TypeError: if z is not a floating point tensor.
        ValueError: if z is no such table, has fewer than `least` rows, or an entry is NaN or infinite.
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

    Args:
        z: finite codes. init: of the responsibilities; `"k-means++"` does not run k-means to its end.
        seed: of the initialisation.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        num_components,
        covariance_type="diag",
        reg_covar=LEAST_STD**2,
        max_iter=max_iter,
        init_params=init,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A mixture that has not converged, or has two equal components, is still a good place to start from.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z.cpu().numpy())
    weights, means, variances = (
        torch.from_numpy(values) for values in (mixture.weights_, mixture.means_, mixture.covariances_)
    )
    return FittedGaussians(weights.log(), means, 0.5 * variances.log())


def global_seed() -> int:
    """A seed drawn from PyTorch's global generator, so that `torch.manual_seed` governs other libraries too."""
    return int(torch.randint(2**31, ()))
