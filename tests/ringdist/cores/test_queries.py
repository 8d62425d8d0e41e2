"""Densities, posteriors, moments, quantiles and modes are those of the enumerated joint."""

import numpy as np
import pytest

from tests import oracle
from tests.backends import assert_close
from tests.ringdist.cores.cases import CLOSE, queries

pytestmark = pytest.mark.slow_on("jax")


def test_log_prob(backend, engine, dtype, ring_case):
    x = ring_case.case.rows(6)
    actual = ring_case.ring(backend, dtype).log_prob(backend.array(x, dtype), engine=engine)
    expected = oracle.log_prob(ring_case.case, x.astype(dtype))
    assert_close(backend.numpy(actual), expected, (ring_case, engine), **CLOSE[dtype])


def test_queries(backend, dtype, ring_case):
    case, ring = ring_case.case, ring_case.ring(backend, dtype)
    x, full = case.possible_rows(5).astype(dtype), case.rows(4, missing=0.0).astype(dtype)
    actual = queries(ring, backend.array(x, dtype), backend.array(full, dtype))
    plain = queries(ring.dense(), backend.array(x, dtype), backend.array(full, dtype))
    expected = {
        "log_normalizer": np.log(case.joint.sum()),
        **{f"component_posterior {k}": oracle.posterior(case, k, x) for k in range(case.d)},
        "mean": oracle.mean(case, np.full((1, case.d), np.nan))[0],
        "mean given": oracle.mean(case, x),
        "covariance": oracle.covariance(case),
        "mutual_information": oracle.mutual_information(case),
        **{f"cdf {k}": oracle.cdf(case, k, full) for k in range(case.d)},
        "inner": oracle.inner(case, case),
    }
    for name, value in actual.items():
        value, close = backend.numpy(value), dict(CLOSE[dtype])
        if name == "mode":  # a search: never worse than the same search with dense cores by more than its steps
            close["atol"] = 1e-3
        assert value.dtype == dtype, name
        assert_close(value, backend.numpy(plain[name]), (ring_case, name), **close)
        if name in expected:
            assert_close(value, expected[name], (ring_case, name), **(close if name != "inner" else CLOSE["float32"]))


def test_tables(backend, dtype, table_case):
    case, ring = table_case.case, table_case.ring(backend, dtype)
    table = case.joint / case.joint.sum()
    assert_close(backend.numpy(ring.to_dense()), table, table_case, **CLOSE[dtype])
    value, error = ring.entropy()
    assert error == 0
    assert_close(value, -(table[table > 0] * np.log(table[table > 0])).sum(), table_case, **CLOSE[dtype])
    best = backend.numpy(ring.mode())
    assert_close(table[tuple(best.astype(int))], table.max(), table_case, **CLOSE[dtype])
    x = case.possible_rows(5)
    completed = backend.numpy(ring.mode(backend.array(x, dtype)))
    seen = ~np.isnan(x)
    np.testing.assert_array_equal(completed[seen], x[seen])
    for row, full in zip(x, completed, strict=True):
        agree = np.where(np.isnan(row), True, oracle.configurations(case.shape) == row).all(axis=1)
        top = case.joint.reshape(-1)[agree].max()
        assert_close(case.joint[tuple(full.astype(int))] / top, 1.0, table_case, **CLOSE[dtype])


def test_entropy_by_sampling(numpy_backend, ring_case):
    ring = ring_case.ring(numpy_backend)
    value, error = ring.entropy(4000, rng=0)
    plain, other = ring.dense().entropy(4000, rng=1)
    assert abs(value - plain) < 4.5 * np.hypot(error, other) + 1e-12, ring_case


def test_no_samples_and_no_rows(backend, ring_case):
    ring, d = ring_case.ring(backend), ring_case.case.d
    none = backend.array(np.zeros((0, d)))
    assert ring.sample(0, rng=backend.rng()).shape == (0, d)
    assert ring.sample_given(none, rng=backend.rng()).shape == (0, d)
    assert ring.log_prob(none).shape == (0,)
    assert ring.mean(none).shape == (0, d)
    assert ring.mode(none).shape == (0, d)
    assert ring.component_posterior(0, none).shape == (0, ring.shape[0])
    assert ring.quantile(0, 0.5, none).shape == (0,)
