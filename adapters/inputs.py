"""Checks of what users give the `ringdist` command: each failure is an `InputError` that names the rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from PIL import Image
from torch import Tensor, nn

from adapters import figures
from adapters.data import ImageData
from adapters.errors import InputError
from adapters.metrics import evaluating
from adapters.priors.base import Attribute


def set_seed(seed: int) -> None:
    """Of all libraries; `InputError` if it is none."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be in 0..2^32 - 1, found {seed}")
    seed_everything(seed, verbose=False)


def check_features(name: str, network: nn.Module, image_shape: Sequence[int], device: str) -> None:
    """`InputError` if the network does not take images (C, H, W)."""
    try:
        with evaluating(network):
            network(torch.zeros(1, *image_shape, device=device))
    except RuntimeError as error:
        shape = "x".join(map(str, image_shape))
        raise InputError(f"{name}: the network takes no images of shape {shape} ({error})") from error


def check_attributes(data: ImageData, kinds: Sequence[Attribute]) -> None:
    """`InputError` naming the first image whose attributes a model of these kinds does not have."""
    names = data.attribute_names
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
                raise InputError(f"{data.origin(stage, row)}: {name} {rule} in the model, found {values[row].item():g}")


def other_attributes(names: Sequence[str], number: int) -> InputError:
    """The error of data whose attributes are not as many as the model's."""
    return InputError(f"the data has the attributes {', '.join(names) or '(none)'}, the model {number} of them")


def check_picture(path: Path) -> None:
    """`InputError` if a file's name does not end as that of a picture does."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path}: must end in .png, .jpg or the like to say how to write a picture")


def write_picture(images: Tensor, path: Path, columns: int | None = None) -> None:
    """`figures.save_grid`; `InputError` if the file cannot be written."""
    try:
        figures.save_grid(images, path, columns)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error


def check_device(name: str) -> None:
    """`InputError` if PyTorch has no such device here."""
    try:
        torch.zeros(1, device=name).item()
    except (AssertionError, RuntimeError) as error:  # the former where PyTorch is built without CUDA
        raise InputError(f"device {name!r} cannot be used here ({str(error).partition(chr(10))[0]})") from error


def read_config(path: Path | None) -> str | None:
    """The text of a configuration, if one is given; `InputError` if it cannot be read."""
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable configuration ({error})") from error
