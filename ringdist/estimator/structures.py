"""Candidate groups of numeric columns that share a covariance, to be compared on held-out rows.

Strongly correlated columns need many states as separate variables, but not as one variable with Gaussian components and
full covariances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm, rankdata

from ringdist.estimator.columns import Column
from ringdist.estimator.families import LOCATION_SCALE

Structure = tuple[tuple[int, ...], ...]  # the columns of every site

SHARED = "gaussian", "lognormal", "student_t", "beta"  # types whose columns may be Gaussian together with others
STRONG = 0.3  # correlation of normal scores above which columns are linked
MOST_ROWS = 5000  # used to estimate correlations
WIDEST = 64  # largest number of columns of one covariance
SQUARES = 1e-140, 1e145  # units between which squares, and small eigenvalues, keep their precision


def structures_of(
    rows: np.ndarray, columns: Sequence[Column], fixed: set[int], unit: np.ndarray | None = None
) -> list[Structure]:
    """The candidates: no shared covariance, one for every group of linked columns, and one of all numeric columns.

    A column with atoms is a separate variable, unless the atoms are ends of a support that do not occur.

    Args:
        rows: (n, d), standardised, NaN where missing.
        fixed: columns whose type the user gives.
        unit: (d,) units of the columns; a column whose squared unit is out of range shares no covariance.
    """
    d = len(columns)
    free = [
        k
        for k, column in enumerate(columns)
        if column.categories is None
        and not (column.atoms and (column.type in LOCATION_SCALE or np.isin(rows[:, k], column.atoms).any()))
        and column.type in SHARED
        and (column.type == "gaussian" or k not in fixed)
        and (unit is None or SQUARES[0] < unit[k] < SQUARES[1])
    ]
    found = [alone(d)]
    if 2 <= len(free):
        linked = _linked(rows[:: max(1, len(rows) // MOST_ROWS)], free)
        for blocks in (linked, [free]):
            structure = _structure(d, [block for block in blocks if 2 <= len(block) <= WIDEST])
            if structure not in found:
                found.append(structure)
    return found


def alone(d: int) -> Structure:
    """The structure with a separate variable for every column."""
    return tuple((k,) for k in range(d))


def as_gaussian(columns: Sequence[Column], sites: Structure) -> list[Column]:
    """The columns, with the type of those that share a covariance changed to Gaussian."""
    wide = {k for own in sites if len(own) > 1 for k in own}
    return [
        replace(column, type="gaussian", atoms=(), bounds=None) if k in wide else column
        for k, column in enumerate(columns)
    ]


def sites_in_order(sites: Structure, order: Sequence[int]) -> list[int]:
    """The sites in the order of their first columns."""
    site = {k: i for i, own in enumerate(sites) for k in own}
    return list(dict.fromkeys(site[k] for k in order))


def _structure(d: int, blocks: Sequence[Sequence[int]]) -> Structure:
    """The blocks, and a separate site for every other column, in the order of their first columns."""
    inside = {k for block in blocks for k in block}
    sites: list[tuple[int, ...]] = [(k,) for k in range(d) if k not in inside]
    return tuple(sorted([*sites, *(tuple(sorted(block)) for block in blocks)]))


def _linked(rows: np.ndarray, free: Sequence[int]) -> list[list[int]]:
    """Groups of columns that are connected by strong correlations."""
    scores = np.stack([_normal_scores(rows[:, k]) for k in free], axis=1)
    seen = ~np.isnan(scores)
    filled = np.where(seen, scores, 0.0)
    both = np.maximum(seen.T.astype(float) @ seen, 1.0)
    products = filled.T @ filled / both
    squares = (filled**2).T @ seen / both
    correlation = products / np.sqrt(np.maximum(squares * squares.T, 1e-12))
    count, label = connected_components(np.abs(correlation) >= STRONG, directed=False)
    return [[free[j] for j in np.flatnonzero(label == c).tolist()] for c in range(count)]


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Gaussian quantiles of the values' ranks, so that outliers and skewness have little influence."""
    seen = ~np.isnan(values)
    scores = np.full(values.shape, np.nan)
    scores[seen] = norm.ppf((rankdata(values[seen]) - 0.5) / max(1, seen.sum()))
    return scores
