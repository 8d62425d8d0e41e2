"""Images as Lightning data modules: batches are (images in [0, 1], attributes), with NaN for unknown attributes."""

from adapters.data.base import ImageData, Split
from adapters.data.files import ImageFolder
from adapters.data.known import CIFAR10, MNIST, CelebA, Digits
from adapters.data.strokes import slant, stroke_thickness

__all__ = ["CIFAR10", "MNIST", "CelebA", "Digits", "ImageData", "ImageFolder", "Split", "slant", "stroke_thickness"]
