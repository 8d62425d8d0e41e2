"""Searches for the numbers at which monotone functions pass a level."""

import numpy as np
import pytest
from scipy import stats

from ringdist.variables import crossing


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e200])
def test_crossings_of_distribution_functions_of_any_scale(backend, scale):
    levels = np.array([1e-12, 0.01, 0.3, 0.5, 0.999, 1 - 1e-9])
    laws = [stats.norm(3 * scale, scale), stats.t(1.5, -scale, scale), stats.gamma(1.5, 2 * scale, scale)]
    for law in laws:
        low, high = law.support()
        calls = []

        def excess(z, law=law, calls=calls):
            calls.append(1)
            return backend.array(law.cdf(backend.numpy(z)) - levels)

        ones = np.ones(len(levels))
        found = backend.numpy(crossing(excess, backend.array(0 * ones), backend.array(scale * ones), low, high))
        np.testing.assert_allclose(law.cdf(found), levels, rtol=1e-7)
        assert len(calls) < 120


def test_crossings_at_ends_and_where_there_is_none():
    ones = np.ones(3)
    step = crossing(lambda z: np.where(z >= 1, 0.5, -0.5), 0 * ones, ones, -np.inf, np.inf)
    np.testing.assert_allclose(step, 1, rtol=1e-15)
    assert (crossing(lambda z: 0 * z - 1, 0 * ones, ones, -np.inf, np.inf) == np.inf).all()
    assert (crossing(lambda z: 0 * z + 1, 0 * ones, ones, -np.inf, np.inf) == -np.inf).all()
    narrow = crossing(lambda z: z - 5.0005, 0 * ones, ones, 5.0, 5.001)
    np.testing.assert_allclose(narrow, 5.0005, rtol=1e-15)
