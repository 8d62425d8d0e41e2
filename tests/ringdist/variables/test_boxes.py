"""Masses, moments and draws of Gaussians within boxes, beside quadrature, scipy and draws without the box."""

import math

import numpy as np
import pytest
from scipy import stats

from ringdist.variables.boxes import Box
from tests.ringdist.variables.test_multivariate_gaussian import covariances

pytestmark = pytest.mark.slow_on("jax")

inf = math.inf

# Bounds of two standard columns, their correlation, and the logarithm of the mass by 40-digit quadrature.
PAIRS = [
    ((-1, 1, -1, 1, 0.5), -0.6972118745689527),
    ((0, inf, 0, inf, 0.9999), -0.6976589624528247),
    ((0, inf, -inf, 0, 0.9999), -6.096465328631404),
    ((0, inf, -inf, 0, 0.99), -3.793053703787737),
    ((-1, 2, 0.3, 0.5, -0.7), -2.7811251452234242),
    ((5, inf, 5, inf, 0.3), -23.825426748670605),
    ((5, inf, -inf, -5, 0.9), -258.83761980711654),
    ((5, inf, -inf, -5, 0.9999), -250019.2188180665),
    ((20, 21, -3, inf, 0.2), -203.91715537230425),
    ((-inf, 1, -inf, 1, 1e-5), -0.34550673090567335),
    ((1, 1.0000001, 2, 2.00001, 0.5), -31.325067145526976),
    ((-0.5, 0.5, 1, inf, -0.999999), -62520.41639986409),
    ((30, inf, -1, 1, 0.8), -1194.6037678440696),
    ((-inf, inf, 1, 2, 0.3), -1.9957982691807554),
    ((-1, 1, -inf, inf, 0.99), -0.38171514630212605),
]


def pair_box(backend, bounds):
    a, b, c, d, rho = bounds
    return Box(
        backend.array([0.0, 0.0]), backend.array([[1, rho], [rho, 1]]), backend.array([a, c]), backend.array([b, d])
    )


@pytest.mark.parametrize("bounds, expected", PAIRS)
def test_log_mass_of_two_columns_beside_forty_digits(backend, bounds, expected):
    for scaled in (bounds, (*bounds[2:4], *bounds[:2], bounds[4])):
        found = float(backend.numpy(pair_box(backend, scaled).log_mass()))
        assert abs(found - expected) < 1e-10, bounds


@pytest.mark.parametrize("seed", range(4))
def test_orthants_of_two_columns_in_closed_form(seed):
    """P(X > 0, Y > 0) = 1/4 + asin(rho) / 2π, at any correlation."""
    rho = np.tanh((1 + 2 * seed) * np.random.default_rng(seed).normal(size=50))
    rho = rho[1 - rho**2 > 1e-12]
    matrices = np.stack([np.stack([1 + 0 * rho, rho], -1), np.stack([rho, 1 + 0 * rho], -1)], -2)
    box = Box(np.zeros((len(rho), 2)), matrices, np.zeros(2), np.full(2, inf))
    np.testing.assert_allclose(np.exp(box.log_mass()), 0.25 + np.arcsin(rho) / (2 * np.pi), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_orthants_of_three_columns_in_closed_form(backend, seed):
    """P(X > 0, Y > 0, Z > 0) = 1/8 + (asin(a) + asin(b) + asin(c)) / 4π, at correlations that are not extreme."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(60, 3, 3))
    matrices = root @ root.swapaxes(1, 2) + (0.1, 0.5, 2)[seed] * np.eye(3)
    stds = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    r = matrices / stds[:, :, None] / stds[:, None, :]
    expected = 0.125 + (np.arcsin(r[:, 0, 1]) + np.arcsin(r[:, 0, 2]) + np.arcsin(r[:, 1, 2])) / (4 * np.pi)
    box = Box(*map(backend.array, (np.zeros((60, 3)), matrices, np.zeros(3), np.full(3, inf))))
    np.testing.assert_allclose(np.exp(backend.numpy(box.log_mass())), expected, rtol=1e-8)


@pytest.mark.parametrize("bounds, expected", PAIRS)
def test_a_third_column_beside_two_in_any_tail(bounds, expected):
    """An independent column multiplies the mass, one that may be anywhere leaves it as it is."""
    a, b, c, d, rho = bounds
    matrix = np.eye(3)
    matrix[0, 2] = matrix[2, 0] = rho
    for low, high in ((-inf, inf), (0, inf), (-1, 2), (8, inf)):
        box = Box(np.zeros(3), matrix, np.array([a, low, c]), np.array([b, high, d]))
        found = float(box.log_mass()) - np.log(stats.norm.cdf(-low) - stats.norm.cdf(-high))
        assert abs(found - expected) < 1e-8


def test_three_columns_in_a_tail_beside_two_that_imply_the_third():
    """(X, Y, X + Y) within x > a, y > b, x + y > c <= a + b, whose third condition says nothing."""
    for a, b, noise in ((0.5, 1.0, 1e-3), (3.0, 2.0, 1e-2), (5.0, 4.0, 1e-2)):
        pair = np.array([[1.0, 0.3], [0.3, 1.0]])
        sums = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        matrix = sums @ pair @ sums.T + noise * np.diag([0.0, 0.0, 1.0])
        expected = float(Box(np.zeros(2), pair, np.array([a, b]), np.full(2, inf)).log_mass())
        found = float(Box(np.zeros(3), matrix, np.array([a, b, a + b - 1]), np.full(3, inf)).log_mass())
        assert abs(found - expected) < 1e-3  # by the lattice


def test_masses_of_three_columns_whatever_their_sequence():
    rng = np.random.default_rng(5)
    root = rng.normal(size=(200, 3, 3))
    matrices, low = root @ root.swapaxes(1, 2) + 0.3 * np.eye(3), 2 * rng.normal(size=(200, 3))
    high = low + rng.exponential(size=(200, 3))
    expected = Box(np.zeros((200, 3)), matrices, low, high).log_mass()
    for order in ([1, 0, 2], [2, 1, 0], [2, 0, 1]):
        turned = Box(np.zeros((200, 3)), matrices[:, order][:, :, order], low[:, order], high[:, order])
        np.testing.assert_allclose(turned.log_mass()[expected > -20], expected[expected > -20], rtol=1e-8)
        np.testing.assert_allclose(turned.log_mass(), expected, rtol=1e-3)  # where rounding decides for the lattice


@pytest.mark.parametrize("size, tolerance", [(1, 1e-12), (2, 1e-6), (3, 1e-4), (5, 3e-3)])
def test_log_mass_beside_scipy(backend, size, tolerance):
    rng = np.random.default_rng(size)
    means, matrices = rng.normal(size=(2, 3, size)), covariances(rng, 6, size).reshape(2, 3, size, size)
    low = np.where(rng.random(size) < 0.3, -inf, rng.normal(size=size) - 1)
    high = np.where(rng.random(size) < 0.3, inf, np.maximum(low, -1) + rng.uniform(1, 3, size=size))
    found = backend.numpy(Box(*map(backend.array, (means, matrices, low, high))).log_mass())
    assert found.shape == (2, 3)
    for i in np.ndindex(2, 3):
        p = stats.multivariate_normal(means[i], matrices[i]).cdf(high, lower_limit=low, rng=0)
        assert abs(np.exp(found[i]) / p - 1) < tolerance


@pytest.mark.parametrize("size", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", range(2))
def test_moments_and_draws_beside_draws_without_the_box(size, seed):
    rng = np.random.default_rng(seed)
    mean, matrix = 10 * rng.normal(size=size), 100 * covariances(rng, 1, size)[0]
    stds = np.sqrt(np.diag(matrix))
    low, high = mean - stds * rng.uniform(-0.5, 1, size=size), np.full(size, inf)
    high[0] = low[0] + stds[0]
    free = rng.multivariate_normal(mean, matrix, size=400_000)
    kept = free[((free >= low) & (free <= high)).all(axis=1)]
    n = len(kept)
    box = Box(*(np.broadcast_to(a, (20_000, *np.shape(a))) for a in (mean, matrix, low, high)))
    drawn = box.draw(rng)
    assert ((drawn >= low) & (drawn <= high)).all()
    found_mean, found_spread = Box(mean, matrix, low, high).moments()
    std = kept.std(axis=0)
    assert (np.abs(found_mean - kept.mean(axis=0)) < 5 * std / np.sqrt(n)).all()
    assert (np.abs(found_mean - drawn.mean(axis=0)) < 5 * std / np.sqrt(20_000)).all()
    assert (np.abs(found_spread - np.cov(kept.T)) < 15 * np.outer(std, std) / np.sqrt(n)).all()
    for j in range(size):
        assert stats.ks_2samp(drawn[:, j], kept[:, j]).pvalue > 1e-4


def test_one_column_has_the_moments_of_a_truncated_gaussian(backend):
    for low, high in ((-1, 2), (0.5, inf), (8, inf), (-inf, -3), (2, 2.5)):
        box = Box(*map(backend.array, ([1.0], [[4.0]], [1 + 2 * low], [1 + 2 * high])))
        mean, spread = (backend.numpy(part) for part in box.moments())
        expected = stats.truncnorm(low, high, 1.0, 2.0)
        np.testing.assert_allclose(mean, [expected.mean()], rtol=1e-9)
        np.testing.assert_allclose(spread, [[expected.var()]], rtol=1e-6)


def test_moments_of_two_columns_by_quadrature():
    rng = np.random.default_rng(0)
    for rho in (-0.95, 0.3, 0.8):
        low, high = rng.normal(size=2) - 1.5, rng.normal(size=2) + 1.5
        nodes, weights = np.polynomial.legendre.leggauss(200)
        x, y = (0.5 * (b - a) * nodes + 0.5 * (a + b) for a, b in zip(low, high, strict=True))
        grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
        p = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).pdf(grid) * np.outer(weights, weights)
        p /= p.sum()
        mean = np.einsum("ij,ijk->k", p, grid)
        within = grid - mean
        found = Box(np.zeros(2), np.array([[1, rho], [rho, 1]]), low, high).moments()
        np.testing.assert_allclose(found[0], mean, atol=1e-10)
        np.testing.assert_allclose(found[1], np.einsum("ij,ijk,ijl->kl", p, within, within), atol=1e-10)


@pytest.mark.parametrize(
    "bounds", [pytest.param(bounds, marks=pytest.mark.slow if k % 3 else ()) for k, (bounds, _) in enumerate(PAIRS)]
)
def test_draws_of_two_columns_in_any_tail(bounds):
    box = pair_box_of(bounds, 4000)
    drawn = box.draw(np.random.default_rng(1))
    low, high = np.array(bounds[:4:2]), np.array(bounds[1:4:2])
    assert ((drawn >= low) & (drawn <= high)).all()
    means, spread = (part[0] for part in box.moments())
    stds = np.sqrt(np.diag(spread))
    assert (np.abs(drawn.mean(axis=0) - means) < 5 * stds / np.sqrt(4000)).all()
    assert (np.abs(drawn.std(axis=0) / stds - 1) < 0.15).all()


def pair_box_of(bounds, n):
    a, b, c, d, rho = bounds
    matrices = np.broadcast_to(np.array([[1, rho], [rho, 1]]), (n, 2, 2))
    return Box(np.zeros((n, 2)), matrices, np.array([a, c], float), np.array([b, d], float))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradients_beside_differences(size):
    import torch

    rng = np.random.default_rng(size)
    start = rng.normal(size=(2, size)), covariances(rng, 2, size), rng.normal(size=size) - 1, rng.normal(size=size) + 2
    values = [torch.tensor(part, requires_grad=True) for part in start]
    total = Box(*values).log_mass().sum()
    total.backward()
    for k, part in enumerate(start):
        direction = rng.normal(size=part.shape)
        direction = direction + direction.swapaxes(-1, -2) if part.ndim == 3 else direction
        moved = [
            sum(Box(*(p + (sign * 1e-5 * direction if i == k else 0) for i, p in enumerate(start))).log_mass())
            for sign in (1, -1)
        ]
        slope = float((values[k].grad * torch.tensor(direction)).sum())
        assert abs(slope - (moved[0] - moved[1]) / 2e-5) < 1e-6 * max(1, abs(slope))


@pytest.mark.parametrize("bounds", [bounds for bounds, _ in PAIRS])
def test_gradients_are_finite_in_any_tail(bounds):
    import torch

    a, b, c, d, rho = bounds
    matrix = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64, requires_grad=True)
    means = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    low, high = torch.tensor([a, c], dtype=torch.float64), torch.tensor([b, d], dtype=torch.float64)
    Box(means, matrix, low, high).log_mass().backward()
    assert torch.isfinite(means.grad).all() and torch.isfinite(matrix.grad).all()


def test_draws_that_would_never_be_accepted_are_refused():
    low = np.array([7.0, -inf, 7.0])
    high = np.array([inf, -7.0, inf])
    matrix = np.array([[1, 0.9, 0.9], [0.9, 1, 0.9], [0.9, 0.9, 1]])
    with pytest.raises(ValueError, match=r"three or more columns .* 2 of 2 rows without a sample"):
        Box(np.zeros((2, 3)), matrix, low, high).draw(0)
