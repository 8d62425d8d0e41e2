"""Truncation of Gaussian and Student-t components in columns without negative numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column
from ringdist.estimator.families import LOCATION_SCALE
from ringdist.ring_mixture import RingMixture
from ringdist.variables import Interval, as_family

EXPECTED = 5.0  # expected rows beyond the end of a support; to see none of them has probability e^−5, 1 in 150


def within_supports(model: Any, columns: Sequence[Column], rows: np.ndarray) -> Any:
    """The model conditioned on columns staying within their supports, where the model puts noticeable mass beyond them.

    An unrestricted component near the end of a support has mass beyond it, but no data and no samples may be there.
    Components are truncated (`rd.Truncated`) in columns for which the model expects `EXPECTED` of the rows or more
    beyond the end. Other columns stay as they are. So do columns that share a covariance, whose truncated components
    are slow.

    Args:
        model: a ring or a mixture of rings, in the units of the data.
        rows: (n, d) that it was fitted to, NaN where missing.
    """
    rings = model.rings if isinstance(model, RingMixture) else (model,)
    event: dict[int, Interval] = {}
    for k, column in enumerate(columns):
        if column.type not in LOCATION_SCALE or column.end == -math.inf:
            continue
        sites = [ring.place(k)[0] for ring in rings]
        if any(len(ring.columns[i]) > 1 for ring, i in zip(rings, sites, strict=True)):
            continue
        below, observed = float(np.nextafter(column.end, -math.inf)), int((~np.isnan(rows[:, k])).sum())
        log_bound = max(
            float(as_family(ring.variables[i]).log_probability(-math.inf, below).max())
            for ring, i in zip(rings, sites, strict=True)
        )
        if observed * math.exp(log_bound) < EXPECTED:
            continue
        if observed * float(model.probability({k: Interval(None, below)})) >= EXPECTED:
            event[k] = Interval(column.end, None)
    return model.condition(event) if event else model
