"""The bounds of models of images and attributes, against enumeration and against each other."""

import pytest

pytest.importorskip("lightning")

import torch

from adapters.models import VAE
from tests.adapters.conditional.cases import Mixture, X, Y, attributes, images, make, nan
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


SHIFTS = [None, (0.0, 0.5)]


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_bound_is_that_of_equation_14(shift):
    """With a conditional decoder, of the codes and unknown attributes that follow from them."""
    mixture = Mixture(shift)
    model = mixture.model()
    nodes = torch.linspace(-6, 6, 4001)
    mean, q = 0.4 * X.flatten()[:, None], 0.4
    weight = torch.distributions.Normal(0.0, 1.0).log_prob(nodes).exp() * (nodes[1] - nodes[0])
    z = mean + q * nodes  # (n, nodes)
    tables = mixture.log_prior(z.flatten()).reshape(*z.shape, 2)
    is_possible = torch.stack([~(Y[:, 0] == 1), ~(Y[:, 0] == 0)], -1)
    chances = is_possible[:, None] * tables.exp()
    prior, chances = chances.sum(-1).log(), chances / chances.sum(-1, keepdim=True)
    centres = 2 * z[..., None] + mixture.shift
    likelihoods = torch.distributions.Normal(centres, mixture.noise).log_prob(X.flatten()[:, None, None])
    likelihood = (chances * likelihoods).sum(-1)
    exact = ((likelihood + prior - torch.distributions.Normal(mean, q).log_prob(z)) * weight).sum(1)
    torch.manual_seed(0)
    repeats = 4000
    bound = model.elbo(X.repeat(repeats, 1, 1, 1), Y.repeat(repeats, 1))
    estimates = bound.elbo.detach().reshape(repeats, -1)
    error = estimates.std(0) / repeats**0.5
    assert ((estimates.mean(0) - exact).abs() < 5 * error + 1e-4).all(), (estimates.mean(0), exact)
    assert (exact < mixture.log_prob(X, Y)).all()
    assert (bound.attributes.reshape(repeats, -1)[:, Y[:, 0].isnan()].abs() < 1e-5).all()
    assert (bound.attributes <= 1e-5).all()


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_importance_weighted_bound_approaches_the_likelihood_of_image_and_attributes(shift):
    mixture = Mixture(shift)
    torch.manual_seed(0)
    torch.testing.assert_close(mixture.model().iwae(X, 5000, Y), mixture.log_prob(X, Y), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["trip", "flow", "telbo", "jmvae"])
def test_no_attribute_known_is_the_unconditional_bound(name):
    model, x = make(name), images()
    bounds = []
    for y in (None, torch.full((6, 2), nan)):
        torch.manual_seed(1)
        bounds.append(model.elbo(x, y))
        assert (bounds[-1].attributes.abs() < 1e-5).all()
    torch.testing.assert_close(bounds[0].elbo, bounds[1].elbo)
    if name in ("trip", "flow"):
        torch.manual_seed(1)
        plain = VAE.elbo(model, x)
        torch.testing.assert_close(plain.elbo, bounds[0].elbo)


def test_the_bound_is_the_importance_weighted_one_with_one_sample(model):
    x, y = images(), torch.tensor([[3.0, 1.0]]).expand(6, 2)
    model.analytic_kl = False
    torch.manual_seed(0)
    elbo = model.elbo(x, y).elbo
    torch.manual_seed(0)
    torch.testing.assert_close(model.iwae(x, 1, y), elbo)


@pytest.mark.parametrize("max_rows", [1, 4, 7, 12])
def test_memory_does_not_change_the_bound(model, max_rows):
    bounds = []
    for rows in (10_000, max_rows):
        torch.manual_seed(0)
        bounds.append(model.iwae(images(), 5, attributes(), max_rows=rows))
    torch.testing.assert_close(*bounds)


def test_gradients_reach_everything_that_learns(model):
    loss, _ = model._objective(images(), attributes())
    loss.mean().backward()
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for _, p in learned)
    flat = [name for name, p in learned if p.grad.abs().sum() == 0]
    assert not flat, flat


def test_double_precision(model):
    model = model.double()
    x, y = images().double(), attributes()
    loss, bound = model._objective(x, y)
    loss.mean().backward()
    found = [bound.elbo, model.iwae(x, 2, y), model.sample(6, y), *model.predict(x)]
    assert all(value.dtype == torch.float64 and value.isfinite().all() for value in found)


@pytest.mark.parametrize("name", ["trip", "flow"])
def test_the_weight_of_attributes_may_be_of_the_rows_that_have_some(name):
    """Rows without labels, however many there are, then do not make it smaller."""
    model, x, y = make(name, attribute_weight=5.0, weight_per_label=True, beta=0.5), images(), attributes()
    torch.manual_seed(1)
    bound = model.elbo(x, y)
    known = bound.attributes[[0, 1, 2, 4, 5]].mean()
    expected = 0.5 * bound.kl.mean() - bound.reconstruction.mean() - 5 * known
    torch.manual_seed(1)
    torch.testing.assert_close(model._objective(x, y)[0].mean(), expected)
    assert model._objective(x, torch.full((6, 2), nan))[0].isfinite().all()
