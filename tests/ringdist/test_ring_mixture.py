"""Mixtures of rings: every query against the weighted sum of the rings' enumerated joint tables."""

import copy
import itertools
import pickle
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import Backend, assert_close
from tests.oracle import Case, make_case

pytestmark = pytest.mark.slow_on("jax")

KINDS, SHAPE = ["categorical"] * 4, [3, 2, 4, 2]
NAMES = ["label", "height", "count", "delay"]
FAMILIES = ["categorical", "gaussian", "poisson", "laplace"]


@dataclass(frozen=True, eq=False)
class Sum:
    """Rings as cases, and their weights: what enumeration says of a mixture."""

    cases: tuple[Case, ...]
    weights: np.ndarray
    cp: tuple[int, ...] = ()  # the members that are made of CP cores of the same values

    def __repr__(self) -> str:
        return f"Sum({self.cases}, {self.weights.tolist()})"

    @property
    def d(self) -> int:
        return self.cases[0].d

    @property
    def shares(self) -> np.ndarray:
        return self.weights / self.weights.sum()

    def rings(self, backend: Backend, dtype: str = "float64") -> list:
        rings = []
        for c, case in enumerate(self.cases):
            cores = [backend.array(core, dtype) for core in case.cores]
            if c in self.cp:
                cores = [as_cp(core, backend, dtype) for core in case.cores]
            rings.append(rd.TensorRing(cores, backend.variables(case, dtype), order=case.order))
        return rings

    def mixture(self, backend: Backend, dtype: str = "float64") -> rd.RingMixture:
        return rd.RingMixture(self.rings(backend, dtype), backend.array(self.weights, dtype))

    def joint(self, x: np.ndarray) -> np.ndarray:
        """w_c p_c(x), (n, K)."""
        masses = [oracle.mass(case, x) / case.joint.sum() for case in self.cases]
        return self.shares * np.stack(masses, axis=-1)

    def posterior(self, x: np.ndarray) -> np.ndarray:
        joint = self.joint(x)
        return joint / joint.sum(-1, keepdims=True)

    def average(self, x: np.ndarray, function) -> np.ndarray:
        """Σ_c p(c | x) function(case_c), which is NaN only where the ring has no mass."""
        weights = self.posterior(x)
        with np.errstate(invalid="ignore"):
            parts = [np.asarray(function(case)) for case in self.cases]
        total = np.zeros_like(parts[0])
        for c, part in enumerate(parts):
            weight = np.reshape(weights[:, c], (-1, *[1] * (part.ndim - 1)))
            total += np.where(weight > 0, weight * np.where(weight > 0, part, 0.0), 0.0)
        return total

    @property
    def table(self) -> np.ndarray:
        """The joint distribution of the components, which all members share."""
        return sum(w * case.joint / case.joint.sum() for w, case in zip(self.shares, self.cases, strict=True))

    def possible_rows(self, n: int, missing: float = 0.4) -> np.ndarray:
        rows = np.concatenate([case.possible_rows(n, missing) for case in self.cases])
        return rows[self.joint(rows).sum(-1) > 0]


def as_cp(core: np.ndarray, backend: Backend, dtype: str) -> rd.CPCore:
    """The dense core as a CP core with one hidden state for each of its entries."""
    n, left, right = core.shape
    index = np.array(list(itertools.product(range(n), range(left), range(right)))).T
    factors = np.eye(left)[:, index[1]], np.eye(n)[:, index[0]] * core.ravel(), np.eye(right)[index[2]]
    return rd.CPCore(*(backend.array(factor, dtype) for factor in factors))


def discrete(sparsity: float = 0.0, seed: int = 0) -> Sum:
    """A ring, a train and CP cores, in three orders."""
    cases = (
        make_case(KINDS, SHAPE, [2, 4, 3, 3], [1, 3, 0, 2], sparsity=sparsity, seed=seed),
        make_case(KINDS, SHAPE, [1, 2, 3, 2], [0, 1, 2, 3], sparsity=sparsity, seed=seed + 1),
        make_case(KINDS, SHAPE, [2, 2, 1, 3], [3, 0, 2, 1], sparsity=sparsity, seed=seed + 2),
    )
    return Sum(cases, np.array([0.5, 2.0, 1.0]), cp=(2,))


def mixed(seed: int = 0) -> Sum:
    """Members with other numbers of components in all columns but the categorical one."""
    cases = (
        make_case(FAMILIES, [3, 2, 4, 3], [3, 2, 4, 3], [2, 0, 3, 1], seed=seed, names=NAMES),
        make_case(FAMILIES, [3, 4, 2, 1], [1, 2, 2, 2], [3, 1, 0, 2], seed=seed + 1, names=NAMES),
    )
    return Sum(cases, np.array([0.7, 0.3]), cp=(1,))


def with_impossible_rows(seed: int = 0) -> Sum:
    """Members of which one knows the labels 0 and 1, the other 1 and 2; the third has no weight."""
    first, second, third = (
        make_case(KINDS, SHAPE, [2, 3, 2, 2], order, seed=seed + i)
        for i, order in enumerate(([0, 2, 1, 3], [3, 1, 0, 2], [0, 1, 2, 3]))
    )
    first.cores[0][2] = 0.0
    second.cores[0][0] = 0.0
    return Sum((first, second, third), np.array([0.4, 0.6, 0.0]))


SUMS = {
    "discrete": discrete(),
    "sparse": discrete(0.4, seed=10),
    "mixed": mixed(20),
    "impossible": with_impossible_rows(30),
}
TABLES = {name: SUMS[name] for name in ("discrete", "sparse", "impossible")}


@pytest.fixture(params=SUMS)
def case(request) -> Sum:
    return SUMS[request.param]


@pytest.fixture(params=TABLES)
def table(request) -> Sum:
    return TABLES[request.param]


# ---------------------------------------------------------------------------------------------------- densities


def test_log_prob_is_that_of_the_enumerated_sum(backend, case):
    mixture, x = case.mixture(backend), np.concatenate([c.rows(12) for c in case.cases])
    with np.errstate(divide="ignore"):
        expected = np.log(case.joint(x).sum(-1))
    actual = mixture.log_prob(backend.array(x))
    assert actual.dtype == backend.dtype()
    assert_close(backend.numpy(actual), expected, mixture)
    grid = mixture.log_prob(backend.array(x[:12].reshape(3, 4, 4)))
    assert_close(backend.numpy(grid), expected[:12].reshape(3, 4), mixture)


@pytest.mark.parametrize("engine", ["sweep", "tree", "log", "opt_einsum", "tensornetwork"])
def test_engines(numpy_backend, engine):
    case = SUMS["mixed"]
    x = case.possible_rows(6)
    actual = case.mixture(numpy_backend).log_prob(x, engine=engine)
    assert_close(actual, np.log(case.joint(x).sum(-1)), engine)


def test_a_density_sums_to_one(numpy_backend, table):
    mixture = table.mixture(numpy_backend)
    x = oracle.configurations(table.cases[0].shape)
    assert_close(np.exp(mixture.log_prob(x)).sum(), 1.0, mixture)
    assert_close(mixture.to_dense(), table.table, mixture)
    value, error = mixture.entropy()
    probabilities = table.table[table.table > 0]
    assert_close(value, -(probabilities * np.log(probabilities)).sum(), mixture)
    assert error == 0


def test_entropy_of_samples(numpy_backend):
    case = SUMS["mixed"]
    mixture = case.mixture(numpy_backend)
    value, error = mixture.entropy(4000, rng=0)
    other, other_error = mixture.entropy(4000, rng=1)
    assert 0 < error < 0.1
    assert abs(value - other) < 5 * np.hypot(error, other_error)
    with pytest.raises(ValueError, match="n >= 2"):
        mixture.entropy(1)


def test_no_rows(backend, case):
    mixture, none = case.mixture(backend), backend.array(np.zeros((0, 4)))
    assert mixture.log_prob(none).shape == (0,)
    assert mixture.ring_posterior(none).shape == (0, len(case.cases))
    assert mixture.mean(none).shape == (0, 4)
    assert mixture.cdf(0, none).shape == (0,)
    assert mixture.sample(0, rng=0).shape == (0, 4)
    assert mixture.sample_given(none, rng=0).shape == (0, 4)
    assert mixture.sample_given(none, 3, rng=0).shape == (3, 0, 4)


# --------------------------------------------------------------------------------------------------- posteriors


def test_ring_posterior(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(10)
    assert_close(backend.numpy(mixture.ring_posterior(backend.array(x))), case.posterior(x), mixture)
    nothing = backend.array(np.full(4, np.nan))
    assert_close(backend.numpy(mixture.ring_posterior(nothing)), case.shares, mixture)
    assert_close(backend.numpy(mixture.weights), case.shares, mixture)


def test_component_posterior_of_values(backend, case):
    """A categorical column has one posterior of its values, whichever ring they come from."""
    mixture, x = case.mixture(backend), case.possible_rows(10)
    expected = case.average(x, lambda c: oracle.posterior(c, 0, x))
    assert_close(backend.numpy(mixture.component_posterior(0, backend.array(x))), expected, mixture)


def test_component_posterior_of_components(backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), case.possible_rows(8)
    for k in (1, 2, 3):
        parts = [oracle.posterior(c, k, x) for c in case.cases]
        expected = np.concatenate([w[:, None] * p for w, p in zip(case.posterior(x).T, parts, strict=True)], axis=1)
        actual = backend.numpy(mixture.component_posterior(NAMES[k], backend.array(x)))
        assert_close(actual, expected, (mixture, k))


def test_means(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(10)
    expected = case.average(x, lambda c: oracle.mean(c, x))
    assert_close(backend.numpy(mixture.mean(backend.array(x))), expected, mixture)
    nothing = np.full((1, 4), np.nan)
    assert_close(backend.numpy(mixture.mean()), case.average(nothing, lambda c: oracle.mean(c, nothing))[0], mixture)


def test_cdf(backend, case):
    mixture = case.mixture(backend)
    for k in (0, 1, 3):
        x = case.possible_rows(8)
        x[:, k] = np.random.default_rng(k).integers(0, 2, len(x))
        rest = oracle.without(x, k)
        with np.errstate(invalid="ignore"):
            parts = [oracle.cdf(c, k, x) for c in case.cases]
        weights = case.posterior(rest).T
        expected = sum(np.where(w > 0, w * np.where(w > 0, p, 0), 0) for w, p in zip(weights, parts, strict=True))
        assert_close(backend.numpy(mixture.cdf(k, backend.array(x))), expected, (mixture, k))


def test_quantiles_of_categories(backend, table):
    mixture, x = table.mixture(backend), table.possible_rows(6)
    for k in range(4):
        weights = table.average(oracle.without(x, k), lambda c, k=k: oracle.posterior(c, k, oracle.without(x, k)))
        levels = np.cumsum(weights, axis=1)
        q = np.random.default_rng(k).uniform(0.01, 0.99, len(x))
        expected = (levels < q[:, None]).sum(1).astype(float)
        actual = backend.numpy(mixture.quantile(k, backend.array(q), backend.array(x)))
        assert_close(actual, expected, (mixture, k))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_quantile_inverts_the_cdf_between_those_of_the_rings(backend, k):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), case.possible_rows(5)[:6]
    for q in (0.01, 0.3, 0.5, 0.97):
        z = mixture.quantile(k, q, backend.array(x))
        each = np.stack([backend.numpy(ring.quantile(k, q, backend.array(x))) for ring in mixture.rings])
        values = backend.numpy(z)
        assert (values >= each.min(0)).all() and (values <= each.max(0)).all(), (values, each)
        here = np.array(x)
        here[:, k] = values
        assert (backend.numpy(mixture.cdf(k, backend.array(here))) >= q - 1e-12).all()
        here[:, k] = values - 1 if k == 2 else np.nextafter(values, -np.inf)
        before = backend.numpy(mixture.cdf(k, backend.array(here)))
        assert (before <= q + 1e-12).all(), (before, q)


def test_ends_of_quantiles(backend):
    case = SUMS["mixed"]
    mixture = case.mixture(backend)
    nothing = backend.array(np.full(4, np.nan))
    for k, ends in enumerate([(0.0, 2.0), (-np.inf, np.inf), (0.0, np.inf), (-np.inf, np.inf)]):
        found = backend.numpy(mixture.quantile(k, backend.array([0.0, 1.0]), nothing))
        assert_close(found, np.array(ends), (mixture, k))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_quantiles_at_every_scale(backend, dtype, scale):
    """The medians of two Gaussians of equal weight far apart and near each other, to neighbouring numbers."""
    one = [backend.array(np.ones((1, 1, 1)), dtype)]
    rings = [
        rd.TensorRing(one, [rd.GaussianMixture(backend.array([m * scale], dtype), backend.array([scale / 4], dtype))])
        for m in (1.0, 2.0)
    ]
    mixture = rd.RingMixture(rings, [1.0, 1.0])
    nothing = backend.array([np.nan], dtype)
    found = float(backend.numpy(mixture.quantile(0, 0.5, nothing)))
    assert abs(found / scale - 1.5) < (1e-5 if dtype == "float32" else 1e-13)


# ------------------------------------------------------------------------------------------------------ moments


def test_covariance(backend, case):
    mixture = case.mixture(backend)
    nothing = np.full((1, 4), np.nan)
    means = np.stack([oracle.mean(c, nothing)[0] for c in case.cases]) - case.shares @ np.stack(
        [oracle.mean(c, nothing)[0] for c in case.cases]
    )
    covariances = np.stack([oracle.covariance(c) for c in case.cases])
    expected = np.einsum("c,cij->ij", case.shares, covariances + means[:, :, None] * means[:, None, :])
    assert_close(backend.numpy(mixture.covariance()), expected, mixture)


def test_covariance_of_a_table(numpy_backend, table):
    """From the definition, without the law of total covariance."""
    x = oracle.configurations(table.cases[0].shape)
    expected = np.cov(x.T, aweights=table.table.ravel(), ddof=0)
    assert_close(table.mixture(numpy_backend).covariance(), expected, table)


def test_mutual_information_of_values(backend, table):
    mixture = table.mixture(backend)
    expected = oracle.mutual_information(SimpleNamespace(joint=table.table, d=4))
    assert_close(backend.numpy(mixture.mutual_information()), expected, mixture, atol=1e-9)


def test_mutual_information_of_components(numpy_backend):
    """Outside categorical columns a component belongs to its ring: the joint table has a block for each."""
    case = SUMS["mixed"]
    sizes = np.array([[3, *c.shape[1:]] for c in case.cases])
    joint = np.zeros((3, *sizes[:, 1:].sum(0)))
    start = np.zeros(4, dtype=int)
    for w, c in zip(case.shares, case.cases, strict=True):
        block = (slice(None), *(slice(a, a + n) for a, n in zip(start[1:], c.shape[1:], strict=True)))
        joint[block] += w * c.joint / c.joint.sum()
        start[1:] += c.shape[1:]
    expected = oracle.mutual_information(SimpleNamespace(joint=joint, d=4))
    assert_close(case.mixture(numpy_backend).mutual_information(), expected, case, atol=1e-9)


def test_mode_of_tables(backend, table):
    mixture, x = table.mixture(backend), table.possible_rows(5)
    completed = backend.numpy(mixture.mode(backend.array(x)))
    missing = np.isnan(x)
    assert (completed[~missing] == x[~missing]).all()
    cells = oracle.configurations(table.cases[0].shape)
    mass = table.joint(cells).sum(-1)
    fits = ((cells[None] == x[:, None]) | missing[:, None]).all(-1)
    assert_close(table.joint(completed).sum(-1), np.where(fits, mass, 0).max(1), mixture)


def test_mode_is_at_least_as_dense_as_those_of_the_rings(numpy_backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(4)
    found = mixture.log_prob(mixture.mode(x))
    for ring in mixture.rings:
        assert (found >= mixture.log_prob(ring.mode(x)) - 1e-12).all()
    assert mixture.mode().shape == (4,)


# ------------------------------------------------------------------------------------------------------ samples


def test_samples_have_all_the_enumerated_probabilities(backend, table):
    x = backend.numpy(table.mixture(backend).sample(20_000, rng=backend.rng(1)))
    assert oracle.chi_square(oracle.counts(x, table.cases[0].shape), table.table) > 1e-4, table


def test_samples_given_the_observed_entries(backend, table):
    """One row that all members explain, one that a single member explains, one that nothing is known of."""
    mixture = table.mixture(backend)
    x = np.array([[1, np.nan, np.nan, 0], [2, np.nan, 1, np.nan], [np.nan] * 4])
    x = x[table.joint(x).sum(-1) > 0]
    drawn = backend.numpy(mixture.sample_given(backend.array(x), 8000, rng=backend.rng(2)))
    assert drawn.shape == (8000, len(x), 4)
    for i, row in enumerate(x):
        seen = ~np.isnan(row)
        assert (drawn[:, i][:, seen] == row[seen]).all()
        cells = oracle.configurations(table.cases[0].shape)
        fits = (cells[:, seen] == row[seen]).all(1)
        probabilities = np.where(fits, table.joint(cells).sum(-1), 0).reshape(table.table.shape)
        assert oracle.chi_square(oracle.counts(drawn[:, i], table.cases[0].shape), probabilities) > 1e-4, (table, i)


def test_a_sample_of_many_rows(backend):
    """One draw for each row, in the place of the row."""
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend), np.tile(case.possible_rows(3), (5, 1)).reshape(5, -1, 4)
    drawn = backend.numpy(mixture.sample_given(backend.array(x), rng=backend.rng(3)))
    assert drawn.shape == x.shape
    assert not np.isnan(drawn).any()
    assert (drawn[~np.isnan(x)] == x[~np.isnan(x)]).all()
    assert np.isfinite(backend.numpy(mixture.log_prob(backend.array(drawn)))).all()


def test_moments_of_samples(numpy_backend):
    case = SUMS["mixed"]
    mixture = case.mixture(numpy_backend)
    x = mixture.sample(40_000, rng=4)
    errors = np.sqrt(np.diagonal(mixture.covariance()) / len(x))
    assert (np.abs(x.mean(0) - mixture.mean()) < 5 * errors).all()
    assert_close(np.cov(x.T), mixture.covariance(), mixture, rtol=0.1, atol=0.1)
    row = case.possible_rows(1)[:1]
    row[0] = [1.0, np.nan, np.nan, 0.5]
    given = mixture.sample_given(row, 40_000, rng=5)[:, 0]
    errors = given.std(0) / np.sqrt(len(given)) + 1e-12
    assert (np.abs(given.mean(0) - mixture.mean(row)[0]) < 5 * errors).all()


def test_seeds_and_generators(backend):
    mixture = SUMS["mixed"].mixture(backend)
    x = backend.array(SUMS["mixed"].possible_rows(4))
    for draw in (lambda rng: mixture.sample(7, rng=rng), lambda rng: mixture.sample_given(x, 3, rng=rng)):
        np.testing.assert_array_equal(backend.numpy(draw(3)), backend.numpy(draw(3)))
        assert (backend.numpy(draw(3)) != backend.numpy(draw(4))).any()
        rng = backend.rng(5)
        draw(rng)
    if backend.name == "jax":
        with pytest.raises(ValueError, match="rng"):
            mixture.sample(2)
    else:
        assert mixture.sample(2).shape == (2, 4)


# -------------------------------------------------------------------------------------------- other mixtures


def test_marginal(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(8)
    x[:, [0, 3]] = np.nan
    smaller = mixture.marginal([2, 1])
    assert smaller.num_variables == 2
    expected = np.log(case.joint(x).sum(-1))
    assert_close(backend.numpy(smaller.log_prob(backend.array(x[:, [1, 2]]))), expected, smaller, atol=1e-9)
    assert_close(backend.numpy(smaller.weights), case.shares, smaller)


def test_condition(backend, case):
    mixture = case.mixture(backend)
    for evidence in ({0: 1}, {0: 1, 3: 1.0}, {2: 0, 1: 1}):
        rest = [k for k in range(4) if k not in evidence]
        x = case.possible_rows(8)
        given = np.full((1, 4), np.nan)
        for k, value in evidence.items():
            x[:, k], given[:, k] = value, value
        conditional = mixture.condition(evidence)
        with np.errstate(divide="ignore"):
            expected = np.log(case.joint(x).sum(-1)) - np.log(case.joint(given).sum(-1))
        assert_close(backend.numpy(conditional.log_prob(backend.array(x[:, rest]))), expected, conditional, atol=1e-9)


def test_condition_leaves_out_rings_without_mass(backend):
    case = SUMS["impossible"]
    mixture = case.mixture(backend)
    assert [mixture.condition({0: v}).num_rings for v in range(3)] == [2, 3, 2]
    assert_close(backend.numpy(mixture.condition({0: 2}).weights), np.array([1.0, 0.0]), mixture)
    only = rd.RingMixture(mixture.rings[:2], backend.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="zero mass"):
        only.condition({0: 2})
    assert mixture.condition({}) is mixture


def test_permute(backend, case):
    mixture, x = case.mixture(backend), case.possible_rows(6)
    columns = [2, 0, 3, 1]
    actual = mixture.permute(columns).log_prob(backend.array(x[:, columns]))
    assert_close(backend.numpy(actual), np.log(case.joint(x).sum(-1)), mixture)


def test_dense_cores(numpy_backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(6)
    assert not mixture.rings[1].is_dense
    assert all(ring.is_dense for ring in mixture.dense().rings)
    assert_close(mixture.dense().log_prob(x), np.log(case.joint(x).sum(-1)), mixture)


def test_to_moves_a_mixture_between_backends(backend, dtype):
    case = SUMS["mixed"]
    mixture, x = case.mixture(backend, dtype), case.possible_rows(6)
    there = mixture.to(np, dtype="float64")
    assert there.weights.dtype == np.float64
    assert_close(there.log_prob(x), np.log(case.joint(x).sum(-1)), there, rtol=1e-4)
    back = there.condition({0: 1}).to(backend.xp, dtype="float32", device=backend.device)
    assert back.weights.dtype == backend.dtype("float32")
    assert_close(backend.numpy(back.weights), there.condition({0: 1}).weights, back, rtol=1e-5)


# ------------------------------------------------------------------------------------------- a single ring


def test_one_ring_answers_as_the_ring_does(backend):
    for name in ("mixed", "sparse"):
        case = SUMS[name].cases[0]
        ring = backend.ring(case)
        mixture = rd.RingMixture([ring], [3.0])
        x = backend.array(case.possible_rows(5))
        pairs = [
            (mixture.log_prob(x), ring.log_prob(x)),
            (mixture.mean(x), ring.mean(x)),
            (mixture.sample(9, rng=backend.rng(1)), ring.sample(9, rng=backend.rng(1))),
            (mixture.sample_given(x, 2, rng=backend.rng(1)), ring.sample_given(x, 2, rng=backend.rng(1))),
            (mixture.marginal([3, 1]).log_prob(x[:, 2:]), ring.marginal([3, 1]).log_prob(x[:, 2:])),
            (mixture.condition({0: 1}).log_prob(x[:, 1:]), ring.condition({0: 1}).log_prob(x[:, 1:])),
        ]
        for k in range(4):
            pairs.append((mixture.component_posterior(k, x), ring.component_posterior(k, x)))
            pairs.append((mixture.quantile(k, 0.3, x), ring.quantile(k, 0.3, x)))
        for actual, expected in pairs:
            np.testing.assert_array_equal(backend.numpy(actual), backend.numpy(expected))
        assert_close(backend.numpy(mixture.covariance()), backend.numpy(ring.covariance()), mixture)
        expected = backend.numpy(ring.mutual_information())
        assert_close(backend.numpy(mixture.mutual_information()), expected, mixture, atol=1e-10)
        mine, theirs = backend.numpy(mixture.mode(x)), backend.numpy(ring.mode(x))
        assert_close(oracle.mass(case, mine), oracle.mass(case, theirs), mixture)


def test_equal_rings_are_one_ring(backend, case):
    first = backend.ring(case.cases[0])
    mixture = rd.RingMixture([first] * 3, [0.2, 0.0, 1.1])
    x = backend.array(case.cases[0].possible_rows(8))
    assert_close(backend.numpy(mixture.log_prob(x)), backend.numpy(first.log_prob(x)), mixture)
    assert_close(backend.numpy(mixture.mean(x)), backend.numpy(first.mean(x)), mixture)
    assert_close(backend.numpy(mixture.covariance()), backend.numpy(first.covariance()), mixture)
    assert_close(backend.numpy(mixture.quantile(1, 0.4, x)), backend.numpy(first.quantile(1, 0.4, x)), mixture)


# ----------------------------------------------------------------------------------------- weights and zeros


def test_a_ring_without_weight_changes_nothing(backend, case):
    """Whatever it says, infinite moments included."""
    odd = make_case(
        [c.kind for c in case.cases[0].columns], case.cases[0].shape, [2] * 4, [3, 2, 1, 0], seed=99,
        names=[c.name for c in case.cases[0].columns],
    )  # fmt: skip
    more = Sum((*case.cases, odd), np.append(case.weights, 0.0), case.cp)
    mixture, larger, x = case.mixture(backend), more.mixture(backend), backend.array(case.possible_rows(6))
    for query in (
        lambda m: m.log_prob(x),
        lambda m: m.mean(x),
        lambda m: m.covariance(),
        lambda m: m.quantile(1, 0.3, x),
        lambda m: m.component_posterior(0, x),
        lambda m: m.condition({0: 1}).mean(),
    ):
        assert_close(backend.numpy(query(larger)), backend.numpy(query(mixture)), larger)
    assert (backend.numpy(larger.ring_posterior(x))[:, -1] == 0).all()


def test_rows_that_no_ring_explains(backend):
    case = SUMS["impossible"]
    mixture = rd.RingMixture(case.rings(backend)[:2], [1.0, 0.0])
    x = backend.array([[1.0, np.nan, 1.0, 0.0], [2.0, np.nan, 1.0, 0.0]])
    assert backend.numpy(mixture.log_prob(x))[1] == -np.inf
    for query in (
        mixture.ring_posterior,
        mixture.mean,
        mixture.mode,
        lambda x: mixture.component_posterior(1, x),
        lambda x: mixture.quantile(1, 0.5, x),
        lambda x: mixture.sample_given(x, rng=0),
    ):
        with pytest.raises(ValueError, match="zero mass in row 1"):
            query(x)
    with pytest.raises(ValueError, match="zero mass"):
        mixture.condition({0: 2, 3: 0})


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e300])
def test_weights_of_any_scale(numpy_backend, scale):
    case = SUMS["discrete"]
    mixture = rd.RingMixture(case.rings(numpy_backend), (case.weights * scale).tolist())
    assert_close(mixture.weights, case.shares, mixture)
    x = case.possible_rows(5)
    assert_close(mixture.log_prob(x), np.log(case.joint(x).sum(-1)), mixture)


def test_weights_of_float32_rings(backend):
    case = SUMS["discrete"]
    rings = case.rings(backend, "float32")
    for weights in (case.weights.tolist(), backend.array(case.weights), backend.array([1, 4, 2], "int64")):
        mixture = rd.RingMixture(rings, weights)
        assert mixture.weights.dtype == backend.dtype("float32")
        assert abs(backend.numpy(mixture.weights).sum() - 1) < 1e-6
    assert mixture.log_prob(backend.array([[0, 0, 0, 0]], "float32")).dtype == backend.dtype("float32")


def far_apart(backend: Backend, d: int, dtype: str) -> rd.RingMixture:
    """Two members that differ by 0.1 nats in each of d columns, and by 3 in a column between."""
    size = 0.5 * np.exp([0.0, -0.1])
    rings = []
    for order, weights in ((range(d), [size[0], 1 - size[0]]), (range(d - 1, -1, -1), [size[1], 1 - size[1]])):
        cores = [backend.array(np.reshape(weights, (2, 1, 1)), dtype)] * d
        rings.append(rd.TensorRing(cores, [rd.Categorical(2)] * d, order=list(order)))
    return rd.RingMixture(rings, [0.5, 0.5])


def test_thousands_of_columns(backend, dtype):
    """Densities far below the range of the dtype, and a posterior of which one part is e^-300."""
    d = 3000
    mixture = far_apart(backend, d, dtype)
    x = np.zeros((2, d))
    x[1, : d // 2] = 1
    tables = np.log([[0.5, 0.5], [0.5 * np.exp(-0.1), 1 - 0.5 * np.exp(-0.1)]])
    logs = np.stack([(tables[:, 1] * row.sum() + tables[:, 0] * (d - row.sum())) for row in x])
    rtol = 1e-5 if dtype == "float32" else 1e-10
    expected = np.logaddexp(logs[:, 0], logs[:, 1]) - np.log(2)
    assert_close(backend.numpy(mixture.log_prob(backend.array(x, dtype))), expected, mixture, rtol=rtol)
    posterior = backend.numpy(mixture.ring_posterior(backend.array(x, dtype)))
    assert_close(posterior[0], np.array([1.0, 0.0]), mixture, rtol=rtol, atol=1e-30)
    expected = 1 / (1 + np.exp(logs[1, 1] - logs[1, 0]))
    assert_close(posterior[1, 0], expected, mixture, rtol=2e-3 if dtype == "float32" else 1e-6)


def test_evidence_that_takes_a_ring_out_of_range_and_back(backend, dtype):
    """The weight of a ring may underflow after some evidence and be 1 after more: nothing of it is lost."""
    d = 400
    likely, unlikely = np.array([0.9, 0.1]), np.array([0.001, 0.999])
    rings = [
        rd.TensorRing([backend.array(np.reshape(w, (2, 1, 1)), dtype)] * d, [rd.Categorical(2)] * d)
        for w in (likely, unlikely)
    ]
    mixture = rd.RingMixture(rings, [0.5, 0.5])
    after = mixture.condition(dict.fromkeys(range(150), 0))
    assert backend.numpy(after.weights)[1] == 0 or dtype == "float64"
    later = after.condition(dict.fromkeys(range(249), 1))
    expected = 150 * np.log(likely[0] / unlikely[0]) + 249 * np.log(likely[1] / unlikely[1])
    actual = backend.numpy(later.weights).astype(float)
    assert_close(actual[0], 1 / (1 + np.exp(-expected)), later, rtol=1e-3)
    x = np.full((1, d), np.nan)
    x[0, :150], x[0, 150:399] = 0, 1
    assert_close(backend.numpy(mixture.ring_posterior(backend.array(x, dtype)))[0], actual, mixture, rtol=1e-3)


# --------------------------------------------------------------------------------------------------- gradients


def gradient_of(backend: Backend, case: Sum, x: np.ndarray, weights: np.ndarray):
    """The gradients of Σ log p for the weights and for the first core of every ring."""
    cores = [np.asarray(c.cores[0]) for c in case.cases]

    def total(weights, cores):
        rings = []
        for c, core in zip(case.cases, cores, strict=True):
            others = [backend.array(a) for a in c.cores[1:]]
            rings.append(rd.TensorRing([core, *others], backend.variables(c), order=c.order, copy=False))
        return rd.RingMixture(rings, weights).log_prob(backend.array(x)).sum()

    if backend.name == "jax":
        import jax

        grads = jax.grad(total, argnums=(0, 1))(backend.array(weights), [backend.array(c) for c in cores])
        return np.asarray(grads[0]), [np.asarray(g) for g in grads[1]]
    leaves = backend.array(weights).requires_grad_(), [backend.array(c).requires_grad_() for c in cores]
    total(*leaves).backward()
    return backend.numpy(leaves[0].grad), [backend.numpy(leaf.grad) for leaf in leaves[1]]


@pytest.mark.parametrize("weights", [[0.5, 2.0, 1.0], [0.5, 0.0, 1.0]], ids=["positive", "one zero"])
def test_gradients(backend, weights):
    """Those of the enumerated sum, for weights also where one is 0: the gradient of leaving 0."""
    if backend.name == "numpy":
        pytest.skip("NumPy has no gradients")
    case, x, weights = SUMS["discrete"], SUMS["discrete"].possible_rows(4), np.array(weights)
    by_weight, by_core = gradient_of(backend, case, x, weights)

    def total(w, cores):
        masses = []
        for c, core in zip(case.cases, cores, strict=True):
            changed = Case((core, *c.cores[1:]), c.columns, c.order)
            masses.append(oracle.mass(changed, x) / changed.joint.sum())
        return np.log(w @ np.array(masses) / w.sum()).sum()

    cores, step = [np.array(c.cores[0]) for c in case.cases], 1e-6
    for c in range(3):
        up, here = weights.copy(), weights.copy()
        up[c] += step
        here[c] -= step if weights[c] else 0.0
        expected = (total(up, cores) - total(here, cores)) / (up[c] - here[c])
        np.testing.assert_allclose(by_weight[c], expected, rtol=1e-4, atol=1e-5)
        bumped = [np.array(a) for a in cores]
        bumped[c][0, 0, 0] += step
        expected = (total(weights, bumped) - total(weights, cores)) / step
        np.testing.assert_allclose(by_core[c][0, 0, 0], expected, rtol=1e-3, atol=1e-5)


def test_live_weights_are_followed():
    """A mixture over a parameter: each query uses its values, and each backward pass a new graph."""
    torch = pytest.importorskip("torch")
    rings = [rd.TensorRing([torch.tensor([[[a]], [[1 - a]]])], [rd.Categorical(2)]) for a in (0.25, 0.75)]
    weights = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    mixture, x = rd.RingMixture(rings, weights), torch.tensor([[0.0]])
    for _ in range(2):
        mixture.log_prob(x).sum().backward()
    with torch.no_grad():
        weights[1] = 0.0
    assert abs(mixture.log_prob(x).exp().item() - 0.25) < 1e-6
    fixed = mixture.detach()
    assert not fixed.weights.requires_grad and fixed.detach() is fixed
    assert mixture.weights.requires_grad


def test_gradients_of_posteriors_and_means(backend):
    """Finite also for rows that one member does not explain."""
    if backend.name != "torch":
        pytest.skip("one backend with gradients is enough: there is one implementation")
    case = SUMS["impossible"]
    cores = [[backend.array(a).requires_grad_() for a in c.cores] for c in case.cases]
    rings = [rd.TensorRing(a, backend.variables(c), order=c.order) for a, c in zip(cores, case.cases, strict=True)]
    weights = backend.array([0.4, 0.6, 0.0]).requires_grad_()
    mixture = rd.RingMixture(rings, weights)
    x = backend.array([[2.0, np.nan, 1.0, np.nan], [0.0, 1.0, np.nan, np.nan], [np.nan] * 4])
    total = mixture.mean(x).sum() + mixture.ring_posterior(x)[:, 0].sum() + mixture.covariance().sum()
    total = total + mixture.condition({0: 2}).mean().sum() + mixture.log_prob(x).sum()
    total.backward()
    for leaf in (weights, *itertools.chain(*cores)):
        assert leaf.grad is not None and bool(leaf.grad.isfinite().all())


# ------------------------------------------------------------------------------------------------ transformations


@pytest.mark.slow
def test_jit_and_trees():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    jax.config.update("jax_enable_x64", True)
    from tests.backends import load_backend

    backend = load_backend("jax")
    case = SUMS["impossible"]
    mixture, x = case.mixture(backend), case.possible_rows(4)
    expected = np.log(case.joint(x).sum(-1))
    assert_close(np.asarray(jax.jit(lambda m, x: m.log_prob(x))(mixture, jnp.asarray(x))), expected, mixture)
    leaves, structure = jax.tree_util.tree_flatten(mixture)
    again = jax.tree_util.tree_unflatten(structure, leaves)
    assert repr(again) == repr(mixture)
    posterior = jax.jit(lambda m, x: m.ring_posterior(x))(mixture, jnp.asarray(x))
    assert_close(np.asarray(posterior), case.posterior(x), mixture)
    conditional = jax.jit(lambda m, x: m.condition({0: 2.0}).log_prob(x))
    given = np.concatenate([np.full((len(x), 1), 2.0), x[:, 1:]], axis=1)
    evidence = np.array([[2.0, np.nan, np.nan, np.nan]])
    with np.errstate(divide="ignore"):
        expected = np.log(case.joint(given).sum(-1)) - np.log(case.joint(evidence).sum(-1))
    assert_close(np.asarray(conditional(mixture, jnp.asarray(x[:, 1:]))), expected, mixture, atol=1e-9)
    drawn = jax.jit(lambda m, key: m.sample(6, rng=key))(mixture, jax.random.key(1))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(mixture.sample(6, rng=jax.random.key(1))))
    gradient = jax.grad(lambda m: m.log_prob(jnp.asarray(x)).sum())(mixture)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree_util.tree_leaves(gradient))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_torch_compile():
    torch = pytest.importorskip("torch")
    from tests.backends import load_backend

    case, backend = SUMS["discrete"], load_backend("torch")
    mixture, x = case.mixture(backend), backend.array(case.possible_rows(4))
    compiled = torch.compile(lambda x: mixture.log_prob(x), backend="eager", fullgraph=True)
    assert_close(backend.numpy(compiled(x)), backend.numpy(mixture.log_prob(x)), mixture)


# -------------------------------------------------------------------------------------------------- as an object


@pytest.mark.fast_on("jax")
def test_attributes(backend, case):
    mixture = case.mixture(backend)
    assert mixture.num_rings == len(mixture.rings) == len(case.cases)
    assert mixture.num_variables == 4
    assert [v.name for v in mixture.variables] == [c.name for c in case.cases[0].columns]
    assert mixture.num_parameters == sum(ring.num_parameters for ring in mixture.rings) + len(case.cases)
    text = repr(mixture)
    for part in ("RingMixture", f"{len(case.cases)} rings", "4 variables", "float64", f"{case.shares[0]:.3g}"):
        assert part in text, text


def test_mixtures_pickle_and_copy(backend, case):
    mixture, x = case.mixture(backend).condition({3: 0}), backend.array(case.possible_rows(4)[:, :3])
    for again in (pickle.loads(pickle.dumps(mixture)), copy.deepcopy(mixture), copy.copy(mixture)):
        assert repr(again) == repr(mixture)
        np.testing.assert_array_equal(backend.numpy(again.log_prob(x)), backend.numpy(mixture.log_prob(x)))


def test_mixtures_are_immutable(numpy_backend):
    mixture = SUMS["discrete"].mixture(numpy_backend)
    for name in ("rings", "weights", "linear", "new"):
        with pytest.raises(AttributeError):
            setattr(mixture, name, ())
    with pytest.raises(AttributeError):
        del mixture.rings


def test_writing_to_the_callers_weights_leaves_the_mixture_as_it_is(backend):
    if backend.name == "jax":
        pytest.skip("JAX's arrays are not written to")
    weights = backend.array([1.0, 2.0, 1.0])
    mixture = rd.RingMixture(SUMS["discrete"].rings(backend), weights)
    weights[0] = 100.0
    assert_close(backend.numpy(mixture.weights), np.array([0.25, 0.5, 0.25]), mixture)
    if backend.name == "numpy":
        with pytest.raises(ValueError, match="read-only"):
            mixture.linear[0] = 3.0


def test_masked_entries_are_missing(numpy_backend):
    case = SUMS["discrete"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(4)
    masked = np.ma.masked_invalid(x)
    assert_close(mixture.log_prob(masked), mixture.log_prob(x), mixture)
    assert_close(mixture.quantile(0, 0.5, masked), mixture.quantile(0, 0.5, x), mixture)
    np.testing.assert_array_equal(np.ma.getmaskarray(masked), np.isnan(x))


# -------------------------------------------------------------------------------------------------------- errors


def one(variable, dtype=np.float64) -> rd.TensorRing:
    return rd.TensorRing([np.ones((variable.num_components, 1, 1), dtype=dtype)], [variable])


AGE = rd.Categorical(3, name="age")
TWO = [one(AGE), one(AGE)]


@pytest.mark.parametrize(
    ("rings", "weights", "kind", "finding"),
    [
        ([], [], ValueError, "at least one ring"),
        ([AGE], [1.0], TypeError, "of rings, found Categorical"),
        (TWO, [1.0], ValueError, r"one weight per ring.*\(1,\) for 2 rings"),
        (TWO, [[0.5, 0.5]], ValueError, "one weight per ring"),
        (TWO, 1.0, ValueError, "one weight per ring"),
        (TWO, [0.5, -0.1], ValueError, "not negative, found -0.1 for ring 1"),
        (TWO, [np.nan, 1.0], ValueError, "finite.*nan for ring 0"),
        (TWO, [1.0, np.inf], ValueError, "finite.*inf for ring 1"),
        (TWO, [0.0, 0.0], ValueError, "only zeros"),
        (TWO, np.array([1j, 1.0]), TypeError, "real numbers"),
        ([one(AGE), one(rd.Categorical(3))], [1, 1], ValueError, r"column 0 \('age'\) and column 0 \(ring 1\)"),
        ([one(AGE), one(rd.Categorical(3, name="b"))], [1, 1], ValueError, r"'age'.*'b'.*ring 1"),
        ([one(AGE), one(rd.Categorical(4, name="age"))], [1, 1], ValueError, r"column 0 \('age'\).*one space"),
        (
            [one(rd.PoissonMixture([1.0])), one(rd.GaussianMixture([1.0], [1.0]))],
            [1, 1],
            ValueError,
            "column 0: rings must have values in one space",
        ),
        ([one(AGE), one(AGE, np.float32)], [1, 1], TypeError, "one dtype.*float64 and float32"),
        (
            [one(AGE), rd.TensorRing.random([AGE, rd.Categorical(2)], 2, rng=0)],
            [1, 1],
            ValueError,
            "1 columns and 2",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mixtures_that_are_refused(rings, weights, kind, finding):
    with pytest.raises(kind, match=finding):
        rd.RingMixture(rings, weights)


def test_backends_do_not_mix():
    torch = pytest.importorskip("torch")
    other = rd.TensorRing([torch.ones((3, 1, 1), dtype=torch.float64)], [AGE])
    with pytest.raises(TypeError, match="one backend"):
        rd.RingMixture([one(AGE), other], [1.0, 1.0])
    with pytest.raises(TypeError, match="one backend"):
        rd.RingMixture(TWO, torch.tensor([1.0, 1.0]))
    with pytest.raises(TypeError, match="one backend"):
        rd.RingMixture(TWO, [1.0, 1.0]).log_prob(torch.zeros((2, 1)))


def test_unchecked_weights():
    assert np.isnan(rd.RingMixture(TWO, [1.0, np.nan], validate=False).weights).all()


def test_questions_that_are_refused(numpy_backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(2)
    with pytest.raises(ValueError, match=r"shape \(..., 4\)"):
        mixture.log_prob(x[:, :3])
    with pytest.raises(ValueError, match=r"column 0 \('label'\)"):
        mixture.log_prob([[7, 0, 0, 0]])
    with pytest.raises(ValueError, match="no column 'age'"):
        mixture.component_posterior("age", x)
    with pytest.raises(ValueError, match=r"column 1 \('height'\): q must lie"):
        mixture.quantile(1, 1.5, x)
    with pytest.raises(ValueError, match="point of a cdf"):
        mixture.cdf(1, np.full((1, 4), np.nan))
    with pytest.raises(TypeError, match="mapping"):
        mixture.condition([0])
    with pytest.raises(ValueError, match="evidence must be a number, found NaN"):
        mixture.condition({0: np.nan})
    with pytest.raises(ValueError, match="must leave at least one column"):
        mixture.condition(dict.fromkeys(range(4), 0))
    with pytest.raises(ValueError, match="at least one column"):
        mixture.marginal([])
    for n in (-1, True, 1.5):
        with pytest.raises((ValueError, TypeError), match="n must be"):
            mixture.sample(n)
        with pytest.raises((ValueError, TypeError), match="n must be"):
            mixture.sample_given(x, n)
    with pytest.raises(ValueError, match="dense table needs categorical columns"):
        mixture.to_dense()
