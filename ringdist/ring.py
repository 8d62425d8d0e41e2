"""`TensorRing`: an immutable tensor-ring distribution. Its methods delegate to the module of each subject."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ringdist import (
    contraction,
    initialization,
    io,
    likelihood,
    modes,
    moments,
    network,
    pathwise,
    posterior,
    sampling,
    transforms,
)
from ringdist._backend import (
    Array,
    backend_name,
    frozen,
    in_own_precision,
    is_array,
    is_concrete,
    largest_entries,
    on_accelerator,
    stop_gradient,
    times_written,
    writable,
)
from ringdist._checks import Column, check_core, check_shapes, check_variables, column_index, exponent
from ringdist._evidence import family_groups
from ringdist._pytree import register_pytree
from ringdist.variables import Variable, rebuild

if not TYPE_CHECKING:
    from ringdist._backend import cached_property
else:  # what documentation knows for a property
    from functools import cached_property

Topology = Literal["ring", "train"]


class TensorRing:
    """A distribution over d variables with mass P̂[s] = Tr ∏_k Q_k[s_k] on their components (paper Eq. 1).

    p(x) ∝ Σ_s P̂[s] ∏_k p(x_k | s_k) = Tr ∏_k A_k(x_k) with A_k(x_k) = Σ_s Q_k[s] p(x_k | s) (Eq. 3); for a categorical
    column a component is a value. A tensor train is the ring one of whose bonds has rank 1.

    Columns, not sites, are what users index: `cores[k]` and `variables[k]` belong to column k of the data, an index or
    a variable's name. `order` lists the columns as they follow each other around the ring.

    Args:
        cores: d non-negative arrays Q_k of shape (N_k, m, m'), all of one backend, dtype (float32, float64) and device.
        variables: d variables; `variables[k].num_components` is N_k.
        order: the columns in ring order, `range(d)` by default. The right bond of `cores[order[j]]` is the left bond of
            `cores[order[j + 1]]`, cyclically.
        validate: whether values are checked, here and of every x, where they can be looked at (not under tracing).
            Shapes and types always are. On an accelerator a check waits for the device.

    Raises:
        ValueError: if shapes do not fit, ranks do not close, a core has negative, NaN, infinite or only zero entries.
        TypeError: if arrays mix backends or dtypes, or are not float32 or float64.
    """

    def __init__(
        self,
        cores: Sequence[Array],
        variables: Sequence[Variable],
        order: Sequence[Column] | None = None,
        *,
        validate: bool = True,
    ):
        cores = tuple(_own(core) for core in cores)
        variables = tuple(variables)
        if len(cores) != len(variables) or not cores:
            raise ValueError(
                f"there must be one core per variable, found {len(cores)} cores, {len(variables)} variables"
            )
        check_variables(cores, variables)
        names = {v.name: k for k, v in enumerate(variables) if v.name is not None}
        if len(names) < sum(v.name is not None for v in variables):
            raise ValueError(f"variables' names must differ, found {[v.name for v in variables]}")
        order = tuple(range(len(cores))) if order is None else tuple(column_index(k, variables) for k in order)
        if sorted(order) != list(range(len(cores))):
            raise ValueError(f"order must be a permutation of the {len(cores)} columns, found {list(order)}")
        self._set(cores, variables, order, bool(validate), (None,) * len(cores))
        check_shapes(self)
        for name in ("ranks", "shape", "sequence", "families"):  # torch.compile compiles again where they come later
            getattr(self, name)
        if validate and is_concrete(*cores):
            exponents = tuple(check_core(self, k) for k in range(len(cores)))
            self.__dict__["exponents"] = exponents

    cores: tuple[Array, ...]
    variables: tuple[Variable, ...]
    order: tuple[int, ...]
    validate: bool
    exponents: tuple[int | None, ...]  # of the power of two above each core's largest entry, None where not looked at

    def _set(
        self,
        cores: tuple[Array, ...],
        variables: tuple[Variable, ...],
        order: tuple[int, ...],
        validate: bool,
        exponents: tuple[int | None, ...],
    ) -> None:
        values = {"cores": cores, "variables": variables, "order": order, "validate": validate, "exponents": exponents}
        for name, value in values.items():  # PyTorch before 2.12 cannot trace __dict__.update
            object.__setattr__(self, name, value)
        if backend_name(cores[0]) == "jax":
            register_pytree(TensorRing)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"rings are immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"rings are immutable: {name} cannot be deleted")

    @classmethod
    def random(
        cls,
        variables: Sequence[Variable],
        rank: int | Sequence[int],
        *,
        order: Sequence[Column] | None = None,
        topology: Topology = "ring",
        rng: Any = None,
        xp: ModuleType = np,
        dtype: Any = None,
        device: Any = None,
    ) -> TensorRing:
        """A ring with random positive cores, scaled so that Z is near 1; see `ringdist.initialization.random_ring`."""
        return initialization.random_ring(
            variables, rank, order=order, topology=topology, rng=rng, xp=xp, dtype=dtype, device=device
        )

    # ------------------------------------------------------------------------------------------------ what it is

    @cached_property
    def _memory(self) -> dict[str, Any]:
        """What has been computed from the cores, and how often they had been written to by then."""
        return {}

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """`ranks[j]`: the left bond of `cores[order[j]]`."""
        return tuple(int(self.cores[k].shape[1]) for k in self.order)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """N_k of every column."""
        return tuple(int(core.shape[0]) for core in self.cores)

    @property
    def num_variables(self) -> int:
        """d, the number of columns."""
        return len(self.cores)

    @property
    def num_parameters(self) -> int:
        """Numbers in the cores and in the variables' arrays."""
        arrays = [array for variable in self.variables for array in variable.arrays().values()]
        return sum(math.prod(a.shape) for a in [*self.cores, *arrays])

    @property
    def is_train(self) -> bool:
        """Whether some bond has rank 1."""
        return min(self.ranks) == 1

    @cached_property
    def sequence(self) -> tuple[int, ...]:
        """The columns in ring order from the thinnest bond, where the engines cut."""
        ranks = self.ranks
        cut = ranks.index(min(ranks))
        return self.order[cut:] + self.order[:cut]

    @cached_property
    def families(self) -> tuple[tuple[int, ...], ...]:
        """Groups of columns whose densities one call evaluates."""
        return family_groups(self.variables)

    def column(self, k: Column) -> int:
        """The index of a column given by index or name; `ValueError` if there is none."""
        return column_index(k, self.variables)

    def describe(self, k: int) -> str:
        """The column as error messages name it: column 3 ('age')."""
        name = self.variables[k].name
        return f"column {k}" if name is None else f"column {k} ({name!r})"

    def detach(self) -> TensorRing:
        """The same ring with cores and variables that carry no gradient."""
        cores, variables = [stop_gradient(core) for core in self.cores], [_detached(v) for v in self.variables]
        return self._with(cores, variables, self.exponents)

    def _detached_cores(self) -> TensorRing:
        """The same ring with cores that record no gradient: all that components are drawn from, and quicker."""
        if writable(*self.cores):
            return self
        return self._with([stop_gradient(core) for core in self.cores], self.variables, self.exponents)

    def _with(
        self, cores: Sequence[Array], variables: Sequence[Variable], exponents: tuple[int | None, ...] | None = None
    ) -> TensorRing:
        """A ring of the same structure from values that need no check."""
        ring = object.__new__(type(self))
        unknown = (None,) * len(cores)
        ring._set(_fixed(cores), tuple(variables), self.order, self.validate, exponents or unknown)
        return ring

    def _remembered(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` makes of the cores; once, as long as they carry no gradient and nobody writes to them."""
        version = [times_written(core) for core in self.cores] if writable(*self.cores) else [None]
        if None in version:
            return compute()
        if self._memory.get("version") != version:
            self._memory.clear()
            self._memory["version"] = version
        if name not in self._memory:
            self._memory[name] = compute()
        return self._memory[name]

    def _measure(self) -> None:
        """Look up the cores' exponents where they may not be known, or not be what they were, and it needs no wait."""
        cores = self.cores
        known = None not in self.exponents and backend_name(cores[0]) != "torch"  # whose entries may have been changed
        if known or not is_concrete(*cores) or on_accelerator(cores[0]):
            return
        self.__dict__["exponents"] = self._remembered(
            "exponents",
            lambda: tuple(exponent(most, c) for most, c in zip(largest_entries(cores), cores, strict=True)),
        )

    def _replaced(self, k: int, core: Array, variable: Variable) -> TensorRing:
        """The ring with another core and variable in column k, unchecked."""
        cores, variables = list(self.cores), list(self.variables)
        cores[k], variables[k] = core, variable
        return self._with(cores, variables)

    def __getstate__(self) -> dict[str, Any]:
        """What a ring is made of, and nothing computed from it: copies count writes to their cores anew."""
        return {name: getattr(self, name) for name in ("cores", "variables", "order", "validate", "exponents")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**(state | {"cores": _fixed(state["cores"])}))

    def __repr__(self) -> str:
        ranks, core = self.ranks, self.cores[0]
        rank = str(ranks[0]) if len(set(ranks)) == 1 else f"{min(ranks)}..{max(ranks)}"
        kind = "train" if self.is_train else "ring"
        counts: dict[str, int] = {}
        for variable in self.variables:
            counts[type(variable).__name__] = counts.get(type(variable).__name__, 0) + 1
        families = ", ".join(f"{count} {family}" for family, count in counts.items())
        return (
            f"TensorRing({kind} of {self.num_variables} variables: {families}; rank {rank}, "
            f"{self.num_parameters} parameters, {backend_name(core)} {str(core.dtype).removeprefix('torch.')})"
        )

    # ---------------------------------------------------------------------------------------------------- queries

    @in_own_precision
    def log_prob(self, x: Array, *, engine: contraction.Engine = "auto") -> Array:
        """log p(x); see `ringdist.likelihood.log_prob`."""
        return likelihood.log_prob(self, x, engine)

    @in_own_precision
    def log_normalizer(self) -> Array:
        """log Z = log Tr ∏_k Σ_s Q_k[s]; see `ringdist.likelihood.log_normalizer`."""
        return likelihood.log_normalizer(self)

    @in_own_precision
    def component_posterior(self, k: Column, x: Array) -> Array:
        """p(s_k | observed entries of the row); see `ringdist.posterior.component_posterior`."""
        return posterior.component_posterior(self, k, x)

    @in_own_precision
    def sample(self, n: int, *, rng: Any = None) -> Array:
        """n exact samples, (n, d); see `ringdist.sampling.sample`."""
        return sampling.sample(self, n, rng=rng)

    @in_own_precision
    def sample_given(self, x: Array, n: int | None = None, *, rng: Any = None) -> Array:
        """The NaN entries of x drawn from p(missing | observed); see `ringdist.sampling.sample_given`."""
        return sampling.sample_given(self, x, n, rng=rng)

    @in_own_precision
    def pathwise(self, x: Array, given: Array | None = None) -> Array:
        """Samples x with pathwise gradients (PyTorch, JAX); see `ringdist.pathwise.pathwise`."""
        return pathwise.pathwise(self, x, given)

    @in_own_precision
    def marginal(self, keep: Sequence[Column]) -> TensorRing:
        """The marginal over some columns as a ring; see `ringdist.transforms.marginal`."""
        return transforms.marginal(self, keep)

    @in_own_precision
    def condition(self, evidence: Mapping[Column, float]) -> TensorRing:
        """The conditional over the remaining columns as a ring; see `ringdist.transforms.condition`."""
        return transforms.condition(self, evidence)

    @in_own_precision
    def mean(self, x: Array | None = None) -> Array:
        """E[column], or E[column | observed entries]; see `ringdist.moments.mean`."""
        return moments.mean(self, x)

    @in_own_precision
    def covariance(self) -> Array:
        """Exact (d, d) covariance; see `ringdist.moments.covariance`."""
        return moments.covariance(self)

    @in_own_precision
    def cdf(self, k: Column, x: Array) -> Array:
        """P(X_k <= x_k | other observed entries); see `ringdist.posterior.cdf`."""
        return posterior.cdf(self, k, x)

    @in_own_precision
    def quantile(self, k: Column, q: Array, x: Array) -> Array:
        """The smallest value of column k with F >= q; see `ringdist.posterior.quantile`."""
        return posterior.quantile(self, k, q, x)

    @in_own_precision
    def mode(self, x: Array | None = None) -> Array:
        """The best completion found; see `ringdist.modes.mode` for what is guaranteed."""
        return modes.mode(self, x)

    @in_own_precision
    def mutual_information(self) -> Array:
        """(d, d) in nats between component variables; see `ringdist.moments.mutual_information`."""
        return moments.mutual_information(self)

    @in_own_precision
    def entropy(self, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
        """Entropy in nats and its standard error; see `ringdist.likelihood.entropy`."""
        return likelihood.entropy(self, n, rng)

    @in_own_precision
    def inner(self, other: TensorRing) -> Array:
        """Σ or ∫ p q; see `ringdist.likelihood.inner`."""
        return likelihood.inner(self, other)

    @in_own_precision
    def to_dense(self) -> Array:
        """The table of probabilities of a small discrete ring; see `ringdist.likelihood.to_dense`."""
        return likelihood.to_dense(self)

    # ------------------------------------------------------------------------------------------- other forms of it

    @in_own_precision
    def to_train(self) -> TensorRing:
        """The same distribution as a train, exactly; see `ringdist.transforms.to_train`."""
        return transforms.to_train(self)

    def permute(self, columns: Sequence[Column]) -> TensorRing:
        """The same distribution with columns renumbered; see `ringdist.transforms.permute`."""
        return transforms.permute(self, columns)

    def to(self, xp: ModuleType | None = None, *, dtype: Any = None, device: Any = None) -> TensorRing:
        """The ring in another backend or dtype or on another device; see `ringdist.transforms.to`."""
        return transforms.to(self, xp, dtype, device)

    def to_tensornetwork(self, x: Array | None = None) -> list[Any]:
        """Connected `tensornetwork.Node`s; see `ringdist.network.to_tensornetwork`."""
        return network.to_tensornetwork(self, x)

    @classmethod
    def from_tensornetwork(cls, nodes: Sequence[Any], variables: Sequence[Variable]) -> TensorRing:
        """The ring of connected nodes; see `ringdist.network.from_tensornetwork`."""
        return network.from_tensornetwork(nodes, variables)

    def einsum(self, open: Sequence[Column] = ()) -> tuple[str, list[Array]]:
        """opt_einsum equation and operands of P̂; see `ringdist.network.einsum`."""
        return network.einsum(self, open)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the ring to a safetensors file, atomically; see `ringdist.io.save`."""
        io.save(self, path)


def _own(core: Array) -> Array:
    """The core itself where its library knows of writes to it, else a copy: what a ring remembers stays true."""
    return frozen(core, dtype=core.dtype if is_array(core) else np.float64) if backend_name(core) == "numpy" else core


def _fixed(cores: Sequence[Array]) -> tuple[Array, ...]:
    """The cores, of this library's own making; NumPy's are not written to any more."""
    if backend_name(cores[0]) == "numpy":
        for core in cores:
            core.flags.writeable = False
    return tuple(cores)


def _detached(variable: Variable) -> Variable:
    arrays = variable.arrays()
    fixed = {name: stop_gradient(array) for name, array in arrays.items()}
    if all(fixed[name] is array for name, array in arrays.items()):
        return variable
    detached: Variable = rebuild(type(variable), variable.num_components, variable.name, fixed)
    return detached
