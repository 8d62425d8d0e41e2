"""The likelihood never falls, zeros stay, and scales do not drift."""

import numpy as np
import pytest

import ringdist as rd
from tests.oracle import KINDS, TABLE, make_case
from tests.ringdist.em.cases import STREAMED, numbers, weights

MIXES = [[kind] * 4 for kind in KINDS] + [list(KINDS), ["categorical", "gaussian"] * 2]


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("kinds", MIXES, ids="-".join)
def test_the_likelihood_never_falls(backend, kinds, topology):
    ranks = [3, 2, 4, 3] if topology == "ring" else [1, 3, 2, 3]
    truth = make_case(kinds, [3] * 4, ranks, [0, 2, 1, 3], seed=11)
    x = truth.possible_rows(80, missing=0.2)
    start = backend.ring(make_case(kinds, [3, 3, 4, 3], ranks, [2, 0, 3, 1], seed=12))
    weight = weights(len(x))
    fitted = rd.fit_em(start, x, sample_weight=weight, max_epochs=5, variance_floor=0)  # more, and Laplace degenerates
    history = fitted.history["train"]
    assert len(history) == 5 and list(fitted.history) == ["train"]
    assert (np.diff(history) >= -1e-9).all(), history
    before = np.average(backend.numpy(start.log_prob(backend.array(x))), weights=weight)
    after = np.average(backend.numpy(fitted.ring.log_prob(backend.array(x))), weights=weight)
    assert history[0] >= before - 1e-9 and history[-1] > before + 0.01
    assert after == pytest.approx(history[-1], rel=1e-9)


def test_zeros_stay_and_the_structure_too(backend):
    ring = backend.ring(TABLE)
    fitted = rd.fit_em(ring, TABLE.possible_rows(40), max_epochs=5, pseudocount=0.5).ring
    assert fitted.order == ring.order and fitted.ranks == ring.ranks
    for core, before in zip(numbers(backend, fitted), TABLE.cores, strict=True):
        assert (core[before == 0] == 0).all()


def test_pseudocounts_leave_nothing_impossible():
    start = rd.TensorRing.random([rd.Categorical(3)] * 3, 2, rng=0)
    x = np.zeros((20, 3))
    assert rd.fit_em(start, x, max_epochs=3).ring.log_prob([[1.0, 0, 0]])[0] == -np.inf
    prior = rd.fit_em(start, x, max_epochs=3, pseudocount=0.1).ring
    assert -12 < prior.log_prob([[1.0, 0, 0]])[0] < -1
    stronger = rd.fit_em(start, x, max_epochs=3, pseudocount=10.0).ring
    assert stronger.log_prob([[1.0, 0, 0]])[0] > prior.log_prob([[1.0, 0, 0]])[0]


def test_scales_do_not_gather_on_one_side_of_a_bond(backend):
    """Cores meet in sums of one ratio at every index of a bond; left alone, the ratios drift apart in every epoch."""
    x = STREAMED.possible_rows(40)
    fitted = rd.fit_em(backend.ring(STREAMED), x, max_epochs=300, pseudocount=0.5, patience=None).ring
    cores = [backend.numpy(core) for core in fitted.cores]
    for k, after in zip(fitted.sequence, (*fitted.sequence[1:], fitted.sequence[0]), strict=True):
        ratio = cores[k].sum((0, 1)) / cores[after].sum((0, 2))
        assert ratio.max() <= 1.2 * ratio.min()
