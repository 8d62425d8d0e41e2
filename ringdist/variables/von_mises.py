"""Von Mises components, for angles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    dtype_name,
    is_concrete,
    namespace,
    special,
    stop_gradient,
    uniform,
)
from ringdist.variables.checks import check_name, check_values, observed, parameters
from ringdist.variables.gamma_functions import polynomial
from ringdist.variables.placing import centres_and_widths
from ringdist.variables.protocol import Family

HALF_TURN = float(np.float32(math.pi))  # a little more than π, so that angles rounded to float32 are inside
TINY = 1e-30  # added to a concentration where a library's gradient is wrong at 0
FEW, MANY = 60, 1000  # rounds of proposals under tracing, and at most; a third of the proposals is rejected
LARGE = {"float64": 50.0, "float32": 12.0}  # concentrations above which the series below is accurate


def _rule(size: int) -> list[tuple[float, float]]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return list(zip(((1 + nodes) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _coefficients() -> list[float]:
    """The coefficients of 1 − I_1(κ) / I_0(κ) in powers of 1 / κ, from the differential equation of the ratio."""
    found = [0.5]
    for n in range(2, 18):
        found.append(0.5 * ((n - 2) * found[-1] + sum(found[i] * found[n - 2 - i] for i in range(n - 1))))
    return found


# Nodes and weights for a tail, and its length in nats; computed once, because torch.compile cannot trace this.
RULES = {"float64": (_rule(40), 40.0), "float32": (_rule(20), 18.0)}
SERIES = _coefficients()


class VonMisesMixture(Family):
    """An angle with von Mises components.

    p(x | s) = exp(κ cos(x − locs[s])) / (2π I_0(κ)), κ = concentrations[s], for −π <= x <= π

    Angles are in radians. Angles outside raise a `ValueError`; `(x + π) % (2 π) − π` maps them inside.
    For densities and EM both ends are the same point. `cdf`, `means`, `variances` and quantiles are
    those of the number x, so a component at π has half of its mass at each end. The EM step is exact.

    Args:
        locs: (N,) directions in [−π, π].
        concentrations: (N,) finite and not negative; 0 is uniform, and 1 / sqrt(κ) the standard
            deviation for large κ.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a direction is outside [−π, π], or a concentration is negative
            or not finite.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> wind = rd.VonMisesMixture([0.0, np.pi], [0.0, 4.0])  # uniform, mostly from one side
        >>> wind.log_density(np.array([np.pi, 0.0])).round(3)
        array([[-1.838, -0.263],
               [-1.838, -8.263]])
    """

    support = (-math.pi, math.pi)
    positive = ("concentrations",)
    stacks = True
    streams = True
    has_variance = True

    def __init__(self, locs: Array, concentrations: Array, name: str | None = None, *, validate: bool = True):
        arrays = parameters(locs=locs, concentrations=concentrations)
        if validate:
            check_values("locs", arrays["locs"], lambda v: np.abs(v) <= HALF_TURN, "between −π and π")
            check_values(
                "concentrations",
                arrays["concentrations"],
                lambda v: np.isfinite(v) & (v >= 0),
                "not negative and finite",
            )
        self._set(int(arrays["locs"].shape[0]), check_name(name), arrays)

    def log_density(self, x: Array) -> Array:
        locs, concentrations = self._arrays["locs"], self._arrays["concentrations"]
        xp = namespace(x)
        inside = xp.abs(x) <= HALF_TURN
        half = xp.sin(0.5 * (xp.where(inside, x, 0.0)[..., None] - locs))
        logs = -2 * concentrations * half * half - _log_i0e(concentrations) - math.log(2 * math.pi)
        return xp.where(inside[..., None], logs, -math.inf)

    def cdf(self, x: Array) -> Array:
        locs, concentrations = self._arrays["locs"], self._arrays["concentrations"]
        xp = namespace(x)
        angle, turns = _wrapped(xp.clip(x, min=-math.pi, max=math.pi)[..., None] - locs)
        below = angle < 0
        concentrations = concentrations + 0 * angle
        tail = _tail(xp.where(below, -angle, angle), concentrations)
        beyond = _tail(math.pi - xp.where(locs < 0, -locs, locs), concentrations + 0 * locs)
        start = xp.where(locs < 0, -beyond, beyond)  # moves the origin from the antipode of locs to −π
        values = xp.where(below, turns + tail, (turns + 1) - tail) + start
        values = xp.clip(values, min=0.0, max=1.0)
        return xp.where((x >= math.pi)[..., None], 1.0, xp.where((x < -math.pi)[..., None], 0.0, values))

    def sample(self, component: Array, rng: Any) -> Array:
        """By rejection from a wrapped Cauchy density (Best and Fisher 1979), stable for any concentration."""
        locs, concentrations = self._pick("locs", component), self._pick("concentrations", component)
        xp, stream = namespace(locs), Stream(rng, locs)
        excess = 0.5 * (1 + 1 / (xp.sqrt(1 + 4 * concentrations * concentrations) + 2 * concentrations))
        narrow = xp.sqrt(excess / (excess + 2 * concentrations))
        tangent, done = 0 * locs, xp.zeros_like(locs, dtype=xp.bool)
        concrete = is_concrete(locs)
        for _ in range(MANY if concrete else FEW):
            u, v = uniform(stream.next(), (2, *locs.shape), locs)
            proposal = narrow * xp.tan(math.pi * (u - 0.5))
            square = proposal * proposal / (1 + proposal * proposal)
            distance = excess + 2 * concentrations * square
            accepted = ~done & (v <= distance * xp.exp(1 - distance))
            tangent, done = xp.where(accepted, proposal, tangent), done | accepted
            if concrete and bool(xp.all(done)):
                break
        angle, _ = _wrapped(locs + 2 * xp.atan(tangent))
        return xp.clip(angle, min=-math.pi, max=math.pi)

    def means(self) -> Array:
        """E[x] of the number x in [−π, π], (N,); this is not the direction `locs` if mass wraps around an end."""
        locs, concentrations = self._arrays["locs"], self._arrays["concentrations"]
        xp = namespace(locs)
        return locs - 2 * math.pi * xp.sign(locs) * _tail(math.pi - xp.abs(locs), concentrations)

    def variances(self) -> Array:
        """Var[x] of the number x in [−π, π], (N,)."""
        locs, concentrations = self._arrays["locs"], self._arrays["concentrations"]
        start = math.pi - namespace(locs).abs(locs)
        square = 2 * _tail(0 * locs, concentrations, lambda angle: angle * angle)
        beyond = _tail(start, concentrations, lambda angle: math.pi - angle)
        moved = 2 * math.pi * _tail(start, concentrations)
        return square + 4 * math.pi * beyond - moved * moved

    def centres(self) -> Array:
        locs = self._arrays["locs"]
        return namespace(locs).clip(locs, min=-math.pi, max=math.pi)

    def inner(self, other: Any) -> Array:
        """I_0(c) / (2π I_0(κ) I_0(κ')) with c the length of the sum of both vectors κ e^(i loc), (N, N')."""
        self._check_sibling(other)
        one, two = self._arrays["concentrations"][:, None], other._arrays["concentrations"][None, :]
        xp = namespace(one, two)
        half = xp.sin(0.5 * (self._arrays["locs"][:, None] - other._arrays["locs"][None, :]))
        total, apart = one + two, 4 * one * two * half * half
        length = xp.sqrt(xp.clip(total * total - apart, min=0.0) + TINY)
        logs = _log_i0e(length) - _log_i0e(one) - _log_i0e(two) - apart / (length + total)
        return xp.exp(logs) / (2 * math.pi)

    def in_support(self, x: Array) -> Array:
        return namespace(x).isnan(x) | (namespace(x).abs(x) <= HALF_TURN)

    def _finding(self, value: float) -> str:
        return f"angles lie in [−π, π], found {value:g}; (x + π) % (2 π) − π brings them in"

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        cls([0.0], [1.0]).check(observed)
        found, widths = centres_and_widths(observed, num_components, method, limits)
        return cls(np.clip(found, -math.pi, math.pi), 1 / np.clip(widths, 1e-3, 10.0) ** 2, **options)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sums of sin(x − loc) and of 1 − cos(x − loc), which are accurate for narrow components."""
        x, weights = observed(x, responsibilities)
        xp = namespace(weights)
        gap = x[:, None] - self._arrays["locs"]
        half = xp.sin(0.5 * gap)
        terms = {"sine": xp.sin(gap), "versine": 2 * half * half}
        return {"count": xp.sum(weights, axis=0), **{key: xp.sum(weights * v, axis=0) for key, v in terms.items()}}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        _, rest = _mean_length(self._arrays["concentrations"])
        return {"count": weights, "sine": 0 * weights, "versine": weights * rest}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        """As in `Family`; 1 / sqrt(κ) is at least `least_std`, and at least the rounding error of an angle."""
        locs, concentrations = self._arrays["locs"], self._arrays["concentrations"]
        xp = namespace(locs)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        sine, versine = (xp.where(seen, statistics[key] / count, 0.0) for key in ("sine", "versine"))
        length = xp.sqrt((1 - versine) ** 2 + sine * sine)
        eps = float(xp.finfo(locs.dtype).eps)
        rest = xp.maximum((versine * (2 - versine) - sine * sine) / (1 + length), 4 * eps * versine)
        found = _concentration(length, rest)
        found = xp.clip(found, max=1 / max(least_std, 16 * eps) ** 2)
        turned, _ = _wrapped(locs + xp.atan2(sine, 1 - versine))
        return type(self)(xp.where(seen, turned, locs), xp.where(seen, found, concentrations), name=self.name)


def _wrapped(angle: Array) -> tuple[Array, Array]:
    """The angle reduced to within half a turn of 0, and the number of turns subtracted."""
    turns = namespace(angle).round(stop_gradient(angle) / (2 * math.pi))
    return angle - 2 * math.pi * turns, turns


def _log_i0e(concentrations: Array) -> Array:
    """log I_0(κ) − κ."""
    return namespace(concentrations).log(special("i0e", concentrations + TINY))


def _tail(start: Array, concentrations: Array, factor: Callable[[Array], Array] | None = None) -> Array:
    """∫ f(θ) p(θ) dθ from `start` in [0, π] to π for a density at loc 0, with small relative error; f is 1 if None."""
    xp = namespace(start)
    nodes, reach = RULES[dtype_name(start.dtype)]
    fixed, known = stop_gradient(start), stop_gradient(concentrations)
    half = xp.sin(0.5 * fixed)
    end = half * half + 0.5 * reach / (known + TINY)  # sin² of half the angle at which the density is negligible
    end = 2 * xp.asin(xp.sqrt(xp.clip(end, max=1.0)))
    whole = math.pi - start
    share = stop_gradient(xp.clip((end - fixed) / xp.where(whole > 0, whole, 1.0), min=0.0, max=1.0))
    width, total = share * whole, 0 * (start + concentrations)
    for node, weight in nodes:
        step = node * width
        value = xp.exp(-2 * concentrations * xp.sin(start + 0.5 * step) * xp.sin(0.5 * step))
        total = total + weight * (value if factor is None else value * factor(start + step))
    half = xp.sin(0.5 * start)
    peak = xp.exp(-2 * concentrations * half * half - _log_i0e(concentrations)) / (2 * math.pi)
    return peak * width * total


def _mean_length(concentrations: Array) -> tuple[Array, Array]:
    """A(κ) = I_1(κ) / I_0(κ) and 1 − A(κ), each to full relative precision."""
    xp = namespace(concentrations)
    large = concentrations > LARGE[dtype_name(concentrations.dtype)]
    small, inverse = xp.where(large, 1.0, concentrations), 1 / xp.where(large, concentrations, 1.0)
    zero, one = special("i0e", small), special("i1e", small)
    far = inverse * polynomial(SERIES, xp.where(large, inverse, 0.0))
    return xp.where(large, 1 - far, one / zero), xp.where(large, far, (zero - one) / zero)


def _concentration(length: Array, rest: Array) -> Array:
    """The κ with A(κ) = `length` = 1 − `rest`, by Newton's method for log(A / (1 − A)) in log κ."""
    xp = namespace(length)
    least = 1e-12 if dtype_name(length.dtype) == "float64" else 1e-7
    wanted = xp.log(xp.clip(length, min=least)) - xp.log(xp.clip(rest, min=float(xp.finfo(rest.dtype).smallest_normal)))
    logs = wanted + math.log(2) * xp.where(wanted > 0, -1.0, xp.ones_like(wanted))
    for _ in range(10):
        kappa = xp.exp(logs)
        mean, other = _mean_length(kappa)
        change = 1 - mean / xp.clip(kappa, min=least) - mean * mean
        slope = xp.where(kappa > 1e3, 1.0, kappa * change / (mean * other))
        logs = logs - (xp.log(mean) - xp.log(other) - wanted) / xp.clip(slope, min=1.0, max=1.6)
    return xp.where(length > least, xp.exp(logs), 2 * length)
