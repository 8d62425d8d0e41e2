"""The description of a saved estimator as JSON: parameters, columns, names and history; the ring is separate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from ringdist.estimator import stored_columns
from ringdist.estimator.columns import Column
from ringdist.estimator.families import FAMILIES
from ringdist.interop.tensorfile import fields
from ringdist.ring_mixture import RingMixture
from ringdist.variables import Categorical, Truncated, WithAtoms

FORMAT_VERSION = 1


class Description(NamedTuple):
    """A fitted estimator without its ring."""

    parameters: dict[str, Any]
    columns: list[Column]
    names: list[str] | None  # of the columns, if they have names
    frame: bool  # whether it was fitted on one
    history: dict[str, list[float]]


def to_json(
    parameters: Mapping[str, Any],
    columns: Sequence[Column],
    names: Sequence[Any] | None,
    frame: bool,
    history: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """The description as JSON can hold it.

    Raises:
        ValueError: if a category or a name is neither a string nor a number.
    """
    others = [name for name in names or [] if not isinstance(name, str)]
    if others:
        raise ValueError(f"names of columns must be strings to be saved, found {others[0]!r}")
    return {
        "version": FORMAT_VERSION,
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "columns": [stored_columns.to_json(column) for column in columns],
        "names": names,
        "frame": frame,
        "history": history,
    }


def from_json(description: Any, ring: Any) -> Description:
    """The inverse of `to_json`.

    Raises:
        ValueError: if the parts do not fit each other or the ring.
    """
    parts = ("version", "parameters", "columns", "names", "frame", "history")
    version, parameters, entries, names, frame, history = fields(description, parts, "its description")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"its version must be {FORMAT_VERSION}, found {short(version)}")
    if not isinstance(parameters, dict) or not isinstance(entries, list) or not isinstance(frame, bool):
        raise ValueError(
            "it must have an object of parameters, a list of columns and a boolean for a frame, found "
            f"{short(parameters)}, {short(entries)} and {short(frame)}"
        )
    columns = [stored_columns.from_json(entry) for entry in entries]
    for member in ring.rings if isinstance(ring, RingMixture) else [ring]:
        _check_fit(columns, member, names)
    return Description(parameters, columns, names, frame, _history(history))


def _check_fit(columns: Sequence[Column], ring: Any, names: Any) -> None:
    if len(columns) != ring.num_columns:
        raise ValueError(f"it must describe the {ring.num_columns} columns of its ring, found {len(columns)}")
    named = list(ring.layout.names)
    if named != ([None] * len(columns) if names is None else names) or (names is not None and None in names):
        raise ValueError(f"its names of columns must be those of its ring, {short(named)}, found {short(names)}")
    for own, variable in zip(ring.columns, ring.variables, strict=True):
        for column in (columns[k] for k in own):
            if not (_fits(column, variable) if len(own) == 1 else column.type == "gaussian" and not column.atoms):
                raise ValueError(f"{column.label}: the description and the ring {variable!r} differ")
            if column.categories is not None and column.num_codes != variable.num_components:
                raise ValueError(
                    f"{column.label}: there must be one category per component, found {column.num_codes} "
                    f"for {variable.num_components}"
                )


def _fits(column: Column, variable: Any) -> bool:
    """Whether the variable fits the column's type."""
    if column.categories is not None or isinstance(variable, Categorical):
        return column.categories is not None and isinstance(variable, Categorical)
    if isinstance(variable, Truncated):
        return _fits_family(column, variable.inner_family)
    return _fits_family(column, variable)


def _fits_family(column: Column, variable: Any) -> bool:
    if isinstance(variable, WithAtoms):
        kind = variable.options()["variable"].kind
        return variable.atoms == column.atoms and kind is FAMILIES[column.type]
    return not column.atoms and isinstance(variable, FAMILIES[column.type])


def _history(history: Any) -> dict[str, list[float]]:
    if not isinstance(history, dict) or "train" not in history:
        raise ValueError(f"history must have the epochs of train, found {short(history)}")
    for name, values in history.items():
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"history must list numbers, found {short(values)} for {short(name)}")
    return {name: [float(value) for value in values] for name, values in history.items()}


def _plain(value: Any) -> Any:
    """A constructor's argument as a JSON value; None for a generator."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple | range):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, np.random.RandomState) else value
