"""Log-likelihood and normaliser."""

from __future__ import annotations

import math
from typing import Any

from ringdist.backend import (
    Array,
    astype,
    backend_name,
    can_reuse_memory,
    checkpoint,
    is_concrete,
    namespace,
    on_accelerator,
    stop_gradient,
)
from ringdist.engines import budget
from ringdist.engines.budget import rows_within
from ringdist.engines.choice import Engine, log_mass
from ringdist.engines.sweep import numbers_at_once, numbers_kept
from ringdist.network import Evidence, Network
from ringdist.network.events import Events
from ringdist.network.rows import as_table, checked

MANY = 256  # rows for which reading the cores once more in each part costs little


def log_prob(ring: Network, x: Any, engine: Engine = "auto") -> Array:
    """log p(x) = log Tr ∏_k A_k(x_k) − log Z, with NaN entries marginalised row by row (paper Eq. 2, 3).

    Args:
        x: (..., d) real numbers, with integral values in categorical columns. Integer arrays are accepted.
        engine: "auto" chooses between "sweep" and "tree" by device, ranks and rows; "log" works in log space;
            "opt_einsum" and "tensornetwork" contract the same network with those libraries.

    Returns:
        (...) in nats (densities per unit of each continuous column), in the cores' dtype; −inf where the mass is zero.
        Gradients, also of second order, flow to the cores, the variables' arrays and x. Cost O(b d m² (r + N)) for b
        rows. A backward pass needs 2 b d m² numbers; if these are too many, it recomputes them, at the cost of one
        more likelihood and in bounded memory.

    Raises:
        ValueError: if the last axis does not have length d, a value is outside its support, or the engine is unknown.
        TypeError: if x and the ring have different backends.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> np.exp(ring.log_prob([[0, 0], [1, 1], [0, np.nan]])).round(3)
        array([0.4, 0.3, 0.5])
    """
    table, shape = as_table(ring, x)
    values = log_densities(ring, table, engine)
    return namespace(table).reshape(astype(values, ring.prototype.dtype), shape)


def log_densities(ring: Network, table: Array, engine: Engine = "auto", events: Events | None = None) -> Array:
    """log p of rows (b, d), and of events with each of them, (b,), in the accumulator's dtype; see `log_prob`."""
    xp = namespace(table)
    parameters = [array for variable in ring.variables for array in variable.arrays().values()]
    if not can_reuse_memory(*ring.core_arrays(), *parameters, table) and table.shape[0] > 0:
        return _differentiable(ring, checked(ring, table), engine, events)
    step = _rows_per_chunk(ring, engine) if is_concrete(table) else max(1, table.shape[0])
    if 0 < table.shape[0] < step and not ring.owns_cores and on_accelerator(ring.prototype):
        return _with_normalizer(ring, checked(ring, table), engine, events)  # half as many launches as apart
    log_z = log_partition(ring)
    parts = [
        log_mass(ring, Evidence.of_rows(ring, checked(ring, table[start : start + step]), events=events), engine)
        for start in range(0, max(1, table.shape[0]), step)
    ]
    return (parts[0] if len(parts) == 1 else xp.concat(parts)) - log_z


def _differentiable(ring: Network, rows: Array, engine: Engine, events: Events | None) -> Array:
    """log p of rows (b, d) in the accumulator's dtype, in bounded memory between the passes."""
    step = _rows_stored(ring, rows, engine)
    if rows.shape[0] <= step:
        return _with_normalizer(ring, rows, engine, events)

    def masses(some: Array) -> Array:
        return log_mass(ring, Evidence.of_rows(ring, some, events=events), engine)

    parts = [checkpoint(masses, rows[start : start + step]) for start in range(0, rows.shape[0], step)]
    return namespace(rows).concat(parts) - log_partition(ring)


def _with_normalizer(ring: Network, rows: Array, engine: Engine, events: Events | None) -> Array:
    """log p of rows (b, d), with Z as an additional row in which every entry is missing."""
    values = log_mass(ring, Evidence.of_rows(ring, rows, events=events).with_missing_row(), engine)
    _check_normalizer(ring, values[-1])
    return values[:-1] - values[-1]


def log_normalizer(ring: Network) -> Array:
    """log Z = log Tr ∏_k Σ_s Q_k[s], a scalar array.

    Raises:
        ValueError: if no configuration of the components has any mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> ring = rd.TensorRing([np.array([[[2.0]], [[6.0]]])], [rd.Categorical(2)])
        >>> round(float(np.exp(ring.log_normalizer())), 6)
        8.0
    """
    return astype(log_partition(ring), ring.prototype.dtype) + 0  # not the cached array itself


def log_partition(ring: Network) -> Array:
    """log Z in the accumulator's dtype."""
    return ring.remembered("log_normalizer", lambda: _computed_log_partition(ring))


def _computed_log_partition(ring: Network) -> Array:
    value = log_mass(ring, Evidence.missing(ring), "auto")[0]
    _check_normalizer(ring, value)
    return value


def _check_normalizer(ring: Network, value: Array) -> None:
    if ring.validate and is_concrete(value) and float(stop_gradient(value)) == -math.inf:
        raise ValueError("the ring must give some configuration a positive mass, found Z = 0")


def _rows_per_chunk(ring: Network, engine: Engine) -> int:
    """Rows whose evidence and matrices fit the memory budget, or the size of the cores if that is larger.

    Other engines than the sweep and the log engine, which "auto" prefers to the tree for large cores on a CPU, may hold
    the matrices of all columns at once.
    """
    squares = [core.shape[1] * core.shape[2] for core in ring.links]
    swept = engine in ("sweep", "log") or (
        engine == "auto" and not on_accelerator(ring.prototype) and (max(squares) > 256 or not ring.is_dense)
    )
    at_once = numbers_at_once(ring) if swept else sum(squares)
    return rows_within(max(budget.at_once(ring.prototype), ring.core_size), 3 * (sum(ring.shape) + at_once))


def _rows_stored(ring: Network, rows: Array, engine: Engine) -> int:
    """Number of rows whose intermediate results are stored for a backward pass; for more rows, parts are recomputed.

    If parts would be small, a sweep stores less instead, see `sweep.recomputes`. PyTorch does not accept recomputed
    results that differ, as those of tensornetwork, whose contraction sequence may change.
    """
    if backend_name(rows) == "torch" and (engine == "tensornetwork" or not is_concrete(rows, ring.prototype)):
        return int(rows.shape[0])
    step = budget.stored(rows) // numbers_kept(ring)
    if step < MANY and engine in ("auto", "sweep"):
        step = budget.stored(rows) // numbers_kept(ring, lean=True)
    return max(1, step)
