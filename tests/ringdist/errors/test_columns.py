"""Columns that are not there, and evidence that is none."""

import re

import numpy as np
import pytest

from tests.oracle import MIXED
from tests.ringdist.errors.cases import ring_of_ages

pytestmark = pytest.mark.slow_on("jax")


UNKNOWN = {
    "component_posterior": lambda ring, x, k: ring.component_posterior(k, x),
    "cdf": lambda ring, x, k: ring.cdf(k, x),
    "quantile": lambda ring, x, k: ring.quantile(k, 0.5, x),
    "marginal": lambda ring, x, k: ring.marginal([0, k]),
    "condition": lambda ring, x, k: ring.condition({k: 0}),
    "permute": lambda ring, x, k: ring.permute([0, 1, 2, k]),
    "einsum": lambda ring, x, k: ring.einsum(open=[k]),
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("k", [4, -1, "weight"])
def test_unknown_columns(name, k):
    with pytest.raises(ValueError, match=str(k)):
        UNKNOWN[name](ring_of_ages(), np.zeros((1, 4)), k)


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("k", [1.0, None, True, (0,)], ids=str)
def test_columns_that_are_neither_index_nor_name(name, k):
    with pytest.raises(TypeError):
        UNKNOWN[name](ring_of_ages(), np.zeros((1, 4)), k)


def test_numpy_integers_are_columns(numpy_backend):
    ring, x = numpy_backend.ring(MIXED), MIXED.rows(6)
    k = np.int64(2)
    np.testing.assert_array_equal(ring.component_posterior(k, x), ring.component_posterior(2, x))
    assert ring.marginal(np.array([2, 0])).shape == (3, 4), ring


@pytest.mark.parametrize("keep", [[], [1, 1], ["age", 3]], ids=str)
def test_marginals_over_no_column_or_one_twice(keep):
    with pytest.raises(ValueError, match=r"at least one column|columns to keep must differ"):
        ring_of_ages().marginal(keep)


@pytest.mark.parametrize("columns", [[], [0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3]], ids=str)
def test_permutations_that_are_none(columns):
    with pytest.raises(ValueError, match=re.escape(f"permutation of the 4 columns, found {columns}")):
        ring_of_ages().permute(columns)


@pytest.mark.parametrize(
    ("evidence", "finding"),
    [
        ({3: 7}, r"column 3 \('age'\): category 7 is outside 0\.\.4"),
        ({"age": 7}, r"column 3 \('age'\): category 7 is outside 0\.\.4"),
        ({0: 0, 1: 0, 2: 0, 3: 0}, "remain|left|all"),
        ({3: 1, "age": 2}, "age"),
        ({3: float("nan")}, "age"),
    ],
    ids=str,
)
def test_evidence_that_cannot_be_conditioned_on(evidence, finding):
    with pytest.raises(ValueError, match=finding):
        ring_of_ages().condition(evidence)


def test_evidence_that_is_no_number():
    for value in ("old", None, np.zeros(2)):
        with pytest.raises((TypeError, ValueError)):
            ring_of_ages().condition({"age": value})
