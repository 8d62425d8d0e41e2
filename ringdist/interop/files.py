"""Rings in files: safetensors with a description of the structure in its metadata, never code.

A file of format version 2 has the tensors `core.K` of a dense core or `core.K.PART` of another kind, and
`variable.K.NAME`. In its metadata are `ring`, a JSON object of `version`, `order`, `cores` (the kind of
each column) and `variables` (`family`, `name` and `arrays` of each column, and `options` where the
family has arguments that are not arrays), and `sha256`, the checksum of tensors and metadata. Version 1
had dense cores only and does not name kinds. A file of version 3 has also `columns`, those of each
variable: rings whose columns are in the order of their variables are saved as version 2.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from ringdist.backend import is_array, is_concrete, to_numpy
from ringdist.cores import KINDS
from ringdist.interop import tensorfile
from ringdist.interop.tensorfile import STORABLE, fields, integers, parse_json
from ringdist.interop.variables import check_entry, constructed, entry_of
from ringdist.network import Network

VERSION = 3
CONSECUTIVE = 2  # the version of files that do not name columns
RESERVED = {"ring", "mixture", "format", "sha256"}  # names in a file's metadata


def save(ring: Network, path: str | PathLike[str], *, extra: dict[str, Any] | None = None) -> None:
    """Write the ring to `path` atomically: a crash leaves either the old or the complete new file.

    A symbolic link is followed: its target is replaced.

    Args:
        ring: the ring; its arrays must be concrete.
        path: a new file or a regular file.
        extra: JSON values by name that are stored with the ring, for `read_extra`; `rd.load` ignores them.

    Raises:
        ValueError: if `path` exists and is not a regular file, or the ring cannot be saved.

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
    description, tensors = described(ring)
    write(path, {"ring": description}, tensors, extra)


def write(
    path: str | PathLike[str], content: dict[str, Any], tensors: dict[str, np.ndarray], extra: dict[str, Any] | None
) -> None:
    """Write a file from JSON values by name, tensors and extra values."""
    extra = extra or {}
    if taken := extra.keys() & RESERVED:
        raise ValueError(f"extra must not name what files have anyway, found {', '.join(sorted(taken))}")
    metadata = {name: json.dumps(value) for name, value in {**extra, **content}.items()}
    tensorfile.write(Path(path), metadata, tensors)


def described(ring: Network) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description of a ring as a JSON object, and its tensors by name."""
    tensors: dict[str, np.ndarray] = {}
    kinds, variables = [], []
    for k, (core, variable) in enumerate(zip(ring.cores, ring.variables, strict=True)):
        column = ring.describe_site(k)
        kind, arrays = _kind(core, column), variable.arrays()
        parts = {"": core} if kind == "dense" else {f".{n}": a for n, a in core.arrays().items()}
        named = {f"core.{k}{part}": array for part, array in parts.items()}
        variables.append(entry_of(variable, column))
        named |= {f"variable.{k}.{name}": array for name, array in arrays.items()}
        tensors |= {name: stored(array, f"{column}: {name}") for name, array in named.items()}
        kinds.append(kind)
    description = {"version": CONSECUTIVE, "order": list(ring.order), "cores": kinds, "variables": variables}
    if not ring.layout.is_consecutive:
        description |= {"version": VERSION, "columns": [list(own) for own in ring.columns]}
    return description, tensors


def read_extra(path: str | PathLike[str], name: str) -> Any:
    """The value of `extra[name]` that `save` was given.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a ringdist file or has no such part.
    """
    path = Path(path)
    metadata, _ = tensorfile.read(path)
    if name not in metadata:
        raise ValueError(f"{path.name} holds a ring without a description of its {name}; read it by rd.load")
    try:
        return parse_json(metadata[name], name)
    except ValueError as error:
        raise ValueError(f"{path.name} does not describe its {name}: {error}") from error


def names_of(families: Sequence[type]) -> dict[str, type]:
    """Classes of variables by their names."""
    return {family.__name__: family for family in families}


def _kind(core: Any, column: str) -> str:
    if is_array(core):
        return "dense"
    for kind, cores in KINDS.items():
        if type(core) is cores:
            return kind
    kinds = ", ".join(["dense", *KINDS])
    raise ValueError(f"{column}: the cores that files hold are {kinds}, found {type(core).__name__}")


def stored(array: Any, label: str) -> np.ndarray:
    """The array as a NumPy array with a dtype that files support."""
    if not is_concrete(array):
        raise ValueError("a ring can only be saved outside of tracing")
    try:
        values = to_numpy(array)
    except TypeError as error:  # PyTorch's word for a dtype that NumPy does not have
        raise ValueError(f"{label}: dtypes are {', '.join(STORABLE)}, found {array.dtype}") from error
    if values.dtype.name not in STORABLE:
        raise ValueError(f"{label}: dtypes are {', '.join(STORABLE)}, found {values.dtype}")
    return values


def assembled(
    description: Any, tensors: dict[str, np.ndarray], known: dict[str, type]
) -> tuple[list[Any], list[Any], list[int], list[list[int]] | None]:
    """Cores, variables, order and columns of a ring; its tensors are removed from the dictionary.

    This checks all rules that the ring's constructor does not check.
    """
    version = description.get("version") if isinstance(description, dict) else None
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"its format version is {short(version)}, known are 1 to {VERSION}")
    names = ["version", "order", "variables"] + ["cores"] * (version > 1) + ["columns"] * (version > CONSECUTIVE)
    _, order, entries, *rest = fields(description, names, "the description")
    if not isinstance(entries, list):
        raise ValueError(f"variables must be a list, found {short(entries)}")
    kinds = rest[0] if rest else ["dense"] * len(entries)
    if not isinstance(kinds, list) or len(kinds) != len(entries):
        raise ValueError(f"cores must be a list of {len(entries)} kinds, found {short(kinds)}")
    if sorted(integers(order, 0, "order")) != list(range(len(entries))):
        raise ValueError(f"order must be a permutation of {len(entries)} columns, found {short(order)}")
    columns = _columns(rest[1], len(entries)) if version > CONSECUTIVE else None
    cores, variables = [], []
    for k, (kind, entry) in enumerate(zip(kinds, entries, strict=True)):
        cores.append(_core(k, kind, tensors))
        variables.append(_variable(k, entry, cores[k].shape[0], tensors, known))
    if tensors:
        raise ValueError(f"tensors must belong to columns, found {short(sorted(tensors))}")
    return cores, variables, order, columns


def _columns(columns: Any, count: int) -> list[list[int]]:
    """The columns of every variable; the ring's constructor checks their number."""
    if not isinstance(columns, list) or len(columns) != count:
        raise ValueError(f"columns must be a list of those of {count} variables, found {short(columns)}")
    every = sorted(k for own in columns for k in integers(own, 0, "the columns of a variable"))
    if every != list(range(len(every))):
        raise ValueError(f"columns must be a permutation of 0..{len(every) - 1}, found {short(columns)}")
    return columns


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
    return _made(k, KINDS[kind], parts)


def _variable(k: int, entry: Any, n: int, tensors: dict[str, np.ndarray], known: dict[str, type]) -> Any:
    """A variable of `n` components, with its arrays taken from the tensors."""
    arrays = {label: _taken(tensors, f"variable.{k}.{label}") for label in check_entry(k, entry)}
    return constructed(k, entry, n, arrays, known)


def _taken(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"there must be a tensor {short(name)}, found none")
    return tensors.pop(name)


def _made(k: int, kind: type, parts: dict[str, np.ndarray]) -> Any:
    """The core that a constructor makes of the factors, if it has the same factors."""
    try:
        made = kind(**parts)
        held = made.arrays().keys()
    except Exception as error:  # whatever a constructor does with values that it did not expect
        text = f"column {k}: {kind.__name__} refuses the arrays {short(sorted(parts))}"
        raise ValueError(f"{text}: {error}") from error
    if held != parts.keys():
        text = f"column {k}: {kind.__name__} must have the arrays {sorted(held)}"
        raise ValueError(f"{text}, found {short(sorted(parts))}")
    return made
