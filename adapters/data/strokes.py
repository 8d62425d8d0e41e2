"""Thickness and slant of handwritten strokes, measured in grey images, and their classes as attributes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from adapters.data.base import Split, Stage

NAMES = ("thickness", "slant")
CLASSES = (("thin", "medium", "thick"), ("left", "upright", "right"))  # what the values 0, 1, 2 mean


def stroke_thickness(images: Tensor) -> Tensor:
    """Mean width of the strokes in pixels, (n,); NaN for an image without ink.

    A stroke of width w and length ℓ ≫ w has area ℓ w and a border of length 2 ℓ, so w = 2 ∫I / ∫|∇I|: by the coarea
    formula, the total variation of an image with ink 1 on background 0 is the length of the borders. ∇I is the mean of
    the differences in each cell of 2x2 pixels, which measures horizontal, vertical and diagonal borders exactly. No
    threshold is needed, and the brightness of the ink does not matter. Strokes thinner than two pixels may be
    overestimated, because ink between two columns has half the brightness in both.

    Args:
        images: (n, H, W), 0 where there is no ink, as outside the image.

    Raises:
        ValueError: if images has another number of axes.

    Examples:
        >>> import torch
        >>> from adapters.data import stroke_thickness
        >>> images = torch.zeros(2, 28, 28)
        >>> images[0, 4:24, 13:15], images[1, 4:24, 12:16] = 1, 1  # vertical strokes, 2 and 4 pixels wide
        >>> stroke_thickness(images)
        tensor([1.8679, 3.4167])
    """
    return _measured(images, _thickness)


def slant(images: Tensor) -> Tensor:
    """Angle in degrees by which the ink leans to the right of vertical, (n,); negative to the left.

    The angle is atan(−μ₁₁ / μ₀₂), with second moments of the ink about its centroid and rows counted downwards: the
    shear along the rows that makes columns and rows uncorrelated, as in deskewing of digits. It depends on the shape
    too: the top of a 7 increases it. It is NaN if all ink is in one row, or there is none.

    Args:
        images: as in `stroke_thickness`.

    Raises:
        ValueError: as `stroke_thickness`.

    Examples:
        >>> import torch
        >>> from adapters.data import slant
        >>> images = torch.stack([torch.eye(28), torch.eye(28).flip(1)])  # diagonals
        >>> slant(images)
        tensor([-45.,  45.])
    """
    return _measured(images, _slant)


def terciles(values: Tensor, reference: Tensor) -> Tensor:
    """0, 1 or 2 for values (n,) in the lower, middle or upper third of a reference (m,); NaN for NaN."""
    borders = reference.nanquantile(torch.tensor([1 / 3, 2 / 3], dtype=reference.dtype))
    return torch.bucketize(values, borders).to(values.dtype).masked_fill(values.isnan(), torch.nan)


def with_strokes(splits: dict[Stage, Split]) -> dict[Stage, Split]:
    """Splits of grey images with classes of thickness and slant as additional attributes.

    The classes are the terciles of the training images.
    """
    measured = {stage: _measures(split) for stage, split in splits.items()}
    return {
        stage: split._replace(
            attributes=torch.column_stack(
                [split.attributes, *map(terciles, measured[stage], measured["train"])]  # (n, a + 2)
            )
        )
        for stage, split in splits.items()
    }


def _measures(split: Split) -> tuple[Tensor, Tensor]:
    grey = split.images[:, 0]
    return stroke_thickness(grey), slant(grey)


def _measured(images: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """The measure of all images, in parts, because floats need several times the memory of bytes."""
    if images.ndim != 3:
        raise ValueError(f"images must have shape (n, H, W), found {tuple(images.shape)}")
    return torch.cat([measure(part.float()) for part in images.split(4096)])


def _thickness(x: Tensor) -> Tensor:
    x = functional.pad(x, (1, 1, 1, 1))
    across, down = x.diff(dim=2), x.diff(dim=1)
    border = torch.hypot(across[:, 1:] + across[:, :-1], down[:, :, 1:] + down[:, :, :-1]) / 2  # (n, H + 1, W + 1)
    return 2 * x.sum((1, 2)) / border.sum((1, 2))


def _slant(x: Tensor) -> Tensor:
    _, height, width = x.shape
    row, column = torch.arange(height, device=x.device) + 0.0, torch.arange(width, device=x.device) + 0.0
    weight = x / x.sum((1, 2), keepdim=True)
    rows, columns = weight.sum(2), weight.sum(1)
    row = row - (rows @ row)[:, None]  # (n, H)
    column = column - (columns @ column)[:, None]  # (n, W)
    covariance = torch.einsum("nhw,nh,nw->n", weight, row, column)
    variance = (rows * row.square()).sum(1)
    return torch.rad2deg(torch.atan(-covariance / variance.where(variance > 1e-6, torch.nan)))
