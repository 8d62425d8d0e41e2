"""Mixtures of rings with several settings, chosen by the scores of the search.

Settings fail on different rows: a mixture of rings of various sizes, smoothings, orders and structures is a better
density than the best of them (stacking: Smyth and Wolpert, Machine Learning 36, 1999). Its weights are chosen on
held-out rows, which the search has scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.estimator.families import LOCATION_SCALE
from ringdist.estimator.hidden import Hidden
from ringdist.estimator.learner import Share
from ringdist.estimator.selection import Search, Tried
from ringdist.estimator.structures import as_gaussian
from ringdist.estimator.target import Target

MOST_RINGS = 4
MOST_FOR_TARGET = 8  # where only the conditional distribution of a column counts, which averages improve


def in_orders(share: Share, number: int) -> list[Share]:
    """The same ring in so many orders of the columns, to be weighted by likelihood."""
    return [share._replace(setting=share.setting._replace(place=place)) for place in range(number)]


def stacked(search: Search, best: Tried, deadline: float, end: float) -> list[tuple[Tried, float]]:
    """Outcomes of the search and their weights in a mixture of high score, the best one first.

    In every step the outcome is added with which the mixture scores highest, as long as the score improves by more
    than its standard error.

    Args:
        deadline: of `time.perf_counter`, after which no further order of the columns is tried.
        end: by which all of them should have been learnt from all rows.
    """
    for place in search.learner.places(best.setting.structure)[1:]:
        if time.perf_counter() + best.seconds < deadline:
            search.outcome(best.setting._replace(place=place))
    space = _space(search, best)
    possible = [t for t in search.tried.values() if t.guesses is not None and best.guesses is not None]
    candidates = [t for t in possible if _space(search, t) == space]

    def has_time(members: Sequence[Tried]) -> bool:
        return time.perf_counter() + search.times * sum(tried.seconds for tried in members) < end

    stack = _grown(best, candidates, has_time, search)
    return list(zip(stack.members, stack.weights.tolist(), strict=True))


def _grown(
    best: Tried,
    candidates: Sequence[Tried],
    has_time: Callable[[Sequence[Tried]], bool],
    search: Search,
) -> _Stack:
    """The mixture of the best one and of others, as long as held-out rows score better.

    For a target any gain counts: an average of predictions is usually better than one of them.
    """
    stack = _Stack([best], np.ones(1), best.scores)
    averaged = isinstance(search.criterion, Target)
    while len(stack.members) < (MOST_FOR_TARGET if averaged else MOST_RINGS):
        used = {tried.setting for tried in stack.members}
        larger = [[*stack.members, tried] for tried in candidates if tried.setting not in used]
        found = max(
            (_mixed(members, search.criterion) for members in larger if has_time(members)), key=_mean, default=stack
        )
        if not (_mean(found) > _mean(stack) if averaged else search.is_better(found.scores, stack.scores)):
            break
        stack = found
    return stack


def _space(search: Search, tried: Tried) -> list[Any]:
    """The reference measure of the densities of a ring, column by column; rings of a mixture need the same one."""
    learner = search.learner
    columns = as_gaussian(learner.columns, learner.structures[tried.setting.structure])
    return [
        (tuple(column.atoms), "real" if column.type in LOCATION_SCALE else (column.type, column.bounds))
        for column in columns
    ]


class _Stack(NamedTuple):
    members: list[Tried]
    weights: np.ndarray
    scores: np.ndarray  # (n',) of held-out rows under the mixture


def _mixed(members: list[Tried], criterion: Hidden | Target) -> _Stack:
    values = np.stack([tried.values for tried in members])
    guesses = [tried.guesses for tried in members if tried.guesses is not None]
    weights = criterion.weights(values, guesses)
    return _Stack(members, weights, criterion.scores(values, guesses, weights))


def _mean(stack: _Stack) -> float:
    return float(stack.scores.mean())
