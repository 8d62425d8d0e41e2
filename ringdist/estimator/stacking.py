"""Rings with several settings, kept together: the mixture of those that held-out rows like best together.

Settings fail on different rows: a mixture of rings of various sizes, smoothings, orders and structures is a better
density than the best of them (stacking: Smyth and Wolpert, Machine Learning 36, 1999), and held-out rows, which the
search has scored, tell its weights.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from ringdist.estimator.learner import Share
from ringdist.estimator.selection import Search, Tried
from ringdist.estimator.structures import as_gaussian
from ringdist.learning.rings import mixture_weights

MOST_RINGS = 4


def in_orders(share: Share, number: int) -> list[Share]:
    """The same ring in so many orders of the columns, to be weighted by likelihood."""
    return [share._replace(setting=share.setting._replace(place=place)) for place in range(number)]


def stacked(search: Search, best: Tried, deadline: float, end: float) -> list[tuple[Tried, float]]:
    """Outcomes of the search and their weights in the mixture that held-out rows like best, the best one first.

    One is added after the other, each time the one that gains most, as long as that is more than chance may bring.

    Args:
        deadline: of `time.perf_counter`, after which no further order of the columns is tried.
        end: by which all of them should have been learnt from all rows.
    """
    for place in range(1, len(search.learner.orders)):
        if time.perf_counter() + best.seconds < deadline:
            search.outcome(best.setting._replace(place=place))
    atoms = _atoms(search, best)
    candidates = [t for t in search.tried.values() if np.isfinite(t.mean) and _atoms(search, t) == atoms]
    stack = _Stack([best], np.ones(1), best.values)
    while len(stack.members) < MOST_RINGS:
        spare = end - time.perf_counter() - search.times * sum(tried.seconds for tried in stack.members)
        others = [
            tried
            for tried in candidates
            if tried.setting not in [own.setting for own in stack.members] and search.times * tried.seconds < spare
        ]
        found = max((_mixed([*stack.members, tried]) for tried in others), key=_mean, default=stack)
        if not search.is_better(found.values, stack.values):
            break
        stack = found
    return list(zip(stack.members, stack.weights.tolist(), strict=True))


def _atoms(search: Search, tried: Tried) -> list[Any]:
    """The values with a probability of their own: densities of rings are comparable where these are equal."""
    learner = search.learner
    return [tuple(column.atoms) for column in as_gaussian(learner.columns, learner.structures[tried.setting.structure])]


class _Stack(NamedTuple):
    members: list[Tried]
    weights: np.ndarray
    values: np.ndarray  # (n',) log-likelihoods of held-out rows under the mixture


def _mixed(members: list[Tried]) -> _Stack:
    values = np.stack([tried.values for tried in members])
    weights = mixture_weights(values)
    with np.errstate(divide="ignore"):
        return _Stack(members, weights, np.asarray(logsumexp(values + np.log(weights)[:, None], axis=0)))


def _mean(stack: _Stack) -> float:
    return float(stack.values.mean())
