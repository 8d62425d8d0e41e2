"""Posteriors, marginals, conditionals, moments and distribution functions, all against enumeration."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from ringdist.engines import budget
from ringdist.network import Evidence
from tests import oracle
from tests.backends import assert_close
from tests.oracle import DISCRETE, MIXED, TABLE, TRAIN, Case
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")

# --------------------------------------------------------------------------------- component_posterior


@over(MIXED, TABLE, TRAIN, case=cases())
def test_component_posterior(backend, case):
    ring, x = backend.ring(case), case.possible_rows(6)
    for k in range(case.d):  # observed in some rows, where x[..., k] itself counts, and missing in others
        actual = backend.numpy(ring.component_posterior(k, backend.array(x)))
        assert_close(actual, oracle.posterior(case, k, x), (case, k))


@pytest.mark.parametrize("batch", [(), (2, 3), (0,)], ids=str)
def test_component_posterior_shapes_and_names(backend, batch):
    x = MIXED.possible_rows(int(np.prod(batch))).reshape(*batch, MIXED.d)
    ring = backend.ring(MIXED)
    by_name = ring.component_posterior("count", backend.array(x))
    assert tuple(by_name.shape) == (*batch, 4), by_name
    assert_close(backend.numpy(by_name), backend.numpy(ring.component_posterior(2, backend.array(x))), ring)


# ------------------------------------------------------------------------------------ marginal, condition


@over(MIXED, TABLE, TRAIN, case=cases())
def test_marginal_is_the_ring_with_the_other_columns_missing(backend, case):
    ring, x = backend.ring(case), case.rows(6)
    keep = tuple(np.flatnonzero(np.arange(case.d) != case.seed % case.d)) or (0,)
    keep = tuple(int(k) for k in keep)
    marginal = ring.marginal(keep[::-1])  # the columns come out sorted, whatever the order asked
    assert marginal.num_variables == len(keep), marginal
    missing = np.full_like(x, np.nan)
    missing[:, keep] = x[:, keep]
    actual = backend.numpy(marginal.log_prob(backend.array(x[:, keep])))
    assert_close(actual, oracle.log_prob(case, missing), marginal)


@over(MIXED, TABLE, TRAIN, case=cases(min_d=2))
def test_marginal_over_one_column(backend, case):
    ring, x = backend.ring(case), case.rows(6, missing=0.0)
    for k in range(case.d):
        missing = np.full_like(x, np.nan)
        missing[:, k] = x[:, k]
        marginal = ring.marginal([k])
        actual = backend.numpy(marginal.log_prob(backend.array(x[:, [k]])))
        assert_close(actual, oracle.log_prob(case, missing), marginal)


def test_marginal_by_name_keeps_names_and_the_order_around_the_ring(backend):
    marginal = backend.ring(MIXED).marginal(["delay", "label", 2])
    assert [v.name for v in marginal.variables] == ["label", "count", "delay"], marginal
    assert tuple(marginal.order) == (1, 0, 2), marginal  # from (2, 0, 3, 1)
    assert backend.ring(MIXED).marginal(range(4)).shape == (3, 2, 4, 3)


@over(MIXED, TABLE, TRAIN, case=cases(min_d=2))
def test_condition_is_the_quotient_of_two_densities(backend, case):
    ring, x = backend.ring(case), case.possible_rows(6, missing=0.2)
    for row in x:
        given = [k for k in range(case.d) if not np.isnan(row[k])][: case.d - 1]
        if not given:
            continue
        rest = [k for k in range(case.d) if k not in given]
        conditional = ring.condition({k: float(row[k]) for k in given})
        points = case.rows(6)
        points[:, given] = row[given]
        evidence = np.where(np.isin(np.arange(case.d), given), row, np.nan)
        expected = oracle.log_prob(case, points) - oracle.log_prob(case, evidence)
        actual = backend.numpy(conditional.log_prob(backend.array(points[:, rest])))
        assert_close(actual, expected, conditional)


def test_condition_by_name_and_on_nothing(backend):
    ring = backend.ring(MIXED)
    conditional = ring.condition({"height": 0.3, 2: 1})
    assert [v.name for v in conditional.variables] == ["label", "delay"], conditional
    x = backend.array(MIXED.rows(6))
    same = ring.condition({})
    assert_close(backend.numpy(same.log_prob(x)), backend.numpy(ring.log_prob(x)), same)


def test_marginals_of_conditionals_are_conditionals_of_marginals(backend):
    ring, x = backend.ring(MIXED), backend.array([[0.0, 0.5], [2.0, -1.0]])
    one = ring.condition({"count": 2}).marginal(["label", "delay"])
    other = ring.marginal(["label", "count", "delay"]).condition({"count": 2})
    assert_close(backend.numpy(one.log_prob(x)), backend.numpy(other.log_prob(x)), one)


def test_conditioning_on_evidence_far_away_keeps_a_ring_of_ordinary_scale(backend):
    """exp(−5 000) is no number, yet the conditional is a ring like any other."""
    ring = backend.ring(MIXED)
    conditional = ring.condition({"height": 100.0})
    assert np.isfinite(backend.numpy(conditional.log_normalizer())), conditional
    x = np.array([[1.0, 100.0, 2.0, 0.5]])
    joint = backend.numpy(ring.log_prob(backend.array(x), engine="log"))
    alone = backend.numpy(ring.marginal(["height"]).log_prob(backend.array(x[:, [1]])))
    actual = backend.numpy(conditional.log_prob(backend.array(x[:, [0, 2, 3]])))
    assert_close(actual, joint - alone, conditional, rtol=1e-7)


# ------------------------------------------------------------------------------------------------ moments


@over(MIXED, TABLE, TRAIN, case=cases())
def test_mean_and_covariance(backend, case):
    ring = backend.ring(case)
    nothing = np.full((1, case.d), np.nan)
    assert_close(backend.numpy(ring.mean()), oracle.mean(case, nothing)[0], case)
    assert_close(backend.numpy(ring.covariance()), oracle.covariance(case), case, atol=1e-9)


@over(MIXED, TABLE, TRAIN, case=cases())
def test_mean_given_the_observed_entries(backend, case):
    x = case.possible_rows(6)
    actual = backend.numpy(backend.ring(case).mean(backend.array(x)))
    assert_close(actual, oracle.mean(case, x), case)
    np.testing.assert_array_equal(actual[~np.isnan(x)], x[~np.isnan(x)], err_msg=repr(case))


@pytest.mark.parametrize("batch", [(), (2, 3), (0,)], ids=str)
def test_mean_keeps_the_batch_shape(backend, batch):
    x = MIXED.possible_rows(int(np.prod(batch))).reshape(*batch, MIXED.d)
    assert tuple(backend.ring(MIXED).mean(backend.array(x)).shape) == x.shape


# ----------------------------------------------------------------------------------------- cdf, quantile


@over(MIXED, TABLE, TRAIN, case=cases())
def test_cdf_given_the_other_observed_entries(backend, case):
    ring = backend.ring(case)
    for k, column in enumerate(case.columns):
        x = case.possible_rows(6)
        x[:, k] = column.draw(len(x), np.random.default_rng(case.seed))
        actual = backend.numpy(ring.cdf(k, backend.array(x)))
        assert_close(actual, oracle.cdf(case, k, x), (case, k))


@pytest.mark.parametrize("batch", [(), (2, 3), (3, 1), (0,)], ids=str)
def test_shapes_of_cdf_and_quantile(backend, batch):
    x = MIXED.possible_rows(int(np.prod(batch))).reshape(*batch, MIXED.d)
    x[..., 1] = 0.5
    ring, flat = backend.ring(MIXED), x.reshape(-1, MIXED.d)
    value, point = ring.cdf(1, backend.array(x)), ring.quantile(1, 0.3, backend.array(x))
    assert tuple(value.shape) == tuple(point.shape) == batch
    assert_close(backend.numpy(value).reshape(-1), oracle.cdf(MIXED, 1, flat), MIXED)


@over(MIXED, TABLE, TRAIN, case=cases())
def test_quantile_inverts_the_cdf(backend, case):
    """Continuous: F(quantile(q)) = q. Discrete: the smallest value with F >= q."""
    ring = backend.ring(case)
    for k, column in enumerate(case.columns):
        x = case.possible_rows(6)  # x[:, k] is ignored, whether it is there or not
        q = np.random.default_rng(case.seed + k).uniform(0.01, 0.99, len(x))
        point = oracle.without(x, k)
        point[:, k] = backend.numpy(ring.quantile(k, backend.array(q), backend.array(point)))
        assert np.isfinite(point[:, k]).all(), (case, k)
        if column.kind in DISCRETE:
            below = point.copy()
            below[:, k] -= 1
            assert (oracle.cdf(case, k, point) >= q - 1e-12).all(), (case, k, point, q)
            assert (oracle.cdf(case, k, below) < q).all(), (case, k, point, q)
        else:
            assert_close(oracle.cdf(case, k, point), q, (case, k), rtol=1e-6, atol=1e-8)


def test_quantile_ignores_the_column_itself(backend):
    ring, x = backend.ring(MIXED), MIXED.rows(6, missing=0.0)
    for k in range(MIXED.d):
        with_it = backend.numpy(ring.quantile(k, 0.3, backend.array(x)))
        without = backend.numpy(ring.quantile(k, 0.3, backend.array(oracle.without(x, k))))
        assert_close(with_it, without, (MIXED, k))


def test_quantiles_of_values_that_cannot_occur_are_never_returned(backend):
    """Categories 0 and 3 have no mass: q = 0 and q = 1 give the ends of what is possible."""
    core = np.array([0.0, 0.3, 0.7, 0.0]).reshape(4, 1, 1)
    case = Case((core,), (oracle.Column("categorical", 4),), (0,))
    ring, x = backend.ring(case), backend.array(np.full((4, 1), np.nan))
    q = np.array([1e-9, 0.3 - 1e-9, 0.3 + 1e-9, 1.0])
    assert backend.numpy(ring.quantile(0, backend.array(q), x)).tolist() == [1, 1, 2, 2], ring


def test_ends_of_quantiles(backend):
    """0 and 1 are where a column begins and ends, if it does; far out every cdf is rounded to 1."""
    ring, x = backend.ring(MIXED), backend.array(np.full((2, MIXED.d), np.nan))
    for k, column in enumerate(MIXED.columns):
        low, high = backend.numpy(ring.quantile(k, backend.array(np.array([0.0, 1.0])), x))
        assert low == (0 if column.kind in DISCRETE else -np.inf), (k, column)
        assert high == (column.num_components - 1 if column.kind == "categorical" else np.inf), (k, column)


def test_quantile_of_separated_modes(backend):
    """A root search that starts between two far modes must not stop on the plateau."""
    column = oracle.Column("gaussian", 2, {"means": np.array([-1e4, 1e4]), "stds": np.array([0.5, 3.0])})
    case = Case((np.array([0.25, 0.75]).reshape(2, 1, 1),), (column,), (0,))
    q = np.array([1e-6, 0.2, 0.2499, 0.2501, 0.6, 1 - 1e-6])
    x = backend.array(np.full((len(q), 1), np.nan))
    actual = backend.numpy(backend.ring(case).quantile(0, backend.array(q), x))
    low, high = stats.norm(-1e4, 0.5), stats.norm(1e4, 3.0)
    expected = np.concatenate([low.ppf(q[:3] / 0.25), high.ppf((q[3:] - 0.25) / 0.75)])
    assert_close(actual, expected, case, rtol=1e-6)


# ------------------------------------------------------------------------------------------- rows in pieces


def test_rows_in_pieces(numpy_backend, monkeypatch):
    ring, x = numpy_backend.ring(MIXED), MIXED.possible_rows(20, missing=0.5)
    queries = {
        "log_prob": lambda x: ring.log_prob(x),
        "mean": lambda x: ring.mean(x),
        "component_posterior": lambda x: ring.component_posterior(1, x),
        "quantile": lambda x: ring.quantile(1, 0.3, x),
    }
    together = {name: query(x) for name, query in queries.items()}
    calls = []
    with monkeypatch.context() as patch:
        of_rows = Evidence.of_rows
        patch.setattr(
            Evidence, "of_rows", lambda ring, rows, **more: calls.append(len(rows)) or of_rows(ring, rows, **more)
        )
        patch.setattr(budget, "AT_ONCE", 1)
        for name, query in queries.items():
            assert_close(query(x), together[name], name)
    assert calls == [1] * len(calls), calls


def test_errors_number_the_rows_of_all_pieces(numpy_backend, monkeypatch):
    ring = rd.TensorRing([np.diag([1.0, 1.0])[:, None, :], np.eye(2)[:, :, None]], [rd.Categorical(2)] * 2)
    x = np.array([[0, 0, 1, 1, 0], [0, np.nan, 1, np.nan, 1]]).T
    monkeypatch.setattr(budget, "AT_ONCE", 1)
    with pytest.raises(ValueError, match="zero mass in row 4"):
        ring.component_posterior(0, x)


def test_whole_numbers_are_not_converted_all_at_once(numpy_backend, monkeypatch):
    """A file of bytes may be larger than what its rows would be in the cores' dtype."""
    ring = rd.TensorRing.random([rd.Categorical(2)] * 20, 2, rng=0, dtype=np.float64)
    x = (np.random.default_rng(0).random((20_000, 20)) < 0.5).astype(np.uint8)
    expected = ring.log_prob(x)
    monkeypatch.setattr(budget, "AT_ONCE", 2**14)
    tracemalloc.start()
    actual = ring.log_prob(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_close(actual, expected, "in pieces")
    assert peak < x.size * 8 / 2, peak


# -------------------------------------------------------------------------------------------- information


@over(MIXED, TABLE, TRAIN, case=cases())
def test_mutual_information_of_the_components(backend, case):
    actual = backend.numpy(backend.ring(case).mutual_information())
    assert_close(actual, oracle.mutual_information(case), case, atol=1e-9)


@over(TABLE, case=cases(kinds=("categorical",)))
def test_entropy_of_a_small_discrete_ring_is_exact(backend, case):
    estimate, error = backend.ring(case).entropy(10, backend.rng(0))
    expected = stats.entropy(case.joint.ravel())
    assert_close(float(estimate), expected, case)
    assert float(error) == 0.0, case


def test_entropy_of_a_continuous_ring_lies_within_its_standard_error(backend):
    column = oracle.Column("gaussian", 1, {"means": np.array([1.0]), "stds": np.array([0.4])})
    case = Case((np.full((1, 1, 2), 1.0), np.full((1, 2, 1), 3.0)), (column, column), (0, 1))
    estimate, error = backend.ring(case).entropy(20_000, backend.rng(1))
    expected = 2 * stats.norm(1.0, 0.4).entropy()
    assert 0.001 < float(error) < 0.02, error
    assert abs(float(estimate) - expected) < 4 * float(error), (estimate, error, expected)


# -------------------------------------------------------------------------------------------- inner, dense


@over(MIXED, TABLE, TRAIN, case=cases(max_d=4))
def test_inner_product_with_another_ring_of_the_same_families(backend, case):
    generator = np.random.default_rng(case.seed + 7)
    turn = case.seed % case.d
    order = case.order[turn:] + case.order[:turn]  # the same order up to rotation
    shape = [
        column.num_components if column.kind == "categorical" else int(generator.integers(1, 4))
        for column in case.columns
    ]
    kinds = [column.kind for column in case.columns]
    other = oracle.make_case(kinds, shape, generator.integers(1, 4, case.d), order, seed=case.seed)
    p, q = backend.ring(case), backend.ring(other)
    assert_close(backend.numpy(p.inner(q)), oracle.inner(case, other), case, rtol=1e-7, atol=1e-12)
    assert_close(backend.numpy(q.inner(p)), oracle.inner(case, other), case, rtol=1e-7, atol=1e-12)
    assert_close(backend.numpy(p.inner(p)), oracle.inner(case, case), case, rtol=1e-7, atol=1e-12)


@over(TABLE, case=cases(kinds=("categorical",)))
@pytest.mark.fast_on("jax")
def test_to_dense(backend, case):
    table = backend.ring(case).to_dense()
    assert_close(backend.numpy(table), case.joint / case.joint.sum(), case)
    assert_close(backend.numpy(table).sum(), 1.0, case)
