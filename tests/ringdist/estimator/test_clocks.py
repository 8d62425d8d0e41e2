"""Columns of dates and durations: rows without them, intervals of another kind, plots."""

import datetime

import matplotlib.dates
import numpy as np
import pandas as pd
import pytest

import ringdist as rd
from ringdist import TensorRingDensity

ROWS = 80


@pytest.fixture(scope="module", params=[0, 1])
def frame(request) -> pd.DataFrame:
    rng = np.random.default_rng(request.param)
    days = rng.integers(0, 900 + 300 * request.param, ROWS)
    return pd.DataFrame(
        {
            "since": pd.Timestamp("2021-03-01") + pd.to_timedelta(days, unit="D"),
            "call": pd.to_timedelta(rng.integers(1, 90, ROWS), unit="min"),
            "income": rng.normal(3000, 400, ROWS) + days,
            "city": np.array(["Bonn", "Oslo"])[rng.integers(2, size=ROWS)],
        }
    )


@pytest.fixture(scope="module")
def model(frame) -> TensorRingDensity:
    kinds = dict.fromkeys(["since", "call", "income"], "gaussian")
    return TensorRingDensity(
        rank=2, num_components=3, max_epochs=20, pseudocount=1.0, column_types=kinds, random_state=0
    ).fit(frame)


@pytest.mark.parametrize("absent", [["since"], ["call"], ["since", "call"], ["income"]])
def test_rows_of_a_frame_need_not_have_the_column(model, frame, absent):
    rows = frame.drop(columns=absent).head(5)
    known = {name: rows[name].tolist() for name in rows}
    np.testing.assert_array_equal(model.predict_proba(rows, "city"), model.predict_proba(known, "city"))
    np.testing.assert_array_equal(model.score_samples(rows), model.score_samples(known))
    completed = model.impute(rows)
    assert completed[absent].notna().all(axis=None)
    assert (completed[list(rows)] == rows).all(axis=None)


@pytest.mark.parametrize("name", ["since", "call", "income"])
def test_a_column_of_nan_is_missing_whatever_its_dtype(model, frame, name):
    rows = frame.head(4).assign(**{name: np.nan})
    expected = model.score_samples(frame.head(4).drop(columns=name))
    np.testing.assert_array_equal(model.score_samples(rows), expected)


DATE, DURATION = pd.Timestamp("2022-05-06"), pd.Timedelta(minutes=30)
BOUNDS = {"since": DATE, "call": DURATION, "income": 3100.0}
WORDS = {"since": "dates", "call": "durations", "income": "numbers"}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("other", BOUNDS)
def test_the_bounds_of_an_interval_are_of_the_kind_of_the_column(model, name, other):
    event = {name: rd.Interval(None, BOUNDS[other])}
    if name == other:
        assert 0.0 < model.probability(event) < 1.0
        return
    for ask in (model.probability, model.condition, lambda e: model.sample_given({}, event=e)):
        with pytest.raises(ValueError, match=rf"\('{name}'\).* must be {WORDS[name]}.*found {WORDS[other]}.*write"):
            ask(event)


@pytest.mark.parametrize("name", BOUNDS)
def test_an_unbounded_interval_fits_every_column(model, name):
    assert model.probability({name: rd.Interval()}) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("bounds", [(DATE, 5), (0.0, DURATION), (DURATION, DATE), (datetime.date(2020, 1, 1), 1e12)])
def test_both_bounds_are_of_one_kind(bounds):
    with pytest.raises(ValueError, match=r"two numbers, two dates or two durations, found .* and "):
        rd.Interval(*bounds)


def test_intervals_of_equal_bounds_are_equal():
    seconds = rd.Interval(DATE.timestamp(), None)
    assert rd.Interval(DATE, None) == seconds
    assert hash(rd.Interval(DATE, None)) == hash(seconds)
    assert rd.Interval(DATE, None).kind == rd.Interval(None, np.datetime64("2022-05-06")).kind == "dates"
    assert rd.Interval(None, DURATION).kind == rd.Interval(np.timedelta64(3, "h"), None).kind == "durations"


@pytest.mark.parametrize("text", ["2021-01-01", "5"])
def test_a_string_is_no_bound(text):
    with pytest.raises(TypeError, match=rf"number, a date, a duration or None, found '{text}'.*Timestamp\('{text}'\)"):
        rd.Interval(text, None)


def test_a_plot_of_dates(model, frame):
    axes = rd.plot_conditional(model, {"city": "Oslo"}, "since")
    dates, density = axes.lines[0].get_data()
    days = matplotlib.dates.date2num(dates)
    assert np.trapezoid(density, days) == pytest.approx(0.998, abs=5e-3)  # between the quantiles of 0.1 and 99.9 %
    assert pd.Timestamp(dates.min()) < frame["since"].median() < pd.Timestamp(dates.max())
    assert axes.get_ylabel() == "density per day"


def test_a_plot_of_durations(model):
    axes = rd.plot_conditional(model, {"since": DATE}, "call")
    days, density = axes.lines[0].get_data()
    assert np.trapezoid(density, days) == pytest.approx(0.998, abs=2e-2)
    assert axes.get_xlabel() == "call, days"


@pytest.mark.parametrize("name", ["city", "income"])
def test_a_plot_beside_a_column_of_dates(model, name):
    axes = rd.plot_conditional(model, {"call": DURATION}, name)
    assert axes.get_ylabel() == ("probability" if name == "city" else "density")


def test_a_plot_of_an_unknown_column(model):
    with pytest.raises(ValueError, match=r"no column 'incme'.*did you mean 'income'\?"):
        rd.plot_conditional(model, {"city": "Oslo"}, "incme")
