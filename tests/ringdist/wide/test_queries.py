"""Queries of rings with variables of several columns, against enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.wide.cases import COLUMNS, ORACLE, ROWS, D, Enumerated, wide_ring

pytestmark = pytest.mark.slow_on("jax")


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


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.999999])
def test_a_density_whose_logarithm_overflows_is_0(backend, scale, correlation):
    matrix = scale**2 * np.array([[1.0, correlation], [correlation, 1.0]])
    pair = rd.MultivariateGaussianMixture(np.array([[0.0, scale], [scale, 2.0]]), np.stack([matrix, 2 * matrix]))
    ring = rd.TensorRing([np.ones((2, 1, 1))], [pair]).to(backend.xp, device=backend.device)
    for far in (1e300, 1e307):  # beyond scale 1e300 / 1e-4 is not finite
        rows = np.array([[far, np.nan], [np.nan, -far], [far, far], [far, -far], [far, 0.0], [0.0, 0.0]])
        found = backend.numpy(ring.log_prob(backend.array(rows)))
        assert (found[:-1] == -np.inf).all() and np.isfinite(found[-1]), found


def test_one_row_and_other_shapes(backend):
    ring = wide_ring(backend)
    expected = ORACLE.log_prob(ROWS)
    assert_close(backend.numpy(ring.log_prob(backend.array(ROWS[3]))), expected[3], ring)
    assert_close(backend.numpy(ring.log_prob(backend.array(ROWS.reshape(3, 4, D)))), expected.reshape(3, 4), ring)
    assert tuple(ring.log_prob(backend.array(np.zeros((0, D)))).shape) == (0,)


@pytest.mark.slow
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
