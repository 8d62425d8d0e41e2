"""Exact sampling: the bonds are latent variables and are drawn first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    on_accelerator,
    safe_log,
    stack,
    stop_gradient,
    take,
    to_numpy,
    uniform,
)
from ringdist.cores import LINEAR, Core, CPCore, DenseCore
from ringdist.engines import budget
from ringdist.engines.arithmetic import Arithmetic, Linear, Log, State, relative
from ringdist.engines.budget import rows_within
from ringdist.engines.range import in_range, threshold
from ringdist.engines.rescue import lost_rows
from ringdist.engines.sweep import suffix_states
from ringdist.engines.tree import LARGE, tree_levels
from ringdist.network import Evidence, Network
from ringdist.network.evidence import as_rows


def sample(ring: Network, n: int, *, rng: Any = None) -> Array:
    """n independent exact samples, (n, d) in the cores' dtype; categories are integers.

    The tree of products, O(d m³), kept until a core changes; then the bonds top-down, all segments of a level at once:
    O(m + N) a variable and sample in ⌈log2 d⌉ steps. Trains of high rank are swept backwards instead, O(d m²), as are
    rings with matrices whose entries differ by more than the dtype's range.

    Args:
        n: number of samples, 0 or more.
        rng: seed, or the backend's own generator or key; None is fresh entropy (`ValueError` for JAX); under
            `torch.compile` it is PyTorch's global generator, and a seed or another generator breaks the graph.

    Example:
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
    tree = _tree_of(detached) if _prefers_tree(ring) else None
    if tree is not None:
        components = _sample_top_down(detached, tree, n, stream)
    else:
        row = like_zeros((n,), ring.prototype, index_dtype(ring.prototype))
        components = _components(detached, Evidence.missing(ring), row, stream, np.zeros(1))
    return _emit(ring, components, None, stream)


def _prefers_tree(ring: Network) -> bool:
    """Not for a train whose tree (m³) would cost more than all that a sweep's steps cost to launch."""
    rank = max(ring.ranks)
    return rank - min(ring.ranks) < 128 or on_accelerator(ring.prototype)


class _Group(NamedTuple):
    """Columns whose cores have one shape (N, m, m')."""

    columns: list[int]
    sites: Array  # (g,) their places in the sequence
    cores: list[Core]
    table: Array | None  # (g m m', N), weights of the components by column and bonds, of small dense cores
    factors: tuple[Array, Array, Array] | None  # of CP cores, (g m, c), (g, c, N) and (g m', c)


class _Tree(NamedTuple):
    """A ring's tree of products, as bonds and then components are drawn from it."""

    cut: Array  # (m,) weights of the bond at the cut
    halves: list[tuple[Array, Array, Array]]  # from the top: k segments' left parts by row and right ones by column
    # (k m, m), and where each begins (k, 1)
    groups: list[_Group]


def _tree_of(ring: Network) -> _Tree | None:
    """The tree, kept from call to call if it is small."""
    if 2 * ring.num_variables * max(ring.ranks) ** 2 > budget.REMEMBERED:
        return _computed_tree(ring)
    return ring.remembered("tree", lambda: _computed_tree(ring))


def _computed_tree(ring: Network) -> _Tree | None:
    """None where some product came near underflow, or is not finite."""
    *_, top = levels = list(tree_levels(ring, Evidence.missing(ring)))
    xp, rank = namespace(top.values), top.values.shape[-1]
    logs = safe_log(xp.linalg.diagonal(top.values[0, 0])) + astype(top.logs[0, 0], top.values.dtype)
    if top.low is not None and not bool((top.low[0] >= threshold(ring)) & xp.all(logs < xp.inf)):  # NaN neither
        return None
    halves = []
    for level in levels[:0:-1]:
        if level.factors is not None:
            before, behind = (xp.reshape(part, (-1, rank)) for part in (level.factors[0], level.factors[1].mT))
            halves.append((before, behind, indices(range(0, before.shape[0], rank), logs)[:, None]))
    return _Tree(relative(logs), halves, _groups(ring))


def _groups(ring: Network) -> list[_Group]:
    sites: dict[Any, list[int]] = {}
    for j, k in enumerate(ring.sequence):
        core = ring.links[k]
        sites.setdefault((type(core), core.shape, getattr(core, "inner", None)), []).append(j)
    small = max(ring.ranks) < LARGE and sum(math.prod(core.shape) for core in ring.links) <= budget.REMEMBERED
    near_one = in_range(ring).cores
    groups = []
    for (kind, shape, _), places in sites.items():
        columns, table, factors = [ring.sequence[j] for j in places], None, None
        cores: list[Any] = [near_one[k] for k in columns]
        if small and kind is DenseCore:
            xp, stacked = namespace(ring.prototype), stack([core.dense() for core in cores])
            table = xp.reshape(xp.reshape(stacked, (len(columns), shape[0], -1)).mT, (-1, shape[0]))
        elif small and kind is CPCore:
            factors = _stacked_factors(cores)
        groups.append(_Group(columns, indices(places, ring.prototype), cores, table, factors))
    return groups


def _stacked_factors(cores: Sequence[CPCore]) -> tuple[Array, Array, Array]:
    """Left factors by column and left bond, emissions, and right factors by column and right bond."""
    xp = namespace(cores[0].factor("left"))
    left, emission, right = (stack([core.factor(name) for core in cores]) for name in ("left", "emission", "right"))
    return xp.reshape(left, (-1, left.shape[2])), emission.mT, xp.reshape(right.mT, (-1, right.shape[1]))


def _sample_top_down(ring: Network, tree: _Tree, n: int, stream: Stream) -> Array:
    """Components (n, d) drawn down the tree of products.

    Given the bonds at both ends of a segment, the bond in its middle has the weights left[a, c] right[c, b].
    """
    step = rows_within(budget.at_once(ring.prototype), ring.num_variables * max(*ring.ranks, *ring.shape))
    parts = [_descend(ring, tree, min(step, n - start), stream) for start in range(0, max(n, 1), step)]
    return namespace(ring.prototype).concat(parts)


def _descend(ring: Network, tree: _Tree, n: int, stream: Stream) -> Array:
    core, d, widest = ring.prototype, ring.num_variables, tree.cut.shape[0]
    xp = namespace(core)
    uniforms = uniform(stream.next(), (2 * d, n), core)
    cut = draw(xp.broadcast_to(tree.cut, (n, widest)), uniforms[0])
    bonds = xp.stack([cut, cut])  # before, between and behind the segments, (k + 1, n)
    used = 1
    for before, behind, first in tree.halves:
        pairs = first.shape[0]
        left, right = (xp.reshape(first + ends, (-1,)) for ends in (bonds[:pairs], bonds[1 : pairs + 1]))
        weights = xp.reshape(take(before, left, axis=0) * take(behind, right, axis=0), (pairs, n, widest))
        middle = draw(weights, uniforms[used : used + pairs])
        used += pairs
        halved = xp.reshape(xp.stack([bonds[:pairs], middle], axis=1), (2 * pairs, n))
        bonds = xp.concat([halved, bonds[pairs:]])
    parts = []
    for group in tree.groups:
        left, right = take(bonds[:-1], group.sites), take(bonds[1:], group.sites)  # (g, n)
        weights = _value_weights(group, left, right)
        parts.append((group.columns, draw(weights, take(uniforms[d:], group.sites, axis=0))))
    return _in_order(parts)


def _value_weights(group: _Group, left: Array, right: Array) -> Array:
    """Weights of the components of the group's columns between given bonds, (g, n, N)."""
    xp = namespace(left)
    size, left_rank, right_rank = group.cores[0].shape
    if group.factors is not None:
        before, emission, behind = group.factors
        first, last = (
            indices(range(0, part.shape[0], rank), part)[:, None]
            for part, rank in ((before, left_rank), (behind, right_rank))
        )
        hidden = take(before, xp.reshape(first + left, (-1,))) * take(behind, xp.reshape(last + right, (-1,)))
        return xp.reshape(hidden, (*left.shape, -1)) @ emission
    if group.table is None:
        return xp.stack([core.between(a, b, LINEAR) for core, a, b in zip(group.cores, left, right, strict=True)])
    first = indices(range(0, group.table.shape[0], left_rank * right_rank), group.table)[:, None]
    place = xp.reshape(first + left * right_rank + right, (-1,))
    return xp.reshape(take(group.table, place), (*left.shape, size))


def _in_order(parts: Sequence[tuple[Sequence[int], Array]]) -> Array:
    """(n, d) from some columns and their values (g, n) each."""
    values = namespace(parts[0][1]).concat([values for _, values in parts])
    found = [k for columns, _ in parts for k in columns]
    places = sorted(range(len(found)), key=found.__getitem__)
    return take(values, indices(places, values)).T


def sample_given(
    ring: Network, x: Any, n: int | None = None, *, rng: Any = None, row_numbers: np.ndarray | None = None
) -> Array:
    """The NaN entries of every row of x drawn from p(missing | observed); observed entries come back unchanged.

    Args:
        x: (..., d) evidence. n: draws per row; None is one draw without a leading axis.
        rng: seed, or the backend's own generator or key; None is fresh entropy (`ValueError` for JAX); under
            `torch.compile` it is PyTorch's global generator, and a seed or another generator breaks the graph.
        row_numbers: the numbers by which errors name the rows, 0, 1, ... if None.

    Returns:
        (..., d), or (n, ..., d), in the cores' dtype. Cost of a likelihood, then O(m N) a variable and draw.

    Raises:
        ValueError: if x does not fit, or the evidence of a row has zero mass.

    Example:
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
    xp = namespace(rows)
    stream, draws = Stream(rng, rows), 1 if n is None else int(n)
    per_row = sum(min(ring.ranks) * core.shape[1] + core.shape[0] for core in ring.links)
    step = rows_within(budget.at_once(ring.prototype), per_row)
    row_numbers = np.arange(rows.shape[0]) if row_numbers is None else row_numbers
    parts = []
    for start in range(0, max(1, rows.shape[0]), step):
        chunk = rows[start : start + step]
        index = xp.tile(indices(range(chunk.shape[0]), rows), (draws,))
        evidence = Evidence.of_rows(ring, chunk).detach()
        components = _components(ring.detached_cores(), evidence, index, stream, row_numbers[start : start + step])
        drawn = _emit(ring, components, take(chunk, index), stream)
        parts.append(xp.reshape(drawn, (draws, chunk.shape[0], ring.num_variables)))
    drawn = xp.concat(parts, axis=1)
    return xp.reshape(drawn, (*shape, ring.num_variables) if n is None else (draws, *shape, ring.num_variables))


def _components(ring: Network, evidence: Evidence, row: Array, stream: Stream, row_numbers: np.ndarray) -> Array:
    """Components (n, d) drawn from their posterior under the evidence of the rows `row`.

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
        _some_components(linear, suffixes, lost, row[start : start + step], stream, row_numbers)
        for start in range(0, row.shape[0], step)
    ]
    return namespace(core).concat(parts)


def _some_components(
    linear: Linear, suffixes: list[State], lost: Array | None, row: Array, stream: Stream, row_numbers: np.ndarray
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
        found = int(row_numbers[int(some[empty[0]])])
        raise ValueError(f"evidence must have positive mass, found zero mass in row {found}")
    source = np.arange(n)
    source[to_numpy(again)] = n + np.arange(again.shape[0])
    return take(xp.concat([components, redone]), indices(source, core))


def _lost_rows(linear: Linear, closed: State) -> Array:
    """Rows of whose mass more than rounding was lost to underflow in the suffix products."""
    value, low = linear.close(closed)

    def floored(ring: Network, evidence: Evidence) -> Array:
        bound = Linear(ring, evidence, floored=True)
        return bound.close(suffix_states(bound)[0])[0]

    return lost_rows(linear.ring, linear.evidence, value, low, floored, 1e-6)


def _draw(arithmetic: Arithmetic, suffixes: list[State], row: Array, uniforms: Array) -> tuple[Array, Array]:
    """One path of bonds and components for every entry of `row`: (n, d), and the smallest total weight on the way."""
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
    """Values (n, d) drawn from the components' densities, with the observed entries of `given` in their places."""
    core = ring.prototype
    xp = namespace(core)
    parts = []
    for columns in ring.groups:
        families = [ring.families[k] for k in columns]
        values = take(components, indices(list(columns), core), axis=1).T  # (g, n)
        if families[0].stacks and not families[0].values_are_components:
            values = families[0].stack(families).sample(values, stream.next())
        elif not families[0].values_are_components:
            values = families[0].sample(values[0], stream.next())[None]
        parts.append((columns, like(stop_gradient(values), core)))
    values = _in_order(parts)
    return values if given is None else xp.where(xp.isnan(given), values, given)
