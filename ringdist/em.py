"""Exact coordinate-wise expectation maximisation (DESIGN 4.5).

With all other cores fixed, P̂(x) and Z are linear in one core Q_k. The expected counts of (s_k, a_k, a_{k+1}) under the
data's posterior are C_k = Q_k ∘ T_k, with T_k[s] = Σ_rows p(x_k | s) E(x) / P̂(x) and E the environment of the core; the
environment in the normaliser is G_k. The maximiser of the expected log-likelihood is Q_k ← C_k / G_k, elementwise, and
the components' own parameters are re-estimated from the same responsibilities. Core after core, the prefix carrying the
new values, the likelihood of the full batch never decreases.

Mini-batches interpolate (stepwise EM, Cappé and Moulines 2009): with M_k = Q_k ∘ G_k / Z the counts that the model
itself expects per row, C_k is replaced by (1 − η) M_k + η C_k / n with a decaying step η, C_k with its pseudocounts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ringdist._arithmetic import Linear, State
from ringdist._backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    dtype_name,
    is_concrete,
    like,
    namespace,
    row_sums,
    to_numpy,
)
from ringdist._evidence import Evidence
from ringdist.fitting import Data, FitResult, Progress, best_of, check_options, numpy_generator
from ringdist.initialization import shaken
from ringdist.variables import Categorical, as_family, column_scale

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

STORED = 2**28  # numbers of suffix states kept at once; beyond, they are recomputed from checkpoints
CHUNK = 2**22  # numbers in the temporaries of one chunk of rows

Reduce = Callable[[Array], Array]


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
        pseudocount: added to every expected count, in rows: a Dirichlet prior on each core's share of the mass.
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
            of row-scaled numbers without the refuge of `log_prob` in logarithms: a row that only a path beyond the
            range of the dtype explains (decoupled paths over hundreds of columns) counts as one of zero mass.
    """
    check_options(max_epochs, batch_size, patience, restarts)
    if not (pseudocount >= 0 and math.isfinite(pseudocount)):
        raise ValueError(f"pseudocount must be finite and not negative, found {pseudocount}")
    if not (variance_floor >= 0 and math.isfinite(variance_floor)):
        raise ValueError(f"variance_floor must be finite and not negative, found {variance_floor}")
    if not 0.5 < step_decay <= 1:
        raise ValueError(f"step_decay must lie in (0.5, 1] for the steps to converge, found {step_decay}")
    if not is_concrete(*ring.cores):
        raise ValueError("fit_em cannot be traced")
    if reduce is not None and batch_size is not None:
        raise ValueError("several processes need the full batch: batch_size must be None where reduce is given")
    if reduce is not None and restarts > 1 and rng is None:
        raise ValueError("restarts in several processes need one seed in all of them: rng must be given with reduce")
    for k, variable in enumerate(ring.variables):
        if (batch_size is not None or reduce is not None) and not _streams(variable):
            raise ValueError(
                f"{ring.describe(k)}: mini-batches and several processes need a family with statistics and "
                f"expected_statistics, found {type(variable).__name__}"
            )
    data = Data(ring, x, sample_weight)
    held_out = None if validation is None else Data(ring, validation)
    generator = numpy_generator(rng, ring, draws=batch_size is not None or restarts > 1)
    merged = data if batch_size is not None else _merge_equal_rows(ring, data)
    job = _Job(pseudocount, variance_floor, step_decay, batch_size, reduce)

    def fit(restart: int) -> Progress:
        start = ring.detach() if restart == 0 else shaken(ring, generator)
        track = Progress(held_out, patience, max_epochs, progress)
        return job.run(start, merged, track, generator)

    return best_of(ring, restarts, fit)


class Sizes(NamedTuple):
    """Weight of all rows, weight of this batch, and the least standard deviation of columns that have one."""

    total: float
    batch: float
    floors: dict[int, float]


class Place(NamedTuple):
    """A power of two near the size of each column's values, and in that unit a number near them."""

    unit: np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class _Job:
    pseudocount: float
    variance_floor: float
    step_decay: float
    batch_size: int | None
    reduce: Reduce | None

    def run(self, ring: TensorRing, data: Data, track: Progress, rng: np.random.Generator) -> Progress:
        ring = track.best = _balanced(ring)
        own, total = float(data.weight.sum()), self._sum(ring, data.weight.sum())
        floors = self._floors(ring, data)
        steps = 0
        for _ in track.epochs():
            if self.batch_size is None:
                rows, weight = data.batch(ring, slice(None))
                ring, value = self._visit(ring, rows, weight, data.labels, 1.0, Sizes(total, total, floors))
            else:
                for index in data.batches(self.batch_size, rng):
                    rows, weight = data.batch(ring, index)
                    size = Sizes(total, self._sum(ring, data.weight[index].sum()), floors)
                    if size.batch > 0:
                        step = (steps + 2.0) ** -self.step_decay
                        ring, _ = self._visit(ring, rows, weight, index, step, size)
                    steps += 1
                value = data.mean_log_prob(ring) * own
            ring = _balanced(ring)
            track.record(ring, self._sum(ring, value) / total)
        return track

    def _sum(self, ring: TensorRing, *values: float) -> Any:
        """Each number summed over the processes; a float for one number, else a NumPy array."""
        numbers = np.asarray(values, dtype=np.float64)
        if self.reduce is not None:
            core = ring.cores[0]
            numbers = to_numpy(self.reduce(like(numbers, core, accumulator(core)))).astype(np.float64)
        return float(numbers[0]) if len(values) == 1 else numbers

    def _floors(self, ring: TensorRing, data: Data) -> dict[int, float]:
        """Least standard deviation of each column whose family has one, from that of its observed entries.

        Of a column that is constant but for rounding, from the size of its values, or 1 if they are 0.
        """
        columns = [k for k, v in enumerate(ring.variables) if getattr(v, "has_variance", False)]
        if not columns or self.variance_floor == 0:
            return {}
        place: Any = None
        sums: Any = np.zeros((3, len(columns)))
        for start in range(0, data.num_rows, 2**16):
            rows, weight = data.batch(ring, slice(start, start + 2**16))
            block, w = to_numpy(rows)[:, columns].astype(np.float64), to_numpy(weight).astype(np.float64)[:, None]
            place = self._place(ring, block) if place is None else place
            seen = ~np.isnan(block)
            block = np.where(seen, block / place.unit - place.centre, 0.0)
            sums += np.stack([(w * seen).sum(0), (w * block).sum(0), (w * block**2).sum(0)])
        count, first, second = self._sum(ring, *sums.reshape(-1)).reshape(3, -1)
        count = np.where(count > 0, count, 1.0)
        std = np.sqrt(np.maximum(second / count - (first / count) ** 2, 0.0)) * place.unit
        mean = (place.centre + first / count) * place.unit
        scale = column_scale(mean, std, _rounding(ring, data))
        return {k: math.sqrt(self.variance_floor) * float(s) for k, s in zip(columns, scale, strict=True)}

    def _place(self, ring: TensorRing, block: np.ndarray) -> Place:
        """From the first rows of every process, the same in all of them."""
        seen = ~np.isnan(block)
        filled = np.where(seen, block, 0.0)
        exponent = np.frexp(np.abs(filled).max(axis=0))[1]
        peak = np.ldexp(1.0, np.maximum(exponent, -1000) - 1)  # at most the largest entry, exact to divide by
        mean = (filled / peak).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        shares = np.stack([seen.any(axis=0), peak / 2**10, mean * (peak / 2**10)])  # sums that stay in range
        found, total, centre = self._sum(ring, *shares.reshape(-1)).reshape(3, -1)
        unit = np.ldexp(1.0, np.frexp(total)[1] + 9)
        return Place(unit, centre / np.maximum(found, 1) / (unit / 2**10))

    def _visit(
        self, ring: TensorRing, rows: Array, weight: Array, labels: Sequence[int] | np.ndarray, step: float, size: Sizes
    ) -> tuple[TensorRing, float]:
        """Every core once; the new ring and its log-likelihood Σ weight log p(row) of these rows."""
        xp = namespace(rows)
        data, model = Linear(ring, Evidence.of_rows(ring, rows)), Linear(ring, Evidence.missing(ring))
        prefix, model_prefix = data.start(), model.start()
        offset = xp.zeros_like(data.offset)
        suffixes = zip(ring.sequence, _suffixes(data), _suffixes(model), strict=True)
        for k, suffix, model_suffix in suffixes:
            sums, responsibilities = _expected_sums(data, prefix, k, suffix, weight, labels)
            environment = _environment(model_prefix, model_suffix)
            variable: Any = ring.variables[k]
            statistics = variable.statistics(rows[:, k], responsibilities) if _streams(variable) else None
            sums, statistics = self._reduced(sums, statistics)
            core, share = self._new_core(ring.cores[k], sums, environment, step, size)
            if statistics is None:
                variable = variable.update(rows[:, k], responsibilities)
            elif not isinstance(variable, Categorical):
                floor = [size.floors[k]] if k in size.floors else []
                damped = _damped(variable, statistics, share, step, size.batch)
                variable = as_family(variable).from_statistics(damped, *floor).variable
            ring = ring._replaced(k, core, variable)
            evidence = data.evidence if isinstance(variable, Categorical) else Evidence.of_rows(ring, rows, [k])
            if evidence is not data.evidence:
                offset = offset + evidence.offset
            prefix = data.advance(prefix, core, evidence.weights(k))
            model_prefix = model.advance(model_prefix, core, model.weights(k))
        values = data.close(prefix)[0] - data.offset + offset - model.close(model_prefix)[0]
        return ring, float(xp.sum(xp.where(weight > 0, values, 0.0) * weight))

    def _new_core(self, core: Array, sums: Array, environment: Array, step: float, size: Sizes) -> tuple[Array, Array]:
        """C / G with its largest entry at 1, and the model's own probabilities of the components before the step."""
        xp = namespace(core)
        reached = environment > 0
        expected = core * environment
        expected = expected / xp.sum(expected)
        counts = core * sums
        prior = self.pseudocount * astype(reached & (core > 0), core.dtype)
        if step < 1:
            counts = (1 - step) * expected + step * (counts / size.batch + prior / size.total)
        else:
            counts = counts + prior
        updated = xp.where(reached, counts / xp.where(reached, environment, 1.0), 0.0)
        return updated / xp.max(updated), xp.sum(expected, axis=(1, 2))

    def _reduced(self, sums: Array, statistics: dict[str, Array] | None) -> tuple[Array, dict[str, Array] | None]:
        """Both summed over processes, in one reduction."""
        if self.reduce is None:
            return sums, statistics
        xp = namespace(sums)
        names = list(statistics or {})
        parts = [xp.reshape(sums, (-1,)), *((statistics or {})[name] for name in names)]
        total = self.reduce(xp.concat([astype(part, sums.dtype) for part in parts]))
        ends = np.cumsum([part.shape[0] for part in parts])
        merged = {name: total[int(a) : int(b)] for name, (a, b) in zip(names, itertools.pairwise(ends), strict=True)}
        return xp.reshape(total[: int(ends[0])], sums.shape), merged


def _damped(variable: Any, statistics: dict[str, Array], share: Array, step: float, batch: float) -> dict[str, Array]:
    """Between the statistics that the model expects of a row and those of the batch, per row."""
    if step == 1:
        return statistics
    xp = namespace(share)
    seen = xp.sum(statistics["count"]) / batch  # the share of rows that observe the column
    model = variable.expected_statistics(share * seen)
    return {name: (1 - step) * model[name] + step * value / batch for name, value in statistics.items()}


def _rounding(ring: TensorRing, data: Data) -> float:
    """The relative spacing of the numbers that the data were rounded to: their own dtype's, or the ring's."""
    eps = float(namespace(ring.cores[0]).finfo(ring.cores[0].dtype).eps)
    return max(eps, float(np.finfo(np.float32).eps)) if dtype_name(data.x.dtype) == "float32" else eps


def _streams(variable: Any) -> bool:
    return hasattr(variable, "statistics") and hasattr(variable, "expected_statistics")


def _suffixes(arithmetic: Linear) -> Iterator[State]:
    """For every site j in turn the product of the matrices behind it, stored, or recomputed from √d checkpoints."""
    ring, sequence = arithmetic.ring, arithmetic.ring.sequence
    d = len(sequence)
    numbers = arithmetic.evidence.num_rows * min(ring.ranks) * sum(ring.ranks)
    block = d if numbers <= STORED else math.isqrt(d - 1) + 1
    starts = range(0, d, block)
    checkpoints = {d: arithmetic.start()}
    state = checkpoints[d]
    for j in range(d - 1, block - 1 if len(starts) > 1 else d, -1):
        state = arithmetic.push(state, sequence[j], backward=True)
        if j in starts:
            checkpoints[j] = state
    for start in starts:
        end = min(start + block, d)
        states = [checkpoints.pop(end)]
        for j in range(end - 1, start, -1):
            states.append(arithmetic.push(states[-1], sequence[j], backward=True))
        while states:
            yield states.pop()


def _expected_sums(
    data: Linear, prefix: State, k: int, suffix: State, weight: Array, labels: Sequence[int] | np.ndarray
) -> tuple[Array, Array]:
    """T_k[s] = Σ_rows weight p(x_k | s) E(x) / P̂(x), (N, m, m'), and weight p(s_k | x), (b, N)."""
    xp, core = data.xp, data.ring.cores[k]
    size, left, right = core.shape
    rank, rows = prefix.values.shape[1], weight.shape[0]
    evidence = data.weights(k)
    logs = prefix.logs + suffix.logs
    share = xp.broadcast_to(xp.exp(astype(logs - xp.max(logs, axis=1, keepdims=True), core.dtype)), (rows, rank))
    before = xp.broadcast_to(prefix.values, (rows, rank, left))
    behind = xp.broadcast_to(suffix.values, (rows, rank, right))
    # Through the core as one large product while that is less work than one environment (m, m') per row.
    through = size * rank <= 2 * (rank + 2 * size)
    step = max(1, CHUNK // max(rank * size * right if through else left * right, rank * left))
    sums: Any = 0
    parts = []
    for start in range(0, rows, step):
        chunk = slice(start, start + step)
        p, r, w = before[chunk] * share[chunk][..., None], behind[chunk], evidence[chunk]
        count = p.shape[0]
        if through:
            flat = xp.reshape(p, (count * rank, left)) @ xp.reshape(xp.permute_dims(core, (1, 0, 2)), (left, -1))
            terms = xp.reshape(flat, (count, rank, size, right)) * r[:, :, None, :]
            joint = xp.sum(row_sums(terms), axis=1) * w
        else:
            environments = xp.reshape(p.mT @ r, (count, -1))
            joint = (environments @ xp.reshape(core, (size, -1)).T) * w
        mass = row_sums(joint)
        empty = to_numpy((mass <= 0) & (weight[chunk] > 0))
        if empty.any():
            row = int(labels[start + int(np.argmax(empty))])
            raise ValueError(
                f"every row must have positive mass under the ring, found zero mass in row {row}, or less on the way "
                f"than {core.dtype} can hold; start from positive cores, as rd.initialize makes them"
            )
        scale = xp.where(mass > 0, weight[chunk] / xp.where(mass > 0, mass, 1.0), 0.0)[:, None]
        parts.append(joint * scale)
        coefficient = w * scale
        if through:
            flat_r = xp.reshape(r, (count * rank, right))
            weighted = [xp.reshape(p * coefficient[:, s, None, None], (count * rank, left)).T for s in range(size)]
            sums = sums + xp.stack([a @ flat_r for a in weighted])
        else:
            sums = sums + xp.reshape(coefficient.T @ environments, (size, left, right))
    return sums, xp.concat(parts)


def _environment(prefix: State, suffix: State) -> Array:
    """G_k up to a factor, (m, m'): what surrounds the core in Z."""
    xp = namespace(prefix.values)
    logs = prefix.logs + suffix.logs
    share = astype(xp.exp(logs - xp.max(logs)), prefix.values.dtype)
    environment = ((prefix.values * share[..., None]).mT @ suffix.values)[0]
    return environment / xp.max(environment)


def _balanced(ring: TensorRing) -> TensorRing:
    """The same distribution from cores whose largest entry is 1, and that meet in sums of one size at every bond index.

    A scale may move from one side of a bond index to the other without any change of the distribution. Left alone, it
    does so by a factor in every epoch, until products of cores leave the range of the dtype.
    """
    xp = namespace(ring.cores[0])
    scaled = [core / xp.max(core) for core in ring.cores]
    for k, after in zip(ring.sequence, (*ring.sequence[1:], ring.sequence[0]), strict=True):
        left, right = xp.sum(scaled[k], axis=(0, 1)), xp.sum(scaled[after], axis=(0, 2))
        linked = (left > 0) & (right > 0)
        share = xp.where(linked, xp.sqrt(xp.where(linked, right, 1.0)) / xp.sqrt(xp.where(linked, left, 1.0)), 1.0)
        scaled[k] = scaled[k] * share
        scaled[after] = scaled[after] / share[:, None]
    return ring._with([core / xp.max(core) for core in scaled], ring.variables)


def _merge_equal_rows(ring: TensorRing, data: Data) -> Data:
    """Equal rows of an all-categorical table once, with their weights added up: the same sums from fewer rows."""
    if not all(isinstance(variable, Categorical) for variable in ring.variables):
        return data
    values = np.nan_to_num(to_numpy(data.x).astype(np.float64), nan=np.inf)  # an infinity of x becomes finite
    unique, first, member = np.unique(values, axis=0, return_index=True, return_inverse=True)
    if unique.shape[0] > 0.8 * data.num_rows:
        return data
    merged = Data(ring, data.x[first] if backend_name(data.x) == "numpy" else to_numpy(data.x)[first])
    merged.weight = np.bincount(np.reshape(member, -1), weights=data.weight)
    merged.labels = first
    return merged
