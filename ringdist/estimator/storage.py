"""Fitted estimators in files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ringdist.estimator import persistence
from ringdist.estimator.fitted import FittedTable
from ringdist.interop import files, mixtures
from ringdist.ring_mixture import RingMixture, load


class Storable(FittedTable):
    """A fitted estimator that can be saved and loaded."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted model to one file, atomically: the ring in the format of `ringdist.load`, the rest as JSON.

        Raises:
            ValueError: if a category is neither a string nor a number.

        Examples:
            >>> import tempfile
            >>> import numpy as np, ringdist as rd
            >>> x = np.random.default_rng(0).normal(size=(100, 2)).cumsum(axis=1)
            >>> model = rd.TensorRingDensity(rank=2, num_components=3, random_state=0).fit(x)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save(f"{folder}/model.safetensors")
            ...     loaded = rd.TensorRingDensity.load(f"{folder}/model.safetensors")
            >>> np.array_equal(loaded.score_samples(x), model.score_samples(x))
            True
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
        """The model saved at `path`. A `RandomState` object is not saved: `random_state` is then None.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file was not written by `save`, or its parts do not fit each other.

        Examples:
            >>> import tempfile
            >>> import numpy as np, ringdist as rd
            >>> x = np.random.default_rng(0).normal(size=(100, 2)).cumsum(axis=1)
            >>> model = rd.TensorRingDensity(rank=2, num_components=3, random_state=0).fit(x)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save(f"{folder}/model.safetensors")
            ...     rd.TensorRingDensity.load(f"{folder}/model.safetensors")
            TensorRingDensity(num_components=3, random_state=0, rank=2)
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
