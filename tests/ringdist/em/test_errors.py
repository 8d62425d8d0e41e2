"""Errors of `fit_em` name the rule, the finding and the row or column; the caller's arrays are not modified."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend
from tests.families import LaplaceMixture
from tests.oracle import MIXED, TABLE, make_case
from tests.ringdist.em.cases import STREAMED, numbers, weights


@pytest.mark.parametrize("batch_size", [None, 2])
def test_rows_without_mass_are_named(backend, batch_size):
    cores = [np.ones((3, 1, 1)), np.array([1.0, 1, 0]).reshape(3, 1, 1)]
    ring = rd.TensorRing([backend.array(core) for core in cores], [rd.Categorical(3)] * 2)
    x = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [1, 1], [2, 2], [0, 0]])
    with pytest.raises(ValueError, match="zero mass in row 5"):
        rd.fit_em(ring, x, max_epochs=1, batch_size=batch_size, rng=0)
    weight = (x[:, 0] < 2).astype(float)
    assert np.isfinite(rd.fit_em(ring, x, sample_weight=weight, max_epochs=1).history["train"][0])


def test_rows_beyond_the_range_of_the_dtype_are_named(backend):
    """Two decoupled paths: one is far less likely for half of the ring, and the only possible one in the end."""
    d = 1600
    cores = [np.stack([np.diag([1.0, 0.2]), np.diag([0.2, 1.0])]) for _ in range(d)]
    cores[-1] = np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])])
    ring = rd.TensorRing([backend.array(core) for core in cores], [rd.Categorical(2)] * d)
    x = np.zeros((1, d))
    x[0, d // 2 :] = 1
    assert np.isfinite(float(ring.log_prob(backend.array(x))[0]))
    with pytest.raises(ValueError, match=r"row 0, or an underflow of.*float64"):
        rd.fit_em(ring, x, max_epochs=1)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"max_epochs": -1}, "max_epochs.*-1"),
        ({"max_epochs": 1.5}, "max_epochs.*1.5"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"batch_size": 2.0}, "batch_size.*2.0"),
        ({"restarts": 0}, "restarts.*0"),
        ({"restarts": True}, "restarts.*True"),
        ({"patience": 0}, "patience.*0"),
        ({"pseudocount": -1.0}, "pseudocount.*-1"),
        ({"pseudocount": np.nan}, "pseudocount.*nan"),
        ({"variance_floor": -1e-3}, "variance_floor.*-0.001"),
        ({"variance_floor": np.inf}, "variance_floor.*inf"),
        ({"step_decay": 0.5}, "step_decay.*0.5"),
        ({"step_decay": 1.1}, "step_decay.*1.1"),
        ({"sample_weight": np.ones(3)}, r"sample_weight.*\(3,\)"),
        ({"sample_weight": -np.ones(6)}, "sample_weight.*not negative"),
        ({"sample_weight": np.zeros(6)}, "sample_weight.*positive sum"),
        ({"sample_weight": np.full(6, np.nan)}, "sample_weight.*finite"),
        ({"validation": np.zeros((2, 3))}, r"\(2, 3\)"),
        ({"validation": np.zeros((0, 4))}, r"\(0, 4\)"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(numpy_backend, settings, finding):
    with pytest.raises(ValueError, match=finding):
        rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(6), **settings)


def test_data_that_does_not_fit(backend):
    ring = backend.ring(MIXED)
    for wrong in (np.zeros((3, 5)), np.zeros(4), np.zeros((0, 4)), np.zeros((2, 3, 4))):
        with pytest.raises(ValueError, match=r"\(n, 4\)"):
            rd.fit_em(ring, wrong)
    x = MIXED.possible_rows(6)
    x[2, 0] = 7
    for settings in ({}, {"validation": x}):
        with pytest.raises(ValueError, match=r"column 0 \('label'\): category 7 is outside 0..2"):
            rd.fit_em(ring, MIXED.possible_rows(6) if settings else x, max_epochs=1, **settings)


def test_a_family_that_leaves_the_device():
    """Else the next query would fail, and not say in which column."""
    torch = pytest.importorskip("torch")

    class Leaving(LaplaceMixture):
        def update(self, x, responsibilities):
            return Leaving(*(torch.empty_like(a, device="meta") for a in self.arrays().values()), name=self.name)

    ring = load_backend("torch").ring(MIXED)
    leaving = Leaving(**ring.variables[3].arrays(), name="delay")
    ring = rd.TensorRing(ring.cores, [*ring.variables[:3], leaving], ring.order)
    with pytest.raises(TypeError, match=r"column 3 \('delay'\): what update returns .* cpu, found meta"):
        rd.fit_em(ring, MIXED.possible_rows(6), max_epochs=1)


@pytest.mark.parametrize("turned", [False, True])
def test_minus_one_is_no_missing_category(turned):
    """Where equal rows are merged before they are checked, NaN and -1 stay apart."""
    ring = rd.TensorRing.random([rd.Categorical(2)] * 3, 2, rng=0)
    x = np.array([[np.nan, 0, 1]] * 6 + [[-1, 0, 1]] * 6)
    with pytest.raises(ValueError, match=r"column 0: category -1 is outside 0\.\.1"):
        rd.fit_em(ring, x[::-1] if turned else x)


def test_data_of_another_backend():
    torch = pytest.importorskip("torch")
    numpy_ring = load_backend("numpy").ring(TABLE)
    with pytest.raises(TypeError, match="NumPy array or an array of the ring's backend"):
        rd.fit_em(numpy_ring, torch.zeros(3, 4))


def test_a_family_without_statistics_needs_the_full_batch(numpy_backend):
    for settings in ({"batch_size": 4}, {"reduce": lambda array: array}):
        with pytest.raises(ValueError, match=r"column 3 \('delay'\).*statistics.*LaplaceMixture"):
            rd.fit_em(numpy_backend.ring(MIXED), MIXED.possible_rows(8), **settings)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_nothing_of_the_callers_is_written_to(backend, batch_size):
    ring = backend.ring(STREAMED)
    x, weight, held_out = STREAMED.possible_rows(20), weights(20), STREAMED.possible_rows(6)
    mine = [backend.array(x), weight.copy(), backend.array(held_out)]
    before = [array.copy() for array in numbers(backend, ring)]
    rd.fit_em(ring, mine[0], sample_weight=mine[1], validation=mine[2], max_epochs=2, batch_size=batch_size, rng=0)
    for array, copy in zip(mine, (x, weight, held_out), strict=True):
        np.testing.assert_array_equal(backend.numpy(array) if array is not mine[1] else array, copy)
    for array, copy in zip(numbers(backend, ring), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    read_only = x.copy()
    read_only.setflags(write=False)
    rd.fit_em(ring, read_only, max_epochs=1, batch_size=batch_size, rng=0)


def test_fitting_cannot_be_traced():
    jax = pytest.importorskip("jax")
    ring = load_backend("jax").ring(make_case(["categorical"], [2], [1], [0]))
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.jit(lambda r: rd.fit_em(r, np.zeros((1, 1))).ring.cores[0])(ring)
