"""The conventions of scikit-learn: checks, clones, searches and pipelines."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ringdist import TensorRingDensity
from tests.ringdist.estimator.cases import small


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


@pytest.mark.slow
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


def test_the_package_imports_scikit_learn_only_for_its_estimator():
    import subprocess
    import sys

    code = (
        "import sys, ringdist; assert 'sklearn' not in sys.modules; ringdist.TensorRingDensity; from ringdist import *"
    )
    code += "; assert 'sklearn' in sys.modules and 'TensorRingDensity' in dir(ringdist) and TensorRingDensity"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
