"""Products of a ring's matrices along the cut ring: row-scaled linear numbers, and logarithms as the reference.

A state is the product of some consecutive matrices `A_k(x_k) = Σ_s p(x_k | s) Q_k[s]` for every row of data: shape
(b, r, m), the value of the cut bond first. `push` multiplies by one more matrix on the right. Backward, it multiplies
on the left of a state that is stored transposed, so both directions share one function.

`Linear` divides each row of the state (each value of the cut bond) by its own sum every few products and keeps the
logarithm beside it. All terms are non-negative, so every entry is correct up to rounding unless it underflows; `low` is
the smallest entry of the run. If it is below `threshold`, a second run with every entry raised to at least the
threshold bounds the true result from above. Rows whose two results agree are correct; the others are recomputed by
`Log` (see `rescue`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    cached_property,
    exp,
    identity,
    like_zeros,
    log_scaled_sum,
    logsumexp,
    matrix_minimum,
    namespace,
    row_sums,
    safe_log,
    stop_gradient,
    take,
)
from ringdist.cores import LINEAR, LOG, Core, Semiring
from ringdist.engines.range import can_inspect_values, in_range, rescale_interval, threshold
from ringdist.network import Evidence, Network


@dataclass(frozen=True)
class State:
    values: Array  # (b, r, m)
    logs: Array  # (b, r) logarithm of the scale of each row of values
    low: Array | None  # (b,) smallest entry met on the way, None where values cannot be inspected
    age: int = 0  # products since the rows were last divided by their sums
    is_start: bool = False  # the identity, with which no product is needed


class Linear:
    """Row-scaled products; see the module's docstring.

    Args:
        floored: raise every entry to the threshold, for an upper bound.
    """

    semiring: Semiring = LINEAR

    def __init__(self, ring: Network, evidence: Evidence, *, floored: bool = False):
        self.ring, self.evidence = ring, evidence
        self.xp = namespace(ring.prototype)
        self.cores, self.log_scale = in_range(ring)
        self.floor = threshold(ring) if floored else None
        self.inspects_values = can_inspect_values(ring, evidence)
        self.tracks_minimum = self.inspects_values and not floored
        self.interval = rescale_interval(ring) if self.inspects_values else 1
        self.minimum = matrix_minimum(ring.prototype)

    @cached_property
    def offset(self) -> Array:
        """The logarithm of what the weights and the cores were divided by, (b,)."""
        return self.evidence.offset + self.log_scale

    def matrix(self, k: int) -> Array:
        """A_k(x_k), shape (b, m, n)."""
        return self.cores[k].matrix(self.evidence.weights(k), LINEAR)

    def start(self) -> State:
        """The identity on the cut bond."""
        core = self.ring.prototype
        rank = min(self.ring.ranks)
        logs = like_zeros((1, rank), core, accumulator(core))
        return State(identity(rank, core)[None, :, :], logs, None, is_start=True)

    def push(self, state: State, k: int, *, backward: bool = False) -> State:
        """The state times the matrix of column k (on the left of its transpose if backward)."""
        core = self.cores[k].transposed() if backward else self.cores[k]
        return self.advance(state, core, self.evidence.weights(k), backward=backward)

    def advance(self, state: State, core: Core, weights: Array, *, backward: bool = False) -> State:
        """The state times the matrix Σ_s weights[s] core[s]."""
        if state.is_start and state.values.shape[1] > 1:
            values = core.matrix(weights, LINEAR)
        else:
            values = core.push(state.values, weights, LINEAR)
        return self.rescale(values, state, always=backward)  # column sums of a core may be large

    def rescale(self, values: Array, state: State, *, always: bool = False) -> State:
        """The new values, every row divided by its sum if it is time to.

        Only then is the smallest entry determined: what was flushed to zero since the last time has grown by a factor
        that is part of the threshold.
        """
        if state.age + 1 < self.interval and not always:
            return State(values, state.logs, state.low, state.age + 1)
        values, low = self.guarded(values, state.low)
        xp = self.xp
        total = row_sums(values)
        total = xp.where(total > 0, total, 1.0)
        logs = state.logs + xp.log(astype(total, state.logs.dtype))
        return State(values / total[..., None], logs, low)

    def guarded(self, values: Array, low: Array | None) -> tuple[Array, Array | None]:
        """Values raised to the floor, or the smallest entry met so far with that of these values."""
        if self.floor is not None:
            return self.xp.where(values < self.floor, self.floor, values), low
        if not self.tracks_minimum:
            return values, low
        least = self.minimum(values)
        return values, least if low is None else self.xp.minimum(low, least)

    def close(self, state: State) -> tuple[Array, Array | None]:
        """log Tr of the state with the evidence's offset, (b,); and the smallest entry met."""
        values, low = self.guarded(state.values, state.low) if state.age else (state.values, state.low)
        return log_scaled_sum(self.xp.linalg.diagonal(values), state.logs) + self.offset, low

    def joined(self, prefix: State, suffix: State) -> tuple[Array, Array]:
        """Prefix values with both states' scales relative to the row's largest, (b, r, m), and suffix values."""
        logs = prefix.logs + suffix.logs
        share = self.xp.exp(logs - stop_gradient(self.xp.max(logs, axis=-1, keepdims=True)))
        return prefix.values * astype(share, prefix.values.dtype)[..., None], suffix.values

    def component_masses(self, prefix: State, k: int, suffix: State) -> Array:
        """Σ Q_k[s, i, n] E[n, i] up to a factor of the row, (b, N)."""
        core = self.cores[k]
        return core.components(core.environment(*self.joined(prefix, suffix), LINEAR), LINEAR)

    def component_weights(self, prefix: State, k: int, suffix: State) -> tuple[Array, Array | None]:
        """log Σ Q_k[s, i, n] E[n, i] up to a constant of the row, (b, N): column k's own evidence left out."""
        xp, low = self.xp, None
        weights = self.component_masses(prefix, k, suffix)
        if self.floor is not None:
            weights = xp.where(weights < self.floor, self.floor, weights)
        elif self.tracks_minimum:
            low = xp.min(stop_gradient(weights), axis=-1)
            for other in (prefix.low, suffix.low):
                low = low if other is None else xp.minimum(low, other)
        return safe_log(weights), low

    def cut_weights(self, state: State) -> tuple[Array, Array]:
        """Weights of the values of the cut bond, (b, r), relative to each row's largest; and which rows are right."""
        xp = self.xp
        diagonal = xp.linalg.diagonal(state.values)
        logs = astype(safe_log(diagonal), state.logs.dtype) + state.logs
        # An entry below the threshold may have lost mass: does its upper bound matter relative to the largest entry?
        info, bound = xp.finfo(diagonal.dtype), threshold(self.ring)
        lost = xp.where(diagonal < bound, state.logs + math.log(bound), -xp.inf)
        return relative(logs), xp.max(lost, axis=-1) < xp.max(logs, axis=-1) + math.log(float(info.eps))

    def bond_weights(self, k: int, row: Array, left: Array, beyond: Array) -> Array:
        """A_k(x)[left, :] times what lies beyond the right bond, (n, m'), for draws of the rows `row`."""
        return self.cores[k].rows(left, _of_rows(self.evidence.weights(k), row), LINEAR) * beyond

    def value_weights(self, k: int, row: Array, left: Array, right: Array) -> Array:
        """Weights of the components of column k between two given bonds, (n, N)."""
        return self.cores[k].between(left, right, LINEAR) * _of_rows(self.evidence.weights(k), row)


class Log:
    """The same products by logsumexp: never underflows, several times slower. `values` are logarithms."""

    semiring: Semiring = LOG

    def __init__(self, ring: Network, evidence: Evidence):
        self.ring, self.evidence = ring, evidence
        self.xp = namespace(ring.prototype)

    def matrix(self, k: int) -> Array:
        """log A_k(x_k), shape (b, m, n)."""
        return self.ring.links[k].matrix(self.evidence.log_weights(k), LOG)

    def start(self) -> State:
        core = self.ring.prototype
        rank = min(self.ring.ranks)
        return State(LOG.of(identity(rank, core))[None], like_zeros((1, rank), core, accumulator(core)), None)

    def push(self, state: State, k: int, *, backward: bool = False) -> State:
        core = self.ring.links[k].transposed() if backward else self.ring.links[k]
        return State(core.push(state.values, self.evidence.log_weights(k), LOG), state.logs, None)

    def close(self, state: State) -> tuple[Array, None]:
        return logsumexp(self.xp.linalg.diagonal(state.values)) + self.evidence.offset, None

    def component_weights(self, prefix: State, k: int, suffix: State) -> tuple[Array, None]:
        core = self.ring.links[k]
        return core.components(core.environment(prefix.values, suffix.values, LOG), LOG), None

    def cut_weights(self, state: State) -> tuple[Array, Array]:
        logs = self.xp.linalg.diagonal(state.values)
        return relative(logs), logs[:, 0] == logs[:, 0]

    def bond_weights(self, k: int, row: Array, left: Array, beyond: Array) -> Array:
        return relative(self.ring.links[k].rows(left, _of_rows(self.evidence.log_weights(k), row), LOG) + beyond)

    def value_weights(self, k: int, row: Array, left: Array, right: Array) -> Array:
        weights = _of_rows(self.evidence.log_weights(k), row)
        return relative(self.ring.links[k].between(left, right, LOG) + weights)


Arithmetic = Linear | Log
Result = tuple[Array, Array | None]


def relative(logs: Array) -> Array:
    """exp(logs) with the largest entry of each row at 1; zeros where all are −inf."""
    xp = namespace(logs)
    top = xp.max(logs, axis=-1, keepdims=True)
    return exp(logs - xp.where(top == -xp.inf, 0.0, top))


def _of_rows(weights: Array, row: Array) -> Array:
    """The weights of some rows; one row stands for all."""
    return weights if weights.shape[0] == 1 else take(weights, row)
