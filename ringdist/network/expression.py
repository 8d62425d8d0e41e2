"""The network as one `opt_einsum` expression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import opt_einsum

from ringdist.backend import Array, identity
from ringdist.network.structure import Network


def einsum(network: Network, open: Sequence[int | str] = ()) -> tuple[str, list[Array]]:
    """The opt_einsum equation and operands of P̂, summed over the component axes of all columns but the open ones.

    Args:
        open: columns whose component axes are left open, in the order of the result's axes.

    Returns:
        (equation, operands) for `opt_einsum.contract(equation, *operands)`, whose value has shape
        `[N_k for k in open]`. Operands are in ring order: a dense core with axes (component, left, right), or the
        factors of other cores, with identities as shared indices. If the components of two open columns are the same
        index, an identity matrix separates them.

    Raises:
        TypeError: if `open` is not a list of columns.
        ValueError: if a column is unknown or repeated.

    Examples:
        >>> import opt_einsum
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2), rd.Categorical(3)], rank=2, rng=0)
        >>> equation, operands = ring.einsum(open=[1])
        >>> opt_einsum.contract(equation, *operands).shape
        (3,)
    """
    if isinstance(open, str) or not isinstance(open, Iterable):
        raise TypeError(f"open must be a list of columns, found {open!r}; write open=[{open!r}]")
    sites = [network.place(k)[0] for k in open]
    if len(set(sites)) != len(sites):
        raise ValueError(f"open columns must differ, and be of different variables, found {list(open)}")
    d = network.num_variables
    indices = _Indices(2 * d)  # of bonds, followed by those of components
    operands: list[Array] = []
    terms: list[list[int]] = []
    for j, k in enumerate(network.order):
        core = network.links[k]
        inputs, output = core.subscripts.split("->")
        index = defaultdict[str, int](indices.new)
        for letter, place in zip(output, (d + k, j, (j + 1) % d), strict=True):
            indices.join(index.setdefault(letter, place), place)
        for term in inputs.split(","):
            terms.append([index[letter] for letter in term])
        operands += core.arrays().values()
    result: list[int] = []
    for k in sites:  # two components that are one index have a table that is diagonal
        place, taken = d + k, [indices.symbol(i) for i in result]
        if indices.symbol(place) in taken:
            terms.append([place, indices.new()])
            operands.append(identity(network.shape[k], network.prototype))
            place = terms[-1][1]
        result.append(place)
    text = ",".join("".join(map(indices.symbol, term)) for term in terms)
    return text + "->" + "".join(map(indices.symbol, result)), operands


class _Indices:
    """Indices of an expression; an identity makes the two indices that it joins equal."""

    def __init__(self, count: int):
        self._parent: list[int] = list(range(count))

    def new(self) -> int:
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def join(self, a: int, b: int) -> None:
        self._parent[self._root(a)] = self._root(b)

    def symbol(self, i: int) -> str:
        symbol: str = opt_einsum.get_symbol(self._root(i))
        return symbol

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            i = self._parent[i]
        return i
