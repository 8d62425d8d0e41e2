"""Methods that an estimator has only after fitting, because scikit-learn checks for them with `hasattr`."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from sklearn.utils.validation import check_is_fitted


class NoClassesError(ValueError, AttributeError):
    """No column of a fitted table is categorical."""


class _AfterFit:
    """A method that raises `NotFittedError` before fitting, which is also an `AttributeError`."""

    def __init__(self, function: Callable[..., Any], categorical: bool):
        self._function, self._categorical = function, categorical
        self.__doc__, self.__name__, self.__module__ = function.__doc__, function.__name__, function.__module__

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self._function
        check_is_fitted(instance)
        if self._categorical and not instance.is_categorical_.any():
            raise NoClassesError(
                f"{self._function.__name__} needs a categorical column, but all {instance.n_features_in_} columns hold "
                "numbers; use mean, cdf or quantile, or fit with column_types={...: 'categorical'}"
            )
        return MethodType(self._function, instance)


def after_fit(*, categorical: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a method of fitted estimators; with `categorical`, of those with a categorical column."""
    return lambda function: _AfterFit(function, categorical)
