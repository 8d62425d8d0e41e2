"""Mistakes of new users: each message names the column or option, what was found, the rule, and what to do."""

import datetime
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ringdist as rd
from ringdist import TensorRingDensity

ROWS = 60
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, ROWS),
        "height": RNG.normal(170, 8, ROWS),
        "city": np.array(["Bonn", "Oslo", "Rome"])[np.arange(ROWS) % 3],
        "angle": RNG.uniform(-3, 3, ROWS),
    }
)
NUMBERS = FRAME[["age", "height"]]


def new(**changes) -> TensorRingDensity:
    return TensorRingDensity(
        **({"rank": 2, "num_components": 2, "max_epochs": 1, "pseudocount": 1.0, "random_state": 0} | changes)
    )


@pytest.fixture(scope="module")
def model() -> TensorRingDensity:
    return new(column_types={"age": "gaussian", "height": "gaussian", "angle": "von_mises"}).fit(FRAME)


# What the user does to a table, and what the message has to say of it, in any order.
OF_FITS = {
    "strings among numbers": (
        lambda: new().fit(FRAME.assign(height=[*FRAME["height"].astype(object)[:-1], "n/a"])),
        ("column 1 ('height')", "'n/a'", "only strings or only numbers", "pandas.to_numeric"),
    ),
    "lists in cells": (
        lambda: new().fit(FRAME.assign(tags=[[1]] * ROWS)),
        ("column 4 ('tags')", "[1] of type list", "only strings or only numbers", "astype(str)"),
    ),
    "periods": (
        lambda: new().fit(FRAME.assign(month=pd.period_range("2020-01", periods=ROWS, freq="M"))),
        ("column 4 ('month')", "of type Period", "dt.to_timestamp()", "column_types"),
    ),
    "times of the day": (
        lambda: new().fit(FRAME.assign(at=[datetime.time(hour % 24) for hour in range(ROWS)])),
        ("column 4 ('at')", "of type time", "hours since midnight"),
    ),
    "an unseen count": (
        lambda: new().fit(FRAME.assign(visits=np.arange(ROWS) % 4)).score_samples({"visits": 9}),
        ("column 4 ('visits')", "category 9", "known are 0, 1, 2, 3", "column_types={...: 'count'}"),
    ),
    "duplicate columns": (
        lambda: new().fit(pd.concat([FRAME, FRAME[["age"]]], axis=1)),
        ("'age' 2 times", "every column once", "columns.duplicated()"),
    ),
    "no columns": (lambda: new().fit(FRAME[[]]), ("at least one row and one column", "(60, 0)")),
    "no rows": (lambda: new().fit(FRAME[:0]), ("at least one row and one column", "(0, 4)")),
    "a column without entries": (
        lambda: new().fit(FRAME.assign(height=np.nan)),
        ("column 1 ('height')", "needs an observed entry", "found none", "drop the column"),
    ),
    "infinity": (
        lambda: new().fit(FRAME.assign(height=np.inf)),
        ("column 1 ('height')", "must be finite", "found infinity", "replace it by NaN"),
    ),
    "a huge number": (
        lambda: new().fit(FRAME.assign(height=[1e307] * ROWS)),
        ("column 1 ('height')", "at most 1e+306", "found 1e+307", "divide"),
    ),
    "tiny numbers": (
        lambda: new().fit(FRAME.assign(height=FRAME["height"] * 1e-312)),
        ("column 1 ('height')", "1e-304 or more", "e-310", "multiply"),
    ),
    "dates": (
        lambda: new().fit(FRAME.assign(when=pd.Timestamp("2020-01-02"))),
        ("column 4 ('when')", "2020-01-02", "date", "column_types={'when': 'gaussian'}"),
    ),
    "dates of Python": (
        lambda: new().fit(FRAME.assign(when=datetime.date(2020, 1, 2))),
        ("column 4 ('when')", "2020-01-02", "date", "column_types={'when': 'gaussian'}"),
    ),
    "identifiers": (
        lambda: new().fit(pd.DataFrame({"id": [f"u{k}" for k in range(3000)], "x": 1.5})),
        ("column 0 ('id')", "3000 categories in 3000 rows", "several rows for each", "drop the column"),
    ),
    "an unknown type": (
        lambda: new(column_types={"age": "integer"}).fit(FRAME),
        ("'age'", "'integer'", "one of categorical, gaussian", "leave it out"),
    ),
    "a type of Python": (lambda: new(column_types={"age": float}).fit(FRAME), ("'age'", "float", "one of categorical")),
    "a type of no column": (
        lambda: new(column_types={"Age": "count"}).fit(FRAME),
        ("'Age'", "columns are ['age'", "did you mean 'age'?"),
    ),
    "types in a list": (
        lambda: new(column_types=["count"]).fit(FRAME),
        ("column_types", "a dict from columns to types", "found ['count']", "{'age': 'count'}"),
    ),
    "counts with decimals": (
        lambda: new(column_types={"height": "count"}).fit(FRAME),
        ("column 1 ('height')", "integers from 0", "found 1", "choose 'gaussian'"),
    ),
    "logarithms of negative numbers": (
        lambda: new(column_types={"height": "lognormal"}).fit(FRAME.assign(height=-FRAME["height"])),
        ("column 1 ('height')", "positive numbers and zeros", "found -1", "choose 'gaussian'"),
    ),
    "angles in degrees": (
        lambda: new(column_types={"height": "von_mises"}).fit(FRAME),
        ("column 1 ('height')", "between -pi and pi", "found 1", "radians"),
    ),
    "numbers out of strings": (
        lambda: new(column_types={"city": "gaussian"}).fit(FRAME),
        ("column 2 ('city')", "only numbers", "'Bonn'", "'categorical'"),
    ),
    "no rank": (lambda: new(rank=0).fit(FRAME), ("rank", "a positive integer", "found 0")),
    "a rank in words": (lambda: new(rank="big").fit(FRAME), ("rank", "'auto'", "found 'big'")),
    "too few ranks": (lambda: new(rank=[2, 2]).fit(FRAME), ("one rank per bond", "4 in all", "found 2")),
    "a budget in words": (lambda: new(budget="10s").fit(FRAME), ("budget", "a positive number", "found '10s'")),
    "a negative budget": (lambda: new(budget=-1).fit(FRAME), ("budget", "a positive number", "found -1")),
    "an unknown policy": (
        lambda: new(handle_unknown="ignore").fit(FRAME),
        ("handle_unknown", "error, missing or rare", "found 'ignore'"),
    ),
    "an order of some columns": (
        lambda: new(order=["age", "city"]).fit(FRAME),
        ("order", "a permutation of all 4 columns", "found ['age', 'city']", "every column once"),
    ),
    "an order with a wrong name": (
        lambda: new(order=["age", "heigth", "city", "angle"]).fit(FRAME),
        ("order names 'heigth'", "none of ['age'", "did you mean 'height'?"),
    ),
    "one row to be held out": (
        lambda: new(validation_fraction=0.2).fit(FRAME[:1]),
        ("validation_fraction", "at least 2 rows", "found 1"),
    ),
    "a dict to fit": (lambda: new().fit({"age": [1, 2]}), ("a frame or an array", "a dict", "pandas.DataFrame(X)")),
    "records to fit": (
        lambda: new().fit([{"age": 1}, {"age": 2}]),
        ("a frame, an array", "a list of dicts", "pandas.DataFrame(X)"),
    ),
    "weights of zero": (lambda: new().fit(FRAME, sample_weight=np.zeros(ROWS)), ("eight", "zero")),
}
OF_QUESTIONS = {
    "a column with another name": (
        lambda m: m.score_samples(FRAME.rename(columns={"age": "Age"})),
        ("'Age'", "columns are 'age', 'height'", "did you mean 'age'?", "frame.drop(columns=['Age'])"),
    ),
    "a key with another name": (
        lambda m: m.mean({"City": "Oslo"}, "height"),
        ("'City'", "columns are 'age', 'height'", "did you mean 'city'?"),
    ),
    "a target that is not there": (
        lambda m: m.predict_proba(FRAME, "town"),
        ("no column 'town'", "'age', 'height', 'city', 'angle'"),
    ),
    "an unseen category": (
        lambda m: m.score_samples({"city": "Paris"}),
        ("column 2 ('city')", "'Paris'", "known are 'Bonn', 'Oslo', 'Rome'", "handle_unknown='missing'"),
    ),
    "a category in lower case": (
        lambda m: m.score_samples({"city": ["Rome", "oslo"]}),
        ("column 2 ('city')", "'oslo'", "did you mean 'Oslo'? Or set handle_unknown='missing'"),
    ),
    "an event of a missing category": (
        lambda m: m.probability({"city": np.nan}),
        ("column 2 ('city')", "must not be missing", "found nan", "leave the column out"),
    ),
    "an event with a missing category": (
        lambda m: m.probability({"city": {"Oslo", None}}),
        ("column 2 ('city')", "must not be missing", "found None", "leave the column out"),
    ),
    "two targets": (
        lambda m: m.predict(FRAME, ["city", "age"]),
        ("one name or one index", "['city', 'age']", "one column at a time"),
    ),
    "a list in a marginal": (lambda m: m.marginal(["age", ["city"]]), ("one name or one index", "['city']")),
    "an event of an unseen category": (
        lambda m: m.probability({"city": {"oslo"}}),
        ("column 2 ('city')", "'oslo'", "known are 'Bonn'", "did you mean 'Oslo'?"),
    ),
    "an event without a category": (
        lambda m: m.probability({"city": set()}),
        ("column 2 ('city')", "at least one category", "found none", "leave the column out"),
    ),
    "an interval of categories": (
        lambda m: m.probability({"city": rd.Interval(0, 1)}),
        ("column 2 ('city')", "no order", "Interval(0, 1)", "{'Bonn', 'Oslo'}"),
    ),
    "a tuple for an interval": (
        lambda m: m.probability({"height": (150, 170)}),
        ("column 1 ('height')", "(150, 170)", "rd.Interval(150, 170)"),
    ),
    "a number for an interval": (
        lambda m: m.probability({"height": 170.0}),
        ("column 1 ('height')", "170.0", "rd.Interval", "a single real number has probability 0"),
    ),
    "a condition in words": (
        lambda m: m.probability({"age": "> 50"}),
        ("column 0 ('age')", "'> 50'", "rd.Interval(low, high)"),
    ),
    "no event": (lambda m: m.probability({"age": None}), ("column 0 ('age')", "None", "leave the column out")),
    "an event that is no dict": (
        lambda m: m.probability("age > 50"),
        ("a dict from columns", "'age > 50'", "{'age': rd.Interval(50, None)}"),
    ),
    "an interval from high to low": (lambda m: rd.Interval(50, 20), ("low <= high", "low = 50 and high = 20")),
    "an interval of NaN": (lambda m: rd.Interval(np.nan, 2), ("low of an interval", "None", "NaN")),
    "an interval of no date": (lambda m: rd.Interval(pd.NaT, None), ("low of an interval", "NaN")),
    "an interval of pandas": (
        lambda m: m.probability({"height": pd.Interval(150, 170)}),
        ("column 1 ('height')", "Interval(150, 170", "rd.Interval(low, high)"),
    ),
    "a word among numbers": (
        lambda m: m.score_samples({"height": "tall"}),
        ("column 1 ('height')", "only numbers", "'tall'", "pandas.to_numeric"),
    ),
    "no point of a cdf": (
        lambda m: m.cdf({"city": "Oslo"}, "height"),
        ("column 1 ('height')", "needs an entry of the column in every row", "none in row 0", "give it"),
    ),
    "a condition on nothing": (
        lambda m: m.condition({"height": np.nan}),
        ("column 1 ('height')", "must not be missing", "nan", "leave the column out"),
    ),
    "a condition on everything": (
        lambda m: m.condition({"age": 30, "height": 170.0, "city": "Oslo", "angle": 0.0}),
        ("a column must remain", "all 4", "leave one out"),
    ),
    "a quantile in percent": (
        lambda m: m.quantile(FRAME, "height", 95),
        ("column 1 ('height')", "in [0, 1]", "found 95", "0.95"),
    ),
    "a quantile in words": (
        lambda m: m.quantile(FRAME, "height", "median"),
        ("column 1 ('height')", "in [0, 1]", "found 'median'", "0.95"),
    ),
    "a quantile of names": (
        lambda m: m.quantile(FRAME, "city", 0.5),
        ("column 2 ('city')", "need an order", "'Bonn', 'Oslo', 'Rome'", "predict_proba"),
    ),
    "a mean of names": (
        lambda m: m.mean(FRAME, "city"),
        ("column 2 ('city')", "only numbers have a mean", "'Bonn'", "predict_proba"),
    ),
    "classes of numbers": (
        lambda m: m.predict_proba(FRAME, "height"),
        ("column 1 ('height')", "categorical column", "a gaussian one", "use mean"),
    ),
    "a marginal of one name": (lambda m: m.marginal("age"), ("a list of columns", "'age'", "write ['age']")),
    "a marginal of a column twice": (lambda m: m.marginal(["age", "age"]), ("each of them once", "['age', 'age']")),
    "a marginal of nothing": (lambda m: m.marginal([]), ("at least one column", "[]")),
    "an unknown completion": (
        lambda m: m.impute(FRAME, method="median"),
        ("method", "mean, sample or mode", "found 'median'"),
    ),
    "no samples": (lambda m: m.sample(0), ("n_samples", "a positive integer", "found 0")),
    "an angle in degrees": (
        lambda m: m.score_samples({"angle": 90.0}),
        ("column 3 ('angle')", "between -pi and pi", "found 90", "radians"),
    ),
    "columns of different lengths": (
        lambda m: m.score_samples({"age": [1, 2], "height": [1, 2, 3]}),
        ("one length", "{'age': 2, 'height': 3}"),
    ),
    "an event that a row contradicts": (
        lambda m: m.sample_given(FRAME, event={"age": rd.Interval(1000, None)}),
        ("column 0 ('age')", "must be in the event", "in row 0"),
    ),
}


def says(call, parts) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text and not re.search(r"object at 0x|Traceback", text)


@pytest.mark.parametrize("mistake", OF_FITS)
def test_a_mistake_before_a_fit(mistake):
    says(*OF_FITS[mistake])


@pytest.mark.parametrize("mistake", OF_QUESTIONS)
def test_a_mistake_in_a_question(model, mistake):
    call, parts = OF_QUESTIONS[mistake]
    says(lambda: call(model), parts)


def test_a_question_before_a_fit():
    with pytest.raises(NotFittedError, match="fit"):
        new().quantile(FRAME, "age", 0.5)


def test_classes_where_there_are_only_numbers():
    with pytest.raises(ValueError, match=r"predict_proba needs a categorical column.*all 2 columns.*column_types"):
        new(column_types={"age": "gaussian"}).fit(NUMBERS).predict_proba(NUMBERS)


@pytest.mark.parametrize(
    ("kind", "table", "changes"),
    [
        (UserWarning, FRAME.assign(key=np.arange(ROWS) + 5000), {}),
        (UserWarning, FRAME.assign(same=3.5), {}),
        (UserWarning, FRAME.assign(height=FRAME["height"].where(np.arange(ROWS) % 5 > 0, -999.0)), {}),
        (ConvergenceWarning, NUMBERS, {"max_epochs": 2, "pseudocount": 0.0}),
    ],
)
def test_a_warning_shows_the_line_of_the_user(kind, table, changes):
    with pytest.warns(kind) as caught:
        new(**changes).fit(table)
    with pytest.warns(kind) as through_sklearn:
        make_pipeline(new(**changes), StandardScaler()).fit(table.select_dtypes("number"))
    for warning in (*caught, *through_sklearn):
        if warning.category is kind:
            assert warning.filename == __file__, (warning.filename, str(warning.message))
