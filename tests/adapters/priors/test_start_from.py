"""Rings that start from the mixtures that they contain."""

import pytest

pytest.importorskip("torch")

import torch

from adapters import TRIP, FlowPrior, GaussianMixturePrior, VampPrior, VampTRIP

D, SIZE = 3, 6
OPTIONS = [("cp", "train"), ("cp", "ring"), ("switching", "train"), ("switching", "ring")]


def encoder(x):
    """Means and standard deviations (n, D) each, of pseudo-inputs (n, 2 D)."""
    mean, log_std = x.flatten(1).chunk(2, dim=1)
    return torch.distributions.Independent(torch.distributions.Normal(3 * mean, (log_std - 1).exp()), 1)


def mixtures():
    gaussians = GaussianMixturePrior(D, SIZE, seed=1)
    with torch.no_grad():
        gaussians.means.mul_(3), gaussians.log_stds.sub_(0.5), gaussians.logits.copy_(torch.linspace(-2, 2, SIZE))
    return {"gaussians": gaussians, "vamp": VampPrior(encoder, (2 * D,), D, SIZE, bounds=None, seed=2)}


def trip(core, topology, **options):
    return TRIP(D, rank=SIZE, core=core, topology=topology, private_components=True, seed=3, **options)


@pytest.mark.parametrize("nonnegative", ["exp", "abs", "softplus"])
@pytest.mark.parametrize("name", ["gaussians", "vamp"])
@pytest.mark.parametrize(("core", "topology"), OPTIONS)
def test_the_density_is_that_of_the_mixture(core, topology, name, nonnegative):
    """But for the probability that the cluster changes; joint and marginal densities, in any order of the latents."""
    mixture, prior = mixtures()[name], trip(core, topology, nonnegative=nonnegative, order=[2, 0, 1])
    before = [parameter.detach().clone() for parameter in mixture.parameters()]
    parameters = [id(parameter) for parameter in prior.parameters()]
    prior.start_from(mixture)
    z = mixture.sample(500, rng=0).detach()
    z[100:200, 1] = torch.nan
    difference = prior.log_prob(z) - mixture.log_prob(z)
    assert difference.min() > -0.0101 and difference.abs().mean() < 0.01
    assert prior.order.tolist() == [2, 0, 1] and [id(parameter) for parameter in prior.parameters()] == parameters
    assert all(torch.equal(old, new) for old, new in zip(before, mixture.parameters(), strict=True))


def test_gradients_leave_the_mixture():
    """What the mixture cannot say: latents that follow two clusters independently of each other."""
    torch.manual_seed(0)
    z = torch.where(torch.rand(400, D) < 0.5, -4.0, 4.0) + 0.3 * torch.randn(400, D)
    mixture = GaussianMixturePrior(D, 2, seed=0)
    with torch.no_grad():
        mixture.means.copy_(torch.tensor([[-4.0] * D, [4.0] * D])), mixture.log_stds.fill_(-1.0)
    prior = TRIP(D, rank=2, core="switching", private_components=True)
    prior.start_from(mixture)
    start = prior.log_prob(z).mean()
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (-prior.log_prob(z).mean()).backward()
        optimizer.step()
    assert prior.log_prob(z).mean() > start + 2


@pytest.mark.parametrize(
    ("prior", "start", "error", "message"),
    [
        (
            trip("switching", "train"),
            GaussianMixturePrior(D, SIZE + 1),
            ValueError,
            "6 components of 3 latents, found 7",
        ),
        (trip("cp", "train"), GaussianMixturePrior(D + 1, SIZE), ValueError, "found 6 components of 4 latents"),
        (TRIP(D, rank=SIZE), GaussianMixturePrior(D, 10), ValueError, "private_components=False"),
        (TRIP(D, rank=SIZE, core="cp"), GaussianMixturePrior(D, 10), ValueError, "private_components=False"),
        (trip("cp", "train"), trip("cp", "train"), TypeError, "mixture of Gaussians with diagonal covariances"),
        (trip("cp", "train"), FlowPrior(GaussianMixturePrior(D, SIZE)), TypeError, "diagonal covariances"),
        (trip("cp", "train"), VampTRIP(encoder, (2 * D,), D, SIZE, bounds=None), TypeError, "diagonal covariances"),
        (trip("cp", "train"), None, TypeError, "found None"),
    ],
)
def test_what_does_not_fit_leaves_the_prior_as_it_was(prior, start, error, message):
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    with pytest.raises(error, match=message):
        prior.start_from(start)
    assert all(torch.equal(value, prior.state_dict()[name]) for name, value in before.items())
