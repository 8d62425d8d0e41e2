"""EM of wide variables whose covariances have few factors, beside scikit-learn's factor analysis."""

import pickle

import numpy as np
import pytest

import ringdist as rd
from ringdist.variables.factors import factored
from tests.backends import assert_close

pytestmark = pytest.mark.slow_on("jax")

WIDE = rd.MultivariateGaussianMixture


def planted(n, seed=0, w=10, q=2, components=2):
    """Rows of a mixture of factor analysers, its columns in other units."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(components, w, q)) * 1.5
    means, noise = 3 * rng.normal(size=(components, w)), rng.uniform(0.2, 0.6, size=(components, w))
    s = rng.integers(components, size=n)
    hidden = rng.normal(size=(n, q, 1))
    x = means[s] + (loadings[s] @ hidden)[..., 0] + noise[s] * rng.normal(size=(n, w))
    return x * 10.0 ** rng.integers(-3, 4, size=w)


def with_holes(x, share, seed=0):
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


def started(x, components=2, rank=1, topology="train", families=(WIDE,), **options):
    return rd.initialize(x, list(families), rank, num_components=components, topology=topology, rng=0, **options)


def cross_rank(matrix, q):
    """The greatest singular value beyond the q-th of the correlations of one half of the columns with the other."""
    stds, half = np.sqrt(np.diag(matrix)), len(matrix) // 2
    values = np.linalg.svd((matrix / stds / stds[:, None])[:half, half:], compute_uv=False)
    return values[q:].max(initial=0.0)


@pytest.mark.parametrize("q", [1, 2, 4])
def test_one_component_is_factor_analysis(q):
    from sklearn.decomposition import FactorAnalysis

    x = planted(150, seed=q, components=1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = FactorAnalysis(q, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(x)
    ring, history = rd.fit_em(started(x, 1), x, num_factors=q, max_epochs=200, variance_floor=1e-9)
    assert_close(history["train"][-1], expected.score(x), ring, rtol=1e-6)
    assert_close(ring.variables[0].covariances()[0], expected.get_covariance(), ring, atol=2e-3)


@pytest.mark.parametrize("q", [9, 10, 100])
def test_as_many_factors_as_there_can_be_are_any_covariance(q):
    x = planted(100)
    full, few = (rd.fit_em(started(x), x, num_factors=n, max_epochs=8)[0] for n in (None, q))
    assert_close(few.log_prob(x), full.log_prob(x), few)


@pytest.mark.parametrize("q", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_never_falls(q, seed):
    x = with_holes(planted(90, seed), 0.1 * seed, seed)
    ring, history = rd.fit_em(started(x, 3), x, num_factors=q, max_epochs=30)
    assert np.diff(history["train"]).min() > -1e-9, history
    for matrix in ring.variables[0].covariances():
        assert cross_rank(matrix, q) < 1e-9
        assert q > 0 or np.count_nonzero(matrix) == len(matrix)


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_of_rings_and_mixtures_of_rings_never_falls(seed):
    x = with_holes(planted(80, seed, w=12), 0.1, seed)
    families = [WIDE, WIDE]
    sites = [list(range(0, 12, 2)), list(range(1, 12, 2))]
    rings = [started(x, 3, 2, topology, families, columns=sites) for topology in ("ring", "train")]
    for model in (rings[0], rd.RingMixture(rings, [0.5, 0.5])):
        fitted, history = rd.fit_em(model, x, num_factors=2, max_epochs=12)
        assert np.diff(history["train"]).min() > -1e-9, history
        for ring in getattr(fitted, "rings", [fitted]):
            assert max(cross_rank(m, 2) for v in ring.variables for m in v.covariances()) < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_planted_factors_are_found_where_rows_are_few(seed):
    x = planted(1060, seed)
    learn, held_out = x[:60], x[60:]
    values = {
        (q, rows): rd.fit_em(started(learn), learn, num_factors=q, shrinkage=rows, max_epochs=30)[0]
        .log_prob(held_out)
        .mean()
        for q in (None, 2)
        for rows in (0.0, 0.2, 1.0)
    }
    assert values[2, 0.0] > values[None, 0.0] + 0.3, values
    assert max(values[2, 0.0], values[2, 0.2]) > max(values[None, rows] for rows in (0.0, 0.2, 1.0)) + 0.3, values


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_at_least_the_floor(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 5)) * 10.0 ** np.arange(5)
    x[:, 2], x[:, 4] = x[:, 1] * 10, 7.0  # exactly dependent, and constant
    ring, history = rd.fit_em(started(x), x, num_factors=2, max_epochs=30, variance_floor=1e-3)
    least = np.sqrt(1e-3) * x[:, :4].std(axis=0)
    for matrix in ring.variables[0].covariances()[:, :4, :4]:
        assert np.linalg.eigvalsh(matrix / least / least[:, None]).min() > 1 - 1e-6
    assert np.diff(history["train"]).min() > -1e-9


def test_units_do_not_matter():
    x = with_holes(planted(120), 0.1)
    unit = 10.0 ** np.arange(-5, 5)
    fits = [rd.fit_em(started(rows), rows, num_factors=2, max_epochs=10)[0] for rows in (x, x * unit)]
    shift = ~np.isnan(x) @ np.log(unit)
    assert_close(fits[1].log_prob(x * unit) + shift, fits[0].log_prob(x), fits[0], rtol=1e-6)


def test_every_backend(backend, dtype):
    x = with_holes(planted(70, w=6), 0.1)
    x = (x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)
    expected = rd.fit_em(started(x), x, num_factors=2, max_epochs=4)[0]
    start = started(x).to(backend.xp, dtype=dtype, device=backend.device)
    ring, _ = rd.fit_em(start, x, num_factors=2, max_epochs=4)
    assert ring.cores[0].dtype == backend.dtype(dtype)
    found = backend.numpy(ring.variables[0].covariances())
    rtol = 1e-6 if dtype == "float64" else 2e-2
    assert_close(found, expected.variables[0].covariances(), ring, rtol=rtol, atol=rtol)


def test_a_fit_goes_on_where_it_stopped():
    x = planted(150)
    ring, history = rd.fit_em(started(x), x, num_factors=2, max_epochs=60)
    for again in (ring, pickle.loads(pickle.dumps(ring)), ring.to(dtype=np.float64)):
        _, more = rd.fit_em(again, x, num_factors=2, max_epochs=2)
        assert more["train"][0] > history["train"][-1] - 1e-3


@pytest.mark.parametrize("batch_size", [40, 1000])
def test_mini_batches(batch_size):
    x = planted(300)
    start = started(x)
    ring, _ = rd.fit_em(start, x, num_factors=2, max_epochs=20, batch_size=batch_size, step_decay="linear", rng=0)
    whole, _ = rd.fit_em(start, x, num_factors=2, max_epochs=40)
    assert abs(ring.log_prob(x).mean() - whole.log_prob(x).mean()) < 0.5
    assert max(cross_rank(matrix, 2) for matrix in ring.variables[0].covariances()) < 1e-9


def test_other_columns_beside_a_wide_one():
    x = planted(100, w=6)
    x = np.concatenate([x, np.random.default_rng(0).integers(3, size=(100, 1))], axis=1)
    sites = [[0], [1, 2, 3, 4, 5], [6]]
    families = [rd.GaussianMixture, WIDE, rd.Categorical(3)]
    ring, history = rd.fit_em(started(x, 3, 2, "train", families, columns=sites), x, num_factors=1, max_epochs=10)
    assert np.diff(history["train"]).min() > -1e-9
    assert max(cross_rank(matrix, 1) for matrix in ring.variables[1].covariances()) < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_a_step_is_at_least_as_good_as_any_loadings_for_the_noise(seed):
    rng = np.random.default_rng(seed)
    w, q = 5 + seed, 1 + seed % 3
    scatter = rng.normal(size=(w, 2 * w))
    scatter = scatter @ scatter.T / (2 * w)
    noise, loadings = rng.uniform(0.1, 1.0, size=w), rng.normal(size=(w, q))

    def value(matrix):
        return -0.5 * (np.linalg.slogdet(matrix)[1] + np.trace(np.linalg.solve(matrix, scatter)))

    values = [value(loadings @ loadings.T + np.diag(noise))]
    for steps in range(12):
        matrices, found = factored(scatter[None], noise[None], np.full((1, w), 0.3), q, steps)
        assert found.min() >= 0.09 - 1e-12
        assert np.linalg.matrix_rank(matrices[0] - np.diag(found[0]), tol=1e-9) <= q
        values.append(value(matrices[0]))
    assert np.diff(values[1:]).min() > -1e-10
    assert values[1] >= value(loadings @ loadings.T + np.diag(np.maximum(noise, 0.09)))


@pytest.mark.parametrize("value", [-1, 1.5, True, "2", float("nan")])
def test_wrong_numbers_of_factors(value):
    x = planted(20)
    with pytest.raises(ValueError, match="num_factors must be None or an integer of at least 0, found"):
        rd.fit_em(started(x), x, num_factors=value)
