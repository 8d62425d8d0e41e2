"""Cores whose hidden state is kept or drawn anew: their switch and the matrix that it stands for."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from ringdist.cores import LOG
from ringdist.cores.switch import Switch
from ringdist.network.structure import mapped

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("exponent", [-40, 60])
def test_switches_of_any_scale(exponent):
    """Cores brought into range hold the matrix; the value is the same up to the scale."""
    rng = np.random.default_rng(0)
    parts = [rng.random((3, 4)) for _ in range(5)]
    x = rng.integers(4, size=(8, 5)).astype(float)
    values = []
    for scale in (1.0, 2.0**exponent):
        cores = [rd.CPCore.switching(*(torch.tensor(p) for p in (a * scale, b * scale, c))) for a, b, c in parts]
        values.append(rd.TensorRing(cores, [rd.Categorical(4)] * 5).log_prob(torch.tensor(x)))
    torch.testing.assert_close(values[0], values[1])


def test_a_switch_in_every_backend_is_its_matrix():
    stay, leave, enter = np.random.default_rng(0).random((3, 4))
    core = rd.CPCore.switching(stay, leave, enter, left=[[1.0] * 4])
    np.testing.assert_allclose(core.right, np.diag(stay) + np.outer(leave, enter))
    assert core.shape == (4, 1, 4) and set(core.arrays()) == {"left", "right"}
    assert core.with_arrays({**core.arrays(), "left": 2 * core.left}).switch is core.switch
    with pytest.raises(TypeError, match="one dtype, found float32, float64"):
        rd.CPCore.switching(stay, leave, enter.astype("float32"))
    assert core.with_arrays({**core.arrays(), "right": core.right.copy()}).switch is None
    with pytest.raises(ValueError, match=r"vectors of one length, found shapes \(4,\), \(4,\), \(3,\)"):
        rd.CPCore.switching(stay, leave, enter[:3])
    with pytest.raises(ValueError, match="vectors of one length"):
        rd.CPCore.switching(*np.ones((3, 2, 2)))


def test_copies_and_other_dtypes_keep_the_switch():
    """A ring copies its cores, and converts and detaches them; its matrix and its switch stay the same transition."""
    stay, leave, enter = np.random.default_rng(0).random((3, 4))
    given = [torch.tensor(part, requires_grad=True) for part in (stay, leave, enter)]
    ring = rd.TensorRing([rd.CPCore.switching(*given)] * 3, [rd.Categorical(4)] * 3)
    copies = [
        rd.TensorRing([rd.CPCore.switching(stay, leave, enter)] * 3, [rd.Categorical(4)] * 3),
        ring.detach(),
        ring.detach().to(dtype=torch.float32),
        ring.detach().to(xp=np),
        copy.deepcopy(ring.detach()),
        pickle.loads(pickle.dumps(ring.detach())),
    ]
    for core in (core for copied in copies for core in copied.cores):
        assert core.switch is not None and not any(getattr(part, "requires_grad", False) for part in core.switch)
        assert all(part.dtype == core.right.dtype for part in core.switch)
        np.testing.assert_allclose(np.asarray(core.right), np.asarray(core.switch.dense()), rtol=1e-6)
    stay[:] = leave[:] = enter[:] = 0.0
    assert (copies[0].cores[0].switch.stay > 0).all()


def test_other_factors_have_no_switch():
    """Functions of a core's entries, such as squares, are not those of its switch."""
    core = rd.CPCore.switching([0.9, 0.8], [0.1, 0.2], [0.5, 0.5])
    changed = mapped(core, np.sqrt)
    assert changed.switch is None
    np.testing.assert_allclose(changed.right**2, core.right)


@pytest.mark.parametrize("emission", [False, True], ids=["private", "shared"])
def test_rows_near_underflow_are_swept_without_the_matrix(emission, monkeypatch):
    """Rows of which some states underflow are computed again, with a floor and in logarithms: O(c) there too."""
    rng, c, d = np.random.default_rng(0), 40, 12
    given = [rng.random((3, c)) * [[1.0], [1e-3], [1.0]] for _ in range(d)]
    tables = [rng.random((c, c)) if emission else None for _ in range(d)]
    variables = [rd.GaussianMixture(30 * rng.normal(size=c), np.full(c, 0.5)) for _ in range(d)]
    cores = [rd.CPCore.switching(*parts, emission=table) for parts, table in zip(given, tables, strict=True)]
    full = rd.TensorRing([rd.CPCore(**core.arrays()) for core in cores], variables)
    x = full.sample(30, rng=0) + 10 * rng.normal(size=(30, d))
    expected = full.log_prob(x, engine="log")
    pushed, push = [], Switch.push
    monkeypatch.setattr(Switch, "push", lambda *args: pushed.append(args[2]) or push(*args))
    for xp, dtype, rtol in ((np, "float64", 1e-9), (torch, "float64", 1e-9), (torch, "float32", 1e-4)):
        ring = rd.TensorRing(cores, variables).to(xp=xp, dtype=getattr(xp, dtype))
        rows = x if xp is np else torch.tensor(x, dtype=getattr(xp, dtype))
        np.testing.assert_allclose(np.asarray(ring.log_prob(rows, engine="sweep")), expected, rtol=rtol)
        if dtype == "float32":
            assert emission or LOG in pushed  # some rows were lost in linear numbers
        pushed.clear()
        np.testing.assert_allclose(np.asarray(ring.log_prob(rows, engine="log")), expected, rtol=rtol)
        assert len(pushed) == d and set(pushed) == {LOG}


def test_the_caller_may_write_to_what_a_switch_was_made_of():
    stay, leave, enter = np.random.default_rng(0).random((3, 4))
    core = rd.CPCore.switching(stay, leave, enter)
    before = core.right.copy()
    stay[:] = leave[:] = enter[:] = 0.0
    np.testing.assert_array_equal(core.switch.dense(), before)


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e30])
def test_an_unbalanced_switch_is_as_accurate_as_its_matrix(size):
    """Whatever `leave` and `enter` are, only their product counts: a product with `leave` alone must not underflow."""

    def numbers(*values):
        return np.array(values, dtype=np.float32)

    flat = np.full((2, 3), 0.5, dtype=np.float32)
    parts = numbers(1, 0.5, 0.5), numbers(0, size, 0), numbers(0, 0, 0.5 / size)
    cores = [
        rd.CPCore.switching(*parts, left=numbers([1.0, 1e-10, 1e-17]), emission=flat),
        rd.CPCore.switching(*parts, emission=flat),
        rd.CPCore(emission=numbers([0, 0, 0.9], [1, 1, 0.1]), right=np.ones((3, 1), dtype=np.float32)),
    ]
    ring = rd.TensorRing(cores, [rd.Categorical(2)] * 3)
    full = rd.TensorRing([rd.CPCore(**core.arrays()) for core in cores], [rd.Categorical(2)] * 3)
    x = np.zeros((1, 3), dtype=np.float32)
    expected = full.to(dtype=np.float64).log_prob(x.astype(float), engine="log")
    for engine in ("auto", "sweep", "log"):
        np.testing.assert_allclose(ring.log_prob(x, engine=engine), expected, rtol=1e-5)
        found = ring.to(xp=torch).log_prob(torch.tensor(x), engine=engine)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_states_that_are_never_kept_have_gradients_in_logarithms():
    stay, leave, enter = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stay[:2] = 0.0
    x = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 1.0]], dtype=torch.float64)
    slopes = []
    for engine in ("sweep", "log"):
        parts = [part.clone().requires_grad_() for part in (stay, leave, enter)]
        ring = rd.TensorRing([rd.CPCore.switching(*parts)] * 3, [rd.Categorical(4)] * 3, validate=False)
        slopes.append(torch.autograd.grad(ring.log_prob(x, engine=engine).sum(), parts))
    for mine, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-10)


def test_a_core_made_without_gradients_is_detached_with_its_switch():
    parts = [torch.rand(4, requires_grad=True) for _ in range(3)]
    with torch.no_grad():
        core = rd.CPCore.switching(*parts)
    detached = rd.TensorRing([core] * 3, [rd.Categorical(4)] * 3).detach()
    assert not detached.log_prob(torch.zeros(1, 3)).requires_grad


def test_rings_of_cp_cores_pass_through_jax():
    jax = pytest.importorskip("jax")
    parts = np.random.default_rng(0).random((3, 3))
    cores = [rd.CPCore(right=np.ones((3, 3))), rd.CPCore.switching(*parts)]
    ring, x = rd.TensorRing(cores, [rd.Categorical(3)] * 2), np.zeros((1, 2))
    evaluate = jax.jit(jax.value_and_grad(lambda ring, x: ring.log_prob(x).sum()))
    value, slopes = evaluate(ring.to(jax.numpy), jax.numpy.asarray(x))
    np.testing.assert_allclose(value, ring.log_prob(x).sum(), rtol=1e-5)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(slopes))
