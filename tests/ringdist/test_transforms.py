"""jax.jit, vmap and pytrees; torch.compile and torch.func: log_prob inside them is log_prob outside."""

import contextlib
import functools
import time

import numpy as np
import pytest

import ringdist as rd
from ringdist.backend import arrays as backend_arrays
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import MIXED, TABLE, make_case


@pytest.fixture(scope="module")
def jaxed():
    return load_backend("jax")


@pytest.fixture(scope="module")
def torched():
    return load_backend("torch")


def trip():
    return pytest.importorskip("adapters").TRIP(2, 2, 2)


def joint():
    return pytest.importorskip("adapters").JointTRIP(1, [2], 2, 2)


def mixture():
    return pytest.importorskip("adapters").GaussianMixturePrior(2, 3)


# ----------------------------------------------------------------------------------------------------- jax


@pytest.mark.parametrize("engine", ["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"])
@pytest.mark.parametrize(
    "case", [pytest.param(MIXED, id="mixed", marks=pytest.mark.slow), pytest.param(TABLE, id="table")]
)
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


@pytest.mark.slow
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


PARTIAL = {
    "log_prob": lambda ring, x: ring.log_prob(x),
    "component_posterior": lambda ring, x: ring.component_posterior(1, x),
    "mean": lambda ring, x: ring.mean(x),
    "condition": lambda ring, x: ring.condition({1: 0}).log_prob(x[:, [0, 2, 3]]),
    "to_train": lambda ring, x: ring.to_train().log_prob(x),
    "sample": lambda ring, x: ring.sample(5, rng=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("query", PARTIAL)
def test_one_core_is_traced_and_the_others_are_constants(jaxed, query, column):
    """Whichever it is: no value of its ring decides anything."""
    import jax

    ring, x = jaxed.ring(TABLE), jaxed.array(TABLE.rows(4))

    def total(core):
        cores = [core if k == column else other for k, other in enumerate(ring.cores)]
        values = PARTIAL[query](rd.TensorRing(cores, ring.variables, order=ring.order), x)
        return (values * jax.numpy.cos(jax.numpy.arange(values.size)).reshape(values.shape)).sum()

    core = ring.cores[column]
    expected = total(core)
    assert_close(jax.jit(total)(core), expected, query)
    value, gradient = jax.value_and_grad(total)(core)
    assert_close(value, expected, query)
    step = 1e-5 * np.random.default_rng(0).random(core.shape) * core  # some entries are 0
    if query != "sample":
        assert_close(
            (gradient * step).sum(), (total(core + step) - total(core - step)) / 2, query, rtol=1e-4, atol=1e-9
        )


def test_a_train_of_constants_within_jit(jaxed):
    import jax

    ring, x = jaxed.ring(TABLE), jaxed.array(TABLE.rows(4))
    assert_close(jax.jit(lambda x: ring.to_train().log_prob(x))(x), oracle.log_prob(TABLE, TABLE.rows(4)), ring)


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


@pytest.mark.slow
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


def test_many_arrays_are_stacked_in_pieces(jaxed, monkeypatch):
    """Stacking them is what it would be in one piece, with gradients, and over a batch."""
    import jax

    monkeypatch.setattr(backend_arrays, "OPERANDS", 3)
    arrays = np.random.default_rng(0).normal(size=(3, 7, 2))
    weights = jaxed.array(np.arange(2.0 * arrays.shape[1]).reshape(-1, 2))
    stacked = jax.jit(jax.vmap(lambda a: backend_arrays.stack(list(a))))(jaxed.array(arrays))
    np.testing.assert_array_equal(np.asarray(stacked), arrays)
    score = jax.grad(lambda a: (weights * backend_arrays.stack(list(a)) ** 2).sum())
    gradient = jax.jit(jax.vmap(score))(jaxed.array(arrays))
    assert_close(np.asarray(gradient), 2 * np.asarray(weights) * arrays, "stack")


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


@pytest.mark.slow
def test_the_takeover_is_right_under_jit(jaxed):
    """No row can be recomputed where values cannot be looked at, and yet it must not lose the second world."""
    import jax

    from tests.ringdist.test_numerics import takeover, worlds

    d = 2000
    ring = jaxed.ring(worlds(*takeover(d), "ring"), "float32")
    x = jaxed.array(np.zeros((2, d)), "float32")
    actual = jax.jit(lambda ring, x: ring.log_prob(x, engine="tree"))(ring, x)
    assert_close(np.asarray(actual), np.full(2, -d / 2 - np.log(2)), ring, rtol=1e-5)


# --------------------------------------------------------------------------------------------------- torch


# Inductor warns of deprecated functions that it calls itself, and of what a GPU could do besides.
INDUCTOR = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
# Tracing takes seconds even for two columns.
PAIR = make_case(["categorical"] * 2, [3, 2], [2, 2], [1, 0], seed=4)


@INDUCTOR
@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["eager", "inductor"])
def test_torch_compile(torched, compiler):
    """Values and gradients, by tracing only and by torch's own compiler."""
    torch = torched.xp
    torch._dynamo.reset()
    x, values = MIXED.rows(6), []
    for transform in (lambda f: f, lambda f: torch.compile(f, backend=compiler, fullgraph=True)):
        cores = [torched.array(core).requires_grad_() for core in MIXED.cores]
        ring = rd.TensorRing(cores, torched.variables(MIXED), order=MIXED.order)
        log_prob = transform(ring.log_prob)(torched.array(x))
        log_prob.sum().backward()
        values.append([torched.numpy(log_prob), *(core.grad.numpy() for core in cores)])
    assert_close(values[1][0], oracle.log_prob(MIXED, x), MIXED)
    for compiled, plain in zip(*values, strict=True):
        assert_close(compiled, plain, MIXED)


@pytest.mark.parametrize("case", [PAIR, pytest.param(MIXED, marks=pytest.mark.slow)], ids=["pair", "mixed"])
def test_log_prob_is_one_graph_that_is_compiled_once(torched, case):
    torch = torched.xp
    ring, x = torched.ring(case), case.rows(6)
    with fresh_compiler(torch) as compiled:
        log_prob = compiled(ring.log_prob)
        assert_close(log_prob(torched.array(x)).numpy(), oracle.log_prob(case, x), case)
        ring.log_prob(torched.array(x))  # what a query remembers must not ask for another graph
        log_prob(torched.array(x[::-1]))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, torch._dynamo.utils.counters


def test_gradients_of_a_compiled_prior(torched):
    torch, prior = torched.xp, trip()
    z = torch.randn(5, 2, generator=torched.rng())
    gradients = []
    with fresh_compiler(torch) as compiled:
        for log_prob in (prior.log_prob, compiled(prior.log_prob, backend="aot_eager")):
            gradients.append(torch.autograd.grad(log_prob(z).sum(), list(prior.parameters())))
    for actual, expected in zip(*gradients, strict=True):
        assert_close(actual.numpy(), expected.numpy(), prior, rtol=1e-5, atol=1e-6)


def test_the_log_prob_of_a_compiled_joint_prior(torched):
    torch, prior = torched.xp, joint()
    z, y = torch.randn(2, 1, generator=torched.rng()), torch.tensor([[1.0], [torch.nan]])
    with fresh_compiler(torch) as compiled:
        actual = compiled(prior.log_prob)(z, y)
        assert_close(actual.detach().numpy(), prior.log_prob(z, y).detach().numpy(), prior, rtol=1e-5)


@pytest.mark.parametrize("method", [pytest.param("sample", marks=pytest.mark.slow), "rsample"])
def test_samples_of_a_compiled_prior(torched, method):
    """Their moments are the exact ones, and they are the draws of the same global seed outside."""
    torch, prior, n = torched.xp, trip(), 4000
    mean, covariance = (f().detach().numpy() for f in (prior.ring.mean, prior.ring.covariance))
    with fresh_compiler(torch) as compiled:
        z = drawn(torch, compiled(getattr(prior, method)), n)
    assert_close(z, drawn(torch, getattr(prior, method), n), method, rtol=1e-4, atol=1e-4)
    spread = np.sqrt(covariance.diagonal())
    assert (abs(z.mean(0) - mean) < 5 * spread / np.sqrt(n)).all(), (method, z.mean(0), mean)
    assert (abs(np.cov(z.T) - covariance) < 0.1 * np.outer(spread, spread)).all(), (method, np.cov(z.T))


@pytest.mark.parametrize("kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in (trip, joint)), mixture])
@pytest.mark.parametrize("estimator", ["hybrid", pytest.param("reinforce", marks=pytest.mark.slow)])
def test_a_compiled_expected_reward(torched, kind, estimator):
    """Value and gradient of the same global seed outside."""
    torch, prior = torched.xp, kind()
    from adapters import expected_reward

    def reward():
        return expected_reward(prior, lambda z: z.sin().sum(-1), 50, estimator)

    with fresh_compiler(torch) as compiled:
        actual, expected = (seeded(torch, f) for f in (compiled(reward), reward))
        found, wanted = (torch.autograd.grad(value, list(prior.parameters())) for value in (actual, expected))
    assert_close(actual.item(), expected.item(), estimator, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one.numpy(), other.numpy(), estimator, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["sample", pytest.param("rsample", marks=pytest.mark.slow)])
def test_samples_of_a_compiled_joint_prior(torched, method):
    torch, prior = torched.xp, joint()
    y = torch.tensor([[1.0], [torch.nan], [0.0]])
    with fresh_compiler(torch) as compiled:
        z = drawn(torch, compiled(getattr(prior, method)), 3, y)
    assert_close(z, drawn(torch, getattr(prior, method), 3, y), method, rtol=1e-4, atol=1e-4)


def test_samples_of_a_compiled_ring(torched):
    torch, ring = torched.xp, torched.ring(PAIR)
    with fresh_compiler(torch) as compiled:
        sample = compiled(ring.sample)
        x = drawn(torch, sample, 5000)
        assert (x != sample(5000).numpy()).any(), "the global generator has not moved on"
    p_value = oracle.chi_square(oracle.counts(x, PAIR.shape), PAIR.joint)
    assert p_value > 1e-3, (PAIR, p_value)


@pytest.mark.slow
def test_a_seed_is_kept_under_compilation(torched):
    """It breaks the graph, but draws what it draws outside."""
    torch, ring = torched.xp, torched.ring(PAIR)
    torch._dynamo.reset()
    x = torch.compile(lambda: ring.sample(7, rng=3), backend="eager")()
    assert bool((x == ring.sample(7, rng=3)).all()), x


def test_autocast_does_not_reach_a_ring(torched):
    """Bit by bit."""
    torch, ring = torched.xp, torched.ring(MIXED, "float32")
    x = torched.array(MIXED.rows(6), "float32")
    for query in (lambda: ring.log_prob(x), lambda: ring.sample(20, rng=1), ring.mean):
        expected = query()
        with torch.autocast("cpu", torch.bfloat16):
            actual = query()
        assert actual.dtype == expected.dtype and bool((actual == expected).all()), (actual, expected)


@pytest.mark.parametrize("method", ["em", "gradient"])
def test_autocast_does_not_reach_fits(torched, method):
    torch, ring = torched.xp, torched.ring(MIXED, "float32")
    x = torched.array(MIXED.rows(6), "float32")
    fits = {
        "em": lambda: rd.fit_em(ring, x, max_epochs=2),
        "gradient": lambda: rd.fit_gradient(ring, x, lambda p: torch.optim.SGD(p, lr=0.01), max_epochs=2, rng=0),
    }
    expected = fits[method]().history
    with torch.autocast("cpu", torch.bfloat16):
        assert fits[method]().history == expected


@pytest.mark.slow
def test_autocast_does_not_reach_a_compiled_ring(torched):
    torch, ring = torched.xp, torched.ring(PAIR, "float32")
    x = torched.array(PAIR.rows(6), "float32")
    with fresh_compiler(torch) as compiled:
        log_prob = compiled(ring.log_prob)
        expected = log_prob(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert bool((log_prob(x) == expected).all()), (log_prob(x), expected)


@contextlib.contextmanager
def fresh_compiler(torch):
    """`torch.compile` of whole graphs only, which by default traces without generating code."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield functools.partial(torch.compile, fullgraph=True, backend="eager")
    torch._dynamo.reset()


def drawn(torch, sample, *arguments):
    """What a seed of the global generator draws."""
    return seeded(torch, sample, *arguments).detach().numpy()


def seeded(torch, function, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return function(*arguments)


# -------------------------------------------------------------------------------------------------- on a GPU


REAL = make_case(["categorical", "gaussian", "poisson"] * 2, [3] * 6, [4] * 6, [2, 0, 5, 1, 4, 3], seed=5)


@INDUCTOR
def test_compiled_queries_never_wait_for_the_device():
    cuda = load_backend("torch-cuda")
    torch = cuda.xp
    cores = [cuda.array(core, "float32").requires_grad_() for core in REAL.cores]
    ring = rd.TensorRing(cores, cuda.variables(REAL, "float32"), order=REAL.order)
    x = cuda.array(REAL.rows(50), "float32")
    torch._dynamo.reset()
    log_prob, sample = (torch.compile(f, fullgraph=True) for f in (ring.log_prob, ring.sample))
    for attempt in range(3):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if attempt == 2 else "default")
        try:
            log_prob(x).sum().backward()
            sample(50)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@INDUCTOR
def test_a_training_step_of_replayed_graphs():
    cuda = load_backend("torch-cuda")
    torch, prior = cuda.xp, trip().to("cuda")
    z = torch.randn(64, 2, device="cuda")
    torch._dynamo.reset()

    def loss(z):
        return -prior.log_prob(z).mean()

    compiled, optimizer = (
        torch.compile(loss, mode="reduce-overhead", fullgraph=True),
        torch.optim.Adam(prior.parameters()),
    )
    for _ in range(5):
        optimizer.zero_grad()
        expected = loss(z)
        torch.compiler.cudagraph_mark_step_begin()
        actual = compiled(z)
        assert_close(actual.item(), expected.item(), prior, rtol=1e-4)
        actual.backward()
        gradients = torch.autograd.grad(expected, list(prior.parameters()))
        for parameter, gradient in zip(prior.parameters(), gradients, strict=True):
            assert_close(cuda.numpy(parameter.grad), cuda.numpy(gradient), prior, rtol=1e-3, atol=1e-5)
        optimizer.step()


def test_log_prob_in_a_captured_graph():
    """No step of it depends on values or comes from the host."""
    cuda = load_backend("torch-cuda")
    torch, ring = cuda.xp, cuda.ring(REAL)
    x = cuda.array(REAL.rows(20))
    ring.log_prob(x)  # libraries make their handles outside
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = ring.log_prob(x)
    rows = REAL.rows(20)[::-1]
    x.copy_(cuda.array(rows))
    graph.replay()
    assert_close(cuda.numpy(value), oracle.log_prob(REAL, rows), REAL)


# ------------------------------------------------------------------------------------------ torch, without compiler


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


@pytest.mark.parametrize("engine", ["auto", "sweep", "tree", "log"])
@pytest.mark.parametrize("case", [MIXED, REAL], ids=["mixed", "real"])
def test_torch_vmap_over_batches(torched, case, engine):
    torch = torched.xp
    ring, rows = torched.ring(case), case.possible_rows(6).reshape(3, 2, case.d)
    x = torched.array(rows)
    values = torch.func.vmap(lambda x: ring.log_prob(x, engine=engine))(x)
    assert_close(torched.numpy(values), np.stack([oracle.log_prob(case, part) for part in rows]), case)
    posteriors = torch.func.vmap(lambda x: ring.component_posterior(1, x))(x)
    assert_close(torched.numpy(posteriors), torched.numpy(ring.component_posterior(1, x)), case)


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


def test_products_of_all_bits_in_jax(jaxed):
    """Of itself JAX takes fewer on accelerators; who asks for them gets them."""
    import jax

    ring, x = jaxed.ring(TABLE), jaxed.array(TABLE.rows(5, missing=0.0))

    def products(x) -> str:
        return str(jax.make_jaxpr(jax.grad(lambda x: ring.log_prob(x).sum()))(x))

    assert "HIGHEST" in products(x)
    with jax.default_matmul_precision("tensorfloat32"):
        assert "HIGHEST" not in products(x)


@pytest.mark.slow
def test_constants_inside_of_jit(jaxed):
    """What is made of them there is traced, although they are not."""
    import jax

    ring, x = jaxed.ring(MIXED), jaxed.array(MIXED.possible_rows(4))
    for query in (
        lambda: ring.log_prob(x),
        lambda: ring.cdf(1, x.at[:, 1].set(0.5)),
        lambda: ring.mean(x),
    ):
        assert_close(jaxed.numpy(jax.jit(lambda c, query=query: c * query())(1.0)), jaxed.numpy(query()), MIXED)
