"""Mixtures of rings as objects: marginals, conditionals, permutations, copies, single rings."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.ringdist.ring_mixture.cases import SUMS

pytestmark = pytest.mark.slow_on("jax")


def test_marginal(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(8)
    x[:, [0, 3]] = np.nan
    smaller = mixture.marginal([2, 1])
    assert smaller.num_variables == 2
    expected = np.log(case.joint(x).sum(-1))
    assert_close(backend.numpy(smaller.log_prob(backend.array(x[:, [1, 2]]))), expected, smaller, atol=1e-9)
    assert_close(backend.numpy(smaller.weights), case.shares, smaller)


def test_condition(backend, case):
    mixture = case.mixture(backend)
    for evidence in ({0: 1}, {0: 1, 3: 1.0}, {2: 0, 1: 1}):
        rest = [k for k in range(4) if k not in evidence]
        x = case.possible_rows(8)
        given = np.full((1, 4), np.nan)
        for k, value in evidence.items():
            x[:, k], given[:, k] = value, value
        conditional = mixture.condition(evidence)
        with np.errstate(divide="ignore"):
            expected = np.log(case.joint(x).sum(-1)) - np.log(case.joint(given).sum(-1))
        assert_close(backend.numpy(conditional.log_prob(backend.array(x[:, rest]))), expected, conditional, atol=1e-9)


def test_condition_leaves_out_rings_without_mass(backend):
    case = SUMS["impossible"]
    mixture = case.mixture(backend)
    assert [mixture.condition({0: v}).num_rings for v in range(3)] == [2, 3, 2]
    assert_close(backend.numpy(mixture.condition({0: 2}).weights), np.array([1.0, 0.0]), mixture)
    only = rd.RingMixture(mixture.rings[:2], backend.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="zero mass"):
        only.condition({0: 2})
    assert mixture.condition({}) is mixture


def test_permute(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(6)
    columns = [2, 0, 3, 1]
    actual = mixture.permute(columns).log_prob(backend.array(x[:, columns]))
    assert_close(backend.numpy(actual), np.log(case.joint(x).sum(-1)), mixture)


def test_dense_cores(numpy_backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(6)
    assert not mixture.rings[1].is_dense
    assert all(ring.is_dense for ring in mixture.dense().rings)
    assert_close(mixture.dense().log_prob(x), np.log(case.joint(x).sum(-1)), mixture)


def test_to_moves_a_mixture_between_backends(backend, dtype):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend, dtype), case.possible_rows(6)
    there = mixture.to(np, dtype="float64")
    assert there.weights.dtype == np.float64
    assert_close(there.log_prob(x), np.log(case.joint(x).sum(-1)), there, rtol=1e-4)
    back = there.condition({0: 1}).to(backend.xp, dtype="float32", device=backend.device)
    assert back.weights.dtype == backend.dtype("float32")
    assert_close(backend.numpy(back.weights), there.condition({0: 1}).weights, back, rtol=1e-5)


def test_one_ring_answers_as_the_ring_does(backend):
    for name in ("mixed", "sparse"):
        case = SUMS[name].cases[0]
        ring = backend.ring(case)
        mixture = rd.RingMixture([ring], [3.0])
        x = backend.array(case.possible_rows(5))
        pairs = [
            (mixture.log_prob(x), ring.log_prob(x)),
            (mixture.mean(x), ring.mean(x)),
            (mixture.sample(9, rng=backend.rng(1)), ring.sample(9, rng=backend.rng(1))),
            (mixture.sample_given(x, 2, rng=backend.rng(1)), ring.sample_given(x, 2, rng=backend.rng(1))),
            (mixture.marginal([3, 1]).log_prob(x[:, 2:]), ring.marginal([3, 1]).log_prob(x[:, 2:])),
            (mixture.condition({0: 1}).log_prob(x[:, 1:]), ring.condition({0: 1}).log_prob(x[:, 1:])),
        ]
        for k in range(4):
            pairs.append((mixture.component_posterior(k, x), ring.component_posterior(k, x)))
            pairs.append((mixture.quantile(k, 0.3, x), ring.quantile(k, 0.3, x)))
        for actual, expected in pairs:
            np.testing.assert_array_equal(backend.numpy(actual), backend.numpy(expected))
        assert_close(backend.numpy(mixture.covariance()), backend.numpy(ring.covariance()), mixture)
        expected = backend.numpy(ring.mutual_information())
        assert_close(backend.numpy(mixture.mutual_information()), expected, mixture, atol=1e-10)
        mine, theirs = backend.numpy(mixture.mode(x)), backend.numpy(ring.mode(x))
        assert_close(oracle.mass(case, mine), oracle.mass(case, theirs), mixture)


def test_equal_rings_are_one_ring(backend, case):
    first = backend.ring(case.cases[0])
    mixture = rd.RingMixture([first] * 3, [0.2, 0.0, 1.1])
    x = backend.array(case.cases[0].possible_rows(8))
    assert_close(backend.numpy(mixture.log_prob(x)), backend.numpy(first.log_prob(x)), mixture)
    assert_close(backend.numpy(mixture.mean(x)), backend.numpy(first.mean(x)), mixture)
    assert_close(backend.numpy(mixture.covariance()), backend.numpy(first.covariance()), mixture)
    assert_close(backend.numpy(mixture.quantile(1, 0.4, x)), backend.numpy(first.quantile(1, 0.4, x)), mixture)


@pytest.mark.fast_on("jax")
def test_attributes(backend, case):
    mixture = case.mixture(backend)
    assert mixture.num_rings == len(mixture.rings) == len(case.cases)
    assert mixture.num_variables == 4
    assert [v.name for v in mixture.variables] == [c.name for c in case.cases[0].columns]
    assert mixture.num_parameters == sum(ring.num_parameters for ring in mixture.rings) + len(case.cases)
    text = repr(mixture)
    for part in ("RingMixture", f"{len(case.cases)} rings", "4 variables", "float64", f"{case.shares[0]:.3g}"):
        assert part in text, text


def test_mixtures_pickle_and_copy(backend, case):
    mixture, x = case.mixture(backend).condition({3: 0}), backend.array(case.possible_rows(4)[:, :3])
    for again in (pickle.loads(pickle.dumps(mixture)), copy.deepcopy(mixture), copy.copy(mixture)):
        assert repr(again) == repr(mixture)
        np.testing.assert_array_equal(backend.numpy(again.log_prob(x)), backend.numpy(mixture.log_prob(x)))


def test_mixtures_are_immutable(numpy_backend):
    mixture = SUMS["discrete"].mixture(numpy_backend)
    for name in ("rings", "weights", "linear", "new"):
        with pytest.raises(AttributeError):
            setattr(mixture, name, ())
    with pytest.raises(AttributeError):
        del mixture.rings


def test_writing_to_the_callers_weights_leaves_the_mixture_as_it_is(backend):
    if backend.name == "jax":
        pytest.skip("JAX's arrays are not written to")
    weights = backend.array([1.0, 2.0, 1.0])
    mixture = rd.RingMixture(SUMS["discrete"].rings(backend), weights)
    weights[0] = 100.0
    assert_close(backend.numpy(mixture.weights), np.array([0.25, 0.5, 0.25]), mixture)
    if backend.name == "numpy":
        with pytest.raises(ValueError, match="read-only"):
            mixture.linear[0] = 3.0


def test_masked_entries_are_missing(numpy_backend):
    case = SUMS["discrete"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(4)
    masked = np.ma.masked_invalid(x)
    assert_close(mixture.log_prob(masked), mixture.log_prob(x), mixture)
    assert_close(mixture.quantile(0, 0.5, masked), mixture.quantile(0, 0.5, x), mixture)
    np.testing.assert_array_equal(np.ma.getmaskarray(masked), np.isnan(x))
