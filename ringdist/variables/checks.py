"""Checks of a variable's arguments, and the treatment of missing values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ringdist.backend import Array, frozen, is_array, is_concrete, namespace, to_numpy


def parameter(label: str, value: Any) -> Array:
    """The parameter as an array (N,) of floating point numbers; a NumPy array is copied.

    Raises:
        ValueError: if its shape is not (N,) with N >= 1.
        TypeError: if its dtype is not floating point.
    """
    value = floating(label, value)
    if value.ndim != 1 or value.shape[0] == 0:
        raise ValueError(f"{label} must have shape (N,) with N >= 1, found {tuple(value.shape)}")
    return value


def parameters(**values: Any) -> dict[str, Array]:
    """Several parameters by name, converted by `parameter`; `ValueError` unless they have the same shape."""
    arrays = {label: parameter(label, value) for label, value in values.items()}
    namespace(*arrays.values())
    shapes = [tuple(array.shape) for array in arrays.values()]
    if len(set(shapes)) > 1:
        found = " and ".join([", ".join(map(str, shapes[:-1])), str(shapes[-1])])
        raise ValueError(f"{' and '.join(_listed(list(arrays)))} must have one shape, found {found}")
    return arrays


def _listed(labels: list[str]) -> list[str]:
    return [", ".join(labels[:-1]), labels[-1]]


def check_values(label: str, value: Array, rule: Callable[[np.ndarray], np.ndarray], text: str) -> None:
    """Raise `ValueError` naming the first component that violates the rule; traced values are not checked."""
    if not is_concrete(value):
        return
    values = to_numpy(value)
    wrong = ~rule(values)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(f"{label} must be {text}, found {values[place]:g} at component {place[0]}")


def column_scale(mean: Any, std: Any, eps: float) -> Any:
    """The standard deviation of a column, or |mean| (1 if that is 0) if the column is constant up to rounding.

    Args:
        mean, std: of the column, numbers or NumPy arrays.
        eps: distance from 1 to the next number of the dtype that the values were rounded to.
    """
    return np.where(std > 2 * eps * np.abs(mean), std, np.where(mean == 0, 1.0, np.abs(mean)))


def check_name(name: Any) -> str | None:
    """The name if it is a string or None; otherwise a `TypeError`."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, found {name!r}")
    return name


def observed(x: Array, responsibilities: Array) -> tuple[Array, Array]:
    """x (n,) and responsibilities (n, N), both with zeros where x is missing."""
    xp = namespace(x, responsibilities)
    missing = xp.isnan(x)
    return xp.where(missing, 0.0, x), xp.where(missing[:, None], 0.0, responsibilities)


def check_names(names: Any, width: int) -> tuple[str | None, ...]:
    """The names of `width` columns; `TypeError` or `ValueError` unless they are strings or None, and differ."""
    if names is None:
        return (None,) * width
    if isinstance(names, str) or not all(name is None or isinstance(name, str) for name in names):
        raise TypeError(f"names must be a list of strings or None, found {names!r}")
    known = [name for name in names if name is not None]
    if len(names) != width or len(set(known)) < len(known):
        raise ValueError(f"there must be one name for each of {width} columns, all different, found {list(names)}")
    return tuple(names)


def floating(label: str, value: Any) -> Array:
    """The value as an array of floating point numbers; a NumPy array is copied."""
    value = value if is_array(value) else np.asarray(value, dtype=np.float64)
    if isinstance(value, np.ndarray):
        value = frozen(value, value.dtype)
    if not namespace(value).isdtype(value.dtype, "real floating"):
        raise TypeError(f"{label} must be floating point, found {value.dtype}")
    return value


def check_covariances(covariances: Array) -> None:
    """Raise `ValueError` naming the first component without a valid covariance; traced values are not checked."""
    if not is_concrete(covariances):
        return
    for s, matrix in enumerate(to_numpy(covariances)):
        if not np.isfinite(matrix).all():
            raise ValueError(f"covariances must be finite, found {matrix[~np.isfinite(matrix)][0]:g} at component {s}")
        variances = np.diagonal(matrix)
        if (variances <= 0).any():
            least = float(variances.min())
            raise ValueError(f"variances must be positive, found {least:g} in the covariance of component {s}")
        shape = matrix / np.sqrt(variances[:, None]) / np.sqrt(variances)
        difference = float(np.abs(shape - shape.T).max())
        if difference > np.sqrt(np.finfo(matrix.dtype).eps):
            raise ValueError(
                f"covariances must be symmetric, found correlations that differ by {difference:.2g} at component {s}"
            )
        least = float(np.linalg.eigvalsh(shape).min())
        if not least > np.finfo(matrix.dtype).eps:
            raise ValueError(
                f"covariances must be positive definite, found a correlation matrix of least eigenvalue {least:.2g} "
                f"at component {s}; add to its diagonal, or leave a column out that others determine"
            )
