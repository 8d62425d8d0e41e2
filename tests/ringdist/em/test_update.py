"""An epoch of exact EM is that of enumeration."""

import numpy as np
import pytest

import ringdist as rd
from tests.oracle import MIXED, TABLE, TRAIN, make_case
from tests.ringdist.em.cases import STREAMED, assert_is_case, em_epoch, weights


@pytest.mark.parametrize("pseudocount", [0.0, 0.3])
@pytest.mark.parametrize("case", [TABLE, TRAIN, STREAMED, MIXED], ids=["table", "train", "streamed", "mixed"])
def test_an_epoch_is_that_of_enumeration(backend, case, pseudocount):
    x = case.possible_rows(14 if case is not MIXED else 10, missing=0.2)
    weight = weights(len(x)) + 0.5
    fitted = rd.fit_em(
        backend.ring(case),
        backend.array(x),
        sample_weight=weight,
        max_epochs=1,
        pseudocount=pseudocount,
        variance_floor=0,
    )
    assert_is_case(backend, fitted.ring, em_epoch(case, x, weight, pseudocount))


@pytest.mark.parametrize("case", [TABLE, STREAMED, TRAIN], ids=["table", "streamed", "train"])
def test_a_damped_step_is_that_of_enumeration(backend, case):
    x = case.possible_rows(12, missing=0.2)
    fitted = rd.fit_em(
        backend.ring(case), x, max_epochs=1, batch_size=len(x), pseudocount=0.2, step_decay=0.7, variance_floor=0, rng=0
    )
    assert_is_case(backend, fitted.ring, em_epoch(case, x, np.ones(len(x)), 0.2, step=2**-0.7))


def test_small_steps_do_not_gather_pseudocounts(numpy_backend):
    """Where exact EM with the same pseudocount has come to rest, damped steps over all rows rest too."""
    case = make_case(["categorical"] * 3, [3] * 3, [1, 2, 2], [0, 1, 2], seed=8)
    x = case.possible_rows(60)
    start = numpy_backend.ring(case)
    exact = rd.fit_em(start, x, max_epochs=500, pseudocount=0.5).ring
    damped = rd.fit_em(exact, x, max_epochs=50, batch_size=60, pseudocount=0.5, rng=0).ring
    np.testing.assert_allclose(damped.to_dense(), exact.to_dense(), atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 6), (12, 2)])
def test_both_ways_through_a_core_agree_with_enumeration(numpy_backend, shape):
    """Few components or many per rank: the sums are taken by one product or by environments."""
    size, rank = shape
    case = make_case(["categorical"] * 2, [size, 3], [rank, rank], [0, 1], seed=4)
    x = case.rows(15, 0.2)
    fitted = rd.fit_em(numpy_backend.ring(case), x, max_epochs=1)
    assert_is_case(numpy_backend, fitted.ring, em_epoch(case, x, np.ones(15)))
