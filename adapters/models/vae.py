"""The variational autoencoder with any prior (paper section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from adapters.likelihoods import BernoulliLikelihood, Likelihood
from adapters.networks import GaussianEncoder
from adapters.priors import Prior
from adapters.priors.base import integer_of

Batch = tuple[Tensor, Tensor]  # images (batch, C, H, W) in [0, 1] and attributes (batch, a), NaN where unknown


class Elbo(NamedTuple):
    """The parts of the evidence lower bound, each (batch,) in nats.

    Examples:
        >>> import torch
        >>> from adapters.models.vae import Elbo
        >>> Elbo(reconstruction=torch.tensor([-9.0]), kl=torch.tensor([2.0]), attributes=torch.tensor([0.0])).elbo
        tensor([-11.])
    """

    reconstruction: Tensor
    kl: Tensor
    attributes: Tensor  # zeros where the model has none

    @property
    def elbo(self) -> Tensor:
        """E_q[log p(x | z) + log p(y_observed | z)] − KL(q ‖ p(z)), without the weights of training."""
        return self.reconstruction + self.attributes - self.kl


class VAE(LightningModule):
    """log p(x) ≥ E_q[log p(x | z)] − KL(q(z | x) ‖ p(z)), with a diagonal Gaussian q and any prior p(z).

    The divergence is log q(z) − log p(z) at the sampled code, or the closed form if the prior has one. Validation and
    testing also report the importance-weighted bound, which is tighter (Burda et al. 2016, arXiv:1509.00519).

    Methods accept the attributes y (batch, a) of a batch. They are ignored here, but not in the subclasses.

    Args:
        encoder: network x -> (batch, 2 d), means and logarithms of standard deviations.
        decoder: network z (batch, d) -> (batch, c', H, W); the likelihood determines c'.
        prior: over d latents; or a function that returns a prior for the encoder x -> q(z | x), as for a VampPrior.
        likelihood: p(x | z), Bernoulli by default.
        learning_rate: of Adam.
        prior_learning_rate: of Adam for the prior; None: the same.
        betas: of Adam.
        beta: weight of the divergence in training (Higgins et al. 2017); reported bounds have weight 1.
        warm_up_steps: number of steps over which the weight grows linearly from 0 to beta.
        analytic_kl: whether to use the closed form of the divergence if the prior has one.
        val_samples: k of the importance-weighted bound in validation.
        test_samples: k of the importance-weighted bound in testing.
        max_rows: largest number of images times samples that are decoded at once for this bound, which limits memory.

    Raises:
        TypeError: if prior is neither a prior nor a function that returns one, or a number of steps, samples or rows is
            not an integer.
        ValueError: if such a number is too small.

    Examples:
        >>> import torch
        >>> from adapters import TRIP
        >>> from adapters.models import VAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 2 * 4, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> model = VAE(encoder, decoder, TRIP(4, num_components=5, rank=3))
        >>> x = torch.rand(6, 1, 8, 8).round()
        >>> model.elbo(x).elbo.shape, model.iwae(x, num_samples=10).shape, model.sample(2).shape
        (torch.Size([6]), torch.Size([6]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior | Callable[[nn.Module], Prior],
        likelihood: Likelihood | None = None,
        learning_rate: float = 1e-4,
        prior_learning_rate: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        beta: float = 1.0,
        warm_up_steps: int = 0,
        analytic_kl: bool = True,
        val_samples: int = 10,
        test_samples: int = 100,
        max_rows: int = 4096,
    ):
        super().__init__()
        self.encoder = GaussianEncoder(encoder)
        self.decoder = decoder
        if not isinstance(prior, Prior) and callable(prior):
            prior = prior(self.encoder)
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior or a function that returns one, found {type(prior).__name__}")
        self.prior = prior
        self.likelihood = likelihood if likelihood is not None else BernoulliLikelihood()
        self.learning_rate, self.betas = learning_rate, betas
        self.prior_learning_rate = learning_rate if prior_learning_rate is None else prior_learning_rate
        self.beta, self.analytic_kl = beta, analytic_kl
        self.warm_up_steps = integer_of("warm_up_steps", warm_up_steps, least=0)
        self.val_samples, self.test_samples = (
            integer_of("val_samples", val_samples),
            integer_of("test_samples", test_samples),
        )
        self.max_rows = integer_of("max_rows", max_rows)

    # ---------------------------------------------------------------------------------------------------- queries

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Independent, Tensor | None]:
        """q(z | x) of images (batch, C, H, W), and the attributes to pass to `decode`.

        Raises:
            ValueError: if the encoder and the prior have different numbers of latents.
        """
        return self._posterior(x), y

    def _posterior(self, x: Tensor) -> Independent:
        posterior: Independent = self.encoder(x)
        found, d = posterior.event_shape[0], self.prior.num_latents
        if found != d:
            raise ValueError(f"an encoder for the prior's {d} latents must have {2 * d} outputs, found {2 * found}")
        return posterior

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """p(x | z) for codes (batch, d); p(x | z, y) if the decoder sees attributes, unknown ones being drawn."""
        return self._decoded(self.decoder_inputs(z, y))

    def decoder_inputs(self, z: Tensor, y: Tensor | None) -> Tensor:
        """What the decoder sees of codes (batch, d) and attributes, (batch, inputs); here the codes alone.

        A model whose decoder sees more overrides this method. It is called once for each code, so what is random in the
        inputs is drawn here.
        """
        return z

    def _decoded(self, inputs: Tensor) -> Distribution:
        distribution: Distribution = self.likelihood(self.decoder(inputs))
        return distribution

    def elbo(self, x: Tensor, y: Tensor | None = None) -> Elbo:
        """The evidence lower bound of images (batch, C, H, W) with one sampled code each."""
        posterior, y = self.encode(x, y)
        return self._elbo(posterior, x, y)

    def _elbo(self, posterior: Independent, x: Tensor, y: Tensor | None) -> Elbo:
        z = posterior.rsample()
        log_prior, attributes = self._log_prior(z, y)
        return Elbo(self.decode(z, y).log_prob(x), self._divergence(posterior, z, log_prior), attributes)

    def _log_prior(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p(z) and log p(y_observed | z) of codes (rows, d), (rows,) each."""
        log_prior = self.prior.log_prob(z)
        return log_prior, torch.zeros_like(log_prior)

    def _divergence(self, posterior: Independent, z: Tensor, log_prior: Tensor) -> Tensor:
        if self.analytic_kl:
            closed_form = self.prior.kl(posterior.base_dist.mean, posterior.base_dist.stddev)
            if closed_form is not None:
                return closed_form
        return posterior.log_prob(z) - log_prior

    @torch.no_grad()
    def iwae(self, x: Tensor, num_samples: int, y: Tensor | None = None, *, max_rows: int | None = None) -> Tensor:
        """log 1/k Σ_i p(x | z_i) p(z_i) / q(z_i | x) with k codes, (batch,): a bound that is tighter for larger k.

        Args:
            x: (batch, C, H, W).
            num_samples: k.
            y: attributes (batch, a); in a model with attributes this is a bound of log p(x, y_observed).
            max_rows: largest number of images times samples that are decoded at once; None: that of the model. The
                result does not depend on it, because noise is drawn for the whole batch before it is split.

        Raises:
            TypeError: if a number is not an integer.
            ValueError: if it is less than 1.
        """
        integer_of("num_samples", num_samples)
        max_rows = integer_of("max_rows", self.max_rows if max_rows is None else max_rows)
        posterior, y = self.encode(x, y)
        chunk = max(1, max_rows // max(1, len(x)))
        total = torch.full((len(x),), -torch.inf, device=x.device)
        for first in range(0, num_samples, chunk):
            pairs = [self._drawn(posterior, y) for _ in range(min(chunk, num_samples - first))]
            z, inputs = (torch.stack(parts) for parts in zip(*pairs, strict=True))
            total = torch.logaddexp(total, self._log_weights(posterior, z, inputs, x, y, max_rows).logsumexp(0))
        return total - math.log(num_samples)

    def _drawn(self, posterior: Independent, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """A code for each image, and what the decoder sees of it, (batch, ...) each."""
        z = posterior.sample()
        return z, self.decoder_inputs(z, y)

    def _log_weights(
        self, posterior: Independent, z: Tensor, inputs: Tensor, x: Tensor, y: Tensor | None, max_rows: int
    ) -> Tensor:
        """log p(x | z) p(z, y_observed) / q(z | x) of codes and decoder inputs (k, batch, ...), (k, batch)."""
        k, batch, _ = z.shape
        index = torch.arange(batch, device=x.device).repeat(k)
        pieces = [rows.flatten(0, 1).split(max_rows) for rows in (z, inputs)]
        parts = [
            self._log_joint(codes, seen, x[images], None if y is None else y[images])
            for codes, seen, images in zip(*pieces, index.split(max_rows), strict=True)
        ]
        return torch.cat(parts).reshape(k, batch) - posterior.log_prob(z)

    def _log_joint(self, z: Tensor, inputs: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        """log p(x | z) + log p(z, y_observed) of rows, (rows,)."""
        log_prior, attributes = self._log_prior(z, y)
        return self._decoded(inputs).log_prob(x) + log_prior + attributes

    @torch.no_grad()
    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (n, C, H, W) from codes (n, d): the means of p(x | z)."""
        return self.decode(z, y).mean

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0) -> Tensor:
        """n images, (n, C, H, W); see `Prior.sample` for the temperature of their codes."""
        return self.generate(self.prior.sample(n, temperature=temperature))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of `decode` at the mean code of each image, with its attributes y (batch, a), (batch, C, H, W)."""
        posterior, y = self.encode(x, y)
        return self.generate(posterior.mean, y)

    # --------------------------------------------------------------------------------------------------- training

    @property
    def divergence_weight(self) -> float:
        """The weight of the divergence in the current training step."""
        share = min(1.0, (self.global_step + 1) / self.warm_up_steps) if self.warm_up_steps else 1.0
        return self.beta * share

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """−E_q[log p(x | z)] + weight · KL, averaged over the batch."""
        loss, bound = self._objective(*batch)
        self._log_bound("train", bound, len(batch[0]))
        return loss.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the bounds."""
        self._evaluate("val", batch, self.val_samples)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the bounds."""
        self._evaluate("test", batch, self.test_samples)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, with a separate learning rate for the prior."""
        learned = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in learned if not name.startswith("prior.")], "lr": self.learning_rate},
            {"params": [p for name, p in learned if name.startswith("prior.")], "lr": self.prior_learning_rate},
        ]
        return torch.optim.Adam([group for group in groups if group["params"]], betas=self.betas)

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Elbo]:
        """The training objective, (batch,), and the bound to report."""
        bound = self.elbo(x, y)
        return self._weighted(bound), bound

    def _weighted(self, bound: Elbo) -> Tensor:
        """The negative bound with the current weight of the divergence."""
        return self.divergence_weight * bound.kl - bound.reconstruction - bound.attributes

    def _evaluate(self, stage: str, batch: Batch, num_samples: int) -> None:
        x, y = batch
        self._log_bound(stage, self.elbo(x, y), len(x))
        self._log_mean(f"{stage}_iwae", self.iwae(x, num_samples, y), len(x))

    def _log_bound(self, stage: str, bound: Elbo, batch_size: int) -> None:
        self._log_mean(f"{stage}_elbo", bound.elbo, batch_size)
        self._log_mean(f"{stage}_reconstruction", bound.reconstruction, batch_size)
        self._log_mean(f"{stage}_kl", bound.kl, batch_size)

    def _log_mean(self, name: str, values: Tensor, batch_size: int) -> None:
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": batch_size}
        self.log(name, values.mean(), sync_dist=True, prog_bar=name.endswith(("elbo", "iwae")), **options)
