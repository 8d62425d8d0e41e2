"""Engines: the log-mass log Σ_s P̂[s] ∏_k p(x_k | s_k) = log Tr ∏_k A_k(x_k) of rows of evidence.

`sweep` carries an (r, m) state around the ring from its thinnest bond (DESIGN 4.1); `tree` multiplies all matrices
pairwise in ⌈log2 d⌉ batched steps; `log` is the sweep by log-sum-exp, the oracle and the refuge of the others;
`opt_einsum` and `tensornetwork` hand the same network to those libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from ringdist import network
from ringdist._arithmetic import Linear, Log, Result, by_chunks, replace_rows, rescue, threshold
from ringdist._backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    indices,
    is_concrete,
    logsumexp,
    namespace,
    nonzero_rows,
    on_accelerator,
    safe_log,
    stop_gradient,
)
from ringdist._evidence import Evidence, like_zeros

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

Engine = Literal["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"]


def log_mass(ring: TensorRing, evidence: Evidence, engine: Engine) -> Array:
    """log Tr ∏_k A_k(x_k) of every row, (b,), in the accumulator's dtype."""
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, found {engine!r}")
    if evidence.num_rows == 0:
        return evidence.offset
    if engine == "auto":
        engine = choose_engine(ring, evidence)
    match engine:
        case "log":
            return by_chunks(ring, evidence, lambda e: _sweep(Log(ring, e))[0])
        case "opt_einsum":
            return _library(ring, evidence, network.contract_with_opt_einsum)
        case "tensornetwork":
            return _library(ring, evidence, network.contract_with_tensornetwork)
    contract = tree if engine == "tree" else sweep
    tolerance = 16 * float(namespace(ring.cores[0]).finfo(ring.cores[0].dtype).eps)
    return rescue(ring, evidence, contract, lambda e: _sweep(Log(ring, e))[0], tolerance)


def choose_engine(ring: TensorRing, evidence: Evidence) -> Engine:
    """The tree where launching operations costs more than its extra arithmetic, b d m² (m − r), else the sweep."""
    core = ring.cores[0]
    rank, cut = max(ring.ranks), min(ring.ranks)
    extra = evidence.num_rows * rank**2 * (2 * (rank - cut) + 10)  # operations a column; 10: the tree's extra passes
    if backend_name(core) == "jax" or not is_concrete(core, evidence.offset):
        return "tree"  # d unrolled steps would have to be compiled
    return "tree" if extra < (10**9 if on_accelerator(core) else 10**5) else "sweep"


def sweep(ring: TensorRing, evidence: Evidence, floored: bool) -> Result:
    """One matrix after the other, from the thinnest bond."""
    return _sweep(Linear(ring, evidence, floored=floored))


def _sweep(arithmetic: Any) -> Result:
    state = arithmetic.start()
    for k in arithmetic.ring.sequence:
        state = arithmetic.push(state, k)
    return arithmetic.close(state)


def tree(ring: TensorRing, evidence: Evidence, floored: bool) -> Result:
    """Pairwise products of row-scaled matrices, all pairs of a level in one batched product.

    A row's scale is split in a common part and one part per row, at most 1, that is multiplied into the columns of the
    left neighbour. Where values cannot be looked at (no rescue under tracing) that product is taken relative to its own
    largest term, so that decoupled components of different decay survive.
    """
    xp = namespace(ring.cores[0])
    watch = not floored and is_concrete(ring.cores[0], evidence.offset)
    floor = threshold(ring) if floored else None
    linear = Linear(ring, evidence, floored=floored)
    values, inside = _leaves(ring, linear)  # (d, b, m, m), (d, m) valid rows, (d, m) valid columns
    low = None

    def rescale(values: Array, logs: Array) -> tuple[Array, Array, Array]:
        """Rows relative to their maximum, logs relative to the largest row, and the common logarithm."""
        nonlocal low
        if floor is not None:
            raised = xp.where(values < floor, floor, values)
            values = raised if inside is None else xp.where(_mask(inside), raised, values)
        if watch:
            least = stop_gradient(values)
            least = least if inside is None else xp.where(_mask(inside), least, 1.0)
            least = xp.min(least, axis=(0, 2, 3))
            low = least if low is None else xp.minimum(low, least)
        top = stop_gradient(xp.max(values, axis=-1, keepdims=True))
        logs = logs + safe_log(astype(top[..., 0], logs.dtype))
        common = xp.max(logs, axis=-1, keepdims=True)
        common = xp.where(common == -xp.inf, 0.0, common)
        return values / xp.where(top > 0, top, 1.0), logs - common, common[..., 0]

    zeros = like_zeros(values.shape[:-1], values, accumulator(values))
    values, logs, scale = rescale(values, zeros)
    while values.shape[0] > 1:
        pairs = values.shape[0] // 2
        left, right = values[0 : 2 * pairs : 2], values[1 : 2 * pairs : 2]
        inner = logs[1 : 2 * pairs : 2]
        outer = logs[0 : 2 * pairs : 2]
        if watch or floored:
            left = left * astype(xp.exp(inner), left.dtype)[..., None, :]
        else:
            left, shift = _aligned(left, inner)
            outer = outer + shift
        tail = slice(2 * pairs, None)
        odd_values, odd_logs = values[tail], logs[tail]
        scale = xp.concat([scale[0 : 2 * pairs : 2] + scale[1 : 2 * pairs : 2], scale[tail]])
        if inside is not None:
            rows, columns = inside
            inside = (
                xp.concat([rows[0 : 2 * pairs : 2], rows[tail]]),
                xp.concat([columns[1 : 2 * pairs : 2], columns[tail]]),
            )
        products = left @ right
        if odd_values.shape[0]:
            products, outer = xp.concat([products, odd_values]), xp.concat([outer, odd_logs])
        values, logs, common = rescale(products, outer)
        scale = scale + common
    diagonal = astype(safe_log(xp.linalg.diagonal(values[0])), logs.dtype)
    return logsumexp(diagonal + logs[0]) + scale[0] + linear.offset, low


def _aligned(left: Array, inner: Array) -> tuple[Array, Array]:
    """left[i, k] exp(inner[k]), each row relative to its own largest term, and that term's logarithm (detached)."""
    xp = namespace(left)
    logs = stop_gradient(safe_log(left)) + astype(inner, left.dtype)[..., None, :]
    shift = xp.max(logs, axis=-1, keepdims=True)
    shift = xp.where(shift == -xp.inf, 0.0, shift)
    # exp(logs - shift) / left would divide by zero entries: keep the factor, which is finite wherever left > 0.
    factor = xp.where(left > 0, astype(inner, left.dtype)[..., None, :] - shift, -xp.inf)
    return left * xp.exp(factor), astype(shift[..., 0], inner.dtype)


def _leaves(ring: TensorRing, linear: Linear) -> tuple[Array, tuple[Array, Array] | None]:
    """A_k(x_k) in ring order from the cut, (d, b, m, m), zero-padded to the widest rank, and what is no padding."""
    xp = linear.xp
    cores = [ring.cores[k] for k in ring.sequence]
    size, rank = max(c.shape[0] for c in cores), max(ring.ranks)
    shape = (size, rank, rank)
    uniform = all(core.shape == shape for core in cores)
    stacked = xp.stack(cores if uniform else [_pad(core, shape) for core in cores])  # (d, N, m, m)
    flat = xp.reshape(stacked, (len(cores), size, rank * rank))
    log_weights = linear.evidence.log_weights_stacked(ring.sequence)
    if log_weights is not None and not any(ring.exponents):
        weights = xp.exp(log_weights)
    else:
        weights = xp.stack([_pad(linear.weights(k), (linear.evidence.num_rows, size)) for k in ring.sequence])
    values = xp.reshape(weights @ flat, (len(cores), weights.shape[1], rank, rank))
    if uniform:
        return values, None
    index = indices(range(rank), cores[0])
    rows = xp.stack([index < core.shape[1] for core in cores])
    columns = xp.stack([index < core.shape[2] for core in cores])
    return values, (rows, columns)


def _mask(inside: tuple[Array, Array]) -> Array:
    rows, columns = inside
    return (rows[:, :, None] & columns[:, None, :])[:, None, :, :]


def _pad(array: Array, shape: tuple[int, ...]) -> Array:
    """The array with zeros behind it on every axis, up to `shape`."""
    xp = namespace(array)
    for axis, length in enumerate(shape):
        missing = length - array.shape[axis]
        if missing:
            block = tuple(missing if a == axis else n for a, n in enumerate(array.shape))
            array = xp.concat([array, like_zeros(block, array)], axis=axis)
    return array


def _library(ring: TensorRing, evidence: Evidence, contract: Callable[[list[Array]], Array]) -> Array:
    """The trace as another library contracts it; rows that over- or underflow there are done by the log engine."""
    xp = namespace(ring.cores[0])
    linear = Linear(ring, evidence)
    matrices = [linear.matrix(k) for k in ring.sequence]
    tops = [stop_gradient(xp.max(a, axis=(-2, -1))) for a in matrices]
    tops = [xp.where(top > 0, top, 1.0) for top in tops]
    trace = contract([a / top[:, None, None] for a, top in zip(matrices, tops, strict=True)])
    logs = sum(xp.log(astype(top, accumulator(top))) for top in tops)
    value = astype(safe_log(trace), logs.dtype) + logs + linear.offset
    if not is_concrete(trace):
        return value
    wrong = nonzero_rows(~((trace > threshold(ring)) & xp.isfinite(trace)))
    if wrong.shape[0] == 0:
        return value
    exact = by_chunks(ring, evidence.rows(wrong), lambda e: _sweep(Log(ring, e))[0])
    return replace_rows(value, wrong, exact)
