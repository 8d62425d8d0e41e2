"""Rings with variables of several columns, beside the enumeration of all their components."""

import copy
import functools
import itertools
import pickle

import numpy as np
import pytest
from scipy import integrate, stats

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.families import LaplaceMixture
from tests.ringdist.variables.test_multivariate_gaussian import covariances, given

pytestmark = pytest.mark.slow_on("jax")

D = 7
COLUMNS = ((0,), (1, 2, 3), (4,), (5, 6))
GAUSSIAN = [1, 2, 3, 4, 5, 6]
ORDER, RANKS = [2, 0, 3, 1], [2, 3, 2, 4]


def numbers(seed=0):
    """Parameters of a category, three columns with a covariance, one alone and two with a covariance."""
    rng = np.random.default_rng(seed)
    return {
        "abc": (rng.normal(size=(4, 3)), covariances(rng, 4, 3)),
        "e": (rng.normal(size=2), rng.uniform(0.5, 2.0, size=2)),
        "fg": (rng.normal(size=(2, 2)), covariances(rng, 2, 2)),
    }


def variables(backend, seed=0):
    made = {key: tuple(map(backend.array, values)) for key, values in numbers(seed).items()}
    return [
        rd.Categorical(3, name="kind"),
        rd.MultivariateGaussianMixture(*made["abc"], names=["a", "b", "c"]),
        rd.GaussianMixture(*made["e"], name="e"),
        rd.MultivariateGaussianMixture(*made["fg"]),
    ]


def wide_ring(backend, seed=0, ranks=RANKS, order=ORDER):
    numpy = load_backend("numpy")
    ring = rd.TensorRing.random(variables(numpy, seed), rank=ranks, order=order, rng=seed)
    return ring if backend.name == "numpy" else ring.to(backend.xp, device=backend.device)


class Enumerated:
    """The mixture over all configurations of components, each with one Gaussian over the six columns."""

    def __init__(self, seed=0, ranks=RANKS, order=ORDER):
        ring, values = wide_ring(load_backend("numpy"), seed, ranks, order), numbers(seed)
        self.configurations = list(itertools.product(*map(range, ring.shape)))
        masses = [
            np.trace(functools.reduce(np.matmul, [ring.cores[i][s[i]] for i in ring.order]))
            for s in self.configurations
        ]
        self.weights = np.array(masses) / np.sum(masses)
        self.gaussians = []
        for s in self.configurations:
            mean = np.concatenate([values["abc"][0][s[1]], values["e"][0][s[2], None], values["fg"][0][s[3]]])
            matrix = np.zeros((6, 6))
            matrix[:3, :3], matrix[3, 3] = values["abc"][1][s[1]], values["e"][1][s[2]] ** 2
            matrix[4:, 4:] = values["fg"][1][s[3]]
            self.gaussians.append((mean, matrix))

    def joint(self, row):
        """w_s p(observed | s) of every configuration."""
        o = ~np.isnan(row[GAUSSIAN])
        found = self.weights.copy()
        for c, (s, (mean, matrix)) in enumerate(zip(self.configurations, self.gaussians, strict=True)):
            if not np.isnan(row[0]):
                found[c] *= s[0] == row[0]
            if o.any():
                found[c] *= stats.multivariate_normal(mean[o], matrix[np.ix_(o, o)]).pdf(row[GAUSSIAN][o])
        return found

    def posterior(self, row):
        joint = self.joint(row)
        return joint / joint.sum()

    def log_prob(self, rows):
        return np.log([self.joint(row).sum() for row in rows])

    def moments(self, row):
        """Posterior, and per configuration mean and covariance of all columns given the row."""
        means, spreads = [], []
        for s, (mean, matrix) in zip(self.configurations, self.gaussians, strict=True):
            expected, spread = given(mean, matrix, row[GAUSSIAN])
            means.append(np.append(s[0] if np.isnan(row[0]) else row[0], expected))
            spreads.append(np.pad(spread, (1, 0)))
        return self.posterior(row), np.array(means), np.array(spreads)

    def mean(self, row):
        weights, means, _ = self.moments(row)
        return weights @ means

    def covariance(self):
        weights, means, spreads = self.moments(np.full(D, np.nan))
        centred = means - weights @ means
        return (weights[:, None] * centred).T @ centred + np.tensordot(weights, spreads, 1)

    def cdf(self, k, point, row):
        row = np.where(np.arange(D) == k, np.nan, row)
        weights, means, spreads = self.moments(row)
        return weights @ stats.norm(means[:, k], np.sqrt(spreads[:, k, k])).cdf(point)


ORACLE = Enumerated()


def partial_rows(n=12, seed=1):
    x = np.array(wide_ring(load_backend("numpy")).sample(n, rng=seed))
    x[np.random.default_rng(seed).random(x.shape) < 0.4] = np.nan
    x[0] = np.nan
    return x


ROWS = partial_rows()


# ------------------------------------------------------------------------------------------------- columns


def test_columns_of_variables():
    ring = wide_ring(load_backend("numpy"))
    assert (ring.num_variables, ring.num_columns) == (4, D)
    assert ring.columns == COLUMNS and ring.order == tuple(ORDER) and ring.ranks == tuple(RANKS)
    assert [ring.column(name) for name in ("kind", "a", "b", "c", "e")] == [0, 1, 2, 3, 4]
    assert [ring.place(k) for k in (0, "b", 6)] == [(0, 0), (1, 1), (3, 1)]
    assert ring.describe(2) == "column 2 ('b')" and ring.describe(6) == "column 6"
    assert ring.describe_site(1) == "columns 1, 2, 3 ('a', 'b', 'c')" and ring.describe_site(3) == "columns 5, 6"


def test_an_order_names_variables_by_a_column():
    backend = load_backend("numpy")
    by_index = rd.TensorRing.random(variables(backend), 2, order=[1, 2, 0, 3], rng=0)
    cores = [np.array(core) for core in by_index.cores]
    named = variables(backend)[:3]
    ring = rd.TensorRing(cores[:3], named, order=["c", "e", "kind"])
    assert ring.order == (1, 2, 0)


def test_names_that_repeat():
    with pytest.raises(ValueError, match="names must differ, found \\['a', 'a', 'b'\\]"):
        rd.TensorRing.random(
            [rd.Categorical(2, name="a"), rd.MultivariateGaussianMixture(*pair(), names=["a", "b"])], 1
        )


def pair(size=2, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 2)), covariances(rng, size, 2)


def test_families_of_users_have_one_column():
    class Pair(LaplaceMixture):
        width = 2

    with pytest.raises(ValueError, match=r"variable 1: several columns are those of .*, found Pair of width 2"):
        rd.TensorRing.random([rd.Categorical(2), Pair(np.zeros(2), np.ones(2))], 1)


# ------------------------------------------------------------------------------------------------- queries


def test_log_prob(backend, engine):
    ring = wide_ring(backend)
    assert_close(backend.numpy(ring.log_prob(backend.array(ROWS), engine=engine)), ORACLE.log_prob(ROWS), ring)


@pytest.mark.parametrize(
    ("ranks", "order"), [([1, 3, 2, 2], [1, 3, 0, 2]), ([4, 3, 2, 1], [0, 1, 2, 3]), ([1] * 4, [3, 2, 1, 0])]
)
def test_wherever_the_ring_is_cut(ranks, order):
    oracle, ring = Enumerated(5, ranks, order), wide_ring(load_backend("numpy"), 5, ranks, order)
    assert_close(ring.log_prob(ROWS), oracle.log_prob(ROWS), ring)
    assert_close(ring.mean(ROWS), np.array([oracle.mean(row) for row in ROWS]), ring)
    assert_close(ring.to_train().log_prob(ROWS), oracle.log_prob(ROWS), ring)


def test_one_row_and_other_shapes(backend):
    ring = wide_ring(backend)
    expected = ORACLE.log_prob(ROWS)
    assert_close(backend.numpy(ring.log_prob(backend.array(ROWS[3]))), expected[3], ring)
    assert_close(backend.numpy(ring.log_prob(backend.array(ROWS.reshape(3, 4, D)))), expected.reshape(3, 4), ring)
    assert tuple(ring.log_prob(backend.array(np.zeros((0, D)))).shape) == (0,)


def test_tracing():
    jax = pytest.importorskip("jax")
    backend = load_backend("jax")
    ring = wide_ring(backend)
    found = jax.jit(lambda ring, x: ring.log_prob(x))(ring, backend.array(ROWS))
    assert_close(np.asarray(found), ORACLE.log_prob(ROWS), ring)
    found = jax.jit(lambda ring, x: ring.mean(x))(ring, backend.array(ROWS))
    assert_close(np.asarray(found), np.array([ORACLE.mean(row) for row in ROWS]), ring)
    found = jax.jit(lambda ring, a: ring.condition({"a": a, 6: 0.2}))(ring, 0.3)
    expected = wide_ring(load_backend("numpy")).condition({"a": 0.3, 6: 0.2})
    rest = ROWS[:, [0, 2, 3, 4, 5]]
    assert_close(np.asarray(found.log_prob(backend.array(rest))), expected.log_prob(rest), ring)
    again = jax.tree.map(lambda leaf: leaf, ring)
    assert again.columns == COLUMNS and again.layout.names == ring.layout.names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_torch_compile():
    torch = pytest.importorskip("torch")
    ring, x = wide_ring(load_backend("torch")), torch.tensor(ROWS)
    compiled = torch.compile(lambda x: ring.log_prob(x), fullgraph=True)
    assert_close(compiled(x).numpy(), ORACLE.log_prob(ROWS), ring)


def test_posterior_of_components(backend):
    ring = wide_ring(backend)
    for k, site in ((0, 0), ("a", 1), (3, 1), (6, 3)):
        found = backend.numpy(ring.component_posterior(k, backend.array(ROWS)))
        expected = np.zeros_like(found)
        for b, row in enumerate(ROWS):
            for s, weight in zip(ORACLE.configurations, ORACLE.posterior(row), strict=True):
                expected[b, s[site]] += weight
        assert_close(found, expected, (k, ring))


def test_moments(backend):
    ring = wide_ring(backend)
    assert_close(backend.numpy(ring.mean()), ORACLE.mean(np.full(D, np.nan)), ring)
    assert_close(backend.numpy(ring.covariance()), ORACLE.covariance(), ring)
    found = ring.mean(backend.array(ROWS))
    assert_close(backend.numpy(found), np.array([ORACLE.mean(row) for row in ROWS]), ring)


def test_cdf_and_quantile(backend):
    ring = wide_ring(backend)
    for k in (2, 4, 5):
        points = np.where(np.arange(D) == k, 0.3, ROWS)
        found = backend.numpy(ring.cdf(k, backend.array(points)))
        expected = np.array([ORACLE.cdf(k, 0.3, row) for row in ROWS])
        assert_close(found, expected, (k, ring))
        levels = np.array([[0.2], [0.9]])
        values = backend.numpy(ring.quantile(k, backend.array(levels), backend.array(ROWS)))
        assert values.shape == (2, len(ROWS))
        for level, own in zip((0.2, 0.9), values, strict=True):
            again = [ORACLE.cdf(k, value, row) for value, row in zip(own, ROWS, strict=True)]
            np.testing.assert_allclose(again, level, atol=1e-9)


def test_quantiles_of_rows_by_levels():
    ring = wide_ring(load_backend("numpy"))
    x = ROWS.reshape(3, 4, D)
    found = ring.quantile("b", np.array([[0.1], [0.5], [0.9]]), x)
    for i, level in enumerate((0.1, 0.5, 0.9)):
        assert_close(found[i], ring.quantile("b", level, x[i]), level)


@pytest.mark.parametrize("keep", [[0, 2, 4], ["a", "c"], ["b"], [6, 1, 3, 5], [5], list(range(D))])
def test_marginal(backend, keep):
    ring = wide_ring(backend)
    marginal = ring.marginal(keep)
    columns = sorted(ring.column(k) for k in keep)
    rows = np.full((6, D), np.nan)
    rows[:, columns] = wide_ring(load_backend("numpy")).sample(6, rng=4)[:, columns]
    assert marginal.layout.names == tuple(ring.layout.names[k] for k in columns)
    assert_close(backend.numpy(marginal.log_prob(backend.array(rows[:, columns]))), ORACLE.log_prob(rows), marginal)


@pytest.mark.parametrize(
    "evidence",
    [
        {"a": 0.3},
        {"a": 0.3, "c": 1.0},
        {0: 1, "b": -1.0, 6: 0.2},
        {"a": 0.3, "b": 1.0, "c": 0.0},
        {5: 0.1, 6: 0.2, "e": 0},
    ],
    ids=str,
)
def test_condition(backend, evidence):
    ring = wide_ring(backend)
    conditional = ring.condition(evidence)
    values = {ring.column(k): value for k, value in evidence.items()}
    rest = [k for k in range(D) if k not in values]
    rows, alone = np.array(wide_ring(load_backend("numpy")).sample(6, rng=4)), np.full((1, D), np.nan)
    for k, value in values.items():
        rows[:, k] = alone[:, k] = value
    expected = ORACLE.log_prob(rows) - ORACLE.log_prob(alone)
    assert_close(backend.numpy(conditional.log_prob(backend.array(rows[:, rest]))), expected, conditional)
    assert conditional.layout.names == tuple(ring.layout.names[k] for k in rest)


def test_permute(backend):
    ring = wide_ring(backend)
    columns = [3, 1, 2, 0, 6, 5, 4]
    x = backend.array(ROWS[:, columns])
    assert_close(backend.numpy(ring.permute(columns).log_prob(x)), ORACLE.log_prob(ROWS), ring)
    assert ring.permute(columns).layout.names[:4] == ("c", "a", "b", "kind")


def test_samples(backend):
    x = backend.numpy(wide_ring(backend).sample(40_000, rng=backend.rng()))
    covariance = ORACLE.covariance()
    scale = np.sqrt(np.diagonal(covariance))
    assert np.abs((x.mean(axis=0) - ORACLE.mean(np.full(D, np.nan))) / scale).max() < 0.04
    assert np.abs((np.cov(x.T) - covariance) / scale / scale[:, None]).max() < 0.06


def test_samples_given(backend):
    ring = wide_ring(backend)
    rows = ROWS[1:5]
    drawn = backend.numpy(ring.sample_given(backend.array(rows), 8_000, rng=backend.rng()))
    for b, row in enumerate(rows):
        observed = ~np.isnan(row)
        assert (drawn[:, b, observed] == row[observed]).all()
        weights, means, spreads = ORACLE.moments(row)
        mean = weights @ means
        second = np.tensordot(weights, spreads, 1) + (weights[:, None] * (means - mean)).T @ (means - mean)
        scale = np.sqrt(np.where(observed, 1.0, np.diagonal(second)))
        assert np.abs((drawn[:, b].mean(axis=0) - mean) / scale).max() < 0.07
        assert np.abs((np.cov(drawn[:, b].T) - second) / scale / scale[:, None]).max() < 0.12


@pytest.mark.slow
def test_mode(backend):
    ring = wide_ring(backend)
    rows = ROWS[:6]
    mode = backend.numpy(ring.mode(backend.array(rows)))
    np.testing.assert_array_equal(mode[~np.isnan(rows)], rows[~np.isnan(rows)])
    for b, row in enumerate(rows):
        tried = wide_ring(load_backend("numpy")).sample_given(row, 500, rng=1)
        assert ORACLE.log_prob(mode[b : b + 1])[0] >= ORACLE.log_prob(tried).max() - 1e-9
        for k in np.flatnonzero(np.isnan(row))[1:]:  # no step of one column is uphill
            for step in (-1e-3, 1e-3):
                moved = mode[b] + step * (np.arange(D) == k)
                if k > 0:
                    assert ORACLE.log_prob(moved[None])[0] <= ORACLE.log_prob(mode[b : b + 1])[0] + 1e-6


def test_inner_product(backend):
    numpy = load_backend("numpy")
    found = wide_ring(backend).inner(wide_ring(backend, 0))
    total = 0.0
    for (v, (m, a)), (w, (n, b)) in itertools.product(zip(ORACLE.weights, ORACLE.gaussians, strict=True), repeat=2):
        total += v * w * stats.multivariate_normal(n, a + b).pdf(m)
    same = sum(
        v * w * (s[0] == t[0]) * stats.multivariate_normal(n, a + b).pdf(m)
        for (v, s, (m, a)), (w, t, (n, b)) in itertools.product(
            list(zip(ORACLE.weights, ORACLE.configurations, ORACLE.gaussians, strict=True)), repeat=2
        )
    )
    assert_close(backend.numpy(found), same, wide_ring(numpy))
    assert total > same


def test_networks():
    ring = wide_ring(load_backend("numpy"))
    nodes = ring.to_tensornetwork(ROWS[2])
    assert [node.name for node in nodes] == ["e", "kind", "x3", "a+b+c"]
    import opt_einsum
    import tensornetwork

    value = tensornetwork.contractors.auto(nodes).tensor
    assert_close(np.log(value) - ring.log_normalizer(), ORACLE.log_prob(ROWS[2:3])[0], ring)
    equation, operands = ring.einsum(open=["b", 6])
    table = opt_einsum.contract(equation, *operands)
    expected = np.zeros((4, 2))
    for s, weight in zip(ORACLE.configurations, ORACLE.weights, strict=True):
        expected[s[1], s[3]] += weight
    assert_close(table / table.sum(), expected, equation)
    with pytest.raises(ValueError, match="must differ, and be of different variables"):
        ring.einsum(open=["a", "b"])


def test_mutual_information_is_that_of_variables():
    found = wide_ring(load_backend("numpy")).mutual_information()
    joint = np.zeros((4, 2))
    for s, weight in zip(ORACLE.configurations, ORACLE.weights, strict=True):
        joint[s[1], s[3]] += weight
    expected = stats.entropy(joint.sum(1)) + stats.entropy(joint.sum(0)) - stats.entropy(joint.ravel())
    assert found.shape == (4, 4)
    assert_close(found[1, 3], expected, joint, rtol=1e-6)


def test_entropy_and_divergence():
    ring = wide_ring(load_backend("numpy"))
    value, error = ring.entropy(20_000, rng=0)
    x = ring.sample(20_000, rng=1)
    assert abs(value + ring.log_prob(x).mean()) < 5 * error
    assert abs(rd.compare.kl(ring, ring.permute(range(D)), n=100, rng=0)[0]) < 1e-9


# -------------------------------------------------------------------------------------------------- events


def test_probability_of_an_interval(backend):
    ring = wide_ring(backend)
    event = {"b": rd.Interval(-0.5, 1.0)}
    found = backend.numpy(ring.probability(event, backend.array(ROWS)))
    for b, row in enumerate(ROWS):
        expected = ORACLE.cdf(2, 1.0, row) - ORACLE.cdf(2, -0.5, row)
        if not np.isnan(row[2]):
            expected = float(-0.5 <= row[2] <= 1.0)
        assert_close(found[b], expected, (row, ring))
    alone = ORACLE.cdf(2, 1.0, np.full(D, np.nan)) - ORACLE.cdf(2, -0.5, np.full(D, np.nan))
    assert_close(backend.numpy(ring.probability(event)), alone, ring)


def test_events_of_several_variables():
    ring = wide_ring(load_backend("numpy"))
    event = {"b": rd.Interval(0.0, None), 6: rd.Interval(None, 0.5), "kind": {0, 2}}
    row = np.where(np.arange(D) == 3, 0.4, np.full(D, np.nan))
    inside = ring.sample_given(row, 200_000, rng=0)
    share = ((inside[:, 2] >= 0) & (inside[:, 6] <= 0.5) & np.isin(inside[:, 0], [0, 2])).mean()
    assert abs(ring.probability(event, row) - share) < 0.006


def test_samples_within_an_interval(backend):
    """Draws have the moments of those draws without the event that lie within it."""
    ring = wide_ring(backend)
    row = np.array([np.nan, 0.2, np.nan, np.nan, np.nan, np.nan, 0.1])
    event = {"b": rd.Interval(0.5, 1.5)}
    drawn = backend.numpy(ring.sample_given(backend.array(row), 20_000, event=event, rng=backend.rng()))
    assert ((drawn[:, 2] >= 0.5) & (drawn[:, 2] <= 1.5)).all()
    free = np.array(wide_ring(load_backend("numpy")).sample_given(row, 200_000, rng=1))
    kept = free[(free[:, 2] >= 0.5) & (free[:, 2] <= 1.5)]
    scale = kept.std(axis=0) + 1e-9
    assert np.abs((drawn.mean(axis=0) - kept.mean(axis=0)) / scale).max() < 0.05
    assert np.abs(np.cov(drawn.T) - np.cov(kept.T)).max() < 0.1 * scale.max() ** 2


def test_condition_on_an_interval_of_the_only_column_left(backend):
    ring = wide_ring(backend)
    conditional = ring.condition({"b": rd.Interval(-0.5, 1.0), "a": 0.2, "c": 0.3})
    assert isinstance(conditional.variables[1], rd.Truncated)
    row = np.full(D, np.nan)
    row[[1, 3]] = 0.2, 0.3
    mass = ORACLE.cdf(2, 1.0, row) - ORACLE.cdf(2, -0.5, row)
    point = np.where(np.arange(D) == 2, 0.7, row)
    expected = ORACLE.log_prob(point[None])[0] - ORACLE.log_prob(row[None])[0] - np.log(mass)
    found = conditional.log_prob(backend.array([np.nan, 0.7, np.nan, np.nan, np.nan]))
    assert_close(backend.numpy(found), expected, conditional)


def test_an_interval_without_bounds_says_nothing():
    ring = wide_ring(load_backend("numpy"))
    conditional = ring.condition({"a": rd.Interval(), 6: 0.1})
    rest = ROWS[:, :6]
    assert_close(conditional.log_prob(rest), ring.condition({6: 0.1}).log_prob(rest), ring)


def test_an_interval_integrates_the_density():
    ring = wide_ring(load_backend("numpy"))
    row = np.where(np.isin(np.arange(D), [1, 4]), 0.3, np.full(D, np.nan))

    def density(b):
        return np.exp(ring.log_prob(np.where(np.arange(D) == 2, b, row)) - ring.log_prob(row))

    assert_close(ring.probability({"b": rd.Interval(0, 1)}, row), integrate.quad(density, 0, 1)[0], ring, rtol=1e-7)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (lambda ring: ring.probability({"a": {1}}), r"column 1 \('a'\): a set names categories"),
        (lambda ring: ring.log_prob(np.zeros((2, 4))), r"x must have shape \(..., 7\), one entry per column"),
        (lambda ring: ring.log_prob(np.full((1, D), np.inf)), "column 0"),
        (lambda ring: ring.log_prob([0, 1.0, np.inf, 0, 0, 0, 0]), r"column 2 \('b'\): values must be finite"),
        (lambda ring: ring.marginal(["x"]), "there is no column 'x'"),
        (lambda ring: ring.cdf(7, np.zeros(D)), "there is no column 7; columns are 0..6"),
        (lambda ring: ring.condition(dict.fromkeys(range(D), 0.0)), "must leave at least one column"),
        (lambda ring: ring.to_dense(), "a dense table needs categorical columns"),
        (
            lambda ring: rd.Truncated(ring.variables[1], rd.Interval(0, 1)),
            "a truncated variable must be one column of numbers: found 3 columns",
        ),
        (lambda ring: rd.WithAtoms(ring.variables[1], [0.0]), "atoms stand beside a variable of one column, found 3"),
        (
            lambda ring: ring.inner(rd.TensorRing.random([rd.GaussianMixture([0.0], [1.0])] * 7, 2)),
            r"the same of them at each variable, found \(\(0,\), \(1, 2, 3\), .* and \(\(0,\), \(1,\)",
        ),
    ],
)
def test_what_does_not_fit(query, message):
    with pytest.raises(ValueError, match=message):
        query(wide_ring(load_backend("numpy")))


@pytest.mark.parametrize("known", [[], [1, 4], [3, 5, 0]], ids=str)
def test_pathwise_samples(known):
    """Gradients of an average over samples are those of the exact mean."""
    torch = pytest.importorskip("torch")
    base = wide_ring(load_backend("torch")).condition({0: 1})
    means, matrices = (array.clone().requires_grad_() for array in base.variables[0].arrays().values())
    variable = rd.MultivariateGaussianMixture(means, (matrices + matrices.mT) / 2)
    ring = rd.TensorRing(base.cores, [variable, *base.variables[1:]], order=base.order)
    columns = [k for k in known if k < 6]
    row = torch.where(torch.tensor(np.isin(np.arange(6), columns)), 0.3, torch.nan)
    evidence = row.expand(30_000, 6)
    x = ring.sample_given(evidence, rng=0)
    moved = ring.pathwise(x, evidence)
    assert_close(moved.detach().numpy(), x.numpy(), ring)
    found = torch.autograd.grad(moved.mean(dim=0).sum(), [means, matrices], retain_graph=True)
    expected = torch.autograd.grad(ring.mean(row).sum(), [means, matrices])
    for estimate, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(estimate.numpy(), exact.numpy(), atol=0.05 * float(exact.abs().max()) + 0.02)


def test_pathwise_samples_that_marginalise_entries():
    torch = pytest.importorskip("torch")
    ring = wide_ring(load_backend("torch"))
    x = torch.tensor(ROWS[1:])
    known = torch.where(torch.isin(torch.arange(D), torch.tensor([0, 2])), x, torch.nan)
    assert_close(ring.pathwise(x, known).detach().numpy(), ROWS[1:], ring)


# ------------------------------------------------------------------------------------------------ learning

FAMILIES = [
    None,
    functools.partial(rd.MultivariateGaussianMixture, names=["a", "b", "c"]),
    rd.GaussianMixture,
    functools.partial(rd.MultivariateGaussianMixture, names=[None, None]),
]


def data(n=400, missing=0.2, seed=2):
    x = np.array(wide_ring(load_backend("numpy")).sample(n, rng=seed))
    x[np.random.default_rng(seed).random(x.shape) < missing] = np.nan
    return x


@pytest.mark.parametrize("options", [
    {},
    {"topology": "train"},
    {"topology": "train", "core": "cp"},
    {"method": "mixture"},
    {"method": "mixture", "topology": "train", "core": "cp"},
    {"method": "kmeans", "order": [2, 1, 3, 0]},
], ids=str)  # fmt: skip
def test_em_never_falls(options):
    x = data()
    start = rd.initialize(x, FAMILIES, 3, num_components=3, rng=0, **options)
    assert start.columns == COLUMNS
    ring, history = rd.fit_em(start, x, max_epochs=12)
    assert np.diff([start.log_prob(x).mean(), *history["train"]]).min() > -1e-9
    assert_close(ring.log_prob(x).mean(), history["train"][-1], ring, rtol=1e-8)


def test_em_in_other_backends(backend):
    x = data(200)
    start = rd.initialize(x, FAMILIES, 2, num_components=2, topology="train", rng=0)
    expected, _ = rd.fit_em(start, x, max_epochs=3)
    ring, _ = rd.fit_em(start.to(backend.xp, device=backend.device), x, max_epochs=3)
    assert_close(backend.numpy(ring.log_prob(backend.array(x))), expected.log_prob(x), ring, rtol=1e-7)


def test_one_variable_alone_is_the_mixture_of_scikit_learn():
    from sklearn.datasets import load_wine
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = load_wine().data
    start = rd.initialize(x, [rd.MultivariateGaussianMixture], 1, num_components=3, rng=0)
    weights = np.asarray(start.cores[0])[:, 0, 0]
    mixture = GaussianMixture(
        3,
        reg_covar=0,
        tol=0,
        max_iter=20,
        weights_init=weights / weights.sum(),
        means_init=start.variables[0].means(),
        precisions_init=np.linalg.inv(start.variables[0].covariances()),
    )
    with pytest.warns(ConvergenceWarning):
        mixture.fit(x)
    ring, history = rd.fit_em(start, x, max_epochs=20, variance_floor=0)
    assert_close(history["train"][-1], mixture.score(x), ring, rtol=1e-9)
    assert_close(ring.variables[0].means(), mixture.means_, ring, rtol=1e-6)
    assert_close(ring.variables[0].covariances(), mixture.covariances_, ring, rtol=1e-6, atol=1e-6)
    assert_close(ring.log_prob(x), mixture.score_samples(x), ring, rtol=1e-6)
    assert_close(ring.component_posterior(0, x), mixture.predict_proba(x), ring, rtol=1e-5, atol=1e-8)


def test_the_floor_is_relative_to_each_column():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) * [1.0, 1e4, 1e-4]
    x[:, 2] = x[:, 1] * 1e-8  # exactly dependent
    start = rd.initialize(x, [rd.MultivariateGaussianMixture], 1, num_components=2, rng=0)
    ring, history = rd.fit_em(start, x, max_epochs=30, variance_floor=1e-3)
    least = np.sqrt(1e-3) * x.std(axis=0)
    for matrix in ring.variables[0].covariances():
        assert np.linalg.eigvalsh(matrix / least / least[:, None]).min() > 1 - 1e-6
    assert np.diff(history["train"]).min() > -1e-9


def test_units_do_not_matter():
    x = data(300, 0.1)
    unit = np.array([1.0, 1e6, 1e-6, 10.0, 1e3, 1e-3, 1.0])
    start = [rd.initialize(rows, FAMILIES, 2, num_components=3, rng=0) for rows in (x, x * unit)]
    fits = [rd.fit_em(s, rows, max_epochs=10)[0] for s, rows in zip(start, (x, x * unit), strict=True)]
    shift = ~np.isnan(x) @ np.log(unit)
    assert_close(fits[1].log_prob(x * unit) + shift, fits[0].log_prob(x), fits[0], rtol=1e-6)


def test_mini_batches_and_weights():
    x = data()
    start = rd.initialize(x, FAMILIES, 2, num_components=3, topology="train", rng=0)
    _, history = rd.fit_em(start, x, max_epochs=10, batch_size=50, rng=0)
    assert history["train"][-1] > start.log_prob(x).mean()
    doubled = rd.fit_em(start, np.concatenate([x, x[:100]]), max_epochs=4, variance_floor=0)[0]
    weighted = rd.fit_em(start, x, sample_weight=1.0 + (np.arange(400) < 100), max_epochs=4, variance_floor=0)[0]
    assert_close(weighted.log_prob(x), doubled.log_prob(x), weighted, rtol=1e-7)


def test_shrunk_covariances_are_better_where_rows_are_few():
    from sklearn.datasets import load_wine

    x = np.random.default_rng(0).permutation(load_wine().data)
    start = rd.initialize(x[:120], [rd.MultivariateGaussianMixture], 1, num_components=5, rng=0)
    fits = [rd.fit_em(start, x[:120], max_epochs=20, shrinkage=rows)[0] for rows in (0.0, 1.0, 1e9)]
    assert fits[1].log_prob(x[120:]).mean() > fits[0].log_prob(x[120:]).mean() + 1
    matrices = fits[2].variables[0].covariances()
    assert_close(matrices / matrices[:1], np.ones_like(matrices), "one for all", rtol=1e-5)
    with pytest.raises(ValueError, match="shrinkage must be finite and not negative, found -1"):
        rd.fit_em(start, x, shrinkage=-1.0)


@pytest.mark.parametrize("seed", range(3))
def test_components_of_different_widths_keep_them_when_shrunk(seed):
    """Equal correlations and widths that differ by a factor of ten: what is common is not the covariance."""
    rng = np.random.default_rng(seed)
    mixing, width = rng.normal(size=(8, 8)), np.array([[0.1], [1.0]]) * 10.0 ** rng.uniform(-0.3, 0.3, size=(2, 8))
    s = rng.integers(2, size=2040)
    x = (rng.normal(size=(2040, 8)) @ mixing) * width[s] + 20 * s[:, None]
    start = rd.initialize(x[:40], [rd.MultivariateGaussianMixture], 1, num_components=2, rng=0)
    alone, together = (rd.fit_em(start, x[:40], max_epochs=20, shrinkage=rows)[0] for rows in (0.0, 1.0))
    assert together.log_prob(x[40:]).mean() > alone.log_prob(x[40:]).mean() - 0.1
    truth = width**2 * (mixing**2).sum(axis=0)
    ratio = np.sort(together.variables[0].variances(), axis=0) / np.sort(truth, axis=0)
    assert 0.2 < ratio.min() < ratio.max() < 2.5


def test_shrinkage_of_mini_batches_is_that_of_all_rows():
    """With batches of all rows and steps near 1 the two agree but for the share of the model's own expectation."""
    x = data(300, 0.0)
    start = rd.initialize(x, FAMILIES, 1, num_components=2, topology="train", rng=0)
    whole = rd.fit_em(start, x, max_epochs=40, shrinkage=5.0)[0]
    batches = rd.fit_em(start, x, max_epochs=80, shrinkage=5.0, batch_size=300, rng=0)[0]
    assert abs(whole.log_prob(x).mean() - batches.log_prob(x).mean()) < 0.02


def test_statistics_summed_over_processes():
    x = data(100)
    start = rd.initialize(x, FAMILIES, 2, num_components=2, topology="train", rng=0)
    alone = rd.fit_em(start, x, max_epochs=3)[0]
    reduced = rd.fit_em(start, x, max_epochs=3, reduce=lambda array: array)[0]
    assert_close(reduced.log_prob(x), alone.log_prob(x), alone)


def test_gradient_descent():
    torch = pytest.importorskip("torch")
    x = torch.tensor(data(200))
    start = rd.initialize(x.numpy(), FAMILIES, 2, num_components=2, rng=0, xp=torch, dtype="float64")
    ring, history = rd.fit_gradient(start, x, lambda p: torch.optim.Adam(p, lr=0.02), max_epochs=15, rng=0)
    assert history["train"][-1] > float(start.log_prob(x).mean())
    rd.TensorRing(ring.cores, ring.variables, order=ring.order)  # passes every check


def test_data_that_do_not_fit():
    for families, message in [
        ([rd.MultivariateGaussianMixture] * 2, "names must tell how many columns each variable covers"),
        ([rd.MultivariateGaussianMixture, *[None] * 6], r"x must have shape \(n, 8 or more\)"),
        (FAMILIES[:3], r"x must have shape \(n, 5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            rd.initialize(data(20), families, 2)
    x = data(20)
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="columns 1, 2, 3: components need an observed entry"):
        rd.initialize(x, FAMILIES, 2)
    with pytest.raises(ValueError, match="columns that share a covariance need standard deviations between"):
        rd.initialize(data(20) * 1e200, [*FAMILIES[1:2], None, *FAMILIES[1:2]], 2)


def test_the_order_of_variables():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 1))
    x = np.concatenate([rng.normal(size=(500, 2)), shared + 0.1 * rng.normal(size=(500, 2)), shared], axis=1)
    made = [
        rd.MultivariateGaussianMixture(*pair()),
        rd.MultivariateGaussianMixture(*pair()),
        rd.GaussianMixture([0.0], [1.0]),
    ]
    found = rd.ordering.dependence(x, made)
    columns = rd.ordering.dependence(x, [rd.GaussianMixture([0.0], [1.0])] * 5)
    assert found.shape == (3, 3) and found[1, 2] == columns[2:4, 4].max() > 1
    assert found[0, 1] == columns[:2, 2:4].max()
    assert sorted(rd.ordering.mutual_information(x, made)) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"x must have shape \(n, 5\)"):
        rd.ordering.dependence(x[:, :3], made)


# ------------------------------------------------------------------------------------ mixtures, files, copies


def test_mixture_of_rings(backend):
    rings = [wide_ring(backend), wide_ring(backend, 5, [1, 3, 2, 2], [1, 3, 0, 2])]
    oracles = [ORACLE, Enumerated(5, [1, 3, 2, 2], [1, 3, 0, 2])]
    mixture, weights = rd.RingMixture(rings, [0.25, 0.75]), np.array([0.25, 0.75])
    assert mixture.num_columns == D and mixture.num_variables == 4
    joint = weights[:, None] * np.exp([oracle.log_prob(ROWS) for oracle in oracles])
    x = backend.array(ROWS)
    assert_close(backend.numpy(mixture.log_prob(x)), np.log(joint.sum(axis=0)), mixture)
    share = joint / joint.sum(axis=0)
    means = np.array([[oracle.mean(row) for row in ROWS] for oracle in oracles])
    assert_close(backend.numpy(mixture.mean(x)), np.einsum("cb,cbd->bd", share, means), mixture)
    point = np.where(np.arange(D) == 2, 0.3, ROWS)
    rest = np.where(np.arange(D) == 2, np.nan, ROWS)
    joint = weights[:, None] * np.exp([oracle.log_prob(rest) for oracle in oracles])
    values = np.array([[oracle.cdf(2, 0.3, row) for row in ROWS] for oracle in oracles])
    expected = (joint / joint.sum(axis=0) * values).sum(axis=0)
    assert_close(backend.numpy(mixture.cdf("b", backend.array(point))), expected, mixture)
    levels = backend.array([[0.1], [0.6]])
    quantiles = backend.numpy(mixture.quantile("b", levels, x))
    again = mixture.cdf("b", backend.array(np.where(np.arange(D) == 2, quantiles[1][:, None], ROWS)))
    np.testing.assert_allclose(backend.numpy(again), 0.6, atol=1e-9)
    assert tuple(mixture.sample_given(x, 2, rng=backend.rng()).shape) == (2, len(ROWS), D)
    assert tuple(mixture.component_posterior("b", x).shape) == (len(ROWS), 8)
    assert tuple(mixture.covariance().shape) == (D, D)
    rest = mixture.condition({"b": 0.3, 6: rd.Interval(0, 1), 5: 0.1})
    assert rest.num_columns == 5


def test_mixtures_of_rings_that_group_columns_differently():
    numpy = load_backend("numpy")
    wide = rd.TensorRing.random([rd.MultivariateGaussianMixture(*pair()), rd.GaussianMixture([0.0], [1.0])], 2, rng=0)
    narrow = rd.TensorRing.random([rd.GaussianMixture([0.0, 1.0], [1.0, 2.0])] * 3, 2, rng=0)
    mixture = rd.RingMixture([wide, narrow], [0.5, 0.5])
    x = np.where(np.random.default_rng(0).random((20, 3)) < 0.3, np.nan, 0.4)
    expected = np.logaddexp(wide.log_prob(x), narrow.log_prob(x)) - np.log(2)
    assert_close(mixture.log_prob(x), expected, numpy)
    median = mixture.quantile(1, 0.5, x)
    np.testing.assert_allclose(mixture.cdf(1, np.where(np.arange(3) == 1, median[:, None], x)), 0.5, atol=1e-9)
    both = mixture.quantile(1, np.array([[0.5], [0.7]]), x)
    assert_close(both[0], median, mixture)
    with pytest.raises(ValueError, match="rings must have the same columns at each variable"):
        mixture.mutual_information()


def test_em_of_a_mixture_of_rings():
    x = data(200)
    rings = [
        rd.initialize(x, FAMILIES, 2, num_components=2, topology="train", order=o, rng=0) for o in ([0, 1, 2, 3], ORDER)
    ]
    _, history = rd.fit_em(rd.RingMixture(rings, [0.5, 0.5]), x, max_epochs=5)
    assert np.diff(history["train"]).min() > -1e-9


def test_files_pickles_and_copies(tmp_path):
    ring = wide_ring(load_backend("numpy"))
    ring.save(tmp_path / "ring.safetensors")
    for again in (rd.load(tmp_path / "ring.safetensors"), pickle.loads(pickle.dumps(ring)), copy.deepcopy(ring)):
        np.testing.assert_array_equal(again.log_prob(ROWS), ring.log_prob(ROWS))
        assert again.layout.names == ring.layout.names and again.columns == COLUMNS
    mixture = rd.RingMixture([ring, ring], [0.5, 0.5])
    mixture.save(tmp_path / "mixture.safetensors")
    np.testing.assert_array_equal(rd.load(tmp_path / "mixture.safetensors").log_prob(ROWS), mixture.log_prob(ROWS))


def test_files_that_name_columns_wrongly(tmp_path):
    import json

    from ringdist.interop import tensorfile

    wide_ring(load_backend("numpy")).save(tmp_path / "ring.safetensors")
    metadata, tensors = tensorfile.read(tmp_path / "ring.safetensors")
    for change, message in [
        ({"options": {"names": ["a", "b"]}}, "one name for each of 3 columns"),
        ({"options": {"names": "abc"}}, "names must be a list of strings"),
        ({"options": {"names": ["a", "b", 3]}}, "names must be a list of strings"),
        ({"options": {"names": ["kind", "b", "c"]}}, "names must differ"),
        ({"name": "abc"}, "unexpected keyword argument 'name'"),
    ]:
        description = json.loads(metadata["ring"])
        description["variables"][1].update(change)
        tensorfile.write(tmp_path / "bad.safetensors", {"ring": json.dumps(description)}, dict(tensors))
        with pytest.raises(ValueError, match=message):
            rd.load(tmp_path / "bad.safetensors")


def test_other_backends_and_float32(backend):
    ring = wide_ring(backend).to(dtype="float32")
    x = backend.array(ROWS, "float32")
    np.testing.assert_allclose(backend.numpy(ring.log_prob(x)), ORACLE.log_prob(ROWS), rtol=2e-4, atol=2e-4)
    assert ring.sample(4, rng=backend.rng()).dtype == x.dtype
    assert ring.mean(x).dtype == x.dtype


def test_gradients_of_a_ring():
    torch = pytest.importorskip("torch")
    base = wide_ring(load_backend("torch"))
    means, matrices = (array.clone().requires_grad_() for array in base.variables[1].arrays().values())

    def density(means, matrices):
        variable = rd.MultivariateGaussianMixture(means, (matrices + matrices.mT) / 2, names=["a", "b", "c"])
        changed = [base.variables[0], variable, *base.variables[2:]]
        return rd.TensorRing(base.cores, changed, order=ORDER).log_prob(torch.tensor(ROWS)).sum()

    assert torch.autograd.gradcheck(density, (means, matrices))


def test_autofit():
    x = data(200)
    model, _ = rd.autofit(x, FAMILIES, budget=1.0, max_rings=1, num_components=3, rng=0)
    assert model.num_columns == D
    alone = rd.initialize(x, FAMILIES, 1, num_components=3, rng=0)
    assert model.log_prob(x).mean() > alone.log_prob(x).mean()
