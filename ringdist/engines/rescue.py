"""Linear numbers first, then the log-space fallback for rows in which underflow may have mattered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    astype,
    indices,
    namespace,
    nonzero_rows,
    stop_gradient,
    take,
    to_numpy,
)
from ringdist.cores import Core, CPCore
from ringdist.engines import budget
from ringdist.engines.arithmetic import Linear, Log, Result
from ringdist.engines.budget import rows_within
from ringdist.engines.range import threshold
from ringdist.network import Evidence, Network


def robust(ring: Network, evidence: Evidence, compute: Callable[[Any], Result], tolerance: float) -> Array:
    """`compute` on row-scaled numbers, and again on logarithms for rows in which underflow may have mattered.

    Args:
        compute: from a `Linear` or a `Log` to a value (b, ...) and the smallest entry met (b,).
        tolerance: how far apart the value and its upper bound may be, relative to the value or to 1.
    """
    return rescue(
        ring,
        evidence,
        lambda r, e, floored: compute(Linear(r, e, floored=floored)),
        lambda e: compute(Log(ring, e))[0],
        tolerance,
    )


def rescue(
    ring: Network,
    evidence: Evidence,
    linear: Callable[[Network, Evidence, bool], Result],
    exact: Callable[[Evidence], Array],
    tolerance: float,
    *,
    forward: bool = False,
) -> Array:
    """The value of `linear`, replaced by that of `exact` for rows in which underflow may have mattered.

    Args:
        forward: whether `exact` is one forward sweep.
    """
    value, low = linear(ring, evidence, False)
    if low is None:
        return value
    wrong = lost_rows(ring, evidence, value, low, lambda r, e: linear(r, e, True)[0], tolerance)
    if wrong.shape[0] == 0:
        return value
    return replace_rows(value, wrong, by_chunks(ring, evidence.rows(wrong), exact, forward=forward))


def lost_rows(
    ring: Network,
    evidence: Evidence,
    value: Array,
    low: Array,
    floored: Callable[[Network, Evidence], Array],
    tolerance: float,
) -> Array:
    """Rows whose value may have lost more than the tolerance to underflow, ascending.

    Args:
        value, low: the value (b, ...) and the smallest entry met on the way to it (b,).
        floored: the upper bound of the value for some rows of the evidence.
    """
    xp = namespace(value)
    value = stop_gradient(value)
    finite = xp.isfinite(value if value.ndim == 1 else xp.sum(value, axis=1))
    suspect = nonzero_rows(~(finite & (low >= threshold(ring))))
    if suspect.shape[0] == 0:
        return suspect
    found = take(value, suspect)
    gap = xp.abs(floored(ring.detached_cores(), evidence.rows(suspect).detach()) - found)
    # Relative where the value is large, whose own rounding is; without a number to compare with, nothing agrees.
    agree = gap <= tolerance * xp.where(xp.isfinite(found), xp.clip(xp.abs(found), min=1.0), 1.0)
    return suspect[~(agree if agree.ndim == 1 else xp.all(agree, axis=1))]


def by_chunks(ring: Network, evidence: Evidence, exact: Callable[[Evidence], Array], *, forward: bool = False) -> Array:
    """`exact` over slices of rows whose temporaries in log space stay within the budget."""
    step = rows_within(
        2 * budget.TEMPORARY, max(_numbers_per_row(core, min(ring.ranks), forward) for core in ring.links)
    )
    if evidence.num_rows <= step:
        return exact(evidence)
    index = indices(range(evidence.num_rows), ring.prototype)
    parts = [exact(evidence.rows(index[i : i + step])) for i in range(0, evidence.num_rows, step)]
    return namespace(ring.prototype).concat(parts, axis=0)


def _numbers_per_row(core: Core, cut: int, forward: bool) -> int:
    """The summands of a product of one row's state with the core in logarithms; only a forward one uses a switch."""
    size, left, right = core.shape
    if not forward or not isinstance(core, CPCore) or core.switch is None:
        return max(cut, size) * left * right
    return max(2 * cut * right * (1 if core.left is None else left), 1 if core.emission is None else size * right)


def replace_rows(value: Array, rows: Array, replacement: Array) -> Array:
    """`value` with some rows (ascending) exchanged, without writing into it and with gradients through both."""
    xp = namespace(value)
    source = to_numpy(rows)
    index = np.arange(value.shape[0])
    index[source] = value.shape[0] + np.arange(source.shape[0])
    merged = xp.concat([value, astype(replacement, value.dtype)], axis=0)
    return take(merged, indices(index, value))
