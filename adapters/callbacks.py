"""Lightning callbacks: re-initialisation of the prior, reproducible noise, figures."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from adapters import figures
from adapters.conditions import changed_codes
from adapters.data.base import ImageData, value_name
from adapters.hopping import hopping_images
from adapters.models import VAE, AttributeVAE, ConditionalVAE
from adapters.priors import FlowPrior, JointTRIP, Prior
from adapters.priors.base import check_option, integer_of, nonnegative_of
from adapters.priors.ring_fit import Method
from adapters.priors.ring_start import NewOrder
from adapters.seeding import derived_seed, epoch_of

MODEL_NOISE = 1  # separates the model's random numbers from those that data modules draw at the same step


class SeededSteps(Callback):
    """Seeds PyTorch's generators at every training step from the run's seed, the process, the epoch and the batch.

    The noise of a step is then the same in a resumed run and in an uninterrupted one. `ImageData` derives its random
    numbers from process, epoch and batch; the seed here has an additional number, so that the model's noise differs.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from adapters.callbacks import SeededSteps
        >>> trainer = Trainer(callbacks=[SeededSteps()], accelerator="cpu", logger=False)
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the seed of this step."""
        torch.manual_seed(derived_seed(trainer.global_rank, epoch_of(trainer), batch_idx, MODEL_NOISE))


class Reinitialize(Callback):
    """The paper's re-initialisation: the prior is fitted to latent codes after the first epoch and every five epochs.

    The codes are samples from q(z | x) for training images; a `ConditionalVAE` also passes their attributes. The prior
    is fitted before the first batch of an epoch, so a run that is resumed from any checkpoint neither omits nor repeats
    it. The optimiser's moments of changed parameters are reset.

    Args:
        first: epochs before the first re-initialisation.
        every: epochs between re-initialisations; None: only one.
        last: last epoch with a re-initialisation; None: no limit.
        num_codes: largest number of codes; 2 000 in the official code.
        method: of `prior.reinitialize`, if it has several: "gmm" (the paper's), "mixture" or "em".
        order: of `prior.reinitialize`: "mutual_information" also reorders the ring.
        max_epochs: of `prior.reinitialize` with the method "em".
        attribute_weight: of `JointTRIP.reinitialize` with the method "mixture".

    Raises:
        TypeError: if first, every, num_codes or max_epochs is not an integer, or attribute_weight not a number.
        ValueError: if one of the integers is less than 1, the weight is negative, or an option is unknown; when
            training starts, if the model has no latent codes, its prior has no such re-initialisation, or weights would
            be averaged over a re-ordering.

    Examples:
        >>> from adapters.callbacks import Reinitialize
        >>> callback = Reinitialize(first=1, every=5, method="em", order="mutual_information")
        >>> [epoch for epoch in range(12) if callback.is_due(epoch)]
        [1, 6, 11]
    """

    def __init__(
        self,
        first: int = 1,
        every: int | None = 5,
        last: int | None = None,
        num_codes: int = 2000,
        method: str | None = None,
        order: str | None = None,
        max_epochs: int | None = None,
        attribute_weight: float | None = None,
    ):
        counts = {"first": first, "every": every, "num_codes": num_codes, "max_epochs": max_epochs}
        for name, value in counts.items():
            if value is not None:
                integer_of(name, value)
        if method is not None:
            check_option("method", method, get_args(Method))
        if order is not None:
            check_option("order", order, get_args(NewOrder))
        if attribute_weight is not None:
            nonnegative_of("attribute_weight", attribute_weight)
        self.first, self.every, self.last, self.num_codes = first, every, last, num_codes
        options: dict[str, Any] = {
            "method": method,
            "order": order,
            "max_epochs": max_epochs,
            "attribute_weight": attribute_weight,
        }
        self.options = {name: value for name, value in options.items() if value is not None}

    def is_due(self, epoch: int) -> bool:
        """Whether the prior is re-initialised before this epoch, counted from 0."""
        if epoch < self.first or (self.last is not None and epoch > self.last):
            return False
        return epoch == self.first if self.every is None else (epoch - self.first) % self.every == 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise `ValueError` if the prior's re-initialisation does not have these options."""
        if not isinstance(pl_module, VAE):
            raise ValueError(
                f"re-initialisation is from the codes of a VAE's encoder, found {type(pl_module).__name__}"
            )
        prior = pl_module.prior
        while isinstance(prior, FlowPrior):  # re-initialises its base
            prior = prior.base
        if type(prior).reinitialize is Prior.reinitialize:
            raise ValueError(f"{type(prior).__name__} cannot be re-initialised from latent codes")
        try:
            inspect.signature(prior.reinitialize).bind(None, **self.options)
        except TypeError as error:
            raise ValueError(f"{type(prior).__name__}.reinitialize does not take {self.options}: {error}") from error
        if isinstance(prior, JointTRIP) and "attribute_weight" in self.options:
            labelled = isinstance(pl_module, ConditionalVAE)
            weight, method = self.options["attribute_weight"], self.options.get("method", "gmm")
            prior.check_attribute_weight(weight, method, has_attributes=labelled)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise `ValueError` if weights will be averaged over a re-ordering of the ring, as far as this is known."""
        for callback in self._averaging(trainer):
            begin = first_averaged_epoch(callback)
            end = trainer.max_epochs or -1
            end = end if end > 0 else begin + self.first + (self.every or 1)
            if due := [epoch for epoch in range(begin, end) if self.is_due(epoch)]:
                raise ValueError(
                    f"{type(callback).__name__} averages weights from epoch {begin} on, but before epoch {due[0]} the "
                    "ring is re-ordered, and parameters get another meaning: average later, re-initialise for the last "
                    "time earlier (`last`), or leave out `order`"
                )

    def _averaging(self, trainer: Trainer) -> list[Callback]:
        """Callbacks that average weights; none unless re-initialisations re-order the ring."""
        kinds = StochasticWeightAveraging | WeightAveraging
        callbacks: list[Callback] = trainer.callbacks
        return [callback for callback in callbacks if "order" in self.options and isinstance(callback, kinds)]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Re-initialise the prior if it is due."""
        if batch_idx == 0 and self.is_due(epoch_of(trainer)):
            if begun := [callback for callback in self._averaging(trainer) if has_averaged(callback)]:
                raise ValueError(f"{type(begun[0]).__name__} has averaged weights when the ring is to be re-ordered")
            seed = derived_seed(epoch_of(trainer))
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                codes, attributes = latent_codes(pl_module, image_data(trainer), self.num_codes, seed)
                rows = (codes, attributes) if isinstance(pl_module, ConditionalVAE) else (codes,)
                previous = {name: value.clone() for name, value in pl_module.prior.state_dict().items()}
                pl_module.prior.reinitialize(*rows, **self.options)
            if trainer.world_size > 1:  # the codes are the same in all processes, but fits may differ by rounding
                pl_module.prior.load_state_dict(trainer.strategy.broadcast(pl_module.prior.state_dict()))
            forget_moments(trainer.optimizers, pl_module.prior, previous)


class Figures(Callback):
    """Pictures of a run, which replace those in the folder `figures` of its logs after validation.

    - Every model: samples, the prior's density over two latent dimensions (paper Fig. 4), curves of the CSV log.
    - A model with an encoder: codes of training images over the density, and images above their reconstructions.
    - A prior with conditionals: rows of images on walks through its modes (`hopping_images`, paper Fig. 5).
    - A model with categorical attributes: a row of images for each value of the first attribute, others unknown.
    - A `ConditionalVAE`: reconstructions of training images, and below them the images with one attribute changed.

    Args:
        every: epochs between pictures.
        num_images: images in a grid.
        dimensions: the two latent dimensions of the density.
        num_codes: codes over the density.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if it is less than 1.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from adapters.callbacks import Figures
        >>> trainer = Trainer(callbacks=[Figures(every=5, dimensions=(0, 3))], accelerator="cpu", logger=False)
    """

    def __init__(
        self, every: int = 10, num_images: int = 64, dimensions: tuple[int, int] = (0, 1), num_codes: int = 1000
    ):
        self.every, self.num_images = integer_of("every", every), integer_of("num_images", num_images)
        self.dimensions, self.num_codes = dimensions, integer_of("num_codes", num_codes)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all pictures except the curves every `every` epochs, and after the last epoch."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if not trainer.sanity_checking and trainer.log_dir and (last or (trainer.current_epoch + 1) % self.every == 0):
            with torch.random.fork_rng():
                torch.manual_seed(derived_seed(0))
                self._draw(pl_module, image_data(trainer), Path(trainer.log_dir) / "figures")

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves."""
        log = Path(trainer.log_dir or ".") / "metrics.csv"
        for logger in trainer.loggers:
            logger.save()
        if log.is_file():
            names = getattr(getattr(trainer, "datamodule", None), "attribute_names", ())
            figures.save(figures.training_curves(log, names), log.parent / "figures" / "curves.png")

    def _draw(self, model: LightningModule, data: ImageData, folder: Path) -> None:
        figures.save_grid(model.sample(self.num_images), folder / "samples.png")
        codes = None
        if hasattr(model, "encoder"):
            codes, _ = latent_codes(model, data, self.num_codes, derived_seed(1))
            self._draw_reconstructions(model, data, folder)
        figures.save(figures.prior_density(model.prior, codes, self.dimensions), folder / "prior.png")
        if not isinstance(model.prior, FlowPrior):
            steps, redrawn = 9, min(5, model.prior.num_latents)
            figures.save_grid(
                hopping_images(model, rows=8, steps=steps, num_dimensions=redrawn),
                folder / "hops.png",
                columns=steps + 1,
                column_labels=[f"step {step}" for step in range(steps + 1)],
                title="each row is a walk through modes of the prior",
            )
        if isinstance(model, AttributeVAE):
            self._draw_conditions(model, data, folder)
        if isinstance(model, ConditionalVAE):
            draw_changes(model, data, folder / "changes.png")

    def _draw_reconstructions(self, model: LightningModule, data: ImageData, folder: Path) -> None:
        images = data.examples(max(1, self.num_images // 2)).to(model.device)
        columns = min(8, len(images))
        images = images[: len(images) // columns * columns]
        y = data.splits["val"].attributes[: len(images)].to(model.device) if isinstance(model, AttributeVAE) else None
        figures.save_grid(
            figures.interleaved(images, model.reconstruct(images, y), columns),
            folder / "reconstructions.png",
            columns=columns,
            row_labels=["image", "reconstruction"] * (len(images) // columns),
            title="validation images and their reconstructions",
        )

    def _draw_conditions(self, model: AttributeVAE, data: ImageData, folder: Path) -> None:
        columns = 8
        for j, kind in enumerate(model.attributes):
            if kind != "continuous":
                y = torch.full((kind * columns, len(model.attributes)), torch.nan, device=model.device)
                y[:, j] = torch.arange(kind, device=model.device).repeat_interleave(columns)
                figures.save_grid(
                    model.sample(len(y), y),
                    folder / "conditions.png",
                    columns=columns,
                    row_labels=[attribute_label(data, j, value) for value in range(kind)],
                    title=f"images drawn for each {data.attribute_names[j]}",
                )
                return


def first_averaged_epoch(callback: Callback) -> int:
    """The first epoch whose weights become part of an average; `sys.maxsize` if it is not known."""
    if isinstance(callback, StochasticWeightAveraging):
        return callback.swa_start
    return 0 if type(callback).should_update is WeightAveraging.should_update else sys.maxsize


def has_averaged(callback: Callback) -> bool:
    """Whether a callback has averaged weights."""
    average = getattr(callback, "_average_model", None)
    return isinstance(average, AveragedModel) and int(average.n_averaged) > 0


def image_data(trainer: Trainer) -> ImageData:
    """The run's data module; `TypeError` if it is not an `ImageData`."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageData):
        raise TypeError(f"this callback needs an ImageData as data module, found {type(data).__name__}")
    return data


@torch.no_grad()
def draw_changes(model: ConditionalVAE, data: ImageData, path: Path, columns: int = 8) -> None:
    """Draw reconstructions of training images, and below them the images with one attribute changed to each value."""
    x, y = (rows.to(model.device) for rows in next(data.training_rows(columns, derived_seed(2))))
    z = model.encode(x, y)[0].base_dist.mean
    if model.conditional_decoder:  # unknown attributes are the same in all rows
        y = model.prior.sample_attributes(z, y)
    rows, labels = [model.generate(z, y)], ["reconstruction"]
    for j, kind in enumerate(model.attributes):
        for value in range(0 if kind == "continuous" else kind):
            wanted = torch.where(torch.arange(y.shape[1], device=y.device) == j, float(value), y)
            rows.append(model.generate(changed_codes(model.prior, z, wanted, j), wanted))
            labels.append(attribute_label(data, j, value))
    title = "training images, and the same with one attribute changed"
    figures.save_grid(torch.cat(rows), path, columns=len(x), row_labels=labels, title=title)


def attribute_label(data: ImageData, attribute: int, value: int) -> str:
    """The name of an attribute and of one of its values."""
    name = data.attribute_names[attribute]
    return f"{name} {value_name(value, data.categories.get(name, ()))}"


@torch.no_grad()
def latent_codes(model: VAE, data: ImageData, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples from the posterior, one for each of n training images, (n, d), and their attributes (n, a)."""
    codes, attributes = [], []
    for x, y in data.training_rows(n, seed):
        attributes.append(y.to(model.device))
        codes.append(model.encode(x.to(model.device), attributes[-1])[0].sample())
    return torch.cat(codes), torch.cat(attributes)


def forget_moments(optimizers: Sequence[Optimizer], prior: nn.Module, previous: dict[str, Tensor]) -> None:
    """Reset the optimisers' moments of those parameters that differ from the previous state."""
    for name, parameter in prior.named_parameters():
        if not torch.equal(parameter, previous[name]):
            for optimizer in optimizers:
                getattr(optimizer, "optimizer", optimizer).state.pop(parameter, None)
