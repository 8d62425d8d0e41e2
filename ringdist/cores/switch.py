"""Transitions that keep a hidden state, or draw another one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, is_array, namespace, plus_diagonal, stop_gradient, times_power
from ringdist.cores.semiring import Semiring


class Switch(NamedTuple):
    """diag(stay) + leave enterᵀ, (c,) each: a state is kept, or left for one that does not depend on it."""

    stay: Array
    leave: Array
    enter: Array

    @classmethod
    def checked(cls, *values: Any) -> Switch:
        """The switch of arrays or lists; `ValueError` unless they are vectors of one length."""
        parts = [value if is_array(value) else np.asarray(value, dtype=np.float64) for value in values]
        shapes = [tuple(part.shape) for part in parts]
        if len(shapes[0]) != 1 or len(set(shapes)) > 1:
            found = ", ".join(map(str, shapes))
            raise ValueError(f"stay, leave and enter must be vectors of one length, found shapes {found}")
        return cls(*parts)

    def dense(self) -> Array:
        """The matrix (c, c)."""
        return plus_diagonal(self.leave[:, None] * self.enter, self.stay)

    def push(self, state: Array, semiring: Semiring) -> Array:
        """The state (..., c) times the matrix, in O(c) for each of its rows."""
        stay, leave, enter = (semiring.of(part) for part in self)
        entered = semiring.times(semiring.product(state, leave[:, None]), enter)
        return semiring.plus(semiring.times(state, stay), entered)

    def row_sums(self) -> Array:
        """The sums of the rows of the matrix, (c,), without gradient."""
        return stop_gradient(self.stay + self.leave * namespace(self.enter).sum(self.enter))

    def divided(self, exponent: int) -> Switch:
        """The switch divided by 2^exponent."""
        return Switch(times_power(self.stay, -exponent), times_power(self.leave, -exponent), self.enter)
