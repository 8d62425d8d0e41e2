"""Which rows settings are compared on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SMALL = 1000  # rows up to which tables are cross-validated
FEW_ROWS = 200
FOLDS, FEWER_FOLDS = 5, 3  # of them, those where there are more than
MOST_ROWS = 8000  # used for a choice
MOST_HELD_OUT = 2000
MASKED, MOST_MASKED = 0.25, 400  # share of the rows learnt from, and their number at most


class Fold(NamedTuple):
    """Sorted indices of rows.

    Args:
        learn: to learn from.
        held_out: the others, or some of them.
        masked: some of those to learn from, of which a few entries are hidden meanwhile.
    """

    learn: np.ndarray
    held_out: np.ndarray
    masked: np.ndarray


def fold_of(learn: np.ndarray, held_out: np.ndarray, rng: np.random.RandomState) -> Fold:
    """A fold with masked rows at random."""
    number = min(MOST_MASKED, int(MASKED * len(learn)))
    return Fold(learn, held_out, np.sort(rng.permutation(learn)[:number]))


def folds_of(n: int, rng: np.random.RandomState, folds: int | None = None) -> list[Fold]:
    """Rows to learn from and held-out rows: of a few rows in turn, of many a tenth."""
    shuffled = rng.permutation(n)
    if n <= SMALL:
        folds = folds or (FOLDS if n <= FEW_ROWS else FEWER_FOLDS)
        parts = np.array_split(shuffled, min(n, folds))
        learn = [np.sort(np.concatenate(parts[:i] + parts[i + 1 :])) for i in range(len(parts))]
        return [fold_of(rows, np.sort(held_out), rng) for rows, held_out in zip(learn, parts, strict=True)]
    held_out = min(MOST_HELD_OUT, max(200, n // 10))
    return [fold_of(np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out]), rng)]


def sampled(n: int, rng: np.random.RandomState) -> np.ndarray | None:
    """Rows among which settings are compared; None for all of them."""
    return None if n <= MOST_ROWS else np.sort(rng.permutation(n)[:MOST_ROWS])
