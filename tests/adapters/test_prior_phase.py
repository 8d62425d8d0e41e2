"""A second phase of training, the prior alone: its loss by hand, what it learns, and what it leaves as it was."""

import math

import pytest

pytest.importorskip("lightning")

import torch

from adapters import TRIP, FlowPrior, GaussianMixturePrior, GaussianPrior, JointTRIP, VampPrior
from adapters.callbacks import latent_codes
from adapters.data import Digits
from adapters.models import VAE, ConditionalVAE
from adapters.networks import ConvDecoder, ConvEncoder
from adapters.prior_phase import PriorPhase, fit_prior, one_cycle
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED

nan = math.nan
LATENTS = 3
PRIORS = {
    "mixture": lambda: GaussianMixturePrior(LATENTS, 5),
    "trip": lambda: TRIP(LATENTS, 4, 3),
    "flow": lambda: FlowPrior(TRIP(LATENTS, 4, 3), transforms=2, hidden_features=(8,)),
    "joint": lambda: JointTRIP(LATENTS, [10], 4, 3),
    "joint flow": lambda: FlowPrior(JointTRIP(LATENTS, [10], 4, 3), transforms=2, hidden_features=(8,)),
    "vamp": lambda: lambda encoder: VampPrior(encoder, (1, 8, 8), LATENTS, 5),
}


def make(name: str, **settings):
    torch.manual_seed(0)
    encoder, decoder = ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8), "batch"), ConvDecoder(LATENTS, (1, 8, 8), (4, 8))
    model = ConditionalVAE if name.startswith("joint") else VAE
    return model(encoder, decoder, PRIORS[name](), **settings)


def digits(**options) -> Digits:
    return Digits(batch_size=256, **options)


@pytest.mark.parametrize("name", PRIORS)
def test_the_prior_learns_and_nothing_else_changes(name):
    model, data = make(name), digits(missing=0.5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.decoder.requires_grad_(False)
    model.train()
    state = torch.get_rng_state()
    fit = fit_prior(model, data, 3, learning_rate=1e-2, accelerator="cpu")
    assert not torch.equal(torch.get_rng_state(), state)  # the noise is the global generator's
    train, validation = fit.history["train"], fit.history["validation"]
    assert len(train) == len(validation) == 3 and validation[fit.best_epoch - 1] == min(validation) < fit.initial
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("prior.") for key in changed), changed
    assert all(module.training for module in model.modules()) and data.trainer is None
    assert all(p.requires_grad for p in model.encoder.parameters())
    assert not any(p.requires_grad for p in model.decoder.parameters())
    assert all(p.grad is None for p in model.encoder.parameters())


@pytest.mark.parametrize(("name", "per_label"), [("trip", False), ("joint", False), ("joint flow", True)])
def test_the_loss_is_that_of_the_codes(name, per_label):
    model = make(name).eval()
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([[3.0], [nan], [9.0], [nan], [nan], [0.0]])
    posterior = model.encoder(x).base_dist
    z = posterior.mean + posterior.stddev * torch.randn(6, LATENTS, generator=torch.Generator().manual_seed(2))
    expected = -model.prior.log_prob(z).mean()
    if name != "trip":
        told = model.prior.log_prob_attributes(y, z)
        expected = expected - 7 * (told.sum() / 3 if per_label else told.mean())
    loss = PriorPhase(model, model.prior, 7.0, per_label).loss((x, y), torch.Generator().manual_seed(2))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.prior.parameters())


def test_the_best_prior_is_what_is_left():
    """Steps that are too large only do harm: then it is the one that was given."""
    model, data = make("trip"), digits()
    model.eval().prior.reinitialize(latent_codes(model, data, 500, 0)[0], method="em")
    before = {key: value.clone() for key, value in model.prior.state_dict().items()}
    fit = fit_prior(model, data, 3, learning_rate=30.0, patience=3, accelerator="cpu")
    assert fit.best_epoch == 0
    assert all(torch.equal(value, before[key]) for key, value in model.prior.state_dict().items())


def test_labels_that_training_does_not_have_do_not_decide():
    losses = []
    for weight in (0.0, 50.0):
        fit = fit_prior(make("joint"), digits(missing=1.0), 1, attribute_weight=weight, accelerator="cpu")
        losses.append(fit.history)
    losses.append(fit_prior(make("joint"), digits(), 1, attribute_weight=50.0, accelerator="cpu").history)
    assert losses[1]["validation"] == pytest.approx(losses[0]["validation"], rel=1e-5)
    assert losses[2]["validation"][0] > losses[0]["validation"][0] + 1


@pytest.mark.parametrize("steps", [*range(1, 25), 100, 1000])
def test_the_learning_rate_rises_and_falls_to_zero(steps):
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    schedule, rates = one_cycle(optimizer, 0.02, steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[-1] < 1e-5 and max(rates) <= 0.02
    if steps >= 5:
        assert max(rates) > 0.015 and rates.index(max(rates)) <= max(2, steps // 10) and rates[0] < 0.002


def test_another_prior_on_the_codes_of_a_model():
    model, other = make("trip"), TRIP(LATENTS, 4, 3, seed=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit = fit_prior(model, digits(), 2, prior=other, learning_rate=1e-2, accelerator="cpu")
    assert fit.best_epoch > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_prior(TRIP(3), digits()), TypeError, "model must be a VAE, found TRIP"),
        (lambda: fit_prior(make("trip"), digits(), prior=TRIP(4)), ValueError, "over 3 latents, found 4"),
        (lambda: fit_prior(make("trip"), digits(), 0), ValueError, "epochs must be at least 1, found 0"),
        (lambda: fit_prior(make("trip"), digits(), prior=GaussianPrior(3)), ValueError, "found a fixed GaussianPrior"),
        (lambda: fit_prior(make("trip"), digits(), attribute_weight=-1), ValueError, "attribute_weight must be finite"),
        (lambda: fit_prior(make("trip"), digits(), patience=0), ValueError, "patience must be at least 1, found 0"),
    ],
)
def test_errors_name_rule_and_finding(call, error, message):
    with pytest.raises(error, match=message):
        call()
