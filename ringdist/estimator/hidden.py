"""How well hidden entries are completed: a criterion for settings beside the likelihood.

The likelihood of a table is decided by its columns of smallest variance, but users also ask for the others, given what
is known of a row. So every entry of a held-out row is hidden once, together with a fifth of the others, and
completed: a pseudo-likelihood (Besag, Journal of the Royal Statistical Society B 36, 1974). A category scores its
log-probability. A number scores minus half the squared error of its conditional mean, relative to the variance of the
column: up to a constant, a Gaussian log-density with that variance.

Users also complete the rows that were learnt from. Those are harder: a component that was fitted to what is known of a
row attracts the row too strongly. So a fifth of the entries of some rows is hidden while the others are learnt from,
and then completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from ringdist.backend import Array, like, to_numpy
from ringdist.estimator.columns import Column
from ringdist.estimator.folds import Fold
from ringdist.learning.rings import log_probs, mixture_weights
from ringdist.network.rows import site_values
from ringdist.queries.posterior import component_posteriors
from ringdist.ring import TensorRing
from ringdist.variables import Categorical

PARTS = 5  # of the entries of a row, hidden one after the other
DIVISIONS = 8  # of the columns into parts, for the rows of a fold
NEVER = -1
HELD_OUT_WEIGHT = 1.5  # of the completions of held-out rows, beside their log-likelihood
LEARNT_WEIGHT = 1.5  # of the completions of rows that are learnt from
FEWEST = 10  # observed entries of a column in the rows to learn from, below which none of them is hidden
LEAST = 1e-6  # probability of a category: smaller ones score as this one
FARTHEST = 10.0  # standard deviations of a column: larger errors of a mean score as this one


class Guesses(NamedTuple):
    """The completions of hidden entries by one ring."""

    logs: np.ndarray  # (PARTS, n) log p of the entries that are not hidden
    values: np.ndarray  # (n, d) conditional means of numbers, probabilities of categories; NaN where never hidden


@dataclass(frozen=True)
class Hidden:
    """Rows with hidden entries: for each fold its held-out rows, then its masked rows, which are learnt from.

    Args:
        rows: (n, d), NaN where missing.
        part: (n, d) the part with which each entry is hidden. In rows that are learnt from it is 0 or `NEVER`.
        is_learnt: (n,) whether the row is learnt from, without its entries of part 0.
        folds: the folds in order.
        categorical: (d,) booleans.
        centre, scale: (d,) means and standard deviations of the numbers.
    """

    rows: np.ndarray
    part: np.ndarray
    is_learnt: np.ndarray
    folds: Sequence[Fold]
    categorical: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of_folds(cls, table: np.ndarray, folds: Sequence[Fold], columns: Sequence[Column], seed: int) -> Hidden:
        """Entries in parts of equal size, at random but alike in many rows.

        A fold divides the columns into parts in `DIVISIONS` ways, and every row has one of them. Missing entries are
        then in few patterns, each of which costs a factorisation of every shared covariance.

        Args:
            table: (N, d) all rows, from which the means and variances of the columns are computed.
            seed: seed of the parts.
        """
        rng, parts, is_learnt = np.random.default_rng(seed), [], []
        for fold in folds:
            divisions = rng.permuted(np.tile(np.arange(table.shape[1]) % PARTS, (DIVISIONS, 1)), axis=1)
            enough = (~np.isnan(table[fold.learn])).sum(axis=0) >= FEWEST
            learnt = _parts_of_learnt(len(fold.masked), divisions)
            learnt[(learnt != 0) | ~enough] = NEVER
            parts += [_parts_of_held_out(len(fold.held_out), divisions), learnt]
            is_learnt += [np.zeros(len(fold.held_out), dtype=bool), np.ones(len(fold.masked), dtype=bool)]
        rows = table[np.concatenate([index for fold in folds for index in (fold.held_out, fold.masked)])]
        categorical = np.array([column.categories is not None for column in columns])
        centre, scale = _moments(table)
        return cls(rows, np.concatenate(parts), np.concatenate(is_learnt), folds, categorical, centre, scale)

    def hidden_from(self, number: int) -> np.ndarray:
        """Which entries of the rows to learn from, (n', d), are hidden from the fit of a fold."""
        fold, (_, learnt) = self.folds[number], self._places(number)
        hide = np.zeros((len(fold.learn), self.rows.shape[1]), dtype=bool)
        hide[np.searchsorted(fold.learn, fold.masked)] = self.part[learnt] == 0
        return hide

    def guesses(self, ring: TensorRing, number: int) -> Guesses:
        """Completions of the hidden entries of a fold by the ring that was learnt from it."""
        held_out, learnt = self._places(number)
        return joined([self._guesses(ring, held_out, PARTS), self._guesses(ring, learnt, 1)])

    def _places(self, number: int) -> tuple[slice, slice]:
        """The places of the held-out and of the masked rows of a fold among `rows`."""
        begin = sum(len(fold.held_out) + len(fold.masked) for fold in self.folds[:number])
        middle = begin + len(self.folds[number].held_out)
        return slice(begin, middle), slice(middle, middle + len(self.folds[number].masked))

    def _guesses(self, ring: TensorRing, some: slice, parts: int) -> Guesses:
        rows, part = self.rows[some], self.part[some]
        logs, values = np.zeros((PARTS, len(rows))), np.full(rows.shape, np.nan)
        for number in range(parts if len(rows) else 0):
            given = np.where(part == number, np.nan, rows)
            logs[number] = log_probs(ring, given)
            values = np.where(part == number, self._completed(ring, given, rows), values)
        return Guesses(logs, values)

    def _completed(self, ring: TensorRing, given: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Conditional means and probabilities of all entries (n, d) as if each were missing, given the rows `given`."""
        rows, families = like(given, ring.prototype), ring.families

        def completed_site(i: int, weights: Array, some: Array) -> Array:
            if isinstance(ring.variables[i], Categorical):
                return weights
            if families[i].width == 1:
                return (weights @ like(ring.variables[i].means(), weights))[:, None]
            means = like(families[i].conditional_means(site_values(ring, some, i)), weights)
            return (weights[:, :, None] * means).sum(1)

        sites = list(range(ring.num_variables))
        found = [to_numpy(part) for part in component_posteriors(ring, rows, sites, summary=completed_site)]
        for i, own in enumerate(ring.columns):
            if isinstance(ring.variables[i], Categorical):
                code = np.nan_to_num(truth[:, own[0]]).astype(np.int64)
                found[i] = np.take_along_axis(found[i], code[:, None], axis=1)
        order = ring.layout.in_order
        completed = np.concatenate(found, axis=1)
        return completed if order is None else completed[:, list(order)]

    def scores(self, values: np.ndarray, guesses: Sequence[Guesses], weights: np.ndarray) -> np.ndarray:
        """Scores (n,) of completions by the mixture of K rings; held-out rows also score log p(row).

        Scores are scaled so that their mean is the sum of two means, over held-out and over masked rows.

        Args:
            values: (K, n') log p(row) of held-out rows.
            weights: (K,) of the rings.
        """
        with np.errstate(divide="ignore"):
            priors = np.log(weights)
        logs = np.stack([own.logs for own in guesses]) + priors[:, None, None]
        share = np.exp(log_softmax(logs, axis=0))  # (K, PARTS, n) of each ring given what is not hidden
        index, value = np.arange(len(self.rows))[:, None], np.zeros(self.rows.shape)
        for own, guess in zip(share, guesses, strict=True):
            weight = own[self.part, index]
            value += weight * np.where(weight > 0, guess.values, 0.0)
        completed, learnt = self._scored(value), self.is_learnt
        scores = LEARNT_WEIGHT * PARTS * completed * (len(learnt) / max(1, learnt.sum()))
        held_out = logsumexp(values + priors[:, None], axis=0) + HELD_OUT_WEIGHT * completed[~learnt]
        scores[~learnt] = held_out * (len(learnt) / max(1, (~learnt).sum()))
        return np.asarray(scores)

    def weights(self, values: np.ndarray, guesses: Sequence[Guesses]) -> np.ndarray:
        """(K,) weights of highest likelihood."""
        return mixture_weights(values)

    def _scored(self, value: np.ndarray) -> np.ndarray:
        value = np.where(np.isfinite(value), value, self.centre)  # no mean exists
        with np.errstate(over="ignore"):
            error = np.minimum(np.abs(value - self.rows) / self.scale, FARTHEST)
        probability = np.maximum(np.where(self.categorical, value, 1.0), LEAST)
        score = np.where(self.categorical, np.log(probability), -0.5 * error**2)
        return np.asarray(np.where(np.isnan(self.rows) | (self.part == NEVER), 0.0, score).sum(axis=1))


def joined(guesses: Sequence[Guesses]) -> Guesses:
    """Guesses for rows one after the other."""
    logs, values = zip(*guesses, strict=True)
    return Guesses(np.concatenate(logs, axis=1), np.concatenate(values))


def _parts_of_held_out(n: int, divisions: np.ndarray) -> np.ndarray:
    """(n, d) the part of each entry, by one division of the columns (DIVISIONS, d) after the other."""
    return np.asarray(divisions[np.arange(n) % DIVISIONS])


def _parts_of_learnt(n: int, divisions: np.ndarray) -> np.ndarray:
    """(n, d) the part of each entry: five rows have the same division, of which each has another part as its first.

    So a fifth of the entries is in part 0, whatever the number of columns, and as many of every column.
    """
    row = np.arange(n)
    return np.asarray((divisions[row // PARTS % DIVISIONS] + row[:, None]) % PARTS)


def _moments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the columns (d,), those of constant columns 1."""
    seen = ~np.isnan(table)
    count = np.maximum(seen.sum(axis=0), 1)
    size = np.where(seen, np.abs(table), 0.0).max(axis=0)  # squares of numbers up to 1 stay in range
    size = np.where(size > 0, size, 1.0)
    values = np.where(seen, table / size, 0.0)
    centre = values.sum(axis=0) / count
    scale = size * np.sqrt((np.where(seen, values - centre, 0.0) ** 2).sum(axis=0) / count)
    return size * centre, np.where(scale > 0, scale, 1.0)
