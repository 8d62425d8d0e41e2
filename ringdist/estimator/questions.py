"""Questions about the distribution of a table, in its own labels: events, conditioning, marginals and dependence.

Tables are as in `ringdist.estimator.predictions`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ringdist.estimator import events
from ringdist.estimator.fitted import FittedTable
from ringdist.estimator.fitting import seed

SAMPLES = 4000  # of a Monte Carlo estimate of mutual information


class Questions(FittedTable):
    """Probabilities of events, conditional and marginal distributions, mutual information and surprise."""

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
        ring_event = events.as_events(self._columns, event, self._indices)
        if X is None:
            return float(self.ring_.probability(ring_event))
        return np.asarray(self.ring_.probability(ring_event, self._encoded(X).rows))

    def condition(self, evidence: Mapping[Any, Any]) -> Self:
        """The estimator of the remaining columns, given values of some columns and within events.

        Args:
            evidence: maps columns to a value, an `rd.Interval`, or a set of categories. Columns with a value are not
                part of the result; columns with an event are.

        Raises:
            ValueError: if a column or category is unknown, a value or event does not fit its column, no column remains,
                or the evidence has zero mass.
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
            k = self._index_of(name)
            if events.is_event(value):
                given[k] = events.as_event(self._columns[k], value)
            else:
                given[k] = events.as_value(self._columns[k], value)
                values.add(k)
        keep = [k for k in range(len(self._columns)) if k not in values]
        if not keep:
            raise ValueError(
                f"a column must remain, but evidence gives all {len(values)} of them a value; leave one out, or use "
                "score_samples"
            )
        return self._restricted_to(keep, self.ring_.condition(given))

    def marginal(self, columns: Sequence[Any]) -> Self:
        """The estimator of some columns, in the order of the table; the others are integrated out.

        Raises:
            ValueError: if a column is unknown or named twice, or `columns` is empty.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.marginal(["height"]).sample(3, random_state=0).shape
            (3, 1)
        """
        check_is_fitted(self)
        if isinstance(columns, str):
            raise ValueError(f"columns must be a list of columns, found the string {columns!r}; write [{columns!r}]")
        keep = sorted(self._index_of(column) for column in columns)
        if not 0 < len(keep) == len(set(keep)):
            raise ValueError(f"columns must name at least one column, each of them once, found {list(columns)}")
        return self._restricted_to(keep, self.ring_.marginal(keep))

    def mutual_information(self, random_state: Any = 0) -> Any:
        """Mutual information of every pair of columns under the model, in nats.

        Exact between categorical columns, from the tables of pairs. With a numeric column, a Monte Carlo estimate of
        E[log p(x, y) − log p(x) − log p(y)] from 4000 samples, with exact densities of pairs, and at least 0. The
        diagonal is the entropy of a categorical column, and infinite for a numeric one.

        Args:
            random_state: seed or `numpy.random.RandomState` of the samples.

        Returns:
            A frame indexed by columns if the model was fitted on a frame, otherwise (d, d).

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> information = model.mutual_information()
            >>> bool(0.3 < information.loc["height", "tall"] <= information.loc["tall", "tall"])
            True
        """
        check_is_fitted(self)
        d, categorical = len(self._columns), np.flatnonzero(self.is_categorical_).tolist()
        found = np.full((d, d), np.inf)
        if categorical:
            exact = self.ring_.marginal(categorical).mutual_information()
            found[np.ix_(categorical, categorical)] = np.asarray(exact)
        if len(categorical) < d:
            rows = np.asarray(self.ring_.sample(SAMPLES, rng=seed(check_random_state(random_state))))
            single = [np.asarray(self.ring_.marginal([k]).log_prob(rows[:, [k]])) for k in range(d)]
            for j in range(d):
                for k in range(j + 1, d):
                    if not (self.is_categorical_[j] and self.is_categorical_[k]):
                        both = np.asarray(self.ring_.marginal([j, k]).log_prob(rows[:, [j, k]]))
                        found[j, k] = found[k, j] = max(0.0, float(np.mean(both - single[j] - single[k])))
        if not self._frame:
            return found
        import pandas

        return pandas.DataFrame(found, index=list(self._indices), columns=list(self._indices))

    def explain(self, X: Any) -> Any:
        """The surprise of every entry given the rest of its row, −log p(entry | rest), in nats.

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
        joint = np.asarray(self.ring_.log_prob(given.rows))
        found = np.full(given.rows.shape, np.nan)
        for k in range(len(self._columns)):
            observed = ~np.isnan(given.rows[:, k])
            rest = given.rows[observed].copy()
            rest[:, k] = np.nan
            if observed.any():
                with np.errstate(invalid="ignore"):
                    difference = np.asarray(self.ring_.log_prob(rest)) - joint[observed]
                surprise = np.where(np.isneginf(joint[observed]), np.inf, difference)
                found[observed, k] = surprise - given.log_share[observed, k]
        if not self._frame:
            return found
        import pandas

        index = given.table.index if hasattr(given.table, "index") else None
        return pandas.DataFrame(found, index=index, columns=list(self._indices))

    def _restricted_to(self, keep: Sequence[int], ring: Any) -> Self:
        """A copy of the estimator with only the columns `keep`, whose distribution is `ring`."""
        found = copy.copy(self)
        if self.target is not None:
            target = self._index_of(self.target)
            found.target = None if target not in keep else self.target if self._labels else keep.index(target)
        labels = None if self._labels is None else [self._labels[k] for k in keep]
        names = self._names()
        if names is not None:
            found.feature_names_in_ = np.array([names[k] for k in keep], dtype=object)
        found._set_fitted([self._columns[k] for k in keep], self._frame, labels, ring)
        return found
