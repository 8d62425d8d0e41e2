"""Placement of components on data as a starting point: centres and widths, in NumPy."""

from __future__ import annotations

import numpy as np

from ringdist.variables.checks import column_scale


def centres(observed: np.ndarray, num_components: int, method: str) -> np.ndarray:
    """At most `num_components` distinct centres on observed values (n,), ascending.

    They are the distinct values if there are few of them, otherwise the centres of clusters
    ("kmeans") or equally frequent quantiles.
    """
    distinct = np.unique(observed)
    if distinct.size <= num_components:
        return distinct
    if method != "kmeans":
        return np.unique(np.quantile(observed, (np.arange(num_components) + 0.5) / num_components))
    from sklearn.cluster import KMeans

    means = KMeans(num_components, n_init=1, random_state=0).fit(observed[:, None])
    return np.unique(means.cluster_centers_[:, 0])


def centres_and_widths(
    observed: np.ndarray, num_components: int, method: str, limits: np.finfo
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of components, and standard deviations with which neighbours overlap.

    If all values are equal up to rounding, there is one component, with |centre| as its standard deviation.
    """
    unit = max(float(np.abs(observed).max()), float(limits.smallest_normal))
    scaled = observed / unit  # in [-1, 1]: squares and differences stay in range
    mean, spread = scaled.mean(), (scaled - scaled[0]).std()
    scale = float(column_scale(mean, spread, float(limits.eps))) if mean or spread else 1 / unit
    if scale == spread:
        found = centres(scaled, num_components, method)
        gaps = np.diff(found)
    else:  # constant up to rounding
        found, gaps = scaled[:1], np.zeros(0)
    widths = np.full(found.size, scale)
    if gaps.size:  # each standard deviation about the distance to the neighbours
        widths = np.maximum(np.maximum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0])), 1e-2 * scale)
    least = float(limits.smallest_normal)
    with np.errstate(over="ignore"):
        return found * unit, np.clip(widths * unit, least, 0.5 / least)
