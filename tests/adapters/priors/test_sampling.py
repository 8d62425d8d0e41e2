"""Samples of all priors follow their densities: by quadrature, given entries or attributes, at any temperature."""

import math

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import FlowPrior  # noqa: E402
from tests.adapters.priors.cases import (  # noqa: E402
    MARGINALISING,
    D,
    assert_samples_follow,
    every_prior,
    exact,
    grid,
    make,
    mixed,
    nan,
)


@every_prior
@pytest.mark.parametrize("method", ["sample", "rsample", "sample_components"])
def test_samples_follow_the_density(name, method):
    prior = exact(name)
    drawn = getattr(prior, method)(8000, rng=2)
    assert_samples_follow(prior, drawn[0] if method == "sample_components" else drawn)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "trip", "train", "joint", "joint-private", "flow"])
@pytest.mark.parametrize("temperature", [0.3, 1.6])
def test_temperature_multiplies_the_standard_deviations_of_components(name, temperature):
    prior, scaled = exact(name), exact(name)
    with torch.no_grad():
        for label, parameter in scaled.named_parameters():
            if label.split(".")[-1] in ("log_std", "log_stds"):
                parameter += math.log(temperature)
    assert_samples_follow(scaled, prior.sample(8000, temperature=temperature, rng=3))


@pytest.mark.parametrize("name", MARGINALISING)
def test_at_temperature_zero_samples_are_means_of_components(name):
    prior = exact(name)
    if name == "gaussian":
        means = prior.mean[None]
    elif name in ("mixture", "vamp"):
        means = prior.mixture().means
    elif name == "vamp trip":
        means = torch.cartesian_prod(*prior.mixture().means.T)
    else:
        means = torch.cartesian_prod(*prior.means)
    z = prior.sample(500, temperature=0, rng=4)
    found = torch.cdist(z, means).min(1)
    assert found.values.max() < 1e-7 and found.indices.unique().numel() == len(means)


@pytest.mark.parametrize("y", [[1.0, 0.4], [nan, -0.6]])
def test_temperature_leaves_components_and_attributes_as_they_are(y):
    prior, y = mixed(), torch.tensor(y, dtype=torch.float64)
    points, volume = grid()
    weight = prior.log_prob(points, y.expand(len(points), 2)).exp() * volume
    mean = (weight[:, None] * points).sum(0) / weight.sum()
    z = prior.sample(20_000, y, temperature=0.25, rng=0)
    assert ((z.mean(0) - mean).abs() < 4 * z.std(0) / math.sqrt(len(z))).all(), (z.mean(0), mean)
    wide = prior.sample(20_000, y, rng=0)
    assert (z.std(0) < 0.95 * wide.std(0)).all()
    assert torch.equal(wide, prior.sample(20_000, y, temperature=1.0, rng=0))


@every_prior
@pytest.mark.parametrize("temperature", [-0.5, nan, math.inf])
def test_temperatures_are_checked(name, temperature):
    with pytest.raises(ValueError, match=f"temperature must be finite and not negative, found {temperature}"):
        make(name).sample(2, temperature=temperature)


@every_prior
def test_priors_without_attributes_are_given_none(name):
    prior, y = make(name), torch.zeros(2)
    if name.startswith("joint"):
        assert prior.sample(3, y).shape == FlowPrior(prior, "maf", transforms=1).sample(3, y).shape == (3, D)
        return
    with pytest.raises(ValueError, match="has no attributes: y must be None, found a tensor of"):
        prior.sample(3, y)


@pytest.mark.parametrize("name", MARGINALISING)
def test_samples_given_some_entries_follow_the_conditional(name):
    prior = exact(name)
    given = torch.tensor([[nan, 0.7]], dtype=torch.float64).expand(3000, D)
    z = prior.sample_given(given, rng=3)
    assert (z[:, 1] == 0.7).all()
    step = 0.01
    axis = torch.arange(-9, 9, step, dtype=torch.float64)
    density = prior.log_prob(torch.stack([axis, torch.full_like(axis, 0.7)], 1)).exp().detach().numpy()
    cdf = np.cumsum(density) / density.sum()
    p = scipy.stats.kstest(z[:, 0].numpy(), lambda v: np.interp(v, axis.numpy() + step / 2, cdf)).pvalue
    assert p > 1e-3
    observed = torch.randn(4, D, dtype=torch.float64)
    assert torch.equal(prior.sample_given(observed), observed)


@every_prior
def test_random_numbers_are_the_global_ones_or_the_given(name):
    prior = make(name)
    torch.manual_seed(7)
    z = prior.sample(4)
    assert not torch.equal(prior.sample(4), z)
    torch.manual_seed(7)
    assert torch.equal(prior.sample(4), z)
    state = torch.get_rng_state()
    assert torch.equal(prior.sample(4, rng=8), prior.sample(4, rng=torch.Generator().manual_seed(8)))
    assert torch.equal(torch.get_rng_state(), state)
