"""`Network`: the frozen structure of a ring, which engines and queries take and give.

It holds cores, variables and their sequence around the ring, and knows nothing of what is computed with them.
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
    frozen,
    is_array,
    is_concrete,
    lasting,
    stop_gradient,
)
from ringdist.cores import Core, DenseCore, as_core
from ringdist.network.checks import (
    Column,
    check_core,
    check_families,
    check_shapes,
    column_index,
    describe_column,
)
from ringdist.network.pytree import register_core, register_ring
from ringdist.variables import Family, Variable, as_family


class Network:
    """Cores and variables of d columns in their order around a ring; see `TensorRing` for the arguments."""

    links: tuple[Core, ...]  # the cores by column, arrays as `DenseCore`: what engines and queries work with
    variables: tuple[Variable, ...]
    order: tuple[int, ...]
    validate: bool
    owns_cores: bool

    def __init__(
        self,
        cores: Sequence[Array | Core],
        variables: Sequence[Variable],
        order: Sequence[Column] | None = None,
        *,
        validate: bool = True,
        copy: bool = True,
    ):
        given, variables = tuple(as_core(core) for core in cores), tuple(variables)
        if len(given) != len(variables) or not given:
            raise ValueError(
                f"there must be one core per variable, found {len(given)} cores, {len(variables)} variables"
            )
        check_families(given, variables)
        order = tuple(range(len(given))) if order is None else tuple(column_index(k, variables) for k in order)
        if sorted(order) != list(range(len(given))):
            raise ValueError(f"order must be a permutation of the {len(given)} columns, found {list(order)}")
        arrays = [array for core in given for array in core.arrays().values()]
        owns = copy and is_concrete(*arrays) and not any(_records_gradient(array) for array in arrays)
        check_shapes(given, variables, order)
        self._set(tuple(map(_copied, given)) if owns else given, variables, order, bool(validate), owns)
        for name in ("ranks", "shape", "sequence", "families", "groups", "is_dense", "core_size"):
            getattr(self, name)  # torch.compile compiles again where they come later
        if validate and is_concrete(*arrays):
            for k, core in enumerate(self.links):
                check_core(core, describe_column(k, variables))

    def _set(
        self,
        links: tuple[Core, ...],
        variables: tuple[Variable, ...],
        order: tuple[int, ...],
        validate: bool,
        owns_cores: bool,
    ) -> None:
        values = {"links": links, "variables": variables, "order": order, "validate": validate}
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

    # ------------------------------------------------------------------------------------------------ what it is

    @cached_property
    def cores(self) -> tuple[Any, ...]:
        """The core of every column: an array, or a core of another kind.

        Of a PyTorch ring that owns its cores these are copies, made when first asked for: nothing that is written to
        them reaches the ring.
        """
        copies = self.owns_cores and backend_name(self.prototype) == "torch"
        return tuple(_as_given(_copied(core) if copies else core) for core in self.links)

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
        """N_k of every column."""
        return tuple(int(core.shape[0]) for core in self.links)

    @property
    def num_variables(self) -> int:
        """d, the number of columns."""
        return len(self.links)

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
        """The columns in ring order from the thinnest bond, where the engines cut."""
        ranks = self.ranks
        cut = ranks.index(min(ranks))
        return self.order[cut:] + self.order[:cut]

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The variables by column, each as a `Family` that answers optional questions too."""
        return tuple(as_family(variable) for variable in self.variables)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Columns that one call can evaluate: those of one stackable family and form; other columns stand alone."""
        groups: dict[Any, list[int]] = {}
        for k, family in enumerate(self.families):
            groups.setdefault(family.form._replace(name=None) if family.stacks else k, []).append(k)
        return tuple(tuple(columns) for columns in groups.values())

    def core_arrays(self) -> tuple[Array, ...]:
        """All factors of all cores, column by column."""
        return self._core_arrays

    @cached_property
    def _core_arrays(self) -> tuple[Array, ...]:
        return tuple(array for core in self.links for array in core.arrays().values())

    def column(self, k: Column) -> int:
        """The index of a column given by index or name; `ValueError` if there is none."""
        return column_index(k, self.variables)

    def describe(self, k: int) -> str:
        """The column as error messages name it: column 3 ('age')."""
        return describe_column(k, self.variables)

    # --------------------------------------------------------------------------------------------- others like it

    def rebuilt(self, cores: Sequence[Any], variables: Sequence[Variable], order: Sequence[int]) -> Self:
        """A ring of the same class from other parts, checked."""
        return type(self)(cores, variables, order, validate=self.validate)

    def with_values(self, cores: Sequence[Any], variables: Sequence[Variable] | None = None) -> Self:
        """A ring of the same structure whose cores were made for it and need no check or copy."""
        links = tuple(_fixed(as_core(core)) for core in cores)
        arrays = [array for core in links for array in core.arrays().values()]
        ring = object.__new__(type(self))
        owns = is_concrete(*arrays) and not any(_records_gradient(array) for array in arrays)
        ring._set(
            links,
            tuple(variables or self.variables),
            self.order,
            self.validate,
            owns,
        )
        return ring

    def replaced(self, k: int, core: Any, variable: Variable) -> Self:
        """The ring with another core and variable in column k, unchecked."""
        links, variables = list(self.links), list(self.variables)
        links[k], variables[k] = as_core(core), variable
        return self.with_values(links, variables)

    def detach(self) -> Self:
        """The same ring with cores and variables that carry no gradient."""
        return self._detached([_detached_variable(v) for v in self.variables])

    def detached_cores(self) -> Self:
        """The same ring with cores that record no gradient: all that components are drawn from."""
        return self._detached(self.variables)

    def _detached(self, variables: Sequence[Variable]) -> Self:
        if not any(_records_gradient(array) for array in self.core_arrays()) and all(
            new is old for new, old in zip(variables, self.variables, strict=True)
        ):
            return self
        links = [mapped(core, stop_gradient) for core in self.links]
        ring = object.__new__(type(self))
        ring._set(tuple(links), tuple(variables), self.order, self.validate, self.owns_cores)
        return ring

    # ---------------------------------------------------------------------------------------------------- memory

    @cached_property
    def _memory(self) -> dict[str, Any]:
        """What has been computed from the cores."""
        return {}

    def remembered(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` makes of the cores: once if the ring owns them, else each time."""
        if not self.owns_cores or not is_concrete(self.prototype):
            return compute()
        if name not in self._memory:
            with lasting(self.prototype):
                value = compute()
            if not _is_lasting(value):
                return value
            self._memory[name] = value
        return self._memory[name]

    def __getstate__(self) -> dict[str, Any]:
        """What a ring is made of, and nothing computed from it."""
        return {name: self.__dict__[name] for name in ("links", "variables", "order", "validate")}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy that shares no array; `ValueError` where arrays are computed from parameters."""
        variables = [array for variable in self.variables for array in variable.arrays().values()]
        if any(_records_gradient(array) and not array.is_leaf for array in (*self.core_arrays(), *variables)):
            raise ValueError(
                "a ring whose arrays are computed from parameters cannot be copied with them; copy ring.detach(), or "
                "the module that holds the parameters"
            )
        ring = object.__new__(type(self))
        ring.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return ring

    def __setstate__(self, state: dict[str, Any]) -> None:
        links = tuple(map(_fixed, state["links"]))
        self._set(links, state["variables"], state["order"], state["validate"], owns_cores=False)
        self.__dict__["owns_cores"] = not any(map(_records_gradient, self.core_arrays()))


def mapped(core: Core, function: Callable[[Array], Array]) -> Core:
    """The core with a function applied to its factors; itself where nothing changes."""
    arrays = core.arrays()
    changed = {name: function(array) for name, array in arrays.items()}
    return core if all(changed[name] is array for name, array in arrays.items()) else core.with_arrays(changed)


def _is_lasting(value: Any) -> bool:
    """Whether a result holds no tracer: within `jax.jit` also what is made of constants is one."""
    if isinstance(value, tuple | list):
        return all(map(_is_lasting, value))
    if hasattr(value, "with_arrays"):
        return is_concrete(*value.arrays().values())
    return not is_array(value) or is_concrete(value)


def _as_given(core: Core) -> Any:
    return core.array if isinstance(core, DenseCore) else core


def _copied(core: Core) -> Core:
    """The core with arrays that nobody else can write to."""
    return core.with_arrays({name: _copy(array) for name, array in core.arrays().items()})


def _copy(array: Array) -> Array:
    match backend_name(array):
        case "numpy":
            return frozen(array, array.dtype)
        case "torch":
            return array.clone()
    return array


def _fixed(core: Core) -> Core:
    """The core, of this library's own making; NumPy's arrays are not written to any more."""
    return mapped(core, _frozen_in_place)


def _frozen_in_place(array: Array) -> Array:
    if backend_name(array) == "numpy":
        array.flags.writeable = False
    return array


def _records_gradient(array: Array) -> bool:
    return bool(getattr(array, "requires_grad", False))


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
