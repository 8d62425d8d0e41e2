"""The emissions of CP cores stacked, so that what is asked of each is one operation for all.

A sweep through small CP cores is bound by calls. Emissions of equal shape in one array give the weights of all hidden
states in one product, and the sizes by which cores are brought near 1 in a few operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ringdist.backend import Array, largest_entries, like, namespace, row_sums, stack, stop_gradient, without_warnings
from ringdist.cores import Core, CPCore
from ringdist.network import Evidence

AS_IS = 2.0**-20, 2.0**4  # factors of a core with a largest entry in between are used as they are


class Emissions(NamedTuple):
    """Emissions of equal N and c, (g, N, c); None where they are identities."""

    columns: tuple[int, ...]
    array: Array | None

    def hidden(self, evidence: Evidence) -> Array:
        """The weights of the hidden states, (g, b, c)."""
        weights = evidence.weights_stacked(self.columns)
        if weights is None:
            weights = stack([evidence.weights(k) for k in self.columns])
        return weights if self.array is None else weights @ self.array

    def divided(self, exponents: Sequence[int]) -> Emissions:
        """Every emission divided by its power of two; none of them is far from 1."""
        if self.array is None or not any(exponents):
            return self
        powers = like(np.ldexp(1.0, -np.asarray(exponents)), self.array)
        return Emissions(self.columns, self.array * powers[:, None, None])


class Size(NamedTuple):
    """How large a core is."""

    norm: float  # the largest row sum Σ_s Σ_b Q[s, a, b]
    as_is: bool  # whether the largest entry of every factor is within `AS_IS`


def stacked_emissions(cores: Sequence[Core]) -> tuple[Emissions, ...]:
    """The emissions of the CP cores among some."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, core in enumerate(cores):
        if isinstance(core, CPCore):
            shape = (core.inner,) if core.emission is None else (core.shape[0], core.inner)
            groups.setdefault(shape, []).append(k)
    found = []
    for shape, columns in groups.items():
        emissions = [getattr(cores[k], "emission", None) for k in columns]
        found.append(Emissions(tuple(columns), None if len(shape) == 1 else stack(emissions)))
    return tuple(found)


def sizes(cores: Sequence[Core], emissions: Emissions) -> list[Size]:
    """The sizes of the cores that some emissions belong to."""
    own = [core for core in (cores[k] for k in emissions.columns) if isinstance(core, CPCore)]
    first = next(iter(own[0].arrays().values()))
    xp = namespace(first)
    with without_warnings(first):  # sums beyond the range of the dtype are seen by the caller
        ones = like(np.ones(own[0].inner), first)
        rights = stack([ones if core.right is None else row_sums(core.right) for core in own])  # (g, c)
        hidden, tops = rights, [1.0] * len(own)
        if emissions.array is not None:
            array = stop_gradient(emissions.array)
            hidden, tops = rights * xp.sum(array, axis=1), xp.max(array, axis=(1, 2)).tolist()
        norms, sums = xp.max(hidden, axis=1).tolist(), xp.max(rights, axis=1).tolist()
        for i, core in enumerate(own):
            if core.left is not None:
                norms[i] = float(xp.max(stop_gradient(core.left) @ hidden[i]))
    return [
        Size(norm, _as_is(core, top, total)) for core, norm, top, total in zip(own, norms, tops, sums, strict=True)
    ]


def _as_is(core: CPCore, emission: float, right: float) -> bool:
    """Whether all factors are within `AS_IS`, from the emission's largest entry and the right factor's largest row sum.

    The largest entry of a row is between its sum divided by its length and the sum: looking at it is rarely needed.
    """
    least, most = AS_IS
    if not least <= emission <= most:
        return False
    others = [] if core.left is None else [core.left]
    if core.right is not None and not least * core.right.shape[1] <= right <= most:
        others.append(core.right)
    return not others or all(least <= top <= most for top in largest_entries(others))
