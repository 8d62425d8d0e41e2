"""Mutations of files of rings: each takes a file, a generator and another file, and damages or forges the first."""

from __future__ import annotations

import copy
import json
import struct

import numpy as np

from tests.safetensors_files import CODES, NUMPY, Tensor, put_together, taken_apart

ODD = {"F8_E4M3": 1, "F8_E5M2": 1, "BF16": 2, "BOOL": 1, "C64": 8}  # dtypes of the format that no ring has, in bytes
WEIRD = [
    *(None, True, False, 0, 1, -1, 2, 3, 0.5, 1e308, float("nan"), float("-inf"), 2**31, 2**63, 2**64, 10**400),
    *("", "0", "a", "label", "means", "stds", "validate", "Categorical", "GaussianMixture", "PoissonMixture", "dense"),
    *("core.0", "F16", "F32", "F64", "I64", "F8_E4M3", "BF16", "BOOL", "C64", "\ud800", "\0", "x" * 10_000),
    *([], {}, [[]], [0], [1, 2, 3], [0, 1, 2, 3], ["means"], ["means", "stds", "validate"], {"version": 1}, [None] * 4),
    json.loads("[" * 300 + "]" * 300),
]


# ------------------------------------------------------------------------------- bytes, the checksum left alone


def flipped(content, rng, _):
    data = bytearray(content)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def truncated(content, rng, _):
    return content[: rng.integers(0, len(content))]


def inserted(content, rng, _):
    place = int(rng.integers(0, len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 65))) + content[place:]


def removed(content, rng, _):
    start, end = sorted(int(i) for i in rng.integers(0, len(content) + 1, 2))
    return content[:start] + content[end:]


def repeated(content, rng, _):
    start, end = sorted(int(i) for i in rng.integers(0, len(content) + 1, 2))
    return content[:end] + content[start:]


def spliced(content, rng, other):
    """The beginning of one file and the end of another, as a rule cut where the header ends."""
    if rng.random() < 0.5:
        cut, other_cut = (8 + struct.unpack("<Q", c[:8])[0] for c in (content, other))
    else:
        cut, other_cut = (int(rng.integers(0, len(c))) for c in (content, other))
    return content[:cut] + other[other_cut:]


def lengthened(content, rng, _):
    (length,) = struct.unpack("<Q", content[:8])
    wrong = [length + int(rng.integers(-9, 10)), int(rng.integers(2**63)), 0, 2**64 - 1]
    return struct.pack("<Q", max(0, wrong[rng.integers(4)])) + content[8:]


BYTES = (flipped, truncated, inserted, removed, repeated, spliced, lengthened)


# ------------------------------------------------------------------------------- contents, under a right checksum


def containers(value):
    """Every list and object in a piece of JSON."""
    if isinstance(value, list | dict):
        yield value
        for entry in value.values() if isinstance(value, dict) else value:
            yield from containers(entry)


def changed_json(contents, rng, other):
    """A few values replaced, removed, doubled, or exchanged for those of another file."""
    for _ in range(rng.integers(1, 4)):
        found = [c for c in containers(contents.metadata) if c]
        if not found:
            return
        chosen = found[rng.integers(len(found))]
        keys = list(chosen) if isinstance(chosen, dict) else range(len(chosen))
        key = keys[rng.integers(len(keys))]
        match rng.integers(5):
            case 0 | 1:
                chosen[key] = copy.deepcopy(WEIRD[rng.integers(len(WEIRD))])
            case 2:
                del chosen[key]
            case 3 if isinstance(chosen, list):
                chosen.insert(key, copy.deepcopy(chosen[rng.integers(len(chosen))]))
            case 3:
                chosen[str(WEIRD[rng.integers(16, 27)])] = copy.deepcopy(chosen[key])
            case _:
                theirs = [c for c in containers(other.metadata) if type(c) is type(chosen)]
                if theirs:
                    chosen[key] = copy.deepcopy(theirs[rng.integers(len(theirs))])


def changed_text(contents, rng, _):
    """JSON cut, or with one character for another."""
    name = ("ring", "estimator")[rng.integers(2)]
    if name in contents.metadata:
        text = json.dumps(contents.metadata[name])
        place = int(rng.integers(len(text)))
        letter = '{}[]",:0123456789.eE-+ntf\\\0é'[rng.integers(28)]
        contents.metadata[name] = text[:place] + (letter + text[place + 1 :] if rng.random() < 0.7 else "")


def pick(contents, rng):
    names = list(contents.tensors)
    return names[rng.integers(len(names))]


def numbers(tensor):
    """How many numbers of its dtype a tensor's bytes are, 0 where they are none."""
    itemsize = np.dtype(NUMPY[tensor.dtype]).itemsize if str(tensor.dtype) in NUMPY else 1 + len(tensor.data)
    return 0 if len(tensor.data) % itemsize else len(tensor.data) // itemsize


def changed_values(contents, rng, _):
    """Bits flipped in the numbers, or a number put among them that no ring has."""
    if not contents.tensors:
        return
    tensor = contents.tensors[pick(contents, rng)]
    if rng.random() < 0.5 or tensor.dtype not in ("F16", "F32", "F64") or not numbers(tensor):
        tensor.data = flipped(tensor.data, rng, None) if tensor.data else b""
        return
    array = np.frombuffer(tensor.data, NUMPY[tensor.dtype]).copy()
    extreme = [np.nan, np.inf, -np.inf, -1.0, -0.0, 0.0, 5e-324, 1e308, 1.0]
    with np.errstate(over="ignore"):
        array[rng.integers(array.size) if rng.random() < 0.7 else slice(None)] = extreme[rng.integers(9)]
    tensor.data = array.tobytes()


def changed_dtype(contents, rng, _):
    """Another dtype for the same numbers or for the same bytes."""
    if not contents.tensors:
        return
    tensor = contents.tensors[pick(contents, rng)]
    if rng.random() < 0.5 and numbers(tensor):
        code = list(CODES.values())[rng.integers(len(CODES))]
        with np.errstate(all="ignore"):
            tensor.data = np.frombuffer(tensor.data, NUMPY[tensor.dtype]).astype(NUMPY[code]).tobytes()
        tensor.dtype = code
    else:
        codes = [*CODES.values(), *ODD, "", None, 4]
        code = codes[rng.integers(len(codes))]
        if code in ODD and tensor.dtype in NUMPY:
            tensor.data = bytes(len(tensor.data) // np.dtype(NUMPY[tensor.dtype]).itemsize * ODD[code])
        tensor.dtype = code


def changed_shape(contents, rng, _):
    """Other axes, with or without the bytes for them."""
    if not contents.tensors:
        return
    tensor = contents.tensors[pick(contents, rng)]
    shape = list(tensor.shape) if isinstance(tensor.shape, list) else []
    match rng.integers(5):
        case 0:
            shape = [int(n) for n in rng.integers(-1, 5, rng.integers(0, 5))]
            if tensor.dtype in NUMPY and min(shape, default=1) >= 0:
                tensor.data = bytes(int(np.prod(shape)) * np.dtype(NUMPY[tensor.dtype]).itemsize)
        case 1:
            rng.shuffle(shape)
        case 2:
            shape.insert(int(rng.integers(0, len(shape) + 1)), 1)
        case 3:
            shape = [2**40, 2**40]
        case _:
            shape = WEIRD[rng.integers(len(WEIRD))]
    tensor.shape = shape


def changed_arrays(contents, rng, _):
    """A variable with an array more or less, in its list and among the tensors alike, and one that no check passed."""
    ring = contents.metadata.get("ring")
    entries = ring.get("variables") if isinstance(ring, dict) else None
    found = [k for k, e in enumerate(entries) if isinstance(e, dict)] if isinstance(entries, list) else []
    if not found:
        return
    k = found[rng.integers(len(found))]
    names = entries[k].get("arrays")
    if not isinstance(names, list):
        return
    if names and rng.random() < 0.3:
        contents.tensors.pop(f"variable.{k}.{names.pop(rng.integers(len(names)))}", None)
        return
    arguments = ("validate", "name", "self", "num_categories", "num_components", "means", "scales", "options")
    name = arguments[rng.integers(len(arguments))]
    core = contents.tensors.get(f"core.{k}", Tensor("F64", [2], b""))
    n = core.shape[0] if isinstance(core.shape, list) and core.shape and type(core.shape[0]) is int else 2
    contents.tensors[f"variable.{k}.{name}"] = Tensor.of(np.zeros(min(max(n, 0), 9) if rng.random() < 0.8 else 1))
    for other in names:
        tensor = contents.tensors.get(f"variable.{k}.{other}")
        if tensor is not None and rng.random() < 0.5:
            tensor.data = bytes(len(tensor.data) - 8) + np.array(-1.0).tobytes() if len(tensor.data) >= 8 else b""
    names.append(name)


def changed_names(contents, rng, other):
    """A tensor removed, renamed, exchanged, or added."""
    if not contents.tensors:
        return
    name = pick(contents, rng)
    names = [
        "core.9",
        "core.0.left",
        "core.-1",
        "variable.1.validate",
        "variable.0.name",
        "",
        "core.\ud800".encode(errors="replace").decode(),
    ]
    match rng.integers(4):
        case 0:
            del contents.tensors[name]
        case 1:
            contents.tensors[names[rng.integers(len(names))]] = contents.tensors.pop(name)
        case 2:
            contents.tensors[name] = copy.deepcopy(contents.tensors[pick(contents, rng)])
        case _:
            theirs = pick(other, rng)
            contents.tensors[theirs] = copy.deepcopy(other.tensors[theirs])


CONTENTS = (
    *(changed_json, changed_json, changed_text, changed_values),
    *(changed_dtype, changed_shape, changed_arrays, changed_names),
)


def forged(content, rng, other):
    contents, theirs = taken_apart(content), taken_apart(other)
    for _ in range(rng.integers(1, 3)):
        if isinstance(contents.metadata, dict):
            CONTENTS[rng.integers(len(CONTENTS))](contents, rng, theirs)
    return put_together(contents)
