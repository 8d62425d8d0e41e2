"""Samplers by chi-square against all enumerated probabilities, continuous columns by Kolmogorov-Smirnov.

Seeds are fixed, so each test has one outcome; a right sampler fails a threshold of 1e-3 once in a thousand seeds.
"""

import numpy as np
import pytest
from scipy import stats

from ringdist.engines import budget
from ringdist.queries import top_down
from tests import oracle
from tests.oracle import DISCRETE, MIXED, TABLE, TRAIN, Case

pytestmark = pytest.mark.slow_on("jax")

LEVEL = 1e-3
CATEGORICAL_TRAIN = oracle.make_case(["categorical"] * 3, [3, 2, 4], [1, 3, 2], [2, 0, 1], seed=11)
ALONE = oracle.make_case(["categorical"], [4], [3], [0], sparsity=0.3, seed=12)
UNIFORM = oracle.make_case(["categorical"] * 5, [2, 3, 1, 2, 3], [1] * 5, [4, 2, 0, 1, 3], seed=13)
SPARSE = oracle.make_case(["categorical"] * 4, [3] * 4, [4, 2, 4, 3], [3, 1, 0, 2], 0.6, seed=14)
TABLES = {"ring": TABLE, "train": CATEGORICAL_TRAIN, "alone": ALONE, "independent": UNIFORM, "sparse": SPARSE}


@pytest.fixture(params=TABLES)
def table(request) -> Case:
    return TABLES[request.param]


# ------------------------------------------------------------------------------------------------- sample


def test_samples_have_all_the_enumerated_probabilities(backend, table):
    x = backend.numpy(backend.ring(table).sample(20_000, rng=1))
    assert x.shape == (20_000, table.d), x.shape
    p_value = oracle.chi_square(oracle.counts(x, table.shape), table.joint)
    assert p_value > LEVEL, (table, p_value)


@pytest.mark.parametrize("case", [MIXED, TRAIN], ids=["mixed", "train"])
def test_samples_of_mixed_rings(backend, case):
    """u_k = F(z_k | all earlier columns) is uniform and independent, so every dependence is tested."""
    x = backend.numpy(backend.ring(case).sample(4000, rng=2))
    for k, column in enumerate(case.columns):
        earlier = x.copy()
        earlier[:, k + 1 :] = np.nan
        if column.kind in DISCRETE:
            seen = x[:, k].astype(int)
            assert (seen == x[:, k]).all(), (case, k)
            values = np.arange(seen.max() + 30.0)
            marginal = np.full((len(values), case.d), np.nan)
            marginal[:, k] = values
            p_value = oracle.chi_square(np.bincount(seen, minlength=len(values)), oracle.mass(case, marginal))
        else:
            p_value = stats.kstest(oracle.cdf(case, k, earlier), "uniform").pvalue
        assert p_value > LEVEL, (case, k, p_value)


def test_continuous_columns_follow_the_cdf_of_the_library(backend):
    ring = backend.ring(MIXED)
    x = backend.numpy(ring.sample(4000, rng=3))
    for k in (1, 3):
        u = backend.numpy(ring.cdf(k, backend.array(x)))
        assert stats.kstest(u, "uniform").pvalue > LEVEL, (MIXED, k)


def test_samples_have_positive_density_and_the_dtype_of_the_cores(backend, dtype):
    ring = backend.ring(MIXED, dtype)
    x = ring.sample(50, rng=0)
    assert x.dtype == backend.dtype(dtype), x.dtype
    assert np.isfinite(backend.numpy(ring.log_prob(x))).all(), ring


@pytest.mark.parametrize("n", [0, 1, 3])
def test_number_of_samples(backend, n):
    assert tuple(backend.ring(MIXED).sample(n, rng=0).shape) == (n, 4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_cores_does_not_matter(backend, scale):
    case = Case(tuple(core * scale for core in TABLE.cores), TABLE.columns, TABLE.order)
    x = backend.numpy(backend.ring(case, "float32").sample(10_000, rng=5))
    assert oracle.chi_square(oracle.counts(x, TABLE.shape), TABLE.joint) > LEVEL, TABLE


def test_long_rings_are_sampled_without_underflow(backend):
    """Two worlds that never mix: all zeros or all ones, 2 000 columns long."""
    d = 2000
    core = np.zeros((2, 2, 2))
    core[0, 0, 0] = core[1, 1, 1] = 1e-3
    case = Case((core,) * d, (oracle.Column("categorical", 2),) * d, tuple(range(d)))
    x = backend.numpy(backend.ring(case, "float32").sample(200, rng=6))
    assert (x == x[:, :1]).all(), "a sample mixes the two worlds"
    assert stats.binomtest(int(x[:, 0].sum()), 200).pvalue > LEVEL, x[:, 0].mean()


# ------------------------------------------------------------------------------------------- sample_given


def test_missing_entries_have_the_conditional_probabilities(backend, table):
    for row in table.possible_rows(3, missing=0.5):
        x = backend.numpy(backend.ring(table).sample_given(backend.array(row), 10_000, rng=7))
        assert x.shape == (10_000, table.d), x.shape
        observed = ~np.isnan(row)
        assert (x[:, observed] == row[observed]).all(), (table, row)
        everything = oracle.configurations(table.shape)
        agree = (everything[:, observed] == row[observed]).all(-1)
        conditional = np.where(agree, table.joint.ravel(), 0.0)
        p_value = oracle.chi_square(oracle.counts(x, table.shape), conditional)
        assert p_value > LEVEL, (table, row, p_value)


def test_each_row_is_completed_by_its_own_evidence(backend):
    row = TABLE.possible_rows(8, missing=0.5)
    x = np.repeat(row, 3000, axis=0)
    drawn = backend.numpy(backend.ring(TABLE).sample_given(backend.array(x), rng=8))
    everything = oracle.configurations(TABLE.shape)
    for j, evidence in enumerate(row):
        agree = ((everything == evidence) | np.isnan(evidence)).all(-1)
        conditional = np.where(agree, TABLE.joint.ravel(), 0.0)
        observed = oracle.counts(drawn[3000 * j : 3000 * (j + 1)], TABLE.shape)
        assert oracle.chi_square(observed, conditional) > LEVEL, (TABLE, evidence)


def test_missing_entries_of_mixed_rings(backend):
    """Given a label and a height, the delay follows its conditional; given a delay and a height, the label does."""
    ring = backend.ring(MIXED)
    row = np.array([1.0, -0.4, np.nan, np.nan])
    x = backend.numpy(ring.sample_given(backend.array(row), 4000, rng=9))
    assert stats.kstest(oracle.cdf(MIXED, 3, x), "uniform").pvalue > LEVEL, MIXED
    earlier = x.copy()
    earlier[:, 2] = np.nan
    assert stats.kstest(oracle.cdf(MIXED, 3, earlier), "uniform").pvalue > LEVEL, MIXED
    row = np.array([np.nan, 2.5, np.nan, 0.7])
    x = backend.numpy(ring.sample_given(backend.array(row), 4000, rng=10))
    observed = np.bincount(x[:, 0].astype(int), minlength=3)
    assert oracle.chi_square(observed, oracle.posterior(MIXED, 0, row)) > LEVEL, MIXED


def test_observed_entries_come_back_unchanged(backend, dtype):
    """Bit for bit in the dtype of the cores, whatever the batch; a complete row is its own completion."""
    ring = backend.ring(MIXED, dtype)
    x = backend.array(MIXED.possible_rows(12), dtype)
    drawn = ring.sample_given(x, rng=0)
    assert tuple(drawn.shape) == tuple(x.shape) and drawn.dtype == x.dtype, drawn
    before, after = backend.numpy(x), backend.numpy(drawn)
    seen = ~np.isnan(before)
    np.testing.assert_array_equal(after[seen], before[seen])
    assert not np.isnan(after).any(), after
    full = backend.array(MIXED.rows(6, missing=0.0), dtype)
    np.testing.assert_array_equal(backend.numpy(ring.sample_given(full, rng=0)), backend.numpy(full))


@pytest.mark.parametrize("n", [None, 0, 1, 5])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)], ids=str)
def test_shapes_of_completions(backend, batch, n):
    x = MIXED.possible_rows(int(np.prod(batch))).reshape(*batch, 4)
    drawn = backend.ring(MIXED).sample_given(backend.array(x), n, rng=0)
    assert tuple(drawn.shape) == (x.shape if n is None else (n, *x.shape)), drawn.shape


def test_completions_of_one_row_differ(backend):
    x = backend.array(np.full((2, 4), np.nan))
    drawn = backend.numpy(backend.ring(MIXED).sample_given(x, 6, rng=0))
    assert len(np.unique(drawn[:, :, 1])) == 12, drawn


def test_integers_have_nothing_missing(backend):
    x = backend.array([[0, 1, 2, 0], [2, 0, 3, 1]], "int64")
    case = oracle.make_case(["categorical"] * 4, [3, 2, 4, 2], [2, 3, 2, 2], range(4), seed=2)
    drawn = backend.numpy(backend.ring(case).sample_given(x, rng=0))
    np.testing.assert_array_equal(drawn, backend.numpy(x))


def test_draws_in_pieces(backend, monkeypatch):
    """Where bonds are swept and where rows are completed."""
    monkeypatch.setattr(budget, "AT_ONCE", 1000)
    for case in (TABLE, SPARSE):
        ring = backend.ring(case)
        x = backend.numpy(ring.sample_given(backend.array(np.full((1, case.d), np.nan)), 5000, rng=backend.rng(1)))
        p_value = oracle.chi_square(oracle.counts(x[:, 0], case.shape), case.joint)
        assert p_value > LEVEL, (case, p_value)


@pytest.mark.parametrize("ranks", [[4, 4, 4, 4], [1, 4, 4, 4], [2, 4, 3, 1]], ids=str)
def test_bonds_are_drawn_from_the_tree_of_rings_and_trains(numpy_backend, ranks):
    """Where no entry is near underflow; unequal ranks are padded."""
    case = oracle.make_case(["categorical"] * 4, [3] * 4, ranks, [0, 1, 2, 3], seed=3)
    assert top_down._computed_tree(numpy_backend.ring(case)) is not None
