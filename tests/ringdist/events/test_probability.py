"""Probabilities of events, also far in the tails."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

import ringdist as rd
from ringdist.network.events import as_events
from ringdist.queries.log_prob import log_densities
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import MIXED, TABLE, TRAIN
from tests.ringdist.events.cases import COUNTS, EVENT, by_index, mass, nothing, probability, some_event
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")


@over(MIXED, TABLE, TRAIN, COUNTS, case=cases())
def test_probability_by_enumeration(backend, case):
    ring, event, x = backend.ring(case), some_event(case), case.possible_rows(6, missing=0.5)
    assert_close(backend.numpy(ring.probability(event)), probability(case, event, nothing(case))[0], case)
    expected = probability(case, event, x)
    assert_close(backend.numpy(ring.probability(event, backend.array(x))), expected, case)
    with np.errstate(divide="ignore"):
        logs = np.log(expected)
    assert_close(backend.numpy(ring.probability(event, backend.array(x), log=True)), logs, case)


def test_probabilities_of_mixed_columns_on_every_backend(backend, dtype):
    ring, x = backend.ring(MIXED, dtype), MIXED.possible_rows(6, missing=0.5).reshape(2, 3, 4)
    event = by_index(ring, EVENT)
    actual = ring.probability(EVENT, backend.array(x, dtype))
    assert tuple(actual.shape) == (2, 3) and actual.dtype == backend.dtype(dtype)
    expected = probability(MIXED, event, x.reshape(6, 4)).reshape(2, 3)
    assert_close(backend.numpy(actual), expected, ring, rtol=1e-9 if dtype == "float64" else 1e-4, atol=1e-6)


@over(TABLE, case=cases(kinds=("categorical",)))
def test_probabilities_of_a_table_add_up(backend, case):
    ring, table = backend.ring(case), case.joint / case.joint.sum()
    for k in range(case.d):
        parts = [{s} for s in range(case.shape[k])]
        sums = table.sum(axis=tuple(j for j in range(case.d) if j != k))
        assert_close([float(ring.probability({k: part})) for part in parts], sums, case)
        assert_close(float(ring.probability({k: range(case.shape[k])})), 1.0, case)


def test_probability_is_the_integral_of_the_density():
    ring = load_backend("numpy").ring(MIXED)
    observed = np.array([1.0, np.nan, 2.0, np.nan])

    def density(t):
        return math.exp(ring.log_prob([1.0, t, 2.0, np.nan]) - ring.log_prob(observed))

    found = integrate.quad(density, -0.3, 1.1)[0]
    np.testing.assert_allclose(ring.probability({"height": rd.Interval(-0.3, 1.1)}, observed), found, rtol=1e-8)
    np.testing.assert_allclose(
        ring.probability({"height": rd.Interval(None, 1.1)}, observed), ring.cdf("height", [1.0, 1.1, 2.0, np.nan])
    )


@pytest.mark.parametrize("engine", ["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"])
def test_every_engine_sees_events(engine):
    numpy_backend = load_backend("numpy")
    for case, event in ((MIXED, EVENT), (TABLE, {0: {1}, 2: {0, 2}})):
        ring, x = numpy_backend.ring(case), case.possible_rows(5, missing=0.6)
        events = as_events(ring, event)
        with np.errstate(divide="ignore"):
            expected = np.log(mass(case, by_index(ring, event), x) / case.joint.sum())
        assert_close(log_densities(ring, x, engine, events), expected, engine)


def test_observed_entries_are_checked():
    ring = load_backend("numpy").ring(MIXED)
    x = np.array([[np.nan, 0.5, np.nan, np.nan], [np.nan, 0.6, np.nan, np.nan], [1.0, -1.0, 2.0, 0.3]])
    assert ring.probability({"height": rd.Interval(-1, 0.5)}, x).tolist() == [1.0, 0.0, 1.0]
    assert ring.probability({"label": {0, 2}, "height": rd.Interval(0, 1)}, x[2:]).tolist() == [0.0]
    rounded = ring.to(dtype="float32")  # 0.1 of float32 is above 0.1
    assert rounded.probability({"height": rd.Interval(0, 0.1)}, np.float32([[np.nan, 0.1, np.nan, np.nan]])) == [1.0]


def test_no_event_is_certain_and_no_interval_too():
    ring = load_backend("numpy").ring(MIXED)
    x = MIXED.possible_rows(4)
    assert (ring.probability({}, x) == 1).all() and ring.probability({}) == 1
    assert (ring.probability({"height": rd.Interval(), "count": rd.Interval(0, None)}, x) == 1).all()
    assert ring.probability({"count": rd.Interval(0.2, 0.8)}) == 0  # there is no integer in it
    assert ring.probability({"height": rd.Interval(1, 1)}) == 0
    assert ring.probability({"height": rd.Interval(0, 1)}, x[:0]).shape == (0,)


def test_probabilities_far_below_the_range_of_floats(backend, dtype):
    """e^-2598 and e^-8e11, from masses of Gaussian, count and Laplace tails."""
    ring = backend.ring(MIXED, dtype)
    means, stds = (np.asarray(MIXED.columns[1].parameters[n], dtype=dtype) for n in ("means", "stds"))
    weights = np.log(oracle.posterior(MIXED, 1, nothing(MIXED))[0])
    for low in (60.0, 1e6):
        expected = special.logsumexp(weights + special.log_ndtr(-(low - means.astype(float)) / stds))
        actual = ring.probability({"height": rd.Interval(low, None)}, log=True)
        assert_close(float(actual), expected, ring, rtol=1e-6 if dtype == "float32" else 1e-11)
    assert float(ring.probability({"height": rd.Interval(60, None)})) == 0
    rates = MIXED.columns[2].parameters["rates"]
    x = np.arange(300.0, 401)
    weights = np.log(oracle.posterior(MIXED, 2, nothing(MIXED))[0])
    expected = special.logsumexp(stats.poisson(rates).logpmf(x[:, None]) + weights)
    actual = ring.probability({"count": rd.Interval(300, 400)}, log=True)
    assert_close(float(actual), expected, ring, rtol=1e-6 if dtype == "float32" else 1e-11)


def test_far_tails_given_what_rows_observe():
    """The component that an observed label selects is not the one that has the mass of the event."""
    cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]
    ring = rd.TensorRing(cores, [rd.Categorical(2), rd.GaussianMixture([0.0, 100.0], [1.0, 1.0])])
    event = {1: rd.Interval(90, None)}
    logs = ring.probability(event, [[0, np.nan], [1, np.nan], [np.nan, np.nan]], log=True)
    np.testing.assert_allclose(
        logs, [special.log_ndtr(-90.0), special.log_ndtr(10.0), math.log(0.5)], rtol=1e-12, atol=1e-15
    )
    x = ring.sample_given([[0, np.nan], [1, np.nan]], 1000, event=event, rng=0)
    assert (x[:, 0, 1] >= 90).all() and x[:, 0, 1].mean() < 90.05 and x[:, 1, 1].mean() > 99


def test_every_component_far_away_at_its_own_scale():
    """Densities of e^-5e7 to e^-5e19 beside each other."""
    std = 10.0 ** np.arange(-3, 4)
    ring = rd.TensorRing([np.full((7, 1, 1), 1 / 7)], [rd.GaussianMixture(np.zeros(7), std)])
    logs = special.log_ndtr(-1e7 / std) - math.log(7)
    actual = ring.probability({0: rd.Interval(1e7, None)}, log=True)
    np.testing.assert_allclose(actual, special.logsumexp(logs), rtol=1e-13)
    conditional = ring.condition({0: rd.Interval(1e7, None)})
    np.testing.assert_allclose(conditional.mean() - 1e7, 0.1, rtol=1e-6)  # std² / low of the widest
    np.testing.assert_allclose(conditional.covariance()[0, 0], 0.01, rtol=1e-6)
