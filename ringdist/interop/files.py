"""Rings in files: safetensors with a description of the structure in its metadata, never code.

A file of format version 2 has the tensors `core.K` of a dense core or `core.K.PART` of another kind, and
`variable.K.NAME`. In its metadata are `ring`, a JSON object of `version`, `order`, `cores` (the kind of
each column) and `variables` (`family`, `name` and `arrays` of each column; of a truncated one also the
family within, `of`, and its `interval`), and `sha256`, the checksum of tensors and metadata. Version 1
had dense cores only and does not name kinds.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from reprlib import repr as short
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from ringdist.backend import is_array, is_concrete, to_numpy
from ringdist.cores import KINDS
from ringdist.interop import tensorfile
from ringdist.interop.tensorfile import STORABLE, fields, integers, parse_json, strings
from ringdist.network import Network
from ringdist.queries.transforms import to
from ringdist.variables import BUILT_IN, Interval, Truncated

N = TypeVar("N", bound=Network)
VERSION = 2


def save(ring: Network, path: str | PathLike[str], *, extra: dict[str, Any] | None = None) -> None:
    """Write the ring to `path` in one step: a crash leaves the old file or the new one, whole.

    A symbolic link is followed: its target is replaced.

    Args:
        ring: what is saved; its arrays must be concrete.
        path: of a new file or of a regular file.
        extra: JSON values by name to stand beside the ring, for `read_extra`; `load` ignores them.

    Raises:
        ValueError: if `path` is a directory or anything else that is not a regular file, or the
            ring cannot be saved.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ring.save(f"{folder}/ring.safetensors")
        ...     again = rd.load(f"{folder}/ring.safetensors")
        >>> np.array_equal(again.cores[0], ring.cores[0])
        True
    """
    extra = extra or {}
    if taken := extra.keys() & {"ring", "format", "sha256"}:
        raise ValueError(f"extra must not name what files have anyway, found {', '.join(sorted(taken))}")
    tensors: dict[str, np.ndarray] = {}
    kinds, variables = [], []
    for k, (core, variable) in enumerate(zip(ring.cores, ring.variables, strict=True)):
        column = ring.describe(k)
        kind, arrays = _kind(core, column), variable.arrays()
        parts = {"": core} if kind == "dense" else {f".{n}": a for n, a in core.arrays().items()}
        named = {f"core.{k}{part}": array for part, array in parts.items()}
        for name, array in arrays.items():
            _check_length(f"{column}: {name}", array, core.shape[0])
            named[f"variable.{k}.{name}"] = array
        tensors |= {name: _stored(array, f"{column}: {name}") for name, array in named.items()}
        kinds.append(kind)
        variables.append({**_family_of(variable, column), "name": variable.name, "arrays": sorted(arrays)})
    description = {"version": VERSION, "order": list(ring.order), "cores": kinds, "variables": variables}
    metadata = {name: json.dumps(value) for name, value in {**extra, "ring": description}.items()}
    tensorfile.write(Path(path), metadata, tensors)


def load(path: str | PathLike[str], kind: type[N], *, xp: ModuleType = np, families: Sequence[type] = ()) -> N:
    """The ring saved at `path`, checked like any other.

    Args:
        path: of a regular file, or a link to one.
        kind: the class of rings to make.
        xp: numpy, torch or jax.numpy: the backend of the result.
        families: classes of variables beside the built-in ones, found by their names; nothing is
            imported because a file names it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `path` is a directory or anything else that is not a regular file, or the file
            is truncated, corrupt, not a ringdist file, of a newer format, holds another family or
            what is not a ring.
    """
    path, known = Path(path), _names((*BUILT_IN, *families))
    metadata, tensors = tensorfile.read(path)
    try:
        description = parse_json(metadata.get("ring", ""), "description of a ring")
        ring = kind(*_assembled(description, tensors, known))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name} does not hold a valid ring: {error}") from error
    return to(ring, xp) if xp is not np else ring


def read_extra(path: str | PathLike[str], name: str) -> Any:
    """What `save` was given as `extra[name]`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a ringdist file or has no such part.
    """
    path = Path(path)
    metadata, _ = tensorfile.read(path)
    if name not in metadata:
        raise ValueError(f"{path.name} holds a ring without a description of its {name}")
    try:
        return parse_json(metadata[name], name)
    except ValueError as error:
        raise ValueError(f"{path.name} does not describe its {name}: {error}") from error


def _names(families: Sequence[type]) -> dict[str, type]:
    return {family.__name__: family for family in families}


def _kind(core: Any, column: str) -> str:
    if is_array(core):
        return "dense"
    for kind, cores in KINDS.items():
        if type(core) is cores:
            return kind
    kinds = ", ".join(["dense", *KINDS])
    raise ValueError(f"{column}: the cores that files hold are {kinds}, found {type(core).__name__}")


def _family_of(variable: Any, column: str) -> dict[str, Any]:
    """What a file says of a variable beside its name and arrays."""
    if not isinstance(variable, Truncated):
        return {"family": _family(variable, column)}
    interval = [None if math.isinf(bound) else bound for bound in (variable.interval.low, variable.interval.high)]
    inner = _family(variable.inner_family.variable, column)
    return {"family": Truncated.__name__, "of": inner, "interval": interval}


def _family(variable: Any, column: str) -> str:
    family = type(variable)
    if _names((*BUILT_IN, Truncated)).get(family.__name__, family) is not family:
        raise ValueError(f"{column}: a family of your own needs a name of its own, found {family!r}")
    return family.__name__


def _stored(array: Any, label: str) -> np.ndarray:
    """The array in NumPy and of a dtype that a file can hold."""
    if not is_concrete(array):
        raise ValueError("a ring can only be saved outside of tracing")
    try:
        values = to_numpy(array)
    except TypeError as error:  # PyTorch's word for a dtype that NumPy does not have
        raise ValueError(f"{label}: dtypes are {', '.join(STORABLE)}, found {array.dtype}") from error
    if values.dtype.name not in STORABLE:
        raise ValueError(f"{label}: dtypes are {', '.join(STORABLE)}, found {values.dtype}")
    return values


def _assembled(
    description: Any, tensors: dict[str, np.ndarray], known: dict[str, type]
) -> tuple[list[Any], list[Any], list[int]]:
    """Cores, variables and order, after all that a ring's constructor would not notice is checked."""
    version = description.get("version") if isinstance(description, dict) else None
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"its format version is {short(version)}, known are 1 to {VERSION}")
    names = ["version", "order", "variables"] + ["cores"] * (version > 1)
    _, order, entries, *rest = fields(description, names, "the description")
    if not isinstance(entries, list):
        raise ValueError(f"variables must be a list, found {short(entries)}")
    kinds = rest[0] if rest else ["dense"] * len(entries)
    if not isinstance(kinds, list) or len(kinds) != len(entries):
        raise ValueError(f"cores must be a list of {len(entries)} kinds, found {short(kinds)}")
    if sorted(integers(order, 0, "order")) != list(range(len(entries))):
        raise ValueError(f"order must be a permutation of {len(entries)} columns, found {short(order)}")
    cores, variables = [], []
    for k, (kind, entry) in enumerate(zip(kinds, entries, strict=True)):
        cores.append(_core(k, kind, tensors))
        variables.append(_variable(k, entry, cores[k].shape[0], tensors, known))
    if tensors:
        raise ValueError(f"tensors must belong to columns, found {short(sorted(tensors))}")
    return cores, variables, order


def _core(k: int, kind: Any, tensors: dict[str, np.ndarray]) -> Any:
    if kind == "dense":
        core = _taken(tensors, f"core.{k}")
        if core.ndim != 3:
            raise ValueError(f"column {k}: a core must have three axes, found shape {core.shape}")
        return core
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(["dense", *KINDS])
        raise ValueError(f"column {k}: a core must be one of {known}, found {short(kind)}")
    names = [n for n in inspect.signature(KINDS[kind]).parameters if f"core.{k}.{n}" in tensors]
    if not names:
        raise ValueError(f"column {k}: a core of the kind {kind} must have a tensor, found none")
    parts = {name: _taken(tensors, f"core.{k}.{name}") for name in names}
    return _made(k, KINDS[kind], parts, lambda: KINDS[kind](**parts))


def _variable(k: int, entry: Any, n: int, tensors: dict[str, np.ndarray], known: dict[str, type]) -> Any:
    """A variable of `n` components, made by its constructor like a caller's."""
    if isinstance(entry, dict) and entry.get("family") == Truncated.__name__:
        _, family, name, listed, interval = fields(entry, ("family", "of", "name", "arrays", "interval"), f"column {k}")
        inner = _variable(k, {"family": family, "name": name, "arrays": listed}, n, tensors, known)
        return _truncated(k, inner, interval)
    family, name, listed = fields(entry, ("family", "name", "arrays"), f"column {k}")
    if not isinstance(family, str) or family not in known:
        text = f"column {k} is of the family {short(family)}, known are {', '.join(sorted(known))}"
        raise ValueError(f"{text}; pass others in families")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"column {k}: name must be a string or null, found {short(name)}")
    labels = strings(listed, f"column {k}: arrays")
    arrays = {label: _taken(tensors, f"variable.{k}.{label}") for label in labels}
    for label, array in arrays.items():
        _check_length(f"column {k}: {label}", array, n)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(f"column {k}: {label} must be numbers, found NaN")
    make = known[family]
    return _made(k, make, arrays, lambda: make(**arrays, name=name) if arrays else make(n, name=name))


def _truncated(k: int, variable: Any, interval: Any) -> Truncated:
    if not isinstance(interval, list) or len(interval) != 2:
        raise ValueError(f"column {k}: interval must be a list of two bounds, found {short(interval)}")
    try:
        return Truncated(variable, Interval(*interval))
    except (ValueError, TypeError) as error:
        raise ValueError(f"column {k}: {error}") from error


def _check_length(label: str, array: Any, n: int) -> None:
    if tuple(array.shape[:1]) != (n,):
        text = f"{label} must have one entry for each of {n} components"
        raise ValueError(f"{text}, found shape {tuple(array.shape)}")


def _taken(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"there must be a tensor {short(name)}, found none")
    return tensors.pop(name)


def _made(k: int, kind: type, arrays: dict[str, np.ndarray], make: Callable[[], Any]) -> Any:
    """What a constructor makes of arrays, if they are what it holds: none is taken for an option."""
    try:
        made = make()
        held = made.arrays().keys()
    except Exception as error:  # whatever a constructor does with values that it did not expect
        text = f"column {k}: {kind.__name__} refuses the arrays {short(sorted(arrays))}"
        raise ValueError(f"{text}: {error}") from error
    if held != arrays.keys():
        text = f"column {k}: {kind.__name__} must have the arrays {sorted(held)}"
        raise ValueError(f"{text}, found {short(sorted(arrays))}")
    return made
