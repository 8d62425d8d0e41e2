"""Columns without negative numbers: samples, densities, distribution functions and probabilities are of one model."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ringdist as rd
from ringdist import TensorRingDensity


def fitted(x: np.ndarray, kind: str, **changes) -> TensorRingDensity:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": x, "y": x + rng.normal(size=len(x))})
    options = {"rank": 2, "num_components": 2, "max_epochs": 8, "random_state": 0} | changes
    return TensorRingDensity(column_types={"x": kind}, **options).fit(frame)


COLUMNS = {
    "near 0": lambda rng, n: np.abs(rng.normal(size=n)),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.3, 0.0, rng.gamma(1.5, 1.0, n)),
    "integers": lambda rng, n: np.round(20 * np.abs(rng.normal(size=n))).astype(int),
}
# A column of integers has a density between them: their half distance belongs to 0.
ENDS = {"near 0": 0.0, "zeros": 0.0, "integers": -0.5}


@pytest.mark.parametrize("rings", [1, 2])
@pytest.mark.parametrize("kind", ["gaussian", pytest.param("student_t", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COLUMNS)
def test_components_end_where_the_support_ends(name, kind, rings, tmp_path):
    x = COLUMNS[name](np.random.default_rng(0), 400)
    model = fitted(x, kind, num_rings=rings)
    alone = model.marginal(["x"])
    ring = alone.ring_.rings[0] if rings > 1 else alone.ring_
    assert isinstance(ring.variables[0], rd.Truncated)
    drawn = model.sample(4000, random_state=1)["x"]
    assert drawn.min() >= 0 and (name == "zeros" or abs((drawn == 0).mean() - (x == 0).mean()) < 0.08)
    below = {"x": np.nextafter(ENDS[name], -1) if name != "integers" else -1}
    assert model.cdf(below, "x") == 0 and alone.score_samples(below) == -np.inf
    assert model.probability({"x": rd.Interval(None, -1)}) == 0
    for value in (0, 1, 2, 30):
        share = (drawn <= value).mean()
        cdf = float(model.cdf({"x": value}, "x")[0])
        assert abs(cdf - share) < 5 * np.sqrt(0.25 / 4000)
        assert model.probability({"x": rd.Interval(None, value)}) == pytest.approx(cdf)
        assert model.probability({"x": rd.Interval(0, value)}) == pytest.approx(cdf)
    points = np.linspace(ENDS[name], 200, 40_001)
    step = points[1] - points[0]
    inside = 0.5 * (points[1:] + points[:-1])
    density = np.exp(np.asarray(alone.ring_.log_prob(inside[:, None])))
    atom = np.exp(float(alone.score_samples({"x": 0})[0])) if name == "zeros" else 0.0
    assert density.sum() * step + atom == pytest.approx(1, abs=2e-3)
    assert model.quantile({}, "x", [0, 0.001]).min() >= 0 and model.mean({"y": [-3.0]}, "x") >= 0
    model.save(tmp_path / "model")
    again = TensorRingDensity.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.sample(5, random_state=0), model.sample(5, random_state=0))


def test_samples_follow_the_distribution_function():
    model = fitted(COLUMNS["near 0"](np.random.default_rng(1), 300), "gaussian")
    drawn = model.sample(3000, random_state=2)
    assert stats.kstest(model.cdf(drawn[["x"]], "x"), "uniform").pvalue > 1e-3
    assert stats.kstest(model.cdf(drawn, "x"), "uniform").pvalue > 1e-3  # given the other column


def test_a_column_far_from_zero_stays_as_it_is():
    """No negative number need be impossible because none has been seen."""
    x = 4 + np.random.default_rng(0).normal(size=200)
    model = fitted(x, "gaussian")
    assert isinstance(model.ring_.variables[0], rd.GaussianMixture)
    assert np.isfinite(model.score_samples({"x": [-0.1]})).all()
    assert model.cdf({"x": [-0.1]}, "x") == 0 and model.probability({"x": rd.Interval(-9, -0.1)}) == 0
    assert model.probability({"x": rd.Interval(None, 4)}) == pytest.approx(float(model.cdf({"x": 4}, "x")[0]))


@pytest.mark.parametrize("mean", [0, 40])
def test_probabilities_of_disjoint_events_of_integers_add_up(mean):
    x = np.round(np.abs(mean + 15 * np.random.default_rng(0).normal(size=200))).astype(int)
    model = fitted(x, "gaussian")
    parts = [model.probability({"x": rd.Interval(a, a + 9)}) for a in range(-50, 200, 10)]
    assert sum(parts) == pytest.approx(1) and parts[:5] == [0] * 5
    assert parts[5] == pytest.approx(float(model.cdf({"x": 9}, "x")[0]))
