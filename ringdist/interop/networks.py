"""The ring as nodes of `tensornetwork`, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ringdist.backend import Array, namespace
from ringdist.cores import LINEAR, Core, CPCore
from ringdist.engines.libraries import close_ring, copy_node, node
from ringdist.network import Evidence, Network
from ringdist.network.rows import as_rows
from ringdist.variables import Variable, as_family


def to_tensornetwork(ring: Network, x: Any = None) -> list[Any]:
    """Connected `tensornetwork` nodes in ring order, named as the variables (`x3` for an unnamed variable 3).

    Args:
        x: (d,) a point, NaN where marginalised. None leaves every component edge dangling.

    Returns:
        With x, one node per column with axes "left" and "right"; they contract to exp(log_prob(x) + log_normalizer()).
        Without x, a dense core is one node with axes "left", "right" and "component". A CP core is a copy node
        connected to its factors; the emission, or the copy node if there is none, has the dangling axis "component".

    Raises:
        ValueError: if x does not have shape (d,), or is outside its variables' support.

    Examples:
        >>> import numpy as np
        >>> import tensornetwork
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2)] * 3, rank=2, rng=0)
        >>> nodes = ring.to_tensornetwork([0, 1, np.nan])
        >>> [node.name for node in nodes]
        ['x0', 'x1', 'x2']
        >>> value = tensornetwork.contractors.auto(nodes).tensor
        >>> bool(np.isclose(value, np.exp(ring.log_prob([0, 1, np.nan]) + ring.log_normalizer())))
        True
    """
    names = node_names(ring.variables)
    if x is None:
        groups = [_nodes(ring.links[k], names[k]) for k in ring.order]
        for one, following in zip(groups, groups[1:] + groups[:1], strict=True):
            _ = one.exit["right"] ^ following.entry["left"]
        return [each for group in groups for each in group.nodes]
    rows, shape = as_rows(ring, x)
    if shape != ():
        raise ValueError(f"x must have shape ({ring.num_columns},), found {(*shape, ring.num_columns)}")
    evidence = Evidence.of_rows(ring, rows)
    scale = namespace(rows).exp(evidence.offset[0] / ring.num_variables)  # spread, so that no node over- or underflows
    nodes = []
    for k in ring.order:
        matrix = ring.links[k].matrix(evidence.weights(k) * scale, LINEAR)[0]
        nodes.append(node(matrix, names[k], ["left", "right"]))
    return close_ring(nodes)


class _Nodes(NamedTuple):
    """The nodes of one core: that with its left bond, and that with its right bond."""

    nodes: list[Any]
    entry: Any
    exit: Any


def _nodes(core: Core, name: str) -> _Nodes:
    if not isinstance(core, CPCore):
        tensor = core.dense()
        one = node(namespace(tensor).permute_dims(tensor, (1, 2, 0)), name, ["left", "right", "component"])
        return _Nodes([one], one, one)
    copy = copy_node(core.inner, name, ["left", "component", "right"], next(iter(core.arrays().values())))
    nodes, entry, exit = [copy], copy, copy
    if core.emission is not None:
        copy.set_name(f"{name}.hidden")
        nodes.insert(0, node(core.emission, name, ["component", "hidden"]))
        _ = nodes[0]["hidden"] ^ copy["component"]
    if core.left is not None:
        entry = node(core.left, f"{name}.left", ["left", "right"])
        _ = entry["right"] ^ copy["left"]
        nodes.insert(0, entry)
    if core.right is not None:
        exit = node(core.right, f"{name}.right", ["left", "right"])
        _ = exit["left"] ^ copy["right"]
        nodes.append(exit)
    return _Nodes(nodes, entry, exit)


def from_tensornetwork(nodes: Sequence[Any], variables: Sequence[Variable]) -> tuple[list[Array], list[int]]:
    """Cores by column and the order of the ring that connected nodes form.

    Nodes have axes "left", "right" and "component"; the right edge of each node is the left edge of the next. A node
    belongs to the variable of its name (`x3`: column 3); if the names do not match, node i belongs to variable i.

    Raises:
        ValueError: if axes are missing or the nodes do not form one closed ring.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2)] * 3
        >>> ring = rd.TensorRing.random(variables, rank=2, rng=0)
        >>> again = rd.TensorRing.from_tensornetwork(ring.to_tensornetwork(), variables)
        >>> np.allclose(again.to_dense(), ring.to_dense())
        True
    """
    nodes, variables = list(nodes), list(variables)
    if len(nodes) != len(variables) or not nodes:
        raise ValueError(f"there must be one node per variable, found {len(nodes)} nodes, {len(variables)} variables")
    for one in nodes:
        if sorted(one.axis_names) != ["component", "left", "right"]:
            raise ValueError(f"nodes need the axes left, right and component, node {one.name!r} has {one.axis_names}")
    names = node_names(variables)
    by_name = sorted(names) == sorted(str(one.name) for one in nodes)
    column = {id(one): names.index(one.name) if by_name else i for i, one in enumerate(nodes)}
    walk, current = [], nodes[0]
    for _ in nodes:
        walk.append(current)
        edge = current["right"]
        if edge.is_dangling():
            raise ValueError(f"the right edge of node {current.name!r} is dangling: the ring is not closed")
        neighbour = (
            edge.node2 if edge.node1 is current and edge.axis1 == current.get_axis_number("right") else edge.node1
        )
        if neighbour["left"] is not edge or id(neighbour) not in column:
            raise ValueError(
                f"the right edge of node {current.name!r} must join the left axis of another node of the ring"
            )
        current = neighbour
    if current is not nodes[0] or len({id(n) for n in walk}) != len(nodes):
        raise ValueError(f"the nodes must form one ring, found a cycle that leaves some of the {len(nodes)} nodes out")
    cores: list[Array] = [None] * len(nodes)
    for current in walk:
        axes = tuple(current.get_axis_number(axis) for axis in ("component", "left", "right"))
        cores[column[id(current)]] = namespace(current.tensor).permute_dims(current.tensor, axes)
    return cores, [column[id(current)] for current in walk]


def node_names(variables: Sequence[Variable]) -> list[str]:
    """The variables' names, `x3` for an unnamed variable 3, `height+weight` for one of two columns.

    Examples:
        >>> import ringdist as rd
        >>> node_names([rd.Categorical(2, name="rain"), rd.Categorical(3)])
        ['rain', 'x1']
    """
    names = [[name for name in as_family(variable).names if name is not None] for variable in variables]
    return ["+".join(own) if own else f"x{i}" for i, own in enumerate(names)]
