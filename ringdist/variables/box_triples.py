"""Masses of boxes of three columns, by one integral over the correlations of the first with the others.

With R(t) = [[1, t ρ₁₂, t ρ₁₃], [·, 1, ρ₂₃], [·, ·, 1]] the mass P(R(t)) is a product at t = 0, and

    dP/dt = Σ_j ρ_1j Σ_corners ± φ₂(x_1, x_j; t ρ_1j) P(a_k <= Z_k <= b_k | x_1, x_j),   {j, k} = {2, 3}

over the four corners of the bounds of columns 1 and j (Plackett 1954; Genz 2004). The first column is the one whose
partners are correlated most. Then the integrand is smooth, and few Gauss-Legendre nodes are accurate.
"""

from __future__ import annotations

import math

import numpy as np

from ringdist.backend import Array, indices, like, namespace, stop_gradient
from ringdist.variables.box_rules import Standard
from ringdist.variables.gaussian_functions import log_between

FEW, MANY = 12, 20  # nodes of two rules, whose difference estimates the error
AGREE = 1e-7  # relative difference of the rules below which the larger one is accurate
ROUNDED = 1e-9  # allowed relative error by cancellation
LEAST = 1e-13  # least determinant of a correlation matrix
INFINITE = 1e11  # standard deviations that stand for infinity, or more
_RULES = [np.polynomial.legendre.leggauss(n) for n in (FEW, MANY)]
_T = np.concatenate([0.5 + 0.5 * nodes for nodes, _ in _RULES])
_W = np.zeros((2, FEW + MANY))  # of the one and of the other
_W[0, :FEW], _W[1, FEW:] = (0.5 * weights for _, weights in _RULES)
_SIGNS = np.array([[1.0, -1.0], [-1.0, 1.0]])


def in_good_order(box: Standard) -> Standard:
    """The boxes with the two columns of largest correlation as the last ones."""
    xp, r = namespace(box.start), stop_gradient(box.correlations)
    partners = xp.stack([xp.abs(r[:, 1, 2]), xp.abs(r[:, 0, 2]), xp.abs(r[:, 0, 1])], axis=1)
    alone = xp.argmax(partners, axis=1)
    return box.columns((alone[:, None] + indices(range(3), alone)[None]) % 3)


def log_mass_of_three(box: Standard, log_pair: Array) -> tuple[Array, Array]:
    """log P and whether its relative error is below `AGREE`, both (M,), given the log mass of the last two columns."""
    xp, rho = namespace(log_pair), box.correlations
    first = log_between(*(part[:, 0] for part in box[:3])) + log_pair
    logs, factors = zip(*(_derivative(box, j) for j in (1, 2)), strict=True)
    logs = xp.concat([xp.reshape(part, (*part.shape[:2], 4)) for part in logs], axis=2)  # (M, T, 8)
    factors = xp.concat([xp.reshape(part, (*part.shape[:2], 4)) for part in factors], axis=2)
    top = stop_gradient(xp.maximum(first, xp.max(logs, axis=(1, 2))))
    top = xp.where(top > -math.inf, top, 0.0)
    begin, parts = xp.exp(first - top), factors * xp.exp(logs - top[:, None, None])
    rules = like(_W, parts)
    few, many = (begin + xp.sum(xp.sum(parts, axis=2) * weights, axis=1) for weights in (rules[0], rules[1]))
    size = begin + xp.sum(xp.sum(xp.abs(parts), axis=2) * rules[1], axis=1)
    eps = float(xp.finfo(many.dtype).eps)
    sure = (many > 0) & (xp.abs(many - few) <= max(AGREE, 100 * eps) * many)
    sure = sure & (eps * size <= max(ROUNDED, 20 * eps) * many) & (xp.linalg.det(rho) > LEAST)
    return xp.log(xp.where(sure, many, 1.0)) + top, sure


def _derivative(box: Standard, j: int) -> tuple[Array, Array]:
    """The derivative of P by the correlation of columns 0 and j for every corner: logarithms and signs (M, T, 2, 2)."""
    xp, k, rho = namespace(box.start), 3 - j, box.correlations
    t = like(_T, rho)[None, :, None, None]
    own, other, apart = (part[:, None, None, None] for part in (rho[:, 0, j], rho[:, 0, k], rho[:, 1, 2]))
    r, s = t * own, t * other
    rest = (1 - r) * (1 + r)
    spread = xp.sqrt(xp.clip((rest - s * s - apart * apart + 2 * r * s * apart) / rest, min=LEAST))
    corners = [xp.stack([box.start[:, i], box.end[:, i]], axis=-1) for i in (0, j)]
    near = [xp.abs(corner) < INFINITE for corner in corners]
    x, y = (xp.where(inside, corner, 0.0) for inside, corner in zip(near, corners, strict=True))
    x, y = x[:, None, :, None], y[:, None, None, :]
    counts = near[0][:, None, :, None] & near[1][:, None, None, :]
    logs = -0.5 * x * x - 0.5 * (y - r * x) ** 2 / rest - math.log(2 * math.pi) - 0.5 * xp.log(rest)
    centre = ((s - r * apart) * x + (apart - r * s) * y) / rest
    start, end = ((part[:, k][:, None, None, None] - centre) / spread for part in (box.start, box.end))
    width = box.width[:, k][:, None, None, None] / spread + 0 * centre
    logs = xp.where(counts, logs + log_between(start, end, width), -math.inf)
    return logs, xp.where(counts, own * like(_SIGNS, r), 0.0) + 0 * r
