"""Random rings whose normaliser is near 1 at every rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    backend_of_namespace,
    convert,
    default_dtype,
    dtype_name,
    namespace,
    uniform,
)
from ringdist.cores import CPCore
from ringdist.network.checks import check_variables
from ringdist.network.layout import Columns, Layout
from ringdist.network.structure import converted_variable
from ringdist.variables import Variable

Topology = Literal["ring", "train"]
CoreKind = Literal["dense", "cp"]


class Parts(NamedTuple):
    """The parts of a ring."""

    cores: list[Any]
    variables: list[Variable]
    order: list[int]
    columns: Columns | None


def random_parts(
    variables: Sequence[Variable],
    rank: int | Sequence[int],
    *,
    order: Sequence[int | str] | None = None,
    columns: Columns | None = None,
    topology: Topology = "ring",
    core: CoreKind = "dense",
    inner: int | None = None,
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
) -> Parts:
    """Cores whose entries are independent exponential variates of mean 1 / (N_k m_{k+1}), with variables and order.

    The random entries break the symmetry between the values of a bond, which learning could not break. Their mean keeps
    Z = Tr ∏ Σ_s Q_k[s] near 1 at every rank. The factors of CP cores have means 1 / c (left), 1 / N
    (emission) and 1 / m_{k+1} (right), to the same end.

    Args:
        variables: the variables; their arrays are moved to the backend of `xp`.
        order, columns: as in `TensorRing`.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`. With topology "train" an int leaves the
            first bond at 1, and a sequence must start with 1.
        core: "dense", or "cp" for `CPCore`.
        inner: c, the hidden states of every CP core. None: the larger of its two ranks, with `left=None` where the
            hidden state can be the value of the left bond.
        rng: seed, or the backend's own generator or key.
        xp: numpy, torch or jax.numpy. dtype: float32 or float64, the backend's default if None.

    Raises:
        ValueError: if a rank is not positive, there is not one for each variable, a train does not start with rank 1,
            or an option is unknown.

    Examples:
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=4, topology="train", rng=0)
        >>> ring.ranks
        (1, 4, 4)
        >>> abs(float(ring.log_normalizer())) < 1.0
        True
    """
    variables = list(variables)
    if not variables:
        raise ValueError("a ring needs at least one variable, found none")
    if core not in ("dense", "cp"):
        raise ValueError(f"core must be dense or cp, found {core!r}")
    if inner is not None and (core == "dense" or inner < 1):
        raise ValueError(
            f"inner must be a positive number of hidden states of CP cores, found {inner} for {core} cores"
        )
    ranks = bond_ranks(rank, len(variables), topology)
    check_variables(variables)
    sites = list(range(len(variables))) if order is None else list(map(Layout(variables, columns).site, order))
    if sorted(sites) != list(range(len(variables))):
        raise ValueError(f"order must be a permutation of the {len(variables)} variables, found {sites}")
    backend = backend_of_namespace(xp)
    name = dtype_name(dtype) if dtype is not None else default_dtype(backend)
    prototype = convert(np.zeros(()), xp if backend != "numpy" else None, name, device)
    stream = Stream(rng, prototype)

    def exponential(shape: tuple[int, ...], mean: float) -> Array:
        draws = uniform(stream.next(), shape, prototype)
        return -namespace(draws).log1p(-draws) * mean

    cores: list[Any] = [None] * len(variables)
    for j, k in enumerate(sites):
        size, left, right = variables[k].num_components, ranks[j], ranks[(j + 1) % len(ranks)]
        if core == "dense":
            cores[k] = exponential((size, left, right), 1 / (size * right))
            continue
        hidden = max(left, right) if inner is None else inner
        cores[k] = CPCore(
            left=None if inner is None and left == hidden else exponential((left, hidden), 1 / hidden),
            emission=exponential((size, hidden), 1 / size),
            right=exponential((hidden, right), 1 / right),
        )
    return Parts(cores, [converted_variable(v, xp, name, device) for v in variables], sites, columns)


def bond_ranks(rank: int | Sequence[int], d: int, topology: str) -> list[int]:
    """One rank per bond; `ValueError` unless they are positive and fit the topology."""
    if topology not in ("ring", "train"):
        raise ValueError(f"topology must be ring or train, found {topology!r}")
    if not isinstance(rank, Iterable | int | np.integer) or isinstance(rank, bool | str):
        raise TypeError(f"rank must be an integer or one per bond, found {rank!r}")
    if isinstance(rank, int | np.integer):
        ranks = [int(rank)] * d
        if topology == "train":
            ranks[0] = 1
    else:
        ranks = [int(r) for r in rank]
    if len(ranks) != d:
        raise ValueError(f"there must be one rank per bond, {d} in all, found {len(ranks)}")
    if min(ranks) < 1:
        raise ValueError(f"ranks must be at least 1, found {min(ranks)}")
    if topology == "train" and ranks[0] != 1:
        raise ValueError(f"the first bond of a train has rank 1, found {ranks[0]}")
    return ranks
