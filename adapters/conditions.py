"""Whether generated images have the requested attributes and vary in the others; codes with other attributes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from adapters.priors import FlowPrior, JointPrior, JointTRIP
from adapters.priors.base import Rng, attribute_rows, integer_of


class Classifier(Protocol):
    """A judge of images, such as an `adapters.models.AttributeClassifier`."""

    def log_prob(self, x: Tensor) -> list[Tensor]:
        """log p(y_j | x) of all values of each attribute j, (n, sizes[j])."""


class Satisfaction(NamedTuple):
    """A classifier's evaluation of images that were generated for requested attributes; NaN without such entries.

    Attributes:
        accuracy: share of all requested entries that the classifier finds in their images.
        accuracies: the same for each attribute.
        entropies: of each attribute where it was left free, in nats: see `satisfaction`.
        diversities: entropies relative to their maximum, the logarithm of the attribute's number of values.
    """

    accuracy: float
    accuracies: tuple[float, ...]
    entropies: tuple[float, ...]
    diversities: tuple[float, ...]


def satisfaction(classifier: Classifier, generated: Iterable[tuple[Tensor, Tensor]]) -> Satisfaction:
    """Compare the classifier's predictions ŷ_j = argmax p(y_j | x) for generated images with what was requested.

    Accuracies are shares of ŷ_j = y_j among requested entries. The entropy of an attribute is

        Σ_r n_r / n · H[frequencies of ŷ_j among the n_r images of request r]

    over the n images with a request r in which it is free; a request is a set of rows with equal y. The entropy is that
    within requests, so one image for each request has entropy 0. It is that of predictions, so an image between two
    values does not count for both. It is at most log n_r: repeat each request often, and compare equal requests only.
    The values for real images are an upper limit.

    Args:
        classifier: of a attributes.
        generated: batches of images (n, C, H, W), on the classifier's device, and the attributes (n, a) that were
            requested, NaN where free.

    Raises:
        TypeError: if a request is not a tensor of real numbers.
        ValueError: if there are no images, or the requests are not rows of the classifier's attributes.

    Examples:
        >>> import torch
        >>> from adapters.conditions import satisfaction
        >>> class Judge:  # the attribute is 1 where the image is bright
        ...     def log_prob(self, x):
        ...         bright = x.mean((1, 2, 3))
        ...         return [torch.stack([1 - bright, bright], 1).log()]
        >>> images = torch.cat([torch.full((3, 1, 4, 4), 0.9), torch.full((1, 1, 4, 4), 0.1)])
        >>> satisfaction(Judge(), [(images, torch.ones(4, 1))]).accuracy
        0.75
    """
    requested, predicted, sizes = _predictions(classifier, generated)
    is_requested = ~requested.isnan()
    correct = predicted == requested  # False where the attribute is free
    columns = range(len(sizes))
    entropies = tuple(
        _entropy(predicted[~is_requested[:, j], j], requested[~is_requested[:, j]], sizes[j]) for j in columns
    )
    return Satisfaction(
        _share(correct, is_requested),
        tuple(_share(correct[:, j], is_requested[:, j]) for j in columns),
        entropies,
        tuple(e / math.log(size) if size > 1 else math.nan for e, size in zip(entropies, sizes, strict=True)),
    )


@torch.no_grad()
def changed_codes(
    prior: JointPrior, z: Tensor, y: Tensor, attribute: int, num_dimensions: int | None = None, *, rng: Rng = None
) -> Tensor:
    """Codes near z with attributes y, one of which differs from that of z: the same image with one attribute changed.

    The latents with the most information about the attribute, by the mutual information of components in the ring, are
    redrawn given all other latents and y. For a flow these are latents of its base.

    Args:
        prior: over codes and attributes: a `JointTRIP`, or a `FlowPrior` over one.
        z: (n, d) codes.
        y: (n, a) requested attributes, NaN where free.
        attribute: index of the changed one.
        num_dimensions: number of redrawn latents; None: half of them, rounded up. More of them make the requested
            attribute more likely, and the rest of the image less similar.
        rng: a seed or a generator; None: PyTorch's global generator.

    Returns:
        (n, d).

    Raises:
        TypeError: as `JointTRIP.sample_given`, or if the prior is another one.
        ValueError: as `JointTRIP.sample_given`, or if there is no such attribute, or num_dimensions is not in 1..d.

    Examples:
        >>> import torch
        >>> from adapters import JointTRIP
        >>> from adapters.conditions import changed_codes
        >>> prior = JointTRIP(6, attributes=[3], num_components=4, rank=3)
        >>> z = prior.sample(2, torch.tensor([0.0]), rng=0)
        >>> changed = changed_codes(prior, z, torch.full((2, 1), 2.0), attribute=0, num_dimensions=2, rng=1)
        >>> (changed != z).sum(-1)
        tensor([2, 2])
    """
    if isinstance(prior, FlowPrior):
        inner = changed_codes(prior.joint_base, prior.to_base(z), y, attribute, num_dimensions, rng=rng)
        return prior.from_base(inner)
    if not isinstance(prior, JointTRIP):
        raise TypeError(f"prior must be a JointTRIP or a FlowPrior over one, found {type(prior).__name__}")
    if integer_of("attribute", attribute, least=0) >= len(prior.attributes):
        raise ValueError(f"attribute must be in 0..{len(prior.attributes) - 1}, found {attribute}")
    d = prior.num_latents
    count = integer_of("num_dimensions", math.ceil(d / 2) if num_dimensions is None else num_dimensions)
    if count > d:
        raise ValueError(f"num_dimensions must be at most {d}, found {count}")
    information = prior.ring.mutual_information()[d + attribute, :d]
    redrawn = torch.zeros(d, dtype=torch.bool, device=z.device)
    redrawn[information.topk(count).indices] = True
    return prior.sample_given(z.masked_fill(redrawn, torch.nan), y, rng=rng)


def _predictions(
    classifier: Classifier, generated: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Requests (n, a), predictions (n, a) and the attributes' numbers of values."""
    requested, predicted = [], []
    sizes: tuple[int, ...] = ()
    for images, attributes in generated:
        scores = classifier.log_prob(images)
        sizes = tuple(values.shape[1] for values in scores)
        if attributes.shape[:-1] != images.shape[:1]:
            raise ValueError(f"{len(images)} images need as many requests, found them in {tuple(attributes.shape)}")
        requested.append(attribute_rows(attributes, sizes).cpu())
        predicted.append(torch.stack([values.argmax(1) for values in scores], 1).cpu())
    if not sum(map(len, requested)):
        raise ValueError("at least 1 generated image is needed, found 0")
    return torch.cat(requested), torch.cat(predicted), sizes


def _share(correct: Tensor, asked: Tensor) -> float:
    return float(correct.sum() / asked.sum())


def _entropy(predicted: Tensor, requests: Tensor, size: int) -> float:
    """The mean over rows of the entropy of predictions (n,) among rows of equal requests (n, a), in nats."""
    if not len(predicted):
        return math.nan
    kinds, kind = requests.nan_to_num(-1.0).unique(dim=0, return_inverse=True)  # NaN is not equal to itself
    counts = torch.bincount(kind * size + predicted, minlength=len(kinds) * size).reshape(-1, size).double()
    totals = counts.sum(1)
    entropies = torch.special.entr(counts / totals[:, None]).sum(1)
    return float((entropies * totals).sum() / len(predicted))
