"""Piecewise polynomial densities: masses, moments, distribution functions and samples."""

from __future__ import annotations

from ringdist.backend import Array, draw, indices, namespace, repeated, safe_log, stop_gradient, take

NODES = 12  # of a panel
HALVINGS = 50  # of a panel to invert its distribution function


class Panels:
    """P panels of N densities, each of them a function of t in [−1, 1].

    Args:
        log_values: (P, n, N), logarithm of the density in t at n nodes; for a block of integers, of the probabilities
            of n of them.
        weights: (P or 1, n, 1), quadrature weights, with which the values sum to the mass of the panel.
        legendre: (P or 1, n, n), the matrix from the values to the Legendre coefficients of the density in t.
    """

    def __init__(self, log_values: Array, weights: Array, legendre: Array):
        xp = namespace(log_values)
        top = stop_gradient(xp.max(log_values, axis=(0, 1)))
        self.top = xp.where(xp.isfinite(top), top, 0.0)
        self.weights, self.legendre = weights, legendre
        self.values = xp.exp(log_values - self.top)
        self.masses = xp.sum(weights * self.values, axis=1)  # (P, N)

    @property
    def log_total(self) -> Array:
        """Logarithm of the mass of each component, (N,)."""
        return safe_log(namespace(self.masses).sum(self.masses, axis=0)) + self.top

    def scaled(self, factors: Array) -> None:
        """Multiply the masses of the panels by factors (P, N)."""
        self.values, self.masses = self.values * factors[:, None, :], self.masses * factors

    def moments(self, offsets: Array) -> tuple[Array, Array]:
        """Mean and variance (N,) of a function with values `offsets` (P, n, N or 1) at the nodes; 0 without mass."""
        xp = namespace(self.masses)
        total = xp.sum(self.masses, axis=0)
        share = self.weights * self.values / xp.where(total > 0, total, 1.0)
        mean = xp.sum(share * offsets, axis=(0, 1))
        return mean, xp.sum(share * (offsets - mean) ** 2, axis=(0, 1))

    def sum(self, function: Array) -> Array:
        """The integral (N,) of the density times a function with values (P, n, N or 1) at the nodes."""
        total = namespace(function).sum(self.weights * self.values * function, axis=(0, 1))
        return total * namespace(total).exp(self.top)

    def below(self, panel: Array, t: Array) -> Array:
        """The mass below t in [−1, 1] within the panels of indices `panel`, both of shape (..., N)."""
        place = panel * panel.shape[-1] + indices(range(panel.shape[-1]), panel)
        return _below(self._coefficients(place), t)

    def draw(self, component: Array, u: Array, v: Array) -> tuple[Array, Array]:
        """One sample from each of n components, as a panel and a point t in it, from uniform numbers u and v."""
        xp = namespace(self.values)
        panel = draw(take(self.masses.T, component), u)
        coefficients = self._coefficients(panel * self.masses.shape[1] + component)
        level = 2 * coefficients[:, 0] * v

        def halved(ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            reached = _below(coefficients, middle) >= level
            return xp.where(reached, ends[0], middle), xp.where(reached, middle, ends[1])

        low, high = repeated(halved, (0 * v - 1, 0 * v + 1), HALVINGS)
        return panel, 0.5 * (low + high)

    def _coefficients(self, place: Array) -> Array:
        """Legendre coefficients (..., n) of the density in t, for flat indices of panel and component, 0..P N − 1."""
        xp, nodes = namespace(self.values), self.values.shape[1]
        flat = xp.reshape(xp.permute_dims(self.legendre @ self.values, (0, 2, 1)), (-1, nodes))
        return xp.reshape(take(flat, xp.reshape(place, (-1,))), (*place.shape, nodes))


def _below(coefficients: Array, t: Array) -> Array:
    """Σ_m coefficients[m] ∫ P_m from −1 to t, for coefficients (..., n) and t (...)."""
    before, current = 0 * t - 1, 0 * t + 1  # P_{−1} as the integral of P_0 has it, and P_0
    total = 0 * t
    for m in range(coefficients.shape[-1]):
        following = t if m == 0 else ((2 * m + 1) * t * current - m * before) / (m + 1)
        total = total + coefficients[..., m] * (following - before) / (2 * m + 1)
        before, current = current, following
    return total


def ratio(part: Array, total: Array) -> Array:
    """part / total, clipped to [0, 1]; 0 if the total is 0."""
    xp = namespace(part)
    return xp.clip(part / xp.where(total > 0, total, 1.0), min=0.0, max=1.0)
