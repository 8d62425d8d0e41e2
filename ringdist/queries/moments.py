"""Exact means, covariances and mutual information, from the joint tables of pairs of component variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    identity,
    indices,
    is_concrete,
    like,
    like_zeros,
    logsumexp,
    namespace,
    stop_gradient,
    take,
)
from ringdist.engines.arithmetic import Arithmetic, Linear, Log, State
from ringdist.engines.sweep import suffix_states
from ringdist.network import Evidence, Network
from ringdist.network.rows import as_rows, side_by_side, site_values
from ringdist.queries.elimination import spread, widened, widest_spread
from ringdist.queries.posterior import component_posteriors


def mean(ring: Network, x: Any = None) -> Array:
    """E[column], shape (d,); with x (..., d) E[column | observed entries of the row], observed entries as they are.

    A categorical column contributes its code 0..N-1.

    Raises:
        ValueError: if x does not fit or the evidence of a row has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.mean().round(3)
        array([0.5, 0.4])
        >>> ring.mean([[1, np.nan]]).round(3)
        array([[1. , 0.6]])
    """
    core = ring.prototype
    xp = namespace(core)
    x = like(np.full(ring.num_columns, np.nan), core) if x is None else x
    rows, shape = as_rows(ring, x)
    missing = xp.isnan(rows)
    sites = list(range(ring.num_variables))
    if is_concrete(missing):
        sites = [i for i in sites if bool(xp.any(site_values(ring, missing, i)))]
    if not sites or rows.shape[0] == 0:
        return xp.reshape(rows + 0, (*shape, ring.num_columns))  # a copy: a result is never a view of the input

    def expected(i: int, weights: Array, some: Array) -> Array:
        if ring.families[i].width == 1:
            return weights @ like(ring.variables[i].means(), core)
        means = like(ring.families[i].conditional_means(site_values(ring, some, i)), core)
        return xp.sum(weights[:, :, None] * means, axis=1)

    found = dict(zip(sites, component_posteriors(ring, rows, sites, summary=expected), strict=True))
    parts = [found[i] if i in found else site_values(ring, rows, i) for i in range(ring.num_variables)]
    return xp.reshape(xp.where(missing, side_by_side(ring, parts), rows), (*shape, ring.num_columns))


def covariance(ring: Network) -> Array:
    """Cov[x_j, x_k] = Σ_{s,t} p(s_j = s, s_k = t) (μ_j[s] − E x_j)(μ_k[t] − E x_k) + δ_jk E[σ²], shape (d, d), exact.

    Columns of one wide variable share a component; the mean of its covariances is added to the covariance of its means.

    Cost O(d² N r m² + d² N² r m).

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.covariance().round(3)
        array([[0.25, 0.1 ],
               [0.1 , 0.24]])
    """
    dtype, ring = ring.prototype.dtype, widened(ring)
    core = ring.prototype
    xp = namespace(core)
    centre = mean(ring)
    means = [xp.reshape(like(v.means(), core), (v.num_components, -1)) for v in ring.families]  # (N, width)
    means = [own - site_values(ring, centre[None], i) for i, own in enumerate(means)]
    within = [like(family.covariances(), core) for family in ring.families]
    diagonal = [
        (w[:, None] * own).T @ own + xp.sum(w[:, None, None] * spread, axis=0)
        for w, own, spread in zip(_marginals(ring), means, within, strict=True)
    ]
    widest = max(family.width for family in ring.families)
    padded = [_padded(own, max(ring.shape), widest) for own in means]

    def expected_products(k: int, others: list[int], joint: Array) -> Array:
        return (joint @ means[k]).mT @ xp.stack([padded[j] for j in others])  # (J, width of k, widest)

    return astype(_pairwise(ring, diagonal, expected_products, ring.layout.places), dtype)


def mutual_information(ring: Network) -> Array:
    """I(s_j; s_k) in nats between component variables, shape (d, d); the diagonal is I(s_k; s_k), their entropy.

    The columns of a wide variable share its component, so rows and columns of the result are variables.

    Cost O(d² N r m² + d² N² r m).

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.mutual_information().round(3)
        array([[0.693, 0.086],
               [0.086, 0.673]])
    """
    dtype, ring = ring.prototype.dtype, widened(ring)
    xp = namespace(ring.prototype)
    entropies = [-xp.sum(w * xp.log(xp.where(w > 0, w, 1.0))) for w in _marginals(ring)]
    diagonal = [xp.reshape(value, (1, 1)) for value in entropies]

    def information(k: int, others: list[int], joint: Array) -> Array:
        logs, seen = xp.log(xp.where(joint > 0, joint, 1.0)), joint > 0
        for axis in (1, 2):
            margin = xp.sum(joint, axis=axis, keepdims=True)
            logs = logs - xp.log(xp.where(margin > 0, margin, 1.0))
        total = xp.sum(joint * xp.where(seen, logs, 0.0), axis=(1, 2))
        return xp.where(total > 0, total, 0.0)[:, None, None]  # rounding can leave −1e-17

    return astype(_pairwise(ring, diagonal, information, [(k, 0) for k in range(ring.num_variables)]), dtype)


def _pairwise(
    ring: Network,
    diagonal: list[Array],
    function: Callable[[int, list[int], Array], Array],
    places: Sequence[tuple[int, int]],
) -> Array:
    """The symmetric matrix (Σ w, Σ w) whose blocks are a function of p(s_j, s_k) for each pair of sites.

    Args:
        diagonal: the block of every site and itself, symmetric (w, w).
        function: of a site k, the sites j before it and the tables (J, N, N_k): blocks (J, w of k, widest w), zero
            beyond the width of j.
        places: of every row of the result its site, and its place in the block of that.
    """
    core = ring.prototype
    xp, sites = namespace(core), ring.num_variables
    widths = [int(block.shape[0]) for block in diagonal]
    widest = max(widths)

    def computed(arithmetic: Arithmetic) -> list[Array]:
        first = ring.sequence[0]
        found = {first: like_zeros((0, widths[first], widest), core)}
        found |= {k: function(k, others, joint) for k, others, joint in _pairs(arithmetic)}
        rows = []
        for j, k in enumerate(ring.sequence):
            own = 0.5 * _padded(diagonal[k], widths[k], widest)[None]  # half, as the transpose is added
            rest = like_zeros((sites - j - 1, widths[k], widest), core)
            blocks = xp.permute_dims(xp.concat([found[k], own, rest]), (1, 0, 2))
            rows.append(_padded(xp.reshape(blocks, (widths[k], -1)), widest, sites * widest))
        return rows

    missing = Evidence.missing(ring)
    try:
        rows = computed(Linear(ring, missing))
    except _UncertainError:
        rows = computed(Log(ring, missing))
    lower = xp.concat(rows)  # in ring order, (sites widest, sites widest)
    position = {k: j for j, k in enumerate(ring.sequence)}
    place = indices([position[k] * widest + own for k, own in places], core)
    return take(take(lower + lower.T, place, axis=0), place, axis=1)


def _marginals(ring: Network) -> list[Array]:
    """p(s_k) of every site."""
    rows = like(np.full((1, ring.num_columns), np.nan), ring.prototype)
    return [weights[0] for weights in component_posteriors(ring, rows, list(range(ring.num_variables)))]


class _UncertainError(ArithmeticError):
    """An entry may have underflowed."""


def _pairs(arithmetic: Arithmetic) -> Iterator[tuple[int, list[int], Array]]:
    """For every site k but the first: k, the sites j before it, and p(s_j, s_k) as (J, N, N_k).

    One sweep carries a state for every (j, s_j) seen so far; tables of smaller N_j are padded with zeros.
    """
    ring, semiring = arithmetic.ring, arithmetic.semiring
    xp, core = arithmetic.xp, ring.prototype
    sequence, size = ring.sequence, max(ring.shape)
    cores = arithmetic.cores if isinstance(arithmetic, Linear) else ring.links
    suffixes = suffix_states(arithmetic)
    state: Any = None
    seen: list[int] = []
    prefix = arithmetic.start()
    for j, k in enumerate(sequence):
        suffix = suffixes[j + 1]
        n_k = ring.shape[k]
        unit = semiring.of(identity(n_k, core))  # one row of weights for each component
        _check_certain(arithmetic, k, [suffix, prefix, *([] if state is None else [state])])
        if seen:
            closed = cores[k].transposed().push(suffix.values, unit, semiring)  # (N_k, r, m)
            closed = xp.reshape(closed, (n_k, -1))
            flat = xp.reshape(_joint_scale(arithmetic, state, suffix, len(seen)), (len(seen) * size, -1))
            joint = xp.reshape(semiring.product(flat, closed.T), (len(seen), size, n_k))
            if isinstance(arithmetic, Log):
                joint = xp.exp(joint - logsumexp(joint, axis=(1, 2))[:, None, None])
            yield k, list(seen), joint / xp.sum(joint, axis=(1, 2), keepdims=True)
            state = arithmetic.push(state, k)
        values = cores[k].push(prefix.values, unit, semiring)  # (N_k, r, m')
        padding = semiring.of(like_zeros((size - n_k, *values.shape[1:]), core))
        logs = xp.broadcast_to(prefix.logs, (size, prefix.logs.shape[1]))
        fresh = State(xp.concat([values, padding]), logs, None)
        fresh = arithmetic.rescale(fresh.values, fresh) if isinstance(arithmetic, Linear) else fresh
        state = fresh if state is None else _joined(state, fresh, xp)
        seen.append(k)
        prefix = arithmetic.push(prefix, k)


def _joint_scale(arithmetic: Arithmetic, state: State, suffix: State, count: int) -> Array:
    """The values of the states of `count` columns, relative to each column's largest scale."""
    if isinstance(arithmetic, Log):
        return state.values
    xp, size = arithmetic.xp, state.values.shape[0] // count
    alive = xp.max(state.values, axis=-1) > 0
    logs = xp.where(alive, state.logs + suffix.logs, -xp.inf)  # (J N, r)
    top = xp.max(xp.reshape(logs, (count, -1)), axis=1)
    share = xp.exp(astype(logs - xp.repeat(top, size)[:, None], arithmetic.ring.prototype.dtype))
    return state.values * share[..., None]


def _check_certain(arithmetic: Arithmetic, k: int, states: list[State]) -> None:
    """Raise unless no product of the states with the core and with each other can underflow."""
    core = arithmetic.ring.prototype
    if isinstance(arithmetic, Log) or not is_concrete(core, states[0].values):
        return
    factors = [stop_gradient(array) for array in arithmetic.ring.links[k].arrays().values()]
    scales = sum(float(arithmetic.xp.max(s.logs) - arithmetic.xp.min(s.logs)) for s in map(_without_gradient, states))
    total = sum(map(spread, factors)) + sum(spread(stop_gradient(s.values)) for s in states) + scales
    if not total < widest_spread(core):
        raise _UncertainError


def _without_gradient(state: State) -> State:
    return State(stop_gradient(state.values), stop_gradient(state.logs), None)


def _joined(a: State, b: State, xp: Any) -> State:
    return State(xp.concat([a.values, b.values]), xp.concat([a.logs, b.logs]), None)


def _padded(matrix: Array, rows: int, columns: int) -> Array:
    """The matrix padded with zeros to (rows, columns)."""
    xp, (own, width) = namespace(matrix), matrix.shape
    if width < columns:
        matrix = xp.concat([matrix, like_zeros((own, columns - width), matrix)], axis=1)
    return xp.concat([matrix, like_zeros((rows - own, columns), matrix)]) if own < rows else matrix
