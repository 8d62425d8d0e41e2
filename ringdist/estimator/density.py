"""`TensorRingDensity`: a ring as an estimator of scikit-learn, for tables as users have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ringdist.estimator import column_types, fitting, persistence, units
from ringdist.estimator import table as tables
from ringdist.estimator.columns import Unknown
from ringdist.estimator.events import column_of
from ringdist.estimator.fitting import seed
from ringdist.estimator.frames import is_frame, raw_columns
from ringdist.estimator.learner import Learner, Options
from ringdist.estimator.parameters import check_parameters, plain_rank
from ringdist.estimator.questions import Questions
from ringdist.estimator.stacking import MOST_RINGS
from ringdist.estimator.structures import alone, as_gaussian, structures_of
from ringdist.estimator.supports import within_supports
from ringdist.interop import files, mixtures
from ringdist.ring_mixture import RingMixture, load


class TensorRingDensity(TransformerMixin, DensityMixin, Questions):
    """A tensor-ring density of a table with columns of any kind, some entries missing, fitted by EM.

    Rows are arrays or pandas frames. NaN, None, pandas' NA and masked entries are missing: fitting and scoring use the
    likelihood of the observed entries. Settings that are not given are chosen within `budget` seconds on held-out rows,
    by their log-likelihood and by how well their entries are completed from the others; then the model is fitted to all
    rows.

    `ring_` is in the units of the data: log-densities are per unit of each numeric column. For a column of integers, a
    unit is the distance between them.

    A column without negative numbers has none in samples and completions. Where its Gaussian or Student-t components
    have mass below 0, for 5 of the rows or more, they are truncated there (`rd.Truncated`): a negative number then has
    density 0. Smaller masses, and those of columns that share a covariance, count as mass at 0 in samples, `cdf`,
    `quantile` and `probability`.

    Args:
        rank: of every bond, or one per bond (see `TensorRing.ranks`). "auto": chosen.
        num_components: of a numeric column; fewer if it has fewer distinct values. "auto": chosen.
        num_rings: number of rings in different orders of the columns; `ring_` is their mixture. "auto": with
            `rank="auto"` up to four rings with different settings, structures and orders, if held-out rows
            score higher under their mixture than under the best of them (up to eight for a target); otherwise one.
        core: "dense" or "cp" cores. "auto": dense for a ring and for a given rank up to 8, otherwise CP.
        target: a column (name or index) that is to be predicted from the others: settings, epochs and the weights of
            several rings are chosen by its conditional likelihood given the rest of held-out rows, and clusters are
            found with a categorical target counted several times. `predict` and `predict_proba` ask for it by
            default. None: the whole row counts.
        order: order of the columns in the ring: by mutual information of neighbours (`ringdist.ordering`), random, as
            given, or a sequence of column indices or names.
        topology: "train" for a first bond of rank 1, or "ring".
        column_types: "auto", or a dict from columns (names or indices) to types; the other types are inferred:
            "categorical", "gaussian", "student_t", "lognormal" (zeros become atoms), "beta" (within bounds),
            "von_mises" (angles), "count", "poisson", "negative_binomial". Strings, booleans, pandas' categorical
            columns, few different integers, and few real numbers with many rows each are categorical. For other numbers
            the family is chosen by held-out likelihood. Values that are repeated too often for a continuous column
            become atoms, which have a probability of their own.
        shared_covariances: whether real columns may share a covariance (`rd.MultivariateGaussianMixture`): none of
            them, the strongly correlated ones or all, chosen on held-out rows, if neither rank nor components are
            given. Tables of correlated measurements gain much. Events of one or two of these
            columns are exact, those of more to 1e-4 as a rule (`rd.TruncatedMultivariateGaussianMixture`).
        handle_unknown: how to treat a category that fit did not see: "error"; "missing", as a missing entry; "rare",
            as the rare categories, which fit then merges, or as missing if there are none.
        categorical_features: which columns are categorical. "auto": as `column_types` says. "from_dtype": pandas'
            categorical columns only. Otherwise a list of indices, a list of names, a mask over all columns, or None for
            no column. Categories are those that fit sees, or that a categorical dtype declares: declare them where a
            category may be rare enough to be missed by a fold of a cross-validation.
        budget: seconds of wall-clock time for choices and fits. A running fit is finished, so this is not a hard limit.
            None: no limit, and the same result on every machine.
        max_epochs: maximal number of epochs. "auto": until EM has converged, or the held-out likelihood was highest.
        batch_size: None for exact EM on all rows, otherwise rows per damped step. "auto": batches from 6000 rows on.
        pseudocount: in rows, spread evenly over the entries of the largest core; the others get as much per entry.
            "auto": a chosen number of rows is added to every conditional distribution; 0 if constraints are hard.
        variance_floor: least variance of a component, relative to that of its column or to the variance implied by its
            quartiles if that is smaller. The distance between the values of an integer column is a floor too. "auto":
            chosen.
        start: as `method` of `ringdist.initialize`: near a mixture of `rank` products ("mixture"), or random cores with
            components at quantiles or k-means centres ("quantile", "kmeans"). "auto": the mixture, but quantiles if
            there is one rank per bond.
        restarts: number of fits from random starting points; the best is kept.
        validation_fraction: share of the rows that is held out from all fits; the ring that is best on them is kept.
            None: held-out rows are used for choices only.
        patience: early stopping after this many epochs without improvement on the held-out rows; None: never.
        random_state: seed or `numpy.random.RandomState` for the order, the start, the split and the batches.
        verbose: whether to show a progress bar.

    Attributes:
        ring_: the fitted `ringdist.TensorRing`, or `ringdist.RingMixture` of several: numeric columns in the units of
            the data, categorical ones by code, with the names of the columns if the data has them.
        column_types_: type of every column, by its name, or its index if columns have no names.
        history_: per epoch the mean log-likelihood per row of "train" and, with `validation_fraction`, "validation",
            before components are truncated.
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
        """Fit the ring to X.

        Args:
            X: (n, d) array or frame.
            y: ignored.
            sample_weight: (n,) non-negative weights; rows of weight 0 are ignored. Weights affect the likelihood and
                the scale of the columns. The order, the starting point and the held-out rows ignore them.

        Raises:
            ValueError: if X or a parameter does not fit, a column has no observed entry, or weights are all zero.
            TypeError: if a column holds neither numbers nor strings.
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
        """
        given = self._encoded(X)
        return np.asarray(self.ring_.log_prob(given.rows)) + given.log_share.sum(axis=1)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood per row, as of sklearn's `GaussianMixture` (its `KernelDensity` returns the sum)."""
        return float(np.mean(self.score_samples(X)))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted model to one file, atomically: the ring in the format of `ringdist.load`, the rest as JSON.

        Raises:
            ValueError: if a category is neither a string nor a number.
        """
        check_is_fitted(self)
        description = persistence.to_json(self.get_params(), self._columns, self._labels, self._frame, self.history_)
        extra = {"estimator": description}
        if isinstance(self.ring_, RingMixture):
            mixtures.save(self.ring_.rings, self.ring_.linear, self.ring_.logs, path, extra=extra)
        else:
            files.save(self.ring_, path, extra=extra)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The model saved at `path`. A `RandomState` object comes back as `random_state=None`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file was not written by `save`, or its parts do not fit each other.
        """
        ring, extra = load(path), files.read_extra(path, "estimator")
        try:
            description = persistence.from_json(extra, ring)
            model = cls(**description.parameters)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{Path(path).name} holds no valid estimator: {error}") from error
        if description.names is not None and all(isinstance(name, str) for name in description.names):
            model.feature_names_in_ = np.array(description.names, dtype=object)
        model._set_fitted(description.columns, description.frame, description.names, ring)
        model.history_ = description.history
        model.n_iter_ = len(model.history_["train"])
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


def _shift(unit: units.Units, rows: np.ndarray, weight: np.ndarray, columns: Any, share: np.ndarray) -> float:
    """What log-likelihoods of rows as they are fitted exceed those of the user's values by, on average."""
    return unit.log_volume(rows, weight, columns) - float(weight @ share / max(weight.sum(), 1e-300))
