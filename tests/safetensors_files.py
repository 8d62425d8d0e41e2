"""Files of rings taken apart and put together again, by the format's rules and without the library's code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMPY = {
    **{"F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8", "U8": "uint8"},
    **{"I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32", "I64": "int64", "U64": "uint64"},
}
CODES = {name: code for code, name in NUMPY.items()}
INNER = ("ring", "mixture", "estimator")  # the metadata that is JSON itself


@dataclass
class Tensor:
    """One tensor as a header and the bytes behind it say it is, right or not."""

    dtype: Any
    shape: Any
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        return cls(CODES[array.dtype.name], list(array.shape), array.tobytes())

    @property
    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, NUMPY[self.dtype]).reshape(self.shape).copy()


@dataclass
class Contents:
    """What stands in a file: metadata, the JSON in it parsed, and tensors in the order of their bytes."""

    metadata: dict[str, Any]
    tensors: dict[Any, Tensor]

    @property
    def ring(self) -> Any:
        return self.metadata["ring"]


def taken_apart(content: bytes) -> Contents:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    data = content[8 + length :]
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        tensors[name] = Tensor(entry["dtype"], entry["shape"], data[start:end])
    return Contents({k: json.loads(v) if k in INNER else v for k, v in metadata.items()}, tensors)


def put_together(contents: Contents) -> bytes:
    """The file with offsets and a checksum that are right, so that a reader gets as far as it can."""
    metadata = {
        name: json.dumps(value) if name in INNER and not isinstance(value, str) else value
        for name, value in contents.metadata.items()
    }
    if "sha256" in metadata:
        metadata["sha256"] = checksum(metadata, contents.tensors)
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in contents.tensors.items():
        offsets = [end, end + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        end = offsets[1]
    return with_header(json.dumps(header), b"".join(tensor.data for tensor in contents.tensors.values()))


def with_header(header: str, data: bytes) -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + data


def checksum(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        shape = tuple(tensor.shape) if isinstance(tensor.shape, list) else tensor.shape
        digest.update(f"{name} {NUMPY.get(str(tensor.dtype), tensor.dtype)} {shape}\n".encode(errors="surrogatepass"))
        digest.update(tensor.data)
    for name in sorted(metadata.keys() - {"sha256"}):
        digest.update(f"{name}\n{metadata[name]}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Something that waits forever, such as opening a pipe, fails instead."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
