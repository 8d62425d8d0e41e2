"""Gradients, transformations and learning of rings whose cores are small networks."""

import contextlib

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import Case
from tests.structured import FACTORS, STRUCTURED, TABLES, dense, make_structured

pytestmark = pytest.mark.slow_on("jax")

SUBSCRIPTS = {"left": "ac", "emission": "sc", "right": "cb"}
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


# ----------------------------------------------------------------------------------------------------------- EM


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def fitted_backend(request):
    return load_backend(request.param)


def epoch(structured, x, weight, pseudocount=0.0):
    """The table after every factor of every core was replaced, by enumeration."""
    case, parts = structured.case, [(kind, dict(factors)) for kind, factors in structured.parts]

    def joint():
        return Case(tuple(dense(*part) for part in parts), case.columns, case.order).joint

    def masses(table):
        return oracle.component_mass(_Table(table, case), x)

    def counted(k, name):
        """Expected counts of a factor's entries, and the derivative of the normaliser."""
        factor = parts[k][1][name]
        counts, model, mass = np.zeros_like(factor), np.zeros_like(factor), masses(joint())
        for place in np.ndindex(factor.shape):
            parts[k][1][name] = np.zeros_like(factor)
            parts[k][1][name][place] = 1.0
            table = joint()
            model[place] = table.sum()
            counts[place] = factor[place] * (weight * masses(table) / mass).sum()
        parts[k][1][name] = factor
        return counts + pseudocount * ((model > 0) & (factor > 0)), model

    cut = case.ranks.index(min(case.ranks))
    places = [(k, name) for k in (*case.order[cut:], *case.order[:cut]) for name in parts[k][1]]
    if case.ranks[cut] == 1:  # all at once, each a conditional distribution
        axes = {"core": (0, 2), "left": 1, "emission": 0, "right": 1}
        for (k, name), (counts, _) in zip(places, [counted(*place) for place in places], strict=True):
            total = counts.sum(axes[name], keepdims=True)
            parts[k][1][name] = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    else:
        for k, name in places:
            counts, model = counted(k, name)
            parts[k][1][name] = np.divide(counts, model, out=np.zeros_like(counts), where=model > 0)
            parts[k][1][name] /= parts[k][1][name].max()
    table = joint()
    return table / table.sum()


class _Table:
    """What `oracle.component_mass` asks of a case."""

    def __init__(self, joint, case):
        self.joint, self.columns, self.d = joint, case.columns, case.d


EM_TABLES = ("full", "shared components", "mixed", "train")


@pytest.mark.parametrize("pseudocount", [0.0, 0.5])
@pytest.mark.parametrize("name", EM_TABLES)
def test_an_epoch_is_that_of_enumeration(fitted_backend, name, pseudocount):
    structured = TABLES[name]
    x = structured.case.possible_rows(12)
    weight = np.random.default_rng(1).integers(0, 4, len(x)).astype(float)
    ring = structured.ring(fitted_backend)
    fit = rd.fit_em(ring, x, sample_weight=weight, max_epochs=1, pseudocount=pseudocount)
    expected = epoch(structured, x, weight, pseudocount)
    assert_close(fitted_backend.numpy(fit.ring.to_dense()), expected, structured)
    rows = structured.case.possible_rows(12)
    with np.errstate(divide="ignore"):
        after = np.log(oracle.component_mass(_Table(expected, structured.case), rows))
    used = weight > 0
    assert_close(fit.history["train"][-1], np.average(after[used], weights=weight[used]), structured)


@pytest.mark.parametrize("name", STRUCTURED)
def test_the_likelihood_never_falls(fitted_backend, name):
    structured = STRUCTURED[name]
    if "laplace" in {c.kind for c in structured.case.columns}:  # its update is a coordinate step of its own
        kinds = [c.kind if c.kind != "laplace" else "gaussian" for c in structured.case.columns]
        patterns = [kind if kind != "cp" else tuple(factors) for kind, factors in structured.parts]
        structured = make_structured(
            patterns, kinds, structured.case.order, train=name == "train", sparsity=0.1, seed=6
        )
    x = structured.case.possible_rows(60)
    ring = structured.ring(fitted_backend)
    fit = rd.fit_em(ring, x, max_epochs=12, variance_floor=0.0)
    history = [float(fitted_backend.numpy(ring.log_prob(fitted_backend.array(x))).mean()), *fit.history["train"]]
    assert (np.diff(history) > -1e-9).all(), (structured, history)
    for before, after in zip(ring.links, fit.ring.links, strict=True):
        assert type(before) is type(after)
        for factor, array in before.arrays().items():
            zero = fitted_backend.numpy(array) == 0
            assert (fitted_backend.numpy(after.arrays()[factor])[zero] == 0).all(), (structured, factor)
    value = fitted_backend.numpy(fit.ring.log_prob(fitted_backend.array(x))).mean()
    assert_close(value, fit.history["train"][-1], structured)


def planted(patterns, n=4000, seed=0, train=True):
    """A table of a ring that gives most of its mass to few configurations, and samples of it."""
    structured = make_structured(patterns, ["categorical"] * len(patterns), train=train, seed=seed)
    sharp = [{name: a**4 for name, a in factors.items()} for _, factors in structured.parts]
    ring = structured.ring(load_backend("numpy"), arrays=sharp)
    return ring, ring.sample(n, rng=seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_planted_train_is_recovered(seed):
    """The fit explains the data as well as the train that they were drawn from, and other data nearly so."""
    truth, x = planted([FACTORS, ("emission", "right"), ("emission", "right"), FACTORS, FACTORS], seed=seed)
    start = rd.initialize(x, truth.variables, 4, topology="train", core="cp", rng=seed)
    fit = rd.fit_em(start, x, max_epochs=300, restarts=3, rng=seed)
    assert fit.history["train"][-1] > truth.log_prob(x).mean() - 0.005, (seed, fit.history["train"][-1])
    assert isinstance(fit.ring.cores[2], rd.CPCore)
    fresh = truth.sample(4000, rng=seed + 100)
    known = np.isfinite(fit.ring.log_prob(fresh))  # what was never seen is impossible
    assert known.mean() > 0.998
    assert fit.ring.log_prob(fresh[known]).mean() > truth.log_prob(fresh[known]).mean() - 0.03


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_a_planted_mixture_is_recovered(topology):
    rng = np.random.default_rng(0)
    weights, tables = np.array([0.5, 0.3, 0.2]), rng.dirichlet([0.3] * 4, (8, 3))  # (d, K, N)
    cluster = rng.choice(3, 3000, p=weights)
    x = np.stack([[rng.choice(4, p=table[c]) for c in cluster] for table in tables], axis=1).astype(float)
    with np.errstate(divide="ignore"):
        joint = np.log(weights) + sum(np.log(t)[:, x[:, k].astype(int)].T for k, t in enumerate(tables))
    truth = np.log(np.exp(joint).sum(1)).mean()
    start = rd.initialize(x, [rd.Categorical(4)] * 8, 3, topology=topology, core="cp", method="mixture", rng=0)
    assert all(isinstance(core, rd.CPCore) for core in start.cores)
    assert start.log_prob(x).mean() > truth - 0.5
    fit = rd.fit_em(start, x, max_epochs=60)
    assert fit.history["train"][-1] > truth - 0.002, (fit.history["train"][-1], truth)
    exact = rd.initialize(x, [rd.Categorical(4)] * 8, 3, core="cp", method="mixture", spread=0.0, rng=0)
    assert exact.log_prob(x).mean() > truth - 0.02


@pytest.mark.parametrize("method", ["quantile", "kmeans", "mixture"])
def test_starts_of_mixed_columns(fitted_backend, method):
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 2, 300)
    x = np.stack([rng.normal(4.0 * cluster), cluster, rng.poisson(3 + 4 * cluster)], axis=1).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    families = [rd.GaussianMixture, rd.Categorical, rd.PoissonMixture]
    start = rd.initialize(
        x, families, 2, num_components=3, core="cp", method=method, rng=0, xp=fitted_backend.xp, topology="train"
    )
    fit = rd.fit_em(start, x, max_epochs=8)
    history = fit.history["train"]
    assert (np.diff(history) > -1e-9).all() and np.isfinite(history).all(), history
    assert fit.ring.is_train and all(isinstance(core, rd.CPCore) for core in fit.ring.cores)


def test_errors_of_starts():
    x = np.random.default_rng(0).integers(0, 3, (20, 4)).astype(float)
    with pytest.raises(ValueError, match="inner must be None"):
        rd.initialize(x, [None] * 4, 2, core="cp", method="mixture", inner=3, rng=0)
    with pytest.raises(ValueError, match="core"):
        rd.initialize(x, [None] * 4, 2, core="tree", rng=0)


@pytest.mark.parametrize("name", ["full", "mixed", "train"])
def test_mini_batches_come_near_the_full_batch(fitted_backend, name):
    structured = TABLES[name]
    rng = np.random.default_rng(0)
    x = structured.ring(load_backend("numpy")).sample(600, rng=1)
    x[rng.random(x.shape) < 0.1] = np.nan
    start = rd.TensorRing.random(
        [rd.Categorical(n) for n in structured.case.shape], 2, core="cp", rng=1, xp=fitted_backend.xp, dtype="float64"
    )
    exact = rd.fit_em(start, x, max_epochs=40).history["train"]
    epochs = 40 if fitted_backend.name != "jax" else 5
    damped = rd.fit_em(start, x, max_epochs=epochs, batch_size=100, rng=0, patience=None).history["train"]
    assert damped[-1] > exact[0] and damped[-1] > exact[min(epochs, len(exact)) - 1] - 0.05, (exact[-1], damped[-1])


def test_weights_count_rows(fitted_backend):
    structured = TABLES["full"]
    x, ring = structured.case.possible_rows(10), structured.ring(fitted_backend)
    count = np.random.default_rng(2).integers(0, 3, len(x))
    one = rd.fit_em(ring, x, sample_weight=count.astype(float), max_epochs=3)
    other = rd.fit_em(ring, np.repeat(x, count, axis=0), max_epochs=3)
    assert_close(*(fitted_backend.numpy(fit.ring.to_dense()) for fit in (one, other)), structured)


def test_a_fit_of_cp_cores_by_gradients(backend):
    structured = TABLES["full"]
    x = structured.ring(load_backend("numpy")).sample(300, rng=0)
    variables = [rd.Categorical(n) for n in structured.case.shape]
    ring = rd.TensorRing.random(variables, 3, core="cp", rng=0, xp=backend.xp, dtype="float64")
    if backend.name == "jax":
        optax = pytest.importorskip("optax")
        optimizer = optax.adam(0.05)
    else:
        optimizer = lambda p: backend.xp.optim.Adam(p, lr=0.05)  # noqa: E731
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
