"""Rows that are no points of a ring."""

import re

import numpy as np
import pytest

from tests.oracle import MIXED
from tests.ringdist.errors.cases import QUERIES, ring_of_ages

pytestmark = pytest.mark.slow_on("jax")


@pytest.fixture(params=QUERIES)
def query(request):
    return QUERIES[request.param]


def test_categories_out_of_range(backend, query):
    cores = [backend.array(c) for c in ring_of_ages().cores]
    ring, x = ring_of_ages(cores=cores), np.zeros((3, 4))
    x[1, 3] = 7
    message = re.escape("column 3 ('age'): category 7 is outside 0..4")
    with pytest.raises(ValueError, match=message):
        query(ring, backend.array(x))
    x[1, 3] = -1
    with pytest.raises(ValueError, match=re.escape("column 3 ('age'): category -1 is outside 0..4")):
        query(ring, backend.array(x))
    x[1, 3], x[2, 2] = 0, 4
    with pytest.raises(ValueError, match=re.escape("column 2: category 4 is outside 0..3")):
        query(ring, backend.array(x))


@pytest.mark.parametrize("value", [0.5, np.inf, -np.inf])
def test_categories_that_are_no_whole_numbers(query, value):
    with pytest.raises(ValueError, match=r"column 3 \('age'\)"):
        query(ring_of_ages(), np.array([[0, 0, 0, value]]))


def test_integer_categories_out_of_range(backend):
    cores = [backend.array(c) for c in ring_of_ages().cores]
    with pytest.raises(ValueError, match=r"column 3 \('age'\): category 5"):
        ring_of_ages(cores=cores).log_prob(backend.array([[0, 0, 0, 5]], "int64"))


@pytest.mark.parametrize(("column", "value"), [("count", -1.0), ("count", 1.5), ("count", np.inf)])
def test_counts_that_are_none(backend, query, column, value):
    x = MIXED.rows(6, missing=0.0)
    x[1, 2] = value
    with pytest.raises(ValueError, match=r"column 2 \('count'\)"):
        query(backend.ring(MIXED), backend.array(x))


def test_infinite_values(backend, query):
    x = MIXED.rows(6, missing=0.0)
    x[1, 1] = np.inf
    with pytest.raises(ValueError, match=r"column 1 \('height'\).*inf"):
        query(backend.ring(MIXED), backend.array(x))


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 2, 3), (0,), (0, 3), (4, 1)], ids=str)
@pytest.mark.fast_on("jax")
def test_points_of_a_wrong_shape(backend, query, shape):
    with pytest.raises(ValueError, match=r"shape|column"):
        query(backend.ring(MIXED), backend.array(np.zeros(shape)))


def test_a_scalar_is_no_point(query):
    with pytest.raises(ValueError, match=r"shape|column"):
        query(ring_of_ages(), np.array(1.0))


@pytest.mark.parametrize("x", [["a", "b", "c", "d"], np.array([[1j] * 4]), "0123", None, [[None] * 4]])
def test_points_that_are_no_numbers(x):
    with pytest.raises(TypeError):
        ring_of_ages().log_prob(x)


def test_ragged_lists_are_no_points():
    with pytest.raises((TypeError, ValueError)):
        ring_of_ages().log_prob([[0, 0, 0, 0], [0, 0]])


def test_an_unknown_engine_lists_the_known_ones(backend):
    ring, x = backend.ring(MIXED), backend.array(MIXED.rows(6))
    with pytest.raises(ValueError) as error:
        ring.log_prob(x, engine="fast")
    for name in ("fast", "auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        assert name in str(error.value), error.value
    with pytest.raises(ValueError, match="sweep"):
        ring.log_prob(x[:0], engine="fast")
