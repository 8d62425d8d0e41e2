"""Rings from rings: marginals, conditionals, renumbered columns, other backends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    convert,
    is_array,
    is_concrete,
    like,
    like_zeros,
    namespace,
    stop_gradient,
)
from ringdist.engines.choice import log_mass
from ringdist.network import Evidence, Network
from ringdist.network.events import Event, as_events, check_masses, is_event
from ringdist.network.ownership import converted_core
from ringdist.network.rows import as_rows, site_values
from ringdist.network.structure import converted_variable
from ringdist.queries.elimination import eliminate
from ringdist.queries.log_prob import log_partition
from ringdist.variables import Family, Interval, log_probability_within, restricted

N = TypeVar("N", bound=Network)


def marginal(ring: N, keep: Sequence[int | str]) -> N:
    """The marginal distribution of the columns in `keep`, sorted by index, as a ring (paper Eq. 2).

    The matrices of dropped variables are multiplied into their neighbours on both sides of the thinnest bond among
    them, so ranks never grow. A single remaining variable has rank 1. A wide variable keeps the marginal Gaussians of
    its remaining columns. Log-densities do not change; Z may change by a factor.

    Raises:
        ValueError: if `keep` is empty, repeats a column or names an unknown one.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.marginal([1]).to_dense().round(3)
        array([0.6, 0.4])
    """
    if isinstance(keep, str):
        raise TypeError(f"the columns to keep must be a list, found {keep!r}")
    columns = [ring.column(k) for k in keep]
    if not columns:
        raise ValueError("a marginal must keep at least one column, found none")
    if len(set(columns)) != len(columns):
        raise ValueError(f"the columns to keep must differ, found {list(keep)}")
    kept = set(columns)
    left = [[k for k in own if k in kept] for own in ring.columns]
    narrowed = {
        i: ring.families[i].marginal([own.index(k) for k in left[i]]).variable
        for i, own in enumerate(ring.columns)
        if 0 < len(left[i]) < len(own)
    }
    return eliminate(ring, Evidence.missing(ring), left, narrowed)


def condition(ring: N, evidence: Mapping[int | str, Any]) -> N:
    """The distribution given values of some columns and events of others, as a ring, columns sorted by index.

    Columns with a value are not part of the result. Columns with an event are: an interval gives truncated components
    with new weights (see `rd.Truncated`), and a set gives all other categories zero mass; categories keep their codes.
    Within the event, log p(x | event) = log p(x) − log P(event). A wide variable keeps the conditional Gaussians of the
    columns without a value, with new weights; intervals among them make an `rd.TruncatedMultivariateGaussianMixture`,
    which states how exact it is.

    Args:
        evidence: maps a column (index or name) to a number or an `rd.Interval`, or a categorical column to a set or
            list of categories.

    Raises:
        TypeError: if evidence is not a mapping.
        ValueError: if a column is unknown, a value is missing or outside its support, no column remains, an event does
            not fit its column (see `probability`), or the evidence has zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.condition({0: 1}).to_dense().round(3)
        array([0.4, 0.6])
        >>> ring.condition({0: {1}}).to_dense().round(3)
        array([[0. , 0. ],
               [0.4, 0.6]])
    """
    values, events = _values(ring, evidence)
    if not values and not events:
        return ring
    rows, core = _rows(ring, values), ring.prototype
    check_masses(events, core)
    mass = log_mass(ring, Evidence.of_rows(ring, rows, events=events), "auto")
    if is_concrete(mass) and float(stop_gradient(mass[0])) == -math.inf:
        raise ValueError(f"evidence must have positive mass, found zero mass for {dict(evidence)}")
    observed = Evidence.of_rows(ring, rows)
    left = [[k for k in own if k not in values] for own in ring.columns]
    partly = [i for i, own in enumerate(ring.columns) if 0 < len(left[i]) < len(own)]
    weights = {i: observed.log_weights(i)[0] for i in partly}
    families = {}
    for i in partly:
        places = [j for j, k in enumerate(ring.columns[i]) if k not in values]
        families[i] = ring.families[i].conditioned(site_values(ring, rows, i)[0], places)
    for i in {ring.place(k)[0]: None for k in events if k not in values}:
        own = {place: events[k] for place, k in enumerate(left[i]) if k in events}
        logs, families[i] = _restricted(families.get(i, ring.families[i]), own, core)
        weights[i] = logs + weights.get(i, 0.0)
    weights = {i: astype(logs, accumulator(logs)) for i, logs in weights.items()}
    return eliminate(ring, observed, left, {i: family.variable for i, family in families.items()}, weights)


def _restricted(family: Family, events: Mapping[int, Event], core: Array) -> tuple[Array, Family]:
    """log P(events | s) of a family, (N,), and the family given events by the places of its columns."""
    bounds = {place: event.allowed for place, event in events.items() if isinstance(event.allowed, Interval)}
    if not bounds:  # categories
        (event,) = events.values()
        return event.log_weights(core), family
    return log_probability_within(family, bounds), restricted(family, bounds)


def log_evidence(ring: Network, evidence: Mapping[int | str, Any]) -> Array:
    """log p(evidence), a scalar array in the accumulator's dtype, for the evidence that `condition` accepts.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> round(float(np.exp(log_evidence(ring, {0: 1}))), 6)
        0.5
    """
    values, events = _values(ring, evidence)
    if not values and not events:
        return like_zeros((), ring.prototype, accumulator(ring.prototype))
    observed = Evidence.of_rows(ring, _rows(ring, values), events=events)
    return log_mass(ring, observed, "auto")[0] - log_partition(ring)


def _values(ring: Network, evidence: Mapping[int | str, Any]) -> tuple[dict[int, Any], dict[int, Event]]:
    """Values by the index of their column, for some columns but not all, and events of others."""
    if not isinstance(evidence, Mapping):
        raise TypeError(f"evidence must be a mapping from columns to values, found {type(evidence).__name__}")
    values = {ring.column(k): value for k, value in evidence.items()}
    if len(values) != len(evidence):
        raise ValueError(f"the columns to condition on must differ, found {list(evidence)}")
    events = as_events(ring, {k: value for k, value in values.items() if is_event(value)})
    values = {k: value for k, value in values.items() if k not in events}
    if len(values) == ring.num_columns:
        raise ValueError("a conditional must leave at least one column, found evidence for all")
    return values, events


def _rows(ring: Network, values: Mapping[int, Any]) -> Array:
    """One row that observes these values."""
    core = ring.prototype
    xp = namespace(core)
    namespace(core, *(value for value in values.values() if is_array(value)))  # they are of one backend
    entries = [like(values[k] if k in values else np.nan, core) for k in range(ring.num_columns)]
    for k in values:
        if entries[k].ndim != 0:
            raise ValueError(f"{ring.describe(k)}: evidence must be one number, found shape {tuple(entries[k].shape)}")
        if is_concrete(entries[k]) and math.isnan(float(entries[k])):
            raise ValueError(f"{ring.describe(k)}: evidence must be a number, found NaN; use marginal to leave it out")
    rows, _ = as_rows(ring, xp.stack(entries)[None])
    return rows


def permute(ring: N, columns: Sequence[int | str]) -> N:
    """The same distribution with column i of the result being column `columns[i]`.

    ring.permute(c).log_prob(x[..., c]) == ring.log_prob(x). The sequence around the ring does not change: another
    sequence is another model, which has to be fitted. Variables of the result are sorted by their first columns, and
    the columns of a wide variable are sorted.

    Raises:
        ValueError: if `columns` is not a permutation.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> table = np.array([[0.4, 0.1], [0.2, 0.3]])  # p(x_0, x_1)
        >>> cores = [np.eye(2)[:, None, :], table.T[:, :, None]]
        >>> ring = rd.TensorRing(cores, [rd.Categorical(2), rd.Categorical(2)])
        >>> ring.permute([1, 0]).to_dense().round(3)
        array([[0.4, 0.2],
               [0.1, 0.3]])
    """
    indices = [ring.column(k) for k in columns]
    if sorted(indices) != list(range(ring.num_columns)):
        raise ValueError(f"columns must be a permutation of the {ring.num_columns} columns, found {list(columns)}")
    found: dict[int, list[tuple[int, int]]] = {}  # of every site the new columns, and their places in its variable
    for new, (i, place) in enumerate(map(ring.place, indices)):
        found.setdefault(i, []).append((new, place))
    site = {i: n for n, i in enumerate(found)}
    variables = []
    for i, own in found.items():
        places = [place for _, place in own]
        variables.append(ring.variables[i] if places == sorted(places) else ring.families[i].marginal(places).variable)
    order, layout = [site[i] for i in ring.order], [[new for new, _ in own] for own in found.values()]
    return ring.rebuilt([ring.links[i] for i in found], variables, order, layout)


def to(ring: N, xp: ModuleType | None = None, dtype: Any = None, device: Any = None) -> N:
    """The ring with its arrays in another backend (numpy, torch, jax.numpy), dtype or on another device.

    Raises:
        TypeError: if xp is not such a module, or the dtype is not float32 or float64.

    Examples:
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> ring.to(dtype="float32").cores[0].dtype
        dtype('float32')
    """
    cores = [converted_core(core, lambda array: convert(array, xp, dtype, device)) for core in ring.links]
    variables = [converted_variable(v, xp, dtype, device) for v in ring.variables]
    return ring.rebuilt(cores, variables, ring.order, ring.columns)
