"""Missing and infinite entries, constant columns and single rows."""

import numpy as np
import pandas as pd
import pytest

from tests.ringdist.estimator.cases import small, with_gaps


def test_missing_entries_of_every_kind(frame):
    gappy = with_gaps(frame)
    assert gappy.isna().any().all()
    before = gappy.copy(deep=True)
    model = small().fit(gappy)
    assert np.isfinite(model.score_samples(gappy)).all()
    pd.testing.assert_frame_equal(gappy, before)
    assert model.categories_[2].dtype.kind == "i" and model.categories_[3].dtype.kind == "b"
    np.testing.assert_allclose(model.history_["train"][-1], model.score(gappy))
    # a row is judged by its observed entries alone
    whole = frame.iloc[[0]]
    hidden = with_gaps(whole, 0).assign(city=None)
    expected = np.logaddexp.reduce([model.score(whole.assign(city=c)) for c in model.categories_[0]])
    assert model.score(hidden) == pytest.approx(expected)


def test_objects_may_be_none_or_nan():
    model = small().fit([[1.0, "a"], [None, "b"], [3.0, None], [np.nan, float("nan")]])
    assert model.categories_[1].tolist() == ["a", "b"]
    assert model.score_samples([[None, None]])[0] == pytest.approx(0)


def test_a_column_without_an_observed_entry(frame):
    with pytest.raises(ValueError, match=r"column 1 \('height'\).*none"):
        small().fit(frame.assign(height=np.nan))
    with pytest.raises(ValueError, match=r"column 1.*none"):
        small().fit([[0.0, np.nan], [1.0, np.nan]])


def test_infinite_numbers(frame, model):
    bad = frame.assign(height=np.inf)
    for call in (small().fit, model.score_samples, model.impute):
        with pytest.raises(ValueError, match=r"column 1 \('height'\).*infinity"):
            call(bad)
    with pytest.raises(ValueError, match="infinity"):
        small().fit([[0.0], [np.inf]])


def test_constant_columns_and_one_row():
    assert np.isfinite(small().fit(np.full((5, 2), 0.1)).score([[0.1, 0.1]]))
    assert np.isfinite(small().fit([[1.0, 2.0]]).score([[1.0, 2.0]]))
    assert small().fit(np.zeros((4, 1), dtype=int)).score([[0]]) == pytest.approx(0)
