"""The cores of a ring prior: the shapes of their factors, and the map that keeps them non-negative."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

import ringdist as rd
from adapters.priors.base import check_option
from ringdist.network.random import bond_ranks

Topology = Literal["ring", "train"]
CoreKind = Literal["dense", "cp", "switching"]
Nonnegative = Literal["abs", "softplus", "exp"]
Shape = tuple[int, ...]
SWITCH = ("stay", "leave", "enter")  # the factors of a transition of a switching core
STAYING = 0.1  # the mean of what stays in a random core, whose states are otherwise drawn independently
Factors = Mapping[str, Tensor]  # of one core, by the names of `Core.arrays()`
Layout = dict[tuple[str, Shape], list[int]]  # from a factor's name and shape to the columns that have it, ascending


@dataclass(frozen=True)
class Structure:
    """Kind and sizes of the cores of d columns, for any order of the columns.

    A dense core has one factor, "core" (N, m, m'). A CP core has c = max(ranks) hidden states and up to three factors:
    "left" (m, c) only if the rank of the left bond is not c, otherwise the value of the bond is the hidden state;
    "emission" (N, c) unless every hidden state has its own component; and "right" (c, m'). A switching core has the
    vectors "stay", "leave" and "enter" (c,) instead of a "right" that is square: diag(stay) + leave enterᵀ.

    Args:
        sizes: N of each column.
        ranks: of the bonds, in the sense of `TensorRing.ranks`.
        kind: of all cores.
        private: for each column, whether its hidden states have their own components.
    """

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    kind: CoreKind
    private: tuple[bool, ...]

    @property
    def inner(self) -> int:
        """c, the hidden states of CP cores."""
        return max(self.ranks)

    def shapes(self, columns: Sequence[int]) -> list[dict[str, Shape]]:
        """The shapes of each column's factors in this order of the columns."""
        shapes: list[dict[str, Shape]] = [{} for _ in columns]
        for j, k in enumerate(columns):
            shapes[k] = self._shapes(k, self.ranks[j], self.ranks[(j + 1) % len(columns)])
        return shapes

    def _shapes(self, k: int, left: int, right: int) -> dict[str, Shape]:
        if self.kind == "dense":
            return {"core": (self.sizes[k], left, right)}
        shapes: dict[str, Shape] = {} if left == self.inner else {"left": (left, self.inner)}
        if not self.private[k]:
            shapes["emission"] = (self.sizes[k], self.inner)
        if self.kind == "switching" and right == self.inner > 1:
            return shapes | dict.fromkeys(SWITCH, (right,))
        return shapes | {"right": (self.inner, right)}

    def layout(self, columns: Sequence[int]) -> Layout:
        """The columns that share the name and shape of a factor, in this order of the columns."""
        found: Layout = {}
        for k, shapes in enumerate(self.shapes(columns)):
            for key in shapes.items():
                found.setdefault(key, []).append(k)
        return {key: found[key] for key in sorted(found)}

    def random(self, columns: Sequence[int], generator: torch.Generator) -> list[Factors]:
        """Factors of exponential variates, one dictionary per column: Z is near 1, and the bonds' values differ.

        The ends of a train of CP cores are uniform instead, so that the components of the columns there start with
        nearly equal weights, as those of all other columns do. Switching cores draw most states anew.
        """
        if self.kind == "dense":
            variables = [rd.Categorical(size) for size in self.sizes]
            ring = rd.TensorRing.random(variables, self.ranks, order=columns, rng=generator, xp=torch)
            return [{"core": core} for core in ring.cores]
        return [
            {name: _random_factor(name, shape, generator) for name, shape in own.items()}
            for own in self.shapes(columns)
        ]

    def conformed(self, ring: rd.TensorRing) -> list[Factors]:
        """The factors of the cores of a ring in this structure, one dictionary per column, scaled to Z = 1.

        A factor "left" that does not exist in this structure is multiplied into "right" of the previous core. Switching
        cores are those of `with_hubs`.
        """
        factors = [dict(core.arrays()) if isinstance(core, rd.CPCore) else {"core": core} for core in ring.cores]
        columns = list(ring.order)
        shapes = self.shapes(columns)
        for previous, k in zip([columns[-1], *columns[:-1]], columns, strict=True):
            if "left" in factors[k] and "left" not in shapes[k]:
                left, right = factors[k].pop("left"), factors[previous].pop("right")
                switches = "stay" in shapes[previous]
                factors[previous] |= _without_hub(right, left) if switches else {"right": right @ left}
        scale = (-ring.log_normalizer() / len(columns)).exp()
        scaled = ("core", "right", "stay", "leave")  # a core is linear in one of the first two, or both of the others
        return [{name: part * scale if name in scaled else part for name, part in own.items()} for own in factors]


def structure_of(
    sizes: Sequence[int], rank: int | Sequence[int], topology: Topology, kind: CoreKind, private: Sequence[bool]
) -> Structure:
    """The structure, in which columns with private components have as many components as hidden states."""
    ranks = tuple(bond_ranks(rank, len(sizes), topology))
    if kind == "switching" and ranks != tuple(bond_ranks(max(ranks), len(sizes), topology)):
        raise ValueError(f"all columns of switching cores have as many hidden states, found ranks {ranks}")
    sizes = [max(ranks) if own else size for size, own in zip(sizes, private, strict=True)]
    return Structure(tuple(sizes), ranks, kind, tuple(private))


def core_of(factors: Factors) -> Any:
    """The array of a dense core, or the CP core with these factors."""
    if "core" in factors:
        return factors["core"]
    if "stay" in factors:
        return rd.CPCore.switching(**factors, validate=False)
    return _CP_TEMPLATE.with_arrays(dict(factors))


def with_hubs(mixture: rd.TensorRing, spread: float) -> rd.TensorRing:
    """A mixture of c products (a ring of CP cores with diagonal transitions) that switches with probability `spread`.

    Between two columns it leaves its cluster for a further value of the bond, the hub, and from there enters any
    cluster: [diag(stay) | leave] · [1 ; enter] = diag(stay) + leave enterᵀ. Bonds have c + 1 values, and the zeros of
    these cores, which EM keeps, are what makes a transition a switch; see `Structure.conformed` for the way back.
    """
    columns = list(mixture.order)
    factors = [dict(core.arrays()) for core in mixture.cores]
    for k, following in zip(columns, [*columns[1:], columns[0]], strict=True):
        right = factors[k]["right"]
        if (c := right.shape[1]) > 1:
            factors[k]["right"] = torch.cat([(1 - spread) * right, spread * right.sum(1, keepdim=True)], dim=1)
            enter = right.new_full((1, c), 1 / c)
            factors[following]["left"] = torch.cat([torch.eye(c).to(right), enter])
    cores = [core.with_arrays(own) for core, own in zip(mixture.cores, factors, strict=True)]
    return rd.TensorRing(cores, mixture.variables, mixture.order)


def _without_hub(right: Tensor, left: Tensor) -> Factors:
    """The transition of a switching core from a right factor (c, c + 1) and the next left one (c + 1, c)."""
    return {"stay": right.diagonal() * left.diagonal(), "leave": right[:, -1], "enter": left[-1]}


_CP_TEMPLATE = rd.CPCore(right=[[1.0]])  # `with_arrays` replaces its factors without checks, as compiling needs


def mapped_to_nonnegative(raw: Tensor, how: Nonnegative) -> Tensor:
    """The non-negative entries of cores from unconstrained parameters."""
    match how:
        case "abs":
            return raw.abs()
        case "softplus":
            return F.softplus(raw)
    return raw.exp()


def raw_of(factor: Tensor, how: Nonnegative) -> Tensor:
    """A solution of `mapped_to_nonnegative(raw) = factor`; zeros become the smallest positive number if necessary."""
    if how == "abs":
        return factor
    factor = factor.clamp(min=torch.finfo(factor.dtype).tiny)
    return factor.log() if how == "exp" else factor + (-(-factor).expm1()).log()


def checked_kind(core: CoreKind, private_components: bool, topology: Topology | None) -> Topology:
    """The topology; the default is "ring" for dense cores, as in the paper, and "train" for all others.

    Raises:
        ValueError: if an option is unknown, or private components do not fit the kind of the cores.
    """
    check_option("core", core, get_args(CoreKind))
    if private_components and core == "dense":
        raise ValueError("private components are those of hidden states: core must be cp or switching, found 'dense'")
    if core == "switching" and not private_components:
        raise ValueError("hidden states that switch have components of their own: private_components must be True")
    if topology is None:
        return "ring" if core == "dense" else "train"
    check_option("topology", topology, get_args(Topology))
    return topology


def stacked(factors: Sequence[Factors], layout: Layout) -> Iterator[Tensor]:
    """The factors of equal name and shape in one tensor each, as in the parameters."""
    for (name, _), columns in layout.items():
        yield torch.stack([factors[k][name] for k in columns])


def _random_factor(name: str, shape: Shape, generator: torch.Generator) -> Tensor:
    if len(shape) == 2 and 1 in shape and name != "emission":
        return torch.full(shape, 1 / shape[1])
    variates = -(-torch.rand(shape, generator=generator)).log1p()
    match name:
        case "stay":
            return STAYING * variates
        case "leave":
            return torch.full(shape, 1 - STAYING)
        case "enter":
            return torch.full(shape, 1 / shape[0])
    return variates / shape[0 if name == "emission" else 1]
