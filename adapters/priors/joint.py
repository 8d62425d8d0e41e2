"""JointTRIP: one tensor ring over latents and attributes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.priors.base import (
    Attribute,
    Rng,
    attribute_rows,
    check_option,
    full_precision,
    integer_of,
    nonnegative_of,
)
from adapters.priors.fitting import codes
from adapters.priors.joint_prior import JointPrior
from adapters.priors.ring_fit import Method
from adapters.priors.ring_prior import RingPrior
from adapters.priors.ring_start import NewOrder, Order, Places
from adapters.priors.ring_structure import CoreKind, Nonnegative, Topology
from ringdist.queries.posterior import component_posteriors


class JointTRIP(RingPrior, JointPrior):
    """p(z, y): a TRIP over d latents z and attributes y, any of which may be unknown (paper section 4).

    Attributes are tensors (..., a). An unknown attribute is NaN, which needs a floating point dtype, and is
    marginalised. A categorical attribute is an integer. A continuous attribute is a mixture of N Gaussians, as a latent
    is, with the same initial means, so it should be standardised; the paper has categorical attributes only. Without
    attributes every method is that of the marginal p(z), like any other prior.

    Args:
        num_latents: d.
        attributes: the number of values of each attribute, or "continuous". Column d + i of `ring` and `order` is
            attribute i.
        attribute_places: positions of the attributes among all columns around the ring: "spread" evenly between the
            latents, "end" after them, or the position of each in 0..d+a−1. `order` is then that of the latents alone,
            and re-initialisation keeps the positions. None: as in `order`.
        num_components, rank, order, seed, topology, trainable, core, private_components, nonnegative, mean_range, std:
            as in `TRIP`. Categorical attributes have an "emission" with private components too.

    Raises:
        TypeError: if a size is not an integer, or attributes are not a list.
        ValueError: if a size, attribute, order or option does not fit, or there is no attribute.

    Examples:
        >>> import torch
        >>> from adapters import JointTRIP
        >>> prior = JointTRIP(4, attributes=[10, "continuous"], num_components=5, rank=3)
        >>> y = torch.tensor([7.0, torch.nan])  # the second attribute is unknown
        >>> z = prior.sample(3, y)
        >>> z.shape, prior.log_prob(z, y.expand(3, 2)).shape, prior.log_prob(z).shape
        (torch.Size([3, 4]), torch.Size([3]), torch.Size([3]))
        >>> prior.attribute_posterior(z)[0].sum(-1)
        tensor([1.0000, 1.0000, 1.0000], grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        num_latents: int,
        attributes: Sequence[Attribute],
        num_components: int | None = None,
        rank: int | Sequence[int] = 20,
        order: Order = "random",
        seed: int = 0,
        topology: Topology | None = None,
        trainable: bool = True,
        *,
        core: CoreKind = "dense",
        private_components: bool = False,
        nonnegative: Nonnegative = "exp",
        mean_range: tuple[float, float] | None = None,
        std: float | None = None,
        attribute_places: Places | None = None,
    ):
        super().__init__(
            num_latents,
            _attributes(attributes),
            num_components,
            rank,
            order,
            attribute_places=attribute_places,
            core=core,
            private_components=private_components,
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
            TypeError: if z is not a floating point tensor, or y is not a tensor of real numbers.
            ValueError: if a last axis does not fit, or an attribute is outside its range.
        """
        rows = self._joined(self._checked(z), y)
        return self._log_density(rows)

    def attribute_posterior(self, z: Tensor, *, log: bool = False) -> list[Tensor]:
        """p(y_i | z) of each attribute: the probabilities of its values, (..., N_i), or their logarithms.

        For a continuous attribute they are the probabilities of its N components, whose `means` and `log_stds` are the
        rows after those of the latents. NaN entries of z are marginalised.

        Args:
            z: (..., d) latent codes.
            log: whether to return logarithms, which are finite also where probabilities underflow.

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        rows = self._joined(self._checked(z), None)
        columns = range(self.num_latents, rows.shape[-1])
        with full_precision(rows):
            parts = component_posteriors(self._query_ring(), rows.reshape(-1, rows.shape[-1]), columns, log=log)
        return [part.reshape(*rows.shape[:-1], part.shape[-1]) for part in parts]

    def sample_attributes(self, z: Tensor, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """Attributes (..., a): the unknown entries of y, drawn given its known ones and z (..., d).

        NaN entries of z are marginalised.

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        return self._completed(z, y, rng)[..., self.num_latents :]

    def sample(self, n: int, y: Tensor | None = None, *, temperature: float = 1.0, rng: Rng = None) -> Tensor:
        """n latent codes (n, d) given attributes y, (a,) for all or (n, a), without gradient; see `Prior.sample`.

        Components are drawn given the attributes; the temperature scales standard deviations of latents only.

        Raises:
            TypeError, ValueError: as `log_prob` and `Prior.sample`.
            ValueError: if the attributes have zero mass.
        """
        return super().sample(n, y, temperature=temperature, rng=rng)

    def rsample(self, n: int, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """As `sample` at temperature 1, with pathwise gradients; unknown attributes are marginalised.

        Raises:
            TypeError, ValueError: as `sample`.
        """
        if y is None:
            return super().rsample(n, rng=rng)[:, : self.num_latents]
        rows = self._rows_given(n, y)
        with full_precision(rows):
            ring = self._query_ring()
            with torch.no_grad():
                drawn = ring.sample_given(rows, rng=self._generator(rng))
            drawn[:, self.num_latents :] = rows[:, self.num_latents :]  # unknown attributes stay NaN: marginalised
            return ring.pathwise(drawn, rows)[:, : self.num_latents]

    def sample_given(self, z: Tensor, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """The NaN entries of z (..., d), drawn given its observed ones and the known entries of y (..., a).

        Raises:
            TypeError, ValueError: as `sample`.
        """
        return self._completed(z, y, rng)[..., : self.num_latents]

    def reinitialize(
        self,
        z: Tensor,
        y: Tensor | None = None,
        method: Method = "gmm",
        order: NewOrder | None = None,
        *,
        max_epochs: int = 10,
        attribute_weight: float = 1.0,
    ) -> None:
        """Fit the prior to latent codes z (n, d) and attributes y (n, a), in place; see `TRIP.reinitialize`.

        Many latents outweigh a few attributes, so that clusters may mix the values of those that codes say little of.
        With private components the mixture (method "mixture") is that of codes beside which each known categorical
        attribute was observed `attribute_weight` times, independently.

        The components of a continuous attribute with fewer different known values than components are not
        re-initialised: EM starts from the current ones, and the paper's procedure keeps them. A mixture with private
        components needs two different values.

        Raises:
            TypeError, ValueError: as `TRIP.reinitialize` and `log_prob`.
            ValueError: if the new order of a train would change the shape of a core, or an attribute weight is not 1
                where there is no such mixture or no categorical attribute. The prior is then unchanged.
        """
        z = codes(z, self.num_latents, least=max(2, self.num_components))
        self.check_attribute_weight(attribute_weight, method, has_attributes=y is not None)
        self._reinitialize(self._joined(z, y), method, order, max_epochs, attribute_weight)

    def check_attribute_weight(self, weight: float, method: str, *, has_attributes: bool) -> None:
        """Raise `TypeError` or `ValueError` unless `reinitialize` can give attributes this weight."""
        nonnegative_of("attribute_weight", weight)
        if weight == 1:
            return
        if not (method == "mixture" and self.private_components):
            raise ValueError(f"attribute_weight is of method mixture with private components, found {weight}")
        if not has_attributes or all(kind == "continuous" for kind in self.attributes):
            raise ValueError(f"attribute_weight is of known categorical attributes, found {weight} and none of them")

    def _completed(self, z: Tensor, y: Tensor | None, rng: Rng) -> Tensor:
        """Latents and attributes side by side, (..., d + a), the NaN entries of both drawn given the others."""
        rows = self._joined(self._checked(z), y)
        with torch.no_grad(), full_precision(rows):
            return self._query_ring().sample_given(rows, rng=self._generator(rng))

    def _rows_given(self, n: int, y: Tensor) -> Tensor:
        """n rows of unknown latents with the attributes y beside them, (n, d + a)."""
        z = torch.full((integer_of("n", n, least=0), self.num_latents), torch.nan, dtype=self.dtype, device=self.device)
        if isinstance(y, Tensor) and y.ndim == 1:
            y = y.expand(n, -1)
        return self._joined(z, y)

    def _joined(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Latents and attributes side by side, (..., d + a), in the dtype of z."""
        if y is None:
            return torch.cat([z, z.new_full((*z.shape[:-1], len(self.attributes)), torch.nan)], dim=-1)
        y = attribute_rows(y, self.attributes).to(z)
        if y.shape[:-1] != z.shape[:-1]:
            raise ValueError(f"y must have as many rows as z, {tuple(z.shape[:-1])}, found {tuple(y.shape[:-1])}")
        return torch.cat([z, y], dim=-1)


def _attributes(kinds: Sequence[Attribute]) -> list[Attribute]:
    if isinstance(kinds, str) or not isinstance(kinds, Sequence):
        raise TypeError(f"attributes must be a list with one entry for each, found {kinds!r}")
    if not kinds:
        raise ValueError("there must be at least one attribute; TRIP is the prior without")
    return [_attribute(kind) for kind in kinds]


def _attribute(kind: Attribute) -> Attribute:
    """The kind if it is valid; otherwise a `TypeError` or `ValueError` naming the rule."""
    if isinstance(kind, str):
        check_option("an attribute that is not a number of values", kind, ("continuous",))
        return kind
    return integer_of("the size of an attribute", kind)
