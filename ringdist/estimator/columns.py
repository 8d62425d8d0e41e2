"""One column of a table: the conversion of its values to numbers or codes, and back.

The rarest levels of a categorical column with very many are merged: they share one code. log p of such a level is that
of the code plus the logarithm of the level's share, so the probabilities of all levels sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ringdist.estimator.frames import Raw, near, only_numbers
from ringdist.estimator.scalars import CLOCKS, Scalars

Unknown = Literal["error", "missing", "rare"]
COUNTS = "count", "poisson", "negative_binomial"  # types of integers that have probabilities, not densities


@dataclass(frozen=True)
class Column:
    """The type of one column and the representation of its values.

    Args:
        label: the column's name in messages.
        categories: the categories in the order of their codes, with those that share the last code at the end; None
            for a numeric column.
        declared: whether a pandas dtype declares the categories.
        ordered: whether that dtype is ordered.
        type: the type, as in `column_types`.
        atoms: numbers that have a positive probability.
        bounds: the bounds of a beta column.
        scalars: the notation of its numbers.
        rare: (R,) number of rows of each level that shares the last code; empty if all levels have their own.
        dtype: the name of the dtype of the user's column; empty if it is not known.
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
        """Half the distance between values if samples of a density are rounded to them, else 0."""
        return 0.0 if self.categories is not None or self.type in COUNTS else 0.5 * self.scalars.step

    @property
    def end(self) -> float:
        """The least number that is rounded to a value of the column."""
        return self.scalars.low - self.half_step

    def in_notation(self, values: np.ndarray) -> np.ndarray:
        """Numbers of any shape in the user's notation: dates, durations, or floats for all other columns."""
        if self.scalars.notation not in CLOCKS:
            return values
        return np.asarray(self.scalars.from_float(values.reshape(-1), "")).reshape(values.shape)

    def encode(self, raw: Raw, unknown: Unknown = "error") -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers or codes (n,) in float64, NaN where missing, and the log shares (n,) of rare levels, if any.

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
        """The level of each value; an unknown value is missing or counts as one more rare level."""
        known = np.zeros(0) if self.categories is None else self.categories
        codes = level_of(observed, known)
        new = codes < 0
        if not new.any():
            return codes.astype(np.float64)
        if unknown == "error":
            value = observed[int(new.argmax())]
            value = value.item() if isinstance(value, np.generic) else value
            counts = known.dtype.kind in "iuf" and not self.declared
            number = "; column_types={...: 'count'} or 'gaussian' models it as a number" if counts else ""
            similar = near(value, known.tolist())
            raise ValueError(
                f"{self.label}: category {value!r} was not in the table of fit, known are {listed(known)}; "
                f"{similar}set handle_unknown='missing' or 'rare' to accept it, or declare it by a categorical dtype "
                f"before fit{number}"
            )
        level = float(known.size) if unknown == "rare" and self.rare.size else np.nan
        return np.where(new, level, codes)

    def _share(self, levels: np.ndarray) -> np.ndarray:
        """The log share of each level among those of its code; 0 where it is the only one or missing."""
        logs = np.zeros(levels.size)
        last = levels >= self.num_codes - 1  # False for NaN
        shares = np.append(self.rare + 1.0, 1.0) / (self.rare.sum() + self.rare.size + 1)  # and of an unseen level
        logs[last] = np.log(shares[levels[last].astype(np.int64) - (self.num_codes - 1)])
        return logs

    @property
    def shares(self) -> np.ndarray:
        """The probability of each rare level given that the level is rare, (R,)."""
        return np.asarray((self.rare + 1.0) / (self.rare.sum() + self.rare.size))

    def expanded(self, codes: np.ndarray) -> np.ndarray:
        """Probabilities of levels (n, levels) from those of codes (n, N)."""
        if not self.rare.size:
            return codes
        return np.concatenate([codes[:, :-1], codes[:, -1:] * self.shares], axis=1)

    def spread(self, codes: np.ndarray, rng: np.random.RandomState | None) -> np.ndarray:
        """Levels of codes, (n,); for the last code a rare level, drawn with rng, or the most frequent one without."""
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
        """The user's values for numbers or codes, none of them missing."""
        if self.categories is None:
            return self.scalars.from_float(values, self.dtype)
        return np.asarray(self.categories[self.spread(values, rng)])


def level_of(observed: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """The index of each value among the categories, (n,); -1 if it is not among them."""
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
    """The first categories, for messages."""
    values: list[Any] = categories.tolist()
    return ", ".join(map(repr, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")
