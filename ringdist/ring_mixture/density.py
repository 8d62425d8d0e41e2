"""The density of a mixture of rings, and which ring a row belongs to."""

from __future__ import annotations

import math
from typing import Any

from ringdist.backend import (
    Array,
    astype,
    is_concrete,
    largest_exponent,
    log_scaled_sum,
    namespace,
    nonzero_rows,
    stop_gradient,
)
from ringdist.engines.choice import Engine
from ringdist.network.evidence import as_rows, as_table
from ringdist.queries.log_prob import log_densities
from ringdist.ring_mixture.structure import Mixture


def log_prob(mixture: Mixture, x: Any, engine: Engine = "auto") -> Array:
    """log p(x) = log Σ_c w_c p_c(x), with NaN entries marginalised row by row.

    Args:
        x: (..., d) real numbers, as for a ring.
        engine: of the rings, as in `TensorRing.log_prob`.

    Returns:
        (...) in nats, in the rings' dtype; −inf where the density is zero. Gradients flow to the rings, the weights and
        x; at a weight of 0 the gradient is that of leaving 0. The cost is that of all rings.

    Raises:
        ValueError: if the last axis is not d long, a value is outside its support, or the engine is unknown.
        TypeError: if x is of another backend than the rings.

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


def ring_posteriors(mixture: Mixture, rows: Array) -> Array:
    """p(ring c | row) for rows (b, d), shape (b, K), in the accumulator's dtype.

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
    joint = _log_joint(mixture, rows, "auto", logs)
    total = log_scaled_sum(weights, joint)
    xp, impossible = namespace(rows), stop_gradient(total) == -math.inf
    if is_concrete(impossible):
        empty = nonzero_rows(impossible)
        if empty.shape[0]:
            raise ValueError(f"evidence must have positive mass, found zero mass in row {int(empty[0])}")
    relative = joint - xp.where(impossible, 0.0, total)[:, None]
    return weights * xp.exp(xp.clip(relative, max=largest_exponent(relative)))


def possible(posterior: Array, rows: Array) -> Array:
    """Rows (b, d) without their entries where `posterior` (b,) of a ring is 0: it is asked nothing impossible.

    What it answers there has no weight.
    """
    xp = namespace(rows)
    return xp.where((stop_gradient(posterior) > 0)[:, None], rows, xp.nan)


def _log_joint(mixture: Mixture, table: Array, engine: Engine, logs: Array) -> Array:
    """log p_c of rows (b, d) and logs[c], added: (b, K) in the accumulator's dtype."""
    xp = namespace(table)
    densities = xp.stack([log_densities(ring, table, engine) for ring in mixture.rings], axis=1)
    # A ring that was conditioned on the impossible while values could not be looked at has no density.
    return xp.where(logs == -math.inf, -math.inf, densities + logs)
