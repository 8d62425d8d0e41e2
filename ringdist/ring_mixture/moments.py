"""Exact means, covariances and mutual information of a mixture of rings."""

from __future__ import annotations

from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    is_concrete,
    like,
    namespace,
    stop_gradient,
    to_numpy,
)
from ringdist.network.rows import as_rows
from ringdist.queries import moments
from ringdist.queries.elimination import widened
from ringdist.queries.posterior import component_posteriors
from ringdist.ring import TensorRing
from ringdist.ring_mixture.density import possible
from ringdist.ring_mixture.posterior import shares
from ringdist.ring_mixture.structure import Mixture
from ringdist.variables import Categorical


def mean(mixture: Mixture, x: Any = None) -> Array:
    """E[column], shape (d,); with x (..., d) E[column | observed entries of the row], observed entries as they are.

    A categorical column contributes its code 0..N-1.

    Raises:
        ValueError: if x does not fit or the evidence of a row has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> rd.RingMixture([a, b], [0.25, 0.75]).mean().round(3)
        array([0.2])
    """
    first = mixture.rings[0]
    xp = namespace(mixture.prototype)
    rows, shape = as_rows(first, like([float("nan")] * mixture.num_columns, mixture.prototype) if x is None else x)
    missing, parts = xp.isnan(rows), []
    if is_concrete(missing) and not bool(xp.any(missing)):
        return xp.reshape(rows + 0, (*shape, mixture.num_columns))
    for ring, share in zip(mixture.rings, shares(mixture, rows), strict=True):
        expected = moments.mean(ring, possible(share, rows))
        expected = xp.where((stop_gradient(share) > 0)[:, None], expected, 0.0)  # it may be infinite
        parts.append(share[:, None] * expected)
    return xp.reshape(xp.where(missing, sum(parts[1:], parts[0]), rows), (*shape, mixture.num_columns))


def covariance(mixture: Mixture) -> Array:
    """Σ_c w_c (Cov_c + (μ_c − μ)(μ_c − μ)ᵀ), shape (d, d), exact: the law of total covariance.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.ones((1, 1, 1))] * 2, [rd.GaussianMixture([mean], [1.0])] * 2)
        ...     for mean in (-1.0, 1.0)
        ... )
        >>> rd.RingMixture([a, b], [0.5, 0.5]).covariance().round(3)
        array([[2., 1.],
               [1., 2.]])
    """
    weights = astype(mixture.weights, accumulator(mixture.prototype))
    members = [(weights[c], widened(ring)) for c, ring in _weighty(mixture, weights)]
    means = [moments.mean(ring) for _, ring in members]
    centre: Array = sum(weight * expected for (weight, _), expected in zip(members, means, strict=True))
    parts = [
        weight * (moments.covariance(ring) + (expected - centre)[:, None] * (expected - centre)[None, :])
        for (weight, ring), expected in zip(members, means, strict=True)
    ]
    return astype(sum(parts[1:], parts[0]), mixture.prototype.dtype)


def _weighty(mixture: Mixture, weights: Array) -> list[tuple[int, TensorRing]]:
    """The rings by index, without those whose weight is known to be 0, because their moments may be infinite."""
    if not is_concrete(weights):
        return list(enumerate(mixture.rings))
    positive = to_numpy(stop_gradient(weights)) > 0
    return [(c, ring) for c, ring in enumerate(mixture.rings) if positive[c]]


def mutual_information(mixture: Mixture) -> Array:
    """I(s_j; s_k) in nats between component variables, shape (d, d); the diagonal is their entropy.

    As in `component_posterior`, a component of a categorical column is a value, and of another column a pair of a ring
    and one of its components. Between categorical columns this is the mutual information of the values; for others it
    is an upper bound of it, because values depend on each other only through their components. The columns of a wide
    variable share its component, so rows and columns of the result are variables.

    Cost: for every ring the posteriors of Σ_k N_k rows.

    Raises:
        ValueError: if the rings group columns into variables differently.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))] * 2, [rd.Categorical(2)] * 2)
        ...     for weights in ([1.0, 0.0], [0.0, 1.0])
        ... )
        >>> rd.RingMixture([a, b], [0.5, 0.5]).mutual_information().round(3)
        array([[0.693, 0.693],
               [0.693, 0.693]])
    """
    for c, ring in enumerate(mixture.rings):
        if ring.columns != mixture.rings[0].columns:
            found = f"{mixture.rings[0].columns} and {ring.columns} (ring {c})"
            raise ValueError(f"rings must have the same columns at each variable, found {found}")
    weights = astype(mixture.weights, accumulator(mixture.prototype))
    xp, parts = namespace(weights), []
    owner, places = _components(mixture)
    for c, ring in _weighty(mixture, weights):
        select = like(places[c][:, None] == np.arange(owner.shape[0]), weights)
        parts.append(weights[c] * (select.T @ _pair_table(widened(ring)) @ select))
    joint: Array = sum(parts[1:], parts[0])
    joint = (joint + joint.T) / 2
    margin = xp.linalg.diagonal(joint)
    log_margin = xp.log(xp.where(margin > 0, margin, 1.0))
    logs = xp.log(xp.where(joint > 0, joint, 1.0)) - log_margin[:, None] - log_margin[None, :]
    sums = like(owner[:, None] == np.arange(mixture.num_variables), weights)
    total = sums.T @ (joint * xp.where(joint > 0, logs, 0.0)) @ sums
    return astype(xp.where(total > 0, total, 0.0), mixture.prototype.dtype)  # rounding can leave −1e-17


def _components(mixture: Mixture) -> tuple[np.ndarray, list[np.ndarray]]:
    """The column of every component of the mixture, and for each ring the indices of its components."""
    first = mixture.rings[0]
    shared = [family.values_are_components for family in first.families]
    owner: list[int] = []
    places: list[list[int]] = []
    start: dict[int, int] = {}
    for ring in mixture.rings:
        numbers: list[int] = []
        for k, size in enumerate(ring.shape):
            if k not in start or not shared[k]:
                start[k] = len(owner)
                owner += [k] * size
            numbers += range(start[k], start[k] + size)
        places.append(numbers)
    return np.asarray(owner), [np.asarray(numbers) for numbers in places]


def _pair_table(ring: TensorRing) -> Array:
    """p(s_j = u, s_k = v) for all columns j, k and components u, v: (Σ N, Σ N)."""
    core, d = ring.prototype, ring.num_variables
    xp, columns = namespace(core), list(range(d))
    values = [Categorical(size) for size in ring.shape]
    states = ring.rebuilt(ring.links, values, ring.order, columns)  # of which components are values
    nothing = xp.broadcast_to(like(float("nan"), core), (1, d))
    margin = xp.concat(component_posteriors(states, nothing, columns), axis=1)[0]
    observed = np.full((sum(ring.shape), d), np.nan)
    for row, (k, value) in enumerate((k, value) for k, size in enumerate(ring.shape) for value in range(size)):
        observed[row, k] = value
    rows = possible(margin, like(observed, core))
    given = xp.concat(component_posteriors(states, rows, columns), axis=1)
    return margin[:, None] * given
