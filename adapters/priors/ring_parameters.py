"""The parameters of a ring prior, and the tensor ring over them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

import ringdist as rd
from adapters.priors.averaging import Reorderable
from adapters.priors.base import Attribute, Prior, check_option, integer_of, is_settled
from adapters.priors.ring_start import Order, Places, columns_of, initial_components, placed, places_of
from adapters.priors.ring_structure import (
    CoreKind,
    Factors,
    Nonnegative,
    Topology,
    checked_kind,
    core_of,
    mapped_to_nonnegative,
    raw_of,
    stacked,
    structure_of,
)
from ringdist.network.random import bond_ranks

NUM_COMPONENTS = 10  # of each dimension, as in the paper


class CachedRing(NamedTuple):
    """A ring without gradients, and the order and the parameters it was built from."""

    ring: rd.TensorRing
    columns: tuple[int, ...]
    values: list[Tensor]

    def is_made_of(self, columns: tuple[int, ...], parameters: Sequence[Tensor]) -> bool:
        """Whether the order and the parameters are still the same."""
        return self.columns == columns and all(
            old.dtype == new.dtype and old.device == new.device and torch.equal(old, new)
            for old, new in zip(self.values, parameters, strict=True)
        )


class RingParameters(Reorderable, Prior):
    """A `ringdist.TensorRing` over num_latents Gaussian mixtures, followed by attributes.

    The `state_dict` holds `means` and `log_stds` (num_latents, N), with an additional row for each continuous
    attribute; `order`, the columns in their order around the ring; and `cores.i`, the factors of the cores before the
    map that makes them non-negative. Factors of equal name and shape are stacked, columns in ascending order, into one
    parameter. A ring of dense cores of one shape has a single parameter (columns, N, m, m').
    """

    order: Tensor
    _cached: CachedRing | None = None  # of the last query without gradients

    def __init__(
        self,
        num_latents: int,
        attributes: Sequence[Attribute],
        num_components: int | None,
        rank: int | Sequence[int],
        order: Order,
        *,
        attribute_places: Places | None = None,
        core: CoreKind,
        private_components: bool,
        seed: int,
        topology: Topology | None,
        trainable: bool,
        nonnegative: Nonnegative,
        mean_range: tuple[float, float] | None,
        std: float | None,
    ):
        super().__init__(num_latents)
        self.topology: Topology = checked_kind(core, private_components, topology)
        check_option("nonnegative", nonnegative, get_args(Nonnegative))
        self.nonnegative: Nonnegative = nonnegative
        self.core, self.private_components = core, bool(private_components)
        self.attributes = tuple(attributes)
        categories = [None if kind == "continuous" else rd.Categorical(kind) for kind in self.attributes]
        self._categories = [*[None] * self.num_latents, *categories]
        self._gaussians = [k for k, v in enumerate(self._categories) if v is None]  # columns with means and log_stds
        size = NUM_COMPONENTS if num_components is None else integer_of("num_components", num_components)
        sizes = [size if v is None else v.num_components for v in self._categories]
        private = [self.private_components and v is None for v in self._categories]
        self._structure = structure_of(sizes, rank, self.topology, core, private)
        self._sizes, self._ranks = self._structure.sizes, self._structure.ranks
        self.num_components = self._sizes[0]
        if num_components not in (None, self.num_components):
            raise ValueError(
                f"num_components must be None or the number of hidden states, {self.num_components}, where each has "
                f"components of its own, found {num_components}"
            )
        generator = torch.Generator().manual_seed(integer_of("seed", seed, least=0))
        self.attribute_places, columns = self._places_and_order(attribute_places, order, generator)
        self._columns, self._layout = tuple(columns), self._structure.layout(columns)
        self.register_buffer("order", torch.tensor(self._columns))
        self._seen = id(self.order), self.order._version
        means, stds = initial_components(self.num_components, mean_range, std)
        self.means = nn.Parameter(means.repeat(len(self._gaussians), 1))
        self.log_stds = nn.Parameter(stds.log().repeat(len(self._gaussians), 1))
        raw = self._raw(self._structure.random(self._columns, generator))
        self.cores = nn.ParameterList(nn.Parameter(stack) for stack in raw)
        self.requires_grad_(trainable)

    def _places_and_order(
        self, places: Places | None, order: Order, generator: torch.Generator
    ) -> tuple[tuple[int, ...] | None, list[int]]:
        """The fixed positions of the attributes, if there are any, and the order of the columns around the ring."""
        count = len(self._categories)
        if places is None:
            return None, columns_of(order, count, generator)
        found = places_of(places, self.num_latents, len(self.attributes))
        latents = columns_of(order, self.num_latents, generator, label="latents, as attribute_places is given")
        return found, placed(latents, range(self.num_latents, count), found)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the bonds, as in `TensorRing.ranks`."""
        return self._ranks

    @property
    def one_rank(self) -> int | None:
        """The rank of all bonds (of all but the first in a train), or None if they differ."""
        rank = self._ranks[-1]
        return rank if self._ranks == tuple(bond_ranks(rank, len(self._ranks), self.topology)) else None

    def extra_repr(self) -> str:
        """The settings in the module's `repr`."""
        rank = f"{min(self._ranks)}..{max(self._ranks)}" if self.one_rank is None else self.one_rank
        attributes = f", attributes={list(self.attributes)}" if self.attributes else ""
        private = ", private_components=True" if self.private_components else ""
        return (
            f"num_latents={self.num_latents}{attributes}, num_components={self.num_components}, core={self.core}"
            f"{private}, rank={rank}, topology={self.topology}, nonnegative={self.nonnegative}"
        )

    # -------------------------------------------------------------------------------------------------------- ring

    @property
    def ring(self) -> rd.TensorRing:
        """The ring with the current parameters, built at each access; gradients flow, and values are not checked."""
        return self._ring(self.means, self.log_stds)

    def _query_ring(self) -> rd.TensorRing:
        """The ring. Without gradients the same ring, with its log Z, is returned until a parameter changes.

        The values are compared, which takes a few per cent of the time of log Z, because version counters miss writes
        through `.data` (as in weight averaging) and those of fused optimisers. On an accelerator the comparison would
        wait for the device, so the ring is always rebuilt there.
        """
        parameters = [self.means, self.log_stds, *iter(self.cores)]  # before 2.12 Dynamo cannot unpack the list itself
        if self.device.type != "cpu" or not is_settled(*parameters):
            return self.ring
        self._follow_order()
        if self._cached is None or not self._cached.is_made_of(self._columns, parameters):
            with torch.inference_mode(False), torch.no_grad():  # inference tensors could not be used outside that mode
                ring = self._ring(
                    self.means, self.log_stds, copy=True
                )  # log Z is remembered for a ring's own arrays only
                self._cached = CachedRing(ring, self._columns, [parameter.detach().clone() for parameter in parameters])
        return self._cached.ring

    def __getstate__(self) -> dict[str, Any]:
        """The state without the cached ring, which copies and pickles build themselves."""
        return {**super().__getstate__(), "_cached": None}

    def _ring(self, means: Tensor, log_stds: Tensor, *, copy: bool = False) -> rd.TensorRing:
        """The ring with these Gaussians and the current cores, or copies of them."""
        if means.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{type(self).__name__} calculates in float32 or float64, found parameters of {means.dtype}: keep them "
                "in float32, as Lightning's mixed precision does (bf16-mixed, 16-mixed)"
            )
        self._follow_order()
        factors: list[dict[str, Tensor]] = [{} for _ in self._sizes]
        for raw, ((name, _), columns) in zip(self.cores, self._layout.items(), strict=True):
            for k, factor in zip(columns, mapped_to_nonnegative(raw, self.nonnegative).unbind(0), strict=True):
                factors[k][name] = factor
        variables: list[Any] = list(self._categories)
        for k, mean, std in zip(self._gaussians, means.unbind(0), log_stds.exp().unbind(0), strict=True):
            variables[k] = rd.GaussianMixture(mean, std, validate=False)
        return rd.TensorRing([core_of(own) for own in factors], variables, self._columns, validate=False, copy=copy)

    # -------------------------------------------------------------------------------------------------- parameters

    def _arrange(self, columns: Sequence[int]) -> None:
        """Store the order as Python integers; `ValueError` if its cores have other shapes than the parameters."""
        layout = self._structure.layout(columns)
        sizes = [(len(members), *shape) for (_, shape), members in layout.items()]
        found = [tuple(parameter.shape) for parameter in self.cores]
        if sizes != found:
            raise ValueError(
                f"this order needs cores of shapes {sizes}, found {found}: a train with attributes keeps its order"
            )
        self._columns, self._layout = tuple(columns), layout

    def _follow_order(self) -> None:
        """Follow the buffer `order` if it was written to: weight averaging and `ddp` copy buffers in place."""
        if torch.compiler.is_compiling() or self.order.is_inference():
            return
        seen = id(self.order), self.order._version
        if seen != self._seen:
            columns = columns_of(self.order.tolist(), len(self._columns))
            if tuple(columns) != self._columns:
                self._check_reordering()
            self._arrange(columns)
            self._seen = seen

    def _raw(self, factors: Sequence[Factors]) -> list[Tensor]:
        """The values of the parameters for these factors, one dictionary per column."""
        return [raw_of(stack, self.nonnegative) for stack in stacked(factors, self._layout)]

    def _write(self, factors: Sequence[Factors], means: Tensor, log_stds: Tensor, columns: Sequence[int]) -> None:
        """New values for all parameters, in place; nothing is written if the order does not fit."""
        reordered = tuple(columns) != self._columns
        self._arrange(columns)
        if reordered:
            self._note_reordering()
        raw = self._raw(factors)
        with torch.no_grad():
            for parameter, value in zip([*self.cores, self.means, self.log_stds], [*raw, means, log_stds], strict=True):
                parameter.copy_(value)
            self.order.copy_(torch.tensor(columns))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Save the tensors, and in the metadata the map that makes cores non-negative."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {})
        metadata.setdefault(prefix[:-1], {})["nonnegative"] = self.nonnegative

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Load the order too; an invalid order, or another non-negative map, is reported like any other mismatch."""
        saved = local_metadata.get("nonnegative", self.nonnegative)
        if self.nonnegative != "abs" and "version" in local_metadata and "nonnegative" not in local_metadata:
            warnings.warn(
                f"{prefix}cores: saved by a version that did not note its nonnegative, which was 'abs' by default; "
                f"they are read as {self.nonnegative!r}",
                stacklevel=2,
            )
        if saved != self.nonnegative:
            lists[-1].append(f"{prefix}cores: saved with nonnegative={saved!r}, found {self.nonnegative!r} here")
            return
        order = state_dict.get(f"{prefix}order")
        if order is not None and order.shape == self.order.shape:
            try:
                self._arrange(columns_of(order.tolist(), len(order)))
            except (TypeError, ValueError) as error:
                lists[-1].append(f"{prefix}order: {error}")
                return
            self._is_outdated = False
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
