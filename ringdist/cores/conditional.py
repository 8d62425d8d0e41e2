"""Cores whose factors are conditional distributions in the normal form of a train, and their expected counts in EM.

In normal form Σ_s Σ_b Q[s, a, b] = 1 for every a, so that a train is a hidden Markov model whose transitions and
emissions may differ from column to column, and a core's factors are p(s, b | a) or, in canonical polyadic form,
p(c | a), p(s | c) and p(b | c). One backward and one forward pass over the columns then give the expected counts of
all factors, each of which is maximised by itself (Baum et al. 1970).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ringdist.backend import Array, namespace, row_sums
from ringdist.cores.semiring import LINEAR


class Counts(NamedTuple):
    """The expected counts of b rows for one core of a train."""

    factors: dict[str, Array]  # expected counts of the entries of every factor
    components: Array  # (b, N) weight p(s | row)
    mass: Array  # (b,) Σ prefix A suffix, in whatever scale the two came
    prefix: Array  # (b, m') of the next column, in the scale of this one's


class Conditional:
    """A core that EM can update together with all others of a train; it extends `Core`."""

    conditional: ClassVar[dict[str, int | tuple[int, ...]]]  # axes over which each factor sums to one

    def passed_back(self: Any, suffix: Array, weights: Array) -> tuple[Array, Any]:
        """The core's matrices times the suffix (b, m'), (b, m), and intermediate results for `counts`."""
        return self.transposed().push(suffix[:, None, :], weights, LINEAR)[:, 0, :], suffix

    def counts(self: Any, prefix: Array, kept: Any, weights: Array, row_weight: Array) -> Counts:
        """Expected counts of weighted rows.

        Args:
            prefix: (b, m), in any scale.
            kept: as `passed_back` gives it.
            weights: (b, N) evidence.
            row_weight: (b,).
        """
        environment = self.environment(prefix[:, None, :], kept[:, None, :], LINEAR)
        joint = self.components(environment, LINEAR) * weights
        mass = row_sums(joint)
        scale = per_mass(row_weight, mass)
        scaled = weights * scale
        factors = {name: factor * self.derivative(name, environment, scaled) for name, factor in self.arrays().items()}
        return Counts(factors, joint * scale, mass, self.push(prefix[:, None, :], weights, LINEAR)[:, 0, :])


def per_mass(row_weight: Array, mass: Array) -> Array:
    """row_weight / mass as a column (b, 1), 0 where the mass is 0."""
    xp = namespace(mass)
    return xp.where(mass > 0, row_weight / xp.where(mass > 0, mass, 1.0), 0.0)[:, None]
