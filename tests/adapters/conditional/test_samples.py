"""Samples meet any subset of the attributes, and predictions are distributions."""

from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")

import torch

from adapters import FlowPrior, JointTRIP, callbacks
from adapters.hopping import hopping_images
from adapters.models import ConditionalVAE, conditional
from adapters.networks import ConvDecoder, ConvEncoder
from tests.adapters.conditional.cases import LATENTS, Mixture, X, attributes, echoing, images, make, nan
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


@pytest.mark.parametrize("shift", [None, (0.0, 30.0)])
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
    ends = images[attribute[:, 0] == 1, -1] - 100  # 2 z given that attribute
    weights = mixture.weights[:, 1] / mixture.weights[:, 1].sum()
    expected = (weights * 2 * mixture.means).sum().item()
    assert ends.mean().item() == pytest.approx(expected, abs=5 * ends.std().item() / len(ends) ** 0.5)


@pytest.mark.parametrize("kind", ["ring", "flow"])
def test_a_conditional_decoder_sees_what_is_known_and_draws_of_what_is_not(kind):
    """Images are the attributes; those that are unknown have their distribution given the code and the known ones."""
    model, n = echoing(kind), 4000
    torch.manual_seed(0)
    z = model.prior.sample(1, torch.tensor([nan, nan, 0.7])).expand(n, -1)
    y = torch.tensor([1.0, nan, 0.7])
    seen = model.generate(z, y)[:, 0, 0]
    assert (seen[:, :3] == torch.tensor([0.0, 1.0, 0.0])).all() and (seen[:, 7] == 0.7).all()
    candidates = torch.tensor([[1.0, value, 0.7] for value in range(4)])
    chances = model.prior.log_prob(z[:4], candidates).softmax(0)
    assert (seen[:, 3:7].sum(1) == 1).all()
    assert ((seen[:, 3:7].mean(0) - chances).abs() < 5 * (chances * (1 - chances) / n).sqrt() + 1e-3).all()
    alone = model.prior.attribute_posterior(z[:1])[1][0]
    assert (alone - chances).abs().max() > 0.1  # so that it matters what is known


def test_a_conditional_decoder_reconstructs_with_the_known_attributes():
    y = torch.tensor([[2.0, 3.0, -1.5], [0.0, 1.0, 0.25]])
    images = echoing("ring").reconstruct(torch.rand(2, 1, 1, 8), y)[:, 0, 0]
    expected = torch.tensor([[0.0, 0, 1, 0, 0, 0, 1, -1.5], [1.0, 0, 0, 0, 1, 0, 0, 0.25]])
    torch.testing.assert_close(images, expected)


def test_codes_that_are_not_finite_do_not_stop_a_conditional_decoder():
    for kind in ("ring", "flow"):
        images = echoing(kind).generate(torch.tensor([[torch.inf, 0.0], [nan, 0.0], [0.0, 0.0]]))
        assert images.shape == (3, 1, 1, 8)


def test_pictures_of_changed_attributes_keep_the_others(monkeypatch):
    """Also unknown ones, which are drawn once."""
    drawn = []
    monkeypatch.setattr(callbacks.figures, "save_grid", lambda images, *_, **__: drawn.append(images))
    y = torch.tensor([[1.0, nan, nan]]).expand(5, 3)
    data = SimpleNamespace(
        training_rows=lambda *_: iter([(torch.rand(5, 1, 1, 8), y)]), attribute_names=["a", "b", "c"], categories={}
    )
    callbacks.draw_changes(echoing("ring"), data, None)
    rows = drawn[0].reshape(-1, 5, 8)
    assert len(rows) == 1 + 3 + 4
    assert (rows[1:4, :, 3:] == rows[0, :, 3:]).all() and (rows[1:4, :, :3] == torch.eye(3)[:, None]).all()
    assert (rows[4:, :, :3] == torch.tensor([0.0, 1, 0])).all() and (rows[4:, :, 3:7] == torch.eye(4)[:, None]).all()
    assert (rows[4:, :, 7] == rows[0, :, 7]).all()


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


@pytest.mark.parametrize("shift", [None, (0.0, 3.0)])
def test_predictions_of_the_mixture(shift):
    """p(y | z), with a conditional decoder p(y | x, z), at the codes 0.4 x; images are 2 z + shift[y] and noise."""
    mixture = Mixture(shift)
    z = 0.4 * X.flatten()
    tables = mixture.log_prior(z)
    if shift is not None:
        means = 2 * z[:, None] + mixture.shift
        tables = tables + torch.distributions.Normal(means, mixture.noise).log_prob(X.flatten()[:, None])
    torch.testing.assert_close(mixture.model().predict(X)[0], tables.log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("max_rows", [1, 7, 4096])
@pytest.mark.parametrize("kind", ["trip", "flow"])
def test_predictions_by_a_conditional_decoder_try_all_combinations(kind, max_rows, monkeypatch):
    """p(y_j | x, z) ∝ Σ p(x | z, y) p(y | z) over the other attributes, in parts of `max_rows` images."""
    model = echoing(kind, (3, 4))
    model.max_rows = max_rows
    x = 0.2 * torch.randn(5, 1, 1, 7, generator=torch.Generator().manual_seed(2))
    x[1] = torch.tensor([0.0, 1, 0, 0, 0, 0, 1])  # what the decoder gives for 1 and 3
    z = model.encoder(x).mean
    pairs = [torch.tensor([[a, b]]).float().expand(5, -1) for a in range(3) for b in range(4)]
    scores = [model.prior.log_probs(z, y)[1] + model.decode(z, y).log_prob(x) for y in pairs]
    joint = torch.stack(scores, dim=-1).log_softmax(-1).reshape(5, 3, 4)
    decoded, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z, y=None: decoded.append(len(z)) or decode(z, y))
    found = model.predict(x)
    torch.testing.assert_close(found[0], joint.logsumexp(2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], joint.logsumexp(1), rtol=1e-4, atol=1e-4)
    assert found[0][1].argmax() == 1 and found[1][1].argmax() == 3
    assert sum(decoded) == 5 * 12 and max(decoded) <= max_rows and not found[0].requires_grad
    assert [table.shape for table in model.predict(x[:0])] == [(0, 3), (0, 4)]


@pytest.mark.parametrize("attributes", [(3, 4), (3, 4, "continuous")])
def test_predictions_from_codes_alone(attributes, monkeypatch):
    """Of too many combinations, and beside a continuous attribute, whose values cannot all be tried."""
    model = echoing("trip", attributes)
    monkeypatch.setattr(conditional, "COMBINATIONS", 11)  # there are 12
    x = torch.randn(5, 1, 1, 5 + len(attributes))
    expected = model.prior.attribute_posterior(model.encoder(x).mean, log=True)
    for mine, table in zip(model.predict(x), expected, strict=True):
        torch.testing.assert_close(mine, table)


def test_accuracies_during_training_are_those_of_codes():
    """Combinations are not decoded after every epoch; tests report what `predict` says."""
    model, decoded, logged = make("conditional"), [], []
    decode = model.decode
    model.decode = lambda z, y=None: decoded.append(len(z)) or decode(z, y)
    model._log_mean = lambda name, values, size: logged.append(name)
    for stage, rows in (("val", 6), ("test", 6 * 30)):
        decoded.clear()
        model._evaluate(stage, (images(), attributes()), 1)
        assert max(decoded) == rows and f"{stage}_accuracy" in logged


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
