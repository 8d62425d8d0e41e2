"""Transitions that keep a hidden state, or draw another one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, identity, is_array, times_power


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
        return self.stay[:, None] * identity(self.stay.shape[0], self.stay) + self.leave[:, None] * self.enter

    def divided(self, exponent: int) -> Switch:
        """The switch divided by 2^exponent."""
        return Switch(times_power(self.stay, -exponent), times_power(self.leave, -exponent), self.enter)
