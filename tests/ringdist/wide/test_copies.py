"""Mixtures, files, copies and gradients of rings with variables of several columns."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.wide.cases import COLUMNS, ORACLE, ORDER, ROWS, D, Enumerated, pair, wide_ring

pytestmark = pytest.mark.slow_on("jax")


def test_mixture_of_rings(backend):
    rings = [wide_ring(backend), wide_ring(backend, 5, [1, 3, 2, 2], [1, 3, 0, 2])]
    oracles = [ORACLE, Enumerated(5, [1, 3, 2, 2], [1, 3, 0, 2])]
    mixture, weights = rd.RingMixture(rings, [0.25, 0.75]), np.array([0.25, 0.75])
    assert mixture.num_columns == D and mixture.num_variables == 4
    joint = weights[:, None] * np.exp([oracle.log_prob(ROWS) for oracle in oracles])
    x = backend.array(ROWS)
    assert_close(backend.numpy(mixture.log_prob(x)), np.log(joint.sum(axis=0)), mixture)
    share = joint / joint.sum(axis=0)
    means = np.array([[oracle.mean(row) for row in ROWS] for oracle in oracles])
    assert_close(backend.numpy(mixture.mean(x)), np.einsum("cb,cbd->bd", share, means), mixture)
    point = np.where(np.arange(D) == 2, 0.3, ROWS)
    rest = np.where(np.arange(D) == 2, np.nan, ROWS)
    joint = weights[:, None] * np.exp([oracle.log_prob(rest) for oracle in oracles])
    values = np.array([[oracle.cdf(2, 0.3, row) for row in ROWS] for oracle in oracles])
    expected = (joint / joint.sum(axis=0) * values).sum(axis=0)
    assert_close(backend.numpy(mixture.cdf("b", backend.array(point))), expected, mixture)
    levels = backend.array([[0.1], [0.6]])
    quantiles = backend.numpy(mixture.quantile("b", levels, x))
    again = mixture.cdf("b", backend.array(np.where(np.arange(D) == 2, quantiles[1][:, None], ROWS)))
    np.testing.assert_allclose(backend.numpy(again), 0.6, atol=1e-9)
    assert tuple(mixture.sample_given(x, 2, rng=backend.rng()).shape) == (2, len(ROWS), D)
    assert tuple(mixture.component_posterior("b", x).shape) == (len(ROWS), 8)
    assert tuple(mixture.covariance().shape) == (D, D)
    rest = mixture.condition({"b": 0.3, 6: rd.Interval(0, 1), 5: 0.1})
    assert rest.num_columns == 5


def test_mixtures_of_rings_that_group_columns_differently():
    numpy = load_backend("numpy")
    wide = rd.TensorRing.random([rd.MultivariateGaussianMixture(*pair()), rd.GaussianMixture([0.0], [1.0])], 2, rng=0)
    narrow = rd.TensorRing.random([rd.GaussianMixture([0.0, 1.0], [1.0, 2.0])] * 3, 2, rng=0)
    mixture = rd.RingMixture([wide, narrow], [0.5, 0.5])
    x = np.where(np.random.default_rng(0).random((20, 3)) < 0.3, np.nan, 0.4)
    expected = np.logaddexp(wide.log_prob(x), narrow.log_prob(x)) - np.log(2)
    assert_close(mixture.log_prob(x), expected, numpy)
    median = mixture.quantile(1, 0.5, x)
    np.testing.assert_allclose(mixture.cdf(1, np.where(np.arange(3) == 1, median[:, None], x)), 0.5, atol=1e-9)
    both = mixture.quantile(1, np.array([[0.5], [0.7]]), x)
    assert_close(both[0], median, mixture)
    with pytest.raises(ValueError, match="rings must have the same columns at each variable"):
        mixture.mutual_information()


def test_files_pickles_and_copies(tmp_path):
    ring = wide_ring(load_backend("numpy"))
    ring.save(tmp_path / "ring.safetensors")
    for again in (rd.load(tmp_path / "ring.safetensors"), pickle.loads(pickle.dumps(ring)), copy.deepcopy(ring)):
        np.testing.assert_array_equal(again.log_prob(ROWS), ring.log_prob(ROWS))
        assert again.layout.names == ring.layout.names and again.columns == COLUMNS
    mixture = rd.RingMixture([ring, ring], [0.5, 0.5])
    mixture.save(tmp_path / "mixture.safetensors")
    np.testing.assert_array_equal(rd.load(tmp_path / "mixture.safetensors").log_prob(ROWS), mixture.log_prob(ROWS))


def test_files_that_name_columns_wrongly(tmp_path):
    import json

    from ringdist.interop import tensorfile

    wide_ring(load_backend("numpy")).save(tmp_path / "ring.safetensors")
    metadata, tensors = tensorfile.read(tmp_path / "ring.safetensors")
    for change, message in [
        ({"options": {"names": ["a", "b"]}}, "one name for each of 3 columns"),
        ({"options": {"names": "abc"}}, "names must be a list of strings"),
        ({"options": {"names": ["a", "b", 3]}}, "names must be a list of strings"),
        ({"options": {"names": ["kind", "b", "c"]}}, "names must differ"),
        ({"name": "abc"}, "unexpected keyword argument 'name'"),
    ]:
        description = json.loads(metadata["ring"])
        description["variables"][1].update(change)
        tensorfile.write(tmp_path / "bad.safetensors", {"ring": json.dumps(description)}, dict(tensors))
        with pytest.raises(ValueError, match=message):
            rd.load(tmp_path / "bad.safetensors")


def test_other_backends_and_float32(backend):
    ring = wide_ring(backend).to(dtype="float32")
    x = backend.array(ROWS, "float32")
    np.testing.assert_allclose(backend.numpy(ring.log_prob(x)), ORACLE.log_prob(ROWS), rtol=2e-4, atol=2e-4)
    assert ring.sample(4, rng=backend.rng()).dtype == x.dtype
    assert ring.mean(x).dtype == x.dtype


def test_gradients_of_a_ring():
    torch = pytest.importorskip("torch")
    base = wide_ring(load_backend("torch"))
    means, matrices = (array.clone().requires_grad_() for array in base.variables[1].arrays().values())

    def density(means, matrices):
        variable = rd.MultivariateGaussianMixture(means, (matrices + matrices.mT) / 2, names=["a", "b", "c"])
        changed = [base.variables[0], variable, *base.variables[2:]]
        return rd.TensorRing(base.cores, changed, order=ORDER).log_prob(torch.tensor(ROWS)).sum()

    assert torch.autograd.gradcheck(density, (means, matrices))
