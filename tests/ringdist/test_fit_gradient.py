"""Gradient fits: the result, the history and the data handling of `fit_em`, with optimisers of PyTorch and optax."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend
from tests.oracle import TABLE, make_case

TRUTH = make_case(["categorical", "gaussian", "poisson"], [3, 2, 2], [2, 2, 2], [1, 0, 2], seed=5)
START = make_case(["categorical", "gaussian", "poisson"], [3, 2, 2], [2, 3, 2], [1, 0, 2], seed=6)


@pytest.fixture(params=["torch", pytest.param("jax", marks=pytest.mark.slow), "torch-cuda"])
def backend(request):
    return load_backend(request.param)


@pytest.fixture
def torch_backend():
    return load_backend("torch")


def adam(backend, rate: float = 0.05):
    if backend.name == "jax":
        return pytest.importorskip("optax").adam(rate)
    return lambda parameters: backend.xp.optim.Adam(parameters, lr=rate)


def numbers(backend, ring) -> list[np.ndarray]:
    arrays = [*ring.cores, *(array for v in ring.variables for array in v.arrays().values())]
    return [backend.numpy(array) for array in arrays]


def score(backend, ring, x, weight=None) -> float:
    return float(np.average(backend.numpy(ring.log_prob(backend.array(x))), weights=weight))


def test_it_learns_and_reports_as_em_does(backend):
    x = TRUTH.possible_rows(60, missing=0.2)
    weight = np.random.default_rng(0).integers(0, 3, 60).astype(float)
    start = backend.ring(START)
    before = [array.copy() for array in numbers(backend, start)]
    fitted = rd.fit_gradient(
        start, x, adam(backend), sample_weight=weight, validation=x[:30], batch_size=30, max_epochs=12, rng=0
    )
    assert isinstance(fitted, rd.FitResult)
    assert {name: len(values) for name, values in fitted.history.items()} == {"train": 12, "validation": 12}
    best = int(np.argmax(fitted.history["validation"]))
    assert score(backend, fitted.ring, x[:30]) == pytest.approx(fitted.history["validation"][best])
    assert score(backend, fitted.ring, x, weight) == pytest.approx(fitted.history["train"][best])
    assert fitted.history["train"][best] > score(backend, start, x, weight) + 0.1
    for array, copy in zip(numbers(backend, start), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert not any(np.array_equal(a, b) for a, b in zip(numbers(backend, fitted.ring), before, strict=True))
    assert (backend.numpy(fitted.ring.variables[1].arrays()["stds"]) > 0).all()
    assert fitted.ring.order == start.order and fitted.ring.ranks == start.ranks


def test_zeros_stay_and_nothing_carries_a_gradient(backend):
    x = TABLE.possible_rows(20)
    fitted = rd.fit_gradient(backend.ring(TABLE), backend.array(x), adam(backend), batch_size=None, max_epochs=3).ring
    for core, before in zip(numbers(backend, fitted), TABLE.cores, strict=True):
        assert ((core == 0) == (before == 0)).all()
    assert not any(getattr(core, "requires_grad", False) for core in fitted.cores)


def test_the_best_ring_on_validation_data_is_returned(torch_backend):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (80, 6))
    start = rd.TensorRing.random([rd.Categorical(2)] * 6, 5, rng=1, xp=torch_backend.xp, dtype=torch_backend.dtype())
    ring, history = rd.fit_gradient(
        start, x[:40], adam(torch_backend, 0.1), validation=x[40:], max_epochs=150, patience=3, batch_size=None
    )
    best = int(np.argmax(history["validation"]))
    assert len(history["train"]) == best + 4 < 150
    assert score(torch_backend, ring, x[40:]) == pytest.approx(history["validation"][best])


def test_a_seed_repeats_a_fit(torch_backend):
    x = TRUTH.possible_rows(40)

    def fit(rng, **settings):
        return numbers(
            torch_backend,
            rd.fit_gradient(
                torch_backend.ring(START), x, adam(torch_backend), batch_size=8, max_epochs=2, rng=rng, **settings
            ).ring,
        )

    for settings in ({}, {"restarts": 2}):
        for a, b in zip(fit(3, **settings), fit(3, **settings), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(fit(3)[0], fit(4)[0])


def test_weights_count_rows(torch_backend):
    x = TRUTH.possible_rows(30)
    weight = np.random.default_rng(0).integers(0, 3, 30)
    settings = {"batch_size": None, "max_epochs": 3}
    a = rd.fit_gradient(torch_backend.ring(START), x, adam(torch_backend), sample_weight=weight, **settings)
    b = rd.fit_gradient(torch_backend.ring(START), np.repeat(x, weight, axis=0), adam(torch_backend), **settings)
    for left, right in zip(numbers(torch_backend, a.ring), numbers(torch_backend, b.ring), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_rows_of_weight_zero_do_not_exist(backend, batch_size):
    """Neither in a batch of their own nor with zero mass: the fit is that of the other rows, alone in its batches."""
    cores = [np.ones((3, 1, 2)), np.stack([np.ones((2, 1)), np.ones((2, 1)), np.zeros((2, 1))])]
    ring = rd.TensorRing([backend.array(core) for core in cores], [rd.Categorical(3)] * 2)
    x = np.array([[0, 1], [1, 2], [2, 0], [1, 2], [1, 0], [0, 2], [2, 1], [2, 2]])
    weight = (x[:, 1] < 2).astype(float)
    settings = {"sample_weight": weight, "batch_size": batch_size, "max_epochs": 3, "rng": 0}
    fitted = rd.fit_gradient(ring, x, adam(backend), **settings)
    assert np.isfinite(fitted.history["train"]).all() and len(fitted.history["train"]) == 3
    assert all(np.isfinite(array).all() for array in numbers(backend, fitted.ring))
    if batch_size is None:
        alone = rd.fit_gradient(ring, x[weight > 0], adam(backend), batch_size=None, max_epochs=3)
        for a, b in zip(numbers(backend, fitted.ring), numbers(backend, alone.ring), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


def test_gradients_and_em_find_the_same_optimum(torch_backend):
    """One rank-1 ring has one optimum: the columns' own distributions."""
    x = np.random.default_rng(0).integers(0, 3, (50, 2))
    start = rd.TensorRing.random([rd.Categorical(3)] * 2, 1, rng=0, xp=torch_backend.xp, dtype=torch_backend.dtype())
    descent = rd.fit_gradient(start, x, adam(torch_backend, 0.1), batch_size=None, max_epochs=300)
    exact = rd.fit_em(start, x, max_epochs=5)
    assert descent.history["train"][-1] == pytest.approx(exact.history["train"][-1], abs=1e-5)


def test_a_memmap_and_read_only_data(torch_backend, tmp_path):
    path = tmp_path / "x"
    np.random.default_rng(0).integers(0, 2, (50, 3)).astype(np.uint8).tofile(path)
    x = np.memmap(path, dtype=np.uint8, mode="r", shape=(50, 3))
    start = rd.TensorRing.random([rd.Categorical(2)] * 3, 2, rng=0, xp=torch_backend.xp)
    assert np.isfinite(rd.fit_gradient(start, x, adam(torch_backend), max_epochs=1).history["train"][0])


def test_no_epoch_gives_the_start_back(torch_backend):
    ring = torch_backend.ring(START)
    fitted = rd.fit_gradient(ring, TRUTH.possible_rows(6), adam(torch_backend), max_epochs=0)
    assert fitted.history == {"train": []}
    for a, b in zip(numbers(torch_backend, fitted.ring), numbers(torch_backend, ring), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_numpy_ring_has_no_gradients(numpy_backend):
    with pytest.raises(TypeError, match="PyTorch or JAX ring, found NumPy"):
        rd.fit_gradient(numpy_backend.ring(START), TRUTH.possible_rows(6), None)


def test_a_step_too_long_is_told(torch_backend):
    def sgd(parameters):
        return torch_backend.xp.optim.SGD(parameters, lr=1e30)

    with pytest.raises((FloatingPointError, ValueError), match=r"likelihood of a batch became|positive mass"):
        rd.fit_gradient(torch_backend.ring(START), TRUTH.possible_rows(20), sgd, max_epochs=5)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"max_epochs": -1}, r"max_epochs.*-1"),
        ({"batch_size": 0}, r"batch_size.*0"),
        ({"restarts": 0}, r"restarts.*0"),
        ({"patience": 0}, r"patience.*0"),
        ({"sample_weight": np.zeros(6)}, r"sample_weight.*positive sum"),
        ({"validation": np.zeros((2, 2))}, r"\(2, 2\)"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(torch_backend, settings, finding):
    with pytest.raises(ValueError, match=finding):
        rd.fit_gradient(torch_backend.ring(START), TRUTH.possible_rows(6), adam(torch_backend), **settings)


def test_data_that_does_not_fit(torch_backend):
    ring = torch_backend.ring(START)
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        rd.fit_gradient(ring, np.zeros((4, 2)), adam(torch_backend))
    with pytest.raises(ValueError, match=r"column 0: category 9 is outside 0..2"):
        rd.fit_gradient(ring, np.full((4, 3), 9.0), adam(torch_backend))
