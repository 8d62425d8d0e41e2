"""Columns within intervals and sets: probabilities, conditionals and draws by enumeration and by rejection."""

import copy
import math
import pickle

import numpy as np
import pytest
from scipy import integrate, special, stats

import ringdist as rd
from ringdist.network.events import as_events
from ringdist.queries.log_prob import log_densities
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import MIXED, TABLE, TRAIN, make_case
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")

COUNTS = make_case(["poisson", "categorical", "poisson"], [3, 2, 2], [2, 3, 2], [2, 0, 1], seed=7)
EVENT = {
    "label": {0, 2},
    "height": rd.Interval(-1, 0.5),
    "count": rd.Interval(2, None),
    "delay": rd.Interval(None, 1.0),
}
FAR = {"height": rd.Interval(60, None), "count": rd.Interval(300, 400), "delay": rd.Interval(500, None)}


def some_event(case):
    """Events of about half of the columns."""
    rng = np.random.default_rng(case.seed)
    event = {}
    for k, column in enumerate(case.columns):
        if rng.random() < 0.5 and event:
            continue
        if column.kind == "categorical":
            chosen = rng.random(column.num_components) < 0.6
            chosen[rng.integers(column.num_components)] = True
            event[k] = set(np.flatnonzero(chosen).tolist())
        else:
            low, high = np.sort(column.draw(2, rng)) + np.array([0.0, 0.7])
            event[k] = rd.Interval(None if rng.random() < 0.3 else low, None if rng.random() < 0.3 else high)
    return event


def component_masses(column, event):
    """P(event | s), (N,), from whichever tail does not cancel."""
    if not isinstance(event, rd.Interval):
        return np.isin(np.arange(column.num_components), list(event)).astype(float)
    low, high = event.low, event.high
    if column.kind == "poisson":
        low = math.ceil(low) - 1 if math.isfinite(low) else low
    below = column.frozen.cdf(high) - column.frozen.cdf(low)
    above = column.frozen.sf(low) - column.frozen.sf(high)
    return np.where(column.means() < low, above, below)


def holds(event, x):
    """Whether values are in the event; NaN is."""
    inside = (x >= event.low) & (x <= event.high) if isinstance(event, rd.Interval) else np.isin(x, list(event))
    return inside | np.isnan(x)


def mass(case, event, x):
    """p(x, event) Z of rows x: (n, d) -> (n,)."""
    operands: list = [case.joint, list(range(case.d))]
    for k, column in enumerate(case.columns):
        weights = column.density(x[:, k])
        if k in event:
            weights = np.where(np.isnan(x[:, k])[:, None], component_masses(column, event[k]), weights)
            weights = weights * holds(event[k], x[:, k])[:, None]
        operands += [weights, [case.d, k]]
    return np.einsum(*operands, [case.d], optimize=True)


def probability(case, event, x):
    return mass(case, event, x) / mass(case, {}, x)


def by_index(ring, event):
    return {ring.column(k): value for k, value in event.items()}


def nothing(case, n=1):
    return np.full((n, case.d), np.nan)


# ------------------------------------------------------------------------------------------- probabilities


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


# ----------------------------------------------------------------------------------------------- far tails


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


# -------------------------------------------------------------------------------------------- conditionals


@over(MIXED, TABLE, TRAIN, COUNTS, case=cases())
def test_conditionals_have_the_density_over_the_probability(backend, case):
    ring, event, x = backend.ring(case), some_event(case), case.possible_rows(8, missing=0.3)
    if probability(case, event, nothing(case))[0] == 0:
        with pytest.raises(ValueError, match="zero mass"):
            ring.condition(event)
        return
    conditional = ring.condition(event)
    with np.errstate(divide="ignore"):
        expected = np.log(mass(case, event, x)) - np.log(mass(case, event, nothing(case)))
    assert_close(backend.numpy(conditional.log_prob(backend.array(x))), expected, (ring, event))
    assert conditional.ranks == ring.ranks and conditional.shape == ring.shape


@over(MIXED, TRAIN, case=cases(min_d=2))
def test_values_and_events_together(backend, case):
    ring, event, row = backend.ring(case), some_event(case), case.possible_rows(3, missing=0)[-1]
    given = [k for k in range(case.d) if k not in event][:-1] or [next(iter(event))]
    event = {k: value for k, value in event.items() if k not in given}
    if len(given) == case.d:
        return
    rest = [k for k in range(case.d) if k not in given]
    evidence = np.where(np.isin(np.arange(case.d), given), row, np.nan)[None]
    if mass(case, event, evidence)[0] == 0:
        return
    conditional = ring.condition({**event, **{k: float(row[k]) for k in given}})
    x = case.possible_rows(5, missing=0.3)
    x[:, given] = row[given]
    with np.errstate(divide="ignore"):
        expected = np.log(mass(case, event, x)) - np.log(mass(case, event, evidence))
    assert_close(backend.numpy(conditional.log_prob(backend.array(x[:, rest]))), expected, (ring, event, given))


def test_conditionals_of_every_backend(backend, dtype):
    ring = backend.ring(MIXED, dtype)
    conditional = ring.condition({"label": [0, 2], "height": rd.Interval(-1, 0.5), "count": 3})
    assert [v.name for v in conditional.variables] == ["label", "height", "delay"], conditional
    x = np.array([[0.0, 0.2, 1.0], [1.0, 0.2, 1.0], [2.0, 0.7, 1.0], [np.nan, np.nan, -3.0]])
    full = np.insert(x, 2, 3.0, axis=1)
    event, evidence = {0: {0, 2}, 1: rd.Interval(-1, 0.5)}, np.array([[np.nan, np.nan, 3.0, np.nan]])
    with np.errstate(divide="ignore"):
        expected = np.log(mass(MIXED, event, full)) - np.log(mass(MIXED, event, evidence))
    tolerance = {} if dtype == "float64" else {"rtol": 1e-5, "atol": 1e-5}
    assert_close(backend.numpy(conditional.log_prob(backend.array(x, dtype))), expected, conditional, **tolerance)
    assert conditional.log_prob(backend.array(x, dtype)).dtype == backend.dtype(dtype)


def test_moments_quantiles_and_samples_of_a_conditional():
    """Beside rejection: what is left of samples of the whole ring."""
    ring = load_backend("numpy").ring(MIXED)
    conditional = ring.condition(EVENT)
    samples = ring.sample(600_000, rng=0)
    kept = samples[np.all([holds(v, samples[:, ring.column(k)]) for k, v in EVENT.items()], axis=0)]
    n = len(kept)
    assert abs(n / 6e5 - ring.probability(EVENT)) < 5 * math.sqrt(n) / 6e5
    covariance = conditional.covariance()
    errors = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(conditional.mean() - kept.mean(axis=0)) < 5 * errors).all()
    product = (kept - kept.mean(axis=0))[:, :, None] * (kept - kept.mean(axis=0))[:, None, :]
    assert (np.abs(covariance - product.mean(axis=0)) < 5 * product.std(axis=0) / math.sqrt(n) + 1e-9).all()
    drawn = conditional.sample(40_000, rng=1)
    for k in (1, 3):
        assert stats.ks_2samp(drawn[:, k], kept[:, k]).pvalue > 1e-3, k
        values = conditional.quantile(k, [0.0, 0.1, 0.5, 0.9, 1.0], nothing(MIXED, 5))
        bounds = EVENT["height"] if k == 1 else rd.Interval(-math.inf, 1.0)
        assert values[0] == bounds.low and math.isclose(values[-1], bounds.high, rel_tol=1e-12)
        np.testing.assert_allclose(np.mean(kept[:, k, None] <= values[1:4], axis=0), [0.1, 0.5, 0.9], atol=0.02)
        at = nothing(MIXED, 3)
        at[:, k] = values[1:4]
        np.testing.assert_allclose(conditional.cdf(k, at), [0.1, 0.5, 0.9], atol=1e-9)
    assert conditional.quantile("count", 0.0, nothing(MIXED)[0]) == 2
    counts = np.bincount(kept[:, 2].astype(int), minlength=30)[:30]
    x = nothing(MIXED, 30)
    x[:, 2] = np.arange(30)
    assert oracle.chi_square(counts, np.exp(conditional.log_prob(x))) > 1e-3
    assert (
        oracle.chi_square(np.bincount(drawn[:, 2].astype(int), minlength=30)[:30], np.exp(conditional.log_prob(x)))
        > 1e-3
    )


def test_every_query_of_a_conditional():
    ring = load_backend("numpy").ring(MIXED)
    conditional, x = ring.condition(EVENT), nothing(MIXED, 3)
    x[1, 0], x[2, 1] = 2.0, 0.25
    assert np.isfinite(conditional.log_normalizer()) and np.isfinite(conditional.mean(x)).all()
    filled = conditional.sample_given(x, 200, rng=0)
    for k, event in EVENT.items():
        assert (
            holds(event, filled[..., ring.column(k)]).all()
            and holds(event, conditional.mode(x)[:, ring.column(k)]).all()
        )
    assert (filled[:, 1, 0] == 2).all() and (filled[:, 2, 1] == 0.25).all()
    one = conditional.marginal(["height", "label"])
    other = ring.marginal(["label", "height", "delay", "count"]).condition(EVENT).marginal([0, 1])
    np.testing.assert_allclose(one.log_prob([[2.0, 0.1]]), other.log_prob([[2.0, 0.1]]))
    y = np.array([[0.0, 0.1, 3.0, 0.5]])
    np.testing.assert_allclose(conditional.to_train().log_prob(y), conditional.log_prob(y))
    order = [3, 1, 0, 2]
    np.testing.assert_allclose(conditional.permute(order).log_prob(y[:, order]), conditional.log_prob(y))
    assert conditional.mutual_information().shape == (4, 4) and "Truncated" in repr(conditional)
    value, error = conditional.entropy(20_000, rng=0)
    sample = conditional.log_prob(conditional.sample(20_000, rng=1))
    assert abs(value + sample.mean()) < 8 * error
    np.testing.assert_allclose(conditional.component_posterior("label", x).sum(axis=1), 1.0)
    again = conditional.probability({"height": rd.Interval(0, 9)})
    np.testing.assert_allclose(
        again, ring.probability({**EVENT, "height": rd.Interval(0, 0.5)}) / ring.probability(EVENT)
    )


def test_conditions_one_after_another():
    """Intervals within intervals, then a value in them."""
    ring = load_backend("numpy").ring(MIXED)
    once = ring.condition({"height": rd.Interval(-1, 2), "label": {0, 1}})
    twice = once.condition({"height": rd.Interval(0, None), "label": {1, 2}})
    direct, x = ring.condition({"height": rd.Interval(0, 2), "label": {1}}), np.array([[1.0, 0.4, 2.0, 0.1]])
    np.testing.assert_allclose(twice.log_prob(x), direct.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(twice.covariance(), direct.covariance(), rtol=1e-9, atol=1e-12)
    one = once.condition({"height": 0.4, "count": 2})
    other = ring.condition({"height": 0.4, "count": 2, "label": {0, 1}})
    np.testing.assert_allclose(one.log_prob(x[:, [0, 3]]), other.log_prob(x[:, [0, 3]]), rtol=1e-10)
    with pytest.raises(ValueError, match="zero mass"):
        once.condition({"height": rd.Interval(3, 4)})
    assert once.probability({"height": rd.Interval(3, 4)}) == 0


def test_sets_keep_the_numbers_of_categories():
    ring = load_backend("numpy").ring(TABLE)
    conditional = ring.condition({0: {2}, 2: {1, 3}})
    table = ring.to_dense()
    table[:2], table[:, :, ::2] = 0, 0
    np.testing.assert_allclose(conditional.to_dense(), table / table.sum())
    assert set(np.unique(conditional.sample(500, rng=0)[:, 0])) == {2}
    np.testing.assert_allclose(conditional.entropy()[0], stats.entropy(table.ravel()))
    assert all(v is w for v, w in zip(conditional.variables, ring.variables, strict=True))


def test_a_ring_of_one_column(backend):
    ring = rd.TensorRing([backend.array([[[0.2]], [[0.8]]])], [rd.Categorical(2)])
    assert_close(backend.numpy(ring.condition({0: {1}}).to_dense()), [0.0, 1.0], ring)
    both = backend.ring(make_case(["categorical", "gaussian"], [2, 2], [2, 2], [1, 0], seed=4))
    conditional = both.condition({0: 1, 1: rd.Interval(0, 1)})  # one column is left, with an event
    x = backend.array([[1.0, 0.3]])
    expected = both.log_prob(x) - both.log_prob(backend.array([[1.0, np.nan]]))
    expected = expected - both.probability({1: rd.Interval(0, 1)}, backend.array([[1.0, np.nan]]), log=True)
    assert_close(backend.numpy(conditional.log_prob(x[:, 1:])), backend.numpy(expected), conditional)


def test_components_of_masses_that_one_core_cannot_hold():
    """e^-800 beside 1 in float64: scales move across the bond, and what remains possible stays so."""
    cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]
    ring = rd.TensorRing(cores, [rd.Categorical(2), rd.GaussianMixture([0.0, 50.0], [1.0, 1.0])])
    conditional = ring.condition({1: rd.Interval(40, None)})
    np.testing.assert_allclose(conditional.log_prob([0, np.nan]), special.log_ndtr(-40.0) - special.log_ndtr(10.0))
    np.testing.assert_allclose(
        conditional.condition({0: 0}).mean(), ring.condition({0: 0, 1: rd.Interval(40, None)}).mean()
    )
    third = rd.TensorRing(
        [*cores[:1], cores[1] @ np.ones((1, 2)), np.ones((2, 2, 1))], [*ring.variables, rd.Categorical(2)]
    )
    one = third.condition({0: 0, 2: 1, 1: rd.Interval(40, None)})  # the value decides before masses are rounded
    np.testing.assert_allclose(one.mean(), [40.02497], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("x", [nothing(MIXED), [[1.0, np.nan, np.nan, 0.3]], [[np.nan, 0.2, 3.0, np.nan]]], ids=str)
def test_draws_within_an_event_by_rejection(x):
    ring, event = load_backend("numpy").ring(MIXED), {**EVENT, "label": {1, 2}}
    drawn = ring.sample_given(x, 20_000, event=event, rng=0)[:, 0]
    plain = ring.sample_given(x, 200_000, rng=1)[:, 0]
    kept = plain[np.all([holds(v, plain[:, ring.column(k)]) for k, v in event.items()], axis=0)]
    assert len(kept) > 1000
    for k in range(4):
        assert holds(event[MIXED.columns[k].name], drawn[:, k]).all()
        if not np.isnan(np.asarray(x)[0, k]):
            assert (drawn[:, k] == np.asarray(x)[0, k]).all()
        elif MIXED.columns[k].kind in oracle.DISCRETE:
            tables = [np.bincount(part[:, k].astype(int), minlength=40) for part in (drawn, kept)]
            used = (tables[0] + tables[1]) > 10
            assert stats.chi2_contingency(np.stack(tables)[:, used]).pvalue > 1e-3, k
        else:
            assert stats.ks_2samp(drawn[:, k], kept[:, k]).pvalue > 1e-3, k
    centred = [part - part.mean(axis=0) for part in (drawn, kept)]
    one, other = (np.einsum("ni,nj->ij", part, part) / len(part) for part in centred)
    assert np.abs(one - other).max() < 0.05 * (1 + np.abs(other).max())


@over(TABLE, case=cases(kinds=("categorical",)), examples=0.3)
def test_draws_of_a_table_within_an_event(backend, case):
    ring, event = backend.ring(case), some_event(case)
    cells = oracle.configurations(case.shape)
    weights = mass(case, event, cells)
    if weights.sum() == 0 or len(cells) == 1:
        return
    x = ring.sample_given(backend.array(nothing(case)), 4000, event=event, rng=backend.rng())
    found = oracle.counts(backend.numpy(x)[:, 0], case.shape).ravel()
    assert oracle.chi_square(found, weights / weights.sum()) > 1e-4, (case, event)


def test_draws_far_in_the_tails(backend, dtype):
    """Every draw is in an event of probability e^-2598, with the moments of the conditional ring."""
    ring = backend.ring(MIXED, dtype)
    x = backend.numpy(ring.sample_given(backend.array(nothing(MIXED), dtype), 3000, event=FAR, rng=backend.rng()))[:, 0]
    for k, interval in FAR.items():
        assert holds(interval, x[:, ring.column(k)].astype(float)).all(), k
    conditional = load_backend("numpy").ring(MIXED).condition(FAR)
    errors = np.sqrt(np.diag(conditional.covariance()) / len(x))
    limit = 5 * errors + np.abs(conditional.mean()) * (1e-6 if dtype == "float32" else 1e-12)
    assert (np.abs(x.mean(axis=0) - conditional.mean()) < limit).all(), (x.mean(axis=0), conditional.mean())


def test_draws_of_many_rows_and_shapes():
    ring = load_backend("numpy").ring(MIXED)
    x = MIXED.possible_rows(6, missing=0.9).reshape(2, 3, 4)
    x[..., 1] = np.nan
    event = {"height": rd.Interval(1, 2)}
    assert ring.sample_given(x, event=event, rng=0).shape == (2, 3, 4)
    drawn = ring.sample_given(x, 5, event=event, rng=0)
    assert drawn.shape == (5, 2, 3, 4) and holds(event["height"], drawn[..., 1]).all()
    np.testing.assert_array_equal(drawn, ring.sample_given(x, 5, event=event, rng=0))
    np.testing.assert_array_equal(ring.sample_given(x, 5, event={}, rng=0), ring.sample_given(x, 5, rng=0))
    assert ring.sample_given(x[:0], 5, event=event, rng=0).shape == (5, 0, 3, 4)


# ------------------------------------------------------------------------------------------- kinds of rings


SQUARE = make_case(["categorical", "gaussian", "poisson"], [3, 3, 3], [3, 3, 3], [1, 0, 2], seed=11)


@pytest.mark.parametrize(
    "factors", ["left emission right", "emission right", "left right", "emission", "left", "right"]
)
def test_cp_cores(factors, backend):
    rng = np.random.default_rng(len(factors))
    cores = [rd.CPCore(**{name: backend.array(rng.random((3, 3))) for name in factors.split()}) for _ in range(3)]
    ring = rd.TensorRing(cores, backend.variables(SQUARE), order=SQUARE.order)
    event, x = {0: {0, 2}, 1: rd.Interval(0, 1), 2: rd.Interval(2, None)}, backend.array(SQUARE.rows(3, missing=0.7))
    dense = ring.dense()
    assert_close(backend.numpy(ring.probability(event, x)), backend.numpy(dense.probability(event, x)), ring)
    one, other = ring.condition(event), dense.condition(event)
    assert_close(backend.numpy(one.mean()), backend.numpy(other.mean()), one)
    assert type(one.links[0]) is rd.CPCore and set(one.links[0].arrays()) == set(factors.split()), one


def test_long_trains(dtype):
    """Ten thousand columns, half of them with an event."""
    d, rng = 10_000, np.random.default_rng(0)
    variables = [rd.GaussianMixture(np.array([0.0, 3.0], dtype), np.ones(2, dtype))] * d
    transition = np.array([[[0.9, 0.1], [0, 0]], [[0, 0], [0.2, 0.8]]], dtype)
    cores = [transition] * d
    cores[0] = transition.sum(axis=1, keepdims=True)
    cores[-1] = transition.sum(axis=2, keepdims=True)
    ring = rd.TensorRing(cores, variables)
    event = {k: rd.Interval(2, 5) for k in range(0, d, 2)}
    logs = np.log(np.exp(variables[0].log_probability(2.0, 5.0)))
    state, total = np.log([0.5, 0.5]) + logs, 0.0
    steps = np.log([[0.9, 0.1], [0.2, 0.8]])
    for k in range(1, d):
        state = special.logsumexp(state[:, None] + steps, axis=0) + (logs if k % 2 == 0 else 0)
        total += state.max()
        state -= state.max()
    expected = total + special.logsumexp(state)
    np.testing.assert_allclose(ring.probability(event, log=True), expected, rtol=1e-5 if dtype == "float32" else 1e-11)
    x = ring.sample_given(np.full(d, np.nan, dtype), event=event, rng=rng)
    assert ((x[::2] >= 2) & (x[::2] <= 5)).all()


def test_learning_on_a_conditional_moves_cores_only():
    ring = load_backend("numpy").ring(TRAIN)
    conditional = ring.condition({1: rd.Interval(0, 1)})
    x = conditional.sample(200, rng=0)
    fitted, history = rd.fit_em(conditional, x, max_epochs=4)
    assert repr(fitted.variables[1]) == repr(conditional.variables[1])
    assert (np.diff(history["train"]) >= -1e-12).all() and np.isfinite(fitted.log_prob(x)).all()


# ------------------------------------------------------------------------------------- gradients, tracing


def parameters_of(backend, case):
    return [backend.array(core) for core in case.cores], [
        {n: backend.array(a) for n, a in c.parameters.items()} for c in case.columns
    ]


def differences(function, array, step=1e-6):
    """Central differences of a scalar function of a NumPy array."""
    found = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


GRADIENTS = {
    "an interval": {1: rd.Interval(-1, 0.7)},
    "a tail": {1: rd.Interval(1, None)},
    "far away": {1: rd.Interval(30, 30.5)},
    "counts": {2: rd.Interval(1, 3)},
    "many counts": {2: rd.Interval(60, None)},
    "a set": {0: {1, 2}},
    "all": {0: {0, 2}, 1: rd.Interval(None, 1), 2: rd.Interval(0, 4)},
}
SMOOTH = make_case(["categorical", "gaussian", "poisson"], [3, 2, 2], [2, 2, 2], [0, 1, 2], seed=9)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("query", ["probability", "given", "condition"])
def test_gradients(name, query):
    torch = pytest.importorskip("torch")
    event, case = GRADIENTS[name], SMOOTH
    x = np.array(
        [[np.nan, 0.3 if 1 not in event else np.nan, np.nan], [np.nan, np.nan, 2.0 if 2 not in event else np.nan]]
    )

    def value(arrays, xp):
        cores, (means, stds, rates) = arrays[:3], arrays[3:]
        ring = rd.TensorRing(cores, [rd.Categorical(3), rd.GaussianMixture(means, stds), rd.PoissonMixture(rates)])
        if query == "condition":
            return ring.condition(event).mean().sum()
        rows = xp.asarray(x) if xp is np else xp.tensor(x)
        return ring.probability(event, None if query == "probability" else rows, log=True).sum()

    parts = [*case.cores, *(a for c in case.columns for a in c.parameters.values())]
    tensors = [torch.tensor(a, requires_grad=True) for a in parts]
    value(tensors, torch).backward()
    for i, tensor in enumerate(tensors):
        expected = differences(lambda a, i=i: float(value([*parts[:i], a, *parts[i + 1 :]], np)), parts[i])
        found = np.zeros_like(parts[i]) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6, err_msg=f"{name}: array {i}")


@pytest.mark.slow
def test_gradients_of_jax_are_those_of_torch():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    jaxed, torched = load_backend("jax"), load_backend("torch")
    event = {1: rd.Interval(0, 1), 0: {1}}
    gradient = jax.grad(lambda ring: ring.probability(event, log=True))(jaxed.ring(TRAIN))
    parts = [torch.tensor(a, requires_grad=True) for a in TRAIN.cores]
    parameters = {n: torch.tensor(a, requires_grad=True) for n, a in TRAIN.columns[1].parameters.items()}
    variables = [rd.Categorical(2), rd.GaussianMixture(**parameters), rd.Categorical(4)]
    rd.TensorRing(parts, variables).probability(event, log=True).backward()
    for one, other in zip(gradient.cores, parts, strict=True):
        assert_close(np.asarray(one), torched.numpy(other.grad), TRAIN)
    for name, array in gradient.variables[1].arrays().items():
        assert_close(np.asarray(array), torched.numpy(parameters[name].grad), name)


def test_jit():
    """Rings with truncated components pass through, and events within."""
    jax = pytest.importorskip("jax")
    backend = load_backend("jax")
    ring, plain = backend.ring(TRAIN), load_backend("numpy").ring(TRAIN)
    event, x = {0: {1}, 1: rd.Interval(0, 1)}, np.array([[np.nan, np.nan, 1.0], [1.0, 0.3, np.nan]])
    actual = jax.jit(lambda ring, x: ring.probability(event, x))(ring, backend.array(x))
    assert_close(np.asarray(actual), plain.probability(event, x), ring)
    conditional = jax.jit(lambda ring: ring.condition(event))(ring)
    actual = jax.jit(lambda ring, x: ring.log_prob(x))(conditional, backend.array(x))
    assert_close(np.asarray(actual), plain.condition(event).log_prob(x), conditional)
    draw = jax.jit(lambda ring, x, key: ring.sample_given(x, 500, event=event, rng=key))
    drawn = np.asarray(draw(ring, backend.array(x[:1]), backend.rng()))
    assert (drawn[..., 0] == 1).all() and holds(event[1], drawn[..., 1]).all() and (drawn[..., 2] == 1).all()


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`", "ignore::UserWarning")
@pytest.mark.slow
def test_torch_compile():
    torch = pytest.importorskip("torch")
    backend = load_backend("torch")
    ring, x = backend.ring(TRAIN), backend.array([[np.nan, np.nan, 1.0]])
    event = {0: {1}, 1: rd.Interval(0, 1)}
    compiled = torch.compile(lambda x: ring.probability(event, x), backend="eager", fullgraph=True)
    assert_close(backend.numpy(compiled(x)), backend.numpy(ring.probability(event, x)), ring)


def test_pathwise_samples_of_a_conditional():
    """E[x] within an interval has the gradient of the truncated mean."""
    torch = pytest.importorskip("torch")
    means = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    stds = torch.tensor([1.0, 0.5], dtype=torch.float64)
    ring = rd.TensorRing([torch.ones(2, 1, 1, dtype=torch.float64)], [rd.GaussianMixture(means, stds)])
    conditional = ring.condition({0: rd.Interval(-1, 2)})
    x = conditional.sample(20_000, rng=torch.Generator().manual_seed(0)).detach()
    (found,) = torch.autograd.grad(conditional.pathwise(x).mean(), means, retain_graph=True)
    (expected,) = torch.autograd.grad(conditional.mean()[0], means)
    assert torch.allclose(found, expected, atol=0.02), (found, expected)


# ---------------------------------------------------------------------------------- files, copies, backends


def test_truncated_rings_in_files(tmp_path, backend, dtype):
    from tests.families import LaplaceMixture

    conditional = backend.ring(MIXED, dtype).condition(EVENT)
    conditional.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring", families=(LaplaceMixture,), xp=backend.xp)
    x = backend.array([[0.0, 0.2, 3.0, 0.5]], dtype)
    if not backend.device:
        np.testing.assert_array_equal(backend.numpy(again.log_prob(x)), backend.numpy(conditional.log_prob(x)))
    assert [repr(v) for v in again.variables[:3]] == [repr(v) for v in conditional.variables[:3]]


def test_copies_and_other_dtypes():
    conditional = load_backend("numpy").ring(MIXED).condition(EVENT)
    x = np.array([[0.0, 0.2, 3.0, 0.5]])
    for again in (copy.deepcopy(conditional), pickle.loads(pickle.dumps(conditional))):
        np.testing.assert_array_equal(again.log_prob(x), conditional.log_prob(x))
    narrow = conditional.to(dtype="float32")
    assert narrow.variables[1].arrays()["means"].dtype == np.float32
    np.testing.assert_allclose(narrow.log_prob(x), conditional.log_prob(x), rtol=1e-5)


@pytest.mark.fast_on("jax")
def test_to_another_backend():
    torch = pytest.importorskip("torch")
    conditional = load_backend("numpy").ring(TRAIN).condition({1: rd.Interval(0, 1)})
    x = np.array([[0.0, 0.2, 3.0]])
    moved = conditional.to(torch)
    np.testing.assert_allclose(moved.log_prob(torch.tensor(x)).numpy(), conditional.log_prob(x))
    np.testing.assert_allclose(moved.detach().mean().numpy(), conditional.mean())


# --------------------------------------------------------------------------------------------------- errors


def ring_of_people():
    variables = [
        rd.Categorical(3, name="job"),
        rd.GaussianMixture([30.0, 60.0, 45.0], [5.0, 5.0, 10.0], name="age"),
        rd.PoissonMixture([1.0, 4.0], name="children"),
    ]
    cores = [np.eye(3)[:, None, :], np.eye(3)[:, :, None] @ np.ones((1, 2)), np.ones((2, 2, 1))]
    return rd.TensorRing(cores, variables)


QUESTIONS = {
    "probability": lambda ring, event: ring.probability(event),
    "condition": lambda ring, event: ring.condition(event),
    "sample_given": lambda ring, event: ring.sample_given(np.full(3, np.nan), event=event, rng=0),
}
WRONG = [
    ({"weight": {1}}, ValueError, "no column 'weight'"),
    ({7: {1}}, ValueError, "no column 7"),
    ({"job": {1}, 0: {2}}, ValueError, "must differ"),
    ({"job": set()}, ValueError, r"column 0 \('job'\).*at least one category"),
    ({"job": []}, ValueError, r"column 0 \('job'\).*at least one category"),
    ({"job": {3}}, ValueError, r"column 0 \('job'\): category 3 is outside 0\.\.2"),
    ({"job": [0, -1]}, ValueError, r"column 0 \('job'\): category -1 is outside 0\.\.2"),
    ({"job": {0.5}}, ValueError, r"column 0 \('job'\).*0\.5"),
    ({"job": {float("nan")}}, ValueError, r"column 0 \('job'\).*NaN"),
    ({"job": {"baker"}}, TypeError, r"column 0 \('job'\).*'baker'"),
    ({"job": rd.Interval(0, 1)}, ValueError, r"column 0 \('job'\): categories have no order.*set"),
    ({"age": {30}}, ValueError, r"column 1 \('age'\): a set names categories.*Interval"),
    ({"children": [1, 2]}, ValueError, r"column 2 \('children'\): a set names categories.*Interval"),
]


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(("event", "error", "finding"), WRONG, ids=str)
def test_events_that_do_not_fit(name, event, error, finding):
    with pytest.raises(error, match=finding):
        QUESTIONS[name](ring_of_people(), event)


@pytest.mark.parametrize("event", [[("job", {1})], "job", {"job": 1}, {"age": 30.0}, {"age": None}], ids=str)
def test_what_is_not_an_event(event):
    for name in ("probability", "sample_given"):
        with pytest.raises(TypeError, match="event"):
            QUESTIONS[name](ring_of_people(), event)


@pytest.mark.parametrize("name", ["condition", "sample_given"])
@pytest.mark.parametrize(
    ("event", "finding"),
    [
        ({"age": rd.Interval(1e200, None)}, r"column 1 \('age'\) in Interval\(1e\+200, None\)"),
        ({"age": rd.Interval(3, 3)}, r"column 1 \('age'\) in Interval\(3, 3\)"),
        ({"children": rd.Interval(0.2, 0.8)}, r"column 2 \('children'\) in Interval\(0\.2, 0\.8\)"),
        ({"children": rd.Interval(None, -1)}, r"column 2 \('children'\) in Interval\(None, -1\)"),
    ],
    ids=str,
)
def test_events_of_zero_mass(name, event, finding):
    with pytest.raises(ValueError, match=f"zero mass.*{finding}"):
        QUESTIONS[name](ring_of_people(), event)
    assert ring_of_people().probability(event) == 0
    assert ring_of_people().probability(event, log=True) == -math.inf


def test_events_that_exclude_each_other():
    """Each has mass, together they have none."""
    left, right = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    ring = rd.TensorRing([left, right], [rd.Categorical(2, name="a"), rd.Categorical(2, name="b")])
    event = {"a": {0}, "b": {1}}
    assert ring.probability(event) == 0
    for name in ("condition", "sample_given"):
        with pytest.raises(ValueError, match=r"zero mass.*'a'.*0.*'b'.*1"):
            x = np.full(2, np.nan)
            ring.condition(event) if name == "condition" else ring.sample_given(x, event=event, rng=0)
    with pytest.raises(ValueError, match=r"zero mass in row 1 for column 1 \('b'\) in \{1\}"):
        ring.sample_given([[1, np.nan], [0, np.nan]], event={"b": {1}}, rng=0)


def test_rows_that_contradict_an_event():
    x = [[np.nan, 40.0, np.nan], [np.nan, 20.0, np.nan]]
    with pytest.raises(ValueError, match=r"column 1 \('age'\).*found 20 in row 1 for .*Interval\(30, None\)"):
        ring_of_people().sample_given(x, event={"age": rd.Interval(30, None)}, rng=0)


def test_evidence_of_zero_mass_has_no_probabilities():
    left, right = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    ring = rd.TensorRing([left, right, np.ones((2, 1, 1))], [rd.Categorical(2)] * 3)
    with pytest.raises(ValueError, match="zero mass in row 1"):
        ring.probability({2: {0}}, [[0, 0, np.nan], [0, 1, np.nan]])


def test_rows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        ring_of_people().probability({"job": {1}}, np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"column 0 \('job'\)"):
        ring_of_people().probability({"age": rd.Interval(0, 1)}, [[5.0, np.nan, np.nan]])


def test_nothing_of_the_callers_is_written_to():
    ring, x, event = ring_of_people(), np.full((2, 3), np.nan), {"job": [2, 0], "age": rd.Interval(30, None)}
    before = x.copy()
    for question in (ring.probability, ring.condition):
        question(event)
    ring.probability(event, x), ring.sample_given(x, event=event, rng=0)
    np.testing.assert_array_equal(x, before)
    assert event == {"job": [2, 0], "age": rd.Interval(30, None)}
