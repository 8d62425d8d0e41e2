"""The families themselves: densities, distribution functions, moments, draws and inner products against scipy."""

import doctest
import importlib

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from ringdist.variables import Family, as_family, rebuild
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.families import LaplaceMixture
from tests.oracle import KINDS, make_column

pytestmark = pytest.mark.slow_on("jax")


@pytest.fixture(params=KINDS)
def column(request):
    return make_column(request.param, 4, np.random.default_rng(3), name="age")


@pytest.mark.fast_on("jax")
def test_log_density_cdf_and_moments(backend, column):
    variable = backend.variable(column)
    x = column.draw(24, np.random.default_rng(0)).reshape(2, 3, 4)
    with np.errstate(divide="ignore"):
        expected = np.log(column.density(x))
    assert_close(backend.numpy(variable.log_density(backend.array(x))), expected, variable)
    assert_close(backend.numpy(variable.cdf(backend.array(x))), column.cdf(x), variable)
    assert_close(backend.numpy(variable.means()), column.means(), variable)
    assert_close(backend.numpy(variable.variances()), column.variances(), variable)
    assert (variable.name, variable.num_components) == ("age", 4)
    assert isinstance(variable, rd.Variable)


def test_inner_products(backend, column):
    other = make_column(column.kind, 4 if column.kind == "categorical" else 2, np.random.default_rng(4))
    actual = backend.variable(column).inner(backend.variable(other))
    assert_close(backend.numpy(actual), column.inner(other), column.kind, rtol=1e-8)


def test_draws_of_each_component(backend, column):
    variable, xp = backend.variable(column), backend.xp
    for component in range(4):
        components = backend.array(np.full(3000, component), "int64")
        x = backend.numpy(variable.sample(components, backend.rng(component)))
        assert x.shape == (3000,), x.shape
        if column.kind == "categorical":
            assert (x == component).all(), (column.kind, xp)
        elif column.kind == "poisson":
            values = np.arange(60.0)
            seen = np.bincount(x.astype(int), minlength=60)
            p_value = oracle.chi_square(seen, column.density(values)[:, component])
            assert p_value > 1e-3, (column.kind, component, p_value)
        else:
            u = column.cdf(x)[:, component]
            assert stats.kstest(u, "uniform").pvalue > 1e-3, (column.kind, component)


def test_variables_are_rebuilt_from_their_arrays(backend, column):
    variable = backend.variable(column)
    arrays = variable.arrays()
    if column.kind == "categorical":
        assert arrays == {}
        return
    again = type(variable)(**arrays, name=variable.name)
    x = backend.array(column.draw(5, np.random.default_rng(0)))
    np.testing.assert_array_equal(backend.numpy(again.log_density(x)), backend.numpy(variable.log_density(x)))
    assert again.name == "age"


def test_update_is_the_weighted_maximum_of_likelihood(backend):
    """Exact M-step; a component that saw nothing keeps its parameters; NaN is ignored."""
    rng = np.random.default_rng(5)
    x, weights = rng.normal(2, 3, 50), rng.random((50, 3))
    weights[:, 2] = 0.0
    gaussian = rd.GaussianMixture(backend.array([0.0, 1.0, 7.0]), backend.array([1.0, 1.0, 0.5]))
    with_nan, pad = np.append(x, np.nan), np.append(weights, [[5.0, 5.0, 5.0]], axis=0)
    updated = gaussian.update(backend.array(with_nan), backend.array(pad))
    means = [np.average(x, weights=w) for w in weights.T[:2]]
    variances = [np.average((x - m) ** 2, weights=w) for m, w in zip(means, weights.T, strict=False)]
    assert_close(backend.numpy(updated.means()), [*means, 7.0], updated)
    assert_close(backend.numpy(updated.variances()), [*variances, 0.25], updated)
    counts = rng.poisson(3.0, 50).astype(float)
    poisson = rd.PoissonMixture(backend.array([1.0, 2.0, 9.0]))
    updated = poisson.update(backend.array(counts), backend.array(weights))
    expected = [np.average(counts, weights=w) for w in weights.T[:2]]
    assert_close(backend.numpy(updated.means()), [*expected, 9.0], updated)


def test_log_densities_far_out_are_finite(backend):
    gaussian = rd.GaussianMixture(backend.array([0.0]), backend.array([1e-3]))
    actual = backend.numpy(gaussian.log_density(backend.array([1e3])))
    assert_close(actual, stats.norm(0, 1e-3).logpdf([[1e3]]), gaussian)
    poisson = rd.PoissonMixture(backend.array([1e-3, 1e4]))
    actual = backend.numpy(poisson.log_density(backend.array([0.0, 500.0])))
    expected = stats.poisson([1e-3, 1e4]).logpmf([[0], [500]])
    assert_close(actual, expected, poisson, rtol=1e-8)


def test_a_rate_of_zero_puts_all_mass_on_zero(backend):
    poisson = rd.PoissonMixture(backend.array([0.0]))
    actual = backend.numpy(poisson.log_density(backend.array([0.0, 1.0])))
    assert actual[:, 0].tolist() == [0.0, -np.inf], actual
    assert backend.numpy(poisson.cdf(backend.array([-1.0, 0.0, 3.0])))[:, 0].tolist() == [0, 1, 1]


def test_parameters_may_be_lists():
    variable = rd.GaussianMixture([0.0, 1.0], [1.0, 2.0])
    assert variable.num_components == 2, variable
    assert rd.PoissonMixture([1.0, 2.0]).num_components == 2


# ----------------------------------------------------------------------------------- a family of the user's


def test_the_custom_family_uses_only_the_protocol():
    """No stack, no in_support, no statistics: a class with the ten names of the protocol and no base."""
    public = {name for name in vars(LaplaceMixture) if not name.startswith("_")}
    assert public == {
        "log_density",
        "cdf",
        "sample",
        "means",
        "variances",
        "inner",
        "update",
        "arrays",
        "check",
    }
    assert LaplaceMixture.__bases__ == (object,)
    variable = LaplaceMixture(np.zeros(2), np.ones(2), name="delay")
    assert isinstance(variable, rd.Variable)


def test_a_ring_of_custom_families_answers_every_query(backend):
    case = oracle.make_case(["laplace"] * 3, [2, 3, 2], [2, 3, 2], [1, 0, 2], seed=51)
    ring, x = backend.ring(case), case.rows(6)
    rows = backend.array(x)
    assert_close(backend.numpy(ring.log_prob(rows)), oracle.log_prob(case, x), ring)
    assert_close(backend.numpy(ring.mean(rows)), oracle.mean(case, x), ring)
    assert_close(backend.numpy(ring.covariance()), oracle.covariance(case), ring, atol=1e-9)
    assert_close(backend.numpy(ring.inner(ring)), oracle.inner(case, case), ring, rtol=1e-7)
    drawn = backend.numpy(ring.sample(3000, rng=0))
    for k in range(3):
        earlier = drawn.copy()
        earlier[:, k + 1 :] = np.nan
        assert stats.kstest(oracle.cdf(case, k, earlier), "uniform").pvalue > 1e-3, (ring, k)
    q = np.linspace(0.05, 0.95, 6)
    point = x.copy()
    point[:, 1] = backend.numpy(ring.quantile(1, backend.array(q), rows))
    assert_close(oracle.cdf(case, 1, point), q, ring, rtol=1e-6)
    assert np.isfinite(backend.numpy(ring.mode(rows))).all(), ring
    with pytest.raises(ValueError, match="column 2"):
        ring.log_prob(backend.array([[0.0, 0.0, np.inf]]))


def test_a_family_with_in_support_and_without_stack(numpy_backend):
    class Supported(LaplaceMixture):
        def in_support(self, x):
            return x == x

    case = oracle.make_case(["laplace"] * 2, [2, 3], [2, 2], [0, 1], seed=52)
    ring, x = numpy_backend.ring(case), case.rows(6)
    variables = [Supported(**variable.arrays()) for variable in ring.variables]
    np.testing.assert_array_equal(rd.TensorRing(ring.cores, variables).log_prob(x), ring.log_prob(x))


def test_a_family_whose_support_excludes_zero(backend):
    """Missing entries must not be filled with a value that the family cannot evaluate."""
    generator = np.random.default_rng(6)
    ring = rd.TensorRing(
        [backend.array(generator.random((2, 2, 2))) for _ in range(2)],
        [Pareto(backend.array([2.0, 3.0]), name="wealth"), rd.Categorical(2)],
    )
    x = np.array([[2.0, 0.0], [np.nan, 1.0], [0.5, 1.0]])
    actual = backend.numpy(ring.log_prob(backend.array(x[:2])))
    cores = [backend.numpy(core) for core in ring.cores]
    joint = np.einsum("aij,bji->ab", *cores)
    density = np.array([2.0, 3.0]) * 2.0 ** -np.array([3.0, 4.0])
    expected = np.log([density @ joint[:, 0], joint[:, 1].sum()]) - np.log(joint.sum())
    assert_close(actual, expected, ring)
    with pytest.raises(ValueError, match=r"column 0 \('wealth'\)"):
        ring.log_prob(backend.array(x))


class Pareto:
    """p(x | s) = shape_s x^(−shape_s − 1) for x >= 1; only what log_prob needs is written out."""

    def __init__(self, shapes, name=None):
        self.shapes, self.name, self.num_components = shapes, name, shapes.shape[0]

    def log_density(self, x):
        from array_api_compat import array_namespace

        xp = array_namespace(x)
        log_x = xp.log(x[..., None])
        if bool(xp.any(x < 1)):
            raise AssertionError("evaluated outside the support")
        return xp.log(self.shapes) - (self.shapes + 1) * log_x

    def means(self):
        return self.shapes / (self.shapes - 1)

    def arrays(self):
        return {"shapes": self.shapes}

    def check(self, x):
        from array_api_compat import array_namespace

        if bool(array_namespace(x).any(x < 1)):
            raise ValueError("values must be at least 1")

    def cdf(self, x):
        raise NotImplementedError

    def sample(self, component, rng):
        raise NotImplementedError

    def variances(self):
        raise NotImplementedError

    def inner(self, other):
        raise NotImplementedError

    def update(self, x, responsibilities):
        raise NotImplementedError


# ----------------------------------------------------------------------------------- the base class


def test_a_family_stays_itself_and_another_class_is_adapted(column):
    variable = load_backend("numpy").variable(column)
    family = as_family(variable)
    assert isinstance(family, Family) and family.variable is variable and family.kind is type(variable)
    assert (family is variable) == isinstance(variable, Family), column.kind
    assert (family.name, family.num_components, family.width) == ("age", 4, 1)
    assert family.integer == (column.kind in oracle.DISCRETE)
    assert family.stacks == family.streams == (column.kind != "laplace")
    assert set(family.positive) <= set(family.arrays())


def test_the_adapter_answers_as_the_variable_does(backend):
    column = make_column("laplace", 3, np.random.default_rng(0), name="delay")
    variable, x = backend.variable(column), backend.array(column.draw(8, np.random.default_rng(1)))
    family = as_family(variable)
    for name in ("log_density", "cdf"):
        expected = backend.numpy(getattr(variable, name)(x))
        np.testing.assert_array_equal(backend.numpy(getattr(family, name)(x)), expected)
    assert_close(backend.numpy(family.standard_deviations()) ** 2, backend.numpy(variable.variances()), family)
    np.testing.assert_array_equal(backend.numpy(family.inner(family)), backend.numpy(variable.inner(variable)))
    updated = family.update(x, backend.array(np.ones((8, 3))))
    assert isinstance(updated, Family) and type(updated.variable) is LaplaceMixture
    inside = family.in_support(backend.array([0.0, np.inf, np.nan]))
    assert backend.numpy(inside).tolist() == [True, False, True]
    again = rebuild(family.form, family.arrays())
    assert type(again) is LaplaceMixture and again.name == "delay"


def test_the_adapter_asks_check_where_the_support_is_not_told(backend):
    family = as_family(Pareto(backend.array([2.0, 3.0]), name="wealth"))
    x = backend.array([[0.5, 1.0, 3.0], [np.inf, -2.0, 7.0]])
    expected = [[False, True, True], [False, False, True]]
    assert backend.numpy(family.in_support(x)).tolist() == expected, family
    assert float(family.typical_value()) == 2.0


def test_optional_names_reach_the_adapter():
    class Full(LaplaceMixture):
        integer, positive, has_variance, support, width = True, ("scales",), True, (0.0, 9.0), 2

        @classmethod
        def stack(cls, variables):
            return cls(np.stack([v.locations for v in variables]), np.stack([v.scales for v in variables]))

        def statistics(self, x, responsibilities):
            return {"count": responsibilities.sum(0)}

        def expected_statistics(self, weights):
            return {"count": weights}

        def from_statistics(self, statistics, least_variance=0.0):
            return Full(self.locations, np.full(2, least_variance))

    family = as_family(Full(np.zeros(2), np.ones(2)))
    assert (family.integer, family.width, family.support) == (True, 2, (0.0, 9.0))
    assert family.stacks and family.streams and family.has_variance and not family.tells_support
    assert family.from_statistics({}, 3.0).arrays()["scales"].tolist() == [9.0, 9.0]
    assert type(family).stack([family, family]).variable.scales.shape == (2, 2)


@pytest.mark.parametrize("name", ["variable", "categorical", "gaussian", "multivariate_gaussian", "poisson", "foreign"])
def test_examples_of_the_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"ringdist.variables.{name}"))
    assert results.attempted > 0 and results.failed == 0, results
