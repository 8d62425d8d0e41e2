"""The baselines of the paper's conditional VAE (section 6.4): CVAE, TELBO and JMVAE, with the same networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.func import functional_call

from adapters.models.attributes import (
    HIDDEN,
    AttributeExperts,
    AttributePredictor,
    log_prob_known,
    one_hot,
    perceptron,
)
from adapters.models.conditional import AttributeVAE
from adapters.models.vae import Elbo
from adapters.networks import GaussianEncoder, diagonal_gaussian
from adapters.priors import GaussianPrior
from adapters.priors.base import integer_of, nonnegative_of


class Baseline(AttributeVAE):
    """A prior N(0, I), categorical attributes, and q(z | x, y).

    The latter is a head [2 d + Σ N_j, 128, 2 d] that sees the encoder's outputs and the attributes.

    Args:
        encoder: network x -> (batch, 2 d).
        decoder: network -> (batch, c', H, W).
        num_latents: d.
        attributes: the number of values N_j of each.
        settings: further ones of `VAE`.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if it is less than 1, or there is no attribute.
    """

    attributes: tuple[int, ...]

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, num_latents: int, attributes: Sequence[int], **settings: Any
    ):
        super().__init__(encoder, decoder, GaussianPrior(num_latents), **settings)
        if not attributes:
            raise ValueError("there must be at least one attribute; VAE is the model without")
        self.attributes = tuple(integer_of("the size of an attribute", size) for size in attributes)
        self.joint_head = GaussianEncoder(perceptron(2 * num_latents + sum(self.attributes), HIDDEN, 2 * num_latents))

    def _features(self, x: Tensor) -> Tensor:
        """The encoder's outputs, (batch, 2 d)."""
        features: Tensor = self.encoder.network(x)
        return features

    def _joint(self, features: Tensor, y: Tensor) -> Independent:
        """q(z | x, y)."""
        posterior: Independent = self.joint_head(torch.cat([features, one_hot(y, self.attributes)], dim=-1))
        return posterior


class CVAE(Baseline):
    """log p(x | y) ≥ E_q[log p(x | z, y)] − KL(q(z | x, y) ‖ p(z | y)), p(z | y) a learned Gaussian.

    Kingma et al. 2014, arXiv:1406.5298, and Sohn et al. 2015. Codes are z = m(y) + s(y) ε with ε ~ N(0, I). The codes
    of this class are ε, which is the same model with the divergence of q(ε | x, y) from N(0, I). p(z | y) is the head
    [Σ N_j, 128, 2 d].

    Unknown attributes of an image are first drawn from a predictor q(y | x), which is trained on known attributes
    together with the model. `sample` draws free attributes independently of each other, with their frequencies among
    the known ones in training. The bound does not include attributes; its `attributes` are 0.

    Args:
        encoder: network x -> (batch, 2 d).
        decoder: network (batch, d + Σ N_j), codes and one-hot attributes, -> (batch, c', H, W).
        num_latents: d.
        attributes: the number of values N_j of each.
        settings: further arguments of `VAE`.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if it is less than 1, or there is no attribute.

    Examples:
        >>> import torch
        >>> from adapters.models import CVAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 2 * 4, (8, 16)), ConvDecoder(4 + 10, (1, 8, 8), (8, 16))
        >>> model = CVAE(encoder, decoder, num_latents=4, attributes=[10])
        >>> model.sample(6, torch.tensor([7.0])).shape
        torch.Size([6, 1, 8, 8])
    """

    counts: Tensor

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, num_latents: int, attributes: Sequence[int], **settings: Any
    ):
        super().__init__(encoder, decoder, num_latents, attributes, **settings)
        self.conditional_prior = GaussianEncoder(perceptron(sum(self.attributes), HIDDEN, 2 * num_latents))
        self.predictor = AttributePredictor(2 * num_latents, self.attributes)
        self.register_buffer("counts", torch.ones(sum(self.attributes), dtype=torch.double))

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Independent, Tensor | None]:
        """q(ε | x, y), and y with its unknown entries drawn from q(y | x)."""
        features = self._features(x)
        y = self._imputed(features, self._rows(len(x), y))
        return self._joint(features, y), y

    def decoder_inputs(self, z: Tensor, y: Tensor | None) -> Tensor:
        """m(y) + s(y) ε and one-hot attributes, (batch, d + Σ N_j); unknown ones are drawn as in `sample`."""
        given = one_hot(self._completed(self._rows(len(z), y)), self.attributes)
        prior = self.conditional_prior(given).base_dist
        return torch.cat([prior.mean + prior.stddev * z, given], dim=-1)

    @torch.no_grad()
    def predict(self, x: Tensor) -> list[Tensor]:
        """log q(y_j | x) of all values of each attribute, (batch, N_j)."""
        tables: list[Tensor] = self.predictor(self._features(x))
        return tables

    def _sample_codes(self, n: int, y: Tensor | None, temperature: float) -> tuple[Tensor, Tensor | None]:
        return self.prior.sample(n, temperature=temperature), self._rows(n, y)

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Elbo]:
        features, y = self._features(x), self._rows(len(x), y)
        self.counts += one_hot(y, self.attributes).sum(0)
        complete = self._imputed(features, y)
        bound = self._elbo(self._joint(features, complete), x, complete)
        return self._weighted(bound) - log_prob_known(self.predictor(features), y), bound

    def _imputed(self, features: Tensor, y: Tensor) -> Tensor:
        """Unknown entries drawn from q(y | x)."""
        with torch.no_grad():
            draws = [Categorical(logits=table).sample() for table in self.predictor(features)]
        return torch.where(y.isnan(), torch.stack(draws, dim=-1).to(y.dtype), y)

    def _completed(self, y: Tensor) -> Tensor:
        """Unknown entries drawn by the frequencies of values in training; without any, no random number is taken."""
        if not bool(y.isnan().any()):
            return y
        chances = (part.expand(len(y), -1) for part in self.counts.split(self.attributes))
        draws = torch.cat([torch.multinomial(part, 1) for part in chances], dim=-1)
        return torch.where(y.isnan(), draws.to(y.dtype), y)


class JointBaseline(Baseline):
    """log p(x, y_observed) ≥ E_q[log p(x | z) + log p(y_observed | z)] − KL(q(z | x, y) ‖ N(0, I)).

    Attributes are predicted from codes by p(y | z), [d, 64, 64, Σ N_j]. The posterior of images without known
    attributes is q(z | x), the encoder. Images are generated from codes of q(z | y), a product of experts, and
    predictions are made at the mean of q(z | x).

    Args:
        encoder: network x -> (batch, 2 d).
        decoder: network z (batch, d) -> (batch, c', H, W).
        num_latents: d.
        attributes: the number of values N_j of each.
        attribute_weight: weight of log p(y | z) in training; reported bounds have weight 1.
        settings: further arguments of `VAE`.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if it is less than 1, there is no attribute, or a weight is negative.

    Examples:
        >>> from adapters.models import JMVAE, TELBO
        >>> from adapters.models.baselines import JointBaseline
        >>> issubclass(TELBO, JointBaseline), issubclass(JMVAE, JointBaseline)
        (True, True)
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        num_latents: int,
        attributes: Sequence[int],
        attribute_weight: float = 50.0,
        **settings: Any,
    ):
        super().__init__(encoder, decoder, num_latents, attributes, **settings)
        self.experts = AttributeExperts(num_latents, self.attributes)
        self.predictor = AttributePredictor(num_latents, self.attributes)
        self.attribute_weight = nonnegative_of("attribute_weight", attribute_weight)

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Independent, Tensor | None]:
        """q(z | x, y_observed), and y."""
        y = self._rows(len(x), y)
        return self._posteriors(x, y)[1], y

    @torch.no_grad()
    def predict(self, x: Tensor) -> list[Tensor]:
        """log p(y_j | z) of all values of each attribute at the mean z of q(z | x), (batch, N_j)."""
        tables: list[Tensor] = self.predictor(self.encoder(x).mean)
        return tables

    def _sample_codes(self, n: int, y: Tensor | None, temperature: float) -> tuple[Tensor, Tensor | None]:
        posterior = self.experts(self._rows(n, y))
        return posterior.mean + temperature * (posterior.sample() - posterior.mean), None

    def _log_prior(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.prior.log_prob(z), log_prob_known(self.predictor(z), self._rows(len(z), y))

    def _posteriors(self, x: Tensor, y: Tensor) -> tuple[Independent, Independent]:
        """q(z | x) and q(z | x, y_observed)."""
        features = self._features(x)
        image, both = diagonal_gaussian(features), self._joint(features, y)
        known = (~y.isnan()).any(-1, keepdim=True)
        parts = [
            torch.where(known, getattr(both.base_dist, name), getattr(image.base_dist, name))
            for name in ("mean", "stddev")
        ]
        return image, Independent(Normal(*parts, validate_args=False), 1)


class TELBO(JointBaseline):
    """The triple bound: of log p(x, y), log p(x) and log p(y), each with its own posterior.

    Vedantam et al. 2018, arXiv:1705.10762, Eq. 6. q(z | y) is trained by the bound of log p(y) only, in which p(y | z)
    is fixed, as by the authors; they weight p(y | z) with 50 on digits. See `JointBaseline`.

    Examples:
        >>> import torch
        >>> from adapters.models import TELBO
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 2 * 4, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> model = TELBO(encoder, decoder, num_latents=4, attributes=[10])
        >>> model.sample(6, torch.tensor([7.0])).shape
        torch.Size([6, 1, 8, 8])
    """

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Elbo]:
        y = self._rows(len(x), y)
        image, both = self._posteriors(x, y)
        bound, unconditional = self._elbo(both, x, y), self._elbo(image, x, None)
        expert = self.experts(y)
        z = expert.rsample()
        fixed = {name: value.detach() for name, value in self.predictor.named_parameters()}
        known = log_prob_known(functional_call(self.predictor, fixed, (z,)), y)
        divergence = self._divergence(expert, z, self.prior.log_prob(z))
        imagined = Elbo(torch.zeros_like(known), divergence, known)
        return self._weighted(bound) + self._weighted(unconditional) + self._weighted(imagined), bound


class JMVAE(JointBaseline):
    """The bound of log p(x, y), with divergences of q(z | x) and q(z | y) from the joint posterior.

    Suzuki et al. 2017, arXiv:1611.01891, Eq. 4 ("JMVAE-kl"): the bound minus α [KL(q(z | x, y) ‖ q(z | x)) +
    KL(q(z | x, y) ‖ q(z | y))], with the second divergence only if an attribute is known. As in Vedantam et al. 2018,
    q(z | y) is a product of experts, for any subset of attributes. See `JointBaseline`.

    Args:
        encoder, decoder, num_latents, attributes, attribute_weight: as in `JointBaseline`.
        alpha: weight of the divergences, which alone train q(z | x) if attributes are known.
        settings: further arguments of `VAE`.

    Raises:
        TypeError, ValueError: as `JointBaseline`.

    Examples:
        >>> import torch
        >>> from adapters.models import JMVAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 2 * 4, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> model = JMVAE(encoder, decoder, num_latents=4, attributes=[10], alpha=0.5)
        >>> model.elbo(torch.rand(5, 1, 8, 8).round(), torch.full((5, 1), 7.0)).elbo.shape
        torch.Size([5])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        num_latents: int,
        attributes: Sequence[int],
        attribute_weight: float = 50.0,
        alpha: float = 1.0,
        **settings: Any,
    ):
        super().__init__(encoder, decoder, num_latents, attributes, attribute_weight, **settings)
        self.alpha = nonnegative_of("alpha", alpha)

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Elbo]:
        y = self._rows(len(x), y)
        image, both = self._posteriors(x, y)
        bound = self._elbo(both, x, y)
        known = (~y.isnan()).any(-1)
        apart = kl_divergence(both, image) + known * kl_divergence(both, self.experts(y))
        return self._weighted(bound) + self.alpha * apart, bound
