"""Elimination of columns by multiplication into their neighbours, for marginals and conditionals.

The matrices of the eliminated columns are multiplied in linear numbers while no entry comes near underflow. Otherwise
everything is computed in logarithms, and scales are moved across the bonds until every path that matters is in range.
This is a gauge, `Q_j → Q_j D`, `Q_{j+1} → D⁻¹ Q_{j+1}`, which changes no product around the ring.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    identity,
    is_concrete,
    namespace,
    stop_gradient,
)
from ringdist.cores import LINEAR, LOG, Core
from ringdist.engines.arithmetic import Log
from ringdist.engines.range import scaled
from ringdist.network import Evidence, Network
from ringdist.network.ownership import converted_core
from ringdist.network.structure import mapped

N = TypeVar("N", bound=Network)


def eliminate(
    ring: N,
    evidence: Evidence,
    left: Sequence[Sequence[int]],
    variables: Mapping[int, Any],
    log_weights: Mapping[int, Array] | None = None,
) -> N:
    """The ring over the remaining columns, with the matrices of one row of evidence multiplied in for the others.

    A run of dropped sites is split at the thinnest bond in it, so that ranks never grow. A core keeps its kind, unless
    scales have to be moved across bonds: then it becomes a dense array.

    Args:
        left: the remaining columns of every site, which keep their sequence and are renumbered.
        variables: of the remaining sites, replacing those of the ring.
        log_weights: of the remaining sites, (N,), by which the components of their cores are multiplied.
    """
    number = {k: n for n, k in enumerate(sorted(k for own in left for k in own))}
    columns = [tuple(number[k] for k in own) for own in left]
    found = [variables.get(k, variable) for k, variable in enumerate(ring.variables)]
    dropped = [k for k, own in enumerate(left) if not own]
    if not dropped and not log_weights:
        return ring.rebuilt(ring.links, found, ring.order, columns) if variables else ring
    log, gone = Log(ring, evidence), set(dropped)
    kept = [k for k in ring.order if k not in gone]
    cores = [ring.links[k] for k in kept]
    weights = [(log_weights or {}).get(k) for k in kept]
    runs = [[log.matrix(g)[0] for g in gap] for gap in _gaps(ring.order, kept)]
    if len(kept) == 1 and dropped:
        k = kept[0]
        return ring.rebuilt([_closed(cores[0], weights[0], runs[0])], [found[k]], [0], [columns[k]])
    rights: list[list[Array]] = []
    lefts: list[list[Array]] = []
    for run, after in zip(runs, cores[1:] + cores[:1], strict=True):
        bonds = [*(int(matrix.shape[0]) for matrix in run), int(after.shape[1])]
        split = bonds.index(min(bonds))
        rights.append(run[:split])
        lefts.append(run[split:])
    absorbed = dict(zip(kept, _absorb(cores, weights, lefts[-1:] + lefts[:-1], rights), strict=True))
    sites = sorted(kept)
    place = {k: i for i, k in enumerate(sites)}
    order = [place[k] for k in kept]
    return ring.rebuilt([absorbed[k] for k in sites], [found[k] for k in sites], order, [columns[k] for k in sites])


def _gaps(order: Sequence[int], kept: Sequence[int]) -> list[list[int]]:
    """The dropped columns between each kept one and the next, around the ring."""
    start = order.index(kept[0])
    gaps: dict[int, list[int]] = {k: [] for k in kept}
    last = kept[0]
    for k in [*order[start:], *order[:start]]:
        if k in gaps:
            last = k
        else:
            gaps[last].append(k)
    return list(gaps.values())


def _absorb(
    cores: list[Core], weights: list[Array | None], lefts: list[list[Array]], rights: list[list[Array]]
) -> list[Any]:
    """Every core, multiplied by the log-weights of its components and the log-matrices on both sides."""
    products = [_product(run) if run else None for run in lefts + rights]
    if any(run and product is None for run, product in zip(lefts + rights, products, strict=True)):
        return _absorb_in_gauge(cores, weights, lefts, rights)
    count, absorbed = len(cores), []
    for left, core, own, right in zip(products[:count], cores, weights, products[count:], strict=True):
        result = _multiplied(left, core, own, right)
        if result is None:
            return _absorb_in_gauge(cores, weights, lefts, rights)
        absorbed.append(result)
    return absorbed


def _absorb_in_gauge(
    cores: list[Core], weights: list[Array | None], lefts: list[list[Array]], rights: list[list[Array]]
) -> list[Array]:
    logs = []
    for core, own, left, right in zip(cores, weights, lefts, rights, strict=True):
        middle = log_dense(core) if own is None else log_dense(core) + own[:, None, None]
        parts = [*(matrix[None] for matrix in left), middle, *(matrix[None] for matrix in right)]
        logs.append(functools.reduce(LOG.product, parts))
    return [from_logs(link, _prototype(core)) for link, core in zip(in_gauge(logs), cores, strict=True)]


def in_gauge(chain: Sequence[Array]) -> list[Array]:
    """A closed chain of log-matrices (N, m, m') in a gauge in which little underflows.

    Forwards, every column is scaled to a largest entry of 1 and what is divided by goes on to the next matrix, so only
    what another path into the same bond state dominates can be lost; backwards, every matrix keeps an even share.
    """
    chain = list(chain)
    for i in range(len(chain) - 1):
        scale = _log_largest(chain[i], (0, 1))
        chain[i] = chain[i] - scale
        chain[i + 1] = chain[i + 1] + scale[:, None]
    for i in range(len(chain) - 1, 0, -1):
        scale = _log_largest(chain[i], (0, 2)) * (i / (i + 1))
        chain[i] = chain[i] - scale[:, None]
        chain[i - 1] = chain[i - 1] + scale
    return chain


def _log_largest(logs: Array, axis: tuple[int, ...] | None) -> Array:
    """The largest entries, 0 where all are −inf; a gauge carries no gradient."""
    xp = namespace(logs)
    top = stop_gradient(xp.max(logs) if axis is None else xp.max(logs, axis=axis))
    return xp.where(top == -xp.inf, 0.0, top)


def _product(log_matrices: Sequence[Array]) -> Array | None:
    """The product of matrices given by their logarithms, scaled to a largest entry of 1, or all zeros.

    None unless it is certain that no entry but a zero has underflowed: a product's entries are
    zero or at least the product of its factors' least positive entries.
    """
    if not is_concrete(log_matrices[0]):
        return None
    limit = widest_spread(log_matrices[0]) / 2
    total = None
    for log_matrix in log_matrices:
        if log_spread(log_matrix) > limit:
            return None
        matrix = _relative(log_matrix)
        total = matrix if total is None else scaled(total @ matrix)
        if spread(total) > limit:
            return None
    return total


def widest_spread(array: Array) -> float:
    """The logarithm of 1 over the smallest normal number of the array's dtype."""
    return -math.log(float(namespace(array).finfo(array.dtype).smallest_normal))


def spread(array: Array) -> float:
    """The logarithm of the largest entry less that of the least positive one, of any dtype."""
    xp, array = namespace(array), stop_gradient(array)
    most, least = float(xp.max(array)), float(xp.min(xp.where(array > 0, array, xp.inf)))
    return math.log(most) - math.log(least) if most > 0 else 0.0


def fits(array: Array, like: Array) -> bool:
    """Whether `fitted` leaves every positive entry in the range of the dtype of `like`."""
    return spread(array) < _held_spread(like)


def logs_fit(logs: Array, like: Array) -> bool:
    """Whether `from_logs` leaves every finite entry in the range of the dtype of `like`."""
    return log_spread(logs) < _held_spread(like)


def _held_spread(like: Array) -> float:
    return widest_spread(like) + 0.75 * math.log(float(namespace(like).finfo(like.dtype).max))


def log_spread(log_matrix: Array) -> float:
    """The largest entry minus the least finite one."""
    xp = namespace(log_matrix)
    least = xp.min(xp.where(log_matrix == -xp.inf, xp.inf, log_matrix))
    return float(stop_gradient(xp.max(log_matrix) - least))


def _relative(log_matrix: Array) -> Array:
    """exp of a log-matrix with its largest entry at 1 (an all −inf matrix is all zeros)."""
    return namespace(log_matrix).exp(log_matrix - _log_largest(log_matrix, None))


def widened(ring: N) -> N:
    """The same distribution from cores in the accumulator's dtype."""
    return ring.with_values([converted_core(core, lambda a: astype(a, accumulator(a))) for core in ring.links])


def fitted(array: Array, like: Array) -> Array:
    """The array in the dtype of `like`, scaled so that its positive entries are in the dtype's range if they can be.

    The largest entry becomes 1, or larger where the smallest would underflow otherwise.
    """
    xp = namespace(array)
    array = scaled(array)
    info = xp.finfo(like.dtype)
    least = stop_gradient(xp.min(xp.where(array > 0, array, 1.0)))
    short = float(info.smallest_normal) / xp.where(least > 0, least, 1.0)
    limit = float(info.max) ** 0.75
    factor = xp.where(short > 1, xp.where(short < limit, short, limit), 1.0)
    return astype(array * factor, like.dtype)


def from_logs(logs: Array, like: Array) -> Array:
    """`fitted` of numbers given by their logarithms, none of which underflows before it is scaled."""
    xp = namespace(logs)
    info = xp.finfo(like.dtype)
    logs = logs - _log_largest(logs, None)
    least = stop_gradient(xp.min(xp.where(logs == -xp.inf, 0.0, logs)))
    lift = xp.clip(math.log(float(info.smallest_normal)) - least, 0.0, 0.75 * math.log(float(info.max)))
    return astype(xp.exp(logs + lift), like.dtype)


def _multiplied(left: Array | None, core: Core, log_weights: Array | None, right: Array | None) -> Core | None:
    """left Q[s] right weights[s]; None unless it is certain that no entry but a zero has underflowed."""
    if left is None and right is None and log_weights is None:
        return core
    wide = mapped(core, lambda a: scaled(astype(a, accumulator(a))))
    if log_weights is not None:
        if not is_concrete(log_weights):
            return None
        wide = _weighted(wide, _relative(log_weights))
    product = wide.absorbed(left, right)
    if is_concrete(*product.arrays().values()):
        beside = sum(spread(matrix) for matrix in (left, right) if matrix is not None)
        beside += 0.0 if log_weights is None else log_spread(log_weights)
        widest = max(spread(factor) for factor in core.arrays().values()) + beside
        if widest > widest_spread(_prototype(wide)):
            return None
        if not all(fits(factor, _prototype(core)) for factor in product.arrays().values()):
            return None
    return mapped(product, lambda a: fitted(a, _prototype(core)))


def _weighted(core: Core, weights: Array) -> Core:
    """The core with its components multiplied by weights (N,), in the first factor that has their index."""
    factors, _, component = core.subscripts.partition("->")
    for (name, array), letters in zip(core.arrays().items(), factors.split(","), strict=True):
        if component[0] in letters:
            later = len(letters) - letters.index(component[0]) - 1
            shaped = namespace(array).reshape(weights, (-1, *[1] * later))
            return core.with_arrays({**core.arrays(), name: array * shaped})
    raise ValueError(f"a core must have its components in some factor, found {core.subscripts}")


def _closed(core: Core, log_weights: Array | None, run: Sequence[Array]) -> Any:
    """The rank-1 core (N, 1, 1) of the only column left: Tr Q[s] M weights[s]."""
    own: Any = 0.0 if log_weights is None else log_weights
    product = _product(run)  # (m', m)
    widest = sum(spread(factor) for factor in core.arrays().values()) if product is not None else math.inf
    widest += 0.0 if log_weights is None or not is_concrete(own) else log_spread(own)
    if product is None or widest + spread(product) > widest_spread(product):
        whole = functools.reduce(LOG.product, run)
        closing = core.environment(LOG.of(identity(core.shape[1], run[0]))[None], whole.T[None], LOG)
        return from_logs(core.components(closing, LOG)[0] + own, _prototype(core))[:, None, None]
    wide = mapped(core, lambda a: scaled(astype(a, accumulator(a))))
    closing = wide.environment(identity(core.shape[1], product)[None], product.T[None], LINEAR)
    weights = wide.components(closing, LINEAR)[0]
    weights = weights if log_weights is None else weights * _relative(log_weights)
    return fitted(weights, _prototype(core))[:, None, None]


def log_dense(core: Core) -> Array:
    """log Q as an array (N, m, m')."""
    return core.matrix(LOG.of(identity(core.shape[0], _prototype(core))), LOG)


def _prototype(core: Core) -> Array:
    return next(iter(core.arrays().values()))
