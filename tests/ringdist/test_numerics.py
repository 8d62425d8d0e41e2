"""Where the linear domain cannot hold the numbers: long rings, decoupled worlds, far components, odd scales."""

import itertools

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import Backend, assert_close
from tests.oracle import MIXED, Case, Column, make_case

pytestmark = pytest.mark.slow_on("jax")

BINARY = Column("categorical", 2)
LONG = 10_000
SCALING = ("auto", "sweep", "tree", "log")  # the engines that are meant for long rings


def single(kind: str, **parameters) -> Column:
    arrays = {name: np.array(values, dtype=np.float64) for name, values in parameters.items()}
    return Column(kind, len(next(iter(arrays.values()))), arrays)


def rings(backend: Backend, dtype: str = "float32", **cases: Case):
    return {name: backend.ring(case, dtype) for name, case in cases.items()}


@pytest.fixture(params=SCALING)
def engine(request) -> str:
    return request.param


# ---------------------------------------------------------------------------------------------- long rings


@pytest.mark.slow_on("jax", "torch")
@pytest.mark.parametrize(("topology", "nats"), [("ring", -1e5), ("train", 1e5)])
def test_ten_thousand_columns_in_float32(backend, nats, topology):
    """±10⁵ nats: finite, and equal to the log engine to 1e-4 relative."""
    rng = np.random.default_rng(0)
    scale = 1e-5 if nats > 0 else 1.0
    columns, values = [], []
    for _ in range(LONG):
        column = single("gaussian", means=rng.normal(0, scale, 2), stds=rng.uniform(0.5, 1.5, 2) * scale)
        columns.append(column)
        component = rng.integers(2)
        shift = 0.0 if nats > 0 else 4.0
        values.append(column.parameters["means"][component] + shift * column.parameters["stds"][component])
    ranks = [1 if topology == "train" else 2, *([3, 2] * (LONG // 2))[: LONG - 1]]
    cores = [rng.gamma(1.0, 1.0, (2, ranks[j], ranks[(j + 1) % LONG])) for j in range(LONG)]
    case = Case(tuple(cores), tuple(columns), tuple(range(LONG)), f"long {topology}")
    ring = backend.ring(case, "float32")
    x = np.array(values)[None].repeat(3, 0)
    x[1, ::3] = np.nan
    x[2, : LONG // 2] = np.nan
    x = backend.array(x, "float32")
    reference = backend.numpy(ring.log_prob(x, engine="log"))
    assert np.isfinite(reference).all() and abs(reference[0]) > 5e4, reference
    assert np.sign(reference[0]) == np.sign(nats), reference
    names = ("sweep", "tree") if backend.name != "jax" else ("tree",)
    for name in names:
        actual = backend.numpy(ring.log_prob(x, engine=name))
        assert_close(actual, reference, (case, name), rtol=1e-4)


def test_long_rings_in_float32_agree_with_float64(backend):
    d = 1000
    case = make_case(["categorical"] * d, [3] * d, [4] * d, range(d), seed=4)
    x = np.random.default_rng(0).integers(0, 3, (2, d)).astype(np.float64)
    names = ("tree",) if backend.name == "jax" else ("sweep", "tree", "log")
    values = [
        backend.numpy(backend.ring(case, kind).log_prob(backend.array(x, kind), engine=name))
        for name in names
        for kind in ("float32", "float64")
    ]
    for value in values:
        assert_close(value.astype(np.float64), values[-1].astype(np.float64), case, rtol=1e-5)


# ---------------------------------------------------------------------------------------- decoupled worlds


def worlds(log_first: np.ndarray, log_second: np.ndarray, topology: str) -> Case:
    """Two worlds that never mix, of equal weight; log_first[k] is log p(x_k = 0) in the first one."""
    d = len(log_first)
    cores = []
    for k in range(d):
        p = np.exp([log_first[k], log_second[k]])
        core = np.zeros((2, 2, 2))
        core[0, [0, 1], [0, 1]] = p
        core[1, [0, 1], [0, 1]] = 1 - p
        cores.append(core)
    if topology == "train":
        cores[0] = cores[0].sum(1, keepdims=True)
        cores[-1] = cores[-1].sum(2, keepdims=True)
    return Case(tuple(cores), (BINARY,) * d, tuple(range(d)), f"worlds({topology})")


def takeover(d: int) -> tuple[np.ndarray, np.ndarray]:
    """The first world loses 1 nat per column in the first half only, the second one 2 in the second half only."""
    half = np.arange(d) < d // 2
    return np.where(half, -1.0, 0.0), np.where(half, 0.0, -2.0)


@pytest.mark.slow_unless(numpy="float64", torch="float32")
@pytest.mark.parametrize("topology", ["ring", "train"])
def test_a_dominated_world_takes_over_later(backend, engine, dtype, topology):
    """−d / 2 from the first world, not −d from the one that led in the middle."""
    d = 2000
    if backend.name == "jax" and engine in ("sweep", "log"):
        pytest.skip("op by op, thousands of steps are JAX's tree only")
    ring = backend.ring(worlds(*takeover(d), topology), dtype)
    x = backend.array(np.zeros((2, d)), dtype)
    actual = backend.numpy(ring.log_prob(x, engine=engine))
    assert_close(actual, np.full(2, -d / 2 - np.log(2)), ring, rtol=1e-5)


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.slow_on("jax", "torch")
def test_ten_thousand_columns_of_which_the_dominated_world_takes_over(backend, topology):
    """−5 000 and not −10 000."""
    ring = backend.ring(worlds(*takeover(LONG), topology), "float32")
    actual = backend.numpy(ring.log_prob(backend.array(np.zeros((2, LONG)), "float32")))
    assert_close(actual, np.full(2, -5000.0 - np.log(2)), ring, rtol=1e-5)


@pytest.mark.slow_unless(numpy="float64", torch="float32")
@pytest.mark.parametrize("topology", ["ring", "train"])
def test_worlds_that_decay_at_different_rates(backend, engine, dtype, topology):
    d = 2000
    if backend.name == "jax" and engine in ("sweep", "log"):
        pytest.skip("op by op, thousands of steps are JAX's tree only")
    ring = backend.ring(worlds(np.full(d, -0.5), np.full(d, -1.0), topology), dtype)
    x = np.zeros((3, d))
    x[1] = np.nan
    x[2, 1::2] = np.nan
    actual = backend.numpy(ring.log_prob(backend.array(x, dtype), engine=engine))
    assert_close(actual, [-d / 2 - np.log(2), 0.0, -d / 4 - np.log(2)], ring, rtol=1e-5, atol=0.005)


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("seen_from", ["left", "right"])
@pytest.mark.slow_unless(numpy="float64")
def test_every_query_follows_the_world_that_takes_over(backend, dtype, topology, seen_from):
    """Given zeros everywhere else, the last column of the first world is 0 with probability 0.9.

    Seen from the right, the world that wins in the end is the one that has vanished half way of a backward sweep.
    """
    d = 400
    first, second = takeover(d)
    if seen_from == "right":
        first, second = first[::-1].copy(), second[::-1].copy()
    first[-1], second[-1] = np.log([0.9, 0.2])
    ring = backend.ring(worlds(first, second, topology), dtype)
    x = np.zeros(d)
    x[-1] = np.nan
    x = backend.array(x, dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    posterior = backend.numpy(ring.component_posterior(d - 1, x))
    assert_close(posterior, [0.9, 0.1], ring, **tolerance)
    assert_close(backend.numpy(ring.mean(x))[-1], 0.1, ring, **tolerance)
    full = backend.array(np.zeros(d), dtype)
    assert_close(backend.numpy(ring.cdf(d - 1, full)), 0.9, ring, **tolerance)
    assert backend.numpy(ring.quantile(d - 1, 0.85, x)) == 0, ring
    assert backend.numpy(ring.quantile(d - 1, 0.95, x)) == 1, ring
    drawn = backend.numpy(ring.sample_given(x, 4000, rng=0))[:, -1]
    assert abs(drawn.mean() - 0.1) < 4 * np.sqrt(0.09 / 4000), drawn.mean()
    conditional = ring.condition(dict.fromkeys(range(d - 1), 0))
    one = backend.array([[0.0], [1.0]], dtype)
    actual = backend.numpy(conditional.log_prob(one))
    assert_close(np.exp(actual), [0.9, 0.1], ring, **tolerance)


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("seen_from", ["left", "right"])
@pytest.mark.slow_unless(numpy="float64", torch="float32")
def test_a_column_in_the_middle_of_the_takeover(backend, dtype, topology, seen_from):
    """In the middle the state of the first world has underflowed by far, and yet it is the one that is seen."""
    d = 400
    first, second = takeover(d)
    if seen_from == "right":
        first, second = first[::-1].copy(), second[::-1].copy()
    first[d // 2], second[d // 2] = np.log([0.7, 0.4])
    ring = backend.ring(worlds(first, second, topology), dtype)
    x = np.zeros(d)
    x[d // 2] = np.nan
    x = backend.array(x, dtype)
    posterior = backend.numpy(ring.component_posterior(d // 2, x))
    assert_close(posterior, [0.7, 0.3], ring, rtol=1e-4, atol=1e-6)
    drawn = backend.numpy(ring.sample_given(x, 4000, rng=0))[:, d // 2]
    assert abs(drawn.mean() - 0.3) < 4 * np.sqrt(0.21 / 4000), (ring, drawn.mean())


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("seen_from", ["left", "right"])
def test_rings_of_few_columns_out_of_many(numpy_backend, dtype, topology, seen_from):
    """condition and marginal multiply thousands of matrices together; the product must not lose a world on the way."""
    d = 2000
    first, second = takeover(d)
    if seen_from == "right":
        first, second = first[::-1].copy(), second[::-1].copy()
    keep = [d - 3, d - 2, d - 1]
    for k in keep:
        first[k], second[k] = np.log([0.9, 0.2])
    ring = numpy_backend.ring(worlds(first, second, topology), dtype)
    conditional = ring.condition({k: 0 for k in range(d) if k not in keep})
    actual = conditional.log_prob([[0, 0, 0], [1, 0, 1]])
    assert_close(np.exp(actual), [0.9**3, 0.9 * 0.1**2], conditional, rtol=1e-3)
    marginal = ring.marginal([1, d // 2, *keep])
    actual = marginal.log_prob([[np.nan, np.nan, 0, 0, 0], [np.nan, np.nan, 1, 0, 1]])
    assert_close(np.exp(actual), [(0.9**3 + 0.2**3) / 2, (0.9 * 0.1**2 + 0.2 * 0.8**2) / 2], marginal, rtol=1e-3)


@pytest.fixture(params=[(t, w) for t in ("ring", "train") for w in (0, 1)], ids=lambda p: f"{p[0]}-{p[1]}")
def scaled_worlds(request) -> tuple[Case, int]:
    """Unnormalised worlds of which one has all the mass, log Z = −5 000 against −10 000; and which one that is.

    In a column of the first world both values are equally likely; in the second one all columns are 0.
    """
    (topology, winner), d = request.param, 2000
    first, second = np.full(d, np.log(0.5)), np.zeros(d)
    cores = [core.copy() for core in worlds(first, second, topology).cores]
    for k, core in enumerate(cores):
        wins, loses = (np.exp(-5.0), 1.0) if k < d // 2 else (1.0, np.exp(-10.0))
        decay = np.array([wins, loses] if winner == 0 else [loses, wins])
        core *= decay[:, None] if core.shape[1] == 2 else decay
    return Case(tuple(cores), (BINARY,) * d, tuple(range(d)), f"scales({topology})"), winner


@pytest.mark.slow_unless(numpy="float64", torch="float32")
def test_the_normaliser_of_worlds_of_different_scale(backend, dtype, scaled_worlds):
    """Z itself has to survive: log Z = max(−5 000, −10 000)."""
    case, _ = scaled_worlds
    ring = backend.ring(case, dtype)
    assert_close(backend.numpy(ring.log_normalizer()), -5000.0, ring, rtol=1e-5)


@pytest.mark.slow_unless(numpy="float64")
def test_samples_come_from_the_world_that_has_the_mass(backend, dtype, scaled_worlds):
    case, winner = scaled_worlds
    ring = backend.ring(case, dtype)
    x = backend.numpy(ring.sample(40, rng=0))
    expected = 0.0 if winner == 1 else 0.5
    assert abs(x.mean() - expected) < 0.02, (ring, x.mean())
    log_prob = backend.numpy(ring.log_prob(backend.array(x, dtype)))
    assert_close(log_prob, np.full(40, -case.d * np.log(2) if winner == 0 else 0.0), ring, rtol=1e-4, atol=0.05)


@pytest.mark.slow_unless(numpy="float64")
def test_moments_are_those_of_the_world_that_has_the_mass(backend, dtype):
    """Also the pairwise ones, for a column at each end and one in the middle."""
    if backend.name == "jax":
        pytest.skip("op by op, 200 columns are a matter of minutes")
    for topology, flip in itertools.product(("ring", "train"), (False, True)):
        case = unbalanced_worlds(240, topology, flip)
        ring, ends = backend.ring(case, dtype), [0, 120, 239]
        assert_close(backend.numpy(ring.mean())[ends], np.full(3, 0.5), ring, rtol=1e-4)
        covariance = backend.numpy(ring.covariance())[np.ix_(ends, ends)]
        mutual = backend.numpy(ring.mutual_information())[np.ix_(ends, ends)]
        assert_close(covariance, np.eye(3) / 4, case, rtol=1e-4, atol=1e-5)
        assert_close(mutual, np.eye(3) * np.log(2), case, rtol=1e-4, atol=1e-5)


def unbalanced_worlds(d: int, topology: str, flip: bool) -> Case:
    """The first world: fair coins of mass e^(−d / 2), lost in one half; the second: zeros, e^−d, lost in the other."""
    cores = [core.copy() for core in worlds(np.full(d, np.log(0.5)), np.zeros(d), topology).cores]
    for k, core in enumerate(cores):
        decay = np.exp([-1.0, 0.0] if (k < d // 2) != flip else [0.0, -2.0])
        core *= decay[:, None] if core.shape[1] == 2 else decay
    return Case(tuple(cores), (BINARY,) * d, tuple(range(d)), f"unbalanced({topology}, {flip})")


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("flip", [False, True])
def test_marginals_of_unbalanced_worlds(numpy_backend, topology, flip):
    """What lies between the columns kept has entries e^(−d / 2) and e^−d, which only together are in range."""
    d = 1600
    ring = numpy_backend.ring(unbalanced_worlds(d, topology, flip))
    marginal = ring.marginal([0, d // 2, d - 1])
    assert_close(marginal.to_dense(), np.full((2, 2, 2), 1 / 8), marginal)
    others = [k for k in range(d) if k not in (0, d // 2, d - 1)]
    only_first = ring.condition(dict.fromkeys(others, 1))
    assert_close(only_first.to_dense(), np.full((2, 2, 2), 1 / 8), only_first)
    rather_second = ring.condition(dict.fromkeys(others, 0))  # e^−1600 against e^−800 2^−1597
    assert_close(rather_second.to_dense(), np.eye(8)[0].reshape(2, 2, 2), rather_second)
    assert_close(ring.marginal([d // 2]).to_dense(), [0.5, 0.5], ring)


# --------------------------------------------------------------------------------------- far and near zero


def test_the_nearest_component_has_no_weight(backend, engine, dtype):
    """The far component is the only one with mass: log N(0; 100, 1), although exp of it is no number."""
    column = single("gaussian", means=[0.0, 100.0], stds=[1.0, 1.0])
    core = np.array([0.0, 2.0]).reshape(2, 1, 1)
    ring = backend.ring(Case((core,), (column,), (0,)), dtype)
    actual = backend.numpy(ring.log_prob(backend.array([[0.0], [100.0]], dtype), engine=engine))
    constant = -0.5 * np.log(2 * np.pi)
    assert_close(actual, [constant - 5000, constant], ring, rtol=1e-5)


def test_the_nearest_component_has_no_weight_for_this_neighbour(backend, engine, dtype):
    """Zero weight only on the path that the neighbour's value selects; other rows are ordinary."""
    column = single("gaussian", means=[0.0, 60.0], stds=[1.0, 1.0])
    cores = (np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]]))
    ring = backend.ring(Case(cores, (BINARY, column), (0, 1)), dtype)
    x = backend.array([[0.0, 0.0], [1.0, 0.0], [0.0, 60.0], [1.0, 60.0]], dtype)
    near, far = -0.5 * np.log(2 * np.pi) - np.log(2), -1800 - 0.5 * np.log(2 * np.pi) - np.log(2)
    actual = backend.numpy(ring.log_prob(x, engine=engine))
    assert_close(actual, [near, far, far, near], ring, rtol=1e-5)
    x = backend.array([[np.nan, 0.0], [1.0, 0.0], [1.0, np.nan]], dtype)
    posterior = backend.numpy(ring.component_posterior(1, x))
    assert_close(posterior, [[1, 0], [0, 1], [0, 1]], ring, rtol=1e-4, atol=1e-6)


def test_a_component_far_from_every_point(backend, engine, dtype):
    """x at 10⁴ deviations from everything: −5·10⁷ nats, and the posterior still adds up to one."""
    column = single("gaussian", means=[-1.0, 0.0, 1.0], stds=[1.0, 1.0, 1.0])
    core = np.ones((3, 1, 1))
    ring = backend.ring(Case((core,), (column,), (0,)), dtype)
    x = backend.array([[1e4]], dtype)
    expected = -0.5 * (1e4 - 1) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(3)
    assert_close(backend.numpy(ring.log_prob(x, engine=engine)), [expected], ring, rtol=1e-6)
    assert_close(backend.numpy(ring.component_posterior(0, x)), [[0, 0, 1]], ring, atol=1e-30)


def test_zero_mass_is_minus_infinity_however_long_the_ring(backend, dtype):
    """Reachability decides: one forbidden transition anywhere, in a ring that would underflow anyway."""
    d = 500
    core = np.zeros((2, 2, 2))
    core[0], core[1] = [[1e-3, 1e-3], [0.0, 1e-3]], [[0.0, 1e-3], [0.0, 1e-3]]
    ends = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    case = Case((ends[0], *[core] * (d - 2), ends[1]), (BINARY,) * d, tuple(range(d)), "one way")
    ring = backend.ring(case, dtype)
    x = np.zeros((4, d))
    x[1, 0] = 1  # starts in state 1, ends in state 0: impossible
    x[2, 200] = 1  # moves to state 1 half way, ends in state 0: impossible
    x[3, [200, -1]] = 1
    for name in ("sweep", "tree", "log") if backend.name != "jax" else ("tree",):
        actual = backend.numpy(ring.log_prob(backend.array(x, dtype), engine=name))
        assert np.isneginf(actual).tolist() == [False, True, True, False], (name, actual)


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e5, 1e30])
@pytest.mark.parametrize("name", ["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"])
def test_the_scale_of_the_cores_is_no_part_of_the_distribution(backend, dtype, scale, name):
    case = Case(tuple(core * scale for core in MIXED.cores), MIXED.columns, MIXED.order, "scaled")
    ring, x = backend.ring(case, dtype), MIXED.rows(6)
    actual = backend.numpy(ring.log_prob(backend.array(x, dtype), engine=name))
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    assert_close(actual, oracle.log_prob(MIXED, x), ring, rtol=tolerance, atol=tolerance)
    expected = np.log(MIXED.joint.sum()) + MIXED.d * np.log(scale)
    assert_close(backend.numpy(ring.log_normalizer()), expected, ring, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_queries_at_odd_scales(backend, dtype, scale):
    """One core up, one down: every query is that of the ordinary ring."""
    factor = (scale, 1 / scale, scale, scale)
    cores = tuple(core * f for core, f in zip(MIXED.cores, factor, strict=True))
    ring = backend.ring(Case(cores, MIXED.columns, MIXED.order, "scaled"), dtype)
    x, tolerance = MIXED.possible_rows(6), 1e-8 if dtype == "float64" else 2e-3
    rows, close = backend.array(x, dtype), {"rtol": tolerance, "atol": tolerance}
    assert_close(backend.numpy(ring.component_posterior(1, rows)), oracle.posterior(MIXED, 1, x), ring, **close)
    assert_close(backend.numpy(ring.mean(rows)), oracle.mean(MIXED, x), ring, **close)
    assert_close(backend.numpy(ring.covariance()), oracle.covariance(MIXED), ring, **close)
    mutual = oracle.mutual_information(MIXED)
    assert_close(backend.numpy(ring.mutual_information()), mutual, ring, **close)
    assert_close(backend.numpy(ring.inner(ring)), oracle.inner(MIXED, MIXED), ring, **close)
    for other in (ring.to_train(), ring.marginal([0, 1, 2, 3]), ring.permute([0, 1, 2, 3])):
        actual = backend.numpy(other.log_prob(rows))
        assert_close(actual, oracle.log_prob(MIXED, x), other, **close)


# ------------------------------------------------------------------------------------------ degenerate rings


def test_rank_one_rings_are_products(backend, engine):
    kinds, shape = ["categorical", "gaussian", "laplace", "poisson"], [3, 2, 4, 2]
    case = make_case(kinds, shape, [1] * 4, [2, 0, 1, 3], seed=6)
    ring, x = backend.ring(case), case.rows(6, missing=0.0)
    actual = backend.numpy(ring.log_prob(backend.array(x), engine=engine))
    parts = [
        np.log(column.density(x[:, k]) @ (core[:, 0, 0] / core.sum()))
        for k, (core, column) in enumerate(zip(case.cores, case.columns, strict=True))
    ]
    assert_close(actual, np.sum(parts, 0), ring)
    mutual = backend.numpy(ring.mutual_information())
    assert_close(mutual - np.diag(np.diag(mutual)), np.zeros((4, 4)), ring, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 4])
def test_one_variable_rings_are_traces(backend, engine, rank):
    case = make_case(["gaussian"], [3], [rank], [0], seed=7)
    ring, x = backend.ring(case), case.rows(6, missing=0.2)
    weights = np.trace(case.cores[0], axis1=1, axis2=2)
    expected = np.log(case.columns[0].density(x[:, 0]) @ (weights / weights.sum()))
    actual = backend.numpy(ring.log_prob(backend.array(x), engine=engine))
    assert_close(actual, expected, ring)


def test_variables_of_one_component(backend, engine):
    case = make_case(["gaussian", "categorical", "poisson"], [1, 1, 1], [2, 3, 1], [1, 2, 0], seed=8)
    ring, x = backend.ring(case), case.rows(6)
    actual = backend.numpy(ring.log_prob(backend.array(x), engine=engine))
    assert_close(actual, oracle.log_prob(case, x), ring)


@pytest.mark.parametrize("engine", ["tree", "sweep"])
def test_rows_that_miss_what_is_large(backend, engine):
    """Each core is near 1 in one entry, which some rows never touch: products of theirs are 1e-200 and less."""
    rng = np.random.default_rng(0)
    for d, spread in ((12, 30), (16, 60), (24, 30), (40, 5), (40, 60)):
        cores = [10.0 ** -rng.uniform(0, spread, size=(2, 2, 2)) for _ in range(d)]
        for core in cores:
            core[0, 0, 0] = 1.0
        x = np.ones((5, d))
        x[1, ::2], x[2, : d // 2], x[3, rng.random(d) < 0.3], x[4, 0] = 0, 0, np.nan, 0
        ring = rd.TensorRing([backend.array(core) for core in cores], [rd.Categorical(2)] * d)
        actual, expected = (backend.numpy(ring.log_prob(backend.array(x), engine=e)) for e in (engine, "log"))
        np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.fixture(params=[1e-30, 1e4, 1e5, 1e30])
def unchecked(request, backend):
    """A ring in float32 whose cores' entries are of any size, and its twin of ordinary ones in float64."""
    rng = np.random.default_rng(0)
    cores = [rng.exponential(size=(2, 3, 3)) for _ in range(10)]
    large = [(core * request.param).astype(np.float32) for core in cores]
    variables = [rd.Categorical(2)] * 10
    ring = rd.TensorRing([backend.xp.asarray(core) for core in large], variables, validate=False)
    return ring, rd.TensorRing(cores, variables)


def test_cores_that_were_not_checked_do_not_overflow(unchecked, backend, engine):
    ring, twin = unchecked
    x = (np.arange(40).reshape(4, 10) % 3 == 0) * 1.0
    x[3, :5] = np.nan
    actual = ring.log_prob(backend.xp.asarray(x.astype(np.float32)), engine=engine)
    np.testing.assert_allclose(backend.numpy(actual), twin.log_prob(x), rtol=1e-4)
    drawn = backend.numpy(ring.sample(20_000, rng=0))
    np.testing.assert_allclose(drawn.mean(0), twin.mean(), atol=0.02)
    np.testing.assert_allclose(backend.numpy(ring.mean()), twin.mean(), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_gradients_of_cores_that_were_not_checked(engine, scale):
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(0)
    cores = [rng.exponential(size=(2, 3, 3)) for _ in range(10)]
    gradients = []
    for factor, dtype in ((scale, torch.float32), (1.0, torch.float64)):
        live = [torch.tensor(core * factor, dtype=dtype, requires_grad=True) for core in cores]
        ring = rd.TensorRing(live, [rd.Categorical(2)] * 10, validate=False)
        ring.log_prob(torch.zeros(3, 10, dtype=dtype), engine=engine).sum().backward()
        gradients.append(torch.stack([core.grad.double() * factor for core in live]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_cores_that_became_larger_since_they_were_checked():
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(0)
    cores = [torch.tensor(rng.exponential(size=(2, 3, 3)), dtype=torch.float32) for _ in range(10)]
    ring = rd.TensorRing(cores, [rd.Categorical(2)] * 10)
    x = torch.zeros(2, 10)
    before = ring.log_prob(x)
    for core in cores:
        core.mul_(1e30)
    torch.testing.assert_close(ring.log_prob(x), before)


@pytest.mark.parametrize("exponent", [80, 200, 250, -200])
def test_the_range_of_double_precision(exponent):
    torch, rng = pytest.importorskip("torch"), np.random.default_rng(0)
    cores = [torch.tensor(rng.exponential(size=(2, 3, 3))) for _ in range(10)]
    ring = rd.TensorRing([(core * 10.0**exponent).requires_grad_() for core in cores], [rd.Categorical(2)] * 10)
    twin, x = rd.TensorRing(cores, ring.variables), torch.zeros(2, 10).double()
    value = ring.log_prob(x)
    torch.testing.assert_close(value.detach(), twin.log_prob(x))
    value.sum().backward()
    assert all(core.grad.isfinite().all() for core in ring.cores)
    assert torch.equal(ring.sample(50, rng=0), twin.sample(50, rng=0))


def test_a_long_train_of_odd_scale(backend):
    """A state that goes through cores, and only then to their weights, must not meet the scale in between."""
    rng, scale = np.random.default_rng(0), 10.0**-25.7
    shapes = [(2, 1, 2), *[(2, 2, 2)] * 62, (2, 2, 1)]
    cores = [rng.uniform(0.5, 1.0, size=shape) for shape in shapes]
    for core in cores:
        core[1] *= 10.0**-2.35
    x = (rng.random((300, 64)) < 0.5) * 1.0
    ring = rd.TensorRing(
        [backend.xp.asarray((core * scale).astype(np.float32)) for core in cores], [rd.Categorical(2)] * 64
    )
    expected = rd.TensorRing(cores, ring.variables).log_prob(x, engine="log")
    actual = ring.log_prob(backend.xp.asarray(x.astype(np.float32)))
    np.testing.assert_allclose(backend.numpy(actual), expected, atol=2e-3)


# ------------------------------------------------------------------------------------- entries far from 1, rare paths


def rare_path(backend, dtype, eps, d):
    """Columns of which the first decides between one world and another that weighs eps^d before the last column."""
    first, middle, last = np.zeros((2, 1, 2)), np.zeros((2, 2, 2)), np.zeros((2, 2, 1))
    first[0, 0, 0], first[:, 0, 1] = 1, 0.5
    middle[0, 0, 0], middle[:, 1, 1] = 1, np.array([0.3, 0.7]) * eps
    last[:, 1, 0] = [0.3, 0.7]  # only the second world is possible in the end
    cores = [backend.array(core, dtype) for core in [first, *[middle] * d, last]]
    return rd.TensorRing(cores, [rd.Categorical(2)] * (d + 2))


@pytest.mark.parametrize(("dtype", "eps"), [("float32", 1e-4), ("float64", 1e-30)])
def test_tables_of_paths_out_of_range(numpy_backend, dtype, eps):
    """Given that the second world is certain, columns are independent."""
    ring, certain = (rare_path(numpy_backend, dtype, value, 10) for value in (eps, 1.0))
    table = ring.to_dense()
    expected = certain.condition({11: 0}).to_dense()  # the first world ends with the last column
    assert_close(table[..., 0] / table[..., 0].sum(), expected, dtype, rtol=1e-4)
    assert_close(ring.entropy()[0], certain.entropy()[0], dtype, rtol=1e-5)
    assert rd.compare.total_variation(ring, certain) < 1e-5


def test_inner_products_in_double_precision(numpy_backend):
    rare, certain = (rare_path(numpy_backend, "float32", value, 12) for value in (1e-2, 1.0))
    assert_close(rare.inner(rare), certain.inner(certain), "inner", rtol=1e-4)


@pytest.mark.parametrize(("dtype", "a", "b"), [("float32", 1e-20, 1e-30), ("float64", 1e-150, 1e-250)])
def test_components_that_only_their_own_evidence_can_reach(backend, dtype, a, b):
    """Their weights underflow before it counts."""
    first, second = np.array([1, a]).reshape(1, 1, 2), np.zeros((2, 2, 1))
    second[0, 0, 0], second[1, 1, 0] = 1, b
    ring = rd.TensorRing(
        [backend.array(core, dtype) for core in (first, second)], [rd.Categorical(1), rd.Categorical(2)]
    )
    posterior = backend.numpy(ring.component_posterior(1, backend.array([[0.0, 1.0]], dtype)))
    np.testing.assert_array_equal(posterior, [[0, 1]])


@pytest.mark.parametrize("rank", [1, 3, 40])
@pytest.mark.parametrize(("dtype", "entry"), [("float32", 3e38), ("float32", 1.4e-45), ("float64", 1.7e308)])
def test_samples_of_cores_at_the_ends_of_the_range(backend, dtype, entry, rank):
    cores = [backend.array(np.full((2, rank, rank), entry), dtype) for _ in range(3)]
    if backend.name == "jax" and entry < 1e-38:
        with pytest.raises(ValueError, match="column 0: the core is all subnormal, which the backend takes for zero"):
            rd.TensorRing(cores, [rd.Categorical(2)] * 3)
        return
    x = backend.numpy(rd.TensorRing(cores, [rd.Categorical(2)] * 3).sample(4000, rng=backend.rng(0)))
    assert abs(x.mean(axis=0) - 0.5).max() < 0.05, x.mean(axis=0)


def test_moments_and_marginals_of_cores_at_the_end_of_the_range(numpy_backend):
    roots = [np.random.default_rng(k).random((3, 3, 3)) for k in range(4)]
    large, ring = (rd.TensorRing([root * scale for root in roots], [rd.Categorical(3)] * 4) for scale in (1e308, 1))
    for query in (
        lambda r: r.covariance(),
        lambda r: r.mutual_information(),
        lambda r: r.marginal([0, 2]).to_dense(),
        lambda r: r.condition({1: 0}).to_dense(),
        lambda r: r.inner(r),
    ):
        assert_close(query(large), query(ring), "scaled", rtol=1e-9, atol=1e-14)
