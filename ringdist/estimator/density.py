"""`TensorRingDensity`: a ring as an estimator of scikit-learn, for tables as users have them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ringdist.estimator import fitting, persistence, units
from ringdist.estimator import table as tables
from ringdist.estimator.fitting import seed
from ringdist.interop import files
from ringdist.learning.em import fit_em
from ringdist.learning.fitting import FitResult
from ringdist.learning.starts import initialize
from ringdist.queries.posterior import component_posteriors
from ringdist.ring import TensorRing
from ringdist.ring_mixture import load
from ringdist.variables import Categorical, GaussianMixture


class TensorRingDensity(DensityMixin, BaseEstimator):
    """A tensor-ring density of a table with real and categorical columns, some entries missing, fitted by EM.

    Rows are arrays or pandas frames. NaN, None and pandas' NA are missing: fitting and scoring use the likelihood of
    what is observed. Continuous columns become mixtures of Gaussians, standardised while fitting; every other column
    is categorical. `ring_` is in the units of the data, so that log-densities are per unit of each continuous column.

    Args:
        rank: of every bond, or one per bond (see `TensorRing.ranks`).
        num_components: Gaussian components of a continuous column; fewer where it has fewer distinct values.
        order: the columns' order in the ring: by mutual information of neighbours (`ringdist.ordering`), random, as
            given, or a sequence of column numbers or names.
        topology: "ring", or "train" for a first bond of rank 1.
        max_epochs: visits of every core.
        batch_size: None for exact EM on all rows, else rows per damped step.
        categorical_features: which columns are categorical. "auto": integers, booleans, strings and pandas'
            categorical columns are, floats are continuous; a column of objects is continuous if it has floats.
            "from_dtype": pandas' categorical columns only. Otherwise a list of indices, a list of names, a mask over
            all columns, or None for no column. Categories are those that fit sees, or that a categorical dtype
            declares: declare them where a category may be rare enough to be missed by a fold of a cross-validation.
        pseudocount: of the largest core, in rows, spread evenly over its entries, and as much an entry in all others;
            keeps combinations that were never seen possible, and weighs the same at every rank.
        variance_floor: least variance of a Gaussian component, relative to the variance of its column.
        start: as `method` of `ringdist.initialize`: near a mixture of `rank` products ("mixture"), or random cores with
            components at quantiles or k-means centres ("quantile", "kmeans"). "auto": the mixture, but quantiles where
            there is one rank per bond.
        restarts: fits from several random starting points, of which the best is kept.
        validation_fraction: share of the rows held out; the ring that is best on them is kept. None: no such rows.
        patience: epochs without a better one on the held-out rows after which learning stops; None: never.
        random_state: seed or `numpy.random.RandomState` for the order, the start, the split and the batches.
        verbose: whether to show a progress bar.

    Attributes:
        ring_: the fitted `ringdist.TensorRing`: continuous columns in the data's units, categorical ones by code, with
            the columns' names where the data has them.
        history_: per epoch the mean log-likelihood per row of "train" and, with `validation_fraction`, "validation".
        categories_: per column the array of categories in the order of their codes, or None if continuous.
        is_categorical_: (d,) booleans.
        n_iter_: number of epochs run.
        n_features_in_: number of columns d.
        feature_names_in_: (d,) names, where the columns of X all have string names.

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> model = TensorRingDensity(rank=2, num_components=3, max_epochs=5, random_state=0).fit(x)
        >>> model.score_samples(x).shape
        (200,)
        >>> model.impute([[0.0, np.nan, 1.0]]).shape
        (1, 3)
    """

    def __init__(
        self,
        rank: int | Sequence[int] = 8,
        *,
        num_components: int = 8,
        order: Literal["mutual_information", "random", "given"] | Sequence[int | str] = "mutual_information",
        topology: Literal["ring", "train"] = "ring",
        max_epochs: int = 100,
        batch_size: int | None = None,
        categorical_features: Any = "auto",
        pseudocount: float = 10.0,
        variance_floor: float = 1e-3,
        start: Literal["auto", "mixture", "quantile", "kmeans"] = "auto",
        restarts: int = 1,
        validation_fraction: float | None = None,
        patience: int | None = 10,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.rank = rank
        self.num_components = num_components
        self.order = order
        self.topology = topology
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.categorical_features = categorical_features
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
            sample_weight: (n,) non-negative weights; rows of weight 0 are left out. Weights enter the likelihood and
                the scale of the columns; the order, the starting point and the held-out rows count rows once.

        Raises:
            ValueError: if X or a parameter does not fit, a column has no observed entry, or weights are all zero.
            TypeError: if a column holds neither numbers nor strings.
        """
        X = self._validated(X, reset=True)
        names = self._names()
        columns = tables.columns_of(X, names, self.categorical_features)
        rows = tables.encode(columns, X)
        rng = check_random_state(self.random_state)
        rows, weight = fitting.weighted(X, rows, sample_weight)
        learn, held_out = fitting.split(len(rows), self.validation_fraction, rng)
        centre, scale = units.standards(rows[learn], weight[learn], [c.categories is None for c in columns])
        standard = (rows - centre) / scale
        result = self._learn(standard[learn], weight[learn], standard[held_out], columns, names, rng)
        self._set_fitted(columns, hasattr(X, "iloc"), units.in_units(result.ring, centre, scale, names))
        self.history_ = {
            name: [value - shift for value in result.history[name]]
            for name, shift in {
                "train": units.log_volume(rows[learn], weight[learn], scale),
                "validation": units.log_volume(rows[held_out], np.ones(held_out.size), scale),
            }.items()
            if name in result.history
        }
        self.n_iter_ = len(result.history["train"])
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """log p of each row's observed entries, (n,), in nats; densities are per unit of each continuous column.

        Raises:
            ValueError: if X does not fit, or has a category that fit did not see.
        """
        _, rows = self._encoded(X)
        return np.asarray(self.ring_.log_prob(rows))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood per row, as of sklearn's `GaussianMixture` (its `KernelDensity` returns the sum)."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Exact samples, (n_samples, d): a frame if the model was fitted on one, else an array.

        Args:
            n_samples: number of rows, at least 1.
            random_state: seed or `numpy.random.RandomState`; None for fresh randomness, as in sklearn's
                `KernelDensity`.
        """
        check_is_fitted(self)
        if isinstance(n_samples, bool) or not isinstance(n_samples, numbers.Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be a positive integer, found {n_samples!r}")
        rows = self.ring_.sample(int(n_samples), rng=seed(check_random_state(random_state)))
        if self._frame:
            names = self._names() or [str(k) for k in range(self.n_features_in_)]
            return tables.decode_frame(self._columns, rows, names)
        return tables.decode(self._columns, rows)

    def impute(self, X: Any, method: Literal["mean", "sample", "mode"] = "mean", *, random_state: Any = None) -> Any:
        """A copy of X with its missing entries filled; observed entries stay as they are.

        Args:
            X: (n, d) array or frame.
            method: "mean": a continuous entry's conditional mean given all observed entries of the row, a categorical
                one's most probable category, each entry by itself. "sample": the missing entries of a row drawn
                jointly. "mode": the most probable joint completion found, see `TensorRing.mode`.
            random_state: of method "sample": seed or `numpy.random.RandomState`, None for fresh randomness.

        Returns:
            A table like X.

        Raises:
            ValueError: if X or the method does not fit, or the observed entries of a row have zero mass.
        """
        if method not in ("mean", "sample", "mode"):
            raise ValueError(f"method must be mean, sample or mode, found {method!r}")
        X, rows = self._encoded(X)
        missing = np.isnan(rows)
        if not missing.any():
            return X.copy()
        if method == "sample":
            completed = self.ring_.sample_given(rows, rng=seed(check_random_state(random_state)))
        elif method == "mode":
            completed = self.ring_.mode(rows)
        else:
            completed = self._expected(rows, missing)
        return tables.filled(self._columns, X, np.asarray(completed), missing)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted model to one file, atomically: the ring as `ringdist.load` reads it, the rest as JSON.

        Raises:
            ValueError: if a category is neither a string nor a number.
        """
        check_is_fitted(self)
        description = persistence.to_json(self.get_params(), self._columns, self._names(), self._frame, self.history_)
        files.save(self.ring_, path, extra={"estimator": description})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The model saved at `path`. A `RandomState` object comes back as `random_state=None`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not one that `save` wrote, or its parts do not fit each other.
        """
        ring, extra = load(path), files.read_extra(path, "estimator")
        try:
            if not isinstance(ring, TensorRing):
                raise ValueError(f"it must hold one ring, found {ring!r}")
            description = persistence.from_json(extra, ring)
            model = cls(**description.parameters)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{Path(path).name} holds no valid estimator: {error}") from error
        if description.names is not None:
            model.feature_names_in_ = np.array(description.names, dtype=object)
        model._set_fitted(description.columns, description.frame, ring)
        model.history_ = description.history
        model.n_iter_ = len(model.history_["train"])
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    # ------------------------------------------------------------------------------------------------------- steps

    def _learn(
        self,
        rows: np.ndarray,
        weight: np.ndarray,
        held_out: np.ndarray,
        columns: Sequence[tables.Column],
        names: Sequence[str] | None,
        rng: np.random.RandomState,
    ) -> FitResult:
        families: list[Any] = [
            GaussianMixture if c.categories is None else Categorical(c.categories.size) for c in columns
        ]
        start = initialize(
            rows,
            families,
            self.rank,
            num_components=self.num_components,
            order=fitting.column_order(self.order, rows, families, names, self.topology, rng),
            topology=self.topology,
            method=self._start(),
            rng=seed(rng),
        )
        return fit_em(
            start,
            rows,
            sample_weight=weight,
            validation=held_out if len(held_out) else None,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            pseudocount=self.pseudocount / max(math.prod(core.shape) for core in start.links),
            variance_floor=self.variance_floor,
            restarts=self.restarts,
            patience=self.patience,
            rng=seed(rng),
            progress=bool(self.verbose),
        )

    def _start(self) -> Literal["mixture", "quantile", "kmeans"]:
        if self.start != "auto":
            return self.start
        return "mixture" if isinstance(self.rank, int | np.integer) else "quantile"

    def _validated(self, X: Any, *, reset: bool) -> Any:
        """X as a frame or an (n, d) array of numbers or objects, its columns counted and their names compared."""
        if hasattr(X, "iloc") and hasattr(X, "columns"):
            X = validate_data(self, X, reset=reset, skip_check_array=True)
            if X.shape[0] == 0:
                raise ValueError(f"X must have at least one row, found shape {X.shape}")
            return X
        if not hasattr(X, "dtype") and np.asarray(X, dtype=object).ndim == 2:
            kinds = check_array(X, dtype=None, ensure_all_finite=False)
            X = np.asarray(X, dtype=object) if kinds.dtype.kind == "U" else X  # a string among them would make all so
        return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")

    def _encoded(self, X: Any) -> tuple[Any, np.ndarray]:
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        return X, tables.encode(self._columns, X)

    def _expected(self, rows: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Conditional means, and the most probable category of categorical columns."""
        columns = [int(k) for k in np.flatnonzero(missing.any(axis=0))]
        completed = rows.copy()
        for k, weights in zip(columns, component_posteriors(self.ring_, rows, columns), strict=True):
            values = np.asarray(weights)
            expected = values.argmax(axis=1) if self.is_categorical_[k] else values @ self.ring_.variables[k].means()
            completed[missing[:, k], k] = expected[missing[:, k]]
        return completed

    def _set_fitted(self, columns: Sequence[tables.Column], frame: bool, ring: TensorRing) -> None:
        self._columns, self._frame = list(columns), frame
        self.ring_ = ring
        self.n_features_in_ = len(self._columns)
        self.categories_ = [column.categories for column in self._columns]
        self.is_categorical_ = np.array([column.categories is not None for column in self._columns])

    def _names(self) -> list[str] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else [str(name) for name in names]
