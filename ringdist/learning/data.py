"""The rows that a ring learns from: checked, weighted, and handed out in shuffled batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ringdist.backend import Array, backend_name, indices, is_array, like, stop_gradient, to_numpy
from ringdist.network.rows import as_rows, plain
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture

Model = TensorRing | RingMixture
EVALUATION_ROWS = 2**16  # rows that are on the device at once when a likelihood is averaged
STORED_ORDER = 2**20  # largest number of rows whose shuffled order is stored; otherwise each batch computes its part
ROUNDS = 6  # of the Feistel network that shuffles; four make a pseudorandom permutation (Luby and Rackoff 1988)


class TrainingData:
    """Rows x (n, d) with weights, converted to the ring's backend one batch at a time; x itself may be a memmap.

    Apart from weights that the caller gives, nothing is stored per row.

    Raises:
        ValueError: if x is not an (n, d) table with at least one row, a weight is negative or not finite, or all
            weights are zero.
        TypeError: if x is neither a NumPy array nor of the ring's backend.
    """

    def __init__(self, ring: TensorRing, x: Any, weight: Any = None, *, label: str = "x"):
        x = plain(ring, x)
        x = x if is_array(x) else np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != ring.num_columns or x.shape[0] == 0:
            raise ValueError(f"{label} must have shape (n, {ring.num_columns}) with n >= 1, found {tuple(x.shape)}")
        if isinstance(x, np.ndarray) and x.dtype.kind in "USMmcV":
            raise TypeError(f"{label} must hold real numbers, found dtype {x.dtype}; convert it by x.astype(float)")
        if backend_name(x) not in ("numpy", backend_name(ring.prototype)):
            raise TypeError(
                f"{label} must be a NumPy array or an array of the ring's backend, found {type(x).__name__}"
            )
        self.prototype = ring.prototype
        self.x, self.num_rows = stop_gradient(x), int(x.shape[0])
        self.row_numbers: np.ndarray | range = range(self.num_rows)  # row indices of the caller's x, for errors
        if weight is None:
            self.weight = np.broadcast_to(1.0, (self.num_rows,))  # a view of one number
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
            block = block if block.flags.writeable else block.copy()  # PyTorch warns about read-only arrays
            x = like(block, ring.prototype)
        else:
            x = self.x[index if isinstance(index, slice) else indices(index, self.x)]
        rows, _ = as_rows(ring, x)
        return rows, like(np.array(self.weight[index]), ring.prototype)

    def batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Row indices of shuffled batches, sorted within a batch because files are read faster in order.

        Every batch is drawn from all rows. Beyond 2^20 rows, memory is bounded by the batch.
        """
        stored = rng.permutation(self.num_rows) if self.num_rows <= STORED_ORDER else None
        keys = rng.integers(0, 2**64, size=0 if stored is not None else ROUNDS, dtype=np.uint64)
        for start in range(0, self.num_rows, batch_size):
            batch = slice(start, min(start + batch_size, self.num_rows))
            yield np.sort(shuffled(batch, self.num_rows, keys) if stored is None else stored[batch])

    def mean_log_prob(self, model: Model) -> float:
        """Weighted mean log-likelihood of the rows in nats."""
        total = 0.0
        first = model.rings[0] if isinstance(model, RingMixture) else model
        for start in range(0, self.num_rows, EVALUATION_ROWS):
            rows, weight = self.batch(first, slice(start, start + EVALUATION_ROWS))
            values = to_numpy(stop_gradient(model.log_prob(rows))).astype(np.float64)
            positive = to_numpy(weight) > 0  # a row of weight 0 may have log-likelihood −inf
            total += float(np.sum(values[positive] * to_numpy(weight)[positive].astype(np.float64)))
        return total / float(self.weight.sum())


class HeldOut(TrainingData):
    """Validation rows: their mean log-likelihood, or that of one column given the others, selects the best epoch.

    Raises:
        ValueError: as `TrainingData`, and if the column is unknown.
    """

    def __init__(self, ring: TensorRing, x: Any, target: int | str | None = None):
        super().__init__(ring, x, label="validation")
        self.rest: TrainingData | None = None
        if target is not None:
            rest = np.array(to_numpy(self.x), dtype=np.float64)
            rest[:, ring.layout.column(target)] = np.nan
            self.rest = TrainingData(ring, rest)

    def mean_log_prob(self, model: Model) -> float:
        """Mean log-likelihood, or mean conditional log-likelihood, in nats per row."""
        joint = super().mean_log_prob(model)
        return joint if self.rest is None else joint - self.rest.mean_log_prob(model)


def shuffled(positions: slice, n: int, keys: np.ndarray) -> np.ndarray:
    """The entries at some positions of a pseudorandom permutation of 0..n-1 that is not stored.

    A Feistel network permutes the integers of an even number of bits, of which there are fewer than 4 n. A result
    outside 0..n-1 is permuted again until it is inside, by cycle walking (Black and Rogaway, Ciphers with Arbitrary
    Finite Domains, 2002).

    Args:
        keys: (rounds,) random uint64 that determine the permutation.
    """
    half = np.uint64(((n - 1).bit_length() + 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    values = np.arange(positions.start, positions.stop, dtype=np.uint64)
    outside = np.arange(values.shape[0])
    while outside.shape[0]:
        left, right = values[outside] >> half, values[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        values[outside] = (left << half) | right
        outside = outside[values[outside] >= n]
    return values.astype(np.int64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """A hash of uint64 (n,): the finaliser of SplitMix64 (Steele et al. 2014), whose bits depend on all bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
