"""Standardised columns and the units of the data: EM learns on the former, users read the latter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ringdist.ring import TensorRing
from ringdist.variables import Categorical, GaussianMixture, Variable, column_scale


def standards(rows: np.ndarray, weight: np.ndarray, real: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of the observed entries of continuous columns, each (d,); else 0 and 1.

    A column that is constant but for rounding keeps its centre at 0 and is measured in units of its
    value: less that value it would be its rounding, which no relative tolerance can tell from data.
    """
    centre, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    for k in np.flatnonzero(real):
        seen = ~np.isnan(rows[:, k])
        if not seen.any():
            continue  # `initialize` names the column
        values, share = rows[seen, k], weight[seen] / weight[seen].sum()
        mean = share @ values
        std = np.sqrt(share @ (values - mean) ** 2)
        scale[k] = column_scale(mean, std, 5 * float(np.finfo(np.float64).eps))  # sums are rounded too
        centre[k] = mean if scale[k] == std else 0.0
    return centre, scale


def log_volume(rows: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> float:
    """Mean over rows of Σ_k log scale_k over the observed entries: log-densities fall by it with the unit of scale."""
    return float(weight @ (~np.isnan(rows) @ np.log(scale)) / max(weight.sum(), 1e-300))


def in_units(ring: TensorRing, centre: np.ndarray, scale: np.ndarray, names: Sequence[str] | None) -> TensorRing:
    """The ring of standardised columns in the units of the data: p(x) = p(z) / ∏_k scale_k."""
    variables: list[Variable] = []
    for k, variable in enumerate(ring.variables):
        name = None if names is None else names[k]
        if isinstance(variable, GaussianMixture):
            means, stds = variable.arrays()["means"], variable.arrays()["stds"]
            variables.append(GaussianMixture(centre[k] + scale[k] * means, scale[k] * stds, name=name))
        else:
            variables.append(Categorical(variable.num_components, name=name))
    return TensorRing(ring.links, variables, ring.order)
