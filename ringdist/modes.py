"""The most probable completion of missing entries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ringdist._arithmetic import Linear, State
from ringdist._backend import Array, indices, is_concrete, like, logsumexp, namespace, stack, take, to_numpy
from ringdist._evidence import Evidence, as_rows
from ringdist.likelihood import log_prob
from ringdist.sampling import sample_given
from ringdist.variables import Categorical

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

EXACT_LIMIT = 2**12  # completions of a row up to which all are compared
STARTS = 8  # completions that the search starts from
PASSES = 20  # sweeps of coordinate ascent at most
REFINEMENTS = 40  # halvings of the step around a continuous column's best point


def mode(ring: TensorRing, x: Any = None) -> Array:
    """The completion of highest density found: (d,) for x None, else x (..., d) with its NaN entries filled.

    Exact where the missing columns of a row are all categorical and have at most 4096 completions: all are compared.
    Elsewhere a bounded search: coordinate ascent (each column's best value given all others, exact for categorical
    columns, whole sweeps at once) from several completions drawn from the posterior with a fixed seed. The density of
    the result is never below that of any completion it started from; that it is the global maximum is not guaranteed.

    Raises:
        ValueError: if x does not fit or the evidence of a row has zero mass.
    """
    core = ring.cores[0]
    x = like(np.full(ring.num_variables, np.nan), core) if x is None else x
    rows, shape = as_rows(ring.detach(), x)
    if not is_concrete(rows):
        raise ValueError("mode looks at values and cannot be traced")
    ring = ring.detach()
    missing = np.isnan(to_numpy(rows))
    result = to_numpy(rows).copy()
    patterns, member = np.unique(missing, axis=0, return_inverse=True)
    for p, pattern in enumerate(patterns):
        here = np.flatnonzero(np.reshape(member, -1) == p)
        if pattern.any():
            subset = take(rows, indices(here, core))
            columns = [int(k) for k in np.flatnonzero(pattern)]
            result[here] = to_numpy(_complete(ring, subset, columns, here))
    return namespace(core).reshape(like(result, core), (*shape, ring.num_variables))


def _complete(ring: TensorRing, rows: Array, columns: list[int], labels: np.ndarray) -> Array:
    categorical = all(isinstance(ring.variables[k], Categorical) for k in columns)
    if categorical and math.prod(ring.shape[k] for k in columns) <= EXACT_LIMIT:
        grid = np.indices([ring.shape[k] for k in columns]).reshape(len(columns), -1).T
        candidates = (_filled(rows, columns, like(cells, rows)) for cells in grid)
    else:
        starts = sample_given(ring, rows, STARTS, rng=0, labels=labels)
        candidates = (_ascend(ring, starts[i], columns) for i in range(STARTS))
    return _best(ring, candidates, labels)


def _best(ring: TensorRing, candidates: Iterator[Array], labels: np.ndarray) -> Array:
    xp = namespace(ring.cores[0])
    best = next(candidates)
    value = log_prob(ring, best)
    for other in candidates:
        contender = log_prob(ring, other)
        better = contender > value
        best, value = xp.where(better[:, None], other, best), xp.where(better, contender, value)
    if bool(xp.any(value == -xp.inf)):
        row = int(labels[np.flatnonzero(to_numpy(value) == -np.inf)[0]])
        raise ValueError(f"evidence must have positive mass, found zero mass in row {row}")
    return best


def _filled(rows: Array, columns: list[int], cells: Array) -> Array:
    xp = namespace(rows)
    return xp.stack(
        [
            xp.zeros_like(rows[:, k]) + cells[columns.index(k)] if k in columns else rows[:, k]
            for k in range(rows.shape[1])
        ],
        axis=1,
    )


def _ascend(ring: TensorRing, rows: Array, columns: list[int]) -> Array:
    """Coordinate ascent in sweeps: suffix states are computed once a sweep, the prefix carries the new values."""
    xp = namespace(rows)
    value = log_prob(ring, rows)
    for _ in range(PASSES):
        updated = _ascend_once(ring, rows, set(columns))
        after = log_prob(ring, updated)
        better = after > value
        rows, gain = xp.where(better[:, None], updated, rows), xp.where(better, after - value, 0.0)
        value = xp.where(better, after, value)
        if not bool(xp.any(gain > 1e-6)):
            break
    return rows


def _ascend_once(ring: TensorRing, rows: Array, columns: set[int]) -> Array:
    arithmetic = Linear(ring, Evidence.of_rows(ring, rows))
    suffixes: list[State] = [arithmetic.start()]
    for k in reversed(ring.sequence):
        suffixes.append(arithmetic.push(suffixes[-1], k, backward=True))
    suffixes.reverse()
    state, values = arithmetic.start(), {k: rows[:, k] for k in range(ring.num_variables)}
    for j, k in enumerate(ring.sequence):
        if k in columns:
            log_weights, _ = arithmetic.component_weights(state, k, suffixes[j + 1])
            values[k] = _best_value(ring.variables[k], log_weights, values[k])
            column = stack([values[i] for i in range(ring.num_variables)], axis=1)
            state = Linear(ring, Evidence.of_rows(ring, column, [k])).push(state, k)
        else:
            state = arithmetic.push(state, k)
    return stack([values[k] for k in range(ring.num_variables)], axis=1)


def _best_value(variable: Any, log_weights: Array, current: Array) -> Array:
    """argmax_z Σ_s exp(log_weights[s]) p(z | s) over the components' means and, around the best, ever smaller steps."""
    xp = namespace(log_weights)
    means, variances = like(variable.means(), log_weights), like(variable.variances(), log_weights)
    integer = getattr(variable, "integer", False)
    means = xp.floor(means) if integer else means

    def density(z: Array) -> Array:
        return logsumexp(like(variable.log_density(z), log_weights) + log_weights[:, None, :])

    points = xp.concat([current[:, None], xp.broadcast_to(means, (current.shape[0], means.shape[0]))], axis=1)
    z = _argbest(points, density(points))
    step = xp.sqrt(xp.max(variances)) + 0 * z
    for _ in range(0 if isinstance(variable, Categorical) else REFINEMENTS):
        move = xp.ceil(step) if integer else step
        points = xp.stack([z, z - move, z + move], axis=1)
        inside = variable.in_support(points) if hasattr(variable, "in_support") else xp.isfinite(points)
        values = xp.where(inside, density(xp.where(inside, points, z[:, None])), -xp.inf)
        chosen = _argbest(points, values)
        step = xp.where(chosen == z, step / 2, step)
        z = chosen
    return z


def _argbest(points: Array, values: Array) -> Array:
    xp = namespace(points)
    best = xp.argmax(values, axis=1)
    return xp.take_along_axis(points, best[:, None], axis=1)[:, 0]
