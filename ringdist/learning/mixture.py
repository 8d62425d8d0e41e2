"""Mixtures of products and the rings that represent them: starting points for learning that already have the clusters.

A mixture `p(x) = Σ_a π_a ∏_k Σ_s θ_k[a, s] p(x_k | s)` is a ring with diagonal cores, `Q_k[s, a, b] = θ_k[a, s] δ_ab`:
every bond holds the cluster. Clusters extend over all columns, so exact EM hardly finds them from random cores. From a
mixture it only has to learn where the bond changes its state.

The mixture is fitted by EM on a bounded number of rows. Every θ_k[a] has a Dirichlet prior with mean m_k, the shares of
the column's components in all rows, and with a weight of ρ_k rows. For a categorical column, ρ_k maximises the
probability of the expected counts n_k[a, s], by the fixed point of Minka (Estimating a Dirichlet distribution, 2000):

    ρ ← ρ Σ_as m_s (ψ(n_as + ρ m_s) − ψ(ρ m_s)) / Σ_a (ψ(n_a + ρ) − ψ(ρ)),  n_a = Σ_s n_as.

The prior of a column is weak if clusters differ much in it, and strong if they differ by chance only. Where components
overlap, the expected counts follow the prior, and the fixed point would diverge: there ρ_k is `PRIOR_ROWS`.

The first epochs also fit the priors, and replace clusters with hardly any rows by halves of the heaviest ones. After
that, the penalised likelihood never decreases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, like, special, to_numpy
from ringdist.cores import Core, CPCore
from ringdist.engines import budget
from ringdist.engines.budget import rows_within
from ringdist.network.layout import Layout
from ringdist.ring import TensorRing
from ringdist.variables import Variable

MOST_ROWS = 20_000  # used by a fit,
ROWS_PER_CLUSTER = 100  # or this number for each cluster if that is more
CLUSTER_ROWS = 0.1  # pseudocount of every cluster
PRIOR_ROWS = 0.1  # ρ of a column whose components overlap
LEAST_PRIOR, MOST_PRIOR = 0.05, 1e4  # bounds of ρ in other columns
SMALL = 0.1  # share of the mean number of rows in a cluster, below which it is replaced
NOISE = 0.5  # standard deviation of log θ between the halves of a cluster that is split
SPLIT_EPOCHS, PRIOR_EPOCHS = 5, 10  # the first epochs: those that replace clusters, and those that fit priors
TOLERANCE = 2e-4  # least gain of an epoch, as a share of the total gain, for another epoch to follow
MAX_EPOCHS = 100
FACTORS = 8  # columns that are multiplied before the logarithm is taken: few enough not to underflow


class Mixture(NamedTuple):
    """Weights of K products of columns, and for every column the weights of its components in each of them."""

    weights: np.ndarray  # (K,)
    tables: list[np.ndarray]  # for every column (K, N_k), rows sum to 1


def fit_mixture(
    x: np.ndarray,
    variables: Sequence[Variable],
    size: int,
    rng: np.random.Generator,
    columns: Sequence[Sequence[int]] | None = None,
    emphasis: Sequence[float] | None = None,
) -> Mixture:
    """Fit the weights and tables by EM, with the variables' own parameters fixed; NaN in x (n, d) is marginalised.

    Each cluster starts half-way between the columns' marginals and a randomly chosen row.

    Args:
        columns: the columns of x that each variable covers; by default they follow each other.
        emphasis: how many times each variable counts when rows are assigned to clusters; once by default.
    """
    most = max(MOST_ROWS, ROWS_PER_CLUSTER * size)
    if len(x) > most:
        x = x[np.sort(rng.choice(len(x), most, replace=False))]
    x, count = distinct_rows(x)
    columns = Layout(variables, columns).columns
    densities = [component_densities(x[:, list(own)], v) for own, v in zip(columns, variables, strict=True)]
    rows = DistinctRows(densities, count, emphasis)
    weights, table = rows.start(size, rng)
    prior = np.where(rows.overlapping, PRIOR_ROWS, 1.0)
    first = value = -np.inf
    for epoch in range(MAX_EPOCHS):
        previous = value
        value, sizes, counts = rows.expected_counts(weights, table)
        if epoch == 0:
            first = value
        if epoch < PRIOR_EPOCHS:
            prior = rows.fitted_prior(prior, counts)
        elif value - previous < TOLERANCE * (value - first):
            break
        weights, table = (sizes + CLUSTER_ROWS) / (sizes + CLUSTER_ROWS).sum(), rows.shrunk(prior, counts)
        if epoch < SPLIT_EPOCHS:
            weights, table = rows.without_small_clusters(sizes, weights, table, rng)
    return Mixture(weights, np.split(table, rows.starts[1:], axis=1))


class DistinctRows:
    """The component densities of distinct rows, the number of times each row occurs, and the steps of EM.

    The tables of all columns are concatenated to one, (K, L). In a *hard* column every observed entry selects one
    component, as categories do, so `log Σ_s θ[a, s] p(x | s)` is linear in `log θ`. All hard columns together are one
    matrix product. In a hard column without missing entries, log θ is relative to its first component, which saves one
    column of the matrix. The other columns are *soft*.
    """

    def __init__(self, densities: Sequence[np.ndarray], count: np.ndarray, emphasis: Sequence[float] | None = None):
        self.densities, self.count = densities, count
        self.emphasis = np.ones(len(densities)) if emphasis is None else np.asarray(emphasis, dtype=np.float64)
        shares = [component_shares(density, count) for density in densities]
        self.share = np.concatenate(shares)  # (L,)
        self.num_components = np.array([share.size for share in shares])
        self.starts = np.cumsum(self.num_components) - self.num_components
        self.soft: list[tuple[slice, np.ndarray, np.ndarray]] = []  # entries of L, density, rows that observe it
        self.soft_emphasis: list[float] = []
        selected: list[np.ndarray] = []
        entries: list[np.ndarray] = []
        relative: list[np.ndarray] = []  # to the first component of the column, or to entry L, whose log θ is 0
        bases: list[int] = []
        for start, density, times in zip(self.starts.tolist(), densities, self.emphasis.tolist(), strict=True):
            own = np.arange(start, start + density.shape[1])
            observed = density.min(axis=1) < 1  # all densities of a missing entry are 1
            if density.shape[1] == 1 or not np.array_equal(np.count_nonzero(density, axis=1) == 1, observed):
                self.soft.append((slice(start, start + own.size), density, observed | (own.size == 1)))
                self.soft_emphasis.append(times)
                continue
            complete = bool(observed.all())
            selected.append((density * observed[:, None])[:, int(complete) :])
            entries.append(own[int(complete) :])
            relative.append(np.full(entries[-1].size, start if complete else self.share.size))
            bases += [start] * complete
        self.selected = np.concatenate([np.zeros((len(count), 0), np.float32), *selected], axis=1)  # (n, H)
        self.entries = np.concatenate([np.zeros(0, np.int64), *entries])  # (H,) the column of `table` for each of H
        self.relative = np.concatenate([np.zeros(0, np.int64), *relative])  # (H,)
        self.bases = np.array(bases, dtype=np.int64)  # the first components of complete hard columns
        self.overlapping = np.isin(self.starts, [own.start for own, _, _ in self.soft])  # (d,)

    def start(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Equal weights (K,), and a table (K, L) half-way between the columns' marginals and one row per cluster.

        Where there are more clusters than distinct rows, every row has at least one.
        """
        number, probability = len(self.count), self.count / self.count.sum()
        if size <= number:
            rows = rng.choice(number, size, replace=False, p=probability)
        else:
            rows = np.append(np.arange(number), rng.choice(number, size - number, p=probability))
        posterior = self.share * np.concatenate([density[rows] for density in self.densities], axis=1)
        return np.full(size, 1 / size), (self.share + posterior / self._sums(posterior)) / 2

    def _sums(self, table: np.ndarray) -> np.ndarray:
        """The sum over the components of a column, repeated for each of them, (..., L)."""
        return np.repeat(np.add.reduceat(table, self.starts, axis=-1), self.num_components, axis=-1)

    def expected_counts(self, weights: np.ndarray, table: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean log-likelihood up to a constant, and the expected counts of clusters (K,) and of components (K, L)."""
        total, sizes, counts = 0.0, np.zeros(weights.size), np.zeros(table.shape)
        selected = np.zeros((weights.size, self.selected.shape[1]))
        times = np.append(np.repeat(self.emphasis, self.num_components), 1.0)
        logs = times * np.log(np.pad(table, ((0, 0), (0, 1)), constant_values=1.0))
        factors = (logs[:, self.entries] - logs[:, self.relative]).T.astype(np.float32)
        offset = (np.log(weights) + logs[:, self.bases].sum(axis=1)).astype(np.float32)
        step = rows_within(budget.CACHED, weights.size * (1 + len(self.soft)))
        for start in range(0, len(self.count), step):
            rows = slice(start, start + step)
            mixed = [density[rows] @ table[:, own].T.astype(np.float32) for own, density, _ in self.soft]  # (rows, K)
            joint = self.selected[rows] @ factors + offset
            pairs = zip(mixed, self.soft_emphasis, strict=True)
            powers = [mix if power == 1 else mix.astype(np.float64) ** power for mix, power in pairs]
            for i in range(0, len(powers), FACTORS):
                joint += np.log(np.prod(powers[i : i + FACTORS], axis=0, dtype=np.float64))
            peak = joint.max(axis=1, keepdims=True)
            posterior = np.exp(joint - peak)
            mass = posterior.sum(axis=1, keepdims=True)
            total += float(self.count[rows] @ (peak + np.log(mass))[:, 0])
            posterior *= self.count[rows, None].astype(np.float32) / mass
            sizes += posterior.sum(axis=0, dtype=np.float64)
            selected += posterior.T @ self.selected[rows]
            for mix, (own, density, observed) in zip(mixed, self.soft, strict=True):
                ratio = posterior / mix * observed[rows, None]
                counts[:, own] += table[:, own] * (ratio.T @ density[rows])
        counts[:, self.entries] = selected
        others = self._sums(counts)[:, self.bases]
        counts[:, self.bases] = np.maximum(sizes[:, None] - others, 0.0)  # negative by rounding only
        return total / float(self.count.sum()), sizes, counts

    def fitted_prior(self, prior: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """One step of the fixed point for the weight ρ of each column's prior, (d,)."""
        mean = np.repeat(prior, self.num_components) * self.share
        terms = self.share * (special("digamma", counts + mean) - special("digamma", mean))
        gain = np.add.reduceat(terms, self.starts, axis=1).sum(axis=0)
        observed = np.add.reduceat(counts, self.starts, axis=1)
        cost = (special("digamma", observed + prior) - special("digamma", prior)).sum(axis=0)
        fitted = prior * np.divide(gain, cost, out=np.ones_like(prior), where=cost > 0)
        return np.where(self.overlapping, prior, np.clip(fitted, LEAST_PRIOR, MOST_PRIOR))

    def shrunk(self, prior: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The posterior mode of the table (K, L), between the expected counts and the column's shares."""
        table = counts + np.repeat(prior, self.num_components) * self.share
        return table / self._sums(table)

    def without_small_clusters(
        self, sizes: np.ndarray, weights: np.ndarray, table: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Replace each cluster with hardly any rows by one half of the heaviest cluster; both halves are perturbed."""
        weights, table = weights.copy(), table.copy()
        for small in np.flatnonzero(sizes < SMALL * sizes.mean()).tolist():
            heaviest = int(np.argmax(weights))
            weights[[small, heaviest]] = (weights[small] + weights[heaviest]) / 2
            change = np.exp(NOISE * rng.standard_normal(table.shape[1]))
            halves = table[heaviest] * np.stack([change, 1 / change])
            table[[small, heaviest]] = halves / self._sums(halves)
        return weights, table


def distinct_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of x (n, d) in the order of their first occurrence, and the number of times each occurs.

    NaN is equal to NaN.
    """
    x = np.where(np.isnan(x), np.nan, x.astype(np.float64) + 0.0)  # one bit pattern for NaN, and one for zero
    keys = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1])))[:, 0]
    _, first, count = np.unique(keys, return_index=True, return_counts=True)
    order = np.argsort(first)  # np.unique sorts by bytes, which a change of units changes
    return x[first[order]], count[order].astype(np.float64)


def cores_near(mixture: Mixture, ring: TensorRing, spread: float) -> list[Any]:
    """Cores near those of a mixture: a share `spread` of their mass is that of a random ring's cores.

    The first core holds the weights of the mixture. For a train, the first and the last core are summed over the
    bond that closes the ring.
    """
    first, last = ring.order[0], ring.order[-1]
    identity = np.eye(len(mixture.weights))
    cores: list[Any] = []
    for k, table in enumerate(mixture.tables):
        left = mixture.weights[:, None] * identity if k == first else None
        if left is not None and ring.is_train:
            left = left.sum(axis=0, keepdims=True)
        right = (1 - spread) * (identity.sum(axis=1, keepdims=True) if ring.is_train and k == last else identity)
        core = ring.links[k]
        near: Any = _cp_core if isinstance(core, CPCore) else _dense_core
        cores.append(near(core, left, table.T, right, spread))
    return cores


def _cp_core(core: CPCore, left: np.ndarray | None, emission: np.ndarray, right: np.ndarray, spread: float) -> CPCore:
    random: Array = core.right
    mixed = like(right, random) + spread * random
    return CPCore(None if left is None else like(left, mixed), like(np.ascontiguousarray(emission), mixed), mixed)


def _dense_core(core: Core, left: np.ndarray | None, emission: np.ndarray, right: np.ndarray, spread: float) -> Array:
    random = spread * core.shape[0] * to_numpy(core.dense())  # sums to `spread` over the right bond, on average
    dense = emission[:, :, None] * (right + random)
    return like(dense if left is None else left @ dense, core.dense())


def component_densities(block: np.ndarray, variable: Variable) -> np.ndarray:
    """p(x_k | s) of rows (n, width) divided by the largest of each row, (n, N) in float32; 1 where x is missing."""
    block = block.astype(np.float64)
    missing = np.isnan(block).all(axis=1)
    if block.shape[1] == 1:
        column = block[:, 0]
        block = np.where(missing, column[~missing][0] if not missing.all() else 0.0, column)
    logs = np.asarray(variable.log_density(block))
    logs = np.where(missing[:, None], 0.0, logs - logs.max(axis=1, keepdims=True))
    return np.exp(logs).astype(np.float32)


def component_shares(density: np.ndarray, count: np.ndarray | None = None) -> np.ndarray:
    """The share of the rows for which each component is responsible under equal weights, (N,), smoothed to be positive.

    Args:
        density: (n, N) of `component_densities`.
        count: (n,) number of times each row occurs; None: once.
    """
    responsibility = density / density.sum(axis=1, keepdims=True)
    if count is None:
        share = responsibility.sum(axis=0, dtype=np.float64) + 1
    else:
        share = count @ responsibility + 1
    return share / share.sum()
