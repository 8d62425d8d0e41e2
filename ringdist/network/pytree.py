"""Rings as JAX pytrees."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from ringdist.backend import is_array
from ringdist.variables import Form, as_family, rebuild


@dataclasses.dataclass
class _Placeholder:
    """Stands for a variable while JAX has other objects than arrays in a ring."""

    form: Form
    values: dict[str, Any]

    def arrays(self) -> dict[str, Any]:
        return self.values


@functools.cache
def register_ring(kind: Any) -> None:
    """Register a class of rings as a JAX pytree, with the arrays of cores and variables as leaves."""
    import jax

    def flatten(ring: Any) -> tuple[tuple[Any, ...], Any]:
        arrays = tuple(variable.arrays() for variable in ring.variables)
        forms = tuple(v.form if isinstance(v, _Placeholder) else as_family(v).form for v in ring.variables)
        return (ring.links, arrays), (forms, ring.order, ring.validate, ring.scattered)

    def unflatten(structure: Any, leaves: Any) -> Any:
        # JAX puts gradients, tracers and placeholders in the leaves' places: nothing is checked here.
        forms, order, validate, scattered = structure
        links, arrays = leaves
        variables = tuple(
            (rebuild if all(map(is_array, values.values())) else _Placeholder)(form, values)
            for form, values in zip(forms, arrays, strict=True)
        )
        ring: Any = object.__new__(kind)
        parts = {"links": tuple(links), "variables": variables, "order": order, "validate": validate}
        ring.__dict__.update(parts, scattered=scattered, owns_cores=False)
        return ring

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)


@functools.cache
def register_core(kind: Any) -> None:
    """Register a kind of cores as a JAX pytree whose leaves are its factors."""
    import jax

    def unflatten(names: Any, factors: Any) -> Any:
        core: Any = object.__new__(kind)
        return core.with_arrays(dict(zip(names, factors, strict=True)))

    jax.tree_util.register_pytree_node(
        kind, lambda core: (tuple(core.arrays().values()), tuple(core.arrays())), unflatten
    )
