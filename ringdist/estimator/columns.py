"""One column of a table: what its values are, as numbers or codes and back.

A categorical column of very many levels has its rarest ones merged: they share one code, and log p of one of them is
that of the code plus the logarithm of its share among them. So probabilities of levels still sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ringdist.estimator.frames import Raw, only_numbers
from ringdist.estimator.scalars import CLOCKS, Scalars

Unknown = Literal["error", "missing", "rare"]
COUNTS = "count", "poisson", "negative_binomial"  # types of integers that have probabilities, not densities


@dataclass(frozen=True)
class Column:
    """What the values of one column are.

    Args:
        label: the column in messages.
        categories: of a categorical column by code, those that share the last code at the end; None for numbers.
        declared: whether by a pandas dtype.
        ordered: whether that dtype has an order.
        type: as users name it.
        atoms: numbers that have a probability of their own.
        bounds: of a beta column.
        scalars: how its numbers are written.
        rare: (R,) how often the levels that share the last code occur; empty where each has its own.
        dtype: the name of the dtype that the user's column has; empty where it is not known.
    """

    label: str
    categories: np.ndarray | None = None
    declared: bool = False
    ordered: bool = False
    type: str = "gaussian"
    atoms: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None
    scalars: Scalars = field(default_factory=Scalars)
    rare: np.ndarray = field(default_factory=lambda: np.zeros(0))
    dtype: str = ""

    @property
    def num_codes(self) -> int:
        """Number of codes of a categorical column."""
        levels = 0 if self.categories is None else self.categories.size
        return levels - max(0, self.rare.size - 1)

    @property
    def half_step(self) -> float:
        """Half the distance between values that a density stands for, which are rounded to."""
        return 0.0 if self.categories is not None or self.type in COUNTS else 0.5 * self.scalars.step

    @property
    def end(self) -> float:
        """The least number whose density stands for a value that may occur."""
        return self.scalars.low - self.half_step

    def in_notation(self, values: np.ndarray) -> np.ndarray:
        """Numbers of any shape: dates and durations as the user writes them, all others as floats."""
        if self.scalars.notation not in CLOCKS:
            return values
        return np.asarray(self.scalars.from_float(values.reshape(-1), "")).reshape(values.shape)

    def encode(self, raw: Raw, unknown: Unknown = "error") -> tuple[np.ndarray, np.ndarray | None]:
        """(n,) float64: real numbers, or codes; NaN where missing. And log shares within the rare levels, if any.

        Raises:
            ValueError: if a category is unknown, or a value is not a finite number.
        """
        result = np.full(raw.values.shape, np.nan)
        seen = ~raw.missing
        if self.categories is None:
            result[seen] = self.scalars.to_float(raw.observed, self.label)
            return result, None
        result[seen] = self._levels(raw.observed, unknown)
        if not self.rare.size:
            return result, None
        share = self._share(result)
        return np.minimum(result, self.num_codes - 1), share

    def _levels(self, observed: np.ndarray, unknown: Unknown) -> np.ndarray:
        """The level of each value; what is unknown is missing or, as one more level, rare."""
        known = np.zeros(0) if self.categories is None else self.categories
        codes = level_of(observed, known)
        strange = codes < 0
        if not strange.any():
            return codes.astype(np.float64)
        if unknown == "error":
            value = observed[int(strange.argmax())]
            value = value.item() if isinstance(value, np.generic) else value
            raise ValueError(
                f"{self.label}: category {value!r} was not there in fit, known are {listed(known)}; "
                "handle_unknown='missing' or 'rare' lets it pass, a categorical dtype declares it before fit"
            )
        stand_in = float(known.size) if unknown == "rare" and self.rare.size else np.nan
        return np.where(strange, stand_in, codes)

    def _share(self, levels: np.ndarray) -> np.ndarray:
        """log share of each level among those of its code, 0 where it is alone or missing."""
        logs = np.zeros(levels.size)
        last = levels >= self.num_codes - 1  # False for NaN
        shares = np.append(self.rare + 1.0, 1.0) / (self.rare.sum() + self.rare.size + 1)  # and of an unseen one
        logs[last] = np.log(shares[levels[last].astype(np.int64) - (self.num_codes - 1)])
        return logs

    @property
    def shares(self) -> np.ndarray:
        """(R,) how probable each of the rare levels is among them."""
        return np.asarray((self.rare + 1.0) / (self.rare.sum() + self.rare.size))

    def expanded(self, codes: np.ndarray) -> np.ndarray:
        """(n, levels) probabilities of levels from those of codes (n, N)."""
        if not self.rare.size:
            return codes
        return np.concatenate([codes[:, :-1], codes[:, -1:] * self.shares], axis=1)

    def spread(self, codes: np.ndarray, rng: np.random.RandomState | None) -> np.ndarray:
        """Levels (n,) from codes: of the last one the rare levels, drawn, or the most frequent of them."""
        levels = codes.astype(np.int64)
        last = levels == self.num_codes - 1
        if not self.rare.size or not last.any():
            return levels
        first = self.num_codes - 1
        if rng is None:
            levels[last] = first + int(np.argmax(self.rare))
        else:
            levels[last] = first + rng.choice(self.rare.size, int(last.sum()), p=self.shares)
        return levels

    def decode(self, values: np.ndarray, rng: np.random.RandomState | None = None) -> np.ndarray:
        """The user's values of real numbers or codes, none missing."""
        if self.categories is None:
            return self.scalars.from_float(values, self.dtype)
        return np.asarray(self.categories[self.spread(values, rng)])


def level_of(observed: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """(n,) the position of each value among the categories, -1 where it is none of them."""
    if categories.dtype.kind != "O" and observed.dtype.kind == "O" and only_numbers(observed):
        observed = np.asarray(observed.tolist())
    if observed.size == 0 or categories.size == 0:
        return np.full(observed.size, -1)
    if categories.dtype.kind in "fiub" and observed.dtype.kind in "fiub":
        by_value = np.argsort(categories)
        place = np.searchsorted(categories, observed, sorter=by_value)
        codes = by_value[np.minimum(place, categories.size - 1)]
        return np.where(categories[codes] == observed, codes, -1)
    lookup = {category: code for code, category in enumerate(categories.tolist())}
    return np.array([lookup.get(value, -1) for value in observed.tolist()], dtype=np.int64)


def listed(categories: np.ndarray) -> str:
    """The first categories in messages."""
    values: list[Any] = categories.tolist()
    return ", ".join(map(repr, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")
