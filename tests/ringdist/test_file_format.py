"""The format of files: old versions that still load, and what a file of this version says."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ringdist as rd
from ringdist.interop import files as io
from tests import oracle
from tests.backends import assert_close
from tests.families import LaplaceMixture
from tests.oracle import MIXED, TABLE, make_case
from tests.safetensors_files import Tensor, put_together, taken_apart

DATA = Path(__file__).parent / "data"
RECORDED = json.loads((DATA / "version1.json").read_text())


# ------------------------------------------------------------------------------------------------- version 1


def test_a_ring_of_version_1_loads():
    """Written by the first release: float32 cores in another order, three built-in families and a user's own."""
    path = DATA / "version1_ring.safetensors"
    assert taken_apart(path.read_bytes()).ring["version"] == 1
    ring = rd.load(path, device="cpu", families=(LaplaceMixture,))
    assert [v.name for v in ring.variables] == ["label", "größe", None, "delay"]
    assert ring.order == (2, 0, 1, 3) and ring.cores[0].dtype == np.float32
    rows = np.array(RECORDED["ring"]["rows"], dtype=np.float32)
    np.testing.assert_allclose(ring.log_prob(rows), RECORDED["ring"]["log_prob"], rtol=1e-5, atol=1e-6)


def test_an_estimator_of_version_1_loads():
    model = rd.TensorRingDensity.load(DATA / "version1_estimator.safetensors")
    frame = pd.DataFrame(RECORDED["estimator"]["frame"])
    np.testing.assert_allclose(model.score_samples(frame), RECORDED["estimator"]["log_prob"], rtol=1e-12)


def test_a_ring_of_version_1_is_saved_as_version_2(tmp_path):
    ring = rd.load(DATA / "version1_ring.safetensors", families=(LaplaceMixture,))
    ring.save(tmp_path / "ring")
    assert taken_apart((tmp_path / "ring").read_bytes()).ring["version"] == 2
    again = rd.load(tmp_path / "ring", families=(LaplaceMixture,))
    for a, b in zip(again.cores, ring.cores, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------------------- version 2


def test_a_file_names_the_kind_of_every_core(numpy_backend, tmp_path):
    for case in (TABLE, MIXED):
        path = tmp_path / "ring"
        numpy_backend.ring(case).save(path)
        contents = taken_apart(path.read_bytes())
        assert contents.ring["version"] == 2
        assert contents.ring["cores"] == ["dense"] * case.d
        assert {f"core.{k}" for k in range(case.d)} <= contents.tensors.keys()
        for k, core in enumerate(case.cores):
            np.testing.assert_array_equal(contents.tensors[f"core.{k}"].array, core)


def test_files_are_put_together_by_the_documented_rules(numpy_backend, tmp_path):
    """Another program that follows the format, checksum included, is read."""
    path = tmp_path / "ring"
    numpy_backend.ring(MIXED).save(path)
    contents = taken_apart(path.read_bytes())
    contents.metadata["extra"] = "from elsewhere"
    contents.tensors = dict(reversed(contents.tensors.items()))
    for k in range(MIXED.d):
        contents.tensors[f"core.{k}"] = Tensor.of(3 * contents.tensors[f"core.{k}"].array)
    path.write_bytes(put_together(contents))
    x = MIXED.rows(5)
    assert_close(rd.load(path, families=(LaplaceMixture,)).log_prob(x), oracle.log_prob(MIXED, x), MIXED)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "uint8", "int64"])
def test_parameters_of_any_dtype_of_a_file(numpy_backend, tmp_path, dtype):
    """A family of one's own may count something; the byte order of the machine that saves is not in the file."""
    locations = np.array([3, 5, 7], dtype=np.dtype(dtype).newbyteorder(">"))
    variable = LaplaceMixture(locations, np.array([0.5, 1.0, 2.0], dtype=">f8"), name="count")
    rd.TensorRing([np.ones((3, 2, 2))], [variable]).save(tmp_path / "ring")
    arrays = rd.load(tmp_path / "ring", families=[LaplaceMixture]).variables[0].arrays()
    np.testing.assert_array_equal(arrays["locations"], [3, 5, 7])
    np.testing.assert_array_equal(arrays["scales"], [0.5, 1.0, 2.0])
    assert arrays["locations"].dtype == dtype


@pytest.mark.parametrize(
    ("locations", "finding"),
    [
        (np.arange(3) + 1j, "complex128"),
        (np.array([True, False, True]), "bool"),
        (np.arange(3).astype("datetime64[s]"), "datetime64"),
        (np.arange(4.0), r"3 components, found shape \(4,\)"),
        (np.array(1.0), r"3 components, found shape \(\)"),
    ],
    ids=["complex", "bool", "time", "long", "scalar"],
)
def test_what_a_file_cannot_hold_is_refused_when_it_is_saved(tmp_path, locations, finding):
    variable = LaplaceMixture(np.arange(3.0), np.ones(3), name="delay")
    ring = rd.TensorRing([np.ones((3, 2, 2))], [variable])
    variable.locations = locations
    with pytest.raises(ValueError, match=rf"column 0 \('delay'\): .*locations.*{finding}"):
        ring.save(tmp_path / "ring")
    assert not any(tmp_path.iterdir())


def test_dtypes_of_pytorch_that_numpy_lacks(tmp_path):
    torch = pytest.importorskip("torch")
    ring = rd.TensorRing([torch.ones((3, 2, 2))], [LaplaceMixture(torch.ones(3), torch.ones(3))])
    ring.variables[0].scales = torch.ones(3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"scales.*bfloat16"):
        ring.save(tmp_path / "ring")


@pytest.mark.parametrize("name", ["ring", "format", "sha256"])
def test_extra_does_not_replace_what_a_file_needs(numpy_backend, tmp_path, name):
    with pytest.raises(ValueError, match=name):
        io.save(numpy_backend.ring(TABLE), tmp_path / "ring", extra={name: 1})
    io.save(numpy_backend.ring(TABLE), tmp_path / "ring", extra={"note": [1, None, {"ü": 0.1}]})
    assert io.read_extra(tmp_path / "ring", "note") == [1, None, {"ü": 0.1}]
    with pytest.raises(ValueError, match="without a description of its other"):
        io.read_extra(tmp_path / "ring", "other")


# ------------------------------------------------------------------------------------ cores of another kind


KEPT = [("left",), ("emission",), ("right",), ("left", "emission"), ("left", "emission", "right")]


def mixed_ring(kept, seed=0):
    """Two CP cores with dense cores between them."""
    rng = np.random.default_rng(seed)
    sizes = {"left": (4, 3), "emission": (3, 3), "right": (3, 4)}
    cp = [rd.CPCore(**{name: rng.random(sizes[name]) for name in kept}) for _ in range(2)]
    (_, _, right), (_, left, _) = cp[0].shape, cp[1].shape
    cores = [cp[0], rng.random((2, right, left)), cp[1], rng.random((2, right, left))]
    gaussian = rd.GaussianMixture(rng.random(3), 1 + rng.random(3))
    return rd.TensorRing(cores, [rd.Categorical(3), rd.Categorical(2), gaussian, rd.Categorical(2)])


@pytest.mark.parametrize("kept", KEPT, ids="+".join)
def test_cores_of_another_kind(tmp_path, kept):
    ring = mixed_ring(kept)
    ring.save(tmp_path / "ring")
    contents = taken_apart((tmp_path / "ring").read_bytes())
    assert contents.ring["cores"] == ["cp", "dense", "cp", "dense"]
    expected = {"core.1", "core.3", "variable.2.means", "variable.2.stds"}
    assert contents.tensors.keys() == expected | {f"core.{k}.{name}" for k in (0, 2) for name in kept}
    again = rd.load(tmp_path / "ring")
    assert [type(core) for core in again.cores] == [rd.CPCore, np.ndarray, rd.CPCore, np.ndarray]
    assert again.shape == (3, 2, 3, 2) and again.order == (0, 1, 2, 3)
    for k in (0, 2):
        assert again.cores[k].arrays().keys() == set(kept)
        for name in kept:
            np.testing.assert_array_equal(again.cores[k].arrays()[name], ring.cores[k].arrays()[name])


def _without(contents):
    for name in ("left", "emission", "right"):
        del contents.tensors[f"core.2.{name}"]


def _other(name):
    return lambda contents: contents.tensors.update({name: Tensor.of(np.ones((3, 3)))})


LIES = {
    "no factor": (_without, "column 2.*cp"),
    "another factor": (_other("core.2.middle"), "core.2.middle"),
    "a dense core too": (_other("core.2"), "core.2"),
    "a factor of a dense core": (_other("core.1.left"), "core.1.left"),
    "an axis too many": (
        lambda contents: contents.tensors.update({"core.2.left": Tensor.of(np.ones((4, 3, 1)))}),
        "column 2.*CPCore.*matrix",
    ),
    "values": (
        lambda contents: contents.tensors.update({"core.2.right": Tensor.of(np.full((3, 4), -1.0))}),
        "column 2.*not negative, found -1",
    ),
    "inner axes": (
        lambda contents: contents.tensors.update({"core.2.right": Tensor.of(np.ones((2, 4)))}),
        "column 2.*CPCore.*hidden states",
    ),
    "kind": (lambda contents: contents.ring.update(cores=["cp", "dense", "tree", "dense"]), "column 2.*tree"),
    "dense": (lambda contents: contents.ring.update(cores=["dense"] * 4), "core.0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie_about_cores_of_another_kind(tmp_path, lie):
    change, finding = LIES[lie]
    path = tmp_path / "ring"
    mixed_ring(("left", "emission", "right")).save(path)
    contents = taken_apart(path.read_bytes())
    change(contents)
    path.write_bytes(put_together(contents))
    with pytest.raises(ValueError, match=rf"ring does not hold a valid ring: .*{finding}"):
        rd.load(path)


def test_a_kind_that_is_not_known(tmp_path):
    case = make_case(["categorical"], [3], [1], [0], seed=1)
    rd.TensorRing(case.cores, [rd.Categorical(3)]).save(tmp_path / "ring")
    contents = taken_apart((tmp_path / "ring").read_bytes())
    contents.ring["cores"] = ["sketch"]
    (tmp_path / "ring").write_bytes(put_together(contents))
    with pytest.raises(ValueError, match=r"column 0: a core must be one of dense.*'sketch'"):
        rd.load(tmp_path / "ring")
