"""`RingMixture`: a weighted sum of rings. Its methods delegate to the module of each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from types import ModuleType
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, backend_name, convert, in_own_precision, is_concrete, to_numpy
from ringdist.engines.choice import Engine
from ringdist.interop import mixtures
from ringdist.network import Column
from ringdist.ring import TensorRing
from ringdist.ring_mixture import density, enumeration, moments, posterior, sampling, transforms
from ringdist.ring_mixture.structure import Mixture


class RingMixture(Mixture):
    """A weighted sum of rings over the same columns: p(x) = Σ_c w_c p_c(x).

    The rings may differ in order, ranks, topology, kinds of cores, and in the components of a column's variable.
    Columns that are far apart in one order may be neighbours in another. The queries are those of a ring, and exact
    where a ring's are. A mixture of one ring gives the same results as that ring.

    A mixture owns its weights: it copies them unless they record gradients.

    Args:
        rings: K rings with the same names of columns and spaces of values, of one backend, dtype and device.
        weights: (K,) non-negative numbers, not all 0: an array of the rings' backend, which may record gradients, or a
            sequence of floats. They are divided by their sum.
        validate: whether the values of the weights are checked, if they can be inspected.

    Attributes:
        rings: the K rings.
        weights: (K,), summing to 1.

    Raises:
        ValueError: if there is no ring, columns differ, the number of weights is wrong, or weights are negative,
            infinite, NaN or all 0.
        TypeError: if rings and weights mix backends, dtypes or devices, or `rings` has other objects.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2), rd.GaussianMixture([-1.0, 1.0], [0.5, 0.5]), rd.Categorical(3)]
        >>> rings = [rd.TensorRing.random(variables, 2, order=order, rng=0) for order in ([0, 1, 2], [1, 0, 2])]
        >>> mixture = rd.RingMixture(rings, [1.0, 3.0])
        >>> mixture.weights
        array([0.25, 0.75])
        >>> mixture.log_prob([[0, 0.3, 2], [1, np.nan, 0]]).shape
        (2,)
    """

    def __repr__(self) -> str:
        core = self.prototype
        weights = self.weights
        shares = (
            "" if not is_concrete(weights) else f" weighted {', '.join(f'{w:.3g}' for w in to_numpy(weights).tolist())}"
        )
        dtype = str(core.dtype).removeprefix("torch.")
        ranks = [rank for ring in self.rings for rank in ring.ranks]
        rank = str(ranks[0]) if len(set(ranks)) == 1 else f"{min(ranks)}..{max(ranks)}"
        return (
            f"RingMixture({self.num_rings} rings of {self.num_variables} variables{shares}; rank {rank}, "
            f"{self.num_parameters} parameters, {backend_name(core)} {dtype})"
        )

    # ---------------------------------------------------------------------------------------------------- queries

    @in_own_precision
    def log_prob(self, x: Array, *, engine: Engine = "auto") -> Array:
        """log Σ_c w_c p_c(x); see `ringdist.ring_mixture.density.log_prob`."""
        return density.log_prob(self, x, engine)

    @in_own_precision
    def ring_posterior(self, x: Array) -> Array:
        """p(ring | observed entries of the row); see `ringdist.ring_mixture.density.ring_posterior`."""
        return density.ring_posterior(self, x)

    @in_own_precision
    def probability(self, event: Mapping[Column, Any], x: Array | None = None, *, log: bool = False) -> Array:
        """P(event | observed entries of the row); see `ringdist.ring_mixture.density.probability`."""
        return density.probability(self, event, x, log=log)

    @in_own_precision
    def component_posterior(self, k: Column, x: Array) -> Array:
        """Weights of column k's components; see `ringdist.ring_mixture.posterior.component_posterior`."""
        return posterior.component_posterior(self, k, x)

    @in_own_precision
    def sample(self, n: int, *, rng: Any = None) -> Array:
        """n exact samples, (n, d); see `ringdist.ring_mixture.sampling.sample`."""
        return sampling.sample(self, n, rng=rng)

    @in_own_precision
    def sample_given(
        self, x: Array, n: int | None = None, *, event: Mapping[Column, Any] | None = None, rng: Any = None
    ) -> Array:
        """NaN entries drawn from p(missing | observed, event); see `ringdist.ring_mixture.sampling.sample_given`."""
        return sampling.sample_given(self, x, n, event=event, rng=rng)

    @in_own_precision
    def marginal(self, keep: Sequence[Column]) -> Self:
        """The marginal over some columns as a mixture; see `ringdist.ring_mixture.transforms.marginal`."""
        return transforms.marginal(self, keep)

    @in_own_precision
    def condition(self, evidence: Mapping[Column, Any]) -> Self:
        """The mixture given values and events; see `ringdist.ring_mixture.transforms.condition`."""
        return transforms.condition(self, evidence)

    @in_own_precision
    def mean(self, x: Array | None = None) -> Array:
        """E[column], or E[column | observed entries]; see `ringdist.ring_mixture.moments.mean`."""
        return moments.mean(self, x)

    @in_own_precision
    def covariance(self) -> Array:
        """Exact (d, d) covariance; see `ringdist.ring_mixture.moments.covariance`."""
        return moments.covariance(self)

    @in_own_precision
    def cdf(self, k: Column, x: Array) -> Array:
        """P(X_k <= x_k | other observed entries); see `ringdist.ring_mixture.posterior.cdf`."""
        return posterior.cdf(self, k, x)

    @in_own_precision
    def quantile(self, k: Column, q: Array, x: Array) -> Array:
        """The smallest value of column k with F >= q; see `ringdist.ring_mixture.posterior.quantile`."""
        return posterior.quantile(self, k, q, x)

    @in_own_precision
    def mode(self, x: Array | None = None) -> Array:
        """The best completion found; see `ringdist.ring_mixture.enumeration.mode` for what is guaranteed."""
        return enumeration.mode(self, x)

    @in_own_precision
    def mutual_information(self) -> Array:
        """(d, d) in nats between component variables; see `ringdist.ring_mixture.moments.mutual_information`."""
        return moments.mutual_information(self)

    @in_own_precision
    def entropy(self, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
        """Entropy in nats and its standard error; see `ringdist.ring_mixture.enumeration.entropy`."""
        return enumeration.entropy(self, n, rng)

    @in_own_precision
    def to_dense(self) -> Array:
        """The table of probabilities of a small discrete mixture; see `ringdist.ring_mixture.enumeration.to_dense`."""
        return enumeration.to_dense(self)

    # ------------------------------------------------------------------------------------------- other forms of it

    def dense(self) -> Self:
        """The same mixture with arrays for all cores."""
        return self.mapped(TensorRing.dense)

    def permute(self, columns: Sequence[Column]) -> Self:
        """The same distribution with columns renumbered; see `ringdist.ring_mixture.transforms.permute`."""
        return transforms.permute(self, columns)

    def to(self, xp: ModuleType | None = None, *, dtype: Any = None, device: Any = None) -> Self:
        """The mixture in another backend or dtype or on another device; see `ringdist.ring_mixture.transforms.to`."""
        return transforms.to(self, xp, dtype, device)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the mixture to a safetensors file, atomically; see `ringdist.interop.mixtures.save`."""
        mixtures.save(self.rings, self.linear, self.logs, path)


def load(
    path: str | PathLike[str], *, xp: ModuleType = np, device: Any = None, families: Sequence[type] = ()
) -> TensorRing | RingMixture:
    """The ring or mixture of rings saved at `path`, checked like any other; see `ringdist.interop.mixtures.load`.

    Args:
        xp: numpy, torch or jax.numpy: the backend of the result.
        device: the device of its arrays, in the notation of that backend; its default if None. For NumPy 'cpu'.
        families: classes of variables in addition to the built-in ones, found by their names. Names in a file never
            cause an import.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if xp is not such a module.
        ValueError: if the backend is NumPy and the device is not 'cpu', or the file is truncated, corrupt, not a
            ringdist file, of a newer format, or holds another family.

    Examples:
        >>> import tempfile
        >>> import ringdist as rd
        >>> ring = rd.TensorRing.random([rd.Categorical(2, name="rain")], rank=2, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ring.save(f"{folder}/ring.safetensors")
        ...     again = rd.load(f"{folder}/ring.safetensors")
        >>> again.variables[0].name
        'rain'
    """
    convert(np.zeros(()), xp, device=device)  # check backend and device before reading the file
    found = mixtures.load(path, TensorRing, _mixture, families=families)
    return found if xp is np else found.to(xp, device=device)


def _mixture(rings: list[TensorRing], weights: np.ndarray, logs: np.ndarray) -> RingMixture:
    return RingMixture(rings, weights).with_rings(rings, logs.astype(np.float64))
