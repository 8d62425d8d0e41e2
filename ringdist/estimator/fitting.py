"""The steps of `TensorRingDensity.fit`: weights, held-out rows, the columns' order, the start."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from ringdist import ordering
from ringdist.variables import Categorical, GaussianMixture


def weighted(X: Any, rows: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
    """The rows of positive weight, and their weights (n,)."""
    if sample_weight is None:
        return rows, np.ones(len(rows))
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight must have a positive sum, found only zero weights")
    return rows[weight > 0], weight[weight > 0]


def split(n: int, fraction: float | None, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row indices to learn from, and those held out (none where `fraction` is None)."""
    if fraction is None:
        return np.arange(n), np.arange(0)
    if not isinstance(fraction, numbers.Real) or not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be None or lie in (0, 1), found {fraction!r}")
    if n < 2:
        raise ValueError(f"validation_fraction needs at least 2 rows, found {n}")
    held_out = min(n - 1, max(1, round(fraction * n)))
    shuffled = rng.permutation(n)
    return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])


def column_order(
    order: Any,
    rows: np.ndarray,
    families: Sequence[Any],
    names: Sequence[str] | None,
    topology: Literal["ring", "train"],
    rng: np.random.RandomState,
) -> Sequence[int]:
    """The columns in the ring's order, by the estimator's parameter `order`."""
    d = len(families)
    if not isinstance(order, str):
        place = {name: k for k, name in enumerate(names or [])}
        unknown = [k for k in order if isinstance(k, str) and k not in place]
        if unknown:
            raise ValueError(f"order names {unknown[0]!r}, which is none of {list(place)}")
        return [place[k] if isinstance(k, str) else k for k in order]
    match order:
        case "given":
            return range(d)
        case "random":
            return ordering.random(d, rng=seed(rng))
        case "mutual_information":
            real = GaussianMixture([0.0], [1.0])
            return ordering.mutual_information(
                rows, [f if isinstance(f, Categorical) else real for f in families], topology
            )
    raise ValueError(f"order must be mutual_information, random, given or a sequence of columns, found {order!r}")


def seed(rng: np.random.RandomState) -> int:
    """A seed for the library's own generators, drawn from scikit-learn's."""
    return int(rng.randint(2**31 - 1))
