"""Pathwise gradients of samples, against quadrature."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import TRIP  # noqa: E402
from tests.adapters.priors.cases import (  # noqa: E402
    RING,
    D,
    assert_pathwise_gradients,
    every_prior,
    exact,
    gradients_by_quadrature,
    make,
    nan,
)


@every_prior
def test_rsample_has_unbiased_gradients(name):
    prior = exact(name, trainable=True)
    expected = gradients_by_quadrature(prior, prior.log_prob)
    assert_pathwise_gradients(prior, lambda n, rng: prior.rsample(n, rng=rng), expected)


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_pathwise_gradients_are_chained_through_all_columns_before(topology):
    prior = TRIP(3, **RING, topology=topology, seed=5).double()
    expected = gradients_by_quadrature(prior, prior.log_prob, d=3, step=0.4)
    assert_pathwise_gradients(prior, lambda n, rng: prior.rsample(n, rng=rng), expected)


def test_pathwise_gradients_given_attributes():
    prior = exact("joint")
    y = torch.tensor([1.0, nan], dtype=torch.float64)

    def conditional(z):
        rows = y.expand(len(z), 2)
        return prior.log_prob(z, rows) - prior.log_prob(torch.full((1, D), nan, dtype=torch.float64), y[None])

    expected = gradients_by_quadrature(prior, conditional)
    assert_pathwise_gradients(prior, lambda n, rng: prior.rsample(n, y, rng=rng), expected)


@every_prior
def test_rsample_has_the_values_of_sample(name):
    """The surrogate changes gradients, not values."""
    prior = make(name)
    z = prior.rsample(50, rng=6)
    assert torch.equal(z.detach(), prior.sample(50, rng=6))
    assert torch.isfinite(prior.log_prob(z.detach())).all()
