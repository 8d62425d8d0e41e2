"""Placement of multivariate Gaussian components on rows of data, in NumPy."""

from __future__ import annotations

import numpy as np

from ringdist.variables.checks import column_scale
from ringdist.variables.multivariate_functions import Given, floored

MOST_ROWS = 20_000  # used to place components
ROUNDS = 10  # of EM for the Gaussian that completes missing entries
LEAST = 0.05  # least standard deviation of a component, relative to that of its column
PRIOR_ROWS = 2  # plus one per column: weight of the pooled covariance in that of every component


def centres_and_covariances(
    observed: np.ndarray, num_components: int, limits: np.finfo
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, w) of k-means clusters, and covariances (N, w, w) of the clusters, shrunk towards their mean.

    Missing entries are completed by their conditional means under one Gaussian fitted to all rows, and its conditional
    covariances are added. There are fewer components if there are fewer distinct rows.

    Args:
        observed: (n, w), NaN where missing, every column observed somewhere. limits: of the dtype of the result.
    """
    rows = observed[~np.isnan(observed).all(axis=1)]
    if len(rows) > MOST_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_ROWS).astype(np.int64)]
    centre, scale = _places(rows, limits)
    rows = (rows - centre) / scale
    mean, covariance = _one_gaussian(rows)
    given = Given(mean[None], covariance[None], rows)
    completed = given.expected()[:, 0]
    labels, means = _clusters(completed, num_components)
    held = np.eye(len(means))[labels]  # (n, N)
    counts = held.sum(axis=0)
    within = completed - means[labels]
    free = given.free_factor() * given.stds[0][:, None]  # (P, 1, w, w)
    uncertain = free[:, 0] @ free[:, 0].mT
    index = given.patterns.of_row
    pattern = np.zeros(len(rows), dtype=np.int64) if index is None else index
    sums = np.zeros((len(means), *covariance.shape))
    for s in range(len(means)):
        own = labels == s
        shares = np.bincount(pattern[own], minlength=len(uncertain))
        sums[s] = within[own].T @ within[own] + np.tensordot(shares, uncertain, 1)
    prior = PRIOR_ROWS + rows.shape[1]
    pooled = floored(sums.sum(axis=0)[None] / len(rows), np.full((1, rows.shape[1]), LEAST))[0]
    covariances = (sums + prior * pooled) / (counts + prior)[:, None, None]
    covariances = floored(covariances, np.full(means.shape, LEAST))
    return means * scale + centre, covariances * scale[:, None] * scale


def _places(rows: np.ndarray, limits: np.finfo) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column; `ValueError` if a variance is out of the range of the dtype."""
    centre = np.array([column[~np.isnan(column)][0] for column in rows.T])
    peak = np.nanmax(np.abs(rows - centre), axis=0)
    unit = np.where(peak > 0, peak, 1.0)
    shifted = (rows - centre) / unit
    centre, std = centre + np.nanmean(shifted, axis=0) * unit, np.nanstd(shifted, axis=0) * unit
    scale = column_scale(centre, std, float(limits.eps))
    low, high = 1e3 * float(limits.smallest_normal) ** 0.5, 1e-3 * float(limits.max) ** 0.5
    if not ((scale > low) & (scale < high)).all():
        found = float(scale[~((scale > low) & (scale < high))][0])
        raise ValueError(
            f"columns that share a covariance need standard deviations between {low:.1g} and {high:.1g}, found "
            f"{found:.3g}; change the column's unit"
        )
    return centre, scale


def _one_gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of standardised rows (n, w) with missing entries, by EM from independent columns."""
    mean, covariance = np.zeros(rows.shape[1]), np.eye(rows.shape[1])
    ones, least = np.ones((len(rows), 1)), np.full((1, rows.shape[1]), LEAST)
    for _ in range(ROUNDS if np.isnan(rows).any() else 1):
        given = Given(mean[None], covariance[None], rows)
        completed = given.expected()[:, 0]
        stds = given.stds[0]
        mean = completed.mean(axis=0)
        free = given.free_covariance(ones)[0] * stds[:, None] * stds
        within = completed - mean
        covariance = floored((within.T @ within + free)[None] / len(rows), least)[0]
    return mean, covariance


def _clusters(rows: np.ndarray, num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each row, (n,), and the centres (N, w) of clusters that are not empty."""
    from sklearn.cluster import KMeans

    most = min(num_components, len(np.unique(rows, axis=0)))
    labels = KMeans(most, n_init=1, random_state=0).fit(rows).labels_ if most > 1 else np.zeros(len(rows), np.int64)
    _, labels = np.unique(labels, return_inverse=True)
    held = np.eye(int(labels.max()) + 1)[labels]
    return labels, (held.T @ rows) / held.sum(axis=0)[:, None]
