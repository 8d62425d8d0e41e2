"""The tree of products of a ring's matrices: neighbours are multiplied pairwise, all pairs of a level at once.

On a CPU the leaves are products of segments, which are swept side by side, and the last few products are swept too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    can_reuse_memory,
    empty,
    indices,
    is_concrete,
    largest_exponent,
    like_zeros,
    log_scaled_sum,
    namespace,
    on_accelerator,
    products_into,
    row_sums,
    safe_log,
    stack,
    stop_gradient,
    unstack,
)
from ringdist.cores import CPCore, DenseCore
from ringdist.engines import budget
from ringdist.engines.arithmetic import Linear, Result, State
from ringdist.network import Evidence, Network

STEPS = 10  # of a sweep before a level of the tree, which takes several times as many operations, is worth it
FEW = 16  # segments that take fewer operations one after the other than pairwise
LARGE = 32  # rank from which cores are too large to copy for the sake of fewer operations


def tree(ring: Network, evidence: Evidence, floored: bool) -> Result:
    """Sweeps of segments side by side, then pairwise products of row-scaled matrices, one operation for each level."""
    linear = Linear(ring, evidence, floored=floored)
    if max(ring.ranks) == 1:
        return _independent(linear)
    count, free = _segments(ring, evidence.num_rows), can_reuse_memory(*ring.core_arrays(), *evidence.arrays())
    start = _segment_products(linear, count, free) if count < ring.num_variables else _leaves(linear)
    # Backward passes of many small products are slower than those of some large ones.
    sweeps = free and linear.inspects_values and not on_accelerator(ring.prototype)
    for level in _levels(linear, start):
        if sweeps and level.values.shape[0] <= FEW and level.inside is None:
            break
    return _contract_segments(linear, level)


def _segments(ring: Network, rows: int) -> int:
    """How many segments of the ring to sweep side by side before their products are multiplied pairwise.

    On an accelerator every matrix is a segment; on a CPU as many as fit the cache, in a ring of equal cores.
    """
    core, d = ring.prototype, ring.num_variables
    if backend_name(core) == "jax" or on_accelerator(core) or not is_concrete(core):
        return d
    if not ring.is_dense or len({core.shape for core in ring.links}) > 1:
        return d
    fit = budget.CACHED // (rows * core.shape[1] ** 2)
    return d if fit >= 8 * d else max(1, min(d // STEPS, fit))  # the tree where its arrays are small throughout


def _independent(linear: Linear) -> Result:
    """Matrices of one entry need no products: the sum of their logarithms."""
    xp, values = linear.xp, _leaves(linear).values[..., 0, 0]  # (d, b)
    if linear.floor is not None:
        values = xp.where(values < linear.floor, linear.floor, values)
    low = xp.min(values, axis=0) if linear.tracks_minimum else None
    return xp.sum(safe_log(astype(values, accumulator(values))), axis=0) + linear.offset, low


def _contract_segments(linear: Linear, level: Level) -> Result:
    """The trace of the product of a level's segments, one after the other."""
    state, offset = State(level.values[0], level.logs[0], level.low), level.offset
    if level.values.shape[0] > 1:
        scaled = _scaled(level.values[1:], level.logs[1:])
        offset = offset + scaled.offset
        share = _share(level.logs[1:], scaled, level.values)
        for values in unstack(level.values[1:] * share[..., None]):
            state = linear.rescale(state.values @ values, state)
    values, low = linear.guarded(state.values, state.low) if state.age else (state.values, state.low)
    return log_scaled_sum(linear.xp.linalg.diagonal(values), state.logs) + offset, low


class Level(NamedTuple):
    """The k segments of a level of the tree: exp(logs)[..., None] * values, with a common factor exp(offset)."""

    values: Array  # (k, b, m, m)
    logs: Array  # (k, b, m) of the scale of the rows
    offset: Array  # (b,)
    low: Array | None  # (b,) smallest entry met so far
    span: int  # matrices in a segment, at most
    inside: tuple[Array, Array] | None = None  # rows and columns (k, m) that are not padding; None where all are
    factors: tuple[Array, Array] | None = None  # (k, b, m, m) whose products the values are, but an unpaired last one


def tree_levels(ring: Network, evidence: Evidence) -> Iterator[Level]:
    """The levels of the tree of products, from single matrices to the product of all."""
    linear = Linear(ring, evidence)
    return _levels(linear, _leaves(linear))


def _levels(linear: Linear, level: Level) -> Iterator[Level]:
    """The level and those above it, to the product of all.

    Segments 2i and 2i + 1 of a level make segment i of the next; a last one without partner moves up as it is. As long
    as no entry can overflow, segments are multiplied as they are. From then on left factors have their rows divided by
    their sums, the logarithms kept beside them; right factors keep the scale of their rows relative to the largest.
    Where values cannot be inspected (no rescue under tracing) all products are scaled, and the scale of the right
    factors goes into the columns of the left ones relative to the largest term of each row, so that decoupled
    components of different decay survive.
    """
    xp, floor, low = linear.xp, linear.floor, level.low
    left, right = slice(0, -1, 2), slice(1, None, 2)
    while True:
        values, logs, inside = level.values, level.logs, level.inside
        if floor is not None:
            raised = xp.where(values < floor, floor, values)
            values = raised if inside is None else xp.where(_mask(inside), raised, values)
        if linear.tracks_minimum:
            known = values if inside is None else xp.where(_mask(inside), values, 1.0)
            least = xp.min(linear.minimum(known), axis=0)
            low = least if low is None else xp.minimum(low, least)
        level = level._replace(values=values, low=low)
        yield level
        if values.shape[0] == 1:
            return
        if linear.inspects_values and 2 * level.span <= linear.interval:  # no product was scaled yet: all logs are 0
            left_factors, right_factors, next_logs, unpaired = values[left], values[right], logs[left], values[-1:]
            offset, unpaired_logs = level.offset, logs[-1:]
        else:
            scaled = _scaled(values, logs)
            offset, total = level.offset + scaled.offset, scaled.total[..., None]
            unpaired, unpaired_logs = values[-1:] / total[-1:], scaled.scale[-1:]
            if linear.inspects_values:
                share = _share(logs, scaled, values)[right]
                left_factors, right_factors = values[left] / total[left], values[right] * share[..., None]
                next_logs = scaled.scale[left]
            else:
                left_factors, shift = _aligned(values[left] / total[left], scaled.sums[right], scaled.scale[right])
                right_factors, next_logs = values[right] / total[right], scaled.scale[left] + shift
        products = left_factors @ right_factors
        if values.shape[0] % 2:
            products, next_logs = xp.concat([products, unpaired]), xp.concat([next_logs, unpaired_logs])
        if inside is not None:
            rows, columns = inside
            inside = (rows[::2], xp.concat([columns[right], columns[-1:]]) if values.shape[0] % 2 else columns[right])
        level = Level(products, next_logs, offset, low, 2 * level.span, inside, (left_factors, right_factors))


class _Scaled(NamedTuple):
    """The divisors of the rows of some segments (k, b, m, m), and their sizes relative to the largest."""

    total: Array  # (k, b, m) sums of the rows, 1 where there is no mass
    sums: Array  # (k, b, m) logarithm of the mass of a row less the segment's largest, −inf where there is none
    scale: Array  # the same, but finite: rows without mass have a scale too, for their gradients
    offset: Array  # (b,) sum over the segments of the logarithms of the largest mass
    common: Array  # (k, b, 1) those logarithms


def _scaled(values: Array, logs: Array) -> _Scaled:
    xp = namespace(values)
    total = row_sums(values)
    alive = total > 0
    total = xp.where(alive, total, 1.0)
    scale = xp.log(astype(total, logs.dtype)) + logs
    sums = xp.where(alive, scale, -xp.inf)
    common = xp.max(sums, axis=-1, keepdims=True)
    common = xp.where(common == -xp.inf, 0.0, common)
    return _Scaled(total, sums - common, scale - common, xp.sum(common[..., 0], axis=0), common)


def _share(logs: Array, scaled: _Scaled, like: Array) -> Array:
    """exp(logs) relative to the largest mass of the segment, (k, b, m), in the dtype of `like`."""
    # The limit is met only by rows without mass, or near underflow as a whole.
    exponent = namespace(logs).clip(logs - scaled.common, max=largest_exponent(like))
    return astype(namespace(logs).exp(exponent), like.dtype)


def _segment_products(linear: Linear, count: int, reuse: bool) -> Level:
    """Products of `count` equally long segments, swept side by side, followed by the remaining matrices."""
    xp, ring = linear.xp, linear.ring
    sequence, core, rows = ring.sequence, ring.prototype, linear.evidence.num_rows
    rank, length = core.shape[1], len(sequence) // count
    multiplied = _InMemory(core, count, rows) if reuse else _multiplied
    low: Array | None = None
    values: Array | None = None
    logs = like_zeros((count * rows, rank), core, accumulator(core))
    for step, (weights, flat) in enumerate(_steps(linear, count, length)):
        values = multiplied(values, weights, flat)
        if step % linear.interval == linear.interval - 1:
            values, low = linear.guarded(values, low)
            total = row_sums(values)
            total = xp.where(total > 0, total, 1.0)
            logs = logs + xp.log(astype(total, logs.dtype))
            values = values / total[..., None]
    if low is not None:
        low = xp.min(xp.reshape(low, (count, rows)), axis=0)
    values = xp.reshape(values, (count, rows, rank, rank))
    logs = xp.reshape(logs, (count, rows, rank))
    rest = sequence[count * length :]
    if rest:
        values = xp.concat([values, xp.stack([linear.matrix(k) for k in rest])])
        logs = xp.concat([logs, like_zeros((len(rest), rows, rank), core, logs.dtype)])
    return Level(values, logs, linear.offset, low, span=length)


def _multiplied(values: Array | None, weights: Any, flat: Any) -> Array:
    """The segments' products (k b, m, m) so far, None at first, with one more matrix each; see `_steps`."""
    xp = namespace(flat[0])
    if isinstance(weights, list):
        weights, flat = xp.stack(weights), xp.stack(flat)
    rank = math.isqrt(flat.shape[-1])
    matrices = xp.reshape(weights @ flat, (-1, rank, rank))
    return matrices if values is None else values @ matrices


class _InMemory:
    """`_multiplied` without gradient, into reused memory: new memory pages cost a CPU as much as the arithmetic."""

    def __init__(self, core: Array, count: int, rows: int):
        rank = core.shape[1]
        self.product, self.products = products_into(core)
        self.matrices, self.used, self.free = (empty((count * rows, rank, rank), core) for _ in range(3))
        self.target = namespace(core).reshape(self.matrices, (count, rows, rank * rank))

    def __call__(self, values: Array | None, weights: Any, flat: Any) -> Array:
        if isinstance(weights, list):
            for out, w, q in zip(self.target, weights, flat, strict=True):
                self.product(w, q, out=out)
        else:
            self.products(weights, flat, out=self.target)
        if values is None:
            return self.matrices + 0
        self.used, self.free = self.free, self.used
        return self.products(values, self.matrices, out=self.used)


def _steps(linear: Linear, count: int, length: int) -> Iterator[tuple[Any, Any]]:
    """Evidence weights (b, N) and flat cores (N, m²) of the segments' first columns, of their second ones, and so on.

    Small cores are stacked once, (count, b, N) and (count, N, m²) a step; lists of large ones stay where they are.
    """
    xp, ring = linear.xp, linear.ring
    columns, (size, rank, _) = ring.sequence[: count * length], ring.prototype.shape
    if rank < LARGE:
        weights = _weights_stacked(linear, columns, size)
        flat = xp.reshape(stack([linear.cores[k].dense() for k in columns]), (count, length, size, rank * rank))
        split = (count, length, linear.evidence.num_rows, size)
        yield from zip(unstack(xp.reshape(weights, split), axis=1), unstack(flat, axis=1), strict=True)
        return
    for step in range(length):
        side_by_side = columns[step::length]
        yield (
            [linear.evidence.weights(k) for k in side_by_side],
            [xp.reshape(linear.cores[k].dense(), (size, rank * rank)) for k in side_by_side],
        )


def _weights_stacked(linear: Linear, columns: Sequence[int], size: int) -> Array:
    """(d, b, N) evidence weights, zero-padded to the largest number of components."""
    weights = linear.evidence.weights_stacked(columns)
    if weights is None:
        rows = linear.evidence.num_rows
        weights = stack([_pad(linear.evidence.weights(k), (rows, size)) for k in columns])
    return weights


def _aligned(left: Array, sums: Array, scale: Array) -> tuple[Array, Array]:
    """left[i, k] exp(scale[k]), each row relative to its largest term, and the logarithm of that term (detached).

    `sums` is `scale` where the right factor has mass in row k, else −inf. Entries and rows without mass have no terms,
    but the factors of what they would be are kept, as far as they are finite: gradients need them.
    """
    xp = namespace(left)
    logs = xp.log(stop_gradient(left))  # −inf where there is nothing
    shift = xp.max(logs + astype(sums, left.dtype)[..., None, :], axis=-1, keepdims=True)
    shift = xp.where(shift == -xp.inf, 0.0, shift)
    factor = xp.clip(astype(scale, left.dtype)[..., None, :] - shift, max=largest_exponent(left))
    return left * xp.exp(factor), astype(shift[..., 0], scale.dtype)


def _leaves(linear: Linear) -> Level:
    """A_k(x_k) in ring order from the cut, zero-padded to the widest rank."""
    xp, ring = linear.xp, linear.ring
    cores, rank = [linear.cores[k] for k in ring.sequence], max(ring.ranks)
    shape = (max(ring.shape), rank, rank)
    if linear.evidence.num_rows == 1 and rank >= LARGE:  # reading the cores where they are beats copying them together
        values = stack([_pad(linear.matrix(k), (1, rank, rank)) for k in ring.sequence])
    elif all(isinstance(core, DenseCore) for core in cores):
        stacked = stack([_pad(core.dense(), shape) for core in cores])  # (d, N, m, m)
        flat = _weights_stacked(linear, ring.sequence, shape[0]) @ xp.reshape(stacked, (len(cores), shape[0], -1))
        values = xp.reshape(flat, (len(cores), -1, rank, rank))
    elif all(isinstance(core, CPCore) for core in cores):
        values = _cp_matrices(cores, _weights_stacked(linear, ring.sequence, shape[0]), rank)
    else:
        rows = linear.evidence.num_rows
        values = stack([_pad(linear.matrix(k), (rows, rank, rank)) for k in ring.sequence])
    inside = None
    if any(core.shape[1:] != (rank, rank) for core in cores):
        index = indices(range(rank), ring.prototype)
        inside = stack([index < core.shape[1] for core in cores]), stack([index < core.shape[2] for core in cores])
    logs = like_zeros(values.shape[:-1], values, accumulator(values))
    return Level(values, logs, linear.offset, None, span=1, inside=inside)


def _cp_matrices(cores: Sequence[Any], weights: Array, rank: int) -> Array:
    """left diag(weights emission) right of all columns in one product, (d, b, m, m), zero-padded."""
    inner, size = max(core.inner for core in cores), weights.shape[-1]

    def stacked(name: str, shape: tuple[int, int]) -> Array:
        return stack([_pad(core.factor(name), shape) for core in cores])

    hidden = weights @ stacked("emission", (size, inner))  # (d, b, c)
    scaled = stacked("left", (rank, inner))[:, None] * hidden[:, :, None, :]  # (d, b, m, c)
    return scaled @ stacked("right", (inner, rank))[:, None]


def _mask(inside: tuple[Array, Array]) -> Array:
    rows, columns = inside
    return (rows[:, :, None] & columns[:, None, :])[:, None, :, :]


def _pad(array: Array, shape: tuple[int, ...]) -> Array:
    """The array padded with zeros at the end of every axis, up to `shape`."""
    if array.shape == shape:
        return array
    xp = namespace(array)
    for axis, length in enumerate(shape):
        missing = length - array.shape[axis]
        if missing:
            block = tuple(missing if a == axis else n for a, n in enumerate(array.shape))
            array = xp.concat([array, like_zeros(block, array)], axis=axis)
    return array
