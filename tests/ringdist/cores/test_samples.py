"""Samples, unconditional and given a row, follow the enumerated joint."""

import numpy as np
import pytest

from tests import oracle
from tests.structured import STRUCTURED, TABLES

pytestmark = pytest.mark.slow_on("jax")


def test_samples(backend, table_case):
    case, ring = table_case.case, table_case.ring(backend)
    x = backend.numpy(ring.sample(20_000, rng=1))
    assert oracle.chi_square(oracle.counts(x, case.shape), case.joint) > 1e-3, table_case
    given = np.full(case.d, np.nan)
    given[0] = np.flatnonzero(case.joint.sum(axis=tuple(range(1, case.d))))[-1]
    x = backend.numpy(ring.sample_given(backend.array(given), 20_000, rng=2))
    rest = np.zeros_like(case.joint)
    rest[int(given[0])] = case.joint[int(given[0])]
    assert oracle.chi_square(oracle.counts(x, case.shape), rest) > 1e-3, table_case


@pytest.mark.parametrize("name", ["full", "train", "diagonal beside"])
def test_samples_of_mixed_columns(backend, name):
    """Means of samples, unconditional and given a row, are those of the enumeration."""
    structured = STRUCTURED[name]
    case, ring, n = structured.case, structured.ring(backend), 20_000
    spread = np.sqrt(np.diag(oracle.covariance(case)) / n)
    x = backend.numpy(ring.sample(n, rng=0))
    assert (np.abs(x.mean(0) - oracle.mean(case, np.full((1, case.d), np.nan))[0]) < 4.5 * spread).all(), structured
    row = case.rows(1, missing=0.0)
    row[:, :2] = np.nan
    x = backend.numpy(ring.sample_given(backend.array(row[0]), n, rng=1))
    np.testing.assert_array_equal(x[:, 2:], np.repeat(row[:, 2:], n, axis=0))
    error = 4.5 * x.std(0) / np.sqrt(n) + 1e-9
    assert (np.abs(x.mean(0) - oracle.mean(case, row)[0]) < error).all(), structured


def test_both_ways_of_sampling_agree(numpy_backend, monkeypatch):
    """The tree of products and the sweep backwards."""
    from ringdist.queries import sampling

    case = TABLES["full"].case
    monkeypatch.setattr(sampling, "prefers_tree", lambda ring: False)
    x = TABLES["full"].ring(numpy_backend).sample(20_000, rng=1)
    assert oracle.chi_square(oracle.counts(x, case.shape), case.joint) > 1e-3
