"""Scores of hidden entries, against the answers of the rings and of their mixture, one row after the other."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.estimator.columns import Column
from ringdist.estimator.folds import Fold, fold_of, folds_of
from ringdist.estimator.hidden import (
    DIVISIONS,
    FARTHEST,
    FEWEST,
    HELD_OUT_WEIGHT,
    LEARNT_WEIGHT,
    LEAST,
    NEVER,
    PARTS,
    Guesses,
    Hidden,
    joined,
)

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


def held_out(x: np.ndarray, seed: int = 0) -> Hidden:
    """Rows none of which is learnt from."""
    none = np.arange(0)
    return Hidden.of_folds(x, [Fold(none, np.arange(len(x)), none)], COLUMNS, seed)


def two_folds(x: np.ndarray, seed: int) -> Hidden:
    rng, half = np.random.RandomState(seed), len(x) // 2
    first, second = np.arange(half), np.arange(half, len(x))
    return Hidden.of_folds(x, [fold_of(first, second, rng), fold_of(second, first, rng)], COLUMNS, seed)


@pytest.mark.parametrize("seed", range(3))
def test_guesses_are_conditional_means_and_probabilities(seed: int) -> None:
    hidden = two_folds(table(seed, 60), seed)
    assert hidden.is_learnt.sum() == 14
    for ring in rings(seed):
        guesses = joined([hidden.guesses(ring, 0), hidden.guesses(ring, 1)])
        for i, row in enumerate(hidden.rows):
            found = sorted(np.unique(hidden.part[i]))
            assert found == ([NEVER, 0] if hidden.is_learnt[i] else list(range(PARTS)))
            for k, value in enumerate(row):
                if hidden.part[i, k] == NEVER:
                    assert np.isnan(guesses.values[i, k])
                    continue
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
    x = table(7, 60)
    hidden = two_folds(x, 0)
    rows, learnt = hidden.rows, hidden.is_learnt
    first = rings(7)[0]
    second = rd.TensorRing.random(rings(8)[0].variables, 2, rng=9)
    mixture = rd.RingMixture([first, second], [weight, 1 - weight])
    values = np.stack([ring.log_prob(rows[~learnt]) for ring in mixture.rings])
    guesses = [joined([hidden.guesses(ring, number) for number in range(2)]) for ring in mixture.rings]
    scores = hidden.scores(values, guesses, np.array([weight, 1 - weight]))
    for i, row in enumerate(rows):
        completed = 0.0
        for k in np.flatnonzero(~np.isnan(row) & (hidden.part[i] != NEVER)):
            given = np.where(hidden.part[i] == hidden.part[i, k], np.nan, row)
            if hidden.categorical[k]:
                completed += np.log(mixture.component_posterior(int(k), given)[int(row[k])])
            else:
                completed -= 0.5 * ((mixture.mean(given)[k] - row[k]) / np.nanstd(x[:, k])) ** 2
        expected = LEARNT_WEIGHT * PARTS * completed
        if not learnt[i]:
            expected = float(mixture.log_prob(row)) + HELD_OUT_WEIGHT * completed
        share = (learnt if learnt[i] else ~learnt).mean()
        np.testing.assert_allclose(scores[i], expected / share, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_entries_are_hidden_from_the_fit_that_completes_them(seed: int) -> None:
    x = table(seed, 300)
    x[8:, 3] = np.nan  # too few to hide one
    folds = folds_of(len(x), np.random.RandomState(seed))
    hidden = Hidden.of_folds(x, folds, COLUMNS, seed)
    rows = []
    for number, fold in enumerate(folds):
        assert np.isin(fold.masked, fold.learn).all() and not np.isin(fold.held_out, fold.learn).any()
        hide = hidden.hidden_from(number)
        assert hide[~np.isin(fold.learn, fold.masked)].sum() == 0 and hide.any(axis=0).tolist() == [1, 1, 1, 0, 1]
        assert (hide.sum(axis=1) <= 1).all()
        rows += [x[fold.held_out], x[fold.masked]]
        begin = sum(map(len, rows)) - len(fold.masked)
        part = hidden.part[begin : begin + len(fold.masked)]
        np.testing.assert_array_equal(part == 0, hide[np.isin(fold.learn, fold.masked)])
    np.testing.assert_array_equal(hidden.rows, np.concatenate(rows))
    assert 8 < FEWEST


@pytest.mark.parametrize("d", [1, 3, 6, 7, 30])
def test_a_fifth_of_the_entries_is_hidden_in_few_patterns(d: int) -> None:
    n, rng = 2000, np.random.RandomState(d)
    folds = folds_of(n, rng)
    hidden = Hidden.of_folds(rng.normal(size=(n, d)), folds, [Column(str(k)) for k in range(d)], d)
    hide = hidden.hidden_from(0)
    masked = hide[np.isin(folds[0].learn, folds[0].masked)]
    np.testing.assert_array_equal(masked.sum(axis=0), len(masked) // PARTS)
    assert len(np.unique(masked, axis=0)) <= PARTS * DIVISIONS
    parts = hidden.part[~hidden.is_learnt]
    assert len(np.unique(parts, axis=0)) <= DIVISIONS
    sizes = np.stack([(parts == part).sum(axis=1) for part in range(PARTS)])
    assert set(np.unique(sizes)) <= {d // PARTS, -(-d // PARTS)}


def test_what_is_impossible_or_has_no_mean_scores_a_bounded_loss() -> None:
    x = np.array([[3.0, 1.0, 0.0, 2.0, 1.0]])
    every = np.concatenate([x, x - 2.0, x - 1.0])
    none = np.arange(0)
    hidden = Hidden.of_folds(every, [Fold(none, np.arange(1), none)], COLUMNS, 0)
    values = np.array([[np.nan, 0.0, 1e300, 2.0, 1.0]])
    score = hidden.scores(np.full((1, 1), 2.5), [Guesses(np.zeros((PARTS, 1)), values)], np.ones(1))
    expected = 2.5 + HELD_OUT_WEIGHT * (-0.5 / every[:, 0].var() + np.log(LEAST) - 0.5 * FARTHEST**2)
    np.testing.assert_allclose(score, expected)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_numbers_at_the_ends_of_the_range(size: float) -> None:
    x = table(4)
    original, scaled = x.copy(), x.copy()
    scaled[:, [0, 2, 3]] *= size
    values = np.where(np.isnan(x), 0.0, 0.5)
    scores = [
        held_out(rows).scores(np.zeros((1, len(x))), [Guesses(np.zeros((PARTS, len(x))), guess)], np.ones(1))
        for rows, guess in ((original, values), (scaled, np.where([1, 0, 1, 1, 0], values * size, values)))
    ]
    np.testing.assert_allclose(*scores)
