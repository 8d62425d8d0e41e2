"""The variational autoencoder, its bounds and its training."""

import math
import warnings
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.distributions import MultivariateNormal
from torch.utils.data import DataLoader, TensorDataset

from adapters import TRIP, FlowPrior, GaussianPrior, VampPrior, VampTRIP
from adapters.callbacks import Figures, Reinitialize, SeededSteps, forget_moments
from adapters.data import Digits
from adapters.data.base import ResumableLoader
from adapters.likelihoods import BernoulliLikelihood, GaussianLikelihood
from adapters.models import VAE
from adapters.networks import ConvDecoder, ConvEncoder, GaussianEncoder
from adapters.seeding import derived_seed

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.rank_zero.LightningDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),  # resumed runs write to new folders
]

LATENTS = 3


def small_vae(prior=None, **settings) -> VAE:
    """A VAE over 8x8 images, binary by default."""
    torch.manual_seed(0)
    return VAE(
        ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8)),
        ConvDecoder(LATENTS, (1, 8, 8), (4, 8)),
        GaussianPrior(LATENTS) if prior is None else prior,
        **{"learning_rate": 1e-2} | settings,
    )


def small_trip() -> TRIP:
    return TRIP(LATENTS, num_components=4, rank=2)


def images(n: int = 6) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, 1, 8, 8), 0.3), generator=torch.Generator().manual_seed(1))


class LinearGaussian:
    """x = W z + b + noise: everything about this VAE is known in closed form."""

    def __init__(self, pixels: int = 5, latents: int = 2, std: float = 0.7):
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(pixels, latents, generator=generator)
        self.bias = torch.randn(pixels, generator=generator)
        self.std, self.pixels, self.latents = std, pixels, latents

    def vae(self, blur: float = 1.0) -> VAE:
        """With the exact posterior's means; `blur` times larger than the deviations that fit best."""
        decoder = nn.Sequential(nn.Linear(self.latents, self.pixels), nn.Unflatten(1, (self.pixels, 1, 1)))
        decoder[0].weight.data, decoder[0].bias.data = self.weight, self.bias
        precision = torch.eye(self.latents) + self.weight.T @ self.weight / self.std**2
        gain = torch.linalg.solve(precision, self.weight.T) / self.std**2
        linear = nn.Linear(self.pixels, 2 * self.latents)
        linear.weight.data = torch.cat([gain, torch.zeros_like(gain)])
        log_std = -0.5 * precision.diagonal().log() + math.log(blur)
        linear.bias.data = torch.cat([-gain @ self.bias, log_std])
        encoder = nn.Sequential(nn.Flatten(), linear)
        return VAE(encoder, decoder, GaussianPrior(self.latents), GaussianLikelihood(self.std))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        covariance = self.weight @ self.weight.T + self.std**2 * torch.eye(self.pixels)
        return MultivariateNormal(self.bias, covariance).log_prob(x.flatten(1))

    def sample(self, n: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(4)
        z = torch.randn(n, self.latents, generator=generator)
        noise = torch.randn(n, self.pixels, generator=generator)
        return (z @ self.weight.T + self.bias + self.std * noise)[:, :, None, None]


# ------------------------------------------------------------------------------------------------------------- bounds


def test_the_importance_weighted_bound_of_a_linear_model_approaches_the_exact_likelihood():
    model = LinearGaussian()
    x, vae = model.sample(20), model.vae(blur=1.3)
    torch.manual_seed(0)
    exact = model.log_prob(x)
    elbo = torch.stack([vae.elbo(x).elbo for _ in range(200)]).mean(0)
    bounds = [vae.iwae(x, k).mean() for k in (1, 10, 5000)]
    assert elbo.mean() < bounds[1] < exact.mean()
    torch.testing.assert_close(vae.iwae(x, 5000), exact, atol=0.05, rtol=0)
    torch.testing.assert_close(bounds[2], exact.mean(), atol=0.02, rtol=0)


@pytest.mark.parametrize("max_rows", [1, 7, 20, 10_000])
def test_memory_does_not_change_the_bound(max_rows):
    vae, x = small_vae(small_trip()), images()
    torch.manual_seed(0)
    reference = vae.iwae(x, 13)
    torch.manual_seed(0)
    torch.testing.assert_close(vae.iwae(x, 13, max_rows=max_rows), reference)


def test_memory_is_bounded():
    vae, rows = small_vae(), []
    vae.decoder.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    vae.iwae(images(), 50, max_rows=20)
    assert max(rows) <= 20 and sum(rows) == 50 * 6
    rows.clear()
    vae.iwae(images(), 3, max_rows=4)  # fewer than there are images
    assert rows == [4, 2] * 3
    with pytest.raises(ValueError, match="max_rows must be at least 1, found 0"):
        vae.iwae(images(), 3, max_rows=0)


def test_the_closed_form_of_the_divergence_is_the_mean_of_its_estimates():
    x = images()
    exact = small_vae(analytic_kl=True).elbo(x).kl
    sampled = small_vae(analytic_kl=False)
    torch.manual_seed(0)
    estimates = torch.stack([sampled.elbo(x).kl for _ in range(500)]).detach()
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact).abs() < 5 * error + 1e-4).all()


def test_the_elbo_is_the_bound_with_one_sample():
    vae, x = small_vae(small_trip()), images()
    torch.manual_seed(0)
    elbo = vae.elbo(x).elbo
    torch.manual_seed(0)
    torch.testing.assert_close(vae.iwae(x, 1), elbo)


# ------------------------------------------------------------------------------------------------- what it is made of


def test_gradients_reach_the_prior_and_a_fixed_one_stays():
    for trainable in (True, False):
        vae = small_vae(TRIP(LATENTS, 4, 2, trainable=trainable))
        bound = vae.elbo(images())
        (-bound.elbo.mean()).backward()
        assert all((p.grad is not None and p.grad.abs().sum() > 0) == trainable for p in vae.prior.parameters())
        assert all(p.grad is not None for p in vae.encoder.parameters())
        assert len(vae.configure_optimizers().param_groups) == 1 + trainable


def test_the_prior_has_its_own_learning_rate():
    groups = small_vae(small_trip(), prior_learning_rate=0.5).configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == [1e-2, 0.5]


@pytest.mark.parametrize("kind", [VampPrior, VampTRIP])
def test_a_vamp_prior_shares_the_encoder(kind):
    vae = small_vae(lambda encoder: kind(encoder, (1, 8, 8), LATENTS, num_pseudo_inputs=5))
    weight = vae.encoder.network[0].weight
    vae.prior.log_prob(torch.zeros(1, LATENTS)).sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert not any("encoder" in name for name, _ in vae.prior.named_parameters())
    before = vae.prior.log_prob(torch.zeros(1, LATENTS)).detach()
    weight.data += 0.1
    assert vae.prior.log_prob(torch.zeros(1, LATENTS)) != before
    assert sum(len(group["params"]) for group in vae.configure_optimizers().param_groups) == len(list(vae.parameters()))


def test_a_prior_that_is_none():
    with pytest.raises(TypeError, match="must be a Prior or a function that returns one, found Linear"):
        small_vae(lambda encoder: nn.Linear(1, 1))


@pytest.mark.parametrize("thing", [3, None, torch.distributions.Normal(0.0, 1.0), "TRIP"])
def test_a_prior_that_is_neither_a_prior_nor_a_function(thing):
    with pytest.raises(
        TypeError, match=f"must be a Prior or a function that returns one, found {type(thing).__name__}"
    ):
        VAE(nn.Linear(4, 2), nn.Linear(1, 4), thing)


@pytest.mark.parametrize(("latents", "kind"), [(2, GaussianPrior), (5, GaussianPrior), (4, TRIP)])
def test_an_encoder_and_a_prior_of_different_sizes(latents, kind):
    vae = small_vae(kind(latents))
    message = f"for the prior's {latents} latents must have {2 * latents} outputs, found {2 * LATENTS}"
    for ask in (vae.elbo, lambda x: vae.iwae(x, 2)):
        with pytest.raises(ValueError, match=message):
            ask(images())


def test_a_network_that_is_an_encoder_already():
    network = GaussianEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * LATENTS)))
    vae = VAE(network, ConvDecoder(LATENTS, (1, 8, 8), (4, 8)), GaussianPrior(LATENTS))
    with pytest.raises(TypeError, match=r"must return a tensor .* found Independent; a VAE wraps its network"):
        vae.elbo(images())


@pytest.mark.parametrize("outputs", [1, 5, 7])
def test_an_odd_number_of_outputs(outputs):
    encoder = GaussianEncoder(nn.Linear(4, outputs))
    with pytest.raises(ValueError, match=f"must have 2 d outputs, found {outputs}"):
        encoder(torch.zeros(3, 4))


def test_images_out():
    vae = small_vae(small_trip(), likelihood=BernoulliLikelihood())
    assert vae.sample(5).shape == (5, 1, 8, 8) and vae.reconstruct(images()).shape == (6, 1, 8, 8)
    assert 0 <= vae.sample(5).min() and vae.sample(5).max() <= 1


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64)])
def test_the_papers_networks(shape):
    encoder, decoder = ConvEncoder(shape, 200), ConvDecoder(100, shape)
    assert [m.out_channels for m in encoder if isinstance(m, nn.Conv2d)] == [64, 128, 256, 512]
    assert encoder(torch.zeros(2, *shape)).shape == (2, 200)
    assert decoder(torch.zeros(2, 100)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((1, 8, 8), (), r"channels must be positive numbers, one for each layer, found \[\]"),
        ((1, 8, 8), (4, 0), r"channels must be positive numbers, one for each layer, found \[4, 0\]"),
        ((8, 8), (4,), r"image_shape must be three positive numbers \(C, H, W\), found \[8, 8\]"),
        ((1, 0, 8), (4,), r"image_shape must be three positive numbers \(C, H, W\), found \[1, 0, 8\]"),
    ],
)
@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_sizes_that_are_none(network, shape, channels, message):
    arguments = (shape, 2) if network is ConvEncoder else (2, shape)
    with pytest.raises(ValueError, match=message):
        network(*arguments, channels)


def test_an_image_that_cannot_be_halved():
    with pytest.raises(ValueError, match="sides that are multiples of 8, found 28x28"):
        ConvEncoder((1, 28, 28), 2, (1, 2, 3))


# ----------------------------------------------------------------------------------------------------------- training


class TinyDigits(Digits):
    """The first digits only."""

    def load(self):
        return {name: part.rows(torch.arange(150)) for name, part in super().load().items()}


def tiny_digits() -> TinyDigits:
    return TinyDigits(batch_size=25, validation=50, binarization="dynamic")


def trainer(folder: Path, *callbacks: pl.Callback, epochs: int = 3, **settings) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=[SeededSteps(), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False} | settings,
    )


def parameters(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_the_weight_of_the_divergence_grows(tmp_path):
    vae = small_vae(beta=0.5, warm_up_steps=10)
    assert vae.divergence_weight == 0.05
    trainer(tmp_path, epochs=1, enable_checkpointing=False).fit(vae, tiny_digits())
    assert vae.global_step == 4 and vae.divergence_weight == pytest.approx(0.25)
    assert small_vae().divergence_weight == 1.0


@pytest.mark.parametrize(
    "settings, checkpoints",
    [
        ({}, 12 + 3),
        ({"accumulate_grad_batches": 2}, 6 + 3),
        ({"limit_train_batches": 3}, 9 + 3),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_run_resumed_at_any_step_ends_as_the_unbroken_one(tmp_path, settings, checkpoints):
    def run(folder: Path, **resume) -> VAE:
        every = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        epochs = ModelCheckpoint(folder, "epoch-{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        vae = small_vae(small_trip())
        callbacks = (Reinitialize(every=1), every, epochs)
        trainer(folder, *callbacks, **settings).fit(vae, tiny_digits(), **resume)
        return vae

    pl.seed_everything(5, verbose=False)
    unbroken = parameters(run(tmp_path / "all"))
    written = sorted((tmp_path / "all").glob("*.ckpt"))
    assert len(written) == checkpoints
    for checkpoint in written:
        torch.manual_seed(99)
        resumed = parameters(run(tmp_path / checkpoint.stem, ckpt_path=checkpoint))
        assert torch.equal(resumed, unbroken), checkpoint.name


def test_another_seed_is_another_run(tmp_path):
    ends = []
    for seed in (5, 5, 6):
        pl.seed_everything(seed, verbose=False)
        vae = small_vae(small_trip())
        trainer(tmp_path, epochs=1, enable_checkpointing=False).fit(vae, tiny_digits())
        ends.append(parameters(vae))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_places_of_a_run_have_seeds_of_their_own():
    places = [(0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (2, 0), (0, 2)]
    assert len({derived_seed(*place) for place in places}) == len(places)


def test_noise_of_the_model_is_not_that_of_the_pixels(tmp_path):
    """Both are functions of process, epoch and batch, and must not be one stream of random numbers."""
    seeds = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seeds.append(torch.initial_seed())

    trainer(tmp_path, Watch(), epochs=2, enable_checkpointing=False).fit(small_vae(), tiny_digits())
    pixels = {derived_seed(0, epoch, batch) for epoch in range(3) for batch in range(6)}
    assert len(set(seeds)) == 8 and not pixels & set(seeds)


def test_a_loader_goes_on_where_it_was():
    data = tiny_digits()
    data.setup()
    loader, other = data.train_dataloader(), data.train_dataloader()
    assert isinstance(loader, ResumableLoader) and len(loader) == 4
    batches = [x for x, _ in loader]
    first = iter(other)
    next(first), next(first)
    resumed = data.train_dataloader()
    resumed.load_state_dict(other.state_dict())
    assert all(torch.equal(x, y) for (x, _), y in zip(resumed, batches[2:], strict=True))
    assert len(list(resumed)) == 4


def test_when_the_prior_is_fitted_anew():
    assert [epoch for epoch in range(18) if Reinitialize().is_due(epoch)] == [1, 6, 11, 16]
    assert [epoch for epoch in range(18) if Reinitialize(first=2, every=4, last=10).is_due(epoch)] == [2, 6, 10]
    assert [epoch for epoch in range(18) if Reinitialize(every=None).is_due(epoch)] == [1]
    with pytest.raises(ValueError, match="every must be at least 1, found 0"):
        Reinitialize(every=0)
    with pytest.raises(TypeError, match=r"every must be an integer, found 1\.5"):
        Reinitialize(every=1.5)
    with pytest.raises(ValueError, match="method must be one of gmm, em, mixture, found 'svd'"):
        Reinitialize(method="svd")


@pytest.mark.parametrize("around", [lambda prior: prior, lambda prior: FlowPrior(prior, "maf", transforms=1)])
def test_options_that_the_prior_does_not_have(tmp_path, around):
    run = trainer(tmp_path, Reinitialize(method="em"), epochs=1, enable_checkpointing=False, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"GaussianPrior\.reinitialize does not take .*method"):
        run.fit(small_vae(around(GaussianPrior(LATENTS))), tiny_digits())


def test_what_codes_say_nothing_about_is_told_before_training(tmp_path):
    run = trainer(tmp_path, Reinitialize(), epochs=1, enable_checkpointing=False, limit_val_batches=0)
    with pytest.raises(ValueError, match="VampPrior cannot be re-initialised from latent codes"):
        run.fit(small_vae(lambda encoder: VampPrior(encoder, (1, 8, 8), LATENTS, 3)), tiny_digits())


def test_only_moments_of_changed_parameters_are_forgotten():
    vae = small_vae(small_trip())
    optimizer = vae.configure_optimizers()
    (-vae.elbo(images()).elbo.mean()).backward()
    optimizer.step()
    assert set(optimizer.state) == set(vae.parameters())
    before = {name: value.clone() for name, value in vae.prior.state_dict().items()}
    changed = next(vae.prior.parameters())
    with torch.no_grad():
        changed += 1
    forget_moments([optimizer], vae.prior, before)
    assert set(vae.parameters()) - set(optimizer.state) == {changed}
    optimizer.step()
    assert optimizer.state[changed]["step"] == 1


@pytest.mark.parametrize("method, order", [("gmm", None), ("em", "mutual_information")])
def test_the_prior_moves_to_the_codes(tmp_path, method, order):
    pl.seed_everything(0, verbose=False)
    vae, data = small_vae(small_trip()), tiny_digits()
    means = vae.prior.means.clone() if hasattr(vae.prior, "means") else None
    callback = Reinitialize(method=method, order=order)
    run = trainer(tmp_path, callback, epochs=2, enable_checkpointing=False)
    run.fit(vae, data)
    assert means is None or not torch.equal(vae.prior.means, means)


def test_figures_and_logs(tmp_path):
    pl.seed_everything(0, verbose=False)
    logger = pl.loggers.CSVLogger(tmp_path, name="")
    figures = Figures(every=1, num_images=8, num_codes=50)
    run = trainer(tmp_path, figures, epochs=2, logger=logger, enable_checkpointing=False)
    run.fit(small_vae(small_trip()), tiny_digits())
    folder = Path(logger.log_dir)
    names = {file.name for file in (folder / "figures").iterdir()}
    assert names == {"samples.png", "reconstructions.png", "prior.png", "hops.png", "curves.png"}
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    logged = {f"{stage}_{part}" for stage in ("train", "val") for part in ("elbo", "reconstruction", "kl")}
    assert logged | {"val_iwae"} <= set(header)


def test_a_callback_that_needs_the_projects_data(tmp_path):
    loader = DataLoader(TensorDataset(images(), torch.zeros(6, 1)), batch_size=3)
    with warnings.catch_warnings(), pytest.raises(TypeError, match="needs an ImageData"):
        warnings.simplefilter("ignore")
        run = trainer(tmp_path, Reinitialize(), epochs=2, enable_checkpointing=False, limit_val_batches=0)
        run.fit(small_vae(small_trip()), loader)
