"""A family of variables as a user would write it: one class against the public protocol, nothing of ringdist used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device


class LaplaceMixture:
    """Component s is the Laplace density exp(−|x − location_s| / scale_s) / (2 scale_s)."""

    def __init__(self, locations, scales, name: str | None = None) -> None:
        self.locations, self.scales, self.name = locations, scales, name
        self.num_components = locations.shape[0]

    def log_density(self, x):
        xp = array_namespace(self.locations)
        distance = xp.abs(x[..., None] - self.locations) / self.scales
        return -distance - xp.log(2 * self.scales)

    def cdf(self, x):
        xp = array_namespace(self.locations)
        z = (x[..., None] - self.locations) / self.scales
        tail = xp.exp(-xp.abs(z)) / 2
        return xp.where(z < 0, tail, 1 - tail)

    def sample(self, component, rng):
        u = _uniform(component.shape, rng, self.locations) - 0.5
        xp = array_namespace(self.locations)
        location, scale = self.locations[component], self.scales[component]
        return location - scale * xp.sign(u) * xp.log1p(-2 * xp.abs(u))

    def means(self):
        return self.locations

    def variances(self):
        return 2 * self.scales**2

    def inner(self, other: LaplaceMixture):
        """∫ p(x | s) p'(x | t) dx, the density of the difference of two Laplace variables at the distance."""
        xp = array_namespace(self.locations)
        distance = xp.abs(self.locations[:, None] - other.locations)
        a, b = xp.broadcast_arrays(self.scales[:, None], other.scales)
        equal = a == b
        gap = xp.where(equal, xp.ones_like(a), a**2 - b**2)
        unequal = (a * xp.exp(-distance / a) - b * xp.exp(-distance / b)) / (2 * gap)
        return xp.where(equal, (1 + distance / a) * xp.exp(-distance / a) / (4 * a), unequal)

    def update(self, x, responsibilities) -> LaplaceMixture:
        """Weighted medians and mean absolute deviations of what is observed."""
        xp, place = array_namespace(self.locations), device(self.locations)
        x, weights = _on_host(x), _on_host(responsibilities)
        seen = ~np.isnan(x)
        x, weights = x[seen], weights[seen]
        if not len(x):
            return self
        by_value = np.argsort(x)
        total = weights.sum(0)
        middle = (np.cumsum(weights[by_value], axis=0) < total / 2).sum(0)
        locations = x[by_value][np.minimum(middle, len(x) - 1)]
        scales = (weights * np.abs(x[:, None] - locations)).sum(0) / total
        arrays = (xp.asarray(array, device=place) for array in (locations, scales))
        return LaplaceMixture(*arrays, name=self.name)

    def arrays(self) -> dict[str, Any]:
        return {"locations": self.locations, "scales": self.scales}

    def check(self, x) -> None:
        xp = array_namespace(x)
        if bool(xp.any(xp.isinf(x))):
            raise ValueError(f"value {math.inf} is not finite")


def _on_host(array) -> np.ndarray:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def _uniform(shape, rng, like):
    """Uniform numbers from whatever generator the backend has."""
    if isinstance(rng, np.random.Generator):
        return np.asarray(rng.random(shape), dtype=like.dtype)
    if type(rng).__module__.startswith("torch"):
        import torch

        return torch.rand(shape, generator=rng, dtype=like.dtype, device=like.device)
    import jax

    return jax.random.uniform(rng, shape, dtype=like.dtype)
