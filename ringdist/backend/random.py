"""Random numbers of the three backends, and indices drawn with them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ringdist.backend.arrays import astype
from ringdist.backend.dispatch import Array, backend_name, is_concrete, namespace, on_accelerator


class Stream:
    """Randomness from a seed or a backend's own generator or key.

    `next()` returns the generator of NumPy or PyTorch, or a new key of JAX.
    """

    def __init__(self, rng: Any, array: Array):
        self._backend = backend_name(array)
        self._state = _generator(rng, self._backend, array)

    def next(self) -> Any:
        if self._backend != "jax":
            return self._state
        self._state, key = sys.modules["jax"].random.split(self._state)
        return key


def _generator(rng: Any, backend: str, array: Array) -> Any:
    seed = int(rng) if isinstance(rng, int | np.integer) and not isinstance(rng, bool) else None
    match backend:
        case "numpy":
            if rng is None or seed is not None or isinstance(rng, np.random.Generator):
                return np.random.default_rng(rng)
        case "torch":
            torch = sys.modules["torch"]
            if rng is None and not is_concrete(array):
                return None  # neither torch.compile nor a CUDA graph takes another than the global one
            if isinstance(rng, torch.Generator):
                return rng
            if rng is None or seed is not None:
                generator = torch.Generator(device=array.device)
                if seed is None:
                    generator.seed()
                else:
                    generator.manual_seed(seed)
                return generator
        case "jax":
            import jax

            if rng is None:
                raise ValueError("a JAX ring needs rng: a seed or a key from jax.random.key, found None")
            if seed is not None:
                return jax.random.key(seed)
            if backend_name(rng) == "jax":
                return rng
    expected = {"numpy": "numpy.random.Generator", "torch": "torch.Generator", "jax": "jax.random.key"}[backend]
    raise TypeError(f"rng must be a seed or a {expected}, found {type(rng).__name__}")


def uniform(rng: Any, shape: Iterable[int], array: Array) -> Array:
    """Uniform numbers in [0, 1) with the backend, dtype and device of `array`."""
    return _numbers({"torch": "rand", "jax": "uniform", "numpy": "random"}, rng, shape, array)


def normal(rng: Any, shape: Iterable[int], array: Array) -> Array:
    """Standard normal numbers with the backend, dtype and device of `array`."""
    return _numbers({"torch": "randn", "jax": "normal", "numpy": "standard_normal"}, rng, shape, array)


def _numbers(names: dict[str, str], rng: Any, shape: Iterable[int], array: Array) -> Array:
    """Random numbers from the backend's function of that name."""
    backend = backend_name(array)
    name, shape = names[backend], tuple(shape)
    match backend:
        case "torch":
            return getattr(sys.modules["torch"], name)(shape, generator=rng, dtype=array.dtype, device=array.device)
        case "jax":
            return getattr(sys.modules["jax"].random, name)(rng, shape, dtype=array.dtype)
    return getattr(rng, name)(shape, dtype=array.dtype)


# Rates from which the samplers of the libraries lose digits: measured by the variance of 2e5 draws.
LARGE_RATES = {"numpy": 2.0**40, "torch": 2.0**40, "jax": 2.0**10}


def poisson(rng: Any, rates: Array) -> Array:
    """Poisson counts of the given rates, in their dtype.

    Counts of large rates are drawn through a Cornish-Fisher expansion of the quantile function, whose
    error in the distribution function is below 1e-6.
    """
    xp = namespace(rates)
    large = rates > LARGE_RATES[backend_name(rates)]
    if is_concrete(rates) and not on_accelerator(rates) and not bool(xp.any(large)):
        return _poisson(rng, rates)
    key = sys.modules["jax"].random.fold_in(rng, 2**31 - 1) if backend_name(rates) == "jax" else rng
    counts = _expanded_poisson(normal(key, rates.shape, rates), xp.where(large, rates, 1.0))
    return xp.where(large, counts, _poisson(rng, xp.where(large, 1.0, rates)))


def _expanded_poisson(z: Array, rates: Array) -> Array:
    """The Poisson quantile at the probability Φ(z), up to O(1 / rate)."""
    xp = namespace(rates)
    std = xp.sqrt(rates)
    skewness = (z * z - 1) / 6
    rest = ((z - z**3) / 72 - z / 24) / std  # the kurtosis, and Sheppard's correction for the rounding
    return xp.round(rates + (std * z + skewness + rest))


def _poisson(rng: Any, rates: Array) -> Array:
    match backend_name(rates):
        case "torch":
            return sys.modules["torch"].poisson(rates, generator=rng)
        case "jax":
            return astype(sys.modules["jax"].random.poisson(rng, rates), rates.dtype)
    return rng.poisson(rates).astype(rates.dtype)


def gamma_logs(rng: Any, shapes: Array) -> Array:
    """Logarithms of gamma variates of the given shapes and scale 1, in their dtype, for shapes of any size.

    G(a) has the distribution of G(a + 1) U^(1 / a), whose logarithm stays in range where G(a) underflows.
    """
    xp, stream = namespace(shapes), Stream(rng, shapes)
    small = shapes < 1
    raised = xp.log(_standard_gamma(stream.next(), xp.where(small, shapes + 1, shapes)))
    u = uniform(stream.next(), shapes.shape, shapes)
    return raised + xp.where(small, xp.log1p(-u) / xp.where(small, shapes, 1.0), 0.0)


def _standard_gamma(rng: Any, shapes: Array) -> Array:
    match backend_name(shapes):
        case "torch":
            return sys.modules["torch"]._standard_gamma(shapes, generator=rng)
        case "jax":
            return sys.modules["jax"].random.gamma(rng, shapes, dtype=shapes.dtype)
    return rng.standard_gamma(shapes, dtype=shapes.dtype)


def draw(weights: Array, u: Array) -> Array:
    """The index drawn from unnormalised `weights` (..., N) by inverting their cumulative sum at `u` (...) in [0, 1).

    Entries of zero weight are never drawn: u is at most 1 − 2^-24 (2^-53 in float64), so that u times the total rounds
    to less than the total. Where all weights are zero the last index is returned.
    """
    xp = namespace(weights)
    cumulative = xp.cumulative_sum(weights, axis=-1)
    level = u[..., None] * cumulative[..., -1:]
    if backend_name(weights) == "torch":
        below = sys.modules["torch"].searchsorted(cumulative.contiguous(), level, right=True)[..., 0]
    else:
        below = xp.sum(cumulative <= level, axis=-1)
    return xp.clip(below, max=weights.shape[-1] - 1)
