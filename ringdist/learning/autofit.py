"""A fit whose rank, smoothing and number of rings are chosen on held-out rows within a budget of seconds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from ringdist import ordering
from ringdist.backend import is_array, to_numpy
from ringdist.learning.data import Model
from ringdist.learning.em import fit_em
from ringdist.learning.fitting import FitResult
from ringdist.learning.rings import log_probs, mixture_weights
from ringdist.learning.starts import initialize, placed_variables
from ringdist.network.layout import Columns
from ringdist.network.rows import unmasked
from ringdist.ordering.tours import successive
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture
from ringdist.variables import Categorical, GaussianMixture, Variable, as_family

EPOCHS = 15  # of a fit, with a step size that decreases to 0
SHRINKAGE = 1.0  # of covariances within wide variables, in rows for each column
BATCHES = 8  # least number of batches in an epoch, if they have enough rows
FEWEST_ROWS = 64  # of a mini-batch
SEARCH = 0.35  # share of the budget after which no other smoothing is tried
TRAINS = 4  # number of trains of a rank that must fit into the budget: several orders gain more than twice the rank
GROWTH = 2.5  # factor of the duration of a fit if the rank doubles, between those of overhead and of products
GAIN = 1e-3  # nats of held-out log-likelihood in 100 columns, below which a search stops
MORE_RANK, LESS_RANK, MORE_SMOOTHING, LESS_SMOOTHING = (2.0, 1.0), (0.5, 1.0), (1.0, 3.0), (1.0, 0.3)
CHAIN_EPOCHS = 5  # full batches, because mixtures of chains start near their optimum, which long steps would leave.
# With categories only there are no epochs: further mixtures gain more than exact EM in the same time.
CHAIN_RANKS = 0.75, 1.5, 1.0  # factors of the best rank, in turn, for mixtures with different numbers of clusters
CHAINS = 0.75  # share of the budget after which no mixture of chains is tried
MISSES = 2  # number of further trains without a gain after which the search stops
LEAST_WEIGHT = 1e-2  # of a train in the mixture
HELD_OUT = 0.1  # of the rows, unless others are given


@dataclass(frozen=True)
class Setting:
    """The settings of a fit, which the search varies."""

    rank: int = 32
    smoothing: float = 0.5
    start: Literal["mixture", "chains"] = "mixture"
    given: bool = False  # whether the variables are in the order of their first columns


class Fitted(NamedTuple):
    """A fit and its results."""

    setting: Setting
    ring: TensorRing
    held_out: np.ndarray  # (n',) log-likelihoods
    history: dict[str, list[float]]
    seconds: float

    @property
    def value(self) -> float:
        """Mean held-out log-likelihood."""
        return float(self.held_out.mean())

    @property
    def overfits(self) -> bool:
        """Whether the held-out likelihood decreased in the last epochs, which have the smallest steps."""
        values = self.history["validation"]
        return bool(values) and max(values) > values[-1]


def autofit(
    x: Any,
    variables: Sequence[Variable | type | None],
    *,
    validation: Any = None,
    sample_weight: Any = None,
    budget: float = 60.0,
    max_rings: int = 8,
    orders: Sequence[Sequence[int]] | None = None,
    columns: Columns | None = None,
    num_components: int = 8,
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = np.float32,
    device: Any = None,
    progress: Callable[[str], None] | None = None,
) -> FitResult:
    """A mixture of trains, with all settings chosen on held-out rows within a budget of seconds.

    Trains of CP cores start near a mixture of products and are fitted by stepwise EM. The rank doubles as long as the
    held-out likelihood rises and several such trains fit into the budget; then the smoothing is varied. Mixtures of
    Markov chains are tried too, in the order of the columns and in the order of dependence. If they are better than the
    first train, their settings are varied instead.

    The rest of the budget is spent on trains in other orders of the columns, those of `ordering.diverse`. The weights
    of all trains maximise the held-out likelihood; trains of negligible weight are dropped. If one train is enough, the
    result is a `TensorRing`.

    Args:
        x: (n, d) data, NaN where missing.
        variables: as in `initialize`.
        validation: (n', d) rows for the choices; None holds out a tenth of x.
        sample_weight: (n,) non-negative weights of the rows of x in fitting; held-out rows count equally.
        budget: seconds of wall-clock time. A running fit is finished, so this is not a hard limit.
        max_rings: maximal number of trains.
        orders: orders of the columns, the best first; None uses `ordering.diverse` of their mutual information.
        columns: of every variable its columns of x, as in `initialize`.
        num_components: of continuous columns, as in `initialize`.
        rng: seed.
        xp, dtype, device: of the result, as in `initialize`.
        progress: function that is called with a line of text for every fit.

    Returns:
        The fitted model, a `TensorRing` or `RingMixture`, and the history of its best ring, which has no epochs if that
        is a mixture of chains of categories.

    Raises:
        ValueError: if x, a variable or an option does not fit, or there are fewer than two rows.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> rng = np.random.default_rng(0)
        >>> cluster = rng.integers(3, size=600)
        >>> x = (rng.random((600, 8)) < np.array([0.1, 0.5, 0.9])[cluster, None]).astype(float)
        >>> model, history = rd.autofit(x, [rd.Categorical(2)] * 8, budget=2.0, rng=0)
        >>> bool(model.log_prob(x).mean() > 8 * np.log(0.5))
        True
    """
    if not (isinstance(budget, int | float) and 0 < budget < math.inf):
        raise ValueError(f"budget must be a positive number of seconds, found {budget!r}")
    if isinstance(max_rings, bool) or not isinstance(max_rings, int | np.integer) or max_rings < 1:
        raise ValueError(f"max_rings must be a positive integer, found {max_rings!r}")
    start = time.perf_counter()
    if orders is not None and len(orders) == 0:
        raise ValueError("orders must hold an order of the columns, found none")
    generator = np.random.default_rng(rng)
    x = unmasked(x)
    rows = to_numpy(x) if is_array(x) else np.asarray(x, dtype=np.float64)
    weight = None if sample_weight is None else np.asarray(to_numpy(sample_weight), dtype=np.float64)
    if weight is not None and weight.shape != rows.shape[:1]:
        raise ValueError(f"sample_weight must have shape {rows.shape[:1]}, found {weight.shape}")
    rows, weight, held_out = _split(rows, weight, validation, generator)
    both = np.concatenate([rows, held_out])
    placed, sites = placed_variables(both, variables, columns, num_components)
    search = _Search(
        rows,
        weight,
        held_out,
        placed,
        sites,
        _Orders(orders if orders is not None else _by_information(rows, placed, sites), free=orders is None),
        deadline=start + budget,
        budget=budget,
        seed=int(generator.integers(2**31)),
        target={"xp": xp, "dtype": dtype, "device": device},
        tell=progress or (lambda line: None),
    )
    best = search.best_setting()
    search.further_rings(best, max_rings)
    return FitResult(_mixture(search.tried, best, max_rings, search.least_gain()), best.history)


@dataclass(frozen=True)
class _Search:
    rows: np.ndarray
    weight: np.ndarray | None
    held_out: np.ndarray
    variables: Sequence[Variable]
    columns: Sequence[Sequence[int]]
    orders: _Orders
    deadline: float
    budget: float
    seed: int
    target: dict[str, Any]
    tell: Callable[[str], None]
    tried: list[Fitted] = field(default_factory=list)

    def fit(self, setting: Setting, place: int) -> Fitted:
        """A train in one of the orders."""
        start_time = time.perf_counter()
        chains, seed = setting.start == "chains", self.seed + place
        near: dict[str, Any] = {"spread": 0.0} if chains else {}
        start = initialize(
            self.rows,
            self.variables,
            setting.rank,
            core="cp",
            topology="train",
            method=setting.start,
            order=self._own_order() if setting.given else self.orders.get(place),
            columns=self.columns,
            rng=seed,
            **near,
            **self.target,
        )
        stepwise: dict[str, Any] = {
            "batch_size": max(FEWEST_ROWS, -(-len(self.rows) // BATCHES)),
            "step_decay": "linear",
        }
        ring, history = fit_em(
            start,
            self.rows,
            sample_weight=self.weight,
            validation=self.held_out,
            max_epochs=self._epochs(setting),
            smoothing=setting.smoothing,
            shrinkage=SHRINKAGE,
            patience=1 if chains else 5,
            rng=seed,
            **({} if chains else stepwise),
        )
        values = log_probs(ring, self.held_out)
        seconds = time.perf_counter() - start_time
        self.tell(f"{setting}, order {place}: {values.mean():.4f} in {seconds:.1f} s")
        self.tried.append(Fitted(setting, ring, values, history, seconds))
        return self.tried[-1]

    def _own_order(self) -> list[int]:
        """The variables in the order of their first columns."""
        return sorted(range(len(self.columns)), key=lambda i: min(self.columns[i]))

    def _epochs(self, setting: Setting) -> int:
        if setting.start == "mixture":
            return EPOCHS
        return 0 if all(isinstance(variable, Categorical) for variable in self.variables) else CHAIN_EPOCHS

    def best_setting(self) -> Fitted:
        """Double or halve the rank, then vary the smoothing, while the held-out likelihood rises and time is left."""
        few = max(variable.num_components for variable in self.variables) <= Setting().rank
        chains = [self.fit(Setting(start="chains", given=True), 0)] if few and self.orders.free else []
        best = self.fit(Setting(), 0)
        if few and time.perf_counter() < self.deadline - (1 - CHAINS) * self.budget:
            chains.append(self.fit(Setting(start="chains"), 0))
        chain = max(chains, key=lambda fit: fit.value, default=best)
        if chain.value > best.value + self.least_gain():
            return self._climb_one(chain, (LESS_RANK, MORE_RANK))
        best, is_larger = self._climb(best, MORE_RANK)
        if best.overfits and not is_larger:
            best, _ = self._climb(best, LESS_RANK)
        directions = MORE_SMOOTHING, LESS_SMOOTHING
        return self._climb_one(best, directions if best.overfits else directions[::-1])

    def _climb_one(self, best: Fitted, directions: Iterable[tuple[float, float]]) -> Fitted:
        """Climb in the first direction that gains."""
        for direction in directions:
            best, moved = self._climb(best, direction)
            if moved:
                break
        return best

    def _climb(self, best: Fitted, factor: tuple[float, float]) -> tuple[Fitted, bool]:
        """Multiply rank and smoothing by these factors while this gains; the best fit, and whether it is a new one."""
        moved = False
        while True:
            rank = max(1, int(best.setting.rank * factor[0]))
            setting = replace(best.setting, rank=rank, smoothing=best.setting.smoothing * factor[1])
            if setting == best.setting or not self._has_time(best, setting):
                return best, moved
            fit = self.fit(setting, 0)
            if fit.value < best.value + self.least_gain():
                return max(fit, best, key=lambda one: one.value), moved
            best, moved = fit, True

    def _has_time(self, best: Fitted, setting: Setting) -> bool:
        if setting.rank > best.setting.rank:
            return TRAINS * GROWTH * best.seconds < self.budget
        share = CHAINS if best.setting.start == "chains" else SEARCH
        return time.perf_counter() + best.seconds < self.deadline - (1 - share) * self.budget

    def further_rings(self, best: Fitted, max_rings: int) -> None:
        """Fit trains in further orders while time is left and the held-out likelihood rises."""
        fits, misses = [best], 0
        for place in range(1, max_rings):
            is_late = time.perf_counter() + fits[-1].seconds > self.deadline
            if is_late or misses == MISSES or (not best.setting.given and self.orders.get(place) is None):
                break
            setting = best.setting
            if setting.start == "chains":
                setting = replace(setting, rank=int(setting.rank * CHAIN_RANKS[(place - 1) % len(CHAIN_RANKS)]))
            previous = _mixture_value(fits)
            fits.append(self.fit(setting, place))
            misses = misses + 1 if _mixture_value(fits) < previous + self.least_gain() else 0

    def least_gain(self) -> float:
        return GAIN * self.held_out.shape[1] / 100


def _mixture(fits: Sequence[Fitted], best: Fitted, most: int, least_gain: float) -> Model:
    """The mixture of all fits with the highest held-out likelihood, without rings of negligible weight."""
    weights = mixture_weights(np.stack([fit.held_out for fit in fits]))
    kept = [c for c in np.argsort(-weights)[:most].tolist() if weights[c] > LEAST_WEIGHT]
    if len(kept) < 2 or _mixture_value([fits[c] for c in kept]) < best.value + least_gain:
        return best.ring
    weights = mixture_weights(np.stack([fits[c].held_out for c in kept]))
    return RingMixture([fits[c].ring for c in kept], weights.tolist())


def _mixture_value(fits: Sequence[Fitted]) -> float:
    """Mean held-out log-likelihood of the mixture with the best weights."""
    values = np.stack([fit.held_out for fit in fits])
    weights = mixture_weights(values)
    return float(np.mean(np.logaddexp.reduce(values + np.log(np.maximum(weights, 1e-300))[:, None], axis=0)))


def _split(
    rows: np.ndarray, weight: np.ndarray | None, validation: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    if validation is not None:
        held_out = to_numpy(validation) if is_array(validation) else np.asarray(validation, dtype=np.float64)
        return rows, weight, held_out
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"x must have at least two rows, to hold one out, found shape {rows.shape}")
    chosen = rng.permutation(len(rows)) < max(1, round(HELD_OUT * len(rows)))
    return rows[~chosen], None if weight is None else weight[~chosen], rows[chosen]


class _Orders:
    """The orders of a search, each computed on first access."""

    def __init__(self, orders: Iterable[Sequence[int]], *, free: bool):
        self.free = free  # whether others may be tried
        self._found: list[Sequence[int]] = []
        self._rest = iter(orders)

    def get(self, place: int) -> Sequence[int] | None:
        """The order at a place; None if there are fewer."""
        self._found += itertools.islice(self._rest, max(0, place + 1 - len(self._found)))
        return self._found[place] if place < len(self._found) else None


def _by_information(
    rows: np.ndarray, variables: Sequence[Variable], columns: Sequence[Sequence[int]]
) -> Iterator[tuple[int, ...]]:
    real = GaussianMixture([0.0], [1.0])
    known = [v if isinstance(v, Categorical) or as_family(v).width > 1 else real for v in variables]
    information = ordering.dependence(rows, known, columns)
    return successive(information, "train")
