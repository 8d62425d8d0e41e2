"""log_prob against enumeration: every engine, backend and family, missing entries row by row."""

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.oracle import MIXED, TABLE, TRAIN
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")


@over(MIXED, TABLE, TRAIN, case=cases())
@pytest.mark.fast_on("jax")
def test_log_prob_is_that_of_the_enumerated_joint(backend, engine, case):
    ring, x = backend.ring(case), case.rows(6)
    actual = backend.numpy(ring.log_prob(backend.array(x), engine=engine))
    assert_close(actual, oracle.log_prob(case, x), case)


@over(MIXED, TABLE, TRAIN, case=cases())
@pytest.mark.fast_on("jax")
def test_log_normalizer_is_that_of_the_enumerated_joint(backend, case):
    actual = backend.numpy(backend.ring(case).log_normalizer())
    assert_close(actual, np.log(case.joint.sum()), case)


@over(TABLE, case=cases(kinds=("categorical",)))
def test_the_mass_is_zero_exactly_where_enumeration_says_so(backend, engine, case):
    x = oracle.configurations(case.shape)
    actual = backend.numpy(backend.ring(case).log_prob(backend.array(x), engine=engine))
    np.testing.assert_array_equal(np.isneginf(actual), case.joint.ravel() == 0, err_msg=repr(case))
    assert_close(np.exp(actual).sum(), 1.0, case)


@pytest.mark.parametrize("batch", [(), (1,), (6,), (2, 3), (2, 1, 3)], ids=str)
def test_any_batch_shape(backend, engine, batch):
    ring = backend.ring(MIXED)
    x = MIXED.rows(int(np.prod(batch))).reshape(*batch, MIXED.d)
    actual = ring.log_prob(backend.array(x), engine=engine)
    assert tuple(actual.shape) == batch, actual
    assert_close(backend.numpy(actual), oracle.log_prob(MIXED, x), MIXED)


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_an_empty_batch_has_an_empty_answer(backend, engine, batch):
    actual = backend.ring(MIXED).log_prob(backend.array(np.zeros((*batch, MIXED.d))), engine=engine)
    assert tuple(actual.shape) == batch, actual


@pytest.mark.parametrize("integer", ["int64", "int32", "uint8"])
def test_integers_are_accepted(backend, engine, integer):
    ring = backend.ring(TABLE)
    x = oracle.configurations(TABLE.shape)
    actual = ring.log_prob(backend.array(x, integer), engine=engine)
    assert actual.dtype == ring.cores[0].dtype, actual
    assert_close(backend.numpy(actual), oracle.log_prob(TABLE, x), TABLE)


def test_lists_are_accepted(backend):
    x = [[0, 1.5, 2, -0.5], [2, float("nan"), 0, 1.0]]
    actual = backend.numpy(backend.ring(MIXED).log_prob(x))
    assert_close(actual, oracle.log_prob(MIXED, np.array(x)), MIXED)


def test_a_wholly_missing_row_has_probability_one(backend, engine):
    x = backend.array(np.full((2, MIXED.d), np.nan))
    assert_close(backend.numpy(backend.ring(MIXED).log_prob(x, engine=engine)), np.zeros(2), MIXED)


def test_rows_do_not_see_each_other(backend, engine):
    ring, x = backend.ring(MIXED), MIXED.rows(16)
    together = backend.numpy(ring.log_prob(backend.array(x), engine=engine))
    alone = [backend.numpy(ring.log_prob(backend.array(row), engine=engine)) for row in x[:4]]
    assert_close(np.stack(alone), together[:4], MIXED)


@over(MIXED, case=cases(), examples=0.5)
def test_densities_integrate_to_one_over_each_column(backend, case):
    """Σ_x p(x_k | rest) = 1: by summing or by quadrature over one column at a time."""
    ring, k = backend.ring(case), case.seed % case.d
    column = case.columns[k]
    if column.kind == "categorical":
        grid, weight = np.arange(float(column.num_components)), 1.0
    elif column.kind == "poisson":
        grid, weight = np.arange(200.0), 1.0
    else:
        grid, weight = oracle._panels(column.means(), np.sqrt(column.variances()))
    row = case.possible_rows(6)[-1]
    row[k] = np.nan
    x = np.tile(row, (len(grid), 1))
    x[:, k] = grid
    density = np.exp(backend.numpy(ring.log_prob(backend.array(x))))
    expected = np.exp(backend.numpy(ring.log_prob(backend.array(row))))
    assert_close((density * weight).sum(), expected, case, rtol=1e-7)


def test_under_inference_mode():
    """Tensors made there count no writes; what is written to those that a ring hands out does not reach it."""
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        ring = rd.TensorRing.random([rd.Categorical(3)] * 4, 2, rng=0, xp=torch, dtype=torch.float64)
        x = ring.sample(5, rng=1)
        before = ring.log_prob(x)
        ring.cores[0].mul_(2.0)
        assert_close(ring.log_prob(x).numpy(), before.numpy(), ring)
        assert_close(np.exp(ring.to_dense().log().numpy()).sum(), 1.0, ring)


@pytest.mark.parametrize("fused", [False, True])
def test_parameters_that_an_optimiser_changes(fused):
    """Fused optimisers do not count what they write, so that nothing about parameters can be remembered."""
    torch = pytest.importorskip("torch")
    start = rd.TensorRing.random([rd.Categorical(3)] * 4, 2, rng=0, xp=torch, dtype=torch.float64)
    cores = [core.clone().requires_grad_() for core in start.cores]
    ring, x = rd.TensorRing(cores, start.variables), start.sample(5, rng=1)
    optimizer = torch.optim.Adam(cores, lr=1e-3, fused=fused)
    for _ in range(2):
        with torch.no_grad():
            fresh = rd.TensorRing([core.detach().clone() for core in cores], start.variables)
            assert_close(ring.log_prob(x).numpy(), fresh.log_prob(x).numpy(), ring)
        optimizer.zero_grad()
        (-ring.log_prob(x).mean()).backward()
        optimizer.step()


@pytest.mark.parametrize(("rank", "rows"), [(1, 1), (20, 1), (20, 2), (20, 50)])
def test_equal_calls_have_equal_bits(backend, rank, rows):
    ring = rd.TensorRing.random([rd.Categorical(3)] * 30, rank, rng=backend.rng(), xp=backend.xp, device=backend.device)
    x = backend.array(np.random.default_rng(0).integers(3, size=(rows, 30)))
    first, *others = (backend.numpy(ring.log_prob(x)) for _ in range(3))
    assert_close(first, backend.numpy(ring.log_prob(x, engine="log")), ring, rtol=1e-9)
    assert len(np.unique(first)) == rows, first
    for other in others:
        np.testing.assert_array_equal(first, other)
