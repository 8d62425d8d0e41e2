"""Modes against enumeration and samples."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.engines import budget
from ringdist.queries import modes
from tests import oracle
from tests.backends import assert_close
from tests.oracle import MIXED, TABLE, TRAIN
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")


@over(TABLE, case=cases(kinds=("categorical",)), examples=0.5)
def test_mode_of_a_small_discrete_ring_is_exact(backend, case):
    ring, everything = backend.ring(case), oracle.configurations(case.shape)
    best = backend.numpy(ring.mode())
    assert_close(oracle.mass(case, best), case.joint.max(), case)
    x = case.possible_rows(6)
    completed = backend.numpy(ring.mode(backend.array(x)))
    np.testing.assert_array_equal(completed[~np.isnan(x)], x[~np.isnan(x)], err_msg=repr(case))
    for row, completion in zip(x, completed, strict=True):
        agree = ((everything == row) | np.isnan(row)).all(-1)
        expected = oracle.mass(case, everything[agree]).max()
        assert_close(oracle.mass(case, completion), expected, (case, row))


@over(MIXED, TRAIN, case=cases(), examples=0.3)
def test_mode_of_any_ring_is_a_completion_better_than_samples(backend, case):
    ring, x = backend.ring(case), case.possible_rows(6)
    mode = backend.numpy(ring.mode(backend.array(x)))
    assert not np.isnan(mode).any(), case
    np.testing.assert_array_equal(mode[~np.isnan(x)], x[~np.isnan(x)], err_msg=repr(case))
    drawn = backend.numpy(ring.sample_given(backend.array(x), 20, rng=0))
    assert (oracle.mass(case, mode) >= oracle.mass(case, drawn).max(0) * (1 - 1e-9)).all(), case


class Waiting:
    """Exponential waiting times, whose formula goes on below 0: only `check` knows that they end there."""

    def __init__(self, rates, name=None):
        self.rates, self.num_components, self.name = np.asarray(rates, dtype=float), len(rates), name

    def log_density(self, x):
        return np.log(self.rates) - self.rates * x[..., None]

    def cdf(self, x):
        return -np.expm1(-self.rates * x[..., None])

    def sample(self, component, rng):
        return rng.exponential(1 / self.rates[component])

    def means(self):
        return 1 / self.rates

    def variances(self):
        return self.rates**-2.0

    def inner(self, other):
        return self.rates[:, None] * other.rates / (self.rates[:, None] + other.rates)

    def update(self, x, responsibilities):
        return self

    def arrays(self):
        return {"rates": self.rates}

    def check(self, x):
        if (x < 0).any():
            raise ValueError("waiting times are not negative")


def test_mode_stays_where_a_family_of_ones_own_allows(numpy_backend):
    variables = [Waiting([0.5, 2.0]), rd.Categorical(2), Waiting([1.0, 3.0])]
    ring = rd.TensorRing.random(variables, 2, rng=0)
    x = np.array([[np.nan, 1.0, 2.0], [np.nan, np.nan, np.nan]])
    best = ring.mode(x)
    assert best[0, 0] == pytest.approx(0.0, abs=1e-6) and (best[:, [0, 2]] >= 0).all()
    assert (ring.log_prob(best) >= ring.log_prob(ring.sample_given(x, 200, rng=1))).all()


def test_mode_of_a_large_ring_is_a_completion(numpy_backend):
    case = oracle.make_case(["categorical"] * 40, [3] * 40, [4] * 40, range(40), seed=5)
    ring = numpy_backend.ring(case)
    drawn = ring.sample(200, rng=0)
    assert ring.log_prob(ring.mode()) >= ring.log_prob(drawn).max(), ring
    drawn[:, 20:] = np.nan
    completed = ring.mode(drawn[:5])
    np.testing.assert_array_equal(completed[:, :20], drawn[:5, :20])
    assert not np.isnan(completed).any(), completed


@pytest.mark.parametrize("kinds", [["categorical"], ["gaussian"], ["categorical", "gaussian", "poisson"]], ids="-".join)
def test_mode_completes_rows_together_whatever_each_misses(numpy_backend, monkeypatch, kinds):
    """No density is below that of rows on their own, and there are as many sweeps as for rows that miss the same."""
    d = 12
    case = oracle.make_case((kinds * d)[:d], [5] * d, [3] * d, range(d), seed=9)
    ring = numpy_backend.ring(case)
    rng, calls = np.random.default_rng(1), []
    sweep = modes._ascend_once
    monkeypatch.setattr(modes, "_ascend_once", lambda *a: calls.append(len(a[1])) or sweep(*a))
    x = ring.sample(30, rng=0)
    x[rng.random(x.shape) < 0.6] = np.nan
    x[0], x[1] = ring.sample(1, rng=1)[0], np.nan
    completed = ring.mode(x)
    assert len(calls) <= modes.PASSES, calls
    np.testing.assert_array_equal(completed[~np.isnan(x)], x[~np.isnan(x)])
    alone = np.stack([ring.mode(row) for row in x[:4]])
    assert (ring.log_prob(completed[:4]) >= ring.log_prob(alone) - 0.2).all(), kinds


def test_mode_compares_completions_of_rows_that_miss_different_columns_at_once(numpy_backend, monkeypatch):
    case = oracle.make_case(["categorical"] * 6, [2, 3, 4, 2, 3, 2], [3] * 6, range(6), seed=10)
    ring, everything = numpy_backend.ring(case), oracle.configurations(case.shape)
    x, calls = case.possible_rows(64, missing=0.5), []
    log_prob = modes.log_prob
    monkeypatch.setattr(modes, "log_prob", lambda *a: calls.append(1) or log_prob(*a))
    completed = ring.mode(x)
    assert len(calls) <= 13, calls
    monkeypatch.setattr(budget, "TEMPORARY", 50)  # rows and completions in pieces
    np.testing.assert_array_equal(ring.mode(x), completed)
    for row, completion in zip(x, completed, strict=True):
        agree = ((everything == row) | np.isnan(row)).all(-1)
        assert_close(oracle.mass(case, completion), oracle.mass(case, everything[agree]).max(), (case, row))
