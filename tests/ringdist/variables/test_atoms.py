"""Point masses beside a density, and beside counts, against enumeration in NumPy."""

import functools
import pickle

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from ringdist.variables import as_family
from tests.backends import assert_close, load_backend
from tests.families import LaplaceMixture
from tests.oracle import chi_square

pytestmark = pytest.mark.slow_on("jax")

MEANS, STDS, ATOMS = np.array([1.0, -4.0]), np.array([0.5, 2.0]), (0.0, 9999.0)


def make(backend, dtype="float64", name=None):
    gaussian = rd.GaussianMixture(backend.array(MEANS, dtype), backend.array(STDS, dtype), name="inner")
    return rd.WithAtoms(gaussian, ATOMS, name)


def density(x):
    """p(x | s), (n, 4), relative to Lebesgue measure plus the atoms."""
    x = np.asarray(x)[:, None]
    at = x == np.array(ATOMS)
    return np.concatenate([np.where(at.any(1, keepdims=True), 0.0, stats.norm(MEANS, STDS).pdf(x)), at], axis=1)


def ring_of(backend, dtype="float64"):
    """A category that tells whether a value is an atom, and for the most part which."""
    joint = np.array([[0.1, 0.2, 0.0, 0.0], [0.0, 0.0, 0.3, 0.1], [0.05, 0.05, 0.1, 0.1]])
    cores = [np.eye(3)[:, None, :], joint.T[:, :, None]]
    variables = [rd.Categorical(3, name="kind"), make(backend, dtype, "amount")]
    return rd.TensorRing([backend.array(core, dtype) for core in cores], variables), joint


@pytest.mark.fast_on("jax")
def test_log_density_cdf_and_moments(backend, dtype):
    variable, x = make(backend, dtype), np.array([0.0, 0.25, -3.0, 9999.0, 1.0])
    with np.errstate(divide="ignore"):
        expected = np.log(density(x))
    close = {"rtol": 1e-5} if dtype == "float32" else {}
    assert_close(backend.numpy(variable.log_density(backend.array(x, dtype))), expected, variable, **close)
    steps = x[:, None] >= np.array(ATOMS)
    expected = np.concatenate([stats.norm(MEANS, STDS).cdf(x[:, None]), steps], axis=1)
    assert_close(backend.numpy(variable.cdf(backend.array(x, dtype))), expected, variable, **close)
    assert_close(backend.numpy(variable.means()), [*MEANS, *ATOMS], variable)
    assert_close(backend.numpy(variable.variances()), [*STDS**2, 0.0, 0.0], variable, **close)
    assert_close(backend.numpy(variable.standard_deviations()), [*STDS, 0.0, 0.0], variable, **close)
    assert (variable.name, variable.num_components, variable.atoms) == ("inner", 4, ATOMS)


def test_inner_products_of_densities_and_of_counts(backend):
    variable = make(backend)
    other = rd.WithAtoms(rd.GaussianMixture(backend.array([0.0]), backend.array([1.0])), [5.0, 9999.0])
    expected = np.zeros((4, 3))
    expected[:2, 0] = stats.norm(MEANS, np.sqrt(STDS**2 + 1)).pdf(0.0)
    expected[3, 2] = 1.0
    assert_close(backend.numpy(variable.inner(other)), expected, variable)
    counts = rd.WithAtoms(rd.PoissonMixture(backend.array([0.5, 3.0])), [0.0, -1.0])
    table = np.zeros((102, 4))  # values -1, 0, 1, ...
    table[1:, :2] = stats.poisson([0.5, 3.0]).pmf(np.arange(101)[:, None])
    table[1, 2] = table[0, 3] = 1.0
    assert_close(backend.numpy(counts.inner(counts)), table.T @ table, counts)


def test_counts_keep_their_probability_at_an_atom(backend):
    counts = rd.WithAtoms(rd.PoissonMixture(backend.array([2.0])), [0.0])
    actual = np.exp(backend.numpy(counts.log_density(backend.array([0.0, 1.0]))))
    assert_close(actual, [[np.exp(-2), 1.0], [2 * np.exp(-2), 0.0]], counts)
    assert (counts.integer, counts.measure, counts.support) == (True, "counts", (0.0, np.inf))
    assert not rd.WithAtoms(counts.with_arrays(counts.arrays())._inner, [0.5]).integer
    truth = 0.3 * (np.arange(4) == 0) + 0.7 * stats.poisson(2.0).pmf(np.arange(4))
    ring = rd.TensorRing([backend.array([[[0.7]], [[0.3]]])], [counts])
    assert_close(np.exp(backend.numpy(ring.log_prob(backend.array(np.arange(4.0)[:, None])))), truth, ring)
    assert backend.numpy(ring.quantile(0, backend.array([0.35, 0.5, 0.9]), backend.array([[np.nan]]))).tolist() == [
        0,
        1,
        4,
    ]


def test_values_outside_the_support(backend):
    variable = rd.WithAtoms(rd.LogNormalMixture(backend.array([0.0]), backend.array([1.0])), [0.0, -1.0])
    x = backend.array([0.0, 1.0, -2.0, -1.0, np.nan])
    assert backend.numpy(variable.in_support(x)).tolist() == [True, True, False, True, True]
    assert (backend.numpy(variable.log_density(x))[2] == -np.inf).all()
    with pytest.raises(ValueError, match="positive and finite, found -2; atoms are 0, -1"):
        variable.check(x)
    ring = rd.TensorRing([backend.array(np.ones((3, 1, 1)))], [variable])
    with pytest.raises(ValueError, match=r"column 0: .*found -2"):
        ring.log_prob(x[:, None])
    assert np.isfinite(backend.numpy(ring.log_prob(x[:2, None]))).all()
    assert ring.families[0].support == (-1.0, np.inf)


@pytest.mark.parametrize(
    ("variable", "atoms", "finding"),
    [
        (rd.GaussianMixture([0.0], [1.0]), [], r"one or more finite numbers, found \[\]"),
        (rd.GaussianMixture([0.0], [1.0]), [0.0, np.nan], "finite numbers"),
        (rd.GaussianMixture([0.0], [1.0]), [1.0, 2.0, 1.0], r"must be distinct, found \[1.0, 2.0, 1.0\]"),
        (rd.Categorical(3), [0.0], "give it more categories"),
        (rd.WithAtoms(rd.PoissonMixture([1.0]), [0.0]), [3.0], "given at once"),
    ],
    ids=str,
)
def test_what_does_not_fit(variable, atoms, finding):
    with pytest.raises(ValueError, match=finding):
        rd.WithAtoms(variable, atoms)
    with pytest.raises(TypeError, match=r"rd.Variable, found <class"):
        rd.WithAtoms(rd.GaussianMixture, [0.0])


def test_queries_of_a_ring(backend):
    ring, joint = ring_of(backend)
    x = np.array([0.0, 9999.0, 0.7, -2.0])
    rows = np.stack([[0, 1, 2, np.nan], x], axis=1)
    table = density(x) @ joint.T
    with np.errstate(divide="ignore"):
        expected = np.log([table[0, 0], table[1, 1], table[2, 2], table[3].sum()])
    assert_close(backend.numpy(ring.log_prob(backend.array(rows))), expected, ring)
    given = backend.array([[1.0, np.nan]])
    assert_close(backend.numpy(ring.mean(given))[0, 1], 0.25 * 9999, ring)
    q = backend.array([0.0, 0.5, 0.7499, 0.7501, 1.0])
    assert backend.numpy(ring.quantile(1, q, given)).tolist() == [-np.inf, 0.0, 0.0, 9999.0, np.inf]
    assert_close(backend.numpy(ring.cdf(1, backend.array([[1.0, -1e-9], [1.0, 0.0], [1.0, 1e5]]))), [0, 0.75, 1], ring)
    posterior = backend.numpy(ring.component_posterior(0, backend.array([[np.nan, 0.0]])))
    assert_close(posterior[0], [0.0, 0.75, 0.25], ring)
    condition = ring.condition({"kind": 2})
    assert_close(np.exp(backend.numpy(condition.log_prob(backend.array([[0.0], [9999.0]])))), [1 / 3, 1 / 3], ring)
    assert backend.numpy(ring.mode(given))[0].tolist() == [1.0, 0.0]


def test_samples_of_a_ring(backend):
    ring, joint = ring_of(backend)
    x = backend.numpy(ring.sample(4000, rng=0))
    at = np.where(x[:, 1] == 0.0, 0, np.where(x[:, 1] == 9999.0, 1, 2))
    expected = np.stack([joint[:, 2], joint[:, 3], joint[:, :2].sum(1)], axis=1)
    assert chi_square(np.bincount(3 * x[:, 0].astype(int) + at, minlength=9), expected) > 1e-3
    between = x[(at == 2) & (x[:, 0] == 0), 1]
    u = stats.norm(MEANS, STDS).cdf(between[:, None]) @ np.array([1 / 3, 2 / 3])
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_other_forms(backend, tmp_path):
    ring, _ = ring_of(backend)
    rows = np.array([[np.nan, value] for value in (0.0, 9999.0, 0.7)])
    expected = backend.numpy(ring.log_prob(backend.array(rows)))
    ring.save(tmp_path / "ring")
    for again in (
        rd.load(tmp_path / "ring"),
        pickle.loads(pickle.dumps(ring)).to(np),
        ring.to(np).to(backend.xp).to(np),
    ):
        assert_close(again.log_prob(rows), expected, again)
        assert (again.variables[1].name, again.variables[1].atoms) == ("amount", ATOMS)
    assert repr(ring.variables[1]) == "WithAtoms(GaussianMixture(2), [0, 9999], name='amount')"
    both = rd.TensorRing([backend.array(np.ones((4, 1, 1)))] * 2, [make(backend), make(backend, name="other")])
    assert both.groups == ((0, 1),)
    single = np.log(density([0.0, 0.7]).sum(1) / 4)
    assert_close(backend.numpy(both.log_prob(backend.array([[0.0, 0.7]]))), [single.sum()], both)


@pytest.mark.slow
def test_within_jit():
    jax = pytest.importorskip("jax")
    backend = load_backend("jax")
    ring, _ = ring_of(backend)
    rows = backend.array([[1.0, 0.0], [0.0, 0.7]])
    np.testing.assert_allclose(jax.jit(lambda r, x: r.log_prob(x))(ring, rows), ring.log_prob(rows))
    slopes = jax.grad(lambda r: r.log_prob(rows).sum())(ring)
    assert all(np.isfinite(array).all() for array in slopes.variables[1].arrays().values())


def test_gradients_reach_the_variable_within():
    backend = load_backend("torch")
    means = backend.array(MEANS).requires_grad_()
    variable = rd.WithAtoms(rd.GaussianMixture(means, backend.array(STDS)), ATOMS)
    ring = rd.TensorRing([backend.array(np.ones((4, 1, 1)))], [variable])
    ring.log_prob(backend.array([[0.0], [0.7], [9999.0]])).sum().backward()
    p = stats.norm(MEANS, STDS).pdf(0.7)
    assert_close(backend.numpy(means.grad), p / p.sum() * (0.7 - MEANS) / STDS**2, ring)
    with pytest.raises(ValueError, match="values of a column with atoms cannot move"):
        ring.pathwise(backend.array([[0.7]]))


def test_a_variable_of_the_users_own(tmp_path):
    inner = LaplaceMixture(np.array([0.0, 3.0]), np.array([1.0, 2.0]), name="delay")
    variable = rd.WithAtoms(inner, [0.0])
    assert (variable.name, variable.streams, variable.stacks) == ("delay", False, False)
    ring = rd.TensorRing([np.ones((3, 1, 1))], [variable])
    expected = np.log([1 / 3, np.exp(inner.log_density(np.array([2.0]))).sum() / 3])
    assert_close(ring.log_prob(np.array([[0.0], [2.0]])), expected, ring)
    ring.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring", families=(LaplaceMixture,))
    assert_close(again.log_prob(np.array([[0.0], [2.0]])), expected, ring)
    with pytest.raises(ValueError, match="family 'LaplaceMixture', known are"):
        rd.load(tmp_path / "ring")
    x = np.where(np.random.default_rng(0).random(500) < 0.4, 0.0, np.random.default_rng(1).laplace(3.0, 1.0, 500))
    fitted = rd.fit_em(ring, x[:, None], max_epochs=20)
    assert (np.diff(fitted.history["train"]) > -1e-9).all()
    share = fitted.ring.component_posterior(0, [[np.nan]])[0, 2]
    np.testing.assert_allclose(share, (x == 0).mean(), rtol=1e-6)


# --------------------------------------------------------------------------------------------- learning


def table(n: int = 800) -> np.ndarray:
    """A category, and an amount that is 0 for most of category 0 and log-normal elsewhere."""
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=n)
    amount = np.where(rng.random(n) < np.where(kind == 0, 0.8, 0.1), 0.0, np.exp(rng.normal(2.0 + kind, 0.5)))
    return np.stack([kind, amount], axis=1)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_em_learns_the_share_of_the_atom(backend, missing):
    x = table()
    x[np.random.default_rng(1).random(x.shape) < missing] = np.nan
    family = functools.partial(rd.WithAtoms, rd.LogNormalMixture, [0.0])
    start = rd.initialize(x, [rd.Categorical, family], 2, num_components=2, rng=0, xp=backend.xp, dtype=backend.dtype())
    assert as_family(start.variables[1]).num_components == 3
    fitted = rd.fit_em(start, x, max_epochs=40 if backend.name == "numpy" else 4)
    assert (np.diff(fitted.history["train"]) > -1e-9).all()
    if backend.name == "numpy":
        shares = fitted.ring.component_posterior(1, [[0.0, np.nan], [1.0, np.nan]])[:, 2]
        np.testing.assert_allclose(shares, [0.8, 0.1], atol=0.06)
        drawn = fitted.ring.sample(2000, rng=0)
        assert (drawn[:, 1] >= 0).all() and abs((drawn[:, 1] == 0).mean() - 0.45) < 0.05
        batches = rd.fit_em(start, x, max_epochs=10, batch_size=100, rng=0)
        assert batches.history["train"][-1] > fitted.history["train"][-1] - 0.05


@pytest.mark.parametrize("method", ["quantile", "kmeans", "mixture"])
def test_components_are_placed_beside_the_atoms(method):
    x = table(200)
    family = functools.partial(rd.WithAtoms, rd.LogNormalMixture, [0.0], name="amount")
    ring = rd.initialize(x, [None, family], 2, num_components=3, method=method, rng=0)
    assert (ring.shape, ring.variables[1].name) == ((2, 4), "amount")
    assert np.isfinite(ring.log_prob(x)).all()


def test_the_floor_does_not_see_the_atoms():
    """A sentinel far away must not make components wide."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random(500) < 0.5, 9999.0, rng.normal(0, 1e-2, 500))[:, None]
    start = rd.initialize(x, [functools.partial(rd.WithAtoms, rd.GaussianMixture, atoms=[9999.0])], 1, num_components=1)
    fitted = rd.fit_em(start, x, max_epochs=5)
    np.testing.assert_allclose(fitted.ring.variables[0].arrays()["stds"], [1e-2], rtol=0.1)


@pytest.mark.parametrize(
    ("family", "x", "finding"),
    [
        (
            functools.partial(rd.WithAtoms, rd.GaussianMixture, [0.0]),
            [0.0, 0.0],
            "column 0: .*that is not an atom",
        ),
        (functools.partial(rd.WithAtoms, rd.LogNormalMixture, [0.0]), [0.0, -3.0, 1.0], "column 0: .*found -3"),
        (functools.partial(rd.WithAtoms, atoms=[0.0]), [1.0], "column 0: .*needs a family .*found None"),
        (rd.WithAtoms, [1.0], "column 0: atoms must be one or more finite numbers"),
    ],
    ids=str,
)
def test_components_that_cannot_be_placed(family, x, finding):
    with pytest.raises(ValueError, match=finding):
        rd.initialize(np.array(x)[:, None], [family], 1, rng=0)
