"""Gaussian mixtures fitted to latent codes with scikit-learn, for the re-initialisation of priors."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adapters.priors.base import real_rows

LEAST_STD = 1e-3  # the standard deviation in a dimension in which the codes do not vary


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

    Args:
        z: finite codes.
        num_components: K.
        max_iter: iterations of EM.
        init: initialisation of the responsibilities; "k-means++" takes the nearest of the chosen centres.
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
        # A mixture that has not converged, or has two equal components, is still a good starting point.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z.cpu().numpy())
    weights, means, variances = (
        torch.from_numpy(values) for values in (mixture.weights_, mixture.means_, mixture.covariances_)
    )
    return FittedGaussians(weights.log(), means, 0.5 * variances.log())


def global_seed() -> int:
    """A seed for other libraries from PyTorch's global generator, so that they follow `torch.manual_seed` too."""
    return int(torch.randint(2**31, ()))
