"""Starting points: components on the data, near independence, bonds told apart, Z near 1."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.backend import backend_name
from tests.backends import load_backend

METHODS = ("quantile", "kmeans")


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def backend(request):
    return load_backend(request.param)


def table(n: int = 200) -> np.ndarray:
    """A category, two clusters, counts; some entries missing."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, n)
    x = np.stack([group + rng.integers(0, 2, n), rng.normal(10 * group - 5, 1), rng.poisson(3 + 20 * group)], 1)
    x = x.astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


FAMILIES = [rd.Categorical, rd.GaussianMixture, rd.PoissonMixture]


@pytest.mark.parametrize("method", METHODS)
def test_components_lie_on_the_data(method):
    ring = rd.initialize(table(), FAMILIES, 3, num_components=4, method=method, rng=0)
    assert [type(v) for v in ring.variables] == FAMILIES and ring.shape == (3, 4, 4)
    means = np.asarray(ring.variables[1].means())
    assert (np.diff(means) > 0).all() and means[0] < -3 and means[-1] > 3
    assert (np.asarray(ring.variables[1].arrays()["stds"]) > 0.1).all()
    rates = np.asarray(ring.variables[2].means())
    assert rates[0] < 6 and rates[-1] > 18


def test_kinds_are_guessed_from_the_values():
    x = np.column_stack([[0, 1, 4], [0.5, 1, 2], [-1, 0, 1], [0, 1, 64], [0, 1, 63]])
    ring = rd.initialize(x, [None] * 5, 1, num_components=2, rng=0)
    kinds = [type(v).__name__ for v in ring.variables]
    assert kinds == ["Categorical", *["GaussianMixture"] * 3, "Categorical"]
    assert ring.shape == (5, 2, 2, 2, 64)


def test_data_of_another_backend(backend):
    """Also data that records gradients, or that NumPy cannot read where it is."""
    x = backend.array(table())
    if backend.name == "torch":
        x.requires_grad_()
    ring, expected = (rd.initialize(data, FAMILIES, 3, num_components=4, rng=0) for data in (x, table()))
    for found, variable in zip(ring.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(found.means(), variable.means())


def test_given_variables_are_kept():
    given = [rd.Categorical(5, name="a"), rd.GaussianMixture([0.0], [2.0], name="b"), rd.PoissonMixture([1.0, 9.0])]
    ring = rd.initialize(table(), given, 2, order=["b", "a", 2], rng=0)
    assert ring.order == (1, 0, 2)
    for variable, kept in zip(given, ring.variables, strict=True):
        assert type(kept) is type(variable) and kept.name == variable.name
        np.testing.assert_array_equal(kept.means(), variable.means())


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_the_start_is_near_independence_at_every_rank(rank):
    x = table(2000)
    ring = rd.initialize(x, FAMILIES, rank, rng=0)
    assert abs(float(ring.log_normalizer())) < 2
    shares = np.bincount(x[~np.isnan(x[:, 0]), 0].astype(int)) / np.isfinite(x[:, 0]).sum()
    margin = ring.component_posterior(0, np.full(3, np.nan))
    if rank > 4:
        np.testing.assert_allclose(margin, shares, atol=0.1)
        off = ring.mutual_information()[~np.eye(3, dtype=bool)]
        assert (off < 0.05).all()
    assert np.isfinite(ring.log_prob(x)).all()


def test_bonds_are_told_apart():
    ring = rd.initialize(table(), FAMILIES, 4, rng=0)
    for core in ring.cores:
        assert len(np.unique(core)) == core.size


def test_learning_from_it_gets_past_independence():
    x = table()
    single = rd.fit_em(rd.initialize(x, FAMILIES, 1, num_components=4, rng=0), x, max_epochs=15)
    ring = rd.fit_em(rd.initialize(x, FAMILIES, 2, num_components=4, rng=0), x, max_epochs=15)
    assert ring.history["train"][-1] > single.history["train"][-1] + 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.7, -1e9, 1e-12])
def test_constant_columns(method, value):
    x = np.full((20, 1), value)
    ring = rd.initialize(x, [rd.GaussianMixture], 1, method=method, rng=0)
    assert ring.shape == (1,) and np.isfinite(ring.log_prob(x)).all()
    assert np.isfinite(rd.fit_em(ring, x, max_epochs=2).history["train"]).all()


@pytest.mark.parametrize("method", METHODS)
def test_few_distinct_values_make_few_components(method):
    x = np.array([1.0, 1.0, 2.0, 5.0, np.nan])[:, None]
    ring = rd.initialize(x, [rd.GaussianMixture], 1, num_components=8, method=method, rng=0)
    np.testing.assert_allclose(ring.variables[0].means(), [1, 2, 5])


def test_counts_of_zero_have_a_rate_above_zero():
    ring = rd.initialize(np.zeros((5, 1)), [rd.PoissonMixture], 1, rng=0)
    assert (np.asarray(ring.variables[0].means()) > 0).all()


def test_backends_dtypes_topologies(backend):
    x = table(50)
    for name in ("float32", "float64"):
        ring = rd.initialize(x, FAMILIES, 2, topology="train", rng=0, xp=backend.xp, dtype=backend.dtype(name))
        assert ring.is_train and ring.ranks == (1, 2, 2)
        assert backend_name(ring.cores[0]) == backend.name and str(ring.cores[0].dtype).endswith(name)
        assert all(a.dtype == ring.cores[0].dtype for v in ring.variables for a in v.arrays().values())
    assert np.isfinite(backend.numpy(ring.log_prob(backend.array(x)))).all()


def test_ranks_per_bond_and_seeds():
    x = table()
    ring = rd.initialize(x, FAMILIES, [2, 3, 4], order=[2, 0, 1], rng=1)
    assert ring.ranks == (2, 3, 4)
    same = rd.initialize(x, FAMILIES, [2, 3, 4], order=[2, 0, 1], rng=1)
    other = rd.initialize(x, FAMILIES, [2, 3, 4], order=[2, 0, 1], rng=2)
    np.testing.assert_array_equal(ring.cores[0], same.cores[0])
    assert not np.array_equal(ring.cores[0], other.cores[0])


def test_data_as_integers_booleans_and_lists_is_left_alone():
    x = np.random.default_rng(0).integers(0, 2, (30, 2))
    copy = x.copy()
    shapes = {rd.initialize(data, [None] * 2, 2, rng=0).shape for data in (x, x.astype(bool), x.tolist())}
    assert shapes == {(2, 2)}
    np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"x": np.zeros((0, 3))}, r"\(n, 3\).*\(0, 3\)"),
        ({"x": np.zeros((4, 2))}, r"\(n, 3\).*\(4, 2\)"),
        ({"x": np.zeros(3)}, r"\(n, 3\).*\(3,\)"),
        ({"x": np.full((4, 3), np.nan)}, "column 0.*none"),
        ({"method": "random"}, "method.*'random'"),
        ({"num_components": 0}, "num_components.*0"),
        ({"rank": 0}, "ranks.*0"),
        ({"topology": "tree"}, "topology.*'tree'"),
        ({"order": [0, 0, 1]}, r"permutation.*\[0, 0, 1\]"),
    ],
    ids=str,
)
def test_what_does_not_fit(change, finding):
    arguments = {"x": table(), "variables": FAMILIES, "rank": 2, "rng": 0} | change
    x, variables, rank = (arguments.pop(name) for name in ("x", "variables", "rank"))
    with pytest.raises(ValueError, match=finding):
        rd.initialize(x, variables, rank, **arguments)


def test_families_that_cannot_be_placed():
    class Own(rd.GaussianMixture):
        pass

    with pytest.raises(ValueError, match=r"column 1: components can be placed for .*, found .*Own.*; give a"):
        rd.initialize(table(), [None, Own, None], 2, rng=0)
    with pytest.raises(TypeError, match="column 0: expected a variable, a family or None, found 'gaussian'"):
        rd.initialize(table(), ["gaussian", None, None], 2, rng=0)


@pytest.mark.parametrize("value", [0.5, -1.0, np.inf])
def test_values_that_are_no_categories(value):
    with pytest.raises(ValueError, match=rf"column 0: .*(integers from 0, found {value:g}|found infinity)"):
        rd.initialize(np.array([[value], [1.0]]), [rd.Categorical], 1, rng=0)
