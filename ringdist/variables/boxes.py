"""Gaussians of several columns within a box: masses, moments and samples, also far in the tails.

For K standardised columns with correlations R = L Lᵀ the mass of the box a <= z <= b is an integral over all columns
but the last, whose factor is a difference of normal distribution functions:

    P = ∫ p(z_1, ..., z_{K−1}) 1[a <= z <= b] (Φ(β(z)) − Φ(α(z))) dz,   α = (a_K − Σ_j L_Kj y_j) / L_KK,   z = L y

- K = 1: no integral is left.
- K = 2: the integrand is log-concave (Prékopa 1973). Gauss-Legendre panels cover the range where it exceeds e^−45 of
  its maximum, with ends where Φ(β) or Φ(α) changes. The relative error is below 1e-10 in float64 for all correlations
  and tails.
- K = 3: masses are integrals over correlations (see `box_triples`). The relative error is below 1e-8 if two rules of
  different size agree.
- K >= 4, and K = 3 otherwise: y = Φ⁻¹(u) between bounds, one column after another, on one lattice of 2^11 points u
  with the tent transform (Genz 1992; Hickernell 2002). The relative error is usually about 1e-4. It grows as
  correlations approach 1, with the number of columns, and far in a joint tail of several columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    accumulator,
    astype,
    backend_name,
    compiled,
    identity,
    indices,
    is_concrete,
    like,
    logsumexp,
    namespace,
    nonzero_rows,
    stop_gradient,
    take,
    to_numpy,
    uniform,
)
from ringdist.variables.box_functions import LATTICE, between, finite, lattice, moments_between
from ringdist.variables.box_rules import END, Rule, Standard, pair_rule, sequential_rule
from ringdist.variables.box_triples import in_good_order, log_mass_of_three
from ringdist.variables.gaussian_functions import draw_standard, log_between
from ringdist.variables.panels import NODES, Panels

AT_ONCE = 2**17  # numbers in memory together, which fit in a processor's cache
TRACED = 2**22  # the same under JAX, which fuses operations and keeps fewer
LEAST_ROWS = 8  # of a call under JAX, which compiles for each number of rows: they are padded to powers of two
ROUNDS = 1000  # of proposals before sampling fails
_T, _W = np.polynomial.legendre.leggauss(NODES)
_LEGENDRE = np.linalg.inv(np.polynomial.legendre.legvander(_T, NODES - 1))


class Box:
    """Gaussians of K columns, each restricted to its own bounds.

    Args:
        means, low, high: broadcast to (..., K), low <= high; bounds may be infinite.
        covariances: (..., K, K), positive definite.
    """

    def __init__(self, means: Array, covariances: Array, low: Array, high: Array):
        xp, dtype = namespace(means, covariances), accumulator(means)
        means, covariances, low, high = (astype(array, dtype) for array in (means, covariances, low, high))
        means, low, high = xp.broadcast_arrays(means, low, high)
        self.size, lead = int(means.shape[-1]), np.broadcast_shapes(means.shape[:-1], covariances.shape[:-2])
        self.shape = tuple(int(n) for n in lead)
        flat = (*self.shape, self.size)
        means, low, high = (xp.reshape(xp.broadcast_to(a, flat), (-1, self.size)) for a in (means, low, high))
        square = xp.broadcast_to(covariances, (*flat, self.size))
        self.arrays = (means, xp.reshape(square, (-1, self.size, self.size)), low, high)
        self.rows, self.xp = int(means.shape[0]), xp

    def log_mass(self) -> Array:
        """log P(low <= X <= high), (...)."""
        if self.size != 3:
            (logs,) = self._in_parts(_mass)
            return self.xp.reshape(logs, self.shape)
        logs, sure = self._in_parts(_mass_of_three)
        if is_concrete(sure):
            logs = self._with_others(logs, sure)
        else:
            logs = self.xp.where(sure, logs, self._in_parts(_mass)[0])
        return self.xp.reshape(logs, self.shape)

    def _with_others(self, logs: Array, sure: Array) -> Array:
        """Log masses (M,), with those that are not certain replaced by results on the lattice."""
        place = nonzero_rows(~sure)
        if place.shape[0] == 0:
            return logs
        (others,) = Box(*(take(part, place) for part in self.arrays))._in_parts(_mass)
        kept = to_numpy(sure)
        index = np.where(kept, np.arange(self.rows), self.rows - 1 + np.cumsum(~kept))
        return take(self.xp.concat([logs, others]), indices(index, logs))

    def moments(self) -> tuple[Array, Array]:
        """E[X | low <= X <= high], (..., K), and Cov[X | low <= X <= high], (..., K, K)."""
        means, covariances = self._in_parts(_moments)
        square = (*self.shape, self.size, self.size)
        return self.xp.reshape(means, square[:-1]), self.xp.reshape(covariances, square)

    def draw(self, rng: Any) -> Array:
        """One sample from each Gaussian, (..., K), without gradient.

        Raises:
            ValueError: if a box of three or more columns has so little mass that no proposal was accepted.
        """
        stream = Stream(rng, self.arrays[0])
        if self.size > 2:
            values = self._accepted(stream)
        else:
            u = uniform(stream.next(), (self.rows, 3), self.arrays[0])
            (values,) = self._in_parts(_drawn, u)
        low, high = (finite(bound) for bound in self.arrays[2:])
        return stop_gradient(self.xp.reshape(self.xp.clip(values, min=low, max=high), (*self.shape, self.size)))

    def _accepted(self, stream: Stream) -> Array:
        """Proposals of the sequential rule, accepted with the product of the masses of all columns but the first."""
        means = self.arrays[0]
        if not is_concrete(means):
            raise ValueError("samples within a box of three or more columns need rejection and cannot be traced")
        found, open_rows = np.zeros((self.rows, self.size)), np.arange(self.rows)
        for _ in range(ROUNDS):
            if not open_rows.size:
                return like(found, means)
            index = indices(open_rows, means)
            some = Box(*(take(part, index) for part in self.arrays))
            u = uniform(stream.next(), (open_rows.size, self.size + 1), means)
            rows, share = (to_numpy(part) for part in some._in_parts(_proposed, u))
            kept = np.log1p(-to_numpy(u)[:, -1]) < share
            found[open_rows[kept]] = rows[kept]
            open_rows = open_rows[~kept]
        raise ValueError(
            "samples within intervals of three or more columns of one variable need an event of larger probability, "
            f"found {open_rows.size} of {self.rows} rows without a sample after {ROUNDS} proposals"
        )

    def _in_parts(self, kernel: Callable[..., tuple[Array, ...]], *others: Array) -> list[Array]:
        """A function of the box's arrays and of others (M, ...), evaluated for a bounded number of rows at a time."""
        arrays = (*self.arrays, *others)
        if not is_concrete(*arrays):
            return list(kernel(*arrays))
        traced = backend_name(arrays[0]) == "jax"
        direct = self.size < 3 or kernel is _mass_of_three
        numbers = 512 if direct else LATTICE * self.size
        step = max(1, (TRACED if traced else AT_ONCE) // numbers)
        parts = []
        for first in range(0, max(self.rows, 1), step):
            part, count = [array[first : first + step] for array in arrays], min(step, self.rows - first)
            if traced:
                filled = indices(np.arange(_rounded_up(count)) % max(count, 1), arrays[0])
                part = [take(array, filled) for array in part]
            parts.append([piece[:count] for piece in compiled(kernel, *part)])
        return parts[0] if len(parts) == 1 else [self.xp.concat(pieces) for pieces in zip(*parts, strict=True)]


def _rounded_up(count: int) -> int:
    return max(LEAST_ROWS, 1 << (count - 1).bit_length()) if count else 0


def _standard(means: Array, square: Array, low: Array, high: Array) -> tuple[Standard, Array]:
    """The standardised boxes, and the standard deviations (M, K) of their columns."""
    xp = namespace(means)
    stds = xp.sqrt(xp.linalg.diagonal(square))
    reach = END * stds  # larger distances are clipped first, because their quotient could overflow
    start, end = ((between(bound, means - reach, means + reach) - means) / stds for bound in (low, high))
    gap = xp.where(xp.isinf(low) | xp.isinf(high), reach, between(finite(high) - finite(low), 0 * reach, 2 * reach))
    width = gap / stds
    return Standard(start, end, width, square / stds[:, :, None] / stds[:, None, :]), stds


def _rule(box: Standard) -> Rule:
    size = box.start.shape[1]
    if size == 1:
        zero = 0 * box.start
        return Rule(zero[:, :, None][:, :, :0], zero, zero, 1 + zero, *box[:3])
    return pair_rule(box)[0] if size == 2 else sequential_rule(box, like(lattice(size - 1), box.start)[None])


def _mass(*arrays: Array) -> tuple[Array]:
    return (logsumexp(_rule(_standard(*arrays)[0]).logs),)


def _mass_of_three(*arrays: Array) -> tuple[Array, Array]:
    box = in_good_order(_standard(*arrays)[0])
    last = indices(np.tile([[1, 2]], (box.start.shape[0], 1)), box.start)
    return log_mass_of_three(box, logsumexp(pair_rule(box.columns(last))[0].logs))


def _moments(means: Array, square: Array, low: Array, high: Array) -> tuple[Array, Array]:
    xp, (box, stds) = namespace(means), _standard(means, square, low, high)
    size = means.shape[1]
    if size == 1:
        own, spread = _joint(_rule(_beside(box)))
        own, spread = own[:, :1], spread[:, :1, :1]
    else:
        own, spread = _joint(_rule(box))
    if size == 2:  # the inner column by the rule in which it is the outer one
        others = _joint(pair_rule(box, 1)[0])
        own = xp.stack([own[:, 0], others[0][:, 0]], axis=-1)
        cross = spread[:, 0, 1]
        rows = xp.stack([spread[:, 0, 0], cross], axis=-1), xp.stack([cross, others[1][:, 0, 0]], axis=-1)
        spread = xp.stack(rows, axis=-2)
    return means + stds * own, spread * stds[:, :, None] * stds[:, None, :]


def _joint(rule: Rule) -> tuple[Array, Array]:
    """Means (M, K) and covariances (M, K, K) of the columns of a rule, the inner column last."""
    logs, xp = rule.logs, namespace(rule.start)
    share = xp.exp(logs - logsumexp(logs)[:, None])
    offset, spread = moments_between(rule.start, rule.end, rule.width)
    points = xp.concat([rule.outer, (rule.centre + rule.scale * offset)[:, :, None]], axis=-1)
    means = xp.sum(share[:, :, None] * points, axis=1)
    within = points - means[:, None, :]
    covariances = (share[:, :, None] * within).mT @ within
    size = points.shape[-1]
    last = like(np.arange(size) == size - 1, covariances)
    own = xp.sum(share * spread, axis=1) * rule.scale[:, 0] ** 2
    return means, covariances + own[:, None, None] * last[:, None] * last


def _beside(box: Standard) -> Standard:
    """The boxes with one more column, which is independent and unbounded."""
    xp, zero = namespace(box.start), 0 * box.start
    start, end, width = (
        xp.concat([part, zero + beyond], axis=1) for part, beyond in zip(box[:3], (-END, END, END), strict=True)
    )
    return Standard(start, end, width, identity(2, zero) + zero[:, :, None])


def _drawn(means: Array, square: Array, low: Array, high: Array, u: Array) -> tuple[Array]:
    """Samples (M, K) of one or two columns from uniform numbers (M, 3)."""
    box, stds = _standard(means, square, low, high)
    if means.shape[1] == 1:
        return (means + stds * draw_standard(box.start, box.end, box.width, u[:, :1]),)
    return (means + stds * _drawn_pair(box, u[:, 0], u[:, 1], u[:, 2]),)


def _drawn_pair(box: Standard, u: Array, v: Array, w: Array) -> Array:
    """A sample of two columns: the outer one by inversion of its distribution function, then the inner one given it."""
    xp, (rule, middle, half) = namespace(u), pair_rule(box)
    m, parts = middle.shape
    logs = rule.logs - logsumexp(rule.logs)[:, None] - xp.log(xp.tile(like(_W, u), (parts,)))
    values = xp.permute_dims(xp.reshape(logs, (m, parts, NODES)), (1, 2, 0))
    panels = Panels(values, like(_W, u)[None, :, None], like(_LEGENDRE, u)[None])
    panel, t = panels.draw(indices(range(m), u), u, v)
    middle, half = (xp.take_along_axis(part, panel[:, None], axis=1)[:, 0] for part in (middle, half))
    z = middle + half * t
    rho, scale = box.correlations[:, 0, 1], rule.scale[:, 0]
    start, end = ((bound[:, 1] - rho * z) / scale for bound in (box.start, box.end))
    other = rho * z + scale * draw_standard(start, end, box.width[:, 1] / scale, w)
    return xp.stack([z, other], axis=-1)


def _proposed(means: Array, square: Array, low: Array, high: Array, u: Array) -> tuple[Array, Array]:
    """A proposal (M, K) from uniform numbers (M, K + 1), and the logarithm of its probability of acceptance."""
    xp, (box, stds) = namespace(u), _standard(means, square, low, high)
    rule = sequential_rule(box, u[:, None, :-2])
    share = rule.logs - log_between(*(part[:, :1] for part in box[:3]))
    last = rule.centre + rule.scale * draw_standard(rule.start, rule.end, rule.width, u[:, -2:-1])
    return means + stds * xp.concat([rule.outer, last[:, :, None]], axis=-1)[:, 0], share[:, 0]
