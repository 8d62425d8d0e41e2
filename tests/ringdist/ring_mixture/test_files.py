"""Files of mixtures of rings: round trips, and files that are damaged or lie."""

import json

import numpy as np
import pytest

import ringdist as rd
from ringdist.interop import files
from tests.families import LaplaceMixture
from tests.ringdist.ring_mixture.cases import SUMS, Sum
from tests.safetensors_files import Tensor, put_together, taken_apart

pytestmark = pytest.mark.slow_on("jax")

MIXED: Sum = SUMS["mixed"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mixture.safetensors"


@pytest.fixture(scope="module")
def content(numpy_backend, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("mixtures") / "mixture"
    MIXED.mixture(numpy_backend).save(path)
    return path.read_bytes()


def test_round_trip(backend, dtype, path):
    for name, case in SUMS.items():
        mixture, x = case.mixture(backend, dtype), backend.array(case.possible_rows(4), dtype)
        mixture.save(path)
        again = rd.load(path, xp=backend.xp, families=[LaplaceMixture]).to(device=backend.device)
        assert isinstance(again, rd.RingMixture), name
        assert repr(again) == repr(mixture)
        assert [ring.order for ring in again.rings] == [ring.order for ring in mixture.rings]
        assert [v.name for v in again.variables] == [v.name for v in mixture.variables]
        np.testing.assert_array_equal(backend.numpy(again.weights), backend.numpy(mixture.weights))
        np.testing.assert_array_equal(backend.numpy(again.log_prob(x)), backend.numpy(mixture.log_prob(x)))


def test_weights_that_the_dtype_cannot_hold(numpy_backend, path):
    """What evidence has made of the weights is kept as logarithms."""
    d = 400
    rings = [
        rd.TensorRing([np.reshape(w, (2, 1, 1))] * d, [rd.Categorical(2)] * d) for w in ([0.9, 0.1], [0.001, 0.999])
    ]
    mixture = rd.RingMixture(rings, [0.5, 0.5]).condition(dict.fromkeys(range(120), 0))
    assert mixture.weights[1] == 0
    mixture.save(path)
    x = np.ones((1, 280))
    assert (rd.load(path).ring_posterior(x) == mixture.ring_posterior(x)).all()
    assert 0 < mixture.ring_posterior(x)[0, 1] < 1e-50


def test_extra(numpy_backend, path):
    from ringdist.interop import mixtures

    mixture = MIXED.mixture(numpy_backend)
    mixtures.save(mixture.rings, mixture.linear, mixture.logs, path, extra={"note": [1, "a"]})
    assert files.read_extra(path, "note") == [1, "a"]
    assert rd.load(path, families=[LaplaceMixture]).num_rings == 2
    for name in ("mixture", "ring", "sha256"):
        with pytest.raises(ValueError, match=name):
            mixtures.save(mixture.rings, mixture.linear, mixture.logs, path, extra={name: 1})


def test_files_of_rings_still_load(numpy_backend, path):
    ring = MIXED.rings(numpy_backend)[0]
    ring.save(path)
    again = rd.load(path, families=[LaplaceMixture])
    assert isinstance(again, rd.TensorRing) and repr(again) == repr(ring)


def test_an_estimator_does_not_load_a_mixture(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        rd.TensorRingDensity.load(path)


def test_tracers_are_not_saved(path):
    jax = pytest.importorskip("jax")

    def save(w):
        rd.RingMixture([rd.TensorRing([jax.numpy.ones((2, 1, 1))], [rd.Categorical(2)])], w).save(path)
        return w

    with pytest.raises(ValueError, match="outside of tracing"):
        jax.jit(save)(jax.numpy.ones(1))
    assert not path.exists()


# ----------------------------------------------------------------------------------------------- hostile files


def refused(path, data: bytes, finding: str = "") -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"(?s){path.name}.*{finding}"):
        rd.load(path, families=[LaplaceMixture])


def test_truncated_files(path, content):
    for length in (0, 7, 9, len(content) // 3, len(content) - 1):
        refused(path, content[:length])
    refused(path, content + b"\0")


def test_files_with_one_byte_changed(path, content):
    for place in np.unique(np.linspace(0, len(content) - 1, 150).astype(int)):
        broken = bytearray(content)
        broken[place] ^= 0x41
        refused(path, bytes(broken))


def tensor(name, value, of=np.float64):
    return lambda c: c.tensors.update({name: Tensor.of(np.asarray(value, dtype=of))})


def described(**changes):
    return lambda c: c.metadata["mixture"].update(changes)


def renamed(old, new):
    return lambda c: c.tensors.update({new: c.tensors.pop(old)})


def of_ring(c, **changes):
    return lambda contents: contents.metadata["mixture"]["rings"][c].update(changes)


def column(ring, k, **changes):
    return lambda c: c.metadata["mixture"]["rings"][ring]["variables"][k].update(changes)


LIES = {
    # weights
    "negative weight": (tensor("weights", [1.0, -1.0]), "not negative, found -1 for ring 1"),
    "zero weights": (tensor("weights", [0.0, 0.0]), "only zeros"),
    "nan weight": (tensor("weights", [1.0, np.nan]), "weights must be finite"),
    "infinite weight": (tensor("weights", [1.0, np.inf]), "weights must be finite"),
    "infinite logarithm": (tensor("log_weights", [0.0, -np.inf]), "log_weights must be finite"),
    "nan logarithm": (tensor("log_weights", [0.0, np.nan]), "log_weights must be finite"),
    "one weight": (tensor("weights", [1.0]), "one for each of 2 rings"),
    "three weights": (tensor("log_weights", [1.0] * 3), "one for each of 2 rings"),
    "scalar weights": (tensor("weights", 1.0), "one for each of 2 rings"),
    "weights of two axes": (tensor("weights", [[1.0, 1.0]]), "one for each of 2 rings"),
    "integer weights": (tensor("weights", [1, 1], np.int64), "float32 or float64"),
    "half weights": (tensor("weights", [1, 1], np.float16), "float32 or float64"),
    "no weights": (lambda c: c.tensors.pop("weights"), "tensor weights, found none"),
    "no logarithms": (lambda c: c.tensors.pop("log_weights"), "tensor log_weights, found none"),
    # rings and their tensors
    "tensors of a third ring": (tensor("rings.2.core.0", [1.0]), "must belong to rings"),
    "tensors of no ring": (tensor("core.0", [1.0]), "must belong to rings"),
    "one ring twice": (tensor("rings.01.core.0", [1.0]), "must belong to rings"),
    "other digits": (tensor("rings.\u0661.core.0", [1.0]), "must belong to rings"),
    "a superscript": (tensor("rings.\u00b2.core.0", [1.0]), "must belong to rings"),
    "a huge number": (tensor(f"rings.{'9' * 5000}.core.0", [1.0]), "must belong to rings"),
    "no number": (tensor("rings..core.0", [1.0]), "must belong to rings"),
    "a tensor without a name": (tensor("rings.0", [1.0]), "ring 0.*must belong to columns"),
    "a tensor more": (tensor("rings.0.core.9", [1.0]), "ring 0.*must belong to columns"),
    "a core of another ring": (renamed("rings.0.core.0", "rings.1.core.0"), "ring 0.*tensor 'core.0', found none"),
    "a negative core": (tensor("rings.0.core.0", -MIXED.cases[0].cores[0]), "ring 0.*not negative"),
    "a core of another dtype": (tensor("rings.0.core.0", MIXED.cases[0].cores[0], np.float32), "ring 0.*one dtype"),
    # the description
    **{f"version {v}": (described(version=v), "format version") for v in (0, 2, None, True, "1", 1.0, [1], {})},
    **{f"rings {v}": (described(rings=v), "list of at least one") for v in (None, 0, "", {}, [])},
    "rings that are none": (described(rings=[None, None]), "ring 0"),
    "one ring": (lambda c: c.metadata["mixture"]["rings"].pop(), "one for each of 1 rings"),
    "three rings": (lambda c: c.metadata["mixture"]["rings"].append({}), "one for each of 3 rings"),
    "many rings": (described(rings=[None] * 100_000), "one for each of 100000 rings"),
    "a key more": (described(module="os"), "object of version, rings"),
    "a ring's version": (of_ring(1, version=99), "ring 1.*format version is 99"),
    "a ring's order": (of_ring(0, order=[0, 0, 1, 2]), "ring 0.*permutation"),
    "another name": (column(1, 1, name="width"), r"'height'.*'width'.*ring 1"),
    "another family": (column(1, 3, family="os.system"), "ring 1.*family"),
    "not an object": (lambda c: c.metadata.update(mixture="[]"), "object of version, rings"),
    "no JSON": (lambda c: c.metadata.update(mixture="{"), "not JSON"),
    "nested": (lambda c: c.metadata.update(mixture="[" * 100_000), "JSON"),
    "a ring besides": (lambda c: c.metadata.update(ring=c.metadata["mixture"]["rings"][0]), "found both"),
    "nothing": (lambda c: c.metadata.pop("mixture"), "valid ring"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_under_a_right_checksum(content, path, lie):
    change, finding = LIES[lie]
    contents = taken_apart(content)
    change(contents)
    refused(path, put_together(contents), finding)


def test_the_mixture_itself_loads(content, path):
    path.write_bytes(put_together(taken_apart(content)))
    assert rd.load(path, families=[LaplaceMixture]).num_rings == 2


def test_rings_of_several_dtypes(content, path):
    contents = taken_apart(content)
    for name, stored in contents.tensors.items():
        if name.startswith("rings.1."):
            contents.tensors[name] = Tensor.of(stored.array.astype(np.float32))
    refused(path, put_together(contents), "one dtype")


def test_a_ring_of_other_columns(content, path):
    """Each ring is right, and they are not over the same columns."""
    contents = taken_apart(content)
    first = contents.metadata["mixture"]["rings"][0]
    contents.metadata["mixture"]["rings"][1] = json.loads(json.dumps(first))
    for name in [n for n in contents.tensors if n.startswith("rings.1.")]:
        del contents.tensors[name]
    for name in [n for n in contents.tensors if n.startswith("rings.0.")]:
        contents.tensors[name.replace("rings.0.", "rings.1.")] = contents.tensors[name]
    path.write_bytes(put_together(contents))
    assert rd.load(path, families=[LaplaceMixture]).num_rings == 2
    contents.metadata["mixture"]["rings"][1]["variables"][2]["name"] = None
    refused(path, put_together(contents), r"column 2 \('count'\) and column 2 \(ring 1\)")
