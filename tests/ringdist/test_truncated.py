"""Components within an interval: masses, moments, distribution functions and draws, as far out as floats reach."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from ringdist.variables import Family, as_family, rebuild
from tests.backends import assert_close, load_backend
from tests.families import LaplaceMixture

pytestmark = pytest.mark.slow_on("jax")

INF = math.inf


class Plain:
    """What the families below share: numbers of NumPy, and as little of the protocol as a ring needs."""

    def __init__(self, rates, name=None):
        self.rates, self.name, self.num_components = np.asarray(rates), name, len(rates)

    def arrays(self):
        return {"rates": self.rates}

    def sample(self, component, rng):
        raise NotImplementedError

    inner = update = sample

    def check(self, x):
        if np.any(x < self.support[0]):
            raise ValueError(f"values are not negative, found {np.min(x):g}")


class Exponential(Plain):
    support = (0.0, INF)

    def log_density(self, x):
        x = x[..., None]
        return np.where(x >= 0, np.log(self.rates) - self.rates * x, -INF)

    def cdf(self, x):
        return -np.expm1(-self.rates * np.maximum(x[..., None], 0))

    def means(self):
        return 1 / self.rates

    def variances(self):
        return 1 / self.rates**2


class Geometric(Plain):
    """p(k) = rate (1 − rate)^k for k = 0, 1, ..."""

    integer, support = True, (0.0, INF)

    def log_density(self, x):
        x = x[..., None]
        return np.where((x >= 0) & (x == np.floor(x)), np.log(self.rates) + x * np.log1p(-self.rates), -INF)

    def cdf(self, x):
        return np.where(x[..., None] < 0, 0.0, -np.expm1((np.floor(x[..., None]) + 1) * np.log1p(-self.rates)))

    def means(self):
        return (1 - self.rates) / self.rates

    def variances(self):
        return (1 - self.rates) / self.rates**2


class Cauchy(Plain):
    """Of scale 1 / rate, with neither mean nor variance."""

    support = (-INF, INF)

    def log_density(self, x):
        return np.log(self.rates / math.pi) - np.log1p((x[..., None] * self.rates) ** 2)

    def cdf(self, x):
        return 0.5 + np.arctan(x[..., None] * self.rates) / math.pi

    def means(self):
        return np.full(self.num_components, np.nan)

    variances = means

    def check(self, x):
        pass


GAUSSIAN = rd.GaussianMixture([0.0, 3.0, -1e3], [1.0, 0.2, 50.0])
LAPLACE = LaplaceMixture(np.array([0.0, 2.0]), np.array([1.0, 0.3]))
# Intervals across, beside and far from the components, narrow and wide, with and without an end.
INTERVALS = [
    (-1.0, 2.0),
    (2.5, 3.5),
    (1.0, INF),
    (-INF, 0.5),
    (6.0, 7.0),
    (40.0, INF),
    (-INF, -2000.0),
    (300.0, 300.001),
    (-1e9, 3.0),
    (0.5, 1e12),
    (2.0, 2.0 + 1e-9),
]


def ids(interval):
    return str(rd.Interval(*interval))


def offsets_reference(log_ratio, length, scale):
    """∫ exp(log_ratio(y)) dy over 0 <= y <= length, and mean and variance of y."""
    edges = [0.0, *(scale * 2.0**k for k in range(-30, 12) if scale * 2.0**k < length), length]
    edges = edges if math.isfinite(length) else edges[:-1]
    nodes, weights = np.polynomial.legendre.leggauss(40)
    y = np.concatenate([a + (b - a) * (nodes + 1) / 2 for a, b in itertools.pairwise(edges)])
    w = np.concatenate([(b - a) * weights / 2 for a, b in itertools.pairwise(edges)]) * np.exp(log_ratio(y))
    mean = (w @ y) / w.sum()
    return w.sum(), mean, (w @ (y - mean) ** 2) / w.sum()


def gaussian_reference(mean, std, low, high):
    """log mass, mean and variance on an interval, from integrals over the distance to its end next to the mean."""
    if not low <= mean <= high:
        mirrored = mean > high
        near, far = (2 * mean - high, 2 * mean - low) if mirrored else (low, high)
        z = (near - mean) / std
        scale = std / z
        mass, m, v = offsets_reference(lambda y: -y / std * (z + y / (2 * std)), far - near, scale)
        log_mass = math.log(mass) - 0.5 * z * z - math.log(std * math.sqrt(2 * math.pi))
        return log_mass, (high - m if mirrored else low + m), v
    parts = []
    for length, sign in ((mean - low, -1), (high - mean, 1)):
        if length > 0:
            mass, m, v = offsets_reference(lambda y: -0.5 * (y / std) ** 2, length, std)
            parts.append((mass, sign * m, v + m * m))
    total = sum(p[0] for p in parts)
    first, second = (sum(p[0] * p[i] for p in parts) / total for i in (1, 2))
    return math.log(total / std / math.sqrt(2 * math.pi)), mean + first, second - first**2


# -------------------------------------------------------------------------------------------------- masses


@pytest.mark.parametrize("interval", INTERVALS, ids=ids)
def test_gaussians_within_an_interval(backend, interval, dtype):
    """Masses of e^-8e11 and variances of (1e-9)² have the digits of float64, in float32 those of the parameters."""
    means, stds = (GAUSSIAN.arrays()[name] for name in ("means", "stds"))
    family = rd.GaussianMixture(backend.array(means, dtype), backend.array(stds, dtype))
    if dtype == "float32":
        means, stds = (np.float32(a).astype(float) for a in (means, stds))
    expected = np.array([gaussian_reference(m, s, *interval) for m, s in zip(means, stds, strict=True)])
    truncated = rd.Truncated(family, rd.Interval(*interval))
    assert_close(backend.numpy(family.log_probability(*interval)), expected[:, 0], truncated, rtol=1e-12)
    eps = 2e-7 if dtype == "float32" else 1e-14
    error = np.abs(backend.numpy(truncated.means()) - expected[:, 1])
    assert (error <= eps * (np.abs(expected[:, 1]) + stds)).all(), (truncated, error)
    assert_close(backend.numpy(truncated.variances()), expected[:, 2], truncated, rtol=max(eps, 1e-11), atol=0)
    assert truncated.means().dtype == family.means().dtype


def test_masses_beyond_the_range_of_floats():
    """log Q(z) by its asymptotic series."""
    z = np.array([50.0, 1e3, 1e6, 1e150])
    for sign in (1, -1):
        low, high = (0.0, INF) if sign > 0 else (-INF, 0.0)
        logs = rd.GaussianMixture(-sign * z, np.ones(4)).log_probability(low, high)
        series = 1 - z**-2.0 + 3 * z**-4.0 - 15 * z**-6.0 + 105 * z**-8.0
        np.testing.assert_allclose(logs, -0.5 * z**2 - np.log(z * math.sqrt(2 * math.pi)) + np.log(series), rtol=1e-15)
    assert rd.GaussianMixture([0.0], [1.0]).log_probability(1e200, INF) == -INF


@pytest.mark.parametrize("interval", [(0, 3), (2, INF), (0, 0), (40, 60), (0.5, 7.9), (700, INF), (3, 1e6)], ids=ids)
def test_counts_within_an_interval(backend, interval):
    rates = np.array([0.0, 1e-3, 3.0, 50.0])
    family = rd.PoissonMixture(backend.array(rates))
    x = np.arange(math.ceil(interval[0]), math.floor(min(interval[1], interval[0] + 400)) + 1)
    logs = stats.poisson(rates[:, None]).logpmf(x)
    logs[0] = np.where(x == 0, 0.0, -INF)
    top = logs.max(axis=1, keepdims=True)
    top[~np.isfinite(top)] = 0
    p = np.exp(logs - top)
    with np.errstate(divide="ignore"):
        expected = np.log(p.sum(axis=1)) + top[:, 0]
    assert_close(backend.numpy(family.log_probability(*interval)), expected, family, rtol=1e-10, atol=1e-10)
    truncated, alive = rd.Truncated(family, rd.Interval(*interval)), p.sum(axis=1) > 0
    p = p[alive] / p[alive].sum(axis=1, keepdims=True)
    mean = p @ (x - x[0])
    variance = (p * (x - x[0] - mean[:, None]) ** 2).sum(axis=1)
    assert_close(backend.numpy(truncated.means())[alive], x[0] + mean, truncated, rtol=1e-12)
    assert_close(backend.numpy(truncated.variances())[alive], variance, truncated, rtol=1e-10)
    assert np.isfinite(backend.numpy(truncated.means())).all(), truncated


@pytest.mark.parametrize("interval", [(1000000, 1002000), (1005000, INF), (0, 994000), (999990, 1000010), (0, 1000100)])
def test_large_counts_within_an_interval(interval):
    family = rd.PoissonMixture([1e6, 1e3])
    truncated = rd.Truncated(family, rd.Interval(*interval))
    low, high = max(interval[0], 985000), min(interval[1], 1015000)
    x = np.arange(low, high + 1, dtype=float)
    logs = family.log_density(x)[:, 0]
    p = np.exp(logs - logs.max())
    mean = p @ (x - low) / p.sum()
    variance = p @ (x - low - mean) ** 2 / p.sum()
    np.testing.assert_allclose(
        family.log_probability(*interval)[0], np.log(p.sum()) + logs.max(), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(truncated.means()[0], low + mean, rtol=1e-12)
    np.testing.assert_allclose(truncated.variances()[0], variance, rtol=1e-8)


@pytest.mark.parametrize(
    "interval", [(0.3, 4.0), (100.0, INF), (1e5, INF), (20.0, 25.0), (-3.0, 2.0), (0.0, 1e-8)], ids=ids
)
def test_a_family_of_real_numbers_with_the_bare_protocol(interval):
    """An exponential distribution has no memory: within an interval it is the same one, moved and cut."""
    rates = np.array([0.5, 1.0, 30.0])
    low, length = max(interval[0], 0.0), interval[1] - max(interval[0], 0.0)
    t = rates * length
    with np.errstate(invalid="ignore", over="ignore"):
        cut = np.where(np.isinf(t), 0.0, t / np.expm1(t))  # E[rate (X − low)] = 1 − t / (e^t − 1)
        lost = np.where(np.isinf(t), 0.0, t * t * np.exp(-t) / np.expm1(-t) ** 2)
    mean, variance = low + (1 - cut) / rates, (1 - lost) / rates**2
    small = t < 1e-3  # nearly uniform
    mean, variance = np.where(small, low + length / 2, mean), np.where(small, length**2 / 12, variance)
    family = as_family(Exponential(rates))
    truncated = rd.Truncated(Exponential(rates), rd.Interval(*interval))
    expected = -rates * low + np.log(-np.expm1(-t))
    np.testing.assert_allclose(family.log_probability(*interval), expected, rtol=1e-11)
    np.testing.assert_allclose(truncated.means(), mean, rtol=1e-7 if small.all() else 1e-12)
    np.testing.assert_allclose(truncated.variances(), variance, rtol=1e-6 if small.all() else 1e-10)
    x = low + np.array([0.2, 0.9]) * (length if math.isfinite(length) else 1.0)
    expected = np.expm1(-rates * (x[:, None] - low)) / np.expm1(-t)
    np.testing.assert_allclose(truncated.cdf(x), expected, rtol=1e-10)


@pytest.mark.parametrize("interval", [(0, 5), (3, INF), (5000, INF), (10, 4000), (100, 130), (2.5, 1e6)], ids=ids)
def test_a_family_of_integers_with_the_bare_protocol(interval):
    rates = np.array([0.5, 0.01, 1e-4])
    family, truncated = as_family(Geometric(rates)), rd.Truncated(Geometric(rates), rd.Interval(*interval))
    low, slope = math.ceil(interval[0]), np.log1p(-rates)
    number = INF if math.isinf(interval[1]) else math.floor(interval[1]) - low + 1
    np.testing.assert_allclose(
        family.log_probability(*interval), low * slope + np.log(-np.expm1(number * slope)), rtol=1e-11
    )
    k = np.arange(min(number, 600_000))
    p = np.exp(k[:, None] * slope)
    mean = (p.T @ k) / p.sum(axis=0)
    variance = np.einsum("ks,ks->s", p, (k[:, None] - mean) ** 2) / p.sum(axis=0)
    np.testing.assert_allclose(truncated.means(), low + mean, rtol=1e-10)
    np.testing.assert_allclose(truncated.variances(), variance, rtol=1e-8)
    x = low + np.array([0.0, 2.0, 5.0])
    np.testing.assert_allclose(
        truncated.cdf(x), np.expm1((x[:, None] - low + 1) * slope) / np.expm1(number * slope), rtol=1e-9
    )


@pytest.mark.parametrize("interval", [(-1.0, 4.0), (0.0, 1e8), (1e10, 1e11), (-3e-6, 2e-6), (2.0, INF)], ids=ids)
def test_a_family_without_moments(interval):
    """Within an interval it has some, unless that has no end."""
    rates = np.array([1.0, 1e4])
    family, truncated = as_family(Cauchy(rates)), rd.Truncated(Cauchy(rates), rd.Interval(*interval))
    a, b = rates * interval[0], rates * interval[1]
    angle = np.arctan2(b - a, 1 + a * b) if math.isfinite(interval[1]) else np.arctan2(1, a)  # arctan b − arctan a
    np.testing.assert_allclose(np.exp(family.log_probability(*interval)), angle / math.pi, rtol=1e-9)
    if math.isinf(interval[1]):
        assert (truncated.means() == INF).all() and (truncated.variances() == INF).all()
        return
    mean = 0.5 * (np.log1p(b * b) - np.log1p(a * a)) / angle
    with np.errstate(invalid="ignore"):
        variance = (b - a - angle) / angle - mean**2
    sure = np.abs(angle) > 1e-2  # where the reference does not cancel
    np.testing.assert_allclose((truncated.means() * rates)[sure], mean[sure], rtol=1e-9)
    np.testing.assert_allclose((truncated.variances() * rates**2)[sure], variance[sure], rtol=1e-7)
    x = truncated.sample(np.zeros(2000, dtype=int), np.random.default_rng(0))
    assert stats.kstest(truncated.cdf(x)[:, 0], "uniform").pvalue > 1e-3


# --------------------------------------------------------------------------------------------------- draws

DRAWN = {
    "gaussian": (GAUSSIAN, [*INTERVALS, (-1e6, -1999.0)]),
    "poisson": (rd.PoissonMixture([0.5, 8.0, 1e5]), [(0, 3), (5, INF), (90, INF), (99_000, 99_500), (102_000, INF)]),
    "laplace": (LAPLACE, [(-1.0, 2.0), (300.0, INF), (-INF, -1.0), (50.0, 50.5)]),
    "exponential": (Exponential([1.0, 5.0]), [(0.5, 2.0), (1e4, INF), (-1.0, 0.1)]),
    "geometric": (Geometric([0.3, 1e-3]), [(0, 2), (7, INF), (30_000, INF), (20_000, 20_400)]),
}


@pytest.mark.parametrize(("name", "interval"), [(n, i) for n, (_, several) in DRAWN.items() for i in several])
def test_draws_have_the_distribution_function_of_the_interval(name, interval):
    variable = DRAWN[name][0]
    truncated, rng = rd.Truncated(variable, rd.Interval(*interval)), np.random.default_rng(5)
    for component in range(variable.num_components):
        if truncated.inner_family.log_probability(*interval)[component] == -INF:
            continue
        x = truncated.sample(np.full(4000, component), rng)
        assert x.min() >= interval[0] and x.max() <= interval[1], truncated
        u = truncated.cdf(x)[:, component]
        if truncated.integer:
            assert (x == np.floor(x)).all()
            u = truncated.cdf(x - 1)[:, component] + rng.random(4000) * (u - truncated.cdf(x - 1)[:, component])
        assert stats.kstest(u, "uniform").pvalue > 1e-3, (truncated, component)
        error = math.sqrt(truncated.variances()[component] / 4000)
        assert abs(x.mean() - truncated.means()[component]) < 5 * error + 1e-9 * abs(x.mean()), (truncated, component)


@pytest.mark.parametrize("name", ["gaussian", "poisson", "laplace"])
def test_draws_of_every_backend(backend, name, dtype):
    variable, interval = DRAWN[name][0], {"gaussian": (9.0, 11.0), "poisson": (40, 60), "laplace": (-1.0, 0.5)}[name]
    arrays = {key: backend.array(a, dtype) for key, a in variable.arrays().items()}
    truncated = rd.Truncated(type(variable)(**arrays), rd.Interval(*interval))
    component = backend.array(np.tile([0, 1], (2, 500)), "int64" if backend.name != "jax" else "int32")
    x = truncated.sample(component, backend.rng())
    values = backend.numpy(x)
    assert values.shape == (2, 1000) and values.min() >= interval[0] and values.max() <= interval[1]
    means, variances = (backend.numpy(part)[:2] for part in (truncated.means(), truncated.variances()))
    found = np.stack([values[:, ::2].mean(), values[:, 1::2].mean()])
    assert (np.abs(found - means) < 5 * np.sqrt(variances / 1000)).all(), (found, means)


@pytest.mark.parametrize("name", DRAWN)
def test_densities_integrate_to_the_distribution_function(name):
    variable, several = DRAWN[name]
    for interval in several[:3]:
        truncated = rd.Truncated(variable, rd.Interval(*interval))
        low = max(interval[0], truncated.support[0], -2100.0)
        high = min(interval[1], low + 6)
        if truncated.integer:
            x = np.arange(low, high + 1)
            found = np.exp(truncated.log_density(x)).sum(axis=0)
        else:
            nodes, weights = np.polynomial.legendre.leggauss(20)
            width = (high - low) / 200
            x = low + width * np.add.outer(np.arange(200), (nodes + 1) / 2)
            found = width / 2 * np.einsum("q,pqs->s", weights, np.exp(truncated.log_density(x)))
        expected = truncated.cdf(np.array([high]))[0] - truncated.cdf(np.array([low - 1e-9]))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
        outside = np.array([interval[0] - 1.0, interval[1] + 1.0])
        assert (truncated.log_density(outside) == -INF).all(), truncated
        assert (truncated.cdf(outside) == [[0.0], [1.0]]).all(), truncated


# ------------------------------------------------------------------------------------------- as a variable


def test_it_follows_the_protocol_and_survives_its_moves():
    truncated = rd.Truncated(rd.GaussianMixture([0.0, 1.0], [1.0, 2.0], name="height"), rd.Interval(0, 5))
    assert isinstance(truncated, rd.Variable) and isinstance(truncated, Family)
    assert (truncated.name, truncated.num_components, truncated.support) == ("height", 2, (0.0, 5.0))
    same = rebuild(truncated.form, truncated.arrays())
    for again in (same, copy.deepcopy(truncated), pickle.loads(pickle.dumps(truncated))):
        np.testing.assert_array_equal(again.means(), truncated.means())
        assert repr(again) == repr(truncated) and again.form == truncated.form
    assert hash(truncated.form) == hash(same.form)
    assert rd.Truncated(truncated, rd.Interval(1, 2)).form != truncated.form


def test_a_name_stays_when_an_interval_is_restricted_further():
    once = rd.Truncated(rd.GaussianMixture([0.0], [1.0], name="height"), rd.Interval(0, 5))
    assert rd.Truncated(once, rd.Interval(1, 2)).name == "height"
    named = rd.Truncated(once, rd.Interval(1, 2), name="length")
    assert named.name == rd.Truncated(named, rd.Interval(1, None)).name == "length"


@pytest.mark.parametrize(
    ("inner", "interval"),
    [
        (rd.GaussianMixture([0.0, 1.0], [1.0, 2.0], name="a"), (-0.5, 1.0)),
        (rd.LogNormalMixture([0.0, 1.0], [1.0, 0.5], name="a"), (0.5, 3.0)),
        (rd.PoissonMixture([1.0, 4.0], name="a"), (0.0, 2.0)),
    ],
)
def test_atoms_within_an_interval(inner, interval, tmp_path):
    """Draws, masses, moments and files of a variable with an atom in the interval and one outside."""
    variable = rd.WithAtoms(inner, [1.0, 7.0])
    ring = rd.TensorRing.random([variable, rd.PoissonMixture([1.0, 2.0])], rank=2, rng=0)
    x, event = ring.sample(100_000, rng=1), {0: rd.Interval(*interval)}
    inside = (x[:, 0] >= interval[0]) & (x[:, 0] <= interval[1])
    np.testing.assert_allclose(ring.probability(event), inside.mean(), atol=0.01)
    conditional = ring.condition(event)
    drawn = conditional.sample(50_000, rng=2)
    assert ((drawn[:, 0] >= interval[0]) & (drawn[:, 0] <= interval[1])).all()
    np.testing.assert_allclose((drawn[:, 0] == 1.0).mean(), (x[inside, 0] == 1.0).mean(), atol=0.01)
    np.testing.assert_allclose(conditional.mean()[0], x[inside, 0].mean(), atol=0.02)
    missing = np.full(2, np.nan)
    point = np.array([1.0, np.nan])
    np.testing.assert_allclose(conditional.cdf(0, point), (x[inside, 0] <= 1.0).mean(), atol=0.01)
    given = ring.sample_given(np.tile(missing, (20_000, 1)), rng=3, event=event)
    np.testing.assert_allclose(given.reshape(-1, 2)[:, 0].mean(), x[inside, 0].mean(), atol=0.03)
    conditional.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring")
    assert again.variables[0].form == conditional.variables[0].form
    np.testing.assert_array_equal(again.log_prob(drawn[:50]), conditional.log_prob(drawn[:50]))


def test_an_atom_is_found_in_single_precision():
    variable = rd.WithAtoms(rd.GaussianMixture(*np.array([[0.0], [1.0]], np.float32)), [0.1])
    truncated = rd.Truncated(variable, rd.Interval(0, 1))
    assert truncated.log_density(np.array([0.1], np.float32)).tolist() == [[-INF, 0.0]]


def test_an_interval_within_an_interval_is_their_intersection():
    once = rd.Truncated(GAUSSIAN, rd.Interval(1, None))
    twice = rd.Truncated(once, rd.Interval(None, 2))
    assert twice.interval == rd.Interval(1, 2) and twice.inner_family.form == GAUSSIAN.form
    expected = GAUSSIAN.log_probability(1.0, 2.0) - GAUSSIAN.log_probability(1.0, INF)
    np.testing.assert_allclose(once.log_probability(-INF, 2.0), expected)
    assert (once.log_probability(-INF, 0.0) == -INF).all()
    with pytest.raises(ValueError, match=r"found Interval\(None, 0\) and Interval\(1, None\)"):
        rd.Truncated(once, rd.Interval(None, 0))


def test_no_interval_at_all():
    whole = rd.Truncated(GAUSSIAN, rd.Interval())
    x = np.array([0.3, -2.0])
    np.testing.assert_allclose(whole.log_density(x), GAUSSIAN.log_density(x))
    np.testing.assert_array_equal(whole.cdf(x), GAUSSIAN.cdf(x))
    np.testing.assert_array_equal(whole.means(), GAUSSIAN.means())
    assert whole.sample(np.zeros(3, dtype=int), np.random.default_rng(0)).shape == (3,)


def test_inner_products_of_gaussians():
    other = rd.GaussianMixture([0.5, 40.0], [2.0, 1.0])
    a, b = rd.Truncated(GAUSSIAN, rd.Interval(-1, 4)), rd.Truncated(other, rd.Interval(0, 5))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = 2 * (nodes + 1)  # where both are
    expected = np.einsum("x,xs,xt->st", 2 * weights, np.exp(a.log_density(x)), np.exp(b.log_density(x)))
    np.testing.assert_allclose(a.inner(b), expected, rtol=1e-10)
    assert (a.inner(rd.Truncated(other, rd.Interval(5, 6))) == 0).all()
    with pytest.raises(ValueError, match="Gaussian"):
        rd.Truncated(LAPLACE, rd.Interval(0, 1)).inner(rd.Truncated(LAPLACE, rd.Interval(0, 1)))


def test_components_without_mass_are_finite_and_never_meant():
    truncated = rd.Truncated(rd.PoissonMixture([0.0, 2.0]), rd.Interval(3, None))
    assert np.isfinite(truncated.means()).all() and np.isfinite(truncated.variances()).all()
    assert (truncated.log_density(np.array([3.0, 5.0]))[:, 0] == -INF).all()


def test_learning_leaves_it_as_it_is():
    truncated = rd.Truncated(GAUSSIAN, rd.Interval(0, 1))
    assert truncated.update(np.array([0.5]), np.ones((1, 3))) is truncated


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "error", "finding"),
    [
        ((3, 2), ValueError, "low = 3 and high = 2"),
        ((float("nan"), 2), ValueError, "low.*NaN"),
        ((0, np.float32("nan")), ValueError, "high.*NaN"),
        ((INF, None), ValueError, "finite"),
        ((None, -INF), ValueError, "finite"),
        ((10**400, None), ValueError, "range"),
        (("a", 2), TypeError, "'a'"),
        ((True, 2), TypeError, "True"),
        ((1j, 2), TypeError, "1j"),
        (([0], 2), TypeError, r"\[0\]"),
    ],
    ids=str,
)
def test_intervals_that_are_none(arguments, error, finding):
    with pytest.raises(error, match=finding):
        rd.Interval(*arguments)


def test_intervals(backend):
    interval = rd.Interval(np.int64(2), backend.array(3.5))
    assert (interval.low, interval.high) == (2.0, 3.5) and repr(interval) == "Interval(2, 3.5)"
    assert 2 in interval and 3.5 in interval and 4 not in interval and np.nan not in interval
    assert rd.Interval(None, 2) == rd.Interval(-INF, 2.0) and len({rd.Interval(0, 1), rd.Interval(0.0, 1.0)}) == 1
    assert rd.Interval(0, 1).intersection(rd.Interval(2, 3)) is None
    x = backend.array([0.1, np.nan, INF], "float32")
    assert backend.numpy(rd.Interval(0.1, 1e300).holds(x)).tolist() == [
        True,
        False,
        False,
    ]  # bounds are rounded as x is
    with pytest.raises(AttributeError):
        interval.low = 0.0


def test_variables_that_cannot_be_truncated():
    with pytest.raises(ValueError, match="categories have no order"):
        rd.Truncated(rd.Categorical(3), rd.Interval(0, 1))
    with pytest.raises(TypeError, match="Interval"):
        rd.Truncated(GAUSSIAN, (0, 1))
    with pytest.raises(TypeError, match=r"rd\.Variable"):
        rd.Truncated("height", rd.Interval(0, 1))


def test_a_traced_bound_is_refused():
    jax = pytest.importorskip("jax")
    load_backend("jax")
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda low: rd.Interval(low, None).low)(1.0)
