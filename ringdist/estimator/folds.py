"""The rows on which settings are compared: folds of a table, and samples of large tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SMALL = 1000  # rows up to which tables are cross-validated
FEW_ROWS = 200
FOLDS, FEWER_FOLDS = 5, 3  # of tables of at most FEW_ROWS rows, and of larger ones
MOST_ROWS = 8000  # used to compare settings
MOST_HELD_OUT = 2000
MASKED, MOST_MASKED = 0.25, 400  # share of the rows to learn from that are masked, and their largest number


class Fold(NamedTuple):
    """One division of the rows, as sorted row indices.

    Args:
        learn: rows to learn from.
        held_out: rows to score, none of them in `learn`.
        masked: rows of `learn` of which some entries are hidden while a setting is learnt.
    """

    learn: np.ndarray
    held_out: np.ndarray
    masked: np.ndarray


def fold_of(learn: np.ndarray, held_out: np.ndarray, rng: np.random.RandomState) -> Fold:
    """A fold whose masked rows are drawn from those to learn from."""
    number = min(MOST_MASKED, int(MASKED * len(learn)))
    return Fold(learn, held_out, np.sort(rng.permutation(learn)[:number]))


def folds_of(n: int, rng: np.random.RandomState, folds: int | None = None) -> list[Fold]:
    """The folds of n rows: every row is held out once in a small table, a tenth of the rows in a larger one.

    Args:
        folds: their number in a small table; None for the usual one.
    """
    shuffled = rng.permutation(n)
    if n <= SMALL:
        folds = folds or (FOLDS if n <= FEW_ROWS else FEWER_FOLDS)
        parts = np.array_split(shuffled, min(n, folds))
        learn = [np.sort(np.concatenate(parts[:i] + parts[i + 1 :])) for i in range(len(parts))]
        return [fold_of(rows, np.sort(held_out), rng) for rows, held_out in zip(learn, parts, strict=True)]
    held_out = min(MOST_HELD_OUT, max(200, n // 10))
    return [fold_of(np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out]), rng)]


def sampled(n: int, rng: np.random.RandomState) -> np.ndarray | None:
    """Sorted indices of the rows of a large table on which settings are compared; None for all rows."""
    return None if n <= MOST_ROWS else np.sort(rng.permutation(n)[:MOST_ROWS])
