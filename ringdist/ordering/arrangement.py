"""Orders in which dependent columns are near each other, though not all of them side by side.

An order is worth `Σ_{i<j} w_ij reach^(|p_i − p_j| − 1)`, p the places of the columns. Moves are those of Or (1976): a
stretch of columns is put elsewhere, as it is or reversed. All slots for a stretch of L columns are valued at once, in
O(L R d) for the R places that `reach` covers: what a stretch moves apart from each other is a running sum over slots,
what it comes near to a convolution.
"""

from __future__ import annotations

import numpy as np

_LONGEST_MOVED = 4  # columns; longer stretches found no orders in which trains learn better
_LEAST = 0.01  # powers of `reach` below this count as 0
_MOST_PASSES = 30  # over all columns; some five are enough for 100 columns


def arranged(weight: np.ndarray, order: list[int], reach: float) -> list[int]:
    """A local optimum near `order` (d columns), for weights (d, d) with a diagonal of zeros and 0 < reach < 1."""
    d = len(order)
    path = _Path(weight, order, reach)
    stale = np.ones(d, dtype=bool)  # columns around which a move was made since they were last visited
    for _ in range(_MOST_PASSES):
        looked_at, stale = stale, np.zeros(d, dtype=bool)
        for length in range(1, min(_LONGEST_MOVED, d - 1) + 1):
            for first in range(d - length + 1):
                if looked_at[path.order[first : first + length]].any():
                    stale[path.move(first, length)] = True
        if not stale.any():
            break
    return list(path.order.tolist())


class _Path:
    """An order of columns, (d,), that is improved by moves."""

    def __init__(self, weight: np.ndarray, order: list[int], reach: float):
        d = len(order)
        self.order = np.array(order)
        self._weight = np.pad(weight, (0, 1))  # column d: where the order has ended
        covered = 1 + int(np.log(_LEAST) / np.log(reach))
        self._power = reach ** np.arange(min(covered, d))  # by distance − 1
        self._rounding = 1e-12 * float(np.abs(weight).sum())

    def move(self, first: int, length: int) -> np.ndarray:
        """Put a stretch where it is worth most, if that is more than where it is; the columns whose neighbours change.

        Args:
            first, length: the stretch, by its places.
        """
        stretch = self.order[first : first + length]
        others = np.concatenate([self.order[:first], self.order[first + length :]])
        forward, reversed_ = self.values(others, stretch)
        best = forward if forward.max() >= reversed_.max() else reversed_
        slot = int(best.argmax())
        if best[slot] - forward[first] <= self._rounding:
            return stretch[:0]
        self.order = np.concatenate([others[:slot], stretch if best is forward else stretch[::-1], others[slot:]])
        around = [others[max(0, place - 2) : place + 2] for place in (first, slot)]
        return np.concatenate([stretch, *around])

    def values(self, others: np.ndarray, stretch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What an order of all columns is worth, up to a constant, by the slot of the stretch among the others.

        Returns:
            (d − L + 1,) twice: with the stretch as it is, and reversed.
        """
        length = len(stretch)
        power = np.append(self._power, np.zeros(length))
        forward = reversed_ = self._moved_apart(others, length)
        for inner, near in enumerate(self._weight[stretch[:, None], others]):
            first, last = power[inner:], power[length - 1 - inner :]
            forward = forward + _attached(near, first, last)
            reversed_ = reversed_ + _attached(near, last, first)
        return forward, reversed_

    def _moved_apart(self, others: np.ndarray, length: int) -> np.ndarray:
        """What pairs with the slot between them are worth less with `length` places more between them, (d − L + 1,)."""
        size, covered = len(others), len(self._power)
        padded = np.concatenate([others, np.full(covered, len(self._weight) - 1)])
        later = np.lib.stride_tricks.sliding_window_view(padded, size)[1:]  # (R, size): by distance − 1
        change = -self._power.copy()
        change[: max(0, covered - length)] += self._power[length:]
        pairs = self._weight[others, later] * change[:, None]
        ends = np.arange(size) + np.arange(1, covered + 1)[:, None]
        ended = np.bincount(ends.ravel(), pairs.ravel(), minlength=size)[:size]
        return np.concatenate([[0.0], np.cumsum(pairs.sum(axis=0) - ended)])


def _attached(near: np.ndarray, before: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """What a column is worth with those on both sides of its slot, by slot, (size + 1,).

    Args:
        near: (size,) its weights with the others.
        before, behind: powers of those on each side, by how many others are between.
    """
    size = len(near)
    found = np.zeros(size + 1)
    found[1:] = np.convolve(near, before)[:size]
    found[:-1] += np.convolve(near[::-1], behind)[size - 1 :: -1]
    return found
