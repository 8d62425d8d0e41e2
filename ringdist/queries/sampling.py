"""Exact sampling: the bonds are latent variables and are drawn first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    astype,
    draw,
    index_dtype,
    indices,
    like,
    like_zeros,
    namespace,
    nonzero_rows,
    stack,
    stop_gradient,
    take,
    to_numpy,
    uniform,
)
from ringdist.engines import budget
from ringdist.engines.arithmetic import Arithmetic, Linear, Log, State
from ringdist.engines.budget import rows_within
from ringdist.engines.range import threshold
from ringdist.engines.rescue import lost_rows
from ringdist.engines.sweep import suffix_states
from ringdist.network import Column, Evidence, Network
from ringdist.network.events import Events, as_events, check_masses, check_observed, described, restricted
from ringdist.network.rows import as_rows, site_values
from ringdist.queries.top_down import components_top_down, in_order, prefers_tree, tree_of

Naming = Callable[[int], str]


def sample(ring: Network, n: int, *, rng: Any = None) -> Array:
    """n independent exact samples, (n, d) in the cores' dtype; categories are integers.

    The tree of products costs O(d m³) and is cached by a ring that owns its cores. Then bonds are drawn top-down, all
    segments of a level at once: O(m + N) per variable and sample, in ⌈log2 d⌉ steps. Trains of high rank are swept
    backwards instead, O(d m²), as are rings with matrices whose entries span more than the dtype's range.

    Args:
        n: number of samples, 0 or more.
        rng: seed, or the backend's own generator or key; None is fresh entropy (`ValueError` for JAX). Under
            `torch.compile` None is PyTorch's global generator, and a seed or another generator breaks the graph.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> x = ring.sample(10_000, rng=0)
        >>> bool(abs((x == [0, 0]).all(axis=1).mean() - 0.4) < 0.02)
        True
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"n must be an integer, found {n!r}")
    if n < 0:
        raise ValueError(f"n must be 0 or more, found {n}")
    stream, detached = Stream(rng, ring.prototype), ring.detached_cores()
    tree = tree_of(detached) if prefers_tree(ring) else None
    if tree is not None:
        components = components_top_down(detached, tree, n, stream)
    else:
        row = like_zeros((n,), ring.prototype, index_dtype(ring.prototype))
        components = _components(detached, Evidence.missing(ring), row, stream, _naming(np.zeros(1), {}))
    return _emit(ring, components, None, stream)


def sample_given(
    ring: Network,
    x: Any,
    n: int | None = None,
    *,
    event: Mapping[Column, Any] | None = None,
    rng: Any = None,
    row_numbers: np.ndarray | None = None,
) -> Array:
    """x with the NaN entries of every row drawn from p(missing | observed, event); observed entries are unchanged.

    First components are drawn from their posterior, in which an event weights them by their mass. Then values are drawn
    from the truncated components, by inverting their distribution functions.

    Args:
        x: (..., d) evidence. n: draws per row; None is one draw without a leading axis.
        event: maps a column (index or name) to an `rd.Interval` or a set of categories that contains the draws, however
            small its probability.
        rng: seed, or the backend's own generator or key; None is fresh entropy (`ValueError` for JAX); under
            `torch.compile` it is PyTorch's global generator, and a seed or another generator breaks the graph.
        row_numbers: row numbers for error messages, 0, 1, ... if None.

    Returns:
        (..., d), or (n, ..., d), in the cores' dtype. The cost is that of a likelihood, then O(m N) per variable and
        draw.

    Raises:
        ValueError: if x does not fit, the evidence of a row has zero mass, the event does not fit (see `probability`)
            or has zero mass, or an observed entry contradicts it.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> x = ring.sample_given([[0, np.nan], [1, np.nan]], 10_000, rng=0)
        >>> x.shape
        (10000, 2, 2)
        >>> x[..., 1].mean(axis=0).round(1)  # p(x_1 = 1 | x_0)
        array([0.2, 0.6])
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer)):
        raise TypeError(f"n must be an integer or None, found {n!r}")
    if n is not None and n < 0:
        raise ValueError(f"n must be 0 or more, found {n}")
    rows, shape = as_rows(ring, x)
    events = as_events(ring, event or {})
    check_masses(events, ring.prototype)
    emitting = restricted(ring, events)
    xp = namespace(rows)
    stream, draws = Stream(rng, rows), 1 if n is None else int(n)
    per_row = sum(min(ring.ranks) * core.shape[1] + core.shape[0] for core in ring.links)
    step = rows_within(budget.at_once(ring.prototype), per_row)
    row_numbers = np.arange(rows.shape[0]) if row_numbers is None else row_numbers
    parts = []
    for start in range(0, max(1, rows.shape[0]), step):
        chunk = rows[start : start + step]
        numbers = row_numbers[start : start + step]
        check_observed(events, chunk, numbers)
        index = xp.tile(indices(range(chunk.shape[0]), rows), (draws,))
        evidence = Evidence.of_rows(ring, chunk, events=events).detach()
        components = _components(ring.detached_cores(), evidence, index, stream, _naming(numbers, events))
        drawn = _emit(emitting, components, take(chunk, index), stream)
        parts.append(xp.reshape(drawn, (draws, chunk.shape[0], ring.num_columns)))
    drawn = xp.concat(parts, axis=1)
    return xp.reshape(drawn, (*shape, ring.num_columns) if n is None else (draws, *shape, ring.num_columns))


def _naming(row_numbers: np.ndarray, events: Events) -> Naming:
    """The evidence of a row, as error messages name it."""
    also = f" for {described(events)}" if events else ""
    return lambda i: f"row {int(row_numbers[i])}{also}"


def _components(ring: Network, evidence: Evidence, row: Array, stream: Stream, naming: Naming) -> Array:
    """Components (n, sites) drawn from their posterior under the evidence of the rows `row`.

    Rows whose suffix products may have lost mass, and draws on whose way a total weight came near underflow, are made
    again in log space from the same uniform numbers, so that the choice of arithmetic does not bias them.
    """
    core = ring.prototype
    if row.shape[0] == 0:
        return indices(np.zeros((0, ring.num_variables)), core)
    linear = Linear(ring, evidence)
    suffixes = suffix_states(linear)
    lost = _lost_rows(linear, suffixes[0]) if linear.inspects_values else None
    per_draw = 2 * ring.num_variables + max(size * right for size, _, right in (c.shape for c in ring.links))
    step = rows_within(budget.at_once(ring.prototype), per_draw)
    parts = [
        _some_components(linear, suffixes, lost, row[start : start + step], stream, naming)
        for start in range(0, row.shape[0], step)
    ]
    return namespace(core).concat(parts)


def _some_components(
    linear: Linear, suffixes: list[State], lost: Array | None, row: Array, stream: Stream, naming: Naming
) -> Array:
    """`_components` of draws that fit into memory together; `lost` are rows of the evidence."""
    ring, evidence, core, n = linear.ring, linear.evidence, linear.ring.prototype, row.shape[0]
    uniforms = uniform(stream.next(), (2 * ring.num_variables, n), core)
    components, low = _draw(linear, suffixes, row, uniforms)
    if lost is None:
        return components
    inexact = like(np.isin(to_numpy(row), to_numpy(lost)), row, namespace(core).bool)
    again = nonzero_rows((low < threshold(ring)) | inexact)
    if again.shape[0] == 0:
        return components
    xp = namespace(core)
    some = take(row, again)
    used, position = np.unique(to_numpy(some), return_inverse=True)
    subset = evidence.rows(indices(used, core))
    log = Log(ring, subset)
    redone, low = _draw(log, suffix_states(log), indices(position, core), take(uniforms, again, axis=1))
    empty = nonzero_rows(low == 0)
    if empty.shape[0]:
        raise ValueError(f"evidence must have positive mass, found zero mass in {naming(int(some[empty[0]]))}")
    source = np.arange(n)
    source[to_numpy(again)] = n + np.arange(again.shape[0])
    return take(xp.concat([components, redone]), indices(source, core))


def _lost_rows(linear: Linear, closed: State) -> Array:
    """Rows that lost more of their mass than rounding to underflow in the suffix products."""
    value, low = linear.close(closed)

    def floored(ring: Network, evidence: Evidence) -> Array:
        bound = Linear(ring, evidence, floored=True)
        return bound.close(suffix_states(bound)[0])[0]

    return lost_rows(linear.ring, linear.evidence, value, low, floored, 1e-6)


def _draw(arithmetic: Arithmetic, suffixes: list[State], row: Array, uniforms: Array) -> tuple[Array, Array]:
    """A path of bonds and components for every entry of `row`, (n, sites), and the least total weight of its steps."""
    ring, xp = arithmetic.ring, arithmetic.xp
    sequence, d = ring.sequence, ring.num_variables
    shared = suffixes[0].values.shape[0] == 1
    base = row * 0 if shared else row
    closing, right = (take(part, base) for part in arithmetic.cut_weights(suffixes[0]))
    closing = astype(closing, uniforms.dtype)
    low = xp.where(right, xp.sum(closing, axis=-1), 0.0)
    cut = draw(closing, uniforms[0])
    bond, components = cut, {}
    for j, k in enumerate(sequence):
        following = cut
        if j + 1 < d:
            state = suffixes[j + 1].values
            beyond = state[base * 0 if state.shape[0] == 1 else base, cut]
            weights = arithmetic.bond_weights(k, row, bond, beyond)
            low = xp.minimum(low, astype(xp.sum(weights, axis=-1), low.dtype))
            following = draw(weights, astype(uniforms[j + 1], weights.dtype))
        weights = arithmetic.value_weights(k, row, bond, following)
        low = xp.minimum(low, astype(xp.sum(weights, axis=-1), low.dtype))
        components[k] = draw(weights, astype(uniforms[d + j], weights.dtype))
        bond = following
    return stack([components[k] for k in range(d)], axis=1), low


def _emit(ring: Network, components: Array, given: Array | None, stream: Stream) -> Array:
    """Values (n, d) drawn from the densities of components (n, sites), and the observed entries of `given`."""
    core = ring.prototype
    xp = namespace(core)
    parts = []
    for sites in ring.groups:
        families, columns = [ring.families[i] for i in sites], [k for i in sites for k in ring.columns[i]]
        values = take(components, indices(list(sites), core), axis=1).T  # (g, n)
        if families[0].width > 1:
            known = None if given is None else site_values(ring, given, sites[0])
            values = families[0].sample_given(values[0], known, stream.next()).T
        elif families[0].stacks and not families[0].values_are_components:
            values = families[0].stack(families).sample(values, stream.next())
        elif not families[0].values_are_components:
            values = families[0].sample(values[0], stream.next())[None]
        parts.append((columns, like(stop_gradient(values), core)))
    values = in_order(parts)
    return values if given is None else xp.where(xp.isnan(given), values, given)
