"""`RingPrior`, the base class of TRIP and JointTRIP: queries of the tensor ring, and its re-initialisation."""

from __future__ import annotations

from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

import ringdist as rd
from adapters.priors.base import Generator, check_option, full_precision, integer_of
from adapters.priors.ring_fit import Method, by_em, by_gaussians, by_mixture
from adapters.priors.ring_parameters import RingParameters
from adapters.priors.ring_start import NewOrder, order_by_dependence
from ringdist.queries.posterior import component_posteriors


class RingPrior(RingParameters):
    """A `ringdist.TensorRing` over num_latents Gaussian mixtures, followed by attributes; see `RingParameters`."""

    # ---------------------------------------------------------------------------------------------------- queries

    def _log_prob(self, z: Tensor) -> Tensor:
        return self._query_ring().log_prob(z)

    def _sample(self, n: int, y: Tensor | None, temperature: float, generator: Generator) -> Tensor:
        rows = None if y is None else self._rows_given(n, y)
        if temperature != 1:
            return self._emit(self._components(n, rows, generator), temperature, generator)
        ring = self._query_ring()
        z = ring.sample(n, rng=generator) if rows is None else ring.sample_given(rows, rng=generator)
        return z[:, : self.num_latents]

    def _rows_given(self, n: int, y: Tensor) -> Tensor:
        """n rows of unknown latents with the attributes beside them, for priors with attributes."""
        raise NotImplementedError(f"{type(self).__name__} has no attributes")

    def _components(self, n: int, rows: Tensor | None, generator: Generator) -> Tensor:
        """The components of n samples, (n, num_latents), given the attributes in the rows, if there are any."""
        sizes = self._sizes[: self.num_latents]
        ring = self._ring(self.means.detach(), self.log_stds.detach())
        variables = [*map(rd.Categorical, sizes), *ring.variables[self.num_latents :]]
        indices = rd.TensorRing(ring.cores, variables, self._columns, validate=False, copy=False)
        with torch.no_grad():
            s = indices.sample(n, rng=generator) if rows is None else indices.sample_given(rows, rng=generator)
        return s[:, : self.num_latents].long()

    def _emit(self, s: Tensor, temperature: float, generator: Generator) -> Tensor:
        """Codes (n, num_latents) drawn from these components."""
        place = torch.arange(self.num_latents, device=s.device), s
        mean, std = self.means[place], self.log_stds[place].exp()
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + temperature * std * noise

    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        return self._query_ring().sample_given(z, rng=generator)

    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Components are drawn from the ring over their indices; attributes are marginalised."""
        z = self._emit(self._components(n, None, generator), 1.0, generator)
        rows = F.pad(z.detach(), (0, len(self._sizes) - self.num_latents), value=torch.nan)
        return z, self._ring(self.means.detach(), self.log_stds.detach()).log_prob(rows)

    def _rsample(self, n: int, generator: Generator) -> Tensor:
        ring = self._query_ring()
        with torch.no_grad():
            z = ring.sample(n, rng=generator)
        z[:, self.num_latents :] = torch.nan  # attributes are marginalised
        return ring.pathwise(z)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent, (d,) each, exact and differentiable."""
        ring, columns = self._query_ring(), range(self.num_latents)
        missing = torch.full((1, len(self._sizes)), torch.nan, dtype=self.dtype, device=self.device)
        with full_precision(self.device):
            weights = torch.cat(component_posteriors(ring, missing, columns))  # (d, N)
            means, stds = self.means[: self.num_latents], self.log_stds[: self.num_latents].exp()
            mean = (weights * means).sum(1)
            return mean, (weights * (stds**2 + (means - mean[:, None]) ** 2)).sum(1)

    # ------------------------------------------------------------------------------------------- re-initialisation

    def _reinitialize(
        self, rows: Tensor, method: Method, order: NewOrder | None, max_epochs: int, attribute_weight: float = 1.0
    ) -> None:
        """Fit the parameters to rows (n, columns) in float64, with NaN in attributes only."""
        check_option("method", method, get_args(Method))
        if order is not None:
            check_option("order", order, get_args(NewOrder))
        max_epochs = integer_of("max_epochs", max_epochs)
        columns = list(self._columns)
        if order is not None:
            columns = order_by_dependence(rows.cpu().numpy(), self._families(), self.topology, self.attribute_places)
        with full_precision(rows):
            match method:
                case "gmm":
                    new = by_gaussians(self, rows, columns)
                case "em":
                    new = by_em(self, rows, columns, max_epochs)
                case _:
                    new = by_mixture(self, rows, columns, attribute_weight)
            self._write(*new, columns)

    def _families(self) -> list[Any]:
        """One NumPy variable of each column's family, with arbitrary parameters."""
        return [rd.GaussianMixture([0.0], [1.0]) if v is None else v for v in self._categories]
