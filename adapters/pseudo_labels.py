"""Labels for unlabelled images, from a classifier of their codes and pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from adapters.data import ImageData
from adapters.data.base import Split, Stage
from adapters.metrics import evaluating
from adapters.models import VAE
from adapters.models.conditional import AttributeVAE
from adapters.priors.base import integer_of, nonnegative_of

PENALTY, GAMMA = 10.0, 0.25  # of the support vector machines
COMPONENTS = 32  # principal components of images
FITTED = 5000  # images that they are found from


def complete_labels(
    model: VAE, data: ImageData, *, max_labels: int = 5000, seed: int = 0, drop: float = 0.0
) -> ImageData:
    """A copy of the data in which unknown categorical attributes are what a classifier says of their images.

    Codes learned from all images group them well, so a few labels are enough to tell the groups apart. A support vector
    machine for each attribute learns from the labelled training images, and predicts the attribute of the others:
    pseudo-labels (Lee 2013), after which `fit_prior` or further training has a label for every image. Codes of few
    images tell less than their pixels, and codes in which attributes have little effect too, so the machines see both:
    the d standardised mean codes c and the first 32 principal components p of the pixels, in units of the root of their
    total variance. They are scikit-learn's, with C = 10 and the kernel exp(−‖Δc‖² / 4d − ‖Δp‖² / 2).

    Where the machines are not sure they err most, and a prior that learns from their errors draws them again. With
    `drop` the rows are left out that have one of these labels: for every attribute and value, this share of the
    predictions, those with the smallest margins between the best and the second best value. What is left are clear
    examples, not a sample from the data: of a attributes that are all unknown about (1 − drop)^a of the rows.

    Validation images have the share of their labels hidden that training images have, and completed likewise. Test
    images stay as they are. An attribute of which fewer than two different values are known stays as it is.

    Args:
        model: with an encoder; one with attributes tells which of them are categorical, otherwise all are.
        data: its images; they are not changed.
        max_labels: largest number of labelled images that a classifier learns from, chosen at random.
        seed: of that choice, and of the hidden labels of validation images.
        drop: share of the predictions of every value whose rows are left out, at least 0 and less than 1.

    Returns:
        A copy that shares the images.

    Raises:
        TypeError: if the model is not a VAE, or max_labels or seed is not an integer.
        ValueError: if max_labels is less than 1, drop is out of its range or leaves no image, or the data has no
            attributes or not as many as the model.

    Examples:
        >>> from adapters import JointTRIP
        >>> from adapters.data import Digits
        >>> from adapters.models import ConditionalVAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> from adapters.pseudo_labels import complete_labels
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 8, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> model = ConditionalVAE(encoder, decoder, JointTRIP(4, attributes=[10], num_components=5, rank=4))
        >>> data = Digits(missing=0.9)
        >>> completed = complete_labels(model, data)
        >>> [bool(found.splits["train"].attributes.isnan().any()) for found in (data, completed)]
        [True, False]
    """
    if not isinstance(model, VAE):
        raise TypeError(f"model must be a VAE, found {type(model).__name__}")
    max_labels, seed = integer_of("max_labels", max_labels), integer_of("seed", seed, least=0)
    if not 0 <= nonnegative_of("drop", drop) < 1:
        raise ValueError(f"drop must be at least 0 and less than 1, found {drop}")
    data.setup()
    if not data.attribute_names:
        raise ValueError("data must have attributes, found none")
    kinds = model.attributes if isinstance(model, AttributeVAE) else [None] * len(data.attribute_names)
    if len(kinds) != len(data.attribute_names):
        raise ValueError(f"the model has {len(kinds)} attributes, the data {len(data.attribute_names)}")
    generator = torch.Generator().manual_seed(seed)
    parts: dict[Stage, Split] = {"train": data.splits["train"], "val": data.splits["val"]}
    labels = {stage: split.attributes.clone() for stage, split in parts.items()}
    labels["val"][torch.rand(labels["val"].shape, generator=generator) < data.missing] = torch.nan
    seen: dict[Stage, np.ndarray] = {}
    clear = {stage: torch.ones(len(found), dtype=torch.bool) for stage, found in labels.items()}
    for j, kind in enumerate(kinds):
        unknown = {stage: found[:, j].isnan() for stage, found in labels.items()}
        rows = (~unknown["train"]).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)[:max_labels]]
        values = labels["train"][rows, j].numpy()
        incomplete = [stage for stage, where in unknown.items() if where.any()]
        if kind == "continuous" or len(np.unique(values)) < 2 or not incomplete:
            continue
        seen = seen or _features(model, data, parts, seed)
        classifier = SVC(C=PENALTY, gamma=GAMMA).fit(seen["train"][rows.numpy()], values)
        for stage in incomplete:
            places = unknown[stage].nonzero()[:, 0]
            own = seen[stage][places.numpy()]
            predicted = classifier.predict(own)
            labels[stage][places, j] = torch.from_numpy(predicted).to(labels[stage])
            if drop:
                clear[stage][places[_least_sure(predicted, classifier.decision_function(own), drop)]] = False
    completed = copy.copy(data)
    found = {stage: split._replace(attributes=labels[stage]) for stage, split in parts.items()}
    if drop:
        found = {stage: split.rows(clear[stage].nonzero()[:, 0]) for stage, split in found.items()}
        if empty := [stage for stage, split in found.items() if not len(split.images) and len(parts[stage].images)]:
            raise ValueError(f"drop={drop} leaves no image for {' and '.join(empty)}")
    completed.splits = data.splits | found
    completed.missing = 0.0
    return completed


def _least_sure(predicted: np.ndarray, scores: np.ndarray, share: float) -> np.ndarray:
    """This share of the rows of each predicted value: those in which its score exceeds the next by least.

    Scores are (n, values), or (n,) of the second of two values.
    """
    best = np.sort(scores if scores.ndim == 2 else np.stack([scores, -scores], axis=1), axis=1)
    margins = best[:, -1] - best[:, -2]
    rows = [np.flatnonzero(predicted == value) for value in np.unique(predicted)]
    return np.concatenate([own[np.argsort(margins[own])[: math.ceil(share * len(own))]] for own in rows])


def _features(model: VAE, data: ImageData, parts: Mapping[Stage, Split], seed: int) -> dict[Stage, np.ndarray]:
    """Codes and principal components side by side, scaled so that `GAMMA` is the factor of their squared distance."""
    codes = {stage: mean_codes(model, data, stage) for stage in parts}
    scaler = StandardScaler().fit(codes["train"])
    images = parts["train"].images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:FITTED]
    number = min(COMPONENTS, len(chosen), images[0].numel())
    pca = PCA(number, svd_solver="randomized", random_state=seed).fit(_pixels(images[chosen]))
    width = math.sqrt(pca.explained_variance_.sum() / 2) or 1.0  # of equal images 0

    def side_by_side(codes: np.ndarray, images: torch.Tensor) -> np.ndarray:
        components = np.concatenate([pca.transform(_pixels(part)) for part in images.split(FITTED)])
        return np.hstack([scaler.transform(codes) / math.sqrt(codes.shape[1]), components / width])

    return {stage: side_by_side(codes[stage], split.images) for stage, split in parts.items()}


def _pixels(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).numpy().astype(np.float32)


@torch.no_grad()
def mean_codes(model: VAE, data: ImageData, stage: Stage) -> np.ndarray:
    """The means of q(z | x) of the images of a split, (n, d)."""
    with evaluating(model):
        parts = [model.encoder(x.to(model.device, model.dtype)).mean.float().cpu() for x, _ in data.rows(stage)]
    return torch.cat(parts).numpy()
