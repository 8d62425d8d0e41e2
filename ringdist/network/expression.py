"""The network as one expression of `opt_einsum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import opt_einsum

from ringdist.backend import Array
from ringdist.network.structure import Network


def einsum(network: Network, open: Sequence[int | str] = ()) -> tuple[str, list[Array]]:
    """The opt_einsum equation and operands of P̂, summed over the component axes of all columns but the open ones.

    Args:
        open: columns whose component axes are left open, in the order of the result's axes.

    Returns:
        (equation, operands) for `opt_einsum.contract(equation, *operands)`, whose value has shape
        `[N_k for k in open]`. Operands stand in ring order: a dense core with axes (component, left, right), and the
        factors of a CP core as they are, identities as shared indices.

    Raises:
        ValueError: if a column is unknown or repeated.

    Example:
        >>> import opt_einsum
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2), rd.Categorical(3)], rank=2, rng=0)
        >>> equation, operands = ring.einsum(open=[1])
        >>> opt_einsum.contract(equation, *operands).shape
        (3,)
    """
    columns = [network.column(k) for k in open]
    if len(set(columns)) != len(columns):
        raise ValueError(f"open columns must differ, found {list(open)}")
    d = network.num_variables
    indices = _Indices(3 * d)
    operands: list[Array] = []
    terms: list[tuple[int, ...]] = []
    for j, k in enumerate(network.order):
        left, right, component, hidden = j, (j + 1) % d, d + k, 2 * d + k
        axes = {
            "core": (component, left, right),
            "left": (left, hidden),
            "emission": (component, hidden),
            "right": (hidden, right),
        }
        arrays = network.links[k].arrays()
        if "core" not in arrays:
            for name in {"left", "emission", "right"} - arrays.keys():
                indices.join(*axes[name])
        operands += arrays.values()
        terms += [axes[name] for name in arrays]
    text = ",".join("".join(indices.symbol(i) for i in term) for term in terms)
    return text + "->" + "".join(indices.symbol(d + k) for k in columns), operands


class _Indices:
    """Indices of an expression, some of which are one and the same because an identity joins them."""

    def __init__(self, count: int):
        self._parent: list[int] = list(range(count))

    def join(self, a: int, b: int) -> None:
        self._parent[self._root(a)] = self._root(b)

    def symbol(self, i: int) -> Any:
        return opt_einsum.get_symbol(self._root(i))

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            i = self._parent[i]
        return i
