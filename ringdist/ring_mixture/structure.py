"""`Mixture`: the frozen structure of a weighted sum of rings, which the queries of a mixture work with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    dtype_name,
    indices,
    is_array,
    is_concrete,
    like,
    like_zeros,
    log_scaled_sum,
    namespace,
    stop_gradient,
    take,
    to_numpy,
)
from ringdist.network.checks import check_device, value_spaces
from ringdist.network.layout import Column, Layout
from ringdist.ring import TensorRing
from ringdist.variables import Variable


class Mixture:
    """Rings and their weights; see `RingMixture` for the arguments.

    The weight of a ring is `linear[c] exp(logs[c])`, up to a common factor: the weights as they were given, which may
    record gradients or be 0, and what evidence has made of them, which may be out of the range of the dtype.
    """

    rings: tuple[TensorRing, ...]
    linear: Array  # (K,)
    logs: Array  # (K,) in the accumulator's dtype
    validate: bool

    def __init__(self, rings: Sequence[TensorRing], weights: Array | Sequence[float], *, validate: bool = True):
        rings = tuple(rings)
        check_same_columns(rings)
        linear = _as_weights(weights, rings, validate)
        self._set(rings, linear, like_zeros((len(rings),), linear, accumulator(rings[0].prototype)), bool(validate))

    def _set(self, rings: tuple[TensorRing, ...], linear: Array, logs: Array, validate: bool) -> None:
        linear = _frozen(linear)
        for name, value in {"rings": rings, "linear": linear, "logs": logs, "validate": validate}.items():
            object.__setattr__(self, name, value)
        if backend_name(self.prototype) == "jax":
            kind: Any = type(self)
            register_mixture(kind)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"mixtures of rings are immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"mixtures of rings are immutable: {name} cannot be deleted")

    def __getstate__(self) -> dict[str, Any]:
        """The rings and their weights."""
        return {name: self.__dict__[name] for name in ("rings", "linear", "logs", "validate")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(state["rings"], state["linear"], state["logs"], state["validate"])

    # --------------------------------------------------------------------------------------------- properties

    @property
    def weights(self) -> Array:
        """The weights of the rings, (K,) in the rings' dtype; they sum to 1."""
        linear, logs = self.normalized()
        return astype(linear * namespace(logs).exp(logs), self.prototype.dtype)

    @property
    def prototype(self) -> Array:
        """One of the arrays that the rings are made of: all have its backend, dtype and device."""
        return self.rings[0].prototype

    @property
    def num_rings(self) -> int:
        """K, the number of rings."""
        return len(self.rings)

    @property
    def num_variables(self) -> int:
        """The number of variables of the first ring, which is d unless one of them is wide."""
        return self.rings[0].num_variables

    @property
    def num_columns(self) -> int:
        """d, the number of columns of x."""
        return self.rings[0].num_columns

    @property
    def layout(self) -> Layout:
        """Which columns belong to which site of the first ring."""
        return self.rings[0].layout

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of the first ring; columns of other rings have the same names and spaces of values.

        What is wide in one ring may be several variables in another.
        """
        return self.rings[0].variables

    @property
    def num_parameters(self) -> int:
        """Numbers in the rings and their weights."""
        return sum(ring.num_parameters for ring in self.rings) + self.num_rings

    def column(self, k: Column) -> int:
        """The index of a column given by index or name; `ValueError` if there is none."""
        return self.rings[0].column(k)

    def describe(self, k: int) -> str:
        """The column as error messages name it: column 3 ('age')."""
        return self.rings[0].describe(k)

    def normalized(self) -> tuple[Array, Array]:
        """w (K,) and l (K,) with Σ_c w_c exp(l_c) = 1, both in the accumulator's dtype."""
        linear = astype(self.linear, self.logs.dtype)
        xp = namespace(linear)
        linear = linear / stop_gradient(xp.max(linear))  # so that no sum leaves the range of the dtype
        linear = linear / xp.sum(linear)
        return linear, self.logs - log_scaled_sum(linear, self.logs)

    # --------------------------------------------------------------------------------------------- others like it

    def with_rings(self, rings: Sequence[TensorRing], logs: Array | None = None) -> Self:
        """The mixture of as many other rings, of weights times exp(logs)."""
        return self._made(tuple(rings), self.linear, self.logs if logs is None else self.logs + logs)

    def only(self, members: Sequence[int]) -> Self:
        """The mixture of some of the rings."""
        index = indices(list(members), self.prototype)
        return self._made(tuple(self.rings[c] for c in members), take(self.linear, index), take(self.logs, index))

    def detach(self) -> Self:
        """The same mixture with rings and weights that carry no gradient."""
        rings = tuple(ring.detach() for ring in self.rings)
        linear, logs = stop_gradient(self.linear), stop_gradient(self.logs)
        if linear is self.linear and logs is self.logs and all(a is b for a, b in zip(rings, self.rings, strict=True)):
            return self
        return self._made(rings, linear, logs)

    def mapped(self, function: Callable[[TensorRing], TensorRing]) -> Self:
        """The mixture of what a function makes of the rings."""
        return self.with_rings([function(ring) for ring in self.rings])

    def _made(self, rings: tuple[TensorRing, ...], linear: Array, logs: Array) -> Self:
        return type(self).from_parts(rings, linear, logs, validate=self.validate)

    @classmethod
    def from_parts(cls, rings: tuple[TensorRing, ...], linear: Array, logs: Array, *, validate: bool = True) -> Self:
        """The mixture of rings over the same columns with weights linear · exp(logs), unchecked."""
        mixture = object.__new__(cls)
        mixture._set(rings, linear, logs, validate)
        return mixture


def check_same_columns(rings: Sequence[TensorRing]) -> None:
    """Raise unless there are rings, of one backend, dtype and device, whose columns have equal names and values."""
    if not rings:
        raise ValueError("a mixture must have at least one ring, found none")
    for ring in rings:
        if not isinstance(ring, TensorRing):
            raise TypeError(f"a mixture is of rings, found {type(ring).__name__}")
    first = rings[0]
    namespace(*(ring.prototype for ring in rings))
    for c, ring in enumerate(rings[1:], 1):
        if ring.prototype.dtype != first.prototype.dtype:
            dtypes = f"{dtype_name(first.prototype.dtype)} and {dtype_name(ring.prototype.dtype)} (ring {c})"
            raise TypeError(f"rings must have one dtype, found {dtypes}")
        check_device((ring.prototype,), first.prototype, f"ring {c}")
        if ring.num_columns != first.num_columns:
            counts = f"{first.num_columns} columns and {ring.num_columns} (ring {c})"
            raise ValueError(f"rings must have the same columns, found {counts}")
        for k, (a, b) in enumerate(zip(_values(first), _values(ring), strict=True)):
            if first.layout.names[k] != ring.layout.names[k]:
                found = f"{first.describe(k)} and {ring.describe(k)} (ring {c})"
                raise ValueError(f"rings must have the same columns, found {found}")
            if a != b:
                text = f"{first.describe(k)}: rings must have values in one space"
                both = " and ".join(repr(each.variables[each.place(k)[0]]) for each in (first, ring))
                raise ValueError(f"{text}, found {both} (ring {c})")


def _values(ring: TensorRing) -> list[tuple[int | str, tuple[float, float]]]:
    """The space of values and the support of every column."""
    spaces = value_spaces(ring.variables, ring.layout)
    return [(space, ring.families[i].supports[j]) for space, (i, j) in zip(spaces, ring.layout.places, strict=True)]


def _as_weights(weights: Any, rings: Sequence[TensorRing], validate: bool) -> Array:
    """Weights (K,) as a floating point copy in the rings' backend."""
    prototype = rings[0].prototype
    given = weights if is_array(weights) else like(np.asarray(weights, dtype=np.float64), prototype)
    xp = namespace(prototype, given)
    check_device((given,), prototype, "weights")
    if not xp.isdtype(given.dtype, ("bool", "integral", "real floating")):
        raise TypeError(f"weights must be real numbers, found dtype {given.dtype}")
    if tuple(given.shape) != (len(rings),):
        raise ValueError(f"there must be one weight per ring, found shape {tuple(given.shape)} for {len(rings)} rings")
    if not xp.isdtype(given.dtype, "real floating"):
        given = astype(given, prototype.dtype)
    if validate and is_concrete(given):
        _check_values(given)
    if is_concrete(given) and not getattr(given, "requires_grad", False):
        return xp.asarray(given, copy=True)
    return given


def _check_values(weights: Array) -> None:
    values = to_numpy(stop_gradient(weights))
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if wrong.shape[0]:
        c = int(wrong[0])
        raise ValueError(f"weights must be finite and not negative, found {values[c]:g} for ring {c}")
    if not values.any():
        raise ValueError("some weight must be positive, found only zeros")


def _frozen(array: Array) -> Array:
    if backend_name(array) == "numpy":
        array.flags.writeable = False
    return array


@functools.cache
def register_mixture(kind: Any) -> None:
    """Register a class of mixtures as a JAX pytree of its rings and their weights."""
    import jax

    def unflatten(validate: Any, children: Any) -> Any:
        # JAX puts gradients, tracers and placeholders in the leaves' places: nothing is checked here.
        rings, linear, logs = children
        mixture: Any = object.__new__(kind)
        mixture.__dict__.update(rings=tuple(rings), linear=linear, logs=logs, validate=validate)
        return mixture

    jax.tree_util.register_pytree_node(kind, lambda m: ((m.rings, m.linear, m.logs), m.validate), unflatten)
