"""Pathwise samples: their derivatives against differences of quantiles, expectations against quadrature."""

import math

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import MIXED, Case, make_case
from tests.ringdist.test_gradients import parameters, rebuilt, ring_of

pytestmark = pytest.mark.slow_on("jax")

nan = math.nan
ONE = make_case(["gaussian"], [3], [2], [0], seed=31)
TWO = make_case(["gaussian", "laplace"], [3, 2], [3, 2], [1, 0], seed=32)
TRAIN = make_case(["gaussian", "gaussian"], [2, 3], [1, 2], [1, 0], seed=33)
LABELLED = make_case(
    ["gaussian", "categorical", "gaussian", "poisson"], [3, 2, 2, 2], [3, 2, 2, 3], [3, 0, 1, 2], seed=34
)


@pytest.fixture(params=["torch", "jax", "torch-cuda"], scope="module")
def backend(request):
    return load_backend(request.param)


def moved_case(case: Case, values: list) -> Case:
    cores, families = rebuilt(case, values)
    columns = [oracle.Column(c.kind, c.num_components, p) for c, p in zip(case.columns, families, strict=True)]
    return Case(cores, tuple(columns), case.order)


def numpy_ring(case: Case) -> rd.TensorRing:
    return load_backend("numpy").ring(case)


def transported(case: Case, other: Case, x: np.ndarray, given: np.ndarray, others_given: np.ndarray) -> np.ndarray:
    """The samples of another case that have the uniform numbers of the samples x of this one."""
    ring, changed = numpy_ring(case), numpy_ring(other)
    known, result = given.copy(), others_given.copy()
    for k in ring.sequence:
        drawn = np.isnan(given[:, k]) & ~np.isnan(x[:, k])
        point = known.copy()
        point[:, k] = np.where(drawn, x[:, k], 0.0)
        u = ring.cdf(k, point)
        result[drawn, k] = changed.quantile(k, u, result)[drawn]
        known[drawn, k] = x[drawn, k]
    return result


def expected_gradients(case: Case, x: np.ndarray, given: np.ndarray, direction: np.ndarray, step: float = 1e-4):
    """d (direction · samples) / d every parameter and the evidence, by differences; NaN where there is none."""

    def total(values: list) -> float:
        return float(np.nansum(transported(case, moved_case(case, values[:-1]), x, given, values[-1]) * direction))

    variables = [*parameters(case), given]
    gradients = [np.full_like(v, nan) for v in variables]
    for i, value in enumerate(variables):
        for index in np.ndindex(value.shape):
            if np.isnan(value[index]) or (value is given and case.columns[index[1]].kind in oracle.DISCRETE):
                continue
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in variables]
                moved[i][index] += sign * step
                ends.append(total(moved))
            gradients[i][index] = (ends[0] - ends[1]) / (2 * step)
    return gradients


def assert_gradients(found: list, expected: list, case: Case) -> None:
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(np.where(np.isnan(wanted), nan, actual), wanted, case, rtol=1e-4, atol=1e-6)


def found_gradients(backend, case: Case, x: np.ndarray, given: np.ndarray, direction: np.ndarray):
    weight = backend.array(direction)

    def total(values):
        samples = ring_of(backend, case, values[:-1]).pathwise(backend.array(x), values[-1])
        return (backend.xp.where(backend.xp.isnan(samples), 0.0, samples) * weight).sum()

    values = [backend.array(v) for v in [*parameters(case), given]]
    if backend.name == "jax":
        import jax

        return [np.asarray(g) for g in jax.grad(total)(values)]
    values = [v.requires_grad_() for v in values]
    total(values).backward()
    return [v.grad.cpu().numpy() for v in values]


def open_rows(case: Case, n: int = 1) -> np.ndarray:
    return np.full((n, case.d), nan)


@pytest.mark.parametrize(
    "case, given",
    [
        (ONE, [[nan]] * 3),
        (TWO, [[nan, nan]] * 3),
        (TWO, [[0.4, nan], [nan, 1.5], [nan, nan], [0.1, -0.2]]),
        (TRAIN, [[nan, nan], [0.7, nan], [nan, -0.3]]),
        pytest.param(
            *(LABELLED, [[nan, 1, nan, nan], [nan, nan, nan, 2], [0.5, 0, nan, nan], [nan, nan, -1.0, nan]]),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["one", "two", "given", "train", "labelled"],
)
def test_samples_move_as_quantiles_do(backend, case, given):
    """With its uniform numbers fixed a sample is a function of the parameters: z = F⁻¹(u | what is before it)."""
    given = np.array(given)
    x = numpy_ring(case).sample_given(given, rng=0)
    whole = [c.kind in oracle.DISCRETE for c in case.columns]
    x[np.isnan(given) & whole] = nan
    direction = np.random.default_rng(1).normal(size=x.shape)
    found = found_gradients(backend, case, x, given, direction)
    assert_gradients(found, expected_gradients(case, x, given, direction), case)


def test_values_are_those_of_the_samples(backend):
    for case in (TWO, TRAIN):
        ring = backend.ring(case)
        x = ring.sample(20, rng=0)
        assert_close(backend.numpy(ring.pathwise(x)), backend.numpy(x), case, rtol=0, atol=0)
        assert ring.pathwise(x[:0]).shape == (0, 2)
    x = backend.numpy(x).reshape(4, 5, 2)
    assert_close(backend.numpy(ring.pathwise(backend.array(x))), x, case, rtol=0, atol=0)


def test_marginalised_entries_are_those_of_the_marginal_ring(backend):
    """NaN in a continuous column takes it out, as everywhere."""
    x = np.stack([oracle.make_case(["gaussian"], [2], [1], [0], seed=5).rows(6, 0.0)[:, 0], np.full(6, nan)], axis=1)
    found = found_gradients(backend, TWO, x, open_rows(TWO, 6), np.ones_like(x))
    expected = expected_gradients(TWO, x, open_rows(TWO, 6), np.ones_like(x))
    assert_gradients(found, expected, TWO)


def quadrature(case: Case, f, given: np.ndarray, drawn: list[int]) -> float:
    """E[f(drawn columns) | given] on a grid, for rows of the case with the other columns as in `given`."""
    axis = np.arange(-9, 9, 0.2)
    grid = np.stack(np.meshgrid(*[axis] * len(drawn), indexing="ij"), -1).reshape(-1, len(drawn))
    rows = np.broadcast_to(given, (len(grid), case.d)).copy()
    rows[:, drawn] = grid
    density = np.exp(oracle.log_prob(case, rows))
    return float((density * f(grid.T)).sum() / density.sum())


@pytest.mark.parametrize(
    "case, given, drawn",
    [(TRAIN, [nan, nan], [0, 1]), (LABELLED, [nan, 1.0, nan, nan], [0, 2])],
    ids=["train", "labelled"],
)
def test_gradients_of_expectations_are_unbiased(case, given, drawn):
    """Within 5 standard errors of the gradient by quadrature, for every parameter."""
    backend = load_backend("torch")
    torch, step, batches, n = backend.xp, 1e-4, 16, 4000
    given = np.array(given)
    values = [backend.array(v).requires_grad_() for v in parameters(case)]
    rows = backend.array(np.broadcast_to(given, (n, case.d)))
    free = torch.tensor([k in drawn for k in range(case.d)])
    estimates = []
    for seed in range(batches):
        ring = ring_of(backend, case, values)
        x = torch.where(free, ring.sample_given(rows, rng=seed), rows)
        a, b = ring.pathwise(x, rows)[:, drawn].unbind(1)
        estimates.append(torch.autograd.grad(((a + 2 * b).sin() + a * b).mean(), values))

    def f(z):
        return np.sin(z[0] + 2 * z[1]) + z[0] * z[1]

    for i, found in enumerate(zip(*estimates, strict=True)):
        found = torch.stack(found).numpy()
        mean, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(batches)
        for index in np.ndindex(mean.shape):
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in parameters(case)]
                moved[i][index] += sign * step
                ends.append(quadrature(moved_case(case, moved), f, given, drawn))
            expected = (ends[0] - ends[1]) / (2 * step)
            assert abs(mean[index] - expected) <= 5 * error[index] + 1e-4, (case, i, index, mean[index], expected)


def test_evidence_beyond_the_range_of_the_dtype_has_finite_gradients():
    """The density of an observed value may vanish: it divides nothing."""
    backend = load_backend("torch")
    values = [backend.array(v, "float32").requires_grad_() for v in parameters(TRAIN)]
    given = backend.array([[300.0, nan]], "float32")
    ring = ring_of(backend, TRAIN, values)
    ring.pathwise(ring.sample_given(given, rng=0), given).sum().backward()
    assert all(bool(v.grad.isfinite().all()) for v in values)


@pytest.mark.parametrize("validate", [True, False])
def test_a_path_that_float32_loses_on_the_way(validate):
    """Two decoupled paths: the evidence is far more likely on one, but in the end only the other is possible."""
    backend, d, drawn = load_backend("torch"), 90, 80
    columns = [oracle.Column("gaussian", 2, {"means": np.array([0.0, 2.0]), "stds": np.ones(2)})] * d
    cores = [np.stack([np.diag([1.0, 0.1]), np.diag([0.1, 1.0])]) for _ in range(d)]
    cores[0], cores[-1] = cores[0].sum(1, keepdims=True), np.stack([np.array([[1.0], [0.0]])] * 2)
    case = Case(tuple(cores), tuple(columns), tuple(range(d)))
    given = np.full((3, d), 2.0)
    given[1] = 0.5  # an ordinary row between two others
    given[:, drawn] = nan
    x = np.where(np.isnan(given), np.array([[0.3], [0.1], [-0.4]]), given)
    results = []
    for dtype in ("float64", "float32"):
        values = [backend.array(v, dtype).requires_grad_() for v in parameters(case)]
        ring = ring_of(backend, case, values)
        ring = rd.TensorRing(ring.cores, ring.variables, validate=validate)
        rows, evidence = backend.array(x, dtype), backend.array(given, dtype)
        assert np.isfinite(backend.numpy(ring.log_prob(evidence))).all()
        samples = ring.pathwise(rows, evidence)
        np.testing.assert_array_equal(backend.numpy(samples), backend.numpy(rows))
        samples[:, drawn].sum().backward()
        # Not of the zero entries: to join the paths is worth more than float32 can hold.
        results.append([v.grad.where((v > 0) | (v.ndim < 3), 0.0).numpy() for v in values])
    for wide, narrow in zip(*results, strict=True):
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-5)


def test_a_density_that_float32_cannot_hold():
    """16 deviations below all means: the gradient is a quotient of two numbers near exp(−128)."""
    backend, results = load_backend("torch"), []
    x = numpy_ring(TRAIN).sample(3, rng=0)
    means, stds = (TRAIN.columns[0].parameters[name] for name in ("means", "stds"))
    x[1, 0] = (means - 16 * stds).min()
    for dtype in ("float64", "float32"):
        values = [backend.array(v, dtype).requires_grad_() for v in parameters(TRAIN)]
        ring_of(backend, TRAIN, values).pathwise(backend.array(x, dtype)).sum().backward()
        results.append([v.grad.numpy() for v in values])
    for wide, narrow in zip(*results, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-3, atol=1e-3)


def test_long_rings_in_float32():
    backend = load_backend("torch")
    case = make_case(["gaussian"] * 300, [3] * 300, [2] * 300, range(300), seed=35)
    values = [backend.array(v, "float32").requires_grad_() for v in parameters(case)]
    ring = ring_of(backend, case, values)
    ring.pathwise(ring.sample(4, rng=0)).sum().backward()
    assert all(bool(v.grad.isfinite().all()) for v in values)


@pytest.mark.slow
def test_jit():
    backend = load_backend("jax")
    import jax

    ring = backend.ring(TWO)
    x = ring.sample(3, rng=0)
    assert_close(np.asarray(jax.jit(lambda r, z: r.pathwise(z))(ring, x)), np.asarray(x), TWO)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_numpy_has_no_gradients():
    ring = load_backend("numpy").ring(TWO)
    with pytest.raises(TypeError, match="whose backend has gradients, PyTorch or JAX, found NumPy"):
        ring.pathwise(ring.sample(3, rng=0))


@pytest.mark.parametrize(
    "x, given, message",
    [
        ([[0.0, 0.0]], None, r"x must have shape \(\.\.\., 4\), one entry per column, found \(1, 2\)"),
        ([[nan, 0, nan, nan]], [[0.0, nan]], r"given must have the shape of x, \(1, 4\), found \(1, 2\)"),
        ([[7, nan, nan, nan]], [[7, nan, nan, nan]], r"column 0 \('label'\): category 7 is outside 0\.\.2"),
        ([[nan, math.inf, nan, 0]], None, r"column 1 \('height'\): values must be finite, found inf"),
        (
            [[nan, 0.5, nan, 0.0]] * 2,
            [[nan] * 4, [nan, 0.25, nan, nan]],
            r"column 1 \('height'\): x must repeat the evidence, found 0\.5 instead of 0\.25 in row 1",
        ),
        (
            [[nan] * 4, [2, 0.5, nan, 0.0]],
            None,
            r"column 0 \('label'\): integers cannot move; they must be evidence, or NaN .* found 2 drawn in row 1",
        ),
        (
            [[nan, 0.0, nan, 0.0], [nan, 9e9, nan, 0.0]],
            None,
            "positive density given the evidence, found none in row 1",
        ),
    ],
)
def test_samples_that_do_not_fit(backend, x, given, message):
    given = None if given is None else backend.array(given)
    with pytest.raises(ValueError, match=message):
        backend.ring(MIXED).pathwise(backend.array(x), given)


@pytest.mark.fast_on("jax")
def test_arrays_of_another_backend(backend):
    with pytest.raises(TypeError, match="all arrays must come from one backend"):
        backend.ring(TWO).pathwise(np.zeros((1, 2)))
