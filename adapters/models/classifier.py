"""A classifier of attributes, whose features serve as those of a metric, and which judges conditional samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from adapters.metrics import evaluating
from adapters.models.attributes import accuracies
from adapters.models.vae import Batch
from adapters.priors.base import attribute_rows

UNKNOWN = -1  # replaces NaN in integer values


class AttributeClassifier(LightningModule):
    """p(y_j | x) for each attribute j: a shared network, and a linear head for each attribute.

    Called with images, it returns their features, so it can be the network of `adapters.metrics.distances`.

    Args:
        network: images (batch, C, H, W) -> features (batch, f).
        num_features: f.
        sizes: number of values 0, 1, ... of each attribute; NaN is unknown.
        learning_rate: of Adam.
        betas: of Adam.

    Raises:
        ValueError: if an attribute has fewer than two values; in training, if the data's attributes do not fit.

    Examples:
        >>> import torch
        >>> from adapters.models import AttributeClassifier
        >>> from adapters.networks import ConvEncoder
        >>> classifier = AttributeClassifier(ConvEncoder((1, 8, 8), 32, (8, 16)), 32, sizes=[10, 3])
        >>> x = torch.rand(5, 1, 8, 8)
        >>> classifier.features(x).shape, classifier.predict(x).shape
        (torch.Size([5, 32]), torch.Size([5, 2]))
        >>> [table.exp().sum(-1).round().tolist() for table in classifier.log_prob(x[:2])]
        [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        network: nn.Module,
        num_features: int,
        sizes: Sequence[int],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        super().__init__()
        if not sizes or min(sizes) < 2:
            raise ValueError(f"sizes must be at least one number of at least 2 values, found {list(sizes)}")
        self.network = network
        self.heads = nn.ModuleList(nn.Linear(num_features, size) for size in sizes)
        self.sizes, self.num_features = tuple(sizes), num_features
        self.learning_rate, self.betas = learning_rate, betas

    # ---------------------------------------------------------------------------------------------------- queries

    def forward(self, x: Tensor) -> Tensor:
        """The features (batch, f) of images (batch, C, H, W), which the heads read."""
        features: Tensor = self.network(x)
        return features

    def features(self, x: Tensor) -> Tensor:
        """The features (batch, f) in evaluation mode, without gradients."""
        with evaluating(self):
            return self(x)

    def log_prob(self, x: Tensor) -> list[Tensor]:
        """log p(y_j | x) for all values of each attribute j, (batch, sizes[j]), in evaluation mode."""
        with evaluating(self):
            return [logits.log_softmax(-1) for logits in self._logits(x)]

    def predict(self, x: Tensor) -> Tensor:
        """The most probable value of each attribute, (batch, a), integers."""
        return torch.stack([values.argmax(-1) for values in self.log_prob(x)], -1)

    def _logits(self, x: Tensor) -> list[Tensor]:
        features = self(x)
        return [head(features) for head in self.heads]

    # --------------------------------------------------------------------------------------------------- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The cross-entropy, averaged over the known attributes of the batch."""
        return self._loss("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracies."""
        self._loss("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracies."""
        self._loss("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate, betas=self.betas)

    def _loss(self, stage: str, batch: Batch) -> Tensor:
        x, attributes = batch
        values = self._values(attributes)  # (batch, a)
        known, logits = values != UNKNOWN, self._logits(x)
        parts = [
            functional.cross_entropy(scores, values[:, j], ignore_index=UNKNOWN, reduction="sum")
            for j, scores in enumerate(logits)
        ]
        loss = torch.stack(parts).sum() / known.sum().clamp(min=1)
        self._log_mean(f"{stage}_loss", loss, int(known.sum()))
        for name, (share, count) in accuracies(logits, attributes).items():
            self._log_mean(f"{stage}_{name}", share, count)
        return loss

    def _values(self, attributes: Tensor) -> Tensor:
        """Attributes as integers, `UNKNOWN` for NaN; `ValueError` if they do not fit `sizes`."""
        return attribute_rows(attributes, self.sizes).nan_to_num(UNKNOWN).long()

    def _log_mean(self, name: str, value: Tensor, known: int) -> None:
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": known}
        self.log(name, value, sync_dist=True, prog_bar=name.endswith("_accuracy"), **options)
