"""Convolutional encoders and decoders: the paper's for 32x32 and 64x64 images, smaller ones for 8x8 and 28x28."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

PAPER_CHANNELS = (64, 128, 256, 512)
KERNEL = 5
SLOPE = 0.2
Norm = Literal["batch", "layer"]


class ConvEncoder(nn.Sequential):
    """Strided 5x5 convolutions with leaky ReLU, then a linear layer: (batch, C, H, W) -> (batch, num_outputs).

    Each convolution halves the image; the default channels are the paper's (appendix C).

    Args:
        image_shape: (C, H, W); H and W are multiples of 2 ** len(channels).
        num_outputs: two per latent dimension for a Gaussian encoder.
        channels: of the convolutions, from the image on: 64-128-256-512 in the paper; (32, 64) suits 8x8 and 28x28.
        norm: behind every convolution but the first: "layer" in critics with a gradient penalty, which is defined for
            single images, so that "batch" will not do there.

    Raises:
        ValueError: if the image cannot be halved that often, channels are missing, or the norm is unknown.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_outputs: int,
        channels: Sequence[int] = PAPER_CHANNELS,
        norm: Norm | None = None,
    ):
        size = smallest_size(image_shape, channels)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise((image_shape[0], *channels))):
            layers += [nn.Conv2d(before, after, KERNEL, stride=2, padding=KERNEL // 2)]
            layers += [*_norm(norm if i else None, after), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1] * size[0] * size[1], num_outputs))


class ConvDecoder(nn.Sequential):
    """The encoder backwards, with transposed convolutions: (batch, num_inputs) -> (batch, C', H, W), unbounded.

    Args:
        num_inputs: latent dimensions.
        image_shape: (C', H, W); C' is what the likelihood asks for, see `Likelihood.num_channels`.
        channels: as in `ConvEncoder`, from the image on.
        norm: before every non-linearity: "batch" in generators of adversarial models.

    Raises:
        ValueError: as in `ConvEncoder`.
    """

    def __init__(
        self,
        num_inputs: int,
        image_shape: Sequence[int],
        channels: Sequence[int] = PAPER_CHANNELS,
        norm: Norm | None = None,
    ):
        size = smallest_size(image_shape, channels)
        layers: list[nn.Module] = [
            nn.Linear(num_inputs, channels[-1] * size[0] * size[1]),
            nn.Unflatten(1, (channels[-1], *size)),
        ]
        for before, after in pairwise((*reversed(channels), image_shape[0])):
            layers += [*_norm(norm, before), nn.LeakyReLU(SLOPE), _doubling(before, after)]
        super().__init__(*layers)


class GaussianEncoder(nn.Module):
    """q(z | x) = N(mean(x), diag std(x)²) from a network whose outputs are means and logarithms of standard deviations.

    Args:
        network: x -> (batch, 2 d).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Independent:
        """q(z | x), in single precision at least, whatever autocast makes of the network."""
        return diagonal_gaussian(self.network(x))


def at_least_single(outputs: Tensor) -> Tensor:
    """Outputs in single precision, whatever autocast made of them; those in double precision stay as they are."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def diagonal_gaussian(outputs: Tensor) -> Independent:
    """N(mean, diag std²) from means and logarithms of standard deviations (batch, 2 d), in float32 at least."""
    mean, log_std = at_least_single(outputs).chunk(2, dim=-1)
    return Independent(Normal(mean, torch.exp(log_std), validate_args=False), 1)


def smallest_size(image_shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int]:
    """Height and width after halving once per entry of `channels`; `ValueError` if a number does not do."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be three positive numbers (C, H, W), found {list(image_shape)}")
    if not channels or min(channels) < 1:
        raise ValueError(f"channels must be positive numbers, one for each layer, found {list(channels)}")
    _, height, width = image_shape
    factor = 2 ** len(channels)
    if height % factor or width % factor:
        raise ValueError(
            f"{len(channels)} strided layers need sides that are multiples of {factor}, found {height}x{width}"
        )
    return height // factor, width // factor


def _norm(name: Norm | None, channels: int) -> list[nn.Module]:
    """No layer, or one that normalises each channel over a batch, or each image over its channels and pixels."""
    if name is not None and name not in get_args(Norm):
        raise ValueError(f"norm must be None or one of {', '.join(get_args(Norm))}, found {name!r}")
    if name is None:
        return []
    return [nn.BatchNorm2d(channels) if name == "batch" else nn.GroupNorm(1, channels)]


def _doubling(before: int, after: int) -> nn.ConvTranspose2d:
    """A layer that doubles both sides."""
    return nn.ConvTranspose2d(before, after, KERNEL, stride=2, padding=KERNEL // 2, output_padding=1)
