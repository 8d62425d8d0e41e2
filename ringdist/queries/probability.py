"""Probabilities of events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ringdist.backend import Array, astype, is_concrete, like_zeros, namespace, nonzero_rows, stop_gradient
from ringdist.network import Column, Network
from ringdist.network.events import as_events
from ringdist.network.rows import as_table
from ringdist.queries.log_prob import log_densities


def probability(ring: Network, event: Mapping[Column, Any], x: Any = None, *, log: bool = False) -> Array:
    """P(event | observed entries of the row) = p(event, observed) / p(observed), exact; a scalar array without x.

    An event is evidence whose weight for a component is the component's mass in it: ∫ p(x_k | s) dx_k over the interval
    replaces the density in Eq. 3 of the paper. Masses are computed as logarithms, so probabilities far in the tails
    are accurate. For probabilities below the range of the dtype use `log=True`.

    Args:
        event: maps a column (index or name) to a closed `rd.Interval`, or a categorical column to a set or list of
            categories; the event is their intersection.
        x: (..., d) evidence. If an entry in a column of the event is observed, it is checked: the probability is 0 if
            it is outside.
        log: whether to return log P.

    Returns:
        (...) in [0, 1] in the cores' dtype, or its logarithm. Gradients flow to cores, variables and x. Cost of two
        likelihoods, or of one without x.

    Raises:
        ValueError: if a column is unknown or named twice, a category is outside its range, a set is empty, an interval
            is given for categories or a set for numbers, x does not fit, or a row's evidence has zero mass.
        TypeError: if `event` is not a mapping to intervals and sets.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> height = rd.GaussianMixture([110.0, 170.0], [10.0, 10.0], name="height")
        >>> cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]  # the category selects the Gaussian
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2, name="adult"), height])
        >>> tall = {"height": rd.Interval(170, None)}
        >>> round(float(ring.probability(tall)), 3)
        0.25
        >>> ring.probability(tall, [[1, np.nan], [0, np.nan]]).round(3)
        array([0.5, 0. ])
        >>> round(float(ring.probability({"adult": {0}, "height": rd.Interval(800, None)}, log=True)), 3)
        -2386.346
    """
    events, core = as_events(ring, event), ring.prototype
    table, shape = (like_zeros((1, ring.num_columns), core) + math.nan, ()) if x is None else as_table(ring, x)
    xp = namespace(table)
    value = log_densities(ring, table, events=events)
    if x is not None:
        observed = log_densities(ring, table)
        _check_mass(observed)
        value = value - observed
    value = xp.where(value > 0, 0.0, value)  # rounding can leave 1e-16
    return xp.reshape(astype(value if log else xp.exp(value), core.dtype), shape)


def _check_mass(observed: Array) -> None:
    if is_concrete(observed):
        empty = nonzero_rows(stop_gradient(observed) == -math.inf)
        if empty.shape[0]:
            raise ValueError(f"evidence must have positive mass, found zero mass in row {int(empty[0])}")
