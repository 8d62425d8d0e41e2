"""Transitions that keep a hidden state, or draw another one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import (
    Array,
    backend_name,
    is_array,
    is_concrete,
    lasting,
    log_scaled_sum,
    namespace,
    plus_diagonal,
    plus_product,
    stack,
    stop_gradient,
    times_power,
)
from ringdist.cores.semiring import LINEAR, Semiring


class Switch(NamedTuple):
    """diag(stay) + leave enterᵀ, (c,) each: a state is kept, or left for one that does not depend on it."""

    stay: Array
    leave: Array
    enter: Array

    @classmethod
    def balanced(cls, stay: Array, leave: Array, enter: Array) -> Switch:
        """The switch of copies, with 1 as the largest entry of `enter`, so that no product with `leave` underflows."""
        xp = namespace(enter)
        top = stop_gradient(xp.max(enter))
        top = xp.where(top > 0, top, 1.0)
        return cls(stay + 0, leave * top, enter / top)

    @classmethod
    def checked(cls, *values: Any) -> Switch:
        """The switch of arrays or lists; `ValueError` unless they are vectors of one length, `TypeError` of dtypes."""
        parts = [value if is_array(value) else np.asarray(value, dtype=np.float64) for value in values]
        shapes = [tuple(part.shape) for part in parts]
        if len(shapes[0]) != 1 or len(set(shapes)) > 1 or shapes[0] == (0,):
            found = ", ".join(map(str, shapes))
            raise ValueError(f"stay, leave and enter must be vectors of one length, found shapes {found}")
        dtypes = {str(part.dtype) for part in parts}
        if len(dtypes) > 1:
            raise TypeError(f"stay, leave and enter must have one dtype, found {', '.join(sorted(dtypes))}")
        return cls.balanced(*parts)

    def dense(self) -> Array:
        """The matrix (c, c)."""
        return plus_diagonal(self.leave[:, None] * self.enter, self.stay)

    def lasting_dense(self) -> tuple[Array, bool]:
        """The matrix, read-only in NumPy, and whether it may be kept for later.

        Not if it is traced, nor if it has no gradient although a part requires one, as under `torch.no_grad`.
        """
        if not is_concrete(*self):
            return self.dense(), False
        with lasting(self.stay):
            found = self.dense()
        if backend_name(found) == "numpy":
            found.flags.writeable = False
        return found, any(map(_requires_grad, self)) == _requires_grad(found)

    def push(self, state: Array, semiring: Semiring) -> Array:
        """The state (..., c) times the matrix, in O(c) for each of its rows."""
        if semiring is LINEAR:
            return plus_product(state * self.stay, (state @ self.leave)[..., None], self.enter)
        entered = namespace(state).broadcast_to(log_scaled_sum(self.leave, state)[..., None], state.shape)
        return log_scaled_sum(stack([self.stay, self.enter], axis=-1), stack([state, entered], axis=-1))

    def row_sums(self) -> Array:
        """The sums of the rows of the matrix, (c,), without gradient."""
        return stop_gradient(self.stay + self.leave * namespace(self.enter).sum(self.enter))

    def divided(self, exponent: int) -> Switch:
        """The switch divided by 2^exponent."""
        return Switch(times_power(self.stay, -exponent), times_power(self.leave, -exponent), self.enter)


def _requires_grad(array: Array) -> bool:
    return bool(getattr(array, "requires_grad", False))
