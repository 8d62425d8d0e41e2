"""Rings whose cores are small networks, beside the dense ring that enumeration understands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

import ringdist as rd
from tests.backends import Backend
from tests.diagonal_core import DiagonalCore
from tests.oracle import Case, make_column

FACTORS = ("left", "emission", "right")
PATTERNS = tuple(p for n in (1, 2, 3) for p in itertools.combinations(FACTORS, n))  # the factors that are given
Part = tuple[str, dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Structured:
    """A `Case` of dense cores with, for every column, the kind of its core and the factors it is made of."""

    case: Case
    parts: tuple[Part, ...]

    def __repr__(self) -> str:
        return self.case.text

    def arrays(self, backend: Backend, dtype: str = "float64") -> list[dict[str, Any]]:
        return [{name: backend.array(a, dtype) for name, a in factors.items()} for _, factors in self.parts]

    def cores(self, arrays: list[dict[str, Any]]) -> list[Any]:
        return [made(kind, factors) for (kind, _), factors in zip(self.parts, arrays, strict=True)]

    def ring(self, backend: Backend, dtype: str = "float64", arrays: list[dict[str, Any]] | None = None):
        cores = self.cores(self.arrays(backend, dtype) if arrays is None else arrays)
        return rd.TensorRing(cores, backend.variables(self.case, dtype), order=self.case.order)


def made(kind: str, factors: dict[str, Any]) -> Any:
    """The core of a kind."""
    if kind == "dense":
        return factors["core"]
    return rd.CPCore(**factors) if kind == "cp" else DiagonalCore(factors["weights"])


def dense(kind: str, factors: dict[str, Any]) -> np.ndarray:
    """Q[s, a, b] of NumPy factors, from its definition."""
    if kind == "dense":
        return factors["core"]
    if kind == "diagonal":
        return factors["weights"][:, :, None] * np.eye(factors["weights"].shape[1])
    sizes = {factor.shape[0 if name == "right" else 1] for name, factor in factors.items()}
    unit = np.eye(sizes.pop())
    left, emission, right = (factors.get(name, unit) for name in FACTORS)
    return np.einsum("ac,sc,cb->sab", left, emission, right)


def make_structured(patterns, kinds, order=None, *, train=False, sparsity=0.0, seed=0, names=None) -> Structured:
    """Factors drawn from the seed, of whatever sizes let identities close around the ring.

    Args:
        patterns: per column the given factors of a CP core, or "dense", or "diagonal".
        kinds: per column the family.
    """
    rng = np.random.default_rng(seed)
    d = len(patterns)
    order = tuple(range(d)) if order is None else tuple(order)
    sizes = _Sizes(rng)
    for j, k in enumerate(order):
        left, right, hidden, component = ("bond", j), ("bond", (j + 1) % d), ("hidden", k), ("component", k)
        if patterns[k] == "diagonal":
            sizes.join(left, right)
        elif patterns[k] != "dense":
            for name, outer in zip(FACTORS, (left, component, right), strict=True):
                if name not in patterns[k]:
                    sizes.join(outer, hidden)
    if train:
        sizes.fix(("bond", 0), 1)
    parts: list[Any] = [None] * d
    for j, k in enumerate(order):
        n, m, c, m2 = (sizes.of(i) for i in (("component", k), ("bond", j), ("hidden", k), ("bond", (j + 1) % d)))
        shapes = {"core": (n, m, m2), "weights": (n, m), "left": (m, c), "emission": (n, c), "right": (c, m2)}
        wanted = {"dense": ("core",), "diagonal": ("weights",)}.get(patterns[k], patterns[k])
        factors = {}
        for name in wanted:
            array = rng.gamma(1.0, 1.0, shapes[name])
            keep = rng.random(array.shape) >= sparsity
            keep.flat[0] = True
            factors[name] = np.where(keep, array, 0.0)
        parts[k] = (patterns[k] if isinstance(patterns[k], str) else "cp", factors)
    cores = tuple(dense(*part) for part in parts)
    names = names or [None] * d
    columns = tuple(make_column(kinds[k], len(cores[k]), rng, names[k]) for k in range(d))
    text = f"make_structured({list(patterns)}, {list(kinds)}, {order}, train={train}, sparsity={sparsity}, seed={seed})"
    return Structured(Case(cores, columns, order, text, seed), tuple(parts))


class _Sizes:
    """Sizes of indices, some of which are one and the same."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.parent: dict[Any, Any] = {}
        self.size: dict[Any, int] = {}

    def root(self, i: Any) -> Any:
        while i in self.parent:
            i = self.parent[i]
        return i

    def join(self, a: Any, b: Any) -> None:
        a, b = self.root(a), self.root(b)
        if a != b:
            self.parent[a] = b

    def fix(self, i: Any, size: int) -> None:
        self.size[self.root(i)] = size

    def of(self, i: Any) -> int:
        return self.size.setdefault(self.root(i), int(self.rng.integers(2, 5)))


FAMILIES = ["gaussian", "categorical", "laplace", "poisson"]
DISCRETE = ["categorical"] * 4
FULL = FACTORS
STRUCTURED = {
    "full": make_structured([FULL] * 4, FAMILIES, [2, 0, 3, 1], seed=1, names=["height", "label", "delay", "count"]),
    "hidden Markov": make_structured([("emission", "right")] * 4, FAMILIES, [1, 3, 0, 2], seed=2),
    "reversed": make_structured([("left", "emission")] * 3, FAMILIES[:3], seed=3),
    "private": make_structured([("left", "right")] * 4, FAMILIES, [3, 1, 0, 2], seed=4),
    "left only": make_structured([("left",)] * 3, FAMILIES[:3], seed=5),
    "right only": make_structured([("right",)] * 3, FAMILIES[1:], [2, 0, 1], seed=6),
    "products": make_structured([("emission",)] * 4, FAMILIES, [0, 2, 1, 3], seed=7),
    "dense beside": make_structured(
        [FULL, "dense", ("left",), ("emission", "right")], FAMILIES, [3, 1, 2, 0], sparsity=0.2, seed=8
    ),
    "train": make_structured([FULL, ("emission", "right"), "dense", FULL], FAMILIES, train=True, seed=9),
    "one column": make_structured([FULL], ["gaussian"], seed=10),
    "diagonal": make_structured(["diagonal"] * 4, FAMILIES, [1, 0, 3, 2], seed=11),
    "diagonal beside": make_structured(
        ["dense", "diagonal", FULL, "diagonal"], FAMILIES, [2, 1, 3, 0], sparsity=0.2, seed=12
    ),
}
TABLES = {
    "full": make_structured([FULL] * 4, DISCRETE, [2, 0, 3, 1], seed=21),
    "shared components": make_structured([("left",), ("right",), FULL], DISCRETE[:3], seed=22),
    "copies": make_structured([("left",), ("right",)], DISCRETE[:2], seed=23),
    "mixed": make_structured(
        [("emission", "right"), "dense", "diagonal", ("emission",)], DISCRETE, [0, 3, 1, 2], sparsity=0.3, seed=24
    ),
    "train": make_structured([FULL, ("emission", "right"), FULL], DISCRETE[:3], train=True, seed=25),
}
