"""Fits of a ring to the rows of a table, with any setting on any of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from ringdist.estimator.columns import Column
from ringdist.estimator.families import least_stds, variables_for
from ringdist.estimator.structures import Structure, sites_in_order
from ringdist.estimator.units import Units
from ringdist.learning.em import fit_em
from ringdist.learning.fitting import FitResult
from ringdist.learning.rings import weighted
from ringdist.learning.starts import initialize
from ringdist.ring_mixture import RingMixture
from ringdist.variables import as_family

EPOCHS = 200  # at most, of all rows at once
TOLERANCE = 1e-5  # nats a row: what an epoch of all rows has to gain for another one
SEARCH_EPOCHS = 20  # of a fit that is compared with others
SEARCH_TOLERANCE = 3e-3
BATCHED_ROWS = 6000  # from which on rows are learnt from in batches
BATCHES = 8  # an epoch at least
LARGEST_BATCH = 4096
BATCHED_EPOCHS = 15
BATCHED_STEPS = 400  # at least, over all epochs of a large table
ALL = slice(None)
DENSE_RANK = 8  # up to which the cores of a given rank are dense


class Setting(NamedTuple):
    """What is chosen on held-out rows.

    Args:
        rank: of all bonds, or one per bond.
        components: of columns of numbers.
        smoothing: rows added to every conditional distribution, or the user's pseudocount where there is one.
        floor: least variance of a component, relative to its column's.
        structure: which columns share a covariance, an index into `Learner.structures`; 0 for none.
        shrinkage, num_factors: as `fit_em` has them, of covariance matrices.
        place: of the order of the columns, an index into `Learner.orders`.
        emphasis: how many times a categorical target counts when clusters are found for the start.
    """

    rank: int | Sequence[int]
    components: int
    smoothing: float
    floor: float
    structure: int = 0
    shrinkage: float = 0.0
    num_factors: int | None = None
    place: int = 0
    emphasis: float = 1.0


class Share(NamedTuple):
    """A ring of those that are kept.

    Args:
        setting: what it is learnt with.
        epochs: at most; None for those of the options.
        weight: of the ring; None where the weights are those of highest likelihood.
    """

    setting: Setting
    epochs: int | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Options:
    """What is fixed; see `TensorRingDensity`."""

    topology: Literal["ring", "train"]
    core: Literal["auto", "dense", "cp"]
    start: Literal["auto", "mixture", "quantile", "kmeans"]
    max_epochs: int | None
    batch_size: int | Literal["auto"] | None
    pseudocount: float | None
    restarts: int
    patience: int | None
    progress: bool


@dataclass(frozen=True)
class Learner:
    """Rows (n, d) as they are fitted, and all that a fit needs beside a setting."""

    rows: np.ndarray
    weight: np.ndarray
    columns: Sequence[Column]
    units: Units
    structures: Sequence[Structure]
    orders: Sequence[Sequence[int]]
    options: Options
    rank_is_chosen: bool
    seed: int
    target: int | None = None  # the column to be predicted

    def part(self, rows: np.ndarray) -> Learner:
        """The same for some of the rows."""
        return replace(self, rows=self.rows[rows], weight=self.weight[rows])

    @cached_property
    def _placed(self) -> dict[tuple[int, int], list[Any]]:
        return {}

    def variables(self, structure: int, components: int) -> list[Any]:
        """The variables of all sites with their components on all rows."""
        key = structure, components
        if key not in self._placed:
            sites = self.structures[structure]
            families = variables_for(sites, self.columns, self.units.place, self.units.unit)
            ring = initialize(self.rows, families, 1, num_components=components, topology="train", columns=sites, rng=0)
            self._placed[key] = list(ring.variables)
        return self._placed[key]

    def num_sites(self, structure: int) -> int:
        """How many variables there are."""
        return len(self.structures[structure])

    def widest(self, structure: int) -> int:
        """Most columns that share a covariance."""
        return max(map(len, self.structures[structure]))

    def places(self, structure: int) -> list[int]:
        """The orders that arrange the sites differently, as indices into `orders`."""
        first: dict[tuple[int, ...], int] = {}
        for place, order in enumerate(self.orders):
            first.setdefault(tuple(sites_in_order(self.structures[structure], order)), place)
        return list(first.values())

    @property
    def has_numbers(self) -> bool:
        """Whether a column has components to choose a number of."""
        return any(column.categories is None for column in self.columns)

    @property
    def has_floors(self) -> bool:
        """Whether a column has components with a width."""
        return any(as_family(variable).has_variance for variable in self.variables(0, 1))

    @property
    def has_emphasis(self) -> bool:
        """Whether clusters may be found for a target."""
        return self.target is not None and self.columns[self.target].categories is not None

    def has_shares(self, setting: Setting) -> bool:
        """Whether a fit has conditional distributions to be smoothed."""
        return setting.rank != 1 or any(column.categories is not None for column in self.columns)

    def fit(
        self,
        setting: Setting,
        learn: np.ndarray | slice,
        held_out: np.ndarray | None,
        *,
        hide: np.ndarray | None = None,
        epochs: int | None = None,
        last: bool = True,
    ) -> FitResult:
        """A ring learnt from some of the rows, the best one on those held out.

        Args:
            hide: (n', d) entries of the rows to learn from that count as missing.
            epochs: at most, in the place of those of the options.
            last: whether it is the fit that is kept, with restarts and progress as the user asks for.
        """
        rows, options = self.rows[learn], self.options
        rows = rows if hide is None else np.where(hide, np.nan, rows)
        sites, seed = self.structures[setting.structure], self.seed + setting.place
        variables = self.variables(setting.structure, setting.components)
        batch = self._batch(len(rows))
        start = initialize(
            rows,
            variables,
            setting.rank,
            columns=sites,
            order=sites_in_order(sites, self.orders[setting.place]),
            topology=options.topology,
            core=self._core(setting),
            method=self._method(setting),
            emphasis=self._emphasis(setting),
            rng=seed,
            dtype=np.float64 if batch is None else np.float32,
        )
        most = epochs if epochs is not None else options.max_epochs
        most = self._epochs(len(rows), batch) if most is None else most
        most = most if last else min(most, SEARCH_EPOCHS)
        largest = max(math.prod(core.shape) for core in start.links)
        result = fit_em(
            start,
            rows,
            sample_weight=self.weight[learn],
            validation=None if held_out is None else self.rows[held_out],
            validation_target=self.target,
            max_epochs=most,
            batch_size=batch,
            pseudocount=0.0 if options.pseudocount is None else options.pseudocount / largest,
            smoothing=setting.smoothing if options.pseudocount is None else 0.0,
            shrinkage=setting.shrinkage,
            num_factors=setting.num_factors,
            least_stds=least_stds(
                sites, variables, self.rows[self._some], self.columns, self.units.unit, setting.floor
            ),
            restarts=options.restarts if last else 1,
            patience=options.patience if last else min(3, options.patience or 3),
            tolerance=self._tolerance(batch, last),
            step_decay="linear" if options.batch_size == "auto" else 0.6,
            rng=seed,
            progress=options.progress and last,
        )
        return result if batch is None else FitResult(result.ring.to(dtype=np.float64), result.history)

    def fit_rings(
        self, stack: Sequence[Share], learn: np.ndarray | slice = ALL, held_out: np.ndarray | None = None
    ) -> FitResult:
        """One ring, or the mixture of several; those without a weight get the weights of highest likelihood.

        Args:
            learn: rows to learn from.
            held_out: rows by which the best epoch of each ring is chosen, and weights; None: the rows learnt from.
        """
        fits = [self.fit(share.setting, learn, held_out, epochs=share.epochs) for share in stack]
        if len(fits) == 1:
            return fits[0]
        rings, weights = [fit.ring for fit in fits], [share.weight for share in stack]
        some = self._some if held_out is None else held_out
        if None in weights:
            return FitResult(weighted(rings, self.rows[some], self.weight[some]), fits[0].history)
        mixture = RingMixture(rings, weights)
        return FitResult(mixture, fits[0].history)

    def has_converged(self, history: dict[str, list[float]]) -> bool:
        """Whether full batches gained hardly anything at the end, or steps have become short."""
        train = history["train"]
        if not self.is_full_batch or len(train) < 2:
            return not self.is_full_batch or len(train) == 0
        return abs(train[-1] - train[-2]) < 1e-3 * max(1.0, 0.1 * self.rows.shape[1])

    @property
    def is_full_batch(self) -> bool:
        """Whether all rows are learnt from at once."""
        return self._batch(len(self.rows)) is None

    @property
    def _some(self) -> slice:
        """At most 20 000 rows, evenly spaced."""
        return slice(None, None, max(1, len(self.rows) // 20_000))

    def _core(self, setting: Setting) -> Literal["dense", "cp"]:
        if self.options.core != "auto":
            return self.options.core
        if self.options.topology == "ring" or not isinstance(setting.rank, int):
            return "dense"
        return "cp" if self.rank_is_chosen or setting.rank > DENSE_RANK else "dense"

    def _method(self, setting: Setting) -> Literal["mixture", "quantile", "kmeans"]:
        if self.options.start != "auto":
            return self.options.start
        return "mixture" if isinstance(setting.rank, int) else "quantile"

    def _emphasis(self, setting: Setting) -> list[float] | None:
        if setting.emphasis == 1 or self._method(setting) != "mixture":
            return None
        return [setting.emphasis if own == (self.target,) else 1.0 for own in self.structures[setting.structure]]

    def _batch(self, n: int) -> int | None:
        size = self.options.batch_size
        if size != "auto":
            return size
        return None if n <= BATCHED_ROWS else min(LARGEST_BATCH, -(-n // BATCHES))

    def _tolerance(self, batch: int | None, last: bool) -> float | None:
        if batch is not None or (last and self.options.max_epochs is not None):
            return None
        return TOLERANCE if last else SEARCH_TOLERANCE

    def _epochs(self, n: int, batch: int | None) -> int:
        if batch is None:
            return EPOCHS
        if self.options.batch_size != "auto":
            return 100
        return min(BATCHED_EPOCHS, max(3, -(-BATCHED_STEPS * batch // n)))
