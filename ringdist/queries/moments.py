"""Exact means, covariances and mutual information, from the joint tables of pairs of component variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ringdist.backend import Array, astype, identity, indices, is_concrete, like, like_zeros, namespace, stack, take
from ringdist.cores import LINEAR
from ringdist.engines.arithmetic import Linear, State
from ringdist.engines.sweep import suffix_states
from ringdist.network import Evidence, Network
from ringdist.network.evidence import as_rows
from ringdist.queries.elimination import widened
from ringdist.queries.posterior import component_posteriors


def mean(ring: Network, x: Any = None) -> Array:
    """E[column], shape (d,); with x (..., d) E[column | observed entries of the row], observed entries as they are.

    A categorical column counts by its value 0..N-1.

    Raises:
        ValueError: if x does not fit or the evidence of a row has zero mass.

    Example:
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
    x = like(np.full(ring.num_variables, np.nan), core) if x is None else x
    rows, shape = as_rows(ring, x)
    missing = xp.isnan(rows)
    columns = list(range(ring.num_variables))
    if is_concrete(missing):
        columns = [k for k in columns if bool(xp.any(missing[:, k]))]
    if not columns or rows.shape[0] == 0:
        return xp.reshape(rows + 0, (*shape, ring.num_variables))  # a copy: a result is never a view of the input
    means = component_posteriors(
        ring, rows, columns, summary=lambda k, weights: weights @ like(ring.variables[k].means(), core)
    )
    expected = dict(zip(columns, means, strict=True))
    filled = stack([expected.get(k, rows[:, k]) for k in range(ring.num_variables)], axis=1)
    return xp.reshape(xp.where(missing, filled, rows), (*shape, ring.num_variables))


def covariance(ring: Network) -> Array:
    """Cov[x_j, x_k] = Σ_{s,t} p(s_j = s, s_k = t) (μ_j[s] − E x_j)(μ_k[t] − E x_k) + δ_jk E[σ²], shape (d, d), exact.

    Cost O(d² N r m² + d² N² r m).

    Example:
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
    means = [like(v.means(), core) - centre[k] for k, v in enumerate(ring.variables)]
    spread = [like(v.variances(), core) for v in ring.variables]
    diagonal = [xp.sum(w * (means[k] ** 2 + spread[k])) for k, w in enumerate(_marginals(ring))]
    padded = [_pad_vector(values, max(ring.shape)) for values in means]

    def expected_product(k: int, others: list[int], joint: Array) -> Array:
        return xp.sum((joint @ means[k]) * xp.stack([padded[j] for j in others]), axis=-1)

    return astype(_pairwise(ring, diagonal, expected_product), dtype)


def mutual_information(ring: Network) -> Array:
    """I(s_j; s_k) in nats between component variables, shape (d, d); the diagonal is I(s_k; s_k), their entropy.

    Cost O(d² N r m² + d² N² r m).

    Example:
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
    diagonal = [-xp.sum(w * xp.log(xp.where(w > 0, w, 1.0))) for w in _marginals(ring)]

    def information(k: int, others: list[int], joint: Array) -> Array:
        product = xp.sum(joint, axis=2, keepdims=True) * xp.sum(joint, axis=1, keepdims=True)
        ratio = xp.where(joint > 0, joint / xp.where(joint > 0, product, 1.0), 1.0)
        total = xp.sum(joint * xp.log(ratio), axis=(1, 2))
        return xp.where(total > 0, total, 0.0)  # rounding can leave −1e-17

    return astype(_pairwise(ring, diagonal, information), dtype)


def _pairwise(ring: Network, diagonal: list[Array], function: Callable[[int, list[int], Array], Array]) -> Array:
    """The symmetric (d, d) matrix of a function of p(s_j, s_k), called for column k and all columns j before it."""
    core = ring.prototype
    xp = namespace(core)
    d = ring.num_variables
    rows = [like_zeros((d,), core)]
    for k, others, joint in _pairs(ring):
        rows.append(xp.concat([function(k, others, joint), like_zeros((d - len(others),), core)]))
    lower = xp.stack(rows)  # in ring order
    place = indices(np.argsort(ring.sequence), core)
    full = take(take(lower + lower.T, place, axis=0), place, axis=1)
    return full + like(np.eye(d), core) * xp.stack(diagonal)


def _marginals(ring: Network) -> list[Array]:
    """p(s_k) of every column."""
    rows = like(np.full((1, ring.num_variables), np.nan), ring.prototype)
    return [weights[0] for weights in component_posteriors(ring, rows, list(range(ring.num_variables)))]


def _pairs(ring: Network) -> Iterator[tuple[int, list[int], Array]]:
    """For every column k but the first: k, the columns j before it, and p(s_j, s_k) as (J, N, N_k).

    One sweep carries a state for every (j, s_j) seen so far; tables of smaller N_j are padded with zeros.
    """
    arithmetic = Linear(ring, Evidence.missing(ring))
    xp, core = arithmetic.xp, ring.prototype
    sequence, size = ring.sequence, max(ring.shape)
    suffixes = suffix_states(arithmetic)
    state: Any = None
    seen: list[int] = []
    prefix = arithmetic.start()
    for j, k in enumerate(sequence):
        suffix = suffixes[j + 1]
        n_k = ring.shape[k]
        unit = identity(n_k, core)  # one row of weights for each component
        if seen:
            alive = xp.max(state.values, axis=-1) > 0
            logs = xp.where(alive, state.logs + suffix.logs, -xp.inf)  # (J N, r)
            top = xp.max(xp.reshape(logs, (len(seen), -1)), axis=1)
            share = xp.exp(astype(logs - xp.repeat(top, size)[:, None], core.dtype))
            closed = arithmetic.cores[k].transposed().push(suffix.values, unit, LINEAR)  # (N_k, r, m)
            closed = xp.reshape(closed, (n_k, -1))
            scaled = xp.reshape(state.values * share[..., None], (len(seen) * size, -1))
            joint = xp.reshape(scaled @ closed.T, (len(seen), size, n_k))
            yield k, list(seen), joint / xp.sum(joint, axis=(1, 2), keepdims=True)
            state = arithmetic.push(state, k)
        values = arithmetic.cores[k].push(prefix.values, unit, LINEAR)  # (N_k, r, m')
        padding = like_zeros((size - n_k, *values.shape[1:]), core)
        logs = xp.broadcast_to(prefix.logs, (size, prefix.logs.shape[1]))
        fresh = arithmetic.rescale(xp.concat([values, padding]), State(values, logs, None))
        state = fresh if state is None else _joined(state, fresh, xp)
        seen.append(k)
        prefix = arithmetic.push(prefix, k)


def _joined(a: State, b: State, xp: Any) -> State:
    return State(xp.concat([a.values, b.values]), xp.concat([a.logs, b.logs]), None)


def _pad_vector(vector: Array, size: int) -> Array:
    xp = namespace(vector)
    return xp.concat([vector, like_zeros((size - vector.shape[0],), vector)])
