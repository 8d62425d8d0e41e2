"""Kinds of ring priors whose hidden states have components of their own, and codes in clusters."""

import numpy as np
import torch

PRIVATE = {"core": "cp", "private_components": True}
SWITCHING = {"core": "switching", "private_components": True}


def perturbed(prior, seed: int = 1, scale: float = 0.4):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return prior


def clusters(n: int = 600, d: int = 6, k: int = 4, seed: int = 0):
    """Codes around k centres, and the cluster of each."""
    rng = np.random.default_rng(seed)
    label = rng.integers(k, size=n)
    centres, stds = 2 * rng.normal(size=(k, d)), rng.uniform(0.3, 0.8, size=(k, d))
    return torch.tensor(centres[label] + stds[label] * rng.normal(size=(n, d))).float(), torch.tensor(label)
