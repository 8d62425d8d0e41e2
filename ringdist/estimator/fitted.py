"""The fitted state of an estimator: columns, names, and the encoding of a user's table as rows of its ring."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from ringdist.estimator import events, frames
from ringdist.estimator import table as tables
from ringdist.estimator.columns import Column
from ringdist.estimator.families import check_values
from ringdist.estimator.frames import is_frame


class Rows(NamedTuple):
    """A user's table and its encoding for the ring."""

    table: Any  # a frame or an array, columns as in fit
    rows: np.ndarray  # (n, d), NaN where missing
    log_share: np.ndarray  # (n, d), log share of rare categories among those with the same code
    absent: frozenset[int]  # columns that the user's table does not have


class FittedTable(BaseEstimator):
    """The fitted state that all queries use."""

    ring_: Any
    handle_unknown: Any
    target: Any
    n_features_in_: int
    n_iter_: int
    history_: dict[str, list[float]]
    feature_names_in_: np.ndarray
    _columns: list[Column]
    _frame: bool
    _labels: list[Any] | None

    def _set_fitted(self, columns: Sequence[Column], frame: bool, labels: Sequence[Any] | None, ring: Any) -> None:
        self._columns, self._frame = list(columns), frame
        self._labels = None if labels is None else list(labels)
        self.ring_ = ring
        self.n_features_in_ = len(self._columns)
        self.categories_ = [column.categories for column in self._columns]
        self.is_categorical_ = np.array([column.categories is not None for column in self._columns])
        self.column_types_ = {name: c.type for name, c in zip(self._indices, self._columns, strict=True)}

    @property
    def _indices(self) -> dict[Any, int]:
        """The index of every column by its name, or by itself where columns have none."""
        names: Sequence[Any] = range(len(self._columns)) if self._labels is None else self._labels
        return {name: k for k, name in enumerate(names)}

    def _index_of(self, column: Any) -> int:
        check_is_fitted(self)
        return events.column_of(column, self._indices)

    def _target_index(self, target: Any, last: int) -> int:
        """The index of the column to be predicted: by default the target of the fit, or `last` if there is none."""
        if target is None and self.target is None:
            return last
        return self._index_of(self.target if target is None else target)

    def _validated(self, X: Any, *, reset: bool) -> Any:
        """X as a frame or an (n, d) array of numbers or objects; its columns are checked, or recorded on reset."""
        X = frames.unmasked(X)
        if frames.is_mapping(X):
            raise TypeError("a table to fit is a frame or an array, found a dict; pass pandas.DataFrame(X)")
        if isinstance(X, list) and X and all(frames.is_mapping(row) for row in X):
            raise TypeError(
                "a table is a frame, an array or one dict of columns, found a list of dicts; pass pandas.DataFrame(X)"
            )
        if is_frame(X):
            if reset or not self._frame:
                frames.matched(X, list(X.columns))
                X = validate_data(self, X, reset=reset, skip_check_array=True)
            else:
                X = frames.matched(X, self._labels or [])
            if 0 in X.shape:
                raise ValueError(f"X must have at least one row and one column, found shape {X.shape}")
            return X
        if not hasattr(X, "dtype") and np.asarray(X, dtype=object).ndim == 2:
            kinds = check_array(X, dtype=None, ensure_all_finite=False)
            X = np.asarray(X, dtype=object) if kinds.dtype.kind == "U" else X  # a string among them would make all so
        return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")

    def _encoded(self, X: Any, skip: Collection[int] = ()) -> Rows:
        """A frame, an array or a dict of the known columns as rows of the ring."""
        check_is_fitted(self)
        absent: frozenset[int] = frozenset()
        if frames.is_mapping(X):
            X, absent = self._of_mapping(X), frozenset(range(len(self._columns)))
        elif is_frame(X) and self._frame:
            given = set(X.columns)
            absent = frozenset(k for name, k in self._indices.items() if name not in given)
            if len(absent) == len(self._columns) and X.shape[1]:
                frames.matched(X, self._labels or [])
        X = self._validated(X, reset=False)
        rows, shares = tables.encode(self._columns, X, self.handle_unknown, skip)
        for k, column in enumerate(self._columns):
            if column.categories is None:
                seen = rows[~np.isnan(rows[:, k]), k]
                check_values(column.type, seen, column.label, column.atoms, column.bounds)
        return Rows(X, rows, shares, absent)

    def _of_mapping(self, row: Mapping[Any, Any]) -> Any:
        names = list(self._indices)
        columns = frames.of_mapping(row, names)
        if not self._frame:
            return np.array(columns, dtype=object).T
        import pandas

        return pandas.DataFrame({name: pandas.Series(c, dtype=object) for name, c in zip(names, columns, strict=True)})

    def _names(self) -> list[str] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else [str(name) for name in names]
