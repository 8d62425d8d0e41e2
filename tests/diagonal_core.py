"""A kind of core as a user would write it, against `rd.Core` alone: the bond keeps its value in the column."""

from array_api_compat import array_namespace, device

import ringdist as rd


class DiagonalCore:
    """Q[s, a, b] = weights[s, a] δ_ab: N m numbers and operations."""

    subscripts = "sa->saa"

    def __init__(self, weights):
        self.weights = weights

    shape = property(lambda self: (*self.weights.shape, self.weights.shape[1]))

    def arrays(self):
        return {"weights": self.weights}

    def with_arrays(self, arrays):
        return DiagonalCore(arrays["weights"])

    def dense(self):
        return self.weights[:, :, None] * self._unit()

    def transposed(self):
        return self

    def matrix(self, weights, semiring):
        return semiring.times(self._hidden(weights, semiring)[:, :, None], semiring.of(self._unit()))

    def push(self, state, weights, semiring):
        return semiring.times(state, self._hidden(weights, semiring)[:, None, :])

    def environment(self, prefix, suffix, semiring):
        return semiring.sum(semiring.times(prefix, suffix), axis=1)  # (b, m)

    def components(self, environment, semiring):
        return semiring.product(environment, semiring.of(self.weights).mT)

    def derivative(self, name, environment, weights):
        return weights.mT @ environment

    def rows(self, left, weights, semiring):
        return semiring.times(self._hidden(weights, semiring), semiring.of(self._unit()[left]))

    def between(self, left, right, semiring):
        return semiring.of((self.weights[:, left] * (left == right)).mT)

    def gauged(self, left, right):
        scale = (1 if left is None else left) * (1 if right is None else right)
        return DiagonalCore(self.weights * scale)

    def absorbed(self, left, right):
        return rd.CPCore(left, self.weights, right)  # a kind that has a place for the matrices

    def _hidden(self, weights, semiring):
        return semiring.product(weights, semiring.of(self.weights))

    def _unit(self):
        xp = array_namespace(self.weights)
        return xp.eye(self.weights.shape[1], dtype=self.weights.dtype, device=device(self.weights))
