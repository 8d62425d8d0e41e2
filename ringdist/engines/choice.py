"""The choice of an engine, and the log-mass log Σ_s P̂[s] ∏_k p(x_k | s_k) = log Tr ∏_k A_k(x_k) that engines compute.

`sweep` carries an (r, m) state around the ring from its thinnest bond; `tree` multiplies all matrices pairwise in
⌈log2 d⌉ batched steps, on a CPU the products of segments, which it sweeps side by side; `log` is the sweep by
logsumexp, the reference and the fallback of the others; `opt_einsum` and `tensornetwork` contract the same network with
those libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    is_captured,
    is_concrete,
    namespace,
    nonzero_rows,
    on_accelerator,
    records_gradient,
    safe_log,
    stop_gradient,
)
from ringdist.engines.arithmetic import Linear
from ringdist.engines.libraries import contract_with_opt_einsum, contract_with_tensornetwork
from ringdist.engines.range import can_inspect_values, threshold
from ringdist.engines.rescue import by_chunks, replace_rows, rescue
from ringdist.engines.sweep import log_sweep, recomputes, sweep
from ringdist.engines.tree import tree
from ringdist.network import Evidence, Network

PADDED = 0.1  # share of the cores: those at the ends of a train are few
PADDED_AT_ONCE = 2**22  # numbers of the matrices of all columns, beyond which cores of several shapes are swept
EXTRA = {"cpu": 10**5, "accelerator": 10**9}  # operations a column that cost less than the launches of a sweep
CAPTURED = 4 * 10**5  # numbers of the matrices of one column, beyond which launches of a graph cost less than passes
Engine = Literal["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"]


def log_mass(ring: Network, evidence: Evidence, engine: Engine) -> Array:
    """log Tr ∏_k A_k(x_k) of every row, (b,), in the accumulator's dtype."""
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, found {engine!r}")
    if evidence.num_rows == 0:
        return evidence.offset
    if engine == "auto":
        engine = choose_engine(ring, evidence)
    match engine:
        case "log":
            return _exact(ring, evidence)
        case "opt_einsum":
            return _library(ring, evidence, contract_with_opt_einsum)
        case "tensornetwork":
            return _library(ring, evidence, contract_with_tensornetwork)
    contract = tree if engine == "tree" else sweep
    tolerance = 16 * float(namespace(ring.prototype).finfo(ring.prototype.dtype).eps)
    return rescue(ring, evidence, contract, lambda e: log_sweep(ring, e)[0], tolerance, forward=True)


def choose_engine(ring: Network, evidence: Evidence) -> Engine:
    """The tree if launching operations costs more than its extra arithmetic, b d m² (m − r), otherwise the sweep.

    On a CPU also the sweep for cores that are not dense, where cores would have to be padded one by one before they can
    be multiplied together, and where the padded matrices of all rows and columns would be too many.
    """
    core = ring.prototype
    if is_captured(core) and not records_gradient(*ring.core_arrays(), *evidence.arrays()):
        return "sweep" if evidence.num_rows * max(ring.ranks) ** 2 > CAPTURED else "tree"
    if backend_name(core) == "jax" or not is_concrete(core, *evidence.arrays()):
        return "tree"  # d unrolled steps would have to be compiled
    if recomputes(ring, evidence):
        return "sweep"
    rank, cut, accelerated = max(ring.ranks), min(ring.ranks), on_accelerator(core)
    extra = evidence.num_rows * rank**2 * 2 * (rank - cut)
    if not accelerated:
        if not ring.is_dense or _is_padded(ring, evidence):
            return "sweep"
        return "tree" if extra < EXTRA["cpu"] else "sweep"
    if not ring.is_dense:  # whose matrices the tree has to form, b m² c each
        extra += evidence.num_rows * rank**3
    return "tree" if extra < EXTRA["accelerator"] else "sweep"


def _is_padded(ring: Network, evidence: Evidence) -> bool:
    """Whether too many cores, or too large matrices, would have to be padded to one shape."""
    rank = max(ring.ranks)
    largest = (max(ring.shape), rank, rank)
    padded = sum(tuple(core.shape) != largest for core in ring.links)
    numbers = evidence.num_rows * ring.num_variables * rank**2
    return padded > PADDED * ring.num_variables or (padded > 0 and numbers > PADDED_AT_ONCE)


def _exact(ring: Network, evidence: Evidence) -> Array:
    return by_chunks(ring, evidence, lambda e: log_sweep(ring, e)[0], forward=True)


def _library(ring: Network, evidence: Evidence, contract: Callable[[Sequence[Array]], Array]) -> Array:
    """The trace as another library contracts it; rows that over- or underflow there are done by the log engine."""
    xp = namespace(ring.prototype)
    linear = Linear(ring, evidence)
    matrices = [linear.matrix(k) for k in ring.sequence]
    tops = [stop_gradient(xp.max(a, axis=(-2, -1))) for a in matrices]
    tops = [xp.where(top > 0, top, 1.0) for top in tops]
    trace = contract([a / top[:, None, None] for a, top in zip(matrices, tops, strict=True)])
    logs = sum(xp.log(astype(top, accumulator(top))) for top in tops)
    value = astype(safe_log(trace), logs.dtype) + logs + linear.offset
    if not can_inspect_values(ring, evidence):
        return value
    # What a matrix has lost of its own small entries matters as far as its largest entry and the trace are small.
    least = trace
    for top in tops:
        least = xp.minimum(least, trace * top)
    wrong = nonzero_rows(~((least > threshold(ring)) & xp.isfinite(trace)))
    if wrong.shape[0] == 0:
        return value
    return replace_rows(value, wrong, _exact(ring, evidence.rows(wrong)))
