"""Beta components: bounded columns, from U-shaped to as narrow as the dtype tells."""

import functools

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma

import ringdist as rd
from tests.backends import assert_close, load_backend

pytestmark = pytest.mark.slow_on("jax")


def test_densities_of_any_shape(backend):
    shapes = [(1e-6, 1e-6), (1e-3, 20.0), (0.5, 0.5), (1.0, 1.0), (1.0, 7.0), (3.0, 1e4), (1e5, 3e5), (1e8, 1e8)]
    alphas, betas = (list(values) for values in zip(*shapes, strict=True))
    variable = rd.BetaMixture(backend.array(alphas), backend.array(betas))
    x = np.array([1e-300, 1e-9, 1e-3, 0.2, 0.25, 0.4999, 0.5, 0.7, 0.999, 1 - 1e-12])
    found, expected = (
        backend.numpy(variable.log_density(backend.array(x))),
        stats.beta(alphas, betas).logpdf(x[:, None]),
    )
    tight = np.array(alphas) + np.array(betas) < 1e5  # beyond, scipy cancels
    assert_close(found[:, tight], expected[:, tight], variable, rtol=1e-9, atol=1e-9)
    assert_close(found[:, ~tight], expected[:, ~tight], variable, rtol=1e-7, atol=1e-6)
    expected = stats.beta(alphas, betas).cdf(x[:, None])
    assert_close(backend.numpy(variable.cdf(backend.array(x))), expected, variable, rtol=1e-8, atol=1e-11)


def test_narrow_components_keep_their_digits(dtype, backend):
    """Beta(n m, n (1 − m)) is Gaussian for large n: log p(m) = log(n / (2π m (1 − m))) / 2."""
    total, mean = np.array([1e6, 1e9]), np.array([0.3, 0.75])
    arrays = backend.array(total * mean, dtype), backend.array(total * (1 - mean), dtype)
    variable = rd.BetaMixture(*arrays)
    alphas, betas = (backend.numpy(a).astype(float) for a in arrays)
    x = backend.array(mean, dtype)
    at = backend.numpy(x).astype(float)
    n, m = alphas + betas, alphas / (alphas + betas)
    expected = 0.5 * np.log(n / (2 * np.pi * m * (1 - m))) - 0.5 * n * (at - m) ** 2 / (m * (1 - m))
    close = {"rtol": 2e-2, "atol": 2e-2} if dtype == "float32" else {"rtol": 1e-6, "atol": 1e-6}
    assert_close(np.diagonal(backend.numpy(variable.log_density(x))), expected, variable, **close)


def test_samples_lie_strictly_between_the_bounds(backend, dtype):
    variable = rd.BetaMixture(backend.array([0.01, 0.3, 1e4], dtype), backend.array([0.01, 1e3, 0.2], dtype), 2.0, 3.0)
    x = backend.numpy(variable.sample(backend.array(np.arange(3000) % 3, "int64"), backend.rng()))
    assert (x > 2).all() and (x < 3).all()
    assert backend.numpy(variable.in_support(backend.array(x, dtype))).all()
    assert np.isfinite(backend.numpy(variable.log_density(backend.array(x, dtype)))).all()
    assert abs((x[::3] < 2.5).mean() - 0.5) < 0.06


def test_products_without_an_integral_and_other_bounds(backend):
    variable = rd.BetaMixture(backend.array([0.4, 2.0]), backend.array([1.0, 3.0]))
    assert np.isinf(backend.numpy(variable.inner(variable))).tolist() == [[True, False], [False, False]]
    other = rd.BetaMixture(backend.array([2.0]), backend.array([3.0]), high=2.0)
    with pytest.raises(ValueError, match=r"the same bounds, found \(0.0, 1.0\) and \(0.0, 2.0\)"):
        variable.inner(other)
    large = rd.BetaMixture(backend.array([1e8]), backend.array([1e8]))
    assert_close(backend.numpy(large.inner(large)), [[np.sqrt(2e8 / np.pi)]], large, rtol=1e-7)


@pytest.mark.parametrize("truth", [(0.3, 0.2), (1.0, 1.0), (2.0, 9.0), (40.0, 3.0), (3e4, 5e4), (1e7, 1e9)])
@pytest.mark.parametrize("start", [(1.0, 1.0), (0.1, 50.0), (1e5, 1e5)])
def test_parameters_are_found_in_a_few_steps(truth, start):
    x = stats.beta(*truth).rvs(4000, random_state=0)
    x = np.clip(x, 1e-300, 1 - 1e-16)
    variable, values = rd.BetaMixture([start[0]], [start[1]]), []
    for _ in range(10):
        variable = variable.update(x, np.ones((4000, 1)))
        values.append(variable.log_density(x).mean())
    assert (np.diff(values) > -1e-9).all(), values
    best = rd.BetaMixture([truth[0]], [truth[1]]).log_density(x).mean()
    assert best < values[-1] < best + 5e-3, (variable.arrays(), values[-1] - best)
    logs = np.log(x).mean(), np.log1p(-x).mean()
    (a,), (b,) = variable.arrays().values()
    residual = [digamma(a) - digamma(a + b) - logs[0], digamma(b) - digamma(a + b) - logs[1]]
    np.testing.assert_allclose(residual, 0, atol=1e-7)


def test_the_least_width_of_components(backend):
    x = backend.array(np.full(20, 0.25))
    variable = rd.BetaMixture(backend.array([1.0, 5.0]), backend.array([1.0, 2.0]))
    for _ in range(8):
        variable = variable.from_statistics(variable.statistics(x, backend.array(np.ones((20, 2)))), 0.01)
    np.testing.assert_allclose(backend.numpy(variable.variances()) ** 0.5, 0.01, rtol=1e-6)
    np.testing.assert_allclose(backend.numpy(variable.means()), 0.25, atol=1e-3)


def test_the_ends_of_a_scale_are_atoms():
    rng = np.random.default_rng(0)
    x = np.clip(rng.normal(0.5, 0.5, 500), 0, 1)[:, None]
    with pytest.raises(ValueError, match=r"column 0: values lie strictly between 0 and 1, found [01]; rd.WithAtoms"):
        rd.initialize(x, [rd.BetaMixture], 1, rng=0)
    family = functools.partial(rd.WithAtoms, rd.BetaMixture, [0.0, 1.0])
    fitted = rd.fit_em(rd.initialize(x, [family], 1, num_components=2, rng=0), x, max_epochs=20)
    assert (np.diff(fitted.history["train"]) > -1e-9).all()
    drawn = fitted.ring.sample(4000, rng=0)
    np.testing.assert_allclose((drawn == 0).mean(), (x == 0).mean(), atol=0.03)
    assert drawn.min() == 0 and drawn.max() == 1


def test_bounds_travel_with_the_variable(backend, tmp_path):
    variable = rd.BetaMixture(backend.array([2.0]), backend.array([3.0]), low=-5, high=10, name="score")
    ring = rd.TensorRing([backend.array([[[1.0]]])], [variable])
    ring.save(tmp_path / "ring")
    for again in (rd.load(tmp_path / "ring"), ring.to(np)):
        assert again.families[0].options() == {"low": -5.0, "high": 10.0}
        assert_close(again.log_prob([[1.0]]), stats.beta(2, 3, -5, 15).logpdf([1.0]), again)
    unlike = rd.BetaMixture(backend.array([2.0]), backend.array([3.0]))
    both = rd.TensorRing([backend.array([[[1.0]]])] * 2, [variable, unlike])
    assert both.groups == ((0,), (1,))


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        (([1.0], [1.0], 2.0, 2.0), "low must be below high, both finite, found 2 and 2"),
        (([1.0], [1.0], -np.inf, 2.0), "low must be below high"),
        (([0.0], [1.0]), "alphas must be positive and finite, found 0 at component 0"),
        (([1.0], [1.0, 2.0]), r"alphas and betas must have one shape, found \(1,\) and \(2,\)"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(arguments, finding):
    with pytest.raises(ValueError, match=finding):
        rd.BetaMixture(*arguments)


def test_gradients_at_extreme_shapes_are_finite():
    backend = load_backend("torch")
    arrays = [backend.array(v).requires_grad_() for v in ([1e-6, 1.0, 1e9], [1e5, 1.0, 1e9])]
    x = backend.array([1e-290, 0.5, 1 - 1e-15]).requires_grad_()
    rd.BetaMixture(*arrays).log_density(x).sum().backward()
    rd.BetaMixture(*arrays).cdf(x).sum().backward()
    assert all(np.isfinite(backend.numpy(a.grad)).all() for a in [*arrays, x])
