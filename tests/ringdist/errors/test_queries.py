"""Arguments of other queries that do not fit."""

import re

import numpy as np
import pytest

import ringdist as rd
from tests.oracle import MIXED
from tests.ringdist.errors.cases import core, put, ring_of_ages

pytestmark = pytest.mark.slow_on("jax")


@pytest.mark.parametrize("q", [-0.1, 1.1, np.nan, [0.5, 2.0]], ids=str)
def test_quantiles_of_no_probability(backend, q):
    x = backend.array(np.full((2, 4), np.nan))
    q = backend.array(q) if isinstance(q, list) else q
    with pytest.raises(ValueError, match="q"):
        backend.ring(MIXED).quantile(1, q, x)


def test_quantiles_of_another_batch():
    x = np.full((3, 4), np.nan)
    with pytest.raises(ValueError):
        ring_of_ages().quantile(1, np.full(2, 0.5), x)


def test_the_cdf_needs_a_point():
    """A missing entry is no point to evaluate F at."""
    x = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, np.nan]])
    with pytest.raises(ValueError, match=r"column 3 \('age'\)|missing|NaN"):
        ring_of_ages().cdf("age", x)


@pytest.mark.parametrize("n", [-1, 1.5, "3", None], ids=str)
def test_numbers_of_samples_that_are_none(backend, n):
    with pytest.raises((ValueError, TypeError), match="n"):
        backend.ring(MIXED).sample(n, rng=0)


@pytest.mark.parametrize("n", [-1, 1.5, "3"], ids=str)
def test_numbers_of_completions_that_are_none(n):
    with pytest.raises((ValueError, TypeError), match="n"):
        ring_of_ages().sample_given(np.zeros((1, 4)), n, rng=0)


def test_entropy_of_too_few_samples(numpy_backend):
    with pytest.raises(ValueError, match="n"):
        numpy_backend.ring(MIXED).entropy(0, 0)


def test_dense_tables_of_what_has_none(numpy_backend):
    with pytest.raises(ValueError, match=r"height|continuous|categorical|discrete"):
        numpy_backend.ring(MIXED).to_dense()
    large = rd.TensorRing.random([rd.Categorical(10)] * 50, 2, rng=0)
    with pytest.raises(ValueError, match=r"10|large|entries"):
        large.to_dense()


def test_inner_products_of_rings_that_do_not_fit():
    four = ring_of_ages()
    with pytest.raises(ValueError, match="order"):
        four.inner(ring_of_ages(order=[0, 2, 1, 3]))
    with pytest.raises(ValueError, match="found 4 and 3"):
        four.inner(four.marginal([0, 1, 2]))
    with pytest.raises(ValueError, match="column 3"):
        other = rd.GaussianMixture(np.zeros(5), np.ones(5))
        four.inner(ring_of_ages(variables=[*four.variables[:3], other]))
    with pytest.raises(ValueError, match="column 3"):
        wider = [*four.cores[:3], np.ones((6, 2, 2))]
        four.inner(ring_of_ages(cores=wider, variables=[*four.variables[:3], rd.Categorical(6)]))
    with pytest.raises(TypeError, match="found str"):
        four.inner("ring")


def test_networks_at_points_that_do_not_fit():
    ring = ring_of_ages()
    with pytest.raises(ValueError, match="shape"):
        ring.to_tensornetwork(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"column 3 \('age'\)"):
        ring.to_tensornetwork(np.array([0.0, 0, 0, 9]))


def test_networks_that_are_no_rings():
    tn = pytest.importorskip("tensornetwork")
    ring = ring_of_ages()
    nodes = ring.to_tensornetwork()
    with pytest.raises(ValueError, match="found 4 nodes, 3 variables"):
        rd.TensorRing.from_tensornetwork(nodes, ring.variables[:3])
    with pytest.raises(ValueError, match="found 0 nodes"):
        rd.TensorRing.from_tensornetwork([], [])
    nodes[0]["right"].disconnect()
    with pytest.raises(ValueError, match="dangling"):
        rd.TensorRing.from_tensornetwork(nodes, ring.variables)
    bare = tn.Node(np.ones((2, 1, 1)))
    with pytest.raises(ValueError, match="left, right and component"):
        rd.TensorRing.from_tensornetwork([bare], [rd.Categorical(2)])


def test_open_columns_named_twice():
    with pytest.raises(ValueError, match="open columns must differ"):
        ring_of_ages().einsum(open=[3, "age"])


def test_moving_to_what_is_no_backend():
    ring = ring_of_ages()
    with pytest.raises(TypeError, match="xp"):
        ring.to(xp=re)
    with pytest.raises(TypeError, match="float16"):
        ring.to(dtype=np.float16)
    with pytest.raises(TypeError, match="int"):
        ring.to(dtype=np.int64)


def test_validate_false_skips_values_and_not_shapes():
    cores = core(3, put(-0.5))
    variables = list(ring_of_ages().variables)
    rd.TensorRing(cores, variables, validate=False)
    with pytest.raises(ValueError, match="found 3 cores, 4 variables"):
        rd.TensorRing(cores[:3], variables, validate=False)
    with pytest.raises(TypeError, match="found int64"):
        rd.TensorRing([c.astype(np.int64) for c in cores], variables, validate=False)
