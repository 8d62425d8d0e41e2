"""The density of a mixture of rings, and the responsibilities of its rings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    is_concrete,
    largest_exponent,
    like,
    log_scaled_sum,
    namespace,
    nonzero_rows,
    stop_gradient,
)
from ringdist.engines.choice import Engine
from ringdist.network.events import as_events
from ringdist.network.layout import Column
from ringdist.network.rows import as_rows, as_table
from ringdist.queries.log_prob import log_densities
from ringdist.ring_mixture.structure import Mixture


def log_prob(mixture: Mixture, x: Any, engine: Engine = "auto") -> Array:
    """log p(x) = log Σ_c w_c p_c(x), with NaN entries marginalised row by row.

    Args:
        x: (..., d) real numbers, as for a ring.
        engine: for the rings, as in `TensorRing.log_prob`.

    Returns:
        (...) in nats, in the rings' dtype; −inf where the density is zero. Gradients flow to the rings, the weights and
        x; at a weight of 0 the gradient is that of leaving 0. The cost is that of all rings.

    Raises:
        ValueError: if the last axis does not have length d, a value is outside its support, or the engine is unknown.
        TypeError: if x and the rings have different backends.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> mixture = rd.RingMixture([a, b], [0.25, 0.75])
        >>> np.exp(mixture.log_prob([[0], [1]])).round(3)
        array([0.8, 0.2])
    """
    table, shape = as_table(mixture.rings[0], x)
    weights, logs = mixture.normalized()
    values = log_scaled_sum(weights, _log_joint(mixture, table, engine, logs))
    return namespace(table).reshape(astype(values, mixture.prototype.dtype), shape)


def probability(mixture: Mixture, event: Mapping[Column, Any], x: Any = None, *, log: bool = False) -> Array:
    """P(event | observed entries of the row) = Σ_c w_c p_c(event, observed) / p(observed); a scalar without x.

    Args:
        event: maps columns (index or name) to an `rd.Interval` or a set of categories, as for a ring; the event is
            their intersection.
        x: (..., d) evidence. The probability is 0 if an observed entry is outside the event.
        log: whether to return log P, which is accurate far in the tails.

    Returns:
        (...) in [0, 1] in the rings' dtype, or its logarithm. Gradients flow to rings, weights and x.

    Raises:
        ValueError: if the event does not fit its columns, x does not fit, or a row's evidence has zero mass.
        TypeError: if `event` is not a mapping to intervals and sets.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.ones((1, 1, 1))] * 2, [rd.GaussianMixture([mean], [1.0])] * 2)
        ...     for mean in (-10.0, 10.0)
        ... )
        >>> mixture = rd.RingMixture([a, b], [0.2, 0.8])
        >>> positive = {0: rd.Interval(0, None)}
        >>> round(float(mixture.probability(positive)), 3)
        0.8
        >>> mixture.probability(positive, [[np.nan, -9.0], [np.nan, 9.0]]).round(3)
        array([0., 1.])
    """
    nothing = like(np.full((1, mixture.num_columns), np.nan), mixture.prototype)
    table, shape = (nothing, ()) if x is None else as_table(mixture.rings[0], x)
    (weights, logs), xp = mixture.normalized(), namespace(table)
    value = log_scaled_sum(weights, _log_joint(mixture, table, "auto", logs, event))
    if x is not None:
        observed = log_scaled_sum(weights, _log_joint(mixture, table, "auto", logs))
        _check_mass(observed)
        value = value - observed
    value = xp.where(value > 0, 0.0, value)  # rounding can leave 1e-16
    return xp.reshape(astype(value if log else xp.exp(value), mixture.prototype.dtype), shape)


def _check_mass(total: Array) -> None:
    impossible = stop_gradient(total) == -math.inf
    if is_concrete(impossible):
        empty = nonzero_rows(impossible)
        if empty.shape[0]:
            raise ValueError(f"evidence must have positive mass, found zero mass in row {int(empty[0])}")


def ring_posterior(mixture: Mixture, x: Any) -> Array:
    """p(ring c | observed entries of the row) ∝ w_c p_c(x), shape (..., K); NaN entries are marginalised.

    Raises:
        ValueError: if x does not fit, or a row's evidence has zero mass in all rings.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> mixture = rd.RingMixture([a, b], [0.4, 0.6])
        >>> mixture.ring_posterior([[0], [1], [np.nan]]).round(3)
        array([[0.27 , 0.73 ],
               [0.769, 0.231],
               [0.4  , 0.6  ]])
    """
    rows, shape = as_rows(mixture.rings[0], x)
    posterior = astype(ring_posteriors(mixture, rows), mixture.prototype.dtype)
    return namespace(rows).reshape(posterior, (*shape, mixture.num_rings))


def ring_posteriors(mixture: Mixture, rows: Array, event: Mapping[Column, Any] | None = None) -> Array:
    """p(ring c | row, event) for rows (b, d), shape (b, K), in the accumulator's dtype.

    Raises:
        ValueError: if the evidence of a row has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> ring_posteriors(rd.RingMixture([ring, ring], [1.0, 3.0]), np.zeros((1, 3))).round(3)
        array([[0.25, 0.75]])
    """
    weights, logs = mixture.normalized()
    joint = _log_joint(mixture, rows, "auto", logs, event)
    total = log_scaled_sum(weights, joint)
    _check_mass(total)
    xp = namespace(rows)
    relative = joint - xp.where(stop_gradient(total) == -math.inf, 0.0, total)[:, None]
    return weights * xp.exp(xp.clip(relative, max=largest_exponent(relative)))


def possible(posterior: Array, rows: Array) -> Array:
    """Rows (b, d), all NaN where `posterior` (b,) of a ring is 0, so that the ring has no impossible evidence.

    The ring's results for these rows have weight 0.
    """
    xp = namespace(rows)
    return xp.where((stop_gradient(posterior) > 0)[:, None], rows, xp.nan)


def _log_joint(
    mixture: Mixture, table: Array, engine: Engine, logs: Array, event: Mapping[Column, Any] | None = None
) -> Array:
    """log p_c of rows (b, d), and of an event with each of them, and logs[c], added: (b, K) in the wider dtype."""
    xp = namespace(table)
    events = [as_events(ring, event or {}) for ring in mixture.rings]
    densities = [log_densities(ring, table, engine, e) for ring, e in zip(mixture.rings, events, strict=True)]
    # A ring that was conditioned on the impossible while values could not be inspected has no density.
    return xp.where(logs == -math.inf, -math.inf, xp.stack(densities, axis=1) + logs)
