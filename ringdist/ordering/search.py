"""Closed tours of greatest total weight: exact for few nodes, iterated local search for many.

The moves are those of the symmetric travelling salesman, with weights to gain instead of distances to save:

- Held & Karp 1962, *A dynamic programming approach to sequencing problems*: the exact optimum in O(2^n n²);
- Croes 1958, *A method for solving traveling-salesman problems*: 2-opt, replace two edges by reversing a stretch;
- Or 1976, *Traveling salesman-type combinatorial problems*: move a stretch of at most three nodes elsewhere;
- Bentley 1992, *Fast algorithms for geometric traveling salesman problems*: greedy edges, neighbour lists, don't-look
  bits (here their dual, a queue of the nodes still to be visited);
- Martin, Otto & Felten 1991, *Large-step Markov chains*: kick a local optimum, repair it, keep it unless it is worse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_EXACT_NODES = 12  # Held-Karp up to here: 2^11 subsets, 20 ms
_NEIGHBOURS = 10  # candidates per node; more did not find better tours
_LONGEST_MOVED = 3  # nodes moved at once by Or-opt
_LONGEST_KICKED = 50  # nodes in each of the two stretches that a kick swaps
_KICKS_PER_NODE, _MOST_KICKS = 50, 5000  # up to some seconds


def best_tour(weight: np.ndarray) -> list[int]:
    """The nodes 0..n-1 in the order of a closed tour of great `weight` (n, n), symmetric and finite.

    The optimum for n <= 12. Else a local optimum of 2-opt and Or-opt from greedy edges, improved by kicks. The same
    weights give the same tour.
    """
    n = weight.shape[0]
    if n <= 3:
        return list(range(n))
    if n <= _EXACT_NODES:
        return _exact(weight)
    return _iterated_search(weight)


def _exact(weight: np.ndarray) -> list[int]:
    """Held-Karp: the best path from the last node through every subset of the others, ending at each of its members."""
    n = weight.shape[0] - 1
    bits = 1 << np.arange(n)
    best = np.full((1 << n, n), -np.inf)  # (subset, last member)
    before = np.zeros((1 << n, n), dtype=np.int64)
    best[bits, np.arange(n)] = weight[n, :n]
    between = weight[:n, :n]
    for subset in range(1, 1 << n):
        longer = best[subset][:, None] + between  # (from, to)
        new = np.flatnonzero(subset & bits == 0)
        origin = np.argmax(longer[:, new], axis=0)
        best[subset | bits[new], new] = longer[origin, new]
        before[subset | bits[new], new] = origin
    subset, node = (1 << n) - 1, int(np.argmax(best[-1] + weight[n, :n]))
    tour = [n]
    while subset:
        tour.append(node)
        subset, node = subset ^ (1 << node), int(before[subset, node])
    return tour


# --------------------------------------------------------------------------------------------------- starting tour


def _greedy(weight: np.ndarray, neighbours: int) -> list[int]:
    """A tour of edges taken from the heaviest down, each if both its ends are free and it closes no cycle.

    Only edges to a node's heaviest free neighbours are sorted, in rounds: all pairs would be n² / 2 of them.
    """
    n = weight.shape[0]
    fragment = list(range(n))  # of an end: the other end of its path
    links: list[list[int]] = [[] for _ in range(n)]
    ends = np.arange(n)
    for _ in range(n):  # every round joins at least two paths
        for i, j in _heaviest_pairs(weight, ends, np.array(fragment), neighbours):
            if len(links[i]) < 2 and len(links[j]) < 2 and fragment[i] != j:
                links[i].append(j)
                links[j].append(i)
                first, last = fragment[i], fragment[j]
                fragment[first], fragment[last] = last, first
        ends = np.array([i for i in range(n) if len(links[i]) < 2])
        if len(ends) == 2 and fragment[ends[0]] == ends[1]:
            break
    return list(_walk(links, int(ends[0])))


def _heaviest_pairs(
    weight: np.ndarray, ends: np.ndarray, fragment: np.ndarray, neighbours: int
) -> Iterable[tuple[int, int]]:
    """Pairs of ends of different paths, heaviest first: for each end its `neighbours` heaviest."""
    free = weight[np.ix_(ends, ends)]
    np.fill_diagonal(free, -np.inf)
    free[np.searchsorted(ends, fragment[ends]), np.arange(len(ends))] = -np.inf  # the other end of its own path
    near = _heaviest(free, neighbours)
    rows = np.repeat(np.arange(len(ends)), near.shape[1])
    columns = near.ravel()
    keep = np.isfinite(free[rows, columns])
    rows, columns = rows[keep], columns[keep]
    sequence = np.argsort(-free[rows, columns], kind="stable")
    return zip(ends[rows[sequence]].tolist(), ends[columns[sequence]].tolist(), strict=True)


def _heaviest(weight: np.ndarray, count: int) -> np.ndarray:
    """(n, count): the columns of the greatest entries of every row, in decreasing order."""
    count = min(count, weight.shape[1])
    near = np.argpartition(-weight, count - 1, axis=1)[:, :count]
    sequence = np.argsort(-np.take_along_axis(weight, near, axis=1), axis=1, kind="stable")
    return np.take_along_axis(near, sequence, axis=1)


def _walk(links: list[list[int]], node: int) -> Iterator[int]:
    """The nodes of a path from one of its ends."""
    previous = -1
    while True:
        yield node
        following = [i for i in links[node] if i != previous]
        if not following:
            return
        previous, node = node, following[0]


# ---------------------------------------------------------------------------------------------------- local search


def _scalars(array: np.ndarray) -> Any:
    """A memory view of the array, whose entries are Python numbers; indexing is ten times faster than of the array."""
    return memoryview(array)  # type: ignore[arg-type]


class _Tour:
    """A closed sequence of nodes whose neighbours are read in O(1) and whose stretches are reversed in place.

    Every reversal is remembered until `commit`, so that `rollback` can undo them.
    """

    def __init__(self, nodes: list[int]):
        self._nodes = np.array(nodes, dtype=np.int64)
        self._places = np.empty_like(self._nodes)
        self._places[self._nodes] = np.arange(len(nodes))
        self.node, self.place = _scalars(self._nodes), _scalars(self._places)
        self.size = len(nodes)
        self._done: list[tuple[int, int]] = []

    def after(self, node: int) -> int:
        place = self.place[node] + 1
        return self.node[place if place < self.size else 0]

    def before(self, node: int) -> int:
        return self.node[self.place[node] - 1]

    def exchange(self, a: int, b: int, c: int, d: int) -> None:
        """Replace the edges ab and cd, where c follows d as a follows b in one direction, by ac and bd."""
        if self.after(a) == b:
            self._reverse(self.place[b], self.place[c])
        else:
            self._reverse(self.place[a], self.place[d])

    def _reverse(self, first: int, last: int) -> None:
        """Reverse the places first..last, cyclically; or the others, if those are fewer: the same closed tour."""
        length = (last - first) % self.size + 1
        if 2 * length > self.size:
            first, last, length = (last + 1) % self.size, (first - 1) % self.size, self.size - length
        if length > 1:
            self._flip(first, length)
            self._done.append((first, length))

    def _flip(self, first: int, length: int) -> None:
        if first + length <= self.size:
            stretch = self._nodes[first : first + length][::-1].copy()
            self._nodes[first : first + length] = stretch
            self._places[stretch] = np.arange(first, first + length)
        else:
            places = np.arange(first, first + length) % self.size
            stretch = self._nodes[places[::-1]]
            self._nodes[places] = stretch
            self._places[stretch] = places

    def commit(self) -> None:
        self._done.clear()

    def rollback(self) -> None:
        while self._done:
            self._flip(*self._done.pop())

    def nodes(self) -> list[int]:
        return self._nodes.tolist()


class _Search:
    """Local search for moves that make a tour heavier, around one node at a time among its heaviest neighbours."""

    def __init__(self, weight: np.ndarray, start: list[int]):
        weight = np.array(weight, dtype=np.float64, order="C")
        self.tour = _Tour(start)
        self._weight = _scalars(weight)
        np.fill_diagonal(weight, -np.inf)
        self._near = _heaviest(weight, min(_NEIGHBOURS, len(start) - 1)).tolist()
        np.fill_diagonal(weight, 0.0)
        self._least = 1e-12 * float(np.abs(weight).max())  # a gain below this is rounding, and might cycle

    def improve(self, nodes: Iterable[int]) -> float:
        """Move until no move around any node helps; only `nodes` and those that a move touches are visited."""
        queue = deque(nodes)
        queued = set(queue)
        total = 0.0
        while queue:
            node = queue.popleft()
            queued.discard(node)
            gain, touched = self._two_opt(node) or self._or_opt(node) or (0.0, ())
            total += gain
            for moved in touched:
                if moved not in queued:
                    queue.append(moved)
                    queued.add(moved)
        return total

    def _two_opt(self, a: int) -> tuple[float, tuple[int, ...]] | None:
        """For an edge ab at node a: edges ac and bd instead of ab and cd, if they are heavier."""
        weight = self._weight
        for step in (self.tour.after, self.tour.before):
            b = step(a)
            for c in self._near[a]:
                gain = weight[a, c] - weight[a, b]
                if gain <= self._least:
                    break
                d = step(c)
                gain += weight[b, d] - weight[c, d]
                if gain > self._least:
                    self.tour.exchange(a, b, c, d)
                    return gain, (a, b, c, d)
        return None

    def _or_opt(self, start: int) -> tuple[float, tuple[int, ...]] | None:
        """Move the stretch from `start` to `end`, of up to three nodes, between a neighbour c of `start` and d."""
        weight, tour = self._weight, self.tour
        for step, back in ((tour.after, tour.before), (tour.before, tour.after)):
            a, end, stretch = back(start), start, {start}
            for _ in range(_LONGEST_MOVED):
                b = step(end)
                for c in self._near[start]:
                    if weight[start, c] - weight[a, start] <= self._least:
                        break
                    if c in stretch:
                        continue
                    removed = weight[a, start] + weight[end, b]
                    joined = weight[start, c] + weight[a, b] - removed
                    for d in (step(c), back(c)):
                        gain = joined + weight[end, d] - weight[c, d]
                        if gain > self._least and d not in stretch:
                            self._move(a, start, end, b, c, d)
                            return gain, (a, start, end, b, c, d)
                end = b
                stretch.add(b)
        return None

    def _move(self, a: int, start: int, end: int, b: int, c: int, d: int) -> None:
        """a [start…end] b … cd becomes ab … c [start…end] d, by reversals."""
        tour = self.tour
        forward = (tour.after(a) == start) == (tour.after(c) == d)
        if not forward:  # on the way from b the edge is met as dc
            c, d = d, c
        tour.exchange(a, start, c, d)
        if c != b:
            tour.exchange(a, c, b, end)  # the stretch now lies reversed between c and d
        if forward:
            tour.exchange(c, end, start, d)

    def kick(self, rng: np.random.Generator) -> tuple[float, set[int]]:
        """Swap two stretches that follow each other: a double bridge, which reversals alone rarely undo."""
        tour, weight = self.tour, self._weight
        longest = min(_LONGEST_KICKED, (tour.size - 2) // 2)
        first = int(rng.integers(tour.size))
        lengths = rng.integers(1, longest + 1, size=2).tolist()
        places = [first, first + 1, first + lengths[0], first + lengths[0] + 1]
        places += [first + sum(lengths), first + sum(lengths) + 1]
        a, b, c, d, e, f = (tour.node[place % tour.size] for place in places)  # a [b…c] [d…e] f
        gain = weight[a, d] + weight[e, b] + weight[c, f] - weight[a, b] - weight[c, d] - weight[e, f]
        tour.exchange(a, b, e, f)  # a [e…d] [c…b] f
        if d != e:
            tour.exchange(a, e, d, c)
        if b != c:
            tour.exchange(e, c, b, f)
        return gain, {a, b, c, d, e, f}


def _iterated_search(weight: np.ndarray) -> list[int]:
    n = weight.shape[0]
    search = _Search(weight, _greedy(weight, _NEIGHBOURS))
    search.improve(range(n))
    search.tour.commit()
    rng = np.random.default_rng(0)
    for _ in range(min(_KICKS_PER_NODE * n, _MOST_KICKS)):
        lost, touched = search.kick(rng)
        if lost + search.improve(touched) < 0:
            search.tour.rollback()
        search.tour.commit()
    return search.tour.nodes()
