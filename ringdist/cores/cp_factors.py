"""Factors of CP cores: checked, near 1, and the derivatives of products with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ringdist.backend import Array, exponents, is_array, namespace, times_power


def checked_factors(left: Any, emission: Any, right: Any) -> dict[str, Array]:
    """The factors that are not None, as matrices; raises what `CPCore` does."""
    given = {"left": left, "emission": emission, "right": right}
    factors = {name: _matrix(name, value) for name, value in given.items() if value is not None}
    if not factors:
        raise ValueError("a CP core needs at least one of left, emission and right, found None for all")
    namespace(*factors.values())
    dtypes = {str(factor.dtype) for factor in factors.values()}
    if len(dtypes) > 1:
        raise TypeError(f"the factors of a CP core must have one dtype, found {', '.join(sorted(dtypes))}")
    inner = {name: int(factor.shape[0 if name == "right" else 1]) for name, factor in factors.items()}
    if len(set(inner.values())) > 1:
        found = ", ".join(f"{size} in {name}" for name, size in inner.items())
        raise ValueError(f"the factors of a CP core must share one number of hidden states, found {found}")
    return factors


def _matrix(name: str, value: Any) -> Array:
    factor = value if is_array(value) else np.asarray(value, dtype=np.float64)
    if factor.ndim != 2 or 0 in factor.shape:
        raise ValueError(f"{name} must be a matrix with no empty axis, found shape {tuple(factor.shape)}")
    return factor


def leaned_factors(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """The factors of a CP core divided by powers of two, and the exponent of all: the largest entry is near 1.

    For every hidden state the largest entries in the factors after the first one are near 1 too. A product through
    the core in either direction then meets no number that is large beside the core's own entries.
    """
    factors = dict(arrays)
    first, *rest = factors
    xp, hidden = namespace(factors[first]), 0 if first == "right" else 1
    top = xp.max(factors[first], axis=1 - hidden)
    own, shift, alive = exponents(top), 0.0, top > 0
    for name in rest:
        top = xp.max(factors[name], axis=1 if name == "right" else 0)
        each, alive = exponents(top), alive & (top > 0)
        factors[name] = times_power(factors[name], -each[:, None] if name == "right" else -each)
        shift = shift + each
    largest = float(xp.max(xp.where(alive, own + shift, -xp.inf)))
    largest = 0.0 if largest == -math.inf else largest
    scale = xp.where(alive, shift - largest, -own)
    factors[first] = times_power(factors[first], scale[:, None] if hidden == 0 else scale)
    return factors, int(largest)


def pairs(a: Array, b: Array) -> Array:
    """Σ_b Σ_r a[b, r, :] b[b, r, :]ᵀ; one row stands for all."""
    xp = namespace(a)
    rows = max(a.shape[0], b.shape[0])
    flat = [xp.reshape(xp.broadcast_to(x, (rows, *x.shape[1:])), (-1, x.shape[2])) for x in (a, b)]
    return flat[0].T @ flat[1]
