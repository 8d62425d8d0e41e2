"""Samples of a table and completions of its missing entries, in the dtypes and the support of its columns."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ringdist.estimator import events
from ringdist.estimator import table as tables
from ringdist.estimator.fitted import FittedTable, Rows
from ringdist.estimator.fitting import seed


class Completions(FittedTable):
    """Samples, and rows whose missing entries are completed by samples, means or modes."""

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Exact samples, (n_samples, d): a frame if the model was fitted on one, otherwise an array.

        Values have the dtype of their column and are within its support.

        Args:
            n_samples: number of rows, at least 1.
            random_state: seed or `numpy.random.RandomState`; None for fresh randomness, as in sklearn's
                `KernelDensity`.

        Raises:
            ValueError: if n_samples is not a positive integer.

        Examples:
            >>> import numpy as np
            >>> import ringdist as rd
            >>> x = np.random.default_rng(0).integers(2, size=(200, 1)).repeat(3, axis=1)  # three equal columns
            >>> model = rd.TensorRingDensity(rank=2, random_state=0).fit(x)
            >>> model.sample(5, random_state=0).shape
            (5, 3)
        """
        check_is_fitted(self)
        _check_number("n_samples", n_samples)
        rng = check_random_state(random_state)
        rows = np.asarray(self.ring_.sample(int(n_samples), rng=seed(rng)))
        if self._frame:
            return tables.decode_frame(self._columns, rows, list(self._indices), rng)
        return tables.decode(self._columns, rows, rng)

    def sample_given(
        self, X: Any, n: int | None = None, event: Mapping[Any, Any] | None = None, *, random_state: Any = None
    ) -> Any:
        """Samples of the missing entries from p(missing | known entries of the row, event), exact and joint.

        Args:
            X: (n', d) table.
            n: draws for each row; None for one.
            event: maps columns to an `rd.Interval` or a set of categories that their entries must lie in.
            random_state: seed or `numpy.random.RandomState`; None for fresh randomness.

        Returns:
            A table like X if n is None. Otherwise a frame indexed by row and draw, or an array (n', n, d).

        Raises:
            ValueError: if X or an event does not fit, or a row and the event have zero mass together.

        Examples:
            >>> import numpy as np
            >>> import ringdist as rd
            >>> x = np.random.default_rng(0).integers(2, size=(200, 1)).repeat(3, axis=1)  # three equal columns
            >>> model = rd.TensorRingDensity(rank=2, random_state=0).fit(x)
            >>> model.sample_given([[1, np.nan, np.nan]], 4, random_state=0).shape  # a row, four draws, d columns
            (1, 4, 3)
        """
        given = self._encoded(X)
        if n is not None:
            _check_number("n", n)
        rng = check_random_state(random_state)
        ring_event = None if event is None else events.as_events(self._columns, event, self._indices)
        drawn = np.asarray(self.ring_.sample_given(given.rows, n, event=ring_event, rng=seed(rng)))
        missing = np.isnan(given.rows)
        if n is None:
            return tables.filled(self._columns, given.table, drawn, missing, rng, given.absent)
        many, rows, d = int(n), len(given.rows), len(self._columns)
        drawn = np.swapaxes(drawn, 0, 1).reshape(rows * many, d)
        missing = np.repeat(missing, many, axis=0)
        if not hasattr(given.table, "iloc"):
            repeated: Any = np.repeat(given.table, many, axis=0)
            full = tables.filled(self._columns, repeated, drawn, missing, rng)
            return np.reshape(full, (rows, many, d))
        import pandas

        table = given.table.iloc[np.repeat(np.arange(rows), many)]
        index = pandas.MultiIndex.from_arrays([table.index, np.tile(np.arange(many), rows)], names=["row", "draw"])
        return tables.filled(self._columns, table.set_axis(index, axis=0), drawn, missing, rng, given.absent)

    def impute(self, X: Any, method: Literal["mean", "sample", "mode"] = "mean", *, random_state: Any = None) -> Any:
        """A copy of X with its missing entries filled; observed entries do not change.

        Args:
            X: (n, d) table.
            method: "mean" completes each entry separately. In a numeric column it is the mean given all observed
                entries of the row, or the median if there is no mean, as with heavy-tailed Student-t components; in an
                integer column it is rounded. In a categorical column it is the most probable category. "sample" draws
                the missing entries of a row jointly. "mode" is the most probable joint completion found, see
                `TensorRing.mode`.
            random_state: for method "sample": seed or `numpy.random.RandomState`, None for fresh randomness.

        Returns:
            A table like X.

        Raises:
            ValueError: if X or the method does not fit, or the observed entries of a row have zero mass.

        Examples:
            >>> import numpy as np
            >>> import ringdist as rd
            >>> x = np.random.default_rng(0).integers(2, size=(200, 1)).repeat(3, axis=1)  # three equal columns
            >>> model = rd.TensorRingDensity(rank=2, random_state=0).fit(x)
            >>> model.impute([[1, np.nan, np.nan], [np.nan, 0, np.nan]])
            array([[1., 1., 1.],
                   [0., 0., 0.]])
        """
        if method not in ("mean", "sample", "mode"):
            raise ValueError(f"method must be mean, sample or mode, found {method!r}")
        if method == "sample":
            return self.sample_given(X, random_state=random_state)
        given = self._encoded(X)
        missing = np.isnan(given.rows)
        if not missing.any() and not given.absent:
            return given.table.copy()
        completed = np.asarray(self.ring_.mode(given.rows)) if method == "mode" else self._expected(given, missing)
        return tables.filled(self._columns, given.table, completed, missing, None, given.absent)

    def transform(self, X: Any) -> Any:
        """`impute(X)`: the table without missing entries, as a step of a scikit-learn pipeline.

        Examples:
            >>> import numpy as np
            >>> from sklearn.linear_model import LogisticRegression
            >>> from sklearn.pipeline import make_pipeline
            >>> import ringdist as rd
            >>> x = np.random.default_rng(0).integers(2, size=(200, 1)).repeat(3, axis=1)
            >>> model = make_pipeline(rd.TensorRingDensity(rank=2, random_state=0), LogisticRegression())
            >>> model.fit(x, x[:, 0]).predict([[np.nan, 1, np.nan]])
            array([1])
        """
        return self.impute(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the columns that `transform` returns, which are those of its input.

        Examples:
            >>> import numpy as np
            >>> import ringdist as rd
            >>> x = np.random.default_rng(0).integers(2, size=(200, 1)).repeat(3, axis=1)  # three equal columns
            >>> model = rd.TensorRingDensity(rank=2, random_state=0).fit(x)
            >>> model.get_feature_names_out().tolist()
            ['x0', 'x1', 'x2']
        """
        check_is_fitted(self)
        names = self._names()
        if names is not None:
            return np.array(names, dtype=object)
        if input_features is not None:
            return np.array(list(input_features), dtype=object)
        return np.array([f"x{k}" for k in range(self.n_features_in_)], dtype=object)

    def _expected(self, given: Rows, missing: np.ndarray) -> np.ndarray:
        """Conditional means (medians if there is no mean), and the most probable categories of categorical columns."""
        numeric = missing & ~self.is_categorical_
        completed = np.array(self.ring_.mean(given.rows)) if numeric.any() else given.rows.copy()
        infinite = numeric & ~np.isfinite(completed)  # Student-t components of few degrees of freedom
        for k in np.flatnonzero(infinite.any(axis=0)):
            rows = infinite[:, k]
            completed[rows, k] = np.asarray(self.ring_.quantile(int(k), 0.5, given.rows[rows]))
        for k in np.flatnonzero((missing & self.is_categorical_).any(axis=0)):
            gaps = missing[:, k]
            weights = np.asarray(self.ring_.component_posterior(int(k), given.rows[gaps]))
            codes = self._columns[k].expanded(weights).argmax(axis=1)
            completed[gaps, k] = np.minimum(codes, self._columns[k].num_codes - 1)
        return completed


def _check_number(label: str, n: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1:
        raise ValueError(f"{label} must be a positive integer, found {n!r}")
