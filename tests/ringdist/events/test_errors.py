"""Events and rows that are refused."""

import math

import numpy as np
import pytest

import ringdist as rd

pytestmark = pytest.mark.slow_on("jax")


def ring_of_people():
    variables = [
        rd.Categorical(3, name="job"),
        rd.GaussianMixture([30.0, 60.0, 45.0], [5.0, 5.0, 10.0], name="age"),
        rd.PoissonMixture([1.0, 4.0], name="children"),
    ]
    cores = [np.eye(3)[:, None, :], np.eye(3)[:, :, None] @ np.ones((1, 2)), np.ones((2, 2, 1))]
    return rd.TensorRing(cores, variables)


QUESTIONS = {
    "probability": lambda ring, event: ring.probability(event),
    "condition": lambda ring, event: ring.condition(event),
    "sample_given": lambda ring, event: ring.sample_given(np.full(3, np.nan), event=event, rng=0),
}
WRONG = [
    ({"weight": {1}}, ValueError, "no column 'weight'"),
    ({7: {1}}, ValueError, "no column 7"),
    ({"job": {1}, 0: {2}}, ValueError, "must differ"),
    ({"job": set()}, ValueError, r"column 0 \('job'\).*at least one category"),
    ({"job": []}, ValueError, r"column 0 \('job'\).*at least one category"),
    ({"job": {3}}, ValueError, r"column 0 \('job'\): category 3 is outside 0\.\.2"),
    ({"job": [0, -1]}, ValueError, r"column 0 \('job'\): category -1 is outside 0\.\.2"),
    ({"job": {0.5}}, ValueError, r"column 0 \('job'\).*0\.5"),
    ({"job": {float("nan")}}, ValueError, r"column 0 \('job'\).*NaN"),
    ({"job": {"baker"}}, TypeError, r"column 0 \('job'\).*'baker'"),
    ({"job": rd.Interval(0, 1)}, ValueError, r"column 0 \('job'\): categories have no order.*set"),
    ({"age": {30}}, ValueError, r"column 1 \('age'\): a set names categories.*Interval"),
    ({"children": [1, 2]}, ValueError, r"column 2 \('children'\): a set names categories.*Interval"),
]


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(("event", "error", "finding"), WRONG, ids=str)
def test_events_that_do_not_fit(name, event, error, finding):
    with pytest.raises(error, match=finding):
        QUESTIONS[name](ring_of_people(), event)


@pytest.mark.parametrize("event", [[("job", {1})], "job", {"job": 1}, {"age": 30.0}, {"age": None}], ids=str)
def test_what_is_not_an_event(event):
    for name in ("probability", "sample_given"):
        with pytest.raises(TypeError, match="event"):
            QUESTIONS[name](ring_of_people(), event)


@pytest.mark.parametrize("name", ["condition", "sample_given"])
@pytest.mark.parametrize(
    ("event", "finding"),
    [
        ({"age": rd.Interval(1e200, None)}, r"column 1 \('age'\) in Interval\(1e\+200, None\)"),
        ({"age": rd.Interval(3, 3)}, r"column 1 \('age'\) in Interval\(3, 3\)"),
        ({"children": rd.Interval(0.2, 0.8)}, r"column 2 \('children'\) in Interval\(0\.2, 0\.8\)"),
        ({"children": rd.Interval(None, -1)}, r"column 2 \('children'\) in Interval\(None, -1\)"),
    ],
    ids=str,
)
def test_events_of_zero_mass(name, event, finding):
    with pytest.raises(ValueError, match=f"zero mass.*{finding}"):
        QUESTIONS[name](ring_of_people(), event)
    assert ring_of_people().probability(event) == 0
    assert ring_of_people().probability(event, log=True) == -math.inf


def test_events_that_exclude_each_other():
    """Each has mass, together they have none."""
    left, right = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    ring = rd.TensorRing([left, right], [rd.Categorical(2, name="a"), rd.Categorical(2, name="b")])
    event = {"a": {0}, "b": {1}}
    assert ring.probability(event) == 0
    for name in ("condition", "sample_given"):
        with pytest.raises(ValueError, match=r"zero mass.*'a'.*0.*'b'.*1"):
            x = np.full(2, np.nan)
            ring.condition(event) if name == "condition" else ring.sample_given(x, event=event, rng=0)
    with pytest.raises(ValueError, match=r"zero mass in row 1 for column 1 \('b'\) in \{1\}"):
        ring.sample_given([[1, np.nan], [0, np.nan]], event={"b": {1}}, rng=0)


def test_rows_that_contradict_an_event():
    x = [[np.nan, 40.0, np.nan], [np.nan, 20.0, np.nan]]
    with pytest.raises(ValueError, match=r"column 1 \('age'\).*found 20 in row 1 for .*Interval\(30, None\)"):
        ring_of_people().sample_given(x, event={"age": rd.Interval(30, None)}, rng=0)


def test_evidence_of_zero_mass_has_no_probabilities():
    left, right = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    ring = rd.TensorRing([left, right, np.ones((2, 1, 1))], [rd.Categorical(2)] * 3)
    with pytest.raises(ValueError, match="zero mass in row 1"):
        ring.probability({2: {0}}, [[0, 0, np.nan], [0, 1, np.nan]])


def test_rows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        ring_of_people().probability({"job": {1}}, np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"column 0 \('job'\)"):
        ring_of_people().probability({"age": rd.Interval(0, 1)}, [[5.0, np.nan, np.nan]])


def test_nothing_of_the_callers_is_written_to():
    ring, x, event = ring_of_people(), np.full((2, 3), np.nan), {"job": [2, 0], "age": rd.Interval(30, None)}
    before = x.copy()
    for question in (ring.probability, ring.condition):
        question(event)
    ring.probability(event, x), ring.sample_given(x, event=event, rng=0)
    np.testing.assert_array_equal(x, before)
    assert event == {"job": [2, 0], "age": rd.Interval(30, None)}
