"""The sweep through CP cores in PyTorch beside the recorded one, and how cores are brought near 1 together."""

import subprocess
import sys

import numpy as np
import pytest

import ringdist as rd
from ringdist.engines.range import NEAR_ONE, in_range
from ringdist.queries import log_prob as likelihood
from tests.backends import assert_close
from tests.structured import FULL, PATTERNS, make_structured

torch = pytest.importorskip("torch")
factored = pytest.importorskip("ringdist.engines.factored")  # imports PyTorch
gaussian_weighing = pytest.importorskip("ringdist.variables.gaussian_weighing")


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
def test_switches_are_swept_without_their_matrix(train, emission):
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
    found = []
    for switches in (True, False):
        cores = []
        for k in range(d):
            factors = {"emission": tables[k]} if emission else {}
            factors |= {"left": ends[0]} if train and k == 0 else {}
            last = train and k == d - 1
            core = rd.CPCore(right=ends[1].T, **factors) if last else rd.CPCore.switching(*parts[k], **factors)
            cores.append(core if switches else rd.CPCore(**core.arrays()))
            assert (core.switch is None) == last and (switches or cores[-1].switch is None)
            assert ("right" in core.__dict__) == (last or not switches)
        ring = rd.TensorRing(cores, [rd.Categorical(3 if emission else c)] * d, validate=False, copy=False)
        used = parameters[: d - 1] + parameters[d:] if train else parameters
        value = ring.log_prob(x, engine="sweep")
        first = torch.autograd.grad(value.square().sum(), used, create_graph=True)
        found.append([value, *first, *torch.autograd.grad(sum(slope.square().sum() for slope in first), used)])
        assert sum("right" in core.__dict__ for core in ring.links) == (int(train) if switches else d)
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


def gaussian_parts(d=7, c=5, rows=6, dtype=torch.float64):
    """Parameters of a train of switching cores with private Gaussian components, and rows with missing entries."""
    options = {"generator": torch.Generator().manual_seed(0), "dtype": dtype}
    means, stds = 3 * torch.randn(d, c, **options), 0.5 + torch.rand(d, c, **options)
    x = 3 * torch.randn(rows, d, **options)
    x[0, 1] = x[2, :3] = x[-1] = torch.nan
    return [part.requires_grad_() for part in (means, stds, torch.rand(d - 1, 3, c, **options), x)]


def gaussian_ring(means, stds, switches):
    d, c = means.shape
    end = torch.ones(c, 1, dtype=means.dtype)
    cores = [rd.CPCore.switching(*own, left=None if k else end.T) for k, own in enumerate(switches)]
    order = np.random.default_rng(0).permutation(d)
    placed = [[*cores, rd.CPCore(right=end)][j] for j in np.argsort(order)]
    return rd.TensorRing(placed, list(map(rd.GaussianMixture, means, stds)), order, validate=False)


@pytest.mark.parametrize("step", [1, 2, 3, 10], ids="{} at once".format)
def test_weights_of_some_sites_at_once(step, monkeypatch):
    """However many sites fit the cache, values and gradients of both orders are those of the recorded sweep."""
    *parts, x = gaussian_parts()
    monkeypatch.setattr(gaussian_weighing, "PART", step * (len(x) + 1) * 5)  # one row more for the normaliser
    made, weighing, found = [], gaussian_weighing.Weighing, []
    monkeypatch.setattr(factored, "Weighing", lambda *args: made.append(weighing(*args)) or made[-1])
    for own in (True, False):
        if not own:
            monkeypatch.setattr(factored, "is_factored", lambda linear: False)
        plain = torch.autograd.grad(gaussian_ring(*parts).log_prob(x).square().sum(), [*parts, x])
        value = gaussian_ring(*parts).log_prob(x)
        first = torch.autograd.grad(value.square().sum(), [*parts, x], create_graph=True)
        second = torch.autograd.grad(sum(slope.square().sum() for slope in first), [*parts, x])
        found.append([value, *plain, *first, *second])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    assert made and all(each.step == min(step, 7) for each in made)


@pytest.mark.parametrize("odd", [1e30, torch.inf, -3e38], ids=str)
def test_values_out_of_reach_are_weighed_before_the_sweep(odd):
    """A z-score that overflows has a density of 0, or makes the row impossible, as in NumPy; other rows stay right."""
    *parts, x = gaussian_parts(dtype=torch.float32)
    ring, x = gaussian_ring(*parts), x.detach().clone()
    x[1, 2] = odd
    found, expected = ring.log_prob(x), ring.detach().to(xp=np).log_prob(x.numpy())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)
    assert found.detach().isfinite().sum() >= len(x) - 1


def test_batches_of_gradients():
    """`is_grads_batched` gives for each of several directions what a pass with it alone gives."""
    *parts, x = gaussian_parts()
    value = gaussian_ring(*parts).log_prob(x)
    directions = torch.randn(3, *value.shape, dtype=value.dtype)
    batched = torch.autograd.grad(value, parts, directions, is_grads_batched=True, retain_graph=True)
    for i, direction in enumerate(directions):
        alone = torch.autograd.grad(value, parts, direction, retain_graph=True)
        for mine, expected in zip(batched, alone, strict=True):
            torch.testing.assert_close(mine[i], expected)


def test_a_matrix_asked_for_without_gradients_does_not_cut_them_off():
    """The right factor of a switch is kept once it is computed, unless it lacks the history of its parts."""
    parts = torch.rand(3, 4).requires_grad_()
    core = rd.CPCore.switching(*parts)
    with torch.no_grad():
        assert not core.right.requires_grad
    with torch.inference_mode():
        core.arrays()
    core.right.sum().backward()
    assert (parts.grad > 0).all() and core.right is core.right
    assert not rd.CPCore.switching(*parts.detach().numpy()).right.flags.writeable


@pytest.mark.parametrize("family", ["poisson", "gaussian"])
@pytest.mark.parametrize("form", ["left", "switching"])
def test_gradients_of_weights_that_are_given(form, family):
    """Private components of other families, and Gaussian ones of which a value is out of reach: none is overwritten."""
    rng = torch.Generator().manual_seed(0)
    d, c, options = 5, 3, {"generator": rng, "dtype": torch.float64}
    parameters = [(0.5 + 3 * torch.rand(c, **options)).requires_grad_() for _ in range(d)]
    x = torch.randint(5, (6, d), generator=rng).double()
    if family == "poisson":
        variables = [rd.PoissonMixture(rates) for rates in parameters]
    else:
        variables = [rd.GaussianMixture(means, torch.ones(c, dtype=torch.float64)) for means in parameters]
        x[-1, 2] = 1e155
    end = torch.ones(1, c, dtype=torch.float64)
    if form == "left":
        cores = [rd.CPCore(left=torch.rand(c, c, **options) if k else end) for k in range(d - 1)]
    else:
        cores = [rd.CPCore.switching(*torch.rand(3, c, **options), left=None if k else end) for k in range(d - 1)]
    ring = rd.TensorRing([*cores, rd.CPCore(right=end.T)], variables, validate=False)
    found = [torch.autograd.grad(ring.log_prob(x, engine=engine)[:-1].sum(), parameters) for engine in ("sweep", "log")]
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)


def test_infinite_deviations_give_no_gradient():
    """A component that is flat has the density 0 everywhere, in a column where all are flat as in the log engine."""
    means = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    flat = rd.GaussianMixture(means, torch.full((2,), torch.inf, dtype=torch.float64), validate=False)
    core = rd.CPCore(right=torch.ones(2, 2, dtype=torch.float64))
    ring = rd.TensorRing([core] * 2, [flat] * 2, validate=False)
    x = torch.zeros(3, 2, dtype=torch.float64)
    found = [torch.autograd.grad(ring.log_prob(x, engine=engine).sum(), means)[0] for engine in ("sweep", "log")]
    torch.testing.assert_close(*found)


def test_a_switch_outlasts_scales_and_products_without_gradients():
    parts = torch.rand(3, 4).requires_grad_()
    core, scale = rd.CPCore.switching(*parts, emission=torch.rand(2, 4)), torch.arange(1.0, 5.0)
    with torch.no_grad():
        scaled, moved = core.gauged(scale, None), core.absorbed(torch.rand(3, 4), None)
        assert scaled.switch is core.switch and moved.switch is core.switch
        torch.testing.assert_close(scaled.dense(), scale[:, None] * core.dense())
        torch.testing.assert_close(core.gauged(None, scale).dense(), core.dense() * scale)


FLUSHED = """
import torch, ringdist as rd
torch.set_num_threads(2)
c, rows = 10, 4000
cores = [rd.CPCore(left=torch.ones(1, c)), *[rd.CPCore.switching(*torch.rand(3, c)) for _ in range(2)]]
variables = [rd.GaussianMixture(torch.randn(c), torch.ones(c))] * 4
ring = rd.TensorRing([*cores, rd.CPCore(right=torch.ones(c, 1))], variables)
ring.log_prob(torch.zeros(rows, 4))
halves = torch.full((2**21,), 1.2e-38) * 0.5
print(int((halves == 0).sum()), 0.5 * 2.3e-308 > 0)
"""


def test_subnormal_numbers_are_flushed_nowhere_else():
    """Neither in this thread nor in those that PyTorch starts during a sweep."""
    run = subprocess.run([sys.executable, "-c", FLUSHED], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "True"]
