"""Student-t components: tails of any weight, and degrees of freedom that EM finds in tens of steps."""

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from tests.backends import assert_close, load_backend

pytestmark = pytest.mark.slow_on("jax")

DOFS = [0.1, 0.5, 1.0, 2.0, 3.7, 30.0, 1e3, 1e8]
X = np.array([-1e12, -4e3, -30.0, -7.0, -1.3, -1e-3, 0.0, 1e-6, 0.7, 5.0, 200.0, 1e9])


def test_densities_and_tails_of_any_degrees_of_freedom(backend):
    ones = np.ones(len(DOFS))
    variable = rd.StudentTMixture(backend.array(0 * ones), backend.array(ones), backend.array(DOFS))
    x = backend.array(X)
    assert_close(backend.numpy(variable.log_density(x)), stats.t(DOFS).logpdf(X[:, None]), variable, rtol=1e-8)
    assert_close(backend.numpy(variable.cdf(x)), stats.t(DOFS).cdf(X[:, None]), variable, rtol=1e-9, atol=1e-12)


def test_many_degrees_of_freedom_are_a_gaussian(backend, dtype):
    arrays = [backend.array(values, dtype) for values in ([1.0, -3.0], [2.0, 0.5])]
    variable = rd.StudentTMixture(*arrays, backend.array([1e8, 1e12], dtype))
    gaussian, x = rd.GaussianMixture(*arrays), backend.array(np.linspace(-8, 8, 33), dtype)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-6}
    for name in ("log_density", "cdf"):
        expected = backend.numpy(getattr(gaussian, name)(x))
        assert_close(backend.numpy(getattr(variable, name)(x)), expected, name, **close)


@pytest.mark.parametrize(("name", "big"), [("float32", 1e30), ("float64", 1e250)])
def test_values_and_scales_at_the_ends_of_the_dtype(backend, name, big):
    variable = rd.StudentTMixture(*(backend.array(v, name) for v in ([0.0, 0.0], [1 / big, big], [1.5, 1.5])))
    x = np.array([0.0, 1 / big, 1.0, big], dtype=name).astype(float)
    z = [np.log(x[1:]) + np.log(big), np.log(x[1:]) - np.log(big)]  # log |z|
    ends = np.stack([-0.5 * 2.5 * np.logaddexp(0, 2 * each - np.log(1.5)) for each in z], axis=1)
    logs = backend.numpy(variable.log_density(backend.array(x, name)))
    assert_close(logs[1:] - logs[0], ends, variable, rtol=1e-5)
    assert np.isfinite(backend.numpy(variable.sample(backend.array(np.arange(400) % 2, "int64"), backend.rng()))).all()
    again = variable.update(backend.array([big, -big, 1.0, 0.0], name), backend.array(np.ones((4, 2)), name))
    assert all(np.isfinite(backend.numpy(array)).all() for array in again.arrays().values()), again.arrays()


def test_moments_that_do_not_exist(backend):
    variable = rd.StudentTMixture(*(backend.array(v) for v in ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [1.0, 2.0, 4.0])))
    np.testing.assert_array_equal(backend.numpy(variable.means()), [np.nan, 1.0, 1.0])
    np.testing.assert_allclose(backend.numpy(variable.variances()), [np.nan, np.inf, 8.0])
    ring = rd.TensorRing([backend.array(np.ones((3, 1, 1)))], [variable])
    np.testing.assert_allclose(backend.numpy(ring.mode()), [1.0], atol=1e-6)
    assert np.isfinite(backend.numpy(ring.quantile(0, backend.array([1e-3, 0.5]), backend.array([[np.nan]])))).all()


@pytest.mark.parametrize(("truth", "start"), [(5.0, 100.0), (2.5, 20.0), (1.0, 30.0), (1e6, 0.5), (40.0, 3.0)])
def test_degrees_of_freedom_are_found_from_far_off(truth, start):
    x = stats.t(truth, loc=6, scale=2).rvs(5000, random_state=3)
    fits = [(truth, 6.0, 2.0), stats.t.fit(x, truth, loc=6, scale=2)]
    best = max(stats.t(*fit).logpdf(x).mean() for fit in fits)
    variable, weights = rd.StudentTMixture([2.0], [3.0], [start]), np.ones((5000, 1))
    values = []
    for _ in range(25):
        variable = variable.update(x, weights)
        values.append(variable.log_density(x).mean())
    assert (np.diff(values) > -1e-9).all(), values
    assert values[-1] > best - 3e-4, (variable.arrays(), values[-1] - best)


def test_outliers_do_not_move_a_component():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 480), rng.normal(0, 1, 20) * 1e4])[:, None]
    fits = {}
    for family in (rd.GaussianMixture, rd.StudentTMixture):
        start = rd.initialize(x, [family], 1, num_components=1, rng=0)
        fits[family] = rd.fit_em(start, x, max_epochs=60).ring
    robust = fits[rd.StudentTMixture].variables[0].arrays()
    assert abs(robust["locs"][0]) < 0.2 and 0.5 < robust["scales"][0] < 1.5 and robust["dofs"][0] < 1.5, robust
    assert fits[rd.StudentTMixture].log_prob(x).mean() > fits[rd.GaussianMixture].log_prob(x).mean() + 3


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        (
            ([0.0, 1.0], [1.0], [1.0, 1.0]),
            r"locs, scales and dofs must have one shape, found \(2,\), \(1,\) and \(2,\)",
        ),
        (([np.inf], [1.0], [1.0]), "locs must be finite, found inf at component 0"),
        (([0.0], [0.0], [1.0]), "scales must be between .*, found 0 at component 0"),
        (([0.0, 0.0], [1.0, 1.0], [1.0, -2.0]), "dofs must be positive and finite, found -2 at component 1"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit(arrays, finding):
    with pytest.raises(ValueError, match=finding):
        rd.StudentTMixture(*arrays)


def test_gradients_are_finite_where_z_is_0_or_far_off():
    backend = load_backend("torch")
    arrays = [backend.array(v).requires_grad_() for v in ([0.0, 1.0], [1.0, 1e-300], [0.5, 1e7])]
    x = backend.array([0.0, 1.0, 1e300]).requires_grad_()
    variable = rd.StudentTMixture(*arrays)
    variable.log_density(x).sum().backward()
    variable.cdf(x).sum().backward()
    assert all(np.isfinite(backend.numpy(a.grad)).all() for a in [*arrays, x])
