"""How well one column is predicted from the others: the criterion for settings if users name a target.

The scores are conditional log-likelihoods log p(target | rest) = log p(row) − log p(rest). A mixture of rings has the
weights that maximise their mean, less a penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from ringdist.estimator.folds import Fold
from ringdist.estimator.hidden import Guesses
from ringdist.learning.rings import log_probs
from ringdist.ring import TensorRing

STEPS = 50  # of the search for weights
PENALTY = 1e-2  # factor of the sum of squared logits, which draws weights towards equal ones


@dataclass(frozen=True)
class Target:
    """Rows (N, d), NaN where missing, their folds, and the column that is to be predicted."""

    rows: np.ndarray
    folds: Sequence[Fold]
    column: int

    def hidden_from(self, number: int) -> None:
        """No entries are hidden from the fit of a fold."""

    def guesses(self, ring: TensorRing, number: int) -> Guesses:
        """log p(rest) of the held-out rows of a fold."""
        rest = self.rows[self.folds[number].held_out]
        rest[:, self.column] = np.nan
        return Guesses(log_probs(ring, rest)[None], np.zeros((len(rest), 0)))

    def scores(self, values: np.ndarray, guesses: Sequence[Guesses], weights: np.ndarray) -> np.ndarray:
        """(n,) log p(target | rest) under the mixture of K rings.

        Args:
            values: (K, n) log p(row).
            weights: (K,) of the rings.
        """
        with np.errstate(divide="ignore"):
            logs = np.log(weights)[:, None]
        rest = _rest(guesses)
        return np.asarray(logsumexp(values + logs, axis=0) - logsumexp(rest + logs, axis=0))

    def weights(self, values: np.ndarray, guesses: Sequence[Guesses]) -> np.ndarray:
        """(K,) weights of highest mean score, less the penalty."""
        rest = _rest(guesses)

        def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
            own = log_softmax(logs)[:, None]
            score = logsumexp(values + own, axis=0) - logsumexp(rest + own, axis=0)
            gradient = (softmax(values + own, axis=0) - softmax(rest + own, axis=0)).mean(axis=1)
            return float(PENALTY * logs @ logs - score.mean()), 2 * PENALTY * logs - gradient

        found = minimize(loss, np.zeros(len(values)), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
        return np.asarray(softmax(found.x))


def _rest(guesses: Sequence[Guesses]) -> np.ndarray:
    """(K, n) log p(rest)."""
    return np.concatenate([own.logs for own in guesses])
