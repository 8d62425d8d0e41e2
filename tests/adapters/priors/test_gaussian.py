"""GaussianPrior and GaussianMixturePrior: the KL divergence, and digits far from the origin."""

import math

import pytest
import scipy.stats

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import GaussianMixturePrior  # noqa: E402
from tests.adapters.priors.cases import D, exact, make  # noqa: E402


def test_kl_of_the_gaussian_prior():
    prior = exact("gaussian")
    mean, std = torch.randn(5, D, dtype=torch.float64), torch.rand(5, D, dtype=torch.float64) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(prior.mean, prior.log_std.exp())).sum(-1)
    torch.testing.assert_close(prior.kl(mean, std), expected)
    assert make("trip").kl(mean, std) is None


def test_mixtures_far_from_the_origin_keep_their_digits():
    prior = GaussianMixturePrior(1, 2)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[1e5], [1e5 + 1]]))
        prior.log_stds.fill_(math.log(1e-3))
    expected = scipy.stats.norm(0, 1e-3).logpdf(0) - math.log(2)
    assert prior.log_prob(torch.tensor([[1e5], [1e5 + 1]])).tolist() == pytest.approx([expected] * 2, abs=1e-3)
