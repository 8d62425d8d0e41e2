"""Orders from dependence: tours around a ring or paths along a train with the most dependent neighbours."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from ringdist.network.layout import Columns
from ringdist.ordering.arrangement import arranged
from ringdist.ordering.information import dependence, real_array
from ringdist.ordering.search import best_tour
from ringdist.variables import Variable

Topology = Literal["ring", "train"]
REACH = 0.9  # with which trains of ranks from 8 learn better than in tours
_KEPT = 0.8  # of a pair's dependence, in every order after one that has the pair adjacent


def random(d: int, rng: int | np.random.Generator | None = None) -> tuple[int, ...]:
    """A uniformly random order of `d` columns.

    Args:
        d: number of columns, at least 1.
        rng: a seed, a `numpy.random.Generator`, or None for fresh entropy.

    Returns:
        The columns 0..d-1, each once.

    Raises:
        ValueError: if d < 1.

    Examples:
        >>> sorted(random(4, rng=0))
        [0, 1, 2, 3]
    """
    d = operator.index(d)
    if d < 1:
        raise ValueError(f"an order needs at least 1 column, found d = {d}")
    return tuple(np.random.default_rng(rng).permutation(d).tolist())


def tour(dependence: Any, topology: Topology = "ring", reach: float = 0.0) -> tuple[int, ...]:
    """The order with the most dependent neighbours: the highest `score` found.

    Exact (Held & Karp 1962) for up to 12 columns, 11 for a train. For more columns, edges are chosen greedily, then
    improved by 2-opt (Croes 1958) and Or-opt (Or 1976) over neighbour lists with don't-look bits (Bentley 1992), then
    by kicks and repairs (Martin, Otto & Felten 1991). On data this is within a fraction of a percent of the optimum and
    takes seconds for d = 1 000. A train is a tour with one more column that is independent of all others. The result is
    deterministic.

    With `reach` above 0 that tour is the starting point. Segments of up to four columns are then moved or reversed
    until no move raises the `score` of that reach; powers of it below 0.01 count as 0. A ring is cut at the tour's
    weakest edge and arranged as a train. Bonds with many states carry information about columns beyond the nearest, so
    trains fit better in such an order.

    Args:
        dependence: (d, d) symmetric and finite; the diagonal does not matter.
        topology: `"ring"` (a closed tour) or `"train"` (an open path).
        reach: in [0, 1), the factor by which a pair counts less for every column between its two; see `score`. 0.9 is
            a good value for fitting.

    Returns:
        The columns 0..d-1, each once. A ring starts with column 0, and its second column is smaller than its last; a
        train's first column is smaller than its last.

    Raises:
        ValueError: if the matrix is not square, symmetric and finite, the topology is unknown, or reach is not in
            [0, 1).

    Examples:
        >>> tour([[0, 1, 9, 1], [1, 0, 1, 9], [9, 1, 0, 8], [1, 9, 8, 0]], topology="train")
        (0, 2, 3, 1)
    """
    _check_topology(topology)
    _check_reach(reach)
    return _tour(_symmetric(dependence), topology, reach)


def diverse(dependence: Any, count: int, topology: Topology = "ring", reach: float = REACH) -> list[tuple[int, ...]]:
    """Several good orders, the best first, in which different columns are near each other: for a mixture of rings.

    The first order is `tour(dependence, topology, reach)`. For each further one, the dependence of every pair is
    multiplied by `1 - 0.2 reach^(distance - 1)`, with the distance in the previous order, so that pairs that were far
    apart come closer. If one order is much better than all others, it is found again.

    Args:
        dependence: (d, d) symmetric and finite; the diagonal does not matter.
        count: number of orders, at least 1. They may repeat, as those of three columns do.
        topology: `"ring"` or `"train"`.
        reach: in [0, 1), as in `tour`.

    Returns:
        The orders, each as `tour` returns it.

    Raises:
        ValueError: as `tour`, or if count < 1.

    Examples:
        >>> import numpy as np
        >>> places = np.random.default_rng(0).random((12, 2))  # columns that depend on each other in a plane
        >>> near = np.exp(-10 * ((places[:, None] - places) ** 2).sum(axis=2))
        >>> orders = diverse(near, 3, "train")
        >>> len(set(orders)), [round(score(order, near, "train", reach=0.9), 1) for order in orders]
        (3, [10.8, 10.8, 10.7])
    """
    _check_topology(topology)
    _check_reach(reach)
    count = operator.index(count)
    if count < 1:
        raise ValueError(f"count must be at least 1, found {count}")
    return list(itertools.islice(successive(dependence, topology, reach), count))


def successive(dependence: Any, topology: Topology = "ring", reach: float = REACH) -> Iterator[tuple[int, ...]]:
    """The orders of `diverse` one after the other, each found when it is asked for: with 800 columns they take seconds.

    Examples:
        >>> dependence = [[0, 1, 9, 1], [1, 0, 1, 9], [9, 1, 0, 8], [1, 9, 8, 0]]
        >>> next(successive(dependence, "train"))
        (0, 2, 3, 1)
    """
    weight = _symmetric(dependence)
    while True:
        order = _tour(weight, topology, reach)
        yield order
        weight = weight * (1 - (1 - _KEPT) * _nearness(order, topology, reach))


def _tour(weight: np.ndarray, topology: Topology, reach: float) -> tuple[int, ...]:
    d = weight.shape[0]
    if topology == "ring":
        closed = best_tour(weight)
        if reach > 0:
            weakest = int(np.argmin([weight[closed[j - 1], closed[j]] for j in range(d)]))
            closed = arranged(weight, closed[weakest:] + closed[:weakest], reach)
        return _canonical_ring(closed)
    closed = best_tour(np.pad(weight, (0, 1)))
    cut = closed.index(d)
    path = closed[cut + 1 :] + closed[:cut]
    path = arranged(weight, path, reach) if reach > 0 else path
    return tuple(path if path[0] <= path[-1] else path[::-1])


def _nearness(order: Sequence[int], topology: Topology, reach: float) -> np.ndarray:
    """reach^(distance - 1) of every pair of columns, (d, d), 0 on the diagonal."""
    place = np.argsort(order)
    distance = np.abs(place[:, None] - place)
    if topology == "ring":
        distance = np.minimum(distance, len(place) - distance)
    return np.where(distance > 0, float(reach) ** np.maximum(distance - 1, 0), 0.0)


def mutual_information(
    x: Any,
    variables: Sequence[Variable],
    topology: Topology = "ring",
    reach: float = 0.0,
    columns: Columns | None = None,
) -> tuple[int, ...]:
    """The order whose neighbours share the most mutual information: `tour(dependence(x, variables), topology, reach)`.

    Args:
        x: (n, d) real numbers, NaN = missing. Not written to.
        variables: the d columns' families.
        columns: of every variable its columns of x, as in `dependence`.
        topology: `"ring"` or `"train"`.
        reach: in [0, 1), as in `tour`.

    Returns:
        The columns 0..d-1, each once, as `tour` orders them.

    Raises:
        TypeError: as `dependence`.
        ValueError: as `dependence` and `tour`.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = np.random.default_rng(0).integers(2, size=(2, 1000))
        >>> x = np.stack([a, b, a, b], axis=1)
        >>> mutual_information(x, [rd.Categorical(2)] * 4)  # equal columns side by side
        (0, 1, 3, 2)
    """
    _check_topology(topology)
    _check_reach(reach)
    return tour(dependence(x, variables, columns), topology, reach)


def score(order: Sequence[int], dependence: Any, topology: Topology = "ring", reach: float = 0.0) -> float:
    """Summed dependence of neighbours, in the units of `dependence` (nats).

    With `reach`, of all pairs: each counts `reach^(distance - 1)` times, and neighbours have distance 1. In a ring the
    last column and the first are neighbours too, and the shorter way around is the distance. Every pair counts once, so
    two columns have the same score in a ring and in a train; one column has 0.

    Args:
        order: the columns 0..d-1, each once.
        dependence: (d, d) symmetric and finite; the diagonal does not matter.
        topology: `"ring"` or `"train"`.
        reach: in [0, 1); 0 for neighbours only.

    Returns:
        The score as a Python float.

    Raises:
        ValueError: if the order is not a permutation of 0..d-1, the matrix is not square, symmetric and finite, the
            topology is unknown, or reach is not in [0, 1).

    Examples:
        >>> dependence = [[0, 1, 9, 1], [1, 0, 1, 9], [9, 1, 0, 8], [1, 9, 8, 0]]
        >>> score([0, 2, 3, 1], dependence, "train"), score([0, 2, 3, 1], dependence, "ring")
        (26.0, 27.0)
        >>> score([0, 2, 3, 1], dependence, "train", reach=0.5)  # 1 between two pairs of distance 2, 1 of distance 3
        27.25
    """
    _check_topology(topology)
    _check_reach(reach)
    weight = _symmetric(dependence)
    columns = _permutation(order, weight.shape[0])
    if reach > 0:
        return float((weight * _nearness(columns.tolist(), topology, reach)).sum()) / 2
    total = weight[columns[:-1], columns[1:]].sum()
    if topology == "ring" and len(columns) > 2:
        total += weight[columns[-1], columns[0]]
    return float(total)


def _symmetric(dependence: Any) -> np.ndarray:
    """The matrix in float64, averaged with its transpose, with a diagonal of zeros: a copy."""
    weight = np.array(real_array(dependence, "dependence"), dtype=np.float64)
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1] or weight.shape[0] == 0:
        raise ValueError(f"dependence must have shape (d, d) with d >= 1, found {weight.shape}")
    np.fill_diagonal(weight, 0.0)
    if not np.isfinite(weight).all():
        i, j = np.argwhere(~np.isfinite(weight))[0]
        raise ValueError(f"dependence must be finite, found {weight[i, j]} between columns {i} and {j}")
    gap = np.abs(weight - weight.T)
    if gap.max() > 1e-5 * np.abs(weight).max():
        i, j = np.unravel_index(np.argmax(gap), gap.shape)
        raise ValueError(
            f"dependence must be symmetric, found {weight[i, j]:g} between columns {i} and {j}, "
            f"{weight[j, i]:g} between {j} and {i}"
        )
    return (weight + weight.T) / 2


def _permutation(order: Sequence[int], d: int) -> np.ndarray:
    columns = [operator.index(k) for k in order]
    if sorted(columns) != list(range(d)):
        raise ValueError(f"order must hold every column 0..{d - 1} once, found {_shortened(columns)}")
    return np.array(columns)


def _shortened(columns: list[int]) -> str:
    if len(columns) <= 20:
        return str(columns)
    return f"{str(columns[:20])[:-1]}, … ] of length {len(columns)}"


def _check_topology(topology: str) -> None:
    if topology not in get_args(Topology):
        raise ValueError(f"topology must be one of {', '.join(map(repr, get_args(Topology)))}, found {topology!r}")


def _check_reach(reach: float) -> None:
    if not 0 <= reach < 1:
        raise ValueError(f"reach must be at least 0 and less than 1, found {reach}")


def _canonical_ring(closed: list[int]) -> tuple[int, ...]:
    start = closed.index(0)
    turned = closed[start:] + closed[:start]
    return tuple(turned if len(turned) < 3 or turned[1] < turned[-1] else turned[:1] + turned[:0:-1])
