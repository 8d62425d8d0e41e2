"""The trace of a ring's matrices by other libraries; tensornetwork, which is slow to import, is imported on use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import opt_einsum

from ringdist.backend import Array, backend_name, dtype_name, like, namespace, on_accelerator

_TENSORNETWORK_BACKEND = {"numpy": "numpy", "torch": "pytorch", "jax": "jax"}


def contract_with_opt_einsum(matrices: Sequence[Array]) -> Array:
    """Tr of the product of (b, m, n) matrices, (b,)."""
    d, symbol = len(matrices), opt_einsum.get_symbol
    terms = [symbol(d) + symbol(j) + symbol((j + 1) % d) for j in range(d)]
    return opt_einsum.contract(",".join(terms) + "->" + symbol(d), *matrices, optimize="greedy")


def contract_with_tensornetwork(matrices: Sequence[Array]) -> Array:
    """Tr of the product of (b, m, n) matrices, (b,), one row at a time: tensornetwork has no batch axis."""
    import tensornetwork

    traces = []
    for row in range(matrices[0].shape[0]):
        nodes = close_ring([node(a[row], None, ["left", "right"]) for a in matrices])
        traces.append(tensornetwork.contractors.greedy(nodes).tensor)
    return namespace(matrices[0]).stack(traces)


def node(tensor: Array, name: str | None, axes: list[str]) -> Any:
    """A `tensornetwork.Node` with named axes."""
    import tensornetwork

    return tensornetwork.Node(tensor, name, axes, backend=_TENSORNETWORK_BACKEND[backend_name(tensor)])


def copy_node(dimension: int, name: str, axes: list[str], prototype: Array) -> Any:
    """A `tensornetwork.CopyNode`, 1 if all its indices are equal and 0 otherwise, for nodes like `prototype`."""
    import tensornetwork

    backend, dtype = _TENSORNETWORK_BACKEND[backend_name(prototype)], np.dtype(dtype_name(prototype.dtype))
    copy = tensornetwork.CopyNode(len(axes), dimension, name, axes, backend=backend, dtype=dtype)
    if on_accelerator(prototype):  # the node's own tensor, made when it is asked for, is one of the host
        copy.tensor = like(copy.make_copy_tensor(len(axes), dimension, dtype), prototype)
    return copy


def close_ring(nodes: list[Any]) -> list[Any]:
    """The nodes with each one's right axis joined to the next one's left axis."""
    for one, following in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        _ = one["right"] ^ following["left"]
    return nodes
