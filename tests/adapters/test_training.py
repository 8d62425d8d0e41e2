"""Training of a variational autoencoder: runs that are resumed, noise, and callbacks."""

import warnings
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adapters import FlowPrior, GaussianPrior, JointTRIP, VampPrior
from adapters.callbacks import Figures, Reinitialize, SeededSteps, forget_moments
from adapters.data import Digits
from adapters.data.base import ResumableLoader
from adapters.models import VAE, ConditionalVAE
from adapters.networks import ConvDecoder, ConvEncoder
from adapters.seeding import derived_seed
from tests.adapters.small_models import LATENTS, images, small_trip, small_vae
from tests.lightning_warnings import IGNORED

pytestmark = [
    *IGNORED,
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),  # resumed runs write to new folders
]


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
    with pytest.raises(ValueError, match="attribute_weight must be finite and not negative, found -1"):
        Reinitialize(attribute_weight=-1)


@pytest.mark.parametrize("around", [lambda prior: prior, lambda prior: FlowPrior(prior, "maf", transforms=1)])
def test_options_that_the_prior_does_not_have(tmp_path, around):
    run = trainer(tmp_path, Reinitialize(method="em"), epochs=1, enable_checkpointing=False, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"GaussianPrior\.reinitialize does not take .*method"):
        run.fit(small_vae(around(GaussianPrior(LATENTS))), tiny_digits())


def test_a_weight_of_attributes_reaches_the_ring(tmp_path, monkeypatch):
    given = []
    fit = JointTRIP.reinitialize
    monkeypatch.setattr(
        JointTRIP, "reinitialize", lambda *args, **options: (given.append(options), fit(*args, **options))
    )
    ring = JointTRIP(LATENTS, [10], rank=3, core="switching", private_components=True)
    callback = Reinitialize(1, 1, method="mixture", attribute_weight=5.0)
    encoder, decoder = ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8)), ConvDecoder(LATENTS, (1, 8, 8), (4, 8))
    model = ConditionalVAE(encoder, decoder, ring)
    trainer(tmp_path, callback, epochs=2, enable_checkpointing=False).fit(model, tiny_digits())
    assert given == [{"method": "mixture", "attribute_weight": 5.0}]
    with pytest.raises(ValueError, match=r"TRIP\.reinitialize does not take .*attribute_weight"):
        trainer(tmp_path, callback, epochs=1).fit(small_vae(small_trip()), tiny_digits())
    with pytest.raises(ValueError, match=r"attribute_weight is of known categorical attributes, found 5\.0"):
        trainer(tmp_path, callback, epochs=1).fit(small_vae(ring), tiny_digits())
    with pytest.raises(ValueError, match="attribute_weight is of method mixture with private components"):
        trainer(tmp_path, Reinitialize(attribute_weight=5.0), epochs=1).fit(model, tiny_digits())


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
