"""Cores as small networks: every query of a ring of CP, diagonal and dense cores is that of the enumerated joint."""

import copy
import pickle
import tracemalloc

import numpy as np
import opt_einsum
import pytest

import ringdist as rd
from ringdist.cores import KINDS, LINEAR, LOG
from tests import oracle
from tests.backends import FAMILIES, assert_close
from tests.diagonal_core import DiagonalCore
from tests.families import LaplaceMixture
from tests.structured import FACTORS, PATTERNS, STRUCTURED, TABLES, dense, made, make_structured

pytestmark = pytest.mark.slow_on("jax")

CLOSE = {"float64": {"rtol": 1e-9, "atol": 1e-11}, "float32": {"rtol": 3e-4, "atol": 3e-4}}


@pytest.fixture(params=STRUCTURED)
def ring_case(request):
    return STRUCTURED[request.param]


@pytest.fixture(params=TABLES)
def table_case(request):
    return TABLES[request.param]


# --------------------------------------------------------------------------------------------- the core itself


@pytest.mark.parametrize("pattern", [*PATTERNS, "diagonal"], ids=str)
def test_operations_of_a_core_are_those_of_its_array(backend, pattern):
    """Every method of the protocol, in linear numbers and in logarithms, against the array."""
    structured = make_structured([pattern, "dense"], ["categorical"] * 2, sparsity=0.2, seed=5)
    core = structured.cores(structured.arrays(backend))[0]
    q = structured.case.cores[0]
    n, m, m2 = q.shape
    assert core.shape == q.shape and isinstance(core, rd.Core)
    rng = np.random.default_rng(0)
    state, suffix, weights = rng.random((5, 2, m)), rng.random((5, 2, m2)), rng.random((5, n))
    left, right = rng.integers(0, m, 5), rng.integers(0, m2, 5)
    left_scale, right_scale = rng.random(m), rng.random(m2)
    a, put = np.einsum("bs,smn->bmn", weights, q), backend.array
    index = [put(i, "int64") for i in (left, right)]
    found = {
        "dense": (core.dense(), q),
        "transposed": (core.transposed().dense(), q.swapaxes(1, 2)),
        "gauged": (core.gauged(put(left_scale), put(right_scale)).dense(), left_scale[:, None] * q * right_scale),
        "gauged left": (core.gauged(put(left_scale), None).dense(), left_scale[:, None] * q),
        "gauged right": (core.gauged(None, put(right_scale)).dense(), q * right_scale),
        "absorbed left": (core.absorbed(put(state[0]), None), state[0] @ q),
        "absorbed right": (core.absorbed(None, put(suffix[0].T)), q @ suffix[0].T),
        "absorbed": (core.absorbed(put(state[0]), put(suffix[0].T)), state[0] @ q @ suffix[0].T),
    }
    for name in ("absorbed left", "absorbed right", "absorbed"):
        found[name] = (found[name][0].dense(), found[name][1])
    for semiring in (LINEAR, LOG):
        s, p, w = (semiring.of(put(x)) for x in (state, suffix, weights))
        label = "log" if semiring is LOG else "linear"
        around = core.environment(s, p, semiring)
        results = {
            "matrix": (core.matrix(w, semiring), a),
            "push": (core.push(s, w, semiring), state @ a),
            "push of one row": (core.push(s[:1], w, semiring), state[:1] @ a),
            "push with one row of weights": (core.push(s, w[:1], semiring), state @ a[:1]),
            "components": (core.components(around, semiring), np.einsum("brm,smn,brn->bs", state, q, suffix)),
            "rows": (core.rows(index[0], w, semiring), a[np.arange(5), left]),
            "rows of one": (core.rows(index[0], w[:1], semiring), a[0][left]),
            "between": (core.between(*index, semiring), q[:, left, right].T),
        }
        for name, (actual, expected) in results.items():
            value = backend.numpy(actual)
            found[f"{label} {name}"] = (np.exp(value) if semiring is LOG else value, expected)
    for name, (actual, expected) in found.items():
        assert_close(backend.numpy(actual), expected, (pattern, name))
    around = core.environment(put(state), put(suffix), LINEAR)
    for name, factor in core.arrays().items():
        gradient = backend.numpy(core.derivative(name, around, put(weights)))
        actual = np.sum(gradient * backend.numpy(factor))  # linear in the factor: Euler's relation
        assert_close(actual, np.einsum("bs,brm,smn,brn->", weights, state, q, suffix), (pattern, name))
        step = rng.random(factor.shape)
        moved = core.with_arrays({**core.arrays(), name: factor + put(step)}).dense()
        change = np.einsum("bs,brm,smn,brn->", weights, state, backend.numpy(moved) - q, suffix)
        assert_close(np.sum(gradient * step), change, (pattern, name))


@pytest.mark.parametrize("pattern", PATTERNS, ids="+".join)
def test_cp_core(pattern):
    kind, factors = make_structured([pattern, "dense"], ["categorical"] * 2, seed=3).parts[0]
    core = rd.CPCore(**factors)
    assert core.arrays().keys() == factors.keys()
    assert all((getattr(core, name) is None) == (name not in factors) for name in FACTORS)
    assert core.shape == dense(kind, factors).shape and "=" in repr(core)
    np.testing.assert_allclose(core.dense(), dense(kind, factors))
    assert core.dense().dtype == np.float64
    for again in (pickle.loads(pickle.dumps(core)), copy.copy(core), copy.deepcopy(core)):
        np.testing.assert_array_equal(again.dense(), core.dense())
    with pytest.raises(AttributeError, match="immutable"):
        core.left = None


def test_lists_are_taken_as_float64():
    core = rd.CPCore(emission=[[1, 2], [3, 4]], right=[[1, 0], [0, 1]])
    assert core.emission.dtype == np.float64 and core.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({}, "at least one of left, emission and right"),
        ({"left": np.ones(3)}, r"left must be a matrix.*\(3,\)"),
        ({"emission": np.ones((2, 2, 2))}, r"emission must be a matrix.*\(2, 2, 2\)"),
        ({"right": np.ones((0, 3))}, r"right must be a matrix with no empty axis"),
        ({"left": np.ones((2, 3)), "right": np.ones((2, 3))}, "3 in left, 2 in right"),
        ({"emission": np.ones((2, 3)), "left": np.ones((4, 2))}, "2 in left, 3 in emission"),
    ],
    ids=str,
)
def test_factors_that_do_not_fit(factors, message):
    with pytest.raises(ValueError, match=message):
        rd.CPCore(**factors)


def test_factors_of_several_dtypes_or_backends():
    with pytest.raises(TypeError, match="one dtype, found float32, float64"):
        rd.CPCore(np.ones((2, 2), dtype=np.float32), np.ones((2, 2)))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError):
        rd.CPCore(np.ones((2, 2)), torch.ones((2, 2), dtype=torch.float64))


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "found -1"), (np.nan, "found nan"), (np.inf, "found inf")], ids=str
)
@pytest.mark.fast_on("jax")
def test_values_of_factors(backend, name, value, message):
    factors = {each: np.ones((2, 2)) for each in FACTORS}
    factors[name][1, 0] = value
    cores = [rd.CPCore(**{each: backend.array(a) for each, a in factors.items()})]
    with pytest.raises(ValueError, match=rf"column 0 \('age'\).*{message}.*entry \(1, 0\) of the {name} factor"):
        rd.TensorRing(cores, [rd.Categorical(2, name="age")])
    factors[name][:] = 0
    cores = [rd.CPCore(**{each: backend.array(a) for each, a in factors.items()})]
    with pytest.raises(ValueError, match=rf"column 0 \('age'\): the {name} factor of the core is all zero"):
        rd.TensorRing(cores, [rd.Categorical(2, name="age")])


def test_what_a_ring_refuses():
    unit, variables = np.ones((2, 2)), [rd.Categorical(2), rd.Categorical(2)]
    cp = rd.CPCore(unit)
    with pytest.raises(TypeError, match="one dtype"):
        rd.TensorRing([cp, np.ones((2, 2, 2), dtype=np.float32)], variables)
    with pytest.raises(TypeError, match="float32 or float64"):
        rd.TensorRing([rd.CPCore(unit.astype(np.float16))], variables[:1])
    with pytest.raises(ValueError, match="3 matrices for 2"):
        rd.TensorRing([cp, rd.CPCore(emission=np.ones((3, 2)))], variables)
    with pytest.raises(ValueError, match=r"rank 2.*rank 3"):
        rd.TensorRing([cp, rd.CPCore(np.ones((3, 2)))], variables)
    with pytest.raises(TypeError, match=r"rd\.Core"):
        rd.TensorRing([cp, object.__new__(type("Other", (), {"with_arrays": None, "arrays": None}))], variables)


def test_a_ring_owns_the_factors(backend):
    structured = STRUCTURED["full"]
    arrays, x = structured.arrays(backend), structured.case.rows(4)
    ring = structured.ring(backend, arrays=arrays)
    before = backend.numpy(ring.log_prob(backend.array(x)))
    if backend.name != "jax":
        for factors in arrays:
            for factor in factors.values():
                factor *= 3.0
        for core in ring.cores:
            if backend.name.startswith("torch"):
                core.left.mul_(2.0)
            else:
                assert not core.left.flags.writeable
    assert_close(backend.numpy(ring.log_prob(backend.array(x))), before, structured)


# --------------------------------------------------------------------------------------------------- queries


def test_log_prob(backend, engine, dtype, ring_case):
    x = ring_case.case.rows(6)
    actual = ring_case.ring(backend, dtype).log_prob(backend.array(x, dtype), engine=engine)
    expected = oracle.log_prob(ring_case.case, x.astype(dtype))
    assert_close(backend.numpy(actual), expected, (ring_case, engine), **CLOSE[dtype])


def queries(ring, x, full):
    """Every query whose answer is numbers, of any ring."""
    grid = ring.quantile(0, 0.3, x)
    return {
        "log_normalizer": ring.log_normalizer(),
        **{f"component_posterior {k}": ring.component_posterior(k, x) for k in range(ring.num_variables)},
        "mean": ring.mean(),
        "mean given": ring.mean(x),
        "covariance": ring.covariance(),
        "mutual_information": ring.mutual_information(),
        **{f"cdf {k}": ring.cdf(k, full) for k in range(ring.num_variables)},
        "quantile": grid,
        "quantile of the last": ring.quantile(ring.num_variables - 1, 0.7, x),
        "mode": ring.log_prob(ring.mode(x)),
        "inner": ring.inner(ring),
    }


def test_queries(backend, dtype, ring_case):
    case, ring = ring_case.case, ring_case.ring(backend, dtype)
    x, full = case.possible_rows(5).astype(dtype), case.rows(4, missing=0.0).astype(dtype)
    actual = queries(ring, backend.array(x, dtype), backend.array(full, dtype))
    plain = queries(ring.dense(), backend.array(x, dtype), backend.array(full, dtype))
    expected = {
        "log_normalizer": np.log(case.joint.sum()),
        **{f"component_posterior {k}": oracle.posterior(case, k, x) for k in range(case.d)},
        "mean": oracle.mean(case, np.full((1, case.d), np.nan))[0],
        "mean given": oracle.mean(case, x),
        "covariance": oracle.covariance(case),
        "mutual_information": oracle.mutual_information(case),
        **{f"cdf {k}": oracle.cdf(case, k, full) for k in range(case.d)},
        "inner": oracle.inner(case, case),
    }
    for name, value in actual.items():
        value, close = backend.numpy(value), dict(CLOSE[dtype])
        if name == "mode":  # a search: never worse than the same search with dense cores by more than its steps
            close["atol"] = 1e-3
        assert value.dtype == dtype, name
        assert_close(value, backend.numpy(plain[name]), (ring_case, name), **close)
        if name in expected:
            assert_close(value, expected[name], (ring_case, name), **(close if name != "inner" else CLOSE["float32"]))


def test_tables(backend, dtype, table_case):
    case, ring = table_case.case, table_case.ring(backend, dtype)
    table = case.joint / case.joint.sum()
    assert_close(backend.numpy(ring.to_dense()), table, table_case, **CLOSE[dtype])
    value, error = ring.entropy()
    assert error == 0
    assert_close(value, -(table[table > 0] * np.log(table[table > 0])).sum(), table_case, **CLOSE[dtype])
    best = backend.numpy(ring.mode())
    assert_close(table[tuple(best.astype(int))], table.max(), table_case, **CLOSE[dtype])
    x = case.possible_rows(5)
    completed = backend.numpy(ring.mode(backend.array(x, dtype)))
    seen = ~np.isnan(x)
    np.testing.assert_array_equal(completed[seen], x[seen])
    for row, full in zip(x, completed, strict=True):
        agree = np.where(np.isnan(row), True, oracle.configurations(case.shape) == row).all(axis=1)
        top = case.joint.reshape(-1)[agree].max()
        assert_close(case.joint[tuple(full.astype(int))] / top, 1.0, table_case, **CLOSE[dtype])


def test_entropy_by_sampling(numpy_backend, ring_case):
    ring = ring_case.ring(numpy_backend)
    value, error = ring.entropy(4000, rng=0)
    plain, other = ring.dense().entropy(4000, rng=1)
    assert abs(value - plain) < 4.5 * np.hypot(error, other) + 1e-12, ring_case


def test_samples(backend, table_case):
    case, ring = table_case.case, table_case.ring(backend)
    x = backend.numpy(ring.sample(20_000, rng=1))
    assert oracle.chi_square(oracle.counts(x, case.shape), case.joint) > 1e-3, table_case
    given = np.full(case.d, np.nan)
    given[0] = np.flatnonzero(case.joint.sum(axis=tuple(range(1, case.d))))[-1]
    x = backend.numpy(ring.sample_given(backend.array(given), 20_000, rng=2))
    rest = np.zeros_like(case.joint)
    rest[int(given[0])] = case.joint[int(given[0])]
    assert oracle.chi_square(oracle.counts(x, case.shape), rest) > 1e-3, table_case


def test_no_samples_and_no_rows(backend, ring_case):
    ring, d = ring_case.ring(backend), ring_case.case.d
    none = backend.array(np.zeros((0, d)))
    assert ring.sample(0, rng=backend.rng()).shape == (0, d)
    assert ring.sample_given(none, rng=backend.rng()).shape == (0, d)
    assert ring.log_prob(none).shape == (0,)
    assert ring.mean(none).shape == (0, d)
    assert ring.mode(none).shape == (0, d)
    assert ring.component_posterior(0, none).shape == (0, ring.shape[0])
    assert ring.quantile(0, 0.5, none).shape == (0,)


@pytest.mark.parametrize("name", ["full", "train", "diagonal beside"])
def test_samples_of_mixed_columns(backend, name):
    """Means of samples, unconditional and given a row, are those of the enumeration."""
    structured = STRUCTURED[name]
    case, ring, n = structured.case, structured.ring(backend), 20_000
    spread = np.sqrt(np.diag(oracle.covariance(case)) / n)
    x = backend.numpy(ring.sample(n, rng=0))
    assert (np.abs(x.mean(0) - oracle.mean(case, np.full((1, case.d), np.nan))[0]) < 4.5 * spread).all(), structured
    row = case.rows(1, missing=0.0)
    row[:, :2] = np.nan
    x = backend.numpy(ring.sample_given(backend.array(row[0]), n, rng=1))
    np.testing.assert_array_equal(x[:, 2:], np.repeat(row[:, 2:], n, axis=0))
    error = 4.5 * x.std(0) / np.sqrt(n) + 1e-9
    assert (np.abs(x.mean(0) - oracle.mean(case, row)[0]) < error).all(), structured


def test_both_ways_of_sampling_agree(numpy_backend, monkeypatch):
    """The tree of products and the sweep backwards."""
    from ringdist.queries import sampling

    case = TABLES["full"].case
    monkeypatch.setattr(sampling, "prefers_tree", lambda ring: False)
    x = TABLES["full"].ring(numpy_backend).sample(20_000, rng=1)
    assert oracle.chi_square(oracle.counts(x, case.shape), case.joint) > 1e-3


# ------------------------------------------------------------------------------------------------ other rings


def agrees(backend, ring, case, x, subject, dtype="float64"):
    actual = backend.numpy(ring.log_prob(backend.array(x, dtype)))
    assert_close(actual, oracle.log_prob(case, x), subject, **CLOSE[dtype])


def test_rings_made_of_it(backend, dtype, ring_case):
    """Marginals, conditionals, trains, renumbered columns: log-densities, and whether cores kept their kind."""
    case, ring, d = ring_case.case, ring_case.ring(backend, dtype), ring_case.case.d
    x = case.possible_rows(5).astype(dtype)
    agrees(backend, ring.to_train(), case, x, ring_case, dtype)
    agrees(backend, ring.dense(), case, x, ring_case, dtype)
    agrees(backend, ring.permute(range(d)[::-1]), _reversed(case), x[:, ::-1], ring_case, dtype)
    for keep in ([0], list(range(d))[1:], list(range(d))):
        if keep:
            hidden = x.copy()
            hidden[:, [k for k in range(d) if k not in keep]] = np.nan
            part = ring.marginal(keep)
            assert all(isinstance(core, rd.CPCore | DiagonalCore) for core in part.cores) or not _is_kept(
                ring_case, keep
            )
            actual = backend.numpy(part.log_prob(backend.array(x[:, keep], dtype)))
            assert_close(actual, oracle.log_prob(case, hidden), (ring_case, keep), **CLOSE[dtype])
    for k in range(d if d > 1 else 0):
        rest = [j for j in range(d) if j != k]
        row = case.rows(1, missing=0.0)[0].astype(dtype)
        evidence, joint = np.full((1, d), np.nan), x.copy()
        evidence[0, k] = joint[:, k] = row[k]
        expected = oracle.log_prob(case, joint) - oracle.log_prob(case, evidence)
        actual = backend.numpy(ring.condition({k: float(row[k])}).log_prob(backend.array(x[:, rest], dtype)))
        assert_close(actual, expected, (ring_case, k), **CLOSE[dtype])


def _is_kept(structured, keep):
    """Whether all columns that remain are of a kind beside the dense, in a ring of more than one column."""
    return len(keep) > 1 and all(structured.parts[k][0] != "dense" for k in keep)


def _reversed(case):
    d = case.d
    order = tuple(d - 1 - k for k in case.order)
    return oracle.Case(case.cores[::-1], case.columns[::-1], order, case.text)


def test_inner_of_two_kinds(backend, dtype):
    """CP with CP, with diagonal and with dense, of other ranks and components."""
    kinds = ["categorical", "gaussian", "poisson"]
    variants = [
        [FACTORS] * 3,
        [("emission", "right")] * 3,
        ["diagonal"] * 3,
        ["dense"] * 3,
        ["dense", FACTORS, "diagonal"],
    ]
    rings = [make_structured(["dense"] * 3, kinds, seed=1)]
    size = rings[0].case.shape[0]
    seed = 0
    while len(rings) < 1 + len(variants):  # categories must be the same
        seed += 1
        found = make_structured(variants[len(rings) - 1], kinds, seed=seed)
        if found.case.shape[0] == size:
            rings.append(found)
    for p in rings[1:]:
        for q in rings[1:]:
            actual = backend.numpy(p.ring(backend, dtype).inner(q.ring(backend, dtype)))
            assert_close(actual, oracle.inner(p.case, q.case), (p, q), rtol=1e-5 if dtype == "float64" else 1e-3)


def test_to_another_backend(backend, ring_case):
    if any(kind == "diagonal" for kind, _ in ring_case.parts) and backend.name == "jax":
        pytest.skip("one foreign kind a backend is enough")
    x = ring_case.case.rows(3)
    host = ring_case.ring(backend).to(np)
    assert_close(host.log_prob(x), oracle.log_prob(ring_case.case, x), ring_case)
    assert [type(core) for core in host.links] == [type(core) for core in ring_case.ring(backend).links]
    single = ring_case.ring(backend).to(dtype="float32")
    agrees(backend, single, ring_case.case, x.astype(np.float32), ring_case, "float32")
    agrees(backend, host.to(backend.xp, device=backend.device), ring_case.case, x, ring_case)


def test_copies(backend, ring_case):
    ring, x = ring_case.ring(backend), ring_case.case.rows(3)
    for again in (pickle.loads(pickle.dumps(ring)), copy.copy(ring), copy.deepcopy(ring)):
        agrees(backend, again, ring_case.case, x, ring_case)
        assert repr(again) == repr(ring) and again.num_parameters == ring.num_parameters


def test_a_deep_copy_of_live_arrays_says_what_to_copy_instead():
    torch = pytest.importorskip("torch")
    logits = torch.zeros(2, 1, 1, dtype=torch.float64, requires_grad=True)
    ring = rd.TensorRing([logits.exp()], [rd.Categorical(2)])
    with pytest.raises(ValueError, match=r"copy ring.detach\(\)"):
        copy.deepcopy(ring)
    assert copy.deepcopy(ring.detach()).log_prob(torch.zeros(1, 1)).item() == pytest.approx(np.log(0.5))
    leaf = copy.deepcopy(rd.TensorRing([torch.ones(2, 1, 1, requires_grad=True)], [rd.Categorical(2)]))
    assert leaf.cores[0].requires_grad


@pytest.fixture
def diagonal_files(monkeypatch):
    monkeypatch.setitem(KINDS, "diagonal", DiagonalCore)


def test_files(backend, dtype, diagonal_files, tmp_path, ring_case):
    ring, x = ring_case.ring(backend, dtype), ring_case.case.rows(3).astype(dtype)
    ring.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring", xp=backend.xp, families=(LaplaceMixture,)).to(device=backend.device)
    assert repr(again) == repr(ring) and again.order == ring.order
    for one, other in zip(again.links, ring.links, strict=True):
        assert type(one) is type(other) and one.arrays().keys() == other.arrays().keys()
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(backend.numpy(array), backend.numpy(other.arrays()[name]))
    agrees(backend, again, ring_case.case, x, ring_case, dtype)


def test_a_kind_that_files_do_not_know(numpy_backend, tmp_path):
    with pytest.raises(ValueError, match=r"column 0: the cores that files hold.*DiagonalCore"):
        STRUCTURED["diagonal"].ring(numpy_backend).save(tmp_path / "ring")


# --------------------------------------------------------------------------------------------- other libraries


@pytest.mark.parametrize("opened", ["none", "first", "all"])
@pytest.mark.parametrize("name", [*STRUCTURED, "shared components", "copies"])
def test_einsum(backend, name, opened):
    """Also where the components of two columns are one index, as in the last two rings."""
    structured = STRUCTURED.get(name) or TABLES[name]
    case, ring = structured.case, structured.ring(backend)
    columns = {"none": [], "first": [0], "all": list(range(case.d))[::-1]}[opened]
    equation, operands = ring.einsum(open=columns)
    others = tuple(k for k in range(case.d) if k not in columns)
    expected = np.transpose(case.joint.sum(axis=others), np.argsort(np.argsort(columns)).tolist())
    assert_close(backend.numpy(opt_einsum.contract(equation, *operands)), expected, (structured, equation))


def test_tensornetwork_nodes(backend, ring_case):
    import tensornetwork

    case, ring = ring_case.case, ring_case.ring(backend)
    nodes = ring.to_tensornetwork()
    names = [v.name or f"x{k}" for k, v in enumerate(ring.variables)]
    by_name = {node.name: node for node in nodes}
    dangling = []
    for name in names:
        node = by_name.get(name)
        dangling.append(node["component"])
    assert all(edge.is_dangling() for edge in dangling)
    table = tensornetwork.contractors.greedy(nodes, output_edge_order=dangling).tensor
    assert_close(backend.numpy(table), case.joint, ring_case)
    x = case.rows(3)
    for row in x:
        value = tensornetwork.contractors.greedy(ring.to_tensornetwork(backend.array(row))).tensor
        assert_close(np.log(backend.numpy(value)), np.log(oracle.mass(case, row)), ring_case)


# ------------------------------------------------------------------------------------- no dense array is formed


@pytest.fixture
def no_dense_array(monkeypatch):
    """CP cores whose array cannot be formed."""

    def dense(self):
        raise AssertionError("the array of a CP core was formed")

    monkeypatch.setattr(rd.CPCore, "dense", dense)


CP_ONLY = [name for name, s in STRUCTURED.items() if all(kind == "cp" for kind, _ in s.parts)]


@pytest.mark.parametrize("name", CP_ONLY)
def test_no_query_forms_the_array_of_a_cp_core(backend, no_dense_array, diagonal_files, tmp_path, name):
    structured = STRUCTURED[name]
    case, ring, d = structured.case, structured.ring(backend), structured.case.d
    x, full = backend.array(case.rows(4)), backend.array(case.rows(4, missing=0.0))
    for engine in ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        ring.log_prob(x, engine=engine)
    queries(ring, x, full)
    ring.sample(5, rng=0), ring.sample_given(x, rng=0), ring.entropy(10, rng=0)
    ring.marginal([0]), ring.marginal(range(d)), ring.permute(range(d)), ring.to(dtype="float32")
    if d > 1:
        ring.condition({0: float(full[0, 0])})
        ring.marginal(range(d - 1))
    ring.einsum(), ring.to_tensornetwork(), ring.to_tensornetwork(x[0])
    ring.save(tmp_path / "ring")
    rd.load(tmp_path / "ring", xp=backend.xp, families=(LaplaceMixture,))
    pickle.loads(pickle.dumps(ring))
    rd.compare.kl(ring, ring, full)
    if LaplaceMixture not in map(type, ring.variables):
        rd.fit_em(ring, backend.numpy(full), max_epochs=1)


@pytest.mark.parametrize("name", ["full", "shared components", "copies", "train"])
def test_no_table_forms_the_array_of_a_cp_core(backend, no_dense_array, name):
    ring = TABLES[name].ring(backend)
    (
        ring.to_dense(),
        ring.entropy(),
        ring.mode(),
        rd.fit_em(ring, TABLES[name].case.possible_rows(5), max_epochs=1, rng=0),
    )


def test_memory_of_a_wide_train(numpy_backend):
    """d = 50, N = 1000, rank 64: 54 MB in factors, 1.6 GB in dense arrays."""
    d, n, m = 50, 1000, 64
    ring = rd.TensorRing.random([rd.Categorical(n)] * d, m, topology="train", core="cp", rng=0)
    x = np.random.default_rng(0).integers(0, n, (4, d)).astype(np.float64)
    x[:, 7] = np.nan
    tracemalloc.start()
    ring.log_prob(x), ring.mean(x), ring.component_posterior(7, x), ring.sample_given(x, rng=0)
    ring.condition(dict.fromkeys(range(d - 2), 0)), ring.marginal([0, 10, 49])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6, f"{peak / 1e6:.0f} MB beside the parameters' {8e-6 * ring.num_parameters:.0f} MB"


def test_random_rings(backend, dtype):
    """Z near 1 at every rank, and the sizes that were asked for."""
    variables = [rd.Categorical(3), rd.Categorical(4), rd.Categorical(2)] * 4
    for topology, inner in (("ring", None), ("train", None), ("train", 7), ("ring", 5)):
        ring = rd.TensorRing.random(
            variables,
            6,
            topology=topology,
            core="cp",
            inner=inner,
            rng=0,
            xp=backend.xp,
            dtype=dtype,
            device=backend.device,
        )
        assert all(isinstance(core, rd.CPCore) for core in ring.cores)
        assert ring.is_train == (topology == "train") and max(ring.ranks) == 6
        hidden = {core.inner for core in ring.cores}
        assert hidden == {6 if inner is None else inner}, hidden
        assert abs(float(ring.log_normalizer())) < 6, "its standard deviation over seeds is 1.2"
        assert str(ring.prototype.dtype).endswith(dtype)
        assert "CPCore" in repr(ring)
        sizes = sum(backend.numpy(a).size for core in ring.cores for a in core.arrays().values())
        assert ring.num_parameters == sizes
    with pytest.raises(ValueError, match="dense or cp, found 'sparse'"):
        rd.TensorRing.random(variables, 2, core="sparse", rng=0)
    with pytest.raises(ValueError, match=r"inner .*found 0 for cp"):
        rd.TensorRing.random(variables, 2, core="cp", inner=0, rng=0)
    with pytest.raises(ValueError, match=r"inner .*found 3 for dense"):
        rd.TensorRing.random(variables, 2, core="dense", inner=3, rng=0)


def test_names_of_the_families_are_those_of_the_oracle():
    assert {c.kind for s in STRUCTURED.values() for c in s.case.columns} <= FAMILIES.keys()
    assert made("cp", {"left": np.ones((2, 2))}).shape == (2, 2, 2)
