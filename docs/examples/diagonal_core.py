"""A core that is diagonal in its bonds: Q[s, a, b] = weights[s, a] if a = b, else 0."""

import ringdist as rd
from ringdist.backend import identity, namespace, take
from ringdist.cores import KINDS, LINEAR


class DiagonalCore:
    subscripts = "sa->saa"  # einsum from the factors to (component, left bond, right bond)

    def __init__(self, weights):
        self.weights = weights  # (N, m)

    @property
    def shape(self):
        size, rank = self.weights.shape
        return size, rank, rank

    def arrays(self):
        return {"weights": self.weights}

    def with_arrays(self, arrays):
        return DiagonalCore(arrays["weights"])

    def dense(self):
        return self.matrix(identity(self.shape[0], self.weights), LINEAR)

    def transposed(self):
        return self

    def diagonals(self, weights, semiring):  # of the matrices A, (b, m)
        return semiring.product(weights, semiring.of(self.weights))

    def matrix(self, weights, semiring):
        unit = semiring.of(identity(self.shape[1], self.weights))
        return semiring.times(self.diagonals(weights, semiring)[:, :, None], unit)

    def push(self, state, weights, semiring):
        return semiring.times(state, self.diagonals(weights, semiring)[:, None, :])

    def gauged(self, left, right):
        scale = (1 if left is None else left) * (1 if right is None else right)
        return DiagonalCore(self.weights * scale)

    def environment(self, prefix, suffix, semiring):  # at each value of the bond, (b, m)
        return semiring.sum(semiring.times(prefix, suffix), axis=1)

    def components(self, environment, semiring):
        return semiring.product(environment, semiring.of(self.weights).mT)

    def derivative(self, name, environment, weights):
        return (environment.mT @ (weights + 0 * environment[:, :1])).mT  # one row for all

    def rows(self, left, weights, semiring):
        unit = semiring.of(take(identity(self.shape[1], self.weights), left))
        return semiring.times(self.diagonals(weights, semiring), unit)

    def between(self, left, right, semiring):
        kept, values = (left == right)[:, None], take(self.weights, left, axis=1).mT
        return semiring.of(namespace(values).where(kept, values, 0.0))

    def absorbed(self, left, right):
        return rd.CPCore(left, self.weights, right)


KINDS["diagonal"] = DiagonalCore  # the name of this kind in files
