"""Checks of a new ring: shapes, and the values of cores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ringdist.backend import Array, backend_name, namespace, stop_gradient, to_numpy
from ringdist.cores import Core, CPCore, DenseCore, sources
from ringdist.network.layout import Layout
from ringdist.variables import BUILT_IN, Family, Variable, as_family


def value_spaces(variables: Sequence[Variable], layout: Layout) -> list[int | str]:
    """The base measure of every column: a number of categories, all counts, or the real line."""
    families = [as_family(variable) for variable in variables]
    spaces = [family.num_components if family.values_are_components else family.measure for family in families]
    return [spaces[i] for i, _ in layout.places]


def check_variables(variables: Sequence[Variable]) -> None:
    """Raise `TypeError` unless variables follow their protocol, `ValueError` if one of them cannot be wide."""
    for i, variable in enumerate(variables):
        if type(variable) not in BUILT_IN and not isinstance(variable, Variable):  # the protocol is slow to check
            found = f"the class {variable.__name__}" if isinstance(variable, type) else type(variable).__name__
            raise TypeError(
                f"column {i}: a variable must follow the protocol rd.Variable, as rd.Categorical(3) does, found {found}"
            )
        width = getattr(variable, "width", 1)
        if width > 1 and not isinstance(variable, Family):
            raise ValueError(
                f"variable {i}: several columns are those of an rd.MultivariateGaussianMixture, found "
                f"{type(variable).__name__} of width {width}"
            )


def check_families(cores: Sequence[Core], variables: Sequence[Variable], layout: Layout) -> None:
    """Raise unless columns have different names, and cores and variables are of one backend, dtype and device."""
    names = [name for name in layout.names if name is not None]
    if len(set(names)) < len(names):
        raise ValueError(f"variables' names must differ, found {list(layout.names)}")
    arrays = [array for variable in variables for array in variable.arrays().values()]
    for k, core in enumerate(cores):
        if isinstance(core, DenseCore):
            if core.array.ndim != 3 or 0 in core.array.shape:
                raise ValueError(
                    f"{layout.describe_site(k)}: a core has shape (N, m, m') with no empty axis, found "
                    f"{tuple(core.array.shape)}"
                )
        elif type(core) is not CPCore and not isinstance(core, Core):
            raise TypeError(
                f"{layout.describe_site(k)}: a core is an array or follows the protocol rd.Core, found {core!r}"
            )
    factors = [(k, factor) for k, core in enumerate(cores) for factor in sources(core)]
    xp = namespace(*(factor for _, factor in factors), *arrays)
    allowed = {"float32": xp.float32, "float64": xp.float64}
    dtype = factors[0][1].dtype
    for k, factor in factors:
        if factor.dtype not in allowed.values():
            raise TypeError(f"{layout.describe_site(k)}: cores must be float32 or float64, found {factor.dtype}")
        if factor.dtype != dtype:
            raise TypeError(f"{layout.describe_site(k)}: cores must have one dtype, found {dtype} and {factor.dtype}")
    prototype = factors[0][1]
    for k, (core, variable) in enumerate(zip(cores, variables, strict=True)):
        parts = (*sources(core), *variable.arrays().values())
        if not _share_device(parts, prototype):
            check_device(parts, prototype, f"{layout.describe_site(k)}: cores and variables")


def check_device(arrays: Iterable[Array], prototype: Array, label: str) -> None:
    """Raise `TypeError` unless PyTorch tensors are on the device of `prototype`; JAX moves arrays itself."""
    for array in arrays:
        if not _share_device((array,), prototype):
            raise TypeError(
                f"{label} must be on the device of the ring's first core, {prototype.device}, found {array.device}"
            )


def _share_device(arrays: Iterable[Array], prototype: Array) -> bool:
    if backend_name(prototype) != "torch":
        return True
    device = prototype.device
    return all(array.device == device for array in arrays if backend_name(array) == "torch")


def check_shapes(cores: Sequence[Core], variables: Sequence[Variable], order: Sequence[int], layout: Layout) -> None:
    """Raise unless every core has one matrix per component and ranks close around the ring."""
    for k, (core, variable) in enumerate(zip(cores, variables, strict=True)):
        size = core.shape[0]
        if size != variable.num_components:
            raise ValueError(
                f"{layout.describe_site(k)}: the core must have one matrix per component, found {size} matrices "
                f"for {variable.num_components} components"
            )
    for left, right in zip(order, (*order[1:], order[0]), strict=True):
        out, into = cores[left].shape[2], cores[right].shape[1]
        if out != into:
            raise ValueError(
                f"ranks must close around the ring: the right bond of {layout.describe_site(left)} has rank "
                f"{out}, the left bond of {layout.describe_site(right)} has rank {into}"
            )


def check_core(core: Core, label: str) -> None:
    """Raise unless the values of the core's factors are allowed."""
    for name, array in core.arrays().items():
        place = "core" if name == "core" else f"{name} factor of the core"
        _check_values(stop_gradient(array), label, place)


def _check_values(array: Array, label: str, place: str) -> None:
    xp = namespace(array)
    least, most = float(xp.min(array)), float(xp.max(array))
    if math.isnan(least) or math.isinf(most) or least < 0:
        values = to_numpy(array)
        wrong = np.argwhere(~(np.isfinite(values) & (values >= 0)))[0]
        raise ValueError(
            f"{label}: cores must be finite and not negative, found {values[tuple(wrong)]:g} at entry "
            f"{tuple(int(i) for i in wrong)}" + ("" if place == "core" else f" of the {place}")
        )
    if most == 0:
        finding = "subnormal, which the backend takes for zero" if np.any(to_numpy(array) != 0) else "zero"
        raise ValueError(f"{label}: the {place} is all {finding}, so no value of the column has any mass")
