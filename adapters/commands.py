"""The commands of `ringdist` for trained models: `sample`, `hop`, `fit-prior` and `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from adapters import prior_phase, pseudo_labels, refitting
from adapters.checkpoints import Checkpoint, load_model
from adapters.conditions import satisfaction
from adapters.data import ImageData
from adapters.data.base import listed, value_name
from adapters.errors import InputError
from adapters.hopping import hopping_images
from adapters.inputs import (
    check_device,
    check_features,
    check_picture,
    other_attributes,
    read_config,
    set_seed,
    write_picture,
)
from adapters.metrics import distances, inception_features
from adapters.models import AttributeClassifier, AttributeVAE
from adapters.priors import GaussianPrior
from adapters.priors.base import attribute_rows

INCEPTION = "inception"


def sample(
    ckpt_path: str,
    output: Path,
    n: int = 64,
    attributes: str | None = None,
    seed: int = 0,
    run_config: Path | None = None,
) -> None:
    """Draw images from a trained model.

    Args:
        ckpt_path: a checkpoint of `ringdist fit`.
        output: the picture to write, e.g. samples.png.
        n: number of images.
        attributes: requested attributes, e.g. digit=7,thickness=thick, with the names in the run's data, and names or
            codes 0, 1, ... of categories; all other attributes are free.
        seed: seed of the samples.
        run_config: the run's config.yaml, for models with your own classes, which a checkpoint may not import.

    Raises:
        InputError: if the checkpoint cannot be read or is of another kind of model, or an argument breaks a rule.

    Examples:
        >>> from pathlib import Path
        >>> from adapters.commands import sample
        >>> sample("model.ckpt", Path("sevens.png"), n=16, attributes="digit=7")  # doctest: +SKIP
    """
    check_picture(output)
    if n < 1:
        raise InputError(f"n must be at least 1, found {n}")
    checkpoint = Checkpoint.read(ckpt_path, read_config(run_config))
    model = checkpoint.generator()
    set_seed(seed)
    title = ""
    if attributes is None:
        images = model.sample(n)
    elif isinstance(model, AttributeVAE):
        names, categories = checkpoint.attribute_names(), checkpoint.categories()
        y = attribute_row(attributes, model, names, categories)
        images, title = model.sample(n, y), described(y, names, categories)
    else:
        raise InputError(f"{ckpt_path}: {type(model).__name__} has no attributes")
    write_picture(images, output, title=title)


def hop(
    ckpt_path: str,
    output: Path,
    rows: int = 8,
    steps: int = 9,
    num_dimensions: int = 5,
    seed: int = 0,
    run_config: Path | None = None,
) -> None:
    """Draw walks through the modes of a trained model's prior.

    Args:
        ckpt_path: a checkpoint of `ringdist fit`.
        output: the picture to write, one row per walk, e.g. hops.png.
        rows: number of walks.
        steps: number of steps of each walk.
        num_dimensions: latent dimensions that are redrawn in each step, given all others.
        seed: seed of the samples.
        run_config: the run's config.yaml, for models with your own classes, which a checkpoint may not import.

    Raises:
        InputError: if the checkpoint cannot be read or its prior has no conditionals, or an argument breaks a rule.

    Examples:
        >>> from pathlib import Path
        >>> from adapters.commands import hop
        >>> hop("model.ckpt", Path("hops.png"), rows=4)  # doctest: +SKIP
    """
    check_picture(output)
    model = Checkpoint.read(ckpt_path, read_config(run_config)).generator()
    set_seed(seed)
    try:
        images = hopping_images(model, rows, steps, num_dimensions)
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"{ckpt_path}: {error}") from error
    write_picture(
        images,
        output,
        columns=[f"step {step}" for step in range(steps + 1)],
        title=f"each row is a walk; {num_dimensions} of {model.prior.num_latents} latents are drawn anew in a step",
    )


def fit_prior(
    ckpt_path: str,
    output: Path | None = None,
    prior: str | None = None,
    prior_args: str | None = None,
    method: str | None = None,
    order: str | None = None,
    max_epochs: int | None = None,
    num_codes: int = 10_000,
    epochs: int = 0,
    learning_rate: float = 5e-3,
    attribute_weight: float | None = None,
    complete_labels: bool = False,
    samples: Path | None = None,
    seed: int = 0,
    run_config: Path | None = None,
) -> None:
    """Fit a prior to the codes of a trained autoencoder, and save the model with it.

    Encoder and decoder are unchanged. The command prints the mean log p(z) of codes of test images under N(0, I), the
    model's own prior and the new one. There is one sample of q(z | x) for each image, so differences between the rows
    are differences of the evidence lower bound, in nats per image.

    Args:
        ckpt_path: a checkpoint of `ringdist fit`, of a VAE or a ConditionalVAE.
        output: the checkpoint to write; by default in the same folder, with the prior's name appended.
        prior: a class of `adapters`, by default TRIP, or JointTRIP for a ConditionalVAE; or a YAML file with
            class_path and init_args, for any other class.
        prior_args: arguments of the prior, e.g. rank=32,num_components=20; latents and attributes are known.
        method: of the prior's `reinitialize`; em by default for rings.
        order: order of a ring; mutual_information by default.
        max_epochs: epochs of EM.
        num_codes: largest number of codes of training images.
        epochs: epochs of gradient steps on codes of all training images after the fit, of which the best on codes of
            validation images is kept (`adapters.prior_phase.fit_prior`); a flow needs some.
        learning_rate: the largest of the gradient steps.
        attribute_weight: of log p(y | z) in gradient steps; by default the model's, which is often larger than needed.
        complete_labels: whether unknown attributes are first predicted (`adapters.pseudo_labels`).
        samples: a picture of 64 images from the new prior, e.g. samples.png.
        seed: seed of codes, fit and samples.
        run_config: the run's config.yaml, for models with your own classes, which a checkpoint may not import.

    Raises:
        InputError: if the checkpoint cannot be read or is not of such a model, or an argument breaks a rule.

    Examples:
        >>> from adapters.commands import fit_prior
        >>> fit_prior("model.ckpt", prior="TRIP", prior_args="rank=32,num_components=20")  # doctest: +SKIP
    """
    if samples is not None:
        check_picture(samples)
    if num_codes < 2 or (max_epochs is not None and max_epochs < 1):
        raise InputError(f"num_codes must be at least 2 and max_epochs 1, found {num_codes} and {max_epochs}")
    if epochs < 0 or not 0 < learning_rate < math.inf:
        raise InputError(f"epochs must be at least 0 and learning_rate positive, found {epochs} and {learning_rate}")
    checkpoint = Checkpoint.read(ckpt_path, read_config(run_config))
    model = refitting.autoencoder(checkpoint)
    set_seed(seed)
    changed, fitted = refitting.with_prior(checkpoint, model, refitting.specification(prior, prior_args, model))
    data = checkpoint.data()
    if complete_labels:
        try:
            data = pseudo_labels.complete_labels(model, data)
        except ValueError as error:
            raise InputError(f"complete_labels: {error}") from error
    codes, held_out = refitting.codes_of(model, data, "train", num_codes), refitting.codes_of(model, data, "test")
    refitting.fit_to_codes(fitted.prior, codes, method=method, order=order, max_epochs=max_epochs)
    if epochs:
        try:
            fit = prior_phase.fit_prior(
                fitted, data, epochs, attribute_weight=attribute_weight, learning_rate=learning_rate
            )
        except ValueError as error:
            raise InputError(f"{type(fitted.prior).__name__}: {error}") from error
        print(f"gradient steps: the best epoch of {len(fit.history['validation'])} was {fit.best_epoch}")
    name = type(fitted.prior).__name__
    priors = {
        "N(0, I)": GaussianPrior(codes.z.shape[1]),
        f"{type(model.prior).__name__} of the checkpoint": model.prior,
        f"new {name}": fitted.prior,
    }
    rows = {label: refitting.log_likelihoods(shown, held_out) for label, shown in priors.items()}
    print_table(f"nats, {len(held_out.z)} test images", rows)
    target = output or Path(ckpt_path).with_name(f"{Path(ckpt_path).stem}-{name}.ckpt")
    refitting.write_checkpoint(changed, fitted, target)
    print(f"written: {target}")
    if samples is not None:
        write_picture(fitted.sample(64), samples, title=f"drawn with the {name}")


def print_table(head: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table with a row for each label and a column for each name; missing entries are blank."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    width = max(len(head), *map(len, rows))
    print(f"{head:<{width}}", *(f"{name:>14}" for name in names))
    for label, row in rows.items():
        print(f"{label:<{width}}", *(f"{row[name]:>14.3f}" if name in row else " " * 14 for name in names))


def evaluate(
    ckpt_path: str,
    features: str,
    n: int = 10_000,
    batch_size: int = 100,
    seed: int = 0,
    weights: Path | None = None,
    device: str = "cpu",
    run_config: Path | None = None,
) -> None:
    """Compare images drawn from a trained model with the test images of its data.

    With a classifier of the model's attributes, the command also prints which share of requested attributes (those of
    test images) the classifier finds in images generated for them.

    Args:
        ckpt_path: a checkpoint of `ringdist fit`.
        features: the network whose features are compared: "inception" for the FID, or a checkpoint of an
            AttributeClassifier.
        n: number of generated images.
        batch_size: number of images generated at once; the samples depend on it.
        seed: seed of the samples.
        weights: torch-fidelity's file for Inception, if it cannot be downloaded.
        device: of PyTorch, e.g. cuda.
        run_config: the run's config.yaml, for models with your own classes, which a checkpoint may not import.

    Raises:
        InputError: if a checkpoint cannot be read or is of another kind, or an argument breaks a rule.

    Examples:
        >>> from adapters.commands import evaluate
        >>> evaluate("model.ckpt", features="classifier.ckpt", n=1000)  # doctest: +SKIP
    """
    if n < 2 or batch_size < 1:
        raise InputError(f"n must be at least 2 and batch_size at least 1, found {n} and {batch_size}")
    check_device(device)
    checkpoint = Checkpoint.read(ckpt_path, read_config(run_config))
    model, data = checkpoint.generator().to(device), checkpoint.data()
    network = load_features(features, weights).to(device)
    check_features(features, network, data.image_shape, device)
    set_seed(seed)
    real = (images.to(device) for images, _ in data.rows("test"))
    drawn = (model.sample(min(batch_size, n - first)) for first in range(0, n, batch_size))
    try:
        frechet, precision, recall = distances(real, drawn, network)
    except ValueError as error:
        raise InputError(f"{ckpt_path}: {error}") from error
    distance = "FID" if features == INCEPTION else f"Fréchet distance (features of {features})"
    table = {distance: f"{frechet:.4g}", "precision": f"{precision:.4f}", "recall": f"{recall:.4f}"}
    table |= {"real images": str(len(data.splits["test"].images)), "generated images": str(n)}
    if isinstance(network, AttributeClassifier) and network.sizes == tuple(getattr(model, "attributes", ())):
        table |= found_attributes(model, network, data, n, batch_size)
    width = max(map(len, table))
    print(*(f"{name:<{width}}  {value:>8}" for name, value in table.items()), sep="\n")


def attribute_row(
    specification: str, model: AttributeVAE, names: Sequence[str], categories: Mapping[str, Sequence[str]]
) -> Tensor:
    """Attributes (a,) from NAME=VALUE,..., NaN where free; `InputError` naming the invalid part and the rule."""
    if len(names) != len(model.attributes):
        raise other_attributes(names, len(model.attributes))
    y = torch.full((len(names),), torch.nan, device=model.device)
    for part in specification.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in names:
            raise InputError(f"{part!r}: attributes are {', '.join(names)}")
        j = names.index(name)
        if not y[j].isnan():
            raise InputError(f"{part!r}: {name} is given twice")
        try:
            y[j] = attribute_value(value, categories.get(name, ()))
            attribute_rows(y, model.attributes)
        except ValueError as error:
            raise InputError(f"{part!r}: {error}") from error
        if y[j].isnan():
            raise InputError(f"{part!r}: an attribute that is left out is free")
    return y


def attribute_value(text: str, categories: Sequence[str]) -> float:
    """A number, or the code of a category; `ValueError` listing the categories if the text is neither."""
    if text in categories:
        return float(categories.index(text))
    try:
        return float(text)
    except ValueError:
        if not categories:
            raise
        raise ValueError(f"categories are {listed(categories)}") from None


def described(y: Tensor, names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> str:
    """Attributes (a,) in words, with the names of categories; free attributes are omitted."""
    return ", ".join(
        f"{name} {value_name(value, categories.get(name, ()))}"
        for name, value in zip(names, y.tolist(), strict=True)
        if value == value
    )


def found_attributes(
    model: AttributeVAE, judge: AttributeClassifier, data: ImageData, n: int, batch_size: int
) -> dict[str, str]:
    """The shares of requested attributes, those of n test images, that the judge finds in images generated for them."""
    test_attributes = data.splits["test"].attributes
    requests = test_attributes[torch.randint(len(test_attributes), (n,))].to(model.device)
    result = satisfaction(judge, ((model.sample(len(y), y), y) for y in requests.split(batch_size)))
    shares = dict(zip(("all", *data.attribute_names), (result.accuracy, *result.accuracies), strict=True))
    return {f"requested and found, {name}": f"{share:.4f}" for name, share in shares.items()}


def load_features(name: str, weights: Path | None = None) -> nn.Module:
    """A feature network by its name; `InputError` if there is none.

    Args:
        name: "inception", or a checkpoint of an `AttributeClassifier`.
        weights: as in `inception_features`.
    """
    if name == INCEPTION:
        return inception_features(weights)
    network = load_model(name)
    if not isinstance(network, AttributeClassifier):
        raise InputError(f"{name}: features must be those of an AttributeClassifier, found {type(network).__name__}")
    return network
