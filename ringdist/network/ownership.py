"""Arrays that a ring owns: copies of the caller's arrays, and its own arrays, which are never written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ringdist.backend import Array, backend_name, frozen, is_array, is_concrete
from ringdist.cores import Core, CPCore, DenseCore, sources


def is_lasting(value: Any) -> bool:
    """Whether a result holds no tracer: within `jax.jit` also what is made of constants is one."""
    if isinstance(value, tuple | list):
        return all(map(is_lasting, value))
    if hasattr(value, "with_arrays"):
        return is_concrete(*sources(value))
    return not is_array(value) or is_concrete(value)


def as_given(core: Core) -> Any:
    """A core as users see it: the array of a dense core."""
    return core.array if isinstance(core, DenseCore) else core


def copied(core: Core) -> Core:
    """The core with copies of its arrays."""
    return converted_core(core, _copy)


def converted_core(core: Core, function: Callable[[Array], Array]) -> Core:
    """The core of arrays with the same values, as a function makes them; the same core if it returns them all."""
    if isinstance(core, CPCore):
        other: Core = core.converted(function)
    else:
        other = core.with_arrays({name: function(array) for name, array in core.arrays().items()})
    return core if all(new is old for new, old in zip(sources(other), sources(core), strict=True)) else other


def _copy(array: Array) -> Array:
    match backend_name(array):
        case "numpy":
            return frozen(array, array.dtype)
        case "torch":
            return array.clone()
    return array


def fixed(core: Core) -> Core:
    """A core that this library made, with its NumPy arrays set to read-only."""
    for array in sources(core):
        if backend_name(array) == "numpy":
            array.flags.writeable = False
    return core


def records_gradient(array: Array) -> bool:
    """Whether PyTorch records operations on the array."""
    return bool(getattr(array, "requires_grad", False))
