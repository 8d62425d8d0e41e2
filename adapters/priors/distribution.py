"""`PriorDistribution`: a prior seen as a distribution of `torch.distributions`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class Density(Protocol):
    """What the distribution asks of a prior."""

    num_latents: int
    has_rsample: bool

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (...)."""

    def sample(self, n: int) -> Tensor:
        """n samples, (n, num_latents)."""

    def rsample(self, n: int) -> Tensor:
        """n samples, (n, num_latents), through which gradients flow."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent."""

    def entropy(self) -> Tensor:
        """In nats."""


_OF_A_RING = "mode", "cdf"  # what a ring has a method for


class PriorDistribution(Distribution):
    """A prior seen as a distribution: event shape (d,), the prior's own methods behind it.

    Args:
        prior: the prior; its parameters stay live.
        batch_shape: of independent copies, as `expand` makes them.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the signature of torch.distributions)
    support = constraints.real_vector

    def __init__(self, prior: Density, batch_shape: Sequence[int] = ()):
        self.prior = prior
        # Values are not validated: NaN is no real number, but marginalises.
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
        """Samples of shape (*sample_shape, *batch_shape, d), through which gradients flow."""
        shape = (*sample_shape, *self.batch_shape)
        return self.prior.rsample(math.prod(shape)).reshape(*shape, self.prior.num_latents)

    @property
    def mean(self) -> Tensor:
        """E[z], (*batch_shape, d), exact; `NotImplementedError` behind a flow."""
        return self.prior.moments()[0].expand(self._extended_shape())

    @property
    def mode(self) -> Tensor:
        """Not available: see the error."""
        raise self._unavailable("mode")

    @property
    def variance(self) -> Tensor:
        """Of each latent, (*batch_shape, d), exact; `NotImplementedError` behind a flow."""
        return self.prior.moments()[1].expand(self._extended_shape())

    def cdf(self, value: Tensor) -> Tensor:
        """Not available: see the error."""
        raise self._unavailable("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """Not available: see the error."""
        raise self._unavailable("icdf")

    def entropy(self) -> Tensor:
        """In nats, batch_shape; exact for a Gaussian, else an estimate from 10 000 samples: `prior.entropy(n)`."""
        return self.prior.entropy().expand(self.batch_shape)

    def _unavailable(self, name: str) -> NotImplementedError:
        kind = type(self.prior).__name__
        hint = f"prior.ring has exact moments and conditionals, such as prior.ring.{name}" if name in _OF_A_RING else ""
        hint = hint if hint and hasattr(self.prior, "ring") else "estimate it from prior.sample(n) and prior.log_prob"
        return NotImplementedError(f"the distribution of a {kind} has no {name} of its own; {hint}")
