"""The steps of `TensorRingDensity.fit`: weights, held-out rows, the columns' order, settings and the last fit."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight

from ringdist import ordering
from ringdist.estimator.columns import Column
from ringdist.estimator.folds import Fold, fold_of, folds_of, sampled
from ringdist.estimator.frames import near
from ringdist.estimator.learner import EPOCHS, SEARCH_EPOCHS, Learner, Setting, Share
from ringdist.estimator.notices import warn
from ringdist.estimator.selection import FLOOR, SEARCH, SMOOTHING, Search, Tried
from ringdist.estimator.stacking import in_orders, stacked
from ringdist.learning.fitting import FitResult
from ringdist.variables import Categorical, GaussianMixture

MORE_EPOCHS = 2  # times those of a comparison, for a setting that still gained at its end
FEW_FOLDS = 2  # where the smoothing alone is chosen


def weighted(X: Any, rows: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which rows (n,) have positive weight, and the weights (n,)."""
    if sample_weight is None:
        return np.ones(len(rows), dtype=bool), np.ones(len(rows))
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight must have a positive sum, found only zero weights")
    return weight > 0, weight


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


def column_orders(
    order: Any,
    rows: np.ndarray,
    columns: Sequence[Column],
    names: Sequence[Any] | None,
    topology: Literal["ring", "train"],
    number: int,
    rng: np.random.RandomState,
) -> list[Sequence[int]]:
    """The columns in the order of each ring, the first by the estimator's parameter `order`.

    Later ones by mutual information, among pairs that the earlier ones do not have adjacent.
    """
    d = len(columns)
    if not isinstance(order, str):
        place = {name: k for k, name in enumerate(names or [])}
        unknown = [k for k in order if isinstance(k, str) and k not in place]
        if unknown:
            raise ValueError(
                f"order names {unknown[0]!r}, which is none of {list(place)}; "
                f"{near(unknown[0], list(place))}leave it out"
            )
        orders: list[Sequence[int]] = [[place[k] if isinstance(k, str) else k for k in order]]
        if len(orders[0]) != d or set(orders[0]) != set(range(d)):
            raise ValueError(
                f"order must be a permutation of all {d} columns, found {list(order)}; name every column once, or "
                "let it be 'mutual_information'"
            )
    elif order == "given":
        orders = [range(d)]
    elif order == "random":
        orders = [ordering.random(d, rng=seed(rng))]
    elif order == "mutual_information":
        orders = []
    else:
        raise ValueError(f"order must be mutual_information, random, given or a sequence of columns, found {order!r}")
    if len(orders) < number:
        orders += _by_information(rows, columns, topology, number - len(orders))
    return orders


def _by_information(
    rows: np.ndarray, columns: Sequence[Column], topology: Literal["ring", "train"], number: int
) -> list[Sequence[int]]:
    real = GaussianMixture([0.0], [1.0])
    families = [real if c.categories is None else Categorical(c.num_codes) for c in columns]
    return list(ordering.diverse(ordering.dependence(rows, families), number, topology))


def learnt(
    learner: Learner,
    held_out: np.ndarray,
    *,
    rank: int | Sequence[int] | None,
    components: int | None,
    smoothing: float | None,
    floor: float | None,
    num_rings: int | None,
    budget: float | None,
    rng: np.random.RandomState,
) -> tuple[FitResult, Sequence[Share]]:
    """The last fit, and the rings that were chosen for it.

    Args:
        learner: of all rows, those that are held out for good among them.
        held_out: rows by which the ring that is kept is chosen; none: all rows are learnt from in the end.
        rank, components, smoothing, floor, num_rings: those that the user fixes, None for those to be chosen.
        budget: seconds.
    """
    began = time.perf_counter()
    deadline = math.inf if budget is None else began + SEARCH * budget
    most = math.inf if budget is None else budget
    fixed = rank is not None and components is not None and smoothing is not None
    given = Setting(
        1 if rank is None else rank,
        1 if components is None else components,
        SMOOTHING if smoothing is None else smoothing,
        FLOOR if floor is None else floor,
    )

    def search(part: Learner, folds: Sequence[Fold]) -> Search:
        times = len(learner.rows) / sum(len(fold.learn) for fold in folds)
        return Search(part, folds, rank, components, smoothing, floor, deadline, most, times)

    def chosen(looked: Search) -> list[Share]:
        best = looked.best()
        if num_rings is not None:
            return in_orders(Share(best.setting, _last_epochs(learner, best, rank)), num_rings)
        found = stacked(looked, best, deadline, began + most)
        return [Share(tried.setting, _last_epochs(learner, tried, rank), weight) for tried, weight in found]

    n = len(learner.rows)
    if held_out.size:
        learn = np.setdiff1d(np.arange(n), held_out)
        if fixed:
            stack = in_orders(Share(given), num_rings or 1)
        else:
            stack = chosen(search(learner, [fold_of(learn, held_out, rng)]))
        stack = [share._replace(epochs=None) for share in stack]  # held-out rows tell the best one
        return learner.fit_rings(stack, learn, held_out), stack
    if fixed or n < 2:
        stack = in_orders(Share(given), num_rings or 1)
    else:
        some = sampled(n, rng)
        part = learner if some is None else learner.part(some)
        folds = FEW_FOLDS if rank is not None and components is not None else None
        stack = chosen(search(part, folds_of(len(part.rows), rng, folds)))
    result = learner.fit_rings(stack)
    _warn_unless_converged(learner, result, stack[0].epochs)
    return result, stack


def _last_epochs(learner: Learner, best: Tried, rank: Any) -> int | None:
    """As many as were best on held-out rows, where neither rank nor epochs are given and rows come all at once."""
    if rank is not None or learner.options.max_epochs is not None or not learner.is_full_batch:
        return None
    if learner.target is not None:  # what is learnt later is the other columns
        return max(1, best.epochs)
    if best.epochs >= SEARCH_EPOCHS:
        return None
    return best.epochs if 0 < best.epochs < SEARCH_EPOCHS - 1 else MORE_EPOCHS * SEARCH_EPOCHS


def _warn_unless_converged(learner: Learner, result: FitResult, epochs: int | None) -> None:
    most = learner.options.max_epochs
    ran = len(result.history["train"])
    if epochs is not None or ran < (EPOCHS if most is None else most) or learner.has_converged(result.history):
        return
    warn(
        f"learning has not converged after max_epochs={ran}: the last epoch still changed the log-likelihood by "
        f"{_last_change(result):.3g} nats a row; give it more epochs",
        ConvergenceWarning,
    )


def _last_change(result: FitResult) -> float:
    train = result.history["train"]
    return abs(train[-1] - train[-2]) if len(train) > 1 else math.inf


def seed(rng: np.random.RandomState) -> int:
    """A seed for the library's own generators, drawn from scikit-learn's."""
    return int(rng.randint(2**31 - 1))
