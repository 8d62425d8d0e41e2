"""Masses, moments and samples of components within an interval, for every family with a density and a cdf.

Masses are differences of distribution functions if these do not cancel. If they do, as far in a tail, and for moments,
the density is integrated (see `panels`). All results are computed in the accumulator's dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    is_concrete,
    like,
    namespace,
    stack,
    stop_gradient,
    take,
    to_numpy,
    uniform,
    without_warnings,
)
from ringdist.variables.blocks import Blocks
from ringdist.variables.inversion import first_reached
from ringdist.variables.rays import Rays

Family = Any  # a `variables.Family`, which is made of these functions
WIDE = 12.0  # standard deviations up to which `Blocks` resolve a component anywhere in the interval
LISTED = 128  # largest number of integers that are all evaluated
AT_ONCE = 2**22  # largest number of samples × components in memory together


def log_probability(family: Family, low: float, high: float) -> Array:
    """log P(low <= X <= high | s), (N,)."""
    first, last = _bounds(family, low, high)
    if first > last:
        return 0 * family.means() - math.inf
    below, upto = _ends(family, low, high)
    xp = namespace(upto)
    sure = _is_sure(upto - below)
    logs = xp.log(xp.where(sure, upto - below, 1.0))
    if is_concrete(sure) and bool(xp.all(sure)):
        return logs
    return xp.where(sure, logs, _panels(family, low, high).log_total)


def cdf(family: Family, x: Array, low: float, high: float) -> Array:
    """P(X <= x | low <= X <= high, s) of numbers x (...) within the interval, (..., N)."""
    below, upto = _ends(family, low, high)
    xp = namespace(upto)
    mass, x = upto - below, like(x, upto)
    sure = _is_sure(mass)
    with without_warnings(upto):
        values = like(family.cdf(x), upto)
    values = xp.clip((values - below) / xp.where(sure, mass, 1.0), min=0.0, max=1.0)
    if is_concrete(sure) and bool(xp.all(sure)):
        return values
    return xp.where(sure, values, _panels(family, low, high).cdf(x))


def sample(family: Family, component: Array, low: float, high: float, rng: Any) -> Array:
    """One sample for each entry of `component`, of its shape, given low <= X <= high."""
    below, upto = _ends(family, low, high)
    xp, flat = namespace(upto), namespace(component).reshape(component, (-1,))
    u, v = uniform(rng, (2, *flat.shape), upto)
    sure = _is_sure(upto - below)
    kinds = to_numpy(sure) if is_concrete(sure) else np.asarray([True, False])
    drawn = [_by_cdf(family, flat, u, low, high)] if kinds.any() else []
    if not kinds.all():
        drawn.append(_panels(family, low, high).sample(flat, u, v))
    value = drawn[0] if len(drawn) == 1 else xp.where(take(sure, flat), *drawn)
    first, last = _reach(family, low, high, upto)
    return xp.reshape(xp.clip(value, min=first, max=last), component.shape)


def moments(family: Family, low: float, high: float) -> tuple[Array, Array]:
    """E[X | low <= X <= high, s] and Var[X | low <= X <= high, s], (N,)."""
    if not family.integer:
        return _unending(family, low, high, *_panels(family, low, high).mean_and_variance())
    first, last = _bounds(family, low, high)
    means, variances = family.means(), family.variances()
    xp = namespace(means)
    direct = _panels(family, low, high).mean_and_variance()
    if last - first < LISTED:
        return direct
    stds = xp.sqrt(xp.where(xp.isfinite(variances), variances, math.inf))
    inside = (means > first) & (means < last) & (last - first > WIDE * stds)
    if is_concrete(inside) and not bool(xp.any(inside)):
        return direct
    rest = _without(family, first, last, means, variances)
    return xp.where(inside, rest[0], direct[0]), xp.where(inside, rest[1], direct[1])


def widened(family: Family) -> Family:
    """The family with parameters in the accumulator's dtype."""
    arrays = family.arrays()
    wide = {name: astype(a, accumulator(a)) if _is_floating(a) else a for name, a in arrays.items()}
    if all(wide[name] is array for name, array in arrays.items()):
        return family
    return family.with_arrays(wide)


def log_density_beside(family: Family, points: Array, offsets: Array) -> Array:
    """log p(points[s] + offsets[:, s] | s), (q, N), of points (N,) and offsets (q, N)."""
    xp = namespace(points)
    values = (points + offsets).T  # (N, q)
    singles = [family.component(s) for s in range(family.num_components)]
    with without_warnings(points):
        if family.stacks:
            return like(type(family).stack(singles).log_density(values), points)[..., 0].T
        found = [like(single.log_density(values[s]), points)[..., 0] for s, single in enumerate(singles)]
    return stack(found, axis=1) if len(found) > 1 else xp.reshape(found[0], (-1, 1))


def _panels(family: Family, low: float, high: float) -> Any:
    first, last = _bounds(family, low, high)
    if family.integer:
        return Blocks(family.log_density, first, last, family.means())
    centre, scale = _place(family, first, last)
    return Rays(lambda offset: family.log_density_beside(centre, offset), first, last, centre, scale)


def _place(family: Family, low: float, high: float) -> tuple[Array, Array]:
    """A centre within the interval and a scale of each component, (N,): its mean and standard deviation if possible."""
    means, stds = stop_gradient(family.means()), stop_gradient(family.standard_deviations())
    xp = namespace(means)
    known = xp.isfinite(means) & xp.isfinite(stds) & (stds > 0)
    if is_concrete(known) and not bool(xp.all(known)):
        lower, median, upper = (_quantile(family, q, means) for q in (0.25, 0.5, 0.75))
        means, stds = xp.where(known, means, median), xp.where(known, stds, upper - lower)
    usable = xp.isfinite(means) & xp.isfinite(stds) & (stds > 0)
    means, stds = xp.where(usable, means, 0.0), xp.where(usable, stds, 1.0)
    return xp.clip(means, min=low, max=high), stds


def _quantile(family: Family, q: float, array: Array) -> Array:
    """The quantile of each component, (N,), by bisection."""
    xp = namespace(array)
    end = float(xp.finfo(array.dtype).max)

    def reached(z: Array) -> Array:
        return xp.linalg.diagonal(like(family.cdf(z), array)) >= q

    return first_reached(reached, 0 * array - end, 0 * array + end)


def _by_cdf(family: Family, component: Array, u: Array, low: float, high: float) -> Array:
    """Samples (n,) by bisection on the distribution function, at levels between its values at the ends."""
    xp = namespace(u)
    step = max(1, AT_ONCE // family.num_components)
    if is_concrete(u) and u.shape[0] > step:
        parts = [
            _by_cdf(family, component[i : i + step], u[i : i + step], low, high) for i in range(0, u.shape[0], step)
        ]
        return xp.concat(parts)
    below, upto = (take(end, component) for end in _ends(family, low, high))
    level = below + u * (upto - below)
    first, last = _reach(family, low, high, u)

    def reached(z: Array) -> Array:
        values = like(family.cdf(xp.floor(z) if family.integer else z), u)
        return xp.take_along_axis(values, component[:, None], axis=1)[:, 0] > level

    value = first_reached(reached, 0 * u + first, 0 * u + last)
    return xp.floor(value) if family.integer else value


def _without(family: Family, low: float, high: float, means: Array, variances: Array) -> tuple[Array, Array]:
    """Moments (N,) on the integers low, ..., high, from those of all integers minus those of the others.

    The others must have less mass.
    """
    xp, first, last = namespace(means), *_bounds(family, -math.inf, math.inf)
    outside = [(a, b) for a, b in ((first, low - 1), (high + 1, last)) if a <= b and math.isfinite(a)]
    centre = stop_gradient(means)
    sums = [Blocks(family.log_density, a, b, means).sums(centre) for a, b in outside]
    mass, total, square = (sum(part, 0 * means) for part in zip(*sums, strict=True))
    inside = xp.where(mass < 1, 1 - mass, 1.0)
    moved = means - centre  # 0, with a gradient
    shift = (moved - total) / inside
    return centre + shift, (variances + moved * moved - square) / inside - shift * shift


def _unending(family: Family, low: float, high: float, means: Array, variances: Array) -> tuple[Array, Array]:
    """The moments, infinite if those of the family are infinite and the interval is unbounded."""
    xp = namespace(means)
    ends = math.isinf(max(low, family.support[0])), math.isinf(min(high, family.support[1]))
    if not any(ends):
        return means, variances
    finite = xp.isfinite(stop_gradient(family.variances())), xp.isfinite(stop_gradient(family.means()))
    towards = math.nan if all(ends) else math.inf if ends[1] else -math.inf
    return xp.where(finite[1], means, towards), xp.where(finite[0], variances, math.inf)


def _ends(family: Family, low: float, high: float) -> tuple[Array, Array]:
    """P(X < low | s) and P(X <= high | s), (N,)."""
    array = family.means()
    if family.integer:
        low = math.ceil(low) - 1 if math.isfinite(low) else low
        high = math.floor(high) if math.isfinite(high) else high
    elif math.isfinite(low):
        low = _number_below(low, array)

    def value(bound: float, beyond: float) -> Array:
        if math.isinf(bound):
            return 0 * array + beyond
        return like(family.cdf(like(np.asarray([bound]), array)), array)[0]

    with without_warnings(array):
        return value(low, 0.0), value(high, 1.0)


def _reach(family: Family, low: float, high: float, array: Array) -> tuple[float, float]:
    """The least and the greatest finite number of the interval at which a component may have mass."""
    end = float(namespace(array).finfo(array.dtype).max)
    first, last = _bounds(family, low, high)
    return max(first, -end), min(last, end)


def _bounds(family: Family, low: float, high: float) -> tuple[float, float]:
    """The bounds of the intersection of interval and support; integers for a family of integers."""
    first, last = max(low, family.support[0]), min(high, family.support[1])
    if family.integer:
        first, last = (f(b) if math.isfinite(b) else b for f, b in ((math.ceil, first), (math.floor, last)))
    return float(first), float(last)


def _number_below(number: float, array: Array) -> float:
    """The next lower number of the array's dtype that is not subnormal, because some devices flush those to 0."""
    dtype = np.float32 if namespace(array).finfo(array.dtype).bits == 32 else np.float64
    least = np.finfo(dtype).tiny
    value = np.nextafter(dtype(number), dtype(-np.inf))
    return float(-least if abs(value) < least and number <= 0 else value)


def _is_sure(mass: Array) -> Array:
    """Whether a difference of two distribution functions is accurate, without cancellation."""
    return mass > float(namespace(mass).finfo(mass.dtype).eps) ** (1 / 3)


def _is_floating(array: Array) -> bool:
    return bool(namespace(array).isdtype(array.dtype, "real floating"))
