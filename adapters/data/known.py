"""Well-known data sets: scikit-learn's digits, MNIST, CIFAR-10, CelebA."""

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
        test: number or share of the images that are held out for testing.
        strokes: whether thickness (thin, medium, thick) and slant (left, upright, right) are attributes too: the
            terciles of `stroke_thickness` and `slant` over the images that are not for testing.
        options: of `ImageData`.

    Raises:
        ValueError: as `ImageData`.

    Examples:
        >>> from adapters.data import Digits
        >>> data = Digits(batch_size=64, strokes=True)
        >>> data.setup()
        >>> images, attributes = next(data.rows("test"))
        >>> images.shape, attributes.shape, data.attribute_names
        (torch.Size([64, 1, 8, 8]), torch.Size([64, 3]), ('digit', 'thickness', 'slant'))
    """

    levels = 17
    attribute_names: Sequence[str] = ("digit",)

    def __init__(self, test: int | float = 0.2, strokes: bool = False, **options: Any):
        super().__init__(**options)
        self.test, self.strokes = test, strokes

    def load(self) -> dict[Stage, Split]:
        """Training and test images, split with `split_seed`."""
        images, labels = load_digits(return_X_y=True)
        test, train = self.cut(_split(images.reshape(-1, 8, 8), labels), self.test, "test")
        return _with_attributes(self, {"train": train, "test": test})


class MNIST(ImageData):
    """60 000 + 10 000 handwritten digits, 28x28; the attribute is the digit.

    Args:
        path: an .npz file with arrays x_train, y_train, x_test, y_test, or torchvision's folder.
        download: whether torchvision may download the data into that folder.
        strokes: as in `Digits`.
        options: of `ImageData`.

    Raises:
        InputError: when the data are loaded, if they are not at the path.
        ValueError: as `ImageData`.

    Examples:
        >>> import numpy as np
        >>> from adapters.data import MNIST
        >>> images, digits = np.zeros((100, 28, 28), np.uint8), np.arange(100) % 10
        >>> np.savez("mnist.npz", x_train=images, y_train=digits, x_test=images[:20], y_test=digits[:20])
        >>> data = MNIST("mnist.npz", validation=10)
        >>> data.image_shape, {stage: len(split.images) for stage, split in data.splits.items()}
        ((1, 28, 28), {'train': 90, 'test': 20, 'val': 10})
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
            return _with_attributes(self, _read_arrays(self.path))
        return _with_attributes(self, _parts(datasets.MNIST, self.path))


class CIFAR10(ImageData):
    """50 000 + 10 000 photographs, 32x32; the attribute is the class.

    Args:
        path: torchvision's folder, or a folder or zip archive of images laid out train|test/CLASS/NAME.
        download: whether torchvision may download the data into that folder.
        options: of `ImageData`.

    Raises:
        InputError: when the data are loaded, if they are not at the path.
        ValueError: as `ImageData`.

    Examples:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from adapters.data import CIFAR10
        >>> for part in ("train/cat", "train/dog", "test/cat", "test/dog"):
        ...     Path("cifar", part).mkdir(parents=True)
        ...     for i in range(10):
        ...         Image.new("RGB", (32, 32)).save(f"cifar/{part}/{i}.png")
        >>> CIFAR10("cifar").summary()
        ['attributes: class (cat = 0, dog = 1)']
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
    """202 599 faces, cropped to their central 160x160 pixels and scaled to 64x64 as in the paper, with 40 attributes.

    The default attributes are the fourteen of `CELEBA_ATTRIBUTES`, which are clearly visible in the images. The paper
    has fourteen too, but names only Male, Young, Smiling, Eyeglasses, Wearing_Hat and Blond_Hair (Table 3); the others
    are our choice.

    Args:
        path: torchvision's folder.
        download: whether torchvision may download the data into that folder.
        keep: names of the attributes, in this order; None: all 40 of the data set.
        options: of `ImageData`; the data set has its own validation images.

    Raises:
        InputError: when the data are loaded, if they are not at the path.
        ValueError: as `ImageData`.

    Examples:
        >>> from adapters.data import CelebA
        >>> CelebA("celeba", keep=["Smiling", "Male"]).image_shape  # doctest: +SKIP
        (3, 64, 64)
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
        """Training, validation and test images of the data set."""
        return {"train": self._part("train"), "val": self._part("valid"), "test": self._part("test")}

    def _part(self, name: str) -> Split:
        cut = v2.Compose([v2.CenterCrop(160), v2.Resize(64), v2.PILToTensor()])
        part = _torchvision(datasets.CelebA, self.path, split=name, transform=cut)
        self.attribute_names = [attribute for attribute in part.attr_names if attribute]
        images = torch.empty((len(part), 3, 64, 64), dtype=torch.uint8)
        for i in range(len(part)):  # written in place, because a list and its stack would need twice the memory
            images[i] = part[i][0]
        return Split(images, part.attr[:, : len(self.attribute_names)].float())


def _torchvision(kind: type, path: Path, **options: Any) -> Any:
    """A data set of torchvision; `InputError` naming the folder if it cannot be read."""
    try:
        return kind(str(path), **options)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: torchvision cannot read {kind.__name__} there ({error})") from error


def _parts(kind: type, path: Path) -> dict[Stage, Split]:
    """Training and test images of a torchvision data set with arrays `data` and `targets`."""
    train, test = _torchvision(kind, path, train=True), _torchvision(kind, path, train=False)
    return {"train": _split(train.data, train.targets), "test": _split(test.data, test.targets)}


def _with_attributes(data: Digits | MNIST, splits: dict[Stage, Split]) -> dict[Stage, Split]:
    """The splits, with thickness and slant as attributes if the data module asks for them."""
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
    """The splits in an .npz file; `InputError` if a rule is broken."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        # Given a path, np.load would leave a damaged file open.
        with path.open("rb") as source, np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for damaged archives
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
