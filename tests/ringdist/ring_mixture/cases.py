"""Mixtures of rings of the tests, and what enumeration says of them."""

import itertools
from dataclasses import dataclass

import numpy as np

import ringdist as rd
from tests import oracle
from tests.backends import Backend
from tests.oracle import Case, make_case

KINDS, SHAPE = ["categorical"] * 4, [3, 2, 4, 2]
NAMES = ["label", "height", "count", "delay"]
FAMILIES = ["categorical", "gaussian", "poisson", "laplace"]


@dataclass(frozen=True, eq=False)
class Sum:
    """Rings as cases, and their weights: what enumeration says of a mixture."""

    cases: tuple[Case, ...]
    weights: np.ndarray
    cp: tuple[int, ...] = ()  # the members that are made of CP cores of the same values

    def __repr__(self) -> str:
        return f"Sum({self.cases}, {self.weights.tolist()})"

    @property
    def d(self) -> int:
        return self.cases[0].d

    @property
    def shares(self) -> np.ndarray:
        return self.weights / self.weights.sum()

    def rings(self, backend: Backend, dtype: str = "float64") -> list:
        rings = []
        for c, case in enumerate(self.cases):
            cores = [backend.array(core, dtype) for core in case.cores]
            if c in self.cp:
                cores = [as_cp(core, backend, dtype) for core in case.cores]
            rings.append(rd.TensorRing(cores, backend.variables(case, dtype), order=case.order))
        return rings

    def mixture(self, backend: Backend, dtype: str = "float64") -> rd.RingMixture:
        return rd.RingMixture(self.rings(backend, dtype), backend.array(self.weights, dtype))

    def joint(self, x: np.ndarray) -> np.ndarray:
        """w_c p_c(x), (n, K)."""
        masses = [oracle.mass(case, x) / case.joint.sum() for case in self.cases]
        return self.shares * np.stack(masses, axis=-1)

    def posterior(self, x: np.ndarray) -> np.ndarray:
        joint = self.joint(x)
        return joint / joint.sum(-1, keepdims=True)

    def average(self, x: np.ndarray, function) -> np.ndarray:
        """Σ_c p(c | x) function(case_c), which is NaN only where the ring has no mass."""
        weights = self.posterior(x)
        with np.errstate(invalid="ignore"):
            parts = [np.asarray(function(case)) for case in self.cases]
        total = np.zeros_like(parts[0])
        for c, part in enumerate(parts):
            weight = np.reshape(weights[:, c], (-1, *[1] * (part.ndim - 1)))
            total += np.where(weight > 0, weight * np.where(weight > 0, part, 0.0), 0.0)
        return total

    @property
    def table(self) -> np.ndarray:
        """The joint distribution of the components, which all members share."""
        return sum(w * case.joint / case.joint.sum() for w, case in zip(self.shares, self.cases, strict=True))

    def possible_rows(self, n: int, missing: float = 0.4) -> np.ndarray:
        rows = np.concatenate([case.possible_rows(n, missing) for case in self.cases])
        return rows[self.joint(rows).sum(-1) > 0]


def as_cp(core: np.ndarray, backend: Backend, dtype: str) -> rd.CPCore:
    """The dense core as a CP core with one hidden state for each of its entries."""
    n, left, right = core.shape
    index = np.array(list(itertools.product(range(n), range(left), range(right)))).T
    factors = np.eye(left)[:, index[1]], np.eye(n)[:, index[0]] * core.ravel(), np.eye(right)[index[2]]
    return rd.CPCore(*(backend.array(factor, dtype) for factor in factors))


def discrete(sparsity: float = 0.0, seed: int = 0) -> Sum:
    """A ring, a train and CP cores, in three orders."""
    cases = (
        make_case(KINDS, SHAPE, [2, 4, 3, 3], [1, 3, 0, 2], sparsity=sparsity, seed=seed),
        make_case(KINDS, SHAPE, [1, 2, 3, 2], [0, 1, 2, 3], sparsity=sparsity, seed=seed + 1),
        make_case(KINDS, SHAPE, [2, 2, 1, 3], [3, 0, 2, 1], sparsity=sparsity, seed=seed + 2),
    )
    return Sum(cases, np.array([0.5, 2.0, 1.0]), cp=(2,))


def mixed(seed: int = 0) -> Sum:
    """Members with other numbers of components in all columns but the categorical one."""
    cases = (
        make_case(FAMILIES, [3, 2, 4, 3], [3, 2, 4, 3], [2, 0, 3, 1], seed=seed, names=NAMES),
        make_case(FAMILIES, [3, 4, 2, 1], [1, 2, 2, 2], [3, 1, 0, 2], seed=seed + 1, names=NAMES),
    )
    return Sum(cases, np.array([0.7, 0.3]), cp=(1,))


def with_impossible_rows(seed: int = 0) -> Sum:
    """Members of which one knows the labels 0 and 1, the other 1 and 2; the third has no weight."""
    first, second, third = (
        make_case(KINDS, SHAPE, [2, 3, 2, 2], order, seed=seed + i)
        for i, order in enumerate(([0, 2, 1, 3], [3, 1, 0, 2], [0, 1, 2, 3]))
    )
    first.cores[0][2] = 0.0
    second.cores[0][0] = 0.0
    return Sum((first, second, third), np.array([0.4, 0.6, 0.0]))


SUMS = {
    "discrete": discrete(),
    "sparse": discrete(0.4, seed=10),
    "mixed": mixed(20),
    "impossible": with_impossible_rows(30),
}
TABLES = {name: SUMS[name] for name in ("discrete", "sparse", "impossible")}
