"""What every way of learning shares: the data, the batches, the history and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ringdist._backend import Array, Stream, backend_name, indices, is_array, like, stop_gradient, to_numpy, uniform
from ringdist._evidence import as_rows
from ringdist.likelihood import log_prob

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

EVALUATION_ROWS = 2**16  # rows that are on the device at once when a likelihood is averaged


class FitResult(NamedTuple):
    """A fitted ring, and per epoch the mean log-likelihood of "train" (after the epoch) and "validation" in nats."""

    ring: TensorRing
    history: dict[str, list[float]]


class Data:
    """Rows x (n, d) with weights, handed out in the ring's backend a batch at a time; x itself may be a memmap.

    Raises:
        ValueError: if x is no (n, d) table with a row, a weight is negative or not finite, or all weights are zero.
        TypeError: if x is neither NumPy's nor of the ring's backend.
    """

    def __init__(self, ring: TensorRing, x: Any, weight: Any = None):
        x = x if is_array(x) else np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != ring.num_variables or x.shape[0] == 0:
            raise ValueError(f"x must have shape (n, {ring.num_variables}) with n >= 1, found {tuple(x.shape)}")
        if backend_name(x) not in ("numpy", backend_name(ring.cores[0])):
            raise TypeError(f"x must be a NumPy array or of the ring's backend, found {type(x).__name__}")
        self.x, self.num_rows = stop_gradient(x), int(x.shape[0])
        weight = np.ones(self.num_rows) if weight is None else to_numpy(weight).astype(np.float64)
        if weight.shape != (self.num_rows,):
            raise ValueError(f"sample_weight must have shape ({self.num_rows},), found {weight.shape}")
        if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.sum() > 0):
            raise ValueError("sample_weight must be finite and not negative, with a positive sum")
        self.weight = weight
        self.labels = np.arange(self.num_rows)  # the caller's row numbers

    def batch(self, ring: TensorRing, index: np.ndarray | slice) -> tuple[Array, Array]:
        """Checked rows (b, d) and their weights (b,) in the backend and dtype of the ring."""
        if backend_name(self.x) == "numpy":
            block = np.asarray(self.x[index])
            x = like(
                block if block.flags.writeable else block.copy(), ring.cores[0]
            )  # PyTorch warns of read-only files
        else:
            x = self.x[index if isinstance(index, slice) else indices(index, self.x)]
        rows, _ = as_rows(ring, x)
        return rows, like(self.weight[index], ring.cores[0])

    def batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Indices of shuffled batches; sorted within a batch, which is kinder to a file."""
        order = rng.permutation(self.num_rows)
        for start in range(0, self.num_rows, batch_size):
            yield np.sort(order[start : start + batch_size])

    def mean_log_prob(self, ring: TensorRing) -> float:
        """Weighted mean log-likelihood of the rows in nats."""
        total = 0.0
        for start in range(0, self.num_rows, EVALUATION_ROWS):
            rows, weight = self.batch(ring, slice(start, start + EVALUATION_ROWS))
            values = to_numpy(stop_gradient(log_prob(ring, rows))).astype(np.float64)
            seen = to_numpy(weight) > 0
            total += float(np.sum(values[seen] * to_numpy(weight)[seen].astype(np.float64)))
        return total / float(self.weight.sum())


def numpy_generator(rng: Any, ring: TensorRing) -> np.random.Generator:
    """A NumPy generator seeded by whatever randomness the ring's backend takes: batches are drawn on the host."""
    if rng is None or isinstance(rng, int | np.integer | np.random.Generator):
        return np.random.default_rng(rng)
    draw = uniform(Stream(rng, ring.cores[0]).next(), (2,), ring.cores[0])
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
            raise ValueError(f"{name} must be a positive whole number, found {value!r}")
    for name, option in {"batch_size": batch_size, "patience": patience}.items():
        if option is not None and (not isinstance(option, int | np.integer) or option < 1):
            raise ValueError(f"{name} must be a positive whole number or None, found {option!r}")


def best_of(restarts: int, fit: Callable[[int], Progress]) -> FitResult:
    """The fit of highest likelihood (of validation data if given) among several."""
    results = [fit(i) for i in range(restarts)]
    best = max(results, key=lambda progress: progress.value)
    return FitResult(best.best, best.history)
