"""Events asked of mixtures of rings: intervals and sets, against the members and against enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.ringdist.ring_mixture.cases import SUMS, TABLES

pytestmark = pytest.mark.slow_on("jax")


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]


def inside(cells, event):
    return np.all([np.isin(cells[:, k], list(allowed)) for k, allowed in event.items()], axis=0)


EVENTS = [{0: {1}}, {0: {0, 1}, 2: [3, 0, 2]}, {0: {2}, 3: {1}}, {1: range(2)}]


def test_probabilities_of_sets(backend, table):
    mixture, cells = table.mixture(backend), oracle.configurations(table.cases[0].shape)
    mass, x = table.joint(cells).sum(-1), table.possible_rows(6)
    fits = ((cells[None] == x[:, None]) | np.isnan(x)[:, None]).all(-1)
    for event in EVENTS:
        happens = inside(cells, event)
        found = backend.numpy(mixture.probability(event))
        assert_close(found, (mass * happens).sum(), (mixture, event))
        expected = (fits * mass * happens).sum(-1) / (fits * mass).sum(-1)
        found = mixture.probability(event, backend.array(x))
        assert_close(backend.numpy(found), expected, (mixture, event))
        with np.errstate(divide="ignore"):
            logs = backend.numpy(mixture.probability(event, backend.array(x), log=True))
            assert_close(logs, np.log(expected), (mixture, event), atol=1e-9)


def test_probabilities_of_intervals_are_those_of_the_members(backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), case.possible_rows(6)
    for event in ({1: rd.Interval(-1, 2)}, {"label": {0, 2}, "height": rd.Interval(None, 0.5), 2: rd.Interval(1, 3)}):
        parts = np.stack([backend.numpy(ring.probability(event, backend.array(x))) for ring in mixture.rings], axis=1)
        found = backend.numpy(mixture.probability(event, backend.array(x)))
        assert_close(found, (case.posterior(x) * parts).sum(-1), (mixture, event))


def test_far_in_the_tail(backend):
    """The probability is below the range of the dtype, the logarithm has all its digits."""
    rings = [
        rd.TensorRing(
            [backend.array(np.ones((1, 1, 1)))],
            [rd.GaussianMixture(backend.array([mean]), backend.array([std]))],
        )
        for mean, std in ((0.0, 1.0), (3.0, 1.0))
    ]
    mixture = rd.RingMixture(rings, [0.75, 0.25])
    event = {0: rd.Interval(60, None)}
    expected = np.logaddexp(np.log(0.75) + stats.norm.logsf(60), np.log(0.25) + stats.norm.logsf(60, 3))
    assert_close(backend.numpy(mixture.probability(event, log=True)), expected, mixture)
    given = mixture.condition(event)
    assert backend.numpy(given.weights)[1] > 1 - 1e-12
    drawn = backend.numpy(mixture.sample_given(backend.array([np.nan]), 100, event=event, rng=backend.rng()))
    assert (drawn >= 60).all() and (drawn < 61).all()


def test_condition_on_events(backend, table):
    mixture, cells = table.mixture(backend), oracle.configurations(table.cases[0].shape)
    for event in EVENTS:
        expected = np.where(inside(cells, event), table.joint(cells).sum(-1), 0)
        given = mixture.condition(event)
        found = backend.numpy(given.log_prob(backend.array(cells)))
        assert_close(np.exp(found), expected / expected.sum(), (given, event))
    with_value = mixture.condition({0: {1}, 3: 0})
    rest = cells[(cells[:, 3] == 0)]
    expected = np.where(rest[:, 0] == 1, table.joint(rest).sum(-1), 0)
    found = backend.numpy(with_value.log_prob(backend.array(rest[:, :3])))
    assert_close(np.exp(found), expected / expected.sum(), with_value)


def test_samples_within_events(backend, table):
    mixture, cells = table.mixture(backend), oracle.configurations(table.cases[0].shape)
    x = np.array([[np.nan] * 4, [np.nan, 1, np.nan, np.nan]])
    for event in EVENTS[1:3]:
        drawn = backend.numpy(mixture.sample_given(backend.array(x), 6000, event=event, rng=backend.rng(3)))
        for i, row in enumerate(x):
            fits = inside(cells, event) & ((cells == row) | np.isnan(row)).all(1)
            probabilities = np.where(fits, table.joint(cells).sum(-1), 0).reshape(table.table.shape)
            counts = oracle.counts(drawn[:, i], table.cases[0].shape)
            assert oracle.chi_square(counts, probabilities) > 1e-4, (mixture, event, i)


def test_events_that_some_rings_exclude(backend):
    """The label 2 is impossible in one ring; where an event asks for it, only the others are asked."""
    mixture = SUMS["impossible"].mixture(backend)
    assert mixture.condition({0: {2}}).num_rings == 2
    x = backend.array([[np.nan] * 4] * 3)
    drawn = backend.numpy(mixture.sample_given(x, event={0: {2}}, rng=backend.rng()))
    assert (drawn[:, 0] == 2).all()
    only = rd.RingMixture(mixture.rings[:1], [1.0])
    with pytest.raises(ValueError, match="zero mass"):
        only.condition({0: {2}})
    two = rd.RingMixture(mixture.rings[:2], [1.0, 0.0])
    with pytest.raises(ValueError, match="zero mass"):
        two.sample_given(x, event={0: {2}}, rng=backend.rng())
    assert float(two.probability({0: {2}})) == 0


def test_one_ring_answers_as_the_ring_does(backend):
    case = SUMS["mixed"].cases[0]
    ring, x = backend.ring(case), case.possible_rows(4)
    x[:, 1] = np.nan
    x = backend.array(x)
    mixture, event = rd.RingMixture([ring], [2.0]), {1: rd.Interval(-2, 3), 0: {0, 1, 2}}
    pairs = [
        (mixture.probability(event, x), ring.probability(event, x)),
        (
            mixture.sample_given(x, 2, event=event, rng=backend.rng()),
            ring.sample_given(x, 2, event=event, rng=backend.rng()),
        ),
        (mixture.condition(event).mean(), ring.condition(event).mean()),
    ]
    for actual, expected in pairs:
        np.testing.assert_array_equal(backend.numpy(actual), backend.numpy(expected))


def test_events_that_are_refused(numpy_backend):
    mixture = SUMS["mixed"].mixture(numpy_backend)
    x = np.array([[0, 5.0, np.nan, np.nan]])
    with pytest.raises(ValueError, match=r"column 1 \('height'\).*must be in the event.*row 0"):
        mixture.sample_given(x, event={1: rd.Interval(-1, 1)}, rng=0)
    assert mixture.probability({1: rd.Interval(-1, 1)}, x) == 0
    for query in (mixture.probability, lambda e: mixture.sample_given(x, event=e, rng=0), mixture.condition):
        with pytest.raises(ValueError, match="no column 'age'"):
            query({"age": {0}})
        with pytest.raises(ValueError, match="categories have no order"):
            query({0: rd.Interval(0, 1)})
    with pytest.raises(TypeError, match="mapping"):
        mixture.probability([0])


def test_conditionals_of_events_are_saved(numpy_backend, tmp_path):
    mixture = SUMS["mixed"].mixture(numpy_backend).marginal([0, 1, 2])
    given = mixture.condition({"height": rd.Interval(-1, None)})
    given.save(tmp_path / "given")
    again = rd.load(tmp_path / "given")
    x = np.array(list(itertools.product([0, np.nan], [0.5, 2.0, np.nan], [1, np.nan])))
    np.testing.assert_array_equal(again.log_prob(x), given.log_prob(x))


def test_quantiles_of_wide_columns_in_events_need_few_values_of_a_distribution_function(monkeypatch):
    """Each value is an integral on a lattice: bisection took one for every bit of the number."""
    rng = np.random.default_rng(0)

    def ring(components: int) -> rd.TensorRing:
        factor = rng.normal(size=(components, 4, 4))
        covariances = factor @ factor.mT + 0.3 * np.eye(4)
        size = rd.MultivariateGaussianMixture(rng.normal(size=(components, 4)), covariances, names=list("abcd"))
        cores = [rng.random((components, 1, 2)), rng.random((2, 2, 1))]
        return rd.TensorRing(cores, [size, rd.Categorical(2)], columns=[[0, 1, 2, 3], [4]])

    mixture = rd.RingMixture([ring(2), ring(3)], [0.4, 0.6])
    given = mixture.condition({"a": rd.Interval(0, None), "b": rd.Interval(-1, 2), 4: 1})
    rows, levels = np.array([[np.nan, np.nan, 0.3, np.nan], [np.nan] * 4]), np.array([[0.1], [0.6]])
    family, cdf, calls = rd.TruncatedMultivariateGaussianMixture, rd.TruncatedMultivariateGaussianMixture.cdf, []
    monkeypatch.setattr(family, "cdf", lambda self, x: calls.append(1) or cdf(self, x))
    for k in ("a", "d"):
        calls.clear()
        values = given.quantile(k, levels, rows)
        assert values.shape == (2, 2) and 0 < len(calls) < 50  # of two rings together
        points = np.broadcast_to(rows, (2, 2, 4)).copy()
        points[..., "abcd".index(k)] = values
        assert_close(given.cdf(k, points), np.broadcast_to(levels, (2, 2)), given, rtol=1e-9)
    assert_close(given.quantile("a", np.array([0.0, 1.0]), rows[1]), np.array([0.0, np.inf]), given)
