"""`Core`: the protocol of the tensor at one column, as engines and queries use it."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

from ringdist.backend import Array
from ringdist.cores.semiring import Semiring


@runtime_checkable
class Core(Protocol):
    """A non-negative tensor Q of shape (N, m, m'): component, left bond, right bond.

    Rings use cores only through the operations below, so a core may store Q in any form. A new kind is one class;
    register it in `KINDS` so that files can hold it. `semiring` is the arithmetic, linear numbers or logarithms; states
    and weights are in its representation. b is the number of rows of data, r the number of values of the cut bond.
    Operations broadcast over rows: a single row of a state or of weights applies to all rows.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> core = rd.CPCore(right=np.ones((3, 2)))  # without left and emission: N = m = 3
        >>> isinstance(core, rd.Core), core.shape, core.subscripts
        (True, (3, 3, 2), 'cb->ccb')
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, m, m')."""

    def arrays(self) -> dict[str, Array]:
        """The factors by name; Q is linear in each of them."""

    def with_arrays(self, arrays: dict[str, Array]) -> Self:
        """The same kind of core with other factors, unchecked."""

    @property
    def subscripts(self) -> str:
        """Q as an einsum of the factors in the order of `arrays()`, such as "ac,sc,cb->sab".

        The three letters after the arrow are component, left and right bond; an identity repeats a letter there.
        """

    def dense(self) -> Array:
        """Q as an array (N, m, m')."""

    def transposed(self) -> Self:
        """The core with its bonds exchanged."""

    def matrix(self, weights: Array, semiring: Semiring) -> Array:
        """A = Σ_s weights[s] Q[s]: (b, N) -> (b, m, m')."""

    def push(self, state: Array, weights: Array, semiring: Semiring) -> Array:
        """state A: (b, r, m) and (b, N) -> (b, r, m')."""

    def gauged(self, left: Array | None, right: Array | None) -> Self:
        """The core with its bond indices scaled, diag(left) Q[s] diag(right), for (m,) and (m',) or None."""

    def environment(self, prefix: Array, suffix: Array, semiring: Semiring) -> Any:
        """The environment of the core for a prefix (b, r, m) and a suffix (b, r, m'), for the two methods below."""

    def components(self, environment: Any, semiring: Semiring) -> Array:
        """Σ_r prefix[r] Q[s] suffix[r] for every component, (b, N)."""

    def derivative(self, name: str, environment: Any, weights: Array) -> Array:
        """∂/∂(factor) Σ_b Σ_r prefix A suffix in linear numbers, of the factor's shape, for weights (b, N)."""

    def rows(self, left: Array, weights: Array, semiring: Semiring) -> Array:
        """A[left, :] for n draws of the left bond: (n,) and (n or 1, N) -> (n, m')."""

    def between(self, left: Array, right: Array, semiring: Semiring) -> Array:
        """Q[:, left, right] for n draws of both bonds: (n,) and (n,) -> (n, N)."""

    def absorbed(self, left: Array | None, right: Array | None) -> Core:
        """left Q[s] right for matrices (p, m) and (m', q), one of which may be None: of another kind if need be."""


KINDS: dict[str, type] = {}  # by the name that files use for a kind
