"""Imputers of scikit-learn for tables (n, d) of numbers with some columns of category codes, NaN = missing."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import LogisticRegression

Imputer = Callable[[np.ndarray, list[int], int], np.ndarray]  # of x, the categorical columns and a seed


def constant(x: np.ndarray, categorical: list[int], seed: int) -> np.ndarray:
    """Column means and most frequent categories."""
    fill = np.nanmean(x, axis=0)
    for k in categorical:
        fill[k] = np.bincount(x[~np.isnan(x[:, k]), k].astype(int)).argmax()
    return np.where(np.isnan(x), fill, x)


def neighbours(count: int) -> Imputer:
    """`KNNImputer` on standardised numbers and indicators of categories."""
    return lambda x, categorical, seed: by_indicators(KNNImputer(n_neighbors=count, weights="distance"), x, categorical)


def chained(regressor: Any = None, classifier: Any = None, rounds: int = 20) -> Imputer:
    """Codes as numbers while the numeric entries are filled, then a classifier for each categorical column.

    As indicators the categories would stay where they start: those of one entry are missing together, and they sum to
    one, so that each is predicted from the others' first guess.

    Args:
        regressor: of `IterativeImputer`; its own Bayesian ridge regression by default.
        classifier: makes one for each column; a logistic regression by default.
    """

    def impute(x: np.ndarray, categorical: list[int], seed: int) -> np.ndarray:
        centre, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        imputer = IterativeImputer(regressor, max_iter=rounds, tol=1e-2, random_state=seed)
        filled = imputer.fit_transform((x - centre) / scale)
        result = np.where(np.isnan(x), filled * scale + centre, x)
        for k in categorical:
            hole, others = np.isnan(x[:, k]), np.delete(filled, k, axis=1)
            if hole.any():
                model = LogisticRegression(C=0.1, max_iter=500) if classifier is None else classifier()
                result[hole, k] = model.fit(others[~hole], x[~hole, k]).predict(others[hole])
        return result

    return impute


def by_indicators(imputer: Any, x: np.ndarray, categorical: list[int]) -> np.ndarray:
    """Categories as indicators, numeric columns standardised; back afterwards."""
    centre, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    blocks, spans, width = [], [], 0
    for k in range(x.shape[1]):
        block = (x[:, [k]] - centre[k]) / scale[k]
        if k in categorical:
            levels = np.unique(x[~np.isnan(x[:, k]), k])
            block = np.where(np.isnan(x[:, [k]]), np.nan, x[:, [k]] == levels)
        blocks.append(block)
        spans.append(slice(width, width + block.shape[1]))
        width += block.shape[1]
    filled = imputer.fit_transform(np.concatenate(blocks, axis=1))
    result = x.copy()
    for k, span in enumerate(spans):
        if k in categorical:
            levels = np.unique(x[~np.isnan(x[:, k]), k])
            values = levels[filled[:, span].argmax(axis=1)]
        else:
            values = filled[:, span][:, 0] * scale[k] + centre[k]
        result[:, k] = np.where(np.isnan(x[:, k]), values, x[:, k])
    return result
