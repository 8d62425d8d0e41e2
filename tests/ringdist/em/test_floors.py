"""Variances have a floor relative to the column."""

import numpy as np
import pytest

import ringdist as rd


@pytest.mark.parametrize(("value", "unit"), [(0.1, 0.1), (0.0, 1.0)])
def test_a_constant_column_has_a_floor_too(backend, value, unit):
    """Else rounding would decide how narrow its components become, and by how many nats."""
    x = np.stack([np.full(50, value), np.random.default_rng(0).normal(size=50)], axis=1)
    gaussians = [rd.GaussianMixture(*(backend.array(part) for part in ([-1.4, 0.8], [1.0, 1.0]))) for _ in range(2)]
    start = rd.TensorRing.random(gaussians, 2, rng=0)
    start = rd.TensorRing([backend.array(core) for core in start.cores], gaussians)
    fitted = rd.fit_em(start, backend.array(x), max_epochs=10, variance_floor=1e-4)
    assert backend.numpy(fitted.ring.variables[0].arrays()["stds"]).min() == pytest.approx(1e-2 * unit)


@pytest.mark.parametrize("floor", [0.0, 1e-2, 0.2])
def test_the_variance_floor_is_relative_to_the_column(backend, floor):
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros(30), np.ones(30), rng.normal(5, 1, 40)])[:, None] * 1e3
    weight = rng.random(100)
    x[::9] = np.nan
    seen = ~np.isnan(x[:, 0])
    column = x[seen, 0]
    variance = np.cov(column, aweights=weight[seen], ddof=0)
    start = rd.TensorRing(
        [backend.array(np.ones((3, 1, 1)))],
        [rd.GaussianMixture(backend.array([0.0, 1e3, 5e3]), backend.array([300.0, 300.0, 900.0]))],
    )
    fitted = rd.fit_em(start, x, sample_weight=weight, max_epochs=30, variance_floor=floor)
    least = backend.numpy(fitted.ring.variables[0].arrays()["stds"]).min() ** 2
    if floor:
        assert least == pytest.approx(floor * variance)
    else:
        assert least < 1e-4 * variance
    assert np.isfinite(fitted.history["train"]).all()
