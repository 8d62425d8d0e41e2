"""Cores in canonical polyadic form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from ringdist.backend import (
    Array,
    cached_property,
    identity,
    namespace,
    row_sums,
    take,
    times_power,
)
from ringdist.cores.conditional import Conditional, Counts, per_mass
from ringdist.cores.cp_factors import checked_factors, leaned_factors, pairs
from ringdist.cores.protocol import KINDS, Core
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
    _given: dict[str, Array]  # the factors, but `right` if there is a switch

    def __init__(self, left: Any = None, emission: Any = None, right: Any = None):
        self._set(checked_factors(left, emission, right))

    def _set(self, factors: dict[str, Array], switch: Switch | None = None) -> None:
        given = {name: factors[name] for name in ("left", "emission", "right") if name in factors}
        own = self.__dict__
        own["left"], own["emission"], own["switch"] = given.get("left"), given.get("emission"), switch
        if "right" in given or switch is None:
            own["right"] = given.get("right")
        if switch is not None:
            given.pop("right", None)
        own["_given"] = given

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
        if validate:
            factors = checked_factors(left, emission, right=switch.stay[:, None])
            factors.pop("right")
        else:
            given = {"left": left, "emission": emission}
            factors = {name: factor for name, factor in given.items() if factor is not None}
        return _unchecked(factors, switch)

    def __getattr__(self, name: str) -> Array:
        """The right factor of a core with a switch, computed when it is first asked for."""
        switch = self.__dict__.get("switch")
        if name != "right" or switch is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        right, is_lasting = switch.lasting_dense()
        if is_lasting:
            self.__dict__["right"] = right
        return right

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"cores are immutable: {name} cannot be set")

    @cached_property
    def inner(self) -> int:
        """c, the number of hidden states."""
        if self.switch is not None:
            return int(self.switch.stay.shape[0])
        name, factor = next(iter(self._given.items()))
        return int(factor.shape[0 if name == "right" else 1])

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(N, m, m')."""
        c = self.inner
        return (
            c if self.emission is None else int(self.emission.shape[0]),
            c if self.left is None else int(self.left.shape[0]),
            c if self.switch is not None or self.right is None else int(self.right.shape[1]),
        )

    def arrays(self) -> dict[str, Array]:
        """The factors that are not identities, by name."""
        return dict(self._given) if self.switch is None else {**self._given, "right": self.right}

    @property
    def has_right(self) -> bool:
        """Whether the right factor is not an identity, without computing that of a switch."""
        return self.switch is not None or self.right is not None

    def sources(self) -> tuple[Array, ...]:
        """The arrays that the factors are made of: themselves, or those of the switch."""
        return (*self._given.values(), *(self.switch or ()))

    def factor(self, name: str) -> Array:
        """The factor of that name, an identity where it is None."""
        found: Array | None = getattr(self, name)
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
        kept = "right" in arrays and arrays["right"] is own.get("right")
        return _unchecked(arrays, own.get("switch") if kept else None)

    def exchanged(self, name: str, factor: Array) -> CPCore:
        """The core with another factor, and the same switch unless that is the right one; unchecked."""
        return _unchecked({**self._given, name: factor}, None if name == "right" else self.switch)

    def converted(self, function: Callable[[Array], Array]) -> CPCore:
        """The core, with its switch, of arrays with the same values: copies, or of another dtype or device."""
        switch = None if self.switch is None else Switch(*map(function, self.switch))
        return _unchecked({name: function(factor) for name, factor in self._given.items()}, switch)

    def divided(self, exponent: int) -> CPCore:
        """The core divided by 2^exponent, in its first factor."""
        if not self._given:
            return _unchecked({}, self.switch and self.switch.divided(exponent))
        name, factor = next(iter(self._given.items()))
        return self.exchanged(name, times_power(factor, -exponent))

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
            return pairs(prefix, inner_suffix * hidden)
        return pairs(inner_prefix * hidden, suffix)

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
        core, names = self, {*self._given, *(["right"] if self.has_right else [])}
        for scale, outward in ((left, "left"), (right, "right")):
            if scale is None:
                continue
            # A scale at an identity goes to the emission, or through another identity to the factor on the other side.
            name = next(name for name in (outward, "emission", "left", "right") if name in names)
            rows = name == ("left" if outward == "left" else "") or (name == "right" and outward == "left")
            core = core.exchanged(name, core.factor(name) * (scale[:, None] if rows else scale))
        return core

    def leaned(self) -> tuple[CPCore, int]:
        """The core divided by a power of two, and the exponent; see `leaned_factors`."""
        factors, exponent = leaned_factors(self.arrays())
        return self.with_arrays(factors), exponent

    def absorbed(self, left: Array | None, right: Array | None) -> CPCore:
        """left Q[s] right as a CP core, with the matrices in its left and right factors."""
        core = self if left is None else self.exchanged("left", left if self.left is None else left @ self.left)
        return core if right is None else core.exchanged("right", right if self.right is None else self.right @ right)

    def _hidden(self, weights: Array, semiring: Semiring) -> Array:
        """Weights of the hidden states, (b, c)."""
        return weights if self.emission is None else semiring.product(weights, semiring.of(self.emission))

    @property
    def _any(self) -> Array:
        return self.sources()[0]

    def __repr__(self) -> str:
        shapes = {name: tuple(array.shape) for name, array in self._given.items()}
        shapes |= {} if self.switch is None else {"right": (self.inner, self.shape[2])}
        factors = ", ".join(f"{name}={shape}" for name, shape in shapes.items())
        return f"CPCore({factors})"


KINDS["cp"] = CPCore


def sources(core: Core) -> tuple[Array, ...]:
    """The arrays that a core is made of, of which its factors may be computed."""
    return core.sources() if isinstance(core, CPCore) else tuple(core.arrays().values())


def _unchecked(factors: dict[str, Array], switch: Switch | None) -> CPCore:
    core: CPCore = object.__new__(CPCore)
    core._set(factors, switch)
    return core
