"""Which columns belong to variables of several columns, and how they are named."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend
from tests.families import LaplaceMixture
from tests.ringdist.wide.cases import COLUMNS, ORDER, RANKS, D, pair, variables, wide_ring

pytestmark = pytest.mark.slow_on("jax")


def test_columns_of_variables():
    ring = wide_ring(load_backend("numpy"))
    assert (ring.num_variables, ring.num_columns) == (4, D)
    assert ring.columns == COLUMNS and ring.order == tuple(ORDER) and ring.ranks == tuple(RANKS)
    assert [ring.column(name) for name in ("kind", "a", "b", "c", "e")] == [0, 1, 2, 3, 4]
    assert [ring.place(k) for k in (0, "b", 6)] == [(0, 0), (1, 1), (3, 1)]
    assert ring.describe(2) == "column 2 ('b')" and ring.describe(6) == "column 6"
    assert ring.describe_site(1) == "columns 1, 2, 3 ('a', 'b', 'c')" and ring.describe_site(3) == "columns 5, 6"


def test_an_order_names_variables_by_a_column():
    backend = load_backend("numpy")
    by_index = rd.TensorRing.random(variables(backend), 2, order=[1, 2, 0, 3], rng=0)
    cores = [np.array(core) for core in by_index.cores]
    named = variables(backend)[:3]
    ring = rd.TensorRing(cores[:3], named, order=["c", "e", "kind"])
    assert ring.order == (1, 2, 0)


def test_names_that_repeat():
    with pytest.raises(ValueError, match="names must differ, found \\['a', 'a', 'b'\\]"):
        rd.TensorRing.random(
            [rd.Categorical(2, name="a"), rd.MultivariateGaussianMixture(*pair(), names=["a", "b"])], 1
        )


def test_families_of_users_have_one_column():
    class Pair(LaplaceMixture):
        width = 2

    with pytest.raises(ValueError, match=r"variable 1: several columns are those of .*, found Pair of width 2"):
        rd.TensorRing.random([rd.Categorical(2), Pair(np.zeros(2), np.ones(2))], 1)


def test_the_order_of_variables():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 1))
    x = np.concatenate([rng.normal(size=(500, 2)), shared + 0.1 * rng.normal(size=(500, 2)), shared], axis=1)
    made = [
        rd.MultivariateGaussianMixture(*pair()),
        rd.MultivariateGaussianMixture(*pair()),
        rd.GaussianMixture([0.0], [1.0]),
    ]
    found = rd.ordering.dependence(x, made)
    columns = rd.ordering.dependence(x, [rd.GaussianMixture([0.0], [1.0])] * 5)
    assert found.shape == (3, 3) and found[1, 2] == columns[2:4, 4].max() > 1
    assert found[0, 1] == columns[:2, 2:4].max()
    assert sorted(rd.ordering.mutual_information(x, made)) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"x must have shape \(n, 5\)"):
        rd.ordering.dependence(x[:, :3], made)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (lambda ring: ring.probability({"a": {1}}), r"column 1 \('a'\): a set names categories"),
        (lambda ring: ring.log_prob(np.zeros((2, 4))), r"x must have shape \(..., 7\), one entry per column"),
        (lambda ring: ring.log_prob(np.full((1, D), np.inf)), "column 0"),
        (lambda ring: ring.log_prob([0, 1.0, np.inf, 0, 0, 0, 0]), r"column 2 \('b'\): values must be finite"),
        (lambda ring: ring.marginal(["x"]), "there is no column 'x'"),
        (lambda ring: ring.cdf(7, np.zeros(D)), "there is no column 7; columns are 0..6"),
        (lambda ring: ring.condition(dict.fromkeys(range(D), 0.0)), "must leave at least one column"),
        (lambda ring: ring.to_dense(), "a dense table needs categorical columns"),
        (
            lambda ring: rd.Truncated(ring.variables[1], rd.Interval(0, 1)),
            "a truncated variable must be one column of numbers: found 3 columns",
        ),
        (lambda ring: rd.WithAtoms(ring.variables[1], [0.0]), "atoms need a variable of one column, found 3"),
        (
            lambda ring: ring.inner(rd.TensorRing.random([rd.GaussianMixture([0.0], [1.0])] * 7, 2)),
            r"the same of them at each variable, found \(\(0,\), \(1, 2, 3\), .* and \(\(0,\), \(1,\)",
        ),
    ],
)
def test_what_does_not_fit(query, message):
    with pytest.raises(ValueError, match=message):
        query(wide_ring(load_backend("numpy")))
