"""Starts that are mixtures of Markov chains: against enumeration, planted chains, and what EM keeps of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ringdist as rd
from ringdist.learning import chains
from ringdist.learning.mixture import Mixture

pytestmark = pytest.mark.slow_on("jax")


def planted(n: int, d: int, seed: int, clusters: int = 2, keep: float = 0.85) -> np.ndarray:
    """(n, d) of two kinds of rows: each column mostly repeats the one before it, or mostly differs from it."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(clusters, size=n)
    x = rng.integers(2, size=(n, d))
    for k in range(1, d):
        same = rng.random(n) < np.where(kind == 0, keep, 1 - keep)
        x[:, k] = np.where(same, x[:, k - 1], 1 - x[:, k - 1])
    return x


def start(x, variables=None, rank=4, **options):
    variables = variables or [rd.Categorical(2)] * x.shape[1]
    return rd.initialize(x, variables, rank, core="cp", topology="train", method="chains", rng=0, **options)


def test_the_train_is_the_mixture_of_chains(backend, monkeypatch):
    rng = np.random.default_rng(0)
    sizes, order = [2, 3, 2], [1, 0, 2]
    x = np.stack([rng.integers(size, size=60) for size in sizes], axis=1).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    mixture = Mixture(np.array([0.3, 0.7]), [rng.dirichlet(np.ones(size), 2) for size in sizes])
    monkeypatch.setattr("ringdist.learning.starts.fit_mixture", lambda *_: mixture)
    ring = start(
        x, [rd.Categorical(size) for size in sizes], 6, order=order, spread=0.0, xp=backend.xp, device=backend.device
    )
    transitions = []
    for before, after in itertools.pairwise(order):
        counts = np.zeros((2, sizes[before], sizes[after]))
        for row in x:
            shares = [
                table if np.isnan(value) else np.tile(np.arange(table.shape[1]) == value, (2, 1))
                for table, value in zip(mixture.tables, row, strict=True)
            ]
            seen = [
                np.ones(2) if np.isnan(value) else table[:, int(value)]
                for table, value in zip(mixture.tables, row, strict=True)
            ]
            posterior = mixture.weights * np.prod(seen, axis=0)
            posterior /= posterior.sum()
            counts += posterior[:, None, None] * shares[before][:, :, None] * shares[after][:, None, :]
        counts += chains.PRIOR_ROWS * mixture.tables[after][:, None, :]
        transitions.append(counts / counts.sum(axis=2, keepdims=True))
    for values in itertools.product(*(range(size) for size in sizes)):
        first, second, third = (values[k] for k in order)
        mass = mixture.weights * mixture.tables[order[0]][:, first]
        mass = mass * transitions[0][:, first, second] * transitions[1][:, second, third]
        found = backend.numpy(ring.log_prob(backend.array(np.array([values], dtype=float))))[0]
        assert found == pytest.approx(np.log(mass.sum()), rel=1e-5)


@pytest.mark.parametrize("keep", [0.75, 0.9])
def test_chains_within_clusters_are_found(keep):
    """The columns alone say nothing, and neither do products of clusters: neighbours do."""
    x, test = planted(3000, 10, 0, keep=keep), planted(3000, 10, 1, keep=keep)
    ring = start(x, rank=8, spread=0.0)
    fitted = rd.fit_em(ring, x, max_epochs=60).ring
    logs = [np.where(test[:, 1:] == test[:, :-1], p, 1 - p) for p in (keep, 1 - keep)]
    truth = np.mean(np.log(0.5 * 0.5 * sum(np.prod(part, axis=1) for part in logs)))
    assert truth - 0.15 < fitted.log_prob(test).mean() < truth + 0.02
    assert (
        fitted.log_prob(test).mean()
        > rd.initialize(
            x, [rd.Categorical(2)] * 10, 8, core="cp", topology="train", method="mixture", spread=0.0, rng=0
        )
        .log_prob(test)
        .mean()
    )


def test_em_keeps_to_the_chains_without_spread_and_leaves_them_with():
    x = planted(200, 6, 2)
    for spread in (0.0, 0.1):
        ring = start(x, rank=4, spread=spread)
        fitted = rd.fit_em(ring, x, max_epochs=5, smoothing=0.5).ring
        for core in fitted.links[1:-1]:
            other = np.asarray(core.right).reshape(2, 2, 2, 2)[[0, 1], :, [1, 0], :]  # into the other cluster
            assert (other > 0).all() if spread else (other == 0).all()


@pytest.mark.parametrize("spread", [0.0, 0.04])
def test_cores_are_normalised(spread):
    ring = start(planted(100, 5, 3), rank=4, spread=spread)
    assert float(ring.log_normalizer()) == pytest.approx(0.0, abs=1e-9)
    assert ring.ranks == (1, 4, 4, 4, 4)


def test_mixed_columns_of_unequal_sizes_and_missing_entries():
    rng = np.random.default_rng(4)
    group = rng.integers(2, size=300)
    x = np.stack([group, rng.normal(4 * group, 1.0), rng.poisson(2 + 10 * group)], axis=1).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    given = x.copy()
    ring = start(x, [None, rd.GaussianMixture, rd.PoissonMixture], 8, num_components=4, spread=0.0)
    np.testing.assert_array_equal(x, given)
    assert ring.ranks == (1, 8, 8)  # two clusters of four components
    fitted = rd.fit_em(ring, x, max_epochs=10).ring
    assert fitted.log_prob(x).mean() > ring.log_prob(x).mean()


def test_a_rank_below_the_components_is_one_chain():
    ring = start(planted(50, 4, 5), rank=1, spread=0.0)
    assert ring.ranks == (1, 2, 2, 2)


def test_chunks_of_rows_change_nothing(monkeypatch):
    x = planted(100, 5, 6)
    whole = start(x, rank=6)
    monkeypatch.setattr(chains, "CHUNK", 7)
    np.testing.assert_allclose(start(x, rank=6).log_prob(x), whole.log_prob(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"topology": "ring"},
            "method chains needs topology='train' and core='cp', found topology 'ring' and core 'cp'",
        ),
        ({"core": "dense"}, "found topology 'train' and core 'dense'"),
        ({"tied": True}, "tied=True needs method quantile or kmeans"),
        ({"spread": 1.5}, "spread must be between 0 and 1"),
        ({"rank": [1, 2, 2, 2]}, "needs one rank for all bonds"),
        ({"inner": 3}, "inner must be None, found 3"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    settings = {"rank": 4, "topology": "train", "core": "cp", "method": "chains", "rng": 0, **options}
    with pytest.raises(ValueError, match=message):
        rd.initialize(planted(20, 4, 7), [rd.Categorical(2)] * 4, **settings)
