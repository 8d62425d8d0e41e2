"""Densities of mixtures of rings, at any scale of weights and of evidence."""

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import Backend, assert_close
from tests.oracle import make_case
from tests.ringdist.ring_mixture.cases import SUMS, Sum

pytestmark = pytest.mark.slow_on("jax")


def test_log_prob_is_that_of_the_enumerated_sum(backend, case):
    mixture, x = case.mixture(backend), np.concatenate([c.rows(12) for c in case.cases])
    with np.errstate(divide="ignore"):
        expected = np.log(case.joint(x).sum(-1))
    actual = mixture.log_prob(backend.array(x))
    assert actual.dtype == backend.dtype()
    assert_close(backend.numpy(actual), expected, mixture)
    grid = mixture.log_prob(backend.array(x[:12].reshape(3, 4, 4)))
    assert_close(backend.numpy(grid), expected[:12].reshape(3, 4), mixture)


@pytest.mark.parametrize("engine", ["sweep", "tree", "log", "opt_einsum", "tensornetwork"])
def test_engines(numpy_backend, engine):
    case = SUMS["mixed"]
    x = case.possible_rows(6)
    actual = case.mixture(numpy_backend).log_prob(x, engine=engine)
    assert_close(actual, np.log(case.joint(x).sum(-1)), engine)


def test_a_density_sums_to_one(numpy_backend, table):
    mixture = table.mixture(numpy_backend)
    x = oracle.configurations(table.cases[0].shape)
    assert_close(np.exp(mixture.log_prob(x)).sum(), 1.0, mixture)
    assert_close(mixture.to_dense(), table.table, mixture)
    value, error = mixture.entropy()
    probabilities = table.table[table.table > 0]
    assert_close(value, -(probabilities * np.log(probabilities)).sum(), mixture)
    assert error == 0


def test_entropy_of_samples(numpy_backend):
    case = SUMS["mixed"]
    mixture = case.mixture(numpy_backend)
    value, error = mixture.entropy(4000, rng=0)
    other, other_error = mixture.entropy(4000, rng=1)
    assert 0 < error < 0.1
    assert abs(value - other) < 5 * np.hypot(error, other_error)
    with pytest.raises(ValueError, match="n >= 2"):
        mixture.entropy(1)


def test_no_rows(backend, case):
    mixture, none = case.mixture(backend), backend.array(np.zeros((0, 4)))
    assert mixture.log_prob(none).shape == (0,)
    assert mixture.ring_posterior(none).shape == (0, len(case.cases))
    assert mixture.mean(none).shape == (0, 4)
    assert mixture.cdf(0, none).shape == (0,)
    assert mixture.sample(0, rng=0).shape == (0, 4)
    assert mixture.sample_given(none, rng=0).shape == (0, 4)
    assert mixture.sample_given(none, 3, rng=0).shape == (3, 0, 4)


def test_a_ring_without_weight_changes_nothing(backend, case):
    """Whatever it says, infinite moments included."""
    odd = make_case(
        [c.kind for c in case.cases[0].columns], case.cases[0].shape, [2] * 4, [3, 2, 1, 0], seed=99,
        names=[c.name for c in case.cases[0].columns],
    )  # fmt: skip
    more = Sum((*case.cases, odd), np.append(case.weights, 0.0), case.cp)
    mixture, larger, x = case.mixture(backend), more.mixture(backend), backend.array(case.possible_rows(6))
    for query in (
        lambda m: m.log_prob(x),
        lambda m: m.mean(x),
        lambda m: m.covariance(),
        lambda m: m.quantile(1, 0.3, x),
        lambda m: m.component_posterior(0, x),
        lambda m: m.condition({0: 1}).mean(),
    ):
        assert_close(backend.numpy(query(larger)), backend.numpy(query(mixture)), larger)
    assert (backend.numpy(larger.ring_posterior(x))[:, -1] == 0).all()


def test_rows_that_no_ring_explains(backend):
    case = SUMS["impossible"]
    mixture = rd.RingMixture(case.rings(backend)[:2], [1.0, 0.0])
    x = backend.array([[1.0, np.nan, 1.0, 0.0], [2.0, np.nan, 1.0, 0.0]])
    assert backend.numpy(mixture.log_prob(x))[1] == -np.inf
    for query in (
        mixture.ring_posterior,
        mixture.mean,
        mixture.mode,
        lambda x: mixture.component_posterior(1, x),
        lambda x: mixture.quantile(1, 0.5, x),
        lambda x: mixture.sample_given(x, rng=0),
    ):
        with pytest.raises(ValueError, match="zero mass in row 1"):
            query(x)
    with pytest.raises(ValueError, match="zero mass"):
        mixture.condition({0: 2, 3: 0})


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e300])
def test_weights_of_any_scale(numpy_backend, scale):
    case = SUMS["discrete"]
    mixture = rd.RingMixture(case.rings(numpy_backend), (case.weights * scale).tolist())
    assert_close(mixture.weights, case.shares, mixture)
    x = case.possible_rows(5)
    assert_close(mixture.log_prob(x), np.log(case.joint(x).sum(-1)), mixture)


def test_weights_of_float32_rings(backend):
    case = SUMS["discrete"]
    rings = case.rings(backend, "float32")
    for weights in (case.weights.tolist(), backend.array(case.weights), backend.array([1, 4, 2], "int64")):
        mixture = rd.RingMixture(rings, weights)
        assert mixture.weights.dtype == backend.dtype("float32")
        assert abs(backend.numpy(mixture.weights).sum() - 1) < 1e-6
    assert mixture.log_prob(backend.array([[0, 0, 0, 0]], "float32")).dtype == backend.dtype("float32")


def far_apart(backend: Backend, d: int, dtype: str) -> rd.RingMixture:
    """Two members that differ by 0.1 nats in each of d columns, and by 3 in a column between."""
    size = 0.5 * np.exp([0.0, -0.1])
    rings = []
    for order, weights in ((range(d), [size[0], 1 - size[0]]), (range(d - 1, -1, -1), [size[1], 1 - size[1]])):
        cores = [backend.array(np.reshape(weights, (2, 1, 1)), dtype)] * d
        rings.append(rd.TensorRing(cores, [rd.Categorical(2)] * d, order=list(order)))
    return rd.RingMixture(rings, [0.5, 0.5])


def test_thousands_of_columns(backend, dtype):
    """Densities far below the range of the dtype, and a posterior of which one part is e^-300."""
    d = 3000
    mixture = far_apart(backend, d, dtype)
    x = np.zeros((2, d))
    x[1, : d // 2] = 1
    tables = np.log([[0.5, 0.5], [0.5 * np.exp(-0.1), 1 - 0.5 * np.exp(-0.1)]])
    logs = np.stack([(tables[:, 1] * row.sum() + tables[:, 0] * (d - row.sum())) for row in x])
    rtol = 1e-5 if dtype == "float32" else 1e-10
    expected = np.logaddexp(logs[:, 0], logs[:, 1]) - np.log(2)
    assert_close(backend.numpy(mixture.log_prob(backend.array(x, dtype))), expected, mixture, rtol=rtol)
    posterior = backend.numpy(mixture.ring_posterior(backend.array(x, dtype)))
    assert_close(posterior[0], np.array([1.0, 0.0]), mixture, rtol=rtol, atol=1e-30)
    expected = 1 / (1 + np.exp(logs[1, 1] - logs[1, 0]))
    assert_close(posterior[1, 0], expected, mixture, rtol=2e-3 if dtype == "float32" else 1e-6)


def test_evidence_that_takes_a_ring_out_of_range_and_back(backend, dtype):
    """The weight of a ring may underflow after some evidence and be 1 after more: nothing of it is lost."""
    d = 400
    likely, unlikely = np.array([0.9, 0.1]), np.array([0.001, 0.999])
    rings = [
        rd.TensorRing([backend.array(np.reshape(w, (2, 1, 1)), dtype)] * d, [rd.Categorical(2)] * d)
        for w in (likely, unlikely)
    ]
    mixture = rd.RingMixture(rings, [0.5, 0.5])
    after = mixture.condition(dict.fromkeys(range(150), 0))
    assert backend.numpy(after.weights)[1] == 0 or dtype == "float64"
    later = after.condition(dict.fromkeys(range(249), 1))
    expected = 150 * np.log(likely[0] / unlikely[0]) + 249 * np.log(likely[1] / unlikely[1])
    actual = backend.numpy(later.weights).astype(float)
    assert_close(actual[0], 1 / (1 + np.exp(-expected)), later, rtol=1e-3)
    x = np.full((1, d), np.nan)
    x[0, :150], x[0, 150:399] = 0, 1
    assert_close(backend.numpy(mixture.ring_posterior(backend.array(x, dtype)))[0], actual, mixture, rtol=1e-3)
