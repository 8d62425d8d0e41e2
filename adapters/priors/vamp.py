"""The VampPrior: a mixture of the encoder's posteriors at learned pseudo-inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from adapters.priors.base import Prior, integer_of
from adapters.priors.mixture import DiagonalMixture, MixturePrior

Encoder = Callable[[Tensor], Independent]


class PseudoInputs(Prior):
    """The base class of priors that consist of an encoder's posteriors at learned pseudo-inputs u_k.

    The encoder is not a submodule: the prior's parameters and `state_dict` do not include those of the encoder, but
    gradients flow to them. Arguments and errors are those of `VampPrior`.
    """

    def __init__(
        self,
        encoder: Encoder,
        input_shape: Sequence[int],
        num_latents: int,
        num_pseudo_inputs: int = 500,
        *,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        trainable: bool = True,
        seed: int = 0,
    ):
        super().__init__(num_latents)
        if not callable(encoder):
            raise TypeError(f"encoder must be callable, found {type(encoder).__name__}")
        if bounds is not None and not -math.inf < bounds[0] < bounds[1] < math.inf:
            raise ValueError(f"bounds must be two finite numbers in ascending order, found {bounds}")
        self._encoder = (encoder,)  # in a tuple, because a module as an attribute would become a submodule
        self.bounds = bounds
        if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
            raise TypeError(f"input_shape must be a sequence such as (1, 28, 28), found {input_shape!r}")
        shape = (
            integer_of("num_pseudo_inputs", num_pseudo_inputs),
            *(integer_of("input_shape", n) for n in input_shape),
        )
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(integer_of("seed", seed, least=0)))
        self.num_pseudo_inputs = shape[0]
        self.raw_inputs = nn.Parameter(noise, requires_grad=trainable)

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        return self._encoder[0]

    @property
    def is_learned(self) -> bool:
        """Whether pseudo-inputs or encoder are learned; an encoder that is not a module is assumed to be."""
        if super().is_learned or not isinstance(self.encoder, nn.Module):
            return True
        return any(parameter.requires_grad for parameter in self.encoder.parameters())

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (K, *input_shape), within the bounds."""
        if self.bounds is None:
            return self.raw_inputs
        low, high = self.bounds
        return low + (high - low) * self.raw_inputs.sigmoid()

    def posteriors(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (K, d) of the encoder's current posteriors at the pseudo-inputs.

        Raises:
            TypeError: if the encoder does not return `Independent(Normal)`.
            ValueError: if its result does not have event shape (d,).
        """
        inputs = self.pseudo_inputs
        if isinstance(self.encoder, nn.Module):  # it may have another dtype than the prior
            inputs = inputs.to(next(self.encoder.parameters(), inputs).dtype)
        posterior = self.encoder(inputs)
        if not (isinstance(posterior, Independent) and isinstance(posterior.base_dist, Normal)):
            raise TypeError(f"the encoder must return Independent(Normal), found {type(posterior).__name__}")
        if posterior.event_shape != (self.num_latents,):
            raise ValueError(
                f"the encoder must return event shape ({self.num_latents},), found {tuple(posterior.event_shape)}"
            )
        means, stds = (t.to(self.dtype) for t in (posterior.base_dist.loc, posterior.base_dist.scale))
        return means, stds


class VampPrior(MixturePrior, PseudoInputs):
    """p(z) = 1/K Σ_k q(z | u_k), u_k learned pseudo-inputs (Tomczak and Welling 2018, arXiv:1705.07120, Eq. 9).

    The encoder is not a submodule: the prior's parameters and `state_dict` do not include those of the encoder, but
    gradients flow to them.

    Args:
        encoder: from inputs (K, *input_shape) to `Independent(Normal(mean, std), 1)` of event shape (d,).
        input_shape: of one input, e.g. (1, 28, 28).
        num_latents: d.
        num_pseudo_inputs: K.
        bounds: range of the inputs, to which a sigmoid restricts u_k; None if inputs are unbounded.
        trainable: whether the pseudo-inputs are learned.
        seed: of the pseudo-inputs.

    Raises:
        TypeError: if the encoder is not callable or does not return `Independent(Normal)`, or a size is not an integer.
        ValueError: if its result does not have event shape (d,), bounds are not in ascending order, or a size is less
            than 1.

    Examples:
        >>> import torch
        >>> from adapters import VampPrior
        >>> from adapters.networks import GaussianEncoder
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2 * 4))
        >>> prior = VampPrior(GaussianEncoder(network), (1, 8, 8), num_latents=4, num_pseudo_inputs=20)
        >>> prior.sample(3).shape, prior.pseudo_inputs.shape
        (torch.Size([3, 4]), torch.Size([20, 1, 8, 8]))
        >>> list(prior.state_dict())
        ['raw_inputs']
    """

    def mixture(self) -> DiagonalMixture:
        """The encoder's current posteriors at the pseudo-inputs, with equal weights."""
        means, stds = self.posteriors()
        return DiagonalMixture(means.new_full((means.shape[0],), -math.log(means.shape[0])), means, stds)
