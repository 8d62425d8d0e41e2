"""Gaussian priors N(mean, diag std²), and mixtures of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters.priors.base import Generator, Prior, Rng, integer_of, real_rows
from adapters.priors.fitting import LEAST_STD, codes, fit_gaussians, global_seed
from adapters.priors.mixture import LOG_2PI, DiagonalMixture, MixturePrior


class GaussianPrior(Prior):
    """p(z) = N(z; mean, diag std²), initialised as the standard normal N(0, I).

    Args:
        num_latents: d.
        trainable: whether mean and log_std (each (d,)) are learned.

    Raises:
        TypeError: if num_latents is not an integer.
        ValueError: if it is less than 1.

    Examples:
        >>> import torch
        >>> from adapters import GaussianPrior
        >>> prior = GaussianPrior(2)
        >>> prior.log_prob(torch.zeros(1, 2))  # −log 2π
        tensor([-1.8379])
        >>> prior.kl(torch.ones(3, 2), torch.ones(3, 2))
        tensor([1., 1., 1.])
    """

    def __init__(self, num_latents: int, *, trainable: bool = False):
        super().__init__(num_latents)
        self.mean = nn.Parameter(torch.zeros(self.num_latents), requires_grad=trainable)
        self.log_std = nn.Parameter(torch.zeros(self.num_latents), requires_grad=trainable)

    def kl(self, mean: Tensor, std: Tensor) -> Tensor:
        """KL(N(mean, diag std²) ‖ p) in nats, (...), in closed form.

        Raises:
            TypeError: if mean or std is not a floating point tensor.
            ValueError: if the last axis of either is not d long.
        """
        mean, std = (
            real_rows(label, value, self.num_latents).to(self.dtype) for label, value in (("mean", mean), ("std", std))
        )
        ratio = std / self.log_std.exp()
        gap = (mean - self.mean) / self.log_std.exp()
        return 0.5 * (ratio**2 + gap**2 - 1).sum(-1) - ratio.log().sum(-1)

    def reinitialize(self, z: Tensor) -> None:
        """Take the mean and the standard deviation of latent codes z (n, d), n >= 2.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if z is not an (n, d) table of finite numbers.
        """
        z = codes(z, self.num_latents, least=2)
        with torch.no_grad():
            self.mean.copy_(z.mean(0))
            self.log_std.copy_(z.std(0).clamp(min=LEAST_STD).log())

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent, (d,) each."""
        return self.mean, (2 * self.log_std).exp()

    def entropy(self, n: int = 10_000, *, rng: Rng = None) -> Tensor:
        """−E[log p(z)] = Σ (log std + (1 + log 2π) / 2) in nats, exactly; `n` and `rng` are ignored."""
        return (self.log_std + (1 + LOG_2PI) / 2).sum()

    def _log_prob(self, z: Tensor) -> Tensor:
        missing = z.isnan()
        gap = torch.where(missing, 0.0, z - self.mean) / self.log_std.exp()
        terms = -0.5 * (gap**2 + LOG_2PI) - self.log_std
        return torch.where(missing, 0.0, terms).sum(-1)

    def _rsample(self, n: int, generator: Generator) -> Tensor:
        return self._sample(n, None, 1.0, generator)

    def _sample(self, n: int, y: Tensor | None, temperature: float, generator: Generator) -> Tensor:
        shape = (n, self.num_latents)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        return self.mean + temperature * self.log_std.exp() * noise

    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        z = self._rsample(n, generator)
        return z, z.new_zeros(n)

    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        return torch.where(z.isnan(), self._rsample(z.shape[0], generator), z)


class GaussianMixturePrior(MixturePrior):
    """p(z) = Σ_k w_k N(z; means[k], diag stds[k]²), a mixture over all d dimensions.

    Initially all weights are equal, the means are uniform in [−1, 1] and the variances are 1/e.

    Args:
        num_latents: d.
        num_components: K; the paper uses as many as TRIP has Gaussians, 1 000.
        trainable: whether logits (K,), means (K, d) and log_stds (K, d) are learned.
        seed: of the means.

    Raises:
        TypeError: if a size or the seed is not an integer.
        ValueError: if a size is less than 1, or the seed is negative.

    Examples:
        >>> import torch
        >>> from adapters import GaussianMixturePrior
        >>> codes = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + 3
        >>> prior = GaussianMixturePrior(2, num_components=4)
        >>> before = prior.log_prob(codes).mean()
        >>> prior.reinitialize(codes)
        >>> bool(prior.log_prob(codes).mean() > before)
        True
    """

    def __init__(self, num_latents: int, num_components: int = 1000, *, trainable: bool = True, seed: int = 0):
        super().__init__(num_latents)
        self.num_components = integer_of("num_components", num_components)
        generator = torch.Generator().manual_seed(integer_of("seed", seed, least=0))
        shape = (self.num_components, self.num_latents)
        self.logits = nn.Parameter(torch.zeros(self.num_components), requires_grad=trainable)
        self.means = nn.Parameter(2 * torch.rand(shape, generator=generator) - 1, requires_grad=trainable)
        self.log_stds = nn.Parameter(torch.full(shape, -0.5), requires_grad=trainable)

    def mixture(self) -> DiagonalMixture:
        """The mixture with the current parameters."""
        return DiagonalMixture(torch.log_softmax(self.logits, dim=0), self.means, self.log_stds.exp())

    def reinitialize(self, z: Tensor, *, max_iter: int = 20) -> None:
        """Fit the mixture to latent codes z (n, d), n >= K, by EM from k-means++ centres (scikit-learn).

        Random numbers come from PyTorch's global generator.

        Args:
            z: the codes.
            max_iter: iterations of EM.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if z is not an (n, d) table of finite numbers with n >= K; the prior is then unchanged.
        """
        z = codes(z, self.num_latents, least=self.num_components)
        fitted = fit_gaussians(z, self.num_components, max_iter=max_iter, init="k-means++", seed=global_seed())
        with torch.no_grad():
            for parameter, value in zip((self.logits, self.means, self.log_stds), fitted, strict=True):
                parameter.copy_(value)
