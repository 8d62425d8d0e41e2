"""Walks through the modes of a prior (paper section 6.3, Fig. 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.models import VAE, WGAN, ConditionalVAE
from adapters.priors import Prior
from adapters.priors.base import Rng, generator_of, integer_of


def mode_hopping(
    prior: Prior, rows: int, steps: int, num_dimensions: int = 5, y: Tensor | None = None, *, rng: Rng = None
) -> Tensor:
    """Walks that redraw a few random dimensions in each step, given all others.

    Every step is a Gibbs step, which leaves the prior invariant. Each code of a walk is therefore a sample of the
    prior (of p(z | y) if attributes are given), and when a component changes, the walk moves to another mode.

    Args:
        prior: one that can sample given some entries.
        rows: number of walks.
        steps: number of steps of each walk.
        num_dimensions: dimensions redrawn in a step.
        y: attributes (rows, a) of the walks, NaN where free, of a prior that has some; None: all are free.
        rng: a seed or a generator; None: PyTorch's global generator.

    Returns:
        Codes (rows, steps + 1, d).

    Raises:
        NotImplementedError: if the prior has no conditionals.
        TypeError: if a number is not an integer.
        ValueError: if a number is less than 1, or num_dimensions is more than d.

    Examples:
        >>> from adapters import TRIP
        >>> from adapters.hopping import mode_hopping
        >>> walks = mode_hopping(TRIP(6, num_components=3, rank=2), rows=2, steps=4, num_dimensions=1, rng=0)
        >>> walks.shape
        torch.Size([2, 5, 6])
        >>> (walks[:, 1:] != walks[:, :-1]).sum(-1)  # dimensions that change in each step
        tensor([[1, 1, 1, 1],
                [1, 1, 1, 1]])
    """
    integer_of("rows", rows)
    integer_of("steps", steps)
    if integer_of("num_dimensions", num_dimensions) > prior.num_latents:
        raise ValueError(f"num_dimensions must be at most {prior.num_latents}, found {num_dimensions}")
    generator = generator_of(rng, prior.device)
    given = () if y is None else (y,)
    walk = [prior.sample(rows, *given, rng=generator)]
    for _ in range(steps):
        noise = torch.rand(rows, prior.num_latents, generator=generator, device=prior.device)
        redrawn = noise.argsort(dim=1)[:, :num_dimensions]
        walk.append(prior.sample_given(walk[-1].scatter(1, redrawn, torch.nan), *given, rng=generator))
    return torch.stack(walk, dim=1)


def hopping_images(model: VAE | WGAN, rows: int, steps: int, num_dimensions: int = 5) -> Tensor:
    """The images on walks of `mode_hopping` through a model's prior, (rows · (steps + 1), C, H, W), walk by walk.

    A conditional decoder sees the same attributes on all of a walk, drawn once from the prior; codes are drawn given
    them.

    Raises:
        NotImplementedError, TypeError, ValueError: as `mode_hopping`.

    Examples:
        >>> from adapters import TRIP
        >>> from adapters.hopping import hopping_images
        >>> from adapters.models import VAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 2 * 4, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> model = VAE(encoder, decoder, TRIP(4, num_components=5, rank=3))
        >>> hopping_images(model, rows=2, steps=3, num_dimensions=1).shape
        torch.Size([8, 1, 8, 8])
    """
    if not (isinstance(model, ConditionalVAE) and model.conditional_decoder):
        return model.generate(mode_hopping(model.prior, rows, steps, num_dimensions).flatten(0, 1))
    y = model.prior.sample_attributes(model.prior.sample(integer_of("rows", rows)))
    walks = mode_hopping(model.prior, rows, steps, num_dimensions, y)
    return model.generate(walks.flatten(0, 1), y.repeat_interleave(steps + 1, dim=0))
