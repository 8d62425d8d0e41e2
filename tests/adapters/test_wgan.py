"""Adversarial models: losses, constraints, the rhythm of steps, divergence."""

import math

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from adapters import TRIP, FlowPrior, GaussianPrior, VampPrior
from adapters.callbacks import Figures, SeededSteps
from adapters.data import Digits
from adapters.errors import DivergenceError
from adapters.models import WGAN
from adapters.networks import ConvDecoder, ConvEncoder, GaussianEncoder
from tests.lightning_warnings import IGNORED

pytestmark = [
    *IGNORED,
    # Its advice is for checkpoints from before a step, which nothing here asks for.
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization:UserWarning"),
]
LATENTS = 3


def small_wgan(prior=None, **settings) -> WGAN:
    """A WGAN over 8x8 images."""
    torch.manual_seed(0)
    return WGAN(
        ConvDecoder(LATENTS, (1, 8, 8), (4, 8), norm="batch"),
        ConvEncoder((1, 8, 8), 1, (4, 8), norm="layer"),
        TRIP(LATENTS, num_components=4, rank=2) if prior is None else prior,
        **{"learning_rate": 1e-2} | settings,
    )


def fit(model, folder=None, steps: int = 0, batch_size: int = 50, **options) -> pl.Trainer:
    """Eight epochs' worth of nothing but training, unless told otherwise."""
    options = {"max_epochs": 1, "limit_train_batches": steps or 8} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=folder is not None,
        limit_val_batches=0,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(model, Digits(batch_size=batch_size))
    return trainer


def copied(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model, before, part: str) -> bool:
    return any(
        not torch.equal(value, before[name]) for name, value in model.state_dict().items() if name.startswith(part)
    )


class Constant(nn.Module):
    """A generator of images without a mark, whatever the code."""

    def forward(self, z):
        return torch.zeros(len(z), 1, 8, 8)


class LinearCritic(nn.Module):
    """D(x) = w · x + b."""

    def __init__(self, weight: torch.Tensor, bias: float = 0.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.tensor(bias))

    def forward(self, x):
        return (x.flatten(1) @ self.weight + self.bias)[:, None]


# ------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("length", [0.3, 1.0, 2.5])
def test_the_gradient_penalty_of_a_linear_critic(length):
    weight = torch.full((64,), length / 8)  # of norm `length`
    model = WGAN(Constant(), LinearCritic(weight), GaussianPrior(2), penalty=7.0)
    x = torch.rand(5, 1, 8, 8)
    loss, gap = model.critic_loss(x)
    torch.testing.assert_close(gap, ((2 * x - 1).flatten(1) @ weight).mean())  # the generated images are zero
    torch.testing.assert_close(loss, -gap + 7 * torch.tensor((length - 1) ** 2), atol=1e-5, rtol=1e-5)


def test_the_penalty_has_gradients_for_the_critic():
    weight = torch.full((64,), 2 / 8)
    model = WGAN(nn.Identity(), LinearCritic(weight), GaussianPrior(2))
    model._gradient_penalty(*torch.rand(2, 5, 1, 8, 8)).backward()
    torch.testing.assert_close(model.critic.weight.grad, 2 * (2 - 1) * weight / 2)  # d(|w| - 1)^2


def test_the_gan_loss():
    model = WGAN(Constant(), LinearCritic(torch.zeros(64), 0.7), GaussianPrior(2), loss="gan", constraint="none")
    loss, gap = model.critic_loss(torch.rand(5, 1, 8, 8))
    probability = 1 / (1 + math.exp(-0.7))
    assert loss.item() == pytest.approx(-math.log(probability) - math.log(1 - probability), rel=1e-5) and gap == 0
    assert model.generator_loss(3).item() == pytest.approx(-math.log(probability), rel=1e-5)


def test_spectral_norms_are_at_most_one():
    model = small_wgan(constraint="spectral_norm")
    fit(model)
    for module in model.critic.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2) < 1.5  # one power iteration lags behind


def test_clipped_weights():
    model = small_wgan(constraint="clip", clip=0.02)
    fit(model)
    assert max(parameter.abs().max() for parameter in model.critic.parameters()) <= 0.02


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(("batches", "steps"), [(3, 0), (4, 1), (7, 1), (8, 2)])
def test_the_generator_steps_after_every_few_critic_steps(batches, steps):
    model = small_wgan(critic_steps=4)
    before = copied(model)
    trainer = fit(model, steps=batches)
    assert trainer.global_step == batches + steps
    assert changed(model, before, "critic")
    assert changed(model, before, "prior") == (steps > 0)
    assert changed(model, before, "generator.0") == (steps > 0)


def test_the_rhythm_does_not_start_anew_with_an_epoch():
    model = small_wgan(critic_steps=4)
    trainer = fit(model, steps=3, max_epochs=4)
    assert trainer.global_step == 12 + 3


@pytest.mark.parametrize("estimator", ["reinforce", "hybrid", "pathwise"])
@pytest.mark.parametrize("loss", ["wasserstein", "gan"])
def test_the_prior_learns(estimator, loss):
    model = small_wgan(estimator=estimator, loss=loss)
    before = copied(model)
    fit(model)
    for part in ("prior.means", "prior.log_stds", "prior.cores"):
        assert changed(model, before, part)
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("baseline", ["leave_one_out", "mean"])
@pytest.mark.parametrize("estimator", ["reinforce", "hybrid", "pathwise"])
def test_a_last_batch_of_one_image(estimator, baseline):
    model = small_wgan(critic_steps=1, estimator=estimator, baseline=baseline)
    before = copied(model)
    fit(model, steps=1, batch_size=1)
    assert changed(model, before, "generator.0") and changed(model, before, "prior")


@pytest.mark.parametrize("settings", [{"channels_last": True}, {"constraint": "spectral_norm"}])
def test_mixed_precision(settings):
    model = small_wgan(critic_steps=1, **settings)
    before = copied(model)
    fit(model, steps=2, precision="bf16-mixed")
    for part in ("critic", "generator.0", "prior"):
        assert changed(model, before, part)
    for name, value in model.state_dict().items():
        assert value.isfinite().all() and value.dtype in (torch.float32, torch.int64), name
    if "channels_last" in settings:
        assert model.critic[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_fixed_priors_stay():
    for prior in (GaussianPrior(LATENTS), TRIP(LATENTS, 4, 2, trainable=False)):
        model = small_wgan(prior)
        before = copied(model)
        fit(model)
        assert not changed(model, before, "prior") and changed(model, before, "generator")


def test_the_critic_has_no_gradient_from_the_generator_s_step():
    model = small_wgan(critic_steps=1)
    recorded = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            recorded.append(all(p.requires_grad for p in pl_module.critic.parameters()))

    fit(model, steps=2, callbacks=[Watch()])
    assert recorded == [True, True]


def test_learning_rates():
    model = small_wgan(learning_rate=1e-4, critic_learning_rate=3e-4, prior_learning_rate=5e-3)
    critic, generator = model.configure_optimizers()
    assert critic.param_groups[0]["lr"] == 3e-4
    assert [group["lr"] for group in generator.param_groups] == [1e-4, 5e-3]


def test_a_generator_learns_the_mean_of_the_data():
    """Images of one grey level: the critic must lead the generator there."""

    class Grey(Digits):
        def load(self):
            splits = super().load()
            return {name: split._replace(images=torch.full_like(split.images, 12)) for name, split in splits.items()}

    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(LATENTS, 64), nn.Unflatten(1, (1, 8, 8)))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    model = WGAN(generator, critic, GaussianPrior(LATENTS), learning_rate=5e-3, critic_steps=2)
    start = (model.sample(200) - 12 / 16).abs().mean()
    trainer = pl.Trainer(
        max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[SeededSteps()],
    )  # fmt: skip
    trainer.fit(model, Grey(batch_size=50))
    assert (model.sample(200) - 12 / 16).abs().mean() < 0.4 * start


def test_samples_are_images():
    images = small_wgan().eval().sample(5)
    assert images.shape == (5, 1, 8, 8) and not images.requires_grad and 0 <= images.min() <= images.max() <= 1


def test_validation_and_figures(tmp_path):
    model = small_wgan()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, limit_train_batches=4, limit_val_batches=2,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Figures(every=1)], log_every_n_steps=1,
        logger=pl.loggers.CSVLogger(tmp_path, name=""),
    )  # fmt: skip
    trainer.fit(model, Digits(batch_size=50))
    assert torch.isfinite(trainer.callback_metrics["val_gap"])
    names = {path.name for path in (tmp_path / "version_0" / "figures").iterdir()}
    assert names == {"samples.png", "prior.png", "hops.png", "curves.png"}


# ---------------------------------------------------------------------------------------------------------- divergence


def test_a_critic_that_is_no_number_stops_the_run_before_its_step(tmp_path):
    model = small_wgan()

    class Spoil(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 5:
                with torch.no_grad():
                    pl_module.critic[0].weight[0] = torch.nan
                self.before = copied(pl_module)

    spoil = Spoil()
    checkpoint = ModelCheckpoint(tmp_path, filename="step", every_n_train_steps=5, enable_version_counter=False)
    with pytest.raises(DivergenceError, match=r"step 6: the losses .* found nan; lower the learning rates"):
        fit(model, tmp_path, callbacks=[spoil, checkpoint])
    assert not changed(model, spoil.before, "generator.0") and not changed(model, spoil.before, "prior")
    kept = torch.load(tmp_path / "step.ckpt", weights_only=True)
    assert kept["global_step"] == 5 and all(value.isfinite().all() for value in kept["state_dict"].values())


class Root(nn.Module):
    """A network's outputs and a root added to them: at zero it has a value, and a gradient that is not a number."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.shift = network, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.network(x) + self.shift.square().sqrt()


@pytest.mark.parametrize(("part", "batch"), [("critic", 5), ("generator", 7)])
def test_a_gradient_that_is_not_a_number_stops_the_run_before_its_step(tmp_path, part, batch):
    model = small_wgan()
    setattr(model, part, Root(getattr(model, part)))

    class Spoil(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch_, batch_idx):
            if batch_idx == batch:
                getattr(pl_module, part).shift.data.zero_()
                self.before = copied(pl_module)

    spoil = Spoil()
    checkpoint = ModelCheckpoint(tmp_path, filename="step", every_n_train_steps=1, enable_version_counter=False)
    with pytest.raises(DivergenceError, match=r"the gradients must be finite, found nan; .* is from before this step"):
        fit(model, tmp_path, callbacks=[spoil, checkpoint])
    learned = [name for name, _ in getattr(model, part).named_parameters()]
    assert learned and not any(changed(model, spoil.before, f"{part}.{name}") for name in learned)
    kept = torch.load(tmp_path / "step.ckpt", weights_only=True)
    assert kept["global_step"] == batch + batch // 4
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_an_exploding_critic_stops_the_run():
    with pytest.raises(DivergenceError, match="must stay within ±1e-06"):
        fit(small_wgan(max_loss=1e-6))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prior": nn.Identity()}, TypeError, "prior must be a Prior, found Identity"),
        ({"loss": "hinge"}, ValueError, "loss must be one of wasserstein, gan, found 'hinge'"),
        ({"constraint": "l1"}, ValueError, "constraint must be one of gradient_penalty, clip, spectral_norm, none"),
        ({"estimator": "x"}, ValueError, "estimator must be one of"),
        ({"critic_steps": 0}, ValueError, "critic_steps must be at least 1, found 0"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        small_wgan(**options)


@pytest.mark.parametrize("around", [lambda prior: prior, lambda prior: FlowPrior(prior, "maf", transforms=1)])
def test_there_is_no_encoder_for_a_vamp_prior(around):
    encoder = GaussianEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * LATENTS)))
    with pytest.raises(TypeError, match="a VampPrior needs a model with an encoder, such as a VAE; a WGAN has none"):
        small_wgan(around(VampPrior(encoder, (1, 8, 8), LATENTS, num_pseudo_inputs=4)))


def test_norms():
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in ConvDecoder(3, (1, 8, 8), (4, 8), "batch"))
    assert sum(isinstance(layer, nn.GroupNorm) for layer in ConvEncoder((1, 8, 8), 1, (4, 8), "layer")) == 1
    with pytest.raises(ValueError, match="norm must be None or one of batch, layer, found 'group'"):
        ConvEncoder((1, 8, 8), 1, (4, 8), "group")
