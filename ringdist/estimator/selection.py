"""Rank, number of components and smoothing, chosen by the likelihood of held-out rows within a budget of seconds.

Small tables are cross-validated, of larger ones a share is held out, of very large ones a sample is looked at. Settings
are tried from small ones upward, as long as held-out rows gain; the first is a product of independent columns, one
Gaussian each, so that what is chosen is never far worse than that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ringdist.estimator.learner import Learner, Setting
from ringdist.learning.autofit import log_probs
from ringdist.learning.fitting import FitResult

LADDER = (1, 1), (1, 4), (2, 4), (4, 4), (8, 8), (16, 8), (32, 16), (64, 16)  # rank, components, of small tables
LONG_LADDER = (1, 1), (1, 4), (2, 4), (8, 8), (32, 8), (64, 16), (128, 16)  # of larger ones,
FIRST = 3  # that of small ones, but the first one below
FEW_ROWS = 40  # rows, which are also cross-validated in more folds
FEWEST_ROWS = 10  # to choose anything but the first step from
MIDDLE = 3  # which begin with this step
SMALL = 1000  # rows up to which tables are cross-validated
FOLDS, FEWER_FOLDS = 5, 3  # of them, those where there are more than
MOST_ROWS = 8000  # looked at for a choice
MOST_HELD_OUT = 2000
SMOOTHING = 0.5
SMOOTHINGS = (0.15, 0.05, 0.0), (1.5, 5.0)  # tried in either direction
GAIN = 1e-3  # nats a row for 100 columns, below which nothing more is tried
NOISE = 0.2, 5.0  # standard errors by which a larger setting must be better: at least, and of n rows times n^(-1/2)
SEARCH = 0.6  # of the budget, within which settings are tried
GROWTH = 2.0  # of the seconds, from one step of the ladder to the next


class Tried(NamedTuple):
    """What a setting brought on held-out rows."""

    setting: Setting
    values: np.ndarray  # (n',) log-likelihoods
    epochs: int  # after which held-out rows were best
    seconds: float
    fit: FitResult  # of the last fold

    @property
    def mean(self) -> float:
        """Mean log-likelihood of the held-out rows."""
        return float(self.values.mean())


@dataclass
class Search:
    """Settings tried on the folds of a table.

    Args:
        learner: of all rows.
        folds: rows to learn from and rows held out.
        rank, components, smoothing: those that the user fixes, None for those to be chosen.
        deadline: of `time.perf_counter`, after which no further setting is tried.
        most_seconds: of the last fit, which takes `times` as long as all folds of a setting.
    """

    learner: Learner
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    rank: int | Sequence[int] | None
    components: int | None
    smoothing: float | None
    deadline: float
    most_seconds: float = math.inf
    times: float = 1.0
    tried: dict[Setting, Tried] = field(default_factory=dict)

    def best(self) -> Tried:
        """The best setting found."""
        best = self._climbed_ladder()
        if self.components is None and len(self.learner.rows) >= FEWEST_ROWS:
            best = self._climbed(best, [(2.0, 1.0), (0.5, 1.0)])
        if self.smoothing is None:
            best = self._smoothed(best)
        return best

    def _climbed_ladder(self) -> Tried:
        steps = self._steps()
        if len(steps) == 1:
            return self._try(steps[0])
        at = min(self._first_step(), len(steps) - 1)
        best, lowest, failures = self._try(steps[at]), at, int(at == len(steps) - 1)
        for setting in steps[at + 1 :]:
            if not self._has_time(best, GROWTH):
                break
            found = self._try(setting)
            best, failures = (found, 0) if self._is_better(found, best) else (best, failures + 1)
            if failures > self._is_small:
                break
        if failures and best.setting == steps[lowest]:  # the next ones are no better, so smaller ones may be
            for setting in reversed(steps[:lowest]):
                if not self._has_time(best, 1.0):
                    break
                found = self._try(setting)
                if found.mean < best.mean:
                    break
                best = found
        return best

    def _first_step(self) -> int:
        if not self._is_small:
            return MIDDLE
        return FIRST if len(self.learner.rows) >= FEW_ROWS else 0

    def _steps(self) -> list[Setting]:
        smoothing = SMOOTHING if self.smoothing is None else self.smoothing
        found = []
        for rank, components in LADDER if self._is_small else LONG_LADDER:
            chosen = rank if self.rank is None else self.rank
            found.append(Setting(chosen, components if self.components is None else self.components, smoothing))
        if self.learner.rows.shape[1] == 1 and self.rank is None:
            found = [setting._replace(rank=1) for setting in found]
        if self.rank is not None and self.components is None:  # all alike at the start
            found = [setting for setting in found if setting.components > 1 or self._is_small]
        number = 1 if len(self.learner.rows) < FEWEST_ROWS else len(found)
        return list(dict.fromkeys(found[:number]))

    def _climbed(self, best: Tried, factors: Sequence[tuple[float, float]]) -> Tried:
        """The number of components multiplied as long as that gains."""
        for factor, _ in factors:
            moved = False
            while self._has_time(best, max(1.0, factor)):
                components = max(1, int(best.setting.components * factor))
                setting = best.setting._replace(components=components)
                if setting in self.tried or components > 64:
                    break
                found = self._try(setting)
                if not self._is_better(found, best):
                    break
                best, moved = found, True
            if moved:
                break
        return best

    def _smoothed(self, best: Tried) -> Tried:
        for direction in SMOOTHINGS:
            moved = False
            for smoothing in direction:
                if smoothing == 0 and not self._categories_all_occur:
                    break
                if not self._has_time(best, 1.0):
                    return best
                found = self._try(best.setting._replace(smoothing=smoothing))
                if found.mean < best.mean or (found.mean == best.mean and smoothing > 0):
                    break
                best, moved = found, True
            if moved:
                break
        return best

    def _try(self, setting: Setting) -> Tried:
        if setting in self.tried:
            return self.tried[setting]
        began = time.perf_counter()
        values, epochs = [], []
        fit = None
        for learn, held_out in self.folds:
            try:
                fit = self.learner.fit(setting, learn, held_out, last=False)
            except ValueError:
                if fit is None and not self.tried:
                    raise
                values.append(np.full(len(held_out), -math.inf))
                continue
            values.append(self.values_of(fit, held_out))
            validation = fit.history["validation"]
            epochs.append(1 + int(np.argmax(validation)) if validation else 0)
        chosen = int(np.ceil(np.mean(epochs))) if epochs else 1
        seconds = time.perf_counter() - began
        result: FitResult = fit if fit is not None else next(iter(self.tried.values())).fit
        self.tried[setting] = Tried(setting, np.concatenate(values), chosen, seconds, result)
        return self.tried[setting]

    def values_of(self, fit: FitResult, held_out: np.ndarray) -> np.ndarray:
        """(n',) log-likelihoods of held-out rows."""
        return log_probs(fit.ring, self.learner.rows[held_out])

    def _is_better(self, found: Tried, best: Tried) -> bool:
        """By more than a part of what chance could make of it."""
        if not np.isfinite(found.mean):
            return False
        if not np.isfinite(best.mean):
            return True
        gain = found.values - best.values
        errors = min(1.0, max(NOISE[0], NOISE[1] / math.sqrt(len(gain))))
        least = max(GAIN * self.learner.rows.shape[1] / 100, errors * float(gain.std()) / math.sqrt(len(gain)))
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


def folds_of(n: int, rng: np.random.RandomState, folds: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and held-out rows: of a few rows in turn, of many a tenth."""
    shuffled = rng.permutation(n)
    if n <= SMALL:
        folds = folds or (FOLDS if n <= FEW_ROWS else FEWER_FOLDS)
        parts = np.array_split(shuffled, min(n, folds))
        return [(np.sort(np.concatenate(parts[:i] + parts[i + 1 :])), np.sort(parts[i])) for i in range(len(parts))]
    held_out = min(MOST_HELD_OUT, max(200, n // 10))
    return [(np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out]))]


def sampled(n: int, rng: np.random.RandomState) -> np.ndarray | None:
    """Rows among which settings are compared; None for all of them."""
    return None if n <= MOST_ROWS else np.sort(rng.permutation(n)[:MOST_ROWS])
