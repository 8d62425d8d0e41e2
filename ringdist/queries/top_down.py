"""Components drawn down the tree of products, all segments of a level at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ringdist.backend import (
    Array,
    Stream,
    astype,
    draw,
    indices,
    namespace,
    on_accelerator,
    safe_log,
    stack,
    take,
    uniform,
)
from ringdist.cores import LINEAR, Core, CPCore, DenseCore
from ringdist.engines import budget
from ringdist.engines.arithmetic import relative
from ringdist.engines.budget import rows_within
from ringdist.engines.range import in_range, threshold
from ringdist.engines.tree import LARGE, tree_levels
from ringdist.network import Evidence, Network


def prefers_tree(ring: Network) -> bool:
    """Whether to draw from the tree: not for trains whose tree (m³) costs more than the launches of a sweep."""
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
    """A ring's tree of products, in the form from which bonds and components are drawn."""

    cut: Array  # (m,) weights of the bond at the cut
    halves: list[tuple[Array, Array, Array]]  # from the top: k segments' left halves by row and right ones by column
    # (k m, m), and where each begins (k, 1)
    groups: list[_Group]


def tree_of(ring: Network) -> _Tree | None:
    """The tree, cached if it is small."""
    if 2 * ring.num_variables * max(ring.ranks) ** 2 > budget.REMEMBERED:
        return _computed_tree(ring)
    return ring.remembered("tree", lambda: _computed_tree(ring))


def _computed_tree(ring: Network) -> _Tree | None:
    """The tree; None if a product came near underflow, or is not finite."""
    *_, top = levels = list(tree_levels(ring, Evidence.missing(ring)))
    xp, rank = namespace(top.values), top.values.shape[-1]
    logs = safe_log(xp.linalg.diagonal(top.values[0, 0])) + astype(top.logs[0, 0], top.values.dtype)
    if top.low is not None and not bool((top.low[0] >= threshold(ring)) & xp.all(logs < xp.inf)):  # NaN neither
        return None
    halves = []
    for level in levels[:0:-1]:
        if level.factors is not None:
            rows, columns = (xp.reshape(part, (-1, rank)) for part in (level.factors[0], level.factors[1].mT))
            halves.append((rows, columns, indices(range(0, rows.shape[0], rank), logs)[:, None]))
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


def components_top_down(ring: Network, tree: _Tree, n: int, stream: Stream) -> Array:
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
    bonds = xp.stack([cut, cut])  # at the ends of the segments, (k + 1, n)
    used = 1
    for rows, columns, first in tree.halves:
        pairs = first.shape[0]
        left, right = (xp.reshape(first + ends, (-1,)) for ends in (bonds[:pairs], bonds[1 : pairs + 1]))
        weights = xp.reshape(take(rows, left, axis=0) * take(columns, right, axis=0), (pairs, n, widest))
        middle = draw(weights, uniforms[used : used + pairs])
        used += pairs
        halved = xp.reshape(xp.stack([bonds[:pairs], middle], axis=1), (2 * pairs, n))
        bonds = xp.concat([halved, bonds[pairs:]])
    parts = []
    for group in tree.groups:
        left, right = take(bonds[:-1], group.sites), take(bonds[1:], group.sites)  # (g, n)
        weights = _value_weights(group, left, right)
        parts.append((group.columns, draw(weights, take(uniforms[d:], group.sites, axis=0))))
    return in_order(parts)


def _value_weights(group: _Group, left: Array, right: Array) -> Array:
    """Weights of the components of the group's columns between given bonds, (g, n, N)."""
    xp = namespace(left)
    size, left_rank, right_rank = group.cores[0].shape
    if group.factors is not None:
        rows, emission, columns = group.factors
        first, last = (
            indices(range(0, part.shape[0], rank), part)[:, None]
            for part, rank in ((rows, left_rank), (columns, right_rank))
        )
        hidden = take(rows, xp.reshape(first + left, (-1,))) * take(columns, xp.reshape(last + right, (-1,)))
        return xp.reshape(hidden, (*left.shape, hidden.shape[1])) @ emission
    if group.table is None:
        return xp.stack([core.between(a, b, LINEAR) for core, a, b in zip(group.cores, left, right, strict=True)])
    first = indices(range(0, group.table.shape[0], left_rank * right_rank), group.table)[:, None]
    place = xp.reshape(first + left * right_rank + right, (-1,))
    return xp.reshape(take(group.table, place), (*left.shape, size))


def in_order(parts: Sequence[tuple[Sequence[int], Array]]) -> Array:
    """(n, d) from some columns and their values (g, n) each."""
    values = namespace(parts[0][1]).concat([values for _, values in parts])
    found = [k for columns, _ in parts for k in columns]
    places = sorted(range(len(found)), key=found.__getitem__)
    return take(values, indices(places, values)).T
