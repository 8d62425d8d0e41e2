"""Attributes in networks: their encoding, heads that predict them, experts that tell what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional

from adapters.networks import at_least_single
from adapters.priors.base import Attribute

HIDDEN = 128  # of the heads that see attributes (appendix C)


def one_hot(y: Tensor, kinds: Sequence[Attribute]) -> Tensor:
    """Attributes (batch, a) side by side as (batch, Σ widths): a one at the value, zeros only where it is unknown.

    A continuous attribute is one number, its value, or 0 where that is unknown.
    """
    parts = [
        values.nan_to_num(0)[:, None]
        if kind == "continuous"
        else functional.one_hot(values.nan_to_num(0).long(), kind) * ~values.isnan()[:, None]
        for values, kind in zip(y.unbind(-1), kinds, strict=True)
    ]
    return torch.cat([part.to(y) for part in parts], dim=-1)


def log_prob_known(log_probs: Sequence[Tensor], y: Tensor) -> Tensor:
    """Σ_j log p(y_j) over the known entries of y (batch, a), (batch,), from the values' (batch, N_j) of each."""
    parts = [
        torch.where(values.isnan(), 0.0, table.gather(-1, values.nan_to_num(0).long()[:, None])[:, 0])
        for table, values in zip(log_probs, y.unbind(-1), strict=True)
    ]
    return torch.stack(parts).sum(0)


def accuracies(tables: Sequence[Tensor], y: Tensor) -> dict[str, tuple[Tensor, int]]:
    """Shares of the known entries of y (batch, a) that have the highest entry in their table, and how many are known.

    "accuracy" is that of all attributes, "accuracy_j" of attribute j; 0 where none is known.
    """
    correct = torch.stack([table.argmax(-1) for table in tables], dim=-1) == y  # nowhere where unknown
    parts = {"accuracy": slice(None)} | {f"accuracy_{j}": slice(j, j + 1) for j in range(len(tables))}
    known = {name: int((~y[:, part].isnan()).sum()) for name, part in parts.items()}
    return {name: (correct[:, part].sum() / max(known[name], 1), known[name]) for name, part in parts.items()}


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def label_weights(y: Tensor) -> Tensor:
    """Weights (batch,) under which a mean over the batch is one over the rows in which an attribute is known."""
    known = ~y.isnan().all(-1)
    return known * (len(known) / known.sum().clamp(min=1))


class AttributePredictor(nn.Module):
    """p(y | inputs), attributes independent of each other: a perceptron [inputs, 64, 64, Σ sizes] (appendix C).

    Args:
        num_inputs: of the perceptron.
        sizes: number of values of each attribute.

    Examples:
        >>> import torch
        >>> from adapters.models.attributes import AttributePredictor
        >>> [table.shape for table in AttributePredictor(8, sizes=[10, 3])(torch.zeros(5, 8))]
        [torch.Size([5, 10]), torch.Size([5, 3])]
    """

    def __init__(self, num_inputs: int, sizes: Sequence[int]):
        super().__init__()
        self.sizes = tuple(sizes)
        self.network = perceptron(num_inputs, 64, 64, sum(self.sizes))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """log p(y_j | inputs) of all values of each attribute, (batch, N_j), in single precision at least."""
        scores = at_least_single(self.network(inputs)).split(self.sizes, dim=-1)
        return [part.log_softmax(-1) for part in scores]


class AttributeExperts(nn.Module):
    """q(z | y) ∝ N(z; 0, I) ∏_j N(z; m_j(y_j), diag s_j(y_j)²) over the known attributes: a product of experts.

    Vedantam et al. 2018, arXiv:1705.10762, section 3.3. Each expert is a perceptron [N_j, 128, 2 d].

    Args:
        num_latents: d.
        sizes: number of values of each attribute.

    Examples:
        >>> import torch
        >>> from adapters.models.attributes import AttributeExperts
        >>> AttributeExperts(2, sizes=[10, 3])(torch.full((1, 2), torch.nan)).base_dist.stddev  # nothing is known
        tensor([[1., 1.]], grad_fn=<RsqrtBackward0>)
    """

    def __init__(self, num_latents: int, sizes: Sequence[int]):
        super().__init__()
        self.sizes = tuple(sizes)
        self.experts = nn.ModuleList(perceptron(size, HIDDEN, 2 * num_latents) for size in self.sizes)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Means and precisions for all values of all attributes, (Σ N_j, d) each."""
        like = next(self.parameters())
        pairs = zip(self.experts, self.sizes, strict=True)
        outputs = [expert(torch.eye(size, dtype=like.dtype, device=like.device)) for expert, size in pairs]
        means, log_stds = at_least_single(torch.cat(outputs)).chunk(2, dim=-1)
        return means, torch.exp(-2 * log_stds)

    def forward(self, y: Tensor) -> Independent:
        """q(z | y) of attributes (batch, a); N(0, I) where none is known."""
        known, (means, precisions) = one_hot(y, self.sizes), self.tables()
        precision = 1 + known @ precisions  # (batch, d)
        mean = known @ (precisions * means) / precision
        return Independent(Normal(mean, precision.rsqrt(), validate_args=False), 1)
