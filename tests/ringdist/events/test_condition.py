"""Rings conditioned on events: densities, queries, cores of every kind, files and copies."""

import copy
import math
import pickle

import numpy as np
import pytest
from scipy import special, stats

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import MIXED, TABLE, TRAIN, make_case
from tests.ringdist.events.cases import COUNTS, EVENT, holds, mass, nothing, probability, some_event
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")


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


@pytest.mark.slow
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
