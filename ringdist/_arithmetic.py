"""Products of a ring's matrices along the cut ring: row-scaled linear numbers, and logarithms as their oracle.

A state is the product of some consecutive matrices `A_k(x_k) = Σ_s p(x_k | s) Q_k[s]` for every row of data: shape
(b, r, m), the value of the cut bond first. `push` multiplies one more matrix on the right; backwards, on the left of a
state that is kept transposed, so that both directions are one function.

`Linear` divides each row of the state (each value of the cut bond) by its own sum and keeps the logarithm beside it,
every few products, which is as often as overflow asks for. All terms are non-negative, so every entry is right to
rounding unless it underflows; `low` is the smallest entry seen. Where that is below `threshold`, a second run with
every entry raised to at least the threshold bounds the true result from above: rows whose two results agree are right,
the others are left to `Log` (see `rescue`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ringdist._backend import (
    Array,
    accumulator,
    astype,
    identity,
    indices,
    is_concrete,
    log_scaled_sum,
    logsumexp,
    matrix_minimum,
    namespace,
    nonzero_rows,
    row_sums,
    safe_log,
    stop_gradient,
    take,
    to_numpy,
)
from ringdist._evidence import Evidence, like_zeros

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

ORDINARY = 10  # cores with their largest entry between 2^-10 and 2^10 are used as they are
LOG_CHUNK = 2**24  # numbers in the largest temporary of the log engine


@dataclass(frozen=True)
class State:
    values: Array  # (b, r, m)
    logs: Array  # (b, r) logarithm of the scale of each row of values
    low: Array | None  # (b,) smallest entry met on the way, None where values cannot be looked at
    age: int = 0  # products since the rows were last divided by their sums
    is_start: bool = False  # the identity, with which no product is needed


def threshold(ring: TensorRing) -> float:
    """Entries from here up have lost nothing to underflow, whatever was flushed to zero on the way to them."""
    xp = namespace(ring.cores[0])
    info = xp.finfo(ring.cores[0].dtype)
    terms = max(n * (left + 1) * (right + 1) for n, left, right in (core.shape for core in ring.cores))
    return 4 * terms * float(info.smallest_normal) / float(info.eps)


def safe_interval(ring: TensorRing) -> int:
    """How many matrices can be multiplied before an entry can overflow, 8 at most, and 1 where nothing is known."""
    growth = 1.0
    for (size, left, right), exponent in set(zip((tuple(c.shape) for c in ring.cores), ring.exponents, strict=True)):
        if exponent is None:
            return 1
        growth = max(growth, math.log2(size * max(left, right)) + min(exponent, ORDINARY))
    limit = math.log2(float(namespace(ring.cores[0]).finfo(ring.cores[0].dtype).max))
    return max(1, min(8, int(limit / growth) - 1))


def extreme_exponents(ring: TensorRing) -> list[int]:
    """Exponents of the powers of two by which columns' cores are divided before they are multiplied; 0 for most."""
    return [e if e is not None and abs(e) > ORDINARY else 0 for e in ring.exponents]


def ordinary(array: Array, exponent: int) -> Array:
    """A core, or what is linear in it, divided by 2^exponent: entries near 1, whose sums and products are exact."""
    return array * 2.0**-exponent if exponent else array


def through_core(rank: int, size: int) -> bool:
    """Whether one product of a state with the core beats forming the matrices: in a train, and of one component."""
    return rank * size <= rank + size


class Linear:
    """Row-scaled products; see the module's docstring.

    Args:
        floored: raise every entry to the threshold, for an upper bound.
        interval: products between rescalings at most; 1 where states are combined with each other.
    """

    def __init__(
        self,
        ring: TensorRing,
        evidence: Evidence,
        *,
        floored: bool = False,
        interval: int = 1,
    ):
        self.ring, self.evidence = ring, evidence
        self.xp = namespace(ring.cores[0])
        self.floor = threshold(ring) if floored else None
        self.looks = is_concrete(ring.cores[0], evidence.offset)  # at values, so that rows are done again if need be
        self.watches = self.looks and not floored
        self._exponents = extreme_exponents(ring)
        self.offset = evidence.offset + math.log(2) * sum(self._exponents)
        self.interval = interval if self.looks else 1
        self.minimum = matrix_minimum(ring.cores[0])

    def weights(self, k: int) -> Array:
        """(b, N) evidence times the power of two that brings the core's largest entry near 1."""
        return ordinary(self.evidence.weights(k), self._exponents[k])

    def scaled(self) -> bool:
        """Whether the entries of some core are so large or small that its weights make up for it."""
        return any(self._exponents)

    def matrix(self, k: int) -> Array:
        """A_k(x_k), shape (b, m, n)."""
        return self._matrix(self.ring.cores[k], self.weights(k))

    def _matrix(self, core: Array, weights: Array) -> Array:
        size, left, right = core.shape
        flat = weights @ self.xp.reshape(core, (size, left * right))
        return self.xp.reshape(flat, (-1, left, right))

    def start(self) -> State:
        """The identity on the cut bond."""
        core = self.ring.cores[0]
        rank = min(self.ring.ranks)
        logs = like_zeros((1, rank), core, accumulator(core))
        return State(identity(rank, core)[None, :, :], logs, None, is_start=True)

    def push(self, state: State, k: int, *, backward: bool = False) -> State:
        """The state with the matrix of column k multiplied on (on the left of its transpose if backward)."""
        core, exponent = self.ring.cores[k], self._exponents[k]
        if exponent and through_core(state.values.shape[1], core.shape[0]):  # which takes the weights last
            return self.advance(state, ordinary(core, exponent), self.evidence.weights(k), backward=backward)
        return self.advance(state, core, self.weights(k), backward=backward)

    def advance(self, state: State, core: Array, weights: Array, *, backward: bool = False) -> State:
        """The state with the matrix Σ_s weights[s] core[s] multiplied on."""
        size, rank = core.shape[0], state.values.shape[1]
        if through_core(rank, size):
            values = self._through_core(state.values, core, weights, (2, 0, 1) if backward else (1, 0, 2))
        else:
            matrix = self._matrix(core, weights)
            matrix = matrix.mT if backward else matrix
            values = matrix if state.is_start else state.values @ matrix
        return self.rescale(values, state)

    def _through_core(self, values: Array, core: Array, weights: Array, axes: tuple[int, int, int]) -> Array:
        core = self.xp.permute_dims(core, axes)  # (m, N, n)
        batch, rank, inner = values.shape
        flat = self.xp.reshape(values, (batch * rank, inner)) @ self.xp.reshape(core, (inner, -1))
        terms = self.xp.reshape(flat, (batch, rank, core.shape[1], core.shape[2]))
        return (weights[:, None, None, :] @ terms)[:, :, 0, :]

    def rescale(self, values: Array, state: State) -> State:
        """The new values, every row divided by its sum if it is time to."""
        xp = self.xp
        low = state.low
        if self.floor is not None:
            values = xp.where(values < self.floor, self.floor, values)
        elif self.watches:
            least = self.minimum(values)
            low = least if low is None else xp.minimum(low, least)
        if state.age + 1 < self.interval:
            return State(values, state.logs, low, state.age + 1)
        total = row_sums(values)
        total = xp.where(total > 0, total, 1.0)
        logs = state.logs + xp.log(astype(total, state.logs.dtype))
        return State(values / total[..., None], logs, low)

    def close(self, state: State) -> tuple[Array, Array | None]:
        """log Tr of the state with the evidence's offset, (b,); and the smallest entry met."""
        return log_scaled_sum(self.xp.linalg.diagonal(state.values), state.logs) + self.offset, state.low

    def component_weights(self, prefix: State, k: int, suffix: State) -> tuple[Array, Array | None]:
        """log Σ Q_k[s, i, n] E[n, i] up to a constant of the row, (b, N): column k's own evidence left out."""
        xp = self.xp
        core = ordinary(self.ring.cores[k], self._exponents[k])
        logs = prefix.logs + suffix.logs
        share = xp.exp(astype(logs - stop_gradient(xp.max(logs, axis=-1, keepdims=True)), core.dtype))
        environment = (prefix.values * share[..., None]).mT @ suffix.values  # (b, m, n)
        low = None
        if self.floor is not None:
            environment = xp.where(environment < self.floor, self.floor, environment)
        elif self.watches:
            low = self.minimum(environment)
            for other in (prefix.low, suffix.low):
                low = low if other is None else xp.minimum(low, other)
        weights = xp.reshape(environment, (environment.shape[0], -1)) @ xp.reshape(core, (core.shape[0], -1)).T
        if self.floor is not None:
            weights = xp.where(weights < self.floor, self.floor, weights)
        elif self.watches:
            low = xp.minimum(low, xp.min(stop_gradient(weights), axis=-1))
        return safe_log(weights), low

    def cut_weights(self, state: State) -> tuple[Array, Array]:
        """Weights of the values of the cut bond, (b, r), relative to each row's largest; and which rows are right."""
        xp = self.xp
        diagonal = xp.linalg.diagonal(state.values)
        logs = astype(safe_log(diagonal), state.logs.dtype) + state.logs
        # An entry below the threshold may have lost mass: does its upper bound matter beside the largest entry?
        info, bound = xp.finfo(diagonal.dtype), threshold(self.ring)
        lost = xp.where(diagonal < bound, state.logs + math.log(bound), -xp.inf)
        return relative(logs), xp.max(lost, axis=-1) < xp.max(logs, axis=-1) + math.log(float(info.eps))

    def bond_weights(self, k: int, row: Array, left: Array, beyond: Array) -> Array:
        """A_k(x)[left, :] times what lies beyond the right bond, (n, m'), for draws of the rows `row`."""
        core = self.ring.cores[k]
        if self.evidence.num_rows == 1:
            return take(self.matrix(k)[0], left) * beyond
        slices = take(self.xp.permute_dims(core, (1, 0, 2)), left)  # (n, N, m')
        return (take(self.weights(k), row)[:, None, :] @ slices)[:, 0, :] * beyond

    def value_weights(self, k: int, row: Array, left: Array, right: Array) -> Array:
        """Weights of the components of column k between two given bonds, (n, N)."""
        return between(self.ring.cores[k], left, right) * take(self.weights(k), row)


class Log:
    """The same products by log-sum-exp: never underflows, several times slower. `values` are logarithms."""

    def __init__(self, ring: TensorRing, evidence: Evidence):
        self.ring, self.evidence = ring, evidence
        self.xp = namespace(ring.cores[0])
        self.offset = evidence.offset

    def matrix(self, k: int) -> Array:
        """log A_k(x_k), shape (b, m, n)."""
        return logsumexp(self.evidence.log_weights(k)[:, :, None, None] + self._log_core(k), axis=1)

    def start(self) -> State:
        start = Linear(self.ring, self.evidence).start()
        return State(astype(safe_log(start.values), start.logs.dtype), start.logs, None)

    def push(self, state: State, k: int, *, backward: bool = False) -> State:
        matrix = self.matrix(k)
        matrix = matrix.mT if backward else matrix
        return State(logsumexp(state.values[..., None] + matrix[:, None, :, :], axis=-2), state.logs, None)

    def close(self, state: State) -> tuple[Array, None]:
        return logsumexp(self.xp.linalg.diagonal(state.values)) + self.offset, None

    def component_weights(self, prefix: State, k: int, suffix: State) -> tuple[Array, None]:
        environment = logsumexp(prefix.values[..., None] + suffix.values[:, :, None, :], axis=1)  # (b, m, n)
        return logsumexp(environment[:, None, :, :] + self._log_core(k), axis=(-2, -1)), None

    def cut_weights(self, state: State) -> tuple[Array, Array]:
        logs = self.xp.linalg.diagonal(state.values)
        return relative(logs), logs[:, 0] == logs[:, 0]

    def bond_weights(self, k: int, row: Array, left: Array, beyond: Array) -> Array:
        slices = take(self.xp.permute_dims(self._log_core(k), (1, 0, 2)), left)
        return relative(logsumexp(take(self.evidence.log_weights(k), row)[:, :, None] + slices, axis=1) + beyond)

    def value_weights(self, k: int, row: Array, left: Array, right: Array) -> Array:
        return relative(between(self._log_core(k), left, right) + take(self.evidence.log_weights(k), row))

    def _log_core(self, k: int) -> Array:
        return astype(safe_log(self.ring.cores[k]), accumulator(self.ring.cores[k]))


def relative(logs: Array) -> Array:
    """exp(logs) with the largest entry of each row at 1; zeros where all are −inf."""
    xp = namespace(logs)
    top = xp.max(logs, axis=-1, keepdims=True)
    return xp.exp(logs - xp.where(top == -xp.inf, 0.0, top))


def between(core: Array, left: Array, right: Array) -> Array:
    """core[:, left, right] as (n, N)."""
    xp = namespace(core)
    flat = xp.reshape(core, (core.shape[0], -1))
    return take(flat, left * core.shape[2] + right, axis=1).T


Result = tuple[Array, Array | None]


def robust(ring: TensorRing, evidence: Evidence, compute: Callable[[Any], Result], tolerance: float) -> Array:
    """`compute` on row-scaled numbers, and again on logarithms for the rows where underflow can have mattered.

    Args:
        compute: from a `Linear` or a `Log` to a value (b, ...) and the smallest entry met (b,).
        tolerance: how far apart, absolutely, the value and its upper bound may be.
    """
    return rescue(
        ring,
        evidence,
        lambda r, e, floored: compute(Linear(r, e, floored=floored)),
        lambda e: compute(Log(ring, e))[0],
        tolerance,
    )


def rescue(
    ring: TensorRing,
    evidence: Evidence,
    linear: Callable[[TensorRing, Evidence, bool], Result],
    exact: Callable[[Evidence], Array],
    tolerance: float,
) -> Array:
    """The value of `linear`, with `exact` in its place for the rows where underflow can have mattered."""
    ring._measure()
    value, low = linear(ring, evidence, False)
    if low is None:
        return value
    wrong = lost_rows(ring, evidence, value, low, lambda r, e: linear(r, e, True)[0], tolerance)
    if wrong.shape[0] == 0:
        return value
    return replace_rows(value, wrong, by_chunks(ring, evidence.rows(wrong), exact))


def lost_rows(
    ring: TensorRing,
    evidence: Evidence,
    value: Array,
    low: Array,
    floored: Callable[[TensorRing, Evidence], Array],
    tolerance: float,
) -> Array:
    """Rows whose value may have lost more than the tolerance to underflow, ascending.

    Args:
        value, low: the value (b, ...) and the smallest entry met on the way to it (b,).
        floored: the upper bound of the value for some rows of the evidence.
    """
    xp = namespace(value)
    value = stop_gradient(value)
    finite = xp.isfinite(value if value.ndim == 1 else xp.sum(value, axis=1))
    suspect = nonzero_rows(~(finite & (low >= threshold(ring))))
    if suspect.shape[0] == 0:
        return suspect
    gap = xp.abs(floored(ring._detached_cores(), evidence.rows(suspect).detach()) - take(value, suspect))
    agree = gap <= tolerance
    return suspect[~(agree if agree.ndim == 1 else xp.all(agree, axis=1))]


def by_chunks(ring: TensorRing, evidence: Evidence, exact: Callable[[Evidence], Array]) -> Array:
    """`exact` over slices of rows whose temporaries in log space stay within LOG_CHUNK numbers."""
    xp = namespace(evidence.offset)
    per_row = max(max(min(ring.ranks), n) * left * right for n, left, right in (c.shape for c in ring.cores))
    step = max(1, LOG_CHUNK // per_row)
    if evidence.num_rows <= step:
        return exact(evidence)
    index = indices(range(evidence.num_rows), evidence.offset)
    parts = [exact(evidence.rows(index[i : i + step])) for i in range(0, evidence.num_rows, step)]
    return xp.concat(parts, axis=0)


def replace_rows(value: Array, rows: Array, replacement: Array) -> Array:
    """`value` with some rows (ascending) exchanged, without writing into it and with gradients through both."""
    xp = namespace(value)
    source = to_numpy(rows)
    index = np.arange(value.shape[0])
    index[source] = value.shape[0] + np.arange(source.shape[0])
    merged = xp.concat([value, astype(replacement, value.dtype)], axis=0)
    return take(merged, indices(index, value))
