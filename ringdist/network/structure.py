"""`Network`: the frozen structure of a ring, used by engines and queries.

It has cores, variables and their sequence around the ring, and does not depend on the queries.
`TensorRing` is this structure with the queries bound to it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Self

from ringdist.backend import (
    Array,
    backend_name,
    cached_property,
    convert,
    is_concrete,
    lasting,
    stop_gradient,
)
from ringdist.cores import Core, DenseCore, as_core, sources
from ringdist.network.checks import check_core, check_families, check_shapes, check_variables
from ringdist.network.layout import Column, Columns, Layout
from ringdist.network.ownership import as_given, converted_core, copied, fixed, is_lasting, records_gradient
from ringdist.network.pytree import register_core, register_ring
from ringdist.variables import Family, Variable, as_family


class Network:
    """Cores and variables in their order around a ring; see `TensorRing` for the arguments."""

    links: tuple[Core, ...]  # the cores by site, for engines and queries; arrays are `DenseCore`s
    variables: tuple[Variable, ...]
    order: tuple[int, ...]
    validate: bool
    owns_cores: bool
    scattered: tuple[tuple[int, ...], ...] | None  # the columns of every variable where they are not consecutive

    def __init__(
        self,
        cores: Sequence[Array | Core],
        variables: Sequence[Variable],
        order: Sequence[Column] | None = None,
        columns: Columns | None = None,
        *,
        validate: bool = True,
        copy: bool = True,
    ):
        given, variables = tuple(as_core(core) for core in cores), tuple(variables)
        if len(given) != len(variables) or not given:
            raise ValueError(
                f"there must be one core per variable, found {len(given)} cores, {len(variables)} variables"
            )
        check_variables(variables)
        layout = Layout(variables, columns)
        check_families(given, variables, layout)
        order = tuple(range(len(given))) if order is None else tuple(map(layout.site, order))
        if sorted(order) != list(range(len(given))):
            raise ValueError(f"order must be a permutation of the {len(given)} variables, found {list(order)}")
        arrays = [array for core in given for array in sources(core)]
        owns = copy and is_concrete(*arrays) and not any(records_gradient(array) for array in arrays)
        check_shapes(given, variables, order, layout)
        if layout.is_plain and not layout.is_consecutive:  # then sites are columns
            sites = [i for i, _ in layout.places]
            given, variables = tuple(given[i] for i in sites), tuple(variables[i] for i in sites)
            order, layout = tuple(layout.columns[i][0] for i in order), Layout(variables)
        links = tuple(map(copied, given)) if owns else given
        self._set(links, variables, order, bool(validate), owns, None if layout.is_consecutive else layout.columns)
        for name in ("ranks", "shape", "sequence", "families", "layout", "groups", "is_dense", "core_size"):
            getattr(self, name)  # torch.compile compiles again where they come later
        if validate and is_concrete(*arrays):
            for k, core in enumerate(self.links):
                check_core(core, layout.describe_site(k))

    def _set(
        self,
        links: tuple[Core, ...],
        variables: tuple[Variable, ...],
        order: tuple[int, ...],
        validate: bool,
        owns_cores: bool,
        scattered: tuple[tuple[int, ...], ...] | None,
    ) -> None:
        values = {"links": links, "variables": variables, "order": order, "validate": validate, "scattered": scattered}
        for name, value in {**values, "owns_cores": owns_cores}.items():  # PyTorch 2.11 traces no __dict__.update
            object.__setattr__(self, name, value)
        if backend_name(self.prototype) == "jax":
            kind: Any = type(self)
            register_ring(kind)
            for family in {type(core): None for core in links}:  # torch.compile traces no set of classes
                register_core(family)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"rings are immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"rings are immutable: {name} cannot be deleted")

    # --------------------------------------------------------------------------------------------- properties

    @cached_property
    def cores(self) -> tuple[Any, ...]:
        """The core of every site: an array, or a core of another kind.

        Of a PyTorch ring that owns its cores these are copies, made when first asked for: nothing that is written to
        them reaches the ring.
        """
        copies = self.owns_cores and backend_name(self.prototype) == "torch"
        return tuple(as_given(copied(core) if copies else core) for core in self.links)

    @cached_property
    def prototype(self) -> Array:
        """One of the arrays that cores are made of, a traced one if any is: all have its backend, dtype and device."""
        arrays = self.core_arrays()
        if is_concrete(arrays[0]) and not is_concrete(*arrays):
            return next(array for array in arrays if not is_concrete(array))
        return arrays[0]

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """`ranks[j]`: the left bond of `cores[order[j]]`."""
        return tuple(int(self.links[k].shape[1]) for k in self.order)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """N of every variable."""
        return tuple(int(core.shape[0]) for core in self.links)

    @property
    def num_variables(self) -> int:
        """The number of variables, which is d unless one of them is wide."""
        return len(self.links)

    @property
    def num_columns(self) -> int:
        """d, the number of columns of x."""
        return self.layout.num_columns

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """The columns of every variable: several of a wide one, in the order of its own."""
        return self.layout.columns

    @property
    def num_parameters(self) -> int:
        """Numbers in the cores and in the variables' arrays."""
        arrays = [array for variable in self.variables for array in variable.arrays().values()]
        return self.core_size + sum(math.prod(array.shape) for array in arrays)

    @cached_property
    def core_size(self) -> int:
        """Numbers in the cores."""
        return sum(math.prod(array.shape) for array in self.core_arrays())

    @property
    def is_train(self) -> bool:
        """Whether some bond has rank 1."""
        return min(self.ranks) == 1

    @cached_property
    def is_dense(self) -> bool:
        """Whether all cores are arrays."""
        return all(isinstance(core, DenseCore) for core in self.links)

    @cached_property
    def sequence(self) -> tuple[int, ...]:
        """The sites in ring order from the thinnest bond, where the engines cut."""
        ranks = self.ranks
        cut = ranks.index(min(ranks))
        return self.order[cut:] + self.order[:cut]

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The variables by site, each as a `Family` that answers optional questions too."""
        return tuple(as_family(variable) for variable in self.variables)

    @cached_property
    def layout(self) -> Layout:
        """Which columns belong to which site."""
        return Layout(self.families, self.scattered)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Sites that one call can evaluate: those of one stackable family and form; others stand alone."""
        groups: dict[Any, list[int]] = {}
        for i, family in enumerate(self.families):
            groups.setdefault(family.form.nameless if family.stacks else i, []).append(i)
        return tuple(map(tuple, groups.values()))

    def core_arrays(self) -> tuple[Array, ...]:
        """The arrays that all cores are made of, site by site: their factors, or those of a switch."""
        return self._core_arrays

    @cached_property
    def _core_arrays(self) -> tuple[Array, ...]:
        return tuple(array for core in self.links for array in sources(core))

    def column(self, k: Column) -> int:
        """The index of a column given by index or name; `ValueError` if there is none."""
        return self.layout.column(k)

    def place(self, k: Column) -> tuple[int, int]:
        """The site of a column given by index or name, and the column's place among those of its variable."""
        return self.layout.places[self.layout.column(k)]

    def describe(self, k: int) -> str:
        """The column as error messages name it: column 3 ('age')."""
        return self.layout.describe(k)

    def describe_site(self, i: int) -> str:
        """The columns of a site as error messages name them: columns 3, 4 ('age', 'height')."""
        return self.layout.describe_site(i)

    # --------------------------------------------------------------------------------------------- others like it

    def rebuilt(
        self, cores: Sequence[Any], variables: Sequence[Variable], order: Sequence[int], columns: Columns
    ) -> Self:
        """A ring of the same class from other parts, checked."""
        return type(self)(cores, variables, order, columns, validate=self.validate)

    def with_values(self, cores: Sequence[Any], variables: Sequence[Variable] | None = None) -> Self:
        """A ring of the same structure with new cores, which are neither checked nor copied."""
        links = tuple(fixed(as_core(core)) for core in cores)
        arrays = [array for core in links for array in sources(core)]
        ring = object.__new__(type(self))
        owns = is_concrete(*arrays) and not any(records_gradient(array) for array in arrays)
        ring._set(links, tuple(variables or self.variables), self.order, self.validate, owns, self.scattered)
        return ring

    def replaced(self, k: int, core: Any, variable: Variable) -> Self:
        """The ring with another core and variable at site k, unchecked."""
        links, variables = list(self.links), list(self.variables)
        links[k], variables[k] = as_core(core), variable
        return self.with_values(links, variables)

    def detach(self) -> Self:
        """The same ring with cores and variables that carry no gradient."""
        return self._detached([_detached_variable(v) for v in self.variables])

    def detached_cores(self) -> Self:
        """The same ring with cores that record no gradients, for drawing components."""
        return self._detached(self.variables)

    def _detached(self, variables: Sequence[Variable]) -> Self:
        if not any(records_gradient(array) for array in self.core_arrays()) and all(
            new is old for new, old in zip(variables, self.variables, strict=True)
        ):
            return self
        links = [converted_core(core, stop_gradient) for core in self.links]
        ring = object.__new__(type(self))
        ring._set(tuple(links), tuple(variables), self.order, self.validate, self.owns_cores, self.scattered)
        return ring

    # ---------------------------------------------------------------------------------------------------- memory

    @cached_property
    def _memory(self) -> dict[str, Any]:
        """Cached results."""
        return {}

    def remembered(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of `compute`: cached if the ring owns its cores, otherwise computed each time."""
        if not self.owns_cores or not is_concrete(self.prototype):
            return compute()
        if name not in self._memory:
            with lasting(self.prototype):
                value = compute()
            if not is_lasting(value):
                return value
            self._memory[name] = value
        return self._memory[name]

    def __getstate__(self) -> dict[str, Any]:
        """The parts of the ring, without cached results."""
        return {name: self.__dict__[name] for name in ("links", "variables", "order", "validate", "scattered")}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy that shares no array; `ValueError` where arrays are computed from parameters."""
        variables = [array for variable in self.variables for array in variable.arrays().values()]
        if any(records_gradient(array) and not array.is_leaf for array in (*self.core_arrays(), *variables)):
            raise ValueError(
                "a ring whose arrays are computed from parameters cannot be copied with them; copy ring.detach(), or "
                "the module that holds the parameters"
            )
        ring = object.__new__(type(self))
        ring.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return ring

    def __setstate__(self, state: dict[str, Any]) -> None:
        links = tuple(map(fixed, state["links"]))
        scattered = state.get("scattered")  # rings that were pickled before there was a choice have none
        self._set(links, state["variables"], state["order"], state["validate"], False, scattered)
        self.__dict__["owns_cores"] = not any(map(records_gradient, self.core_arrays()))


def mapped(core: Core, function: Callable[[Array], Array]) -> Core:
    """The core with a function applied to its factors; the same core if nothing changes."""
    arrays = core.arrays()
    changed = {name: function(array) for name, array in arrays.items()}
    return core if all(changed[name] is array for name, array in arrays.items()) else core.with_arrays(changed)


def _detached_variable(variable: Variable) -> Variable:
    arrays = variable.arrays()
    fixed = {name: stop_gradient(array) for name, array in arrays.items()}
    if all(fixed[name] is array for name, array in arrays.items()):
        return variable
    detached: Variable = as_family(variable).with_arrays(fixed).variable
    return detached


def converted_variable(variable: Variable, xp: ModuleType | None, dtype: Any, device: Any) -> Variable:
    """The variable with its arrays in another backend or dtype or on another device."""
    arrays = variable.arrays()
    if not arrays:
        return variable
    moved = {key: convert(array, xp, dtype, device) for key, array in arrays.items()}
    converted: Variable = as_family(variable).with_arrays(moved).variable
    return converted
