"""Single precision, and JAX as it comes (without x64): right to rounding, and float32 all the way through."""

import contextlib

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.oracle import MIXED, TABLE, TRAIN
from tests.ringdist.test_conversions import assert_same_logs, wide_ring
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")

CLOSE = {"rtol": 2e-4, "atol": 2e-4}


@pytest.fixture(params=["x64", "default"])
def precision(request, backend):
    """Under "default", JAX has no float64 at all, as in most users' processes."""
    if backend.name != "jax":
        if request.param == "default":
            pytest.skip("x64 is JAX's switch")
        context = contextlib.nullcontext()
    else:
        import jax

        context = jax.enable_x64(request.param == "x64")
    with context:
        yield request.param


@over(MIXED, TABLE, TRAIN, case=cases())
def test_log_prob_in_single_precision(backend, engine, case):
    ring, x = backend.ring(case, "float32"), case.rows(6)
    actual = ring.log_prob(backend.array(x, "float32"), engine=engine)
    assert actual.dtype == backend.dtype("float32"), actual
    exact = oracle.log_prob(case, x.astype(np.float32))
    assert_close(backend.numpy(actual), exact, case, **CLOSE)


@pytest.mark.parametrize("case", [MIXED, TRAIN], ids=["mixed", "train"])
def test_every_query_in_single_precision(backend, precision, case):
    ring, x = backend.ring(case, "float32"), case.possible_rows(6).astype(np.float32)
    rows, single = backend.array(x, "float32"), backend.dtype("float32")
    full = backend.array(case.rows(6, missing=0.0), "float32")
    expected = {
        "log_prob": (ring.log_prob(rows), oracle.log_prob(case, x)),
        "log_normalizer": (ring.log_normalizer(), np.log(case.joint.sum())),
        "component_posterior": (ring.component_posterior(1, rows), oracle.posterior(case, 1, x)),
        "mean": (ring.mean(rows), oracle.mean(case, x)),
        "covariance": (ring.covariance(), oracle.covariance(case)),
        "cdf": (ring.cdf(1, full), oracle.cdf(case, 1, backend.numpy(full))),
        "mutual_information": (ring.mutual_information(), oracle.mutual_information(case)),
        "inner": (ring.inner(ring), oracle.inner(case, case)),
    }
    for name, (actual, exact) in expected.items():
        assert actual.dtype == single, (name, actual.dtype)
        assert_close(backend.numpy(actual), exact, (case, name), **CLOSE)
    for name, actual in {
        "sample": ring.sample(3, rng=0),
        "sample_given": ring.sample_given(rows, rng=0),
        "mode": ring.mode(rows),
        "quantile": ring.quantile(1, 0.3, rows),
        "marginal": ring.marginal([0, 2]).cores[0],
        "condition": ring.condition({0: 1}).cores[0],
        "to_train": ring.to_train().cores[0],
    }.items():
        assert actual.dtype == single, (name, actual.dtype)
        assert np.isfinite(backend.numpy(actual)).all(), (name, actual)


@pytest.mark.parametrize("seed", [1, 5])
def test_trains_of_wide_rings_in_single_precision(backend, precision, seed):
    structured, table, x = wide_ring(seed, "float32")
    ring = structured.ring(backend, "float32")
    assert_same_logs(backend, ring.to_train(), ring, table, x, "float32")


def test_quantiles_in_single_precision(backend, precision):
    ring, x = backend.ring(MIXED, "float32"), MIXED.possible_rows(6)
    q = np.random.default_rng(0).uniform(0.02, 0.98, len(x))
    x[:, 1] = backend.numpy(ring.quantile(1, backend.array(q, "float32"), backend.array(x, "float32")))
    assert_close(oracle.cdf(MIXED, 1, x), q, MIXED, rtol=1e-3, atol=1e-4)


def test_double_points_and_single_cores(backend):
    """The result has the dtype of the cores."""
    ring, x = backend.ring(MIXED, "float32"), backend.array(MIXED.rows(6))
    assert ring.log_prob(x).dtype == backend.dtype("float32")
    ring, x = backend.ring(MIXED), backend.array(MIXED.rows(6), "float32")
    assert ring.log_prob(x).dtype == backend.dtype("float64")


def test_samples_in_single_precision_have_the_right_probabilities(backend, precision):
    x = backend.numpy(backend.ring(TABLE, "float32").sample(20_000, rng=3))
    assert oracle.chi_square(oracle.counts(x, TABLE.shape), TABLE.joint) > 1e-3, TABLE


def test_random_rings_without_x64(backend, precision):
    ring = rd.TensorRing.random([rd.Categorical(3)] * 4, 2, rng=0, xp=backend.xp, device=backend.device)
    expected = "float64" if backend.name == "numpy" or (backend.name, precision) == ("jax", "x64") else "float32"
    assert ring.cores[0].dtype == backend.dtype(expected), ring
    assert np.isfinite(backend.numpy(ring.log_prob(ring.sample(3, rng=0)))).all(), ring


def test_rare_events_are_not_lost(backend, precision):
    """1 − F in the far tail and probabilities of 1e-30 keep their relative precision."""
    core = np.array([1.0, 1e-30]).reshape(2, 1, 1)
    case = oracle.Case((core, np.ones((2, 1, 1))), (oracle.Column("categorical", 2),) * 2, (0, 1))
    x = np.array([[1.0, 0.0], [0.0, 0.0]])
    actual = backend.numpy(backend.ring(case, "float32").log_prob(backend.array(x, "float32")))
    assert_close(actual, oracle.log_prob(case, x), case, rtol=1e-5)
