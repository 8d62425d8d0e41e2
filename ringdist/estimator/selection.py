"""The setting of a fit, chosen on held-out rows within a budget of seconds.

A row scores its log-likelihood and how well its hidden entries are completed (`ringdist.estimator.hidden`), or only
the log-likelihood of a target given the rest (`ringdist.estimator.target`).

Small tables are cross-validated. Of larger tables a share is held out, of very large ones a sample is used. The
search starts from a setting of middle size for each structure of the table (which columns share a covariance), and
changes one thing at a time as long as the score improves by more than its standard error. Independent columns and one
Gaussian are tried too where rows are few, so that what is chosen is never far worse than those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ringdist.estimator.folds import FEW_ROWS, SMALL, Fold
from ringdist.estimator.hidden import Guesses, Hidden, joined
from ringdist.estimator.learner import Learner, Setting
from ringdist.estimator.target import Target
from ringdist.learning.rings import log_probs

# Rank and components, in the order in which they are tried.
SIZES = (1, 1), (1, 4), (2, 4), (4, 8), (8, 8), (16, 16), (32, 16), (64, 32), (128, 32)
BLOCK_SIZES = tuple((size, size) for size in (1, 2, 4, 8, 16, 32, 64))  # where columns share a covariance
START, BLOCK_START = 4, 3  # of these sizes
FEW_START, FEW_BLOCK_START = 2, 1  # of tables of few rows
FEWEST_ROWS = 10  # to choose a size from
SOME_ROWS = 40  # to choose components apart from the rank
SMOOTHING = 0.5
LOWER_SMOOTHINGS, HIGHER_SMOOTHINGS = (0.15, 0.05, 0.0), (1.5, 5.0)
FLOOR = 1e-4  # of the variance of a component, relative to the column's
LOWER_FLOORS, HIGHER_FLOORS = (1e-5, 1e-6, 1e-7), (1e-3, 1e-2, 0.1)
SHRINKAGE = 0.8  # of small tables
LOWER_SHRINKAGES, HIGHER_SHRINKAGES = (0.2, 0.05, 0.0), (3.0, 10.0)
FACTORED_WIDTH = 6  # columns that share a covariance, from which on fewer numbers for it are tried
MOST_COMPONENTS = 128
GAIN = 1e-3  # nats a row for 100 columns, below which nothing more is tried
EMPHASIS = 8.0  # of a categorical target
LOWER_EMPHASES, HIGHER_EMPHASES = (2.0, 1.0), (32.0,)
SEARCH = 0.6  # of the budget, within which settings are tried
GROWTH = 2.0  # of the seconds, from one size to the next


class Tried(NamedTuple):
    """A setting and its scores on the folds."""

    setting: Setting
    values: np.ndarray  # (n',) log-likelihoods of held-out rows
    guesses: Guesses | None  # None where a row is impossible
    scores: np.ndarray  # (n'',) by the criterion
    epochs: int  # mean number until the highest held-out likelihood
    seconds: float

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(self.scores.mean())


@dataclass
class Search:
    """Settings tried on the folds of a table.

    Args:
        learner: of all rows.
        folds: rows to learn from and rows held out, of `learner`.
        rank, components, smoothing, floor: those that the user fixes, None for those to be chosen.
        deadline: of `time.perf_counter`, after which no further setting is tried.
        most_seconds: of the last fit, which takes `times` as long as all folds of a setting.
    """

    learner: Learner
    folds: Sequence[Fold]
    rank: int | Sequence[int] | None
    components: int | None
    smoothing: float | None
    floor: float | None
    deadline: float
    most_seconds: float = math.inf
    times: float = 1.0
    tried: dict[Setting, Tried] = field(default_factory=dict)

    def best(self) -> Tried:
        """The best setting found: structures are explored one after the other, the most promising first."""
        starts = [self._started(structure) for structure in self._structures()]
        found = [self._explored(start) for start in sorted(starts, key=lambda start: -start.mean)]
        found.sort(key=lambda tried: tried.setting.structure)
        best = found[0]
        for tried in found[1:]:
            best = tried if self.is_better(tried.scores, best.scores) else best
        return best

    def _started(self, structure: int) -> Tried:
        """A setting of middle size, or the smallest one."""
        sizes = self._sizes(structure)
        first = self.outcome(sizes[self._start(structure, len(sizes))])
        return max(first, self.outcome(sizes[0]), key=lambda tried: tried.mean)

    def _explored(self, best: Tried) -> Tried:
        """What is better than a setting, one thing at a time changed."""
        best = self._sized(best)
        if self.floor is None and self.learner.has_floors:
            best = self._either(best, _values("floor", LOWER_FLOORS), _values("floor", HIGHER_FLOORS))
        if best.setting.structure:
            best = self._either(best, _values("shrinkage", HIGHER_SHRINKAGES), _values("shrinkage", LOWER_SHRINKAGES))
            width = self.learner.widest(best.setting.structure)
            if width >= FACTORED_WIDTH and self._is_small:
                best = self._moved(best, _values("num_factors", [width // 2, width // 4, 1]))[0]
        best = self._sized(best)
        if self.components is None and self.learner.has_numbers and len(self.learner.rows) >= SOME_ROWS:
            best = self._either(best, _scaled_components(2.0), _scaled_components(0.5))
        if self.learner.has_emphasis:
            best = self._either(best, _values("emphasis", LOWER_EMPHASES), _values("emphasis", HIGHER_EMPHASES))
        if self.smoothing is None and self.learner.has_shares(best.setting):
            lower = LOWER_SMOOTHINGS if self._categories_all_occur else LOWER_SMOOTHINGS[:-1]
            best = self._either(best, _values("smoothing", lower), _values("smoothing", HIGHER_SMOOTHINGS), ties=True)
        return best

    def _structures(self) -> Sequence[int]:
        free = self.rank is None and self.components is None and len(self.learner.rows) >= FEWEST_ROWS
        return range(len(self.learner.structures)) if free else (0,)

    def _start(self, structure: int, number: int) -> int:
        few = len(self.learner.rows) <= FEW_ROWS
        at = (FEW_BLOCK_START if few else BLOCK_START) if structure else (FEW_START if few else START)
        at -= not self.learner.has_numbers  # the first two sizes are one then
        return min(at, number - 1)

    def _sizes(self, structure: int) -> list[Setting]:
        """Settings of one structure from the smallest to the largest."""
        smoothing = SMOOTHING if self.smoothing is None else self.smoothing
        floor = FLOOR if self.floor is None else self.floor
        found = []
        for rank, components in BLOCK_SIZES if structure else SIZES:
            found.append(
                Setting(
                    self.rank if self.rank is not None else rank if self.learner.num_sites(structure) > 1 else 1,
                    self.components or (components if self.learner.has_numbers else 1),
                    smoothing,
                    floor,
                    structure,
                    SHRINKAGE if structure and self._is_small else 0.0,
                    emphasis=EMPHASIS if self.learner.has_emphasis else 1.0,
                )
            )
        return list(dict.fromkeys(found if len(self.learner.rows) >= FEWEST_ROWS else found[:1]))

    def _sized(self, best: Tried) -> Tried:
        """Larger as long as that gains, one failure let pass; else smaller."""
        sizes = [(setting.rank, setting.components) for setting in self._sizes(best.setting.structure)]
        own = (best.setting.rank, best.setting.components)
        at = sizes.index(own) if own in sizes else len(sizes)
        first, failures = best, 0
        for rank, components in sizes[at + 1 :]:
            if not self._has_time(best, GROWTH) or failures > 1:
                break
            found = self.outcome(best.setting._replace(rank=rank, components=components))
            better = self.is_better(found.scores, best.scores)
            best, failures = (found, 0) if better else (best, failures + 1)
        if best is not first:
            return best
        for rank, components in reversed(sizes[:at]):
            if not self._has_time(best, 1.0):
                break
            found = self.outcome(best.setting._replace(rank=rank, components=components))
            if found.mean < best.mean:
                break
            best = found
        return best

    def _either(self, best: Tried, first: Moves, second: Moves, *, ties: bool = False) -> Tried:
        """The best along one way, or along the other where that gains nothing."""
        best, moved = self._moved(best, first, ties=ties)
        return best if moved else self._moved(best, second, ties=ties)[0]

    def _moved(self, best: Tried, moves: Moves, *, ties: bool = False) -> tuple[Tried, bool]:
        """One setting after the other as long as held-out rows gain; and whether they did."""
        moved = False
        for setting in moves(best.setting):
            if not self._has_time(best, 1.0):
                break
            found = self.outcome(setting)
            if not self.is_better(found.scores, best.scores) and not (ties and found.mean == best.mean):
                break
            best, moved = found, True
        return best, moved

    def outcome(self, setting: Setting) -> Tried:
        """Fits a setting on every fold and scores it; results are remembered."""
        if setting in self.tried:
            return self.tried[setting]
        began = time.perf_counter()
        values, guesses, epochs = [], list[Guesses](), list[int]()
        for number, fold in enumerate(self.folds):
            hide = self.criterion.hidden_from(number)
            try:
                fit = self.learner.fit(setting, fold.learn, fold.held_out, hide=hide, last=False)
            except ValueError:
                if not epochs and not self.tried:
                    raise
                values.append(np.full(len(fold.held_out), -math.inf))
                continue
            values.append(log_probs(fit.ring, self.learner.rows[fold.held_out]))
            if np.isfinite(values[-1]).all():
                guesses.append(self.criterion.guesses(fit.ring, number))
            validation = fit.history["validation"]
            epochs.append(1 + int(np.argmax(validation)) if validation else 0)
        chosen = int(np.ceil(np.mean(epochs))) if epochs else 1
        every = joined(guesses) if len(guesses) == len(self.folds) else None
        logs = np.concatenate(values)
        scores = logs if every is None else self.criterion.scores(logs[None], [every], np.ones(1))
        seconds = time.perf_counter() - began
        self.tried[setting] = Tried(setting, logs, every, scores, chosen, seconds)
        return self.tried[setting]

    @cached_property
    def criterion(self) -> Hidden | Target:
        """The criterion that scores a setting on the rows of all folds."""
        learner = self.learner
        if learner.target is not None:
            return Target(learner.rows, self.folds, learner.target)
        return Hidden.of_folds(learner.rows, self.folds, learner.columns, learner.seed)

    def is_better(self, found: np.ndarray, best: np.ndarray) -> bool:
        """Whether scores (n'',) are better than the best ones by more than a standard error and the least useful gain.

        The rule of one standard error (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984).
        """
        if not np.isfinite(found.mean()):
            return False
        if not np.isfinite(best.mean()):
            return True
        gain = found - best
        least = max(GAIN * self.learner.rows.shape[1] / 100, float(gain.std()) / math.sqrt(len(gain)))
        return float(gain.mean()) > least

    def _has_time(self, best: Tried, growth: float) -> bool:
        seconds = growth * best.seconds
        return time.perf_counter() + seconds < self.deadline and self.times * seconds < self.most_seconds

    @property
    def _categories_all_occur(self) -> bool:
        """Whether nothing that may come would be impossible without smoothing: a declared category, an atom."""
        rows, (place, unit) = self.learner.rows, self.learner.units
        for k, column in enumerate(self.learner.columns):
            atoms = (np.asarray(column.atoms) - place[k]) / unit[k]
            levels = atoms if column.categories is None else np.arange(column.num_codes)
            if not np.isin(levels, rows[:, k]).all():
                return False
        return True

    @property
    def _is_small(self) -> bool:
        return len(self.folds) > 1 or len(self.learner.rows) <= SMALL


Moves = Callable[[Setting], Sequence[Setting]]  # from a setting, to be tried in turn


def _values(name: str, values: Sequence[float]) -> Moves:
    """One of the numbers of a setting set to other values."""

    def settings(setting: Setting) -> list[Setting]:
        changes: list[dict[str, Any]] = [{name: value} for value in values]
        return [setting._replace(**change) for change in changes]

    return settings


def _scaled_components(factor: float) -> Moves:
    """More or fewer components at the same rank."""

    def settings(setting: Setting) -> list[Setting]:
        numbers = (int(setting.components * factor**power) for power in range(1, 8))
        return [setting._replace(components=number) for number in numbers if 1 <= number <= MOST_COMPONENTS]

    return settings
