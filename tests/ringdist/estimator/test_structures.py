"""Columns that share a covariance: who they are, and that the estimator finds and uses them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm

import ringdist as rd
from ringdist.estimator.columns import Column
from ringdist.estimator.structures import as_gaussian, sites_in_order, structures_of

FACTORS = np.random.default_rng(5).normal(size=(4, 2))


def correlated(seed, n=400):
    """Columns 0, 2, 3, 5 have two factors in common; 1 is a category that moves them, 4 is noise."""
    rng = np.random.default_rng(seed)
    group = rng.integers(2, size=n)
    block = rng.normal(size=(n, 2)) @ FACTORS.T + 0.1 * rng.normal(size=(n, 4)) + 2 * group[:, None]
    frame = pd.DataFrame({"a": block[:, 0], "group": np.array(["x", "y"])[group], "b": block[:, 1], "c": block[:, 2]})
    frame["noise"] = rng.normal(size=n)
    frame["d"] = 100 + 10 * block[:, 3]
    return frame


@pytest.fixture(scope="module")
def model():
    return rd.TensorRingDensity(budget=15, shared_covariances=True, random_state=0).fit(correlated(0))


def test_structures_are_none_the_linked_columns_and_all_columns():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(500, 1))
    rows = np.concatenate([common + 0.3 * rng.normal(size=(500, 2)), rng.normal(size=(500, 2))], axis=1)
    rows = rows[:, [0, 2, 1, 3]]
    rows[rng.random(rows.shape) < 0.1] = np.nan
    columns = [Column(f"column {k}") for k in range(4)]
    alone, linked, whole = structures_of(rows, columns, set())
    assert alone == ((0,), (1,), (2,), (3,))
    assert linked == ((0, 2), (1,), (3,))
    assert whole == ((0, 1, 2, 3),)
    assert sites_in_order(linked, [3, 2, 1, 0]) == [2, 0, 1]


@pytest.mark.parametrize(
    "change, free",
    [
        ({"type": "categorical", "categories": np.arange(2)}, (1, 2)),
        ({"atoms": (0.0,)}, (1, 2)),
        ({"type": "count"}, (1, 2)),
        ({"type": "lognormal"}, (0, 1, 2)),
        ({"type": "lognormal", "atoms": (0.0,)}, (0, 1, 2)),  # zeros that no row has
    ],
)
def test_only_columns_of_real_numbers_share_a_covariance(change, free):
    rng = np.random.default_rng(1)
    rows = np.abs(rng.normal(size=(200, 1)) + 0.1 * rng.normal(size=(200, 3)))
    columns = [Column("column 0", **change), Column("column 1"), Column("column 2")]
    assert tuple(k for own in structures_of(rows, columns, set())[-1] if len(own) > 1 for k in own) == free
    if change["type" if "type" in change else "atoms"] == "lognormal":  # unless the user has said so
        assert ((0,), (1, 2)) in structures_of(rows, columns, {0})
        assert [column.type for column in as_gaussian(columns, ((0, 1, 2),))] == ["gaussian"] * 3


def test_strongly_correlated_columns_are_found_and_win(model):
    for ring in getattr(model.ring_, "rings", [model.ring_]):
        wide = [own for own in ring.columns if len(own) > 1]
        assert len(wide) == 1 and {0, 2, 3, 5} <= set(wide[0])
    test = correlated(1)
    numbers = test[["a", "b", "c", "d"]].to_numpy()
    expected = np.zeros(len(test))
    covariance = FACTORS @ FACTORS.T + 0.01 * np.eye(4)
    scale = np.array([1, 1, 1, 10])
    covariance = covariance * scale[:, None] * scale
    for name, shift in (("x", 0.0), ("y", 2.0)):
        mean = shift * scale + [0, 0, 0, 100]
        own = (test["group"] == name).to_numpy()
        expected[own] = multivariate_normal(mean, covariance).logpdf(numbers[own]) + np.log(0.5)
    expected += norm.logpdf(test["noise"])
    assert model.score(test) > expected.mean() - 0.25
    assert model.score(test) < expected.mean() + 0.1


def test_the_ring_keeps_the_columns_of_the_table(model):
    test = correlated(2, n=50)
    codes = test.assign(group=(test["group"] == "y").astype(float)).to_numpy(np.float64)
    np.testing.assert_allclose(model.ring_.log_prob(codes), model.score_samples(test), rtol=1e-10)
    turned = pd.DataFrame(codes, columns=test.columns)[["d", "noise", "group", "c", "a", "b"]]
    np.testing.assert_allclose(model.ring_.log_prob(turned), model.score_samples(test), rtol=1e-10)
    with pytest.raises(ValueError, match="a frame must have the columns of the ring"):
        model.ring_.log_prob(turned.rename(columns={"a": "e"}))
    assert list(model.ring_.layout.names) == list(test.columns)
    shuffled = test[["d", "noise", "group", "c", "a", "b"]]
    np.testing.assert_allclose(model.score_samples(shuffled), model.score_samples(test), rtol=1e-12)


def test_conditional_means_are_those_of_the_common_factors(model):
    test = correlated(3, n=300)
    holes = test.copy()
    holes.loc[:, ["b", "d"]] = np.nan
    filled = model.impute(holes)
    for name in ("b", "d"):
        rest = np.column_stack([np.ones(300), test[["a", "c"]], test["group"] == "y"])
        best, *_ = np.linalg.lstsq(rest, test[name], rcond=None)
        error = np.sqrt(np.mean((filled[name] - test[name]) ** 2))
        assert error < 1.5 * np.sqrt(np.mean((rest @ best - test[name]) ** 2))
    low, high = model.quantile(holes, "d", [0.1, 0.9]).T
    assert 0.7 < np.mean((low <= test["d"]) & (test["d"] <= high)) < 0.9


def test_questions_of_a_model_with_a_shared_covariance(model, tmp_path):
    test = correlated(4, n=40)
    model.save(tmp_path / "model")
    again = rd.TensorRingDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(again.score_samples(test), model.score_samples(test))
    assert again.column_types_ == model.column_types_
    drawn = model.sample(2000, random_state=0)
    assert drawn.dtypes.equals(test.dtypes)
    assert (
        abs(np.corrcoef(drawn["a"], drawn["d"])[0, 1] - np.corrcoef(correlated(0)["a"], correlated(0)["d"])[0, 1]) < 0.1
    )
    part = model.marginal(["a", "d", "group"])
    given = model.condition({"group": "y"})
    joint = part.score_samples(test[["a", "d", "group"]])
    assert np.isfinite(joint).all() and np.isfinite(given.score_samples(test.drop(columns="group"))).all()
    np.testing.assert_allclose(
        part.predict_proba(test[["a", "d"]], "group"), model.predict_proba(test[["a", "d"]], "group"), atol=1e-9
    )
    p = model.probability({"a": rd.Interval(0, None)})
    assert abs(p - (drawn["a"] >= 0).mean()) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_shrinkage_draws_correlations_towards_their_mean(seed):
    rng = np.random.default_rng(seed)
    n, w, rows = 60, 3, 0.5 + 2.0 * seed
    x = rng.normal(size=(n, w)) @ rng.normal(size=(w, w)) + rng.integers(3, size=(n, 1)) * 4
    start = rd.TensorRing(
        [rng.random((3, 1, 1))],
        [rd.MultivariateGaussianMixture(x[:3], np.stack([np.cov(x.T)] * 3))],
    )
    logs = np.stack([multivariate_normal(x[s], np.cov(x.T)).logpdf(x) for s in range(3)], axis=1)
    weights = np.exp(logs) * start.cores[0][:, 0, 0]
    weights /= weights.sum(axis=1, keepdims=True)
    count = weights.sum(axis=0)
    means = weights.T @ x / count[:, None]
    scatter = np.stack([((x - means[s]) * weights[:, [s]]).T @ (x - means[s]) for s in range(3)])
    pooled, own = scatter.sum(axis=0) / n, np.diagonal(scatter, axis1=1, axis2=2)
    typical = np.exp(count @ np.log(own / count[:, None]) / n)
    stds = np.sqrt((own + rows * typical) / (count + rows)[:, None])
    common = pooled / np.sqrt(np.outer(np.diag(pooled), np.diag(pooled)))
    prior = common * stds[:, :, None] * stds[:, None, :]
    expected = (scatter + rows * w * prior) / (count + rows * w)[:, None, None]
    fitted, _ = rd.fit_em(start, x, max_epochs=1, variance_floor=0.0, shrinkage=rows)
    np.testing.assert_allclose(fitted.variables[0].covariances(), expected, rtol=1e-8)
    np.testing.assert_allclose(fitted.variables[0].means(), means, rtol=1e-8)


@pytest.mark.parametrize("batch_size", [None, 20])
@pytest.mark.parametrize("scale", [1.0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-3, 1e5))])
def test_batches_learn_a_shared_covariance_too(batch_size, scale, tmp_path):
    """They are learnt in single precision, whose covariances are symmetric also in double precision."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(200, 1))
    x = scale * np.hstack([u, u + 0.3 * rng.normal(size=(200, 1)), -u + 0.2 * rng.normal(size=(200, 1))])
    model = rd.TensorRingDensity(budget=1, batch_size=batch_size, random_state=0).fit(x)
    assert any(len(own) > 1 for ring in getattr(model.ring_, "rings", [model.ring_]) for own in ring.columns)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(rd.load(tmp_path / "model").log_prob(x), model.ring_.log_prob(x))


@pytest.mark.parametrize("scale", [1e-161, 1e-200, 1e160, 1e200])
def test_columns_whose_squares_leave_the_range_share_no_covariance(scale):
    x = np.random.default_rng(0).normal(size=(60, 2)) @ [[1, 1], [0, 0.3]]
    scores = [
        rd.TensorRingDensity(budget=2, num_rings=1, rank=2, num_components=3, shared_covariances=shared, random_state=0)
        .fit(values)
        .score(values)
        for shared, values in ((False, x), (True, x * scale))
    ]
    assert scores[1] + 2 * np.log(scale) == pytest.approx(scores[0], abs=1e-3)
    assert np.isfinite(rd.TensorRingDensity(budget=1, random_state=0).fit(x * scale).score(x * scale))
