"""Categorical columns: inferred, listed or declared, and categories that fit did not see."""

import numpy as np
import pandas as pd
import pytest

from tests.ringdist.estimator.cases import small


def test_what_auto_takes_for_categorical():
    assert not small().fit(np.eye(4)).is_categorical_.any()
    assert small().fit(np.eye(4, dtype=int)).is_categorical_.all()
    assert small().fit(np.eye(4, dtype=bool)).is_categorical_.all()
    objects = [[1.5, "a", 1, True, 2], [2.5, "b", None, False, 0.5], [None, "a", 3, True, 1]]
    assert small().fit(objects).is_categorical_.tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(
    "features", [["rooms", "city", "owner"], [0, 2, 3], np.array([True, False, True, True, False])]
)
def test_listed_categorical_features(frame, features):
    frame = frame.drop(columns="grade")
    model = small(categorical_features=features).fit(frame)
    assert model.is_categorical_.tolist() == [True, False, True, True, False]


def test_categorical_features_from_dtypes_or_none(frame):
    numbers = frame.drop(columns="city")
    assert small(categorical_features="from_dtype").fit(numbers).is_categorical_.tolist() == [
        *(False, False, False, True, False)
    ]
    assert not small(categorical_features=None).fit(numbers[["rooms", "height", "owner"]]).is_categorical_.any()
    assert not small(categorical_features=[]).fit(np.eye(3, dtype=int)).is_categorical_.any()


@pytest.mark.parametrize(
    ("features", "finding"),
    [
        ("all", "'all'"),
        ([7], "7"),
        ([-1], "-1"),
        ([True, False], "must have .* entries, found 2"),
        (["size"], "'size'"),
        ([[0]], r"\(1, 1\)"),
        ([0.5], "0.5"),
    ],
)
def test_categorical_features_that_do_not_fit(frame, features, finding):
    with pytest.raises(ValueError, match=f"categorical_features.*{finding}"):
        small(categorical_features=features).fit(frame)


def test_names_need_a_table_that_has_them():
    with pytest.raises(ValueError, match="names if the table has them"):
        small(categorical_features=["a"]).fit(np.eye(3))


@pytest.mark.parametrize(("column", "value"), [("city", "Paris"), ("rooms", 99), ("grade", "z"), ("owner", 2)])
def test_an_unseen_category(frame, model, column, value):
    k = list(frame.columns).index(column)
    row = frame.iloc[[0]].astype({column: object})
    row[column] = [value]
    for method in (model.score_samples, model.impute):
        with pytest.raises(ValueError, match=rf"column {k} \('{column}'\): category {value!r}"):
            method(row)


def test_categories_are_compared_by_value_not_by_dtype(frame, model):
    same = frame.astype({"rooms": float, "city": "category", "owner": int, "grade": str})
    np.testing.assert_array_equal(model.score_samples(same), model.score_samples(frame))
    with pytest.warns(UserWarning, match="feature names"):
        np.testing.assert_array_equal(model.score_samples(frame.to_numpy(dtype=object)), model.score_samples(frame))


def test_columns_of_no_known_kind():
    with pytest.raises(TypeError, match=r"column 1.*only strings or only numbers"):
        small().fit([[1.0, "a"], [2.0, 3]])
    with pytest.raises(TypeError, match=r"column 0 \('when'\).*Timestamp"):
        small().fit(pd.DataFrame({"when": pd.to_datetime(["2020-01-01", "2021-01-01"])}))
    with pytest.raises(ValueError, match=r"column 0 \('a'\).*only numbers, found 'x'"):
        small(categorical_features=None).fit(pd.DataFrame({"a": ["x", "y"]}))


def test_rare_categories_share_a_code_and_keep_their_probabilities():
    rng = np.random.default_rng(0)
    names = rng.zipf(1.3, 4000).clip(max=900)
    frame = pd.DataFrame({"zip": names.astype(str), "y": np.log(names) + rng.normal(size=4000)})
    with pytest.warns(UserWarning, match=r"column 0 \('zip'\): \d+ categories are more than 256.*group"):
        model = small(max_epochs=2, pseudocount=1.0).fit(frame)
    assert model.ring_.variables[0].num_components == 256 < model.classes_of("zip").size
    proba = model.predict_proba(frame.head(4), "zip")
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    alone = model.marginal(["zip"])
    every = np.exp(alone.score_samples(pd.DataFrame({"zip": model.classes_of("zip")})))
    assert every.sum() == pytest.approx(1, abs=0.01)  # what is left is kept for unseen ones
    drawn = model.sample(3000, random_state=0)["zip"]
    rare = set(model.classes_of("zip")[255:])
    assert len(set(drawn) & rare) > 20 and set(drawn) <= set(frame["zip"])
    assert not model.impute(frame.head(9).assign(zip=None)).isna().any().any()


def test_very_many_categories_are_refused_at_once():
    names = np.array([f"u{k}" for k in range(20_000)])
    with pytest.raises(ValueError, match=r"column 0 \('id'\).*20000 categories in 20000 rows; drop"):
        small().fit(pd.DataFrame({"id": names, "x": 1.0}))
    with pytest.raises(ValueError, match=r"column 1.*6000 categories"):
        small(column_types={1: "categorical"}).fit(np.random.default_rng(0).permutation(6000)[:, None] * [1, 1])


@pytest.mark.parametrize("unknown", ["missing", "rare"])
def test_unknown_categories_may_pass(unknown):
    rng = np.random.default_rng(0)
    job = np.array(["a", "b", "c", "d", "e"])[np.minimum(rng.geometric(0.6, 400) - 1, 4)]
    frame = pd.DataFrame({"job": job, "y": rng.normal(size=400)})
    frame.loc[7, "job"] = "once"
    model = small(handle_unknown=unknown).fit(frame)
    row = pd.DataFrame({"job": ["new"], "y": [0.3]})
    alone = model.marginal(["y"]).score(row[["y"]])
    assert model.score(row) == pytest.approx(alone) if unknown == "missing" else model.score(row) < alone - 2
    assert model.predict_proba(row, "job").shape == (1, 6)
    assert set(model.sample(200)["job"]) <= set(frame["job"])
    with pytest.raises(ValueError, match=r"column 0 \('job'\): category 'new'.*handle_unknown"):
        small().fit(frame).score(row)
