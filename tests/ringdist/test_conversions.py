"""to_train, permute and to: the same distribution in other clothes."""

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.log_oracle import Table, log_dense
from tests.oracle import MIXED, TABLE, TRAIN, Case, Column
from tests.strategies import cases, over
from tests.structured import PATTERNS, Structured, make_structured

pytestmark = pytest.mark.slow_on("jax")

# ------------------------------------------------------------------------------------------------- trains


@over(MIXED, TABLE, TRAIN, case=cases())
def test_to_train_is_the_same_distribution_with_a_bond_of_rank_one(backend, case):
    train, x = backend.ring(case).to_train(), case.rows(6)
    assert train.is_train and 1 in train.ranks, train
    assert_close(backend.numpy(train.log_prob(backend.array(x))), oracle.log_prob(case, x), train)


@over(MIXED, TABLE, TRAIN, case=cases())
def test_to_train_has_the_ranks_it_promises(backend, case):
    """Cut at the thinnest bond r: ranks r * m_j, capped by what lies left and right; a train stays itself."""
    ring, thin = backend.ring(case), min(case.ranks)
    train = ring.to_train()
    if thin == 1:
        assert train.ranks == ring.ranks, train
        return
    cut = list(train.ranks).index(1)
    order = [*train.order[cut:], *train.order[:cut]]
    ranks = [*train.ranks[cut:], *train.ranks[:cut]]
    turn = [case.order[j:] + case.order[:j] for j in range(case.d)]
    assert tuple(order) in turn, (train, "is no rotation of", case)
    start = turn.index(tuple(order))
    sizes = [case.shape[k] for k in order]
    for j, rank in enumerate(ranks):
        promised = thin * case.ranks[(start + j) % case.d]
        dense = min(np.prod(sizes[:j]), np.prod(sizes[j:]))
        assert rank <= max(1, min(promised, dense)), (train, case, j)


def test_a_train_stays_itself(backend):
    ring = backend.ring(TRAIN)
    train, x = ring.to_train(), backend.array(TRAIN.rows(6))
    assert ring.is_train and max(train.ranks) <= max(ring.ranks), train
    assert_close(backend.numpy(train.log_prob(x)), backend.numpy(ring.log_prob(x)), train)


REACH = {"float32": (20.0, 35.0), "float64": (150.0, 290.0)}  # entries from 10^-reach to 10^reach


def wide_ring(seed, dtype):
    """A ring of 1 to 6 columns whose factors span more than 10^40 (10^300), with its table and rows at all peaks."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 7))
    choices = [["dense"], [*PATTERNS], ["dense", "diagonal", *PATTERNS]][seed % 3]
    patterns = [choices[i] for i in rng.integers(len(choices), size=d)]
    order = tuple(int(k) for k in rng.permutation(d))
    drawn = make_structured(patterns, ["categorical"] * d, order, seed=seed)
    reach, parts = rng.uniform(*REACH[dtype]), []
    for kind, factors in drawn.parts:
        made = {name: wide_factor(array.shape, reach, rng).astype(dtype) for name, array in factors.items()}
        parts.append((kind, made))
    columns = tuple(peaked(c.num_components) if rng.random() < 0.5 else c for c in drawn.case.columns)
    case = Case(drawn.case.cores, columns, order, f"wide_ring({seed}, {dtype!r})  # {patterns}", seed)
    x = np.array(list(np.ndindex(*case.shape)), dtype=float)
    x = x[rng.permutation(len(x))[:300]]  # at the means, which are the components' numbers
    x[len(x) // 2 :][rng.random(x[len(x) // 2 :].shape) < 0.3] = np.nan
    return Structured(case, tuple(parts)), Table([log_dense(*part) for part in parts], columns, order), x


def wide_factor(shape, reach, rng):
    exponents = rng.uniform(-reach, reach, shape)
    if rng.random() < 0.3:
        exponents[rng.random(shape) < 0.3] = -np.inf
    exponents.flat[rng.integers(exponents.size)] = -reach
    exponents.flat[rng.integers(exponents.size)] = reach
    return 10.0**exponents


def peaked(size: int) -> Column:
    return Column("gaussian", size, {"means": np.arange(float(size)), "stds": np.full(size, 1e-12)})


def assert_same_logs(backend, train, ring, table, x, dtype):
    """Those of the table, and of the ring's own log engine, to rounding of the logarithms that make them up."""
    rows, eps = backend.array(x, dtype), float(np.finfo(dtype).eps)
    actual = backend.numpy(train.log_prob(rows)).astype(float)
    sizes = [abs(backend.numpy(r.log_normalizer()).astype(float)) for r in (ring, train)]
    for expected in (table.log_prob(x).astype(float), backend.numpy(ring.log_prob(rows, engine="log")).astype(float)):
        slack = 32 * eps * (ring.num_variables + sum(sizes) + np.where(np.isfinite(expected), abs(expected), 0))
        with np.errstate(invalid="ignore"):
            same = (abs(actual - expected) <= slack) | (actual == expected)
        assert same.all(), (table, train, actual[~same], expected[~same])


@pytest.mark.parametrize("seed", range(24))
def test_trains_of_rings_that_span_more_than_the_dtype(backend, dtype, seed):
    if backend.name == "jax" and seed not in (0, 1, 5):
        pytest.skip("JAX compiles every operation anew for every shape")
    structured, table, x = wide_ring(seed, dtype)
    if not np.isfinite(table.log_z):
        pytest.skip("no mass")
    ring = structured.ring(backend, dtype)
    train, thin = ring.to_train(), min(ring.ranks)
    assert train.is_train and max(train.ranks) <= thin * max(ring.ranks), train
    assert_same_logs(backend, train, ring, table, x, dtype)


def test_cores_of_a_train_of_wide_cp_cores_are_cp_cores(numpy_backend, dtype):
    """A product of their factors may be out of range where no factor is."""
    structured, table, x = wide_ring(1, dtype)
    ring = structured.ring(numpy_backend, dtype)
    train = ring.to_train()
    assert {type(core) for core in ring.cores} == {type(core) for core in train.cores} == {rd.CPCore}
    with np.errstate(over="ignore", under="ignore"):
        assert not all(np.isfinite(core.dense()).all() and (core.dense() > 0).all() for core in ring.cores)
    assert_same_logs(numpy_backend, train, ring, table, x, dtype)


@pytest.mark.parametrize("seed", range(3))
def test_trains_of_rings_whose_products_fit_have_the_least_ranks(backend, seed):
    """A table of 2^6 cells, in float32: its entries span 10^40, cores of the ring 10^10."""
    rng = np.random.default_rng(seed)
    cores = tuple(10.0 ** -rng.uniform(0, 10, (2, 4, 4)) for _ in range(6))
    case = Case(cores, (Column("categorical", 2),) * 6, tuple(range(6)))
    ring, x = backend.ring(case, "float32"), np.array(list(np.ndindex(*case.shape)), dtype=float)
    train = ring.to_train()
    assert train.ranks == (1, 2, 4, 8, 4, 2)
    table = Table([log_dense("dense", {"core": core.astype("float32")}) for core in cores], case.columns, case.order)
    assert_same_logs(backend, train, ring, table, x, "float32")


@pytest.mark.parametrize("largest", [1.0, 0.9])
def test_the_train_of_one_column_near_the_largest_number(backend, dtype, largest):
    """Its core is a trace, which may be beyond the range."""
    top, low = largest * float(np.finfo(dtype).max), 16 * float(np.finfo(dtype).tiny)
    core = np.array([np.diag([top, top, top]), np.diag([low, low, 0.0])])
    case = Case((core,), (Column("categorical", 2),), (0,))
    train, x = backend.ring(case, dtype).to_train(), np.array([[0.0], [1.0]])
    assert train.ranks == (1,)
    actual = backend.numpy(train.log_prob(backend.array(x, dtype)))
    exact = [0.0, np.log(2 / 3) + np.log(low) - np.log(top)]
    assert_close(actual, exact, case, rtol=1e-6)


class Opaque:
    """A CP core that is not known to be one."""

    def __init__(self, core):
        self.core = core

    def __getattr__(self, name):
        return getattr(self.core, name)

    def with_arrays(self, arrays):
        return Opaque(self.core.with_arrays(arrays))

    def transposed(self):
        return Opaque(self.core.transposed())


@pytest.mark.parametrize("powers", [(0, 0, 0), (-20, -18, -20), (20, 15, 20), (-30, 30, 20), (-36, 35, 30)], ids=str)
def test_cores_of_ones_own_become_arrays_or_are_refused(backend, powers):
    """In float32: entries of Q[0] are near 10^(a + c), those of Q[1] near 10^(b + c), for powers a, b, c."""
    rng, (a, b, c) = np.random.default_rng(0), powers
    emission = rng.uniform(0.5, 1, (2, 3)) * 10.0 ** np.array([[a], [b]])
    cp = {"left": rng.uniform(0.5, 1, (2, 3)) * 10.0**c, "emission": emission, "right": rng.uniform(0.5, 1, (3, 2))}
    parts = [("cp", cp), *(("dense", {"core": 10.0 ** rng.choice([-35, 35], (2, 2, 2))}) for _ in range(6))]
    parts = [(kind, {name: array.astype("float32") for name, array in factors.items()}) for kind, factors in parts]
    case = Case(tuple(np.zeros((2, 2, 2)) for _ in parts), (Column("categorical", 2),) * 7, tuple(range(7)))
    x = np.array(list(np.ndindex(*case.shape)), dtype=float)
    structured = Structured(case, tuple(parts))
    table = Table([log_dense(*part) for part in parts], case.columns, case.order)
    core, *others = structured.cores(structured.arrays(backend, "float32"))
    ring = rd.TensorRing([Opaque(core), *others], backend.variables(case, "float32"))
    if b - a > 65:
        with pytest.raises(ValueError, match=r"^column 0: .* Opaque .* float32, found a factor of 1e7\d"):
            ring.to_train()
        return
    train = ring.to_train()
    assert sorted(train.ranks) == [1, *[4] * 6], "what is tested is not reached: products fit"
    assert_same_logs(backend, train, ring, table, x, "float32")


@pytest.mark.parametrize("seed", [1, 4, 7, 8])
def test_gradients_through_trains_of_wide_rings(seed):
    """Those of the ring's own log engine, relative to the entries: for their logarithms."""
    torch, backend = pytest.importorskip("torch"), load_backend("torch")
    structured, table, x = wide_ring(seed, "float64")
    arrays = structured.arrays(backend)
    rows, found = backend.array(x[np.isfinite(table.log_prob(x))]), []
    for through in (lambda ring: ring.to_train().log_prob(rows), lambda ring: ring.log_prob(rows, engine="log")):
        leaves = [{name: a.log().requires_grad_() for name, a in factors.items()} for factors in arrays]
        ring = structured.ring(backend, arrays=[{n: a.exp() for n, a in factors.items()} for factors in leaves])
        through(ring).sum().backward()
        found.append(torch.cat([a.grad.flatten() for factors in leaves for a in factors.values()]))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------ permute


@over(MIXED, TABLE, TRAIN, case=cases())
def test_permute_renames_columns_and_nothing_else(backend, case):
    ring, x = backend.ring(case), case.rows(6)
    columns = [int(k) for k in np.random.default_rng(case.seed).permutation(case.d)]
    permuted = ring.permute(columns)
    assert permuted.shape == tuple(case.shape[k] for k in columns), permuted
    actual = backend.numpy(permuted.log_prob(backend.array(x[:, columns])))
    assert_close(actual, backend.numpy(ring.log_prob(backend.array(x))), permuted)


def test_permute_by_name(backend):
    permuted = backend.ring(MIXED).permute(["delay", "count", "label", "height"])
    assert [v.name for v in permuted.variables] == ["delay", "count", "label", "height"], permuted


# ------------------------------------------------------------------------------------------------------ to


@pytest.mark.parametrize("source", ["numpy", "torch", "jax"])
def test_to_moves_a_ring_between_backends(backend, source):
    from tests.backends import load_backend

    ring, x = load_backend(source).ring(MIXED), MIXED.rows(6)
    moved = ring.to(xp=backend.xp, device=backend.device)
    assert type(moved.cores[0]) is type(backend.array([1.0])), moved
    assert [v.name for v in moved.variables] == ["label", "height", "count", "delay"], moved
    assert_close(backend.numpy(moved.log_prob(backend.array(x))), oracle.log_prob(MIXED, x), moved)


def test_to_changes_the_dtype_of_cores_and_variables(backend):
    ring, x = backend.ring(MIXED), MIXED.rows(6)
    single = ring.to(dtype=backend.dtype("float32"))
    assert {core.dtype for core in single.cores} == {backend.dtype("float32")}, single
    assert single.variables[1].means().dtype == backend.dtype("float32"), single
    actual = backend.numpy(single.log_prob(backend.array(x, "float32")))
    assert_close(actual, oracle.log_prob(MIXED, x), single, rtol=1e-4, atol=1e-4)
    double = single.to(dtype=backend.dtype("float64"))
    assert {core.dtype for core in double.cores} == {backend.dtype("float64")}, double
    assert {core.dtype for core in ring.cores} == {backend.dtype("float64")}, ring
