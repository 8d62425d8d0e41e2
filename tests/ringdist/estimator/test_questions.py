"""Questions in the table's own labels, against answers that follow from the definition."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import ringdist as rd
from ringdist import TensorRingDensity


def table(n: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "job": np.array(["cook", "pilot", "judge"])[np.where(rng.random(n) < 0.8, group, rng.integers(0, 3, n))],
            "height": 170 + 6.0 * group + rng.normal(0, 3, n),
            "age": 20 + 15 * group + rng.integers(0, 15, n),
            "stars": rng.binomial(3, 0.2 + 0.25 * group),
            "owner": rng.random(n) < 0.2 + 0.3 * group,
            "rank": pd.Categorical(np.array(["low", "mid", "top"])[group], ["low", "mid", "top"], ordered=True),
        }
    )


def fitted(frame, **changes) -> TensorRingDensity:
    options = {"rank": 4, "num_components": 4, "max_epochs": 20, "random_state": 0} | changes
    return TensorRingDensity(**options).fit(frame)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return table()


@pytest.fixture(scope="module", params=[1, 2], ids=["ring", "mixture"])
def model(frame, request) -> TensorRingDensity:
    return fitted(frame, num_rings=request.param)


# ------------------------------------------------------------------------------------------------- prediction


def test_class_probabilities_follow_from_the_joint_density(frame, model):
    rows = frame.sample(30, random_state=1)
    proba = model.predict_proba(rows, "job")
    assert model.classes_of("job").tolist() == ["cook", "judge", "pilot"] and proba.shape == (30, 3)
    joint = np.stack([model.score_samples(rows.assign(job=job)) for job in model.classes_of("job")], axis=1)
    expected = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    np.testing.assert_allclose(proba, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(model.predict(rows, "job"), model.classes_of("job")[proba.argmax(axis=1)])
    assert (model.predict(frame, "job") == frame["job"]).mean() > 0.7
    np.testing.assert_array_equal(model.predict_proba(rows.drop(columns="job"), "job"), proba)
    np.testing.assert_array_equal(model.predict_proba(rows.assign(job="nobody"), "job"), proba)
    np.testing.assert_array_equal(model.predict_proba(rows, 0), proba)


def test_means_cdfs_and_quantiles_are_of_the_same_distribution(frame, model):
    rows = frame.head(5)
    levels = [0.1, 0.5, 0.9]
    quantiles = model.quantile(rows, "height", levels)
    assert quantiles.shape == (5, 3) and (np.diff(quantiles, axis=1) > 0).all()
    for j, level in enumerate(levels):
        np.testing.assert_allclose(model.cdf(rows.assign(height=quantiles[:, j]), "height"), level, atol=1e-9)
        np.testing.assert_array_equal(model.quantile(rows, "height", level), quantiles[:, j])
    grid = np.linspace(120, 240, 4001)
    for i in range(2):
        others = rows.iloc[[i]].drop(columns="height")
        many = others.loc[others.index.repeat(len(grid))].assign(height=grid)
        density = np.exp(model.score_samples(many) - model.score_samples(others))
        assert integrate.trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
        assert model.mean(rows, "height")[i] == pytest.approx(integrate.trapezoid(grid * density, grid), rel=1e-6)
    stars = model.predict_proba(rows, "stars") @ model.classes_of("stars")
    np.testing.assert_allclose(model.mean(rows, "stars"), stars)
    np.testing.assert_array_equal(model.predict(rows, "height"), model.mean(rows, "height"))


def test_integers_are_what_densities_are_rounded_to(frame, model):
    drawn = model.sample(20_000, random_state=0)["age"]
    for low, high in ((None, 30), (25, 40), (60, None), (20, 20)):
        share = drawn.between(-np.inf if low is None else low, np.inf if high is None else high).mean()
        assert model.probability({"age": rd.Interval(low, high)}) == pytest.approx(share, abs=0.015)
    assert model.probability({"age": {20, 21}}) == pytest.approx(model.probability({"age": rd.Interval(19.5, 21.5)}))
    median = model.quantile({}, "age", 0.5)[0]
    assert median % 1 == 0 and abs((drawn <= median).mean() - 0.5) < 0.03
    assert model.cdf({"age": 40}, "age")[0] == pytest.approx(model.probability({"age": rd.Interval(None, 40)}))
    assert model.quantile({"job": "judge"}, "rank", 0.5)[0] in ("low", "mid", "top")


# ---------------------------------------------------------------------------------------------- frames and dicts


def test_columns_are_matched_by_name(frame, model):
    expected = model.score_samples(frame)
    shuffled = frame[["owner", "age", "job", "rank", "height", "stars"]]
    np.testing.assert_array_equal(model.score_samples(shuffled), expected)
    np.testing.assert_array_equal(model.predict_proba(shuffled, "job"), model.predict_proba(frame, "job"))
    partial = model.score_samples(frame[["age", "job"]])
    np.testing.assert_allclose(partial, model.marginal(["age", "job"]).score_samples(frame[["job", "age"]]))
    row = {"age": 40, "job": "judge"}
    one = frame.head(1).assign(**row)[["age", "job"]]
    np.testing.assert_array_equal(model.score_samples(row), model.score_samples(one))
    several = {"age": [40, 22], "job": ["judge", "cook"]}
    np.testing.assert_array_equal(model.predict(several, "owner"), model.predict(pd.DataFrame(several), "owner"))
    full = model.impute(row)
    assert full.dtypes.equals(frame.dtypes) and full.loc[0, "age"] == 40
    assert model.impute(frame[["height"]]).dtypes.equals(frame.dtypes)


def test_a_ring_is_never_asked_about_columns_in_another_order(frame, model):
    codes = frame.assign(
        **{
            name: [list(model.classes_of(name)).index(v) for v in frame[name]]
            for name in ("job", "stars", "owner", "rank")
        }
    ).astype({"age": "Int64"})
    expected = model.score_samples(frame)
    np.testing.assert_allclose(model.ring_.log_prob(codes), expected)
    np.testing.assert_allclose(model.ring_.log_prob(codes[codes.columns[::-1]]), expected)
    codes.loc[0, "age"] = pd.NA
    assert np.isfinite(model.ring_.log_prob(codes)[0])
    np.testing.assert_allclose(model.ring_.mean(codes[codes.columns[::-1]]), model.ring_.mean(codes))
    with pytest.raises(ValueError, match="columns of the ring"):
        model.ring_.log_prob(codes.rename(columns={"age": "years"}))


# -------------------------------------------------------------------------------------------------------- events


def test_events_in_labels(frame, model):
    drawn = model.sample(30_000, random_state=3)
    event = {"height": rd.Interval(178, None), "job": {"judge", "pilot"}, "stars": rd.Interval(2, None)}
    inside = (drawn["height"] >= 178) & drawn["job"].isin(["judge", "pilot"]) & (drawn["stars"] >= 2)
    assert model.probability(event) == pytest.approx(inside.mean(), abs=0.01)
    by_row = model.probability({"owner": {True}}, frame.drop(columns="owner"))
    np.testing.assert_allclose(by_row, model.predict_proba(frame, "owner")[:, 1])
    assert model.probability({"job": ["cook", "judge", "pilot"]}) == pytest.approx(1)
    within = model.sample_given(frame[["job"]].head(3), 200, event={"height": rd.Interval(180, 181)}, random_state=0)
    assert within.index.names == ["row", "draw"] and len(within) == 600
    assert within["height"].between(180, 181).all() and within.dtypes.equals(frame.dtypes)
    assert (within["job"] == np.repeat(frame["job"].head(3).to_numpy(), 200)).all()
    assert within.loc[1]["age"].nunique() > 3


def test_conditions_and_marginals_are_estimators(frame, model, tmp_path):
    given = model.condition({"job": "judge", "height": rd.Interval(175, None)})
    assert list(given.column_types_) == ["height", "age", "stars", "owner", "rank"]
    joint = {"job": {"judge"}, "height": rd.Interval(175, None)}
    both = model.probability(joint | {"owner": {True}}) / model.probability(joint)
    assert given.probability({"owner": {True}}) == pytest.approx(both)
    assert given.sample(50, random_state=0)["height"].min() >= 175
    assert given.predict_proba({"age": 50}, "owner").shape == (1, 2)
    value = model.condition({"height": 180.0, "owner": True})
    rest = frame.drop(columns=["height", "owner"])
    whole = model.score_samples(frame.assign(height=180.0, owner=True))
    np.testing.assert_allclose(value.score_samples(rest), whole - model.score_samples({"height": 180.0, "owner": True}))
    some = model.marginal(["rank", "age"])
    assert list(some.feature_names_in_) == ["age", "rank"] and list(some.sample(2).columns) == ["age", "rank"]
    assert list(model.column_types_) == list(frame.columns)  # the model itself is as it was
    given.save(tmp_path / "given")
    loaded = TensorRingDensity.load(tmp_path / "given")
    np.testing.assert_array_equal(
        loaded.score_samples(rest.head(3)[["age"]]), given.score_samples(rest.head(3)[["age"]])
    )


def test_surprise_is_the_log_density_given_the_rest(frame, model):
    gappy = frame.head(6).astype({"age": "Int64"})
    gappy.loc[2, "age"] = pd.NA
    surprise = model.explain(gappy)
    assert list(surprise.columns) == list(frame.columns) and surprise.index.equals(gappy.index)
    assert np.isnan(surprise.loc[2, "age"]) and surprise.notna().sum().sum() == 35
    for k, name in enumerate(frame.columns):
        rest = model.score_samples(gappy.drop(columns=name))
        expected = rest - model.score_samples(gappy)
        np.testing.assert_allclose(surprise.iloc[[0, 1, 3], k], expected[[0, 1, 3]], atol=1e-9)
    odd = frame.head(1).assign(height=230.0)
    assert model.explain(odd)["height"].iloc[0] > surprise["height"].max() + 10


def test_mutual_information_of_pairs(frame, model):
    found = model.mutual_information()
    assert list(found.index) == list(found.columns) == list(frame.columns)
    np.testing.assert_allclose(found, found.T)
    pair = model.marginal(["job", "owner"])
    joint = np.exp([[pair.score({"job": a, "owner": b}) for b in (False, True)] for a in pair.classes_of("job")])
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    assert found.loc["job", "owner"] == pytest.approx((joint * np.log(joint / outer)).sum(), abs=1e-8)
    assert found.loc["height", "rank"] > 0.3 > found.loc["owner", "stars"]
    assert (found.to_numpy() >= 0).all()


# ----------------------------------------------------------------------------------------------------- other tools


def test_it_is_an_imputer_in_a_pipeline(frame):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).cumsum(axis=1)
    y = (x[:, 2] > 0).astype(int)
    x[rng.random(x.shape) < 0.3] = np.nan
    pipeline = make_pipeline(
        TensorRingDensity(rank=3, num_components=4, max_epochs=10, random_state=0), LogisticRegression()
    )
    assert pipeline.fit(x, y).score(x, y) > 0.7
    step = pipeline[0]
    np.testing.assert_array_equal(step.transform(x), step.impute(x))
    assert step.get_feature_names_out().tolist() == ["x0", "x1", "x2"]
    assert clone(step).get_params() == step.get_params()


def test_arrays_are_asked_by_number():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 300)
    x = np.array(list(zip(group.tolist(), (rng.normal(size=300) + group).tolist(), strict=True)), dtype=object)
    model = fitted(x)
    assert model.column_types_ == {0: "categorical", 1: "gaussian"}
    assert model.predict_proba({1: 2.0}, 0).shape == (1, 3)
    assert model.sample_given({0: 1}, 5).shape == (1, 5, 2)
    assert model.explain(x[:4]).shape == (4, 2) and model.mutual_information().shape == (2, 2)
    assert model.marginal([1]).mean({}, 0) == pytest.approx(x[:, 1].mean(), abs=0.2)


def test_unfitted_questions():
    model = TensorRingDensity()
    for ask in (
        lambda: model.predict_proba([[0]], 0),
        lambda: model.predict([[0]], 0),
        lambda: model.classes_of(0),
        lambda: model.mean([[0]], 0),
        lambda: model.probability({0: {0}}),
        lambda: model.condition({0: 0}),
        lambda: model.marginal([0]),
        lambda: model.mutual_information(),
        lambda: model.explain([[0]]),
        lambda: model.sample_given([[0]]),
        lambda: model.transform([[0]]),
    ):
        with pytest.raises(NotFittedError):
            ask()


# ---------------------------------------------------------------------------------------------------------- errors

NUMBERS = "a gaussian one; use mean, cdf or quantile"


@pytest.mark.parametrize(
    ("ask", "finding"),
    [
        (lambda m, f: m.predict_proba(f, "salary"), r"no column 'salary'; columns are 'job', 'height'"),
        (lambda m, f: m.predict_proba(f, 17), r"no column 17"),
        (lambda m, f: m.predict_proba(f, "height"), rf"column 1 \('height'\).*{NUMBERS}"),
        (lambda m, f: m.classes_of("age"), r"column 2 \('age'\)"),
        (lambda m, f: m.mean(f, "job"), r"column 0 \('job'\): only numbers have a mean"),
        (lambda m, f: m.cdf(f, "job"), r"column 0 \('job'\).*need an order"),
        (lambda m, f: m.quantile(f, "height", 1.5), r"column 1 \('height'\): q must be.*found 1.5"),
        (lambda m, f: m.cdf(f.drop(columns="age"), "age"), r"column 2 \('age'\): cdf needs an entry.*row 0"),
        (lambda m, f: m.score_samples(f.assign(salary=1)), r"'salary' was not in the table of fit.*drop\(columns"),
        (lambda m, f: m.score_samples(pd.concat([f, f[["age"]]], axis=1)), r"every column once, found 'age' 2 times"),
        (lambda m, f: m.score_samples({"salary": 1}), r"names an unknown column 'salary'"),
        (lambda m, f: m.score_samples({"age": [1, 2], "job": ["cook"]}), r"one length.*found {'age': 2, 'job': 1}"),
        (lambda m, f: m.score_samples(f.head(0)), r"at least one row"),
        (lambda m, f: m.score_samples(f.assign(height="tall")), r"column 1 \('height'\).*only numbers, found 'tall'"),
        (lambda m, f: m.score_samples(f.assign(age=np.inf)), r"column 2 \('age'\).*infinity; replace it by NaN"),
        (lambda m, f: m.score_samples(f.assign(job="king")), r"column 0 \('job'\): category 'king'.*handle_unknown"),
        (lambda m, f: m.probability({"job": {"king"}}), r"column 0 \('job'\): category 'king'.*known are 'cook'"),
        (lambda m, f: m.probability({"job": rd.Interval(0, 1)}), r"column 0 \('job'\): categories have no order.*set"),
        (lambda m, f: m.probability({"job": set()}), r"column 0 \('job'\).*at least one category"),
        (lambda m, f: m.probability({"height": 170.0}), r"column 1 \('height'\).*rd.Interval.*probability 0"),
        (lambda m, f: m.probability({"height": {170.0, 180.0}}), r"column 1 \('height'\).*Interval\(170, 180\)"),
        (
            lambda m, f: m.probability({"age": rd.Interval(20.2, 20.4)}),
            r"column 2 \('age'\).*contains none of its values.*multiples",
        ),
        (lambda m, f: m.probability({"stars": rd.Interval(20, 30)}), r"column 3 \('stars'\).*none of its categories"),
        (lambda m, f: m.probability({"size": {1}}), r"no column 'size'"),
        (lambda m, f: m.condition({"job": None}), r"column 0 \('job'\): a value to condition on must not be missing"),
        (lambda m, f: m.condition(dict(f.iloc[0])), r"a column must remain"),
        (lambda m, f: m.marginal("age"), r"write \['age'\]"),
        (lambda m, f: m.marginal([]), r""),
        (lambda m, f: m.sample_given(f, 0), r"n must be a positive integer, found 0"),
    ],
)
def test_errors_name_column_value_and_remedy(frame, model, ask, finding):
    with pytest.raises(ValueError, match=f"(?s){finding}"):
        ask(model, frame)


def test_events_of_another_type(model):
    for ask in (lambda: model.probability(["job"]), lambda: model.condition("job")):
        with pytest.raises(TypeError, match="must be a dict"):
            ask()


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"column_types": "numeric"}, r"column_types must be 'auto' or a dict.*'numeric'"),
        ({"column_types": {"size": "count"}}, r"column_types names an unknown column 'size'"),
        ({"column_types": {"age": "number"}}, r"'age' must be one of categorical, gaussian.*found 'number'"),
        ({"column_types": {"height": "count"}}, r"column 1 \('height'\): a count column must contain integers from 0"),
        ({"column_types": {"height": "von_mises"}}, r"column 1 \('height'\).*angles.*radians"),
        ({"column_types": {"job": "gaussian"}}, r"column 0 \('job'\).*only numbers, found"),
        ({"handle_unknown": "ignore"}, r"handle_unknown must be error, missing or rare, found 'ignore'"),
        ({"budget": 0}, r"budget must be.*found 0"),
        ({"rank": "big"}, r"rank must be 'auto'.*found 'big'"),
        ({"rank": 2.5}, r"rank must be 'auto'.*found 2.5"),
        ({"num_rings": 0}, r"num_rings must be.*found 0"),
        ({"core": "tt"}, r"core must be auto, dense or cp, found 'tt'"),
        ({"pseudocount": -1}, r"pseudocount must be.*found -1"),
    ],
)
def test_options_that_do_not_fit(frame, options, finding):
    with pytest.raises(ValueError, match=finding):
        TensorRingDensity(**options).fit(frame)


def test_values_beyond_those_of_fit():
    """Ends of a bounded column and zeros among amounts have a density though fit did not see them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"share": rng.beta(0.7, 2, 400), "amount": np.exp(rng.normal(3, 1, 400)), "n": rng.poisson(9, 400)}
    )
    model = fitted(frame, column_types={"share": "beta", "amount": "lognormal", "n": "count"})
    assert np.isfinite(model.score_samples({"share": [0.0, 1.0, 0.5], "amount": [0.0, 1e9, 20.0]})).all()
    assert model.sample(3000, random_state=0)["share"].between(0, 1).all()
    for row, finding in (
        ({"share": 1.5}, r"column 0 \('share'\): a beta column must contain numbers between.*found 1.5; choose"),
        ({"amount": -2}, r"column 1 \('amount'\): a lognormal column must contain positive numbers.*found -2; choose"),
        ({"n": 2.5}, r"column 2 \('n'\): a count column must contain integers from 0, found 2.5; choose"),
    ):
        with pytest.raises(ValueError, match=finding):
            model.predict(row, "n" if "n" not in row else "share")


def test_values_that_a_type_cannot_hold():
    with pytest.raises(ValueError, match=r"column 0 \('x'\): a lognormal column must contain positive.*-1; choose"):
        TensorRingDensity(column_types={"x": "lognormal"}).fit(pd.DataFrame({"x": [1.0, -1.0]}))
    with pytest.raises(TypeError, match=r"column 0.*convert it"):
        TensorRingDensity().fit(pd.DataFrame({"x": [{1}, {2}]}))
    with pytest.raises(ValueError, match=r"column 1 \('y'\).*none; drop the column"):
        TensorRingDensity().fit(pd.DataFrame({"x": [1.0, 2.0], "y": [None, None]}))
    with pytest.raises(ValueError, match=r"one column, found shape \(5, 0\)"):
        TensorRingDensity().fit(pd.DataFrame(index=range(5)))
    with pytest.raises(TypeError, match=r"pandas\.DataFrame"):
        TensorRingDensity().fit({"x": [1.0, 2.0]})
    with pytest.raises(ValueError, match="every column once, found 'x' 2 times"):
        TensorRingDensity().fit(pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]))


def test_the_median_stands_for_a_mean_that_does_not_exist():
    rng = np.random.default_rng(0)
    shift = rng.choice([-30.0, 30.0], size=400)
    frame = pd.DataFrame({"heavy": shift + rng.standard_t(0.5, 400), "side": np.where(shift > 0, "right", "left")})
    model = rd.TensorRingDensity(column_types={"heavy": "student_t"}, budget=3, random_state=0).fit(frame)
    holes = pd.DataFrame({"heavy": [np.nan, np.nan, 2.0], "side": ["left", "right", None]})
    filled = model.impute(holes)
    assert np.isnan(model.mean(holes[:2], "heavy")).any()  # so the test is about something
    np.testing.assert_allclose(filled["heavy"], [-30, 30, 2], atol=2)
    np.testing.assert_allclose(filled["heavy"][:2], model.quantile(holes[:2], "heavy", 0.5))


def test_events_and_rows_of_dates():
    days = pd.date_range("2020-01-01", periods=90)
    frame = pd.DataFrame({"day": days, "y": np.random.default_rng(0).normal(size=90)})
    model = rd.TensorRingDensity(
        rank=2, num_components=3, max_epochs=3, column_types={"day": "gaussian"}, random_state=0
    ).fit(frame)
    for end in (pd.Timestamp("2020-02-09"), np.datetime64("2020-02-09"), days[39].to_pydatetime(), days[39].date()):
        before = model.probability({"day": rd.Interval(None, end)})
        assert before == pytest.approx(float(model.cdf({"day": days[39]}, "day")[0]))
        assert model.probability({"day": rd.Interval(days[40], None)}) == pytest.approx(1 - before)
    given = model.condition({"day": rd.Interval(days[40], days[49])}).sample(20, random_state=0)
    assert given["day"].between(days[40], days[49]).all()
    values = {"y": [0.1, -0.3, 2.0]}
    for known in (range(3), pd.Index([0, 1, 2]), pd.Series([0, 1, 2])):
        several = model.score_samples({"y": known})
        np.testing.assert_array_equal(several, model.score_samples({"y": [0, 1, 2]}))
    assert model.impute(values).shape == (3, 2)
