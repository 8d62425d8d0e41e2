"""Warnings that show the user's own line of code."""

from __future__ import annotations

import inspect
import warnings

PACKAGES = "ringdist", "sklearn", "joblib"  # whose frames lie between a warning and the user's call


def warn(text: str, category: type[Warning]) -> None:
    """Issue a warning at the line outside of this library and of scikit-learn that caused it.

    Examples:
        >>> import warnings
        >>> from ringdist.estimator.notices import warn
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("the column has no information", UserWarning)
        >>> str(caught[0].message)
        'the column has no information'
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
