"""Von Mises components: from uniform to a point, and angles on both sides of the cut."""

import numpy as np
import pytest
from scipy import special, stats

import ringdist as rd
from ringdist.variables.von_mises import _concentration, _mean_length
from tests.backends import assert_close, load_backend

pytestmark = pytest.mark.slow_on("jax")

CONCENTRATIONS = np.array([0.0, 1e-8, 0.01, 0.7, 5.0, 49.0, 51.0, 700.0, 1e5, 1e8])


def test_densities_from_uniform_to_a_point(backend, dtype):
    locs = np.zeros(CONCENTRATIONS.size)
    variable = rd.VonMisesMixture(backend.array(locs, dtype), backend.array(CONCENTRATIONS, dtype))
    x = np.array([0.0, 1e-4, 0.01, -0.3, 2.0, -3.1]).astype(dtype).astype(float)
    kappa = CONCENTRATIONS.astype(dtype).astype(float)
    expected = -2 * kappa * np.sin(x[:, None] / 2) ** 2 - np.log(2 * np.pi * special.i0e(kappa))
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-12}
    assert_close(backend.numpy(variable.log_density(backend.array(x, dtype))), expected, variable, **close)
    close = {"rtol": 0, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    with np.errstate(all="ignore"):
        expected = np.stack([stats.vonmises(k).cdf(x) if k else x / (2 * np.pi) + 0.5 for k in kappa], axis=1)
    some = kappa < 40  # beyond, scipy has an approximation
    found = backend.numpy(variable.cdf(backend.array(x, dtype)))
    assert_close(found[:, some], expected[:, some], variable, **close)
    normal = stats.norm(0, np.where(kappa > 0, kappa, 1.0) ** -0.5).cdf(x[:, None])
    assert_close(found[:, -2:], normal[:, -2:], variable, rtol=0, atol=1e-5)


def test_the_ends_are_one_point(backend):
    variable = rd.VonMisesMixture(backend.array([np.pi, -3.0, 0.1]), backend.array([2.0, 30.0, 0.3]))
    ends = backend.array([-np.pi, np.pi])
    logs = backend.numpy(variable.log_density(ends))
    assert_close(logs[0], logs[1], variable)
    assert_close(backend.numpy(variable.cdf(ends)), [[0.0] * 3, [1.0] * 3], variable)
    assert_close(backend.numpy(variable.cdf(backend.array([0.0])))[0, 0], 0.5, variable)
    assert backend.numpy(variable.in_support(backend.array(np.float32(np.pi) * np.array([1.0, -1.0])))).all()
    x = np.linspace(-3.14, 3.14, 4001)
    p = np.exp(backend.numpy(variable.log_density(backend.array(x))))
    steps = np.diff(backend.numpy(variable.cdf(backend.array(x))), axis=0)
    assert_close(steps, (p[1:] + p[:-1]) / 2 * (x[1] - x[0]), variable, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_moments_of_the_number(backend):
    """Half of the mass of a component at π is at −π."""
    variable = rd.VonMisesMixture(backend.array([np.pi, 0.0, -3.0]), backend.array([50.0, 0.0, 1e7]))
    x, w = np.polynomial.legendre.leggauss(4000)
    p = np.exp(backend.numpy(variable.log_density(backend.array(np.pi * x))))[:, :2] * np.pi * w[:, None]
    means = (np.pi * x) @ p
    assert_close(backend.numpy(variable.means()), [*means, -3.0], variable, atol=1e-9)
    variances = ((np.pi * x) ** 2) @ p - means**2
    assert_close(backend.numpy(variable.variances()), [*variances, 1e-7], variable, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_at_any_concentration(backend, dtype):
    kappa = [0.0, 1e-6, 1.0, 30.0, 1e8]
    variable = rd.VonMisesMixture(backend.array([3.0] * 5, dtype), backend.array(kappa, dtype))
    for component, k in enumerate(kappa):
        x = backend.numpy(variable.sample(backend.array(np.full(3000, component), "int64"), backend.rng(component)))
        away = (x.astype(float) - np.float32(3.0) + np.pi) % (2 * np.pi) - np.pi
        if k > 1e6:
            assert abs(away.std() * k**0.5 - 1) < 0.05
        else:
            expected = stats.vonmises(k).cdf if k else stats.uniform(-np.pi, 2 * np.pi).cdf
            assert stats.kstest(away, expected).pvalue > 1e-3, k


def test_the_concentration_of_a_mean_length(backend, dtype):
    """A⁻¹ near 0, near 1 and between, from the length and one less it."""
    name, limit = ("float32", 2e-4) if dtype == "float32" else ("float64", 1e-11)
    kappa = 10 ** np.linspace(-6, 8, 80)
    found = _concentration(*_mean_length(backend.array(kappa, name)))
    assert_close(backend.numpy(found), kappa, name, rtol=limit)
    length, rest = (backend.numpy(v) for v in _mean_length(backend.array(kappa)))
    assert_close(length, special.ive(1, kappa) / special.ive(0, kappa), name, rtol=1e-12)
    large = kappa > 1e4
    assert_close(rest[large], (0.5 / kappa + 0.125 / kappa**2)[large], name, rtol=1e-9)


@pytest.mark.parametrize("truth", [(0.3, 0.2), (-3.1, 4.0), (2.0, 1e6)])
def test_one_step_is_the_maximum_of_likelihood(backend, truth):
    x = stats.vonmises(truth[1], loc=truth[0]).rvs(4000, random_state=0)
    x = (x + np.pi) % (2 * np.pi) - np.pi
    variable = rd.VonMisesMixture(backend.array([1.0]), backend.array([2.0]))
    for _ in range(2):  # the second about a direction that is known
        variable = variable.update(backend.array(x), backend.array(np.ones((4000, 1))))
    loc, kappa = (float(backend.numpy(a)[0]) for a in variable.arrays().values())
    cos, sin = np.cos(x).mean(), np.sin(x).mean()
    assert_close(np.exp(1j * loc), (cos + 1j * sin) / np.hypot(cos, sin), truth)
    versine = (2 * np.sin((x - loc) / 2) ** 2).mean()
    found = backend.numpy(_mean_length(backend.array([kappa]))[1])
    assert_close(found, [versine], truth, rtol=1e-7)


def test_a_component_across_the_cut():
    """Directions around π are one cluster, not two."""
    rng = np.random.default_rng(0)
    x = (np.concatenate([rng.vonmises(np.pi, 20, 300), rng.vonmises(0.5, 5, 300)]) + np.pi) % (2 * np.pi) - np.pi
    start = rd.initialize(x[:, None], [rd.VonMisesMixture], 1, num_components=2, rng=0)
    fitted = rd.fit_em(start, x[:, None], max_epochs=60)
    assert (np.diff(fitted.history["train"]) > -1e-9).all()
    locs = np.sort(np.abs(fitted.ring.variables[0].arrays()["locs"]))
    np.testing.assert_allclose(locs, [0.5, np.pi], atol=0.15)


def test_gradients_of_a_uniform_component():
    backend = load_backend("torch")
    locs, kappa = backend.array([0.0, 1.0]).requires_grad_(), backend.array([0.0, 1e-12]).requires_grad_()
    variable = rd.VonMisesMixture(locs, kappa)
    variable.log_density(backend.array([0.7])).sum().backward()
    assert_close(backend.numpy(kappa.grad), np.cos(0.7 - np.array([0.0, 1.0])), variable, rtol=1e-9)
    variable.inner(variable).sum().backward()
    assert np.isfinite(backend.numpy(kappa.grad)).all() and np.isfinite(backend.numpy(locs.grad)).all()


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        (([4.0], [1.0]), "locs must be between −π and π, found 4 at component 0"),
        (([0.0], [-1.0]), "concentrations must be not negative and finite, found -1 at component 0"),
        (([0.0, 1.0], [1.0]), r"locs and concentrations must have one shape, found \(2,\) and \(1,\)"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit(arrays, finding):
    with pytest.raises(ValueError, match=finding):
        rd.VonMisesMixture(*arrays)
