"""Gradients, tracing and compilation of queries with events."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.oracle import TRAIN, make_case
from tests.ringdist.events.cases import holds

pytestmark = pytest.mark.slow_on("jax")


def parameters_of(backend, case):
    return [backend.array(core) for core in case.cores], [
        {n: backend.array(a) for n, a in c.parameters.items()} for c in case.columns
    ]


def differences(function, array, step=1e-6):
    """Central differences of a scalar function of a NumPy array."""
    found = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


GRADIENTS = {
    "an interval": {1: rd.Interval(-1, 0.7)},
    "a tail": {1: rd.Interval(1, None)},
    "far away": {1: rd.Interval(30, 30.5)},
    "counts": {2: rd.Interval(1, 3)},
    "many counts": {2: rd.Interval(60, None)},
    "a set": {0: {1, 2}},
    "all": {0: {0, 2}, 1: rd.Interval(None, 1), 2: rd.Interval(0, 4)},
}
SMOOTH = make_case(["categorical", "gaussian", "poisson"], [3, 2, 2], [2, 2, 2], [0, 1, 2], seed=9)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("query", ["probability", "given", "condition"])
def test_gradients(name, query):
    torch = pytest.importorskip("torch")
    event, case = GRADIENTS[name], SMOOTH
    x = np.array(
        [[np.nan, 0.3 if 1 not in event else np.nan, np.nan], [np.nan, np.nan, 2.0 if 2 not in event else np.nan]]
    )

    def value(arrays, xp):
        cores, (means, stds, rates) = arrays[:3], arrays[3:]
        ring = rd.TensorRing(cores, [rd.Categorical(3), rd.GaussianMixture(means, stds), rd.PoissonMixture(rates)])
        if query == "condition":
            return ring.condition(event).mean().sum()
        rows = xp.asarray(x) if xp is np else xp.tensor(x)
        return ring.probability(event, None if query == "probability" else rows, log=True).sum()

    parts = [*case.cores, *(a for c in case.columns for a in c.parameters.values())]
    tensors = [torch.tensor(a, requires_grad=True) for a in parts]
    value(tensors, torch).backward()
    for i, tensor in enumerate(tensors):
        expected = differences(lambda a, i=i: float(value([*parts[:i], a, *parts[i + 1 :]], np)), parts[i])
        found = np.zeros_like(parts[i]) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6, err_msg=f"{name}: array {i}")


@pytest.mark.slow
def test_gradients_of_jax_are_those_of_torch():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    jaxed, torched = load_backend("jax"), load_backend("torch")
    event = {1: rd.Interval(0, 1), 0: {1}}
    gradient = jax.grad(lambda ring: ring.probability(event, log=True))(jaxed.ring(TRAIN))
    parts = [torch.tensor(a, requires_grad=True) for a in TRAIN.cores]
    parameters = {n: torch.tensor(a, requires_grad=True) for n, a in TRAIN.columns[1].parameters.items()}
    variables = [rd.Categorical(2), rd.GaussianMixture(**parameters), rd.Categorical(4)]
    rd.TensorRing(parts, variables).probability(event, log=True).backward()
    for one, other in zip(gradient.cores, parts, strict=True):
        assert_close(np.asarray(one), torched.numpy(other.grad), TRAIN)
    for name, array in gradient.variables[1].arrays().items():
        assert_close(np.asarray(array), torched.numpy(parameters[name].grad), name)


@pytest.mark.slow
def test_jit():
    """Rings with truncated components pass through, and events within."""
    jax = pytest.importorskip("jax")
    backend = load_backend("jax")
    ring, plain = backend.ring(TRAIN), load_backend("numpy").ring(TRAIN)
    event, x = {0: {1}, 1: rd.Interval(0, 1)}, np.array([[np.nan, np.nan, 1.0], [1.0, 0.3, np.nan]])
    actual = jax.jit(lambda ring, x: ring.probability(event, x))(ring, backend.array(x))
    assert_close(np.asarray(actual), plain.probability(event, x), ring)
    conditional = jax.jit(lambda ring: ring.condition(event))(ring)
    actual = jax.jit(lambda ring, x: ring.log_prob(x))(conditional, backend.array(x))
    assert_close(np.asarray(actual), plain.condition(event).log_prob(x), conditional)
    draw = jax.jit(lambda ring, x, key: ring.sample_given(x, 500, event=event, rng=key))
    drawn = np.asarray(draw(ring, backend.array(x[:1]), backend.rng()))
    assert (drawn[..., 0] == 1).all() and holds(event[1], drawn[..., 1]).all() and (drawn[..., 2] == 1).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
def test_torch_compile():
    torch = pytest.importorskip("torch")
    backend = load_backend("torch")
    ring, x = backend.ring(TRAIN), backend.array([[np.nan, np.nan, 1.0]])
    event = {0: {1}, 1: rd.Interval(0, 1)}
    compiled = torch.compile(lambda x: ring.probability(event, x), backend="eager", fullgraph=True)
    assert_close(backend.numpy(compiled(x)), backend.numpy(ring.probability(event, x)), ring)


def test_pathwise_samples_of_a_conditional():
    """E[x] within an interval has the gradient of the truncated mean."""
    torch = pytest.importorskip("torch")
    means = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    stds = torch.tensor([1.0, 0.5], dtype=torch.float64)
    ring = rd.TensorRing([torch.ones(2, 1, 1, dtype=torch.float64)], [rd.GaussianMixture(means, stds)])
    conditional = ring.condition({0: rd.Interval(-1, 2)})
    x = conditional.sample(20_000, rng=torch.Generator().manual_seed(0)).detach()
    (found,) = torch.autograd.grad(conditional.pathwise(x).mean(), means, retain_graph=True)
    (expected,) = torch.autograd.grad(conditional.mean()[0], means)
    assert torch.allclose(found, expected, atol=0.02), (found, expected)
