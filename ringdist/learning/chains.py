"""Mixtures of Markov chains as trains: starting points for columns that also depend on each other within clusters.

    p(x) = Σ_a π_a Π_j p(s_j | s_{j-1}, a) p(x_j | s_j)

s_j is the component of the j-th column of an order and a the cluster, whose rows share one chain. It is a train of CP
cores whose bonds hold the pair (a, s): N_k components and K clusters make K N_k hidden states, each of which has one
component, and transitions never change the cluster.

Clusters are those of a mixture of products. In each, the expected counts of all pairs of neighbouring components give
the transitions, with a Dirichlet prior at what the cluster says of the column alone. EM leaves zeros where they are, so
that it learns the mixture of chains itself (Meila and Jordan 2000 have trees for chains).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ringdist.backend import like
from ringdist.cores import CPCore
from ringdist.learning.mixture import Mixture, component_densities
from ringdist.ring import TensorRing
from ringdist.variables import Variable

PRIOR_ROWS = 5.0  # of each distribution of the next component
CHUNK = 2**11  # rows whose posteriors are in memory


def cores_near_chains(
    mixture: Mixture,
    x: np.ndarray,
    variables: Sequence[Variable],
    ring: TensorRing,
    spread: float,
    rng: np.random.Generator,
) -> list[CPCore]:
    """Cores of a train near a mixture of chains, by column.

    Args:
        mixture: the clusters.
        x: (n, d) rows from which transitions are counted, NaN where missing.
        variables: of the columns.
        ring: a train, which determines the order and the backend.
        spread: the share of each transition that is random, and of each emission that is the column's marginal.
        rng: of the random transitions.
    """
    order = list(ring.order)
    pairs = _pair_counts(mixture, x, variables, ring.columns, order)
    cores: dict[int, CPCore] = {}
    for j, k in enumerate(order):
        table = mixture.tables[k]  # (K, N)
        clusters, size = table.shape
        marginal = mixture.weights @ table
        emission = (1 - spread) * np.tile(np.eye(size), clusters) + spread * marginal[:, None]  # (N, K N)
        right = np.ones((clusters * size, 1))
        if j + 1 < len(order):
            right = _transitions(pairs[j], mixture.tables[order[j + 1]])
            change = rng.exponential(size=right.shape)
            right = (1 - spread) * right + spread * change / change.sum(axis=1, keepdims=True)
        left = (mixture.weights[:, None] * table).reshape(1, -1) if j == 0 else None
        cores[k] = CPCore(*(None if part is None else like(part, ring.prototype) for part in (left, emission, right)))
    return [cores[k] for k in range(len(order))]


def _transitions(pairs: np.ndarray, table: np.ndarray) -> np.ndarray:
    """P(next cluster and component | cluster and component), from counts (K, N, N') and the next column's (K, N')."""
    clusters, size, following = pairs.shape
    counts = pairs + PRIOR_ROWS * table[:, None, :]
    found = np.zeros((clusters, size, clusters, following))
    own = np.arange(clusters)
    found[own, :, own, :] = counts / counts.sum(axis=2, keepdims=True)
    return found.reshape(clusters * size, clusters * following)


def _pair_counts(
    mixture: Mixture,
    x: np.ndarray,
    variables: Sequence[Variable],
    columns: Sequence[Sequence[int]],
    order: Sequence[int],
) -> list[np.ndarray]:
    """Expected counts (K, N, N') of components of neighbouring columns in each cluster."""
    sizes = [mixture.tables[k].shape[1] for k in order]
    found = [np.zeros((len(mixture.weights), a, b)) for a, b in itertools.pairwise(sizes)]
    for start in range(0, len(x), CHUNK):
        rows = x[start : start + CHUNK]
        densities = [component_densities(rows[:, columns[k]], variables[k]) for k in order]
        logs = np.log(mixture.weights)[:, None] + np.zeros(len(rows))
        for k, density in zip(order, densities, strict=True):
            logs += np.log(mixture.tables[k] @ density.T)
        posterior = np.exp(logs - logs.max(axis=0))
        posterior /= posterior.sum(axis=0)
        previous: np.ndarray | None = None
        for j, k in enumerate(order):
            joint = mixture.tables[k][:, :, None] * densities[j].T  # (K, N, rows)
            responsibilities = joint / joint.sum(axis=1, keepdims=True)
            if previous is not None:
                found[j - 1] += previous @ responsibilities.transpose(0, 2, 1)
            previous = responsibilities * posterior[:, None, :]
    return found
