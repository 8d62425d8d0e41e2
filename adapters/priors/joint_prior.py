"""`JointPrior`: what priors over latents and attributes have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from adapters.priors.base import Prior, Rng, attribute_rows, is_readable


class JointPrior(Prior):
    """p(z, y): a distribution over latents z and attributes y, any of which may be unknown.

    Attributes are tensors (..., a), in a floating point dtype where some are NaN: unspecified, and marginalised. With
    no attributes given every method is that of the marginal p(z), so that this is a prior like any other.
    """

    @abstractmethod
    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(z, observed entries of y) in nats, (...)."""

    def log_probs(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) and log p(observed entries of y | z) in nats, (...) each, computed together.

        Args:
            z: (..., d) latent codes.
            y: (..., a) attributes.

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        known = attribute_rows(y, self.attributes)
        rows = torch.stack([known, torch.full_like(known, torch.nan)])
        joint, marginal = self.log_prob(z.expand(2, *z.shape), rows)
        return marginal, joint - marginal

    def log_prob_attributes(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(observed entries of y | z) in nats, (...).

        Raises:
            TypeError, ValueError: as `log_prob`; ValueError if p(z) is 0, as where an entry is infinite: nothing has a
                probability given that. Where values cannot be looked at, as while compiling, the result is NaN there.
        """
        marginal = self.log_prob(z)
        if is_readable(marginal) and bool((empty := marginal.reshape(-1) == -torch.inf).any()):
            raise ValueError(f"z must have a positive density, found 0 in row {int(empty.nonzero()[0])}")
        return self.log_prob(z, y) - marginal

    @abstractmethod
    def attribute_posterior(self, z: Tensor, *, log: bool = False) -> list[Tensor]:
        """p(y_i | z) of each attribute, (..., N_i), or the logarithms."""

    @abstractmethod
    def sample_attributes(self, z: Tensor, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """Attributes (..., a): the unknown entries of y drawn given its known ones and z (..., d)."""
