"""Enumeration of a mixture of rings: its probability table, its entropy, and its mode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ringdist.backend import Array, indices, is_array, is_concrete, like, namespace, stop_gradient, take, to_numpy
from ringdist.network.rows import as_rows
from ringdist.queries import dense, modes
from ringdist.queries.dense import ENTROPY_LIMIT, entropy_of_samples, entropy_of_table
from ringdist.ring_mixture.density import log_prob, possible, ring_posteriors
from ringdist.ring_mixture.sampling import sample
from ringdist.ring_mixture.structure import Mixture


def to_dense(mixture: Mixture) -> Array:
    """The table of probabilities Σ_c w_c P_c, shape (N_1, ..., N_d), summing to 1.

    Raises:
        ValueError: if a column is not categorical or the table has more than 2^24 cells.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> rd.RingMixture([a, b], [0.25, 0.75]).to_dense().round(3)
        array([0.8, 0.2])
    """
    weights = mixture.weights
    parts = [weights[c] * dense.to_dense(ring) for c, ring in enumerate(mixture.rings)]
    return sum(parts[1:], parts[0])


def entropy(mixture: Mixture, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
    """Entropy −E[log p(X)] in nats (differential in continuous columns) and its standard error.

    Exact, with standard error 0, for categorical mixtures of at most 2^16 cells; otherwise the mean over n samples.

    Raises:
        ValueError: if n < 2 and sampling is needed.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.4, 0.6], [0.6, 0.4])
        ... )
        >>> value, error = rd.RingMixture([a, b], [0.5, 0.5]).entropy()
        >>> round(value, 4), error  # log 2
        (0.6931, 0.0)
    """
    first = mixture.rings[0]
    if all(family.values_are_components for family in first.families) and math.prod(first.shape) <= ENTROPY_LIMIT:
        return entropy_of_table(to_dense(mixture))
    return entropy_of_samples(lambda: log_prob(mixture, sample(mixture, n, rng=rng)), n)


def mode(mixture: Mixture, x: Any = None) -> Array:
    """The completion of highest density found: (d,) for x None, else x (..., d) with its NaN entries filled.

    Exact if the missing columns of a row are all categorical and have at most 4096 completions: all are compared.
    Otherwise the densest, under the mixture, of the completions that `TensorRing.mode` finds in each ring. It is not
    guaranteed to be the global maximum.

    Raises:
        ValueError: if x does not fit or the evidence of a row has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))] * 2, [rd.Categorical(2)] * 2)
        ...     for weights in ([0.3, 0.7], [1.0, 0.0])
        ... )
        >>> mixture = rd.RingMixture([a, b], [0.6, 0.4])
        >>> mixture.mode(), mixture.mode([1, np.nan])
        (array([0., 0.]), array([1., 1.]))
    """
    mixture, core = mixture.detach(), mixture.prototype
    first, xp = mixture.rings[0], namespace(core)
    x = like(np.full(mixture.num_columns, np.nan), core) if x is None else x
    rows, shape = as_rows(first, stop_gradient(x) if is_array(x) else x)
    if not is_concrete(rows):
        raise ValueError("mode inspects values and cannot be traced")
    posterior = ring_posteriors(mixture, rows)  # of which none may be impossible
    result = to_numpy(rows).copy()
    many = modes.enumerate_few(first, result, np.isnan(result), lambda cells: log_prob(mixture, cells))
    if many.shape[0]:
        index = indices(many, core)
        result[many] = to_numpy(_best_of_rings(mixture, take(rows, index), take(posterior, index)))
    return xp.reshape(like(result, core), (*shape, mixture.num_columns))


def _best_of_rings(mixture: Mixture, rows: Array, posterior: Array) -> Array:
    """Of the completions of rows (b, d) that the rings find, the densest."""
    xp, (b, d) = namespace(rows), rows.shape
    found = [modes.mode(ring, possible(posterior[:, c], rows)) for c, ring in enumerate(mixture.rings)]
    completions = xp.where(xp.isnan(rows), xp.stack(found), rows)  # (K, b, d)
    best = xp.argmax(log_prob(mixture, completions), axis=0)
    return take(xp.reshape(completions, (-1, d)), best * b + indices(np.arange(b), rows))
