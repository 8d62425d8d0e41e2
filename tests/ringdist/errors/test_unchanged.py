"""The caller's arrays: nothing writes into them."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend
from tests.oracle import MIXED, TABLE

pytestmark = pytest.mark.slow_on("jax")


@pytest.mark.parametrize("copy", [True, False])
def test_no_query_writes_into_what_it_is_given(backend, copy, tmp_path):
    """Cores, parameters and points are the caller's; NaN stays NaN. Without copies the ring holds the very arrays."""
    cores = [backend.array(c) for c in MIXED.cores]
    variables, x = backend.variables(MIXED), backend.array(MIXED.possible_rows(6))
    full = backend.array(MIXED.rows(6, missing=0.0))
    ring = rd.TensorRing(cores, variables, order=MIXED.order, copy=copy)
    arrays = [*cores, *ring.cores, x, full, *(a for v in variables for a in v.arrays().values())]
    before = [backend.numpy(a).copy() for a in arrays]
    assert np.isnan(backend.numpy(x)).any() and not np.isnan(backend.numpy(full)).any()
    order = list(MIXED.order)
    evidence = {"label": 1, 1: 0.5}
    for engine in ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        ring.log_prob(x, engine=engine)
    for k in range(4):
        ring.component_posterior(k, x)
        ring.cdf(k, full)
        ring.quantile(k, 0.4, x)
    ring.mean(x), ring.mean(), ring.covariance(), ring.mutual_information(), ring.entropy(5, 0)
    ring.mode(), ring.mode(x), ring.sample(5, rng=0), ring.sample_given(x, rng=0)
    ring.sample_given(x, 3, rng=0), ring.condition(evidence), ring.marginal([0, 2])
    ring.inner(ring), ring.to_train(), ring.permute([3, 1, 0, 2]), ring.einsum(), repr(ring)
    ring.to(dtype=backend.dtype("float32")), ring.to_tensornetwork(), ring.to_tensornetwork(x[0])
    ring.save(tmp_path / "ring.safetensors")
    rd.TensorRing(cores, variables, order=order)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(backend.numpy(array), copy)
    assert evidence == {"label": 1, 1: 0.5} and order == list(MIXED.order)


def test_read_only_arrays_are_good_enough():
    cores = [c.copy() for c in TABLE.cores]
    x = TABLE.possible_rows(6)
    for array in (*cores, x):
        array.flags.writeable = False
    variables, own = load_backend("numpy").variables(TABLE), load_backend("numpy").ring(TABLE)
    ring = rd.TensorRing(cores, variables, order=TABLE.order, copy=False)
    for query in (rd.TensorRing.log_prob, rd.TensorRing.mode, rd.TensorRing.mean):
        np.testing.assert_array_equal(query(ring, x), query(own, x.copy()), err_msg=query.__name__)
    np.testing.assert_array_equal(ring.sample_given(x, rng=0), own.sample_given(x.copy(), rng=0))


def test_answers_are_not_views_of_the_question(backend):
    """Writing into an answer does not change the caller's points or the ring."""
    if backend.name == "jax":
        pytest.skip("JAX arrays are immutable")
    ring, full = backend.ring(MIXED), backend.array(MIXED.rows(6, missing=0.0))
    before = backend.numpy(full).copy()
    for query in (ring.mean, ring.mode, lambda x: ring.sample_given(x, rng=0)):
        query(full)[...] = 5.0
        np.testing.assert_array_equal(backend.numpy(full), before, err_msg=repr(query))
    np.testing.assert_array_equal(backend.numpy(ring.mean(full)), before)
