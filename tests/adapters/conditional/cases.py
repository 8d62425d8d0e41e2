"""Models of images and attributes, images, and a mixture whose bounds and samples are known."""

import math

import pytest

pytest.importorskip("lightning")

import torch
from torch import nn

from adapters import FlowPrior, JointTRIP
from adapters.likelihoods import GaussianLikelihood
from adapters.models import CVAE, JMVAE, TELBO, ConditionalVAE
from adapters.networks import ConvDecoder, ConvEncoder

nan = math.nan
LATENTS = 2
SIZES = (10, 3)


def make(name: str, **settings):
    """A model of 8x8 images, binary, with two attributes."""
    torch.manual_seed(0)
    encoder = ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8))
    sees = name in ("cvae", "conditional")
    decoder = ConvDecoder(LATENTS + sum(SIZES) * sees, (1, 8, 8), (4, 8))
    settings = {"learning_rate": 1e-2, "val_samples": 2} | settings
    if name in ("trip", "flow", "conditional"):
        prior = JointTRIP(LATENTS, SIZES, num_components=4, rank=3)
        prior = FlowPrior(prior, transforms=2, hidden_features=(8,)) if name == "flow" else prior
        return ConditionalVAE(encoder, decoder, prior, conditional_decoder=sees, **settings)
    return {"cvae": CVAE, "telbo": TELBO, "jmvae": JMVAE}[name](encoder, decoder, LATENTS, SIZES, **settings)


def images(n: int = 6) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, 1, 8, 8), 0.3), generator=torch.Generator().manual_seed(1))


def attributes() -> torch.Tensor:
    """All patterns of what is known."""
    return torch.tensor([[3, 1], [9, nan], [nan, 2], [nan, nan], [0, 0], [7, 2]])


class Echo(nn.Module):
    """A conditional decoder whose images (n, 1, 1, Σ widths) are the attributes that it sees."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[:, None, None, LATENTS:]


def echoing(kind: str, attributes=(3, 4, "continuous")) -> ConditionalVAE:
    """A conditional decoder of attributes that depend on each other: two categorical ones and a continuous one."""
    prior = JointTRIP(LATENTS, attributes, num_components=4, rank=3, seed=1, nonnegative="exp")
    with torch.no_grad():
        for raw in prior.cores:
            raw.copy_(3 * torch.randn(raw.shape, generator=torch.Generator().manual_seed(10)))
    prior = FlowPrior(prior, transforms=1, hidden_features=(4,)) if kind == "flow" else prior
    width = sum(1 if attribute == "continuous" else attribute for attribute in attributes)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(width, 2 * LATENTS))
    return ConditionalVAE(encoder, Echo(), prior, conditional_decoder=True, likelihood=GaussianLikelihood(0.1))


class Mixture:
    """One latent in two components, each with a value of the attribute that is likelier; x = 2 z + shift[y] + noise."""

    weights = torch.tensor([[0.35, 0.05], [0.12, 0.48]])  # p(component, y)
    means, std, noise = torch.tensor([-2.0, 1.0]), 0.5, 0.8

    def __init__(self, shift: tuple[float, float] | None = None):
        """None: the decoder does not see y."""
        self.sees, self.shift = shift is not None, torch.tensor(shift or (0.0, 0.0))

    def model(self) -> ConditionalVAE:
        """With a posterior N(0.4 x, 0.4²), which is nearly the exact one."""
        prior = JointTRIP(1, [2], num_components=2, rank=2, order="given", nonnegative="abs")
        ring = prior.ring
        with torch.no_grad():
            prior.means.copy_(self.means[None])
            prior.log_stds.fill_(math.log(self.std))
            cores = torch.zeros(2, 2, 2, 2)  # (column, value, left bond, right bond)
            cores[0, 0, 0, 0] = cores[0, 1, 0, 1] = 1.0  # the component is carried to the attribute
            cores[1] = torch.stack([torch.stack([self.weights[:, y], torch.zeros(2)], 1) for y in range(2)])
            prior.cores[0].copy_(cores)
        assert ring.order == (0, 1)
        weight = torch.cat([torch.tensor([2.0]), self.shift[: 2 * self.sees]])[None]
        decoder, linear = nn.Sequential(nn.Linear(weight.shape[1], 1), nn.Unflatten(1, (1, 1, 1))), nn.Linear(1, 2)
        with torch.no_grad():
            decoder[0].weight.copy_(weight), decoder[0].bias.zero_()
            linear.weight.copy_(torch.tensor([[0.4], [0.0]])), linear.bias.copy_(torch.tensor([0.0, math.log(0.4)]))
        encoder, likelihood = nn.Sequential(nn.Flatten(), linear), GaussianLikelihood(self.noise)
        return ConditionalVAE(encoder, decoder, prior, conditional_decoder=self.sees, likelihood=likelihood)

    def log_prob(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """log p(x, y_observed) of images (n, 1, 1, 1), from the mixture's sum."""
        std = math.hypot(2 * self.std, self.noise)
        centres = 2 * self.means[:, None] + self.shift  # (components, values)
        density = torch.distributions.Normal(centres, std).log_prob(x.flatten()[:, None, None]).exp()
        joint = (density * self.weights).sum(1)  # (n, values)
        known = joint.gather(1, y.nan_to_num(0).long())[:, 0]
        return torch.where(y[:, 0].isnan(), joint.sum(1), known).log()

    def log_prior(self, z: torch.Tensor) -> torch.Tensor:
        """log p(z, y) of codes (n,) for both values, (n, 2)."""
        return (torch.distributions.Normal(self.means, self.std).log_prob(z[:, None]).exp() @ self.weights).log()


X = torch.tensor([-5.0, -1.0, 0.0, 2.0, 3.0, 1.0])[:, None, None, None]
Y = torch.tensor([[0.0], [1.0], [nan], [1.0], [0.0], [nan]])
