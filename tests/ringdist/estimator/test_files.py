"""Saved estimators, and files that do not fit."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import ringdist as rd
from ringdist import TensorRingDensity
from tests.ringdist.estimator.cases import small, with_gaps
from tests.safetensors_files import put_together, taken_apart


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
