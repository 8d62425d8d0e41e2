"""Exact expectation maximisation: the options, and epochs of full batches or of mini-batches.

Mini-batches interpolate (stepwise EM, Cappé and Moulines 2009). Let C be the expected counts of the n rows of a batch,
pseudocounts included, and M the counts per row that the model itself expects. An M-step then uses (1 − η) M + η C / n
instead of C / n, with a decaying step size η.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ringdist.backend import Array, accumulator, backend_name, is_concrete, like, to_numpy
from ringdist.learning import coordinatewise, one_pass
from ringdist.learning.counts import MStep, Reduce, Weights
from ringdist.learning.data import HeldOut, Model, TrainingData
from ringdist.learning.fitting import EpochLog, FitResult, best_of, check_options, numpy_generator
from ringdist.learning.floors import given_stds, least_stds_of
from ringdist.learning.normal_form import has_normal_form, normal_form, normalized_factors
from ringdist.learning.starts import random_like
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture

FIRST_STEP = 0.8  # of the linear schedule, which decreases to 0 over the whole fit


def fit_em(
    ring: Model,
    x: Any,
    *,
    sample_weight: Any = None,
    validation: Any = None,
    validation_target: int | str | None = None,
    max_epochs: int = 100,
    batch_size: int | None = None,
    pseudocount: float = 0.0,
    smoothing: float = 0.0,
    shrinkage: float = 0.0,
    num_factors: int | None = None,
    tied: bool = False,
    variance_floor: float = 1e-4,
    least_stds: Sequence[float | None] | None = None,
    restarts: int = 1,
    patience: int | None = 10,
    tolerance: float | None = None,
    step_decay: float | Literal["linear"] = 0.6,
    rng: Any = None,
    reduce: Reduce | None = None,
    progress: bool = False,
) -> FitResult:
    """Fit a ring, or a mixture of rings, by exact EM, starting from `ring`.

    All factors of a train are updated together from one backward and one forward pass per epoch, those of a ring one
    after another; see `ringdist.learning.one_pass` and `ringdist.learning.coordinatewise`. Each ring of a mixture is
    fitted to the rows weighted by its responsibilities.

    Args:
        ring: the starting point, a `TensorRing` or a `RingMixture`; zero core entries stay zero.
        x: (n, d) data, NaN where missing; the likelihood is that of the observed entries. NumPy, including memmaps, or
            the ring's backend.
        sample_weight: (n,) non-negative weights.
        validation: (n', d) data. The ring of highest validation likelihood is returned (early stopping), and fitting
            stops after `patience` epochs without improvement (None: never).
        validation_target: a column; validation is then of log p(column | the others) instead of log p(row).
        max_epochs: maximal number of epochs; each updates every core once.
        batch_size: None for exact EM on all rows, whose likelihood never decreases if pseudocount is 0. Otherwise the
            number of rows of a damped step, drawn from all rows; memory is bounded by the batch.
        step_decay: the t-th step of mini-batches is (t + 2)^(-step_decay). "linear" decreases from 0.8 to 0 over
            max_epochs and finds better optima, because large noisy steps at the start escape poor ones.
        pseudocount: number of rows added to every expected count: a Dirichlet prior on each factor's share of the mass.
        smoothing: number of rows added to every conditional distribution of a factor, spread evenly over its entries:
            for a CP core those of the component and of the next bond, given the hidden state. This is a Dirichlet prior
            whose strength does not depend on the number of entries. It adds to `pseudocount`.
        tied: fit one factor for all factors of equal name and shape, and one variable for all of equal kind. With CP
            cores in a train this is a homogeneous hidden Markov model. The start must be tied too, as made by
            `rd.initialize(..., tied=True)`.
        shrinkage: for wide variables, the strength, in rows per column, of a prior that shrinks the covariance S of
            each component towards a target T with the pooled correlations within components. For n rows and w columns
            the estimate is (n S + shrinkage w T) / (n + shrinkage w). The variances of T are
            (n diag S + shrinkage V) / (n + shrinkage), with V the geometric mean of the variances over components. 0:
            no shrinkage. Values near 1 improve the held-out likelihood if components have few rows.
        num_factors: for wide variables, the number q of factors of each covariance Λ Λᵀ + Ψ, with Λ (w, q) and Ψ
            diagonal: a mixture of factor analysers (Ghahramani and Hinton 1996). The covariances of `ring` are first
            replaced by nearby ones of this form; then the likelihood never decreases. 0: diagonal; None: unrestricted.
        variance_floor: least variance of a Gaussian component, relative to the variance of its column. The covariances
            of a wide variable exceed the diagonal matrix of these least variances in every direction.
        least_stds: instead of `variance_floor`, the least standard deviation of a component for every column, of log x
            for a log-normal family; None for a column without a floor.
        tolerance: fitting stops after an epoch that changes the mean log-likelihood of x by less (None: never).
        restarts: number of fits: one from the given ring, the others from random rings of its shape; the best is
            returned.
        rng: seed or generator, for the order of batches and the restarts.
        reduce: function that sums an array over all processes, each of which holds its own rows, see
            `ringdist.distributed.all_reduce`. All processes need the same ring, options and `validation` data.
        progress: whether to show a progress bar.

    Returns:
        The fitted ring and the history of mean log-likelihoods per row. With batch_size, "train" is the average over
        the batches of the epoch, each under the ring before its update.

    Raises:
        ValueError: if x or an option does not fit, or a row has zero mass under the ring. EM has no log-space fallback:
            a row whose mass underflows at some core, as it may over hundreds of decoupled columns, has zero mass.

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
    if tolerance is not None and not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance must be None, or finite and not negative, found {tolerance}")
    for name, value in {
        "pseudocount": pseudocount,
        "smoothing": smoothing,
        "shrinkage": shrinkage,
        "variance_floor": variance_floor,
    }.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be finite and not negative, found {value}")
    known = isinstance(num_factors, int | np.integer) and not isinstance(num_factors, bool) and num_factors >= 0
    if num_factors is not None and not known:
        raise ValueError(f"num_factors must be None or an integer of at least 0, found {num_factors!r}")
    if step_decay != "linear" and not (isinstance(step_decay, float | int) and 0.5 < step_decay <= 1):
        raise ValueError(f"step_decay must be 'linear' or lie in (0.5, 1] for steps to converge, found {step_decay!r}")
    rings = ring.rings if isinstance(ring, RingMixture) else (ring,)
    if not is_concrete(*(array for member in rings for array in member.core_arrays())):
        raise ValueError("fit_em inspects values and cannot be traced")
    if reduce is not None and batch_size is not None:
        raise ValueError(f"batch_size must be None with reduce, which sums over the full batch, found {batch_size}")
    if reduce is not None and restarts > 1 and rng is None:
        raise ValueError("restarts with reduce need the same rng in all processes, found None; give a seed")
    for member in rings:
        _check_member(member, streams=batch_size is not None or reduce is not None, tied=tied)
    data = TrainingData(rings[0], x, sample_weight)
    held_out = None if validation is None else HeldOut(rings[0], validation, validation_target)
    generator = numpy_generator(rng, rings[0], draws=batch_size is not None or restarts > 1)
    merged = data if batch_size is not None else merge_equal_rows(rings[0], data)
    em = _EM(pseudocount, smoothing, shrinkage, num_factors, tied, variance_floor, step_decay, batch_size, reduce)
    floors = None if least_stds is None else [given_stds(member, least_stds) for member in rings]

    def fit(restart: int) -> EpochLog:
        start = ring.detach() if restart == 0 else _random_like(ring, generator)
        track = EpochLog(held_out, patience, max_epochs, progress, tolerance)
        track = em.run(start, merged, track, generator, floors)
        if restarts > 1 and held_out is None and batch_size is not None:
            track.value = merged.mean_log_prob(track.best)
        return track

    return best_of(rings[0], restarts, fit)


def _check_member(ring: TensorRing, *, streams: bool, tied: bool) -> None:
    if tied:
        if not has_normal_form(ring):
            raise ValueError("tied=True needs a train of dense or CP cores, found a ring")
        one_pass.check_tied(ring)
    for k, family in enumerate(ring.families):
        if streams and not family.streams:
            raise ValueError(
                f"{ring.describe_site(k)}: mini-batches and several processes need a family with statistics and "
                f"expected_statistics, found {family.kind.__name__}"
            )


def _random_like(model: Model, rng: np.random.Generator) -> Model:
    if isinstance(model, RingMixture):
        return RingMixture([random_like(ring, rng) for ring in model.rings], model.weights)
    return random_like(model, rng)


@dataclass(frozen=True)
class _EM:
    pseudocount: float
    smoothing: float
    shrinkage: float
    num_factors: int | None
    tied: bool
    variance_floor: float
    step_decay: float | Literal["linear"]
    batch_size: int | None
    reduce: Reduce | None

    def run(
        self,
        model: Model,
        data: TrainingData,
        track: EpochLog,
        rng: np.random.Generator,
        given_floors: Sequence[dict[int, Any]] | None,
    ) -> EpochLog:
        model = track.best = self._prepared(model)
        total = self._sum(data, data.weight.sum())
        floors = [
            least_stds_of(ring, data, self.variance_floor, self._sum) if given_floors is None else given_floors[c]
            for c, ring in enumerate(members(model))
        ]
        if self.batch_size is not None:
            self._mini_batches(model, data, track, rng, floors, total)
        elif isinstance(model, TensorRing):
            fit = self._one_pass if has_normal_form(model) else self._coordinatewise
            fit(model, data, track, floors[0], total)
        else:
            for _ in track.epochs():
                model, _ = self._step(model, data, slice(None), self._m_step(1.0, total, total), floors)
                log_prob = data.mean_log_prob(model) * float(data.weight.sum())
                track.record(model, self._sum(data, log_prob) / total)
        return track

    def _prepared(self, model: Model) -> Model:
        if isinstance(model, RingMixture):
            return RingMixture([self._prepared_ring(ring) for ring in model.rings], model.weights)
        return self._prepared_ring(model)

    def _prepared_ring(self, model: TensorRing) -> TensorRing:
        if self.num_factors is not None:
            model = model.with_values(model.links, [f.factored(self.num_factors).variable for f in model.families])
        if not has_normal_form(model):
            return coordinatewise.balanced(model)
        return normalized_factors(model) if self.tied else normal_form(model)

    def _one_pass(
        self, ring: TensorRing, data: TrainingData, track: EpochLog, floors: dict[int, Any], total: float
    ) -> None:
        """Full batches, for trains: the E-step of an epoch also gives the likelihood after the epoch before it."""
        rows, weight = data.batch(ring, slice(None))
        m_step = self._m_step(1.0, total, total)
        found = one_pass.Expectation.of_rows(ring, rows, weight, data.row_numbers)
        for _ in track.epochs():
            ring = one_pass.maximised(ring, found, m_step, floors, tied=self.tied)
            found = one_pass.Expectation.of_rows(ring, rows, weight, data.row_numbers)
            track.record(ring, self._sum(data, found.log_prob) / total)

    def _coordinatewise(
        self, ring: TensorRing, data: TrainingData, track: EpochLog, floors: dict[int, Any], total: float
    ) -> None:
        """Full batches, for rings."""
        rows, weight = data.batch(ring, slice(None))
        m_step = self._m_step(1.0, total, total)
        for _ in track.epochs():
            ring, value = coordinatewise.visit(ring, rows, weight, data.row_numbers, m_step, floors)
            ring = coordinatewise.balanced(ring)
            track.record(ring, self._sum(data, value) / total)

    def _mini_batches(
        self,
        model: Model,
        data: TrainingData,
        track: EpochLog,
        rng: np.random.Generator,
        floors: list[dict[int, Any]],
        total: float,
    ) -> None:
        size, steps = int(self.batch_size or 1), 0
        num_steps = track.max_epochs * -(-data.num_rows // size)
        for _ in track.epochs():
            log_prob = 0.0
            for index in data.batches(size, rng):
                batch = float(data.weight[index].sum())
                if batch > 0:
                    m_step = self._m_step(self._step_size(steps, num_steps), total, batch)
                    model, value = self._step(model, data, index, m_step, floors)
                    log_prob += value
                steps += 1
            track.record(model, log_prob / total)

    def _step(
        self,
        model: Model,
        data: TrainingData,
        index: np.ndarray | slice,
        m_step: MStep,
        floors: Sequence[dict[int, Any]],
    ) -> tuple[Model, float]:
        """The model after one update of every factor from these rows, and Σ weight log p(row).

        For trains the likelihood is that before the update, for rings that during the update.
        """
        rows, weight = data.batch(members(model)[0], index)
        numbers = data.row_numbers if isinstance(index, slice) else index
        if not isinstance(model, RingMixture):
            return self._ring_step(model, rows, weight, numbers, m_step, floors[0])
        posterior, prior = model.ring_posterior(rows), to_numpy(model.weights).astype(np.float64)
        rings, shares, log_prob = [], np.zeros(len(prior)), 0.0
        for c, ring in enumerate(model.rings):
            ring_weight = weight * posterior[:, c]
            shares[c] = self._sum(data, float(ring_weight.sum())) / m_step.weights.batch
            if shares[c] > 0:  # a separate fit to the ring's share of all rows and of the batch
                own = replace(m_step, weights=Weights(*(prior[c] * number for number in m_step.weights)))
                ring, value = self._ring_step(ring, rows, ring_weight, numbers, own, floors[c])
                # log p = Σ_c γ_c (log p_c + log w_c - log γ_c) with γ_c the posterior of ring c
                counts, gamma = (to_numpy(a).astype(np.float64) for a in (ring_weight, posterior[:, c]))
                log_prob += value - float(counts @ np.log(np.where(counts > 0, gamma, 1.0) / prior[c]))
            rings.append(ring)
        return RingMixture(rings, ((1 - m_step.step) * prior + m_step.step * shares).tolist()), log_prob

    def _ring_step(
        self, ring: TensorRing, rows: Array, weight: Array, numbers: Any, m_step: MStep, floors: dict[int, Any]
    ) -> tuple[TensorRing, float]:
        if has_normal_form(ring):
            found = one_pass.Expectation.of_rows(ring, rows, weight, numbers)
            return one_pass.maximised(ring, found, m_step, floors, tied=self.tied), found.log_prob
        ring, value = coordinatewise.visit(ring, rows, weight, numbers, m_step, floors)
        return coordinatewise.balanced(ring), value

    def _step_size(self, steps: int, num_steps: int) -> float:
        if self.step_decay == "linear":
            return FIRST_STEP * (1 - steps / num_steps)
        return float((steps + 2.0) ** -self.step_decay)

    def _m_step(self, step: float, total: float, batch: float) -> MStep:
        prior = self.shrinkage, self.num_factors
        return MStep(self.pseudocount, self.smoothing, step, Weights(total, batch), self.reduce, *prior)

    def _sum(self, data: TrainingData, *values: float) -> Any:
        """Each number summed over the processes; a float for one number, else a NumPy array."""
        numbers = np.asarray(values, dtype=np.float64)
        if self.reduce is not None:
            core = data.prototype
            numbers = to_numpy(self.reduce(like(numbers, core, accumulator(core)))).astype(np.float64)
        return float(numbers[0]) if len(values) == 1 else numbers


def members(model: Model) -> tuple[TensorRing, ...]:
    """The rings of a mixture, or the ring itself."""
    return model.rings if isinstance(model, RingMixture) else (model,)


def merge_equal_rows(ring: TensorRing, data: TrainingData) -> TrainingData:
    """The distinct rows of a table with only categories, with the weights of equal rows added; other data unchanged."""
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
