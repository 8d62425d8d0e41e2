"""Standardised columns for fitting, and the conversion of fitted models to the units of the data.

Columns with Gaussian and Student-t components are standardised. All other families are fitted in the units of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.estimator.columns import Column
from ringdist.estimator.families import LOCATION_SCALE
from ringdist.estimator.structures import as_gaussian
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture
from ringdist.variables import (
    Categorical,
    MultivariateGaussianMixture,
    Variable,
    WithAtoms,
    as_family,
    column_scale,
    rebuild,
)


class Units(NamedTuple):
    """The origin and the unit of every column; columns are fitted as (x − place) / unit."""

    place: np.ndarray  # (d,), the origin
    unit: np.ndarray  # (d,)

    def standard(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, d), standardised."""
        return np.asarray((rows - self.place) / self.unit)

    def log_volume(self, rows: np.ndarray, weight: np.ndarray, columns: Sequence[Column]) -> float:
        """The weighted mean over rows of Σ_k log unit_k over observed entries that have a density.

        This is subtracted from mean log-likelihoods of standardised rows.
        """
        seen = ~np.isnan(rows)
        for k, column in enumerate(columns):
            if column.atoms:
                seen[:, k] &= ~np.isin(rows[:, k], column.atoms)
        return float(weight @ (seen @ np.log(self.unit)) / max(weight.sum(), 1e-300))


def units_of(rows: np.ndarray, weight: np.ndarray, columns: Sequence[Column]) -> Units:
    """Weighted mean and standard deviation of the observed entries of standardised columns; 0 and 1 for others.

    For a column that is constant up to rounding, the origin is 0 and the unit its value. Subtracting the value would
    leave rounding errors, which a relative tolerance could not distinguish from data.
    """
    origin, unit = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    for k, column in enumerate(columns):
        if column.categories is not None or column.type not in LOCATION_SCALE:
            continue
        seen = ~np.isnan(rows[:, k]) & ~np.isin(rows[:, k], column.atoms)
        if seen.any():  # otherwise `initialize` raises an error with the column
            origin[k], unit[k] = _mean_and_scale(rows[seen, k], weight[seen] / weight[seen].sum())
    return Units(origin, unit)


def _mean_and_scale(values: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    size = 2.0 ** (float(np.frexp(np.abs(values).max() or 1.0)[1]) - 1)  # a power of two: squares stay in range
    scaled = values / size
    mean = float(share @ scaled)
    std = float(np.sqrt(share @ (scaled - mean) ** 2))
    scale = float(column_scale(mean, std, 5 * float(np.finfo(np.float64).eps)))  # sums have rounding errors too
    if scale == std:
        return mean * size, scale * size
    return 0.0, (scale * size if mean else 1.0)


def in_units(model: Any, units: Units, columns: Sequence[Column], names: Sequence[str] | None) -> Any:
    """The model of standardised columns in the units of the data: p(x) = p(z) / ∏_k unit_k."""
    if isinstance(model, RingMixture):
        rings = [_ring_in_units(ring, units, columns, names) for ring in model.rings]
        return RingMixture(rings, model.weights)
    return _ring_in_units(model, units, columns, names)


def _ring_in_units(
    ring: TensorRing, units: Units, columns: Sequence[Column], names: Sequence[str] | None
) -> TensorRing:
    columns, variables = as_gaussian(columns, ring.columns), []
    for own, variable in zip(ring.columns, ring.variables, strict=True):
        labels = [None if names is None else names[k] for k in own]
        if len(own) > 1:
            variables.append(_wide_in_units(variable, units, own, labels))
        else:
            k = own[0]
            variables.append(_in_units(variable, units.place[k], units.unit[k], columns[k], labels[0]))
    return TensorRing(ring.links, variables, ring.order, columns=ring.columns)


def _wide_in_units(variable: Any, units: Units, own: Sequence[int], names: Sequence[str | None]) -> Variable:
    arrays, unit = variable.arrays(), units.unit[list(own)]
    means = units.place[list(own)] + unit * arrays["means"]
    return MultivariateGaussianMixture(means, arrays["covariances"] * (unit[:, None] * unit), names=names)


def _in_units(variable: Variable, origin: float, unit: float, column: Column, name: str | None) -> Variable:
    if isinstance(variable, Categorical):
        return Categorical(variable.num_components, name=name)
    arrays = dict(variable.arrays())
    for label in ("means", "locs"):
        if label in arrays and column.type in LOCATION_SCALE:
            arrays[label] = origin + unit * arrays[label]
    for label in ("stds", "scales"):
        if label in arrays and column.type in LOCATION_SCALE:
            arrays[label] = unit * arrays[label]
    form = as_family(variable).form._replace(name=name)
    if isinstance(variable, WithAtoms):
        form = form._replace(options=(form.options[0], ("atoms", column.atoms)))
    found: Variable = rebuild(form, arrays)
    return found
