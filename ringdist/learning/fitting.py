"""What every way of learning shares: the data, the batches, the history and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ringdist.backend import (
    Array,
    Stream,
    backend_name,
    in_own_precision,
    indices,
    is_array,
    like,
    stop_gradient,
    to_numpy,
    uniform,
)
from ringdist.network.evidence import as_rows, unmasked
from ringdist.queries.log_prob import log_prob
from ringdist.ring import TensorRing

EVALUATION_ROWS = 2**16  # rows that are on the device at once when a likelihood is averaged
STORED_ORDER = 2**20  # rows whose shuffled order is stored; that of more is computed batch by batch
ROUNDS = 6  # of the Feistel network behind it: four are enough for a permutation that looks random


class FitResult(NamedTuple):
    """A fitted ring, and per epoch the mean log-likelihood of "train" (after the epoch) and "validation" in nats."""

    ring: TensorRing
    history: dict[str, list[float]]


class Data:
    """Rows x (n, d) with weights, handed out in the ring's backend a batch at a time; x itself may be a memmap.

    Nothing is kept per row but the weights that the caller gave.

    Raises:
        ValueError: if x is no (n, d) table with a row, a weight is negative or not finite, or all weights are zero.
        TypeError: if x is neither NumPy's nor of the ring's backend.
    """

    def __init__(self, ring: TensorRing, x: Any, weight: Any = None):
        x = unmasked(x)
        x = x if is_array(x) else np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != ring.num_variables or x.shape[0] == 0:
            raise ValueError(f"x must have shape (n, {ring.num_variables}) with n >= 1, found {tuple(x.shape)}")
        if backend_name(x) not in ("numpy", backend_name(ring.prototype)):
            raise TypeError(f"x must be a NumPy array or of the ring's backend, found {type(x).__name__}")
        self.x, self.num_rows = stop_gradient(x), int(x.shape[0])
        self.labels: np.ndarray | range = range(self.num_rows)  # the caller's row numbers, by which errors name rows
        if weight is None:
            self.weight = np.broadcast_to(1.0, (self.num_rows,))  # one number in memory
            return
        self.weight = to_numpy(weight).astype(np.float64)
        if self.weight.shape != (self.num_rows,):
            raise ValueError(f"sample_weight must have shape ({self.num_rows},), found {self.weight.shape}")
        if not (np.isfinite(self.weight).all() and (self.weight >= 0).all() and self.weight.sum() > 0):
            raise ValueError("sample_weight must be finite and not negative, with a positive sum")

    def batch(self, ring: TensorRing, index: np.ndarray | slice) -> tuple[Array, Array]:
        """Checked rows (b, d) and their weights (b,) in the backend and dtype of the ring."""
        if backend_name(self.x) == "numpy":
            block = np.asarray(self.x[index])
            x = like(
                block if block.flags.writeable else block.copy(), ring.prototype
            )  # PyTorch warns of read-only files
        else:
            x = self.x[index if isinstance(index, slice) else indices(index, self.x)]
        rows, _ = as_rows(ring, x)
        return rows, like(np.array(self.weight[index]), ring.prototype)

    def batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Indices of shuffled batches; sorted within a batch, which is kinder to a file.

        Every batch is drawn from all rows, whatever their order; beyond 2^20 rows in memory bounded by the batch.
        """
        stored = rng.permutation(self.num_rows) if self.num_rows <= STORED_ORDER else None
        keys = rng.integers(0, 2**64, size=0 if stored is not None else ROUNDS, dtype=np.uint64)
        for start in range(0, self.num_rows, batch_size):
            places = slice(start, min(start + batch_size, self.num_rows))
            yield np.sort(shuffled(places, self.num_rows, keys) if stored is None else stored[places])

    def mean_log_prob(self, ring: TensorRing) -> float:
        """Weighted mean log-likelihood of the rows in nats."""
        total = 0.0
        for start in range(0, self.num_rows, EVALUATION_ROWS):
            rows, weight = self.batch(ring, slice(start, start + EVALUATION_ROWS))
            values = to_numpy(stop_gradient(log_prob(ring, rows))).astype(np.float64)
            seen = to_numpy(weight) > 0
            total += float(np.sum(values[seen] * to_numpy(weight)[seen].astype(np.float64)))
        return total / float(self.weight.sum())


def shuffled(places: slice, n: int, keys: np.ndarray) -> np.ndarray:
    """What stands at some places of a permutation of 0..n-1, which is nowhere stored.

    A Feistel network permutes the numbers of an even count of bits, fewer than 4 n; what leaves 0..n-1 goes through it
    again until it comes back (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).

    Args:
        keys: (rounds,) random uint64, which choose the permutation.
    """
    half = np.uint64(((n - 1).bit_length() + 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    values = np.arange(places.start, places.stop, dtype=np.uint64)
    outside = np.arange(values.shape[0])
    while outside.shape[0]:
        left, right = values[outside] >> half, values[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        values[outside] = (left << half) | right
        outside = outside[values[outside] >= n]
    return values.astype(np.int64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Every bit of (n,) uint64 spread over all bits: the finaliser of SplitMix64 (Steele et al. 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def numpy_generator(rng: Any, ring: TensorRing, *, draws: bool) -> np.random.Generator:
    """A NumPy generator seeded by whatever randomness the ring's backend takes: batches are drawn on the host.

    Args:
        draws: whether anything is drawn that matters, for which a JAX ring needs a seed or key (`ValueError`).
    """
    if rng is None and not draws:
        return np.random.default_rng()
    if rng is None and backend_name(ring.prototype) == "jax":
        raise ValueError("a JAX ring needs rng for batches and restarts: a seed or a key from jax.random.key")
    if rng is None or isinstance(rng, int | np.integer | np.random.Generator):
        return np.random.default_rng(rng)
    draw = uniform(Stream(rng, ring.prototype).next(), (2,), ring.prototype)
    return np.random.default_rng([int(float(u) * 2**24) for u in to_numpy(draw)])


@dataclass
class Progress:
    """Histories, the best ring seen, and whether to go on.

    With validation data the best ring is the one of highest validation likelihood, and learning stops after `patience`
    epochs without a better one; without, it is the last.
    """

    validation: Data | None
    patience: int | None
    max_epochs: int
    show: bool
    best: Any = None
    history: dict[str, list[float]] = field(default_factory=dict)
    _best_value: float = -math.inf
    _since: int = 0

    def epochs(self) -> Iterator[int]:
        """Counts epochs under a progress bar until `record` has asked to stop."""
        self.history = {"train": []} if self.validation is None else {"train": [], "validation": []}
        with tqdm(total=self.max_epochs, disable=not self.show, unit="epoch") as bar:
            for epoch in range(self.max_epochs):
                yield epoch
                bar.update()
                bar.set_postfix({name: f"{values[-1]:.4f}" for name, values in self.history.items()})
                if self.patience is not None and self._since >= self.patience:
                    return

    def record(self, ring: TensorRing, train: float) -> None:
        """Take note of the ring after an epoch."""
        self.history["train"].append(train)
        if self.validation is None:
            self.best, self._best_value = ring, train
            return
        value = self.validation.mean_log_prob(ring)
        self.history["validation"].append(value)
        self._since += 1
        if self.best is None or value > self._best_value:
            self.best, self._best_value, self._since = ring, value, 0

    @property
    def value(self) -> float:
        """The likelihood by which this fit is compared with its restarts."""
        return self._best_value


def check_options(max_epochs: int, batch_size: int | None, patience: int | None, restarts: int = 1) -> None:
    """Raise `ValueError` naming the option unless all are positive whole numbers (or None where allowed)."""
    for name, value in {"max_epochs": max_epochs, "restarts": restarts}.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | np.integer)
            or value < (0 if name == "max_epochs" else 1)
        ):
            rule = "a whole number, 0 or more" if name == "max_epochs" else "a positive whole number"
            raise ValueError(f"{name} must be {rule}, found {value!r}")
    for name, option in {"batch_size": batch_size, "patience": patience}.items():
        if option is not None and (isinstance(option, bool) or not isinstance(option, int | np.integer) or option < 1):
            raise ValueError(f"{name} must be a positive whole number or None, found {option!r}")


@in_own_precision
def best_of(ring: TensorRing, restarts: int, fit: Callable[[int], Progress]) -> FitResult:
    """The fit of highest likelihood (of validation data if given) among several, each in the precision of the ring."""
    results = [fit(i) for i in range(restarts)]
    best = max(results, key=lambda progress: progress.value)
    return FitResult(best.best, best.history)
