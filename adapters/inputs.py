"""Checks of the `ringdist` command's arguments and files: each failure is an `InputError` that names the rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from PIL import Image
from torch import Tensor, nn

from adapters import figures
from adapters.data import ImageData
from adapters.errors import InputError, one_line
from adapters.metrics import evaluating
from adapters.models import VAE, WGAN
from adapters.priors.base import Attribute


def set_seed(seed: int) -> None:
    """Set the seed of all libraries; `InputError` if it is out of range."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be in 0..2^32 - 1, found {seed}")
    seed_everything(seed, verbose=False)


def check_features(name: str, network: nn.Module, image_shape: Sequence[int], device: str) -> None:
    """Raise `InputError` if the network does not accept images (C, H, W)."""
    try:
        with evaluating(network):
            network(torch.zeros(1, *image_shape, device=device))
    except RuntimeError as error:
        shape = "x".join(map(str, image_shape))
        raise InputError(f"{name}: the network takes no images of shape {shape} ({error})") from error


def check_attributes(data: ImageData, kinds: Sequence[Attribute]) -> None:
    """Raise `InputError` naming the first image whose attributes do not fit a model with attributes of these kinds."""
    names = data.attribute_names
    for name, kind in zip(names, kinds, strict=False):
        if name in data.categories and kind == "continuous":
            raise InputError(f"{name} is one of {', '.join(data.categories[name])}, the model has a real number for it")
    for stage, split in data.splits.items():
        if split.attributes.shape[1] != len(kinds):
            raise other_attributes(names, len(kinds))
        for j, (values, kind) in enumerate(zip(split.attributes.unbind(1), kinds, strict=True)):
            if kind == "continuous":
                outside, rule = values.isinf(), "is a finite number"
            else:
                outside = ~(values.isnan() | torch.isin(values, torch.arange(kind)))
                rule = f"takes integers 0..{kind - 1}"
            if bool(outside.any()):
                row = int(outside.nonzero()[0])
                name = names[j] if j < len(names) else f"attribute {j}"
                value = f"{values[row].item():g}"
                if name in data.categories:
                    value = f"{value} ({data.categories[name][int(values[row])]})"
                raise InputError(f"{data.origin(stage, row)}: {name} {rule} in the model, found {value}")


def check_shapes(model: nn.Module, data: ImageData) -> None:
    """Raise `InputError` naming the part of a model that does not fit the data or the prior; tests one image."""
    x = torch.zeros(1, *data.image_shape)
    if isinstance(model, VAE):
        with evaluating(model), torch.compiler.set_stance("force_eager"):
            _check_encoder(model, x)
            _check_decoder(model, x)
    elif isinstance(model, WGAN):
        with evaluating(model), torch.compiler.set_stance("force_eager"):
            _check_part("generator", model.generator, torch.zeros(1, model.prior.num_latents), tuple(x.shape))
            _check_part("critic", model.critic, x, (1, 1))


def _check_encoder(model: VAE, x: Tensor) -> None:
    d = model.prior.num_latents
    found = _outputs("encoder", model.encoder.network, x)
    if found != (1, 2 * d):
        raise InputError(
            f"the encoder must give 2 x {d} outputs, means and standard deviations of the prior's {d} latents, "
            f"found {'x'.join(map(str, found[1:]))}"
        )


def _check_decoder(model: VAE, x: Tensor) -> None:
    """Check with what the model gives its decoder, which may include attributes."""
    d = model.prior.num_latents
    shape = "x".join(map(str, x.shape[1:]))
    with torch.random.fork_rng(devices=[]):
        inputs = model.decoder_inputs(torch.zeros(1, d), None)
    seen = f" and {inputs.shape[1] - d} of attributes" if inputs.shape[1] > d else ""
    try:
        found = model.likelihood(model.decoder(inputs)).mean.shape
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the decoder must map {inputs.shape[1]} inputs, {d} latents{seen}, to what the likelihood of images of "
            f"shape {shape} takes ({one_line(error)})"
        ) from error
    if found != x.shape:
        drawn = "x".join(map(str, found[1:]))
        raise InputError(f"the decoder must give images of the data's shape {shape}, found {drawn}")


def _check_part(name: str, network: nn.Module, inputs: Tensor, shape: tuple[int, ...]) -> None:
    found = _outputs(name, network, inputs)
    if found != shape:
        given, wanted, outputs = ("x".join(map(str, s[1:])) for s in (inputs.shape, shape, found))
        raise InputError(f"the {name} must map {given} to {wanted} numbers, found {outputs}")


def _outputs(name: str, network: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    """The shape of a network's outputs; `InputError` if it does not accept the inputs."""
    try:
        return tuple(network(inputs).shape)
    except RuntimeError as error:
        shape = "x".join(map(str, inputs.shape[1:]))
        raise InputError(f"the {name} does not accept inputs of shape {shape} ({one_line(error)})") from error


def other_attributes(names: Sequence[str], number: int) -> InputError:
    """The error of data whose attributes are not as many as the model's."""
    return InputError(f"the data has the attributes {', '.join(names) or '(none)'}, the model {number} of them")


def check_picture(path: Path) -> None:
    """Raise `InputError` if a file's name does not have the extension of a picture."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path}: must end in .png, .jpg or the like to say how to write a picture")


def write_picture(images: Tensor, path: Path, columns: Sequence[str] | None = None, title: str = "") -> None:
    """Write images with `figures.save_grid`; `InputError` if the file cannot be written."""
    try:
        figures.save_grid(images, path, len(columns) if columns else None, column_labels=columns or (), title=title)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error


def check_device(name: str) -> None:
    """Raise `InputError` if PyTorch cannot use a device."""
    try:
        torch.zeros(1, device=name).item()
    except (AssertionError, RuntimeError) as error:  # AssertionError if PyTorch is built without CUDA
        raise InputError(f"device {name!r} cannot be used here ({str(error).partition(chr(10))[0]})") from error


def read_config(path: Path | None) -> str | None:
    """The text of a configuration, None for None; `InputError` if it cannot be read."""
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable configuration ({error})") from error
