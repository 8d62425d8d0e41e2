"""Orders in which dependent columns are near each other, not only side by side.

The value of an order is `Σ_{i<j} w_ij reach^(|p_i − p_j| − 1)`, with p the positions of the columns. Moves are those of
Or (1976): a segment of columns is moved elsewhere, possibly reversed. The values for all slots of a segment of
L columns are computed together, in O(L R d) for the R positions that `reach` covers. The loss of pairs that the segment
separates is a running sum over slots, and the gain of pairs that it joins a convolution.
"""

from __future__ import annotations

import numpy as np

_LONGEST_MOVED = 4  # columns; moving longer segments found no better orders for trains
_LEAST = 0.01  # powers of `reach` below this count as 0
_MOST_PASSES = 30  # over all columns; some five are enough for 100 columns


def arranged(weight: np.ndarray, order: list[int], reach: float) -> list[int]:
    """A local optimum near `order` (d columns), for weights (d, d) with a diagonal of zeros and 0 < reach < 1."""
    d = len(order)
    path = _Path(weight, order, reach)
    stale = np.ones(d, dtype=bool)  # columns whose neighbours changed since they were last visited
    for _ in range(_MOST_PASSES):
        visited, stale = stale, np.zeros(d, dtype=bool)
        for length in range(1, min(_LONGEST_MOVED, d - 1) + 1):
            for first in range(d - length + 1):
                if visited[path.order[first : first + length]].any():
                    stale[path.move(first, length)] = True
        if not stale.any():
            break
    return list(path.order.tolist())


class _Path:
    """An order of columns, (d,), that is improved by moves."""

    def __init__(self, weight: np.ndarray, order: list[int], reach: float):
        d = len(order)
        self.order = np.array(order)
        self._weight = np.pad(weight, (0, 1))  # column d stands for positions after the end
        covered = 1 + int(np.log(_LEAST) / np.log(reach))
        self._power = reach ** np.arange(min(covered, d))  # by distance − 1
        self._rounding = 1e-12 * float(np.abs(weight).sum())

    def move(self, first: int, length: int) -> np.ndarray:
        """Move a segment to its best slot, if this increases the value; returns the columns whose neighbours change.

        Args:
            first: position of the segment.
            length: number of its columns.
        """
        segment = self.order[first : first + length]
        others = np.concatenate([self.order[:first], self.order[first + length :]])
        forward, reversed_ = self.values(others, segment)
        best = forward if forward.max() >= reversed_.max() else reversed_
        slot = int(best.argmax())
        if best[slot] - forward[first] <= self._rounding:
            return segment[:0]
        self.order = np.concatenate([others[:slot], segment if best is forward else segment[::-1], others[slot:]])
        around = [others[max(0, place - 2) : place + 2] for place in (first, slot)]
        return np.concatenate([segment, *around])

    def values(self, others: np.ndarray, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value of the whole order, up to a constant, for each slot of the segment among the other columns.

        Returns:
            (d − L + 1,) twice: for the segment as it is, and reversed.
        """
        length = len(segment)
        power = np.append(self._power, np.zeros(length))
        forward = reversed_ = self._separation(others, length)
        for inner, weight in enumerate(self._weight[segment[:, None], others]):
            first, last = power[inner:], power[length - 1 - inner :]
            forward = forward + _insertion(weight, first, last)
            reversed_ = reversed_ + _insertion(weight, last, first)
        return forward, reversed_

    def _separation(self, others: np.ndarray, length: int) -> np.ndarray:
        """The change for pairs of the other columns if `length` positions are inserted at a slot, (d − L + 1,)."""
        size, covered = len(others), len(self._power)
        padded = np.concatenate([others, np.full(covered, len(self._weight) - 1)])
        later = np.lib.stride_tricks.sliding_window_view(padded, size)[1:]  # (R, size): by distance − 1
        change = -self._power.copy()
        change[: max(0, covered - length)] += self._power[length:]
        pairs = self._weight[others, later] * change[:, None]
        ends = np.arange(size) + np.arange(1, covered + 1)[:, None]
        ended = np.bincount(ends.ravel(), pairs.ravel(), minlength=size)[:size]
        return np.concatenate([[0.0], np.cumsum(pairs.sum(axis=0) - ended)])


def _insertion(weight: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The value of the pairs of one column with the others, for each slot, (size + 1,).

    Args:
        weight: (size,) of the column with each of the others.
        left: powers of reach for columns on the left, by the number of others between.
        right: the same for columns on the right.
    """
    size = len(weight)
    found = np.zeros(size + 1)
    found[1:] = np.convolve(weight, left)[:size]
    found[:-1] += np.convolve(weight[::-1], right)[size - 1 :: -1]
    return found
