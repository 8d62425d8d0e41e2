"""EM for all cores of a train at once, from one backward and one forward pass (Baum-Welch).

A train whose suffix products all sum to one is an inhomogeneous hidden Markov model: every factor of a core is a
conditional distribution (`ringdist.cores.conditional`). The complete-data log-likelihood is a sum of one term for each
factor, which its normalised expected counts maximise. Therefore the likelihood of the full batch never decreases,
although all factors and variables are updated together (Baum et al. 1970). Every train has such a normal form, with the
same distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ringdist.backend import Array, accumulator, astype, like_zeros, namespace, row_sums, to_numpy
from ringdist.cores.conditional import Counts
from ringdist.engines import budget
from ringdist.engines.budget import rows_within
from ringdist.engines.range import rescale_interval
from ringdist.learning.counts import MStep, Reduce, check_mass, reduced
from ringdist.learning.normal_form import normalized_core
from ringdist.network import Evidence
from ringdist.network.checks import check_device
from ringdist.network.rows import site_values
from ringdist.ring import TensorRing


@dataclass
class Expectation:
    """Expected counts and statistics of all factors and variables of a train in normal form."""

    log_prob: float = 0.0  # Σ weight log p(row)
    weight: float = 0.0
    factors: dict[int, dict[str, Array]] = field(default_factory=dict)  # by site: expected counts of every entry
    statistics: dict[int, Any] = field(default_factory=dict)  # by site whose family has them
    observed: dict[int, list[tuple[Array, Array]]] = field(default_factory=dict)  # x and p(s | x) of other families

    @classmethod
    def of_rows(
        cls, ring: TensorRing, rows: Array, weight: Array, row_numbers: Sequence[int] | np.ndarray
    ) -> Expectation:
        """The expectation for checked rows (b, d) and weights (b,), in chunks that fit the memory budget."""
        found = cls()
        widest = max(max(max(array.shape) for array in core.arrays().values()) for core in ring.links)
        step = min(
            rows_within(budget.CACHED, widest), rows_within(budget.at_once(rows), 2 * widest * ring.num_variables)
        )
        for start in range(0, rows.shape[0], step):
            chunk = slice(start, start + step)
            found._add(ring, rows[chunk], weight[chunk], row_numbers[chunk])
        return found

    def _add(self, ring: TensorRing, rows: Array, weight: Array, row_numbers: Any) -> None:
        xp, interval = namespace(rows), rescale_interval(ring)
        evidence = Evidence.of_rows(ring, rows)
        ones = like_zeros((rows.shape[0], 1), rows) + 1.0
        kept, suffix = {}, ones
        for j, k in reversed(list(enumerate(ring.sequence))):
            suffix, kept[k] = _conditional(ring, k).passed_back(suffix, evidence.weights(k))
            if j % interval == 0:
                top = xp.max(suffix, axis=1, keepdims=True)
                suffix = suffix / xp.where(top > 0, top, 1.0)
        prefix, logs, low = ones, evidence.offset, None
        for j, k in enumerate(ring.sequence):
            counts = _conditional(ring, k).counts(prefix, kept.pop(k), evidence.weights(k), weight)
            low = counts.mass if low is None else xp.minimum(low, counts.mass)
            self._count(ring, k, counts, site_values(ring, rows, k))
            prefix = counts.prefix
            if j % interval == 0 or prefix.shape[1] == 1:
                total = row_sums(prefix)
                total = xp.where(total > 0, total, 1.0)
                logs, prefix = logs + xp.log(astype(total, accumulator(total))), prefix / total[:, None]
        check_mass(low, weight, row_numbers)
        self.log_prob += float(xp.sum(xp.where(weight > 0, logs, 0.0) * weight))
        self.weight += float(xp.sum(weight))

    def _count(self, ring: TensorRing, k: int, counts: Counts, values: Array) -> None:
        known = self.factors.get(k)
        self.factors[k] = (
            counts.factors if known is None else {name: known[name] + new for name, new in counts.factors.items()}
        )
        family = ring.families[k]
        if family.values_are_components:
            return
        if not family.streams:
            self.observed.setdefault(k, []).append((values, counts.components))
            return
        statistics, seen = family.statistics(values, counts.components), self.statistics.get(k)
        self.statistics[k] = (
            statistics if seen is None else {name: seen[name] + new for name, new in statistics.items()}
        )


def maximised(
    ring: TensorRing,
    found: Expectation,
    m_step: MStep,
    floors: dict[int, Any],
    *,
    tied: bool = False,
) -> TensorRing:
    """The train after an M-step of all factors and variables.

    Args:
        tied: whether factors of equal name and shape are one factor, and variables of equal kind one variable.
    """
    factors, statistics = dict(found.factors), dict(found.statistics)
    for k in ring.sequence:
        factors[k], statistics[k] = _reduced(m_step.reduce, factors[k], statistics.get(k))
    expected = _model_counts(ring) if m_step.step < 1 else {}
    own = {k: counts.factors for k, counts in expected.items()}
    if tied:
        factors, own = _pooled(factors), _pooled(own)
        shapes = {k: ring.families[k].form.nameless for k in ring.sequence}
        statistics = _pooled_statistics(statistics, shapes)
    links, variables = list(ring.links), list(ring.variables)
    for k, core in enumerate(ring.links):
        arrays, axes = core.arrays(), _conditional(ring, k).conditional
        counts = {
            name: m_step.smoothed_counts(array, factors[k][name], own[k][name] if own else None, axes[name])
            for name, array in arrays.items()
        }
        links[k] = normalized_core(core, counts)
        family, floor = ring.families[k], floors.get(k)
        if statistics[k] is not None:
            share = expected[k].components[0] if expected else None
            variables[k] = m_step.variable(family, statistics[k], share, floor)
        elif k in found.observed:
            xp = namespace(ring.prototype)
            values, responsibilities = (xp.concat(parts) for parts in zip(*found.observed[k], strict=True))
            variables[k] = ring.variables[k].update(values, responsibilities)
            check_device(
                variables[k].arrays().values(), ring.prototype, f"{ring.describe_site(k)}: what update returns"
            )
    return ring.with_values(links, variables)


def _conditional(ring: TensorRing, k: int) -> Any:
    """The core of a column, which is `Conditional` and a `Core`."""
    return ring.links[k]


def _model_counts(ring: TensorRing) -> dict[int, Counts]:
    """What the train itself expects of a row, by column: every suffix sums to one."""
    prefix = like_zeros((1, 1), ring.prototype) + 1.0
    found = {}
    for k in ring.sequence:
        core = _conditional(ring, k)
        ones = like_zeros((1, core.shape[0]), prefix) + 1.0
        _, kept = core.passed_back(like_zeros((1, core.shape[2]), prefix) + 1.0, ones)
        found[k] = core.counts(prefix, kept, ones, ones[:, 0])
        prefix = found[k].prefix
    return found


def _reduced(reduce: Reduce | None, factors: dict[str, Array], statistics: Any) -> tuple[dict[str, Array], Any]:
    """Summed over processes."""
    if reduce is None:
        return factors, statistics
    found = {}
    for place, (name, counts) in enumerate(factors.items()):
        found[name], statistics = reduced(reduce, counts, statistics) if place == 0 else (reduce(counts), statistics)
    return found, statistics


def _pooled(factors: dict[int, dict[str, Array]]) -> dict[int, dict[str, Array]]:
    """Every array replaced by the sum over columns of those of its name and shape."""
    sums: dict[Any, Array] = {}
    for arrays in factors.values():
        for name, array in arrays.items():
            key = name, tuple(array.shape)
            sums[key] = sums[key] + array if key in sums else array
    return {k: {name: sums[name, tuple(a.shape)] for name, a in arrays.items()} for k, arrays in factors.items()}


def _pooled_statistics(statistics: dict[int, Any], kinds: dict[int, Any]) -> dict[int, Any]:
    sums: dict[Any, dict[str, Array]] = {}
    for k, own in statistics.items():
        if own is not None:
            known = sums.get(kinds[k])
            sums[kinds[k]] = own if known is None else {name: known[name] + new for name, new in own.items()}
    return {k: None if own is None else sums[kinds[k]] for k, own in statistics.items()}


def check_tied(ring: TensorRing) -> None:
    """Raise `ValueError` unless factors of equal name and shape are equal, and variables of equal kind."""
    seen: dict[Any, tuple[int, np.ndarray]] = {}
    for k in ring.sequence:
        family = ring.families[k]
        if not (family.streams or family.values_are_components):
            raise ValueError(f"{ring.describe_site(k)}: tied=True needs a family with statistics, found {family.kind}")
        parameters = {f"{family.kind.__name__}.{name}": array for name, array in family.arrays().items()}
        for name, array in {**ring.links[k].arrays(), **parameters}.items():
            value = to_numpy(array)
            first, known = seen.setdefault((name, value.shape), (k, value))
            if not np.array_equal(known, value):
                raise ValueError(
                    f"tied=True needs equal factors and variables in all columns, found another {name} in "
                    f"{ring.describe_site(k)} than in {ring.describe_site(first)}; start from "
                    f"rd.initialize(..., tied=True)"
                )
