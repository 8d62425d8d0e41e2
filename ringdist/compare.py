"""Divergences between rings or mixtures of rings, and the train that compares fairly with a ring."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ringdist.backend import Stream, namespace, to_numpy
from ringdist.network.checks import value_spaces
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture
from ringdist.variables import Categorical

Distribution = TensorRing | RingMixture
EXACT_LIMIT = 2**16  # cells up to which both tables are enumerated


def kl(p: Distribution, q: Distribution, x: Any = None, *, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
    """KL(p ‖ q) = E_p[log p(X) − log q(X)] in nats, and the standard error of the estimate.

    Exact, with standard error 0, if all columns are categorical and have at most 2^16 cells together; otherwise the
    mean over n samples of p. The orders, ranks and numbers of Gaussian components of p and q may differ.

    Args:
        p: the ring or mixture under which the expectation is taken.
        q: a ring or mixture over the same columns, of the same backend.
        x: (..., d) rows over which log p − log q is averaged instead, such as held-out data modelled by p. NaN
            entries are marginalised in both.
        n: number of samples, at least 2.
        rng: seed, or the backend's own generator or key, for the samples.

    Returns:
        Two Python floats. The divergence is infinite if q has no mass where p has some; an infinite estimate has
        standard error 0. An estimate near 0 may be negative. One row in x has no standard error: NaN.

    Raises:
        ValueError: if the columns of p and q differ, n < 2, x has no row or does not fit, or a row of x has zero mass
            under both (or one row under p, another under q), which leaves the mean undefined.
        TypeError: if p, q and x mix backends.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> p, q = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> value, error = rd.compare.kl(p, q)
        >>> round(value, 4), error
        (0.5108, 0.0)
    """
    _check_same_columns(p, q)
    p, q = p.detach(), q.detach()
    if x is None:
        if _enumerable(p):
            return _exact_kl(_table(p), _table(q)), 0.0
        _check_samples(n)
        x = p.sample(n, rng=rng)
    a, b = _logs(p, x), _logs(q, x)
    if a.size == 0:
        raise ValueError("x must have at least one row, found none")
    neither = np.isneginf(a) & np.isneginf(b)
    if neither.any():
        raise ValueError(f"rows must have mass under p or q, found zero mass under both in row {int(neither.argmax())}")
    if np.isneginf(a).any() and np.isneginf(b).any():
        rows = int(np.isneginf(a).argmax()), int(np.isneginf(b).argmax())
        raise ValueError(f"the mean is undefined: row {rows[0]} has zero mass under p, row {rows[1]} under q")
    return _mean_and_error(a - b)


def total_variation(p: Distribution, q: Distribution, *, n: int = 10_000, rng: Any = None) -> float:
    """Total variation distance ½ Σ or ∫ |p − q|, in [0, 1].

    Exact if all columns are categorical and have at most 2^16 cells together. Otherwise an unbiased estimate from n
    samples of each: the distance is E|p(X) − q(X)| / (p(X) + q(X)) under the mixture (p + q) / 2, an average of
    numbers in [0, 1], so its standard error is at most 1 / (2 √(2n)).

    Args:
        p, q: rings or mixtures over the same columns, of one backend.
        n: samples of each, at least 2.
        rng: seed, or the backend's own generator or key.

    Raises:
        ValueError: if the columns of p and q differ or n < 2.
        TypeError: if p and q mix backends.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> p, q = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))], [rd.Categorical(2)])
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> round(rd.compare.total_variation(p, q), 4)
        0.4
    """
    _check_same_columns(p, q)
    p, q = p.detach(), q.detach()
    if _enumerable(p):
        return float(0.5 * np.abs(_table(p) - _table(q)).sum())
    _check_samples(n)
    stream = Stream(rng, p.prototype)
    means = []
    for distribution in (p, q):
        x = distribution.sample(n, rng=stream.next())
        means.append(np.abs(np.tanh(0.5 * (_logs(p, x) - _logs(q, x)))).mean())  # |p − q| / (p + q)
    return float(np.mean(means))


def matched_train_rank(ring: TensorRing, by: Literal["parameters", "capacity"] = "parameters") -> int:
    """The rank of a train that compares fairly with a ring over the same variables in the same order.

    Args:
        ring: the ring, of any ranks.
        by: "parameters": the largest rank whose train, `TensorRing.random(variables, rank, order=ring.order,
            topology="train")`, has no more parameters than the ring. "capacity": the rank with the capacity of the
            ring's bonds. Cutting a ring into two arcs crosses two bonds, at best the thinnest one, r, and another.
            The train therefore needs r · m for the widest other bond m, as in `TensorRing.to_train`, which needs
            less only where enumerating all components of an arc is shorter.

    Returns:
        A rank of at least 1, for all bonds of the train except the first.

    Raises:
        ValueError: if `by` is unknown.

    Examples:
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 8, rank=4, rng=0)
        >>> rd.compare.matched_train_rank(ring), rd.compare.matched_train_rank(ring, by="capacity")
        (4, 16)
    """
    if by not in ("parameters", "capacity"):
        raise ValueError(f"by must be parameters or capacity, found {by!r}")
    sizes = [ring.shape[k] for k in ring.order]
    if len(sizes) == 1:
        return 1
    if by == "capacity":
        thinnest, *others = sorted(ring.ranks)
        return thinnest * others[-1]
    numbers = sum(math.prod(factor.shape) for factor in ring.core_arrays())
    ends, inner = sizes[0] + sizes[-1], sum(sizes[1:-1])
    # the positive root of inner m² + ends m = numbers, an integer
    if inner == 0:
        return numbers // ends
    return max(1, (math.isqrt(ends * ends + 4 * inner * numbers) - ends) // (2 * inner))


def _check_same_columns(p: Distribution, q: Distribution) -> None:
    namespace(p.prototype, q.prototype)
    if p.num_columns != q.num_columns:
        raise ValueError(f"p and q must have the same columns, found {p.num_columns} and {q.num_columns} columns")
    for k, (a, b) in enumerate(zip(p.layout.names, q.layout.names, strict=True)):
        if a is not None and b is not None and a != b:
            raise ValueError(f"p and q must have the same columns, found {p.describe(k)} and {q.describe(k)}")
    for k, spaces in enumerate(zip(*(value_spaces(each.variables, each.layout) for each in (p, q)), strict=True)):
        if spaces[0] != spaces[1]:
            found = " and ".join(repr(each.variables[each.layout.places[k][0]]) for each in (p, q))
            raise ValueError(f"{p.describe(k)}: p and q must have values in one space, found {found}")


def _enumerable(p: Distribution) -> bool:
    cells = math.prod(variable.num_components for variable in p.variables)
    return all(isinstance(variable, Categorical) for variable in p.variables) and cells <= EXACT_LIMIT


def _table(p: Distribution) -> np.ndarray:
    return to_numpy(p.to_dense()).astype(np.float64)


def _exact_kl(p: np.ndarray, q: np.ndarray) -> float:
    seen = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[seen] * (np.log(p[seen]) - np.log(q[seen]))))


def _logs(p: Distribution, x: Any) -> np.ndarray:
    return to_numpy(p.log_prob(x)).astype(np.float64).reshape(-1)


def _check_samples(n: int) -> None:
    if n < 2:
        raise ValueError(f"a Monte-Carlo estimate needs n >= 2 samples, found {n}")


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    mean = float(values.mean())
    if math.isinf(mean):
        return mean, 0.0
    error = values.std(ddof=1) / math.sqrt(values.size) if values.size > 1 else math.nan
    return mean, float(error)
