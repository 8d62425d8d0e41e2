"""Creation, conversion, stacking and indexing of arrays of any backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ringdist.backend.dispatch import Array, backend_name, backend_of_namespace, is_array, is_concrete, namespace

SMALL = 2**13  # numbers of an array that is copied for the sake of fewer calls
PART = 2**17  # numbers of an array that several operations in turn read and write in a CPU's cache
OPERANDS = 64  # arrays that JAX stacks in one operation: to compile one of thousands takes minutes


def stop_gradient(array: Array) -> Array:
    match backend_name(array):
        case "torch":
            return array.detach() if array.requires_grad else array
        case "jax":
            return sys.modules["jax"].lax.stop_gradient(array)
    return array


def checkpoint(function: Callable[[Array], Array], array: Array) -> Array:
    """function(array), whose intermediate results are recomputed in the backward pass instead of stored."""
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
    """Integers as an index array with the backend and device of `array`."""
    if backend_name(array) == "torch" and array.device.type == "cuda":
        return _cuda_indices(values, array)
    if isinstance(values, range):
        values = np.arange(values.start, values.stop, values.step)
    return like(np.asarray(values, dtype=np.int64), array, index_dtype(array))


def _cuda_indices(values: Sequence[int] | np.ndarray, array: Array) -> Array:
    """Integers on the device of `array`, without synchronisation of host and device."""
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


def like_zeros(shape: tuple[int, ...], array: Array, dtype: Any = None) -> Array:
    """Zeros with the backend and device of `array`, and its dtype unless given."""
    return namespace(array).broadcast_to(like(0.0, array, dtype), shape)


def identity(size: int, array: Array) -> Array:
    """The identity matrix with the backend, dtype and device of `array`."""
    device = {} if backend_name(array) == "jax" else {"device": array_api_compat.device(array)}
    return namespace(array).eye(size, dtype=array.dtype, **device)


def plus_diagonal(matrix: Array, values: Array) -> Array:
    """The matrix (n, n) with values (n,) added to its diagonal; it may be overwritten."""
    match backend_name(matrix):
        case "numpy":
            matrix[np.diag_indices(len(matrix))] += values
        case "torch":
            if not is_concrete(matrix, values):  # as in a transform that maps over the values only
                return matrix + sys.modules["torch"].diag(values)
            matrix.diagonal().add_(values)
        case _:
            return matrix.at[np.diag_indices(matrix.shape[0])].add(values)
    return matrix


def plus_product(array: Array, x: Array, y: Array) -> Array:
    """array + x · y; the array may be overwritten."""
    if backend_name(array) == "torch" and is_concrete(array, x, y):
        return array.addcmul_(x, y)
    return array + x * y


def value_range(size: int, array: Array) -> Array:
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
    """The array in another backend or dtype or on another device; the same array if nothing changes."""
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


def default_dtype(backend: str) -> str:
    if backend == "torch":
        return dtype_name(sys.modules["torch"].get_default_dtype())
    if backend == "jax":
        return np.dtype(sys.modules["jax"].dtypes.canonicalize_dtype(np.float64)).name
    return "float64"


def accumulator(array: Array) -> Any:
    """The dtype for sums of many logarithms: float64 if the backend has it."""
    match backend_name(array):
        case "torch":
            return sys.modules["torch"].float32 if array.device.type == "mps" else sys.modules["torch"].float64
        case "jax":
            return sys.modules["jax"].dtypes.canonicalize_dtype(np.float64)
    return np.float64


def take(array: Array, index: Array, axis: int = 0) -> Array:
    """Entries along an axis by non-negative indices (n,); differentiable in every backend."""
    if backend_name(array) == "torch":  # array-api-compat first asks, in four operations, which are negative
        return sys.modules["torch"].index_select(array, axis, index)
    return namespace(array).take(array, index, axis=axis)


def sum_by_index(values: Array, index: Array, size: int) -> Array:
    """Sums of the rows of values (b, ...) with equal entries in `index` (b,): (size, ...)."""
    match backend_name(values):
        case "torch":
            return values.new_zeros((size, *values.shape[1:])).index_add(0, index, values)
        case "jax":
            return sys.modules["jax"].numpy.zeros((size, *values.shape[1:]), values.dtype).at[index].add(values)
    sums = np.zeros((size, *values.shape[1:]), values.dtype)
    np.add.at(sums, index, values)
    return sums


def unstack(array: Array, axis: int = 0) -> Sequence[Array]:
    """The slices along an axis."""
    if backend_name(array) == "torch":  # array-api-compat uses an operation without a rule for `torch.vmap`
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
    """A JAX array that XLA computes once instead of fusing it into every operation that uses it."""
    jax = sys.modules["jax"]
    if jax.__version_info__ < (0, 6):  # its barrier has no gradient, and before 0.4.38 no vmap
        return array
    return jax.lax.optimization_barrier(array)


def nonzero_rows(mask: Array) -> Array:
    """Indices of the true entries of a concrete one-dimensional mask."""
    return namespace(mask).nonzero(mask)[0]


def largest_entries(arrays: Sequence[Array]) -> list[float]:
    """The largest entry of each array; one transfer for PyTorch, and without tracing for JAX."""
    if backend_name(arrays[0]) == "torch":
        torch, first = sys.modules["torch"], arrays[0]
        with torch.no_grad():
            if first.numel() <= SMALL and all(array.shape == first.shape for array in arrays):  # a fifth of the time
                return list(torch.stack(list(arrays)).flatten(1).amax(1).tolist())
            return list(torch.stack([array.max() for array in arrays]).tolist())
    return [float(to_numpy(array).max()) for array in arrays]


def largest_row_sums(cores: Sequence[Array]) -> list[float]:
    """The largest sum over the first and the last axis of each array (N, m, m'), as in `largest_entries`."""
    if backend_name(cores[0]) == "torch":
        torch, first = sys.modules["torch"], cores[0]
        with torch.no_grad():
            if first.numel() <= SMALL and all(core.shape == first.shape for core in cores):
                return list(torch.stack(list(cores)).sum(dim=(1, 3)).amax(1).tolist())
            return list(torch.stack([core.sum(dim=(0, 2)).max() for core in cores]).tolist())
    with np.errstate(over="ignore"):
        return [float(to_numpy(core).sum(axis=(0, 2)).max()) for core in cores]


def frozen(array: Any, dtype: Any) -> np.ndarray:
    """A read-only NumPy copy."""
    copy = np.array(array, dtype=dtype)
    copy.flags.writeable = False
    return copy


def can_reuse_memory(*arrays: Array) -> bool:
    """Whether results may be written into reused memory: not for JAX, nor with gradients or tracing in PyTorch."""
    match backend_name(arrays[0]):
        case "numpy":
            return True
        case "torch":
            return not records_gradient(*arrays) and is_concrete(*arrays)
    return False


def records_gradient(*arrays: Array) -> bool:
    """Whether PyTorch records operations on the arrays for a backward pass."""
    if backend_name(arrays[0]) != "torch":
        return False
    return bool(sys.modules["torch"].is_grad_enabled()) and any(array.requires_grad for array in arrays)


def empty(shape: tuple[int, ...], array: Array) -> Array:
    """Uninitialised memory with the backend, dtype and device of `array`."""
    return namespace(array).empty(shape, dtype=array.dtype, device=array_api_compat.device(array))


def products_into(array: Array) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """The functions for products of matrices and of stacks of matrices, with the keyword `out` for the result."""
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
    """The sum over the last axis, without gradient; in NumPy a product, which is much faster for short rows."""
    if backend_name(array) == "numpy":
        width = array.shape[-1]
        sums: Array = np.reshape(array, (-1, width)) @ np.ones(width, dtype=array.dtype)
        return np.reshape(sums, array.shape[:-1])
    return stop_gradient(namespace(array).sum(array, axis=-1))
