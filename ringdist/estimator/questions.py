"""Questions about a table in its own labels, answered exactly by the fitted ring.

A table is a frame or an array like that of fit, a frame with some of its columns in any order, or a dictionary from
columns to values. An absent column counts as missing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ringdist.estimator import events
from ringdist.estimator.access import after_fit
from ringdist.estimator.columns import Column, listed
from ringdist.estimator.completions import Completions
from ringdist.estimator.fitting import seed
from ringdist.estimator.frames import only_numbers

TOGETHER = 4096  # quantiles
SAMPLES = 4000  # of a Monte Carlo estimate of mutual information


class Questions(Completions):
    """Conditional probabilities, moments, quantiles and events."""

    def classes_of(self, target: Any) -> np.ndarray:
        """The categories of a column, in the order of the columns of `predict_proba`.

        Raises:
            ValueError: if there is no such column, or it is numeric.
        """
        return np.array(self._categorical(self._at(target)).categories)

    @after_fit(categorical=True)
    def predict_proba(self, X: Any, target: Any = None) -> np.ndarray:
        """p(target = class | the other known entries of the row), (n, classes), exact.

        Args:
            X: (n, d) table; entries of the column `target` are ignored.
            target: a categorical column; if None, the target of the fit, or else the last one.

        Raises:
            ValueError: if X does not fit, the column holds numbers, or a row's entries have zero mass.

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
        k = self._asked(target, int(np.flatnonzero(self.is_categorical_)[-1]))
        column = self._categorical(k)
        return column.expanded(np.asarray(self.ring_.component_posterior(k, self._encoded(X, {k}).rows)))

    @after_fit()
    def predict(self, X: Any, target: Any = None) -> np.ndarray:
        """The most probable category, or the mean of a numeric column, given the other entries of the row, (n,).

        Args:
            X: (n, d) table; entries of the column `target` are ignored.
            target: a column; if None, the target of the fit, or else the last one.

        Raises:
            ValueError: if X does not fit, or a row's entries have zero mass.
        """
        k = self._asked(target, len(self._columns) - 1)
        categories = self._columns[k].categories
        if categories is None:
            return self.mean(X, list(self._place)[k])
        return np.asarray(categories[self.predict_proba(X, list(self._place)[k]).argmax(axis=1)])

    def mean(self, X: Any, column: Any) -> np.ndarray:
        """E[column | the other known entries of the row], (n,), exact; for numeric categories their mean.

        Raises:
            ValueError: if X does not fit, categories are not numbers, or a row's entries have zero mass.
        """
        k = self._at(column)
        asked = self._columns[k]
        if asked.categories is not None:
            if asked.categories.dtype.kind not in "fiub":
                raise ValueError(
                    f"{asked.label}: only numbers have a mean, found the categories {listed(asked.categories)}; ask "
                    "predict_proba"
                )
            return np.asarray(self.predict_proba(X, column) @ asked.categories.astype(np.float64))
        values = np.asarray(self.ring_.mean(self._encoded(X, {k}).rows))[:, k]
        return asked.in_notation(values)

    def cdf(self, X: Any, column: Any) -> np.ndarray:
        """P(column <= its entry | the other known entries of the row), (n,), exact.

        Raises:
            ValueError: if X does not fit, an entry of the column is missing, its categories have no order, or a row's
                entries have zero mass.
        """
        k = self._ordered(column)
        asked, rows = self._columns[k], self._encoded(X).rows.copy()
        if np.isnan(rows[:, k]).any():
            raise ValueError(
                f"{asked.label}: the point of a cdf must be given in every row, found none in row "
                f"{int(np.isnan(rows[:, k]).argmax())}; give it, or leave the row out"
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
                f"{asked.label}: q must be a probability or a list of some, in [0, 1], found {q!r}; write 0.95 for 95 %"
            )
        rows = self._encoded(X, {k}).rows
        some = max(1, TOGETHER // max(1, levels.size))
        found = [
            np.asarray(self.ring_.quantile(k, np.atleast_1d(levels)[:, None], rows[i : i + some])).T
            for i in range(0, len(rows), some)
        ]
        values = np.concatenate(found)
        if asked.categories is not None:
            values = asked.categories[values.astype(np.int64)]
        else:
            half, step = asked.half_step, asked.scalars.step
            if half:
                values = np.where(np.isfinite(values), np.ceil((values - half) / step - 1e-9) * step, values)
            values = asked.in_notation(np.clip(values, asked.scalars.low, asked.scalars.high))
        return np.asarray(values[:, 0] if levels.ndim == 0 else values)

    def probability(self, event: Mapping[Any, Any], X: Any = None) -> Any:
        """P(event), or P(event | known entries of the row) for every row of X, exact.

        Args:
            event: maps columns to an `rd.Interval` or a set of categories; the event is their intersection.
            X: (n, d) table, or None.

        Returns:
            A float, or (n,) with X.

        Raises:
            ValueError: if a column or category is unknown, an event does not fit its column, or a row's entries have
                zero mass.
            TypeError: if `event` is not a dict.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> tall = model.probability({"height": rd.Interval(170, None), "tall": {"yes"}})
            >>> bool(0.3 < tall < 0.6)
            True
        """
        check_is_fitted(self)
        asked = events.as_events(self._columns, event, self._place)
        if X is None:
            return float(self.ring_.probability(asked))
        return np.asarray(self.ring_.probability(asked, self._encoded(X).rows))

    def condition(self, evidence: Mapping[Any, Any]) -> Self:
        """The estimator of the other columns given values of some columns, and within events.

        Args:
            evidence: maps columns to a value, an `rd.Interval`, or a set of categories. Columns with a value are not
                part of the result; columns with an event are.

        Raises:
            ValueError: if a column or category is unknown, what is said does not fit its column, no column remains, or
                the evidence has zero mass.
            TypeError: if `evidence` is not a dict.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.condition({"tall": "yes"}).column_types_
            {'height': 'gaussian'}
            >>> bool(model.condition({"height": rd.Interval(180, None)}).sample(9)["height"].min() >= 180)
            True
        """
        check_is_fitted(self)
        if not isinstance(evidence, Mapping):
            raise TypeError(
                f"evidence must be a dict from columns to values or events, such as {{'age': 50}}, found {evidence!r}"
            )
        given: dict[int, Any] = {}
        values = set()
        for name, value in evidence.items():
            k = self._at(name)
            if events.is_event(value):
                given[k] = events.as_event(self._columns[k], value)
            else:
                given[k] = events.as_value(self._columns[k], value)
                values.add(k)
        keep = [k for k in range(len(self._columns)) if k not in values]
        if not keep:
            raise ValueError(
                f"a column must remain, but evidence gives all {len(values)} of them a value; leave one out, or ask "
                "score_samples"
            )
        return self._over(keep, self.ring_.condition(given))

    def marginal(self, columns: Sequence[Any]) -> Self:
        """The estimator of some columns alone, in the order of the table.

        Raises:
            ValueError: if a column is unknown or named twice, or there is none.
        """
        check_is_fitted(self)
        if isinstance(columns, str):
            raise ValueError(f"columns must be a list of columns, found the string {columns!r}; write [{columns!r}]")
        keep = sorted(self._at(column) for column in columns)
        if not 0 < len(keep) == len(set(keep)):
            raise ValueError(f"columns must name at least one column, each of them once, found {list(columns)}")
        return self._over(keep, self.ring_.marginal(keep))

    def mutual_information(self, random_state: Any = 0) -> Any:
        """Mutual information of every pair of columns under the model, in nats: a frame, or (d, d).

        Exact between categorical columns, from the tables of pairs. With a numeric column, a Monte Carlo estimate of
        E[log p(x, y) − log p(x) − log p(y)] from 4000 samples, with exact densities of pairs, and at least 0. The
        diagonal is the entropy of a categorical column, and infinite for a numeric one.

        Args:
            random_state: of the samples.
        """
        check_is_fitted(self)
        d, codes = len(self._columns), np.flatnonzero(self.is_categorical_).tolist()
        found = np.full((d, d), np.inf)
        if codes:
            found[np.ix_(codes, codes)] = np.asarray(self.ring_.marginal(codes).mutual_information())
        if len(codes) < d:
            rows = np.asarray(self.ring_.sample(SAMPLES, rng=seed(check_random_state(random_state))))
            alone = [np.asarray(self.ring_.marginal([k]).log_prob(rows[:, [k]])) for k in range(d)]
            for j in range(d):
                for k in range(j + 1, d):
                    if not (self.is_categorical_[j] and self.is_categorical_[k]):
                        both = np.asarray(self.ring_.marginal([j, k]).log_prob(rows[:, [j, k]]))
                        found[j, k] = found[k, j] = max(0.0, float(np.mean(both - alone[j] - alone[k])))
        if not self._frame:
            return found
        import pandas

        return pandas.DataFrame(found, index=list(self._place), columns=list(self._place))

    def explain(self, X: Any) -> Any:
        """How surprising every entry is given the rest of its row: −log p(entry | rest), in nats.

        A large value is an entry that is improbable given the others. Densities are per unit of the column, so compare
        values within a numeric column, not between columns.

        Returns:
            A frame with the index and columns of X, or (n, d); NaN where an entry is missing.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> surprise = model.explain(pd.DataFrame({"height": [190.0, 172.0], "tall": ["no", "yes"]}))
            >>> bool(surprise["tall"][0] > surprise["tall"][1])
            True
        """
        given = self._encoded(X)
        whole = np.asarray(self.ring_.log_prob(given.rows))
        found = np.full(given.rows.shape, np.nan)
        for k in range(len(self._columns)):
            seen = ~np.isnan(given.rows[:, k])
            rest = given.rows[seen].copy()
            rest[:, k] = np.nan
            if seen.any():
                with np.errstate(invalid="ignore"):
                    difference = np.asarray(self.ring_.log_prob(rest)) - whole[seen]
                found[seen, k] = np.where(np.isneginf(whole[seen]), np.inf, difference) - given.log_share[seen, k]
        if not self._frame:
            return found
        import pandas

        index = given.table.index if hasattr(given.table, "index") else None
        return pandas.DataFrame(found, index=index, columns=list(self._place))

    # ------------------------------------------------------------------------------------------------------- steps

    def _categorical(self, k: int) -> Column:
        column = self._columns[k]
        if column.categories is None:
            raise ValueError(
                f"{column.label}: classes are those of a categorical column, this is a {column.type} one; ask mean, "
                "cdf or quantile, or fit with column_types={...: 'categorical'}"
            )
        return column

    def _ordered(self, name: Any) -> int:
        """A column whose values have an order."""
        k = self._at(name)
        column = self._columns[k]
        if column.categories is not None:
            numeric = column.categories.dtype.kind in "fiub"
            if not (column.ordered or (numeric and not column.declared)) or column.rare.size:
                raise ValueError(
                    f"{column.label}: a cdf and quantiles need an order, which its categories "
                    f"{listed(column.categories)} do not have; ask predict_proba, or fit an ordered categorical dtype"
                )
        return k

    def _over(self, keep: Sequence[int], ring: Any) -> Self:
        """The fitted estimator of some of the columns, with their ring."""
        found = copy.copy(self)
        if self.target is not None:
            target = self._at(self.target)
            found.target = None if target not in keep else self.target if self._labels else keep.index(target)
        labels = None if self._labels is None else [self._labels[k] for k in keep]
        names = self._names()
        if names is not None:
            found.feature_names_in_ = np.array([names[k] for k in keep], dtype=object)
        found._set_fitted([self._columns[k] for k in keep], self._frame, labels, ring)
        return found
