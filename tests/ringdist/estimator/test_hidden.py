"""Scores of hidden entries, against the answers of the rings and of their mixture, one row after the other."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.estimator.columns import Column
from ringdist.estimator.hidden import FARTHEST, LEAST, PARTS, WEIGHT, Guesses, Hidden, joined

COLUMNS = [
    Column("a"),
    Column("b", categories=np.array(["x", "y", "z"])),
    Column("c"),
    Column("d"),
    Column("e", categories=np.array([0, 1])),
]


def rings(seed: int) -> tuple[rd.TensorRing, rd.TensorRing]:
    rng = np.random.default_rng(seed)

    def gaussian() -> rd.GaussianMixture:
        return rd.GaussianMixture(rng.normal(size=3), rng.uniform(0.5, 1.5, size=3))

    plain = [gaussian(), rd.Categorical(3), gaussian(), gaussian(), rd.Categorical(2)]
    covariances = np.stack([np.eye(2) + 0.5, 2 * np.eye(2) - 0.5])
    wide = rd.MultivariateGaussianMixture(rng.normal(size=(2, 2)), covariances)
    return (
        rd.TensorRing.random(plain, 2, rng=seed),
        rd.TensorRing.random(
            [plain[0], wide, rd.Categorical(3), rd.Categorical(2)], 3, columns=[[0], [3, 2], [1], [4]], rng=seed
        ),
    )


def table(seed: int, n: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    x[:, 1], x[:, 4] = rng.integers(3, size=n), rng.integers(2, size=n)
    return np.where(rng.random(x.shape) < 0.2, np.nan, x)


@pytest.mark.parametrize("seed", range(3))
def test_guesses_are_conditional_means_and_probabilities(seed: int) -> None:
    x = table(seed)
    hidden = Hidden.of_rows(x, COLUMNS, x, seed)
    for ring in rings(seed):
        guesses = hidden.guesses(ring)
        for i, row in enumerate(x):
            assert sorted(np.unique(hidden.part[i])) == list(range(PARTS))
            for k, value in enumerate(row):
                given = np.where(hidden.part[i] == hidden.part[i, k], np.nan, row)
                np.testing.assert_allclose(guesses.logs[hidden.part[i, k], i], ring.log_prob(given), atol=1e-10)
                if np.isnan(value):
                    continue
                expected = (
                    ring.component_posterior(k, given)[int(value)] if hidden.categorical[k] else ring.mean(given)[k]
                )
                np.testing.assert_allclose(guesses.values[i, k], expected, atol=1e-10)


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_scores_are_those_of_the_mixture(weight: float) -> None:
    x = table(7)
    hidden = Hidden.of_rows(x, COLUMNS, x, 0)
    first = rings(7)[0]
    second = rd.TensorRing.random(rings(8)[0].variables, 2, rng=9)
    mixture = rd.RingMixture([first, second], [weight, 1 - weight])
    values = np.stack([ring.log_prob(x) for ring in mixture.rings])
    scores = hidden.scores(values, [hidden.guesses(ring) for ring in mixture.rings], np.array([weight, 1 - weight]))
    for i, row in enumerate(x):
        expected = float(mixture.log_prob(row))
        for k in np.flatnonzero(~np.isnan(row)):
            given = np.where(hidden.part[i] == hidden.part[i, k], np.nan, row)
            if hidden.categorical[k]:
                expected += WEIGHT * np.log(mixture.component_posterior(int(k), given)[int(row[k])])
            else:
                expected -= WEIGHT * 0.5 * ((mixture.mean(given)[k] - row[k]) / np.nanstd(x[:, k])) ** 2
        np.testing.assert_allclose(scores[i], expected, atol=1e-9)


def test_what_is_impossible_or_has_no_mean_scores_a_bounded_loss() -> None:
    x = np.array([[3.0, 1.0, 0.0, 2.0, 1.0]])
    every = np.concatenate([x - 2.0, x - 1.0, x])
    hidden = Hidden.of_rows(x, COLUMNS, every, 0)
    values = np.array([[np.nan, 0.0, 1e300, 2.0, 1.0]])
    score = hidden.scores(np.full((1, 1), 2.5), [Guesses(np.zeros((PARTS, 1)), values)], np.ones(1))
    expected = 2.5 + WEIGHT * (-0.5 / every[:, 0].var() + np.log(LEAST) - 0.5 * FARTHEST**2)
    np.testing.assert_allclose(score, expected)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_numbers_at_the_ends_of_the_range(size: float) -> None:
    x = table(4)
    whole, scaled = x.copy(), x.copy()
    scaled[:, [0, 2, 3]] *= size
    values = np.where(np.isnan(x), 0.0, 0.5)
    scores = [
        Hidden.of_rows(rows, COLUMNS, rows, 0).scores(
            np.zeros((1, len(x))), [Guesses(np.zeros((PARTS, len(x))), guess)], np.ones(1)
        )
        for rows, guess in ((whole, values), (scaled, np.where([1, 0, 1, 1, 0], values * size, values)))
    ]
    np.testing.assert_allclose(*scores)


def test_rows_one_after_the_other() -> None:
    x = table(3)
    hidden, ring = Hidden.of_rows(x, COLUMNS, x, 0), rings(3)[0]
    parts = joined([hidden.guesses(ring, slice(0, 5)), hidden.guesses(ring, slice(5, None))])
    for found, expected in zip(parts, hidden.guesses(ring), strict=True):
        np.testing.assert_allclose(found, expected)
