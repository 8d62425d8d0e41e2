"""Tensor rings by enumeration: every quantity from the table of all component configurations, in plain NumPy.

Nothing here imports ringdist. A ``Case`` holds what a ring is made of; the functions below walk through
``P̂[s] = Tr ∏ Q_k[s_k]`` for all ``s`` and sum, so they are slow, short and hard to get wrong.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import stats

KINDS = ("categorical", "gaussian", "poisson", "laplace")
DISCRETE = ("categorical", "poisson")


# ---------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True, eq=False)
class Column:
    """One column: its family, its number of components and the parameters of each."""

    kind: str
    num_components: int
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    name: str | None = None

    @property
    def frozen(self):
        """The components as one broadcasting scipy distribution, a component on the last axis."""
        p = self.parameters
        if self.kind == "gaussian":
            return stats.norm(p["means"], p["stds"])
        if self.kind == "laplace":
            return stats.laplace(p["locations"], p["scales"])
        return stats.poisson(p["rates"])

    def density(self, x: np.ndarray) -> np.ndarray:
        """p(x | s): (...) -> (..., N); ones where x is NaN."""
        x = np.asarray(x, dtype=np.float64)[..., None]
        filled = np.where(np.isnan(x), 0.0, x)
        if self.kind == "categorical":
            values = (filled == np.arange(self.num_components)).astype(np.float64)
        elif self.kind == "poisson":
            values = self.frozen.pmf(filled)
        else:
            values = self.frozen.pdf(filled)
        return np.where(np.isnan(x), 1.0, values)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """F(x | s): (...) -> (..., N)."""
        x = np.asarray(x, dtype=np.float64)[..., None]
        if self.kind == "categorical":
            return (np.arange(self.num_components) <= x).astype(np.float64)
        return self.frozen.cdf(x)

    def means(self) -> np.ndarray:
        if self.kind == "categorical":
            return np.arange(self.num_components, dtype=np.float64)
        return np.asarray(self.frozen.mean(), dtype=np.float64)

    def variances(self) -> np.ndarray:
        if self.kind == "categorical":
            return np.zeros(self.num_components)
        return np.asarray(self.frozen.var(), dtype=np.float64)

    def inner(self, other: Column) -> np.ndarray:
        """Σ_x or ∫ p(x | s) q(x | t) dx: (N, N'), by summation or quadrature."""
        if self.kind == "categorical":
            return np.eye(self.num_components, other.num_components)
        if self.kind == "poisson":
            grid, weight = np.arange(400.0), 1.0
        else:  # quadrature that puts knots on every location, where Laplace densities have their kink
            locations = np.concatenate([self.means(), other.means()])
            scales = np.sqrt(np.concatenate([self.variances(), other.variances()]))
            grid, weight = _panels(locations, scales)
        return np.einsum("xs,xt,x->st", self.density(grid), other.density(grid), np.broadcast_to(weight, grid.shape))

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n plausible points, every value of a discrete column among them."""
        if self.kind == "categorical":
            return rng.integers(0, self.num_components, n).astype(np.float64)
        component = rng.integers(0, self.num_components, n)
        spread = np.sqrt(self.variances())[component]
        points = self.means()[component] + spread * rng.standard_normal(n)
        return np.maximum(np.round(points), 0.0) if self.kind == "poisson" else points


def _panels(locations: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on panels between locations and far beyond them."""
    reach = 40 * scales.max()
    edges = np.unique(np.concatenate([locations, np.linspace(locations.min() - reach, locations.max() + reach, 800)]))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


# ------------------------------------------------------------------------------------------------ cases


@dataclass(frozen=True, eq=False)
class Case:
    """What a ring is made of, in NumPy: ``cores[k]`` and ``columns[k]`` belong to column k."""

    cores: tuple[np.ndarray, ...]
    columns: tuple[Column, ...]
    order: tuple[int, ...]
    text: str = "Case(...)"
    seed: int = 0

    def __repr__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer, cycle) -> None:
        """What hypothesis prints of a failing case: the call that makes it."""
        printer.text(self.text)

    @property
    def d(self) -> int:
        return len(self.cores)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(core.shape[0] for core in self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(self.cores[k].shape[1] for k in self.order)

    @property
    def discrete(self) -> bool:
        return all(column.kind in DISCRETE for column in self.columns)

    @cached_property
    def joint(self) -> np.ndarray:
        """P̂[s] for every configuration s of the components: axis k is column k."""
        table = np.empty(self.shape)
        for s in itertools.product(*map(range, self.shape)):
            product = np.eye(self.ranks[0])
            for k in self.order:
                product = product @ self.cores[k][s[k]]
            table[s] = np.trace(product)
        return table

    def rows(self, n: int, missing: float = 0.4) -> np.ndarray:
        """n rows with plausible points, each entry NaN with the given probability; repeatable."""
        rng = np.random.default_rng(self.seed + 1)
        x = np.stack([column.draw(n, rng) for column in self.columns], axis=-1)
        x[rng.random(x.shape) < missing] = np.nan
        return x

    def possible_rows(self, n: int, missing: float = 0.4) -> np.ndarray:
        """Rows of positive mass only; the first is wholly missing, so there is always one."""
        x = np.concatenate([np.full((1, self.d), np.nan), self.rows(4 * n, missing)])
        return x[mass(self, x) > 0][:n]


def make_case(kinds, shape, ranks, order, sparsity=0.0, seed=0, names=None) -> Case:
    """A case with cores drawn from the seed; some closed path always keeps a positive mass."""
    text = f"make_case({list(kinds)}, {list(shape)}, {list(ranks)}, {list(order)}, sparsity={sparsity}, seed={seed})"
    rng = np.random.default_rng(seed)
    d = len(kinds)
    cores: list[np.ndarray] = [np.empty(0)] * d
    for j, k in enumerate(order):
        core = rng.gamma(1.0, 1.0, (shape[k], ranks[j], ranks[(j + 1) % d]))
        keep = rng.random(core.shape) >= sparsity
        keep[rng.integers(shape[k]), 0, 0] = True  # the path of bonds 0, 0, …, 0 stays open
        cores[k] = np.where(keep, core, 0.0)
    names = names or [None] * d
    columns = tuple(make_column(kind, size, rng, name) for kind, size, name in zip(kinds, shape, names, strict=True))
    return Case(tuple(cores), columns, tuple(order), text, seed)


def make_column(kind: str, size: int, rng: np.random.Generator, name: str | None = None) -> Column:
    if kind == "categorical":
        return Column(kind, size, {}, name)
    if kind == "gaussian":
        return Column(kind, size, {"means": rng.normal(0, 2, size), "stds": rng.uniform(0.3, 1.5, size)}, name)
    if kind == "laplace":
        return Column(kind, size, {"locations": rng.normal(0, 2, size), "scales": rng.uniform(0.3, 1.5, size)}, name)
    return Column(kind, size, {"rates": rng.uniform(0.3, 6.0, size)}, name)


# A mixed and a discrete ring that every test over rings meets, whatever hypothesis draws, and a train.
MIXED = make_case(
    ["categorical", "gaussian", "poisson", "laplace"],
    [3, 2, 4, 3],
    [3, 2, 4, 3],
    [2, 0, 3, 1],
    seed=1,
    names=["label", "height", "count", "delay"],
)
TABLE = make_case(["categorical"] * 4, [3, 2, 4, 2], [2, 4, 3, 3], [1, 3, 0, 2], sparsity=0.3, seed=2)
TRAIN = make_case(["categorical", "gaussian", "categorical"], [2, 3, 4], [1, 3, 2], [0, 1, 2], seed=3)


# --------------------------------------------------------------------------------------------- quantities


def component_mass(case: Case, x: np.ndarray, keep: tuple[int, ...] = ()) -> np.ndarray:
    """Σ_s P̂[s] ∏_k p(x_k | s_k) over all configurations, the axes of ``keep`` left open: (n, N_keep…)."""
    x = np.atleast_2d(x)
    operands: list = [case.joint, list(range(case.d))]
    for k, column in enumerate(case.columns):
        operands += [column.density(x[:, k]), [case.d, k]]
    return np.einsum(*operands, [case.d, *keep], optimize=True)


def mass(case: Case, x: np.ndarray) -> np.ndarray:
    """The unnormalised density of each row: (..., d) -> (...)."""
    x = np.asarray(x, dtype=np.float64)
    return component_mass(case, x.reshape(-1, case.d)).reshape(x.shape[:-1])


def log_prob(case: Case, x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(mass(case, x)) - np.log(case.joint.sum())


def posterior(case: Case, k: int, x: np.ndarray) -> np.ndarray:
    """p(s_k | the row): (n, d) -> (n, N_k)."""
    weights = component_mass(case, x, (k,))
    return weights / weights.sum(-1, keepdims=True)


def without(x: np.ndarray, k: int) -> np.ndarray:
    """The rows with column k taken as missing."""
    x = np.array(x, dtype=np.float64)
    x[..., k] = np.nan
    return x


def cdf(case: Case, k: int, x: np.ndarray) -> np.ndarray:
    """P(column k <= x_k | the other observed entries): (n, d) -> (n,)."""
    return (posterior(case, k, without(x, k)) * case.columns[k].cdf(x[..., k])).sum(-1)


def mean(case: Case, x: np.ndarray) -> np.ndarray:
    """E[column | observed], observed entries as they are: (n, d) -> (n, d)."""
    filled = np.array(x, dtype=np.float64)
    for k, column in enumerate(case.columns):
        missing = np.isnan(filled[:, k])
        filled[missing, k] = (posterior(case, k, x) @ column.means())[missing]
    return filled


def covariance(case: Case) -> np.ndarray:
    """Of the columns under the whole distribution: (d, d)."""
    p = case.joint / case.joint.sum()
    result = np.empty((case.d, case.d))
    centre = [_margin(p, (k,)) @ column.means() for k, column in enumerate(case.columns)]
    for i, j in itertools.product(range(case.d), repeat=2):
        if i == j:
            second = case.columns[i].variances() + (case.columns[i].means() - centre[i]) ** 2
            result[i, i] = _margin(p, (i,)) @ second
        else:
            a, b = case.columns[i].means() - centre[i], case.columns[j].means() - centre[j]
            result[i, j] = a @ _margin(p, (i, j)) @ b
    return result


def _margin(table: np.ndarray, keep: tuple[int, ...]) -> np.ndarray:
    return np.einsum(table, list(range(table.ndim)), list(keep))


def mutual_information(case: Case) -> np.ndarray:
    """Of the component variables, in nats; the diagonal is their entropy: (d, d)."""
    p = case.joint / case.joint.sum()
    result = np.empty((case.d, case.d))
    for i, j in itertools.product(range(case.d), repeat=2):
        if i == j:
            result[i, i] = stats.entropy(_margin(p, (i,)))
        else:
            pair = _margin(p, (i, j))
            independent = np.outer(pair.sum(1), pair.sum(0))
            seen = pair > 0
            result[i, j] = (pair[seen] * np.log(pair[seen] / independent[seen])).sum()
    return result


def inner(p: Case, q: Case) -> float:
    """Σ or ∫ p q over all pairs of configurations."""
    value = p.joint / p.joint.sum()
    for a, b in zip(p.columns, q.columns, strict=True):  # the first axis is always the next column of p
        value = np.tensordot(value, a.inner(b), axes=(0, 0))
    return float((value * q.joint).sum() / q.joint.sum())


# -------------------------------------------------------------------------------------------- statistics


def chi_square(observed: np.ndarray, probabilities: np.ndarray) -> float:
    """p-value of counts against all cell probabilities; cells expecting fewer than 5 are pooled.

    A count in a cell of probability zero has p-value 0. Where one outcome has all probability, the others' counts are
    all there is to test.

    Raises:
        ValueError: if no counts at all could make the p-value small.
    """
    observed, probabilities = np.ravel(observed), np.ravel(probabilities)
    if observed.sum() == 0 or len(probabilities) < 2:
        raise ValueError(f"nothing to test: {observed.sum()} counts in {len(probabilities)} cells")
    if observed[probabilities == 0].any():
        return 0.0
    expected = observed.sum() * probabilities / probabilities.sum()
    rare = expected < 5
    cells = np.append(observed[~rare], observed[rare].sum())
    means = np.append(expected[~rare], expected[rare].sum())
    cells, means = cells[means > 0], means[means > 0]
    if len(cells) > 1:
        return float(stats.chisquare(cells, means).pvalue)
    if np.count_nonzero(probabilities) > 1:
        raise ValueError(f"{observed.sum()} counts are too few: their {len(probabilities)} cells are pooled into one")
    return 1.0


def counts(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How often each configuration occurs among rows of categories."""
    table = np.zeros(shape, dtype=np.int64)
    np.add.at(table, tuple(np.asarray(x).astype(np.int64).T), 1)
    return table


def configurations(shape: tuple[int, ...]) -> np.ndarray:
    """All rows of categories: (∏ N_k, d)."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape)).astype(np.float64)
