"""Variables in files: the name of the family, the names of its arrays, and other arguments as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from reprlib import repr as short
from typing import Any

import numpy as np

from ringdist.interop.tensorfile import fields, strings
from ringdist.variables import BUILT_IN, Form, Interval, Truncated, TruncatedMultivariateGaussianMixture, as_family

Arrays = dict[str, np.ndarray]


def entry_of(variable: Any, column: str) -> dict[str, Any]:
    """The entry of a variable: `family`, `name`, `arrays`, and `options` where it has any.

    Raises:
        ValueError: if a family has the name of a built-in one, or an array not one entry for each of
            the components that it belongs to.
    """
    form = as_family(variable).form
    within = form
    while inner := next((value for _, value in within.options if isinstance(value, Form)), None):
        within = inner
    for name, array in variable.arrays().items():
        check_length(f"{column}: {name}", array, within.num_components)
    found = _in_json(form, column)
    options = {"options": found["options"]} if form.options else {}
    return {"family": found["family"], "name": variable.name, "arrays": sorted(variable.arrays()), **options}


def _in_json(form: Form, column: str) -> dict[str, Any]:
    """A form as a JSON object; the form of an inner variable is a nested object."""
    family = form.kind
    if {kind.__name__: kind for kind in BUILT_IN}.get(family.__name__, family) is not family:
        raise ValueError(f"{column}: a family of your own needs a name of its own, found {family!r}")
    options = {}
    for key, value in form.options:
        options[key] = _in_json(value, column) if isinstance(value, Form) else _listed(value)
    return {"family": family.__name__, "components": form.num_components, "options": options}


def _listed(value: Any) -> Any:
    if isinstance(value, Interval):
        return [None if math.isinf(bound) else bound for bound in (value.low, value.high)]
    return [_listed(entry) for entry in value] if isinstance(value, tuple) else value


def check_entry(k: int, entry: Any) -> list[str]:
    """The names of the arrays of an entry; an error unless it has exactly the fields of `entry_of`."""
    optional = ["options"] * (isinstance(entry, dict) and "options" in entry)
    _, name, listed, *options = fields(entry, ("family", "name", "arrays", *optional), f"column {k}")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"column {k}: name must be a string or null, found {short(name)}")
    if options and (not isinstance(options[0], dict) or not options[0]):
        raise ValueError(f"column {k}: options must be an object that is not empty, found {short(options[0])}")
    return strings(listed, f"column {k}: arrays")


def constructed(k: int, entry: dict[str, Any], n: int, arrays: Arrays, known: dict[str, type]) -> Any:
    """The variable of `n` components that a checked entry describes, made by the public constructor."""
    options = entry.get("options", {})
    within = {key: value for key, value in options.items() if isinstance(value, dict)}
    if not within:
        return _of_arrays(k, entry["family"], entry["name"], n, arrays, options, known)
    ((key, inner),) = within.items() if len(within) == 1 else _refused(k, within)
    family, size, rest = fields(inner, ("family", "components", "options"), f"column {k}: {short(key)}")
    if type(size) is not int or not isinstance(rest, dict):
        raise ValueError(f"column {k}: a variable within has a number of components and options, found {short(inner)}")
    variable = constructed(k, {"family": family, "name": None, "options": rest}, size, arrays, known)
    others = {name: value for name, value in options.items() if name != key}
    kind = _known(k, entry["family"], known)
    return _made(k, kind, arrays, others, lambda: kind(**_given(kind, others), **{key: variable}, name=entry["name"]))


def _given(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """Options as the constructor accepts them."""
    if kind is Truncated and "interval" in options:
        return {**options, "interval": Interval(*options["interval"])}
    if kind is TruncatedMultivariateGaussianMixture and "intervals" in options:
        return {**options, "intervals": [Interval(*bounds) for bounds in options["intervals"]]}
    return options


def _refused(k: int, within: dict[str, Any]) -> Any:
    raise ValueError(f"column {k}: there must be one variable within, found {short(sorted(within))}")


def _of_arrays(
    k: int, family: Any, name: str | None, n: int, arrays: Arrays, options: dict[str, Any], known: dict[str, type]
) -> Any:
    kind = _known(k, family, known)
    for label, array in arrays.items():
        check_length(f"column {k}: {label}", array, n)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(f"column {k}: {label} must be numbers, found NaN")
    named = {} if name is None and "names" in options else {"name": name}
    if arrays:
        return _made(k, kind, arrays, options, lambda: kind(**arrays, **_given(kind, options), **named))
    return _made(k, kind, arrays, options, lambda: kind(n, **options, **named))


def _known(k: int, family: Any, known: dict[str, type]) -> Any:
    if not isinstance(family, str) or family not in known:
        text = f"column {k} is of the family {short(family)}, known are {', '.join(sorted(known))}"
        raise ValueError(f"{text}; pass others in families")
    return known[family]


def check_length(label: str, array: Any, n: int) -> None:
    """Raise `ValueError` unless the array has one entry for each of n components."""
    if tuple(array.shape[:1]) != (n,):
        text = f"{label} must have one entry for each of {n} components"
        raise ValueError(f"{text}, found shape {tuple(array.shape)}")


def _made(k: int, kind: type, arrays: Arrays, options: dict[str, Any], make: Callable[[], Any]) -> Any:
    """The variable that a constructor makes of arrays, if it has the same arrays: none may become an option."""
    try:
        made = make()
        form = as_family(made).form
        held, kept = made.arrays().keys(), {key: _listed(v) for key, v in form.options if not isinstance(v, Form)}
    except Exception as error:  # whatever a constructor does with values that it did not expect
        text = f"column {k}: {kind.__name__} refuses the arrays {short(sorted(arrays))}"
        raise ValueError(f"{text}: {error}") from error
    if held != arrays.keys():
        text = f"column {k}: {kind.__name__} must have the arrays {sorted(held)}"
        raise ValueError(f"{text}, found {short(sorted(arrays))}")
    if kept != options:
        text = f"column {k}: {kind.__name__} must have the options {short(kept)}"
        raise ValueError(f"{text}, found {short(options)}")
    return made
