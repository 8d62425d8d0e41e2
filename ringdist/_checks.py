"""What is asked of a ring when it is made: columns, shapes, and the values of cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ringdist._backend import Array, namespace, stop_gradient, to_numpy
from ringdist.variables import BUILT_IN, Variable

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

Column = int | str


def column_index(k: Column, variables: Sequence[Variable]) -> int:
    """The index of a column given by index or name; `ValueError` if there is none."""
    if isinstance(k, str):
        for index, variable in enumerate(variables):
            if variable.name == k:
                return index
        raise ValueError(f"there is no column {k!r}; columns are named {[v.name for v in variables]}")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"a column is an index or a name, found {k!r}")
    if not 0 <= k < len(variables):
        raise ValueError(f"there is no column {k}; columns are 0..{len(variables) - 1}")
    return int(k)


def check_variables(cores: Sequence[Array], variables: Sequence[Variable]) -> None:
    for k, variable in enumerate(variables):
        if type(variable) not in BUILT_IN and not isinstance(variable, Variable):  # the protocol is slow to check
            raise TypeError(f"column {k}: {type(variable).__name__} does not follow the protocol rd.Variable")
    arrays = [array for variable in variables for array in variable.arrays().values()]
    xp = namespace(*cores, *arrays)
    allowed = {"float32": xp.float32, "float64": xp.float64}
    for k, core in enumerate(cores):
        if core.dtype not in allowed.values():
            raise TypeError(f"column {k}: cores must be float32 or float64, found {core.dtype}")
        if core.dtype != cores[0].dtype:
            raise TypeError(f"column {k}: cores must have one dtype, found {cores[0].dtype} and {core.dtype}")


def check_shapes(ring: TensorRing) -> None:
    for k, core in enumerate(ring.cores):
        if core.ndim != 3 or 0 in core.shape:
            raise ValueError(
                f"{ring.describe(k)}: a core has shape (N, m, m') with no empty axis, found {tuple(core.shape)}"
            )
        if core.shape[0] != ring.variables[k].num_components:
            raise ValueError(
                f"{ring.describe(k)}: the core must have one matrix per component, found {core.shape[0]} matrices "
                f"for {ring.variables[k].num_components} components"
            )
    for left, right in zip(ring.order, ring.order[1:] + ring.order[:1], strict=True):
        out, into = ring.cores[left].shape[2], ring.cores[right].shape[1]
        if out != into:
            raise ValueError(
                f"ranks must close around the ring: the right bond of {ring.describe(left)} has rank {out}, "
                f"the left bond of {ring.describe(right)} has rank {into}"
            )


def check_core(ring: TensorRing, k: int) -> int:
    """Raise unless the core's values are allowed; the exponent of the power of two above its largest entry."""
    core = stop_gradient(ring.cores[k])
    xp = namespace(core)
    least, most = float(xp.min(core)), float(xp.max(core))
    if math.isnan(least) or math.isinf(most) or least < 0:
        values = to_numpy(core)
        wrong = np.argwhere(~(np.isfinite(values) & (values >= 0)))[0]
        raise ValueError(
            f"{ring.describe(k)}: cores must be finite and not negative, found {values[tuple(wrong)]:g} at entry "
            f"{tuple(int(i) for i in wrong)}"
        )
    if most == 0:
        raise ValueError(f"{ring.describe(k)}: the core is all zero, so no value of the column has any mass")
    return exponent(most, core)


def exponent(most: float, core: Array) -> int:
    """Of the power of two above a core's largest entry, within the range of its dtype."""
    bound = 120 if core.dtype == namespace(core).float32 else 1000
    return max(-bound, min(bound, math.frexp(most)[1]))
