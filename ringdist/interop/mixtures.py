"""Mixtures of rings in files, beside files of one ring.

A file of a mixture has the tensors of ring I as those of a file of its own under `rings.I.`, and `weights` and
`log_weights`, by whose exponentials the weights are multiplied. In its metadata is `mixture` in the place of `ring`: a
JSON object of `version` and `rings`, the description of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

import numpy as np

from ringdist.backend import Array
from ringdist.interop import files, tensorfile
from ringdist.interop.tensorfile import fields, parse_json
from ringdist.network import Network
from ringdist.variables import BUILT_IN

M = TypeVar("M")
N = TypeVar("N", bound=Network)
VERSION = 1


def save(
    rings: Sequence[Network],
    weights: Array,
    log_weights: Array,
    path: str | PathLike[str],
    *,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write rings and weights to `path` in one step, as `ringdist.interop.files.save` writes a ring.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rd.RingMixture([ring, ring], [0.25, 0.75]).save(f"{folder}/mixture.safetensors")
        ...     again = rd.load(f"{folder}/mixture.safetensors")
        >>> again.weights
        array([0.25, 0.75])
    """
    descriptions = []
    tensors = {
        "weights": files.stored(weights, "weights"),
        "log_weights": files.stored(log_weights, "log_weights"),
    }
    for c, ring in enumerate(rings):
        description, arrays = files.described(ring)
        descriptions.append(description)
        tensors |= {f"rings.{c}.{name}": array for name, array in arrays.items()}
    files.write(path, {"mixture": {"version": VERSION, "rings": descriptions}}, tensors, extra)


def load(
    path: str | PathLike[str],
    ring: Callable[..., N],
    mixture: Callable[[list[N], np.ndarray, np.ndarray], M],
    *,
    families: Sequence[type] = (),
) -> N | M:
    """The ring or mixture saved at `path`, in NumPy, checked like any other.

    Args:
        path: of a regular file, or a link to one.
        ring: makes a ring of cores, variables, order and columns.
        mixture: makes a mixture of rings, weights and logarithms by whose exponentials the weights are multiplied.
        families: classes of variables beside the built-in ones, found by their names; nothing is imported because a
            file names it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `path` is a directory or anything else that is not a regular file, or the file is truncated,
            corrupt, not a ringdist file, of a newer format, holds another family, or neither a ring nor a mixture.
    """
    path, known = Path(path), files.names_of((*BUILT_IN, *families))
    metadata, tensors = tensorfile.read(path)
    kind = "mixture of rings" if "mixture" in metadata else "ring"
    try:
        if kind == "ring":
            description = parse_json(metadata.get("ring", ""), "description of a ring")
            return ring(*files.assembled(description, tensors, known))
        if "ring" in metadata:
            raise ValueError("a file must describe a ring or a mixture, found both")
        description = parse_json(metadata["mixture"], "description of a mixture")
        return mixture(*_assembled(description, tensors, known, ring))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name} does not hold a valid {kind}: {error}") from error


def _assembled(
    description: Any, tensors: dict[str, np.ndarray], known: dict[str, type], make: Callable[..., N]
) -> tuple[list[N], np.ndarray, np.ndarray]:
    """Rings, weights and their logarithmic factors, after checks of all rules that no constructor checks."""
    version, entries = fields(description, ("version", "rings"), "the description of a mixture")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"the format version of the mixture is {short(version)}, known is {VERSION}")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"rings must be a list of at least one, found {short(entries)}")
    arrays: dict[str, dict[str, np.ndarray]] = {str(c): {} for c in range(len(entries))}
    weights, logs = (_of_rings(tensors, name, len(entries)) for name in ("weights", "log_weights"))
    for name in list(tensors):
        prefix, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        if prefix == "rings" and number in arrays:
            arrays[number][inner] = tensors.pop(name)
    if tensors:
        raise ValueError(f"tensors must belong to rings, found {short(sorted(tensors))}")
    rings = []
    for c, entry in enumerate(entries):
        try:
            rings.append(make(*files.assembled(entry, arrays[str(c)], known)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"ring {c}: {error}") from error
    return rings, weights, logs


def _of_rings(tensors: dict[str, np.ndarray], name: str, count: int) -> np.ndarray:
    """The tensor of that name, if it has one finite floating point number for each ring."""
    if name not in tensors:
        raise ValueError(f"there must be a tensor {name}, found none")
    array = tensors.pop(name)
    if array.dtype.name not in ("float32", "float64") or array.shape != (count,):
        found = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{name} must be float32 or float64, one for each of {count} rings, found {found}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, found {short(array.tolist())}")
    return array
