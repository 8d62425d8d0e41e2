"""jax.jit, vmap and pytrees; torch.compile and torch.func: log_prob inside them is log_prob outside."""

import time

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import MIXED, TABLE, make_case


@pytest.fixture(scope="module")
def jaxed():
    return load_backend("jax")


@pytest.fixture(scope="module")
def torched():
    return load_backend("torch")


# ----------------------------------------------------------------------------------------------------- jax


@pytest.mark.parametrize("engine", ["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"])
@pytest.mark.parametrize("case", [MIXED, TABLE], ids=["mixed", "table"])
def test_jit_of_a_function_that_takes_the_ring(jaxed, case, engine):
    import jax

    x = case.rows(6)
    compiled = jax.jit(lambda ring, x: ring.log_prob(x, engine=engine))
    actual = compiled(jaxed.ring(case), jaxed.array(x))
    assert_close(np.asarray(actual), oracle.log_prob(case, x), (case, engine))


def test_jit_compiles_once_per_structure(jaxed):
    """Rings of the same variables and shapes share one compilation, whatever their numbers."""
    import jax

    traces = []

    @jax.jit
    def log_prob(ring, x):
        traces.append(1)
        return ring.log_prob(x)

    x = jaxed.array(MIXED.rows(6))
    ring = jaxed.ring(MIXED)
    log_prob(ring, x)
    scaled = rd.TensorRing([2 * core for core in ring.cores], ring.variables, order=ring.order)
    log_prob(scaled, x)
    assert len(traces) == 1, traces


def test_rings_are_pytrees(jaxed):
    import jax

    ring, x = jaxed.ring(MIXED), jaxed.array(MIXED.rows(6))
    leaves, structure = jax.tree.flatten(ring)
    sizes = sum(core.size for core in MIXED.cores)
    sizes += sum(p.size for c in MIXED.columns for p in c.parameters.values())
    assert sum(leaf.size for leaf in leaves) == sizes, structure
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_array_equal(np.asarray(again.log_prob(x)), np.asarray(ring.log_prob(x)))
    assert repr(again) == repr(ring)
    jax.tree.map(lambda _: None, ring)  # transformations put anything into the leaves
    gradient = jax.grad(lambda ring: ring.log_prob(x).sum())(ring)
    assert jax.tree.structure(gradient) == structure, gradient
    assert all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_a_step_of_gradient_descent_on_the_pytree(jaxed):
    import jax

    ring, x = jaxed.ring(MIXED), jaxed.array(MIXED.possible_rows(20))

    @jax.jit
    def step(ring):
        value, gradient = jax.value_and_grad(lambda r: -r.log_prob(x).mean())(ring)
        return value, jax.tree.map(lambda p, g: p * jax.numpy.exp(-0.01 * g * p), ring, gradient)

    before, ring = step(ring)
    after, _ = step(ring)
    assert float(after) < float(before), (before, after)


def test_vmap_over_rows(jaxed):
    import jax

    ring, x = jaxed.ring(MIXED), MIXED.rows(6)
    actual = jax.vmap(ring.log_prob)(jaxed.array(x))
    assert_close(np.asarray(actual), oracle.log_prob(MIXED, x), MIXED)


def test_sampling_under_jit(jaxed):
    import jax

    ring = jaxed.ring(TABLE)
    draw = jax.jit(lambda ring, key: ring.sample(5000, rng=key))
    x = np.asarray(draw(ring, jax.random.key(1)))
    p_value = oracle.chi_square(oracle.counts(x, TABLE.shape), TABLE.joint)
    assert p_value > 1e-3, (TABLE, p_value)


def test_validation_is_skipped_under_tracing_and_done_outside(jaxed):
    """A category out of range cannot be seen by a tracer; its mass is zero, so the answer is −inf."""
    import jax

    ring, bad = jaxed.ring(TABLE), jaxed.array([[7.0, 0, 0, 0]])
    with pytest.raises(ValueError, match="category 7"):
        ring.log_prob(bad)
    assert np.isneginf(np.asarray(jax.jit(ring.log_prob)(bad))).all()


@pytest.mark.slow
def test_the_tree_of_ten_thousand_columns_compiles_in_seconds(jaxed):
    import jax

    d = 10_000
    case = make_case(["categorical"] * d, [2] * d, [3] * d, range(d), seed=31)
    ring = jaxed.ring(case, "float32")
    x = jaxed.array(np.random.default_rng(0).integers(0, 2, (4, d)), "float32")
    begin = time.perf_counter()
    compiled = jax.jit(lambda ring, x: ring.log_prob(x, engine="tree"))
    actual = np.asarray(compiled(ring, x))
    elapsed = time.perf_counter() - begin
    assert np.isfinite(actual).all(), actual
    reference = load_backend("numpy").ring(case).log_prob(np.asarray(x, dtype=np.float64))
    assert_close(actual, reference.astype(np.float32), case, rtol=1e-4)
    assert elapsed < 60, f"{elapsed:.0f} s"


def test_the_takeover_is_right_under_jit(jaxed):
    """No row can be recomputed where values cannot be looked at, and yet it must not lose the second world."""
    import jax

    from tests.test_numerics import takeover, worlds

    d = 2000
    ring = jaxed.ring(worlds(*takeover(d), "ring"), "float32")
    x = jaxed.array(np.zeros((2, d)), "float32")
    actual = jax.jit(lambda ring, x: ring.log_prob(x, engine="tree"))(ring, x)
    assert_close(np.asarray(actual), np.full(2, -d / 2 - np.log(2)), ring, rtol=1e-5)


# --------------------------------------------------------------------------------------------------- torch


# array-api-compat caches class look-ups; Dynamo traces through the caches and says so
CACHES = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")


@CACHES
@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["eager", "inductor"])
def test_torch_compile(torched, compiler):
    """Values and gradients, by tracing only and by torch's own compiler; graph breaks are allowed."""
    torch = torched.xp
    torch._dynamo.reset()
    x, values = MIXED.rows(6), []
    for transform in (lambda f: f, lambda f: torch.compile(f, backend=compiler)):
        cores = [torched.array(core).requires_grad_() for core in MIXED.cores]
        ring = rd.TensorRing(cores, torched.variables(MIXED), order=MIXED.order)
        log_prob = transform(ring.log_prob)(torched.array(x))
        log_prob.sum().backward()
        values.append([torched.numpy(log_prob), *(core.grad.numpy() for core in cores)])
    assert_close(values[1][0], oracle.log_prob(MIXED, x), MIXED)
    for compiled, plain in zip(*values, strict=True):
        assert_close(compiled, plain, MIXED)


def test_torch_func_gradients(torched):
    """Per-row gradients by vmap(grad)."""
    torch = torched.xp
    ring, x = torched.ring(MIXED), torched.array(MIXED.possible_rows(6, missing=0.0))

    def score(row):
        return ring.log_prob(row)

    actual = torch.func.vmap(torch.func.grad(score))(x)
    z = x.clone().requires_grad_()
    ring.log_prob(z).sum().backward()
    assert_close(actual.numpy(), z.grad.numpy(), MIXED)


def test_live_parameters_are_seen(torched):
    """A ring over leaf tensors follows them: nothing is copied or detached."""
    torch = torched.xp
    cores = [torched.array(core).requires_grad_() for core in MIXED.cores]
    ring = rd.TensorRing(cores, torched.variables(MIXED), order=MIXED.order)
    x = torched.array(MIXED.rows(6))
    before = ring.log_prob(x)
    before.sum().backward()
    assert all(core.grad is not None for core in cores)
    with torch.no_grad():
        cores[0][0] *= 3
    after = rd.TensorRing(cores, torched.variables(MIXED), order=MIXED.order).log_prob(x)
    assert not torch.allclose(before, after), "the changed core is not seen"
