"""Trains from rings: bonds carry the value of the cut bond, or enumerate the components since the cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    dtype_name,
    identity,
    is_concrete,
    like,
    namespace,
    stop_gradient,
)
from ringdist.cores import Core, CPCore, DenseCore
from ringdist.engines.range import scaled
from ringdist.network import Network
from ringdist.network.structure import mapped
from ringdist.queries.elimination import (
    fits,
    fitted,
    from_logs,
    log_dense,
    log_spread,
    logs_fit,
    spread,
    widest_spread,
)

N = TypeVar("N", bound=Network)


class _OutOfRange(Exception):
    """A positive entry of a product may have underflowed."""


def to_train(ring: N) -> N:
    """The same distribution as a train, exactly.

    The ring is cut at its thinnest bond r. A bond of the train also carries the value of the cut bond, rank r m_j,
    unless enumerating the components since the last bond is shorter: rank(j+1) = min(r m_{j+1}, rank(j) N_j), and
    likewise from the right. No rank exceeds the dense bound.

    Enumeration needs products of cores, formed in the accumulator's dtype. If an entry of one may underflow, every bond
    carries the value of the cut bond: ranks are r m_j, the cores have the entries of the ring's cores unchanged, and CP
    cores stay CP cores.

    Raises:
        ValueError: if a core that is neither an array nor a CP core cannot be an array of its dtype, because an entry
            underflows.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(3)] * 4, rank=2, rng=0)
        >>> train = ring.to_train()
        >>> train.ranks
        (1, 3, 4, 3)
        >>> np.allclose(train.to_dense(), ring.to_dense())
        True
    """
    if ring.is_train:
        return ring
    try:
        trained: Sequence[Any] = _listed(ring)
    except _OutOfRange:
        trained = _carried(ring)
    place = {k: j for j, k in enumerate(ring.sequence)}
    cores = [trained[place[k]] for k in range(ring.num_variables)]
    return ring.rebuilt(cores, ring.variables, ring.sequence, ring.columns)


# ---------------------------------------------------------------------------------------------------- listed components


def _listed(ring: Network) -> list[Array]:
    """The cores in ring order from the cut, with the least ranks; raises if a positive entry may underflow."""
    cores = _train([_dense(ring.links[k]) for k in ring.sequence])
    if is_concrete(*cores) and not all(fits(core, ring.prototype) for core in cores):
        raise _OutOfRange
    return [fitted(core, ring.prototype) for core in cores]


def _dense(core: Core) -> Array:
    """The core as an array of the accumulator's dtype, its largest entry at 1."""
    wide = mapped(core, lambda array: astype(array, accumulator(array)))
    return _in_range(scaled(mapped(wide, scaled).dense()), *wide.arrays().values())


def _product(a: Array, b: Array) -> Array:
    """a @ b of arrays whose largest entries are at 1."""
    return _in_range(a @ b, a, b)


def _in_range(product: Array, *factors: Array) -> Array:
    """The product of arrays with largest entries of 1; raises if a product of positive entries may underflow."""
    # Within `jax.jit` a product of constants has no values either.
    if is_concrete(product) and sum(map(spread, factors)) > widest_spread(factors[0]):
        raise _OutOfRange
    return product


def _train(cores: Sequence[Array]) -> list[Array]:
    """The cores of the train from those of a ring, both in ring order from the cut."""
    xp, d = namespace(cores[0]), len(cores)
    lefts, frames = _train_half(cores)
    rights, co_frames = _train_half([xp.permute_dims(core, (0, 2, 1)) for core in reversed(cores)])

    def total(t: int) -> int:
        return sum(frame.shape[0] for frame in frames[: t + 1]) + sum(frame.shape[0] for frame in co_frames[: d - t])

    meet = min(range(d), key=total)  # cores before it are built from the left, after it from the right
    left, right = frames[meet], co_frames[d - 1 - meet]  # (D, r, m), (E, r, m')
    joined = scaled(_product(xp.reshape(left, (1, -1, left.shape[2])), cores[meet]))  # (N, D r, m')
    joined = xp.reshape(joined, (cores[meet].shape[0], left.shape[0], -1))
    # Tr over the cut bond and the right bond
    middle = _product(joined, xp.reshape(right, (right.shape[0], -1)).T)
    tail = [xp.permute_dims(core, (0, 2, 1)) for core in rights[: d - 1 - meet]][::-1]
    return [*lefts[:meet], middle, *tail]


def _train_half(cores: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Train cores built from the left, and what each bond's values stand for: frames (D_j, r, m_j).

    The largest entry of what a value stands for is 1: its scale is in the core on the left of the bond.
    """
    xp, first = namespace(cores[0]), cores[0]
    r = first.shape[1]

    def constant(array: np.ndarray) -> Array:
        return like(np.ascontiguousarray(array), first)

    frames, built = [constant(np.eye(r))[None]], []
    for core in cores[:-1]:
        size, _, right = core.shape
        frame = frames[-1]
        pushed = _product(frame[:, None], core[None])  # (D, N, r, m')
        listed, carried = frame.shape[0] * size, r * right
        if listed <= carried:  # the bond remembers the component itself
            states = xp.reshape(pushed, (listed, r, right))
            scale = stop_gradient(xp.max(states, axis=(1, 2)))
            scale = xp.where(scale > 0, scale, 1.0)
            units = np.eye(listed).reshape(frame.shape[0], size, listed).transpose(1, 0, 2)
            built.append(constant(units) * scale)
            frames.append(states / scale[:, None, None])
        else:
            built.append(xp.permute_dims(xp.reshape(pushed, (frame.shape[0], size, carried)), (1, 0, 2)))
            frames.append(constant(np.eye(carried).reshape(carried, r, right)))
    return built, frames


# ------------------------------------------------------------------------------------------------- a carried cut bond


def _carried(ring: Network) -> list[Core]:
    """The cores in ring order from the cut, of ranks r m_j: no product of two cores is formed."""
    cores: list[Core] = []
    for k in ring.sequence:
        ends = k == ring.sequence[0], k == ring.sequence[-1]
        core = ring.links[k]
        if isinstance(core, CPCore):
            cores.append(_carried_cp(core, min(ring.ranks), *ends))
        else:
            cores.append(_carried_array(_array(core, ring.describe_site(k)), min(ring.ranks), *ends))
    return cores


def _carried_array(array: Array, r: int, first: bool, last: bool) -> DenseCore:
    """Q[s, b, c] with a value a of the cut bond in both bonds, (N, r m, r m'); 1 instead of r m, r m' at the ends."""
    xp, size = namespace(array), array.shape[0]
    if first and last:
        if float(stop_gradient(xp.max(array))) > float(xp.finfo(array.dtype).max) / (2 * r):
            array = array / (2 * r)
        return DenseCore(xp.reshape(xp.sum(xp.linalg.diagonal(array), axis=-1), (size, 1, 1)))
    if first:
        return DenseCore(xp.reshape(array, (size, 1, -1)))
    return DenseCore(xp.reshape(array.mT, (size, -1, 1)) if last else _repeated(array, r))


def _carried_cp(core: CPCore, r: int, first: bool, last: bool) -> CPCore:
    """The same for a CP core, whose hidden state carries the value of the cut bond too."""
    emission = core.factor("emission")
    xp = namespace(emission)
    factors = {"emission": xp.tile(emission, (1, r))}
    if first:
        factors["left"] = xp.reshape(core.factor("left"), (1, -1))
    elif core.left is not None:
        factors["left"] = _repeated(core.left, r)
    if last:
        factors["right"] = xp.reshape(core.factor("right").mT, (-1, 1))
    elif core.right is not None:
        factors["right"] = _repeated(core.right, r)
    return CPCore(**factors)


def _repeated(array: Array, r: int) -> Array:
    """I_r ⊗ Q[s] of matrices (..., m, m')."""
    xp, (*leading, left, right) = namespace(array), array.shape
    unit = identity(r, array)[:, None, :, None]
    return xp.reshape(unit * array[..., None, :, None, :], (*leading, r * left, r * right))


def _array(core: Core, label: str) -> Array:
    """The core as an array, up to a factor; raises where there is none in the dtype."""
    if isinstance(core, DenseCore):
        return core.array
    prototype, logs = next(iter(core.arrays().values())), log_dense(core)
    xp, info = namespace(logs), namespace(prototype).finfo(prototype.dtype)
    low, high = math.log(float(info.smallest_normal)), math.log(float(info.max))
    if not is_concrete(logs) or bool(xp.all((logs == -xp.inf) | ((logs > low) & (logs < high)))):
        return core.dense()
    if not logs_fit(logs, prototype):
        raise ValueError(
            f"{label}: to make a train the entries of a {type(core).__name__} must fit into one array of "
            f"{dtype_name(prototype.dtype)}, found a factor of 1e{log_spread(logs) / math.log(10):.0f} between two"
        )
    return from_logs(logs, prototype)
