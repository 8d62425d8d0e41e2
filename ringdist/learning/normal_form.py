"""The normal form of a train, in which the factors of its cores are conditional distributions."""

from __future__ import annotations

from typing import Any, cast

from ringdist.backend import Array, like_zeros, namespace
from ringdist.cores import LINEAR, Conditional, Core
from ringdist.engines.arithmetic import Linear
from ringdist.engines.sweep import suffix_states_in_turn
from ringdist.network import Evidence
from ringdist.ring import TensorRing


def has_normal_form(ring: TensorRing) -> bool:
    """Whether the ring is a train of cores that EM can update together."""
    return ring.is_train and all(isinstance(core, Conditional) for core in ring.links)


def normal_form(ring: TensorRing) -> TensorRing:
    """The same distribution with Σ_s Σ_b Q[s, a, b] = 1 for every a with positive mass.

    The factors are conditional distributions under the ring, such as p(b | c): its normalised expected counts.
    """
    model = Linear(ring, Evidence.missing(ring))
    links, prefix = list(ring.links), model.start()
    for k, suffix in zip(ring.sequence, suffix_states_in_turn(model), strict=True):
        core = model.cores[k]
        environment = core.environment(*model.joined(prefix, suffix), LINEAR)
        ones = like_zeros((1, core.shape[0]), ring.prototype) + 1.0
        arrays = core.arrays()
        counts = {name: array * core.derivative(name, environment, ones) for name, array in arrays.items()}
        links[k] = normalized_core(core, counts)
        prefix = model.push(prefix, k)
    return ring.with_values(links)


def normalized_factors(ring: TensorRing) -> TensorRing:
    """Normalise every factor by its own sums; this changes the distribution unless it is in normal form."""
    return ring.with_values([normalized_core(core, core.arrays()) for core in ring.links])


def normalized_core(core: Core, counts: dict[str, Array]) -> Core:
    """The core with normalised counts as factors; distributions without counts are those of the current factors."""
    arrays = core.arrays()
    axes = cast(Conditional, core).conditional
    return core.with_arrays({name: _normalized(counts[name], axes[name], array) for name, array in arrays.items()})


def _normalized(counts: Array, axes: Any, current: Array) -> Array:
    """Counts divided by their sums over axes; current entries instead where a sum is 0."""
    xp = namespace(counts)
    total, current_total = xp.sum(counts, axis=axes, keepdims=True), xp.sum(current, axis=axes, keepdims=True)
    fallback = current / xp.where(current_total > 0, current_total, 1.0)
    return xp.where(total > 0, counts / xp.where(total > 0, total, 1.0), fallback)
