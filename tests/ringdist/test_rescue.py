"""Which rows are computed again in log space: those whose upper bound is further away than rounding of the value.

The rings here have a world that has the mass, and others that no path enters: most entries of their cores are zero. In
the second run, of the upper bound, the other worlds are entered by the threshold, and grow by a factor that each row
chooses in its last column. So the gap between value and bound takes every size from row to row.
"""

import numpy as np
import pytest

import ringdist as rd
from ringdist.engines import choice
from ringdist.engines.range import threshold
from ringdist.engines.rescue import lost_rows
from ringdist.engines.sweep import sweep
from ringdist.engines.tree import tree
from ringdist.network import Evidence
from tests.backends import assert_close, load_backend

pytestmark = pytest.mark.slow_on("jax")

BOUNDS = {"sweep": sweep, "tree": tree}
TOLERANCE = 16  # times the rounding error of the dtype, relative to the value
WORLDS, GROWTHS, PLAIN = 4, 40, 7  # values of a bond; categories that grow by powers of 2; columns between the others
LONG = np.longdouble


def cores_of(seed, topology, growth):
    """Cores (N, 4, 4) in ring order: world 0 is opened, the others grow by `growth` and then by 2^s in category s."""
    rng = np.random.default_rng(seed)

    def plain():
        return rng.uniform(0.3, 1, (2, WORLDS, 1)) * np.eye(WORLDS) * 10.0 ** -rng.uniform(5, 7)

    opened = plain()
    opened[:, 1:] = 0.0
    grown = rng.uniform(0.5, 1, (1, WORLDS, 1)) * np.eye(WORLDS) * growth**0.5
    grown[:, 0] /= growth
    chosen = rng.uniform(0.5, 1, (GROWTHS + 1, WORLDS, 1)) * np.eye(WORLDS)
    chosen[:GROWTHS, 1:] *= 2.0 ** np.arange(GROWTHS)[:, None, None]
    chosen[GROWTHS] *= np.array([2.0 ** (GROWTHS + 1), 0, 0, 0])[:, None]  # it has nearly all of Z
    cores = [opened, *(plain() for _ in range(PLAIN)), grown, *(plain() for _ in range(PLAIN)), chosen]
    if topology == "train":
        cores[0], cores[-1] = cores[0][:, :1], cores[-1].sum(axis=2, keepdims=True)
    return cores


def graded_ring(backend, dtype, topology, seed, leaf=lambda array: array):
    """The ring, its cores in the dtype, and rows (GROWTHS, d) of all growths; gaps begin near a rounding error."""

    def ring(growth):
        cores = [core.astype(dtype) for core in cores_of(seed, topology, growth)]
        variables = [rd.Categorical(len(core)) for core in cores]
        arrays = [backend.array(core, dtype) for core in cores]
        return rd.TensorRing(list(map(leaf, arrays)), variables), cores

    growth = float(np.finfo(dtype).eps) / threshold(ring(1.0)[0]) / 1e5
    made, cores = ring(growth)
    x = np.random.default_rng(seed).integers(0, 2, (GROWTHS, len(cores))).astype(float)
    x[:, PLAIN + 1] = 0
    x[:, -1] = np.arange(GROWTHS)
    return made, cores, x


def exact(cores, x):
    """The log-mass of a row and its gradients with respect to the cores, in extended precision."""
    weights = [
        np.ones(len(core)) if np.isnan(s) else np.arange(len(core)) == s for core, s in zip(cores, x, strict=True)
    ]
    matrices = [np.einsum("s,sab->ab", w, core.astype(LONG)) for w, core in zip(weights, cores, strict=True)]
    prefixes, suffixes = ([np.eye(len(matrices[0]), dtype=LONG)] for _ in range(2))
    for matrix in matrices:
        prefixes.append(prefixes[-1] @ matrix)
    for matrix in matrices[::-1]:
        suffixes.append(matrix @ suffixes[-1])
    total = np.trace(prefixes[-1])
    around = [(suffix @ prefix).T / total for prefix, suffix in zip(prefixes, suffixes[-2::-1], strict=False)]
    return float(np.log(total)), [w[:, None, None] * g for w, g in zip(weights, around, strict=True)]


def gaps(ring, backend, x, dtype, engine):
    """Between bound and value in units of the dtype's rounding error, (n,), and the values."""
    evidence = Evidence.of_rows(ring, backend.array(x, dtype))
    value, bound = (backend.numpy(BOUNDS[engine](ring, evidence, floored)[0]) for floored in (False, True))
    return np.abs(bound - value) / float(np.finfo(dtype).eps), value


@pytest.fixture(params=["train", "ring"])
def topology(request):
    return request.param


@pytest.fixture(params=["sweep", "tree"])
def engine(request):
    return request.param


@pytest.fixture
def recomputed(monkeypatch):
    """The categories of the last column of the rows that the log engine has been asked for."""
    found = []

    def spy(ring, evidence):
        found.append(evidence.weights(ring.num_variables - 1))
        return log_sweep(ring, evidence)

    log_sweep = choice.log_sweep
    monkeypatch.setattr(choice, "log_sweep", spy)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_rows_beyond_the_tolerance_are_computed_again_and_no_others(backend, dtype, topology, engine, seed, recomputed):
    ring, cores, x = graded_ring(backend, dtype, topology, seed)
    gap, value = gaps(ring, backend, x, dtype, engine)
    size = np.abs(value)
    assert size.min() > 100
    for low, high in ((0, 1), (1, size.min()), (size.max(), 100 * size.min()), (100 * size.max(), np.inf)):
        assert ((gap >= TOLERANCE * low) & (gap < TOLERANCE * high)).sum() >= 3, "no rows of every size of gap"
    actual = ring.log_prob(backend.array(x, dtype), engine=engine)
    again = {int(s) for weights in recomputed for s in backend.numpy(weights).argmax(axis=1)}
    assert again == set(np.flatnonzero(gap > TOLERANCE * size)), gap / size
    log_z = exact(cores, np.full(len(cores), np.nan))[0]
    expected = [exact(cores, row)[0] - log_z for row in x]
    assert_close(backend.numpy(actual), expected, ring, rtol=30 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("seed", range(2))
def test_gradients_at_zero_entries_of_rows_within_the_tolerance(dtype, topology, engine, seed):
    """Those of leaving zero, however near the bound; beyond the tolerance they are those of the log engine."""
    backend, leaves = load_backend("torch"), []

    def leaf(array):
        leaves.append(array.requires_grad_())
        return array

    ring, cores, x = graded_ring(backend, dtype, topology, seed, leaf)
    x = x[seed::3]
    gap, value = gaps(ring.detach(), backend, x, dtype, engine)
    for row, certified in zip(x, gap <= TOLERANCE * np.abs(value), strict=True):
        evidence = Evidence.of_rows(ring, backend.array(row[None], dtype))
        found, of_logs = (
            backend.xp.autograd.grad(choice.log_mass(ring, evidence, name).sum(), leaves[-len(cores) :])
            for name in (engine, "log")
        )
        for core, actual, logs, expected in zip(cores, found, of_logs, exact(cores, row)[1], strict=True):
            zero, subject = core == 0, (row[-1], certified, core)
            wanted = expected if certified else logs.numpy()
            assert_close(actual.numpy()[zero], wanted[zero], subject, rtol=1e-3, atol=1e-30)
            some = (actual.numpy() * core, expected * core)
            assert_close(*(gradient[~zero] for gradient in some), subject, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("values", [(0.0,), (-1e3,), (2e5,), (0.1, -3e4), (-np.inf,), (np.nan,)], ids=str)
def test_what_agrees_with_a_bound(backend, dtype, values):
    """A gap up to the tolerance times the size of the value, at least 1, in all entries of a row; none of −inf does."""
    ring = rd.TensorRing([backend.array(np.ones((2, 2, 2)), dtype)] * 2, [rd.Categorical(2)] * 2)
    steps, tolerance = np.array([0.0, 0.03, 0.9, 1.1, 30.0]), 1e-4
    value = np.array([values] * len(steps))
    bound = np.where(np.isfinite(value), value, -50.0)
    bound = bound + (steps * tolerance)[:, None] * np.clip(np.abs(bound), 1, None)
    value, bound = (backend.array(a[:, 0] if len(values) == 1 else a) for a in (value, bound))
    evidence = Evidence.of_rows(ring, backend.array(np.zeros((len(steps), 2)), dtype))
    finite, limit = np.isfinite(values).all(), threshold(ring)
    for low, beyond in ((0.0, [3, 4]), (limit / 2, [3, 4]), (2 * limit, [])):
        smallest = backend.array(np.full(len(steps), low), dtype)
        found = lost_rows(ring, evidence, value, smallest, lambda ring, evidence: bound, tolerance)
        assert backend.numpy(found).tolist() == (beyond if finite else [0, 1, 2, 3, 4]), (values, low)
