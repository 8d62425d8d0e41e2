"""A target that the fit knows of: scores of its conditional distribution, weights, and what `predict` asks for."""

import numpy as np
import pandas as pd
import pytest

import ringdist as rd
from ringdist.engines import budget
from ringdist.estimator.folds import Fold
from ringdist.estimator.hidden import joined
from ringdist.estimator.target import Target


def rings(seed: int, number: int) -> list[rd.TensorRing]:
    rng = np.random.default_rng(seed)
    variables = [rd.Categorical(3), rd.GaussianMixture(rng.normal(size=3), [1.0, 0.5, 2.0]), rd.Categorical(2)]
    return [rd.TensorRing.random(variables, 2, rng=seed + k) for k in range(number)]


def table(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.integers(3, size=n), rng.normal(size=n), rng.integers(2, size=n)], axis=1)
    return np.where((rng.random(x.shape) < 0.2) & (np.arange(3) > 0), np.nan, x)


def folds_with(*held_out: slice) -> list[Fold]:
    """Folds whose held-out rows these are; nothing is learnt from the others."""
    none = np.arange(0)
    return [Fold(none, np.arange(part.start, part.stop), none) for part in held_out]


@pytest.mark.parametrize("column", [0, 1])
def test_scores_are_conditional_log_likelihoods_of_the_mixture(column: int) -> None:
    x, members = table(column, 30), rings(3, 3)
    weights = np.array([0.2, 0.5, 0.3])
    target = Target(x, folds_with(slice(0, 9), slice(9, 30)), column)
    values = np.stack([ring.log_prob(x) for ring in members])
    halves = [joined([target.guesses(ring, 0), target.guesses(ring, 1)]) for ring in members]
    mixture = rd.RingMixture(members, weights)
    rest = x.copy()
    rest[:, column] = np.nan
    expected = mixture.log_prob(x) - mixture.log_prob(rest)
    np.testing.assert_allclose(target.scores(values, halves, weights), expected, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_weights_maximise_the_score(seed: int) -> None:
    members = rings(seed, 3)
    x = np.asarray(rd.RingMixture(members, [0.6, 0.3, 0.1]).sample(4000, rng=seed))
    target = Target(x, folds_with(slice(0, 4000)), 0)
    values, guesses = np.stack([ring.log_prob(x) for ring in members]), [target.guesses(ring, 0) for ring in members]
    weights = target.weights(values, guesses)
    assert weights.min() > 0 and abs(weights.sum() - 1) < 1e-12
    best = target.scores(values, guesses, weights).mean()
    for other in np.random.default_rng(seed).dirichlet(np.ones(3), size=50):
        assert target.scores(values, guesses, other).mean() < best + 0.01


def test_validation_of_a_target_is_conditional() -> None:
    x = table(5, 60)
    ring = rings(5, 1)[0]
    fitted, history = rd.fit_em(ring, x[:40], validation=x[40:], validation_target=0, max_epochs=3, patience=None)
    rest = x[40:].copy()
    rest[:, 0] = np.nan
    found = float(np.mean(fitted.log_prob(x[40:]) - fitted.log_prob(rest)))
    np.testing.assert_allclose(max(history["validation"]), found, atol=1e-10)
    with pytest.raises(ValueError, match="there is no column 3"):
        rd.fit_em(ring, x, validation=x, validation_target=3)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Two classes that differ in the product of two columns, beside clusters that have nothing to do with them."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(4, size=600)
    x = rng.normal(size=(600, 4)) + 8 * np.stack([0 * cluster, 0 * cluster, cluster, -cluster], axis=1)
    return pd.DataFrame(x, columns=list("abcd")).assign(
        label=np.where(x[:, 0] * x[:, 1] > 0, "same", "different"), other=np.where(rng.random(600) < 0.5, "x", "y")
    )


def test_clusters_follow_the_target(frame: pd.DataFrame) -> None:
    train, test = frame[:400], frame[400:]
    model = rd.TensorRingDensity(12, num_components=6, target="label", random_state=0, budget=None).fit(train)
    assert (model.predict(test) == test["label"]).mean() > 0.85
    np.testing.assert_array_equal(model.predict_proba(test), model.predict_proba(test, "label"))
    assert model.predict(test, "other").shape == (200,)
    kept = model.marginal(["a", "b", "label"])
    assert kept.target == "label" and set(kept.predict(test[["a", "b"]])) <= {"same", "different"}
    assert model.marginal(["a", "other"]).target is None


def test_targets_by_index_move_with_their_column() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    x[:, 2] = x[:, 1] > 0
    model = rd.TensorRingDensity(rank=2, num_components=2, target=2, column_types={2: "categorical"}, budget=1)
    model.set_params(random_state=0, max_epochs=3).fit(x)
    assert model.predict(x).dtype == x.dtype and set(model.predict(x)) <= {0.0, 1.0}
    assert model.condition({0: 0.5}).target == 1


def test_an_unknown_target(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="there is no column 'income'; columns are 'a'"):
        rd.TensorRingDensity(target="income").fit(frame)


def test_emphasis_of_a_start() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=300)
    copies = rng.integers(2, size=(300, 1)) ^ (rng.random((300, 6)) < 0.05)
    x = np.concatenate([label[:, None], copies], axis=1).astype(float)

    def information(**options) -> float:
        """Between two copies, by the clusters of the start."""
        start = rd.initialize(x, [rd.Categorical(2)] * 7, 2, method="mixture", spread=0.0, rng=0, **options)
        return float(start.mutual_information()[1, 2])

    assert information() > 0.3 and information(emphasis=[1.0] * 7) == information()
    assert information(emphasis=[50.0] + [1.0] * 6) < 0.05  # the clusters are those of the label
    with pytest.raises(ValueError, match="emphasis must be a positive number for each of 7 variables"):
        information(emphasis=[1.0, 2.0])
    with pytest.raises(ValueError, match="found method 'quantile'"):
        rd.initialize(x, [rd.Categorical(2)] * 7, 2, method="quantile", emphasis=[1.0] * 7)


def test_emphasis_is_the_same_whatever_is_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = table(2, 80)
    variables = [rd.Categorical(3), rd.GaussianMixture, rd.Categorical(2)]

    def start() -> np.ndarray:
        ring = rd.initialize(
            x, variables, 3, num_components=3, method="mixture", core="cp", rng=0, emphasis=[5.0, 2.0, 1.0]
        )
        return np.asarray(ring.log_prob(x))

    whole = start()
    monkeypatch.setattr(budget, "CACHED", 60)
    np.testing.assert_allclose(start(), whole, rtol=1e-4)
