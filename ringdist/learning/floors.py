"""Least standard deviations of components, relative to the scale of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import dtype_name, namespace, to_numpy
from ringdist.learning.data import TrainingData
from ringdist.ring import TensorRing
from ringdist.variables import column_scale


class Scale(NamedTuple):
    """A power of two near the size of each column's values, and the centre of the values in that unit."""

    unit: np.ndarray
    centre: np.ndarray


def least_stds_of(
    ring: TensorRing, data: TrainingData, variance_floor: float, total: Callable[..., Any]
) -> dict[int, Any]:
    """Least standard deviation at each site whose family has one; (width,) for a wide variable.

    It is relative to the standard deviation of the column's observed entries. If a column is constant up to rounding,
    it is relative to the size of its values, or to 1 if they are 0.

    Args:
        ring: of the variables.
        data: the rows.
        variance_floor: the least variance relative to that of the column.
        total: sums each number over the processes, (data, *numbers) -> array.
    """
    sites = [i for i, family in enumerate(ring.families) if family.has_variance]
    columns = [k for i in sites for k in ring.columns[i]]
    if not columns or variance_floor == 0:
        return {}
    scale: Any = None
    sums: Any = np.zeros((3, len(columns)))
    for start in range(0, data.num_rows, 2**16):
        rows, weight = data.batch(ring, slice(start, start + 2**16))
        block, w = to_numpy(rows)[:, columns].astype(np.float64), to_numpy(weight).astype(np.float64)[:, None]
        block = np.stack([ring.families[ring.place(k)[0]].floored(block[:, i]) for i, k in enumerate(columns)], axis=1)
        scale = _scale(data, block, total) if scale is None else scale
        observed = ~np.isnan(block)
        block = np.where(observed, block / scale.unit - scale.centre, 0.0)
        sums += np.stack([(w * observed).sum(0), (w * block).sum(0), (w * block**2).sum(0)])
    count, first, second = total(data, *sums.reshape(-1)).reshape(3, -1)
    count = np.where(count > 0, count, 1.0)
    std = np.sqrt(np.maximum(second / count - (first / count) ** 2, 0.0)) * scale.unit
    mean = (scale.centre + first / count) * scale.unit
    least = math.sqrt(variance_floor) * column_scale(mean, std, _rounding(ring, data))
    number = {k: n for n, k in enumerate(columns)}
    return {
        i: least[[number[k] for k in own]] if len(own) > 1 else float(least[number[own[0]]])
        for i, own in ((i, ring.columns[i]) for i in sites)
    }


def given_stds(ring: TensorRing, values: Sequence[float | None]) -> dict[int, Any]:
    """Least standard deviations by site, (width,) for a wide variable, from the caller's values by column.

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


def _scale(data: TrainingData, block: np.ndarray, total: Callable[..., Any]) -> Scale:
    """The scale of the first rows of every process, equal in all of them."""
    observed = ~np.isnan(block)
    filled = np.where(observed, block, 0.0)
    exponent = np.frexp(np.abs(filled).max(axis=0))[1]
    peak = np.ldexp(1.0, np.maximum(exponent, -1000) - 1)  # at most the largest entry; division by it is exact
    mean = (filled / peak).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
    # Divided by 2^10, sums over processes stay in range.
    summands = np.stack([observed.any(axis=0), peak / 2**10, mean * (peak / 2**10)])
    number, size, centre = total(data, *summands.reshape(-1)).reshape(3, -1)
    unit = np.ldexp(1.0, np.frexp(size)[1] + 9)
    return Scale(unit, centre / np.maximum(number, 1) / (unit / 2**10))


def _rounding(ring: TensorRing, data: TrainingData) -> float:
    """The relative rounding error of the data: that of their dtype, or of the ring's."""
    eps = float(namespace(ring.prototype).finfo(ring.prototype.dtype).eps)
    return max(eps, float(np.finfo(np.float32).eps)) if dtype_name(data.x.dtype) == "float32" else eps
