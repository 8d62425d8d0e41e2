"""Starts near a mixture of products: the mixture itself, found by EM, and rings that are not quite it."""

import itertools

import numpy as np
import pytest

import ringdist as rd
from ringdist.learning.mixture import CLUSTER_ROWS, DistinctRows, component_densities, distinct_rows
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


# ---------------------------------------------------------------------------------------------- EM of the mixture


def rows_of(x: np.ndarray, variables: list) -> DistinctRows:
    rows, count = distinct_rows(x)
    return DistinctRows([component_densities(rows[:, [k]], variable) for k, variable in enumerate(variables)], count)


def table_of(seed: int, missing: float) -> tuple[np.ndarray, list]:
    """Categories with and without holes, one that never occurs, a real number and counts; many rows twice."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, 200)
    columns = [(group + rng.integers(0, 2, 200)) % 3, group % 2, rng.normal(3 * group, 1), rng.poisson(2 + 5 * group)]
    x = np.stack(columns, axis=1).astype(float)
    x[:, 1:][rng.random((200, 3)) < missing] = np.nan
    variables = [
        rd.Categorical(4),
        rd.Categorical(2),
        rd.GaussianMixture([0.0, 3.0, 6.0], [1.0, 1.5, 1.0]),
        rd.PoissonMixture([2.0, 9.0]),
    ]
    return np.concatenate([x, x[:50]]), variables


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_expected_counts_are_those_of_the_joint_of_cluster_and_components(missing):
    x, variables = table_of(3, missing)
    rows, rng = rows_of(x, variables), np.random.default_rng(0)
    weights, table = rng.dirichlet(np.ones(5)), rows.shrunk(np.ones(4), rng.random((5, 11)))
    value, held, counts = rows.expected_counts(weights, table)
    densities = [component_densities(x[:, [k]], variable).astype(float) for k, variable in enumerate(variables)]
    tables = np.split(table, rows.starts[1:], axis=1)
    joint = weights * np.prod([density @ own.T for density, own in zip(densities, tables, strict=True)], axis=0)
    posterior = joint / joint.sum(axis=1, keepdims=True)
    assert value == pytest.approx(np.log(joint.sum(axis=1)).mean(), rel=1e-5)
    np.testing.assert_allclose(held, posterior.sum(axis=0), rtol=1e-4)
    expected = []
    for density, own, column in zip(densities, tables, x.T, strict=True):
        within = density[:, None, :] * own  # (n, K, N)
        shares = within / within.sum(axis=2, keepdims=True)
        expected.append(np.einsum("na,nas->as", posterior * ~np.isnan(column)[:, None], shares))
    np.testing.assert_allclose(counts, np.concatenate(expected, axis=1), rtol=1e-3, atol=1e-3)


def test_the_penalised_likelihood_never_falls():
    for seed in range(3):
        x, variables = table_of(seed, 0.2)
        rows, rng = rows_of(x, variables), np.random.default_rng(seed)
        weights, table = rows.start(6, rng)
        prior = np.array([2.0, 0.3, 0.1, 0.1])
        values = []
        for _ in range(40):
            value, held, counts = rows.expected_counts(weights, table)
            penalty = np.repeat(prior, rows.num_components) * rows.share * np.log(table)
            values.append(value * len(x) + penalty.sum() + CLUSTER_ROWS * np.log(weights).sum())
            weights, table = (held + CLUSTER_ROWS) / (held + CLUSTER_ROWS).sum(), rows.shrunk(prior, counts)
        assert np.diff(values).min() > -1e-5 * abs(values[0]), seed


def test_clusters_that_hold_hardly_a_row_become_halves_of_the_heaviest():
    x, variables = table_of(0, 0.0)
    rows, rng = rows_of(x, variables), np.random.default_rng(0)
    weights, table = np.array([0.6, 1e-9, 0.25, 0.15]), rows.shrunk(np.ones(4), rng.random((4, 11)))
    before = table.copy()
    split, tables = rows.without_small_clusters(250 * weights, weights, table, rng)
    np.testing.assert_allclose(split, [0.3, 0.3, 0.25, 0.15])
    np.testing.assert_array_equal(table, before)  # what was given is not written to
    np.testing.assert_array_equal(tables[2:], before[2:])
    for own in np.split(tables, rows.starts[1:], axis=1):
        np.testing.assert_allclose(own.sum(axis=1), 1)
    change = np.log(tables[:2] / before[0])
    assert 0.05 < np.abs(change).mean() < 1 and np.abs(change[0] - change[1]).max() > 0.1, change
    kept, same = rows.without_small_clusters(np.full(4, 62.5), weights, table, rng)
    np.testing.assert_array_equal(kept, weights)
    np.testing.assert_array_equal(same, table)


@pytest.mark.parametrize("weight", [0.5, 5.0, 50.0])
def test_the_weight_of_the_prior_is_that_which_made_the_clusters(weight):
    """Tables drawn from Dirichlet distributions of a known weight around the column's shares."""
    rng = np.random.default_rng(int(weight))
    mean = np.array([0.5, 0.3, 0.2])
    rows = rows_of(rng.choice(3, size=(30_000, 1), p=mean).astype(float), [rd.Categorical(3)])
    counts = np.array([rng.multinomial(100, rng.dirichlet(weight * mean)) for _ in range(300)], dtype=float)
    prior = np.ones(1)
    for _ in range(200):
        prior = rows.fitted_prior(prior, counts)
    assert prior[0] == pytest.approx(weight, rel=0.2)


def test_categories_that_never_occur_stay_possible():
    x = np.stack([np.arange(300) % 2, np.arange(300) // 150], axis=1).astype(float)
    ring = rd.initialize(x, [rd.Categorical(6), rd.Categorical(3)], 4, method="mixture", spread=0.0, rng=0)
    unseen = ring.log_prob(np.array([[5.0, 0.0], [0.0, 2.0], [5.0, 2.0]]))
    assert np.isfinite(unseen).all() and unseen.max() < -4, unseen


def test_distinct_rows_are_counted():
    x = np.array([[0.0, np.nan], [1.0, 2.0], [-0.0, np.nan], [1.0, 3.0], [1.0, 2.0], [0.0, -np.nan]])
    rows, count = distinct_rows(x)
    found = {tuple(np.nan_to_num(row, nan=9)): times for row, times in zip(rows, count, strict=True)}
    assert found == {(0.0, 9.0): 3, (1.0, 2.0): 2, (1.0, 3.0): 1}


def test_equal_rows_count_as_often_as_they_occur():
    """The rows of a table twice over are the same table, but for the priors' weight in rows."""
    x = clusters(300, 0.1)
    once = rd.initialize(x, FAMILIES, 3, method="mixture", spread=0.0, rng=0)
    twice = rd.initialize(np.concatenate([x, x]), once.variables, 3, method="mixture", spread=0.0, rng=0)
    assert abs(np.mean(once.log_prob(x)) - np.mean(twice.log_prob(x))) < 0.1


def test_many_rows_are_sampled(monkeypatch):
    monkeypatch.setattr("ringdist.learning.mixture.MOST_ROWS", 200)
    monkeypatch.setattr("ringdist.learning.mixture.ROWS_PER_CLUSTER", 50)
    x = clusters(4000, 0.0)
    few = rd.initialize(x, FAMILIES, 3, method="mixture", spread=0.0, rng=0)
    monkeypatch.setattr("ringdist.learning.mixture.MOST_ROWS", 10_000)
    every = rd.initialize(x, few.variables, 3, method="mixture", spread=0.0, rng=0)
    assert abs(np.mean(few.log_prob(x)) - np.mean(every.log_prob(x))) < 0.3


@pytest.mark.parametrize("size", [3, 4, 9])
def test_every_distinct_row_starts_a_cluster_where_there_are_enough(size):
    """A rare row may not be drawn by chance: EM hardly finds it later."""
    x = np.repeat(np.eye(3), (96, 3, 1), axis=0)
    rows = rows_of(x, [rd.Categorical(2)] * 3)
    for seed in range(5):
        weights, table = rows.start(size, np.random.default_rng(seed))
        joint = [np.log(weights) + np.log(table[:, 2 * np.arange(3) + row]).sum(axis=1) for row in np.eye(3, dtype=int)]
        assert len(set(np.argmax(joint, axis=1))) == 3, seed
