"""Marginals, conditionals, trains, copies and inner products; rings of another backend or dtype."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.diagonal_core import DiagonalCore
from tests.ringdist.cores.cases import CLOSE, agrees
from tests.structured import FACTORS, make_structured

pytestmark = pytest.mark.slow_on("jax")


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
