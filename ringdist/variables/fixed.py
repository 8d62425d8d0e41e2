"""Families whose parameters are not learned."""

from __future__ import annotations

from typing import Any, Self

from ringdist.backend import Array
from ringdist.variables.protocol import Family


class Fixed(Family):
    """A family without a closed-form M-step: EM changes only the cores, not its parameters."""

    streams = True

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        return {}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {}

    def from_statistics(self, statistics: dict[str, Array], least_std: Any = 0.0) -> Self:
        return self
