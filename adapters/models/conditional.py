"""Models of images and their attributes; the VAE whose prior holds both (paper section 4)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from adapters.models.attributes import accuracies, label_weights, log_prob_known, one_hot
from adapters.models.vae import VAE, Batch, Elbo
from adapters.priors import JointPrior, Prior
from adapters.priors.base import Attribute, attribute_rows, integer_of, is_readable, nonnegative_of

COMBINATIONS = 4096  # of attribute values, up to which all are tried


class AttributeVAE(VAE):
    """The base class of models of images x and attributes y (batch, a); NaN is an unknown attribute.

    `elbo`, `iwae`, `encode`, `decode`, `generate` and `reconstruct` accept attributes as y; None: all are unknown. If
    the decoder sees attributes, unknown ones are drawn anew in each call.

    Examples:
        >>> from adapters.models import CVAE, TELBO, AttributeVAE, ConditionalVAE
        >>> all(issubclass(model, AttributeVAE) for model in (ConditionalVAE, CVAE, TELBO))
        True
    """

    attributes: Sequence[Attribute]  # number of values of each, or "continuous"
    attribute_weight: float = 1.0  # of log p(y_observed | z) in training

    @abstractmethod
    def predict(self, x: Tensor) -> list[Tensor]:
        """log p(y_j | x) of all values of each attribute, (batch, N_j), for images (batch, C, H, W)."""

    def _validation_tables(self, x: Tensor) -> list[Tensor]:
        """What `predict` says, or what takes less time, for the accuracies in validation."""
        return self.predict(x)

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
        """n images (n, C, H, W) with attributes y, (a,) for all or (n, a); those that are NaN are free.

        Args:
            n: number of images.
            y: attributes; None: all are free.
            temperature: factor of the standard deviations of the Gaussians from which codes are drawn, not of
                attributes. Below 1 images are less varied than those of the model; see `Prior.sample`.

        Raises:
            TypeError: if y is not a tensor of real numbers.
            ValueError: if its shape does not fit, a value is out of its range, or the temperature is negative.
        """
        temperature = nonnegative_of("temperature", temperature)
        return self.generate(*self._sample_codes(integer_of("n", n, least=0), y, temperature))

    @abstractmethod
    def _sample_codes(self, n: int, y: Tensor | None, temperature: float) -> tuple[Tensor, Tensor | None]:
        """Codes (n, d) given attributes, and the attributes as `decode` is to see them."""

    def _rows(self, n: int, y: Tensor | None) -> Tensor:
        """y as (n, a) in the dtype that heads calculate in, NaN where nothing is known; errors as of `sample`."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        if y is None:
            return torch.full((n, len(self.attributes)), torch.nan, dtype=dtype, device=self.device)
        y = attribute_rows(y, self.attributes).to(self.device, dtype)
        y = y.expand(n, -1) if y.ndim == 1 else y
        if y.shape[:-1] != (n,):
            raise ValueError(f"y must have {n} rows, found shape {tuple(y.shape)}")
        return y

    def _weighted(self, bound: Elbo) -> Tensor:
        return super()._weighted(bound) + (1 - self.attribute_weight) * bound.attributes

    def _log_bound(self, stage: str, bound: Elbo, batch_size: int) -> None:
        super()._log_bound(stage, bound, batch_size)
        self._log_mean(f"{stage}_attributes", bound.attributes, batch_size)

    def _evaluate(self, stage: str, batch: Batch, num_samples: int) -> None:
        """Also what is predicted of known categorical attributes: log probabilities, and shares of right ones.

        In validation from codes alone, where `predict` would decode all combinations of values.
        """
        super()._evaluate(stage, batch, num_samples)
        x, y = batch
        categorical = [kind != "continuous" for kind in self.attributes]
        tables = self._validation_tables(x) if stage == "val" else self.predict(x)
        y = torch.where(torch.tensor(categorical, device=y.device), y, torch.nan)
        self._log_mean(f"{stage}_prediction", log_prob_known(tables, y), len(x))
        shares = accuracies(tables, y)
        for name in ("accuracy", *(f"accuracy_{j}" for j in range(len(tables)) if categorical[j])):
            self._log_mean(f"{stage}_{name}", *shares[name])


class ConditionalVAE(AttributeVAE):
    """VAE-TRIP: a VAE whose prior p(z, y) is a tensor ring over codes and attributes (paper Eq. 14).

    log p(x, y_observed) ≥ E_q[log p(x | z) + log p(z, y_observed) − log q(z | x)]. The ring sums over all values of
    unknown attributes, so an image without known attributes contributes the bound of log p(x). Without a conditional
    decoder, attributes depend on the image through its code only.

    With one, images depend on attributes too, p(x | z, y) p(z, y), and codes need not repeat what attributes say.
    Unknown attributes y' are drawn from the ring's p(y' | z, y_observed), for any subset:

        log p(x, y_observed) ≥ E_{q(z | x) p(y' | z, y_observed)}[log p(x | z, y) + log p(z, y_observed) − log q(z | x)]

    The draw does not see the image, so the bound is looser than with p(y' | x, z, y_observed). Gradients do not pass
    through it: those of encoder and ring omit how it depends on z and on the ring, that of the decoder is exact. If z
    and y are independent in the ring, this is the conditional VAE p(x | z, y) p(z) p(y).

    Args:
        encoder, decoder: as in `VAE`; a conditional decoder is a network (batch, d + Σ widths) of codes and attributes:
            one-hot with width N_j, a continuous one as its value with width 1.
        prior: over codes and attributes: a `JointTRIP`, or a `FlowPrior` over one.
        attribute_weight: weight of log p(y_observed | z) in training, 1 in the paper. A larger weight separates the
            codes of different attributes more. Reported bounds have weight 1.
        weight_per_label: whether the weight applies to the mean over rows with a known attribute instead of over all
            rows of a batch, so that its effect does not depend on the share of such rows.
        conditional_decoder: whether the decoder sees attributes.
        settings: further arguments of `VAE`.

    Raises:
        TypeError: if prior is not over codes and attributes.
        ValueError: if the weight is negative.

    Examples:
        >>> import torch
        >>> from adapters import JointTRIP
        >>> from adapters.models import ConditionalVAE
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> encoder, decoder = ConvEncoder((1, 8, 8), 2 * 4, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16))
        >>> model = ConditionalVAE(encoder, decoder, JointTRIP(4, attributes=[10, 3], num_components=5, rank=3))
        >>> model.sample(6, torch.tensor([7.0, torch.nan])).shape  # sevens, the second attribute is free
        torch.Size([6, 1, 8, 8])
        >>> [table.shape for table in model.predict(torch.rand(5, 1, 8, 8))]
        [torch.Size([5, 10]), torch.Size([5, 3])]

        A decoder of codes and attributes:

        >>> decoder = ConvDecoder(4 + 10 + 3, (1, 8, 8), (8, 16))
        >>> prior = JointTRIP(4, attributes=[10, 3], num_components=5, rank=3)
        >>> model = ConditionalVAE(encoder, decoder, prior, conditional_decoder=True)
        >>> model.elbo(torch.rand(5, 1, 8, 8).round(), torch.full((5, 2), torch.nan)).elbo.shape  # none is known
        torch.Size([5])
    """

    prior: JointPrior

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: JointPrior,
        attribute_weight: float = 1.0,
        weight_per_label: bool = False,
        conditional_decoder: bool = False,
        **settings: Any,
    ):
        if not isinstance(prior, JointPrior) or not prior.attributes:
            base = getattr(prior, "base", None)
            found = type(prior).__name__ + (f" over a {type(base).__name__}" if isinstance(base, Prior) else "")
            raise TypeError(f"prior must be a JointTRIP or a FlowPrior over one, found {found}")
        super().__init__(encoder, decoder, prior, **settings)
        self.attributes = prior.attributes
        self.attribute_weight = nonnegative_of("attribute_weight", attribute_weight)
        self.weight_per_label, self.conditional_decoder = weight_per_label, conditional_decoder

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Independent, Tensor | None]:
        """q(z | x) of images (batch, C, H, W), and y with one row each."""
        return self._posterior(x), None if y is None else self._rows(len(x), y)

    def predict(self, x: Tensor) -> list[Tensor]:
        """log p(y_j | z) of all values of each attribute at the mean code z of each image, (batch, N_j).

        Of a continuous attribute, of its components; see `JointTRIP.attribute_posterior`. NaN where the image is.

        With a conditional decoder log p(y_j | x, z), for which every combination of values is decoded for every image:
        p(y | x, z) ∝ p(x | z, y) p(y | z). If an attribute is continuous, or there are more than `COMBINATIONS`
        combinations, predictions are those from the code alone, which then need not tell the attributes.
        """
        return self._predicted(x, sees_images=self.conditional_decoder)

    def _validation_tables(self, x: Tensor) -> list[Tensor]:
        return self._predicted(x, sees_images=False)

    @torch.no_grad()
    def _predicted(self, x: Tensor, *, sees_images: bool) -> list[Tensor]:
        z = self.encoder(x).mean
        unknown = z.isnan().any(-1, keepdim=True)  # a ring would marginalise them
        z = z.masked_fill(unknown, 0.0)
        tables = self.prior.attribute_posterior(z, log=True)
        sizes = [kind for kind in self.attributes if kind != "continuous"]
        if sees_images and len(x) and len(sizes) == len(self.attributes) and math.prod(sizes) <= COMBINATIONS:
            joint = self._joint_posterior(x, z, sizes)
            others = [[axis for axis in range(1, joint.ndim) if axis != j + 1] for j in range(len(sizes))]
            tables = [joint.logsumexp(axes) if axes else joint for axes in others]
        return [table.masked_fill(unknown, torch.nan) for table in tables]

    def _joint_posterior(self, x: Tensor, z: Tensor, sizes: Sequence[int]) -> Tensor:
        """log p(y | x, z) of all combinations of values, (batch, N_1, N_2, ...)."""
        axes = [torch.arange(size, dtype=z.dtype, device=z.device) for size in sizes]
        grid = torch.cartesian_prod(*axes).reshape(-1, len(sizes))
        scores = []
        for pairs in torch.arange(len(x) * len(grid), device=z.device).split(self.max_rows):
            images, y = pairs.div(len(grid), rounding_mode="floor"), grid[pairs % len(grid)]
            codes = z[images]
            scores.append(self.decode(codes, y).log_prob(x[images]) + self._log_prior(codes, y)[1])
        return torch.cat(scores).reshape(len(x), -1).log_softmax(-1).reshape(len(x), *sizes)

    def decoder_inputs(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Codes (batch, d), and the attributes beside them if the decoder is conditional; unknown ones are drawn."""
        if not self.conditional_decoder:
            return z
        y = self._rows(len(z), y)
        if not is_readable(y) or bool(y.isnan().any()):
            usable = z.isfinite().all(-1, keepdim=True)  # no attributes follow from other codes
            with torch.no_grad():
                y = self.prior.sample_attributes(z.masked_fill(~usable, 0.0), y)
        return torch.cat([z, one_hot(y, self.attributes).to(z)], dim=-1)

    def _sample_codes(self, n: int, y: Tensor | None, temperature: float) -> tuple[Tensor, Tensor | None]:
        return self.prior.sample(n, y, temperature=temperature), y

    def _log_prior(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        return super()._log_prior(z, y) if y is None else self.prior.log_probs(z, y)

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Elbo]:
        bound = self.elbo(x, y)
        if not self.weight_per_label:
            return self._weighted(bound), bound
        return self._weighted(bound._replace(attributes=label_weights(y) * bound.attributes)), bound
