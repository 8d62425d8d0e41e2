"""save and load: round trips, and files that are none."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.families import LaplaceMixture
from tests.oracle import MIXED, TABLE, TRAIN, make_case
from tests.strategies import cases, over

ROOT = Path(__file__).parents[2]
BUILT_IN = make_case(
    ["categorical", "gaussian", "poisson"],
    [3, 2, 4],
    [2, 3, 2],
    [2, 0, 1],
    seed=41,
    names=["label", "grösse", None],
)


# -------------------------------------------------------------------------------------------- round trips


@pytest.mark.slow_on("jax")
def test_round_trip(backend, dtype, path):
    ring = backend.ring(BUILT_IN, dtype)
    ring.save(path)
    again = rd.load(path, xp=backend.xp)
    assert repr(again) == repr(ring)
    assert tuple(again.order) == tuple(ring.order), again
    assert [v.name for v in again.variables] == ["label", "grösse", None], again
    assert [type(v) for v in again.variables] == [type(v) for v in ring.variables], again
    assert again.cores[0].dtype == backend.dtype(dtype), again
    for a, b in zip(again.cores, ring.cores, strict=True):
        np.testing.assert_array_equal(backend.numpy(a), backend.numpy(b))
    x = backend.array(BUILT_IN.rows(6), dtype)
    actual = backend.numpy(again.to(device=backend.device).log_prob(x))
    assert_close(actual, backend.numpy(ring.log_prob(x)), again, rtol=1e-5)


@over(TABLE, case=cases(kinds=("categorical", "gaussian", "poisson")))
def test_round_trip_of_any_ring(backend, tmp_path_factory, case):
    path = tmp_path_factory.mktemp("rings") / "ring"
    backend.ring(case).save(path)
    x = case.rows(6)
    assert_close(rd.load(path).log_prob(x), oracle.log_prob(case, x), case)


def test_paths_are_strings_or_paths(numpy_backend, tmp_path):
    ring = numpy_backend.ring(TABLE)
    ring.save(str(tmp_path / "a"))
    ring.save(tmp_path / "b")
    assert repr(rd.load(str(tmp_path / "b"))) == repr(rd.load(tmp_path / "a")) == repr(ring)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"], "nothing else is left in the folder"


def test_loading_is_numpy_by_default(backend, path):
    backend.ring(BUILT_IN).save(path)
    assert all(isinstance(core, np.ndarray) for core in rd.load(path).cores)


@pytest.mark.slow_on("jax")
def test_loading_to_a_device(backend, path):
    ring = backend.ring(BUILT_IN)
    ring.save(path)
    device = backend.xp.zeros(1).device if backend.device is None else backend.device
    again = rd.load(path, xp=backend.xp, device=device)
    arrays = [*again.cores, again.variables[1].means()]
    assert {type(array) for array in arrays} == {type(backend.array(0.0))}
    assert {str(array.device).split(":")[0] for array in arrays} == {str(device).split(":")[0]}
    x = backend.array(BUILT_IN.rows(6))
    assert_close(backend.numpy(again.log_prob(x)), backend.numpy(ring.log_prob(x)), again)


def test_a_device_that_the_backend_does_not_have(backend, path):
    """It is refused before the file is read; NumPy's only one has its name in the message."""
    if backend.name == "numpy":
        with pytest.raises(ValueError, match=r"^NumPy arrays live on the device 'cpu', found 'cuda'$"):
            rd.load(path, device="cuda")
        backend.ring(BUILT_IN).save(path)
        assert isinstance(rd.load(path, device="cpu").cores[0], np.ndarray)
        return
    with pytest.raises((RuntimeError, ValueError), match="nowhere"):
        rd.load(path, xp=backend.xp, device="nowhere")
    with pytest.raises(FileNotFoundError):
        rd.load(path, xp=backend.xp, device=backend.device)


def test_a_file_does_not_hold_its_ring(numpy_backend, path):
    """The loaded arrays outlive the file: no memory map that a later save would change."""
    ring = numpy_backend.ring(TABLE)
    ring.save(path)
    again = rd.load(path)
    numpy_backend.ring(TRAIN).save(path)
    path.write_bytes(b"")
    np.testing.assert_array_equal(again.cores[0], ring.cores[0])


@pytest.mark.slow_on("jax")
def test_families_of_the_user(backend, path):
    ring = backend.ring(MIXED)
    ring.save(path)
    again = rd.load(path, xp=backend.xp, families=(LaplaceMixture,))
    assert isinstance(again.variables[3], LaplaceMixture), again
    assert again.variables[3].name == "delay", again
    x = backend.array(MIXED.rows(6))
    actual = backend.numpy(again.to(device=backend.device).log_prob(x))
    assert_close(actual, oracle.log_prob(MIXED, backend.numpy(x)), again)


def test_a_family_that_is_not_given_is_named_and_not_imported(numpy_backend, path):
    numpy_backend.ring(MIXED).save(path)
    with pytest.raises(ValueError, match=r"LaplaceMixture.*families|families.*LaplaceMixture"):
        rd.load(path)


def test_the_file_is_a_safetensors_file_with_a_version_and_no_pickle(numpy_backend, path):
    from safetensors import safe_open

    numpy_backend.ring(BUILT_IN).save(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        assert len(list(file.keys())) >= 3
    assert any("version" in key or "format" in key for key in metadata) or any(
        "version" in value for value in metadata.values()
    ), metadata
    assert b"\x80\x04" not in path.read_bytes()[:8] and b"pickle" not in path.read_bytes()


# --------------------------------------------------------------------------------------- files that are none


@pytest.fixture
def content(numpy_backend, path) -> bytes:
    numpy_backend.ring(BUILT_IN).save(path)
    return path.read_bytes()


def test_a_missing_file_is_a_missing_file(path):
    with pytest.raises(FileNotFoundError):
        rd.load(path)


def test_truncated_files(path, content):
    lengths = {0, 1, 7, 8, 9, 50, len(content) // 2, len(content) - 9, len(content) - 1}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=path.name):
            rd.load(path)


def test_files_with_something_behind_them(path, content):
    path.write_bytes(content + b"\0" * 8)
    with pytest.raises(ValueError, match=path.name):
        rd.load(path)


def test_files_with_one_byte_changed(path, content):
    """Wherever it is, in the header or in the numbers: a silently different distribution is the worst outcome."""
    places = np.unique(np.linspace(0, len(content) - 1, 150).astype(int))
    silent = []
    for place in places:
        for flip in (0x01, 0x40, 0xFF):
            broken = bytearray(content)
            broken[place] ^= flip
            path.write_bytes(broken)
            try:
                rd.load(path)
            except ValueError:
                continue
            silent.append((int(place), flip))
    assert not silent, f"{len(silent)} of {3 * len(places)} changed files load: {silent[:5]}"


def test_foreign_files(path):
    from safetensors.numpy import save_file

    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    foreign = {
        "text": b"a,b,c\n1,2,3\n",
        "zeros": bytes(200),
        "noise": np.random.default_rng(0).bytes(500),
        "npz": path.with_suffix(".npz").read_bytes(),
        "json": json.dumps({"format": "ringdist"}).encode(),
        "huge header": struct.pack("<Q", 2**62) + b"{}",
    }
    for name, content in foreign.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            rd.load(path)
            pytest.fail(name)
    for metadata in (None, {"format": "pt"}, {"format": "ringdist"}):
        save_file({"weight": np.ones((2, 2))}, path, metadata=metadata)
        with pytest.raises(ValueError, match=path.name):
            rd.load(path)


def rewritten(content: bytes, change) -> bytes:
    """The file with its JSON header changed."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(change(header)).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_files_whose_header_lies(path, content):
    """Every part of the description removed, or replaced by something of another kind."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    lies = [{k: v for k, v in header.items() if k != "__metadata__"}]
    for key, value in header["__metadata__"].items():
        for lie in ("", "{}", "[]", "null", "999", "[[", '"x"', value[: len(value) // 2]):
            lies.append({**header, "__metadata__": {**header["__metadata__"], key: lie}})
        rest = {k: v for k, v in header["__metadata__"].items() if k != key}
        lies.append({**header, "__metadata__": rest})
    for lie in lies:
        path.write_bytes(rewritten(content, lambda _, lie=lie: lie))
        with pytest.raises(ValueError, match=path.name):
            rd.load(path)


def test_a_newer_format_says_so(path, content):
    """Whatever holds the version, a file of a later one is refused with both versions in the message."""

    def newer(header):
        metadata = header["__metadata__"]
        for key, value in metadata.items():
            if "version" in key.lower():
                metadata[key] = "999"
                return header
            if '"version"' in value:
                fields = json.loads(value)
                fields["version"] = 999
                metadata[key] = json.dumps(fields)
                return header
        return pytest.skip("no version found by its name")

    path.write_bytes(rewritten(content, newer))
    with pytest.raises(ValueError, match=r"999|changed|corrupt"):
        rd.load(path)


@pytest.mark.parametrize("change", ["negative", "nan", "missing", "shape", "dtype"])
def test_files_with_arrays_that_are_no_ring(path, content, change):
    """Written by somebody else with a right header: values are checked like a caller's."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    key = next(k for k, a in arrays.items() if a.ndim == 3)
    if change == "missing":
        del arrays[key]
    elif change == "shape":
        arrays[key] = arrays[key][:, :, :1].copy()
    elif change == "dtype":
        arrays[key] = arrays[key].astype(np.int64)
    else:
        arrays[key][0, 0, 0] = -1.0 if change == "negative" else np.nan
    save_file(arrays, path, metadata=metadata)
    with pytest.raises(ValueError, match=path.name):
        rd.load(path)


def test_load_refuses_what_is_no_family_or_backend(path, content):
    with pytest.raises(TypeError):
        rd.load(path, xp=json)
    with pytest.raises(TypeError):
        rd.load(path, families=LaplaceMixture)


def test_a_family_without_a_rebuildable_constructor_is_refused_when_it_is_saved(numpy_backend, path):
    """Names that clash with the arrays of a ring would be read back wrongly."""
    ring = numpy_backend.ring(MIXED)
    ring.save(path)
    assert set(rd.load(path, families=[LaplaceMixture]).variables[3].arrays()) == {"locations", "scales"}
