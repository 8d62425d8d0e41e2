"""Training improves the bound, logs its parts and refits the prior."""

from pathlib import Path

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from PIL import Image

from adapters.callbacks import Figures, Reinitialize, SeededSteps, latent_codes
from adapters.data import Digits
from tests.adapters.conditional import MODELS
from tests.adapters.conditional.cases import LATENTS, images, make, nan
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


class TinyDigits(Digits):
    """The first digits only, with thickness for every third of them."""

    attribute_names = ("digit", "thickness")

    def load(self):
        splits = {}
        for name, part in super().load().items():
            rows = part.rows(torch.arange(150))
            thick = torch.bucketize(rows.images.float().mean((1, 2, 3)), torch.tensor([4.5, 5.2])).float()
            thick[torch.arange(150) % 3 > 0] = nan
            splits[name] = rows._replace(attributes=torch.stack([rows.attributes[:, 0], thick], 1))
        return splits


def tiny_digits() -> TinyDigits:
    return TinyDigits(batch_size=25, validation=50, binarization="dynamic")


def fit(model, folder: Path, *callbacks: pl.Callback, **settings) -> pl.Trainer:
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[SeededSteps(), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"logger": False, "max_epochs": 2} | settings,
    )
    trainer.fit(model, tiny_digits())
    return trainer


@pytest.mark.parametrize("name", MODELS)
def test_training_improves_the_bound_and_logs_its_parts(name, tmp_path):
    model = make(name)
    x, y = next(tiny_digits().training_rows(100, 0))
    before = model.elbo(x, y).elbo.mean()
    logger = pl.loggers.CSVLogger(tmp_path, name="")
    figures = [Figures(num_images=4, num_codes=30)] if name in ("trip", "flow", "conditional") else []
    fit(model, tmp_path, *figures, logger=logger)
    assert model.elbo(x, y).elbo.mean() > before + 1
    header = set((Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(","))
    parts = {"elbo", "reconstruction", "kl", "attributes"}
    assert {f"{stage}_{part}" for stage in ("train", "val") for part in parts} <= header
    assert {f"val_{part}" for part in ("iwae", "prediction", "accuracy", "accuracy_0", "accuracy_1")} <= header
    if figures:
        with Image.open(Path(logger.log_dir) / "figures" / "conditions.png") as grid:
            width, height = grid.size  # a row for each digit, labels left of the rows and above all
            assert 8 * 74 + 2 < width < 10 * 74 and 10 * 74 + 2 < height < 11 * 74


def test_accuracies_count_known_attributes_only(tmp_path):
    model = make("trip")
    tables = [torch.eye(10)[torch.arange(6)].log(), torch.eye(3)[torch.zeros(6).long()].log()]
    model._validation_tables = lambda x: tables
    found = {}
    model._log_mean = lambda name, values, size: found.update({name: (values.mean().item(), size)})
    y = torch.tensor([[0, 0], [1, nan], [nan, nan], [4, 0], [nan, nan], [nan, nan]])
    model._evaluate("val", (images(), y), 1)
    assert found["val_accuracy"] == (pytest.approx(4 / 5), 5)
    assert found["val_accuracy_0"] == (pytest.approx(2 / 3), 3) and found["val_accuracy_1"] == (1.0, 2)


@pytest.mark.parametrize("name", ["trip", "flow"])
def test_attributes_go_along_when_the_prior_is_fitted_anew(name, tmp_path):
    model, given = make(name), []
    reinitialize = model.prior.reinitialize

    def recording(z, y=None, **options):
        given.append((z.shape, y, options))
        reinitialize(z, y, **options)

    model.prior.reinitialize = recording
    fit(model, tmp_path, Reinitialize(num_codes=70, method="em", order="mutual_information", max_epochs=2))
    ((shape, y, options),) = given
    assert shape == (70, LATENTS) and y.shape == (70, 2) and options["max_epochs"] == 2
    codes, attributes = latent_codes(model, tiny_digits(), 40, seed=0)
    assert codes.shape == attributes.shape == (40, 2) and attributes[:, 1].isnan().any()
    baseline = make("cvae")
    fit(baseline, tmp_path, Reinitialize(num_codes=30), max_epochs=1)
