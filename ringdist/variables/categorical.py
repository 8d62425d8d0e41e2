"""Categorical variables, whose components are their values."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, astype, like, namespace, value_range
from ringdist.variables.checks import check_name
from ringdist.variables.protocol import Family


class Categorical(Family):
    """A variable whose components are its values 0..N-1.

    p(x | s) = 1 if x = s else 0

    Args:
        num_categories: number of values N, at least 1.
        name: the column's name, or None.

    Raises:
        TypeError: if `num_categories` is not an integer or the name not a string.
        ValueError: if `num_categories` is less than 1.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> rd.Categorical(3, name="colour").log_density(np.array([2.0]))
        array([[-inf, -inf,   0.]])
    """

    integer = True
    values_are_components = True
    stacks = True
    streams = True

    def __init__(self, num_categories: int, name: str | None = None):
        if isinstance(num_categories, bool) or not isinstance(num_categories, int | np.integer):
            raise TypeError(f"num_categories must be an integer, found {num_categories!r}")
        if num_categories < 1:
            raise ValueError(f"num_categories must be at least 1, found {num_categories}")
        self._set(int(num_categories), check_name(name), {})

    @property
    def support(self) -> tuple[float, float]:  # type: ignore[override]
        """0 and N − 1."""
        return 0.0, self.num_components - 1.0

    def log_density(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.where(x[..., None] == self._values(x), 0.0, like(-np.inf, x))

    def cdf(self, x: Array) -> Array:
        return astype(self._values(x) <= x[..., None], x.dtype)

    def sample(self, component: Array, rng: Any) -> Array:
        return component

    def means(self) -> Array:
        return np.arange(self.num_components, dtype=np.float64)

    def variances(self) -> Array:
        return np.zeros(self.num_components)

    def inner(self, other: Any) -> Array:
        self._check_sibling(other)
        return np.eye(self.num_components, other.num_components)

    def in_support(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.isnan(x) | ((x >= 0) & (x < self.num_components) & (x == xp.floor(x)))

    def _finding(self, value: float) -> str:
        if value != value or math.isinf(value) or value == math.floor(value):
            return f"category {value:g} is outside 0..{self.num_components - 1}"
        return f"categories are integers 0..{self.num_components - 1}, found {value:g}"

    @classmethod
    def placed(cls, observed: np.ndarray, num_components: int, method: str, limits: np.finfo, **options: Any) -> Self:
        """All categories up to the greatest observed; `num_components` is ignored."""
        wrong = observed[(observed != np.floor(observed)) | (observed < 0)]
        if wrong.size:
            raise ValueError(f"categories must be integers from 0, found {wrong[0]:g}")
        return cls(int(observed.max()) + 1, **options)

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        return {}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Self:
        return self

    def _values(self, x: Array) -> Array:
        return value_range(self.num_components, x)
