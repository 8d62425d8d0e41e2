"""Stacked emissions of CP cores, so that one operation serves all of them.

Scaling the cores of live parameters is bound by calls. Emissions of equal shape are stacked in one array, so their
scales are determined, and they are divided, together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import (
    Array,
    largest_entries,
    like,
    namespace,
    row_sums,
    stack,
    stop_gradient,
    unstack,
    without_warnings,
)
from ringdist.cores import Core, CPCore

AS_IS = 2.0**-20, 2.0**4  # factors of a core with a largest entry in between are used as they are


class Emissions(NamedTuple):
    """Emissions of equal N and c, (g, N, c); None where they are identities."""

    columns: tuple[int, ...]
    array: Array | None

    def divided(self, exponents: Mapping[int, int]) -> Sequence[Array]:
        """The emissions divided by the powers of two of some columns."""
        powers = np.ldexp(1.0, [-exponents.get(k, 0) for k in self.columns])
        return unstack(self.array * like(powers, self.array)[:, None, None])


class Size(NamedTuple):
    """How large a core is."""

    norm: float  # the largest row sum Σ_s Σ_b Q[s, a, b]
    as_is: bool  # whether the largest entry of every factor is within `AS_IS`


def stacked_emissions(cores: Sequence[Core]) -> list[Emissions]:
    """The emissions of the CP cores among some."""
    groups: dict[tuple[int, ...], list[int]] = {}
    members: Sequence[Any] = cores
    for k, core in enumerate(cores):
        if isinstance(core, CPCore):
            shape = (core.inner,) if core.emission is None else (core.shape[0], core.inner)
            groups.setdefault(shape, []).append(k)
    return [
        Emissions(tuple(columns), None if len(shape) == 1 else stack([members[k].emission for k in columns]))
        for shape, columns in groups.items()
    ]


def cp_sizes(cores: Sequence[CPCore], emissions: Array | None) -> list[Size]:
    """The sizes of CP cores with these emissions."""
    first = cores[0].sources()[0]
    xp = namespace(first)
    with without_warnings(first):  # sums beyond the range of the dtype are seen by the caller
        ones = like(np.ones(cores[0].inner), first)
        rights = stack([ones if not core.has_right else _right_sums(core) for core in cores])  # (g, c)
        hidden, tops = rights, [1.0] * len(cores)
        if emissions is not None:
            emissions = stop_gradient(emissions)
            hidden, tops = rights * xp.sum(emissions, axis=1), xp.max(emissions, axis=(1, 2)).tolist()
        norms, sums = xp.max(hidden, axis=1).tolist(), xp.max(rights, axis=1).tolist()
        for i, core in enumerate(cores):
            if core.left is not None:
                norms[i] = float(xp.max(stop_gradient(core.left) @ hidden[i]))
    parts = zip(cores, norms, tops, sums, strict=True)
    return [Size(norm, _is_as_is(core, top, total)) for core, norm, top, total in parts]


def _right_sums(core: CPCore) -> Array:
    """The sums of the rows of the right factor, (c,)."""
    return row_sums(core.right) if core.switch is None else core.switch.row_sums()


def _is_as_is(core: CPCore, emission: float, right: float) -> bool:
    """Whether all factors are within `AS_IS`, from the emission's largest entry and the right factor's largest row sum.

    The largest entry of a row is between the mean and the sum of its entries: looking at it is rarely needed.
    """
    least, most = AS_IS
    if not least <= emission <= most:
        return False
    others = [] if core.left is None else [core.left]
    if core.has_right and not least * core.shape[2] <= right <= most:
        others.append(core.right)
    return not others or all(least <= top <= most for top in largest_entries(others))
