"""Log-densities of rows, in the units of the table."""

import numpy as np
import pytest
from scipy import stats

from ringdist import TensorRingDensity
from tests.ringdist.estimator.cases import small


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
