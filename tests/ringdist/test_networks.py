"""The networks of opt_einsum and tensornetwork that a ring turns into: the same distribution."""

import numpy as np
import opt_einsum
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close
from tests.oracle import MIXED, TABLE, TRAIN
from tests.strategies import cases, over

pytestmark = pytest.mark.slow_on("jax")

# ------------------------------------------------------------------------------------------------- einsum


@over(MIXED, TABLE, TRAIN, case=cases())
def test_einsum_contracts_to_the_normaliser_and_to_open_tables(backend, case):
    ring = backend.ring(case)
    equation, *operands = _flat(ring.einsum())
    actual = backend.numpy(opt_einsum.contract(equation, *operands))
    assert_close(actual, case.joint.sum(), case)
    columns = [int(k) for k in np.random.default_rng(case.seed).permutation(case.d)]
    for open_columns in (tuple(columns[: case.seed % case.d]), tuple(columns)):
        equation, *operands = _flat(ring.einsum(open=open_columns))
        actual = backend.numpy(opt_einsum.contract(equation, *operands))
        assert_close(actual, oracle._margin(case.joint, open_columns), (case, open_columns))


def _flat(expression):
    """The equation and its operands, whether they come as (eq, a, b, …) or (eq, (a, b, …))."""
    equation, *operands = expression
    return (equation, *(operands[0] if isinstance(operands[0], list | tuple) else operands))


@pytest.mark.fast_on("jax")
def test_einsum_by_name(backend):
    equation, *operands = _flat(backend.ring(MIXED).einsum(open=["count", "label"]))
    actual = backend.numpy(opt_einsum.contract(equation, *operands))
    assert_close(actual, MIXED.joint.sum((1, 3)).T, MIXED)


def test_einsum_of_more_columns_than_there_are_letters(numpy_backend):
    case = oracle.make_case(["categorical"] * 80, [2] * 80, [2] * 80, range(80), seed=3)
    ring = numpy_backend.ring(case)
    equation, *operands = _flat(ring.einsum())
    actual = np.log(opt_einsum.contract(equation, *operands, optimize="greedy"))
    assert_close(actual, ring.log_normalizer(), ring)


# ------------------------------------------------------------------------------------------ tensornetwork


@over(MIXED, TABLE, TRAIN, case=cases(), examples=0.5)
def test_tensornetwork_nodes_with_open_components_contract_to_the_table(backend, case):
    tn = pytest.importorskip("tensornetwork")
    nodes = backend.ring(case).to_tensornetwork()
    assert [set(node.axis_names) for node in nodes] == [{"left", "right", "component"}] * case.d
    for j, node in enumerate(nodes):  # connected in ring order
        following = nodes[(j + 1) % case.d]
        assert node["right"] is following["left"], (case, j)
        assert node["component"].is_dangling(), (case, j)
        assert node["component"].dimension == case.shape[case.order[j]], (case, j)
    edges = [nodes[case.order.index(k)]["component"] for k in range(case.d)]
    table = tn.contractors.greedy(nodes, output_edge_order=edges).tensor
    assert_close(backend.numpy(table), case.joint, case)


@over(MIXED, TABLE, TRAIN, case=cases(), examples=0.5)
def test_tensornetwork_at_a_point_contracts_to_its_unnormalised_density(backend, case):
    tn = pytest.importorskip("tensornetwork")
    ring, row = backend.ring(case), case.possible_rows(6)[-1]  # observed and missing entries
    nodes = ring.to_tensornetwork(backend.array(row))
    value = backend.numpy(tn.contractors.greedy(nodes).tensor)
    assert_close(value, oracle.mass(case, row), case)
    x = backend.array(row)
    assert_close(value, np.exp(backend.numpy(ring.log_prob(x) + ring.log_normalizer())), case)


def test_nodes_are_named_as_the_variables(backend):
    pytest.importorskip("tensornetwork")
    nodes = backend.ring(MIXED).to_tensornetwork()
    assert [node.name for node in nodes] == ["count", "label", "delay", "height"], nodes


@pytest.mark.fast_on("jax")
def test_users_attach_nodes_of_their_own(backend):
    """A unary factor on one column and a pairwise one on two others, contracted by tensornetwork."""
    tn = pytest.importorskip("tensornetwork")
    ring = backend.ring(MIXED)
    name = {"numpy": "numpy", "jax": "jax"}.get(backend.name, "pytorch")
    generator = np.random.default_rng(0)
    unary, pair = generator.random(3), generator.random((2, 3))
    nodes = {node.name: node for node in ring.to_tensornetwork()}
    a = tn.Node(backend.array(unary), backend=name)
    b = tn.Node(backend.array(pair), backend=name)
    a[0] ^ nodes["label"]["component"]
    b[0] ^ nodes["height"]["component"]
    b[1] ^ nodes["delay"]["component"]
    result = tn.contractors.greedy([*nodes.values(), a, b])
    expected = np.einsum("abcd,a,bd->c", MIXED.joint, unary, pair)
    assert_close(backend.numpy(result.tensor), expected, MIXED)


@over(MIXED, TABLE, TRAIN, case=cases(), examples=0.5)
def test_from_tensornetwork_round_trip(backend, case):
    pytest.importorskip("tensornetwork")
    ring, x = backend.ring(case), backend.array(case.rows(6))
    again = rd.TensorRing.from_tensornetwork(ring.to_tensornetwork(), ring.variables)
    if len({v.name for v in ring.variables}) == case.d:
        assert_close(backend.numpy(again.log_prob(x)), oracle.log_prob(case, backend.numpy(x)), again)
    assert_close(backend.numpy(again.log_normalizer()), np.log(case.joint.sum()), again)


def test_a_ring_built_from_nodes_of_ones_own(numpy_backend):
    tn = pytest.importorskip("tensornetwork")
    generator = np.random.default_rng(1)
    cores = [generator.random((3, 2, 4)), generator.random((2, 4, 2))]
    nodes = [
        tn.Node(cores[0].transpose(1, 0, 2), name="a", axis_names=["left", "component", "right"]),
        tn.Node(cores[1], name="b", axis_names=["component", "left", "right"]),
    ]
    nodes[0]["right"] ^ nodes[1]["left"]
    nodes[1]["right"] ^ nodes[0]["left"]
    ring = rd.TensorRing.from_tensornetwork(nodes, [rd.Categorical(3, "a"), rd.Categorical(2, "b")])
    expected = np.einsum("aij,bji->ab", *cores)
    assert_close(ring.to_dense(), expected / expected.sum(), ring)
