"""The library of an array, and its state: concrete, traced, on an accelerator.

Dispatch is on the arrays' own class, so that nothing imports PyTorch or JAX unless the caller's arrays are theirs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import ModuleType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

import array_api_compat
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
Array = Any  # an array of one of the three backends
# To ask array-api-compat takes as long as a small operation, and torch.compile cannot trace it for NumPy's arrays.
_NAMESPACES: dict[type, Any] = {}  # by class, as PyTorch before 2.12 cannot trace a set of classes as a key
_BACKENDS: dict[type, str] = {np.ndarray: "numpy"}


def namespace(*arrays: Array) -> Any:
    """The array-API namespace of all arrays; `TypeError` if they are of several backends, or not arrays."""
    known = _NAMESPACES.get(type(arrays[0])) if arrays else None
    for array in arrays:
        if known is None or _NAMESPACES.get(type(array)) is not known:
            break
    else:
        return known
    try:
        found = array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        names = sorted({f"{type(a).__module__.split('.')[0]}.{type(a).__name__}" for a in arrays})
        raise TypeError(
            f"all arrays must come from one backend (NumPy, PyTorch or JAX), found {', '.join(names)}; "
            "convert the data, or move a ring by ring.to(numpy), ring.to(torch) or ring.to(jax.numpy)"
        ) from error
    if not _is_compiling():
        _NAMESPACES.update({type(array): found for array in arrays if array_api_compat.is_array_api_obj(array)})
    return found


def backend_name(array: Array) -> str:
    """`"numpy"`, `"torch"` or `"jax"`."""
    kind = type(array)
    if kind in _BACKENDS:
        return _BACKENDS[kind]
    is_torch, is_jax = array_api_compat.is_torch_array(array), array_api_compat.is_jax_array(array)
    found = "torch" if is_torch else "jax" if is_jax else "numpy"
    if not _is_compiling():
        _BACKENDS[kind] = found
    return found


def _is_compiling() -> bool:
    """Whether `torch.compile` traces: what it would remember, it would find at the next call, and compile again."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def is_array(value: object) -> bool:
    return type(value) in _NAMESPACES or array_api_compat.is_array_api_obj(value)


def is_concrete(*arrays: Array) -> bool:
    """Whether values of arrays on one device can be inspected.

    False for JAX tracers, under `torch.compile`, in `torch.func` transforms and while a CUDA graph is captured.
    """
    backends = set(map(backend_name, {type(array): array for array in arrays}.values()))
    if "jax" in backends and any(isinstance(array, sys.modules["jax"].core.Tracer) for array in arrays):
        return False
    if "torch" in backends:
        torch = sys.modules["torch"]
        if torch.compiler.is_compiling():
            return False
        if is_captured(arrays[0]):
            return False
        transforms = torch._C._functorch
        if transforms.maybe_current_level() is not None:  # asked first, because it is one question for all arrays
            return not any(isinstance(a, torch.Tensor) and transforms.is_functorch_wrapped_tensor(a) for a in arrays)
    return True


def accepts_own_backward(*arrays: Array) -> bool:
    """Whether PyTorch accepts a function with its own backward pass: no tracing, transforms or forward derivatives."""
    torch = sys.modules["torch"]
    return (
        is_concrete(*arrays)
        and torch._C._functorch.maybe_current_level() is None
        and getattr(torch.autograd.forward_ad, "_current_level", -1) < 0
    )


def is_captured(array: Array) -> bool:
    """Whether a CUDA graph is being captured."""
    if _is_compiling() or not getattr(array, "is_cuda", False):
        return False
    return bool(sys.modules["torch"].cuda.is_current_stream_capturing())


def on_accelerator(array: Array) -> bool:
    """Whether kernel launches, not arithmetic, dominate small operations."""
    match backend_name(array):
        case "torch":
            return array.device.type != "cpu"
        case "jax":
            return is_concrete(array) and next(iter(array.devices())).platform != "cpu"
    return False


def backend_of_namespace(xp: ModuleType) -> str:
    """The backend that a namespace (`numpy`, `torch`, `jax.numpy` or its array-api-compat twin) belongs to."""
    name = getattr(xp, "__name__", None)
    for backend in ("torch", "jax", "numpy"):
        if name is not None and (backend in name.split(".")):
            return backend
    raise TypeError(f"xp must be numpy, torch or jax.numpy, found {xp!r}")


class cached_property(Generic[R]):
    """`functools.cached_property` without the lock that it takes in Python 3.11, which `torch.compile` cannot trace."""

    def __init__(self, function: Callable[[Any], R]):
        self.function, self.__doc__ = function, function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> R: ...

    def __get__(self, instance: object, owner: type) -> Self | R:
        if instance is None:
            return self
        value = instance.__dict__[self.function.__name__] = self.function(instance)  # found there from now on
        return value


class HasCores(Protocol):
    """A ring, as far as this module needs to know it."""

    @property
    def prototype(self) -> Array: ...


H = TypeVar("H", bound=HasCores)


def in_own_precision(method: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """Make a method use products in full precision, without `torch.autocast`, unless JAX is configured otherwise.

    The default of JAX on an accelerator are the fastest products, with 8 or 11 bits.
    """

    @functools.wraps(method)
    def precise(self: H, /, *args: P.args, **kwargs: P.kwargs) -> R:
        core = self.prototype
        if backend_name(core) == "torch":
            torch = sys.modules["torch"]
            if torch.is_autocast_enabled(core.device.type):
                with torch.autocast(core.device.type, enabled=False):
                    return method(self, *args, **kwargs)
        elif backend_name(core) == "jax":
            jax = sys.modules["jax"]
            if jax.config.jax_default_matmul_precision is None:
                with jax.default_matmul_precision("highest"):
                    return method(self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return precise


def lasting(array: Array) -> AbstractContextManager[Any]:
    """Within it results are made that are of use everywhere.

    PyTorch's inference tensors cannot be used under autograd. While JAX traces a function, it also traces operations on
    known arrays, unless it is told to evaluate them.
    """
    if backend_name(array) == "jax":
        evaluating: AbstractContextManager[Any] = sys.modules["jax"].ensure_compile_time_eval()
        return evaluating
    if backend_name(array) == "torch" and sys.modules["torch"].is_inference_mode_enabled():
        stack = ExitStack()
        torch = sys.modules["torch"]
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        return stack
    return nullcontext()
