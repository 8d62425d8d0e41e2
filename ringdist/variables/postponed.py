"""Densities that may be computed where they are used instead of before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ringdist.backend import Array, backend_name
from ringdist.variables.gaussian import GaussianMixture
from ringdist.variables.protocol import Family


def postponed(families: Sequence[Family], values: Array, core: Array) -> Any | None:
    """`Densities` of values (g, b), NaN where missing, under g families, in the dtype of a core, or None.

    There are such for Gaussian components in PyTorch on a CPU, for which a sweep computes and differentiates them.
    """
    if type(families[0]) is not GaussianMixture or backend_name(core) != "torch":
        return None
    from ringdist.variables import gaussian_torch
    from ringdist.variables.gaussian_weighing import Densities

    arrays = families[0].stack(families).arrays()
    means, stds = arrays["means"], arrays["stds"]
    if means.ndim != 3 or means.dtype != core.dtype or not gaussian_torch.applies(values, means, stds):
        return None
    return Densities(values, means[:, 0], stds[:, 0])
