"""Posteriors of components given evidence, and the one-dimensional conditionals that follow from them (Eq. 5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    is_array,
    is_concrete,
    like,
    like_zeros,
    logsumexp,
    namespace,
    nonzero_rows,
    stop_gradient,
    without_warnings,
)
from ringdist.engines import budget
from ringdist.engines.arithmetic import Result, State
from ringdist.engines.budget import rows_within
from ringdist.engines.rescue import robust
from ringdist.network import Evidence, Network
from ringdist.network.rows import as_rows, plain, site_values
from ringdist.variables import Family, crossing, first_reached


def component_posterior(ring: Network, k: int | str, x: Any) -> Array:
    """p(s_k | observed entries of the row), shape (..., N_k); x[..., k] itself is used if observed.

    For a column of a wide variable, these are the components of that variable given all of its observed columns.

    Raises:
        ValueError: if the column is unknown, x does not fit, or a row's evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2), rd.GaussianMixture([-1.0, 1.0], [0.5, 0.5])]
        >>> cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]  # the category selects the Gaussian
        >>> ring = rd.TensorRing(cores, variables)
        >>> ring.component_posterior(0, [[np.nan, -1.0], [np.nan, 0.0]]).round(3)
        array([[1. , 0. ],
               [0.5, 0.5]])
    """
    site, _ = ring.place(k)
    rows, shape = as_rows(ring, x)
    weights = component_posteriors(ring, rows, [site])[0]
    return namespace(weights).reshape(weights, (*shape, ring.shape[site]))


def component_posteriors(
    ring: Network,
    rows: Array,
    sites: Sequence[int],
    *,
    leave_out: bool = False,
    log: bool = False,
    summary: Callable[[int, Array, Array], Array] | None = None,
) -> list[Array]:
    """p(s_k | row) for several sites, each (b, N_k), by one backward and one forward sweep.

    Args:
        leave_out: whether the own entries of site k are left out of its posterior.
        log: whether logarithms are returned, −inf only where the probability is zero and not where it underflows.
        summary: function (k, posteriors, rows) -> (b, ...) of the posteriors of site k for some rows; the posteriors
            of all rows are then never in memory at once.

    Raises:
        ValueError: if the evidence of a row has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2), rd.GaussianMixture([-1.0, 1.0], [0.5, 0.5])]
        >>> cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]  # the category selects the Gaussian
        >>> ring = rd.TensorRing(cores, variables)
        >>> weights = component_posteriors(ring, np.array([[np.nan, 0.0], [1.0, np.nan]]), [0, 1])
        >>> weights[1].round(3)
        array([[0.5, 0.5],
               [0. , 1. ]])
    """
    xp, num_rows = namespace(rows), rows.shape[0]
    step = _rows_per_chunk(ring) if is_concrete(rows) else max(1, num_rows)
    parts = []
    for start in range(0, max(1, num_rows), step):
        some = rows[start : start + step]
        found = _of_chunk(ring, some, sites, leave_out, log, start)
        parts.append(found if summary is None else [summary(k, w, some) for k, w in zip(sites, found, strict=True)])
    return parts[0] if len(parts) == 1 else [xp.concat(pieces) for pieces in zip(*parts, strict=True)]


def _rows_per_chunk(ring: Network) -> int:
    """Rows whose evidence, posteriors and states on the way back stay within the budget, with an environment."""
    states = min(ring.ranks) * sum(ring.ranks) + 2 * max(core.shape[1] * core.shape[2] for core in ring.links)
    return rows_within(budget.at_once(ring.prototype), states + 4 * sum(ring.shape))


def _of_chunk(ring: Network, rows: Array, sites: Sequence[int], leave_out: bool, log: bool, first: int) -> list[Array]:
    """The posteriors of some rows, which errors number from `first`."""
    xp = namespace(rows)
    if rows.shape[0] == 0:
        return [like_zeros((0, ring.shape[k]), rows) for k in sites]
    evidence = Evidence.of_rows(ring, rows)

    def compute(arithmetic: Any) -> Result:
        return _posteriors(arithmetic, sites, leave_out, log)

    tolerance = 64 * float(xp.finfo(rows.dtype).eps)
    stacked = robust(ring, evidence, compute, tolerance)
    if is_concrete(stacked):
        empty = nonzero_rows(stop_gradient(xp.max(stacked, axis=1)) == (-xp.inf if log else 0))
        if empty.shape[0]:
            row = first + int(empty[0])
            raise ValueError(f"evidence must have positive mass, found zero mass in row {row}")
    ends = np.cumsum([0, *(ring.shape[k] for k in sites)])
    return [stacked[:, int(a) : int(b)] for a, b in itertools.pairwise(ends)]


def _posteriors(arithmetic: Any, chosen: Sequence[int], leave_out: bool, log: bool) -> Result:
    """Normalised component weights of the sites, or their logarithms, side by side (b, Σ N_k)."""
    ring, xp = arithmetic.ring, arithmetic.xp
    sequence, wanted = ring.sequence, set(chosen)
    sites = [j for j, k in enumerate(sequence) if k in wanted]
    suffixes: dict[int, State] = {}
    state = arithmetic.start()
    for j in range(len(sequence) - 1, sites[0] - 1, -1):
        if j in sites:
            suffixes[j] = state
        if j > sites[0]:
            state = arithmetic.push(state, sequence[j], backward=True)
    found: dict[int, Array] = {}
    low, state = None, arithmetic.start()
    for j in range(sites[-1] + 1):
        k = sequence[j]
        if j in suffixes:
            logits, least = arithmetic.component_weights(state, k, suffixes[j])
            if least is not None:
                low = least if low is None else xp.minimum(low, least)
            logits = logits if leave_out else logits + arithmetic.evidence.log_weights(k)
            logs = _normalised(logits)
            weights = astype(logs if log else xp.exp(logs), ring.prototype.dtype)
            found[k] = xp.broadcast_to(weights, (arithmetic.evidence.num_rows, weights.shape[1]))
        if j < sites[-1]:
            state = arithmetic.push(state, k)
    return xp.concat([found[k] for k in chosen], axis=1), low


def _normalised(logits: Array) -> Array:
    """Less the logarithm of the sum of their exponentials, row by row; −inf where all are."""
    total = logsumexp(logits)[:, None]
    xp = namespace(logits)
    return logits - xp.where(total == -xp.inf, 0.0, total)


def cdf(ring: Network, k: int | str, x: Any) -> Array:
    """F(x_k | other observed entries) = Σ_s p(s_k = s | others) F_s(x_k), shape (...); the point is x[..., k].

    Raises:
        ValueError: if the column is unknown, x does not fit, the point is missing, or the evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2), rd.GaussianMixture([-1.0, 1.0], [0.5, 0.5])]
        >>> cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]  # the category selects the Gaussian
        >>> ring = rd.TensorRing(cores, variables)
        >>> ring.cdf(1, [[0, -1.0], [np.nan, 0.0]]).round(3)
        array([0.5, 0.5])
    """
    k = ring.column(k)
    point, rest = point_and_rest(ring, k, x)
    rows, shape = as_rows(ring, rest)
    weights = component_posteriors(ring, rows, [ring.place(k)[0]])[0]
    family = conditional_family(ring, k, rows)
    values = like(family.cdf(namespace(point).reshape(point, (-1,))), ring.prototype)
    return namespace(rows).reshape(namespace(rows).sum(weights * values, axis=-1), shape)


def conditional_family(ring: Network, k: int, rows: Array) -> Family:
    """The components of column k given what rows (b, d) observe of the other columns of its variable.

    Parameters are (N,), or (b, N) if the variable is wide.
    """
    site, place = ring.place(k)
    return ring.families[site].conditional(site_values(ring, rows, site), place)


def point_and_rest(ring: Network, k: int, x: Any) -> tuple[Array, Array]:
    """The points x[..., k] of a cdf, none of them NaN, and x with NaN in their place."""
    point, rest = _split(ring, k, x)
    missing = namespace(point).any(namespace(point).isnan(point))
    if is_concrete(missing) and bool(missing):
        raise ValueError(f"{ring.describe(k)}: the point of a cdf must be given, found NaN")
    return point, rest


def quantile(ring: Network, k: int | str, q: Any, x: Any) -> Array:
    """The smallest value of column k with F(value | other observed entries) >= q, shape (...).

    Args:
        q: probabilities in [0, 1], broadcast against the leading shape of x. q = 0 gives the least
            value of the column's support, −inf if it is unbounded; q = 1 gives inf for a column
            without an upper bound.
        x: (..., d) evidence; x[..., k] is ignored.

    Computed by bisection down to neighbouring floating-point numbers, at every scale; integers for integer-valued
    families.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2), rd.GaussianMixture([-1.0, 1.0], [0.5, 0.5])]
        >>> cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]  # the category selects the Gaussian
        >>> ring = rd.TensorRing(cores, variables)
        >>> ring.quantile(1, 0.5, [[0, np.nan], [1, np.nan]]).round(3)
        array([-1.,  1.])
    """
    k = ring.column(k)
    levels, rest = levels_and_rest(ring, k, q, x)
    rows, shape = as_rows(ring, rest)
    weights = component_posteriors(ring, rows, [ring.place(k)[0]])[0]
    return quantiles(conditional_family(ring, k, rows), weights, levels, shape)


def levels_and_rest(ring: Network, k: int, q: Any, x: Any) -> tuple[Array, Array]:
    """The probabilities q of a quantile, in [0, 1], as an array, and x with NaN in column k."""
    core = ring.prototype
    if is_array(q):
        namespace(core, q)
    levels = like(q, core)
    inside = namespace(levels).all((levels >= 0) & (levels <= 1))
    if is_concrete(inside) and not bool(inside):
        raise ValueError(f"{ring.describe(k)}: q must lie in [0, 1]")
    return levels, _split(ring, k, x)[1]


def quantiles(family: Family, weights: Array, q: Array, shape: tuple[int, ...]) -> Array:
    """The quantiles at q, broadcast against `shape`, of distributions Σ_s weights[s] F_s.

    Args:
        family: the component densities, with parameters (N,), or (b, N) for each of the rows.
        weights: (b, N), one row of component weights for each of the prod(shape) rows of evidence.
        q: probabilities in [0, 1].
        shape: the leading shape of the evidence.
    """
    xp = namespace(weights)
    full = np.broadcast_shapes(shape, tuple(q.shape))

    def spread(array: Array) -> Array:
        """What is (b, N, ...), for each of the rows of the result."""
        rest = array.shape[1:]
        repeated = xp.broadcast_to(xp.reshape(array, (*shape, *rest)), (*full, *rest))
        return xp.reshape(repeated, (-1, *rest))

    if full != shape:
        family = family.with_rows(spread)
    invert = _invert_values if family.smooth and is_concrete(weights) else _invert
    value = invert(family, spread(weights), xp.reshape(xp.broadcast_to(q, full), (-1,)))
    return xp.reshape(value, full)


def _invert_values(family: Family, weights: Array, q: Array) -> Array:
    """As `_invert`, to rounding, for a smooth distribution function that is costly."""
    xp, (low, high) = namespace(weights), family.support
    total, inside = xp.sum(weights, axis=-1), (q > 0) & (q < 1)
    level = xp.where(inside, q, 0.5) * total
    centres, scales = (like(part, weights) for part in family.surroundings())
    centre = xp.sum(weights * centres, axis=-1) / total
    spread = xp.sum(weights * ((centres - centre[:, None]) ** 2 + scales**2), axis=-1) / total

    def excess(z: Array) -> Array:
        return xp.sum(weights * like(family.cdf(z), weights), axis=-1) - level

    value = crossing(excess, stop_gradient(centre), xp.sqrt(stop_gradient(spread)), low, high)
    return xp.where(inside, value, xp.where(q > 0, like(high, value), like(low, value)))


def _invert(family: Family, weights: Array, q: Array) -> Array:
    """The smallest z with Σ_s weights[s] F_s(z) >= q, (b,), whatever the scale of the components."""
    xp = namespace(weights)
    total = xp.sum(weights, axis=-1)  # 1 but for rounding, which must not put q = 1 out of reach
    means = like(family.means(), weights)

    def reached(z: Array) -> Array:
        z = xp.floor(z) if family.integer else z
        values = like(family.cdf(z), weights)
        # A cdf may be undefined far out, where it divides infinity by infinity.
        values = xp.where(xp.isnan(values), astype(z[:, None] > means, weights.dtype), values)
        return xp.sum(weights * values, axis=-1) >= q * total

    end = float(xp.finfo(weights.dtype).max)
    with without_warnings(weights):
        above = ~reached(end + 0 * total)
        value = first_reached(reached, -end + 0 * total, end + 0 * total)
        # Far in the tail every cdf rounds to 1, so only the support determines whether a column has an end.
        above = above | ((q >= 1) & family.is_endless(value))
    value = xp.round(value) if family.integer else value
    value = xp.where(q <= 0, family.support[0], xp.clip(value, min=family.support[0]))
    return xp.where(above, xp.inf, value)


def _split(ring: Network, k: int, x: Any) -> tuple[Array, Array]:
    """x[..., k], and x with NaN in its place."""
    x = plain(ring, x)
    x = x if is_array(x) else like(x, ring.prototype)
    xp = namespace(ring.prototype, x)
    x = astype(x, ring.prototype.dtype)
    if x.ndim == 0 or x.shape[-1] != ring.num_columns:
        raise ValueError(f"x must have shape (..., {ring.num_columns}), one entry per column, found {tuple(x.shape)}")
    here = like(np.arange(ring.num_columns) == k, x, xp.bool)
    return x[..., k], xp.where(here, xp.nan, x)
