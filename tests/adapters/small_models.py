"""Small models of 8x8 images."""

import torch

from adapters import TRIP, GaussianPrior
from adapters.models import VAE
from adapters.networks import ConvDecoder, ConvEncoder

LATENTS = 3


def small_vae(prior=None, **settings) -> VAE:
    """A VAE over 8x8 images, binary by default."""
    torch.manual_seed(0)
    return VAE(
        ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8)),
        ConvDecoder(LATENTS, (1, 8, 8), (4, 8)),
        GaussianPrior(LATENTS) if prior is None else prior,
        **{"learning_rate": 1e-2} | settings,
    )


def small_trip() -> TRIP:
    return TRIP(LATENTS, num_components=4, rank=2)


def images(n: int = 6) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, 1, 8, 8), 0.3), generator=torch.Generator().manual_seed(1))
