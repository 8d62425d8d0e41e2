"""Intervals of columns that have a variable of their own, beside variables of several columns."""

import numpy as np
import pytest
from scipy import integrate

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.wide.cases import ORACLE, ROWS, D, wide_ring

pytestmark = pytest.mark.slow_on("jax")


def test_probability_of_an_interval(backend):
    ring = wide_ring(backend)
    event = {"b": rd.Interval(-0.5, 1.0)}
    found = backend.numpy(ring.probability(event, backend.array(ROWS)))
    for b, row in enumerate(ROWS):
        expected = ORACLE.cdf(2, 1.0, row) - ORACLE.cdf(2, -0.5, row)
        if not np.isnan(row[2]):
            expected = float(-0.5 <= row[2] <= 1.0)
        assert_close(found[b], expected, (row, ring))
    alone = ORACLE.cdf(2, 1.0, np.full(D, np.nan)) - ORACLE.cdf(2, -0.5, np.full(D, np.nan))
    assert_close(backend.numpy(ring.probability(event)), alone, ring)


def test_events_of_several_variables():
    ring = wide_ring(load_backend("numpy"))
    event = {"b": rd.Interval(0.0, None), 6: rd.Interval(None, 0.5), "kind": {0, 2}}
    row = np.where(np.arange(D) == 3, 0.4, np.full(D, np.nan))
    inside = ring.sample_given(row, 200_000, rng=0)
    share = ((inside[:, 2] >= 0) & (inside[:, 6] <= 0.5) & np.isin(inside[:, 0], [0, 2])).mean()
    assert abs(ring.probability(event, row) - share) < 0.006


def test_samples_within_an_interval(backend):
    """Draws have the moments of those draws without the event that lie within it."""
    ring = wide_ring(backend)
    row = np.array([np.nan, 0.2, np.nan, np.nan, np.nan, np.nan, 0.1])
    event = {"b": rd.Interval(0.5, 1.5)}
    drawn = backend.numpy(ring.sample_given(backend.array(row), 20_000, event=event, rng=backend.rng()))
    assert ((drawn[:, 2] >= 0.5) & (drawn[:, 2] <= 1.5)).all()
    free = np.array(wide_ring(load_backend("numpy")).sample_given(row, 200_000, rng=1))
    kept = free[(free[:, 2] >= 0.5) & (free[:, 2] <= 1.5)]
    scale = kept.std(axis=0) + 1e-9
    assert np.abs((drawn.mean(axis=0) - kept.mean(axis=0)) / scale).max() < 0.05
    assert np.abs(np.cov(drawn.T) - np.cov(kept.T)).max() < 0.1 * scale.max() ** 2


def test_condition_on_an_interval_of_the_only_column_left(backend):
    ring = wide_ring(backend)
    conditional = ring.condition({"b": rd.Interval(-0.5, 1.0), "a": 0.2, "c": 0.3})
    assert isinstance(conditional.variables[1], rd.Truncated)
    row = np.full(D, np.nan)
    row[[1, 3]] = 0.2, 0.3
    mass = ORACLE.cdf(2, 1.0, row) - ORACLE.cdf(2, -0.5, row)
    point = np.where(np.arange(D) == 2, 0.7, row)
    expected = ORACLE.log_prob(point[None])[0] - ORACLE.log_prob(row[None])[0] - np.log(mass)
    found = conditional.log_prob(backend.array([np.nan, 0.7, np.nan, np.nan, np.nan]))
    assert_close(backend.numpy(found), expected, conditional)


def test_an_interval_without_bounds_says_nothing():
    ring = wide_ring(load_backend("numpy"))
    conditional = ring.condition({"a": rd.Interval(), 6: 0.1})
    rest = ROWS[:, :6]
    assert_close(conditional.log_prob(rest), ring.condition({6: 0.1}).log_prob(rest), ring)


def test_an_interval_integrates_the_density():
    ring = wide_ring(load_backend("numpy"))
    row = np.where(np.isin(np.arange(D), [1, 4]), 0.3, np.full(D, np.nan))

    def density(b):
        return np.exp(ring.log_prob(np.where(np.arange(D) == 2, b, row)) - ring.log_prob(row))

    assert_close(ring.probability({"b": rd.Interval(0, 1)}, row), integrate.quad(density, 0, 1)[0], ring, rtol=1e-7)
