"""How well held-out rows are completed: by what a setting is chosen beside the likelihood.

The likelihood of a table is decided by its sharpest columns. What users ask of it are the other columns too, given
what is known of a row. So every entry of a held-out row is hidden once, together with a fifth of the others, and
completed: a pseudo-likelihood (Besag, Journal of the Royal Statistical Society B 36, 1974). A category scores the
logarithm of its probability, a number minus half the squared error of its conditional mean, in variances of the column:
the logarithm of a Gaussian density of the column's own variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from ringdist.backend import Array, like, to_numpy
from ringdist.estimator.columns import Column
from ringdist.learning.rings import log_probs, mixture_weights
from ringdist.network.evidence import site_values
from ringdist.queries.posterior import component_posteriors
from ringdist.ring import TensorRing
from ringdist.variables import Categorical

ALL = slice(None)
PARTS = 5  # of the entries of a row, hidden one after the other
WEIGHT = 3.0  # of what rows score in being completed, beside their log-likelihood
LEAST = 1e-6  # probability of a category, which a mixture of rings has as a rule
FARTHEST = 10.0  # standard deviations of a column that a mean may be wrong by


class Guesses(NamedTuple):
    """What one ring says of hidden entries."""

    logs: np.ndarray  # (PARTS, n) log p of the entries that are not hidden
    values: np.ndarray  # (n, d) conditional means of numbers, probabilities of categories


@dataclass(frozen=True)
class Hidden:
    """Held-out rows (n, d), NaN where missing, and the part (n, d) in which each entry is hidden."""

    rows: np.ndarray
    part: np.ndarray
    categorical: np.ndarray  # (d,)
    centre: np.ndarray  # (d,) means of the numbers
    scale: np.ndarray

    @classmethod
    def of_rows(cls, rows: np.ndarray, columns: Sequence[Column], every: np.ndarray, seed: int) -> Hidden:
        """Entries in parts of equal size, at random.

        Args:
            every: (n', d) rows that tell the columns' variances.
            seed: of the parts.
        """
        d = rows.shape[1]
        part = np.random.default_rng(seed).permuted(np.tile(np.arange(d) % PARTS, (len(rows), 1)), axis=1)
        seen = ~np.isnan(every)
        count = np.maximum(seen.sum(axis=0), 1)
        size = np.where(seen, np.abs(every), 0.0).max(axis=0)  # squares of numbers up to 1 stay in range
        size = np.where(size > 0, size, 1.0)
        values = np.where(seen, every / size, 0.0)
        centre = values.sum(axis=0) / count
        scale = size * np.sqrt((np.where(seen, values - centre, 0.0) ** 2).sum(axis=0) / count)
        categorical = np.array([column.categories is not None for column in columns])
        return cls(rows, part, categorical, size * centre, np.where(scale > 0, scale, 1.0))

    def guesses(self, ring: TensorRing, some: slice = ALL) -> Guesses:
        """What a ring says of all entries of some of the rows."""
        rows, part = self.rows[some], self.part[some]
        logs, values = [], np.full(rows.shape, np.nan)
        for number in range(PARTS):
            given = np.where(part == number, np.nan, rows)
            logs.append(log_probs(ring, given))
            values = np.where(part == number, self._completed(ring, given, rows), values)
        return Guesses(np.stack(logs), values)

    def _completed(self, ring: TensorRing, given: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n, d) for every entry as if it were hidden."""
        rows, families = like(given, ring.prototype), ring.families

        def said(i: int, weights: Array, some: Array) -> Array:
            if isinstance(ring.variables[i], Categorical):
                return weights
            if families[i].width == 1:
                return (weights @ like(ring.variables[i].means(), weights))[:, None]
            means = like(families[i].conditional_means(site_values(ring, some, i)), weights)
            return (weights[:, :, None] * means).sum(1)

        sites = list(range(ring.num_variables))
        found = [to_numpy(part) for part in component_posteriors(ring, rows, sites, summary=said)]
        for i, own in enumerate(ring.columns):
            if isinstance(ring.variables[i], Categorical):
                code = np.nan_to_num(truth[:, own[0]]).astype(np.int64)
                found[i] = np.take_along_axis(found[i], code[:, None], axis=1)
        order = ring.layout.in_order
        completed = np.concatenate(found, axis=1)
        return completed if order is None else completed[:, list(order)]

    def scores(self, values: np.ndarray, guesses: Sequence[Guesses], weights: np.ndarray) -> np.ndarray:
        """(n,) log p(row) under the mixture of K rings, and what it scores in completing the row.

        Args:
            values: (K, n) log p(row).
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
        return np.asarray(logsumexp(values + priors[:, None], axis=0)) + WEIGHT * self._scored(value)

    def weights(self, values: np.ndarray, guesses: Sequence[Guesses]) -> np.ndarray:
        """(K,) weights of highest likelihood."""
        return mixture_weights(values)

    def _scored(self, value: np.ndarray) -> np.ndarray:
        value = np.where(np.isfinite(value), value, self.centre)  # no mean exists
        with np.errstate(over="ignore"):
            error = np.minimum(np.abs(value - self.rows) / self.scale, FARTHEST)
        probability = np.maximum(np.where(self.categorical, value, 1.0), LEAST)
        score = np.where(self.categorical, np.log(probability), -0.5 * error**2)
        return np.asarray(np.where(np.isnan(self.rows), 0.0, score).sum(axis=1))


def joined(guesses: Sequence[Guesses]) -> Guesses:
    """Guesses for rows one after the other."""
    logs, values = zip(*guesses, strict=True)
    return Guesses(np.concatenate(logs, axis=1), np.concatenate(values))
