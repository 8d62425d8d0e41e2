"""JointTRIP: one tensor ring over latents and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from adapters.priors.base import Rng, full_precision, real_rows, whole
from adapters.priors.fitting import codes
from adapters.priors.ring_prior import Method, Nonnegative, Order, RingPrior, Topology


class JointTRIP(RingPrior):
    """p(z, y): a TRIP over d latents z and categorical attributes y, any of which may be unknown (paper section 4).

    Attributes are tensors (..., a) of whole numbers, in a floating point dtype where some are NaN: unspecified, and
    marginalised. With no attributes given every method is that of the marginal p(z), so that this is a prior like any
    other.

    Args:
        num_latents: d.
        attributes: the number of values of each attribute. Column d + i of `ring` and `order` is attribute i.
        num_components, rank, order, seed, topology, trainable, nonnegative, mean_range, std: as in `TRIP`.

    Raises:
        TypeError: if a size is not a whole number.
        ValueError: if a size, order or option does not fit.
    """

    def __init__(
        self,
        num_latents: int,
        attributes: Sequence[int],
        num_components: int = 10,
        rank: int | Sequence[int] = 20,
        order: Order = "random",
        seed: int = 0,
        topology: Topology = "ring",
        trainable: bool = True,
        *,
        nonnegative: Nonnegative = "abs",
        mean_range: tuple[float, float] = (-5.0, 5.0),
        std: float | None = None,
    ):
        super().__init__(
            num_latents,
            [whole("the size of an attribute", size) for size in attributes],
            num_components,
            rank,
            order,
            seed=seed,
            topology=topology,
            trainable=trainable,
            nonnegative=nonnegative,
            mean_range=mean_range,
            std=std,
        )

    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(z, observed entries of y) in nats, (...); NaN entries of z are marginalised too.

        Args:
            z: (..., d) latent codes.
            y: (..., a) attributes; None: none is known.

        Raises:
            TypeError: if z is not a floating point tensor, or y no tensor of real numbers.
            ValueError: if a last axis does not fit, or an attribute is outside its range.
        """
        rows = self._joined(self._checked(z), y)
        with full_precision(rows):
            return self._log_prob(rows)

    def log_prob_attributes(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(observed entries of y | z) in nats, (...).

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        return self.log_prob(z, y) - self.log_prob(z)

    def sample(self, n: int, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """n latent codes (n, d) given attributes y, (a,) for all or (n, a), without gradient.

        Raises:
            TypeError, ValueError: as `log_prob`; ValueError if y has no mass.
        """
        if y is None:
            return super().sample(n, rng=rng)[:, : self.num_latents]
        rows = self._open_rows(n, y)
        with torch.no_grad(), full_precision(rows):
            return self.ring.sample_given(rows, rng=self._generator(rng))[:, : self.num_latents]

    def rsample(self, n: int, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """As `sample`, with pathwise gradients; attributes that are not given are marginalised.

        Raises:
            TypeError, ValueError: as `sample`.
        """
        if y is None:
            return super().rsample(n, rng=rng)[:, : self.num_latents]
        rows = self._open_rows(n, y)
        with full_precision(rows):
            ring = self.ring
            with torch.no_grad():
                drawn = ring.sample_given(rows, rng=self._generator(rng))
            drawn[:, self.num_latents :] = rows[:, self.num_latents :]  # attributes that are not given are marginalised
            return ring.pathwise(drawn, rows)[:, : self.num_latents]

    def sample_given(self, z: Tensor, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """The NaN entries of z (..., d) drawn given its observed ones and those of y (..., a).

        Raises:
            TypeError, ValueError: as `sample`.
        """
        rows = self._joined(self._checked(z), y)
        with torch.no_grad(), full_precision(rows):
            return self.ring.sample_given(rows, rng=self._generator(rng))[..., : self.num_latents]

    def reinitialize(
        self,
        z: Tensor,
        y: Tensor | None = None,
        *,
        method: Method = "gmm",
        order: Literal["mutual_information"] | None = None,
        max_epochs: int = 10,
    ) -> None:
        """Fit to latent codes z (n, d) and attributes y (n, a) anew, in place; see `TRIP.reinitialize`.

        Raises:
            TypeError, ValueError: as `TRIP.reinitialize` and `log_prob`; ValueError if a train would have to change
                the shape of a core for its new order. The prior is then as it was.
        """
        z = codes(z, self.num_latents, least=max(2, self.num_components))
        self._reinitialize(self._joined(z, y), method, order, max_epochs)

    def _open_rows(self, n: int, y: Tensor) -> Tensor:
        """n rows of unknown latents with the attributes beside them."""
        z = torch.full((whole("n", n, least=0), self.num_latents), torch.nan, dtype=self.dtype, device=self.device)
        if isinstance(y, Tensor) and y.ndim == 1:
            y = y.expand(n, -1)
        return self._joined(z, y)

    def _joined(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Latents and attributes side by side, (..., d + a), in the dtype of z."""
        sizes = self._sizes[self.num_latents :]
        if y is None:
            return torch.cat([z, z.new_full((*z.shape[:-1], len(sizes)), torch.nan)], dim=-1)
        if isinstance(y, Tensor) and not y.is_floating_point() and not y.is_complex():
            y = y.to(z.dtype)
        y = real_rows("y", y, len(sizes)).to(z)
        if y.shape[:-1] != z.shape[:-1]:
            raise ValueError(f"y must have as many rows as z, {tuple(z.shape[:-1])}, found {tuple(y.shape[:-1])}")
        if not torch.compiler.is_compiling():
            self._check_attributes(y.reshape(-1, len(sizes)))
        return torch.cat([z, y], dim=-1)

    def _check_attributes(self, y: Tensor) -> None:
        """`ValueError` naming row and column unless every attribute is NaN or one of its values."""
        for i, variable in enumerate(self._attributes):
            inside = variable.in_support(y[:, i])
            if not bool(inside.all()):
                row = int((~inside).nonzero()[0, 0])
                raise ValueError(
                    f"attribute {i} takes whole numbers 0..{variable.num_components - 1}, "
                    f"found {y[row, i].item():g} in row {row}"
                )
