"""The einsum expression and the nodes of a ring contract to the enumerated joint."""

import numpy as np
import opt_einsum
import pytest

from tests import oracle
from tests.backends import assert_close
from tests.structured import STRUCTURED, TABLES

pytestmark = pytest.mark.slow_on("jax")


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
