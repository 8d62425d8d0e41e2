"""Well-known data sets: digits of scikit-learn, MNIST, CIFAR-10, CelebA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.transforms import v2

from adapters.data.base import ImageData, Split, Stage
from adapters.data.files import read_class_folders
from adapters.data.strokes import CLASSES, with_strokes
from adapters.data.strokes import NAMES as STROKES
from adapters.errors import InputError

CELEBA_ATTRIBUTES = (
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Eyeglasses",
    "Gray_Hair",
    "Heavy_Makeup",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Smiling",
    "Wearing_Hat",
    "Young",
)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Digits(ImageData):
    """1 797 handwritten digits, 8x8, 17 grey levels, shipped with scikit-learn; the attribute is the digit.

    Args:
        test: how many images test, or which share of them.
        strokes: whether thickness (thin, medium, thick) and slant (left, upright, right) are attributes too: see
            `stroke_thickness` and `slant`, cut at the terciles of the images that do not test.
        options: of `ImageData`.
    """

    levels = 17
    attribute_names: Sequence[str] = ("digit",)

    def __init__(self, test: int | float = 0.2, strokes: bool = False, **options: Any):
        super().__init__(**options)
        self.test, self.strokes = test, strokes

    def load(self) -> dict[Stage, Split]:
        """Training and test images, cut by the seed of the split."""
        images, labels = load_digits(return_X_y=True)
        test, train = self.cut(_split(images.reshape(-1, 8, 8), labels), self.test, "test")
        return _described(self, {"train": train, "test": test})


class MNIST(ImageData):
    """60 000 + 10 000 handwritten digits, 28x28; the attribute is the digit.

    Args:
        path: an .npz file with arrays x_train, y_train, x_test, y_test, or torchvision's folder.
        download: whether torchvision may fetch the data into that folder.
        strokes: whether thickness (thin, medium, thick) and slant (left, upright, right) are attributes too: see
            `stroke_thickness` and `slant`, cut at the terciles of the images that do not test.
        options: of `ImageData`.
    """

    attribute_names: Sequence[str] = ("digit",)

    def __init__(self, path: str | Path, download: bool = False, strokes: bool = False, **options: Any):
        super().__init__(**options)
        self.path, self.download, self.strokes = Path(path), download, strokes

    def prepare_data(self) -> None:
        """Fetch, in one process."""
        if self.download:
            _torchvision(datasets.MNIST, self.path, download=True)

    def load(self) -> dict[Stage, Split]:
        """Training and test images."""
        if self.path.suffix == ".npz":
            return _described(self, _read_arrays(self.path))
        return _described(self, _parts(datasets.MNIST, self.path))


class CIFAR10(ImageData):
    """50 000 + 10 000 photographs, 32x32; the attribute is the class.

    Args:
        path: torchvision's folder, or a folder or zip of images laid out train|test/CLASS/NAME.
        download: whether torchvision may fetch the data into that folder.
        options: of `ImageData`.
    """

    attribute_names = ("class",)

    def __init__(self, path: str | Path, download: bool = False, **options: Any):
        super().__init__(**options)
        self.path, self.download = Path(path), download

    def prepare_data(self) -> None:
        """Fetch, in one process."""
        if self.download:
            _torchvision(datasets.CIFAR10, self.path, download=True)

    def load(self) -> dict[Stage, Split]:
        """Training and test images."""
        if not (self.path / datasets.CIFAR10.base_folder).is_dir():
            classes, splits = read_class_folders(self.path)
            self.categories = {"class": classes}
            return splits
        self.categories = {"class": CIFAR10_CLASSES}
        return _parts(datasets.CIFAR10, self.path)


class CelebA(ImageData):
    """202 599 faces cut to their middle 160x160 pixels and scaled to 64x64, as in the paper, with up to 40 attributes.

    The default are the fourteen of `CELEBA_ATTRIBUTES`, all of them easy to see. The paper has fourteen too, but names
    only Male, Young, Smiling, Eyeglasses, Wearing_Hat and Blond_Hair (Table 3); Bald, Bangs, Black_Hair, Brown_Hair,
    Gray_Hair, Heavy_Makeup, Mouth_Slightly_Open and Mustache are our choice.

    Args:
        path: torchvision's folder.
        download: whether torchvision may fetch the data into that folder.
        keep: names of the attributes wanted, in this order; None: the 40 of the data set.
        options: of `ImageData`; the data set has validation images of its own.
    """

    def __init__(
        self,
        path: str | Path,
        download: bool = False,
        keep: Sequence[str] | None = CELEBA_ATTRIBUTES,
        **options: Any,
    ):
        super().__init__(keep=keep, **options)
        self.path, self.download = Path(path), download

    def prepare_data(self) -> None:
        """Fetch, in one process."""
        if self.download:
            _torchvision(datasets.CelebA, self.path, download=True)

    def load(self) -> dict[Stage, Split]:
        """The data set's own three parts."""
        return {"train": self._part("train"), "val": self._part("valid"), "test": self._part("test")}

    def _part(self, name: str) -> Split:
        cut = v2.Compose([v2.CenterCrop(160), v2.Resize(64), v2.PILToTensor()])
        part = _torchvision(datasets.CelebA, self.path, split=name, transform=cut)
        self.attribute_names = [attribute for attribute in part.attr_names if attribute]
        images = torch.empty((len(part), 3, 64, 64), dtype=torch.uint8)
        for i in range(len(part)):  # into place: a list of them and its stack would need the memory twice
            images[i] = part[i][0]
        return Split(images, part.attr[:, : len(self.attribute_names)].float())


def _torchvision(kind: type, path: Path, **options: Any) -> Any:
    """A data set of torchvision; `InputError` naming its folder if it is not there."""
    try:
        return kind(str(path), **options)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: torchvision cannot read {kind.__name__} there ({error})") from error


def _parts(kind: type, path: Path) -> dict[Stage, Split]:
    """Training and test images of a data set of torchvision that holds them in memory."""
    train, test = _torchvision(kind, path, train=True), _torchvision(kind, path, train=False)
    return {"train": _split(train.data, train.targets), "test": _split(test.data, test.targets)}


def _described(data: Digits | MNIST, splits: dict[Stage, Split]) -> dict[Stage, Split]:
    """The splits with their strokes as attributes, where the data set asks for them."""
    if not data.strokes:
        return splits
    data.attribute_names = ("digit", *STROKES)
    data.categories = dict(zip(STROKES, CLASSES, strict=True))
    return with_strokes(splits)


def _split(images: Any, labels: Any) -> Split:
    """Arrays (n, H, W) or (n, H, W, 3) and (n,) as a split."""
    tensor = torch.as_tensor(np.asarray(images).astype(np.uint8))
    tensor = tensor[:, None] if tensor.ndim == 3 else tensor.movedim(-1, 1).contiguous()
    return Split(tensor, torch.as_tensor(np.asarray(labels)).float()[:, None])


def _read_arrays(path: Path) -> dict[Stage, Split]:
    """The splits in an .npz file; `InputError` names what is wrong with it."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:  # which leaves broken ones open
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # broken archives make zipfile, zlib and NumPy raise many kinds
        raise InputError(f"{path}: not a readable .npz file ({error})") from error
    if missing := {"x_train", "y_train", "x_test", "y_test"} - arrays.keys():
        raise InputError(f"{path}: arrays {', '.join(sorted(missing))} are missing, found {', '.join(sorted(arrays))}")
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise InputError(
                f"{path}: x_{part} must be (n, height, width) in uint8 and y_{part} (n,), "
                f"found {images.shape} in {images.dtype} and {labels.shape}"
            )
    return {"train": _split(arrays["x_train"], arrays["y_train"]), "test": _split(arrays["x_test"], arrays["y_test"])}
