"""Dense cores: arrays of N m m' entries, which is also the cost of a product."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from ringdist.backend import Array, cached_property, is_array, namespace, take
from ringdist.cores.conditional import Conditional
from ringdist.cores.protocol import Core
from ringdist.cores.semiring import LINEAR, Semiring


class Environment(NamedTuple):
    """States on the left and right of a core, and their product (b, m, m') if that is cheaper in what follows."""

    prefix: Array  # (b, r, m)
    suffix: Array  # (b or 1, r, m')
    product: Array | None


class DenseCore(Conditional):
    """A non-negative array (N, m, m') as a `Core`."""

    conditional: ClassVar = {"core": (0, 2)}
    subscripts = "sab->sab"

    def __init__(self, array: Array):
        self.array = array

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        shape: Any = tuple(self.array.shape)
        return shape

    def arrays(self) -> dict[str, Array]:
        return {"core": self.array}

    def with_arrays(self, arrays: dict[str, Array]) -> DenseCore:
        return DenseCore(arrays["core"])

    def dense(self) -> Array:
        return self.array

    def transposed(self) -> DenseCore:
        return DenseCore(self.array.mT)

    def matrix(self, weights: Array, semiring: Semiring = LINEAR) -> Array:
        size, left, right = self.array.shape
        xp = namespace(self.array)
        flat = semiring.product(weights, xp.reshape(semiring.of(self.array), (size, left * right)))
        return xp.reshape(flat, (-1, left, right))

    def push(self, state: Array, weights: Array, semiring: Semiring = LINEAR) -> Array:
        if takes_state_first(state.shape[1], self.array.shape[0]):
            xp = namespace(state)
            (size, inner, right), (batch, rank) = self.array.shape, state.shape[:2]
            core = xp.reshape(xp.permute_dims(semiring.of(self.array), (1, 0, 2)), (inner, -1))
            terms = semiring.product(xp.reshape(state, (batch * rank, inner)), core)
            terms = xp.reshape(terms, (batch, rank, size, right))
            return semiring.product(weights[:, None, None, :], terms)[:, :, 0, :]
        return semiring.product(state, self.matrix(weights, semiring))

    def environment(self, prefix: Array, suffix: Array, semiring: Semiring = LINEAR) -> Environment:
        rank, size = prefix.shape[1], self.array.shape[0]
        one_suffix = suffix.shape[0] == 1 < prefix.shape[0]
        if semiring is LINEAR and (one_suffix or size * rank <= 2 * (rank + 2 * size)):
            return Environment(prefix, suffix, None)
        return Environment(prefix, suffix, semiring.product(prefix.mT, suffix))

    def components(self, environment: Environment, semiring: Semiring = LINEAR) -> Array:
        xp = namespace(self.array)
        prefix, suffix, product = environment
        (size, left, right), (rows, rank) = self.array.shape, prefix.shape[:2]
        if product is not None:
            flat = xp.reshape(semiring.of(self.array), (size, left * right))
            return semiring.product(xp.reshape(product, (product.shape[0], -1)), flat.T)
        if suffix.shape[0] == 1:  # one suffix for all rows: a single product once the core is closed with it
            closed = xp.permute_dims(self.array @ suffix[0].mT, (2, 1, 0))  # (r, m, N)
            return xp.reshape(prefix, (rows, rank * left)) @ xp.reshape(closed, (rank * left, size))
        core = xp.reshape(xp.permute_dims(self.array, (1, 0, 2)), (left, size * right))
        pushed = xp.reshape(xp.reshape(prefix, (rows * rank, left)) @ core, (rows, rank, size, right))
        return xp.sum(xp.sum(pushed * suffix[:, :, None, :], axis=-1), axis=1)

    def derivative(self, name: str, environment: Environment, weights: Array) -> Array:
        """Σ_b weights[b, s] Σ_r prefix[b, r, :] suffix[b, r, :]ᵀ, (N, m, m')."""
        xp = namespace(self.array)
        prefix, suffix, product = environment
        (size, left, right), (rows, rank) = self.array.shape, prefix.shape[:2]
        if product is not None:
            return xp.reshape(weights.T @ xp.reshape(product, (rows, left * right)), (size, left, right))
        right_states = xp.reshape(xp.broadcast_to(suffix, (rows, rank, right)), (rows * rank, right))
        return xp.stack(
            [xp.reshape(prefix * weights[:, s, None, None], (rows * rank, left)).T @ right_states for s in range(size)]
        )

    def rows(self, left: Array, weights: Array, semiring: Semiring = LINEAR) -> Array:
        if weights.shape[0] == 1:
            return take(self.matrix(weights, semiring)[0], left)
        slices = take(namespace(left).permute_dims(semiring.of(self.array), (1, 0, 2)), left)  # (n, N, m')
        return semiring.product(weights[:, None, :], slices)[:, 0, :]

    def between(self, left: Array, right: Array, semiring: Semiring = LINEAR) -> Array:
        flat = namespace(self.array).reshape(self.array, (self.array.shape[0], -1))
        return semiring.of(take(flat, left * self.array.shape[2] + right, axis=1)).T

    def gauged(self, left: Array | None, right: Array | None) -> DenseCore:
        array = self.array if left is None else self.array * left[:, None]
        return DenseCore(array if right is None else array * right)

    def absorbed(self, left: Array | None, right: Array | None) -> DenseCore:
        array = self.array if left is None else left @ self.array
        return DenseCore(array if right is None else array @ right)


def takes_state_first(rank: int, size: int) -> bool:
    """Whether one product of a state with the core is cheaper than forming the matrices: in a train, and for N = 1."""
    return rank * size <= rank + size


def as_core(value: Any) -> Core:
    """A core unchanged, an array or nested list as a dense core."""
    if is_array(value):
        return DenseCore(value)
    return value if hasattr(value, "with_arrays") else DenseCore(np.asarray(value, dtype=np.float64))
