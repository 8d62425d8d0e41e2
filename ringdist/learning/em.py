"""Exact coordinate-wise expectation maximisation.

With all else fixed, P̂(x) and Z are linear in one factor F of a core Q_k (a dense core is its only factor). The expected
counts of the factor's entries under the data's posterior are C = F ∘ Σ_rows ∂P̂(x)/∂F / P̂(x); the derivative of the
normaliser is G = ∂Z/∂F. The maximiser of the expected log-likelihood is F ← C / G, elementwise, and the components' own
parameters are re-estimated from the responsibilities of the same step. Factor after factor and core after core, the
prefix carrying the new values, the likelihood of the full batch never decreases.

Mini-batches interpolate (stepwise EM, Cappé and Moulines 2009): with M = F ∘ G / Z the counts that the model itself
expects per row, C is replaced by (1 − η) M + η C / n with a decaying step η, C with its pseudocounts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ringdist.backend import Array, accumulator, backend_name, is_concrete, like, like_zeros, namespace, to_numpy
from ringdist.cores import LINEAR, Core
from ringdist.engines.arithmetic import Linear, State
from ringdist.engines.sweep import suffix_states_in_turn
from ringdist.learning.counts import MStep, Reduce, Rows, Weights, model_environment, reduced
from ringdist.learning.data import TrainingData
from ringdist.learning.fitting import EpochLog, FitResult, best_of, check_options, numpy_generator
from ringdist.learning.floors import least_stds
from ringdist.learning.starts import random_like
from ringdist.network import Evidence
from ringdist.network.checks import check_device
from ringdist.network.structure import mapped
from ringdist.ring import TensorRing


def fit_em(
    ring: TensorRing,
    x: Any,
    *,
    sample_weight: Any = None,
    validation: Any = None,
    max_epochs: int = 100,
    batch_size: int | None = None,
    pseudocount: float = 0.0,
    variance_floor: float = 1e-4,
    restarts: int = 1,
    patience: int | None = 10,
    step_decay: float = 0.6,
    rng: Any = None,
    reduce: Reduce | None = None,
    progress: bool = False,
) -> FitResult:
    """Fit a ring by exact coordinate-wise EM, starting from `ring`.

    Args:
        ring: the starting point; zero core entries stay zero.
        x: (n, d) data, NaN where missing: the likelihood is that of what is observed. NumPy (a memmap too) or the
            ring's backend.
        sample_weight: (n,) non-negative weights.
        validation: (n', d) data. The ring of highest validation likelihood is returned, and learning stops after
            `patience` epochs without a better one (None: never).
        max_epochs: visits of every core.
        batch_size: None for exact EM on all rows, whose likelihood never decreases if pseudocount is 0; else rows per
            damped step, drawn from all rows whatever their order, with memory bounded by the batch. The step decays as
            (t + 2)^(-step_decay).
        pseudocount: added to every expected count, in rows: a Dirichlet prior on each factor's share of the mass.
        variance_floor: least variance of a Gaussian component, relative to the variance of its column.
        restarts: fits from the given ring and from restarts − 1 random ones of its shape; the best is returned.
        rng: seed or generator, for the order of batches and the restarts.
        reduce: sums an array over the processes that hold other rows, see `ringdist.distributed.all_reduce`. All
            processes start from the same ring and options, with the same `validation` data.
        progress: whether to show a progress bar.

    Returns:
        The fitted ring and the history of mean log-likelihoods per row.

    Raises:
        ValueError: if x or an option does not fit, or a row has zero mass under the ring. The expected counts are sums
            of row-scaled numbers without the log-space fallback of `log_prob`: a row that only a path beyond the
            range of the dtype explains (decoupled paths over hundreds of columns) counts as one of zero mass.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> x = np.random.default_rng(0).normal(size=(500, 2)).cumsum(axis=1)  # a random walk
        >>> start = rd.initialize(x, [rd.GaussianMixture] * 2, rank=3, num_components=4, rng=0)
        >>> ring, history = rd.fit_em(start, x, max_epochs=20)
        >>> bool(ring.log_prob(x).mean() > start.log_prob(x).mean())
        True
        >>> len(history["train"])
        20
    """
    check_options(max_epochs, batch_size, patience, restarts)
    if not (pseudocount >= 0 and math.isfinite(pseudocount)):
        raise ValueError(f"pseudocount must be finite and not negative, found {pseudocount}")
    if not (variance_floor >= 0 and math.isfinite(variance_floor)):
        raise ValueError(f"variance_floor must be finite and not negative, found {variance_floor}")
    if not 0.5 < step_decay <= 1:
        raise ValueError(f"step_decay must lie in (0.5, 1] for the steps to converge, found {step_decay}")
    if not is_concrete(*ring.core_arrays()):
        raise ValueError("fit_em cannot be traced")
    if reduce is not None and batch_size is not None:
        raise ValueError("several processes need the full batch: batch_size must be None where reduce is given")
    if reduce is not None and restarts > 1 and rng is None:
        raise ValueError("restarts in several processes need one seed in all of them: rng must be given with reduce")
    for k, family in enumerate(ring.families):
        if (batch_size is not None or reduce is not None) and not family.streams:
            raise ValueError(
                f"{ring.describe(k)}: mini-batches and several processes need a family with statistics and "
                f"expected_statistics, found {family.kind.__name__}"
            )
    data = TrainingData(ring, x, sample_weight)
    held_out = None if validation is None else TrainingData(ring, validation)
    generator = numpy_generator(rng, ring, draws=batch_size is not None or restarts > 1)
    merged = data if batch_size is not None else _merge_equal_rows(ring, data)
    em = _EM(pseudocount, variance_floor, step_decay, batch_size, reduce)

    def fit(restart: int) -> EpochLog:
        start = ring.detach() if restart == 0 else random_like(ring, generator)
        track = EpochLog(held_out, patience, max_epochs, progress)
        return em.run(start, merged, track, generator)

    return best_of(ring, restarts, fit)


@dataclass(frozen=True)
class _EM:
    pseudocount: float
    variance_floor: float
    step_decay: float
    batch_size: int | None
    reduce: Reduce | None

    def run(self, ring: TensorRing, data: TrainingData, track: EpochLog, rng: np.random.Generator) -> EpochLog:
        ring = track.best = balanced(ring)
        own, total = float(data.weight.sum()), self._sum(ring, data.weight.sum())
        floors = least_stds(ring, data, self.variance_floor, self._sum)
        steps = 0
        for _ in track.epochs():
            if self.batch_size is None:
                rows, weight = data.batch(ring, slice(None))
                m_step = MStep(self.pseudocount, 1.0, Weights(total, total))
                ring, value = self._visit(ring, rows, weight, data.row_numbers, m_step, floors)
            else:
                for index in data.batches(self.batch_size, rng):
                    rows, weight = data.batch(ring, index)
                    batch = self._sum(ring, data.weight[index].sum())
                    if batch > 0:
                        step = (steps + 2.0) ** -self.step_decay
                        m_step = MStep(self.pseudocount, step, Weights(total, batch))
                        ring, _ = self._visit(ring, rows, weight, index, m_step, floors)
                    steps += 1
                value = data.mean_log_prob(ring) * own
            ring = balanced(ring)
            track.record(ring, self._sum(ring, value) / total)
        return track

    def _sum(self, ring: TensorRing, *values: float) -> Any:
        """Each number summed over the processes; a float for one number, else a NumPy array."""
        numbers = np.asarray(values, dtype=np.float64)
        if self.reduce is not None:
            core = ring.prototype
            numbers = to_numpy(self.reduce(like(numbers, core, accumulator(core)))).astype(np.float64)
        return float(numbers[0]) if len(values) == 1 else numbers

    def _visit(
        self,
        ring: TensorRing,
        rows: Array,
        weight: Array,
        row_numbers: Sequence[int] | np.ndarray,
        m_step: MStep,
        floors: dict[int, float],
    ) -> tuple[TensorRing, float]:
        """Every core once; the new ring and its log-likelihood Σ weight log p(row) of these rows."""
        xp = namespace(rows)
        data, model = Linear(ring, Evidence.of_rows(ring, rows)), Linear(ring, Evidence.missing(ring))
        prefix, model_prefix = data.start(), model.start()
        offset = xp.zeros_like(data.offset)
        suffixes = zip(ring.sequence, suffix_states_in_turn(data), suffix_states_in_turn(model), strict=True)
        for k, suffix, model_suffix in suffixes:
            met = Rows(data, prefix, suffix, weight, row_numbers)
            site = _Site(k, met, model, model_prefix, model_suffix, rows[:, k], m_step)
            core, variable, evidence = self._updated(ring, site, floors.get(k))
            ring = ring.replaced(k, core, variable)
            if evidence is not data.evidence:
                offset = offset + evidence.offset
            prefix = data.advance(prefix, core, evidence.weights(k))
            model_prefix = model.advance(model_prefix, core, model.evidence.weights(k))
        values = data.close(prefix)[0] - data.offset + offset - (model.close(model_prefix)[0] - model.offset)
        return ring, float(xp.sum(xp.where(weight > 0, values, 0.0) * weight))

    def _updated(self, ring: TensorRing, site: _Site, floor: float | None) -> tuple[Core, Any, Evidence]:
        """The core and variable of one column after a step of each factor, and the evidence under the new variable.

        The variable moves together with the first factor: both from the same responsibilities.
        """
        k, data, core = site.k, site.rows.arithmetic, site.rows.arithmetic.cores[site.k]
        variable, family = ring.variables[k], ring.families[k]
        evidence = data.evidence
        for place, name in enumerate(core.arrays()):
            sums, responsibilities = site.rows.counts(core, name, evidence.weights(k))
            environment, share = model_environment(core, name, site.model, site.model_prefix, site.model_suffix)
            first = place == 0
            statistics = family.statistics(site.values, responsibilities) if first and family.streams else None
            sums, statistics = reduced(self.reduce, sums, statistics)
            arrays = core.arrays()
            core = core.with_arrays({**arrays, name: site.m_step.factor(arrays[name], sums, environment)})
            if not first or family.values_are_components:
                continue
            if statistics is None:
                variable = variable.update(site.values, responsibilities)
                check_device(variable.arrays().values(), ring.prototype, f"{ring.describe(k)}: what update returns")
            else:
                damped = site.m_step.damped(family, statistics, share)
                variable = family.from_statistics(damped, *([] if floor is None else [floor])).variable
            ring = ring.replaced(k, ring.links[k], variable)
            table = namespace(site.values).broadcast_to(
                site.values[:, None], (site.values.shape[0], ring.num_variables)
            )
            evidence = Evidence.of_rows(ring, table, [k])
        return core, variable, evidence


@dataclass(frozen=True)
class _Site:
    """One column in the middle of a visit."""

    k: int
    rows: Rows
    model: Linear
    model_prefix: State
    model_suffix: State
    values: Array  # (b,) of the column
    m_step: MStep


def balanced(ring: TensorRing) -> TensorRing:
    """The same distribution from factors whose largest entry is 1, in cores whose sums at every bond index are equal.

    A scale may move from one side of a bond index to the other without any change of the distribution. Left alone, it
    does so by a factor in every epoch, until products of cores leave the range of the dtype.
    """
    xp = namespace(ring.prototype)
    cores = [_near_one(core) for core in ring.links]
    for k, after in zip(ring.sequence, (*ring.sequence[1:], ring.sequence[0]), strict=True):
        left, right = _column_sums(cores[k]), _column_sums(cores[after].transposed())
        linked = (left > 0) & (right > 0)
        share = xp.where(linked, xp.sqrt(xp.where(linked, right, 1.0)) / xp.sqrt(xp.where(linked, left, 1.0)), 1.0)
        cores[k] = cores[k].gauged(None, share)
        cores[after] = cores[after].gauged(1 / share, None)
    return ring.with_values([_near_one(core) for core in cores])


def _near_one(core: Core) -> Core:
    near_one: Core = mapped(core, lambda factor: factor / namespace(factor).max(factor))
    return near_one


def _column_sums(core: Core) -> Array:
    """Σ_s Σ_a Q[s, a, :], (m',)."""
    size, left, _ = core.shape
    zeros = like_zeros((1, 1, left), next(iter(core.arrays().values())))
    return core.push(zeros + 1.0, like_zeros((1, size), zeros) + 1.0, LINEAR)[0, 0]


def _merge_equal_rows(ring: TensorRing, data: TrainingData) -> TrainingData:
    """Equal rows of an all-categorical table once, with their weights added up: the same sums from fewer rows."""
    if not all(family.values_are_components for family in ring.families):
        return data
    values = np.nan_to_num(to_numpy(data.x).astype(np.float64), nan=np.inf)  # an infinity of x becomes finite
    unique, first, member = np.unique(values, axis=0, return_index=True, return_inverse=True)
    if unique.shape[0] > 0.8 * data.num_rows:
        return data
    merged = TrainingData(ring, data.x[first] if backend_name(data.x) == "numpy" else to_numpy(data.x)[first])
    merged.weight = np.bincount(np.reshape(member, -1), weights=data.weight)
    merged.row_numbers = first
    return merged
