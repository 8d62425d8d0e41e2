"""Student-t components, for numbers with heavy tails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    dtype_name,
    namespace,
    reciprocal,
    stop_gradient,
    uniform,
    without_warnings,
)
from ringdist.variables.checks import check_name, check_values, observed, parameters
from ringdist.variables.gamma_functions import HALF_LOG_2PI, excess, inverse_log_gap, log_gap, stirling_error
from ringdist.variables.gaussian import std_range
from ringdist.variables.placing import centres_and_widths
from ringdist.variables.protocol import Family
from ringdist.variables.tails import tail_integral

DOFS = 0.1, 1e8  # bounds under EM; a component of 1e8 is Gaussian to eight digits
JUMPS = 1 / 3, 1 / 1.2, 1.2, 3.0  # multiples of the degrees of freedom, as alternatives to EM's step
FIRST_DOFS = 5.0
OUTLIERS = 10.0  # interquartile ranges from the median, beyond which a value does not affect the least scale


class StudentTMixture(Family):
    """A real variable with Student-t components.

    p(x | s) = Γ((ν + 1) / 2) / (Γ(ν / 2) sqrt(ν π) σ) (1 + z² / ν)^(−(ν + 1) / 2),
    z = (x − locs[s]) / σ, σ = scales[s], ν = dofs[s]

    With many degrees of freedom a component is Gaussian; with few, it is robust against outliers. EM
    treats a component as a Gaussian whose precision is gamma-distributed, row by row, in its
    parameter-expanded form (Liu, Rubin and Wu 1998). If changing only the degrees of freedom to one of
    several multiples gains more, this is done instead. They stay between 0.1 and 1e8.

    Args:
        locs: (N,) centres, finite.
        scales: (N,) scales, positive, in the range of the standard deviations of `GaussianMixture`.
        dofs: (N,) degrees of freedom, positive and finite.
        name: the column's name, or None.
        validate: whether values are checked; shapes always are.

    Raises:
        ValueError: if shapes differ, a centre is not finite, or a scale or a number of degrees of
            freedom is out of range.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> returns = rd.StudentTMixture([0.0, 0.0], [1.0, 1.0], [1.0, 1e8])
        >>> returns.cdf(np.array([-3.0])).round(4)  # Cauchy, Gaussian
        array([[0.1024, 0.0013]])
        >>> rd.StudentTMixture([0.0, 0.0], [1.0, 1.0], [2.0, 4.0]).variances()
        array([inf,  2.])
    """

    positive = ("scales", "dofs")
    stacks = True
    streams = True
    has_variance = True

    def __init__(self, locs: Array, scales: Array, dofs: Array, name: str | None = None, *, validate: bool = True):
        arrays = parameters(locs=locs, scales=scales, dofs=dofs)
        if validate:
            check_values("locs", arrays["locs"], np.isfinite, "finite")
            least, most = std_range(arrays["scales"])
            check_values(
                "scales", arrays["scales"], lambda v: (v >= least) & (v <= most), f"between {least:.3g} and {most:.3g}"
            )
            check_values("dofs", arrays["dofs"], lambda v: np.isfinite(v) & (v > 0), "positive and finite")
        self._set(int(arrays["locs"].shape[0]), check_name(name), arrays)

    def log_density(self, x: Array) -> Array:
        scales, dofs = self._arrays["scales"], self._arrays["dofs"]
        with without_warnings(scales):
            _, logs = self._ratio(x)
            peak = _gamma_ratio(dofs) - HALF_LOG_2PI - namespace(scales).log(scales)
            return peak - 0.5 * (dofs + 1) * logs

    def cdf(self, x: Array) -> Array:
        xp, dofs = namespace(x), self._arrays["dofs"]
        with without_warnings(x):
            ratio, logs = self._ratio(x)
            below = ratio < 0
            dofs = dofs + 0 * logs
            density = xp.exp(_gamma_ratio(dofs) - HALF_LOG_2PI - 0.5 * dofs * logs) * xp.sqrt(dofs)
            tail = density * _tail_integral(xp.where(below, -ratio, ratio), dofs)
            return xp.where(below, tail, 1 - tail)

    def sample(self, component: Array, rng: Any) -> Array:
        """By Bailey's polar method (1994); values beyond the range of the dtype become its largest number."""
        locs, scales, dofs = (self._pick(name, component) for name in ("locs", "scales", "dofs"))
        xp = namespace(locs)
        u, v = uniform(rng, (2, *locs.shape), locs)
        growth = -2 / dofs * xp.log1p(-u)
        with without_warnings(locs):
            root = xp.where(growth > 40, xp.exp(0.5 * growth), xp.sqrt(xp.expm1(xp.clip(growth, max=40.0))))
            limit = float(xp.finfo(locs.dtype).max)
            z = xp.clip(xp.sqrt(dofs) * root, max=limit) * xp.cos(2 * math.pi * v)
            return xp.clip(locs + scales * z, min=-limit, max=limit)

    def means(self) -> Array:
        """locs, (N,); NaN where dofs <= 1, as no mean exists."""
        locs, dofs = self._arrays["locs"], self._arrays["dofs"]
        return namespace(locs).where(dofs > 1, locs, math.nan)

    def variances(self) -> Array:
        """scales² dofs / (dofs − 2), (N,); inf where dofs <= 2, NaN where dofs <= 1."""
        with without_warnings(self._arrays["scales"]):
            return self.standard_deviations() ** 2

    def standard_deviations(self) -> Array:
        scales, dofs = self._arrays["scales"], self._arrays["dofs"]
        xp, wide = namespace(scales), dofs > 2
        stds = scales * xp.sqrt(1 + 2 / xp.where(wide, dofs - 2, 1.0))
        return xp.where(wide, stds, xp.where(dofs > 1, math.inf, math.nan * stds))

    def centres(self) -> Array:
        return self._arrays["locs"]

    def scales(self) -> Array:
        return self._arrays["scales"]

    def inner(self, other: Any) -> Array:
        """∫ p(x | s) q(x | t) dx, (N, N'), by quadrature between the centres and beyond them."""
        self._check_sibling(other)
        left = {name: array[:, None] for name, array in self._arrays.items()}
        right = {name: array[None, :] for name, array in other._arrays.items()}
        distance = namespace(left["locs"], right["locs"]).abs(left["locs"] - right["locs"])
        unit = namespace(distance).minimum(left["scales"], right["scales"]) + 0 * distance

        def product(near: Array, far: Array) -> Array:
            return namespace(near).exp(_log_kernel(near, **left) + _log_kernel(far, **right))

        total = 0 * unit
        step, nodes = 0.09, np.arange(-40, 41)
        with without_warnings(unit):
            for y in (step * nodes).tolist():
                beyond = unit * math.exp(0.5 * math.pi * math.sinh(y))
                outer = product(beyond, beyond + distance) + product(beyond + distance, beyond)
                share, rest = 1 / (1 + math.exp(-math.pi * math.sinh(y))), 1 / (1 + math.exp(math.pi * math.sinh(y)))
                between = product(share * distance, rest * distance) * distance * (share * rest)
                total = total + step * math.pi * math.cosh(y) * (0.5 * beyond * outer + between)
        return total

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        locs, widths = centres_and_widths(observed, num_components, method, limits)
        return cls(locs, widths, np.full(locs.shape, FIRST_DOFS), **options)

    def floored(self, x: np.ndarray) -> np.ndarray:
        """x with outliers as NaN, so that they do not make the least scale large."""
        if np.isnan(x).all():
            return x
        low, middle, high = np.nanquantile(x, (0.25, 0.5, 0.75))
        reach = OUTLIERS * (0.5 * high - 0.5 * low)
        return np.where((np.abs(0.5 * x - 0.5 * middle) <= reach) | (reach == 0), x, np.nan)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """Sums of expected values with the row's precision τ, and of log-densities after jumps of ν.

        "weight" is τ − 1, "logarithm" is log τ up to a constant, "offset" is τ z, "square" is τ z², and
        "jump_j" is log(1 + z² / ν_j) − log(1 + z² / ν). All but the logarithms are bounded.
        """
        x, weights = observed(x, responsibilities)
        dofs = self._arrays["dofs"]
        xp = namespace(weights)
        with without_warnings(weights):
            ratio, logs = self._ratio(x)
            far = xp.abs(ratio) > 1
            inverse, near = 1 / xp.where(far, ratio, 1.0), xp.where(far, 0.0, ratio)
            shrunk = xp.where(far, inverse / (1 + inverse * inverse), near / (1 + near * near))  # r / (1 + r²)
            square = xp.where(far, 1 / (1 + inverse * inverse), near * shrunk)  # r² / (1 + r²)
        growth = 1 + 1 / dofs
        terms = {
            "weight": growth * (1 / (dofs + 1) - square),
            "logarithm": xp.log1p(1 / dofs) - logs,
            "offset": growth * xp.sqrt(dofs) * shrunk,
            "square": (dofs + 1) * square,
            **{f"jump_{j}": xp.log1p((1 / multiple - 1) * square) for j, multiple in enumerate(JUMPS)},
        }
        return {"count": xp.sum(weights, axis=0), **{key: xp.sum(weights * v, axis=0) for key, v in terms.items()}}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        dofs = self._arrays["dofs"]
        xp, peak = namespace(dofs), _tail_integral(0 * dofs, dofs)
        expected = {}
        for j, multiple in enumerate(JUMPS):

            def grown(t: Array, by: float = 1 / multiple - 1) -> Array:
                return xp.log1p(by * xp.tanh(t) ** 2)

            expected[f"jump_{j}"] = weights * (_tail_integral(0 * dofs, dofs, grown) / peak)
        logarithm = log_gap(0.5 * (dofs + 1)) - log_gap(0.5 * dofs)
        nothing = 0 * weights
        known = {"weight": nothing, "logarithm": weights * logarithm, "offset": nothing, "square": weights}
        return {"count": weights, **known, **expected}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        """As in `Family`, with `least_std` for scales. A component with equal values keeps its scale if that is 0."""
        locs, scales, dofs = (self._arrays[name] for name in ("locs", "scales", "dofs"))
        xp, (least, most) = namespace(locs), std_range(scales)
        eps = float(xp.finfo(scales.dtype).eps)
        seen = statistics["count"] > 0
        count = xp.where(seen, statistics["count"], 1.0)
        mean = {key: xp.where(seen, total / count, 0.0) for key, total in statistics.items()}
        growth = 1 + mean["weight"]
        shift, square = mean["offset"] / growth, mean["square"] / growth
        variance = square - shift * shift
        moved = locs + shift * scales
        scale = xp.sqrt(xp.where(variance > 0, variance, 1.0)) * scales
        positive = seen & (variance > 16 * eps * square) & (scale > 2 * eps * xp.abs(moved))
        kept = xp.where(seen | (scales < least_std), least_std, scales) if least_std else scales
        scale = xp.clip(xp.where(positive, scale, kept), min=max(least, least_std), max=most)
        found, gain = self._step(mean, xp.where(positive, growth * variance, 1.0))
        jumped, more = self._jump(mean)
        jump = seen & positive & (scales >= least_std) & (more > xp.clip(gain, min=0.01 * math.sqrt(eps)))
        locs, scale = xp.where(jump, locs, moved), xp.where(jump, scales, scale)
        return type(self)(locs, scale, xp.where(jump, jumped, xp.where(seen, found, dofs)), name=self.name)

    def _step(self, mean: dict[str, Array], variance: Array) -> tuple[Array, Array]:
        """Degrees of freedom after EM's step, and a lower bound of the log-likelihood that it gains per row.

        Args:
            mean: statistics per row.
            variance: of the expanded model, relative to the scale: the mean of τ (z − shift)².
        """
        dofs = self._arrays["dofs"]
        xp, half = namespace(dofs), 0.5 * dofs
        logarithm = mean["logarithm"] - log_gap(half + 0.5)
        spread = xp.log1p(mean["weight"]) - logarithm  # log mean τ − mean log τ
        found = 2 * inverse_log_gap(xp.clip(spread, min=0.25 / DOFS[1]))
        found = xp.minimum(xp.maximum(found, xp.clip(dofs, max=DOFS[0])), xp.clip(dofs, min=DOFS[1]))
        after = 0.5 * xp.log(found) - stirling_error(0.5 * found) - 0.5 * found * spread
        before = 0.5 * xp.log(dofs) - stirling_error(half) + half * (logarithm - mean["weight"])
        return found, after - before + 0.5 * (mean["square"] - 1 - xp.log(variance))

    def _jump(self, mean: dict[str, Array]) -> tuple[Array, Array]:
        """The best multiple of the degrees of freedom, and the log-likelihood that it gains per row."""
        dofs = self._arrays["dofs"]
        xp = namespace(dofs)
        logs = xp.log1p(1 / dofs) - mean["logarithm"]
        best, most = dofs, 0 * dofs
        for j, multiple in enumerate(JUMPS):
            other = multiple * dofs
            change = _gamma_ratio(other) - _gamma_ratio(dofs) - 0.5 * (other - dofs) * logs
            gain = change - 0.5 * (other + 1) * mean[f"jump_{j}"]
            better = (gain > most) & (other >= DOFS[0]) & (other <= DOFS[1])
            best, most = xp.where(better, other, best), xp.where(better, gain, most)
        return best, most

    def _ratio(self, x: Array) -> tuple[Array, Array]:
        """z / sqrt(ν) and log(1 + z² / ν), (..., N)."""
        locs, scales, dofs = (self._arrays[name] for name in ("locs", "scales", "dofs"))
        x = x if namespace(x).isdtype(x.dtype, "real floating") else astype(x, locs.dtype)
        return _ratio(0.5 * x[..., None] - 0.5 * locs, scales, dofs)


def _ratio(half_gap: Array, scales: Array, dofs: Array) -> tuple[Array, Array]:
    """z / sqrt(ν) and log(1 + z² / ν) for z = 2 half_gap / scale of any size."""
    xp = namespace(half_gap)
    limit = 0.1 * float(xp.finfo(scales.dtype).max)
    ratio = xp.clip(half_gap * (2 * reciprocal(scales)), min=-limit, max=limit) / xp.sqrt(dofs)
    far = xp.abs(ratio) > 1
    near, inverse = xp.where(far, 0.0, ratio), 1 / xp.where(far, ratio, 1.0)
    beyond = xp.log(xp.where(far, xp.abs(half_gap), 1.0)) - xp.log(0.5 * scales)
    return ratio, xp.where(far, 2 * beyond - xp.log(dofs) + xp.log1p(inverse * inverse), xp.log1p(near * near))


def _log_kernel(offset: Array, locs: Array, scales: Array, dofs: Array) -> Array:
    """The log-density at an offset from the centre."""
    _, logs = _ratio(0.5 * offset, scales, dofs)
    return _gamma_ratio(dofs) - HALF_LOG_2PI - namespace(scales).log(scales) - 0.5 * (dofs + 1) * logs


def _gamma_ratio(dofs: Array) -> Array:
    """log Γ((ν + 1) / 2) − log Γ(ν / 2) − log(ν / 2) / 2, near −1 / (4ν) for large ν."""
    half = 0.5 * dofs
    return stirling_error(half + 0.5) - stirling_error(half) - half * excess(1 / dofs)


def _tail_integral(ratio: Array, dofs: Array, factor: Callable[[Array], Array] | None = None) -> Array:
    """∫ f(v − v_0) (cosh v / cosh v_0)^−ν dv from v_0 = asinh(ratio) >= 0; f is 1 if None.

    On the scale of v = asinh(z / sqrt(ν)) the density is log-concave for every ν.
    """
    xp = namespace(ratio)
    far = ratio > 1
    inverse, near = 1 / xp.where(far, ratio, 1.0), xp.where(far, 0.0, ratio)
    slope = xp.where(far, 1 / xp.sqrt(1 + inverse * inverse), near / xp.sqrt(1 + near * near))  # tanh v_0
    top = 20.0 if dtype_name(ratio.dtype) == "float64" else 10.0  # above which cosh is an exponential

    def exponent(t: Array) -> Array:
        growth = xp.expm1(xp.clip(t, max=top))
        rise = growth * (growth + slope * (2 + growth)) / (2 * (1 + growth))  # cosh t − 1 + tanh(v_0) sinh t
        return dofs * (xp.log1p(rise) + xp.clip(t - top, min=0.0))

    return tail_integral(exponent, _scale(stop_gradient(slope), stop_gradient(dofs)), factor)


def _scale(slope: Array, dofs: Array) -> Array:
    """The t at which the exponent is about 1."""
    xp = namespace(slope)
    rise = xp.expm1(xp.clip(1 / dofs, max=20.0))
    more = rise * (rise + 2)
    grown = (rise + more / (slope + xp.sqrt(slope * slope + more))) / (1 + slope)
    return xp.log1p(grown) + xp.clip(1 / dofs - 20.0, min=0.0)
