"""Columns as they are: types inferred and named, dtypes and support of samples and completions."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

import ringdist as rd
from ringdist import TensorRingDensity


def quick(**changes) -> TensorRingDensity:
    return TensorRingDensity(**({"rank": 2, "num_components": 3, "max_epochs": 8, "random_state": 0} | changes))


def types_of(frame, **options):
    return quick(max_epochs=1, pseudocount=1.0, **options).fit(frame).column_types_


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """A column of every dtype, all of them moved by one group."""
    rng, n = np.random.default_rng(0), 240
    group = rng.integers(0, 2, n)
    result = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "small": (rng.normal(size=n) + group).astype("float32"),
            "level": pd.Categorical(np.array(["low", "high"])[group], ["low", "mid", "high"], ordered=True),
            "count": pd.array(rng.negative_binomial(2, 0.05, n), dtype="Int64"),
            "yes": pd.array(rng.random(n) < 0.3 + 0.4 * group, dtype="boolean"),
            "word": pd.array(np.array(["a", "b", "c"])[rng.integers(0, 3, n)], dtype="string"),
            "rooms": pd.array(1 + group, dtype="UInt8"),
            "price": [Decimal(int(v)) / 100 for v in rng.integers(100, 9999, n)],
            "stay": pd.to_timedelta(rng.integers(0, 1000, n), unit="min"),
            "amount": np.where(rng.random(n) < 0.5, 0.0, np.exp(rng.normal(3, 1, n))),
        }
    )
    result.loc[3, "rooms"] = pd.NA
    result.loc[[1, 5], "small"] = np.nan
    return result


@pytest.fixture(scope="module")
def model(frame) -> TensorRingDensity:
    return quick().fit(frame)


# --------------------------------------------------------------------------------------------------- inference


def test_integers_are_categories_only_where_they_are_few():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(0, 70, 500),
            "stars": rng.integers(1, 6, 500),
            "flag": rng.integers(0, 2, 500),
            "visits": rng.negative_binomial(1, 0.02, 500),
        }
    )
    found = types_of(frame)
    assert found.pop("age") in ("gaussian", "count")
    assert found == {"stars": "categorical", "flag": "categorical", "visits": "count"}
    assert types_of(frame.head(12))["age"] != "categorical"


def test_integers_with_missing_entries_are_floats_to_pandas():
    flag = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    flag[::9] = np.nan
    year = 1950.0 + np.random.default_rng(1).integers(0, 60, 100)
    year[::7] = np.nan
    frame = pd.DataFrame({"flag": flag, "year": year, "real": np.where(np.isnan(flag), np.nan, flag + 0.5)})
    model = quick().fit(frame)
    assert list(model.column_types_.values()) == ["categorical", "gaussian", "gaussian"]
    assert set(model.sample(50, random_state=0)["flag"]) == {0.0, 1.0}
    years = model.impute(frame)["year"]
    assert (years % 1 == 0).all()  # completed years are years


def test_a_few_real_numbers_in_many_rows_are_settings():
    rng = np.random.default_rng(0)
    chord = rng.choice([0.0254, 0.0508, 0.1016, 0.3048], 200)
    same = np.where(rng.random(200) < 0.5, 0.1, np.nextafter(0.1, 1))  # one number, rounded in two ways
    frame = pd.DataFrame({"chord": chord, "same": same, "x": rng.normal(size=200)})
    assert types_of(frame) == {"chord": "categorical", "same": "gaussian", "x": "gaussian"}
    full = quick().fit(frame).impute(frame.assign(chord=frame["chord"].mask(rng.random(200) < 0.5)))
    assert set(full["chord"]) <= set(chord)


@pytest.mark.parametrize(
    ("draw", "kind"),
    [
        (lambda rng, n: np.exp(rng.normal(5, 1.2, n)), "lognormal"),
        (lambda rng, n: 10 + 3 * rng.normal(size=n), "gaussian"),
        (lambda rng, n: rng.beta(0.6, 0.8, n), "beta"),
        (lambda rng, n: rng.random(n), "beta"),
        (lambda rng, n: rng.exponential(3.0, n), "lognormal"),
    ],
)
def test_families_are_chosen_by_held_out_likelihood(draw, kind):
    values = draw(np.random.default_rng(3), 1000)
    assert types_of(pd.DataFrame({"a": values, "b": 1.0 * np.arange(1000) % 7.5}))["a"] == kind


def test_types_that_the_user_names(frame):
    chosen = {"age": "count", "small": "student_t", 9: "lognormal", "rooms": "gaussian"}
    model = quick(column_types=chosen).fit(frame)
    found = model.column_types_
    assert [found[name] for name in ("age", "small", "amount", "rooms")] == [
        "count",
        "student_t",
        "lognormal",
        "gaussian",
    ]
    assert isinstance(model.ring_.variables[0], rd.NegativeBinomialMixture)
    assert isinstance(model.ring_.variables[1], rd.StudentTMixture)
    assert isinstance(model.ring_.variables[9], rd.WithAtoms)
    assert model.sample(5)["rooms"].dtype == "UInt8"
    angles = np.random.default_rng(0).vonmises(3, 2, (200, 1))
    assert isinstance(quick(column_types={0: "von_mises"}).fit(angles).ring_.variables[0], rd.VonMisesMixture)
    assert isinstance(quick(column_types={0: "poisson"}).fit([[1], [4], [9]]).ring_.variables[0], rd.PoissonMixture)


def test_zeros_among_amounts_and_codes_are_values_of_their_own(frame):
    rng = np.random.default_rng(0)
    code = np.where(rng.random(240) < 0.1, -999.0, rng.normal(20, 3, 240))
    with pytest.warns(UserWarning, match=r"column 10 \('code'\): -999 stands far.*replace it by NaN"):
        model = quick().fit(frame.assign(code=code))
    drawn = model.sample(2000, random_state=0)
    assert (drawn["amount"] >= 0).all()
    assert abs((drawn["amount"] == 0).mean() - (frame["amount"] == 0).mean()) < 0.05
    beside = drawn["code"][drawn["code"] != -999]
    assert abs((drawn["code"] == -999).mean() - 0.1) < 0.04 and beside.between(0, 40).all()
    assert model.probability({"code": rd.Interval(-999, -999)}) == pytest.approx((code == -999).mean(), abs=0.02)


def test_what_tells_nothing_is_said():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=50), "same": 7, "key": np.arange(50) + 1000})
    with pytest.warns(UserWarning) as caught:
        quick().fit(frame)
    said = [str(warning.message) for warning in caught]
    assert any("column 1 ('same'): all 50 entries are 7" in text and "drop it" in text for text in said)
    assert any("column 2 ('key'): all 50 entries differ" in text and "column_types={'key'" in text for text in said)
    with pytest.warns(UserWarning, match=r"column 0 \('name'\): all 50 entries differ"):
        quick().fit(pd.DataFrame({"name": [f"u{k}" for k in range(50)], "x": rng.normal(size=50)}))


# ----------------------------------------------------------------------------------------- dtypes and support


def test_samples_have_the_schema_of_the_frame(frame, model):
    drawn = model.sample(400, random_state=1)
    assert drawn.dtypes.equals(frame.dtypes)
    assert pd.concat([frame, drawn]).dtypes.equals(frame.dtypes)
    assert drawn["level"].cat.ordered and list(drawn["level"].cat.categories) == ["low", "mid", "high"]
    assert (drawn["count"] >= 0).all() and (drawn["age"] >= 0).all()
    assert all(isinstance(value, Decimal) and value.as_tuple().exponent == -2 for value in drawn["price"])
    assert (drawn["stay"].dt.total_seconds() % 60 == 0).all()


@pytest.mark.parametrize("method", ["mean", "sample", "mode"])
def test_completions_have_the_schema_of_the_frame(frame, model, method):
    gaps = np.random.default_rng(2).random(frame.shape) < 0.3
    gappy = frame.mask(gaps)
    full = model.impute(gappy, method=method, random_state=0)
    assert full.dtypes.equals(gappy.dtypes) and not full.isna().any().any()
    assert (full["count"] >= 0).all() and full["small"].dtype == np.float32
    assert set(full["amount"][~gappy["amount"].isna()]) <= set(frame["amount"])


def test_arrays_keep_their_dtype():
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    model = quick().fit(x)
    assert model.sample(3).dtype == np.float32
    x[::3, 0] = np.nan
    assert model.impute(x).dtype == np.float32
    counts = np.random.default_rng(0).integers(0, 50, (100, 2))
    drawn = quick().fit(counts).sample(20, random_state=0)
    assert drawn.dtype == counts.dtype and (drawn >= 0).all()


def test_dates_are_refused_with_the_remedy_and_work_as_numbers():
    rng = np.random.default_rng(0)
    for unit, zone in (("D", None), ("h", "Europe/Oslo")):
        start = pd.Timestamp("2020-01-01", tz=zone)
        frame = pd.DataFrame(
            {"when": start + pd.to_timedelta(rng.integers(0, 700, 200), unit=unit), "y": rng.random(200)}
        )
        with pytest.raises(TypeError, match=r"column 0 \('when'\).*date.*column_types=\{'when': 'gaussian'\}"):
            quick().fit(frame)
        model = quick(column_types={"when": "gaussian"}).fit(frame)
        drawn = model.sample(100, random_state=0)
        assert drawn.dtypes.equals(frame.dtypes)
        assert drawn["when"].between(start - pd.Timedelta(400, unit), start + pd.Timedelta(1100, unit)).all()
        assert model.mean(frame.head(3), "when").dtype.kind == "M"
        assert model.impute(frame.assign(when=frame["when"].mask(frame.index % 2 == 0))).dtypes.equals(frame.dtypes)
    days = [[datetime.date(2020, 1, 1 + k), k % 3] for k in range(20)]
    drawn = quick(column_types={0: "gaussian"}).fit(np.array(days, dtype=object)).sample(3)
    assert all(isinstance(value, datetime.date) for value in drawn[:, 0])


def test_a_change_of_unit_by_any_power_changes_nothing():
    x = np.random.default_rng(0).normal(size=(150, 2)).cumsum(axis=1)
    expected = quick().fit(x)
    for scale in (1e155, 1e-165, 1e300, 2.0**-1000):
        model = quick().fit(x * scale)
        np.testing.assert_allclose(model.score(x * scale), expected.score(x) - 2 * np.log(scale), rtol=1e-6)
        np.testing.assert_allclose(
            model.sample(5, random_state=0) / scale, expected.sample(5, random_state=0), rtol=1e-5
        )


@pytest.mark.parametrize("exponent", [-323, -320, -315, -310, -306])
@pytest.mark.parametrize("shape", ["normal", "positive", "constant", "beside_an_atom", "close"])
def test_subnormal_columns_are_refused_with_the_remedy(exponent, shape):
    """Their density is beyond the range of numbers; it was -inf or NaN without a word."""
    rng = np.random.default_rng(-exponent)
    unit, z = 10.0**exponent, rng.normal(size=240)
    x = {
        "normal": z * unit,
        "positive": np.exp(z) * unit,
        "constant": np.full(240, unit),
        "beside_an_atom": np.where(rng.random(240) < 0.5, 5.0, 40 * z * unit),
        "close": 1e-300 + 10.0 ** max(-312, min(exponent, -308)) * z,
    }[shape]
    frame = pd.DataFrame({"x": x, "y": z})
    with pytest.raises(ValueError, match=r"column 0 \('x'\): numbers must differ by 1e-304 or more.*multiply the col"):
        quick(column_types={"x": "gaussian"}).fit(frame)


@pytest.mark.parametrize("value", [1e307, -1.7e308])
def test_numbers_near_the_end_of_the_range_are_refused_with_the_remedy(value):
    frame = pd.DataFrame({"x": [*np.random.default_rng(0).normal(size=50), value]})
    with pytest.raises(ValueError, match=r"column 0 \('x'\): numbers must be at most 1e\+306.*divide the column"):
        quick().fit(frame)


@pytest.mark.parametrize("scale", [1e-303, 1e305])
@pytest.mark.parametrize("kind", ["gaussian", "student_t", "lognormal"])
def test_columns_of_any_other_size_work(scale, kind):
    rng = np.random.default_rng(3)
    z = {"gaussian": rng.normal, "student_t": lambda size: rng.standard_t(3, size)}.get(kind, rng.random)(size=200)
    x = np.column_stack([z * scale, z + rng.normal(size=200)])
    model = quick(column_types={0: kind}).fit(x)
    drawn, same = model.sample(200, random_state=0), quick(column_types={0: kind}).fit(x / [scale, 1])
    assert np.isfinite(drawn).all() and np.abs(drawn[:, 0]).max() < 50 * np.abs(x[:, 0]).max()
    np.testing.assert_allclose(model.score(x), same.score(x / [scale, 1]) - np.log(scale), rtol=1e-4)
    assert ((model.cdf(x, 0) >= 0) & (model.cdf(x, 0) <= 1)).all()


# ------------------------------------------------------------------------------------------------ missing entries


def test_masked_arrays_are_missing_entries():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 1, size=(300, 3))
    mask = rng.random(x.shape) < 0.3
    masked, gappy = np.ma.array(np.where(mask, -999.0, x), mask=mask), np.where(mask, np.nan, x)
    a, b = quick().fit(masked), quick().fit(gappy)
    np.testing.assert_array_equal(a.score_samples(masked), b.score_samples(gappy))
    np.testing.assert_allclose(a.ring_.mean(), 5, atol=0.3)
    families = [rd.GaussianMixture] * 3
    first, second = (rd.initialize(table, families, 2, rng=0) for table in (masked, gappy))
    np.testing.assert_array_equal(first.mean(), second.mean())
    variables = [rd.GaussianMixture([0.0], [1.0])] * 3
    np.testing.assert_array_equal(rd.ordering.dependence(masked, variables), rd.ordering.dependence(gappy, variables))
    integers = np.ma.array(rng.integers(0, 3, (50, 2)), mask=rng.random((50, 2)) < 0.2)
    model = quick().fit(integers)
    assert model.categories_[0].tolist() == [0, 1, 2]


# -------------------------------------------------------------------------------------------------------- files


def test_saved_columns_of_every_kind(frame, model, tmp_path):
    model.save(tmp_path / "model")
    gaps = np.random.default_rng(1).random(frame.shape) < 0.4
    loaded = TensorRingDensity.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.sample(20, random_state=0), model.sample(20, random_state=0))
    pd.testing.assert_frame_equal(
        loaded.impute(frame.mask(gaps)),
        model.impute(frame.mask(gaps)),
    )
    assert loaded.column_types_ == model.column_types_
    chosen = quick(column_types={0: "count", 1: "beta"}, num_rings=2).fit(
        np.column_stack([np.arange(60) % 13, np.linspace(0.01, 0.99, 60)])
    )
    chosen.save(tmp_path / "array")
    again = TensorRingDensity.load(tmp_path / "array")
    assert isinstance(again.ring_, rd.RingMixture)
    np.testing.assert_array_equal(again.sample(4, random_state=0), chosen.sample(4, random_state=0))
    assert again.set_params(num_rings=1).fit(np.array([[1, 0.5], [2, 0.25], [4, 0.1]])).column_types_ == {
        0: "count",
        1: "beta",
    }


@pytest.mark.parametrize("gap", [False, True])
def test_integers_that_are_written_as_floats_stay_integers(gap):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 90, 300).astype(float), "height": rng.normal(170, 8, 300)})
    if gap:
        frame.loc[0, "age"] = np.nan
    model = TensorRingDensity(rank=2, num_components=4, random_state=0).fit(frame)
    drawn = model.sample(200, random_state=0)
    assert drawn.dtypes.equals(frame.dtypes)
    assert (drawn["age"] % 1 == 0).all() and (drawn["height"] % 1 != 0).all()
    filled = model.impute({"age": [np.nan], "height": [180.0]})
    assert filled["age"][0] % 1 == 0
    assert model.cdf({"age": 18.0}, "age")[0] > 0


def test_floats_beyond_the_integers_of_their_dtype_are_real_numbers():
    rng = np.random.default_rng(0)
    large = np.exp(rng.normal(80, 3, 200))  # without a fractional part, as all floats above 2**53
    model = TensorRingDensity(rank=1, num_components=2, random_state=0).fit(pd.DataFrame({"a": large}))
    assert model.column_types_["a"] not in ("categorical", "count", "negative_binomial", "poisson")
    assert model._columns[0].scalars.step == 0
