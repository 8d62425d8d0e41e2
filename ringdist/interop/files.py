"""Rings in files: safetensors with a description of the structure in its metadata, never code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from ringdist.backend import is_concrete, to_numpy
from ringdist.network import Network
from ringdist.queries.transforms import to
from ringdist.variables import BUILT_IN, check_name, rebuild

N = TypeVar("N", bound=Network)
FORMAT = "ringdist"
VERSION = 1


def save(ring: Network, path: str | PathLike[str], *, extra: dict[str, Any] | None = None) -> None:
    """Write the ring to `path`, replacing the file in one step: a crash leaves the old file or the new one, whole.

    The file is a safetensors file: tensors `core.K` and `variable.K.NAME`, and a JSON description (format version,
    order, families and names) in the metadata. What else a caller describes in `extra` (name to JSON values) stands
    beside it, for `read_extra`; `load` ignores it.
    """
    tensors: dict[str, np.ndarray] = {}
    variables = []
    for k, (core, variable) in enumerate(zip(ring.cores, ring.variables, strict=True)):
        if not is_concrete(core):
            raise ValueError("a ring can only be saved outside of tracing")
        tensors[f"core.{k}"] = np.ascontiguousarray(to_numpy(core))
        arrays = variable.arrays()
        family = type(variable)
        if _names(BUILT_IN).get(family.__name__, family) is not family:
            raise ValueError(f"{ring.describe(k)}: a family of your own needs a name of its own, found {family!r}")
        tensors.update({f"variable.{k}.{name}": np.ascontiguousarray(to_numpy(a)) for name, a in arrays.items()})
        variables.append({"family": family.__name__, "name": variable.name, "arrays": sorted(arrays)})
    description = {"version": VERSION, "order": list(ring.order), "variables": variables}
    metadata = {name: json.dumps(value) for name, value in (extra or {}).items()}
    metadata |= {"format": FORMAT, "ring": json.dumps(description)}
    metadata["sha256"] = _digest(tensors, metadata)
    payload = safetensors.numpy.save(tensors, metadata)
    write_atomically(Path(path), payload)


def _names(families: Sequence[type]) -> dict[str, type]:
    return {family.__name__: family for family in families}


def _digest(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """Tells whether any tensor or any text differs from what was saved."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for name in sorted(metadata.keys() - {"sha256"}):
        digest.update(f"{name}\n{metadata[name]}\n".encode())
    return digest.hexdigest()


def write_atomically(path: Path, payload: bytes) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename it over `path`."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_extra(path: str | PathLike[str], name: str) -> Any:
    """What `save` was given as `extra[name]`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no ringdist file or has no such part.
    """
    path = Path(path)
    metadata, _ = _read(path)
    try:
        return json.loads(metadata[name])
    except (KeyError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} holds a ring without a description of its {name}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors of a ringdist file; `ValueError` if it is none."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no readable safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path.name} is no ringdist file: its metadata does not name the format {FORMAT!r}")
    return metadata, tensors


def load(path: str | PathLike[str], kind: type[N], *, xp: ModuleType = np, families: Sequence[type] = ()) -> N:
    """The ring saved at `path`, checked like any other.

    Args:
        kind: the class of rings to make.
        xp: numpy, torch or jax.numpy: the backend of the result.
        families: classes of variables beside the built-in ones, found by their names; nothing is imported because a
            file names it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, corrupt, not a ringdist file, of a newer format, or holds another family.
    """
    path, known = Path(path), _names((*BUILT_IN, *families))
    metadata, tensors = _read(path)
    if metadata.get("sha256") != _digest(tensors, metadata):
        raise ValueError(f"{path.name} is corrupt: its content does not have the checksum that it was saved with")
    try:
        ring = _assemble(json.loads(metadata["ring"]), tensors, known, kind)
    except (KeyError, TypeError, AttributeError, IndexError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not a complete ringdist file: {type(error).__name__} {error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name} holds no valid ring: {error}") from error
    return to(ring, xp) if xp is not np else ring


def _assemble(description: Any, tensors: dict[str, np.ndarray], known: dict[str, type], kind: type[N]) -> N:
    version = description["version"]
    if version != VERSION:
        raise ValueError(f"its format version is {version!r}, this library reads version {VERSION}")
    cores, variables = [], []
    for k, entry in enumerate(description["variables"]):
        core = tensors.pop(f"core.{k}")
        family, name = entry["family"], check_name(entry["name"])
        if family not in known:
            raise ValueError(
                f"column {k} is of the family {family!r}, known are {', '.join(sorted(known))}; pass others in families"
            )
        arrays = {key: tensors.pop(f"variable.{k}.{key}") for key in entry["arrays"]}
        if core.ndim != 3 or math.prod(core.shape) == 0:
            raise ValueError(f"column {k}: a core has three axes, none empty, found shape {core.shape}")
        cores.append(core)
        if known[family] in BUILT_IN and arrays:
            variables.append(known[family](**arrays, name=name))
        else:
            variables.append(rebuild(known[family], core.shape[0], name, arrays))
    if tensors:
        raise ValueError(f"it has tensors that belong to no column: {', '.join(sorted(tensors)[:5])}")
    return kind(cores, variables, description["order"])
