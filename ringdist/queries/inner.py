"""Inner products of two rings."""

from __future__ import annotations

from collections.abc import Sequence

import opt_einsum

from ringdist.backend import (
    Array,
    astype,
    identity,
    is_concrete,
    like,
    like_zeros,
    log_scaled_sum,
    logsumexp,
    namespace,
    stop_gradient,
)
from ringdist.cores import LINEAR, LOG, Core, DenseCore, Semiring
from ringdist.engines.range import in_range
from ringdist.network import Network
from ringdist.queries.elimination import spread, widened, widest_spread
from ringdist.queries.log_prob import log_partition


def inner(ring: Network, other: Network) -> Array:
    """Σ or ∫ p(x) q(x) dx, a scalar array, in closed form: the contraction of the two rings.

    Cost O(d r r' m m' (m + m' N)) for dense cores, without forming the dense array of any other kind. Computed in the
    accumulator's dtype (float64 wherever the backend has it).

    Raises:
        ValueError: if the rings' orders differ by more than a rotation, or two variables have different families or
            cover different columns.
        TypeError: if the rings mix backends.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> round(float(ring.inner(ring)), 6)  # 0.4² + 0.1² + 0.2² + 0.3²
        0.3
    """
    if not isinstance(other, type(ring)):
        raise TypeError(f"an inner product is with another {type(ring).__name__}, found {type(other).__name__}")
    xp = namespace(ring.prototype, other.prototype)
    other = _with_columns_of(ring, other)
    turn = other.order.index(ring.sequence[0])
    if other.order[turn:] + other.order[:turn] != ring.sequence:
        raise ValueError(f"rings must have one order up to rotation, found {list(ring.order)} and {list(other.order)}")
    dtype = ring.prototype.dtype
    ring, other = widened(ring), widened(other)
    norm = log_partition(ring) + log_partition(other)
    grams = [_gram(ring, other, k) for k in range(ring.num_variables)]
    log_value = _contracted(ring, other, grams, LINEAR)
    if log_value is None:
        log_value = _contracted(ring, other, grams, LOG)
    return astype(xp.exp(log_value - norm), dtype)


def _with_columns_of(ring: Network, other: Network) -> Network:
    """The other ring with its variables, and the columns of each of them, in the same sequence."""
    if other.columns == ring.columns:
        return other
    sites = {tuple(sorted(own)): i for i, own in enumerate(other.columns)}
    keys = [tuple(sorted(own)) for own in ring.columns]
    if sites.keys() != set(keys):
        found = " and ".join(
            str(each.columns if ring.num_columns == other.num_columns else each.num_columns) for each in (ring, other)
        )
        raise ValueError(f"rings must have the same columns, and the same of them at each variable, found {found}")
    order = [sites[key] for key in keys]
    variables = []
    for i, own in zip(order, ring.columns, strict=True):
        places = [other.columns[i].index(k) for k in own]
        kept = own == other.columns[i]
        variables.append(other.variables[i] if kept else other.families[i].marginal(places).variable)
    site = {i: n for n, i in enumerate(order)}
    return other.rebuilt([other.links[i] for i in order], variables, [site[i] for i in other.order], ring.columns)


def _contracted(ring: Network, other: Network, grams: Sequence[Array], semiring: Semiring) -> Array | None:
    """log Σ_st P̂[s] P̂'[t] ∏_k gram_k[s_k, t_k]; None unless it is certain that only zeros are 0.

    A product of states is certain if the product of its factors' least positive entries is in the dtype's range.
    """
    core, limit = ring.prototype, widest_spread(ring.prototype)
    xp, certain = namespace(core), semiring is LOG or not is_concrete(core, other.prototype, *grams)
    r, q = min(ring.ranks), int(other.links[ring.sequence[0]].shape[1])
    (cores, scale), (others, other_scale) = (
        in_range(each) if semiring is LINEAR else (each.links, 0.0) for each in (ring, other)
    )
    state = semiring.of(identity(r * q, core))  # cut bonds (r q) x current bonds (m m')
    logs = like_zeros((r * q,), core)
    for k in ring.sequence:
        left, left_q = ring.links[k].shape[1], other.links[k].shape[1]
        if not certain:
            factors = [*ring.links[k].arrays().values(), *other.links[k].arrays().values(), grams[k]]
            if sum(map(spread, factors)) + spread(state) > limit:
                return None
        gram = semiring.of(grams[k])
        state = _paired(xp.reshape(state, (r * q, left, left_q)), cores[k], others[k], gram, semiring)
        state = xp.reshape(state, (r * q, -1))
        if semiring is LINEAR:
            top = stop_gradient(xp.max(state, axis=-1))
            top = xp.where(top > 0, top, 1.0)
            state, logs = state / top[:, None], logs + xp.log(top)
    diagonal = xp.linalg.diagonal(state)
    value = log_scaled_sum(diagonal, logs) if semiring is LINEAR else logsumexp(diagonal)
    return value + scale + other_scale


def _gram(ring: Network, other: Network, k: int) -> Array:
    """∫ p(x | s) q(x | t) of column k, (N, N')."""
    if ring.families[k].values_are_components and ring.shape[k] != other.shape[k]:
        raise ValueError(
            f"{ring.describe_site(k)}: categories must be the same, found {ring.shape[k]} and {other.shape[k]}"
        )
    try:
        return like(ring.variables[k].inner(other.variables[k]), ring.prototype)
    except ValueError as error:
        raise ValueError(f"{ring.describe_site(k)}: {error}") from None


def _paired(state: Array, core: Core, other: Core, gram: Array, semiring: Semiring) -> Array:
    """Σ_st gram[s, t] Q[s]ᵀ state P[t] for states (z, m, m'), (z, n, n')."""
    xp = namespace(state)
    if semiring is LINEAR and isinstance(core, DenseCore) and isinstance(other, DenseCore):
        size_q, left_q, right_q = other.shape
        matched = xp.reshape(gram @ xp.reshape(other.dense(), (size_q, -1)), (core.shape[0], left_q, right_q))
        return opt_einsum.contract("zab,sac,sbd->zcd", state, core.dense(), matched, optimize="optimal")
    (z, _, left_q), size, size_q = state.shape, core.shape[0], other.shape[0]
    pushed = _by_component(core, xp.broadcast_to(state.mT[None], (size, *state.mT.shape)), semiring)  # (N, z, m', n)
    matched = semiring.product(gram.T, xp.reshape(pushed, (size, -1)))
    matched = xp.reshape(matched, (size_q, z, left_q, core.shape[2]))
    return semiring.sum(_by_component(other, matched.mT, semiring), axis=0)


def _by_component(core: Core, states: Array, semiring: Semiring) -> Array:
    """states[s] Q[s] for every component, (N, z, r, m) -> (N, z, r, m')."""
    xp, (size, z, rank, left) = namespace(states), states.shape
    unit = semiring.of(identity(size, states))
    weights = xp.reshape(xp.broadcast_to(unit[:, None, :], (size, z, size)), (size * z, size))
    pushed = core.push(xp.reshape(states, (size * z, rank, left)), weights, semiring)
    return xp.reshape(pushed, (size, z, rank, core.shape[2]))
