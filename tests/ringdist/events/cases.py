"""Events of the tests' rings, and what enumeration says of them."""

import math

import numpy as np

import ringdist as rd
from tests.oracle import make_case

COUNTS = make_case(["poisson", "categorical", "poisson"], [3, 2, 2], [2, 3, 2], [2, 0, 1], seed=7)
EVENT = {
    "label": {0, 2},
    "height": rd.Interval(-1, 0.5),
    "count": rd.Interval(2, None),
    "delay": rd.Interval(None, 1.0),
}
FAR = {"height": rd.Interval(60, None), "count": rd.Interval(300, 400), "delay": rd.Interval(500, None)}


def some_event(case):
    """Events of about half of the columns."""
    rng = np.random.default_rng(case.seed)
    event = {}
    for k, column in enumerate(case.columns):
        if rng.random() < 0.5 and event:
            continue
        if column.kind == "categorical":
            chosen = rng.random(column.num_components) < 0.6
            chosen[rng.integers(column.num_components)] = True
            event[k] = set(np.flatnonzero(chosen).tolist())
        else:
            low, high = np.sort(column.draw(2, rng)) + np.array([0.0, 0.7])
            event[k] = rd.Interval(None if rng.random() < 0.3 else low, None if rng.random() < 0.3 else high)
    return event


def component_masses(column, event):
    """P(event | s), (N,), from whichever tail does not cancel."""
    if not isinstance(event, rd.Interval):
        return np.isin(np.arange(column.num_components), list(event)).astype(float)
    low, high = event.low, event.high
    if column.kind == "poisson":
        low = math.ceil(low) - 1 if math.isfinite(low) else low
    below = column.frozen.cdf(high) - column.frozen.cdf(low)
    above = column.frozen.sf(low) - column.frozen.sf(high)
    return np.where(column.means() < low, above, below)


def holds(event, x):
    """Whether values are in the event; NaN is."""
    inside = (x >= event.low) & (x <= event.high) if isinstance(event, rd.Interval) else np.isin(x, list(event))
    return inside | np.isnan(x)


def mass(case, event, x):
    """p(x, event) Z of rows x: (n, d) -> (n,)."""
    operands: list = [case.joint, list(range(case.d))]
    for k, column in enumerate(case.columns):
        weights = column.density(x[:, k])
        if k in event:
            weights = np.where(np.isnan(x[:, k])[:, None], component_masses(column, event[k]), weights)
            weights = weights * holds(event[k], x[:, k])[:, None]
        operands += [weights, [case.d, k]]
    return np.einsum(*operands, [case.d], optimize=True)


def probability(case, event, x):
    return mass(case, event, x) / mass(case, {}, x)


def by_index(ring, event):
    return {ring.column(k): value for k, value in event.items()}


def nothing(case, n=1):
    return np.full((n, case.d), np.nan)
