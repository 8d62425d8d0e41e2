"""Predictions of one column from the other entries of a row, exact under the fitted ring.

A table is a frame or an array like that of fit, a frame with some of its columns in any order, or a dictionary from
columns to values. An absent column counts as missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ringdist.estimator.access import after_fit
from ringdist.estimator.columns import Column, listed
from ringdist.estimator.fitted import FittedTable
from ringdist.estimator.frames import only_numbers

QUANTILES_AT_ONCE = 4096


class Predictions(FittedTable):
    """Conditional class probabilities, means, distribution functions and quantiles."""

    def classes_of(self, target: Any) -> np.ndarray:
        """The categories of a column, in the order of the columns of `predict_proba`.

        Raises:
            ValueError: if there is no such column, or it is numeric.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.classes_of("tall").tolist()
            ['no', 'yes']
        """
        return np.array(self._categorical(self._index_of(target)).categories)

    @after_fit(categorical=True)
    def predict_proba(self, X: Any, target: Any = None) -> np.ndarray:
        """p(target = class | the other known entries of the row), (n, classes), exact.

        Args:
            X: (n, d) table; entries of the column `target` are ignored.
            target: a categorical column; if None, the target of the fit, or the last categorical column.

        Raises:
            ValueError: if X does not fit, the column is numeric, or a row's entries have zero mass.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.classes_of("tall").tolist()
            ['no', 'yes']
            >>> bool(model.predict_proba({"height": 185.0}, "tall")[0, 1] > 0.9)
            True
        """
        k = self._target_index(target, int(np.flatnonzero(self.is_categorical_)[-1]))
        column = self._categorical(k)
        return column.expanded(np.asarray(self.ring_.component_posterior(k, self._encoded(X, {k}).rows)))

    @after_fit()
    def predict(self, X: Any, target: Any = None) -> np.ndarray:
        """The most probable category, or the mean of a numeric column, given the other entries of the row, (n,).

        Args:
            X: (n, d) table; entries of the column `target` are ignored.
            target: a column; if None, the target of the fit, or the last column.

        Raises:
            ValueError: if X does not fit, or a row's entries have zero mass.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.predict({"height": [155.0, 185.0]}, "tall").tolist()
            ['no', 'yes']
        """
        k = self._target_index(target, len(self._columns) - 1)
        name, categories = list(self._indices)[k], self._columns[k].categories
        if categories is None:
            return self.mean(X, name)
        return np.asarray(categories[self.predict_proba(X, name).argmax(axis=1)])

    def mean(self, X: Any, column: Any) -> np.ndarray:
        """E[column | the other known entries of the row], (n,), exact.

        Args:
            X: (n, d) table; entries of the column are ignored.
            column: numeric, or categorical with numbers as categories.

        Raises:
            ValueError: if X does not fit, categories are not numbers, or a row's entries have zero mass.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> small, tall = model.mean({"tall": ["no", "yes"]}, "height")
            >>> bool(small < 170 < tall)
            True
        """
        k = self._index_of(column)
        asked = self._columns[k]
        if asked.categories is not None:
            if asked.categories.dtype.kind not in "fiub":
                raise ValueError(
                    f"{asked.label}: only numbers have a mean, found the categories {listed(asked.categories)}; use "
                    "predict_proba"
                )
            return np.asarray(self.predict_proba(X, column) @ asked.categories.astype(np.float64))
        values = np.asarray(self.ring_.mean(self._encoded(X, {k}).rows))[:, k]
        return asked.in_notation(values)

    def cdf(self, X: Any, column: Any) -> np.ndarray:
        """P(column <= its entry | the other known entries of the row), (n,), exact.

        Args:
            X: (n, d) table with an entry of the column in every row.
            column: numeric, or categorical with an order.

        Raises:
            ValueError: if X does not fit, an entry of the column is missing, its categories have no order, or a row's
                entries have zero mass.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> low, high = model.cdf({"height": [160.0, 180.0]}, "height")
            >>> bool(low < 0.2 < 0.8 < high)
            True
            >>> bool(model.cdf({"height": 180.0, "tall": "yes"}, "height")[0] < high)  # among the tall
            True
        """
        k = self._ordered(column)
        asked, rows = self._columns[k], self._encoded(X).rows.copy()
        missing = np.isnan(rows[:, k])
        if missing.any():
            raise ValueError(
                f"{asked.label}: cdf needs an entry of the column in every row, found none in row "
                f"{int(missing.argmax())}; give it, or leave the row out"
            )
        rows[:, k] += asked.half_step
        return np.where(rows[:, k] < asked.end, 0.0, np.asarray(self.ring_.cdf(k, rows)))

    def quantile(self, X: Any, column: Any, q: Any) -> np.ndarray:
        """The least value of a column whose cdf, given the other known entries of the row, is at least q.

        Args:
            X: (n, d) table; entries of the column are ignored.
            column: numeric, or categorical with an order.
            q: a probability, or several.

        Returns:
            (n,) values, or (n, len(q)).

        Raises:
            ValueError: if X does not fit, a q is outside [0, 1], the column's categories have no order, or a row's
                entries have zero mass.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.quantile({"tall": "yes"}, "height", [0.1, 0.9]).shape
            (1, 2)
        """
        k = self._ordered(column)
        asked, levels = self._columns[k], np.asarray(q, dtype=object)
        levels = levels.astype(np.float64) if only_numbers(levels.reshape(-1)) else np.full((), np.nan)
        if levels.ndim > 1 or not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(
                f"{asked.label}: q must be a probability in [0, 1] or a list of probabilities, found {q!r}; write 0.95 "
                "for 95 %"
            )
        rows = self._encoded(X, {k}).rows
        step = max(1, QUANTILES_AT_ONCE // max(1, levels.size))
        found = [
            np.asarray(self.ring_.quantile(k, np.atleast_1d(levels)[:, None], rows[i : i + step])).T
            for i in range(0, len(rows), step)
        ]
        values = _quantiles_of(asked, np.concatenate(found))
        return np.asarray(values[:, 0] if levels.ndim == 0 else values)

    def _categorical(self, k: int) -> Column:
        column = self._columns[k]
        if column.categories is None:
            raise ValueError(
                f"{column.label}: only a categorical column has classes, this is a {column.type} one; use mean, cdf or "
                "quantile, or fit with column_types={...: 'categorical'}"
            )
        return column

    def _ordered(self, name: Any) -> int:
        """The index of a column whose values have an order; `ValueError` if they have none."""
        k = self._index_of(name)
        column = self._columns[k]
        if column.categories is not None:
            numeric = column.categories.dtype.kind in "fiub"
            if not (column.ordered or (numeric and not column.declared)) or column.rare.size:
                raise ValueError(
                    f"{column.label}: cdf and quantile need an order, which its categories "
                    f"{listed(column.categories)} do not have; use predict_proba, or fit an ordered categorical dtype"
                )
        return k


def _quantiles_of(column: Column, values: np.ndarray) -> np.ndarray:
    """Quantiles of the ring as values of the column: categories, multiples of its step, numbers in its support."""
    if column.categories is not None:
        return np.asarray(column.categories[values.astype(np.int64)])
    half, step = column.half_step, column.scalars.step
    if half:
        values = np.where(np.isfinite(values), np.ceil((values - half) / step - 1e-9) * step, values)
    return column.in_notation(np.clip(values, column.scalars.low, column.scalars.high))
