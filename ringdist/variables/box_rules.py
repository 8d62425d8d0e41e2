"""Quadrature rules for integrals over boxes: Gauss-Legendre panels for two columns, a lattice for more."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, is_concrete, like, namespace, stop_gradient
from ringdist.variables.box_functions import between, exponent_derivative, last_of
from ringdist.variables.gaussian_functions import HALF_LOG_2PI, draw_standard, log_between
from ringdist.variables.panels import NODES

END = 1e12  # standard deviations that stand for infinity
DROP = 45.0  # decrease of the logarithm of an integrand beyond which the integrand counts as 0
FLAT = 9.0  # standard deviations beyond which a normal distribution function is constant
PARTS = 4  # panels on each side of the mode
BREAKS = (-9.0, -4.5, -1.5, 1.5, 4.5, 9.0)  # ends of panels around a change, in units of its width
MILD = 0.5  # width of a change above which panels need no further ends
MODE_BITS, EXPONENT_BITS = 48, 12  # steps of bisection
LEAST_EXPONENT = -60.0  # of the distance, a power of two, in which the integrand falls by DROP
_T, _W = np.polynomial.legendre.leggauss(NODES)


class Standard(NamedTuple):
    """Bounds (M, K) of standardised columns, and their correlations (M, K, K)."""

    start: Array
    end: Array
    width: Array
    correlations: Array

    def columns(self, order: Array) -> Standard:
        """The boxes with the columns in an order (M, L) for each box."""
        xp = namespace(order)
        start, end, width = (xp.take_along_axis(part, order, axis=1) for part in self[:3])
        rows = xp.take_along_axis(self.correlations, order[:, :, None], axis=1)
        return Standard(start, end, width, xp.take_along_axis(rows, order[:, None, :], axis=2))


class Rule(NamedTuple):
    """Points and weights for all columns but the last, and the distribution of the last given them."""

    outer: Array  # (M, Q, K − 1)
    log_weights: Array  # (M, Q)
    centre: Array  # (M, Q) mean of the last column given the others
    scale: Array  # (M, 1) its standard deviation
    start: Array  # (M, Q) its bounds in these units
    end: Array
    width: Array

    @property
    def logs(self) -> Array:
        """The logarithm of the mass at every point."""
        return self.log_weights + log_between(self.start, self.end, self.width)


def pair_rule(box: Standard, outer: int = 0) -> tuple[Rule, Array, Array]:
    """The rule for two columns, one of them the outer one, and the centres and half-widths of its panels (M, P)."""
    xp, inner = namespace(box.start), 1 - outer
    a, b, low, high = box.start[:, outer], box.end[:, outer], box.start[:, inner], box.end[:, inner]
    rho = box.correlations[:, 0, 1]
    scale = xp.sqrt((1 - rho) * (1 + rho))

    def last(z: Array) -> tuple[Array, Array, Array]:
        """Bounds of the inner column given the outer one (M, Q), in standard deviations."""
        shift = rho[:, None] * z
        start, end = ((bound[:, None] - shift) / scale[:, None] for bound in (low, high))
        return start, end, box.width[:, inner][:, None] / scale[:, None] + 0 * z

    def log_integrand(z: Array) -> Array:
        return -0.5 * z * z - HALF_LOG_2PI + log_between(*last(z))

    edges = _edges(log_integrand, last, (a, b, low, high), rho, scale)
    middle, half = 0.5 * (edges[:, 1:] + edges[:, :-1]), 0.5 * (edges[:, 1:] - edges[:, :-1])
    nodes = like(_T, edges)
    z = xp.reshape(middle[:, :, None] + half[:, :, None] * nodes, (edges.shape[0], -1))
    wide = half > 0
    share = xp.where(wide[:, :, None], xp.where(wide, half, 1.0)[:, :, None] * like(_W, edges), 0.0)
    share = xp.reshape(share, z.shape)
    logs = xp.where(share > 0, xp.log(xp.where(share > 0, share, 1.0)), -math.inf)
    start, end, width = last(z)
    logs = logs - 0.5 * z * z - HALF_LOG_2PI
    return Rule(z[:, :, None], logs, rho[:, None] * z, scale[:, None], start, end, width), middle, half


def _edges(log_integrand: Any, last: Any, bounds: tuple[Array, ...], rho: Array, scale: Array) -> Array:
    """Ends of panels (M, P + 1), ascending; the first and the last have gradients by the bounds of the box."""
    xp, (a, b, low, high) = namespace(rho), bounds
    first, final, low, high, rho, scale = (stop_gradient(v) for v in (a, b, low, high, rho, scale))
    middle = 0.5 * low + 0.5 * high
    nearest = between(0 * middle, xp.minimum(low + FLAT * scale, middle), xp.maximum(high - FLAT * scale, middle))
    ends = between(0 * first, first, final), between(rho * nearest, first, final)
    left, right = xp.minimum(*ends), xp.maximum(*ends)

    def rising(z: Array) -> Array:
        spread = (part[:, None] for part in (rho, scale))
        return exponent_derivative(z, *spread, *(stop_gradient(part) for part in last(z))) > 0

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


def sequential_rule(box: Standard, u: Array) -> Rule:
    """One column after another, each within its bounds given the previous ones, from u (M or 1, Q, K − 1) in (0, 1)."""
    xp = namespace(box.start)
    factor = xp.linalg.cholesky(box.correlations)
    logs = -math.log(u.shape[1]) + 0 * box.start[:, :1]
    drawn: list[Array] = []
    outer: list[Array] = []
    for j in range(box.start.shape[1]):
        scale, centre = factor[:, j, j][:, None], 0 * box.start[:, :1]
        for i, y in enumerate(drawn):
            centre = centre + factor[:, j, i][:, None] * y
        start, end = ((bound[:, j][:, None] - centre) / scale for bound in (box.start, box.end))
        width = box.width[:, j][:, None] / scale
        if j == box.start.shape[1] - 1:
            break
        logs = logs + log_between(start, end, width)
        y = draw_standard(start, end, width, u[:, :, j])
        y = between(xp.where(xp.isnan(y), start, y), start, end)
        drawn.append(y)
        outer.append(centre + scale * y)
    return Rule(xp.stack(outer, axis=-1), logs, centre, scale, start, end, width + 0 * start)
