"""Convolutional encoders and decoders: those of the paper, and smaller ones for 8x8 and 28x28 images."""

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
        channels: of the convolutions, starting at the image; (64, 128, 256, 512) in the paper, and (32, 64) suits
            8x8 and 28x28 images.
        norm: normalisation after every convolution except the first: None, "batch" or "layer". The gradient penalty of
            a critic is defined for single images, which excludes "batch".

    Raises:
        ValueError: if the image cannot be halved that often, channels are missing, or the norm is unknown.

    Examples:
        >>> import torch
        >>> from adapters.networks import ConvEncoder
        >>> ConvEncoder((1, 8, 8), num_outputs=16, channels=(32, 64))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 16])
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
        for i, (inputs, outputs) in enumerate(pairwise((image_shape[0], *channels))):
            layers += [nn.Conv2d(inputs, outputs, KERNEL, stride=2, padding=KERNEL // 2)]
            layers += [*_norm(norm if i else None, outputs), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1] * size[0] * size[1], num_outputs))


class ConvDecoder(nn.Sequential):
    """The reverse of `ConvEncoder`, with transposed convolutions: (batch, num_inputs) -> (batch, C', H, W), unbounded.

    Args:
        num_inputs: latent dimensions.
        image_shape: (C', H, W); the likelihood determines C', see `Likelihood.num_channels`.
        channels: as in `ConvEncoder`, starting at the image.
        norm: normalisation before every non-linearity: None, "batch" (as in generators) or "layer".

    Raises:
        ValueError: as `ConvEncoder`.

    Examples:
        >>> import torch
        >>> from adapters.networks import ConvDecoder
        >>> ConvDecoder(4, (1, 8, 8), channels=(32, 64))(torch.zeros(5, 4)).shape
        torch.Size([5, 1, 8, 8])
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
        for inputs, outputs in pairwise((*reversed(channels), image_shape[0])):
            layers += [*_norm(norm, inputs), nn.LeakyReLU(SLOPE), _upsampling(inputs, outputs)]
        super().__init__(*layers)


class GaussianEncoder(nn.Module):
    """q(z | x) = N(mean(x), diag std(x)²) from a network whose outputs are means and logarithms of standard deviations.

    Args:
        network: x -> (batch, 2 d).

    Raises:
        TypeError: in `forward`, if the network does not return a tensor.
        ValueError: in `forward`, if its number of outputs is odd.

    Examples:
        >>> import torch
        >>> from adapters.networks import GaussianEncoder
        >>> encoder = GaussianEncoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2 * 4)))
        >>> posterior = encoder(torch.zeros(5, 1, 8, 8))
        >>> posterior.batch_shape, posterior.event_shape
        (torch.Size([5]), torch.Size([4]))
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Independent:
        """q(z | x), in single precision at least, also if the network runs under autocast."""
        outputs = self.network(x)
        if not isinstance(outputs, Tensor):
            raise TypeError(
                "an encoder's network must return a tensor (batch, 2 d), means and logarithms of standard deviations, "
                f"found {type(outputs).__name__}; a VAE wraps its network in a GaussianEncoder itself"
            )
        if outputs.shape[-1] % 2:
            raise ValueError(f"an encoder's network must have 2 d outputs, found {outputs.shape[-1]}")
        return diagonal_gaussian(outputs)


def at_least_single(outputs: Tensor) -> Tensor:
    """Outputs in float32 if they are in half precision; those in float32 and float64 are unchanged.

    Examples:
        >>> import torch
        >>> from adapters.networks import at_least_single
        >>> at_least_single(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def diagonal_gaussian(outputs: Tensor) -> Independent:
    """N(mean, diag std²) from means and logarithms of standard deviations (batch, 2 d), in float32 at least.

    Examples:
        >>> import torch
        >>> from adapters.networks import diagonal_gaussian
        >>> diagonal_gaussian(torch.zeros(1, 4)).log_prob(torch.zeros(1, 2))  # −log 2π
        tensor([-1.8379])
    """
    mean, log_std = at_least_single(outputs).chunk(2, dim=-1)
    return Independent(Normal(mean, torch.exp(log_std), validate_args=False), 1)


def smallest_size(image_shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int]:
    """Height and width of an image (C, H, W) after halving both once for each entry of `channels`.

    Raises:
        ValueError: if a number is not positive, or the image cannot be halved that often.

    Examples:
        >>> from adapters.networks import smallest_size
        >>> smallest_size((3, 64, 32), (64, 128, 256))
        (8, 4)
    """
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
    """No layer, a batch normalisation of each channel, or a layer normalisation of each image."""
    if name is not None and name not in get_args(Norm):
        raise ValueError(f"norm must be None or one of {', '.join(get_args(Norm))}, found {name!r}")
    if name is None:
        return []
    return [nn.BatchNorm2d(channels) if name == "batch" else nn.GroupNorm(1, channels)]


def _upsampling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """A layer that doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, KERNEL, stride=2, padding=KERNEL // 2, output_padding=1)
