"""Mixtures fitted to codes, beside those of scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from adapters.priors.fitting import LEAST_STD, fit_gaussians
from ringdist.engines import budget


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", ["kmeans", "k-means++"])
@pytest.mark.parametrize(("n", "d", "size", "shift"), [(500, 3, 12, 0.0), (200, 1, 5, 100.0), (40, 2, 40, 0.0)])
def test_same_mixture_as_scikit_learn(init, n, d, size, shift, monkeypatch):
    rng = np.random.default_rng(0)
    z = shift + rng.normal(size=(7, d))[rng.integers(7, size=n)] + 0.3 * rng.normal(size=(n, d))
    expected = GaussianMixture(
        size, covariance_type="diag", reg_covar=LEAST_STD**2, max_iter=30, init_params=init, random_state=1
    ).fit(z)
    for cached in (budget.CACHED, 60 * size):  # in one part, and in several
        monkeypatch.setattr(budget, "CACHED", cached)
        given = torch.tensor(z)
        found = fit_gaussians(given, size, max_iter=30, init=init, seed=1)
        np.testing.assert_allclose(found.log_weights.exp(), expected.weights_, rtol=1e-6)
        np.testing.assert_allclose(found.means, expected.means_, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose((2 * found.log_stds).exp(), expected.covariances_, rtol=1e-4)
        np.testing.assert_array_equal(given, z)


@pytest.mark.parametrize("init", ["kmeans", "k-means++"])
def test_codes_that_do_not_vary(init):
    found = fit_gaussians(torch.full((30, 2), 3.0), 3, max_iter=10, init=init, seed=0)
    assert all(values.isfinite().all() for values in found)
    torch.testing.assert_close(found.means[found.log_weights.argmax()], torch.full((2,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(found.log_stds.exp().min(), torch.tensor(LEAST_STD, dtype=torch.float64))
