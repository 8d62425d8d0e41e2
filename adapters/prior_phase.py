"""A second phase of training: the prior alone, on codes of the fixed encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from adapters.data import ImageData
from adapters.metrics import evaluating
from adapters.models import VAE
from adapters.models.attributes import label_weights
from adapters.models.vae import Batch
from adapters.priors import JointPrior, Prior
from adapters.priors.base import integer_of, nonnegative_of

TRAIN, VALIDATION = "train", "validation"  # what the losses are logged as


class PriorFit(NamedTuple):
    """The result of `fit_prior`: losses −log p(z) − weight · log p(y_observed | z) in nats, and the best epoch.

    Attributes:
        history: "train", the mean over each epoch, and "validation", after each epoch.
        best_epoch: the number of epochs after which the validation loss was lowest, 0 for the given prior.
        initial: the validation loss of the given prior.
    """

    history: dict[str, list[float]]
    best_epoch: int
    initial: float


def fit_prior(
    model: VAE,
    data: ImageData,
    epochs: int = 20,
    *,
    prior: Prior | None = None,
    attribute_weight: float | None = None,
    weight_per_label: bool | None = None,
    learning_rate: float = 5e-3,
    weight_decay: float = 1e-2,
    patience: int | None = None,
    accelerator: str = "auto",
    progress: bool = False,
) -> PriorFit:
    """Train the prior of a model alone, on codes of its encoder, which is unchanged.

    During joint training the codes change, and the prior follows them with a delay; here their distribution is fixed.
    In every epoch a new code of each training image is drawn from q(z | x), and AdamW minimises

        −log p(z) − weight · log p(y_observed | z),

    the second part where the prior has attributes. The learning rate rises over the first tenth of the steps and then
    falls to 0 (Smith and Topin 2017, arXiv:1708.07120). The prior that is best on the validation images, the given one
    included, is what is left. Their attributes are hidden like those of the training images, so that no label is used
    that training would not have. Random numbers are from PyTorch's global generator.

    In a conditional model a large weight keeps the codes of different attributes apart while the encoder learns, at the
    expense of the density of the codes, which decides what is drawn. With a fixed encoder a small weight serves both.
    If many labels are unknown, p(z | y) includes all codes that the prior does not exclude; complete them first, with
    `adapters.pseudo_labels.complete_labels`.

    Args:
        model: with an encoder, e.g. a `VAE` or `ConditionalVAE`.
        data: its images.
        epochs: at most.
        prior: what is trained, over codes of the model; None: the model's own. Fit another one to codes first, see
            `Prior.reinitialize`.
        attribute_weight: None: the model's, or 1.
        weight_per_label: whether the weight is of the mean over rows with a known attribute; None: the model's.
        learning_rate: the largest of AdamW.
        weight_decay: of AdamW.
        patience: epochs without a better validation loss after which training stops; None: it never does.
        accelerator: of Lightning's trainer.
        progress: whether a progress bar is shown.

    Returns:
        The losses, and which epoch's prior was kept.

    Raises:
        TypeError: if the model is not a VAE, or a number of epochs is not an integer.
        ValueError: if a number is out of its range, the prior has other latents than the model, or nothing is learned.

    Examples:
        >>> from adapters import FlowPrior, JointTRIP
        >>> from adapters.data import Digits
        >>> from adapters.models import ConditionalVAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 8, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> prior = FlowPrior(JointTRIP(4, attributes=[10], num_components=5, rank=4), transforms=1)
        >>> fit = fit_prior(ConditionalVAE(encoder, decoder, prior), Digits(), epochs=1)
        >>> len(fit.history["validation"])
        1
    """
    if not isinstance(model, VAE):
        raise TypeError(f"model must be a VAE, found {type(model).__name__}")
    prior = model.prior if prior is None else prior
    if prior.num_latents != model.prior.num_latents:
        raise ValueError(f"prior must be over {model.prior.num_latents} latents, found {prior.num_latents}")
    weight = getattr(model, "attribute_weight", 1.0) if attribute_weight is None else attribute_weight
    per_label = getattr(model, "weight_per_label", False) if weight_per_label is None else weight_per_label
    phase = PriorPhase(model, prior, weight, per_label, learning_rate, weight_decay, data.missing)
    best, history = KeepBest(), History()
    epochs = integer_of("epochs", epochs)
    patience = epochs if patience is None else integer_of("patience", patience)
    stop = EarlyStopping(VALIDATION, patience=patience, check_finite=True)
    with _undisturbed(model, prior, data):
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=epochs,
            callbacks=[history, best, stop],
            num_sanity_val_steps=-1,  # the loss of the prior as it is given
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
        )
        trainer.fit(phase, datamodule=data)
    return PriorFit(history.losses, best.epoch, best.initial)


class PriorPhase(LightningModule):
    """−log p(z) − weight · log p(y_observed | z) of codes z from q(z | x), in which only the prior is learned.

    Args:
        model: the encoder's; it is used, not owned.
        prior: over its codes.
        attribute_weight, weight_per_label: as of `ConditionalVAE`.
        learning_rate: the largest of AdamW.
        weight_decay: of AdamW.
        missing: the share of attributes of validation images that is hidden.

    Raises:
        ValueError: if the weight or a rate is negative, or no parameter of the prior is trainable.
    """

    def __init__(
        self,
        model: VAE,
        prior: Prior,
        attribute_weight: float = 1.0,
        weight_per_label: bool = False,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        missing: float = 0.0,
    ):
        super().__init__()
        self._model = (model,)  # in a tuple, because a module that is an attribute becomes a submodule
        self.prior = prior
        self.attribute_weight = nonnegative_of("attribute_weight", attribute_weight)
        self.weight_per_label, self.missing = weight_per_label, missing
        self.learning_rate = nonnegative_of("learning_rate", learning_rate)
        self.weight_decay = nonnegative_of("weight_decay", weight_decay)
        if not any(parameter.requires_grad for parameter in prior.parameters()):
            raise ValueError(f"a prior that is not trainable cannot be fitted, found a fixed {type(prior).__name__}")

    def setup(self, stage: str) -> None:
        """Bring the encoder to where the prior is trained."""
        self._model[0].to(self.device)

    def loss(self, batch: Batch, noise: torch.Generator | None = None) -> Tensor:
        """The mean over a batch of images and attributes, with noise from a generator (on the CPU) or the global one.

        Raises:
            TypeError, ValueError: as `JointPrior.log_probs`, if attributes do not fit.
        """
        x, y = batch
        with torch.no_grad():
            posterior = self._model[0].encode(x, y if isinstance(self.prior, JointPrior) else None)[0].base_dist
            mean, std = posterior.mean, posterior.stddev
            z = mean + std * torch.randn(mean.shape, generator=noise, dtype=mean.dtype).to(mean)
        if not isinstance(self.prior, JointPrior) or not self.prior.attributes:
            return -self.prior.log_prob(z).mean()
        log_prior, attributes = self.prior.log_probs(z, y)
        if self.weight_per_label:
            attributes = label_weights(y) * attributes
        return -(log_prior + self.attribute_weight * attributes).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss, with new codes."""
        loss = self.loss(batch)
        self.log(TRAIN, loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss, with the same codes and the same hidden attributes each time."""
        x, y = batch
        noise = torch.Generator().manual_seed(batch_idx)
        hidden = torch.rand(y.shape, generator=noise).to(y.device) < self.missing
        loss = self.loss((x, y.masked_fill(hidden, torch.nan)), noise)
        self.log(VALIDATION, loss, prog_bar=True, on_epoch=True, batch_size=len(x))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW of the prior's trainable parameters, with one cycle of the learning rate."""
        learned = [parameter for parameter in self.prior.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.learning_rate, weight_decay=self.weight_decay)
        cycle = one_cycle(optimizer, self.learning_rate, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def one_cycle(optimizer: torch.optim.Optimizer, largest: float, steps: int) -> OneCycleLR:
    """A schedule whose rate rises to the largest over a tenth of the steps, and falls to almost 0 over the others."""
    rising = min(0.45, max(0.1, 1.5 / steps))  # PyTorch divides by rising · steps − 1, which must not be 0
    return OneCycleLR(optimizer, largest, total_steps=steps, pct_start=rising)


class History(Callback):
    """The losses of all epochs."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {TRAIN: [], VALIDATION: []}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note both; validation has taken place by now."""
        for name, values in self.losses.items():
            values.append(float(trainer.callback_metrics[name]))


class KeepBest(Callback):
    """Keeps the prior with the lowest validation loss in memory, and puts it back when training ends."""

    def __init__(self) -> None:
        self.loss, self.epoch, self.state = math.inf, 0, dict[str, Any]()
        self.initial = math.nan

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a prior that is better than all before; the first is the one before any training."""
        loss = float(trainer.callback_metrics[VALIDATION])
        if trainer.sanity_checking:
            self.initial = loss
        if loss < self.loss or not self.state:
            self.loss = loss if math.isfinite(loss) else math.inf
            self.epoch = 0 if trainer.sanity_checking else trainer.current_epoch + 1
            self.state = copy.deepcopy(pl_module.prior.state_dict())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put it back."""
        pl_module.prior.load_state_dict(self.state)


@contextmanager
def _undisturbed(model: VAE, prior: Prior, data: ImageData) -> Iterator[None]:
    """Afterwards devices, modes, what is trainable and the data's trainer are what they were before."""
    frozen = [p for p in model.parameters() if p.requires_grad and not any(p is q for q in prior.parameters())]
    device, prior_device, trainer = next(model.parameters()).device, prior.device, data.trainer
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        model.to(device)
        prior.to(prior_device)
        data.trainer = trainer
