"""Families and quantiles at every scale that a dtype holds, against references in more digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from tests.backends import assert_close, load_backend

DTYPES = ("float32", "float64")
pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def eps(dtype: str) -> float:
    return float(np.finfo(dtype).eps)


def one_column(backend, variable, dtype: str, weights=(1.0,)) -> rd.TensorRing:
    return rd.TensorRing([backend.array(np.reshape(weights, (-1, 1, 1)), dtype)], [variable])


def gradients(backend, function, *arrays):
    """Those of a scalar function, for PyTorch and JAX; nothing for NumPy."""
    if backend.name == "numpy":
        return []
    if backend.name == "jax":
        import jax

        return [np.asarray(g) for g in jax.jit(jax.grad(function, tuple(range(len(arrays)))))(*arrays)]
    leaves = [array.clone().requires_grad_() for array in arrays]
    function(*leaves).backward()
    return [backend.numpy(leaf.grad) for leaf in leaves]


# --------------------------------------------------------------------------------------------------- Poisson


def exact_log_poisson(x: float, rate: float) -> float:
    """x log λ − λ − log x! in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        x, rate = Decimal(float(x)), Decimal(float(rate))
        if x == 0 or rate == 0:
            return float(-rate) if x == 0 else -np.inf
        shifted, product = x, Decimal(1)
        while shifted < 400:
            shifted += 1
            product *= shifted
        terms = [(12, 1), (-360, 3), (1260, 5), (-1680, 7), (1188, 9)]
        two_pi = 2 * Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
        stirling = (shifted + Decimal("0.5")) * shifted.ln() - shifted + two_pi.ln() / 2
        factorial = stirling + sum(1 / (c * shifted**p) for c, p in terms) - product.ln()
        return float(x * rate.ln() - rate - factorial)


def counts_near(rates: np.ndarray, generator, dtype: str) -> np.ndarray:
    """Counts (n, N), from the middle of each component, its tails and far from it, that the dtype holds."""
    spread = generator.normal(size=(12, len(rates))) * np.array([1.0, 8.0, 0.1] * 4)[:, None]
    factor = 10 ** generator.uniform(-1.5, 1.5, (6, len(rates)))
    counts = np.concatenate([rates + spread * np.sqrt(rates), rates * factor, 0 * rates[None]])
    return np.floor(np.maximum(counts, 0)).astype(dtype).astype(float)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow_on("jax")
def test_poisson_log_densities_of_counts_of_any_size(backend, dtype, seed):
    generator = np.random.default_rng(seed)
    high = 7.0 if dtype == "float32" else 15.3
    rates = np.append(10 ** generator.uniform(-3, high, 7), 10**high).astype(dtype)
    x = counts_near(rates.astype(float), generator, dtype)
    variable = rd.PoissonMixture(backend.array(rates, dtype))
    actual = backend.numpy(variable.log_density(backend.array(x, dtype)))  # (n, N, N)
    assert actual.dtype == dtype
    expected = np.array([[[exact_log_poisson(v, rate) for rate in rates] for v in row] for row in x])
    np.testing.assert_allclose(actual, expected, rtol=30 * eps(dtype), atol=30 * eps(dtype), err_msg=str(rates))


def test_poisson_log_densities_where_rates_are_tiny_or_counts_huge(backend, dtype):
    top = float(np.finfo(dtype).max)
    rates = np.array([0.0, float(np.finfo(dtype).tiny), 1.0, top / 4])
    x = np.array([0.0, 1.0, 1e10, np.floor(top / 1e5), -1.0, 0.5, np.inf])
    variable = rd.PoissonMixture(backend.array(rates, dtype))
    actual = backend.numpy(variable.log_density(backend.array(x, dtype)))
    with np.errstate(over="ignore"):
        expected = np.array([[exact_log_poisson(v, r) for r in rates.astype(dtype)] for v in x[:4].astype(dtype)])
        np.testing.assert_allclose(actual[:4], expected.astype(dtype), rtol=30 * eps(dtype))
    assert (actual[4:] == -np.inf).all(), "what is no count has no mass"


def test_gradients_of_poisson_densities(backend, dtype):
    """d log p / dλ = x / λ − 1, −1 at a rate of 0, and no NaN where the mass is 0."""
    if backend.name == "numpy":
        pytest.skip("NumPy has no gradients")
    generator = np.random.default_rng(0)
    rates = np.append(10 ** generator.uniform(-3, 7, 9), 0.0).astype(dtype)
    x = np.append(np.floor(rates[:-1] + 3 * np.sqrt(rates[:-1])), 0.0).astype(dtype)
    counts, index = backend.array(x, dtype), np.arange(10)

    def own(array):
        return rd.PoissonMixture(array, validate=False).log_density(counts)[index, index].sum()

    def mass(array):
        return backend.xp.exp(rd.PoissonMixture(array, validate=False).log_density(counts)).sum()

    expected = np.append(x[:-1] / rates[:-1].astype(float) - 1, -1.0)
    assert_close(gradients(backend, own, backend.array(rates, dtype))[0], expected, rates, atol=4 * eps(dtype))
    assert np.isfinite(gradients(backend, mass, backend.array(rates, dtype))[0]).all()


def lower_tail(x: float, rate: float) -> float:
    """Σ_{k <= x} p(k), from the exact p(x) downwards."""
    factors = np.cumprod((x - np.arange(min(x, 60 * np.sqrt(x) + 100))) / rate)
    return np.exp(exact_log_poisson(x, rate)) * (1 + factors.sum())


@pytest.mark.parametrize("rate", [0.7, 18.0, 400.0, 999.0, 3e4, 1e7])
@pytest.mark.slow_on("jax")
def test_poisson_distribution_functions(backend, dtype, rate):
    generator = np.random.default_rng(int(rate))
    x = np.floor(np.maximum(rate + np.sqrt(rate) * generator.uniform(-9, 1, 20), 0)).astype(dtype).astype(float)
    rate = float(np.asarray(rate, dtype))
    variable = rd.PoissonMixture(backend.array([rate], dtype))
    actual = backend.numpy(variable.cdf(backend.array(x, dtype)))[:, 0]
    expected = np.array([lower_tail(value, rate) for value in x])
    # The tail's own logarithm, up to 40 nats, has 12 times the relative error of the dtype. Below 200 in
    # float64 and 20 in float32 the libraries' own function decides: PyTorch's has 9 digits on every device.
    library = 1e-8 if backend.name.startswith("torch") and rate < 300 else 0.0
    np.testing.assert_allclose(actual, expected, rtol=2000 * eps(dtype) + library, atol=float(np.finfo(dtype).tiny))


@pytest.mark.parametrize("rate", [1e9, 1e12, 1e15, 1e20])
def test_poisson_distribution_functions_of_huge_rates(backend, dtype, rate):
    """Normal up to the skewness: relative error of z⁶ / rate."""
    rate = float(np.asarray(rate, dtype))
    x = np.floor(rate + np.sqrt(rate) * np.linspace(-7, 7, 29)).astype(dtype).astype(float)
    actual = backend.numpy(rd.PoissonMixture(backend.array([rate], dtype)).cdf(backend.array(x, dtype)))[:, 0]
    z = (x - rate + 0.5) / np.sqrt(rate)
    expected = stats.norm.cdf(z) - (z**2 - 1) * stats.norm.pdf(z) / (6 * np.sqrt(rate))
    assert (np.abs(actual / expected - 1) < 2000 * eps(dtype) + (1 + z**6) / rate).all(), (actual, expected)


@pytest.mark.parametrize("rate", [0.0, 3.0, 150.0, 5e3, 1e6])
def test_gradients_of_poisson_distribution_functions(backend, dtype, rate):
    """dF / dλ = −p(x)."""
    if backend.name == "numpy":
        pytest.skip("NumPy has no gradients")
    x = backend.array([np.floor(rate + 0.7 * np.sqrt(rate))], dtype)

    def total(rates):
        return rd.PoissonMixture(rates, validate=False).cdf(x).sum()

    expected = -np.exp(exact_log_poisson(float(backend.numpy(x)[0]), rate))
    assert_close(gradients(backend, total, backend.array([rate], dtype))[0], [expected], rate, rtol=2e3 * eps(dtype))


@pytest.mark.parametrize("rate", [300.0, 5e3, 1e7, 3e9, 1e13, 1e20])
def test_draws_of_counts_of_any_size(backend, dtype, rate):
    rate, n = float(np.asarray(rate, dtype)), 20_000
    variable = rd.PoissonMixture(backend.array([1.0, rate], dtype))
    x = backend.numpy(variable.sample(backend.array(np.ones(n), "int64"), backend.rng(0))).astype(float)
    assert (x == np.floor(x)).all() and (x >= 0).all()
    assert abs(x.mean() - rate) < 5 * np.sqrt(rate / n) + rate * eps(dtype)
    ulp = float(np.spacing(np.asarray(rate, dtype)))
    assert abs(x.var() / (rate + ulp**2 / 12) - 1) < 0.05 + 4 * ulp**2 / rate


@pytest.mark.parametrize("seed", range(3))
def test_poisson_inner_products(backend, dtype, seed):
    generator = np.random.default_rng(seed)
    rates, others = 10 ** generator.uniform(-4, 2, (2, 6)).astype(dtype).astype(float)
    rates[0] = 0.0
    values = np.arange(2000.0)
    expected = (
        np.exp(stats.poisson(rates[:, None]).logpmf(values)) @ np.exp(stats.poisson(others[:, None]).logpmf(values)).T
    )
    a, b = (rd.PoissonMixture(backend.array(r, dtype)) for r in (rates, others))
    assert_close(backend.numpy(a.inner(b)), expected, (rates, others), rtol=400 * eps(dtype), atol=0)
    first = gradients(
        backend, lambda r: rd.PoissonMixture(r, validate=False).inner(b).sum(), backend.array(rates, dtype)
    )
    expected = np.exp(-others) * (others - 1)  # of exp(−a − b) I0(2 √(a b)) at a = 0
    for gradient in first:
        assert_close(gradient[0], expected.sum(), rates, rtol=1e3 * eps(dtype))


# --------------------------------------------------------------------------------------------------- Gaussian


def powers(dtype: str) -> list[int]:
    """From where JAX, which knows no subnormal numbers, still has all digits of a difference."""
    return [-100, -76, -40, 0, 63, 100, 122] if dtype == "float32" else [-1000, -600, 0, 510, 1000]


@pytest.mark.parametrize("seed", range(2))
def test_gaussians_scale(backend, dtype, seed):
    """In units of 2^k everything is as in units of 1."""
    generator = np.random.default_rng(seed)
    means, stds = generator.normal(size=4).astype(dtype), generator.uniform(0.2, 2, 4).astype(dtype)
    x, weights = generator.normal(size=9).astype(dtype), generator.random((9, 4)).astype(dtype)

    def answers(power):
        unit = np.asarray(2.0**power, dtype)
        variable = rd.GaussianMixture(backend.array(means * unit, dtype), backend.array(stds * unit, dtype))
        points = backend.array(x * unit, dtype)
        updated = variable.update(points, backend.array(weights, dtype))
        return {
            "log_density": backend.numpy(variable.log_density(points)).astype(float) + power * np.log(2),
            "cdf": backend.numpy(variable.cdf(points)),
            "inner": backend.numpy(variable.inner(variable)) * unit,
            "means": backend.numpy(updated.means()) / unit,
            "stds": backend.numpy(updated.standard_deviations()) / unit,
        }

    expected = answers(0)
    for power in powers(dtype):
        for name, value in answers(power).items():
            allowed = 40 * eps(dtype) * max(1, 0.02 * abs(power))  # the logarithm of the unit is rounded
            assert_close(value, expected[name], (name, power), rtol=allowed, atol=allowed)


def test_gaussians_at_the_ends_of_the_range(backend, dtype):
    """Log-densities are finite or −inf, gradients no NaN, however far x is from the components."""
    limits = np.finfo(dtype)
    x = np.array([0.0, 1.0, -1e15, 1e30, limits.max, -limits.max, limits.tiny])
    means = np.array([0.0, 1.0, -limits.max, 1e-15, limits.max / 2])
    stds = np.array([1e-30, limits.tiny, 1e-20, 1.0, 0.49 / limits.tiny])
    arrays = [backend.array(part, dtype) for part in (means, stds, x)]
    actual = backend.numpy(rd.GaussianMixture(*arrays[:2]).log_density(arrays[2]))
    m, s, v = (np.asarray(part, dtype).astype(np.longdouble) for part in (means, stds, x))
    with np.errstate(over="ignore"):
        expected = (-0.5 * ((v[:, None] - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)).astype(dtype)
    np.testing.assert_allclose(actual, expected, rtol=30 * eps(dtype))
    assert not np.isnan(backend.numpy(rd.GaussianMixture(*arrays[:2]).cdf(arrays[2]))).any()
    for share in (0.0, 1e-30):  # of a posterior in which such a component has no part

        def total(means, stds, x, share=share):
            variable = rd.GaussianMixture(means, stds, validate=False)
            densities = backend.xp.exp(variable.log_density(x) - 90.0)
            return share * (densities.sum() + variable.cdf(x).sum())

        for gradient in gradients(backend, total, *arrays):
            assert not np.isnan(gradient).any(), (share, gradient)


def test_standard_deviations_without_a_reciprocal_are_refused(backend, dtype):
    tiny = float(np.finfo(dtype).tiny)
    for value in (tiny / 4, 2 / tiny):
        if backend.name == "jax" and value < tiny:
            continue  # flushed to 0
        with pytest.raises(ValueError, match=r"stds must be between .* found .* at component 1"):
            rd.GaussianMixture(backend.array([0.0, 0.0], dtype), backend.array([1.0, value], dtype))


def test_the_lower_tail_of_a_gaussian(backend, dtype):
    z = -np.linspace(0, 12 if dtype == "float32" else 37, 40)
    actual = backend.numpy(
        rd.GaussianMixture(*[backend.array([v], dtype) for v in (0.0, 1.0)]).cdf(backend.array(z, dtype))
    )
    expected = stats.norm.cdf(z.astype(dtype).astype(float))
    assert_close(actual[:, 0], expected, "cdf", rtol=3e3 * eps(dtype), atol=0)


# --------------------------------------------------------------------------------------------------- quantiles


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("seed", range(2))
def test_quantiles_scale(backend, dtype, seed):
    generator = np.random.default_rng(seed)
    means, stds, weights = generator.normal(size=3), generator.uniform(0.01, 1, 3), generator.random(3)
    q = backend.array(generator.uniform(0.01, 0.99, 9), dtype)

    def answer(power):
        variable = rd.GaussianMixture(backend.array(means * 2.0**power, dtype), backend.array(stds * 2.0**power, dtype))
        ring = one_column(backend, variable, dtype, weights)
        return backend.numpy(ring.quantile(0, q, backend.array(np.full((9, 1), np.nan), dtype))) / np.asarray(
            2.0**power, dtype
        )

    expected = answer(0)
    for power in powers(dtype):
        assert_close(answer(power), expected, power, rtol=200 * eps(dtype), atol=200 * eps(dtype))


@pytest.mark.parametrize(("mean", "std"), [(9.1e-31, 1e-33), (-1.0, 1e-6), (1e30, 1e26), (0.0, 1e37), (3.0, 1e-30)])
@pytest.mark.slow_on("jax")
def test_quantiles_of_one_component(backend, dtype, mean, std):
    q = np.array([0.0, 0.001, 0.2, 0.5, 0.8, 0.999, 1.0]).astype(dtype)
    variable = rd.GaussianMixture(backend.array([mean], dtype), backend.array([std], dtype))
    ring = one_column(backend, variable, dtype)
    actual = backend.numpy(ring.quantile(0, backend.array(q, dtype), backend.array(np.full((7, 1), np.nan), dtype)))
    assert actual[0] == -np.inf and actual[-1] == np.inf
    expected = stats.norm.ppf(q[1:-1].astype(float)) * std + mean
    allowed = 300 * eps(dtype) * std + 2 * eps(dtype) * abs(mean)
    assert (np.abs(actual[1:-1] - expected) <= allowed).all(), (actual, expected)


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("rate", [0.0, 1e-30, 2.5, 1e4, 1e7, 1e12, 1e15])
def test_quantiles_of_counts(backend, dtype, rate):
    """The smallest integer with F >= q; where integers have gaps in the dtype, the smallest number."""
    q = np.array([0.0, 1e-6, 0.1, 0.5, 0.9, 0.9999, 1.0]).astype(dtype)
    variable = rd.PoissonMixture(backend.array([rate], dtype))
    ring = one_column(backend, variable, dtype)
    x = backend.array(np.full((7, 1), np.nan), dtype)
    actual = backend.numpy(ring.quantile(0, backend.array(q, dtype), x))
    assert actual[0] == 0 and actual[-1] == np.inf
    inner = actual[1:-1]
    assert (inner == np.floor(inner)).all()
    below = np.minimum(np.nextafter(inner, np.asarray(-1, dtype)), inner - 1)
    reached = backend.numpy(variable.cdf(backend.array(inner, dtype)))[:, 0] >= q[1:-1]
    earlier = backend.numpy(variable.cdf(backend.array(below, dtype)))[:, 0] >= q[1:-1]
    assert reached.all() and not earlier.any(), (inner, below)


class Uniform:
    """p(x | s) = 1 / (highs[s] − lows[s]) between both; written against the protocol, without a support."""

    def __init__(self, lows, highs, name=None):
        self.lows, self.highs, self.name, self.num_components = lows, highs, name, lows.shape[0]

    def log_density(self, x):
        with np.errstate(divide="ignore"):
            return np.log(((x[..., None] >= self.lows) & (x[..., None] <= self.highs)) / (self.highs - self.lows))

    def cdf(self, x):
        return np.clip((x[..., None] - self.lows) / (self.highs - self.lows), 0, 1)

    def means(self):
        return (self.lows + self.highs) / 2

    def variances(self):
        return (self.highs - self.lows) ** 2 / 12

    def arrays(self):
        return {"lows": self.lows, "highs": self.highs}

    def check(self, x):
        if np.isinf(x).any():
            raise ValueError("infinity")

    def sample(self, component, rng):
        raise NotImplementedError

    inner = update = sample


@pytest.mark.parametrize("power", [-30, 0, 40])
def test_quantiles_of_a_column_with_an_end(numpy_backend, dtype, power):
    unit = np.asarray(2.0**power, dtype)
    variable = Uniform(np.array([1.0, 2.0], dtype) * unit, np.array([2.0, 4.0], dtype) * unit)
    ring = one_column(numpy_backend, variable, dtype, (0.5, 0.5))
    q = np.array([0.25, 0.5, 0.75, 1.0], dtype)
    actual = ring.quantile(0, q, np.full((4, 1), np.nan, dtype)) / unit
    assert_close(actual, [1.5, 2.0, 3.0, 4.0], variable, rtol=4 * eps(dtype))


@pytest.mark.slow
def test_quantiles_within_a_transformation(dtype):
    backend = load_backend("jax")
    jax = pytest.importorskip("jax")
    variable = rd.GaussianMixture(backend.array([3e-20], dtype), backend.array([1e-22], dtype))
    ring = one_column(backend, variable, dtype)
    x, q = jax.numpy.full((3, 1), jax.numpy.nan, dtype), jax.numpy.asarray([0.1, 0.5, 1.0], dtype)
    actual = jax.jit(lambda q: ring.quantile(0, q, x))(q)
    assert_close(actual, ring.quantile(0, q, x), ring, rtol=4 * eps(dtype))


# --------------------------------------------------------------------------------------------------- constant columns


VALUES = [7.3, -0.1, 1e-20, 3.3e8, 1e30]


def constant(value: float, dtype: str, jitter: bool) -> np.ndarray:
    column = np.full(1000, value, dtype)
    if jitter:  # as the same number computed in two ways
        column[::3] = np.nextafter(column[::3], np.asarray(np.inf, dtype))
    return column[:, None]


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("method", ["quantile", "mixture"])
def test_a_column_that_is_constant_but_for_rounding(dtype, value, jitter, method):
    """One component as wide as the value is large, before learning; a hundredth of that after it."""
    x = constant(value, dtype, jitter)
    ring = rd.initialize(x, [rd.GaussianMixture], 1, method=method, rng=0, dtype=dtype)
    assert ring.shape == (1,)
    std = float(ring.variables[0].standard_deviations()[0])
    assert std == pytest.approx(abs(value), rel=1e-6)
    fitted = rd.fit_em(ring, x, max_epochs=5).ring.variables[0]
    assert float(fitted.standard_deviations()[0]) == pytest.approx(1e-2 * abs(value), rel=1e-5)
    assert float(fitted.means()[0]) == pytest.approx(value, rel=1e-6)
    free = rd.fit_em(ring, x, max_epochs=5, variance_floor=0.0).ring.variables[0]
    assert float(free.standard_deviations()[0]) > 1e-3 * abs(value)


def test_a_narrow_column_is_not_constant(dtype):
    rng = np.random.default_rng(0)
    x = (1 + 100 * eps(dtype) * rng.normal(size=(500, 1))).astype(dtype)
    ring = rd.initialize(x, [rd.GaussianMixture], 1, num_components=2, rng=0, dtype=dtype)
    assert ring.shape == (2,)
    fitted = rd.fit_em(ring, x, max_epochs=5).ring.variables[0]
    assert float(fitted.standard_deviations().max()) < 200 * eps(dtype)


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("seed", range(2))
def test_learning_scales(backend, dtype, seed):
    """In units of 2^k EM finds the same components and the same floors."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(-1, 0.3, 60), rng.normal(2, 0.5, 60), np.full(30, 1.25)]).astype(dtype)[:, None]
    means, stds = np.array([-1.0, 2.0, 1.25]), np.array([0.5, 0.5, 0.01])

    def learned(power):
        unit = np.asarray(2.0**power, dtype)
        variable = rd.GaussianMixture(backend.array(means * unit, dtype), backend.array(stds * unit, dtype))
        ring = one_column(backend, variable, dtype, (0.3, 0.4, 0.3))
        fitted = rd.fit_em(ring, backend.array(x * unit, dtype), max_epochs=4, variance_floor=1e-2).ring
        return [backend.numpy(a) / unit for a in fitted.variables[0].arrays().values()]

    expected = learned(0)
    for power in powers(dtype)[1:-1]:
        for actual, value in zip(learned(power), expected, strict=True):
            assert_close(actual, value, power, rtol=2e3 * eps(dtype), atol=2e3 * eps(dtype))
