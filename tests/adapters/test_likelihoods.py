"""Decoder likelihoods against SciPy and enumeration."""

import math

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch")

import torch

from adapters.likelihoods import (
    BernoulliLikelihood,
    DiscretizedLogistic,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    PaperLikelihood,
)

SHAPE = (4, 3, 2, 2)  # (batch, C, H, W)
EVERY = {
    "bernoulli": (BernoulliLikelihood, 3),
    "gaussian": (GaussianLikelihood, 3),
    "gaussian-shared": (lambda: GaussianLikelihood(0.3, "shared"), 3),
    "gaussian-pixel": (lambda: GaussianLikelihood(0.3, "pixel"), 6),
    "discretized": (lambda: DiscretizedLogisticLikelihood(5), 6),
    "paper": (PaperLikelihood, 3),
}


def output(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(4, channels, 2, 2, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def pictures() -> torch.Tensor:
    return torch.randint(0, 2, SHAPE, generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize("name", EVERY)
def test_shapes_channels_and_gradients(name):
    make, channels = EVERY[name]
    likelihood = make()
    assert likelihood.num_channels(3) == channels
    parameters = output(channels)
    distribution = likelihood(parameters)
    assert distribution.mean.shape == distribution.sample().shape == SHAPE
    assert distribution.log_prob(pictures()).shape == (4,)
    distribution.log_prob(pictures()).sum().backward()
    assert parameters.grad.isfinite().all() and (parameters.grad != 0).any()


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_decoders(name):
    make, channels = EVERY[name]
    assert make()(output(channels).bfloat16()).log_prob(pictures()).dtype == torch.float32


@pytest.mark.parametrize("name", sorted(EVERY.keys() - {"paper"}))
def test_samples_have_the_mean(name):
    make, channels = EVERY[name]
    distribution = make()(output(channels).detach())
    torch.manual_seed(0)
    draws = torch.stack([distribution.sample() for _ in range(4000)])
    error = draws.std(0) / 4000**0.5
    assert ((draws.mean(0) - distribution.mean).abs() < 5 * error + 1e-3).all()


def test_bernoulli():
    logits, x = output(3).detach(), pictures()
    expected = stats.bernoulli.logpmf(x.numpy(), torch.sigmoid(logits).numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(BernoulliLikelihood()(logits).log_prob(x), expected, rtol=1e-5)


def test_gaussian():
    parameters, x = output(6).detach(), torch.rand(SHAPE)
    mean, raw = parameters.chunk(2, dim=1)
    fixed = stats.norm.logpdf(x.numpy(), mean.numpy(), 0.3).sum((1, 2, 3))
    np.testing.assert_allclose(GaussianLikelihood(0.3)(mean).log_prob(x), fixed, rtol=1e-5)
    learned = stats.norm.logpdf(x.numpy(), mean.numpy(), 0.3 * np.exp(raw.numpy())).sum((1, 2, 3))
    np.testing.assert_allclose(GaussianLikelihood(0.3, "pixel")(parameters).log_prob(x), learned, rtol=1e-5)


def test_which_deviations_are_learned():
    assert not GaussianLikelihood(0.3).log_std.requires_grad
    assert GaussianLikelihood(0.3, "shared").log_std.requires_grad
    shared = GaussianLikelihood(0.3, "shared")
    shared(output(3)).log_prob(pictures()).sum().backward()
    assert shared.log_std.grad != 0


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_probabilities_of_the_levels_sum_to_one(levels):
    location = torch.tensor([-3.0, 0.0, 0.2, 0.5, 0.97, 1.5, 40.0])
    for log_scale in (-9.0, -3.0, 0.0, 4.0):
        distribution = DiscretizedLogistic(location, torch.full_like(location, log_scale), levels)
        values = torch.linspace(0, 1, levels)[:, None].expand(levels, len(location))
        total = distribution.log_prob(values).exp().sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-4)


def test_probabilities_of_the_levels_are_those_of_scipy():
    location, scale = torch.tensor([0.1, 0.6, 1.2], dtype=torch.float64), 0.07
    levels, log_scale = 9, torch.full((3,), math.log(scale), dtype=torch.float64)
    edges = (np.arange(-1, levels) + 0.5) / (levels - 1)
    edges[[0, -1]] = -np.inf, np.inf
    cdf = stats.logistic.cdf(edges[:, None], location.numpy(), scale)
    values = torch.linspace(0, 1, levels, dtype=torch.float64)[:, None].expand(levels, 3)
    distribution = DiscretizedLogistic(location, log_scale, levels)
    np.testing.assert_allclose(distribution.log_prob(values).exp(), np.diff(cdf, axis=0), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(distribution.mean, (values.numpy() * np.diff(cdf, axis=0)).sum(0), rtol=1e-6)


def test_levels_far_from_the_location_keep_their_gradient():
    location = torch.tensor([0.0], requires_grad=True)
    value = DiscretizedLogistic(location, torch.tensor([-7.0]), 256).log_prob(torch.tensor([0.8]))
    value.sum().backward()
    expected = stats.logistic.logpdf(0.8, 0, math.exp(-7)) - math.log(255)
    assert value.item() == pytest.approx(expected, rel=1e-2) and location.grad.item() == pytest.approx(
        math.exp(7), rel=1e-3
    )


def test_the_papers_scale():
    parameters, x = output(3).detach(), torch.rand(SHAPE)
    error = (torch.tanh(parameters) - (2 * x - 1)) ** 2
    expected = -error.sum((2, 3)).mean(1)
    torch.testing.assert_close(PaperLikelihood()(parameters).log_prob(x), expected)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GaussianLikelihood(0.0), "std must be positive and finite, found 0.0"),
        (lambda: GaussianLikelihood(1.0, "all"), "learned must be one of no, shared, pixel, found 'all'"),
        (lambda: DiscretizedLogisticLikelihood(1), "levels must be at least 2, found 1"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
