"""`TensorRingDensity`: tensor rings as a scikit-learn estimator for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import DensityMixin, TransformerMixin
from sklearn.utils import check_random_state

from ringdist.estimator import column_types, fitting, units
from ringdist.estimator import table as tables
from ringdist.estimator.columns import Unknown
from ringdist.estimator.completions import Completions
from ringdist.estimator.events import column_of
from ringdist.estimator.fitting import seed
from ringdist.estimator.frames import is_frame, raw_columns
from ringdist.estimator.learner import Learner, Options
from ringdist.estimator.parameters import check_parameters, plain_rank
from ringdist.estimator.predictions import Predictions
from ringdist.estimator.questions import Questions
from ringdist.estimator.stacking import MOST_RINGS
from ringdist.estimator.storage import Storable
from ringdist.estimator.structures import alone, as_gaussian, structures_of
from ringdist.estimator.supports import within_supports


class TensorRingDensity(TransformerMixin, DensityMixin, Completions, Predictions, Questions, Storable):
    """A tensor-ring density of a table with columns of any type and missing entries, fitted by EM.

    Rows are arrays or pandas frames. NaN, None, pandas' NA and masked entries are missing: fitting and scoring use the
    likelihood of the observed entries. Settings that are not given are chosen within `budget` seconds on held-out rows,
    by their log-likelihood and by how well hidden entries are completed from the others. Then the model is fitted to
    all rows.

    `ring_` is in the units of the data: log-densities are per unit of each numeric column. For a column of integers, a
    unit is the distance between them.

    A column without negative numbers has none in samples and completions. If its Gaussian or Student-t components
    expect 5 or more of the rows below 0, they are truncated at 0 (`rd.Truncated`): a negative number then has density
    0. A smaller mass below 0, or that of a column that shares a covariance, counts as mass at 0 in samples, `cdf`,
    `quantile` and `probability`.

    Args:
        rank: of every bond, or one per bond (see `TensorRing.ranks`). "auto": chosen.
        num_components: of a numeric column; fewer if it has fewer distinct values. "auto": chosen.
        num_rings: number of rings in different orders of the columns; `ring_` is their mixture. "auto": with
            `rank="auto"` up to four rings with different settings, structures and orders, if held-out rows
            score higher under their mixture than under the best of them (up to eight for a target); otherwise one.
        core: "dense" or "cp" cores. "auto": dense for a ring and for a given rank up to 8, otherwise CP.
        target: a column (name or index) that is to be predicted from the others. Settings, epochs and the weights of
            several rings are then chosen by its conditional likelihood given the rest of held-out rows, and a
            categorical target counts several times when clusters are formed. It is the default of `predict` and
            `predict_proba`. None: all columns count equally.
        order: order of the columns in the ring: by mutual information of neighbours (`ringdist.ordering`), random, as
            given, or a sequence of column indices or names.
        topology: "train" for a first bond of rank 1, or "ring".
        column_types: "auto", or a dict from columns (names or indices) to types; the other types are inferred:
            "categorical", "gaussian", "student_t", "lognormal" (zeros become atoms), "beta" (within bounds),
            "von_mises" (angles), "count", "poisson", "negative_binomial". Strings, booleans, categorical pandas
            columns, few distinct integers, and few distinct real numbers with many rows each are categorical. For other
            numbers the family is chosen by held-out likelihood. Values that are repeated too often for a continuous
            column become atoms, which have a positive probability.
        shared_covariances: whether real columns may share a covariance (`rd.MultivariateGaussianMixture`). Whether none
            of them do, the strongly correlated ones or all is chosen on held-out rows, if neither rank nor components
            are given. Tables of correlated measurements gain much. Events of one or two of these columns are exact,
            those of more columns usually accurate to 1e-4 (`rd.TruncatedMultivariateGaussianMixture`).
        handle_unknown: how to treat a category that fit did not see. "error": raise `ValueError`. "missing": as a
            missing entry. "rare": as one of the rare categories, which fit then merges, or as missing if there are
            none.
        categorical_features: which columns are categorical. "auto": as in `column_types`. "from_dtype": only columns
            with the categorical dtype of pandas. Otherwise a list of indices, a list of names, a mask over all columns,
            or None for no column. Categories are those that fit sees, or that a categorical dtype declares. Declare
            them if a category may be so rare that a fold of a cross-validation misses it.
        budget: seconds of wall-clock time for choices and fits. A running fit is finished, so this is not a hard limit.
            None: no limit, and the same result on every machine.
        max_epochs: maximal number of epochs. "auto": until EM has converged, or until the epoch of highest held-out
            likelihood.
        batch_size: None for exact EM on all rows, otherwise rows per damped step. "auto": mini-batches if there are
            6000 rows or more.
        pseudocount: in rows, spread evenly over the entries of the largest core; other cores get as much per entry.
            "auto": a chosen number of rows, possibly 0, is added to every conditional distribution.
        variance_floor: least variance of a component, relative to that of its column, or to the variance implied by its
            quartiles if that is smaller. For an integer column, the distance between values is a lower bound too.
            "auto": chosen.
        start: the `method` of `ringdist.initialize`: near a mixture of `rank` products ("mixture"), or random cores
            with components at quantiles or k-means centres ("quantile", "kmeans"). "auto": "mixture", but "quantile"
            if there is one rank per bond.
        restarts: number of fits from random starting points; the best is kept.
        validation_fraction: share of the rows that is held out from all fits; the ring that is best on them is kept.
            None: rows are held out for choices only.
        patience: early stopping after this many epochs without improvement on the held-out rows; None: never.
        random_state: seed or `numpy.random.RandomState` for orders, starting points, splits and batches.
        verbose: whether to show a progress bar.

    Attributes:
        ring_: the fitted `ringdist.TensorRing`, or a `ringdist.RingMixture` of several. Numeric columns are in the
            units of the data, categorical ones are codes; variables have the names of the columns, if there are any.
        column_types_: the type of every column, by its name, or by its index if columns have no names.
        history_: mean log-likelihood per row after every epoch, of "train" and, with `validation_fraction`, of
            "validation", before components are truncated.
        categories_: for each column the array of categories in the order of their codes, or None if it is numeric.
        is_categorical_: (d,) booleans.
        n_iter_: number of epochs run.
        n_features_in_: number of columns d.
        feature_names_in_: (d,) names, if the columns of X all have string names.

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> model = TensorRingDensity(rank=2, num_components=3, random_state=0).fit(x)
        >>> model.score_samples(x).shape
        (200,)
        >>> model.impute([[0.0, np.nan, 1.0]]).shape
        (1, 3)
        >>> model.quantile({0: 0.5}, 1, [0.1, 0.9]).shape  # of column 1 where column 0 is 0.5
        (1, 2)
    """

    def __init__(
        self,
        rank: int | Sequence[int] | Literal["auto"] = "auto",
        *,
        num_components: int | Literal["auto"] = "auto",
        num_rings: int | Literal["auto"] = "auto",
        core: Literal["auto", "dense", "cp"] = "auto",
        target: Any = None,
        order: Literal["mutual_information", "random", "given"] | Sequence[int | str] = "mutual_information",
        topology: Literal["ring", "train"] = "train",
        column_types: Literal["auto"] | Mapping[Any, str] = "auto",
        shared_covariances: bool = True,
        handle_unknown: Unknown = "error",
        categorical_features: Any = "auto",
        budget: float | None = 20.0,
        max_epochs: int | Literal["auto"] = "auto",
        batch_size: int | Literal["auto"] | None = "auto",
        pseudocount: float | Literal["auto"] = "auto",
        variance_floor: float | Literal["auto"] = "auto",
        start: Literal["auto", "mixture", "quantile", "kmeans"] = "auto",
        restarts: int = 1,
        validation_fraction: float | None = None,
        patience: int | None = 10,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.rank = rank
        self.num_components = num_components
        self.num_rings = num_rings
        self.core = core
        self.target = target
        self.order = order
        self.topology = topology
        self.column_types = column_types
        self.shared_covariances = shared_covariances
        self.handle_unknown = handle_unknown
        self.categorical_features = categorical_features
        self.budget = budget
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.pseudocount = pseudocount
        self.variance_floor = variance_floor
        self.start = start
        self.restarts = restarts
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model to X.

        Args:
            X: (n, d) array or frame.
            y: ignored.
            sample_weight: (n,) non-negative weights; rows of weight 0 are ignored. Weights affect the likelihood and
                the scale of the columns, but not the order, the starting point and the held-out rows.

        Raises:
            ValueError: if X or a parameter does not fit, a column has no observed entry, or weights are all zero.
            TypeError: if a column contains neither numbers nor strings.

        Examples:
            >>> import numpy as np, pandas as pd, ringdist as rd
            >>> height = np.random.default_rng(0).normal(170, 8, 200)
            >>> frame = pd.DataFrame({"height": height, "tall": np.where(height > 170, "yes", "no")})
            >>> frame.loc[0, "height"] = np.nan  # a missing entry
            >>> model = rd.TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
            >>> model.column_types_
            {'height': 'gaussian', 'tall': 'categorical'}
        """
        check_parameters(self)
        X = self._validated(X, reset=True)
        labels = list(X.columns) if is_frame(X) else None
        rng = check_random_state(self.random_state)
        columns = column_types.columns_of(
            raw_columns(X), labels, self.categorical_features, self.column_types, self.handle_unknown, 0
        )
        rows, shares = tables.encode(columns, X, self.handle_unknown)
        kept, weight = fitting.weighted(X, rows, sample_weight)
        rows, weight, log_share = rows[kept], weight[kept], shares[kept].sum(axis=1)
        learn, held_out = fitting.split(len(rows), self.validation_fraction, rng)
        unit = units.units_of(rows[learn], weight[learn], columns)
        learner = self._learner(unit.standard(rows), weight, columns, unit, labels, learn, rng)
        result, stack = fitting.learnt(
            learner,
            held_out,
            rank=None if self._rank_is_chosen else plain_rank(self.rank),
            components=None if self.num_components == "auto" else int(self.num_components),
            smoothing=None if self.pseudocount == "auto" else 0.0,
            floor=None if self.variance_floor == "auto" else float(self.variance_floor),
            num_rings=self._num_rings,
            budget=self.budget,
            rng=rng,
        )
        ring = units.in_units(result.ring, unit, columns, self._names())
        for share in stack:
            columns = as_gaussian(columns, learner.structures[share.setting.structure])
        ring = within_supports(ring, columns, rows[learn])
        self._set_fitted(columns, is_frame(X), labels, ring)
        self.history_ = {
            name: [float(value - shift) for value in result.history[name]]
            for name, shift in {
                "train": _shift(unit, rows[learn], weight[learn], columns, log_share[learn]),
                "validation": _shift(unit, rows[held_out], np.ones(held_out.size), columns, log_share[held_out]),
            }.items()
            if name in result.history
        }
        self.n_iter_ = len(result.history["train"])
        return self

    def _learner(
        self, rows: np.ndarray, weight: np.ndarray, columns: Any, unit: units.Units, labels: Any, learn: Any, rng: Any
    ) -> Learner:
        number = self._num_rings or (MOST_RINGS if self.order == "mutual_information" else 1)
        orders = fitting.column_orders(self.order, rows[learn], columns, labels, self.topology, number, rng)
        options = Options(
            self.topology,
            self.core,
            self.start,
            None if self.max_epochs == "auto" else int(self.max_epochs),
            self.batch_size,
            None if self.pseudocount == "auto" else float(self.pseudocount),
            self.restarts,
            self.patience,
            bool(self.verbose),
        )
        structures = [alone(len(columns))]
        if self.shared_covariances:
            named = column_types.chosen_types(self.column_types, len(columns), labels)
            structures = structures_of(rows[learn], columns, set(named), unit.unit)
        names = range(len(columns)) if labels is None else labels
        target = None if self.target is None else column_of(self.target, {name: k for k, name in enumerate(names)})
        chosen = self._rank_is_chosen
        return Learner(rows, weight, columns, unit, structures, orders, options, chosen, seed(rng), target)

    @property
    def _rank_is_chosen(self) -> bool:
        return isinstance(self.rank, str)

    @property
    def _num_rings(self) -> int | None:
        """None: to be chosen."""
        if self.num_rings == "auto":
            return None if self._rank_is_chosen else 1
        return int(self.num_rings)

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of the observed entries of each row, (n,), in nats; densities are per unit of each numeric column.

        Raises:
            ValueError: if X does not fit, or has a category that fit did not see.

        Examples:
            >>> import numpy as np, ringdist as rd
            >>> x = np.random.default_rng(0).normal(size=(200, 2)).cumsum(axis=1)
            >>> model = rd.TensorRingDensity(rank=2, num_components=3, random_state=0).fit(x)
            >>> typical, outlier, marginal = model.score_samples([[1.0, 1.0], [1.0, -9.0], [1.0, np.nan]])
            >>> bool(outlier < typical < marginal)
            True
        """
        given = self._encoded(X)
        return np.asarray(self.ring_.log_prob(given.rows)) + given.log_share.sum(axis=1)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood per row, as of sklearn's `GaussianMixture` (its `KernelDensity` returns the sum).

        Examples:
            >>> import numpy as np, ringdist as rd
            >>> x = np.random.default_rng(0).normal(size=(200, 2)).cumsum(axis=1)
            >>> model = rd.TensorRingDensity(rank=2, num_components=3, random_state=0).fit(x[:100])
            >>> -3.5 < model.score(x[100:]) < -2.5  # held-out rows; the entropy of the true density is 2.84
            True
        """
        return float(np.mean(self.score_samples(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


def _shift(unit: units.Units, rows: np.ndarray, weight: np.ndarray, columns: Any, share: np.ndarray) -> float:
    """By how much the mean log-likelihood of standardised rows exceeds that of the user's values."""
    return unit.log_volume(rows, weight, columns) - float(weight @ share / max(weight.sum(), 1e-300))
