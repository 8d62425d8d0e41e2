"""Samples of mixtures of rings follow the enumerated probabilities."""

import numpy as np
import pytest

from tests import oracle
from tests.backends import assert_close
from tests.ringdist.ring_mixture.cases import SUMS

pytestmark = pytest.mark.slow_on("jax")


def test_samples_have_all_the_enumerated_probabilities(backend, table):
    x = backend.numpy(table.mixture(backend).sample(20_000, rng=backend.rng(1)))
    assert oracle.chi_square(oracle.counts(x, table.cases[0].shape), table.table) > 1e-4, table


def test_samples_given_the_observed_entries(backend, table):
    """One row that all members explain, one that a single member explains, one that nothing is known of."""
    mixture = table.mixture(backend)
    x = np.array([[1, np.nan, np.nan, 0], [2, np.nan, 1, np.nan], [np.nan] * 4])
    x = x[table.joint(x).sum(-1) > 0]
    drawn = backend.numpy(mixture.sample_given(backend.array(x), 8000, rng=backend.rng(2)))
    assert drawn.shape == (8000, len(x), 4)
    for i, row in enumerate(x):
        seen = ~np.isnan(row)
        assert (drawn[:, i][:, seen] == row[seen]).all()
        cells = oracle.configurations(table.cases[0].shape)
        fits = (cells[:, seen] == row[seen]).all(1)
        probabilities = np.where(fits, table.joint(cells).sum(-1), 0).reshape(table.table.shape)
        assert oracle.chi_square(oracle.counts(drawn[:, i], table.cases[0].shape), probabilities) > 1e-4, (table, i)


def test_a_sample_of_many_rows(backend):
    """One draw for each row, in the place of the row."""
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), np.tile(case.possible_rows(3), (5, 1)).reshape(5, -1, 4)
    drawn = backend.numpy(mixture.sample_given(backend.array(x), rng=backend.rng(3)))
    assert drawn.shape == x.shape
    assert not np.isnan(drawn).any()
    assert (drawn[~np.isnan(x)] == x[~np.isnan(x)]).all()
    assert np.isfinite(backend.numpy(mixture.log_prob(backend.array(drawn)))).all()


def test_moments_of_samples(numpy_backend):
    case = SUMS["mixed"]
    mixture = case.mixture(numpy_backend)
    x = mixture.sample(40_000, rng=4)
    errors = np.sqrt(np.diagonal(mixture.covariance()) / len(x))
    assert (np.abs(x.mean(0) - mixture.mean()) < 5 * errors).all()
    assert_close(np.cov(x.T), mixture.covariance(), mixture, rtol=0.1, atol=0.1)
    row = case.possible_rows(1)[:1]
    row[0] = [1.0, np.nan, np.nan, 0.5]
    given = mixture.sample_given(row, 40_000, rng=5)[:, 0]
    errors = given.std(0) / np.sqrt(len(given)) + 1e-12
    assert (np.abs(given.mean(0) - mixture.mean(row)[0]) < 5 * errors).all()


def test_seeds_and_generators(backend):
    mixture = SUMS["mixed"].mixture(backend)
    x = backend.array(SUMS["mixed"].possible_rows(4))
    for draw in (lambda rng: mixture.sample(7, rng=rng), lambda rng: mixture.sample_given(x, 3, rng=rng)):
        np.testing.assert_array_equal(backend.numpy(draw(3)), backend.numpy(draw(3)))
        assert (backend.numpy(draw(3)) != backend.numpy(draw(4))).any()
        rng = backend.rng(5)
        draw(rng)
    if backend.name == "jax":
        with pytest.raises(ValueError, match="rng"):
            mixture.sample(2)
    else:
        assert mixture.sample(2).shape == (2, 4)
