"""Queries by enumeration: the probability table of a small discrete ring, and the entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import opt_einsum

from ringdist.backend import Array, indices, is_concrete, namespace, safe_log, special, stop_gradient, to_numpy
from ringdist.engines.range import scaled
from ringdist.network import Network
from ringdist.network.expression import einsum
from ringdist.queries.log_prob import log_partition, log_prob
from ringdist.queries.sampling import sample

DENSE_LIMIT = 2**24  # cells of the largest table
ENTROPY_LIMIT = 2**16  # cells up to which the entropy is summed exactly
CELLS = 2**16  # of a table that are looked up together


def to_dense(ring: Network) -> Array:
    """The table of probabilities, shape (N_1, ..., N_d), summing to 1.

    Raises:
        ValueError: if a column is not categorical or the table has more than 2^24 cells.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.to_dense()
        array([[0.4, 0.1],
               [0.2, 0.3]])
    """
    for k, family in enumerate(ring.families):
        if not family.values_are_components:
            raise ValueError(f"{ring.describe_site(k)}: a dense table needs categorical columns, found {family!r}")
    if math.prod(ring.shape) > DENSE_LIMIT:
        raise ValueError(f"a dense table may have at most {DENSE_LIMIT} cells, found {math.prod(ring.shape)}")
    equation, operands = einsum(ring, range(ring.num_columns))
    xp = namespace(operands[0])
    near_one = map(scaled, operands)  # keeps extreme cores within range
    table = opt_einsum.contract(equation, *near_one, optimize="greedy")
    total = xp.sum(table)
    if is_concrete(table):
        tops = sum(safe_log(stop_gradient(xp.max(core))) for core in operands)
        lost = safe_log(stop_gradient(total)) + tops - stop_gradient(log_partition(ring))
        if not abs(float(lost)) < 16 * len(operands) * float(xp.finfo(table.dtype).eps):
            return _dense_by_cells(ring)
    return table / total


def _dense_by_cells(ring: Network) -> Array:
    """The table from the likelihood of every cell, with the log-space fallback where products underflow."""
    cells, core = math.prod(ring.shape), ring.prototype
    parts = []
    for start in range(0, cells, CELLS):
        places = np.unravel_index(np.arange(start, min(start + CELLS, cells)), ring.shape)
        parts.append(log_prob(ring, indices(np.stack(places, axis=1), core)))
    xp = namespace(core)
    return xp.reshape(xp.exp(xp.concat(parts)), ring.shape)


def entropy(ring: Network, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
    """Entropy −E[log p(X)] in nats (differential in continuous columns) and its standard error.

    Exact, with standard error 0, for categorical rings of at most 2^16 cells; otherwise the mean over n samples.

    Raises:
        ValueError: if n < 2 and sampling is needed.

    Examples:
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.GaussianMixture([0.0], [1.0])] * 2, rank=1, rng=0)
        >>> value, error = ring.entropy(rng=0)
        >>> abs(value - 2.8379) < 5 * error  # two standard Gaussians: log 2πe
        True
    """
    if _is_discrete(ring) and math.prod(ring.shape) <= ENTROPY_LIMIT:
        return entropy_of_table(to_dense(ring))
    return entropy_of_samples(lambda: log_prob(ring, sample(ring, n, rng=rng)), n)


def entropy_of_table(table: Array) -> tuple[float, float]:
    """The entropy of a table of probabilities, whose standard error is 0."""
    return float(special("entr", to_numpy(table).astype("float64")).sum()), 0.0


def entropy_of_samples(log_probs: Callable[[], Array], n: int) -> tuple[float, float]:
    """The entropy as an average over n samples, given a function to their log-densities; its standard error."""
    if n < 2:
        raise ValueError(f"a Monte-Carlo estimate needs n >= 2 samples, found {n}")
    values = to_numpy(log_probs()).astype("float64")
    return -float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))


def _is_discrete(ring: Network) -> bool:
    return all(family.values_are_components for family in ring.families)
