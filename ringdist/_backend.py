"""The seam between the algorithms and the array libraries.

Everything else in the package is written against the array API standard through `array-api-compat`; the few things
the standard does not cover (special functions, tracing, gradients; random numbers in `_random`) are dispatched here, on
the arrays' own class, so that nothing imports PyTorch or JAX unless the caller's arrays are theirs.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

import array_api_compat
import numpy as np
import scipy.special

P = ParamSpec("P")
R = TypeVar("R")
Array = Any  # an array of one of the three backends
SMALL = 2**13  # numbers of an array that is copied for the sake of fewer calls
OPERANDS = 64  # arrays that JAX stacks in one operation: to compile one of thousands takes minutes
# To ask array-api-compat takes as long as a small operation, and torch.compile cannot trace it for NumPy's arrays.
_NAMESPACES: dict[type, Any] = {}  # by class, as PyTorch before 2.12 cannot trace a set of classes as a key
_BACKENDS: dict[type, str] = {np.ndarray: "numpy"}


# ------------------------------------------------------------------------------------------------------- which library


def namespace(*arrays: Array) -> Any:
    """The array-API namespace shared by all arrays; `TypeError` when they mix backends or are no arrays."""
    known = _NAMESPACES.get(type(arrays[0])) if arrays else None
    if known is not None and all(_NAMESPACES.get(type(array)) is known for array in arrays):
        return known
    try:
        found = array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        names = sorted({f"{type(a).__module__.split('.')[0]}.{type(a).__name__}" for a in arrays})
        raise TypeError(
            f"all arrays must come from one backend (NumPy, PyTorch or JAX), found {', '.join(names)}"
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
    """Whether values of arrays on one device can be looked at.

    False for JAX tracers, under `torch.compile`, in `torch.func` transforms and while a CUDA graph is captured.
    """
    backends = set(map(backend_name, arrays))
    if "jax" in backends and any(isinstance(array, sys.modules["jax"].core.Tracer) for array in arrays):
        return False
    if "torch" in backends:
        torch = sys.modules["torch"]
        if torch.compiler.is_compiling():
            return False
        if getattr(arrays[0], "is_cuda", False) and torch.cuda.is_current_stream_capturing():
            return False
        transforms = torch._C._functorch
        if transforms.maybe_current_level() is not None:  # asked first, because it is one question for all arrays
            return not any(isinstance(a, torch.Tensor) and transforms.is_functorch_wrapped_tensor(a) for a in arrays)
    return True


# ---------------------------------------------------------------------------------------------------- methods of rings


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
    def cores(self) -> Sequence[Array]: ...


H = TypeVar("H", bound=HasCores)


def in_own_precision(method: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """The method with products of all bits, out of reach of `torch.autocast`, unless JAX is told which to take.

    Of itself JAX takes the fastest that an accelerator has, of 8 or 11 bits.
    """

    @functools.wraps(method)
    def precise(self: H, /, *args: P.args, **kwargs: P.kwargs) -> R:
        core = self.cores[0]
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


# ------------------------------------------------------------------------------------- gradients, devices, conversions


def on_accelerator(array: Array) -> bool:
    """Whether kernel launches, not arithmetic, dominate small operations."""
    match backend_name(array):
        case "torch":
            return array.device.type != "cpu"
        case "jax":
            return is_concrete(array) and next(iter(array.devices())).platform != "cpu"
    return False


def stop_gradient(array: Array) -> Array:
    match backend_name(array):
        case "torch":
            return array.detach() if array.requires_grad else array
        case "jax":
            return sys.modules["jax"].lax.stop_gradient(array)
    return array


def checkpoint(function: Callable[[Array], Array], array: Array) -> Array:
    """function(array); a backward pass computes what happens in between again instead of finding it stored."""
    if backend_name(array) == "torch":
        import torch.utils.checkpoint

        return torch.utils.checkpoint.checkpoint(function, array, use_reentrant=False, preserve_rng_state=False)
    return sys.modules["jax"].checkpoint(function)(array)


def to_numpy(array: Array) -> np.ndarray:
    """A NumPy view or copy of a concrete array of any backend, detached from its graph."""
    if backend_name(array) == "torch":
        array = array.detach().cpu()
    return np.asarray(array)


def like(value: Array, array: Array, dtype: Any = None) -> Array:
    """`value` (a NumPy constant or a list) with the backend and device of `array`, and its dtype unless given."""
    xp = namespace(array)
    if is_array(value) and backend_name(value) == backend_name(array):
        return astype(value, dtype or array.dtype)
    if isinstance(value, float) and backend_name(array) == "torch":  # asarray makes an accelerator wait for the host
        return sys.modules["torch"].full((), value, dtype=dtype or array.dtype, device=array.device)
    device = None if backend_name(array) == "jax" else array_api_compat.device(array)
    return xp.asarray(value, dtype=dtype or array.dtype, device=device)


def index_dtype(array: Array) -> Any:
    """The widest integer dtype of the backend (JAX has int32 only, unless 64-bit mode is on)."""
    if backend_name(array) == "jax":
        return sys.modules["jax"].dtypes.canonicalize_dtype(np.int64)
    return namespace(array).int64


def indices(values: Sequence[int] | np.ndarray, array: Array) -> Array:
    """Whole numbers as an index array with the backend and device of `array`."""
    if backend_name(array) == "torch" and array.device.type == "cuda":
        return _cuda_indices(values, array)
    if isinstance(values, range):
        values = np.arange(values.start, values.stop, values.step)
    return like(np.asarray(values, dtype=np.int64), array, index_dtype(array))


def _cuda_indices(values: Sequence[int] | np.ndarray, array: Array) -> Array:
    """Whole numbers on the device of `array`, for which neither host nor device waits."""
    torch = sys.modules["torch"]
    if isinstance(values, range):
        return torch.arange(values.start, values.stop, values.step, device=array.device)
    if is_concrete(array):
        host = torch.as_tensor(np.asarray(values, dtype=np.int64))
        return host.pin_memory().to(array.device, non_blocking=True)
    runs = [range(0)]  # the device counts them itself: a graph that is replayed must not read the host's memory
    for value in values:
        if value == runs[-1].stop:
            runs[-1] = range(runs[-1].start, int(value) + 1)
        else:
            runs.append(range(int(value), int(value) + 1))
    return torch.cat([torch.arange(run.start, run.stop, device=array.device) for run in runs])


def identity(size: int, array: Array) -> Array:
    """The identity matrix with the backend, dtype and device of `array`."""
    device = {} if backend_name(array) == "jax" else {"device": array_api_compat.device(array)}
    return namespace(array).eye(size, dtype=array.dtype, **device)


def counted(size: int, array: Array) -> Array:
    """0, 1, ..., size - 1 with the backend, dtype and device of `array`."""
    device = {} if backend_name(array) == "jax" else {"device": array_api_compat.device(array)}
    return namespace(array).arange(size, dtype=array.dtype, **device)


def astype(array: Array, dtype: Any) -> Array:
    return array if array.dtype == dtype else namespace(array).astype(array, dtype)


def dtype_name(dtype: Any) -> str:
    """`"float32"` for any backend's spelling of it."""
    text = str(dtype)
    return text.split(".")[-1] if text.startswith("torch.") else np.dtype(dtype).name


def convert(array: Array, xp: ModuleType | None = None, dtype: Any = None, device: Any = None) -> Array:
    """The array in another backend, dtype or on another device; itself where nothing changes."""
    name = dtype_name(dtype if dtype is not None else array.dtype)
    source = backend_name(array)
    target = source if xp is None else backend_of_namespace(xp)
    if target != source:
        host = to_numpy(array).astype(name, copy=False)
        if target == "numpy":
            return host.copy() if source == "torch" else host
        if target == "torch":
            return sys.modules["torch"].tensor(host, device=device)
        moved = sys.modules["jax"].numpy.asarray(host)
        return moved if device is None else sys.modules["jax"].device_put(moved, device)
    if target == "torch":
        return array.to(device=device, dtype=getattr(sys.modules["torch"], name))
    if device is not None:
        if target == "numpy" and device != "cpu":
            raise ValueError(f"NumPy arrays live on the device 'cpu', found {device!r}")
        array = sys.modules["jax"].device_put(array, device) if target == "jax" else array
    return astype(array, np.dtype(name))


def backend_of_namespace(xp: ModuleType) -> str:
    """The backend that a namespace (`numpy`, `torch`, `jax.numpy` or its array-api-compat twin) belongs to."""
    name = getattr(xp, "__name__", None)
    for backend in ("torch", "jax", "numpy"):
        if name is not None and (backend in name.split(".")):
            return backend
    raise TypeError(f"xp must be numpy, torch or jax.numpy, found {xp!r}")


def default_dtype(backend: str) -> str:
    if backend == "torch":
        return dtype_name(sys.modules["torch"].get_default_dtype())
    if backend == "jax":
        return np.dtype(sys.modules["jax"].dtypes.canonicalize_dtype(np.float64)).name
    return "float64"


def accumulator(array: Array) -> Any:
    """The dtype for sums of many logarithms: float64 wherever the backend has it."""
    match backend_name(array):
        case "torch":
            return sys.modules["torch"].float32 if array.device.type == "mps" else sys.modules["torch"].float64
        case "jax":
            return sys.modules["jax"].dtypes.canonicalize_dtype(np.float64)
    return np.float64


# ------------------------------------------------------------------------------------------ elementary functions


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


def take(array: Array, index: Array, axis: int = 0) -> Array:
    """Entries along an axis by their numbers (n,), none of them negative; differentiable in every backend."""
    if backend_name(array) == "torch":  # array-api-compat first asks, in four operations, which are negative
        return sys.modules["torch"].index_select(array, axis, index)
    return namespace(array).take(array, index, axis=axis)


# ---------------------------------------------------------------------------------------------------- parts and stacks


def unstack(array: Array, axis: int = 0) -> Sequence[Array]:
    """The slices along an axis."""
    if backend_name(array) == "torch":  # array-api-compat moves the axis by what `torch.vmap` has no rule for
        return array.unbind(axis)
    return namespace(array).unstack(array, axis=axis)


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """The arrays, one for each column of a ring, along a new axis."""
    xp = namespace(arrays[0])
    if backend_name(arrays[0]) != "jax" or len(arrays) <= OPERANDS:
        return xp.stack(arrays, axis=axis)
    pieces = [_materialised(xp.stack(arrays[i : i + OPERANDS], axis=axis)) for i in range(0, len(arrays), OPERANDS)]
    return _materialised(xp.concat(pieces, axis=axis))


def _materialised(array: Array) -> Array:
    """The array of JAX, which XLA does not compile anew into every operation that uses it."""
    jax = sys.modules["jax"]
    if jax.__version_info__ < (0, 6):  # its barrier has no gradient, and before 0.4.38 no vmap
        return array
    return jax.lax.optimization_barrier(array)


def nonzero_rows(mask: Array) -> Array:
    """Indices of the true entries of a concrete one-dimensional mask."""
    return namespace(mask).nonzero(mask)[0]


def largest_entries(arrays: Sequence[Array]) -> list[float]:
    """The largest entry of each; of PyTorch's in one transfer, of JAX's untraced."""
    if backend_name(arrays[0]) == "torch":
        torch, first = sys.modules["torch"], arrays[0]
        with torch.no_grad():
            if first.numel() <= SMALL and all(array.shape == first.shape for array in arrays):  # a fifth of the time
                return list(torch.stack(list(arrays)).flatten(1).amax(1).tolist())
            return list(torch.stack([array.max() for array in arrays]).tolist())
    return [float(to_numpy(array).max()) for array in arrays]


# -------------------------------------------------------------------------------------------------------------- memory


def frozen(array: Any, dtype: Any) -> np.ndarray:
    """A copy in NumPy that cannot be written to."""
    copy = np.array(array, dtype=dtype)
    copy.flags.writeable = False
    return copy


def times_written(array: Array) -> int | None:
    """How often the array was written to in place, where its library counts that (else 0); None if it may not.

    PyTorch counts neither writes to tensors of inference mode nor those of fused optimisers to parameters.
    """
    if backend_name(array) == "torch" and (array.is_inference() or array.requires_grad):
        return None
    return getattr(array, "_version", 0)


def writable(*arrays: Array) -> bool:
    """Whether results may be written into memory that is used again: not JAX, no gradient or tracing in PyTorch."""
    match backend_name(arrays[0]):
        case "numpy":
            return True
        case "torch":
            torch = sys.modules["torch"]
            recording = torch.is_grad_enabled() and any(a.requires_grad for a in arrays)
            return not recording and is_concrete(*arrays)
    return False


def empty(shape: tuple[int, ...], array: Array) -> Array:
    """Uninitialised memory with the backend, dtype and device of `array`."""
    return namespace(array).empty(shape, dtype=array.dtype, device=array_api_compat.device(array))


# ---------------------------------------------------------------------------------------- what one library does faster


def products_into(array: Array) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """The product of two matrices and of two stacks of matrices, with the keyword `out` for the result's memory."""
    if backend_name(array) == "torch":
        torch = sys.modules["torch"]
        return torch.mm, torch.bmm
    return np.matmul, np.matmul


def matrix_minimum(array: Array) -> Callable[[Array], Array]:
    """The function from (..., r, m) to the smallest entry of each matrix, without gradient, fast in its backend.

    NaN may count as any number: values that are not finite are found where products end.
    """
    match backend_name(array):
        case "torch":  # the bits of floating point numbers are in the order of the numbers, but for negative ones
            torch = sys.modules["torch"]
            bits = torch.int32 if array.dtype == torch.float32 else torch.int64
            return lambda values: torch.amin(values.detach().view(bits).flatten(-2), -1).view(values.dtype)
        case "jax":
            return lambda values: stop_gradient(values).min(axis=(-2, -1))
    return lambda values: values.min(axis=(-2, -1))


def row_sums(array: Array) -> Array:
    """The sum over the last axis, without gradient. NumPy adds short rows up several times faster as a product."""
    if backend_name(array) == "numpy":
        width = array.shape[-1]
        sums: Array = np.reshape(array, (-1, width)) @ np.ones(width, dtype=array.dtype)
        return np.reshape(sums, array.shape[:-1])
    return stop_gradient(namespace(array).sum(array, axis=-1))
