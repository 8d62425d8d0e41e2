"""The most probable completion of missing entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    backend_name,
    indices,
    is_array,
    is_concrete,
    like,
    logsumexp,
    namespace,
    stop_gradient,
    take,
    to_numpy,
)
from ringdist.engines import budget
from ringdist.engines.arithmetic import Linear, State
from ringdist.engines.budget import rows_within
from ringdist.engines.rescue import replace_rows
from ringdist.engines.sweep import suffix_states
from ringdist.network import Evidence, Network
from ringdist.network.rows import as_rows, side_by_side, site_values
from ringdist.queries.log_prob import log_prob
from ringdist.queries.sampling import sample_given
from ringdist.variables import Family

EXACT_LIMIT = 2**12  # completions of a row up to which all are compared
STARTS = 8  # completions that the search starts from
PASSES = 20  # sweeps of coordinate ascent at most
REFINEMENTS = 40  # halvings of the step around a continuous column's best point


def mode(ring: Network, x: Any = None) -> Array:
    """The completion of highest density found: (d,) for x None, else x (..., d) with its NaN entries filled.

    Exact if the missing columns of a row are all categorical and have at most 4096 completions: all are compared.
    Otherwise a bounded search: coordinate ascent from several completions drawn from the posterior with a fixed seed.
    It sets each column to its best value given all others, exactly for categorical columns. The density of the result
    is never below that of any starting point, but it is not guaranteed to be the global maximum. Rows are completed
    together, even if they miss different columns.

    Raises:
        ValueError: if x does not fit or the evidence of a row has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.mode([[np.nan, np.nan], [1, np.nan]])
        array([[0., 0.],
               [1., 1.]])
    """
    core = ring.prototype
    ring = ring.detach()
    x = like(np.full(ring.num_columns, np.nan), core) if x is None else x
    rows, shape = as_rows(ring, stop_gradient(x) if is_array(x) else x)
    if not is_concrete(rows):
        raise ValueError("mode inspects values and cannot be traced")
    result = to_numpy(rows).copy()
    missing = np.isnan(result)
    incomplete = np.flatnonzero(missing.any(axis=1))
    if incomplete.shape[0]:
        _check_mass(ring, take(rows, indices(incomplete, core)), incomplete)
    many = enumerate_few(ring, result, missing, lambda cells: log_prob(ring, cells))
    for some in _pieces(many, STARTS * _numbers_per_start(ring)):
        result[some] = to_numpy(_searched(ring, take(rows, indices(some, core)), missing[some], some))
    return namespace(core).reshape(like(result, core), (*shape, ring.num_columns))


def _check_mass(ring: Network, rows: Array, row_numbers: np.ndarray) -> None:
    empty = np.flatnonzero(to_numpy(log_prob(ring, rows)) == -np.inf)
    if empty.shape[0]:
        raise ValueError(f"evidence must have positive mass, found zero mass in row {int(row_numbers[empty[0]])}")


def enumerate_few(
    ring: Network, rows: np.ndarray, missing: np.ndarray, density: Callable[[Array], Array]
) -> np.ndarray:
    """Complete, in place, the rows (n, d) with few completions; the indices of the other incomplete rows.

    Args:
        ring: over whose columns the rows are.
        rows: (n, d), NaN where `missing`.
        missing: (n, d) bool.
        density: log p of complete rows (n, d), (n,).
    """
    incomplete = np.flatnonzero(missing.any(axis=1))
    counts = _completions(ring, missing[incomplete])
    few = incomplete[counts <= EXACT_LIMIT]
    magnitude = np.ceil(np.log2(counts[counts <= EXACT_LIMIT]))
    for bits in np.unique(magnitude):  # at most 12: rows of nearly equal numbers of completions go together
        for some in _pieces(few[magnitude == bits], 2 ** int(bits) * ring.num_columns):
            rows[some] = _enumerated(ring, rows[some], missing[some], 2 ** int(bits), density)
    return incomplete[counts > EXACT_LIMIT]


def _completions(ring: Network, missing: np.ndarray) -> np.ndarray:
    """How many completions rows with these missing entries (n, d) have, (n,) in float64; infinite beyond its range."""
    families = [ring.families[i] for i, _ in ring.layout.places]
    sizes = [family.num_components if family.values_are_components else np.inf for family in families]
    with np.errstate(over="ignore"):
        return np.prod(np.where(missing, sizes, 1.0), axis=1)


def _pieces(rows: np.ndarray, numbers_per_row: int) -> Iterator[np.ndarray]:
    """The rows in parts whose temporary arrays fit the memory budget."""
    step = rows_within(budget.TEMPORARY, numbers_per_row)
    for start in range(0, rows.shape[0], step):
        yield rows[start : start + step]


def _enumerated(
    ring: Network, rows: np.ndarray, missing: np.ndarray, count: int, density: Callable[[Array], Array]
) -> np.ndarray:
    """The best of all completions of rows (n, d) with at most `count` completions; rows with fewer repeat them."""
    n, d = rows.shape
    sizes = np.where(missing, [ring.shape[i] for i, _ in ring.layout.places], 1)
    strides = np.cumprod(sizes[:, ::-1], axis=1)[:, ::-1] // sizes  # the last missing column changes fastest
    best, value = rows, np.full(n, -np.inf)
    block = rows_within(budget.TEMPORARY, n * d)
    for start in range(0, count, block):
        number = np.arange(start, min(start + block, count))[:, None]
        cells = np.where(missing[:, None], number // strides[:, None] % sizes[:, None], rows[:, None])  # (n, block, d)
        values = to_numpy(density(like(np.reshape(cells, (-1, d)), ring.prototype)))
        values = np.reshape(values, cells.shape[:2])
        top = np.argmax(values, axis=1)[:, None]
        found = np.take_along_axis(values, top, axis=1)[:, 0]
        best = np.where((found > value)[:, None], np.take_along_axis(cells, top[..., None], axis=1)[:, 0], best)
        value = np.maximum(found, value)
    return best


def _numbers_per_start(ring: Network) -> int:
    """Numbers in the suffix states and evidence of one row of the search, and in the densities of its candidates."""
    return sum(min(ring.ranks) * m + n for n, m, _ in (core.shape for core in ring.links)) + 2 * max(ring.shape) ** 2


def _searched(ring: Network, rows: Array, missing: np.ndarray, row_numbers: np.ndarray) -> Array:
    """The best of the completions of rows (n, d) that coordinate ascent finds from STARTS draws of each."""
    xp, (n, d) = namespace(rows), rows.shape
    starts = xp.reshape(sample_given(ring, rows, STARTS, rng=0, row_numbers=row_numbers), (-1, d))
    found, values = _ascend(ring, starts, np.tile(missing, (STARTS, 1)))
    best = xp.argmax(xp.reshape(values, (STARTS, n)), axis=0)
    return take(found, best * n + indices(np.arange(n), rows))


def _ascend(ring: Network, rows: Array, free: np.ndarray) -> tuple[Array, Array]:
    """Sweeps of coordinate ascent, until a row does not improve; the rows (n, d) and their log p.

    Args:
        free: (n, d) bool, the entries that may change.
    """
    xp = namespace(rows)
    values, active = log_prob(ring, rows), np.arange(rows.shape[0])
    for _ in range(PASSES):
        index = indices(active, rows)
        before, updated = take(values, index), _ascend_once(ring, take(rows, index), free[active])
        after = log_prob(ring, updated)
        better = after > before
        rows = replace_rows(rows, index, xp.where(better[:, None], updated, take(rows, index)))
        values = replace_rows(values, index, xp.where(better, after, before))
        gains = to_numpy(better & (after > before + 1e-6))
        if not gains.any():
            break
        if not _compiles(rows):
            active = active[gains]
    return rows, values


def _ascend_once(ring: Network, rows: Array, free: np.ndarray) -> Array:
    """One sweep of coordinate ascent, with suffix states computed once and prefixes of the new values."""
    xp, n = namespace(rows), rows.shape[0]
    arithmetic = Linear(ring, Evidence.of_rows(ring, rows))
    suffixes = suffix_states(arithmetic, first=1)[::-1]
    state, values = arithmetic.start(), [site_values(ring, rows, i) for i in range(ring.num_variables)]
    for k in ring.sequence:
        here = free[:, list(ring.columns[k])]  # (n, width)
        suffix, moving = suffixes.pop(), np.flatnonzero(here.any(axis=1))
        if not moving.shape[0]:
            state = arithmetic.push(state, k)
            continue
        every = _compiles(rows) or moving.shape[0] == n
        index = indices(np.arange(n) if every else moving, rows)
        left, right = (part if every else _of_rows(part, index) for part in (state, suffix))
        current = values[k] if every else take(values[k], index)
        log_weights, _ = arithmetic.component_weights(left, k, right)
        loose = like(here if every else here[moving], rows, xp.bool)
        if ring.families[k].width == 1:
            best = xp.where(loose[:, 0], _best_value(ring.families[k], log_weights, current), current)
        else:
            best = _best_row(ring.families[k], log_weights, current, loose)
        values[k] = best if every else replace_rows(values[k], index, best)
        state = Linear(ring, Evidence.of_site(ring, k, values[k])).push(state, k)
    return side_by_side(ring, values)


def _compiles(array: Array) -> bool:
    """Whether a new number of rows would recompile all operations, which costs more than redundant rows."""
    return backend_name(array) == "jax"


def _of_rows(state: State, index: Array) -> State:
    """The state of some rows; a state that all rows share is unchanged."""
    values, logs, low = (
        part if part is None or part.shape[0] == 1 else take(part, index)
        for part in (state.values, state.logs, state.low)
    )
    return State(values, logs, low, state.age, state.is_start)


def _best_value(family: Family, log_weights: Array, current: Array) -> Array:
    """argmax_z Σ_s exp(log_weights[s]) p(z | s) over the components' centres, refined by decreasing steps."""
    xp = namespace(log_weights)
    means, stds = like(family.centres(), log_weights), like(family.scales(), log_weights)
    integer = family.integer
    means = xp.floor(means) if integer else means
    means = means[:, 0, :] if means.ndim == 3 else means  # of each row

    def density(z: Array) -> Array:
        return logsumexp(like(family.log_density(z), log_weights) + log_weights[:, None, :])

    points = xp.concat([current[:, None], xp.broadcast_to(means, (current.shape[0], means.shape[-1]))], axis=1)
    z = _argbest(points, density(points))
    step = xp.max(stds) + 0 * z
    for _ in range(0 if family.values_are_components else REFINEMENTS):
        move = xp.ceil(step) if integer else step
        points = xp.stack([z, z - move, z + move], axis=1)
        inside = family.in_support(points)
        values = xp.where(inside, density(xp.where(inside, points, z[:, None])), -xp.inf)
        chosen = _argbest(points, values)
        step = xp.where(chosen == z, step / 2, step)
        z = chosen
    return z


def _best_row(family: Family, log_weights: Array, current: Array, loose: Array) -> Array:
    """argmax over the missing entries (n, width) of Σ_s exp(log_weights[s]) p(row | s) of a wide variable.

    Starts from the best of the components' conditional means, and improves one column after another by `_best_value`.
    """
    xp = namespace(log_weights)
    means = like(family.conditional_means(xp.where(loose, xp.nan, current)), current)
    points = xp.concat([current[:, None, :], xp.where(loose[:, None, :], means, current[:, None, :])], axis=1)
    density = logsumexp(like(family.log_density(points), log_weights) + log_weights[:, None, :])
    row = xp.take_along_axis(points, xp.argmax(density, axis=1)[:, None, None], axis=1)[:, 0, :]
    for place in range(family.width):
        here = like(np.arange(family.width) == place, current, xp.bool)
        column = family.conditional(row, place)
        column = column.with_arrays({name: array[:, None, :] for name, array in column.arrays().items()})
        weights = log_weights + like(family.log_density(xp.where(here, xp.nan, row)), log_weights)
        row = xp.where(here & loose, _best_value(column, weights, row[:, place])[:, None], row)
    return row


def _argbest(points: Array, values: Array) -> Array:
    xp = namespace(points)
    best = xp.argmax(values, axis=1)
    return xp.take_along_axis(points, best[:, None], axis=1)[:, 0]
