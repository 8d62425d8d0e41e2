"""The E-step and the M-step of one core: expected counts, and the factor that maximises the likelihood."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Array, astype, namespace, row_sums, to_numpy
from ringdist.cores import LINEAR, Core, DenseCore
from ringdist.engines import budget
from ringdist.engines.arithmetic import Linear, State
from ringdist.engines.budget import rows_within

Reduce = Callable[[Array], Array]


Axes = int | tuple[int, ...] | None  # over which a factor's entries are one distribution; None: all


class Weights(NamedTuple):
    """The total weight of all rows, and that of the rows of this step."""

    total: float
    batch: float


@dataclass(frozen=True)
class Rows:
    """Rows of one step at one site: the states before and after its core, and the weights of the rows."""

    arithmetic: Linear
    prefix: State
    suffix: State
    weight: Array  # (b,)
    row_numbers: Sequence[int] | np.ndarray  # indices of the rows in error messages

    def counts(self, core: Core, name: str, evidence: Array) -> tuple[Array, Array]:
        """∂/∂(factor) Σ_rows weight log P̂(row), of the factor's shape, and weight p(s_k | row), (b, N)."""
        sums: Any = 0
        parts = []
        prefix, suffix = self.arithmetic.joined(self.prefix, self.suffix)
        rows, xp = self.weight.shape[0], namespace(prefix)
        prefix, suffix = (xp.broadcast_to(part, (rows, *part.shape[1:])) for part in (prefix, suffix))
        step = rows_within(budget.TEMPORARY // 2, _numbers_per_row(core, prefix.shape[1]))
        for start in range(0, rows, step):
            chunk = slice(start, start + step)
            environment = core.environment(prefix[chunk], suffix[chunk], LINEAR)
            joint = core.components(environment, LINEAR) * evidence[chunk]
            mass = row_sums(joint)
            check_mass(mass, self.weight[chunk], self.row_numbers[chunk])
            scale = xp.where(mass > 0, self.weight[chunk] / xp.where(mass > 0, mass, 1.0), 0.0)[:, None]
            parts.append(joint * scale)
            sums = sums + core.derivative(name, environment, evidence[chunk] * scale)
        return sums, xp.concat(parts)


def check_mass(mass: Array, weight: Array, row_numbers: Sequence[int] | np.ndarray) -> None:
    """Raise `ValueError` naming the first row of positive weight and no mass."""
    empty = to_numpy((mass <= 0) & (weight > 0))
    if empty.any():
        row = int(row_numbers[int(np.argmax(empty))])
        raise ValueError(
            f"every row must have positive mass under the ring, found zero mass in row {row}, or an underflow of "
            f"{mass.dtype} at some core; start from positive cores, such as those of rd.initialize"
        )


def _numbers_per_row(core: Core, rank: int) -> int:
    """Size of the temporary arrays for one row."""
    size, left, right = core.shape
    if isinstance(core, DenseCore):
        return max(rank * max(left, right), min(rank * size * right, left * right))
    return rank * max(max(array.shape) for array in core.arrays().values())


def model_environment(core: Core, name: str, model: Linear, prefix: State, suffix: State) -> tuple[Array, Array]:
    """∂Z/∂(factor) up to a constant, and the model's own probabilities of the components, (N,)."""
    xp = model.xp
    environment = core.environment(*model.joined(prefix, suffix), LINEAR)
    masses = core.components(environment, LINEAR)[0]
    derivative = core.derivative(name, environment, masses[None] * 0 + 1)
    return derivative / xp.max(derivative), masses / xp.sum(masses)


@dataclass(frozen=True)
class MStep:
    """The M-step: new factors and variables from expected counts.

    Args:
        pseudocount: added to every expected count, in rows.
        smoothing: added to the counts of every conditional distribution, in rows, spread evenly over its entries.
        step: 1 for the maximiser itself, less for a damped step towards it.
        weights: of all rows and of those of the step.
        reduce: sums an array over processes.
        shrinkage: of the correlations of wide variables to the pooled ones, in rows for each column.
        num_factors: of the covariances of wide variables; None for unrestricted covariances.
    """

    pseudocount: float
    smoothing: float
    step: float
    weights: Weights
    reduce: Reduce | None = None
    shrinkage: float = 0.0
    num_factors: int | None = None

    def factor(self, factor: Array, sums: Array, environment: Array, axes: Axes) -> Array:
        """C / G with its largest entry at 1, zero where both vanish."""
        xp = namespace(factor)
        reached = environment > 0
        counts = factor * sums
        prior = self._prior(factor, reached & (factor > 0), axes)
        if self.step < 1:
            expected = factor * environment
            expected = expected / xp.sum(expected)
            batch = counts / self.weights.batch + prior / self.weights.total
            counts = (1 - self.step) * expected + self.step * batch
        else:
            counts = counts + prior
        updated = xp.where(reached, counts / xp.where(reached, environment, 1.0), 0.0)
        return updated / xp.max(updated)

    def smoothed_counts(self, factor: Array, counts: Array, expected: Array | None, axes: Axes) -> Array:
        """Counts of a factor of conditional distributions, up to a scale, with the prior and damped if step < 1.

        Args:
            factor: the current factor.
            counts: expected counts of its entries.
            expected: counts that the model expects of a row, for a damped step.
            axes: over which the factor's entries are one distribution.
        """
        prior = self._prior(factor, factor > 0, axes)
        if expected is None:
            return counts + prior
        return (1 - self.step) * expected + self.step * (counts / self.weights.batch + prior / self.weights.total)

    def _prior(self, factor: Array, allowed: Array, axes: Axes) -> Array:
        xp = namespace(factor)
        entries = astype(allowed, factor.dtype)
        if self.smoothing == 0:
            return self.pseudocount * entries
        number = xp.sum(entries, axis=axes, keepdims=True)
        return entries * (self.pseudocount + self.smoothing / xp.where(number > 0, number, 1.0))

    def variable(self, family: Any, statistics: dict[str, Array], share: Array | None, least_std: Any) -> Any:
        """The variable with the highest likelihood, from its sufficient statistics.

        Args:
            family: of the variable.
            statistics: sums over the rows.
            share: probabilities of the components under the model, for a damped step.
            least_std: as in `Family.from_statistics`, or None.
        """
        found = self._damped(family, statistics, share)
        return family.from_factors(found, 0.0 if least_std is None else least_std, self.num_factors).variable

    def _damped(self, variable: Any, statistics: dict[str, Array], share: Array | None) -> dict[str, Array]:
        """Statistics with the prior; in a damped step, an average of the model's expectation and those of the batch."""
        rows = self.shrinkage * variable.width
        if self.step == 1 or share is None:
            prior: dict[str, Array] = variable.shrunk(statistics, rows)
            return prior
        observed = namespace(share).sum(statistics["count"]) / self.weights.batch  # share of rows with the column
        model = variable.expected_statistics(share * observed)
        averaged = {
            name: (1 - self.step) * model[name] + self.step * value / self.weights.batch
            for name, value in statistics.items()
        }
        found: dict[str, Array] = variable.shrunk(averaged, self.step * rows / self.weights.total)
        return found


def reduced(
    reduce: Reduce | None, sums: Array, statistics: dict[str, Array] | None
) -> tuple[Array, dict[str, Array] | None]:
    """Counts and statistics summed over processes, in one reduction."""
    if reduce is None:
        return sums, statistics
    xp = namespace(sums)
    names = list(statistics or {})
    shapes = [tuple((statistics or {})[name].shape) for name in names]
    parts = [xp.reshape(part, (-1,)) for part in (sums, *((statistics or {})[name] for name in names))]
    total = reduce(xp.concat([astype(part, sums.dtype) for part in parts]))
    ends = np.cumsum([part.shape[0] for part in parts])
    merged = {
        name: xp.reshape(total[int(a) : int(b)], shape)
        for name, shape, (a, b) in zip(names, shapes, itertools.pairwise(ends), strict=True)
    }
    return xp.reshape(total[: int(ends[0])], sums.shape), merged
