"""Samples and completions in the form of the table."""

import numpy as np
import pandas as pd
import pytest

from tests.ringdist.estimator.cases import small, with_gaps


def test_samples_come_as_the_data_came(frame, model):
    drawn = model.sample(300, random_state=0)
    assert drawn.dtypes.equals(frame.dtypes)
    assert set(drawn["city"]) == {"Bonn", "Oslo", "Rome"}
    assert abs(drawn["height"].mean() - frame["height"].mean()) < 3
    pd.testing.assert_frame_equal(drawn, model.sample(300, random_state=0))
    assert not model.sample(300).equals(model.sample(300))
    assert np.isfinite(model.score(drawn))


@pytest.mark.parametrize("dtype", [float, int, bool, object])
def test_samples_of_arrays(dtype):
    x = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(dtype)
    drawn = small().fit(x).sample(5, random_state=0)
    assert drawn.shape == (5, 3)
    assert drawn.dtype == (int if dtype is object else dtype)


def test_samples_of_mixed_arrays():
    drawn = small().fit([[0.5, "a"], [1.5, "b"], [2.5, "b"]]).sample(4, random_state=0)
    assert drawn.dtype == object and {type(v) for v in drawn[:, 1]} == {str}


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_the_number_of_samples(model, n):
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(n)


@pytest.mark.parametrize("method", ["mean", "sample", "mode"])
def test_completions_keep_what_is_observed(frame, model, method):
    gappy = with_gaps(frame.set_index(np.arange(len(frame)) + 100))
    before = gappy.copy(deep=True)
    full = model.impute(gappy, method=method, random_state=0)
    pd.testing.assert_frame_equal(gappy, before)
    assert not full.isna().any().any()
    assert full.index.equals(gappy.index) and full.dtypes.equals(gappy.dtypes)
    assert full.where(gappy.notna()).equals(gappy) or (full[gappy.notna()].stack() == gappy.stack()).all()
    right = (full["city"].to_numpy() == frame["city"].to_numpy())[gappy["city"].isna().to_numpy()]
    assert right.mean() > 0.8  # the other columns tell the group


def test_completions_by_the_mean_are_the_rings():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=100), rng.integers(0, 3, 100)]).astype(float)
    x[:, 0] += x[:, 1]
    model = small(categorical_features=[1]).fit(x)
    row = np.array([[np.nan, np.nan], [np.nan, 2], [1.0, np.nan], [0.5, 1]])
    full = model.impute(row)
    means = model.ring_.mean(row)
    np.testing.assert_allclose(full[:, 0], means[:, 0])
    np.testing.assert_array_equal(full[[0, 2], 1], model.ring_.component_posterior(1, row)[[0, 2]].argmax(1))
    np.testing.assert_array_equal(full[3], row[3])


def test_completions_of_arrays_and_lists():
    x = np.random.default_rng(0).normal(size=(50, 2))
    model = small().fit(x)
    gappy = np.array([[np.nan, 0.3], [1.0, 2.0]])
    full = model.impute(gappy)
    assert np.isnan(gappy[0, 0]) and np.isfinite(full).all()
    np.testing.assert_allclose(model.impute([[None, 0.3]]).astype(float), full[:1])
    complete = model.impute(x)
    np.testing.assert_array_equal(complete, x)
    assert not np.shares_memory(complete, x)
    words = small().fit([["a", "x"], ["b", "y"]] * 5).impute([["a", None]])
    assert words.tolist() == [["a", "x"]]


def test_a_completion_may_need_a_category_that_the_frame_does_not_declare(model, frame):
    row = frame.iloc[[0]].assign(grade=pd.Categorical([None], categories=["c"]))
    assert model.impute(row)["grade"].iloc[0] == frame["grade"].iloc[0]


def test_a_method_that_is_not_there(model, frame):
    with pytest.raises(ValueError, match="mean, sample or mode, found 'median'"):
        model.impute(frame, method="median")
