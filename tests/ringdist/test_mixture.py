"""Starts near a mixture of products: the mixture itself, found by EM, and rings that are not quite it."""

import itertools

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def backend(request):
    return load_backend(request.param)


def clusters(n: int = 600, missing: float = 0.1) -> np.ndarray:
    """Three clusters over a category, a real number and counts; some entries missing."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, n)
    x = np.stack([(group + (rng.random(n) < 0.1)) % 3, rng.normal(6 * group, 1), rng.poisson(1 + 10 * group)], 1)
    return np.where(rng.random(x.shape) < missing, np.nan, x)


FAMILIES = [rd.Categorical, rd.GaussianMixture, rd.PoissonMixture]


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_without_spread_the_ring_is_a_mixture_of_products(backend, topology):
    """Given the cluster, which the bond is, all columns are independent: cores diagonal, and Σ_a π_a ∏ p_a(x_k)."""
    ring = rd.initialize(
        clusters(), FAMILIES, 3, order=[2, 0, 1], topology=topology, method="mixture", spread=0.0, rng=1, xp=backend.xp
    )
    q = [backend.numpy(core) for core in ring.cores]
    if topology == "ring":
        assert all((core[:, ~np.eye(3, dtype=bool)] == 0).all() for core in q)
        tables = [np.diagonal(core, axis1=1, axis2=2) for core in q]  # (N, K)
    else:
        tables = [np.diagonal(q[0], axis1=1, axis2=2), q[1][:, :, 0], q[2][:, 0, :]]
    weights = tables[2].sum(0)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    for table in tables[:2]:
        np.testing.assert_allclose(table.sum(0), 1, rtol=1e-5)
    means = np.sort((np.asarray(backend.numpy(ring.variables[1].means())) @ tables[1])[: len(weights)])
    np.testing.assert_allclose(means, [0, 6, 12], atol=2.0)


def test_em_of_a_mixture_finds_clusters_that_are_there():
    """Held-out rows, against the likelihood under independence and that of the clusters that made them."""
    x = clusters(1200, 0.0)
    mixture = rd.initialize(x[:600], FAMILIES, 3, num_components=12, method="mixture", spread=0.0, rng=0)
    independent = rd.initialize(x[:600], mixture.variables, 1, rng=0)
    independent = rd.fit_em(independent, x[:600], max_epochs=1).ring
    gain = np.mean(mixture.log_prob(x[600:]) - independent.log_prob(x[600:]))
    assert gain > 1.5, gain  # knowing one of three clusters three times instead of once: nearly 2 log 3 = 2.2


def test_entries_that_are_missing_are_marginalised():
    """A column of nothing but holes beside others changes nothing for them."""
    x = clusters()[:, [0, 2]]
    given = [rd.Categorical(3), rd.PoissonMixture([1.0, 11.0, 21.0]), rd.GaussianMixture([0.0], [1.0])]
    alone = rd.initialize(x, given[:2], 3, method="mixture", spread=0.0, rng=0)
    beside = rd.initialize(np.column_stack([x, np.full(len(x), np.nan)]), given, 3, method="mixture", spread=0.0, rng=0)
    chosen = np.array(list(itertools.product(range(3), [0, 8, 20])), dtype=float)
    holes = np.column_stack([chosen, np.full(len(chosen), np.nan)])
    assert np.isfinite(alone.log_prob(chosen)).all() and np.isfinite(beside.log_prob(holes)).all()
    assert abs(alone.log_prob(x).mean() - beside.log_prob(np.column_stack([x, x[:, 0] * np.nan])).mean()) < 0.05


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("rank", [1, 2, 7])
def test_with_spread_em_starts_near_and_gets_better(topology, rank):
    x = clusters()
    start = rd.initialize(x, FAMILIES, rank, topology=topology, method="mixture", spread=0.1, rng=0)
    assert start.is_train == (topology == "train" or rank == 1)
    assert all((np.asarray(core) > 0).all() for core in start.cores)
    assert abs(float(start.log_normalizer())) < 1
    history = rd.fit_em(start, x, max_epochs=5).history["train"]
    assert history[-1] > np.mean(start.log_prob(x)) and np.diff(history).min() > -1e-9


@pytest.mark.parametrize("d", [1, 2])
def test_few_columns_and_few_rows(d):
    for topology in ("ring", "train"):
        x = clusters(4, 0.0)[:, :d]
        ring = rd.initialize(x, FAMILIES[:d], 5, topology=topology, method="mixture", rng=0)  # more clusters than rows
        assert np.isfinite(ring.log_prob(x)).all(), ring


def test_the_seed_decides():
    starts = [rd.initialize(clusters(), FAMILIES, 3, method="mixture", rng=seed) for seed in (0, 0, 1)]
    assert all((a == b).all() for a, b in zip(starts[0].cores, starts[1].cores, strict=True))
    assert not all((a == b).all() for a, b in zip(starts[0].cores, starts[2].cores, strict=True))


def test_data_and_options_that_do_not_fit():
    x = clusters()
    with pytest.raises(ValueError, match=r"one rank for all bonds, found \[2, 3, 2\]"):
        rd.initialize(x, FAMILIES, [2, 3, 2], method="mixture", rng=0)
    with pytest.raises(ValueError, match=r"spread must be between 0 and 1, found 1\.5"):
        rd.initialize(x, FAMILIES, 2, method="mixture", spread=1.5, rng=0)
    with pytest.raises(ValueError, match=r"column 0: category 7 is outside 0\.\.2"):
        rd.initialize(np.array([[0.0], [7.0]]), [rd.Categorical(3)], 2, method="mixture", rng=0)
    with pytest.raises(ValueError, match="column 1: values must be finite"):
        rd.initialize(np.array([[0, 1.0], [1, np.inf]]), [None, rd.GaussianMixture([0.0], [1.0])], 2, rng=0)
