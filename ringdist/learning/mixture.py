"""Mixtures of products, and the rings that they are: a start for learning that already knows the clusters.

A mixture `p(x) = Σ_a π_a ∏_k Σ_s θ_k[a, s] p(x_k | s)` is a ring whose cores are diagonal, its cluster on every bond:
`Q_k[s, a, b] = θ_k[a, s] δ_ab`. Clusters reach across all columns, which exact EM hardly finds in random cores; from a
mixture it only has to learn where the bond changes its state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, like, to_numpy
from ringdist.cores import Core, CPCore
from ringdist.engines import budget
from ringdist.engines.budget import rows_within
from ringdist.ring import TensorRing
from ringdist.variables import Variable

PRIOR_ROWS = 0.1  # of each column in every cluster, in the column's own shares: no component is ruled out
TOLERANCE = 2e-4  # nats per row: what an epoch has to gain for another one
MAX_EPOCHS = 200
FACTORS = 8  # columns multiplied before the logarithm is taken, none of them below the dtype's smallest number


class Mixture(NamedTuple):
    """Weights of K products, and per column the weights of its components in each of them."""

    weights: np.ndarray  # (K,)
    tables: list[np.ndarray]  # per column (K, N_k), rows sum to 1


def fit_mixture(x: np.ndarray, variables: Sequence[Variable], size: int, rng: np.random.Generator) -> Mixture:
    """EM for the weights and tables, the variables' own parameters fixed; NaN in x (n, d) is marginalised.

    Each cluster starts between the columns' marginals and a randomly chosen row.
    """
    densities = [component_densities(x[:, k], variable) for k, variable in enumerate(variables)]
    shares = [component_shares(density) for density in densities]
    chosen = rng.choice(len(x), size, replace=size > len(x))
    tables = []
    for density, share in zip(densities, shares, strict=True):
        posterior = share * density[chosen]
        tables.append(0.7 * share + 0.3 * posterior / posterior.sum(axis=1, keepdims=True))
    mixture, value = Mixture(np.full(size, 1 / size), tables), -np.inf
    rows = Rows(densities)
    for _ in range(MAX_EPOCHS):
        previous = value
        value, counts = rows.expected_counts(mixture)
        weights = counts.weights + PRIOR_ROWS
        tables = [table + PRIOR_ROWS * share for table, share in zip(counts.tables, shares, strict=True)]
        mixture = Mixture(weights / weights.sum(), [table / table.sum(axis=1, keepdims=True) for table in tables])
        if value - previous < TOLERANCE:
            break
    return mixture


class Rows:
    """The rows of a table by their component densities.

    Where every entry selects one component, as categories do, `log Σ_s θ[a, s] p(x | s)` is linear in `log θ`: those
    columns stand side by side in one matrix, and all of them are one product.
    """

    def __init__(self, densities: Sequence[np.ndarray]):
        self.n = len(densities[0])
        self.selecting, self.soft = [], []
        selections = []
        for k, density in enumerate(densities):
            observed = density.min(axis=1) < 1  # in a row of a missing entry all are 1
            if density.shape[1] > 1 and np.array_equal(np.count_nonzero(density, axis=1) == 1, observed):
                self.selecting.append(k)
                selections.append(density * observed[:, None])
            else:
                self.soft.append((k, density))
        self.ends = np.cumsum([selection.shape[1] for selection in selections])
        self.selections = np.concatenate([np.zeros((self.n, 0), np.float32), *selections], axis=1)

    def expected_counts(self, mixture: Mixture) -> tuple[float, Mixture]:
        """Mean log-likelihood (up to a constant), and how often each cluster is expected, and in it each component."""
        size = len(mixture.weights)
        total, weights = 0.0, np.zeros(size)
        selected = np.zeros((size, self.selections.shape[1]))
        counts = [np.zeros(table.shape) for table in mixture.tables]
        logs = np.concatenate([np.zeros((size, 0)), *(np.log(mixture.tables[k]) for k in self.selecting)], axis=1)
        step = rows_within(budget.TEMPORARY, size * (1 + len(self.soft)))
        for start in range(0, self.n, step):
            rows = slice(start, start + step)
            mixed = [density[rows] @ mixture.tables[k].T.astype(np.float32) for k, density in self.soft]  # (rows, K)
            joint = np.log(mixture.weights) + self.selections[rows] @ logs.T.astype(np.float32)
            for first in range(0, len(mixed), FACTORS):
                joint += np.log(np.prod(mixed[first : first + FACTORS], axis=0, dtype=np.float64))
            peak = joint.max(axis=1, keepdims=True)
            posterior = np.exp(joint - peak)
            mass = posterior.sum(axis=1, keepdims=True)
            total += float(np.sum(peak + np.log(mass)))
            posterior = (posterior / mass).astype(np.float32)
            weights += posterior.sum(axis=0, dtype=np.float64)
            selected += posterior.T @ self.selections[rows]
            for mix, (k, density) in zip(mixed, self.soft, strict=True):
                counts[k] += mixture.tables[k] * ((posterior / mix).T @ density[rows])
        for k, count in zip(self.selecting, np.split(selected, self.ends, axis=1)[:-1], strict=True):
            counts[k] = count
        return total / self.n, Mixture(weights, counts)


def cores_near(mixture: Mixture, ring: TensorRing, spread: float) -> list[Any]:
    """Cores like those of a random ring, a share `spread` of their mass as in that ring and the rest the mixture's.

    The first core holds the weights; a train's first and last core are summed over the bond that it lacks.
    """
    first, last = ring.order[0], ring.order[-1]
    stay = np.eye(len(mixture.weights))
    cores: list[Any] = []
    for k, table in enumerate(mixture.tables):
        opened, closed = ring.is_train and k == first, ring.is_train and k == last
        before = mixture.weights[:, None] * stay if k == first else stay
        before = before.sum(axis=0, keepdims=True) if opened else before
        behind = (1 - spread) * (stay.sum(axis=1, keepdims=True) if closed else stay)
        core, opening = ring.links[k], before if k == first else None
        near: Any = _cp_core if isinstance(core, CPCore) else _dense_core
        cores.append(near(core, opening, table.T, behind, spread))
    return cores


def _cp_core(
    core: CPCore, before: np.ndarray | None, emission: np.ndarray, behind: np.ndarray, spread: float
) -> CPCore:
    right: Array = core.right
    right = like(behind, right) + spread * right
    return CPCore(None if before is None else like(before, right), like(np.ascontiguousarray(emission), right), right)


def _dense_core(
    core: Core, before: np.ndarray | None, emission: np.ndarray, behind: np.ndarray, spread: float
) -> Array:
    change = spread * core.shape[0] * to_numpy(core.dense())  # sums to `spread` over the right bond, on average
    dense = emission[:, :, None] * (behind + change)
    return like(dense if before is None else before @ dense, core.dense())


def component_densities(column: np.ndarray, variable: Variable) -> np.ndarray:
    """p(x_k | s) with the largest of each row at 1, (n, N) in float32; all 1 for missing entries."""
    column = column.astype(np.float64)
    missing = np.isnan(column)
    filled = np.where(missing, column[~missing][0] if not missing.all() else 0.0, column)
    logs = np.asarray(variable.log_density(filled))
    logs = np.where(missing[:, None], 0.0, logs - logs.max(axis=1, keepdims=True))
    return np.exp(logs).astype(np.float32)


def component_shares(density: np.ndarray) -> np.ndarray:
    """How much of the column each component answers for under equal weights, none of it zero."""
    share = (density / density.sum(axis=1, keepdims=True)).sum(axis=0, dtype=np.float64) + 1
    return share / share.sum()
