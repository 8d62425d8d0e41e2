"""What TRIP and JointTRIP share: a tensor ring over live parameters, and its re-initialisation from data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ringdist as rd
from adapters.priors.averaging import Rearranged
from adapters.priors.base import Attribute, Generator, Prior, check_option, full_precision, integer_of, is_settled
from adapters.priors.fitting import fit_gaussians, global_seed
from ringdist.network.random import bond_ranks

Order = Literal["random", "given"] | Sequence[int]
Topology = Literal["ring", "train"]
Nonnegative = Literal["abs", "softplus", "exp"]
Method = Literal["gmm", "em"]
NewOrder = Literal["mutual_information"]
Layout = dict[tuple[int, int, int], list[int]]  # from a core's shape to the columns that have it, both ascending
PSEUDOCOUNT = 1e-2  # rows: keeps EM from cores with entries of zero, which gradients could not leave again


class Kept(NamedTuple):
    """A ring without gradient, and what it was made of."""

    ring: rd.TensorRing
    columns: tuple[int, ...]
    values: list[Tensor]

    def is_made_of(self, columns: tuple[int, ...], parameters: Sequence[Tensor]) -> bool:
        """Whether it still is what order and parameters make."""
        return self.columns == columns and all(
            old.dtype == new.dtype and old.device == new.device and torch.equal(old, new)
            for old, new in zip(self.values, parameters, strict=True)
        )


class RingPrior(Rearranged, Prior):
    """A `ringdist.TensorRing` over num_latents Gaussian mixtures and, behind them, attributes.

    `state_dict` holds `means` and `log_stds` (num_latents, N), with a further row for each continuous attribute;
    `order`, the columns as they follow each other in the ring; and `cores.i`, the cores before the map that makes them
    non-negative, stacked (columns, N, m, m') for all columns of one core shape, ascending: one parameter for the whole
    ring where all shapes are equal.
    """

    order: Tensor
    _kept: Kept | None = None  # of the last query without gradient

    def __init__(
        self,
        num_latents: int,
        attributes: Sequence[Attribute],
        num_components: int,
        rank: int | Sequence[int],
        order: Order,
        *,
        seed: int,
        topology: Topology,
        trainable: bool,
        nonnegative: Nonnegative,
        mean_range: tuple[float, float],
        std: float | None,
    ):
        super().__init__(num_latents)
        check_option("topology", topology, get_args(Topology))
        check_option("nonnegative", nonnegative, get_args(Nonnegative))
        self.topology: Topology = topology
        self.nonnegative: Nonnegative = nonnegative
        self.num_components = integer_of("num_components", num_components)
        self.attributes = tuple(attributes)
        categories = [None if kind == "continuous" else rd.Categorical(kind) for kind in self.attributes]
        self._categories = [*[None] * self.num_latents, *categories]
        self._gaussians = [k for k, v in enumerate(self._categories) if v is None]  # columns with means and log_stds
        self._sizes = tuple(self.num_components if v is None else v.num_components for v in self._categories)
        self._ranks = tuple(bond_ranks(rank, len(self._sizes), topology))
        generator = torch.Generator().manual_seed(integer_of("seed", seed, least=0))
        self._columns = _columns(order, len(self._sizes), generator)
        self._layout = self._layout_of(self._columns)
        self.register_buffer("order", torch.tensor(self._columns))
        self._seen = id(self.order), self.order._version
        means, stds = _initial_components(self.num_components, mean_range, std)
        self.means = nn.Parameter(means.repeat(len(self._gaussians), 1))
        self.log_stds = nn.Parameter(stds.log().repeat(len(self._gaussians), 1))
        raw = self._raw(self._random_cores(self._columns, generator))
        self.cores = nn.ParameterList(nn.Parameter(stack) for stack in raw)
        self.requires_grad_(trainable)

    # ------------------------------------------------------------------------------------------------- parameters

    @property
    def ring(self) -> rd.TensorRing:
        """The ring over the live parameters, built anew; gradients flow, and values are not checked."""
        return self._ring(self.means, self.log_stds)

    def _query_ring(self) -> rd.TensorRing:
        """The ring; where no gradient is recorded, the same one until a parameter changes, and so is its log Z.

        The values themselves are compared, which takes a few per cent of the time of log Z: writes through `.data`, as
        averages of weights make them, and those of fused optimisers escape version counters. A comparison would wait
        for an accelerator, so there the ring is made anew.
        """
        parameters = [self.means, self.log_stds, *iter(self.cores)]  # before 2.12 Dynamo cannot unpack the list itself
        if self.device.type != "cpu" or not is_settled(*parameters):
            return self.ring
        self._follow_order()
        if self._kept is None or not self._kept.is_made_of(self._columns, parameters):
            with torch.inference_mode(False), torch.no_grad():  # tensors of inference mode would be of no use outside
                ring = self._ring(self.means, self.log_stds, copy=True)  # its own, so that it remembers its log Z
                self._kept = Kept(ring, self._columns, [parameter.detach().clone() for parameter in parameters])
        return self._kept.ring

    def __getstate__(self) -> dict[str, Any]:
        """All but the ring that is kept: copies and pickles make their own."""
        return {**super().__getstate__(), "_kept": None}

    def _ring(self, means: Tensor, log_stds: Tensor, *, copy: bool = False) -> rd.TensorRing:
        """The live cores, or copies of them, with these Gaussians."""
        if means.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{type(self).__name__} calculates in float32 or float64, found parameters of {means.dtype}: keep them "
                "in float32, as Lightning's mixed precision does (bf16-mixed, 16-mixed)"
            )
        self._follow_order()
        cores: list[Any] = [None] * len(self._sizes)
        for raw, columns in zip(self.cores, self._layout.values(), strict=True):
            for k, core in zip(columns, self._map(raw).unbind(0), strict=True):
                cores[k] = core
        variables: list[Any] = list(self._categories)
        for k, mean, std in zip(self._gaussians, means.unbind(0), log_stds.exp().unbind(0), strict=True):
            variables[k] = rd.GaussianMixture(mean, std, validate=False)
        return rd.TensorRing(cores, variables, self._columns, validate=False, copy=copy)

    def _layout_of(self, columns: Sequence[int]) -> Layout:
        """Which columns share a core shape if this is their order."""
        shapes: Layout = {}
        for j, k in enumerate(columns):
            shape = (self._sizes[k], self._ranks[j], self._ranks[(j + 1) % len(columns)])
            shapes.setdefault(shape, []).append(k)
        return {shape: sorted(shapes[shape]) for shape in sorted(shapes)}

    def _arrange(self, columns: Sequence[int]) -> None:
        """Remember the order as Python numbers; `ValueError` if the parameters have no place for its cores."""
        layout = self._layout_of(columns)
        sizes = [(len(members), *shape) for shape, members in layout.items()]
        found = [tuple(parameter.shape) for parameter in self.cores]
        if sizes != found:
            raise ValueError(
                f"this order needs cores of shapes {sizes}, found {found}: a train with attributes keeps its order"
            )
        self._columns, self._layout = tuple(columns), layout

    def _follow_order(self) -> None:
        """Arrange by the buffer where someone wrote to it: averages of models and `ddp` copy buffers in place."""
        if torch.compiler.is_compiling() or self.order.is_inference():
            return
        seen = id(self.order), self.order._version
        if seen != self._seen:
            columns = _columns(self.order.tolist(), len(self._sizes))
            if columns != self._columns:
                self._check_reordering()
            self._arrange(columns)
            self._seen = seen

    def _map(self, raw: Tensor) -> Tensor:
        """From any real numbers to the non-negative entries of cores."""
        match self.nonnegative:
            case "abs":
                return raw.abs()
            case "softplus":
                return F.softplus(raw)
        return raw.exp()

    def _inverse(self, core: Tensor) -> Tensor:
        """A solution of `_map(raw) = core`; zeros are taken as the smallest number where the map cannot reach them."""
        if self.nonnegative == "abs":
            return core
        core = core.clamp(min=torch.finfo(core.dtype).tiny)
        return core.log() if self.nonnegative == "exp" else core + (-(-core).expm1()).log()

    def _random_cores(self, columns: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Cores of exponential variates with mean 1 / (N m'): Z is near 1, and the bonds are told apart."""
        variables = [rd.Categorical(size) for size in self._sizes]
        ring = rd.TensorRing.random(variables, self._ranks, order=columns, rng=generator, xp=torch)
        return list(ring.cores)

    def _raw(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """The cores, one per column, as the values of the parameters."""
        return [self._inverse(torch.stack([cores[k] for k in columns])) for columns in self._layout.values()]

    def _write(self, cores: Sequence[Tensor], means: Tensor, log_stds: Tensor, columns: Sequence[int]) -> None:
        """New values for all parameters, in place; nothing is written if the order does not fit."""
        reordered = tuple(columns) != self._columns
        self._arrange(columns)
        if reordered:
            self._note_reordering()
        raw = self._raw(cores)
        with torch.no_grad():
            for parameter, value in zip([*self.cores, self.means, self.log_stds], [*raw, means, log_stds], strict=True):
                parameter.copy_(value)
            self.order.copy_(torch.tensor(columns))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Take over the order too; one that is no permutation is reported as a mismatch is."""
        order = state_dict.get(f"{prefix}order")
        if order is not None and order.shape == self.order.shape:
            try:
                self._arrange(_columns(order.tolist(), len(order)))
            except (TypeError, ValueError) as error:
                lists[-1].append(f"{prefix}order: {error}")
                return
            self._is_outdated = False
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)

    # ---------------------------------------------------------------------------------------------------- queries

    def _log_prob(self, z: Tensor) -> Tensor:
        return self._query_ring().log_prob(z)

    def _sample(self, n: int, generator: Generator) -> Tensor:
        return self._query_ring().sample(n, rng=generator)

    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        return self._query_ring().sample_given(z, rng=generator)

    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Components from the ring of their joint probabilities; attributes are marginalised."""
        ring = self._ring(self.means.detach(), self.log_stds.detach())
        chosen = rd.TensorRing(
            ring.cores, [rd.Categorical(m) for m in self._sizes], self._columns, validate=False, copy=False
        )
        with torch.no_grad():
            s = chosen.sample(n, rng=generator)[:, : self.num_latents].long()
        place = torch.arange(self.num_latents, device=s.device), s
        mean, std = self.means[place], self.log_stds[place].exp()
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        z = mean + std * noise
        rows = F.pad(z.detach(), (0, len(self._sizes) - self.num_latents), value=torch.nan)
        return z, ring.log_prob(rows)

    def _rsample(self, n: int, generator: Generator) -> Tensor:
        ring = self._query_ring()
        with torch.no_grad():
            z = ring.sample(n, rng=generator)
        z[:, self.num_latents :] = torch.nan  # attributes are marginalised
        return ring.pathwise(z)

    # ------------------------------------------------------------------------------------------- re-initialisation

    def _reinitialize(self, rows: Tensor, method: Method, order: NewOrder | None, max_epochs: int) -> None:
        """From rows (n, columns), float64; NaN only in attributes."""
        check_option("method", method, get_args(Method))
        if order is not None:
            check_option("order", order, get_args(NewOrder))
        fitted = set(range(self.num_latents)) | {k for k in self._gaussians if self._is_known(rows[:, k])}
        columns: Sequence[int] = self._columns
        if order is not None:
            columns = rd.ordering.mutual_information(rows.cpu().numpy(), self._families(), self.topology)
        with full_precision(rows):
            if method == "gmm":
                self._reinitialize_by_mixtures(rows, columns, fitted)
            else:
                self._reinitialize_by_em(rows, columns, fitted, integer_of("max_epochs", max_epochs))

    def _is_known(self, values: Tensor) -> bool:
        """Whether an attribute takes enough different values to place its components anew."""
        known = values[~values.isnan()]
        return known.unique().numel() >= max(2, self.num_components)

    def _families(self) -> list[Any]:
        """One variable per column, in NumPy, of the right family; the parameters do not matter."""
        return [rd.GaussianMixture([0.0], [1.0]) if v is None else v for v in self._categories]

    def _reinitialize_by_mixtures(self, rows: Tensor, columns: Sequence[int], fitted: Set[int]) -> None:
        """A 1-D mixture per real column, cores drawn anew (the paper's procedure)."""
        means, log_stds = (parameter.detach().clone() for parameter in (self.means, self.log_stds))
        for i, k in enumerate(self._gaussians):
            if k not in fitted:
                continue
            known = rows[~rows[:, k].isnan(), k : k + 1]
            fit = fit_gaussians(known, self.num_components, max_iter=100, init="kmeans", seed=global_seed())
            means[i], log_stds[i] = fit.means[:, 0], fit.log_stds[:, 0]
        self._write(self._random_cores(columns, torch.default_generator), means, log_stds, columns)

    def _reinitialize_by_em(self, rows: Tensor, columns: Sequence[int], fitted: Set[int], max_epochs: int) -> None:
        """Components at the codes' quantiles, cores near a mixture, then EM for everything."""
        data = rows.to(self.device, self.dtype)
        before = self._ring(self.means.detach(), self.log_stds.detach()).variables
        uniform = self._ranks == tuple(bond_ranks(self._ranks[-1], len(columns), self.topology))
        start = rd.initialize(
            data.cpu().numpy(),
            [rd.GaussianMixture if k in fitted else variable for k, variable in enumerate(before)],
            self._ranks[-1] if uniform else self._ranks,
            num_components=self.num_components,
            order=columns,
            topology=self.topology,
            method="mixture" if uniform else "quantile",
            rng=global_seed(),
            xp=torch,
            dtype=self.dtype,
            device=self.device,
        )
        for k, variable in enumerate(start.variables):
            if variable.num_components != self._sizes[k]:
                raise ValueError(
                    f"column {k}: {self._sizes[k]} components need as many different codes, "
                    f"found {variable.num_components}"
                )
        ring = rd.fit_em(start, data, max_epochs=max_epochs, pseudocount=PSEUDOCOUNT, rng=global_seed()).ring
        scale = (-ring.log_normalizer() / len(columns)).exp()  # puts Z at 1 without changing the distribution
        means, log_stds = torch.empty_like(self.means), torch.empty_like(self.log_stds)
        for i, k in enumerate(self._gaussians):
            arrays = ring.variables[k].arrays()
            means[i], log_stds[i] = arrays["means"], arrays["stds"].log()
        self._write([core * scale for core in ring.cores], means, log_stds, columns)


def _initial_components(n: int, mean_range: tuple[float, float], std: float | None) -> tuple[Tensor, Tensor]:
    """Means evenly spaced over their range, and standard deviations of a n-th of it unless given, (n,) each."""
    low, high = mean_range
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"mean_range must be two finite numbers in ascending order, found {mean_range}")
    std = (high - low) / n if std is None else std
    if not 0 < std < math.inf:
        raise ValueError(f"std must be positive and finite, found {std}")
    means = torch.linspace(low, high, n) if n > 1 else torch.tensor([(low + high) / 2])
    return means, torch.full((n,), std)


def _columns(order: Order, d: int, generator: torch.Generator | None = None) -> tuple[int, ...]:
    """The columns as they follow each other around the ring."""
    if isinstance(order, str):
        check_option("order", order, ("random", "given"))
        return tuple(range(d)) if order == "given" else tuple(torch.randperm(d, generator=generator).tolist())
    columns = [integer_of("an entry of order", k, least=0) for k in order]
    if sorted(columns) != list(range(d)):
        raise ValueError(f"order must be random, given or a permutation of the {d} columns, found {columns}")
    return tuple(columns)
