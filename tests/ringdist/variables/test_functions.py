"""Functions behind the densities, against scipy over wide grids."""

import numpy as np
import pytest
from scipy import special

from ringdist.variables.gamma_functions import (
    deviance,
    excess,
    inverse_log_gap,
    log_gap,
    log_gap_derivative,
    stirling_error,
)
from ringdist.variables.tails import regularised_beta
from tests.backends import assert_close, load_backend


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def backend(request):
    return load_backend(request.param)


def points(low: float, high: float, n: int = 2000, seed: int = 0):
    """Parameters a and b between powers of ten, and a probability within some widths of the mode."""
    rng = np.random.default_rng(seed)
    a, b = 10 ** rng.uniform(low, high, (2, n))
    odds = np.log(a / b) + 2 * rng.normal(size=n) * np.minimum(np.sqrt(1 / a + 1 / b), 30)
    p = special.expit(odds)
    inside = (p > 1e-280) & (p < 1)
    return a[inside], b[inside], p[inside]


@pytest.mark.parametrize(("low", "high"), [(-8, 1), (-2, 2), (-3, 5), (0, 8), (5, 10), (-8, 10)])
def test_incomplete_beta_function(backend, low, high):
    a, b, p = points(low, high)
    q = 1 - p
    arrays = [backend.array(v) for v in (a, b, p, q, a * q - b * p)]
    expected = special.betainc(a, b, p)
    assert_close(backend.numpy(regularised_beta(*arrays)), expected, (low, high), rtol=0, atol=1e-11)


def test_incomplete_beta_function_far_in_the_lower_tail(backend):
    """Relative digits of probabilities down to 1e-280."""
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-1, 4, (2, 2000))
    p = special.expit(np.log(a / b) - rng.uniform(3, 30, 2000) * np.minimum(np.sqrt(1 / a + 1 / b), 3))
    expected = special.betainc(a, b, p)
    arrays = [backend.array(v) for v in (a, b, p, 1 - p, a * (1 - p) - b * p)]
    kept = expected > 1e-280
    assert_close(backend.numpy(regularised_beta(*arrays))[kept], expected[kept], "tail", rtol=1e-9, atol=0)


def test_incomplete_beta_function_in_float32(backend):
    a, b, p = points(-4, 6)
    p = np.where((p > 1e-30) & (p < 1 - 1e-6), p, 0.5)
    a, b, p = (v.astype(np.float32) for v in (a, b, p))
    q = 1 - p.astype(float)
    expected = special.betainc(a.astype(float), b.astype(float), p.astype(float))
    arrays = [backend.array(v, "float32") for v in (a, b, p, q, a * q - b * p.astype(float))]
    assert_close(backend.numpy(regularised_beta(*arrays)), expected, "float32", rtol=0, atol=1e-5)


def test_gradients_of_the_incomplete_beta_function():
    """By p its density; by a and b against differences of scipy's."""
    backend = load_backend("torch")
    a, b, p = points(-1, 4, 200)
    arrays = [backend.array(v).requires_grad_() for v in (a, b, p)]
    ours_a, ours_b, ours_p = arrays
    ours_q = 1 - ours_p
    regularised_beta(ours_a, ours_b, ours_p, ours_q, ours_a * ours_q - ours_b * ours_p).sum().backward()
    density = np.exp((a - 1) * np.log(p) + (b - 1) * np.log1p(-p) - special.betaln(a, b))
    assert_close(backend.numpy(ours_p.grad), density, "p", rtol=1e-8)
    for array, moved in ((ours_a, lambda e: (a * e, b, p)), (ours_b, lambda e: (a, b * e, p))):
        up, down = (special.betainc(*moved(1 + e)) for e in (1e-5, -1e-5))
        slope = (up - down) / (2e-5 * backend.numpy(array.detach()))
        assert_close(backend.numpy(array.grad), slope, "shape", rtol=1e-4, atol=1e-8)


def test_logarithms_of_the_gamma_function(backend):
    x = 10 ** np.linspace(-8, 12, 300)
    moderate = x[x < 1e4]
    direct = special.gammaln(moderate) - (moderate - 0.5) * np.log(moderate) + moderate - 0.5 * np.log(2 * np.pi)
    found = backend.numpy(stirling_error(backend.array(x)))
    assert_close(found[x < 1e4], direct, "stirling_error", rtol=1e-9, atol=1e-10)
    assert_close(found[x > 1e3], 1 / (12 * x[x > 1e3]), "stirling_error", rtol=1e-6)
    gap = backend.numpy(log_gap(backend.array(x)))
    assert_close(gap[x < 1e4], np.log(moderate) - special.digamma(moderate), "log_gap", rtol=1e-10)
    assert_close(gap[x > 1e3], 0.5 / x[x > 1e3] + 1 / (12 * x[x > 1e3] ** 2), "log_gap", rtol=1e-10)
    slope = backend.numpy(log_gap_derivative(backend.array(x)))
    assert_close(slope[x < 1e3], (1 / x - special.polygamma(1, x))[x < 1e3], "log_gap_derivative", rtol=1e-9)
    assert_close(slope[x > 1e3], -0.5 / x[x > 1e3] ** 2 - 1 / (6 * x[x > 1e3] ** 3), "log_gap_derivative", rtol=1e-9)
    assert_close(backend.numpy(inverse_log_gap(backend.array(gap))), x, "inverse_log_gap", rtol=1e-10)


def test_small_differences_of_logarithms(backend):
    y = np.concatenate([-(10 ** np.linspace(-12, -0.01, 50)), 10 ** np.linspace(-12, 6, 50)])
    small = np.abs(y) < 1e-4
    series = y * y / 2 - y**3 / 3 + y**4 / 4
    found = backend.numpy(excess(backend.array(y)))
    assert_close(found[small], series[small], "excess", rtol=1e-11)
    assert_close(found[~small], (y - np.log1p(y))[~small], "excess", rtol=1e-7)
    x = 10.0 ** np.arange(-3, 12)
    for share in (1e-7, -1e-3, 0.05, -0.09, 0.5, -0.9, 30.0):
        mean = x * (1 + share)
        actual = backend.numpy(deviance(backend.array(x), backend.array(mean), backend.array(x - mean)))
        assert_close(actual, x * (share - np.log1p(share)), share, rtol=1e-7 if abs(share) < 1e-4 else 1e-9)
