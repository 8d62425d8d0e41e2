"""`JointPrior`, the base class of priors over latents and attributes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from adapters.priors.base import Prior, Rng, attribute_rows, is_readable


class JointPrior(Prior):
    """p(z, y): a distribution over latents z and attributes y, any of which may be unknown.

    Attributes are tensors (..., a). An unknown attribute is NaN, which needs a floating point dtype, and is
    marginalised. Without attributes every method is that of the marginal p(z), like any other prior.

    Examples:
        >>> import torch
        >>> from adapters import FlowPrior, JointPrior, JointTRIP
        >>> prior = FlowPrior(JointTRIP(3, attributes=[2], num_components=4, rank=2))
        >>> isinstance(prior, JointPrior)
        True
        >>> z, y = torch.zeros(1, 3), torch.tensor([[1.0]])
        >>> marginal, conditional = prior.log_probs(z, y)
        >>> torch.allclose(marginal + conditional, prior.log_prob(z, y), atol=1e-5)
        True
    """

    @abstractmethod
    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(z, observed entries of y) in nats, (...), of z (..., d) and y (..., a)."""

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
            TypeError, ValueError: as `log_prob`.
            ValueError: if p(z) is 0, as where an entry is infinite: conditional probabilities are then undefined. The
                result is NaN instead where values cannot be read, as while compiling.
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
        """Attributes (..., a): the unknown entries of y, drawn given its known ones and z (..., d)."""
