"""Engines: the log-mass log Σ_s P̂[s] ∏_k p(x_k | s_k) = log Tr ∏_k A_k(x_k) of rows of evidence.

`sweep` carries an (r, m) state around the ring from its thinnest bond (DESIGN 4.1); `tree` multiplies all matrices
pairwise in ⌈log2 d⌉ batched steps, on a CPU the products of segments, which it sweeps side by side; `log` is the sweep
by log-sum-exp, the oracle and the refuge of the others; `opt_einsum` and `tensornetwork` hand the same network to those
libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from ringdist import network
from ringdist._arithmetic import (
    Linear,
    Log,
    Result,
    by_chunks,
    replace_rows,
    rescue,
    safe_interval,
    threshold,
    through_core,
)
from ringdist._backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    is_concrete,
    namespace,
    nonzero_rows,
    on_accelerator,
    safe_log,
    stop_gradient,
    writable,
)
from ringdist._evidence import Evidence
from ringdist._tree import tree

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

PADDED = 0.1  # share of the cores: those at the ends of a train are few
AT_ONCE = 2**22  # numbers of the matrices of all columns, beyond which cores of several shapes are swept
KEPT = 2**27  # numbers that a backward pass may find stored; if there were more, they are computed again
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
    """The tree where launching operations costs more than its extra arithmetic, b d m² (m − r), else the sweep.

    On a CPU also the sweep where cores would have to be padded one by one before they can be multiplied together, and
    where the padded matrices of all rows and columns would be too many.
    """
    core = ring.cores[0]
    if backend_name(core) == "jax" or not is_concrete(core, evidence.offset):
        return "tree"  # d unrolled steps would have to be compiled
    if is_lean(ring, evidence):
        return "sweep"
    rank, cut = max(ring.ranks), min(ring.ranks)
    largest = (max(ring.shape), rank, rank)
    padded = 0 if on_accelerator(core) else sum(tuple(c.shape) != largest for c in ring.cores)
    if padded > PADDED * len(ring.cores) or (padded and evidence.num_rows * len(ring.cores) * rank**2 > AT_ONCE):
        return "sweep"
    extra = evidence.num_rows * rank**2 * 2 * (rank - cut)  # operations a column
    return "tree" if extra < (10**9 if on_accelerator(core) else 10**5) else "sweep"


def sweep(ring: TensorRing, evidence: Evidence, floored: bool) -> Result:
    """One matrix after the other, from the thinnest bond."""
    linear = Linear(ring, evidence, floored=floored, interval=safe_interval(ring))
    if is_lean(ring, evidence):
        from ringdist._lean import lean_sweep

        return lean_sweep(linear)
    return _sweep(linear)


def _sweep(arithmetic: Any) -> Result:
    state = arithmetic.start()
    for k in arithmetic.ring.sequence:
        state = arithmetic.push(state, k)
    return arithmetic.close(state)


def is_lean(ring: TensorRing, evidence: Evidence) -> bool:
    """Whether a sweep keeps only some of its products for the backward pass, which computes the others again."""
    core = ring.cores[0]
    if writable(*ring.cores, *evidence.arrays()) or backend_name(core) != "torch":
        return False
    if not is_concrete(core, evidence.offset):
        return False
    return evidence.num_rows * numbers_kept(ring) > KEPT and _by_matrices(ring)


def numbers_kept(ring: TensorRing, *, lean: bool = False) -> int:
    """How many numbers a sweep leaves to its backward pass, of one row."""
    cut, shapes, by_matrices = min(ring.ranks), [core.shape for core in ring.cores], _by_matrices(ring)
    if lean and backend_name(ring.cores[0]) == "torch" and by_matrices:
        from ringdist._lean import lean_numbers

        return lean_numbers(shapes, cut)
    return sum((left + cut) * right if by_matrices else cut * (size + 1) * right for size, left, right in shapes)


def _by_matrices(ring: TensorRing) -> bool:
    """Whether products are with the matrices of the rows, as those of a wide cut are, and not with the cores."""
    return not through_core(min(ring.ranks), min(ring.shape))


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
