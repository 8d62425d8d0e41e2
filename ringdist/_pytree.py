"""Rings within JAX's transformations."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from ringdist._backend import is_array
from ringdist.variables import rebuild

if TYPE_CHECKING:
    from ringdist.ring import TensorRing


@dataclasses.dataclass
class _Stand:
    """In the place of a variable while JAX keeps other things than arrays in a ring."""

    family: type
    num_components: int
    name: str | None
    values: dict[str, Any]

    def arrays(self) -> dict[str, Any]:
        return self.values


@functools.cache
def register_pytree(kind: type[TensorRing]) -> None:
    """Make the class of rings a JAX pytree: cores and the variables' arrays are leaves, all else is structure."""
    import jax

    def flatten(ring: TensorRing) -> tuple[tuple[Any, ...], Any]:
        arrays = tuple(variable.arrays() for variable in ring.variables)
        kinds = tuple(
            (v.family if isinstance(v, _Stand) else type(v), v.num_components, v.name) for v in ring.variables
        )
        return (ring.cores, arrays), (kinds, ring.order, ring.validate)

    def unflatten(structure: Any, leaves: Any) -> TensorRing:
        variables: tuple[Any, ...]
        # JAX puts gradients, tracers and placeholders in the leaves' places: nothing is checked here.
        kinds, order, validate = structure
        cores, arrays = leaves
        variables = tuple(
            (rebuild if all(map(is_array, values.values())) else _Stand)(family, size, name, values)
            for (family, size, name), values in zip(kinds, arrays, strict=True)
        )
        ring = object.__new__(kind)
        ring._set(tuple(cores), variables, order, validate, (None,) * len(cores))
        return ring

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)
