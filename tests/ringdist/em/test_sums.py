"""Expected counts are the same whatever way they are summed: weights, merged rows, chunks, backends, dtypes."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.engines import budget
from ringdist.learning import coordinatewise, em
from tests.backends import load_backend
from tests.oracle import TABLE, make_case
from tests.ringdist.em.cases import STREAMED, assert_equal_rings, numbers, weights


def test_weights_count_rows(backend):
    x = STREAMED.possible_rows(40, missing=0.2)
    weight = weights(len(x))
    repeated = np.repeat(x, weight.astype(int), axis=0)
    settings = {"max_epochs": 6, "pseudocount": 0.1, "variance_floor": 0.05}
    a = rd.fit_em(backend.ring(STREAMED), x, sample_weight=weight, **settings)
    b = rd.fit_em(backend.ring(STREAMED), repeated, **settings)
    assert_equal_rings(backend, a.ring, b.ring, rtol=1e-8)
    np.testing.assert_allclose(a.history["train"], b.history["train"])


def test_equal_rows_are_merged_without_a_trace(backend, monkeypatch):
    x = np.repeat(TABLE.possible_rows(25), 4, axis=0)[np.random.default_rng(0).permutation(100)]
    weight = weights(len(x))
    merged = rd.fit_em(backend.ring(TABLE), backend.array(x), sample_weight=weight, max_epochs=5)
    rows = []
    visit = coordinatewise.visit
    monkeypatch.setattr(coordinatewise, "visit", lambda *a, **k: rows.append(a[1].shape[0]) or visit(*a, **k))
    rd.fit_em(backend.ring(TABLE), backend.array(x), sample_weight=weight, max_epochs=1)
    assert rows[0] <= 25
    monkeypatch.setattr(em, "merge_equal_rows", lambda ring, data: data)
    plain = rd.fit_em(backend.ring(TABLE), backend.array(x), sample_weight=weight, max_epochs=5)
    assert rows[-1] == 100
    assert_equal_rings(backend, merged.ring, plain.ring, rtol=1e-8)
    np.testing.assert_allclose(merged.history["train"], plain.history["train"])


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 10])
def test_suffixes_from_checkpoints_are_those_stored(backend, monkeypatch, d):
    case = make_case(["categorical", "gaussian"] * (d // 2) + ["poisson"] * (d % 2), [3] * d, [2] * d, range(d), seed=2)
    x = case.possible_rows(20)
    stored = rd.fit_em(backend.ring(case), x, max_epochs=3)
    monkeypatch.setattr(budget, "AT_ONCE", 1)
    assert_equal_rings(backend, rd.fit_em(backend.ring(case), x, max_epochs=3).ring, stored.ring, rtol=1e-12)


@pytest.mark.parametrize("case", [TABLE, STREAMED], ids=["table", "streamed"])
def test_chunks_of_rows_add_up(backend, monkeypatch, case):
    x = case.possible_rows(30)
    whole = rd.fit_em(backend.ring(case), x, max_epochs=3)
    monkeypatch.setattr(budget, "TEMPORARY", 128)
    assert_equal_rings(backend, rd.fit_em(backend.ring(case), x, max_epochs=3).ring, whole.ring, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_numpy_and_torch_agree(batch_size):
    pytest.importorskip("torch")
    x = STREAMED.possible_rows(60)
    results = []
    for name in ("numpy", "torch"):
        backend = load_backend(name)
        fitted = rd.fit_em(backend.ring(STREAMED), x, max_epochs=4, batch_size=batch_size, rng=3, validation=x[:9])
        results.append((numbers(backend, fitted.ring), fitted.history))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
    for name in ("train", "validation"):
        np.testing.assert_allclose(results[0][1][name], results[1][1][name], rtol=1e-9)


def test_data_of_the_rings_backend_or_numpy(backend):
    x = STREAMED.possible_rows(20)
    host = rd.fit_em(backend.ring(STREAMED), x, max_epochs=2)
    own = rd.fit_em(backend.ring(STREAMED), backend.array(x), max_epochs=2)
    lists = rd.fit_em(backend.ring(STREAMED), x.tolist(), max_epochs=2)
    assert_equal_rings(backend, host.ring, own.ring)
    assert_equal_rings(backend, host.ring, lists.ring)


def test_float32(backend):
    x = STREAMED.possible_rows(50)
    history = rd.fit_em(backend.ring(STREAMED, "float32"), x, max_epochs=8).history["train"]
    assert (np.diff(history) > -1e-4).all() and history[-1] > history[0]


@pytest.mark.parametrize("options", [{}, {"batch_size": 10, "rng": 0}, {"pseudocount": 0.5}], ids=str)
def test_fits_keep_the_dtype(backend, options):
    ring = backend.ring(STREAMED, "float32")
    fitted = rd.fit_em(ring, STREAMED.possible_rows(30), max_epochs=1, **options).ring
    assert fitted.cores[0].dtype == ring.cores[0].dtype
    assert all(
        array.dtype == ring.cores[0].dtype for variable in fitted.variables for array in variable.arrays().values()
    )
