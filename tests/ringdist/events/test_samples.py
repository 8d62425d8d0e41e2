"""Samples within events, by rejection and by enumeration."""

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from tests import oracle
from tests.backends import load_backend
from tests.oracle import MIXED, TABLE
from tests.ringdist.events.cases import EVENT, FAR, holds, mass, nothing, some_event
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")


@pytest.mark.parametrize("x", [nothing(MIXED), [[1.0, np.nan, np.nan, 0.3]], [[np.nan, 0.2, 3.0, np.nan]]], ids=str)
def test_draws_within_an_event_by_rejection(x):
    ring, event = load_backend("numpy").ring(MIXED), {**EVENT, "label": {1, 2}}
    drawn = ring.sample_given(x, 20_000, event=event, rng=0)[:, 0]
    plain = ring.sample_given(x, 200_000, rng=1)[:, 0]
    kept = plain[np.all([holds(v, plain[:, ring.column(k)]) for k, v in event.items()], axis=0)]
    assert len(kept) > 1000
    for k in range(4):
        assert holds(event[MIXED.columns[k].name], drawn[:, k]).all()
        if not np.isnan(np.asarray(x)[0, k]):
            assert (drawn[:, k] == np.asarray(x)[0, k]).all()
        elif MIXED.columns[k].kind in oracle.DISCRETE:
            tables = [np.bincount(part[:, k].astype(int), minlength=40) for part in (drawn, kept)]
            used = (tables[0] + tables[1]) > 10
            assert stats.chi2_contingency(np.stack(tables)[:, used]).pvalue > 1e-3, k
        else:
            assert stats.ks_2samp(drawn[:, k], kept[:, k]).pvalue > 1e-3, k
    centred = [part - part.mean(axis=0) for part in (drawn, kept)]
    one, other = (np.einsum("ni,nj->ij", part, part) / len(part) for part in centred)
    assert np.abs(one - other).max() < 0.05 * (1 + np.abs(other).max())


@over(TABLE, case=cases(kinds=("categorical",)), examples=0.3)
def test_draws_of_a_table_within_an_event(backend, case):
    ring, event = backend.ring(case), some_event(case)
    cells = oracle.configurations(case.shape)
    weights = mass(case, event, cells)
    if weights.sum() == 0 or len(cells) == 1:
        return
    x = ring.sample_given(backend.array(nothing(case)), 4000, event=event, rng=backend.rng())
    found = oracle.counts(backend.numpy(x)[:, 0], case.shape).ravel()
    assert oracle.chi_square(found, weights / weights.sum()) > 1e-4, (case, event)


def test_draws_far_in_the_tails(backend, dtype):
    """Every draw is in an event of probability e^-2598, with the moments of the conditional ring."""
    ring = backend.ring(MIXED, dtype)
    x = backend.numpy(ring.sample_given(backend.array(nothing(MIXED), dtype), 3000, event=FAR, rng=backend.rng()))[:, 0]
    for k, interval in FAR.items():
        assert holds(interval, x[:, ring.column(k)].astype(float)).all(), k
    conditional = load_backend("numpy").ring(MIXED).condition(FAR)
    errors = np.sqrt(np.diag(conditional.covariance()) / len(x))
    limit = 5 * errors + np.abs(conditional.mean()) * (1e-6 if dtype == "float32" else 1e-12)
    assert (np.abs(x.mean(axis=0) - conditional.mean()) < limit).all(), (x.mean(axis=0), conditional.mean())


def test_draws_of_many_rows_and_shapes():
    ring = load_backend("numpy").ring(MIXED)
    x = MIXED.possible_rows(6, missing=0.9).reshape(2, 3, 4)
    x[..., 1] = np.nan
    event = {"height": rd.Interval(1, 2)}
    assert ring.sample_given(x, event=event, rng=0).shape == (2, 3, 4)
    drawn = ring.sample_given(x, 5, event=event, rng=0)
    assert drawn.shape == (5, 2, 3, 4) and holds(event["height"], drawn[..., 1]).all()
    np.testing.assert_array_equal(drawn, ring.sample_given(x, 5, event=event, rng=0))
    np.testing.assert_array_equal(ring.sample_given(x, 5, event={}, rng=0), ring.sample_given(x, 5, rng=0))
    assert ring.sample_given(x[:0], 5, event=event, rng=0).shape == (5, 0, 3, 4)
