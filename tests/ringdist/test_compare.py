"""Divergences against enumeration and closed forms; the trains that a ring is compared with."""

import math

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from tests import oracle
from tests.backends import load_backend
from tests.oracle import MIXED, TABLE, TRAIN, make_case

OTHER = make_case(["categorical"] * 4, [3, 2, 4, 2], [3, 2, 2, 1], [0, 1, 2, 3], seed=9)
DENSE = make_case(["categorical"] * 4, [3, 2, 4, 2], [2, 4, 3, 3], [1, 3, 0, 2], seed=10)


@pytest.fixture(params=["numpy", "torch"])
def fast(request):
    """The backends whose first call compiles nothing."""
    return load_backend(request.param)


def table(case):
    return case.joint / case.joint.sum()


def gaussian(mean: float, std: float, name: str | None = None) -> rd.TensorRing:
    return rd.TensorRing([np.ones((1, 1, 1))], [rd.GaussianMixture([mean], [std], name=name)])


def coin(*weights: float) -> rd.TensorRing:
    return rd.TensorRing([np.reshape(np.array(weights, dtype=float), (-1, 1, 1))], [rd.Categorical(len(weights))])


# ------------------------------------------------------------------------------------------------------------- kl


@pytest.mark.slow_on("jax")
def test_kl_of_tables_is_exact(backend):
    p, q = backend.ring(TABLE), backend.ring(OTHER)
    a, b = table(TABLE), table(OTHER)
    estimate, error = rd.compare.kl(p, q)
    assert (type(estimate), error) == (float, 0.0)
    assert estimate == pytest.approx(stats.entropy(a.ravel(), b.ravel()), rel=1e-9)
    assert rd.compare.kl(p, p)[0] == pytest.approx(0, abs=1e-12)


def test_kl_is_infinite_where_only_p_has_mass():
    p, q = coin(1, 1, 2), coin(1, 0, 1)
    assert rd.compare.kl(p, q) == (math.inf, 0.0)
    assert rd.compare.kl(q, p)[0] < 1
    assert rd.compare.kl(p, q, np.array([[0], [1]])) == (math.inf, 0.0)
    assert rd.compare.kl(q, p, np.array([[0], [1]])) == (-math.inf, 0.0)


def test_kl_from_samples_is_infinite_too():
    size = 2**9
    p, q = coin(*[1] * size), coin(*[1] * (size - 1), 0)
    wide_p, wide_q = (
        rd.TensorRing([r.cores[0], np.ones((size, 1, 1))], [rd.Categorical(size)] * 2) for r in (p, q)
    )  # 2^18 cells
    assert rd.compare.kl(wide_p, wide_q, rng=0) == (math.inf, 0.0)
    assert rd.compare.kl(wide_q, wide_p, rng=0)[0] == pytest.approx(math.log(size / (size - 1)))


def test_kl_of_normals():
    p, q = gaussian(0.0, 1.0), gaussian(1.0, 2.0)
    exact = math.log(2) + (1 + 1) / 8 - 0.5
    estimate, error = rd.compare.kl(p, q, n=50_000, rng=0)
    assert abs(estimate - exact) < 4 * error and 0 < error < 0.01
    assert rd.compare.kl(p, q, n=2000, rng=1) == rd.compare.kl(p, q, n=2000, rng=1)
    assert rd.compare.kl(p, p, rng=0) == (0.0, 0.0)


def test_kl_of_mixed_columns(fast):
    p = fast.ring(MIXED)
    q = fast.ring(make_case(["categorical", "gaussian", "poisson", "laplace"], [3, 3, 2, 4], [2] * 4, range(4)))
    estimate, error = rd.compare.kl(p, p.to_train(), n=500, rng=0)
    assert estimate == pytest.approx(0, abs=1e-9) and error < 1e-9
    with pytest.raises(ValueError, match="label"):
        rd.compare.kl(p, q.permute([1, 0, 2, 3]))
    assert math.isfinite(rd.compare.kl(p, q, n=200, rng=0)[0])


def test_kl_over_given_rows(fast):
    p, q = fast.ring(TABLE), fast.ring(DENSE)
    x = TABLE.possible_rows(8)
    ratio = oracle.log_prob(TABLE, x) - oracle.log_prob(DENSE, x)
    estimate, error = rd.compare.kl(p, q, fast.array(x))
    assert estimate == pytest.approx(ratio.mean())
    assert error == pytest.approx(ratio.std(ddof=1) / math.sqrt(len(x)))
    one = rd.compare.kl(p, q, fast.array(x[1]))
    assert one[0] == pytest.approx(ratio[1]) and math.isnan(one[1])


def test_kl_over_rows_that_leave_it_undefined():
    p, q = coin(0, 1, 1, 0), coin(0, 1, 0, 1)
    with pytest.raises(ValueError, match="under both in row 2"):
        rd.compare.kl(p, q, np.array([[1], [1], [0]]))
    with pytest.raises(ValueError, match="row 1 has zero mass under p, row 0 under q"):
        rd.compare.kl(p, q, np.array([[2], [3]]))
    with pytest.raises(ValueError, match="at least one row"):
        rd.compare.kl(p, q, np.zeros((0, 1)))


# ------------------------------------------------------------------------------------------------ total variation


@pytest.mark.slow_on("jax")
def test_total_variation_of_tables_is_exact(backend):
    p, q = backend.ring(TABLE), backend.ring(OTHER)
    expected = np.abs(table(TABLE) - table(OTHER)).sum() / 2
    distance = rd.compare.total_variation(p, q)
    assert type(distance) is float and distance == pytest.approx(expected, rel=1e-9)
    assert distance == pytest.approx(rd.compare.total_variation(q, p))
    assert rd.compare.total_variation(coin(1, 0), coin(0, 1)) == 1


def test_total_variation_from_samples():
    exact = 2 * stats.norm.cdf(0.5) - 1  # N(0, 1) and N(1, 1)
    p, q = gaussian(0.0, 1.0), gaussian(1.0, 1.0)
    n = 20_000
    distance = rd.compare.total_variation(p, q, n=n, rng=0)
    assert abs(distance - exact) < 4 * 0.5 / math.sqrt(2 * n)
    assert distance == rd.compare.total_variation(p, q, n=n, rng=0)
    assert rd.compare.total_variation(p, p, rng=0) == 0
    assert rd.compare.total_variation(p, gaussian(1e6, 1.0), rng=0) == 1


def test_total_variation_with_generators_of_the_backend(fast):
    p = fast.ring(MIXED)
    assert rd.compare.total_variation(p, p.to_train(), n=50, rng=fast.rng(0)) == pytest.approx(0, abs=1e-9)


def test_jax_needs_randomness_from_the_caller():
    pytest.importorskip("jax")
    p = load_backend("jax").ring(MIXED)
    for distance in (rd.compare.kl, rd.compare.total_variation):
        with pytest.raises(ValueError, match="rng"):
            distance(p, p)


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("distance", [rd.compare.kl, rd.compare.total_variation])
def test_columns_that_differ(distance):
    with pytest.raises(ValueError, match="1 and 4 columns"):
        distance(coin(1, 1), load_backend("numpy").ring(TABLE))
    with pytest.raises(ValueError, match=r"column 0.*Categorical\(2\).*Categorical\(3\)"):
        distance(coin(1, 1), coin(1, 1, 1))
    with pytest.raises(ValueError, match=r"column 0.*Categorical.*GaussianMixture"):
        distance(coin(1, 1), gaussian(0.0, 1.0))
    with pytest.raises(ValueError, match=r"column 0 \('a'\) and column 0 \('b'\)"):
        distance(gaussian(0.0, 1.0, "a"), gaussian(0.0, 1.0, "b"))
    with pytest.raises(ValueError, match=r"n >= 2.*found 1"):
        distance(gaussian(0.0, 1.0), gaussian(0.0, 1.0), n=1)


@pytest.mark.parametrize("distance", [rd.compare.kl, rd.compare.total_variation])
def test_backends_that_differ(distance):
    torch = pytest.importorskip("torch")
    ring = coin(1, 1)
    with pytest.raises(TypeError, match="one backend"):
        distance(ring, ring.to(torch))
    with pytest.raises(TypeError, match="one backend"):
        rd.compare.kl(ring, ring, torch.zeros(3, 1))


def test_a_user_family_and_a_gaussian_live_on_one_line(numpy_backend):
    laplace = numpy_backend.ring(make_case(["laplace"], [2], [1], [0]))
    assert math.isfinite(rd.compare.kl(laplace, gaussian(0.0, 3.0), n=100, rng=0)[0])


# -------------------------------------------------------------------------------------------------- matched trains


def rings() -> list[rd.TensorRing]:
    backend = load_backend("numpy")
    shapes = [([2] * 6, 3), ([2, 5, 3], 4), ([7, 2], 3), ([3] * 10, 1), ([2, 3, 4, 5], [2, 5, 3, 4])]
    drawn = [rd.TensorRing.random([rd.Categorical(n) for n in shape], rank, rng=0) for shape, rank in shapes]
    return [*drawn, backend.ring(MIXED), backend.ring(TRAIN)]


@pytest.mark.parametrize("ring", rings(), ids=repr)
def test_the_train_with_no_more_parameters(ring):
    def train(rank):
        return rd.TensorRing.random(ring.variables, rank, order=ring.order, topology="train", rng=0)

    rank = rd.compare.matched_train_rank(ring)
    assert rank == rd.compare.matched_train_rank(ring, by="parameters") and type(rank) is int
    assert train(rank).num_parameters <= ring.num_parameters < train(rank + 1).num_parameters


@pytest.mark.parametrize("ring", rings(), ids=repr)
def test_the_train_of_equal_capacity_holds_the_ring(ring):
    rank = rd.compare.matched_train_rank(ring, by="capacity")
    assert rank >= max(ring.to_train().ranks)
    thinnest, *others = sorted(ring.ranks)
    assert rank == thinnest * max(others)


def test_one_column_and_unknown_rules():
    for by in ("parameters", "capacity"):
        assert rd.compare.matched_train_rank(coin(1, 1), by=by) == 1
    with pytest.raises(ValueError, match="parameters or capacity, found 'size'"):
        rd.compare.matched_train_rank(coin(1, 1), by="size")


def test_mixtures_of_rings(numpy_backend):
    """Exactly for tables, by samples otherwise, on either side."""
    ring, other = numpy_backend.ring(TABLE), rd.TensorRing.random([rd.Categorical(n) for n in TABLE.shape], 3, rng=1)
    mixture = rd.RingMixture([ring, other], [0.3, 0.7])
    p, q = mixture.to_dense(), ring.to_dense()
    seen = p > 0
    assert rd.compare.kl(ring, mixture)[0] < rd.compare.kl(ring, other)[0]
    value, error = rd.compare.kl(mixture, other)
    np.testing.assert_allclose(value, (p[seen] * np.log(p[seen] / other.to_dense()[seen])).sum(), rtol=1e-9)
    assert error == 0
    np.testing.assert_allclose(rd.compare.total_variation(mixture, ring), 0.5 * np.abs(p - q).sum(), rtol=1e-9)
    mixed = numpy_backend.ring(MIXED)
    twice = rd.RingMixture([mixed, mixed], [0.5, 0.5])
    value, error = rd.compare.kl(twice, mixed, n=100, rng=0)
    assert abs(value) < 1e-12
    assert rd.compare.total_variation(twice, mixed, n=100, rng=0) < 1e-12
