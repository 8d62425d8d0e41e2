"""Cases of EM, comparisons of fitted rings, and an epoch of EM by enumeration of components and bonds."""

import itertools

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.oracle import Case, Column, make_case

STREAMED = make_case(["categorical", "gaussian", "poisson"], [3, 2, 3], [2, 3, 2], [1, 0, 2], seed=5)


def weights(n: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 4, n).astype(float)


def arrays(ring: rd.TensorRing) -> list:
    return [*ring.cores, *(array for v in ring.variables for array in v.arrays().values())]


def numbers(backend, ring: rd.TensorRing) -> list[np.ndarray]:
    return [backend.numpy(array) for array in arrays(ring)]


def assert_equal_rings(backend, ring, other, rtol: float = 0.0):
    for a, b in zip(numbers(backend, ring), numbers(backend, other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 1e-3)


def enumerated(case: Case, k: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every row the mass of each (s_k, a_k, a_{k+1}), (n, N, m, m'), and the same of the normaliser (N, m, m').

    A sum over all configurations of the components and of the bonds, one after another.
    """
    density = [column.density(x[:, j]) for j, column in enumerate(case.columns)]
    counts, model = np.zeros((len(x), *case.cores[k].shape)), np.zeros(case.cores[k].shape)
    left = {column: j for j, column in enumerate(case.order)}
    for s in itertools.product(*map(range, case.shape)):
        given = np.prod([density[j][:, s[j]] for j in range(case.d)], axis=0)
        for bonds in itertools.product(*map(range, case.ranks)):
            ends = [(bonds[left[j]], bonds[(left[j] + 1) % case.d]) for j in range(case.d)]
            mass = np.prod([case.cores[j][(s[j], *ends[j])] for j in range(case.d)])
            counts[(slice(None), s[k], *ends[k])] += mass * given
            model[(s[k], *ends[k])] += mass
    return counts, model


def em_epoch(case: Case, x: np.ndarray, weight: np.ndarray, pseudocount: float = 0.0, step: float = 1.0) -> Case:
    """All cores of a train at once; of a ring one after the other, from the thinnest bond on."""
    cut = case.ranks.index(min(case.ranks))
    if case.ranks[cut] == 1:
        return train_epoch(case, x, weight, pseudocount, step)
    cores, columns = list(case.cores), list(case.columns)
    for k in case.order[cut:] + case.order[:cut]:
        counts, model = enumerated(Case(tuple(cores), tuple(columns), case.order), k, x)
        share = counts * (weight / counts.sum((1, 2, 3)))[:, None, None, None]
        expected, share_of_model = share.sum(0), model / model.sum()
        if step < 1:
            expected = (1 - step) * share_of_model + step * expected / weight.sum()
        reached = model > 0
        expected = expected + pseudocount * reached * (step / weight.sum() if step < 1 else 1)
        # Q ← C / G, with the environment G = model / Q independent of s
        environment = model.sum(0) / np.where(cores[k].sum(0) > 0, cores[k].sum(0), 1.0)
        old = cores[k]
        cores[k] = np.where(environment > 0, expected / np.where(environment > 0, environment, 1.0), 0.0)
        assert (cores[k][:, old.sum(0) == 0] == 0).all()
        columns[k] = updated(columns[k], x[:, k], share.sum((2, 3)), share_of_model.sum((1, 2)), step, weight.sum())
    return Case(tuple(cores), tuple(columns), case.order)


def train_epoch(case: Case, x: np.ndarray, weight: np.ndarray, pseudocount: float, step: float) -> Case:
    """Every core the conditional distribution p(s, a_{k+1} | a_k) of its expected counts."""
    cores, columns = list(case.cores), list(case.columns)
    for k in range(case.d):
        counts, model = enumerated(case, k, x)
        share = counts * (weight / counts.sum((1, 2, 3)))[:, None, None, None]
        expected, share_of_model = share.sum(0), model / model.sum()
        prior = pseudocount * (model > 0)
        if step < 1:
            expected = (1 - step) * share_of_model + step * (expected + prior) / weight.sum()
        else:
            expected = expected + prior
        total = expected.sum((0, 2), keepdims=True)
        cores[k] = np.divide(expected, total, out=np.zeros_like(expected), where=total > 0)
        columns[k] = updated(columns[k], x[:, k], share.sum((2, 3)), share_of_model.sum((1, 2)), step, weight.sum())
    return Case(tuple(cores), tuple(columns), case.order)


def updated(column: Column, x: np.ndarray, r: np.ndarray, prior: np.ndarray, step: float, total: float) -> Column:
    """The column of highest expected log-likelihood, or between the model's moments and the data's."""
    seen = ~np.isnan(x)
    x, r = x[seen], r[seen]
    if column.kind == "categorical" or not len(x):
        return column
    if column.kind == "laplace":
        family = load_backend("numpy").variable(column).update(x, r)
        return Column(column.kind, column.num_components, family.arrays(), column.name)
    first, second = column.means(), column.variances() + column.means() ** 2
    old = (1 - step) * prior * (r.sum() / total)
    r = r * (1.0 if step == 1 else step / total)
    old = old * (step < 1)
    count = old + r.sum(0)
    mean = (old * first + r.T @ x) / count
    if column.kind == "poisson":
        return Column(column.kind, column.num_components, {"rates": mean}, column.name)
    variance = (old * second + r.T @ x**2) / count - mean**2
    return Column(column.kind, column.num_components, {"means": mean, "stds": np.sqrt(variance)}, column.name)


def assert_is_case(backend, ring, case: Case):
    """Equal probabilities of components and bonds: a bond's scales may lie on either side. Equal parameters."""
    found = Case(tuple(backend.numpy(core) for core in ring.cores), case.columns, case.order)
    nothing = np.full((1, case.d), np.nan)
    for k in range(case.d):
        shares, expected = (enumerated(each, k, nothing)[1] for each in (found, case))
        assert_close(shares / shares.sum(), expected / expected.sum(), case, rtol=1e-7, atol=1e-10)
        if min(case.ranks) > 1:
            assert found.cores[k].max() == pytest.approx(1)
        for name, array in ring.variables[k].arrays().items():
            assert_close(backend.numpy(array), case.columns[k].parameters[name], case, rtol=1e-7)


def chain(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (n, d))
    for k in range(1, d):
        x[:, k] = np.where(rng.random(n) < 0.9, x[:, k - 1], x[:, k])
    return x.astype(np.uint8)
