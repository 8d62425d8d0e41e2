"""Walks through the modes of a prior (paper section 6.3, Fig. 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.priors import Prior
from adapters.priors.base import Rng, generator_of, integer_of


def mode_hopping(prior: Prior, rows: int, steps: int, num_dimensions: int = 5, *, rng: Rng = None) -> Tensor:
    """Walks that draw a few random dimensions anew in each step, given all others.

    Every step leaves the prior invariant (it is a Gibbs step), so that each code of a walk is a sample of the prior,
    and a change of component takes the walk to another mode.

    Args:
        prior: one that can sample given some entries.
        rows: number of walks.
        steps: of each.
        num_dimensions: drawn anew in a step.
        rng: a seed or a generator; None: PyTorch's global one.

    Returns:
        Codes (rows, steps + 1, d).

    Raises:
        NotImplementedError: if the prior has no conditionals.
        ValueError: if a number is less than 1, or num_dimensions more than d.
    """
    integer_of("rows", rows)
    integer_of("steps", steps)
    if integer_of("num_dimensions", num_dimensions) > prior.num_latents:
        raise ValueError(f"num_dimensions must be at most {prior.num_latents}, found {num_dimensions}")
    generator = generator_of(rng, prior.device)
    walk = [prior.sample(rows, rng=generator)]
    for _ in range(steps):
        chance = torch.rand(rows, prior.num_latents, generator=generator, device=prior.device)
        chosen = chance.argsort(dim=1)[:, :num_dimensions]
        walk.append(prior.sample_given(walk[-1].scatter(1, chosen, torch.nan), rng=generator))
    return torch.stack(walk, dim=1)
