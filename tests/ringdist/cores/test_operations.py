"""The operations of a core are those of its array, in linear numbers and in logarithms."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from ringdist.cores import LINEAR, LOG
from tests.backends import FAMILIES, assert_close
from tests.structured import FACTORS, PATTERNS, STRUCTURED, dense, made, make_structured

pytestmark = pytest.mark.slow_on("jax")


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


def test_names_of_the_families_are_those_of_the_oracle():
    assert {c.kind for s in STRUCTURED.values() for c in s.case.columns} <= FAMILIES.keys()
    assert made("cp", {"left": np.ones((2, 2))}).shape == (2, 2, 2)
