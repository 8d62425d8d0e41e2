"""What a saved estimator holds beside its ring: parameters, columns, names and history, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from ringdist.estimator import table as tables
from ringdist.interop.tensorfile import fields
from ringdist.ring import TensorRing
from ringdist.variables import Categorical

FORMAT_VERSION = 1


class Description(NamedTuple):
    """A fitted estimator without its ring."""

    parameters: dict[str, Any]
    columns: list[tables.Column]
    names: list[str] | None  # of the columns, where the data has them
    frame: bool  # whether it was fitted on one
    history: dict[str, list[float]]


def to_json(
    parameters: Mapping[str, Any],
    columns: Sequence[tables.Column],
    names: Sequence[str] | None,
    frame: bool,
    history: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """The description as JSON can hold it.

    Raises:
        ValueError: if a category is neither a string nor a number.
    """
    return {
        "version": FORMAT_VERSION,
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "columns": [tables.to_json(column) for column in columns],
        "names": names,
        "frame": frame,
        "history": history,
    }


def from_json(description: Any, ring: TensorRing) -> Description:
    """The inverse of `to_json`.

    Raises:
        ValueError: if the parts do not fit each other or the ring.
    """
    parts = ("version", "parameters", "columns", "names", "frame", "history")
    version, parameters, entries, names, frame, history = fields(description, parts, "its description")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"its version is {short(version)}, this library reads version {FORMAT_VERSION}")
    if not isinstance(parameters, dict) or not isinstance(entries, list) or not isinstance(frame, bool):
        raise ValueError(
            "it must have an object of parameters, a list of columns and whether they were a frame, found "
            f"{short(parameters)}, {short(entries)} and {short(frame)}"
        )
    columns = [tables.from_json(entry) for entry in entries]
    _check_fit(columns, ring, names)
    return Description(parameters, columns, names, frame, _history(history))


def _check_fit(columns: Sequence[tables.Column], ring: TensorRing, names: Any) -> None:
    if len(columns) != ring.num_variables:
        raise ValueError(f"it must describe the {ring.num_variables} columns of its ring, found {len(columns)}")
    named = [variable.name for variable in ring.variables]
    if named != ([None] * len(columns) if names is None else names) or (names is not None and None in names):
        raise ValueError(f"its names of columns must be those of its ring, {short(named)}, found {short(names)}")
    for column, variable in zip(columns, ring.variables, strict=True):
        categorical = isinstance(variable, Categorical)
        if categorical != (column.categories is not None):
            raise ValueError(f"{column.label}: the description and the ring {variable!r} differ")
        if column.categories is not None and column.categories.size != variable.num_components:
            raise ValueError(
                f"{column.label}: there must be one category per component, found {column.categories.size} "
                f"for {variable.num_components}"
            )


def _history(history: Any) -> dict[str, list[float]]:
    if not isinstance(history, dict) or "train" not in history:
        raise ValueError(f"history must have the epochs of train, found {short(history)}")
    for name, values in history.items():
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"history must list numbers, found {short(values)} for {short(name)}")
    return {name: [float(value) for value in values] for name, values in history.items()}


def _plain(value: Any) -> Any:
    """A constructor's argument as JSON can hold it; None for a generator."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple | range):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, np.random.RandomState) else value
