"""Mixtures of rings from mixtures of rings: marginals, conditionals, renumbered columns, other backends."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from ringdist.backend import accumulator, convert, dtype_name, is_concrete, namespace, stop_gradient, to_numpy
from ringdist.network.layout import Column
from ringdist.queries import transforms
from ringdist.queries.transforms import log_evidence
from ringdist.ring_mixture.structure import Mixture

M = TypeVar("M", bound=Mixture)


def marginal(mixture: M, keep: Sequence[Column]) -> M:
    """The marginal distribution of the columns in `keep`, sorted by index, as a mixture: that of the rings' marginals.

    Raises:
        ValueError: if `keep` is empty, repeats a column or names one that is not there.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))] * 2, [rd.Categorical(2)] * 2)
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> rd.RingMixture([a, b], [0.25, 0.75]).marginal([1]).to_dense().round(3)
        array([0.8, 0.2])
    """
    return mixture.mapped(lambda ring: transforms.marginal(ring, keep))


def condition(mixture: M, evidence: Mapping[Column, Any]) -> M:
    """The distribution given values of some columns and events of others: the rings conditioned, their weights updated.

    The new weight of ring c is proportional to w_c p_c(evidence). A ring in which the evidence has zero mass is left
    out.

    Args:
        evidence: column (index or name) to a number, whose column is then left out, an `rd.Interval`, or a set of
            categories.

    Raises:
        TypeError: if evidence is not a mapping.
        ValueError: if a column is unknown, a value is missing or outside its support, no column remains, an event does
            not fit its column, or the evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> a, b = (
        ...     rd.TensorRing([np.reshape(weights, (2, 1, 1))] * 2, [rd.Categorical(2)] * 2)
        ...     for weights in ([0.5, 0.5], [0.9, 0.1])
        ... )
        >>> rd.RingMixture([a, b], [0.5, 0.5]).condition({0: 1}).weights.round(3)
        array([0.833, 0.167])
    """
    logs = namespace(mixture.prototype).stack([log_evidence(ring, evidence) for ring in mixture.rings])
    if not evidence:
        return mixture
    if is_concrete(logs, mixture.linear):
        mass = to_numpy(stop_gradient(logs)) > -math.inf
        if not (mass & (to_numpy(mixture.linear) > 0)).any():
            raise ValueError(f"evidence must have positive mass, found zero mass for {dict(evidence)}")
        if not mass.all():
            members = [c for c, positive in enumerate(mass) if positive]
            return condition(mixture.only(members), evidence)
    return mixture.with_rings([transforms.condition(ring, evidence) for ring in mixture.rings], logs)


def permute(mixture: M, columns: Sequence[Column]) -> M:
    """The same distribution with column i of the result being column `columns[i]`.

    mixture.permute(c).log_prob(x[..., c]) == mixture.log_prob(x).

    Raises:
        ValueError: if `columns` is not a permutation.

    Examples:
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2, name="a"), rd.Categorical(3, name="b")], rank=2, rng=0)
        >>> rd.RingMixture([ring, ring], [0.5, 0.5]).permute(["b", "a"]).variables[0].name
        'b'
    """
    return mixture.mapped(lambda ring: transforms.permute(ring, columns))


def to(mixture: M, xp: ModuleType | None = None, dtype: Any = None, device: Any = None) -> M:
    """The mixture with its arrays in another backend (numpy, torch, jax.numpy), dtype or on another device.

    Raises:
        TypeError: if xp is not such a module, or the dtype is not float32 or float64.

    Examples:
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> rd.RingMixture([ring, ring], [0.5, 0.5]).to(dtype="float32").weights.dtype
        dtype('float32')
    """
    rings = tuple(transforms.to(ring, xp, dtype, device) for ring in mixture.rings)
    moved = functools.partial(convert, xp=xp, device=device)
    logs = moved(mixture.logs, dtype=dtype_name(accumulator(rings[0].prototype)))
    return type(mixture).from_parts(rings, moved(mixture.linear, dtype=dtype), logs, validate=mixture.validate)
