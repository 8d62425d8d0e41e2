"""Gradients and transformations of rings whose cores are small networks, and their learning by gradients."""

import contextlib
import functools

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.structured import FACTORS, STRUCTURED, TABLES, make_structured

pytestmark = pytest.mark.slow_on("jax")

NAMES = ("full", "hidden Markov", "private", "dense beside", "train", "diagonal beside")


@pytest.fixture(params=["torch", "jax"])
def backend(request):
    return load_backend(request.param)


def dense_of(backend, kind, factors):
    """Q[s, a, b] in the backend's own einsum, which has gradients."""
    if kind == "dense":
        return factors["core"]
    xp = backend.xp
    if kind == "diagonal":
        unit = backend.array(np.eye(factors["weights"].shape[1]))
        return factors["weights"][:, :, None] * unit
    c = {int(a.shape[0 if name == "right" else 1]) for name, a in factors.items()}.pop()
    unit = backend.array(np.eye(c))
    return xp.einsum("ac,sc,cb->sab", *(factors.get(name, unit) for name in FACTORS))


def gradients(backend, arrays, function):
    """d function(arrays) / d each factor, in NumPy."""
    if backend.name == "jax":
        import jax

        found = jax.grad(function)(arrays)  # JAX sorts the keys of dicts
        return [np.asarray(each[name]) for each, factors in zip(found, arrays, strict=True) for name in factors]
    leaves = [{name: a.clone().requires_grad_() for name, a in factors.items()} for factors in arrays]
    found = backend.xp.autograd.grad(function(leaves), [a for factors in leaves for a in factors.values()])
    return [a.numpy() for a in found]


def both(structured, backend):
    """The ring of some factors, and the ring of the dense cores that they make."""
    variables, order = backend.variables(structured.case), structured.case.order

    def structured_ring(arrays):
        return rd.TensorRing(structured.cores(arrays), variables, order=order)

    def dense_ring(arrays):
        cores = [dense_of(backend, kind, a) for (kind, _), a in zip(structured.parts, arrays, strict=True)]
        return rd.TensorRing(cores, variables, order=order)

    return structured_ring, dense_ring


# -------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ["auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"])
def test_gradients_of_log_prob_are_those_of_the_chain_rule(backend, engine, name):
    structured = STRUCTURED[name]
    x, arrays = backend.array(structured.case.possible_rows(5)), structured.arrays(backend)
    actual, expected = (
        gradients(backend, arrays, lambda a, make=make: make(a).log_prob(x, engine=engine).sum())
        for make in both(structured, backend)
    )
    for one, other, factor in zip(actual, expected, factors_of(structured), strict=True):
        some = (factor > 0) | (engine != "log")  # logarithms give zeros the gradient 0: see docs/numerics.md
        assert_close(one[some], other[some], (structured, engine))


def factors_of(structured):
    return [a for _, factors in structured.parts for a in factors.values()]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_other_queries(backend, name):
    structured = STRUCTURED[name]
    case, arrays = structured.case, structured.arrays(backend)
    x = backend.array(case.possible_rows(4))
    full = backend.array(case.rows(3, missing=0.0))
    questions = {
        "log_normalizer": lambda ring: ring.log_normalizer(),
        "mean": lambda ring: (ring.mean(x) ** 2).sum(),
        "covariance": lambda ring: (ring.covariance() ** 2).sum(),
        "mutual_information": lambda ring: ring.mutual_information().sum(),
        "cdf": lambda ring: ring.cdf(0, full).sum(),
        "inner": lambda ring: ring.inner(ring),
        "marginal": lambda ring: ring.marginal([0, 1]).log_prob(full[:, :2]).sum(),
        "condition": lambda ring: ring.condition({0: float(full[0, 0])}).log_prob(full[:, 1:]).sum(),
        "to_train": lambda ring: ring.to_train().log_prob(full).sum(),
    }
    for question, ask in questions.items():
        actual, expected = (
            gradients(backend, arrays, lambda a, make=make, ask=ask: ask(make(a))) for make in both(structured, backend)
        )
        for one, other, factor in zip(actual, expected, factors_of(structured), strict=True):
            some = (factor > 0) | (question not in ("marginal", "condition"))  # their matrices are logarithms first
            assert_close(one[some], other[some], (structured, question), rtol=1e-7, atol=1e-9)


def test_gradients_of_gradients():
    torch_backend = load_backend("torch")
    torch, structured = torch_backend.xp, STRUCTURED["full"]
    x, found = torch_backend.array(structured.case.possible_rows(4)), []
    for make in both(structured, torch_backend):
        arrays = [{n: a.requires_grad_() for n, a in f.items()} for f in structured.arrays(torch_backend)]
        leaves = [a for factors in arrays for a in factors.values()]
        first = torch.autograd.grad(make(arrays).log_prob(x).sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum((g**2).sum() for g in first), leaves))
    for one, other in zip(*found, strict=True):
        assert_close(one.numpy(), other.numpy(), structured)


@pytest.mark.parametrize("name", ["full", "private", "train", "diagonal"])
def test_pathwise_gradients(backend, name):
    patterns = [part[0] if part[0] in ("dense", "diagonal") else tuple(part[1]) for part in STRUCTURED[name].parts[:3]]
    patterns = patterns if name != "train" else [FACTORS, "dense", FACTORS]
    structured = make_structured(patterns, ["gaussian", "laplace", "gaussian"], seed=4, train=name == "train")
    arrays, ring = structured.arrays(backend), structured.ring(backend)
    given = backend.array(structured.case.rows(3, missing=0.5))
    x = ring.sample_given(given, rng=backend.rng())
    actual, expected = (
        gradients(backend, arrays, lambda a, make=make: (make(a).pathwise(x, given) ** 2).sum())
        for make in both(structured, backend)
    )
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, structured, rtol=1e-7)


# ---------------------------------------------------------------------------------------------- transformations


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_jit_of_a_function_that_takes_the_ring(name):
    jaxed, structured = load_backend("jax"), STRUCTURED[name]
    import jax

    ring, x = structured.ring(jaxed), structured.case.rows(5)
    leaves, structure = jax.tree.flatten(ring)
    assert repr(jax.tree.unflatten(structure, leaves)) == repr(ring)
    jax.tree.map(lambda _: None, ring)
    actual = jax.jit(lambda ring, x: ring.log_prob(x))(ring, jaxed.array(x))
    assert_close(np.asarray(actual), oracle.log_prob(structured.case, x), structured)
    gradient = jax.jit(jax.grad(lambda ring, x: ring.log_prob(x).sum()))(ring, jaxed.array(x))
    assert jax.tree.structure(gradient) == structure
    expected = gradients(
        jaxed, structured.arrays(jaxed), lambda a: both(structured, jaxed)[1](a).log_prob(jaxed.array(x)).sum()
    )
    found = [a for core in gradient.links for a in core.arrays().values()]
    for one, other in zip(found, expected, strict=True):
        assert_close(np.asarray(one), other, structured)
    fresh = structured.ring(jaxed)  # which remembers first what it computes while JAX traces
    for function in (jax.jit(jax.vmap(fresh.log_prob)), fresh.log_prob):
        assert_close(np.asarray(function(jaxed.array(x))), oracle.log_prob(structured.case, x), structured)


@pytest.mark.slow
def test_sampling_under_jit():
    jaxed, structured = load_backend("jax"), TABLES["full"]
    import jax

    draw = jax.jit(lambda ring, key: ring.sample(5000, rng=key))
    x = np.asarray(draw(structured.ring(jaxed), jax.random.key(1)))
    assert oracle.chi_square(oracle.counts(x, structured.case.shape), structured.case.joint) > 1e-3


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["eager", "inductor"])
def test_torch_compile(compiler):
    """Values and gradients of one graph, compiled once."""
    torched = load_backend("torch")
    torch = torched.xp
    structured = make_structured([FACTORS, ("emission", "right"), "dense"], ["categorical"] * 3, train=True, seed=3)
    x, values = structured.case.rows(6), []
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with contextlib.ExitStack() as stack:
        stack.callback(torch._dynamo.reset)
        for transform in (lambda f: f, lambda f: torch.compile(f, backend=compiler, fullgraph=True)):
            arrays = [{n: a.requires_grad_() for n, a in f.items()} for f in structured.arrays(torched)]
            ring = structured.ring(torched, arrays=arrays)
            compiled = transform(ring.log_prob)
            value = compiled(torched.array(x))
            compiled(torched.array(x[::-1]))
            value.sum().backward()
            values.append([torched.numpy(value), *(a.grad.numpy() for f in arrays for a in f.values())])
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert_close(values[1][0], oracle.log_prob(structured.case, x), structured)
    for compiled, plain in zip(*values, strict=True):
        assert_close(compiled, plain, structured)


# ---------------------------------------------------------------------------------------------------- learning


def test_a_fit_of_cp_cores_by_gradients(backend):
    structured = TABLES["full"]
    x = structured.ring(load_backend("numpy")).sample(300, rng=0)
    variables = [rd.Categorical(n) for n in structured.case.shape]
    ring = rd.TensorRing.random(variables, 3, core="cp", rng=0, xp=backend.xp, dtype="float64")
    if backend.name == "jax":
        optax = pytest.importorskip("optax")
        optimizer = optax.adam(0.05)
    else:
        optimizer = functools.partial(backend.xp.optim.Adam, lr=0.05)
    fit = rd.fit_gradient(ring, x, optimizer, max_epochs=25, batch_size=100, rng=0)
    before = float(backend.numpy(ring.log_prob(backend.array(x))).mean())
    exact = rd.fit_em(ring, x, max_epochs=25).history["train"][-1]
    assert fit.history["train"][-1] > before and fit.history["train"][-1] > exact - 0.1, (before, exact)
    assert all(isinstance(core, rd.CPCore) for core in fit.ring.cores)
    assert not any(getattr(a, "requires_grad", False) for core in fit.ring.cores for a in core.arrays().values())


def test_zeros_stay_zero_under_gradients():
    backend = load_backend("torch")
    structured = make_structured([FACTORS] * 3, ["categorical"] * 3, sparsity=0.4, seed=3)
    x = structured.ring(load_backend("numpy")).sample(100, rng=0)
    ring = structured.ring(backend)
    fit = rd.fit_gradient(ring, x, lambda p: backend.xp.optim.Adam(p, lr=0.05), max_epochs=3, rng=0)
    for before, after in zip(ring.cores, fit.ring.cores, strict=True):
        for name, array in before.arrays().items():
            assert (after.arrays()[name][array == 0] == 0).all() and after.arrays()[name].isfinite().all()
