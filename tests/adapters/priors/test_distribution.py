"""Priors called: distributions of PyTorch, their moments and entropy."""

import pytest

torch = pytest.importorskip("torch")
zuko = pytest.importorskip("zuko")

from tests.adapters.priors.cases import D, every_prior, exact, grid, make  # noqa: E402


@every_prior
def test_called_it_is_a_distribution(name):
    prior = make(name)
    distribution = prior()
    assert isinstance(distribution, torch.distributions.Distribution)
    assert distribution.event_shape == (D,) and distribution.batch_shape == ()
    assert distribution.sample((3, 2)).shape == (3, 2, D)
    assert distribution.rsample((3,)).requires_grad == any(p.requires_grad for p in prior.parameters())
    z = distribution.sample()
    assert z.shape == (D,)
    assert torch.equal(distribution.log_prob(z), prior.log_prob(z))
    with pytest.raises(NotImplementedError, match=r"has no mode of its own; .*prior"):
        distribution.mode  # noqa: B018
    for ask in (lambda: distribution.cdf(z), lambda: distribution.icdf(z)):
        with pytest.raises(NotImplementedError, match=r"of its own; .*prior"):
            ask()
    batch = distribution.expand((4,))
    assert batch.sample((2,)).shape == (2, 4, D)
    assert batch.log_prob(z).shape == (4,)
    assert distribution.entropy().shape == () and batch.entropy().shape == (4,)
    if name != "flow":
        assert batch.mean.shape == batch.variance.shape == batch.stddev.shape == (4, D)


@every_prior
def test_mean_variance_and_entropy(name):
    prior = exact(name)
    points, volume = grid(step=0.0625)
    log_prob = prior.log_prob(points)
    weight = log_prob.exp() * volume
    if name == "flow":
        with pytest.raises(NotImplementedError, match=r"moments of a FlowPrior .* estimate them from prior.sample"):
            prior().mean  # noqa: B018
    else:
        mean = weight @ points
        torch.testing.assert_close(prior().mean, mean, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(prior().variance, weight @ (points - mean) ** 2, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(prior().stddev, (weight @ (points - mean) ** 2).sqrt(), rtol=1e-5, atol=1e-6)
        assert prior().variance.requires_grad == prior.is_learned
    entropy = -(weight * log_prob).sum()
    if name == "gaussian":
        torch.testing.assert_close(prior().entropy(), entropy, rtol=1e-5, atol=1e-6)
    error = ((weight * log_prob**2).sum() - entropy**2).sqrt() / 20_000**0.5
    assert (prior.entropy(20_000, rng=0) - entropy).abs() < 4 * error + 1e-5
    assert prior.entropy(50, rng=1) == prior.entropy(50, rng=1)


def test_zuko_takes_a_prior_as_the_base_of_a_flow():
    prior = make("trip")
    transform = zuko.flows.MAF(D, context=1, transforms=1, hidden_features=(8,)).transform
    flow = zuko.lazy.Flow(transform, prior)
    context = torch.randn(5, 1)
    z = flow(context).rsample((3,))
    assert z.shape == (3, 5, D)
    flow(context).log_prob(z).sum().backward()
    assert prior.means.grad is not None
