"""`PriorDistribution`: a prior as a distribution of `torch.distributions`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class Density(Protocol):
    """The methods of a prior that the distribution calls."""

    num_latents: int
    has_rsample: bool

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (...)."""

    def sample(self, n: int) -> Tensor:
        """n samples, (n, num_latents)."""

    def rsample(self, n: int) -> Tensor:
        """n samples, (n, num_latents), with pathwise gradients."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent, (num_latents,) each."""

    def entropy(self) -> Tensor:
        """The entropy in nats, a scalar."""


_RING_METHODS = "mode", "cdf"  # methods of a TensorRing that a prior with a ring can be asked for instead


class PriorDistribution(Distribution):
    """A prior as a `torch.distributions.Distribution` with event shape (d,), whose methods call those of the prior.

    Args:
        prior: the prior, whose parameters are used as they are at each call.
        batch_shape: shape of independent copies, as `expand` returns them.

    Examples:
        >>> import torch
        >>> from adapters import GaussianPrior
        >>> distribution = GaussianPrior(2)()
        >>> distribution
        PriorDistribution()
        >>> distribution.event_shape, distribution.sample((5, 3)).shape
        (torch.Size([2]), torch.Size([5, 3, 2]))
        >>> distribution.log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the signature of torch.distributions)
    support = constraints.real_vector

    def __init__(self, prior: Density, batch_shape: Sequence[int] = ()):
        self.prior = prior
        # Values are not validated: NaN is outside the support, but means that an entry is marginalised.
        super().__init__(torch.Size(batch_shape), torch.Size((prior.num_latents,)), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override, unused-ignore]
        """Whether `rsample` is differentiable."""
        return self.prior.has_rsample

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """The distribution of independent copies."""
        return type(self)(self.prior, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value); NaN entries are marginalised."""
        log_prob = self.prior.log_prob(value)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Samples of shape (*sample_shape, *batch_shape, d), without gradient."""
        shape = (*sample_shape, *self.batch_shape)
        return self.prior.sample(math.prod(shape)).reshape(*shape, self.prior.num_latents)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Samples of shape (*sample_shape, *batch_shape, d), with pathwise gradients."""
        shape = (*sample_shape, *self.batch_shape)
        return self.prior.rsample(math.prod(shape)).reshape(*shape, self.prior.num_latents)

    @property
    def mean(self) -> Tensor:
        """E[z], (*batch_shape, d), exact; `NotImplementedError` for a flow."""
        return self.prior.moments()[0].expand(self._extended_shape())

    @property
    def mode(self) -> Tensor:
        """Not available: see the error."""
        raise self._unavailable("mode")

    @property
    def variance(self) -> Tensor:
        """The variance of each latent, (*batch_shape, d), exact; `NotImplementedError` for a flow."""
        return self.prior.moments()[1].expand(self._extended_shape())

    def cdf(self, value: Tensor) -> Tensor:
        """Not available: see the error."""
        raise self._unavailable("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """Not available: see the error."""
        raise self._unavailable("icdf")

    def entropy(self) -> Tensor:
        """The entropy in nats, of shape batch_shape; see `Prior.entropy`."""
        return self.prior.entropy().expand(self.batch_shape)

    def _unavailable(self, name: str) -> NotImplementedError:
        kind = type(self.prior).__name__
        hint = "estimate it from prior.sample(n) and prior.log_prob"
        if name in _RING_METHODS and hasattr(self.prior, "ring"):
            hint = f"prior.ring has exact moments and conditionals, such as prior.ring.{name}"
        return NotImplementedError(f"the distribution of a {kind} has no {name} of its own; {hint}")
