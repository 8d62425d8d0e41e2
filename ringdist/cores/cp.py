"""Cores in canonical polyadic form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ringdist.backend import (
    Array,
    cached_property,
    exponents,
    identity,
    is_array,
    namespace,
    row_sums,
    take,
    times_power,
)
from ringdist.cores.conditional import Conditional, Counts, per_mass
from ringdist.cores.protocol import KINDS
from ringdist.cores.semiring import LINEAR, Semiring
from ringdist.cores.switch import Switch


class Environment(NamedTuple):
    """States on both sides of a core, (b or 1, r, ·), at its bonds and at its hidden state."""

    prefix: Array
    inner_prefix: Array
    inner_suffix: Array
    suffix: Array


class CPCore(Conditional):
    r"""A core of rank c: Q[s, a, b] = Σ_c left[a, c] emission[s, c] right[c, b].

    c is a hidden state inside the column. A CP core has m c + N c + c m' numbers and costs as many operations; a dense
    core has N m m'. With `left=None` and a transition matrix on the right, a train is a hidden Markov model; with
    identities on both sides, a mixture of products. With `emission=None` every hidden state has its own component.

    Args:
        left: (m, c), or None for the identity (m = c).
        emission: (N, c), or None for the identity (N = c).
        right: (c, m'), or None for the identity (c = m').

    Raises:
        ValueError: if all factors are None, or their shapes do not fit each other.
        TypeError: if factors mix backends or dtypes.

    Examples:
        >>> import numpy as np
        >>> core = CPCore(emission=np.array([[0.9, 0.2], [0.1, 0.8]]), right=np.array([[0.7, 0.3], [0.4, 0.6]]))
        >>> core.shape
        (2, 2, 2)
        >>> core.dense()[:, 0, 1]
        array([0.27, 0.03])
    """

    conditional: ClassVar = {"left": 1, "emission": 0, "right": 1}

    left: Array | None
    emission: Array | None
    right: Array | None
    switch: Switch | None  # what `right` is made of, if it is known: sweeps then cost O(c) instead of O(c²)
    _factors: dict[str, Array]

    def __init__(self, left: Any = None, emission: Any = None, right: Any = None):
        given = {"left": left, "emission": emission, "right": right}
        factors = {name: _matrix(name, value) for name, value in given.items() if value is not None}
        if not factors:
            raise ValueError("a CP core needs at least one of left, emission and right, found None for all")
        namespace(*factors.values())
        dtypes = {str(factor.dtype) for factor in factors.values()}
        if len(dtypes) > 1:
            raise TypeError(f"the factors of a CP core must have one dtype, found {', '.join(sorted(dtypes))}")
        inner = {name: int(factor.shape[0 if name == "right" else 1]) for name, factor in factors.items()}
        if len(set(inner.values())) > 1:
            found = ", ".join(f"{size} in {name}" for name, size in inner.items())
            raise ValueError(f"the factors of a CP core must share one number of hidden states, found {found}")
        self._set(factors)

    def _set(self, factors: dict[str, Array], switch: Switch | None = None) -> None:
        values = {name: factors.get(name) for name in ("left", "emission", "right")}
        for name, value in values.items():
            self.__dict__[name] = value
        self.__dict__["switch"] = switch
        self.__dict__["_factors"] = {name: value for name, value in values.items() if value is not None}

    @classmethod
    def switching(
        cls, stay: Any, leave: Any, enter: Any, *, left: Any = None, emission: Any = None, validate: bool = True
    ) -> CPCore:
        """A core whose right factor is diag(stay) + leave enterᵀ: the hidden state is kept, or drawn anew.

        Likelihoods in NumPy and PyTorch then cost O(c). A core with another right factor has no `switch`.

        Args:
            stay, leave, enter: (c,) each.
            left, emission: as in `CPCore`.
            validate: whether shapes are checked.

        Raises:
            ValueError, TypeError: as `CPCore`, and if the three are not vectors of one length and dtype.

        Examples:
            >>> import ringdist as rd
            >>> core = rd.CPCore.switching([0.9, 0.8], [0.1, 0.2], [0.5, 0.5])
            >>> core.right
            array([[0.95, 0.05],
                   [0.1 , 0.9 ]])
        """
        switch = Switch.checked(stay, leave, enter) if validate else Switch.balanced(stay, leave, enter)
        factors = {"left": left, "emission": emission, "right": switch.dense()}
        return _unchecked(cls(**factors).arrays() if validate else factors, switch)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"cores are immutable: {name} cannot be set")

    @cached_property
    def inner(self) -> int:
        """c, the number of hidden states."""
        if self.right is not None:
            return int(self.right.shape[0])
        factor: Any = self.left if self.left is not None else self.emission
        return int(factor.shape[1])

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(N, m, m')."""
        c = self.inner
        return (
            c if self.emission is None else int(self.emission.shape[0]),
            c if self.left is None else int(self.left.shape[0]),
            c if self.right is None else int(self.right.shape[1]),
        )

    def arrays(self) -> dict[str, Array]:
        """The factors that are not identities, by name."""
        return dict(self._factors)

    def factor(self, name: str) -> Array:
        """The factor of that name, an identity where it is None."""
        found: Array = self.__dict__[name]
        return identity(self.inner, self._any) if found is None else found

    @property
    def subscripts(self) -> str:
        """Q as an einsum of the factors; an identity gives its outer index the letter of the hidden state."""
        a, s, b = (
            "c" if factor is None else letter
            for letter, factor in zip("asb", (self.left, self.emission, self.right), strict=True)
        )
        axes = {"left": a + "c", "emission": s + "c", "right": "c" + b}
        return ",".join(axes[name] for name in self.arrays()) + f"->{s}{a}{b}"

    def with_arrays(self, arrays: dict[str, Array]) -> CPCore:
        """A CP core of other factors, unchecked; with the same right factor it has the same switch."""
        own = self.__dict__  # empty where JAX makes cores of its leaves
        return _unchecked(arrays, own.get("switch") if arrays.get("right") is own.get("right") else None)

    def converted(self, function: Callable[[Array], Array]) -> CPCore:
        """The core, with its switch, of arrays with the same values: copies, or of another dtype or device."""
        switch = None if self.switch is None else Switch(*map(function, self.switch))
        return _unchecked({name: function(factor) for name, factor in self._factors.items()}, switch)

    def divided(self, exponent: int) -> CPCore:
        """The core divided by 2^exponent, in its first factor."""
        name, factor = next(iter(self._factors.items()))
        switch = self.switch if self.switch is None or name != "right" else self.switch.divided(exponent)
        return _unchecked({**self._factors, name: times_power(factor, -exponent)}, switch)

    def dense(self) -> Array:
        """Q as an array (N, m, m')."""
        return self.matrix(identity(self.shape[0], self._any), LINEAR)

    def transposed(self) -> CPCore:
        """The core with its bonds exchanged."""
        turned = {"left": self.right, "emission": self.emission, "right": self.left}
        factors = {name: a if name == "emission" else a.mT for name, a in turned.items() if a is not None}
        return self.with_arrays(factors)

    def matrix(self, weights: Array, semiring: Semiring) -> Array:
        """left diag(weights emission) right, (b, m, m')."""
        hidden = self._hidden(weights, semiring)
        if self.left is None and self.right is None:
            return semiring.times(hidden[:, :, None], semiring.of(identity(self.inner, self._any)))
        if self.left is None:
            return semiring.times(hidden[:, :, None], semiring.of(self.right))
        scaled = semiring.times(semiring.of(self.left), hidden[:, None, :])
        return scaled if self.right is None else semiring.product(scaled, semiring.of(self.right))

    def push(self, state: Array, weights: Array, semiring: Semiring) -> Array:
        """((state left) · (weights emission)) right, O(b r (m c + c m') + b N c)."""
        inner = state if self.left is None else semiring.product(state, semiring.of(self.left))
        inner = semiring.times(inner, self._hidden(weights, semiring)[:, None, :])
        if self.switch is not None:
            return self.switch.push(inner, semiring)
        return inner if self.right is None else semiring.product(inner, semiring.of(self.right))

    def environment(self, prefix: Array, suffix: Array, semiring: Semiring) -> Environment:
        """The states on both sides, at the bonds and at the hidden state."""
        inner_prefix = prefix if self.left is None else semiring.product(prefix, semiring.of(self.left))
        inner_suffix = suffix if self.right is None else semiring.product(suffix, semiring.of(self.right).mT)
        return Environment(prefix, inner_prefix, inner_suffix, suffix)

    def components(self, environment: Environment, semiring: Semiring) -> Array:
        """Σ_r prefix[r] Q[s] suffix[r], (b, N)."""
        joint = semiring.sum(semiring.times(environment.inner_prefix, environment.inner_suffix), axis=1)  # (b, c)
        return joint if self.emission is None else semiring.product(joint, semiring.of(self.emission).mT)

    def derivative(self, name: str, environment: Environment, weights: Array) -> Array:
        """∂/∂(factor) Σ_b Σ_r prefix A suffix, of the shape of the factor."""
        prefix, inner_prefix, inner_suffix, suffix = environment
        xp = namespace(inner_prefix)
        if name == "emission":
            return weights.T @ xp.sum(inner_prefix * inner_suffix, axis=1)
        hidden = self._hidden(weights, LINEAR)[:, None, :]
        if name == "left":
            return _pairs(prefix, inner_suffix * hidden)
        return _pairs(inner_prefix * hidden, suffix)

    def passed_back(self, suffix: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
        """The core's matrices times the suffix, and the suffix at the right bond and at the hidden state."""
        inner = suffix if self.right is None else suffix @ self.right.mT
        state = inner * self._hidden(weights, LINEAR)
        return state if self.left is None else state @ self.left.mT, (suffix, inner)

    def counts(self, prefix: Array, kept: tuple[Array, Array], weights: Array, row_weight: Array) -> Counts:
        """Expected counts of weighted rows, by one product for the next prefix and one for each factor."""
        suffix, inner_suffix = kept
        inner_prefix = prefix if self.left is None else prefix @ self.left
        hidden = self._hidden(weights, LINEAR)
        pushed = inner_prefix * hidden
        mass = row_sums(pushed * inner_suffix)
        scale = per_mass(row_weight, mass)
        joint = inner_prefix * inner_suffix * scale
        factors = {}
        if self.left is not None:
            factors["left"] = self.left * (prefix.mT @ (inner_suffix * hidden * scale))
        if self.emission is not None:
            factors["emission"] = self.emission * (weights.mT @ joint)
        if self.right is not None:
            factors["right"] = self.right * ((pushed * scale).mT @ suffix)
        components = weights * (joint if self.emission is None else joint @ self.emission.mT)
        return Counts(factors, components, mass, pushed if self.right is None else pushed @ self.right)

    def rows(self, left: Array, weights: Array, semiring: Semiring) -> Array:
        """A[left, :], (n, m')."""
        hidden = self._hidden(weights, semiring)
        if self.left is None and self.right is not None:
            xp = namespace(hidden)
            here = (
                take(hidden[0], left)
                if hidden.shape[0] == 1
                else xp.take_along_axis(hidden, left[:, None], axis=1)[:, 0]
            )
            return semiring.times(here[:, None], semiring.of(take(self.right, left)))
        start = identity(self.inner, self._any) if self.left is None else self.left
        inner = semiring.times(semiring.of(take(start, left)), hidden)
        return inner if self.right is None else semiring.product(inner, semiring.of(self.right))

    def between(self, left: Array, right: Array, semiring: Semiring) -> Array:
        """Q[:, left, right], (n, N)."""
        unit = None if self.left is not None and self.right is not None else identity(self.inner, self._any)
        rows = take(unit if self.left is None else self.left, left)
        columns = take(unit if self.right is None else self.right, right, axis=1).T
        joint = semiring.times(semiring.of(rows), semiring.of(columns))
        return joint if self.emission is None else semiring.product(joint, semiring.of(self.emission).mT)

    def gauged(self, left: Array | None, right: Array | None) -> CPCore:
        """diag(left) Q[s] diag(right), with the scales in the existing factors at these bonds: identities stay None."""
        factors = dict(self.arrays())
        for scale, outward in ((left, "left"), (right, "right")):
            if scale is None:
                continue
            # A scale at an identity goes to the emission, or through another identity to the factor on the other side.
            name = next(name for name in (outward, "emission", "left", "right") if name in factors)
            rows = name == ("left" if outward == "left" else "") or (name == "right" and outward == "left")
            factors[name] = factors[name] * (scale[:, None] if rows else scale)
        return self.with_arrays(factors)

    def leaned(self) -> tuple[CPCore, int]:
        """The core divided by a power of two, and the exponent: largest entry near 1, all scales in the first factor.

        For every hidden state the largest entries in the factors after the first one are near 1 too. A product through
        the core in either direction then meets no number that is large beside the core's own entries.
        """
        factors = dict(self.arrays())
        first, *rest = factors
        xp, hidden = namespace(factors[first]), 0 if first == "right" else 1
        top = xp.max(factors[first], axis=1 - hidden)
        own, shift, alive = exponents(top), 0.0, top > 0
        for name in rest:
            top = xp.max(factors[name], axis=1 if name == "right" else 0)
            each, alive = exponents(top), alive & (top > 0)
            factors[name] = times_power(factors[name], -each[:, None] if name == "right" else -each)
            shift = shift + each
        largest = float(xp.max(xp.where(alive, own + shift, -xp.inf)))
        largest = 0.0 if largest == -math.inf else largest
        scale = xp.where(alive, shift - largest, -own)
        factors[first] = times_power(factors[first], scale[:, None] if hidden == 0 else scale)
        return self.with_arrays(factors), int(largest)

    def absorbed(self, left: Array | None, right: Array | None) -> CPCore:
        """left Q[s] right as a CP core, with the matrices in its left and right factors."""
        factors = dict(self.arrays())
        if left is not None:
            factors["left"] = left if self.left is None else left @ self.left
        if right is not None:
            factors["right"] = right if self.right is None else self.right @ right
        return self.with_arrays(factors)

    def _hidden(self, weights: Array, semiring: Semiring) -> Array:
        """Weights of the hidden states, (b, c)."""
        return weights if self.emission is None else semiring.product(weights, semiring.of(self.emission))

    @property
    def _any(self) -> Array:
        return next(iter(self.arrays().values()))

    def __repr__(self) -> str:
        factors = ", ".join(f"{name}={tuple(array.shape)}" for name, array in self.arrays().items())
        return f"CPCore({factors})"


KINDS["cp"] = CPCore


def _unchecked(factors: dict[str, Array], switch: Switch | None) -> CPCore:
    core: CPCore = object.__new__(CPCore)
    core._set(factors, switch)
    return core


def _matrix(name: str, value: Any) -> Array:
    factor = value if is_array(value) else np.asarray(value, dtype=np.float64)
    if factor.ndim != 2 or 0 in factor.shape:
        raise ValueError(f"{name} must be a matrix with no empty axis, found shape {tuple(factor.shape)}")
    return factor


def _pairs(a: Array, b: Array) -> Array:
    """Σ_b Σ_r a[b, r, :] b[b, r, :]ᵀ; one row stands for all."""
    xp = namespace(a)
    rows = max(a.shape[0], b.shape[0])
    flat = [xp.reshape(xp.broadcast_to(x, (rows, *x.shape[1:])), (-1, x.shape[2])) for x in (a, b)]
    return flat[0].T @ flat[1]
