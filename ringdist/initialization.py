"""Starting points: random rings whose normaliser is near 1 whatever the rank."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ringdist._backend import Stream, backend_of_namespace, convert, default_dtype, dtype_name, namespace, uniform
from ringdist.variables import Variable, rebuild

if TYPE_CHECKING:
    from ringdist.ring import TensorRing


def random_ring(
    variables: Sequence[Variable],
    rank: int | Sequence[int],
    *,
    order: Sequence[int | str] | None = None,
    topology: Literal["ring", "train"] = "ring",
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
) -> TensorRing:
    """A ring whose core entries are independent exponential variates of mean 1 / (N_k m_{k+1}).

    The random entries break the symmetry between the values of a bond, without which learning never separates them;
    their mean keeps Z = Tr ∏ Σ_s Q_k[s] near 1 at every rank.

    Args:
        variables: d variables; their arrays are moved to the backend of `xp`.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`. With topology "train" an int leaves the
            first bond at 1, and a sequence must start with 1.
        rng: seed, or the backend's own generator or key.
        xp: numpy, torch or jax.numpy. dtype: float32 or float64, the backend's default if None.

    Raises:
        ValueError: if a rank is not positive, the number of ranks is not d, or a train does not start with rank 1.
    """
    from ringdist.ring import TensorRing, column_index

    variables = list(variables)
    if not variables:
        raise ValueError("a ring needs at least one variable, found none")
    ranks = bond_ranks(rank, len(variables), topology)
    order = list(range(len(variables))) if order is None else [column_index(k, variables) for k in order]
    if sorted(order) != list(range(len(variables))):
        raise ValueError(f"order must be a permutation of the {len(variables)} columns, found {order}")
    backend = backend_of_namespace(xp)
    name = dtype_name(dtype) if dtype is not None else default_dtype(backend)
    prototype = convert(np.zeros(()), xp if backend != "numpy" else None, name, device)
    stream = Stream(rng, prototype)
    cores: list[Any] = [None] * len(variables)
    for j, k in enumerate(order):
        size, left, right = variables[k].num_components, ranks[j], ranks[(j + 1) % len(ranks)]
        draws = uniform(stream.next(), (size, left, right), prototype)
        cores[k] = -namespace(draws).log1p(-draws) / (size * right)
    moved = [move_variable(v, xp, name, device) for v in variables]
    return TensorRing(cores, moved, order)


def bond_ranks(rank: int | Sequence[int], d: int, topology: str) -> list[int]:
    """One rank per bond; `ValueError` unless they are positive and fit the topology."""
    if topology not in ("ring", "train"):
        raise ValueError(f"topology must be ring or train, found {topology!r}")
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


def move_variable(variable: Variable, xp: ModuleType | None, dtype: Any, device: Any) -> Variable:
    """The variable with its arrays in another backend or dtype or on another device."""
    arrays = variable.arrays()
    if not arrays:
        return variable
    moved = {key: convert(array, xp, dtype, device) for key, array in arrays.items()}
    return rebuild(type(variable), variable.num_components, variable.name, moved)
