"""Densities of scikit-learn for standardised numbers (n, d), each chosen by an inner split of the training rows."""

from collections.abc import Callable

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity

Density = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of train and test rows: log-densities of test rows

COMPONENTS = 1, 2, 3, 5, 8, 12, 20, 32
FLOORS = 1e-6, 1e-4, 1e-3, 1e-2
BANDWIDTHS = tuple(10.0 ** np.linspace(-2, 0.3, 12))


def gaussian(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """One Gaussian with a shrunk covariance."""
    fitted = LedoitWolf().fit(train)
    centred = test - fitted.location_
    _, log_det = np.linalg.slogdet(fitted.covariance_)
    squares = np.einsum("nd,de,ne->n", centred, fitted.precision_, centred)
    return np.asarray(-0.5 * (squares + log_det + train.shape[1] * np.log(2 * np.pi)))


def mixture(kind: str) -> Density:
    """`GaussianMixture`, number of components and floor of the variances by held-out rows."""

    def score(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        learn, held_out = train_test_split(train, test_size=0.2, random_state=0)

        def fitted(rows: np.ndarray, components: int, floor: float) -> GaussianMixture:
            return GaussianMixture(components, covariance_type=kind, reg_covar=floor, max_iter=200, random_state=0).fit(
                rows
            )

        settings = [(c, f) for c in COMPONENTS if c <= len(learn) // 4 for f in FLOORS]
        best = max(settings, key=lambda setting: fitted(learn, *setting).score(held_out))
        return np.asarray(fitted(train, *best).score_samples(test))

    return score


def kernels(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """`KernelDensity` with Gaussian kernels."""
    learn, held_out = train_test_split(train, test_size=0.2, random_state=0)
    best = max(BANDWIDTHS, key=lambda width: KernelDensity(bandwidth=width).fit(learn).score(held_out))
    return np.asarray(KernelDensity(bandwidth=best).fit(train).score_samples(test))


DENSITIES: dict[str, Density] = {
    "Gaussian": gaussian,
    "mixture, full": mixture("full"),
    "mixture, diagonal": mixture("diag"),
    "kernels": kernels,
}
