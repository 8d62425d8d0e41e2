"""The ring as a network of other libraries: opt_einsum expressions and tensornetwork nodes.

tensornetwork is unmaintained upstream and slow to import, so it is imported only when used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import opt_einsum

from ringdist._backend import Array, backend_name, namespace
from ringdist._evidence import Evidence, as_rows
from ringdist.variables import Variable

if TYPE_CHECKING:
    from ringdist.ring import TensorRing

_TENSORNETWORK_BACKEND = {"numpy": "numpy", "torch": "pytorch", "jax": "jax"}


def einsum(ring: TensorRing, open: Sequence[int | str] = ()) -> tuple[str, list[Array]]:
    """The opt_einsum equation and operands of P̂, summed over the component axes of all columns but the open ones.

    Args:
        open: columns whose component axes are left open, in the order of the result's axes.

    Returns:
        (equation, operands) for `opt_einsum.contract(equation, *operands)`, whose value has shape
        `[N_k for k in open]`; operands are the cores in ring order, axes (component, left, right).
    """
    columns = [ring.column(k) for k in open]
    if len(set(columns)) != len(columns):
        raise ValueError(f"open columns must differ, found {list(open)}")
    d = ring.num_variables
    symbol = opt_einsum.get_symbol
    terms = [symbol(d + k) + symbol(j) + symbol((j + 1) % d) for j, k in enumerate(ring.order)]
    output = "".join(symbol(d + k) for k in columns)
    return ",".join(terms) + "->" + output, [ring.cores[k] for k in ring.order]


def contract_with_opt_einsum(matrices: list[Array]) -> Array:
    """Tr of the product of (b, m, n) matrices, (b,)."""
    d, symbol = len(matrices), opt_einsum.get_symbol
    terms = [symbol(d) + symbol(j) + symbol((j + 1) % d) for j in range(d)]
    return opt_einsum.contract(",".join(terms) + "->" + symbol(d), *matrices, optimize="greedy")


def contract_with_tensornetwork(matrices: list[Array]) -> Array:
    """Tr of the product of (b, m, n) matrices, (b,), one row at a time: tensornetwork has no batch axis."""
    import tensornetwork

    xp = namespace(matrices[0])
    traces = []
    for row in range(matrices[0].shape[0]):
        nodes = _close_ring([_node(a[row], None, ["left", "right"]) for a in matrices])
        traces.append(tensornetwork.contractors.greedy(nodes).tensor)
    return xp.stack(traces)


def to_tensornetwork(ring: TensorRing, x: Any = None) -> list[Any]:
    """Connected `tensornetwork.Node`s in ring order, named as the variables (`x3` for an unnamed column 3).

    Args:
        x: (d,) a point, NaN where marginalised. None leaves every component edge dangling.

    Returns:
        d nodes with axes "left", "right" and, where x is None, "component". With x they contract to
        exp(log_prob(x) + log_normalizer()).

    Raises:
        ValueError: if x is not of shape (d,), or outside its variables' support.
    """
    names = node_names(ring.variables)
    if x is None:
        xp = namespace(ring.cores[0])
        tensors = [xp.permute_dims(ring.cores[k], (1, 2, 0)) for k in ring.order]
        return _close_ring(
            [
                _node(tensor, names[k], ["left", "right", "component"])
                for k, tensor in zip(ring.order, tensors, strict=True)
            ]
        )
    rows, shape = as_rows(ring, x)
    if shape != ():
        raise ValueError(f"x must have shape ({ring.num_variables},), found {(*shape, ring.num_variables)}")
    evidence = Evidence.of_rows(ring, rows)
    scale = namespace(rows).exp(evidence.offset[0] / ring.num_variables)  # spread, so that no node over- or underflows
    nodes = []
    for k in ring.order:
        size, left, right = ring.cores[k].shape
        matrix = (evidence.weights(k)[0] * scale) @ ring.cores[k].reshape((size, left * right))
        nodes.append(_node(matrix.reshape((left, right)), names[k], ["left", "right"]))
    return _close_ring(nodes)


def from_tensornetwork(nodes: Sequence[Any], variables: Sequence[Variable]) -> TensorRing:
    """The ring of connected nodes with axes "left", "right" and "component", each node's right edge on the next's left.

    Nodes belong to the variables of their name (`x3`: column 3); if the names do not match, node i to variable i.

    Raises:
        ValueError: if axes are missing or the nodes do not form one closed ring.
    """
    from ringdist.ring import TensorRing

    nodes, variables = list(nodes), list(variables)
    if len(nodes) != len(variables) or not nodes:
        raise ValueError(f"there must be one node per variable, found {len(nodes)} nodes, {len(variables)} variables")
    for node in nodes:
        if sorted(node.axis_names) != ["component", "left", "right"]:
            raise ValueError(f"nodes need the axes left, right and component, node {node.name!r} has {node.axis_names}")
    names = node_names(variables)
    by_name = sorted(names) == sorted(str(node.name) for node in nodes)
    column = {id(node): names.index(node.name) if by_name else i for i, node in enumerate(nodes)}
    walk, node = [], nodes[0]
    for _ in nodes:
        walk.append(node)
        edge = node["right"]
        if edge.is_dangling():
            raise ValueError(f"the right edge of node {node.name!r} is dangling: the ring is not closed")
        neighbour = edge.node2 if edge.node1 is node and edge.axis1 == node.get_axis_number("right") else edge.node1
        if neighbour["left"] is not edge or id(neighbour) not in column:
            raise ValueError(
                f"the right edge of node {node.name!r} must join the left axis of another node of the ring"
            )
        node = neighbour
    if node is not nodes[0] or len({id(n) for n in walk}) != len(nodes):
        raise ValueError(f"the nodes must form one ring, found a cycle that leaves some of the {len(nodes)} nodes out")
    cores: list[Array] = [None] * len(nodes)
    for node in walk:
        axes = tuple(node.get_axis_number(axis) for axis in ("component", "left", "right"))
        cores[column[id(node)]] = namespace(node.tensor).permute_dims(node.tensor, axes)
    return TensorRing(cores, variables, [column[id(node)] for node in walk])


def node_names(variables: Sequence[Variable]) -> list[str]:
    """The variables' names, `x3` for an unnamed column 3."""
    return [v.name if v.name is not None else f"x{k}" for k, v in enumerate(variables)]


def _node(tensor: Array, name: str | None, axes: list[str]) -> Any:
    import tensornetwork

    return tensornetwork.Node(tensor, name, axes, backend=_TENSORNETWORK_BACKEND[backend_name(tensor)])


def _close_ring(nodes: list[Any]) -> list[Any]:
    for node, following in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        _ = node["right"] ^ following["left"]
    return nodes
