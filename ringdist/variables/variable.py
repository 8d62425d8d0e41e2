"""The protocol that users follow to write their own families."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ringdist.backend import Array


@runtime_checkable
class Variable(Protocol):
    """The protocol of a variable: `num_components` densities p(x | s) of a real number or an integer.

    `x` has any shape `(...)`; `component` holds integers 0..N-1. A variable is rebuilt by
    `type(variable)(**variable.arrays(), name=variable.name)`, or from `num_components` if
    `arrays()` is empty. Rings move between backends in this way, and
    `rd.load(path, families=(MyFamily,))` reads a family back.

    Optional members, whose defaults are documented by `Family`:

    - attributes: `integer = True` for non-negative integers; `positive`, the names of parameters that
      gradient descent must keep positive; `support`, the least and greatest value; `has_variance`,
      true if `from_statistics` also accepts a least standard deviation;
    - methods: the class method `stack(variables)`, to evaluate several columns in one operation;
      `in_support(x)`; `statistics`, `expected_statistics` and `from_statistics`, for EM on
      mini-batches.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> isinstance(rd.GaussianMixture([0.0, 1.0], [1.0, 1.0]), rd.Variable)
        True
    """

    name: str | None
    num_components: int

    def log_density(self, x: Array) -> Array:
        """log p(x | s), shape (..., N)."""

    def cdf(self, x: Array) -> Array:
        """P(X <= x | s), shape (..., N)."""

    def sample(self, component: Array, rng: Any) -> Array:
        """One sample from p(x | s) for each entry of `component`; `rng` is a generator or key of the backend."""

    def means(self) -> Array:
        """E[X | s], shape (N,)."""

    def variances(self) -> Array:
        """Var[X | s], shape (N,); inf or 0 if the square is out of the range of the dtype."""

    def inner(self, other: Any) -> Array:
        """Σ or ∫ p(x | s) q(x | t) over x, shape (N, N'), for a variable of the same family."""

    def update(self, x: Array, responsibilities: Array) -> Any:
        """The variable of highest expected log-likelihood, on the same device; NaN is ignored.

        Args:
            x: (n,) values.
            responsibilities: (n, N) weights of the components in each row.
        """

    def arrays(self) -> dict[str, Array]:
        """The parameters by the name of the constructor's argument, each of shape (N,)."""

    def check(self, x: Array) -> None:
        """Raise `ValueError` naming the rule and the finding unless every x is in the support."""
