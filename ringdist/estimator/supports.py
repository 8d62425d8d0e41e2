"""Where Gaussian and Student-t components of a column without negative numbers end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column
from ringdist.estimator.families import LOCATION_SCALE
from ringdist.ring_mixture import RingMixture
from ringdist.variables import Interval, as_family

EXPECTED = 5.0  # rows beyond the end of a support that a model expects and that were not seen: 1 in 150 by chance


def within_supports(model: Any, columns: Sequence[Column], rows: np.ndarray) -> Any:
    """The model given that columns do not pass the ends of their supports, where that is likely to be so.

    An unrestricted component beside an end has mass beyond it, which no data have and no sample may have. Components
    are truncated (`rd.Truncated`) in columns of their own beyond whose end the model expects `EXPECTED` of the rows or
    more. It stays as it is where it expects fewer, and in columns that share a covariance, whose truncated components
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
        below, seen = float(np.nextafter(column.end, -math.inf)), int((~np.isnan(rows[:, k])).sum())
        most = max(
            float(as_family(ring.variables[i]).log_probability(-math.inf, below).max())
            for ring, i in zip(rings, sites, strict=True)
        )
        if seen * math.exp(most) < EXPECTED:
            continue
        if seen * float(model.probability({k: Interval(None, below)})) >= EXPECTED:
            event[k] = Interval(column.end, None)
    return model.condition(event) if event else model
