"""How narrow a component may become: least standard deviations from the data's own scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import dtype_name, namespace, to_numpy
from ringdist.learning.data import TrainingData
from ringdist.ring import TensorRing
from ringdist.variables import column_scale


class Place(NamedTuple):
    """A power of two near the size of each column's values, and in that unit a number near them."""

    unit: np.ndarray
    centre: np.ndarray


def least_stds_of(
    ring: TensorRing, data: TrainingData, variance_floor: float, total: Callable[..., Any]
) -> dict[int, Any]:
    """Least standard deviation at each site whose family has one, from that of the column's observed entries.

    Of a wide variable one for each of its columns, (width,).

    Of a column that is constant but for rounding, from the size of its values, or 1 if they are 0.

    Args:
        variance_floor: share of the column's variance.
        total: sums each of some numbers over the processes, (data, *numbers) -> array.
    """
    sites = [i for i, family in enumerate(ring.families) if family.has_variance]
    columns = [k for i in sites for k in ring.columns[i]]
    if not columns or variance_floor == 0:
        return {}
    place: Any = None
    sums: Any = np.zeros((3, len(columns)))
    for start in range(0, data.num_rows, 2**16):
        rows, weight = data.batch(ring, slice(start, start + 2**16))
        block, w = to_numpy(rows)[:, columns].astype(np.float64), to_numpy(weight).astype(np.float64)[:, None]
        block = np.stack([ring.families[ring.place(k)[0]].floored(block[:, i]) for i, k in enumerate(columns)], axis=1)
        place = _place(data, block, total) if place is None else place
        seen = ~np.isnan(block)
        block = np.where(seen, block / place.unit - place.centre, 0.0)
        sums += np.stack([(w * seen).sum(0), (w * block).sum(0), (w * block**2).sum(0)])
    count, first, second = total(data, *sums.reshape(-1)).reshape(3, -1)
    count = np.where(count > 0, count, 1.0)
    std = np.sqrt(np.maximum(second / count - (first / count) ** 2, 0.0)) * place.unit
    mean = (place.centre + first / count) * place.unit
    least = math.sqrt(variance_floor) * column_scale(mean, std, _rounding(ring, data))
    number = {k: n for n, k in enumerate(columns)}
    return {
        i: least[[number[k] for k in own]] if len(own) > 1 else float(least[number[own[0]]])
        for i, own in ((i, ring.columns[i]) for i in sites)
    }


def given_stds(ring: TensorRing, values: Sequence[float | None]) -> dict[int, Any]:
    """Least standard deviations by site, (width,) of a wide variable, from those that the caller names by column.

    Raises:
        ValueError: unless there is one for each column, finite and not negative, or None.
    """
    if len(values) != ring.num_columns:
        raise ValueError(f"least_stds must have an entry for each of {ring.num_columns} columns, found {len(values)}")
    for k, value in enumerate(values):
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{ring.describe(k)}: least_stds must be finite and not negative, found {value}")
    found: dict[int, Any] = {}
    for i, columns in enumerate(ring.columns):
        own = [float(values[k] or 0.0) for k in columns]
        if ring.families[i].has_variance and any(own):
            found[i] = own[0] if len(own) == 1 else np.asarray(own)
    return found


def _place(data: TrainingData, block: np.ndarray, total: Callable[..., Any]) -> Place:
    """From the first rows of every process, the same in all of them."""
    seen = ~np.isnan(block)
    filled = np.where(seen, block, 0.0)
    exponent = np.frexp(np.abs(filled).max(axis=0))[1]
    peak = np.ldexp(1.0, np.maximum(exponent, -1000) - 1)  # at most the largest entry, exact to divide by
    mean = (filled / peak).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    shares = np.stack([seen.any(axis=0), peak / 2**10, mean * (peak / 2**10)])  # sums that stay in range
    found, size, centre = total(data, *shares.reshape(-1)).reshape(3, -1)
    unit = np.ldexp(1.0, np.frexp(size)[1] + 9)
    return Place(unit, centre / np.maximum(found, 1) / (unit / 2**10))


def _rounding(ring: TensorRing, data: TrainingData) -> float:
    """The relative spacing of the numbers that the data were rounded to: their own dtype's, or the ring's."""
    eps = float(namespace(ring.prototype).finfo(ring.prototype.dtype).eps)
    return max(eps, float(np.finfo(np.float32).eps)) if dtype_name(data.x.dtype) == "float32" else eps
