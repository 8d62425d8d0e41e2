"""Mixtures of Gaussians with diagonal covariances, and the base class of priors that are mixtures."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from adapters.priors.base import Generator, Prior, full_precision
from ringdist.backend import logsumexp
from ringdist.queries.pathwise import moving

LOG_2PI = math.log(2 * math.pi)


class DiagonalMixture(NamedTuple):
    """p(z) = Σ_k w_k ∏_j N(z_j; means[k, j], stds[k, j]²)."""

    log_weights: Tensor  # (K,) normalised
    means: Tensor  # (K, d)
    stds: Tensor  # (K, d)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p of the observed entries of z (..., d), (...)."""
        return logsumexp(self.log_joint(z)).to(z.dtype)

    def sample(self, n: int, generator: Generator, temperature: float = 1.0) -> Tensor:
        """n samples, (n, d), the standard deviations multiplied by the temperature."""
        component = draw(self.log_weights.expand(n, -1), generator)
        return self._emit(component, generator, temperature)

    def sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """n samples (n, d), differentiable in the components, and log p (n,), differentiable in the weights."""
        with torch.no_grad():
            component = draw(self.log_weights.expand(n, -1), generator)
        z = self._emit(component, generator)
        fixed = DiagonalMixture(self.log_weights, self.means.detach(), self.stds.detach())
        return z, fixed.log_prob(z.detach())

    def sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        """The NaN entries of z (n, d), drawn given the others."""
        component = draw(self.log_joint(z), generator)
        return torch.where(z.isnan(), self._emit(component, generator), z)

    def rsample(self, n: int, generator: Generator) -> Tensor:
        """n samples, (n, d), with pathwise gradients, one dimension at a time, updating the posterior of k."""
        with torch.no_grad():
            z = self.sample(n, generator)
        log_weights = self.log_weights.expand(n, -1)
        columns = []
        for value, mean, std in zip(z.unbind(1), self.means.unbind(1), self.stds.unbind(1), strict=True):
            weights = torch.softmax(log_weights, dim=-1)  # (n, K)
            standardised = (value[:, None] - mean) / std
            cdf = (weights * torch.special.ndtr(standardised)).sum(-1)
            density = (weights * log_normal(standardised, std).exp()).sum(-1)
            columns.append(moving(value, cdf, density))
            log_weights = log_weights + log_normal((columns[-1][:, None] - mean) / std, std)
        return torch.stack(columns, dim=1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, (d,) each."""
        weights = self.log_weights.exp()
        mean = weights @ self.means
        return mean, weights @ (self.stds**2 + (self.means - mean) ** 2)

    def log_joint(self, z: Tensor) -> Tensor:
        """log w_k + log p(observed entries | k), (..., K).

        (z − μ)² / σ² is expanded, so memory is (..., K) instead of (..., K, d). Float64 and subtracting the centre of
        the means limit the cancellation.
        """
        wide = torch.float32 if z.device.type == "mps" else torch.float64
        z, means, stds = z.to(wide), self.means.to(wide), self.stds.to(wide)
        centre = means.detach().mean(0)
        observed = ~z.isnan()
        z, means = torch.where(observed, z - centre, 0.0), means - centre
        precision = stds**-2
        constant = means**2 * precision + 2 * stds.log() + LOG_2PI
        square = z**2 @ precision.T - 2 * z @ (means * precision).T + observed.to(wide) @ constant.T
        return self.log_weights.to(wide) - 0.5 * square

    def _emit(self, component: Tensor, generator: Generator, temperature: float = 1.0) -> Tensor:
        mean, std = self.means[component], self.stds[component]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + temperature * std * noise


class Mixture(Protocol):
    """A mixture distribution over codes of d dimensions."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p of the observed entries of z (..., d), (...)."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension, (d,) each."""

    def sample(self, n: int, generator: Generator, temperature: float = 1.0) -> Tensor:
        """n samples, (n, d), the standard deviations multiplied by the temperature."""

    def sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """n samples (n, d), differentiable in the components, and log p (n,), differentiable in the rest."""

    def sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        """The NaN entries of z (n, d), drawn given the others."""

    def rsample(self, n: int, generator: Generator) -> Tensor:
        """n samples, (n, d), with pathwise gradients."""


class MixturePrior(Prior):
    """A prior that is a `Mixture` of its current parameters."""

    @abstractmethod
    def mixture(self) -> Mixture:
        """The mixture with the current parameters."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent, (d,) each, exact and differentiable."""
        with full_precision(self.device):
            return self.mixture().moments()

    def _log_prob(self, z: Tensor) -> Tensor:
        return self.mixture().log_prob(z)

    def _sample(self, n: int, y: Tensor | None, temperature: float, generator: Generator) -> Tensor:
        return self.mixture().sample(n, generator, temperature)

    def _rsample(self, n: int, generator: Generator) -> Tensor:
        return self.mixture().rsample(n, generator)

    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        return self.mixture().sample_components(n, generator)

    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        return self.mixture().sample_given(z, generator)


def draw(logits: Tensor, generator: Generator) -> Tensor:
    """One component per row of logits (n, K), (n,)."""
    if logits.shape[0] == 0:  # torch.multinomial does not accept empty input
        return torch.zeros(0, dtype=torch.long, device=logits.device)
    return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator)[:, 0]


def log_normal(standardised: Tensor, std: Tensor) -> Tensor:
    """log N(mean + std · standardised; mean, std²)."""
    return -0.5 * (standardised**2 + LOG_2PI) - std.log()
