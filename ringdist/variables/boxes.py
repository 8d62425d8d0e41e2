"""Gaussians of several columns within a box: masses, moments and draws, as logarithms far in the tails.

For K standardised columns with correlations R = L Lᵀ the mass of the box a <= z <= b is an integral over all columns
but the last, whose share is a difference of normal distribution functions:

    P = ∫ p(z_1, ..., z_{K−1}) 1[a <= z <= b] (Φ(β(z)) − Φ(α(z))) dz,   α = (a_K − Σ_j L_Kj y_j) / L_KK,   z = L y

- K = 1: nothing is left to integrate.
- K = 2: the integrand is log-concave (Prékopa 1973). Gauss-Legendre panels cover where it is not e^−45 of its largest
  value, with ends where Φ(β) or Φ(α) changes. Relative error below 1e-10 in float64, whatever correlation and tail.
- K >= 3: y = Φ⁻¹(u) between bounds, one column after the other, on a lattice of 2^11 points u with the tent transform
  (Genz 1992; Hickernell 2002), the same for all: 1e-4 of the mass as a rule, less exact as correlations come near 1,
  with more columns, or far in a tail of several columns at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    accumulator,
    astype,
    cached_property,
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
from ringdist.variables.box_functions import LATTICE, between, finite, last_of, lattice, moments_between, slope_of
from ringdist.variables.gaussian_functions import HALF_LOG_2PI, draw_standard, log_between
from ringdist.variables.panels import NODES, Panels

END = 1e12  # standard deviations that stand for infinity
DROP = 45.0  # of the logarithm of an integrand, beyond which it is 0
FLAT = 9.0  # standard deviations from which a normal distribution function does not change
PARTS = 4  # panels on each side of the mode
BREAKS = (-9.0, -4.5, -1.5, 1.5, 4.5, 9.0)  # ends of panels around a change, in its width
MILD = 0.5  # width of a change from which panels need no further ends
MODE_BITS, EXPONENT_BITS = 48, 12  # of searches
LEAST_EXPONENT = -60.0  # of the distance, a power of two, in which the integrand falls by DROP
AT_ONCE = 2**22  # numbers that are in memory together
ROUNDS = 1000  # of proposals until a draw is given up
_T, _W = np.polynomial.legendre.leggauss(NODES)
_LEGENDRE = np.linalg.inv(np.polynomial.legendre.legvander(_T, NODES - 1))


class _Rule(NamedTuple):
    """Points for all columns but the last, and where the last lies given them."""

    outer: Array  # (M, Q, K − 1)
    log_weights: Array  # (M, Q)
    centre: Array  # (M, Q) mean of the last column given the others
    scale: Array  # (M, 1) its standard deviation
    start: Array  # (M, Q) its bounds in these units
    end: Array
    width: Array

    @property
    def logs(self) -> Array:
        """Logarithm of the mass at every point."""
        return self.log_weights + log_between(self.start, self.end, self.width)


class Box:
    """Gaussians of K columns, each restricted to bounds of its own.

    Args:
        means, low, high: broadcast to (..., K), low < high or both of them equal; low and high may be infinite.
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
        square = xp.reshape(square, (-1, self.size, self.size))
        self.means, self.stds = means, xp.sqrt(xp.linalg.diagonal(square))
        self.correlations = square / self.stds[:, :, None] / self.stds[:, None, :]
        self.low, self.high = low, high
        self.start, self.end = ((finite(b) - means) / self.stds for b in (low, high))
        self.start, self.end = (xp.clip(b, min=-END, max=END) for b in (self.start, self.end))
        gap = xp.where(xp.isinf(low) | xp.isinf(high), END, finite(high) - finite(low)) / self.stds
        self.width = xp.clip(gap, min=0.0, max=2 * END)
        self.xp = xp

    @cached_property
    def rule(self) -> _Rule:
        match self.size:
            case 1:
                zero = 0 * self.start
                return _Rule(zero[:, :, None][:, :, :0], zero, zero, 1 + zero, self.start, self.end, self.width)
            case 2:
                return self._pair(0)[0]
        return self._lattice()

    def log_mass(self) -> Array:
        """log P(low <= X <= high), of the leading shape."""
        (logs,) = self._in_parts(lambda box: (logsumexp(box.rule.logs),))
        return self.xp.reshape(logs, self.shape)

    # ------------------------------------------------------------------------------------ two columns

    def _pair(self, outer: int) -> tuple[_Rule, Array, Array]:
        """The rule of two columns with one of them outside, and middles and halves of its panels (M, P)."""
        xp, inner = self.xp, 1 - outer
        a, b, low, high = self.start[:, outer], self.end[:, outer], self.start[:, inner], self.end[:, inner]
        rho = self.correlations[:, 0, 1]
        scale = xp.sqrt((1 - rho) * (1 + rho))

        def last(z: Array) -> tuple[Array, Array, Array]:
            """Bounds of the inner column given the outer one (M, Q), in standard deviations."""
            shift = rho[:, None] * z
            start, end = ((bound[:, None] - shift) / scale[:, None] for bound in (low, high))
            return start, end, self.width[:, inner][:, None] / scale[:, None] + 0 * z

        def log_integrand(z: Array) -> Array:
            return -0.5 * z * z - HALF_LOG_2PI + log_between(*last(z))

        edges = self._edges(log_integrand, last, (a, b, low, high), rho, scale)
        middle, half = 0.5 * (edges[:, 1:] + edges[:, :-1]), 0.5 * (edges[:, 1:] - edges[:, :-1])
        nodes = like(_T, edges)
        z = xp.reshape(middle[:, :, None] + half[:, :, None] * nodes, (edges.shape[0], -1))
        wide = half > 0
        share = xp.where(wide[:, :, None], xp.where(wide, half, 1.0)[:, :, None] * like(_W, edges), 0.0)
        share = xp.reshape(share, z.shape)
        logs = xp.where(share > 0, xp.log(xp.where(share > 0, share, 1.0)), -math.inf)
        start, end, width = last(z)
        logs = logs - 0.5 * z * z - HALF_LOG_2PI
        return _Rule(z[:, :, None], logs, rho[:, None] * z, scale[:, None], start, end, width), middle, half

    def _edges(self, log_integrand: Any, last: Any, bounds: tuple[Array, ...], rho: Array, scale: Array) -> Array:
        """Ends of panels (M, P + 1), ascending; the first and the last move with the bounds of the box."""
        xp, (a, b, low, high) = self.xp, bounds
        first, final, low, high, rho, scale = (stop_gradient(v) for v in (a, b, low, high, rho, scale))
        middle = 0.5 * low + 0.5 * high
        nearest = between(0 * middle, xp.minimum(low + FLAT * scale, middle), xp.maximum(high - FLAT * scale, middle))
        ends = between(0 * first, first, final), between(rho * nearest, first, final)
        left, right = xp.minimum(*ends), xp.maximum(*ends)

        def rising(z: Array) -> Array:
            spread = (part[:, None] for part in (rho, scale))
            return slope_of(z, *spread, *(stop_gradient(part) for part in last(z))) > 0

        mode = last_of(rising, left, right, MODE_BITS)
        top = stop_gradient(log_integrand(mode[:, None]))[:, 0]
        reach = math.sqrt(2 * DROP)  # the logarithm of the integrand is at least as curved as −z² / 2

        def distance(sign: float) -> Array:
            def near(exponent: Array) -> Array:
                z = between(mode[:, None] + sign * 2.0**exponent, first[:, None], final[:, None])
                return stop_gradient(log_integrand(z)) > (top - DROP)[:, None]

            small, large = 0 * mode + LEAST_EXPONENT, 0 * mode + math.log2(reach)
            return 2.0 ** (last_of(near, small, large, EXPONENT_BITS) + 0.1)

        lower, upper = xp.maximum(mode - distance(-1.0), first), xp.minimum(mode + distance(1.0), final)
        parts = like(np.arange(1, PARTS) / PARTS, mode)
        inner = [mode[:, None], mode[:, None] + (upper - mode)[:, None] * parts]
        inner.append(mode[:, None] + (lower - mode)[:, None] * parts)
        steep = xp.abs(rho) > 1e-3
        slope = xp.where(steep, rho, 1.0)
        change = xp.where(steep, scale / xp.abs(slope), END)
        if not (is_concrete(change) and bool(xp.all(change > MILD))):
            breaks = like(BREAKS, mode)
            inner += [(bound / slope)[:, None] + change[:, None] * breaks for bound in (low, high)]
        points = xp.clip(xp.concat(inner, axis=1), min=lower[:, None], max=upper[:, None])
        ends_of = xp.where(lower <= first, a, lower)[:, None], xp.where(upper >= final, b, upper)[:, None]
        return xp.concat([ends_of[0], xp.sort(points, axis=1), ends_of[1]], axis=1)

    # ------------------------------------------------------------------------------ three and more columns

    def _lattice(self) -> _Rule:
        points = like(lattice(self.size - 1), self.start)
        shape = (self.start.shape[0], LATTICE, self.size - 1)
        return self._sequential(self.xp.broadcast_to(points, shape))

    def _sequential(self, u: Array) -> _Rule:
        """One column after the other between its bounds given those before, from u (M, Q, K − 1) in (0, 1)."""
        xp = self.xp
        factor = xp.linalg.cholesky(self.correlations)
        drawn: list[Array] = []
        logs, outer = -math.log(u.shape[1]) + 0 * u[:, :, 0], []
        for j in range(self.size):
            scale = factor[:, j, j][:, None]
            centre = sum((factor[:, j, i][:, None] * y for i, y in enumerate(drawn)), 0 * logs)
            start, end = ((bound[:, j][:, None] - centre) / scale for bound in (self.start, self.end))
            width = self.width[:, j][:, None] / scale + 0 * centre
            if j == self.size - 1:
                break
            logs = logs + log_between(start, end, width)
            y = draw_standard(start, end, width, u[:, :, j])
            y = between(xp.where(xp.isnan(y), start, y), start, end)
            drawn.append(y)
            outer.append(centre + scale * y)
        return _Rule(xp.stack(outer, axis=-1), logs, centre, scale, start, end, width)

    # ------------------------------------------------------------------------------ moments and draws

    def moments(self) -> tuple[Array, Array]:
        """E[X | low <= X <= high] (..., K), and the covariances (..., K, K)."""
        means, covariances = self._in_parts(Box._moments)
        return self.xp.reshape(means, (*self.shape, self.size)), self.xp.reshape(
            covariances, (*self.shape, *2 * (self.size,))
        )

    def _moments(self) -> tuple[Array, Array]:
        xp, size = self.xp, self.size
        if size == 1:
            means, covariances = self._beside()._joint()
            means, covariances = means[:, :1], covariances[:, :1, :1]
        else:
            means, covariances = self._joint()
        if size == 2:  # of the inner column too by the rule in which it is outside
            others = self._joint(1)
            means = xp.stack([means[:, 0], others[0][:, 1]], axis=-1)
            cross = covariances[:, 0, 1]
            rows = xp.stack([covariances[:, 0, 0], cross], axis=-1), xp.stack([cross, others[1][:, 1, 1]], axis=-1)
            covariances = xp.stack(rows, axis=-2)
        means = self.means + self.stds * means
        return means, covariances * self.stds[:, :, None] * self.stds[:, None, :]

    def _joint(self, outer: int = 0) -> tuple[Array, Array]:
        """Means (M, K) and covariances (M, K, K) in standard deviations from the means."""
        xp = self.xp
        rule = self._pair(outer)[0] if self.size == 2 and outer else self.rule
        logs = rule.logs
        share = xp.exp(logs - logsumexp(logs)[:, None])
        offset, spread = moments_between(rule.start, rule.end, rule.width)
        points = xp.concat([rule.outer, (rule.centre + rule.scale * offset)[:, :, None]], axis=-1)
        means = xp.sum(share[:, :, None] * points, axis=1)
        within = points - means[:, None, :]
        covariances = (share[:, :, None] * within).mT @ within
        last = like(np.arange(self.size) == self.size - 1, covariances)
        own = xp.sum(share * spread, axis=1) * rule.scale[:, 0] ** 2
        covariances = covariances + own[:, None, None] * last[:, None] * last
        if outer:
            return xp.flip(means, axis=-1), xp.flip(covariances, axis=(-1, -2))
        return means, covariances

    def _beside(self) -> Box:
        """With one more column, independent and unbounded."""
        xp, zero = self.xp, 0 * self.means
        spread = (self.stds**2)[:, :, None] * identity(2, self.stds)
        join = [xp.concat(pair, axis=-1) for pair in ((self.means, zero), (self.low, zero - math.inf))]
        return Box(join[0], spread, join[1], xp.concat([self.high, zero + math.inf], axis=-1))

    def draw(self, rng: Any) -> Array:
        """One draw from each, (..., K), without gradient.

        Raises:
            ValueError: if a box of three or more columns has so little mass that no proposal was accepted.
        """
        stream = Stream(rng, self.start)
        (values,) = self._in_parts(lambda box: (box._drawn(stream),))
        return stop_gradient(self.xp.reshape(values, (*self.shape, self.size)))

    def _drawn(self, stream: Stream) -> Array:
        u, v, w = (uniform(stream.next(), (self.start.shape[0],), self.start) for _ in range(3))
        match self.size:
            case 1:
                z = draw_standard(self.start[:, 0], self.end[:, 0], self.width[:, 0], u)[:, None]
            case 2:
                z = self._drawn_pair(u, v, w)
            case _:
                z = self._accepted(stream)
        return self.xp.clip(self.means + self.stds * z, min=finite(self.low), max=finite(self.high))

    def _drawn_pair(self, u: Array, v: Array, w: Array) -> Array:
        """The outer column by the inverse of its distribution function, then the other within its bounds."""
        xp, (rule, middle, half) = self.xp, self._pair(0)
        m, parts = middle.shape
        logs = rule.logs - logsumexp(rule.logs)[:, None] - xp.log(xp.tile(like(_W, u), (parts,)))
        values = xp.permute_dims(xp.reshape(logs, (m, parts, NODES)), (1, 2, 0))
        panels = Panels(values, like(_W, u)[None, :, None], like(_LEGENDRE, u)[None])
        panel, t = panels.draw(indices(range(m), u), u, v)
        middle, half = (xp.take_along_axis(part, panel[:, None], axis=1)[:, 0] for part in (middle, half))
        z = middle + half * t
        rho, scale = self.correlations[:, 0, 1], rule.scale[:, 0]
        start, end = ((bound[:, 1] - rho * z) / scale for bound in (self.start, self.end))
        other = rho * z + scale * draw_standard(start, end, self.width[:, 1] / scale, w)
        return xp.stack([z, other], axis=-1)

    def _accepted(self, stream: Stream) -> Array:
        """Proposals of the sequential rule, accepted with the product of the masses of all columns but the first."""
        if not is_concrete(self.start):
            raise ValueError("draws within a box of three or more columns repeat until accepted: not within tracing")
        xp, size = self.xp, self.start.shape[0]
        found, open_rows = np.zeros((size, self.size)), np.arange(size)
        for _ in range(ROUNDS):
            if not open_rows.size:
                return like(found, self.start)
            index = indices(open_rows, self.start)
            some = self._rows(index)
            u = uniform(stream.next(), (open_rows.size, 1, self.size + 1), self.start)
            rule = some._sequential(u[:, :, : self.size - 1])
            share = rule.logs - log_between(*(part[:, :1] for part in (some.start, some.end, some.width)))
            last = rule.centre + rule.scale * draw_standard(rule.start, rule.end, rule.width, u[:, :, -2])
            kept = to_numpy(nonzero_rows((xp.log1p(-u[:, :, -1]) < share)[:, 0]))
            rows = to_numpy(xp.concat([rule.outer, last[:, :, None]], axis=-1))[:, 0]
            found[open_rows[kept]] = rows[kept]
            open_rows = np.delete(open_rows, kept)
        raise ValueError(
            f"draws within intervals of three or more columns of one variable need a probability that is not tiny "
            f"given what is observed, found {open_rows.size} of {size} without an accepted draw in {ROUNDS}"
        )

    def _in_parts(self, function: Callable[[Box], tuple[Array, ...]]) -> list[Array]:
        """Arrays (M, ...) of the box, a bounded number of rows at a time."""
        numbers = (1, 1, 512)[self.size] if self.size < 3 else LATTICE * self.size
        rows, step = self.start.shape[0], max(1, AT_ONCE // numbers)
        if rows <= step or not is_concrete(self.start):
            return list(function(self))
        parts = [function(self._rows(indices(range(i, min(i + step, rows)), self.start))) for i in range(0, rows, step)]
        return [self.xp.concat(pieces) for pieces in zip(*parts, strict=True)]

    def _rows(self, index: Array) -> Box:
        square = self.correlations * self.stds[:, :, None] * self.stds[:, None, :]
        return Box(*(take(part, index) for part in (self.means, square, self.low, self.high)))
