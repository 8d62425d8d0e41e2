"""Options, history and early stopping of all methods of fitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ringdist.backend import Stream, backend_name, in_own_precision, to_numpy, uniform
from ringdist.learning.data import Model, TrainingData
from ringdist.ring import TensorRing


class FitResult(NamedTuple):
    """A fitted ring or mixture of rings, and its history.

    `history` has the mean log-likelihood per row in nats of "train" and "validation" after each epoch. For EM of
    mini-batches, "train" is the average over the epoch.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> x = np.random.default_rng(0).integers(2, size=(200, 1)).repeat(3, axis=1)
        >>> start = rd.initialize(x, [rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> ring, history = rd.fit_em(start, x, max_epochs=5)
        >>> list(history), len(history["train"])
        (['train'], 5)
    """

    ring: Any
    history: dict[str, list[float]]


def numpy_generator(rng: Any, ring: TensorRing, *, draws: bool) -> np.random.Generator:
    """A NumPy generator seeded from a seed, generator or key of the ring's backend; batches are drawn on the host.

    Args:
        rng: the seed, generator or key.
        ring: of the backend.
        draws: whether the fit depends on random numbers; a JAX ring then needs a seed or key (`ValueError`).
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
class EpochLog:
    """History, best ring and early stopping of a fit.

    With validation data, the best ring is the one with the highest validation likelihood, and fitting stops after
    `patience` epochs without a better one. Without validation data, it is the last ring. Fitting also stops after an
    epoch that changes the likelihood of the training rows by less than `tolerance`.
    """

    validation: TrainingData | None
    patience: int | None
    max_epochs: int
    show: bool
    tolerance: float | None = None
    best: Any = None
    history: dict[str, list[float]] = field(default_factory=dict)
    value: float = -math.inf  # log-likelihood of the best ring, which is compared between restarts
    _since: int = 0

    def epochs(self) -> Iterator[int]:
        """Count epochs with a progress bar until fitting stops."""
        from tqdm.auto import tqdm  # imported here, because it is slow to import

        self.history = {"train": []} if self.validation is None else {"train": [], "validation": []}
        with tqdm(total=self.max_epochs, disable=not self.show, unit="epoch") as bar:
            for epoch in range(self.max_epochs):
                yield epoch
                bar.update()
                bar.set_postfix({name: f"{values[-1]:.4f}" for name, values in self.history.items()})
                if self.patience is not None and self._since >= self.patience:
                    return
                train = self.history["train"]
                if self.tolerance is not None and len(train) > 1 and abs(train[-1] - train[-2]) < self.tolerance:
                    return

    def record(self, ring: Model, train: float) -> None:
        """Record the ring after an epoch."""
        self.history["train"].append(train)
        if self.validation is None:
            self.best, self.value = ring, train
            return
        value = self.validation.mean_log_prob(ring)
        self.history["validation"].append(value)
        self._since += 1
        if self.best is None or value > self.value:
            self.best, self.value, self._since = ring, value, 0


def check_options(max_epochs: int, batch_size: int | None, patience: int | None, restarts: int = 1) -> None:
    """Raise `ValueError` naming the option unless all are positive integers (or None where allowed)."""
    for name, value in {"max_epochs": max_epochs, "restarts": restarts}.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | np.integer)
            or value < (0 if name == "max_epochs" else 1)
        ):
            rule = "an integer, 0 or more" if name == "max_epochs" else "a positive integer"
            raise ValueError(f"{name} must be {rule}, found {value!r}")
    for name, option in {"batch_size": batch_size, "patience": patience}.items():
        if option is not None and (isinstance(option, bool) or not isinstance(option, int | np.integer) or option < 1):
            raise ValueError(f"{name} must be a positive integer or None, found {option!r}")


@in_own_precision
def best_of(ring: TensorRing, restarts: int, fit: Callable[[int], EpochLog]) -> FitResult:
    """The best of several fits, by the likelihood of validation data if there are any, in full precision."""
    results = [fit(i) for i in range(restarts)]
    best = max(results, key=lambda log: log.value)
    return FitResult(best.best, best.history)
