"""EM of all cores of a train at once: normal form, ties, smoothing, chunks and mixtures of trains."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.engines import budget
from ringdist.learning.normal_form import normal_form
from tests.backends import load_backend


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def backend(request):
    return load_backend(request.param)


def table(n: int, d: int, size: int, seed: int, missing: float = 0.0) -> np.ndarray:
    """Rows of two clusters, in which neighbours agree more often than by chance."""
    rng = np.random.default_rng(seed)
    x = rng.integers(size, size=(n, d))
    for k in range(1, d):
        x[:, k] = np.where(rng.random(n) < 0.6, x[:, k - 1], x[:, k])
    x = np.where(rng.random((n, 1)) < 0.5, x, size - 1 - x).astype(float)
    x[rng.random(x.shape) < missing] = np.nan
    return x


def train(xp, d: int, size: int, rank: int, core: str = "cp", seed: int = 0, **options) -> rd.TensorRing:
    return rd.TensorRing.random(
        [rd.Categorical(size)] * d, rank, topology="train", core=core, rng=seed, xp=xp, dtype="float64", **options
    )


# ---------------------------------------------------------------------------------------------------- normal form


@pytest.mark.parametrize(("core", "inner"), [("dense", None), ("cp", None), ("cp", 3)])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_the_normal_form_is_the_same_distribution(backend, core, inner, scale):
    ring = train(backend.xp, 5, 3, 4, core, inner=inner)
    ring = ring.with_values([c.with_arrays({n: a * scale for n, a in c.arrays().items()}) for c in ring.links])
    found = normal_form(ring)
    np.testing.assert_allclose(backend.numpy(found.to_dense()), backend.numpy(ring.to_dense()), rtol=1e-10)
    for link in found.links:
        for name, array in link.arrays().items():
            np.testing.assert_allclose(backend.numpy(array).sum(link.conditional[name]), 1.0, rtol=1e-12)
    assert float(found.log_normalizer()) == pytest.approx(0.0, abs=1e-12)


def test_states_without_mass_do_no_harm():
    cores = [np.ones((2, 1, 2)), np.zeros((2, 2, 2)), np.ones((2, 2, 1))]
    cores[1][0, 0, 0] = 1.0  # value 1 of both bonds is never reached
    ring = rd.TensorRing(cores, [rd.Categorical(2)] * 3)
    found = normal_form(ring)
    np.testing.assert_allclose(found.to_dense(), ring.to_dense())
    x = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    fitted = rd.fit_em(ring, x, max_epochs=5).ring
    np.testing.assert_allclose(np.exp(fitted.log_prob(x)), [0.5, 0.5])


@pytest.mark.parametrize("core", ["dense", "cp"])
def test_chunks_of_rows_add_up(backend, core, monkeypatch):
    x, start = table(60, 5, 3, seed=1, missing=0.2), train(backend.xp, 5, 3, 4, core)
    whole = rd.fit_em(start, x, max_epochs=4)
    monkeypatch.setattr(budget, "CACHED", 28)  # seven rows at a time
    parts = rd.fit_em(start, x, max_epochs=4)
    np.testing.assert_allclose(parts.history["train"], whole.history["train"], rtol=1e-12)
    for a, b in zip(parts.ring.core_arrays(), whole.ring.core_arrays(), strict=True):
        np.testing.assert_allclose(backend.numpy(a), backend.numpy(b), rtol=1e-9, atol=1e-14)


def test_a_row_without_mass_is_named():
    start = rd.TensorRing([np.array([[[1.0]], [[0.0]]])] * 2, [rd.Categorical(2)] * 2)
    with pytest.raises(ValueError, match=r"zero mass in row 3"):
        rd.fit_em(start, np.array([[0.0, 0.0]] * 3 + [[0.0, 1.0]]), max_epochs=2)


@pytest.mark.parametrize("seed", range(3))
def test_float32_learns_what_float64_does(seed):
    """Over 400 columns, where products leave the range of float32 many times over."""
    x = table(50, 400, 4, seed)
    fits = {
        dtype: rd.fit_em(train(np, 400, 4, 5, seed=seed).to(dtype=dtype), x, max_epochs=5).history["train"]
        for dtype in ("float32", "float64")
    }
    np.testing.assert_allclose(fits["float32"], fits["float64"], rtol=2e-5)


# --------------------------------------------------------------------------------------------------------- options


def test_smoothing_is_rows_of_every_distribution():
    x = np.array([[0.0], [0.0], [0.0], [1.0]])
    start = rd.TensorRing([np.ones((3, 1, 1))], [rd.Categorical(3)])
    for rows in (0.0, 1.5, 30.0):
        fitted = rd.fit_em(start, x, max_epochs=1, smoothing=rows).ring
        np.testing.assert_allclose(fitted.to_dense(), (np.array([3, 1, 0]) + rows / 3) / (4 + rows))


def test_small_steps_do_not_gather_smoothing():
    x, start = table(60, 3, 3, seed=2), train(np, 3, 3, 2)
    exact = rd.fit_em(start, x, max_epochs=600, smoothing=3.0).ring
    damped = rd.fit_em(exact, x, max_epochs=50, batch_size=60, smoothing=3.0, step_decay="linear", rng=0).ring
    np.testing.assert_allclose(damped.to_dense(), exact.to_dense(), atol=1e-3)


def test_a_linear_schedule_reaches_what_full_batches_reach(backend):
    x, start = table(400, 6, 3, seed=3), train(backend.xp, 6, 3, 4)
    rng = 0
    full = rd.fit_em(start, x, max_epochs=60).history["train"]
    steps = rd.fit_em(start, x, max_epochs=60, batch_size=50, step_decay="linear", rng=rng).history["train"]
    assert steps[-1] > full[-1] - 0.01 > full[0]


@pytest.mark.parametrize("wrong", ["cosine", 0.5, 1.2, None])
def test_unknown_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match="step_decay must be 'linear' or lie in"):
        rd.fit_em(train(np, 2, 2, 2), table(5, 2, 2, 0), step_decay=wrong)


# ------------------------------------------------------------------------------------------------------------ ties


def baum_welch(start, transition, emission, x, epochs):
    """The textbook's algorithm for sequences x (n, d) of equal length, and the likelihood after every epoch."""
    history = []
    for epoch in range(epochs + 1):
        first, moves, shown, total = np.zeros_like(start), np.zeros_like(transition), np.zeros_like(emission), 0.0
        for row in x.astype(int):
            d = len(row)
            alpha, beta = np.zeros((d, len(start))), np.ones((d, len(start)))
            alpha[0] = start * emission[:, row[0]]
            for t in range(1, d):
                alpha[t] = (alpha[t - 1] @ transition) * emission[:, row[t]]
            for t in range(d - 2, -1, -1):
                beta[t] = transition @ (emission[:, row[t + 1]] * beta[t + 1])
            mass = alpha[-1].sum()
            total += np.log(mass)
            state = alpha * beta / mass
            first += state[0]
            for t in range(d):
                shown[:, row[t]] += state[t]
            for t in range(d - 1):
                moves += np.outer(alpha[t], emission[:, row[t + 1]] * beta[t + 1]) * transition / mass
        if epoch:
            history.append(total / len(x))
        start = first / first.sum()
        transition = moves / moves.sum(1, keepdims=True)
        emission = shown / shown.sum(1, keepdims=True)
    return history


def test_a_tied_train_learns_as_a_hidden_markov_model(backend):
    x = table(40, 7, 3, seed=4)
    start = rd.initialize(
        x, [rd.Categorical(3)] * 7, 4, core="cp", topology="train", tied=True, rng=0, xp=backend.xp, dtype="float64"
    )
    factors = [{name: backend.numpy(a) for name, a in core.arrays().items()} for core in start.links]
    expected = baum_welch(factors[0]["left"][0], factors[0]["right"], factors[0]["emission"].T, x, 12)
    fitted = rd.fit_em(start, x, max_epochs=12, tied=True)
    np.testing.assert_allclose(fitted.history["train"], expected, rtol=1e-10)
    for name, other in (("emission", 6), ("right", 5)):
        links = fitted.ring.links
        np.testing.assert_array_equal(
            backend.numpy(links[0].arrays()[name]), backend.numpy(links[other].arrays()[name])
        )


@pytest.mark.parametrize("core", ["dense", "cp"])
@pytest.mark.parametrize("kind", [rd.GaussianMixture, rd.PoissonMixture])
def test_tied_variables_learn_together(core, kind):
    rng = np.random.default_rng(5)
    x = rng.poisson(np.where(rng.random((80, 5)) < 0.5, 2, 15)).astype(float)
    start = rd.initialize(x.reshape(-1, 1), [kind], 1, num_components=3, rng=0)
    start = rd.initialize(x, list(start.variables) * 5, 2, core=core, topology="train", tied=True, rng=0)
    fitted = rd.fit_em(start, x, max_epochs=10, tied=True, variance_floor=0)
    assert (np.diff(fitted.history["train"]) >= -1e-9).all()
    for name, array in fitted.ring.variables[0].arrays().items():
        np.testing.assert_allclose(array, fitted.ring.variables[4].arrays()[name])
    damped = rd.fit_em(start, x, max_epochs=60, batch_size=40, tied=True, step_decay="linear", rng=0)
    assert damped.history["train"][-1] > fitted.history["train"][-1] - 0.1


def test_what_cannot_be_tied_is_refused():
    x = table(20, 3, 2, seed=6)
    with pytest.raises(ValueError, match="tied=True needs a train"):
        rd.fit_em(rd.TensorRing.random([rd.Categorical(2)] * 3, 2, rng=0), x, tied=True)
    with pytest.raises(ValueError, match=r"tied=True needs equal factors.*column"):
        rd.fit_em(train(np, 3, 2, 2), x, tied=True)
    with pytest.raises(ValueError, match="as many components"):
        rd.initialize(x, [rd.Categorical(2), rd.Categorical(3), rd.Categorical(2)], 2, topology="train", tied=True)
    with pytest.raises(ValueError, match="method quantile or kmeans"):
        rd.initialize(x, [rd.Categorical(2)] * 3, 2, topology="train", tied=True, method="mixture")


# ------------------------------------------------------------------------------------------------ mixtures of rings


@pytest.mark.parametrize("topologies", [("train", "train"), ("train", "ring")])
def test_a_mixture_of_rings_learns_and_never_loses(backend, topologies):
    x = table(80, 4, 3, seed=7, missing=0.1)
    rings = [
        rd.TensorRing.random(
            [rd.Categorical(3)] * 4, 2, order=o, topology=t, rng=i, xp=backend.xp, dtype="float64", core="cp"
        )
        for i, (o, t) in enumerate(zip([(0, 1, 2, 3), (2, 0, 3, 1)], topologies, strict=True))
    ]
    weight = np.random.default_rng(8).integers(0, 3, len(x)).astype(float)
    start = rd.RingMixture(rings, [0.3, 0.7])
    fitted = rd.fit_em(start, x, sample_weight=weight, max_epochs=8)
    history = fitted.history["train"]
    before = np.average(backend.numpy(start.log_prob(backend.array(x))), weights=weight)
    assert (np.diff([before, *history]) >= -1e-9).all()
    after = np.average(backend.numpy(fitted.ring.log_prob(backend.array(x))), weights=weight)
    assert after == pytest.approx(history[-1], rel=1e-9)


def test_an_epoch_of_a_mixture_weights_rows_by_their_posterior():
    x = table(50, 4, 2, seed=9)
    start = rd.RingMixture([train(np, 4, 2, 2, seed=i) for i in range(2)], [0.4, 0.6])
    posterior = start.ring_posterior(x)
    fitted = rd.fit_em(start, x, max_epochs=1).ring
    np.testing.assert_allclose(fitted.weights, posterior.mean(axis=0))
    for c, ring in enumerate(start.rings):
        alone = rd.fit_em(ring, x, sample_weight=posterior[:, c], max_epochs=1).ring
        np.testing.assert_allclose(fitted.rings[c].to_dense(), alone.to_dense(), rtol=1e-9)
