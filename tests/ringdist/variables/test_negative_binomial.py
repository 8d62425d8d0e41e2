"""Negative binomial components: from Poisson to nearly all zeros, for counts and means of any size."""

import numpy as np
import pytest
from scipy import optimize, stats

import ringdist as rd
from ringdist.variables.negative_binomial_functions import falling_sums, log_growths
from tests.backends import assert_close, load_backend

pytestmark = pytest.mark.slow_on("jax")

COUNTS = np.array([0.0, 1.0, 2.0, 5.0, 17.0, 200.0, 3e4])


def scipy_of(means, dispersions):
    return stats.nbinom(1 / np.array(dispersions), 1 / (1 + np.array(means) * np.array(dispersions)))


@pytest.mark.parametrize("mean", [1e-3, 0.7, 20.0, 3e3, 1e6])
def test_densities_and_distribution_functions_at_any_dispersion(backend, mean):
    dispersions = [1e-4, 0.01, 0.3, 2.0, 50.0, 1e4]
    means = [mean] * len(dispersions)
    variable = rd.NegativeBinomialMixture(backend.array(means), backend.array(dispersions))
    x, expected = backend.array(COUNTS), scipy_of(means, dispersions)
    assert_close(
        backend.numpy(variable.log_density(x)), expected.logpmf(COUNTS[:, None]), variable, rtol=1e-9, atol=1e-9
    )
    assert_close(backend.numpy(variable.cdf(x)), expected.cdf(COUNTS[:, None]), variable, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dispersion", [0.0, 1e-300, 1e-35, 1e-20])
def test_no_dispersion_is_poisson(backend, dtype, dispersion):
    means = [0.0, 0.1, 12.0, 3e5]
    dispersion = 0.0 if dtype == "float32" and dispersion < 1e-37 else dispersion
    variable = rd.NegativeBinomialMixture(backend.array(means, dtype), backend.array([dispersion] * 4, dtype))
    poisson = rd.PoissonMixture(backend.array(means, dtype))
    x = backend.array([-1.0, 0.0, 1.0, 7.0, 300.0, 2.9e5, 1e6], dtype)
    close = {"rtol": 3e-5, "atol": 3e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-10}
    for name in ("log_density", "cdf"):
        expected = backend.numpy(getattr(poisson, name)(x))
        assert_close(backend.numpy(getattr(variable, name)(x)), expected, (name, variable), **close)
    assert_close(backend.numpy(variable.inner(variable)), backend.numpy(poisson.inner(poisson)), variable, **close)
    drawn = backend.numpy(variable.sample(backend.array(np.full(4000, 2), "int64"), backend.rng()))
    assert abs(drawn.mean() - 12) < 0.3 and abs(drawn.var() - 12) < 1.5


def test_gradients_reach_the_poisson_limit():
    """d log p / dα at α = 0 is ((x − μ)² − x) / 2."""
    backend = load_backend("torch")
    for dispersion in (0.0, 1e-200, 1e-9):
        means = backend.array([0.5, 8.0, 1e4]).requires_grad_()
        dispersions = backend.array([dispersion] * 3).requires_grad_()
        variable = rd.NegativeBinomialMixture(means, dispersions)
        for x in (0.0, 1.0, 9.0, 10_050.0):
            found = backend.xp.autograd.grad(variable.log_density(backend.array([x])).sum(), [means, dispersions])
            mean = np.array([0.5, 8.0, 1e4])
            assert_close(backend.numpy(found[0]), x / mean - 1, x, rtol=1e-4, atol=1e-8)
            assert_close(
                backend.numpy(found[1]), ((x - mean) ** 2 - x) / 2, x, rtol=0.2 if dispersion else 1e-9, atol=1e-6
            )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1e3, 5.0), (30.0, 0.2)),
        ((1e4, 3.0), (1e4, 1e-3)),
        ((0.01, 40.0), (0.5, 100.0)),
        ((100.0, 0.01), (300.0, 0.01)),
    ],
)
def test_inner_products_of_unlike_components(backend, first, second):
    counts = np.arange(1e6)
    expected = np.sum(scipy_of(*first).pmf(counts) * scipy_of(*second).pmf(counts))
    one, other = (rd.NegativeBinomialMixture(*(backend.array([v]) for v in pair)) for pair in (first, second))
    assert_close(backend.numpy(one.inner(other)), [[expected]], (one, other), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("dispersion", [0.0, 1e-7, 0.02, 0.0499, 0.0501, 0.4, 3.0, 200.0])
def test_statistics_are_sums_below_the_count(backend, dispersion):
    x = np.array([0.0, 1.0, 2.0, 3.0, 8.0, 100.0, 2500.0])
    found = falling_sums(backend.array(x), backend.array(np.full(7, dispersion)))
    first, second = (backend.numpy(v) for v in found)
    below = [np.arange(n) / (1 + dispersion * np.arange(n)) for n in x]
    assert_close(first, [g.sum() for g in below], dispersion, rtol=1e-10, atol=1e-11)
    assert_close(second, [(g * g).sum() for g in below], dispersion, rtol=1e-7, atol=1e-9)
    logs = backend.numpy(log_growths(backend.array(x), backend.array(np.full(7, dispersion))))
    assert_close(logs, [np.log1p(dispersion * np.arange(n)).sum() for n in x], dispersion, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("start", [0.0, 1e-3, 0.5, 100.0])
@pytest.mark.parametrize("truth", [(3.0, 0.8), (0.4, 6.0), (200.0, 0.02), (50.0, 1e-9)])
def test_the_dispersion_is_found_in_a_few_steps(truth, start):
    x = scipy_of(*truth).rvs(4000, random_state=0).astype(float)
    mean = x.mean()

    def likelihood(dispersion):
        return rd.NegativeBinomialMixture([mean], [dispersion]).log_density(x).mean()

    inner = optimize.minimize_scalar(lambda a: -likelihood(np.exp(a)), bounds=(-20, 8), method="bounded")
    best = max(-inner.fun, likelihood(0.0))
    variable, values = rd.NegativeBinomialMixture([2 * mean + 1], [start]), []
    for _ in range(12):
        variable = variable.update(x, np.ones((4000, 1)))
        values.append(variable.log_density(x).mean())
    assert (np.diff(values) > -1e-10 * (1 + mean)).all(), values
    assert values[-1] > best - 1e-6, (variable.arrays(), values, best)


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_counts_that_vary_less_than_poisson(start):
    x = np.tile([3.0, 4.0], 50)
    variable = rd.NegativeBinomialMixture([5.0], [start])
    for _ in range(12):
        variable = variable.update(x, np.ones((100, 1)))
    assert variable.arrays()["dispersions"][0] < 1e-6 and variable.means()[0] == 3.5
    zeros = variable.update(np.zeros(5), np.ones((5, 1)))
    assert zeros.means()[0] == 0 and zeros.log_density(np.array([0.0, 1.0]))[:, 0].tolist() == [0.0, -np.inf]
    again = zeros.update(x, np.ones((100, 1)))
    assert np.isfinite(again.log_density(x)).all()


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        (([1.0, 2.0], [1.0]), r"means and dispersions must have one shape, found \(2,\) and \(1,\)"),
        (([-1.0], [1.0]), "means must be not negative and finite, found -1 at component 0"),
        (([1.0], [np.inf]), "dispersions must be not negative and finite, found inf"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit(arrays, finding):
    with pytest.raises(ValueError, match=finding):
        rd.NegativeBinomialMixture(*arrays)
