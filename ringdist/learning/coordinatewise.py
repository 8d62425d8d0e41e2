"""Exact coordinate-wise expectation maximisation, for cores in any ring.

With all else fixed, P̂(x) and Z are linear in one factor F of a core Q_k (a dense core is its only factor). The expected
counts of the factor's entries under the data's posterior are C = F ∘ Σ_rows ∂P̂(x)/∂F / P̂(x); the derivative of the
normaliser is G = ∂Z/∂F. The maximiser of the expected log-likelihood is F ← C / G, elementwise, and the components' own
parameters are re-estimated from the responsibilities of the same step. Factors and cores are updated one after another,
with prefixes of the updated cores, so the likelihood of the full batch never decreases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ringdist.backend import Array, like_zeros, namespace
from ringdist.cores import LINEAR, Conditional, Core
from ringdist.engines.arithmetic import Linear, State
from ringdist.engines.sweep import suffix_states_in_turn
from ringdist.learning.counts import MStep, Rows, model_environment, reduced
from ringdist.network import Evidence
from ringdist.network.checks import check_device
from ringdist.network.rows import site_values
from ringdist.network.structure import mapped
from ringdist.ring import TensorRing


def visit(
    ring: TensorRing,
    rows: Array,
    weight: Array,
    row_numbers: Sequence[int] | np.ndarray,
    m_step: MStep,
    floors: dict[int, Any],
) -> tuple[TensorRing, float]:
    """Update every core once; returns the new ring and Σ weight log p(row) of these rows under it."""
    xp = namespace(rows)
    data, model = Linear(ring, Evidence.of_rows(ring, rows)), Linear(ring, Evidence.missing(ring))
    prefix, model_prefix = data.start(), model.start()
    offset = xp.zeros_like(data.offset)
    suffixes = zip(ring.sequence, suffix_states_in_turn(data), suffix_states_in_turn(model), strict=True)
    for k, suffix, model_suffix in suffixes:
        context = Rows(data, prefix, suffix, weight, row_numbers)
        site = _Site(k, context, model, model_prefix, model_suffix, site_values(ring, rows, k), m_step)
        core, variable, evidence = _updated(ring, site, floors.get(k))
        ring = ring.replaced(k, core, variable)
        if evidence is not data.evidence:
            offset = offset + evidence.offset
        prefix = data.advance(prefix, core, evidence.weights(k))
        model_prefix = model.advance(model_prefix, core, model.evidence.weights(k))
    values = data.close(prefix)[0] - data.offset + offset - (model.close(model_prefix)[0] - model.offset)
    return ring, float(xp.sum(xp.where(weight > 0, values, 0.0) * weight))


def _updated(ring: TensorRing, site: _Site, floor: Any) -> tuple[Core, Any, Evidence]:
    """The core and variable of one site after a step of each factor, and the evidence under the new variable.

    The variable is updated together with the first factor, from the same responsibilities.
    """
    k, data, core = site.k, site.rows.arithmetic, site.rows.arithmetic.cores[site.k]
    variable, family = ring.variables[k], ring.families[k]
    evidence = data.evidence
    axes = core.conditional if isinstance(core, Conditional) else {}
    for place, name in enumerate(core.arrays()):
        sums, responsibilities = site.rows.counts(core, name, evidence.weights(k))
        environment, share = model_environment(core, name, site.model, site.model_prefix, site.model_suffix)
        first = place == 0
        statistics = family.statistics(site.values, responsibilities) if first and family.streams else None
        sums, statistics = reduced(site.m_step.reduce, sums, statistics)
        arrays = core.arrays()
        core = core.with_arrays({**arrays, name: site.m_step.factor(arrays[name], sums, environment, axes.get(name))})
        if not first or family.values_are_components:
            continue
        if statistics is None:
            variable = variable.update(site.values, responsibilities)
            check_device(variable.arrays().values(), ring.prototype, f"{ring.describe_site(k)}: what update returns")
        else:
            variable = site.m_step.variable(family, statistics, share, floor)
        ring = ring.replaced(k, ring.links[k], variable)
        evidence = Evidence.of_site(ring, k, site.values)
    return core, variable, evidence


@dataclass(frozen=True)
class _Site:
    """One site during a visit, with the states on both sides of it."""

    k: int
    rows: Rows
    model: Linear
    model_prefix: State
    model_suffix: State
    values: Array  # (b,) of the column, or (b, width)
    m_step: MStep


def balanced(ring: TensorRing) -> TensorRing:
    """The same distribution from factors whose largest entry is 1, and cores with equal sums on both sides of a bond.

    A factor may move between the two sides of a bond index without changing the distribution. In EM it grows in every
    epoch, until products of cores leave the range of the dtype.
    """
    xp = namespace(ring.prototype)
    cores = [_scaled_to_one(core) for core in ring.links]
    for k, following in zip(ring.sequence, (*ring.sequence[1:], ring.sequence[0]), strict=True):
        left, right = _column_sums(cores[k]), _column_sums(cores[following].transposed())
        linked = (left > 0) & (right > 0)
        gauge = xp.where(linked, xp.sqrt(xp.where(linked, right, 1.0)) / xp.sqrt(xp.where(linked, left, 1.0)), 1.0)
        cores[k] = cores[k].gauged(None, gauge)
        cores[following] = cores[following].gauged(1 / gauge, None)
    return ring.with_values([_scaled_to_one(core) for core in cores])


def _scaled_to_one(core: Core) -> Core:
    """The core with the largest entry of every factor at 1."""
    scaled: Core = mapped(core, lambda factor: factor / namespace(factor).max(factor))
    return scaled


def _column_sums(core: Core) -> Array:
    """Σ_s Σ_a Q[s, a, :], (m',)."""
    size, left, _ = core.shape
    zeros = like_zeros((1, 1, left), next(iter(core.arrays().values())))
    return core.push(zeros + 1.0, like_zeros((1, size), zeros) + 1.0, LINEAR)[0, 0]
