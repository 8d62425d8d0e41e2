"""Log-likelihood, normaliser, entropy, inner product and the dense table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import opt_einsum
import scipy.special

from ringdist import contraction
from ringdist._backend import (
    Array,
    astype,
    backend_name,
    checkpoint,
    identity,
    indices,
    is_concrete,
    like,
    log_scaled_sum,
    namespace,
    on_accelerator,
    safe_log,
    stop_gradient,
    to_numpy,
    writable,
)
from ringdist._evidence import Evidence, as_table, checked, like_zeros
from ringdist.contraction import Engine, log_mass
from ringdist.elimination import widened
from ringdist.network import einsum
from ringdist.variables import Categorical

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

DENSE_LIMIT = 2**24  # cells of the largest table
ENTROPY_LIMIT = 2**16  # cells up to which the entropy is summed exactly
CELLS = 2**16  # of a table that are looked up together
CHUNK = 2**26  # numbers that a batch may occupy at once
MANY = 256  # rows beside which it costs little that every part of them reads the cores once more


def log_prob(ring: TensorRing, x: Any, engine: Engine = "auto") -> Array:
    """log p(x) = log Tr ∏_k A_k(x_k) − log Z, with NaN entries marginalised row by row (paper Eq. 2, 3).

    Args:
        x: (..., d) real numbers, or whole numbers in categorical columns; integers are accepted.
        engine: "auto" chooses between "sweep" and "tree" by device, ranks and rows; "log" works in log space;
            "opt_einsum" and "tensornetwork" contract the same network through those libraries.

    Returns:
        (...) in nats (densities per unit of each continuous column), in the cores' dtype; −inf where the mass is zero.
        Gradients flow to the cores, the variables' arrays and x, also those of gradients. Cost O(b d m² (r + N)) for b
        rows; where the 2 b d m² numbers that a backward pass needs are too many, it computes them again: the cost of
        one more likelihood, and bounded memory.

    Raises:
        ValueError: if the last axis is not d long, a value is outside its support, or the engine is unknown.
        TypeError: if x is of another backend than the ring.
    """
    table, shape = as_table(ring, x)
    xp = namespace(table)
    parameters = [array for variable in ring.variables for array in variable.arrays().values()]
    if not writable(*ring.cores, *parameters, table) and table.shape[0] > 0:
        values = _differentiable(ring, checked(ring, table), engine)
        return xp.reshape(astype(values, ring.cores[0].dtype), shape)
    log_z = _log_normalizer(ring)
    step = _rows_per_chunk(ring, engine) if is_concrete(table) else max(1, table.shape[0])
    parts = [
        log_mass(ring, Evidence.of_rows(ring, checked(ring, table[start : start + step])), engine)
        for start in range(0, max(1, table.shape[0]), step)
    ]
    value = parts[0] if len(parts) == 1 else xp.concat(parts)
    return xp.reshape(astype(value - log_z, ring.cores[0].dtype), shape)


def _differentiable(ring: TensorRing, rows: Array, engine: Engine) -> Array:
    """log p of rows (b, d) in the accumulator's dtype, in bounded memory between the passes."""
    step = _rows_kept(ring, rows, engine)
    if rows.shape[0] <= step:  # Z is one more row, which observes nothing
        values = log_mass(ring, Evidence.of_rows(ring, rows).with_missing_row(), engine)
        _check_normalizer(ring, values[-1])
        return values[:-1] - values[-1]
    parts = [
        checkpoint(lambda some: log_mass(ring, Evidence.of_rows(ring, some), engine), rows[start : start + step])
        for start in range(0, rows.shape[0], step)
    ]
    return namespace(rows).concat(parts) - _log_normalizer(ring)


def log_normalizer(ring: TensorRing) -> Array:
    """log Z = log Tr ∏_k Σ_s Q_k[s], a scalar array.

    Raises:
        ValueError: if no configuration of the components has any mass.
    """
    return astype(_log_normalizer(ring), ring.cores[0].dtype) + 0  # never what the ring itself remembers


def _log_normalizer(ring: TensorRing) -> Array:
    """log Z in the accumulator's dtype."""
    return ring._remembered("log_normalizer", lambda: _computed_log_normalizer(ring))


def _computed_log_normalizer(ring: TensorRing) -> Array:
    value = log_mass(ring, Evidence.missing(ring), "auto")[0]
    _check_normalizer(ring, value)
    return value


def _check_normalizer(ring: TensorRing, value: Array) -> None:
    if ring.validate and is_concrete(value) and float(stop_gradient(value)) == -math.inf:
        raise ValueError("the ring must give some configuration a positive mass, found Z = 0")


def _rows_per_chunk(ring: TensorRing, engine: Engine) -> int:
    """Rows whose evidence and matrices stay within CHUNK numbers, or as many as the cores have if they are more.

    Other engines than the sweep and the log engine, which "auto" prefers to the tree for large cores on a CPU, may hold
    the matrices of all columns at once.
    """
    squares = [core.shape[1] * core.shape[2] for core in ring.cores]
    cores = sum(size * square for size, square in zip(ring.shape, squares, strict=True))
    swept = engine in ("sweep", "log") or (
        engine == "auto" and not on_accelerator(ring.cores[0]) and max(squares) > 256
    )
    at_once = 8 * max(squares) if swept else sum(squares)
    return max(1, max(CHUNK, cores) // (3 * (sum(ring.shape) + at_once)))


def _rows_kept(ring: TensorRing, rows: Array, engine: Engine) -> int:
    """Of how many rows a backward pass keeps what it needs; if there are more, it computes theirs again, part by part.

    Of parts that would be small, a sweep keeps less instead: see `contraction.is_lean`.
    """
    if backend_name(rows) == "torch" and not is_concrete(rows, ring.cores[0]):
        return int(rows.shape[0])
    step = contraction.KEPT // contraction.numbers_kept(ring)
    if step < MANY and engine in ("auto", "sweep"):
        step = contraction.KEPT // contraction.numbers_kept(ring, lean=True)
    return max(1, step)


def entropy(ring: TensorRing, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
    """Entropy −E[log p(X)] in nats (differential in continuous columns) and its standard error.

    Exact, with standard error 0, for categorical rings of at most 2^16 cells; else the mean over n samples.

    Raises:
        ValueError: if n < 2 where sampling is needed.
    """
    if _is_discrete(ring) and math.prod(ring.shape) <= ENTROPY_LIMIT:
        table = to_numpy(to_dense(ring)).astype("float64")
        return float(scipy.special.entr(table).sum()), 0.0
    if n < 2:
        raise ValueError(f"a Monte-Carlo estimate needs n >= 2 samples, found {n}")
    values = to_numpy(log_prob(ring, ring.sample(n, rng=rng))).astype("float64")
    return -float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))


def inner(ring: TensorRing, other: TensorRing) -> Array:
    """Σ or ∫ p(x) q(x) dx, a scalar array, in closed form: the contraction of the two rings, O(d r r' m m' (m + m' N)).

    Raises:
        ValueError: if the rings' orders differ by more than a rotation, or two variables are of different families.
        TypeError: if the rings mix backends.
    """
    if not isinstance(other, type(ring)):
        raise TypeError(f"an inner product is with another TensorRing, found {type(other).__name__}")
    xp = namespace(ring.cores[0], other.cores[0])
    if len(ring.order) != len(other.order):
        raise ValueError(f"rings must have the same columns, found {len(ring.order)} and {len(other.order)}")
    turn = other.order.index(ring.sequence[0])
    if other.order[turn:] + other.order[:turn] != ring.sequence:
        raise ValueError(f"rings must have one order up to rotation, found {list(ring.order)} and {list(other.order)}")
    r, q = min(ring.ranks), int(other.cores[ring.sequence[0]].shape[1])
    dtype = ring.cores[0].dtype
    ring, other = widened(ring), widened(other)  # there is no log engine to turn to, so it takes that range
    core = ring.cores[0]
    state = identity(r * q, core)  # cut bonds (r q) x current bonds (m m')
    logs = like_zeros((r * q,), core)
    for k in ring.sequence:
        try:
            gram = like(ring.variables[k].inner(other.variables[k]), core)
        except ValueError as error:
            raise ValueError(f"{ring.describe(k)}: {error}") from None
        (size, left, right), (size_q, left_q, right_q) = ring.cores[k].shape, other.cores[k].shape
        if isinstance(ring.variables[k], Categorical) and size != size_q:
            raise ValueError(f"{ring.describe(k)}: categories must be the same, found {size} and {size_q}")
        matched = xp.reshape(gram @ xp.reshape(other.cores[k], (size_q, -1)), (size, left_q, right_q))
        state = xp.reshape(state, (r * q, left, left_q))
        state = opt_einsum.contract("zab,sac,sbd->zcd", state, ring.cores[k], matched, optimize="optimal")
        state = xp.reshape(state, (r * q, right * right_q))
        top = stop_gradient(xp.max(state, axis=-1))
        top = xp.where(top > 0, top, 1.0)
        state, logs = state / top[:, None], logs + xp.log(top)
    log_value = log_scaled_sum(xp.linalg.diagonal(state), logs)
    return astype(xp.exp(log_value - _log_normalizer(ring) - _log_normalizer(other)), dtype)


def to_dense(ring: TensorRing) -> Array:
    """The table of probabilities, shape (N_1, ..., N_d), summing to 1.

    Raises:
        ValueError: if a column is not categorical or the table has more than 2^24 cells.
    """
    for k, variable in enumerate(ring.variables):
        if not isinstance(variable, Categorical):
            raise ValueError(f"{ring.describe(k)}: a dense table needs categorical columns, found {variable!r}")
    if math.prod(ring.shape) > DENSE_LIMIT:
        raise ValueError(f"a dense table may have at most {DENSE_LIMIT} cells, found {math.prod(ring.shape)}")
    equation, operands = einsum(ring, range(ring.num_variables))
    xp = namespace(operands[0])
    scaled = [core / stop_gradient(xp.max(core)) for core in operands]  # keeps extreme cores within range
    table = opt_einsum.contract(equation, *scaled, optimize="greedy")
    total = xp.sum(table)
    if is_concrete(table):
        tops = sum(safe_log(stop_gradient(xp.max(core))) for core in operands)
        lost = safe_log(stop_gradient(total)) + tops - stop_gradient(_log_normalizer(ring))
        if not abs(float(lost)) < 16 * ring.num_variables * float(xp.finfo(table.dtype).eps):
            return _dense_by_cells(ring)
    return table / total


def _dense_by_cells(ring: TensorRing) -> Array:
    """The table from the likelihood of every cell, which has a refuge where products underflow."""
    cells, core = math.prod(ring.shape), ring.cores[0]
    parts = []
    for start in range(0, cells, CELLS):
        places = np.unravel_index(np.arange(start, min(start + CELLS, cells)), ring.shape)
        parts.append(log_prob(ring, indices(np.stack(places, axis=1), core)))
    xp = namespace(core)
    return xp.reshape(xp.exp(xp.concat(parts)), ring.shape)


def _is_discrete(ring: TensorRing) -> bool:
    return all(isinstance(variable, Categorical) for variable in ring.variables)
