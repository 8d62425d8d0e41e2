"""Keeping linear numbers in range, and detecting when this failed.

Each core is divided by a power of two that brings its largest row sum Σ_s Σ_b Q[s, a, b] near 1, and the logarithm is
kept beside it. Evidence weights are at most 1. A product with a state then cannot grow, so nothing overflows. What is
flushed to zero in the computation of an entry is at most a few times the dtype's smallest normal number. An entry above
`threshold` has lost nothing that matters since the last rescaling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ringdist.backend import (
    Array,
    is_concrete,
    largest_entries,
    largest_row_sums,
    lasting,
    like_zeros,
    namespace,
    on_accelerator,
    stop_gradient,
    times_power,
    without_warnings,
)
from ringdist.cores import LINEAR, Core, CPCore, DenseCore
from ringdist.engines.emissions import AS_IS, Emissions, Size, cp_sizes, stacked_emissions
from ringdist.network import Evidence, Network

LONGEST = 8  # products between two rescalings at most
NEAR_ONE = 0.25, 2.0  # row sums of cores that are used as they are: growth by 2^LONGEST is in the threshold
BITS = 40  # by which categories may shrink a state between two rescalings
FLUSHED = 5  # times the smallest normal number: evidence below may be 0, see `MARGIN` in `backend.exponential`
FACTOR_BITS = 16  # largest growth of a flushed entry inside a core of several factors


class InRange(NamedTuple):
    """Cores with row sums near 1, and the logarithm of their common divisor."""

    cores: tuple[Core, ...]
    log_scale: float


def in_range(network: Network) -> InRange:
    """The network's cores with row sums near 1; unchanged if values cannot be inspected without synchronisation."""
    if not can_inspect_values(network):
        return InRange(network.links, 0.0)
    with lasting(network.prototype):
        return network.remembered("in_range", lambda: _in_range(network))


def can_inspect_values(network: Network, evidence: Evidence | None = None) -> bool:
    """Whether control flow may depend on values: not under tracing, nor if the host would wait for the device."""
    arrays = [] if evidence is None else evidence.arrays()
    return is_concrete(network.prototype, *arrays) and (network.validate or not on_accelerator(network.prototype))


def threshold(network: Network) -> float:
    """The bound above which entries are accurate in spite of underflow."""
    info = namespace(network.prototype).finfo(network.prototype.dtype)
    terms = max(map(_terms, network.links))
    bits = LONGEST + (0 if network.is_dense else FACTOR_BITS)
    return 4 * FLUSHED * LONGEST * 2**bits * terms * float(info.smallest_normal) / float(info.eps)


def _terms(core: Core) -> int:
    """How many numbers may be flushed to zero in the product of a row with the core's matrix.

    A CP core multiplies a row by its factors, or, in a tree, by their product. A switch is a matrix too, backward.
    """
    if not isinstance(core, CPCore):
        return math.prod(core.shape) + sum(core.shape)
    size, left, right = core.shape
    inner = 1 + (0 if core.left is None else left) + (0 if core.emission is None else size)
    return core.inner * (inner + (right if core.has_right else 0))


def rescale_interval(network: Network) -> int:
    """Products after which the rows of a state are divided by their sums, so that few entries underflow."""
    return max(1, min(LONGEST, int(BITS / math.log2(2 * max(network.shape)))))


def _in_range(network: Network) -> InRange:
    cores: list[Any] = list(network.links)
    exponents = [0] * network.num_variables
    emissions, shifts = stacked_emissions(cores), dict[int, int]()
    stacked = {k for group in emissions if group.array is not None for k in group.columns}
    for k, size in enumerate(_sizes(cores, emissions)):
        if not _is_safe(cores[k], size):
            core, exponents[k] = _rescaled(cores[k])
            shift = _shift(_norm(core))
            cores[k] = _divided(core, shift)
        elif shift := _shift(size.norm):
            if k in stacked and cores[k].left is None:  # the emission comes first and is divided below
                shifts[k] = shift
            else:
                cores[k] = _divided(cores[k], shift)
        exponents[k] += shift
    for group in emissions:
        if shifts.keys() & group.columns:
            for k, emission in zip(group.columns, group.divided(shifts), strict=True):
                if k in shifts:
                    cores[k] = cores[k].exchanged("emission", emission)
    return InRange(tuple(cores), math.log(2) * sum(exponents))


def _sizes(cores: Sequence[Core], emissions: Sequence[Emissions]) -> list[Size]:
    if all(isinstance(core, DenseCore) for core in cores):
        return [Size(norm, True) for norm in largest_row_sums([core.dense() for core in cores])]
    found: dict[int, Size] = {}
    for columns, array in emissions:
        own: Any = [cores[k] for k in columns]
        found.update(zip(columns, cp_sizes(own, array), strict=True))
    return [found[k] if k in found else _size(core) for k, core in enumerate(cores)]


def _size(core: Core) -> Size:
    least, most = AS_IS
    tops = [] if isinstance(core, DenseCore) else largest_entries(list(core.arrays().values()))
    return Size(_norm(core), all(least <= top <= most for top in tops))


def _norm(core: Core) -> float:
    total = _row_sums(core)
    return float(stop_gradient(namespace(total).max(total)))


def _row_sums(core: Core) -> Array:
    """Σ_s Σ_b Q[s, a, b], (1, 1, m)."""
    size, _, right = core.shape
    array = next(iter(core.arrays().values()))
    ones = like_zeros((1, 1, right), array) + 1.0
    with without_warnings(array):  # sums beyond the range of the dtype are seen by the caller
        return core.transposed().push(ones, ones[0, :, :1] + like_zeros((1, size), array), LINEAR)


def _is_safe(core: Core, size: Size) -> bool:
    """Whether one power of two for the whole core brings all its factors near 1."""
    if isinstance(core, DenseCore):
        info = namespace(core.array).finfo(core.array.dtype)
        return float(info.smallest_normal) / float(info.eps) < size.norm < math.inf
    return size.as_is and 2.0**-FACTOR_BITS < size.norm < math.inf


def _shift(norm: float) -> int:
    """The exponent of the power of two that divides a core of that largest row sum."""
    low, high = NEAR_ONE
    return 0 if low <= norm <= high or not 0 < norm < math.inf else math.frexp(norm)[1]


def _divided(core: Core, exponent: int) -> Core:
    """The core divided by 2^exponent."""
    if isinstance(core, CPCore):
        return core.divided(exponent)
    name, array = next(iter(core.arrays().items()))
    return core.with_arrays({**core.arrays(), name: times_power(array, -exponent)})


def _rescaled(core: Core) -> tuple[Core, int]:
    """The core with factors near 1, and the exponent of its divisor."""
    return core.leaned() if isinstance(core, CPCore) else _near_one(core)


def _near_one(core: Core) -> tuple[Core, int]:
    """The core with the largest entry of every factor near 1, and the exponent of its divisor."""
    arrays = core.arrays()
    exponents = [math.frexp(top)[1] for top in largest_entries(list(arrays.values()))]  # 0 of 0
    scaled = {name: times_power(a, -e) for (name, a), e in zip(arrays.items(), exponents, strict=True)}
    return core.with_arrays(scaled), sum(exponents)


def scaled(array: Any) -> Array:
    """The array with its largest entry at 1; all zeros stay zeros."""
    xp = namespace(array)
    top = stop_gradient(xp.max(array))
    return array / xp.where(top > 0, top, 1.0)
