"""Elementary and special functions that the array API standard leaves out."""

from __future__ import annotations

import math
import sys

import scipy.special

from ringdist.backend.arrays import astype, stop_gradient
from ringdist.backend.dispatch import Array, backend_name, namespace


def safe_log(x: Array) -> Array:
    """log x, with −inf and a zero (not NaN) gradient where x = 0."""
    xp = namespace(x)
    positive = x > 0
    return xp.where(positive, xp.log(xp.where(positive, x, 1.0)), -xp.inf)


def logsumexp(x: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """log Σ exp x along `axis`; −inf for an empty or all −inf slice, with finite gradients beside it."""
    xp = namespace(x)
    shift = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    shift = xp.where(xp.isfinite(shift), shift, 0.0)
    total = safe_log(xp.sum(xp.exp(x - shift), axis=axis, keepdims=True)) + shift
    return xp.squeeze(total, axis=axis)


def log_scaled_sum(values: Array, logs: Array) -> Array:
    """log Σ values exp(logs) along the last axis, in the dtype of `logs`; a value of 0 has the slope of leaving 0."""
    xp = namespace(values)
    values = astype(values, logs.dtype)
    peak = stop_gradient(xp.max(safe_log(values) + logs, axis=-1, keepdims=True))
    peak = xp.where(peak == -xp.inf, 0.0, peak)
    scale = xp.exp(xp.clip(logs - peak, max=largest_exponent(values)))
    return safe_log(xp.sum(values * scale, axis=-1)) + peak[..., 0]


def largest_exponent(array: Array) -> float:
    """The largest number, nearly, whose exponential is finite in the array's dtype."""
    return math.log(float(namespace(array).finfo(array.dtype).max)) - 0.5


def special(name: str, *arrays: Array) -> Array:
    """A function of scipy.special by the name that all three backends share (ndtr, xlogy, gammaincc, i0e, ...)."""
    match backend_name(arrays[0]):
        case "torch":
            return getattr(sys.modules["torch"].special, name)(*arrays)
        case "jax":
            import jax.scipy.special

            return getattr(jax.scipy.special, name)(*arrays)
    return getattr(scipy.special, name)(*arrays)
