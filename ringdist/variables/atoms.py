"""Point masses in addition to the components of another family."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, index_dtype, is_array, like, like_zeros, namespace, take, to_numpy
from ringdist.variables.checks import check_name, observed
from ringdist.variables.foreign import as_family
from ringdist.variables.form import Form
from ringdist.variables.protocol import Family, rebuild
from ringdist.variables.variable import Variable


class WithAtoms(Family):
    """A variable with atoms: values that have a positive probability.

    Components 0..M-1 are those of `variable`, and component M + i is the value `atoms[i]`. Zeros
    among amounts, sentinels such as 9999, and the ends of a bounded scale are atoms.

    Densities are relative to Lebesgue measure plus a unit mass at every atom. At an atom, `log_density`
    is the logarithm of a probability, elsewhere that of a density per unit of x. The two are not
    comparable, and a mode is with respect to this measure. Components of `variable` have density 0 at
    an atom. For counts, densities are relative to counting measure: the components of `variable` keep
    their probability at an atom, as in a zero-inflated Poisson mixture.

    Args:
        variable: any variable with M components that is not categorical.
        atoms: finite numbers, all different.
        name: the column's name; that of `variable` if None.

    Raises:
        TypeError: if `variable` does not follow the protocol.
        ValueError: if it is categorical or has atoms already, or atoms are missing, equal or not finite.

    Examples:
        >>> import numpy as np, ringdist as rd
        >>> rain = rd.WithAtoms(rd.LogNormalMixture([0.0, 2.0], [1.0, 1.0]), [0.0])
        >>> rain.num_components
        3
        >>> rain.log_density(np.array([0.0, 1.0])).round(3)
        array([[  -inf,   -inf,  0.   ],
               [-0.919, -2.919,   -inf]])
    """

    _inner: Family

    def __init__(self, variable: Variable, atoms: Iterable[float], name: str | None = None):
        if not isinstance(variable, Variable):
            raise TypeError(f"atoms need a variable that follows rd.Variable, found {variable!r}")
        inner, values = as_family(variable), _checked(atoms)
        if inner.values_are_components:
            raise ValueError("atoms need a variable of numbers, found Categorical; give it more categories instead")
        if inner.width > 1:
            raise ValueError(f"atoms need a variable of one column, found {inner.width} columns")
        if isinstance(inner, WithAtoms):
            raise ValueError(f"all atoms of a variable must be given at once, found atoms in {inner!r}")
        name = check_name(name) or inner.name
        options = (("variable", inner.form._replace(name=None)), ("atoms", values))
        self._set(inner.num_components + len(values), name, inner.arrays(), options)

    def _set(
        self, num_components: int, name: str | None, arrays: dict[str, Array], options: Iterable[tuple[str, Any]] = ()
    ) -> Self:
        super()._set(num_components, name, arrays, options)
        form: Form = self._options["variable"]
        self._inner = as_family(rebuild(form, arrays))
        inner, atoms = self._inner, self.atoms
        self.integer = inner.integer and all(atom == math.floor(atom) for atom in atoms)
        self.support = min(inner.support[0], *atoms), max(inner.support[1], *atoms)
        self.positive, self.streams, self.has_variance = inner.positive, inner.streams, inner.has_variance
        self.stacks = inner.stacks and issubclass(form.kind, Family)
        self.tells_support = inner.tells_support
        return self

    @property
    def atoms(self) -> tuple[float, ...]:
        """The values that have a probability."""
        atoms: tuple[float, ...] = self._options["atoms"]
        return atoms

    @property
    def can_move(self) -> bool:
        return False

    @property
    def measure(self) -> str:
        if self.integer and min(self.atoms) >= 0:
            return "counts"
        return f"{self._inner.measure} with atoms at {', '.join(f'{atom:g}' for atom in sorted(self.atoms))}"

    def __repr__(self) -> str:
        atoms = ", ".join(f"{atom:g}" for atom in self.atoms)
        name = "" if self.name is None else f", name={self.name!r}"
        return f"WithAtoms({self._inner!r}, [{atoms}]{name})"

    def log_density(self, x: Array) -> Array:
        hits, explained = self._hits(x), self._explained(x)
        xp = namespace(x)
        within = xp.where(explained, x, like(self._inner.typical_value(), x))
        logs = xp.where(explained[..., None], self._inner.log_density(within), -xp.inf)
        return xp.concat([logs, xp.where(hits, 0.0, like(-math.inf, logs))], axis=-1)

    def cdf(self, x: Array) -> Array:
        values = self._inner.cdf(x)
        return namespace(x).concat([values, self._of(x[..., None] >= self._values(x), values)], axis=-1)

    def sample(self, component: Array, rng: Any) -> Array:
        return self._drawn(component, lambda within: self._inner.sample(within, rng))

    def sample_within(self, component: Array, low: float, high: float, rng: Any) -> Array:
        return self._drawn(component, lambda within: self._inner.sample_within(within, low, high, rng))

    def _drawn(self, component: Array, draw: Callable[[Array], Array]) -> Array:
        size = self._inner.num_components
        xp = namespace(component)
        drawn = draw(xp.clip(component, max=size - 1))
        index = xp.reshape(xp.clip(component - size, min=0), (-1,))
        atoms = xp.reshape(take(self._values(drawn), xp.astype(index, index_dtype(index))), component.shape)
        return xp.where(component < size, drawn, atoms)

    def means(self) -> Array:
        return self._with_atom_values(self._inner.means(), self.atoms)

    def log_probability(self, low: float, high: float) -> Array:
        masses = [0.0 if low <= atom <= high else -math.inf for atom in self.atoms]
        return self._with_atom_values(self._inner.log_probability(low, high), masses)

    def cdf_within(self, x: Array, low: float, high: float) -> Array:
        values = self._inner.cdf_within(x, low, high)
        return namespace(x).concat([values, self._of(x[..., None] >= self._values(x), values)], axis=-1)

    def moments_within(self, low: float, high: float) -> tuple[Array, Array]:
        means, variances = self._inner.moments_within(low, high)
        return self._with_atom_values(means, self.atoms), self._with_atom_values(variances)

    def variances(self) -> Array:
        return self._with_atom_values(self._inner.variances())

    def standard_deviations(self) -> Array:
        return self._with_atom_values(self._inner.standard_deviations())

    def centres(self) -> Array:
        return self._with_atom_values(self._inner.centres(), self.atoms)

    def scales(self) -> Array:
        return self._with_atom_values(self._inner.scales())

    def inner(self, other: Any) -> Array:
        """Σ or ∫ p(x | s) q(x | t), (N, N'), relative to the measure with atoms: equal atoms have the product 1."""
        self._check_sibling(other)
        inner, other_inner = self._inner, other._inner
        block = inner.inner(other_inner)
        xp = namespace(block)
        own_atoms, other_atoms = self._values(block), other._values(block)
        right = self._of(own_atoms[:, None] == other_atoms, block)
        above, left = (
            xp.zeros_like(block[:, :1]) + 0 * other_atoms,
            xp.zeros_like(block[:1, :]) + 0 * own_atoms[:, None],
        )
        if inner.integer:
            above = xp.exp(like(other._outer_density(inner, other_atoms), block)).T
            left = xp.exp(like(self._outer_density(other_inner, own_atoms), block))
        return xp.concat([xp.concat([block, above], axis=1), xp.concat([left, right], axis=1)], axis=0)

    def _outer_density(self, family: Family, atoms: Array) -> Array:
        """log p(atom | s) of another variable's components, (A, N)."""
        xp, inside = namespace(atoms), family.in_support(atoms)
        logs = family.log_density(xp.where(inside, atoms, like(family.typical_value(), atoms)))
        return xp.where(inside[:, None], logs, -xp.inf)

    def in_support(self, x: Array) -> Array:
        return namespace(x).any(self._hits(x), axis=-1) | self._inner.in_support(x)

    def check(self, x: Array) -> None:
        others = x[~namespace(x).any(self._hits(x), axis=-1)]
        try:
            self._inner.check(others)
        except ValueError as error:
            raise ValueError(f"{error}; atoms are {', '.join(f'{atom:g}' for atom in self.atoms)}") from None

    def typical_value(self) -> Any:
        return self._inner.typical_value()

    def is_endless(self, x: Array) -> Any:
        return self._inner.is_endless(x)

    @classmethod
    def placed(
        cls,
        observed: np.ndarray,
        num_components: int,
        method: str,
        limits: np.finfo,
        *,
        variable: Any = None,
        atoms: Sequence[float] = (),
        **options: Any,
    ) -> Self:
        """Atoms, and `num_components` components of the family `variable`, placed on the values that are not atoms."""
        values = _checked(atoms)
        family, more = (variable.func, variable.keywords) if isinstance(variable, functools.partial) else (variable, {})
        if not (isinstance(family, type) and issubclass(family, Family)):
            raise ValueError(f"placing components needs a family as the variable, found {family!r}")
        others = observed[~np.isin(observed, values)]
        if others.size == 0:
            raise ValueError("placing components needs a value that is not an atom, found none")
        return cls(family.placed(others, num_components, method, limits, **more), values, **options)

    def floored(self, x: np.ndarray) -> np.ndarray:
        return self._inner.floored(np.where(np.isin(x, self.atoms), np.nan, x))

    def update(self, x: Array, responsibilities: Array) -> Family:
        if self.streams:
            return super().update(x, responsibilities)
        return self._around(
            self._inner.update(self._without_atoms(x), responsibilities[:, : self._inner.num_components])
        )

    def statistics(self, x: Array, responsibilities: Array) -> dict[str, Array]:
        """The statistics of the variable, whose "count" has the atoms too."""
        size = self._inner.num_components
        statistics = self._inner.statistics(self._without_atoms(x), responsibilities[:, :size])
        _, weights = observed(x, responsibilities)
        return {**statistics, "count": namespace(weights).sum(weights, axis=0)}

    def expected_statistics(self, weights: Array) -> dict[str, Array]:
        return {**self._inner.expected_statistics(weights[: self._inner.num_components]), "count": weights}

    def from_statistics(self, statistics: dict[str, Array], least_std: float = 0.0) -> Family:
        within = {**statistics, "count": statistics["count"][: self._inner.num_components]}
        return self._around(self._inner.from_statistics(within, least_std))

    def _around(self, inner: Family) -> Family:
        return self.with_arrays(inner.arrays())

    def _values(self, array: Array) -> Array:
        return like(np.asarray(self.atoms), array)

    def _hits(self, x: Array) -> Array:
        """Whether each entry of x is each of the atoms, (..., A)."""
        return x[..., None] == self._values(x)

    def _explained(self, x: Array) -> Array:
        """Whether each entry of x can come from a component of the variable."""
        inside = self._inner.in_support(x)
        return inside if self._inner.integer else inside & ~namespace(x).any(self._hits(x), axis=-1)

    def _without_atoms(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.where(self._explained(x), x, xp.nan)

    def _of(self, condition: Array, array: Array) -> Array:
        """1 where the condition is true and 0 elsewhere, in the dtype of the array."""
        return namespace(condition).astype(condition, array.dtype)

    def _with_atom_values(self, array: Array, values: Sequence[float] = ()) -> Array:
        """Values for the components of the variable, (M,), followed by those for the atoms, 0 by default."""
        tail = like(np.asarray(values), array) if values else like_zeros((len(self.atoms),), array)
        return namespace(array).concat([array, tail])


def _checked(atoms: Any) -> tuple[float, ...]:
    values = np.asarray(to_numpy(atoms) if is_array(atoms) else list(atoms), dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"atoms must be one or more finite numbers, found {atoms!r}")
    if np.unique(values).size < values.size:
        raise ValueError(f"atoms must be distinct, found {values.tolist()}")
    return tuple(float(value) + 0.0 for value in values)
