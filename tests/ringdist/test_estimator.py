"""`TensorRingDensity` as scikit-learn, pandas and a careful user see it."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ringdist as rd
from ringdist import TensorRingDensity
from tests.safetensors_files import put_together, taken_apart


def small(**changes) -> TensorRingDensity:
    return TensorRingDensity(**({"rank": 2, "num_components": 3, "max_epochs": 4, "random_state": 0} | changes))


def mixed_frame(n: int = 120, seed: int = 0) -> pd.DataFrame:
    """A group that moves everything: a string, an integer, a boolean, a declared category and two real numbers."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "city": np.array(["Oslo", "Rome", "Bonn"])[group],
            "height": 170 + 8.0 * group + rng.normal(0, 2, n),
            "rooms": group + rng.integers(0, 2, n) + 1,
            "owner": rng.random(n) < 0.2 + 0.3 * group,
            "grade": pd.Categorical(np.array(["b", "a", "c"])[group], categories=["c", "b", "a", "never"]),
            "income": 1e6 * np.exp(group + rng.normal(0, 0.1, n)),
        }
    )


def with_gaps(frame: pd.DataFrame, share: float = 0.2, seed: int = 1) -> pd.DataFrame:
    """The frame with entries removed, its dtypes those that pandas has for missing values."""
    gaps = np.random.default_rng(seed).random(frame.shape) < share
    frame = frame.astype({"rooms": "Int64", "owner": "boolean"})
    for k in range(frame.shape[1]):
        frame.isetitem(k, frame.iloc[:, k].mask(gaps[:, k]))
    return frame


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return mixed_frame()


@pytest.fixture(scope="module")
def model(frame) -> TensorRingDensity:
    return small(rank=3, max_epochs=15).fit(frame)


# ------------------------------------------------------------------------------------------------- conventions


@parametrize_with_checks([small(max_epochs=2)])
def test_the_checks_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # the checks look at warnings themselves
        check(estimator)


def test_default_parameters_and_clone():
    assert TensorRingDensity().get_params()["rank"] == "auto"
    model = small(order=("b", "a"), categorical_features=[0])
    assert clone(model).get_params() == model.get_params()
    assert "rank=2" in repr(model)


def test_it_is_a_density_estimator_that_takes_missing_values():
    tags = small().__sklearn_tags__()
    assert tags.estimator_type == "density_estimator"
    assert tags.input_tags.allow_nan and tags.input_tags.categorical


def test_the_fitted_state(frame, model):
    assert model.n_features_in_ == 6 and model.n_iter_ == 15
    assert list(model.feature_names_in_) == list(frame.columns)
    assert [v.name for v in model.ring_.variables] == list(frame.columns)
    assert model.is_categorical_.tolist() == [True, False, True, True, True, False]
    assert model.categories_[0].tolist() == ["Bonn", "Oslo", "Rome"]
    assert model.categories_[4].tolist() == ["c", "b", "a", "never"]
    assert model.categories_[1] is None
    assert list(model.history_) == ["train"] and len(model.history_["train"]) == 15


def test_unfitted():
    for call in (lambda m: m.score_samples([[0.0]]), lambda m: m.sample(), lambda m: m.impute([[0.0]])):
        with pytest.raises(NotFittedError):
            call(small())


def test_score_is_the_mean_of_score_samples_which_are_the_rings(frame, model):
    values = model.score_samples(frame)
    assert model.score(frame) == pytest.approx(values.mean())
    codes = frame.copy()
    for k, categories in enumerate(model.categories_):
        if categories is not None:
            codes.isetitem(k, [categories.tolist().index(v) for v in frame.iloc[:, k]])
    np.testing.assert_allclose(values, model.ring_.log_prob(codes.to_numpy(dtype=float)))
    assert model.history_["train"][-1] == pytest.approx(values.mean(), rel=1e-9)


def test_a_fit_learns(frame):
    short, long = small(max_epochs=1).fit(frame), small(max_epochs=20, rank=4).fit(frame)
    assert long.score(frame) > short.score(frame) + 0.1


def test_densities_are_per_unit_of_the_data():
    """A change of units moves the log-density by the logarithm of the factor, column by observed column."""
    x = np.random.default_rng(0).normal(size=(80, 2))
    x[::7, 1] = np.nan
    scaled = x * [1e-4, 1e5] + [3.0, -1e6]
    a, b = small().fit(x), small().fit(scaled)
    jacobian = np.log(1e-4) + np.where(np.isnan(x[:, 1]), 0, np.log(1e5))
    np.testing.assert_allclose(b.score_samples(scaled), a.score_samples(x) - jacobian, rtol=1e-6)
    np.testing.assert_allclose(b.history_["train"], np.array(a.history_["train"]) - jacobian.mean(), rtol=1e-6)
    assert a.history_["train"][-1] == pytest.approx(a.score(x))


def test_one_gaussian_column_is_the_normal_density():
    x = np.random.default_rng(0).normal(5, 3, size=(500, 1))
    model = small(num_components=1, max_epochs=10).fit(x)
    np.testing.assert_allclose(model.score_samples(x), stats.norm(x.mean(), x.std()).logpdf(x[:, 0]), rtol=1e-6)


# ------------------------------------------------------------------------------------------------ other tools


def test_grid_search_over_rank_and_order(frame):
    grid = {"rank": [1, 3], "order": ["given", "mutual_information", [5, 4, 3, 2, 1, 0]], "topology": ["ring", "train"]}
    search = GridSearchCV(small(), grid, cv=2, error_score="raise").fit(frame.drop(columns="rooms").assign(rooms=0))
    assert search.best_params_["rank"] == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pipelines_and_cross_validation():
    x = np.random.default_rng(0).normal(size=(60, 3))
    pipeline = make_pipeline(StandardScaler(), small())
    assert pipeline.fit(x).score_samples(x).shape == (60,)
    assert np.isfinite(cross_val_score(pipeline, x, cv=3)).all()


def test_declared_categories_survive_folds_that_lack_them(frame):
    declared = frame.assign(grade=frame["grade"].cat.remove_unused_categories().cat.add_categories("rare"))
    last = declared.index[-1]
    declared.loc[last, "grade"] = "rare"
    model = small().fit(declared.drop(index=last)[["city", "grade"]])
    assert np.isfinite(model.score(declared[["city", "grade"]]))


# ------------------------------------------------------------------------------------------------- categories


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


# ----------------------------------------------------------------------------------------------- missing values


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


# ---------------------------------------------------------------------------------------- samples, completions


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


# --------------------------------------------------------------------------------------------------- parameters


def test_orders(frame):
    names = list(frame.columns)
    assert small(order="given").fit(frame).ring_.order == tuple(range(6))
    assert small(order=names[::-1]).fit(frame).ring_.order == (5, 4, 3, 2, 1, 0)
    assert small(order=[1, 0, 2, 3, 5, 4]).fit(frame).ring_.order == (1, 0, 2, 3, 5, 4)
    assert sorted(small(order="random").fit(frame).ring_.order) == list(range(6))
    assert small(topology="train").fit(frame).ring_.is_train
    with pytest.raises(ValueError, match=r"order.*'best'"):
        small(order="best").fit(frame)
    with pytest.raises(ValueError, match="order names 'size'"):
        small(order=["size", *names[1:]]).fit(frame)
    with pytest.raises(ValueError, match="permutation"):
        small(order=[0, 0, 1, 2, 3, 4]).fit(frame)


def test_a_seed_repeats_a_fit(frame):
    settings = {"order": "random", "validation_fraction": 0.3, "batch_size": 16, "restarts": 2}
    a, b = (small(**settings, random_state=3).fit(frame) for _ in range(2))
    np.testing.assert_array_equal(a.score_samples(frame), b.score_samples(frame))
    other = small(**settings, random_state=4).fit(frame)
    assert not np.array_equal(a.score_samples(frame), other.score_samples(frame))
    assert np.isfinite(small(random_state=np.random.RandomState(0)).fit(frame).score(frame))


def test_held_out_rows_stop_the_fit():
    x = np.random.default_rng(0).normal(size=(60, 4))  # nothing to learn but noise
    model = small(rank=6, max_epochs=200, validation_fraction=0.3, patience=2).fit(x)
    assert model.n_iter_ < 200 and len(model.history_["validation"]) == model.n_iter_
    best = max(model.history_["validation"])
    assert model.history_["validation"].index(best) == model.n_iter_ - 3


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "some", np.nan])
def test_a_fraction_that_holds_nothing_out(fraction):
    with pytest.raises(ValueError, match="validation_fraction"):
        small(validation_fraction=fraction).fit(np.eye(4))
    with pytest.raises(ValueError, match="2 rows"):
        small(validation_fraction=0.5).fit(np.eye(1))


def test_weights_count_rows(frame):
    weight = np.random.default_rng(0).integers(0, 3, len(frame))
    repeated = frame.loc[frame.index.repeat(weight)]
    start = {"order": "given", "num_components": 1, "max_epochs": 30, "rank": 1, "pseudocount": 0.0}
    a, b = small(**start).fit(frame, sample_weight=weight), small(**start).fit(repeated)
    np.testing.assert_allclose(a.score_samples(repeated), b.score_samples(repeated), rtol=1e-6)
    with pytest.raises(ValueError, match="zero"):
        small().fit(frame, sample_weight=np.zeros(len(frame)))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        small().fit(frame, sample_weight=-np.ones(len(frame)))


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"num_components": 0}, {"topology": "tree"}, {"max_epochs": -1}, {"batch_size": 0}, {"patience": 0}],
)
def test_parameters_that_do_not_fit(frame, wrong):
    with pytest.raises(ValueError, match="found"):
        small(**wrong).fit(frame)


def test_progress_is_shown_on_request(capsys):
    small(verbose=True).fit(np.eye(3))
    assert "epoch" in capsys.readouterr().err
    small().fit(np.eye(3))
    assert capsys.readouterr().err == ""


# -------------------------------------------------------------------------------------------------------- files


def test_saved_and_loaded(frame, model, tmp_path):
    path = tmp_path / "model.ring"
    model.save(path)
    loaded = TensorRingDensity.load(path)
    gappy = with_gaps(frame)
    np.testing.assert_array_equal(loaded.score_samples(gappy), model.score_samples(gappy))
    pd.testing.assert_frame_equal(loaded.sample(9, random_state=1), model.sample(9, random_state=1))
    pd.testing.assert_frame_equal(loaded.impute(gappy), model.impute(gappy))
    assert loaded.get_params() == model.get_params() and loaded.history_ == model.history_
    assert list(loaded.feature_names_in_) == list(model.feature_names_in_)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(loaded.ring_.cores[0], rd.load(path).cores[0])


@pytest.mark.parametrize(
    "x",
    [np.eye(3), np.eye(3, dtype=int), np.eye(3, dtype=bool), [["a", 0.1], ["b", 1 / 3]], [[0.1, 1], [0.2, None]]],
    ids=["real", "int", "bool", "mixed", "objects"],
)
def test_saved_arrays_of_every_kind(x, tmp_path):
    model = small(categorical_features=[0] if isinstance(x, list) else "auto", rank=np.int64(2)).fit(x)
    model.save(tmp_path / "a")
    loaded = TensorRingDensity.load(tmp_path / "a")
    np.testing.assert_array_equal(loaded.score_samples(x), model.score_samples(x))
    drawn = loaded.sample(4, random_state=0)
    np.testing.assert_array_equal(drawn, model.sample(4, random_state=0))
    assert drawn.dtype == model.sample(1).dtype
    assert clone(loaded).fit(x).get_params() == loaded.get_params()


def rewritten(path, **changes):
    """The file with parts of its description changed, under a right checksum."""
    contents = taken_apart(path.read_bytes())
    contents.metadata["estimator"] |= changes
    path.write_bytes(put_together(contents))


INTEGERS = {"label": "column 0", "kind": "int", "declared": False, "categories": [0, 1]}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"version": 99}, "99"),
        ({"parameters": {"evil": 1}}, "evil"),
        ({"columns": []}, "columns"),
        ({"columns": [{"label": "a", "kind": "real", "declared": False}] * 2}, "differ"),
        ({"columns": [{"label": "a", "kind": "code", "declared": False, "categories": [0]}] * 2}, "code"),
        ({"columns": [{"label": "a", "kind": "int", "declared": False, "categories": [0, 0]}] * 2}, "differ"),
        ({"columns": [{"label": "a", "kind": "int", "declared": False, "categories": [0]}] * 2}, "1 for 2"),
        *(({"columns": v}, "list of columns") for v in (None, 0, "", {}, True)),
        *(({"columns": [v] * 2}, "a column must be an object") for v in (None, 0, "", [], {}, {"kind": "real"})),
        *(({"columns": [INTEGERS | {"label": v}] * 2}, "a column needs a string label") for v in (None, 0, ["a"])),
        *(({"columns": [INTEGERS | {"declared": v}] * 2}, "boolean declared") for v in (None, 0, 1, "true")),
        *(
            ({"columns": [INTEGERS | {"kind": v}] * 2}, "kind of categories")
            for v in (None, 0, ["int"], {}, "O", "object")
        ),
        *(
            ({"columns": [INTEGERS | {"categories": v}] * 2}, "categories must be a list of int")
            for v in (None, 0, "01", {"0": 0, "1": 1}, [0, True], [0.0, 1.0], [0, "1"], [0, None], [[0], [1]])
        ),
        *(
            ({"columns": [INTEGERS | {"kind": kind, "categories": v}] * 2}, f"must be a list of {kind}")
            for kind, v in (("str", ["a", 1]), ("str", ["a", {}]), ("bool", [0, 1]), ("float", [0, 0.5]))
        ),
        ({"columns": [INTEGERS | {"kind": "float", "categories": [0.5, float("nan")]}] * 2}, "NaN"),
        ({"columns": [INTEGERS | {"categories": [0, 10**30]}] * 2}, "too large"),
        *(({"names": v}, "names") for v in (["a"], ["a", "b"], "ab", [0, 1], 0, {}, [None, None], [])),
        *(({"frame": v}, "frame") for v in (None, 0, 1, "yes", [])),
        *(({"version": v}, "version") for v in (None, True, 1.0, "1", [1], 0, 2)),
        *(({"parameters": v}, "object of parameters") for v in (None, 0, [], "rank", [["rank", 2]])),
        *(({"history": v}, "history") for v in (None, [], {}, 0, {"train": None}, {"train": "123"}, {"valid": [1]})),
        *(({"history": {"train": [v]}}, "history") for v in (None, "1.5", True, [1.0], {})),
        ({"history": {"train": [10**400]}}, "too large"),
        ({"history": {"train": [1.0], "validation": ["1.0"]}}, "history"),
        ({"extra": 1}, "description must be an object"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changes, finding):
    path = tmp_path / "model"
    small().fit([[0, 1], [1, 0]]).save(path)
    rewritten(path, **changes)
    with pytest.raises(ValueError, match=f"(?s)model holds no valid estimator.*{finding}"):
        TensorRingDensity.load(path)


@pytest.mark.parametrize("value", [None, 0, "", "model", [], [1], {}, True], ids=str)
def test_descriptions_of_another_kind(tmp_path, value):
    path = tmp_path / "model"
    small().fit([[0, 1], [1, 0]]).save(path)
    contents = taken_apart(path.read_bytes())
    contents.metadata["estimator"] = json.dumps(value)
    path.write_bytes(put_together(contents))
    with pytest.raises(ValueError, match="model holds no valid estimator: its description must be an object"):
        TensorRingDensity.load(path)


@pytest.mark.parametrize(
    "x",
    [
        np.array([[2**63 + 5], [2**64 - 1]], dtype=np.uint64),
        np.array([[-(2**63)], [2**63 - 1]]),
        pd.DataFrame({"a": pd.Categorical([0.5, np.inf])}),
        pd.DataFrame({"a": pd.Categorical([True, False])}),
    ],
    ids=["unsigned", "signed", "infinite", "boolean"],
)
def test_categories_at_the_ends_of_their_dtypes(tmp_path, x):
    model = small().fit(x)
    model.save(tmp_path / "model")
    loaded = TensorRingDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.categories_[0], model.categories_[0])
    assert loaded.categories_[0].dtype == model.categories_[0].dtype
    np.testing.assert_array_equal(loaded.score_samples(x), model.score_samples(x))


def test_files_of_something_else(tmp_path):
    rd.TensorRing.random([rd.Categorical(2)], 1, rng=0).save(tmp_path / "ring")
    with pytest.raises(ValueError, match="without a description of its estimator"):
        TensorRingDensity.load(tmp_path / "ring")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="safetensors"):
        TensorRingDensity.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        TensorRingDensity.load(tmp_path / "nothing")
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "unfitted")


def test_categories_that_json_cannot_hold(tmp_path):
    frame = pd.DataFrame({"when": pd.Categorical(pd.to_datetime(["2020-01-01", "2021-01-01"]))})
    model = small().fit(frame)
    assert np.isfinite(model.score(frame))
    with pytest.raises(ValueError, match=r"column 0 \('when'\): only strings and numbers can be saved"):
        model.save(tmp_path / "a")
    assert not any(tmp_path.iterdir())


def test_the_package_imports_scikit_learn_only_for_its_estimator():
    import subprocess
    import sys

    code = (
        "import sys, ringdist; assert 'sklearn' not in sys.modules; ringdist.TensorRingDensity; from ringdist import *"
    )
    code += "; assert 'sklearn' in sys.modules and 'TensorRingDensity' in dir(ringdist) and TensorRingDensity"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_prior_weighs_the_same_at_every_rank():
    """Rows of prior in the largest core, however many entries it has: a large rank does not drown the data."""
    x = np.random.default_rng(0).integers(0, 2, (300, 1)) * np.ones((1, 6), dtype=int)  # six equal columns
    for rank in (2, 24):
        model = TensorRingDensity(rank=rank, max_epochs=30, random_state=0).fit(x)
        assert model.score(x) > -0.85, (rank, model.score(x))  # log 2, and what 10 rows of prior cost


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("value", [7.3, -0.1, 1e9, 1e-12])
def test_densities_of_a_constant_column_do_not_depend_on_rounding(value, jitter):
    """Whatever its unit, the column's components are as narrow as the floor allows, relative to its value."""
    x = np.column_stack([np.full(1000, value), np.random.default_rng(0).normal(size=1000)])
    if jitter:
        x[::3, 0] = np.nextafter(x[::3, 0], np.inf)
    est = TensorRingDensity(rank=2, max_epochs=3, variance_floor=1e-3, random_state=0).fit(x)
    stds = est.ring_.variables[0].standard_deviations()
    np.testing.assert_allclose(stds, np.sqrt(est.variance_floor) * abs(value), rtol=1e-6)
    beside = np.array([[value * 1.1, 0.0]])
    assert est.score_samples(beside)[0] > est.score_samples(np.array([[value, 0.0]]))[0] - 60
