"""The numbers at which monotone functions pass a level, by bisection."""

from __future__ import annotations

from collections.abc import Callable

from ringdist.backend import Array, from_ordered_integers, namespace, ordered_integers, without_warnings


def first_reached(reached: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The smallest number in (low, high] where a predicate is true that stays true from there; high if there is none.

    Bisection over the integers that stand for floating point numbers in their order: as many steps as the dtype has
    bits find one number among all, whatever their scale.

    Args:
        reached: from numbers (n,) to booleans (n,).
        low, high: (n,), where the search begins.
    """
    xp, array = namespace(low), low
    low, high = ordered_integers(low), ordered_integers(high)
    with without_warnings(array):
        for _ in range(xp.finfo(array.dtype).bits):
            # The mean of two integers, rounded down, whose sum may overflow.
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            inside = reached(from_ordered_integers(middle, array))
            low, high = xp.where(inside, low, middle), xp.where(inside, middle, high)
    return from_ordered_integers(high, array)
