"""Mixtures of products, and the rings that they are: a start for learning that already knows the clusters.

A mixture `p(x) = Σ_a π_a ∏_k Σ_s θ_k[a, s] p(x_k | s)` is a ring whose cores are diagonal, its cluster on every bond:
`Q_k[s, a, b] = θ_k[a, s] δ_ab`. Clusters reach across all columns, which exact EM hardly finds in random cores; from a
mixture it only has to learn where the bond changes its state.

The mixture is fitted by EM on a bounded number of rows. Every θ_k[a] has a Dirichlet prior of mean m_k, the shares of
the column's components in all rows, and of the weight of ρ_k rows. Of a categorical column, ρ_k maximises the
probability of the expected counts n_k[a, s], by the fixed point of Minka (Estimating a Dirichlet distribution, 2000):

    ρ ← ρ Σ_as m_s (ψ(n_as + ρ m_s) − ψ(ρ m_s)) / Σ_a (ψ(n_a + ρ) − ψ(ρ)),  n_a = Σ_s n_as.

Where clusters differ much in a column, its prior is light; where they differ by chance, it is heavy. Where components
overlap, counts are guesses that follow the prior, and the fixed point would run away: ρ_k stays `PRIOR_ROWS`.

Priors are fitted in the first epochs, in which also clusters that hold hardly a row become halves of the heaviest
ones. Then the penalised likelihood never falls.
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

MOST_ROWS = 20_000  # learnt from, or
ROWS_PER_CLUSTER = 100  # as many times the clusters, where that is more
CLUSTER_ROWS = 0.1  # of every cluster's weight, beside the expected ones
PRIOR_ROWS = 0.1  # ρ of a column whose components overlap
LEAST_PRIOR, MOST_PRIOR = 0.05, 1e4  # ρ of other columns
SMALL = 0.1  # of the mean cluster: what holds less is split off the heaviest
NOISE = 0.5  # standard deviation of log θ between the halves of a cluster that is split
SPLITTING, EARLY = 5, 10  # the first epochs, which split clusters, and those that fit priors
TOLERANCE = 2e-4  # of all that was gained: what an epoch has to gain for another one
MAX_EPOCHS = 100
FACTORS = 8  # columns multiplied before the logarithm is taken, none of them below the dtype's smallest number


class Mixture(NamedTuple):
    """Weights of K products, and per column the weights of its components in each of them."""

    weights: np.ndarray  # (K,)
    tables: list[np.ndarray]  # per column (K, N_k), rows sum to 1


def fit_mixture(
    x: np.ndarray,
    variables: Sequence[Variable],
    size: int,
    rng: np.random.Generator,
    columns: Sequence[Sequence[int]] | None = None,
    emphasis: Sequence[float] | None = None,
) -> Mixture:
    """EM for the weights and tables, the variables' own parameters fixed; NaN in x (n, d) is marginalised.

    Each cluster starts half-way between the columns' marginals and a randomly chosen row.

    Args:
        columns: of x, those of every variable; by default they follow each other.
        emphasis: how many times each variable counts when rows are assigned to clusters; once by default.
    """
    most = max(MOST_ROWS, ROWS_PER_CLUSTER * size)
    if len(x) > most:
        x = x[np.sort(rng.choice(len(x), most, replace=False))]
    x, count = distinct_rows(x)
    columns = Layout(variables, columns).columns
    rows = Rows(
        [component_densities(x[:, list(own)], v) for own, v in zip(columns, variables, strict=True)], count, emphasis
    )
    weights, table = rows.start(size, rng)
    prior = np.where(rows.overlapping, PRIOR_ROWS, 1.0)
    first = value = -np.inf
    for epoch in range(MAX_EPOCHS):
        previous = value
        value, held, counts = rows.expected_counts(weights, table)
        if epoch == 0:
            first = value
        if epoch < EARLY:
            prior = rows.fitted_prior(prior, counts)
        elif value - previous < TOLERANCE * (value - first):
            break
        weights, table = (held + CLUSTER_ROWS) / (held + CLUSTER_ROWS).sum(), rows.shrunk(prior, counts)
        if epoch < SPLITTING:
            weights, table = rows.without_small_clusters(held, weights, table, rng)
    return Mixture(weights, np.split(table, rows.starts[1:], axis=1))


class Rows:
    """Distinct rows of a table by their component densities, how often each occurs, and the steps of EM on them.

    The tables of all columns stand side by side in one, (K, L). Where every entry selects one component, as categories
    do, `log Σ_s θ[a, s] p(x | s)` is linear in `log θ`: those columns stand side by side in one matrix, each relative
    to its first component where no entry is missing, and all of them are one product.
    """

    def __init__(self, densities: Sequence[np.ndarray], count: np.ndarray, emphasis: Sequence[float] | None = None):
        self.densities, self.count = densities, count
        self.emphasis = np.ones(len(densities)) if emphasis is None else np.asarray(emphasis, dtype=np.float64)
        shares = [component_shares(density, count) for density in densities]
        self.share = np.concatenate(shares)  # (L,)
        self.sizes = np.array([share.size for share in shares])
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.soft: list[tuple[slice, np.ndarray, np.ndarray]] = []  # place, density, rows that observe the column
        self.soft_emphasis: list[float] = []
        chosen: list[np.ndarray] = []
        places: list[np.ndarray] = []
        relative: list[np.ndarray] = []  # the first component of the column, or L: log θ is 0
        bases: list[int] = []
        for start, density, times in zip(self.starts.tolist(), densities, self.emphasis.tolist(), strict=True):
            own = np.arange(start, start + density.shape[1])
            observed = density.min(axis=1) < 1  # in a row of a missing entry all are 1
            if density.shape[1] == 1 or not np.array_equal(np.count_nonzero(density, axis=1) == 1, observed):
                self.soft.append((slice(start, start + own.size), density, observed | (own.size == 1)))
                self.soft_emphasis.append(times)
                continue
            whole = bool(observed.all())
            chosen.append((density * observed[:, None])[:, int(whole) :])
            places.append(own[int(whole) :])
            relative.append(np.full(places[-1].size, start if whole else self.share.size))
            bases += [start] * whole
        self.selected = np.concatenate([np.zeros((len(count), 0), np.float32), *chosen], axis=1)
        self.places = np.concatenate([np.zeros(0, np.int64), *places])
        self.relative = np.concatenate([np.zeros(0, np.int64), *relative])
        self.bases = np.array(bases, dtype=np.int64)
        self.overlapping = np.isin(self.starts, [own.start for own, _, _ in self.soft])  # (d,)

    def start(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Equal weights (K,), and tables (K, L) half-way between the columns' marginals and a row for each cluster."""
        probability = self.count / self.count.sum()
        rows = rng.choice(len(probability), size, replace=size > len(probability), p=probability)
        posterior = self.share * np.concatenate([density[rows] for density in self.densities], axis=1)
        return np.full(size, 1 / size), (self.share + posterior / self._sums(posterior)) / 2

    def _sums(self, table: np.ndarray) -> np.ndarray:
        """Of each column's components, at each of them, (…, L)."""
        return np.repeat(np.add.reduceat(table, self.starts, axis=-1), self.sizes, axis=-1)

    def expected_counts(self, weights: np.ndarray, table: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean log-likelihood up to a constant, how many rows each cluster holds, and in it each component, (K, L)."""
        total, held, counts = 0.0, np.zeros(weights.size), np.zeros(table.shape)
        selected = np.zeros((weights.size, self.selected.shape[1]))
        times = np.append(np.repeat(self.emphasis, self.sizes), 1.0)
        logs = times * np.log(np.pad(table, ((0, 0), (0, 1)), constant_values=1.0))
        factors = (logs[:, self.places] - logs[:, self.relative]).T.astype(np.float32)
        offset = (np.log(weights) + logs[:, self.bases].sum(axis=1)).astype(np.float32)
        step = rows_within(budget.CACHED, weights.size * (1 + len(self.soft)))
        for start in range(0, len(self.count), step):
            rows = slice(start, start + step)
            mixed = [density[rows] @ table[:, own].T.astype(np.float32) for own, density, _ in self.soft]  # (rows, K)
            joint = self.selected[rows] @ factors + offset
            pairs = zip(mixed, self.soft_emphasis, strict=True)
            powers = [mix if power == 1 else mix.astype(np.float64) ** power for mix, power in pairs]
            for some in range(0, len(powers), FACTORS):
                joint += np.log(np.prod(powers[some : some + FACTORS], axis=0, dtype=np.float64))
            peak = joint.max(axis=1, keepdims=True)
            posterior = np.exp(joint - peak)
            mass = posterior.sum(axis=1, keepdims=True)
            total += float(self.count[rows] @ (peak + np.log(mass))[:, 0])
            posterior *= self.count[rows, None].astype(np.float32) / mass
            held += posterior.sum(axis=0, dtype=np.float64)
            selected += posterior.T @ self.selected[rows]
            for mix, (own, density, observed) in zip(mixed, self.soft, strict=True):
                ratio = posterior / mix * observed[rows, None]
                counts[:, own] += table[:, own] * (ratio.T @ density[rows])
        counts[:, self.places] = selected
        others = self._sums(counts)[:, self.bases]
        counts[:, self.bases] = np.maximum(held[:, None] - others, 0.0)  # rounding may fall below 0
        return total / float(self.count.sum()), held, counts

    def fitted_prior(self, prior: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """One step to the most probable weight ρ of each column's prior, (d,)."""
        mean = np.repeat(prior, self.sizes) * self.share
        terms = self.share * (special("digamma", counts + mean) - special("digamma", mean))
        gain = np.add.reduceat(terms, self.starts, axis=1).sum(axis=0)
        observed = np.add.reduceat(counts, self.starts, axis=1)
        cost = (special("digamma", observed + prior) - special("digamma", prior)).sum(axis=0)
        fitted = prior * np.divide(gain, cost, out=np.ones_like(prior), where=cost > 0)
        return np.where(self.overlapping, prior, np.clip(fitted, LEAST_PRIOR, MOST_PRIOR))

    def shrunk(self, prior: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The most probable tables (K, L): between the expected counts and the column's shares."""
        table = counts + np.repeat(prior, self.sizes) * self.share
        return table / self._sums(table)

    def without_small_clusters(
        self, held: np.ndarray, weights: np.ndarray, table: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each cluster that holds hardly a row becomes one half of the heaviest, both of them perturbed."""
        weights, table = weights.copy(), table.copy()
        for small in np.flatnonzero(held < SMALL * held.sum() / held.size).tolist():
            heaviest = int(np.argmax(weights))
            weights[[small, heaviest]] = (weights[small] + weights[heaviest]) / 2
            change = np.exp(NOISE * rng.standard_normal(table.shape[1]))
            halves = table[heaviest] * np.stack([change, 1 / change])
            table[[small, heaviest]] = halves / self._sums(halves)
        return weights, table


def distinct_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row of x (n, d) once, NaN equal to NaN, in the order in which they come first, and how often it occurs."""
    x = np.where(np.isnan(x), np.nan, x.astype(np.float64) + 0.0)  # one NaN, and one zero
    keys = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1])))[:, 0]
    _, first, count = np.unique(keys, return_index=True, return_counts=True)
    order = np.argsort(first)  # np.unique sorts by bytes, which a change of units changes
    return x[first[order]], count[order].astype(np.float64)


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


def component_densities(block: np.ndarray, variable: Variable) -> np.ndarray:
    """p(x_k | s) of rows (n, width) with the largest of each row at 1, (n, N) in float32; all 1 for missing entries."""
    block = block.astype(np.float64)
    missing = np.isnan(block).all(axis=1)
    if block.shape[1] == 1:
        column = block[:, 0]
        block = np.where(missing, column[~missing][0] if not missing.all() else 0.0, column)
    logs = np.asarray(variable.log_density(block))
    logs = np.where(missing[:, None], 0.0, logs - logs.max(axis=1, keepdims=True))
    return np.exp(logs).astype(np.float32)


def component_shares(density: np.ndarray, count: np.ndarray | None = None) -> np.ndarray:
    """How much of the column each component answers for under equal weights, none of it zero.

    Args:
        density: (n, N) of `component_densities`.
        count: (n,) how often each row occurs; None: once.
    """
    responsibility = density / density.sum(axis=1, keepdims=True)
    if count is None:
        share = responsibility.sum(axis=0, dtype=np.float64) + 1
    else:
        share = count @ responsibility + 1
    return share / share.sum()
