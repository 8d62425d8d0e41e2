"""Elementary and special functions that the array API standard leaves out."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend.arrays import astype, stop_gradient
from ringdist.backend.dispatch import Array, accepts_own_backward, backend_name, is_concrete, namespace, on_accelerator

FRACTIONS = 40  # of a continued fraction, which give all digits of float64


def safe_log(x: Array) -> Array:
    """log x, with −inf and a zero (not NaN) gradient where x = 0."""
    xp = namespace(x)
    positive = x > 0
    return xp.where(positive, xp.log(xp.where(positive, x, 1.0)), -xp.inf)


def reciprocal(x: Array) -> Array:
    """1 / x for x > 0, whose gradient is finite wherever −1 / x² is; PyTorch and JAX form x⁻² before they multiply."""
    if backend_name(x) == "numpy":
        return 1 / x
    scale = stop_gradient(1 / x)
    return scale / (x * scale)


class Piece(NamedTuple):
    """A function of some arrays where a mask is true, and arguments with a finite value to use elsewhere."""

    mask: Array
    function: Callable[..., Array]
    safe: tuple[float, ...]


def piecewise(pieces: Sequence[Piece], *arrays: Array) -> Array:
    """A function that is defined piecewise; the masks of the pieces are a partition of the entries.

    On the CPU each piece is evaluated only where its mask is true, in JAX and on accelerators everywhere.
    """
    xp = namespace(*arrays)
    everywhere = backend_name(arrays[0]) == "jax" or on_accelerator(arrays[0]) or not is_concrete(*arrays)
    if everywhere:
        found = None
        for mask, function, safe in pieces:
            value = function(*(xp.where(mask, a, b) for a, b in zip(arrays, safe, strict=True)))
            found = value if found is None else xp.where(mask, value, found)
        return found
    for mask, function, _ in pieces:
        if bool(xp.all(mask)):
            return function(*arrays)
    pieces = [piece for piece in pieces if bool(xp.any(piece.mask))]
    arrays = tuple(xp.broadcast_arrays(*arrays))
    found = xp.zeros_like(arrays[0])
    for mask, function, _ in pieces:
        mask = xp.broadcast_to(mask, found.shape)
        found[mask] = function(*(a[mask] for a in arrays))
    return found


def compiled(function: Callable[..., Any], *arrays: Array) -> Any:
    """function(*arrays), in JAX compiled as a whole; a function at module level is compiled once."""
    return (_jitted(function) if backend_name(arrays[0]) == "jax" else function)(*arrays)


def repeated(step: Callable[[Any], Any], state: Any, times: int) -> Any:
    """A step from state to state, repeated; in JAX one compiled loop for any number of repetitions."""
    if backend_name(state[0]) == "jax":
        return sys.modules["jax"].lax.fori_loop(0, times, lambda _, current: step(current), state)
    for _ in range(times):
        state = step(state)
    return state


@functools.cache
def _jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    jitted: Callable[..., Any] = sys.modules["jax"].jit(function)
    return jitted


def times_power(array: Array, exponent: Any) -> Array:
    """array · 2^exponent, for an integer or an array of integers, in steps, because the power may be out of range."""
    if isinstance(exponent, int) and exponent == 0:
        return array
    if not isinstance(exponent, int):
        exponent = astype(exponent, array.dtype)
    third = exponent // 3
    for step in (third, third, exponent - 2 * third):
        array = array * 2.0**step
    return array


def exponents(array: Array) -> Array:
    """The integers e with array = f · 2^e, 1/2 <= f < 1, 0 where it is 0; without gradient."""
    xp, array = namespace(array), stop_gradient(array)
    info = xp.finfo(array.dtype)
    lift = 2.0 ** (2 - math.frexp(float(info.eps))[1])  # out of the subnormal numbers
    small = array < float(info.smallest_normal)
    logs = xp.log2(xp.where(array > 0, array * xp.where(small, lift, 1.0), 1.0))
    integers = xp.floor(logs) + 1 - xp.where(small, math.log2(lift), 0.0)
    return xp.where(array > 0, integers, 0.0)


def without_warnings(array: Array) -> contextlib.AbstractContextManager[Any]:
    """A context in which NumPy does not warn about overflow, like the other backends."""
    if backend_name(array) == "numpy":
        return np.errstate(over="ignore", invalid="ignore", divide="ignore")
    return contextlib.nullcontext()


def ordered_integers(array: Array) -> Array:
    """Integers in the order of the floating point numbers: neighbouring numbers have neighbouring integers, 0 has 0."""
    xp = namespace(array)
    bits = _reinterpreted(xp.abs(array), f"int{_bits(array)}")
    return xp.where(array < 0, -bits, bits)


def from_ordered_integers(integers: Array, array: Array) -> Array:
    """The inverse of `ordered_integers`, in the dtype of `array`."""
    xp = namespace(array)
    magnitude = _reinterpreted(xp.abs(integers), f"float{_bits(array)}")
    return xp.where(integers < 0, -magnitude, magnitude)


def _bits(array: Array) -> int:
    return int(namespace(array).finfo(array.dtype).bits)


def _reinterpreted(array: Array, dtype: str) -> Array:
    """The same bits as numbers of another dtype."""
    match backend_name(array):
        case "torch":
            return array.detach().view(getattr(sys.modules["torch"], dtype))
        case "jax":
            return sys.modules["jax"].lax.bitcast_convert_type(stop_gradient(array), np.dtype(dtype))
    return array.view(dtype)


def exp(x: Array) -> Array:
    """The exponential function; in PyTorch on a CPU 0 for results that are hardly normal, see `exponential`."""
    if backend_name(x) == "torch" and not on_accelerator(x) and accepts_own_backward(x):
        from ringdist.backend.exponential import Exponential

        if x.dtype in (sys.modules["torch"].float32, sys.modules["torch"].float64):
            result: Array = Exponential.apply(x)
            return result
    return namespace(x).exp(x)


def logsumexp(x: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """log Σ exp x along `axis`; −inf for an empty or all −inf slice, with finite gradients beside it."""
    xp = namespace(x)
    shift = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    shift = xp.where(xp.isfinite(shift), shift, 0.0)
    total = safe_log(xp.sum(exp(x - shift), axis=axis, keepdims=True)) + shift
    return xp.squeeze(total, axis=axis)


def log_scaled_sum(values: Array, logs: Array) -> Array:
    """log Σ values exp(logs) along the last axis, in the dtype of `logs`.

    The gradient at a value of 0 is that of leaving 0.
    """
    xp = namespace(values)
    values = astype(values, logs.dtype)
    peak = stop_gradient(xp.max(safe_log(values) + logs, axis=-1, keepdims=True))
    peak = xp.where(peak == -xp.inf, 0.0, peak)
    scale = xp.exp(xp.clip(logs - peak, max=largest_exponent(values)))
    return safe_log(xp.sum(values * scale, axis=-1)) + peak[..., 0]


def largest_exponent(array: Array) -> float:
    """The largest number, nearly, whose exponential is finite in the array's dtype."""
    return math.log(float(namespace(array).finfo(array.dtype).max)) - 0.5


def erfcx(x: Array) -> Array:
    """exp(x²) erfc(x) for x >= 0; of JAX, whose older versions have none, by Laplace's continued fraction beyond 5."""
    if backend_name(x) != "jax":
        return special("erfcx", x)
    xp = namespace(x)
    small = x < 5
    near, far = xp.where(small, x, 1.0), xp.where(small, 5.0, x)
    rest = far
    for k in range(FRACTIONS, 0, -1):
        rest = far + 0.5 * k / rest
    return xp.where(small, xp.exp(near * near) * special("erfc", near), 1 / (math.sqrt(math.pi) * rest))


def special(name: str, *arrays: Array) -> Array:
    """A function of scipy.special by the name that all three backends share (ndtr, xlogy, gammaincc, i0e, ...)."""
    match backend_name(arrays[0]):
        case "torch":
            return getattr(sys.modules["torch"].special, name)(*arrays)
        case "jax":
            import jax.scipy.special

            return getattr(jax.scipy.special, name)(*arrays)
    import scipy.special  # here: it takes longer to import than ringdist does

    return getattr(scipy.special, name)(*arrays)
