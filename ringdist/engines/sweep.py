"""Sweeps: products of one matrix after another around the ring from its thinnest bond, and the states in between."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ringdist.backend import backend_name, can_reuse_memory, is_concrete
from ringdist.cores import CPCore, DenseCore
from ringdist.cores.dense import takes_state_first
from ringdist.engines import budget
from ringdist.engines.arithmetic import Arithmetic, Linear, Log, Result, State
from ringdist.network import Evidence, Network


def sweep(ring: Network, evidence: Evidence, floored: bool) -> Result:
    """The log-mass of every row in linear numbers, and the smallest entry met."""
    linear = Linear(ring, evidence, floored=floored)
    if recomputes(ring, evidence):
        from ringdist.engines.lean import lean_sweep

        return lean_sweep(linear)
    if backend_name(ring.prototype) == "torch" and not ring.is_dense:
        from ringdist.engines.factored import factored_sweep, is_factored

        if is_factored(linear):
            return factored_sweep(linear)
    return _contract(linear)


def log_sweep(ring: Network, evidence: Evidence) -> Result:
    """The log-mass of every row by logsumexp: the reference of the other engines."""
    return _contract(Log(ring, evidence))


def _contract(arithmetic: Arithmetic) -> Result:
    state = arithmetic.start()
    for k in arithmetic.ring.sequence:
        state = arithmetic.push(state, k)
    return arithmetic.close(state)


def suffix_states(arithmetic: Arithmetic, first: int = 0) -> list[State]:
    """For j from `first` to d the product of the matrices of `sequence[j:]`, transposed, (b, r, m)."""
    states = [arithmetic.start()]
    for k in reversed(arithmetic.ring.sequence[first:]):
        states.append(arithmetic.push(states[-1], k, backward=True))
    return states[::-1]


def suffix_states_in_turn(arithmetic: Arithmetic) -> Iterator[State]:
    """The state of `sequence[j + 1:]` for every site j in turn, stored, or recomputed from √d checkpoints."""
    ring, sequence = arithmetic.ring, arithmetic.ring.sequence
    d = len(sequence)
    numbers = arithmetic.evidence.num_rows * min(ring.ranks) * sum(ring.ranks)
    block = d if numbers <= 4 * budget.at_once(ring.prototype) else math.isqrt(d - 1) + 1
    starts = range(0, d, block)
    checkpoints = {d: arithmetic.start()}
    state = checkpoints[d]
    for j in range(d - 1, block - 1 if len(starts) > 1 else d, -1):
        state = arithmetic.push(state, sequence[j], backward=True)
        if j in starts:
            checkpoints[j] = state
    for start in starts:
        end = min(start + block, d)
        states = [checkpoints.pop(end)]
        for j in range(end - 1, start, -1):
            states.append(arithmetic.push(states[-1], sequence[j], backward=True))
        while states:
            yield states.pop()


def recomputes(ring: Network, evidence: Evidence) -> bool:
    """Whether a sweep stores only some of its products for the backward pass, which recomputes the others."""
    core = ring.prototype
    if can_reuse_memory(*ring.core_arrays(), *evidence.arrays()) or backend_name(core) != "torch":
        return False
    if not is_concrete(core, *evidence.arrays()):
        return False
    return evidence.num_rows * numbers_kept(ring) > budget.stored(core) and _by_matrices(ring)


def numbers_kept(ring: Network, *, lean: bool = False) -> int:
    """How many numbers of one row a sweep stores for its backward pass."""
    cut, by_matrices = min(ring.ranks), _by_matrices(ring)
    if lean and backend_name(ring.prototype) == "torch" and by_matrices:
        from ringdist.engines.lean import lean_numbers

        return lean_numbers([core.shape for core in ring.links], cut)
    factored = backend_name(ring.prototype) == "torch" and all(isinstance(core, CPCore) for core in ring.links)
    kept = 0
    for core in ring.links:
        size, left, right = core.shape
        if isinstance(core, CPCore) and factored:
            kept += cut * (core.inner + (0 if core.left is None else left))
        elif not isinstance(core, DenseCore):
            kept += cut * sum(sum(array.shape) for array in core.arrays().values())
        else:
            kept += (left + cut) * right if by_matrices else cut * (size + 1) * right
    return kept


def numbers_at_once(ring: Network) -> int:
    """How many numbers of one row a sweep without gradient has in memory, in addition to the evidence.

    CP cores multiply states, and only the tree, which JAX prefers, forms their matrices.
    """
    cut, by_states = min(ring.ranks), backend_name(ring.prototype) != "jax"
    widest = 0
    for core in ring.links:
        _, left, right = core.shape
        if isinstance(core, CPCore) and by_states:
            widest = max(widest, cut * max(left, core.inner, right))
        else:
            widest = max(widest, left * right)
    return 8 * widest


def _by_matrices(ring: Network) -> bool:
    """Whether products use the matrices of the rows, as for a cut of several values, instead of the cores."""
    return ring.is_dense and not takes_state_first(min(ring.ranks), min(ring.shape))
