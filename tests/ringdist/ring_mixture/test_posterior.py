"""Posteriors, means and quantiles of mixtures of rings."""

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.ringdist.ring_mixture.cases import NAMES, SUMS

pytestmark = pytest.mark.slow_on("jax")


def test_ring_posterior(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(10)
    assert_close(backend.numpy(mixture.ring_posterior(backend.array(x))), case.posterior(x), mixture)
    nothing = backend.array(np.full(4, np.nan))
    assert_close(backend.numpy(mixture.ring_posterior(nothing)), case.shares, mixture)
    assert_close(backend.numpy(mixture.weights), case.shares, mixture)


def test_component_posterior_of_values(backend, case):
    """A categorical column has one posterior of its values, whichever ring they come from."""
    mixture, x = case.mixture(backend), case.possible_rows(10)
    expected = case.average(x, lambda c: oracle.posterior(c, 0, x))
    assert_close(backend.numpy(mixture.component_posterior(0, backend.array(x))), expected, mixture)


def test_component_posterior_of_components(backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), case.possible_rows(8)
    for k in (1, 2, 3):
        parts = [oracle.posterior(c, k, x) for c in case.cases]
        expected = np.concatenate([w[:, None] * p for w, p in zip(case.posterior(x).T, parts, strict=True)], axis=1)
        actual = backend.numpy(mixture.component_posterior(NAMES[k], backend.array(x)))
        assert_close(actual, expected, (mixture, k))


def test_means(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(10)
    expected = case.average(x, lambda c: oracle.mean(c, x))
    assert_close(backend.numpy(mixture.mean(backend.array(x))), expected, mixture)
    nothing = np.full((1, 4), np.nan)
    assert_close(backend.numpy(mixture.mean()), case.average(nothing, lambda c: oracle.mean(c, nothing))[0], mixture)


def test_cdf(backend, case):
    mixture = case.mixture(backend)
    for k in (0, 1, 3):
        x = case.possible_rows(8)
        x[:, k] = np.random.default_rng(k).integers(0, 2, len(x))
        rest = oracle.without(x, k)
        with np.errstate(invalid="ignore"):
            parts = [oracle.cdf(c, k, x) for c in case.cases]
        weights = case.posterior(rest).T
        expected = sum(np.where(w > 0, w * np.where(w > 0, p, 0), 0) for w, p in zip(weights, parts, strict=True))
        assert_close(backend.numpy(mixture.cdf(k, backend.array(x))), expected, (mixture, k))


def test_quantiles_of_categories(backend, table):
    mixture, x = table.mixture(backend), table.possible_rows(6)
    for k in range(4):
        weights = table.average(oracle.without(x, k), lambda c, k=k: oracle.posterior(c, k, oracle.without(x, k)))
        levels = np.cumsum(weights, axis=1)
        q = np.random.default_rng(k).uniform(0.01, 0.99, len(x))
        expected = (levels < q[:, None]).sum(1).astype(float)
        actual = backend.numpy(mixture.quantile(k, backend.array(q), backend.array(x)))
        assert_close(actual, expected, (mixture, k))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_quantile_inverts_the_cdf_between_those_of_the_rings(backend, k):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), case.possible_rows(5)[:6]
    for q in (0.01, 0.3, 0.5, 0.97):
        z = mixture.quantile(k, q, backend.array(x))
        each = np.stack([backend.numpy(ring.quantile(k, q, backend.array(x))) for ring in mixture.rings])
        values = backend.numpy(z)
        assert (values >= each.min(0)).all() and (values <= each.max(0)).all(), (values, each)
        here = np.array(x)
        here[:, k] = values
        assert (backend.numpy(mixture.cdf(k, backend.array(here))) >= q - 1e-12).all()
        here[:, k] = values - 1 if k == 2 else np.nextafter(values, -np.inf)
        before = backend.numpy(mixture.cdf(k, backend.array(here)))
        assert (before <= q + 1e-12).all(), (before, q)


def test_ends_of_quantiles(backend):
    case = SUMS["mixed"]
    mixture = case.mixture(backend)
    nothing = backend.array(np.full(4, np.nan))
    for k, ends in enumerate([(0.0, 2.0), (-np.inf, np.inf), (0.0, np.inf), (-np.inf, np.inf)]):
        found = backend.numpy(mixture.quantile(k, backend.array([0.0, 1.0]), nothing))
        assert_close(found, np.array(ends), (mixture, k))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_quantiles_at_every_scale(backend, dtype, scale):
    """The medians of two Gaussians of equal weight far apart and near each other, to neighbouring numbers."""
    one = [backend.array(np.ones((1, 1, 1)), dtype)]
    rings = [
        rd.TensorRing(one, [rd.GaussianMixture(backend.array([m * scale], dtype), backend.array([scale / 4], dtype))])
        for m in (1.0, 2.0)
    ]
    mixture = rd.RingMixture(rings, [1.0, 1.0])
    nothing = backend.array([np.nan], dtype)
    found = float(backend.numpy(mixture.quantile(0, 0.5, nothing)))
    assert abs(found / scale - 1.5) < (1e-5 if dtype == "float32" else 1e-13)
