"""Samples meet any subset of the attributes, and predictions are distributions."""

import pytest

pytest.importorskip("lightning")

import torch

from adapters import FlowPrior, JointTRIP
from adapters.hopping import hopping_images
from adapters.models import ConditionalVAE
from adapters.networks import ConvDecoder, ConvEncoder
from tests.adapters.conditional.cases import LATENTS, Mixture, X, attributes, images, nan
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


@pytest.mark.parametrize("shift", [None, (0.0, 0.5)])
def test_samples_meet_conditions(shift):
    """Images of this model are 2 z + shift[y], and p(z, y) is known."""
    mixture = Mixture(shift)
    model = mixture.model()
    torch.manual_seed(0)
    y = torch.tensor([[0.0], [1.0], [nan]]).repeat_interleave(4000, 0)
    parts = model.sample(len(y), y).flatten().split(4000)
    for part, allowed in zip(parts, torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), strict=True):
        weights = mixture.weights * allowed
        mean = (weights / weights.sum() * (2 * mixture.means[:, None] + mixture.shift)).sum().item()
        assert part.mean().item() == pytest.approx(mean, abs=5 * part.std().item() / 4000**0.5)


def test_the_temperature_scales_what_codes_are_drawn_from(model):
    y = torch.tensor([4.0, 1.0])
    drawn = []
    for temperature in (1.0, 0.5, 0.0):
        torch.manual_seed(1)
        drawn.append(model._sample_codes(50, y, temperature)[0])
    whole, half, means = drawn
    if isinstance(model, ConditionalVAE):
        means = means if not isinstance(model.prior, FlowPrior) else model.prior.to_base(means)
        assert len(means[:, 0].double().round(decimals=4).unique()) <= 4  # the components' own
        assert half.var(0).sum() < whole.var(0).sum()
    else:
        torch.testing.assert_close(half, (whole + means) / 2)
        assert (means.std(0) < 1e-6).all()
    with pytest.raises(ValueError, match="temperature"):
        model.sample(2, y, temperature=-1.0)


def test_any_subset_of_attributes(model):
    assert model.sample(6, attributes()).shape == (6, 1, 8, 8)
    assert model.sample(3, torch.tensor([4, 2])).shape == model.sample(3).shape == (3, 1, 8, 8)
    assert model.sample(0).shape == (0, 1, 8, 8)
    assert model.generate(torch.zeros(2, LATENTS)).shape == (2, 1, 8, 8)
    assert model.reconstruct(images()).shape == (6, 1, 8, 8)


def test_a_conditional_decoder_sees_the_same_attributes_on_all_of_a_walk():
    """Its images are 2 z + shift[y] with a shift that tells y, and walks are of the model's distribution."""
    mixture = Mixture((0.0, 100.0))
    torch.manual_seed(0)
    images = hopping_images(mixture.model(), rows=2000, steps=2, num_dimensions=1).reshape(2000, 3)
    attribute = (images > 50).double()
    assert (attribute == attribute[:, :1]).all()
    assert attribute.mean().item() == pytest.approx(mixture.weights[:, 1].sum().item(), abs=5 * 0.5 / 2000**0.5)
    assert (images[:, 1:] != images[:, :-1]).all()


def test_predictions_are_distributions(model):
    tables = model.predict(images())
    assert [table.shape for table in tables] == [(6, 10), (6, 3)]
    for table in tables:
        torch.testing.assert_close(table.exp().sum(-1), torch.ones(6))
        assert not table.requires_grad


def test_predictions_for_images_that_are_no_numbers(model):
    x = images(3)
    x[1, 0, 2, 2] = nan
    for table in model.predict(x):
        assert table[1].isnan().all() and not table[[0, 2]].isnan().any()


def test_predictions_of_the_mixture():
    mixture = Mixture()
    tables = mixture.log_prior(0.4 * X.flatten())
    torch.testing.assert_close(mixture.model().predict(X)[0], tables.log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sees", [False, True])
def test_continuous_attributes(sees):
    torch.manual_seed(0)
    prior = JointTRIP(LATENTS, [3, "continuous"], num_components=4, rank=2)
    encoder, decoder = ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8)), ConvDecoder(LATENTS + 4 * sees, (1, 8, 8), (4, 8))
    model = ConditionalVAE(encoder, decoder, prior, conditional_decoder=sees)
    y = torch.tensor([[2.0, 0.3], [nan, -1.2], [1.0, nan]])
    (-model.elbo(images(3), y).elbo.mean()).backward()
    assert (prior.means.grad.abs().sum(-1) > 0).all()
    assert [table.shape for table in model.predict(images())] == [(6, 3), (6, 4)]
    assert model.sample(3, y).shape == (3, 1, 8, 8)
    logged = []
    model._log_mean = lambda name, values, size: logged.append((name, size))
    model._evaluate("val", (images(3), y), 1)
    assert logged[-2:] == [("val_accuracy", 2), ("val_accuracy_0", 2)]
