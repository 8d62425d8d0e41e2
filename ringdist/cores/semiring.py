"""Two arithmetics of non-negative numbers: as they are, and as logarithms.

Cores are written once against `Semiring`. In `LINEAR` numbers a product is a matrix product; in `LOG` it is the
logsumexp of sums, which cannot underflow and is several times slower.
"""

from __future__ import annotations

from typing import Protocol

from ringdist.backend import Array, accumulator, astype, logsumexp, namespace, safe_log


class Semiring(Protocol):
    """How non-negative numbers are represented, multiplied and added."""

    def of(self, array: Array) -> Array:
        """A non-negative array in this representation."""

    def times(self, a: Array, b: Array) -> Array:
        """Elementwise product, broadcast."""

    def product(self, a: Array, b: Array) -> Array:
        """Matrix product over the last axis of a and the last but one of b, broadcast over the others."""

    def sum(self, a: Array, axis: int) -> Array:
        """Sum along an axis."""


class _Linear:
    def of(self, array: Array) -> Array:
        return array

    def times(self, a: Array, b: Array) -> Array:
        return a * b

    def product(self, a: Array, b: Array) -> Array:
        return a @ b

    def sum(self, a: Array, axis: int) -> Array:
        return namespace(a).sum(a, axis=axis)


class _Log:
    def of(self, array: Array) -> Array:
        return astype(safe_log(array), accumulator(array))

    def times(self, a: Array, b: Array) -> Array:
        return a + b

    def product(self, a: Array, b: Array) -> Array:
        return logsumexp(a[..., :, :, None] + b[..., None, :, :], axis=-2)

    def sum(self, a: Array, axis: int) -> Array:
        return logsumexp(a, axis=axis)


LINEAR: Semiring = _Linear()
LOG: Semiring = _Log()
