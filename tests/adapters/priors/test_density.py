"""Densities of all priors: they integrate to one, and NaN is marginalised."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from tests.adapters.priors.cases import MARGINALISING, D, every_prior, exact, grid, make, nan  # noqa: E402


@every_prior
def test_the_density_integrates_to_one(name):
    points, volume = grid()
    assert (exact(name).log_prob(points).exp() * volume).sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", MARGINALISING)
def test_nan_is_marginalised(name):
    prior, step = exact(name), 0.125
    points, _ = grid(step=step)
    side = math.isqrt(len(points))
    density = prior.log_prob(points).exp().reshape(side, side)
    axis = points[:side, 1]
    for k, marginal in enumerate((density.sum(1) * step, density.sum(0) * step)):
        z = torch.full((side, D), nan, dtype=torch.float64)
        z[:, k] = axis
        torch.testing.assert_close(prior.log_prob(z).exp(), marginal, rtol=1e-6, atol=1e-8)
    assert prior.log_prob(torch.full((1, D), nan, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)


@every_prior
def test_there_is_no_density_at_infinity_and_no_gradient(name):
    prior = make(name)
    z = torch.zeros(4, D)
    z[0], z[1, 1] = math.inf, -math.inf
    z[2, 0] = nan if name in MARGINALISING else 0
    log_prob = prior.log_prob(z)
    assert log_prob[:2].tolist() == [-math.inf, -math.inf] and log_prob[2:].isfinite().all()
    if log_prob.requires_grad:
        log_prob[2:].sum().backward()
        assert all(p.grad.isfinite().all() for p in prior.parameters() if p.grad is not None)
