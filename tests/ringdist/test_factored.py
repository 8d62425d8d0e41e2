"""The sweep through CP cores in PyTorch beside the recorded one, and how cores are brought near 1 together."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from ringdist.cores import LOG
from ringdist.cores.switch import Switch
from ringdist.engines.range import NEAR_ONE, in_range
from ringdist.network.structure import mapped
from ringdist.queries import log_prob as likelihood
from tests.backends import assert_close
from tests.structured import FULL, PATTERNS, make_structured

torch = pytest.importorskip("torch")
factored = pytest.importorskip("ringdist.engines.factored")  # imports PyTorch


def ring_of(structured, exponent=0.0, **requires):
    """A ring of the factors times a power of two, its parameters, and rows with missing entries."""
    options = {"dtype": torch.float64}
    factors = [
        {
            name: torch.tensor(a * 2.0**exponent, **options).requires_grad_(requires.get(name, True))
            for name, a in f.items()
        }
        for _, f in structured.parts
    ]
    columns = [column.parameters for column in structured.case.columns]
    parameters = [
        {name: torch.tensor(p, **options).requires_grad_(requires.get("variables", True)) for name, p in c.items()}
        for c in columns
    ]
    variables = [rd.GaussianMixture(**p) for p in parameters]
    ring = rd.TensorRing([rd.CPCore(**f) for f in factors], variables, structured.case.order, validate=False)
    x = structured.case.rows(7)
    x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    x = torch.tensor(x, **options).requires_grad_(requires.get("x", True))
    inputs = [a for group in (*factors, *parameters) for a in group.values()] + [x]
    return ring, [a for a in inputs if a.requires_grad], x


def slopes(ring, inputs, x):
    """Value, gradients without and with a graph, and gradients of those."""
    value = ring.log_prob(x, engine="sweep")
    plain = torch.autograd.grad(value.square().sum(), inputs)
    first = torch.autograd.grad(ring.log_prob(x, engine="sweep").square().sum(), inputs, create_graph=True)
    size = [slope.detach().abs().max() for slope in plain]  # sines of large numbers would be noise
    second = torch.autograd.grad(sum((slope / s).sin().sum() for slope, s in zip(first, size, strict=True)), inputs)
    return [value, *plain, *first, *second]


def compared(monkeypatch, ring, inputs, x):
    found, ran = [], []
    sweep = factored.factored_sweep
    monkeypatch.setattr(factored, "factored_sweep", lambda linear: ran.append(1) or sweep(linear))
    for path in (True, False):
        if not path:
            monkeypatch.setattr(factored, "is_factored", lambda linear: False)
        found.append(slopes(ring, inputs, x))
    assert len(ran) >= 2
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("exponent", [0, 40, -90], ids=["ordinary", "large", "small"])
@pytest.mark.parametrize("train", [False, True], ids=["ring", "train"])
@pytest.mark.parametrize("d", [1, 3, 19])
def test_gradients_are_those_of_the_recorded_sweep(d, train, exponent, monkeypatch):
    """Of all factors, variables and rows, of first and second order; zeros in the factors, interleaved columns."""
    patterns = [(FULL, ("emission", "right"), ("left", "emission"))[k % 3] for k in range(d)]
    order = np.random.default_rng(d).permutation(d)
    structured = make_structured(patterns, ["gaussian"] * d, order, train=train, sparsity=0.2, seed=d)
    compared(monkeypatch, *ring_of(structured, exponent))


@pytest.mark.parametrize("pattern", PATTERNS, ids="+".join)
def test_gradients_of_every_form_of_a_core(pattern, monkeypatch):
    compared(monkeypatch, *ring_of(make_structured([pattern] * 9, ["gaussian"] * 9, seed=3)))


@pytest.mark.parametrize("only", ["left", "emission", "right", "variables", "x"])
def test_gradients_of_some_operands_alone(only, monkeypatch):
    structured = make_structured([FULL] * 5, ["gaussian"] * 5, seed=4)
    names = ("left", "emission", "right", "variables", "x")
    compared(monkeypatch, *ring_of(structured, **{name: name == only for name in names}))


@pytest.mark.parametrize("train", [False, True], ids=["ring", "train"])
def test_a_backward_pass_keeps_the_states_alone(train):
    """Beside the arrays that come from outside, no more than one state a column, and less than four in all."""
    d, rank, rows = 20, 12, 50
    start = rd.TensorRing.random(
        [rd.Categorical(5)] * d, rank, topology="train" if train else "ring", core="cp", rng=0, xp=torch
    )
    cores = [
        rd.CPCore(**{name: a.clone().requires_grad_() for name, a in core.arrays().items()}) for core in start.cores
    ]
    ring = rd.TensorRing(cores, start.variables, validate=False)
    stored = {}

    def keep(t):
        stored.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes() // t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        value = ring.log_prob(start.sample(rows, rng=1))
    states = (rows + 1) * min(ring.ranks) * sum(core.inner for core in cores)
    assert value.requires_grad and sum(stored.values()) < 1.1 * states + 3 * ring.num_parameters + 4 * d * rows * 5


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, of dual numbers
def test_derivatives_forward_are_those_backward():
    structured = make_structured([FULL] * 4, ["gaussian"] * 4, train=True, seed=5)
    ring, _, x = ring_of(structured)
    direction = torch.ones_like(x)
    with torch.autograd.forward_ad.dual_level():
        dual = ring.log_prob(torch.autograd.forward_ad.make_dual(x.detach().nan_to_num(), direction))
        found = torch.autograd.forward_ad.unpack_dual(dual).tangent
    point = x.detach().nan_to_num().requires_grad_()
    (slope,) = torch.autograd.grad(ring.log_prob(point).sum(), point)
    torch.testing.assert_close(found, slope.sum(dim=1))


@pytest.mark.parametrize("topology", ["train", "ring"])
def test_rows_at_once_are_as_many_as_their_states_allow(topology):
    """CP cores never form the matrices of the rows, whose numbers used to cut a batch into parts of some rows."""
    rank = {"train": 400, "ring": 60}[topology]
    ring = rd.TensorRing.random([rd.Categorical(3)] * 3, rank, topology=topology, core="cp", rng=0)
    dense = rd.TensorRing.random([rd.Categorical(3)] * 3, [1, 400, 400], topology="train", rng=0)
    rows = likelihood._rows_per_chunk(ring, "auto")
    assert rows > {"train": 5000, "ring": 700}[topology]
    assert likelihood._rows_per_chunk(dense, "auto") < 100
    assert likelihood._rows_per_chunk(ring, "tree") < 10**4


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(6))
def test_cores_of_any_scale_are_brought_near_one(backend, dtype, seed):
    """Sizes are found and emissions divided together: every core is itself times a power of two, with sums near 1."""
    rng = np.random.default_rng(seed)
    d = 12
    patterns = [(FULL, ("emission", "right"), ("right",), ("emission",))[k % 4] for k in range(d)]
    structured = make_structured(patterns, ["categorical"] * d, sparsity=0.2, seed=seed)
    spread = 4 if seed % 2 else 11
    scales = [{name: 2.0 ** int(rng.integers(-3 * spread, 3 * spread)) for name in f} for _, f in structured.parts]
    arrays = [
        {name: backend.array(scale[name] * array, dtype) for name, array in f.items()}
        for scale, (_, f) in zip(scales, structured.parts, strict=True)
    ]
    ring = structured.ring(backend, dtype, arrays)
    cores, log_scale = in_range(ring)
    total = 0.0
    for core, own, scale in zip(cores, structured.case.cores, scales, strict=True):
        q = backend.numpy(core.dense()).astype(float)
        exact = own * np.prod(list(scale.values()))
        exponent = np.log2(exact.max() / q.max())
        assert_close(exponent, np.round(exponent), structured, rtol=0, atol=1e-5)
        assert_close(q * 2.0 ** np.round(exponent), exact, structured, rtol=1e-5, atol=0)
        low, high = NEAR_ONE
        assert low <= q.sum(axis=(0, 2)).max() <= high
        total += np.round(exponent)
    assert_close(log_scale, total * np.log(2), structured)


@pytest.mark.parametrize("train", [False, True], ids=["ring", "train"])
@pytest.mark.parametrize("emission", [False, True], ids=["private", "shared"])
def test_switches_are_swept_without_their_matrix(train, emission, monkeypatch):
    """Values, first and second derivatives are those of cores that hold the matrix; missing entries included."""
    rng, c, d = torch.Generator().manual_seed(0), 4, 5
    parts = [torch.rand(3, c, generator=rng, dtype=torch.float64).requires_grad_() for _ in range(d)]
    tables = [
        torch.rand(3, c, generator=rng, dtype=torch.float64).requires_grad_() for _ in range(d if emission else 0)
    ]
    ends = [torch.rand(1, c, generator=rng, dtype=torch.float64).requires_grad_() for _ in range(2 if train else 0)]
    parameters = [*parts, *tables, *ends]
    x = torch.randint(3 if emission else c, (6, d), generator=rng).double()
    x[0, 1] = x[3, :4] = torch.nan
    found, ran, switched = [], [], factored._switched
    monkeypatch.setattr(factored, "_switched", lambda *args: ran.append(1) or switched(*args))
    for switches in (True, False):
        cores = []
        for k in range(d):
            factors = {"emission": tables[k]} if emission else {}
            factors |= {"left": ends[0]} if train and k == 0 else {}
            last = train and k == d - 1
            core = rd.CPCore(right=ends[1].T, **factors) if last else rd.CPCore.switching(*parts[k], **factors)
            cores.append(core if switches else rd.CPCore(**core.arrays()))
            assert (core.switch is None) == last and (switches or cores[-1].switch is None)
        ring = rd.TensorRing(cores, [rd.Categorical(3 if emission else c)] * d, validate=False, copy=False)
        used = parameters[: d - 1] + parameters[d:] if train else parameters
        ran.clear()
        value = ring.log_prob(x, engine="sweep")
        assert len(ran) % (d - train) == 0 and bool(ran) == switches
        first = torch.autograd.grad(value.square().sum(), used, create_graph=True)
        found.append([value, *first, *torch.autograd.grad(sum(slope.square().sum() for slope in first), used)])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


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
    parts = [jax.numpy.asarray(part) for part in np.random.default_rng(0).random((3, 3))]
    for core in (rd.CPCore(right=jax.numpy.ones((3, 3))), rd.CPCore.switching(*parts)):
        ring = rd.TensorRing([core] * 2, [rd.Categorical(3)] * 2)
        x = jax.numpy.zeros((1, 2))
        value = jax.jit(lambda ring, x: ring.log_prob(x).sum())(ring, x)
        np.testing.assert_allclose(value, ring.log_prob(x).sum(), rtol=1e-5)
        slopes = jax.grad(lambda ring, x: ring.log_prob(x).sum())(ring, x)
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(slopes))
