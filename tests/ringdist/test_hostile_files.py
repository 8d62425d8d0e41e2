"""Files made to do harm: whatever they say, `load` gives a valid ring or a `ValueError` that names the finding."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

import ringdist as rd
from ringdist.interop import files as io
from tests.families import LaplaceMixture
from tests.oracle import MIXED
from tests.safetensors_files import Contents, Tensor, put_together, taken_apart, with_header

GAUSSIAN = next(k for k, column in enumerate(MIXED.columns) if column.kind == "gaussian")
POISSON = next(k for k, column in enumerate(MIXED.columns) if column.kind == "poisson")
CATEGORICAL = next(k for k, column in enumerate(MIXED.columns) if column.kind == "categorical")
LAPLACE = next(k for k, column in enumerate(MIXED.columns) if column.kind == "laplace")
N = MIXED.shape


@pytest.fixture(scope="module")
def content(numpy_backend, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("hostile") / "ring"
    numpy_backend.ring(MIXED).save(path)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    """Asserts that both ways to read a file refuse these bytes, and that the finding is named."""

    def check(data: bytes, finding: str = "") -> None:
        path = tmp_path / "ring.safetensors"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"(?s)ring\.safetensors.*{finding}"):
            rd.load(path, families=(LaplaceMixture,))
        with pytest.raises(ValueError, match=r"ring\.safetensors"):
            rd.TensorRingDensity.load(path)

    return check


def test_the_ring_itself_loads(content, tmp_path):
    (tmp_path / "ring").write_bytes(put_together(taken_apart(content)))
    assert rd.load(tmp_path / "ring", families=(LaplaceMixture,)).order == MIXED.order


# ------------------------------------------------------------------------------------------ the description


def variable(k, **changes):
    return lambda c: c.ring["variables"][k].update(changes)


def array(name, value, of=np.float64):
    return lambda c: c.tensors.update({name: Tensor.of(np.asarray(value, dtype=of))})


def described(**changes):
    return lambda c: c.ring.update(changes)


def together(*changes):
    return lambda c: [change(c) for change in changes]


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


def an_option(name, value, k=GAUSSIAN, listed=("means", "stds")):
    """An array that the constructor would take for another of its arguments."""
    return together(
        variable(k, arrays=[*listed, name]),
        array(f"variable.{k}.{name}", value),
    )


bad_deviation = array(f"variable.{GAUSSIAN}.stds", -np.ones(N[GAUSSIAN]))
TEXT = json.dumps
LIES = {
    # arrays that are options of a constructor
    "validate": (an_option("validate", np.zeros(N[GAUSSIAN])), f"column {GAUSSIAN}.*validate"),
    "validate and values": (together(an_option("validate", np.zeros(N[GAUSSIAN])), bad_deviation), ""),
    "validate of one": (an_option("validate", [0.0]), "validate"),
    "name": (an_option("name", np.zeros(N[GAUSSIAN])), "name"),
    "self": (an_option("self", np.zeros(N[GAUSSIAN])), "self"),
    "poisson validate": (an_option("validate", np.zeros(N[POISSON]), POISSON, ["rates"]), "validate"),
    "number of categories": (
        an_option("num_categories", np.full(N[CATEGORICAL], 3), CATEGORICAL, []),
        "num_categories",
    ),
    "another argument": (an_option("scale", np.zeros(N[LAPLACE]), LAPLACE, ["locations", "scales"]), "scale"),
    "name of one's own": (an_option("name", np.zeros(N[LAPLACE]), LAPLACE, ["locations", "scales"]), "name"),
    # arrays that are missing
    "no arrays": (variable(GAUSSIAN, arrays=[]), f"column {GAUSSIAN}.*GaussianMixture"),
    "no rates": (variable(POISSON, arrays=[]), f"column {POISSON}.*PoissonMixture"),
    "no arrays of one's own": (variable(LAPLACE, arrays=[]), f"column {LAPLACE}.*LaplaceMixture"),
    "no deviations": (variable(GAUSSIAN, arrays=["means"]), "stds"),
    "one array twice": (variable(GAUSSIAN, arrays=["means", "means", "stds"]), "differ"),
    "an array that is not there": (variable(GAUSSIAN, arrays=["means", "stds", "skews"]), "skews"),
    "family of other arrays": (variable(GAUSSIAN, family="PoissonMixture"), "PoissonMixture.*means.*stds"),
    "tensors of no column": (array("variable.99.means", [1.0]), r"variable\.99\.means"),
    # shapes and dtypes
    "more means": (array(f"variable.{GAUSSIAN}.means", np.zeros(N[GAUSSIAN] + 1)), "one entry for each"),
    "one mean": (array(f"variable.{GAUSSIAN}.means", [0.0]), "one entry for each"),
    "scalar": (array(f"variable.{GAUSSIAN}.means", 0.0), r"one entry for each.*\(\)"),
    "matrix": (array(f"variable.{GAUSSIAN}.means", np.zeros((N[GAUSSIAN], 1))), f"column {GAUSSIAN}"),
    "one more of each": (
        together(*(array(f"variable.{GAUSSIAN}.{n}", np.ones(N[GAUSSIAN] + 1)) for n in ("means", "stds"))),
        "one entry for each",
    ),
    "fewer scales": (array(f"variable.{LAPLACE}.scales", [1.0]), f"column {LAPLACE}.*one entry for each"),
    "integers": (array(f"variable.{GAUSSIAN}.means", np.zeros(N[GAUSSIAN]), np.int64), "floating point"),
    "integer rates": (array(f"variable.{POISSON}.rates", np.ones(N[POISSON]), np.uint8), "floating point"),
    "half cores": (array("core.0", np.ones(MIXED.cores[0].shape), np.float16), "float32 or float64"),
    "integer cores": (array("core.0", np.ones(MIXED.cores[0].shape), np.int32), "float32 or float64"),
    "two dtypes": (array("core.0", np.ones(MIXED.cores[0].shape), np.float32), "one dtype"),
    "a core of four axes": (array("core.0", MIXED.cores[0][..., None]), "column 0.*three axes"),
    "a core of one axis": (array("core.0", np.ravel(MIXED.cores[0])), "column 0.*three axes"),
    "a core of no axis": (array("core.0", 1.0), "column 0.*three axes"),
    "ranks": (array("core.0", MIXED.cores[0][:, :, :1]), "ranks must close"),
    "components": (array("core.1", np.ones((9, *MIXED.cores[1].shape[1:]))), "column 1.*9 components"),
    # values
    "nan core": (array("core.0", np.full(MIXED.cores[0].shape, np.nan)), "column 0.*finite"),
    "negative core": (array("core.1", -MIXED.cores[1]), "column 1.*not negative"),
    "infinite core": (array("core.2", np.full(MIXED.cores[2].shape, np.inf)), "column 2.*finite"),
    "zero core": (array("core.0", 0 * MIXED.cores[0]), "column 0.*all zero"),
    "deviation": (bad_deviation, "stds must be positive"),
    "infinite mean": (array(f"variable.{GAUSSIAN}.means", np.full(N[GAUSSIAN], np.inf)), "finite"),
    "rates": (array(f"variable.{POISSON}.rates", np.full(N[POISSON], -1.0)), "not negative"),
    "nan of one's own": (array(f"variable.{LAPLACE}.scales", np.full(N[LAPLACE], np.nan)), "scales.*NaN"),
    # version, order, names, families
    **{f"version {TEXT(v)}": (described(version=v), f"known are 1 to {io.VERSION}") for v in
       (0, -1, 4, 999, 10**30, True, None, "2", 1.0, 2.0, [2], {}, float("nan"))},
    "version 3 without columns": (described(version=3), "object of version, order, variables, cores, columns"),
    "columns in version 2": (described(columns=[[0], [1], [2], [3]]), "object of version, order, variables, cores"),
    **{f"columns {TEXT(v)}": (described(version=3, columns=v), "column") for v in
       (None, 0, "0123", {}, [], [0, 1, 2, 3], [[0], [1], [2]], [[0], [1], [2], [4]], [[0], [1], [2], [2]],
        [[0], [1], [2, 3], []], [[0, 1], [2], [3], [4]], [[0], [1], [2], [-1]], [[0], [1], [2], [3.0]],
        [[False], [True], [2], [3]], [[0], [1], [2], [10**30]], [[], [], [], []], [list(range(100_000)), [], [], []])},
    "version 1 with kinds": (described(version=1), "object of version, order, variables"),
    **{f"order {TEXT(v)}": (described(order=v), "order must be") for v in
       (None, 0, "0123", {}, [], [0], [-1, 0, 1, 2], [0, 1, 2, 99], [0, 0, 1, 2], [0.0, 1, 2, 3],
        [False, True, 2, 3], [0, 1, 2, 10**30], ["label", 1, 2, 3], [[0], 1, 2, 3], [None] * 4)},
    "long order": (described(order=list(range(100_000))), "permutation"),
    "deep order": (described(order=nested(500)), "order must be"),
    **{f"name {TEXT(v)}": (variable(1, name=v), "column 1: name must be a string") for v in
       (0, 1.5, True, [], ["a"], {}, {"a": 1})},
    "deep name": (variable(1, name=nested(500)), "column 1: name"),
    "two columns of one name": (together(variable(0, name="a"), variable(1, name="a")), "names must differ"),
    **{f"family {TEXT(v)}": (variable(0, family=v), "column 0 is of the family") for v in
       (None, 0, [], {}, ["Categorical"], "", "object", "os.system", "TensorRing", "categorical")},
    **{f"arrays {TEXT(v)}": (variable(GAUSSIAN, arrays=v), f"column {GAUSSIAN}: arrays must be") for v in
       (None, 0, "means", {"means": 1, "stds": 2}, [0, 1], [["means"], "stds"], [None])},
    **{f"variables {TEXT(v)}": (described(variables=v), "") for v in (None, 0, "", {}, [], [[]] * 4, [None] * 4)},
    "a column less": (lambda c: c.ring["variables"].pop(), ""),
    "a column more": (lambda c: c.ring["variables"].append(c.ring["variables"][0]), ""),
    "a key more": (described(module="os"), "object of version, order, variables, cores"),
    "a key of a column more": (variable(0, validate=False), "column 0 must be an object"),
    **{f"cores {TEXT(v)}": (described(cores=v), "core") for v in
       (None, 0, "dense", {}, [], ["dense"], ["dense"] * 9, [None] * 4, [["dense"]] * 4, ["Dense"] * 4, ["cp"] * 4)},
    **{f"ring {str(v)[:20]!r}": (lambda c, v=v: c.metadata.update(ring=v), "") for v in
       ("", "null", "[]", "{}", "{", "NaN", "\ufeff{}", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\ud800"')},
    "a key twice": (
        lambda c: c.metadata.update(ring=json.dumps(c.ring)[:-1] + ', "version": 2}'),
        "a key twice",
    ),
    "no ring": (lambda c: c.metadata.pop("ring"), "description of a ring"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies_under_a_right_checksum(content, refused, lie):
    change, finding = LIES[lie]
    contents = taken_apart(content)
    change(contents)
    refused(put_together(contents), finding)


# ------------------------------------------------------------------------------------------------- the header


def claimed(content, name, **entry):
    """The file whose header says something else of one tensor."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[name] |= entry
    return with_header(json.dumps(header), content[8 + length :])


@pytest.mark.parametrize(
    "dtype",
    ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "BF16", "BOOL", "C64", "F128", "f64", "", "<f8", "O", None, 8, ["F64"], {}],
)
@pytest.mark.parametrize("name", ["core.0", f"variable.{GAUSSIAN}.means"])
def test_dtypes(content, refused, name, dtype):
    contents = taken_apart(content)
    tensor = contents.tensors[name]
    itemsize = {"BF16": 2, "C64": 8, "F128": 16}.get(str(dtype), 1)
    contents.tensors[name] = Tensor(dtype, tensor.shape, bytes(int(np.prod(tensor.shape)) * itemsize))
    refused(put_together(contents), f"{name}.*dtypes are")


@pytest.mark.parametrize(
    "shape",
    [
        *([0, 2, 2], [2, 0], [-1], [-1, -2, 2], [2**62, 2**62], [2**64], [0, 2**63], [1, 10**400]),
        *(None, 3, "222", {}, [2.0, 2, 2], [True, 2, 2], [None], [[2]], [1] * 33, [1] * 100_000, [2**60] * 100_000),
    ],
    ids=lambda shape: str(shape)[:30],
)
@pytest.mark.parametrize("name", ["core.0", f"variable.{GAUSSIAN}.means"])
def test_shapes(content, refused, name, shape):
    refused(claimed(content, name, shape=shape), name)


@pytest.mark.parametrize(
    "offsets",
    [None, 0, "08", [], [0], [0, 8, 16], [8, 0], [-8, 0], [0, 2**62], [0.0, 8], [False, 8], [0, 10**400], [[0], 8]],
    ids=str,
)
def test_offsets(content, refused, offsets):
    refused(claimed(content, "core.0", data_offsets=offsets), "tensor")


@pytest.mark.parametrize("entry", [None, 0, "", [], {}, {"dtype": "F64"}], ids=str)
def test_entries(content, refused, entry):
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name in ("core.0", "__metadata__"):
        text = json.dumps(header | {name: entry})
        refused(with_header(text, content[8 + length :]), "" if name == "core.0" else "format")
    refused(with_header(json.dumps(header | {"extra": entry}), content[8 + length :]), "extra")


@pytest.mark.parametrize("value", [None, 0, 1.5, True, [], {}, ["ringdist"]], ids=str)
@pytest.mark.parametrize("name", ["format", "ring", "sha256", "other"])
def test_metadata_that_is_not_text(content, refused, name, value):
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"][name] = value
    refused(with_header(json.dumps(header), content[8 + length :]), "metadata")


def test_keys_of_the_header_twice(content, refused):
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}"
        refused(with_header(text, content[8 + length :]), "a key twice")


@pytest.mark.parametrize(
    "header",
    [
        *(
            "",
            "{",
            "{}",
            "[]",
            "null",
            "0",
            "[" * 200_000,
            '{"a":' * 200_000,
            '{"__metadata__":' + "[" * 900 + "]" * 900 + "}",
        ),
        *("\ufeff{}", "NaN", "9" * 5000, "{}" * 1000, '{"a": Infinity}', "\x00" * 64),
    ],
    ids=lambda text: text[:12],
)
def test_headers(content, refused, header):
    (length,) = struct.unpack("<Q", content[:8])
    refused(with_header(header, content[8 + length :]))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_headers_in_another_encoding(content, refused, encoding):
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].decode().replace("core", "cöre").encode(encoding)
    refused(struct.pack("<Q", len(text)) + text + content[8 + length :], "header|utf-8")


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
def test_lengths_of_the_header(content, refused, length):
    refused(struct.pack("<Q", length) + content[8:], "header")


@pytest.mark.parametrize("size", [2**36, 2**42])
def test_claims_that_memory_does_not_hold(content, tmp_path, little_memory, size):
    """A sparse file takes no room on the disk, and its header is right about its size."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    header["core.99"] = {"dtype": "F64", "shape": [size // 8], "data_offsets": [end, end + size]}
    path = tmp_path / "ring"
    path.write_bytes(with_header(json.dumps(header), b""))
    try:
        os.truncate(path, path.stat().st_size + end + size)
    except OSError:
        pytest.skip("the file system has no files of this size")
    with pytest.raises(ValueError, match="ring has tensors that do not fit into memory"):
        rd.load(path)


@pytest.fixture
def little_memory():
    """8 GiB above what the process has."""
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the memory of a process is known on Linux")
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**33, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_family_whose_constructor_breaks(content, tmp_path):
    """What a user's class does with a file's values is reported like any other finding."""

    class Breaking(LaplaceMixture):
        def __init__(self, locations, scales, name=None):
            raise ZeroDivisionError("float division by zero")

    Breaking.__name__ = "LaplaceMixture"
    (tmp_path / "ring").write_bytes(content)
    with pytest.raises(ValueError, match=rf"column {LAPLACE}: LaplaceMixture.*float division by zero"):
        rd.load(tmp_path / "ring", families=(Breaking,))


def test_a_family_that_takes_anything(content, tmp_path):
    """Arrays that it does not name as its own are not passed for options."""

    class Lenient(LaplaceMixture):
        def __init__(self, locations, scales, name=None, **options):
            super().__init__(locations, scales, name)
            self.options = options

    Lenient.__name__ = "LaplaceMixture"
    contents: Contents = taken_apart(content)
    (tmp_path / "ring").write_bytes(put_together(contents))
    assert rd.load(tmp_path / "ring", families=(Lenient,)).variables[LAPLACE].options == {}
    an_option("shell", np.ones(N[LAPLACE]), LAPLACE, ["locations", "scales"])(contents)
    (tmp_path / "ring").write_bytes(put_together(contents))
    with pytest.raises(ValueError, match=r"must have the arrays \['locations', 'scales'\].*shell"):
        rd.load(tmp_path / "ring", families=(Lenient,))
