"""The form of a train in which its cores' factors are conditional distributions."""

from __future__ import annotations

from typing import Any, cast

from ringdist.backend import Array, like_zeros, namespace
from ringdist.cores import LINEAR, Conditional, Core
from ringdist.engines.arithmetic import Linear
from ringdist.engines.sweep import suffix_states_in_turn
from ringdist.network import Evidence
from ringdist.ring import TensorRing


def has_normal_form(ring: TensorRing) -> bool:
    """Whether the ring is a train of cores that EM can learn together."""
    return ring.is_train and all(isinstance(core, Conditional) for core in ring.links)


def normal_form(ring: TensorRing) -> TensorRing:
    """The same distribution with Σ_s Σ_b Q[s, a, b] = 1 for every a that has any mass.

    The factors are p(b | c) and so on under the ring itself: its own expected counts, normalised.
    """
    model = Linear(ring, Evidence.missing(ring))
    links, prefix = list(ring.links), model.start()
    for k, suffix in zip(ring.sequence, suffix_states_in_turn(model), strict=True):
        core = model.cores[k]
        environment = core.environment(*model.joined(prefix, suffix), LINEAR)
        ones = like_zeros((1, core.shape[0]), ring.prototype) + 1.0
        arrays = core.arrays()
        counts = {name: array * core.derivative(name, environment, ones) for name, array in arrays.items()}
        links[k] = with_shares(core, counts)
        prefix = model.push(prefix, k)
    return ring.with_values(links)


def normalized_factors(ring: TensorRing) -> TensorRing:
    """Every factor divided by its own sums, which changes the distribution unless it is in normal form."""
    return ring.with_values([with_shares(core, core.arrays()) for core in ring.links])


def with_shares(core: Core, counts: dict[str, Array]) -> Core:
    """The core with every factor the counts' shares; those that nothing was counted of keep their own shares."""
    arrays = core.arrays()
    axes = cast(Conditional, core).conditional
    return core.with_arrays({name: _shares(counts[name], axes[name], array) for name, array in arrays.items()})


def _shares(counts: Array, axes: Any, otherwise: Array) -> Array:
    xp = namespace(counts)
    total, own = xp.sum(counts, axis=axes, keepdims=True), xp.sum(otherwise, axis=axes, keepdims=True)
    kept = otherwise / xp.where(own > 0, own, 1.0)
    return xp.where(total > 0, counts / xp.where(total > 0, total, 1.0), kept)
