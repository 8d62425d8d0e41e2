"""Bytes of safetensors files: whatever a header claims is checked before it is used.

The safetensors library writes these files but does not read them: its reader keeps the last of two
equal keys, raises what is not an `Exception` where memory runs out, and has dtypes that NumPy has not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

from ringdist.interop.atomic import check_regular, write_atomically

FORMAT = "ringdist"
MAX_HEADER = 100_000_000  # bytes, that of the format's own library
MAX_AXES = 32  # of every NumPy

_DTYPES = {
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "|i1", "U8": "|u1", "I16": "<i2"},
    **{"U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"},
}
STORABLE = tuple(np.dtype(code).name for code in _DTYPES.values())


def write(path: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    """Replace the file at `path` atomically by one with a format and a checksum in its metadata."""
    tensors = {name: np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for name, a in tensors.items()}
    metadata = {**metadata, "format": FORMAT}
    metadata["sha256"] = _digest(tensors, metadata)
    write_atomically(path, safetensors.numpy.save(tensors, metadata))


def read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors of a file of `write` whose checksum is right.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is anything else.
    """
    check_regular(path)
    with path.open("rb") as file:
        try:
            header, size = _header(file)
            metadata = _metadata(header.pop("__metadata__", {}))
            tensors = _tensors(file, header, size)
            if metadata.get("sha256") != _digest(tensors, metadata):
                raise ValueError("it is corrupt, its content does not have the checksum it was saved with")
        except ValueError as error:
            raise ValueError(f"{path.name} is not a safetensors file of {FORMAT}: {error}") from error
        except MemoryError as error:
            raise ValueError(f"{path.name} has tensors that do not fit into memory") from error
    return metadata, tensors


def parse_json(text: str, label: str) -> Any:
    """The value of a JSON text; an error if an object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {label} is not JSON that can be read: {error}") from error


def fields(value: Any, names: Sequence[str], label: str) -> list[Any]:
    """The values of an object that has exactly these keys."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"{label} must be an object of {', '.join(names)}, found {short(value)}")
    return [value[name] for name in names]


def integers(value: Any, least: int, label: str) -> list[int]:
    """The value if it is a list of integers from `least`; booleans are not."""
    if not isinstance(value, list) or not all(type(entry) is int and entry >= least for entry in value):
        raise ValueError(f"{label} must be a list of integers from {least}, found {short(value)}")
    return value


def strings(value: Any, label: str) -> list[str]:
    """The value if it is a list of strings that differ."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"{label} must be a list of strings, found {short(value)}")
    if len(set(value)) < len(value):
        raise ValueError(f"{label} must be a list of strings that differ, found {short(value)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("an object has a key twice")
    return result


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header of a file, and the number of bytes of its tensors."""
    rest = os.fstat(file.fileno()).st_size - 8
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(rest, MAX_HEADER):
        raise ValueError(f"it claims a header of {length} bytes, where the file has {max(rest, 0)}")
    header = parse_json(file.read(length).decode(), "header")
    if not isinstance(header, dict):
        raise ValueError(f"its header must be an object, found {short(header)}")
    return header, rest - length


def _metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"its metadata does not name the format {FORMAT!r}")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise ValueError(f"its metadata must be strings, found {short(value)} for {short(name)}")
    return metadata


def _tensors(file: BinaryIO, header: dict[str, Any], size: int) -> dict[str, np.ndarray]:
    """The tensors that a header describes; they must fill the `size` bytes after it without gap or overlap."""
    layout = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda row: row[0])
    end = 0
    for offsets, name, dtype, shape in layout:
        start, end = end, end + math.prod(shape) * dtype.itemsize
        if offsets != [start, end]:
            raise ValueError(f"tensor {short(name)} must be bytes {start} to {end}, found {short(offsets)}")
    if end != size:
        raise ValueError(f"its tensors have {end} bytes, where the file has {size}")
    tensors = {}
    for _, name, dtype, shape in layout:
        tensors[name] = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
    return tensors


def _entry(name: str, entry: Any) -> tuple[list[int], str, np.dtype, list[int]]:
    """Offsets, name, dtype and shape of one tensor, none of its axes empty."""
    label = f"tensor {short(name)}"
    code, shape, offsets = fields(entry, ("dtype", "shape", "data_offsets"), label)
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"{label}: dtypes are {', '.join(_DTYPES)}, found {short(code)}")
    shape = integers(shape, 1, f"{label}: its shape")
    if len(shape) > MAX_AXES:
        raise ValueError(f"{label}: there must be at most {MAX_AXES} axes, found {len(shape)}")
    return integers(offsets, 0, f"{label}: its offsets"), name, np.dtype(_DTYPES[code]), shape


def _digest(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """The checksum of all tensors and texts."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    for name in sorted(metadata.keys() - {"sha256"}):
        digest.update(f"{name}\n{metadata[name]}\n".encode())
    return digest.hexdigest()
