"""Gradients, tracing and compilation of mixtures of rings."""

import itertools

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import Backend, assert_close
from tests.oracle import Case
from tests.ringdist.ring_mixture.cases import SUMS, Sum

pytestmark = pytest.mark.slow_on("jax")


def gradient_of(backend: Backend, case: Sum, x: np.ndarray, weights: np.ndarray):
    """The gradients of Σ log p for the weights and for the first core of every ring."""
    cores = [np.asarray(c.cores[0]) for c in case.cases]

    def total(weights, cores):
        rings = []
        for c, core in zip(case.cases, cores, strict=True):
            others = [backend.array(a) for a in c.cores[1:]]
            rings.append(rd.TensorRing([core, *others], backend.variables(c), order=c.order, copy=False))
        return rd.RingMixture(rings, weights).log_prob(backend.array(x)).sum()

    if backend.name == "jax":
        import jax

        grads = jax.grad(total, argnums=(0, 1))(backend.array(weights), [backend.array(c) for c in cores])
        return np.asarray(grads[0]), [np.asarray(g) for g in grads[1]]
    leaves = backend.array(weights).requires_grad_(), [backend.array(c).requires_grad_() for c in cores]
    total(*leaves).backward()
    return backend.numpy(leaves[0].grad), [backend.numpy(leaf.grad) for leaf in leaves[1]]


@pytest.mark.parametrize("weights", [[0.5, 2.0, 1.0], [0.5, 0.0, 1.0]], ids=["positive", "one zero"])
def test_gradients(backend, weights):
    """Those of the enumerated sum, for weights also where one is 0: the gradient of leaving 0."""
    if backend.name == "numpy":
        pytest.skip("NumPy has no gradients")
    case, x, weights = SUMS["discrete"], SUMS["discrete"].possible_rows(4), np.array(weights)
    by_weight, by_core = gradient_of(backend, case, x, weights)

    def total(w, cores):
        masses = []
        for c, core in zip(case.cases, cores, strict=True):
            changed = Case((core, *c.cores[1:]), c.columns, c.order)
            masses.append(oracle.mass(changed, x) / changed.joint.sum())
        return np.log(w @ np.array(masses) / w.sum()).sum()

    cores, step = [np.array(c.cores[0]) for c in case.cases], 1e-6
    for c in range(3):
        up, here = weights.copy(), weights.copy()
        up[c] += step
        here[c] -= step if weights[c] else 0.0
        expected = (total(up, cores) - total(here, cores)) / (up[c] - here[c])
        np.testing.assert_allclose(by_weight[c], expected, rtol=1e-4, atol=1e-5)
        bumped = [np.array(a) for a in cores]
        bumped[c][0, 0, 0] += step
        expected = (total(weights, bumped) - total(weights, cores)) / step
        np.testing.assert_allclose(by_core[c][0, 0, 0], expected, rtol=1e-3, atol=1e-5)


def test_live_weights_are_followed():
    """A mixture over a parameter: each query uses its values, and each backward pass a new graph."""
    torch = pytest.importorskip("torch")
    rings = [rd.TensorRing([torch.tensor([[[a]], [[1 - a]]])], [rd.Categorical(2)]) for a in (0.25, 0.75)]
    weights = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    mixture, x = rd.RingMixture(rings, weights), torch.tensor([[0.0]])
    for _ in range(2):
        mixture.log_prob(x).sum().backward()
    with torch.no_grad():
        weights[1] = 0.0
    assert abs(mixture.log_prob(x).exp().item() - 0.25) < 1e-6
    fixed = mixture.detach()
    assert not fixed.weights.requires_grad and fixed.detach() is fixed
    assert mixture.weights.requires_grad


def test_gradients_of_posteriors_and_means(backend):
    """Finite also for rows that one member does not explain."""
    if backend.name != "torch":
        pytest.skip("one backend with gradients is enough: there is one implementation")
    case = SUMS["impossible"]
    cores = [[backend.array(a).requires_grad_() for a in c.cores] for c in case.cases]
    rings = [rd.TensorRing(a, backend.variables(c), order=c.order) for a, c in zip(cores, case.cases, strict=True)]
    weights = backend.array([0.4, 0.6, 0.0]).requires_grad_()
    mixture = rd.RingMixture(rings, weights)
    x = backend.array([[2.0, np.nan, 1.0, np.nan], [0.0, 1.0, np.nan, np.nan], [np.nan] * 4])
    total = mixture.mean(x).sum() + mixture.ring_posterior(x)[:, 0].sum() + mixture.covariance().sum()
    total = total + mixture.condition({0: 2}).mean().sum() + mixture.log_prob(x).sum()
    total.backward()
    for leaf in (weights, *itertools.chain(*cores)):
        assert leaf.grad is not None and bool(leaf.grad.isfinite().all())


@pytest.mark.slow
def test_jit_and_trees():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    jax.config.update("jax_enable_x64", True)
    from tests.backends import load_backend

    backend = load_backend("jax")
    case = SUMS["impossible"]
    mixture, x = case.mixture(backend), case.possible_rows(4)
    expected = np.log(case.joint(x).sum(-1))
    assert_close(np.asarray(jax.jit(lambda m, x: m.log_prob(x))(mixture, jnp.asarray(x))), expected, mixture)
    leaves, structure = jax.tree_util.tree_flatten(mixture)
    again = jax.tree_util.tree_unflatten(structure, leaves)
    assert repr(again) == repr(mixture)
    posterior = jax.jit(lambda m, x: m.ring_posterior(x))(mixture, jnp.asarray(x))
    assert_close(np.asarray(posterior), case.posterior(x), mixture)
    conditional = jax.jit(lambda m, x: m.condition({0: 2.0}).log_prob(x))
    given = np.concatenate([np.full((len(x), 1), 2.0), x[:, 1:]], axis=1)
    evidence = np.array([[2.0, np.nan, np.nan, np.nan]])
    with np.errstate(divide="ignore"):
        expected = np.log(case.joint(given).sum(-1)) - np.log(case.joint(evidence).sum(-1))
    assert_close(np.asarray(conditional(mixture, jnp.asarray(x[:, 1:]))), expected, mixture, atol=1e-9)
    drawn = jax.jit(lambda m, key: m.sample(6, rng=key))(mixture, jax.random.key(1))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(mixture.sample(6, rng=jax.random.key(1))))
    gradient = jax.grad(lambda m: m.log_prob(jnp.asarray(x)).sum())(mixture)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree_util.tree_leaves(gradient))


@pytest.mark.slow
def test_torch_compile():
    torch = pytest.importorskip("torch")
    from tests.backends import load_backend

    case, backend = SUMS["discrete"], load_backend("torch")
    mixture, x = case.mixture(backend), backend.array(case.possible_rows(4))
    compiled = torch.compile(lambda x: mixture.log_prob(x), backend="eager", fullgraph=True)
    assert_close(backend.numpy(compiled(x)), backend.numpy(mixture.log_prob(x)), mixture)
