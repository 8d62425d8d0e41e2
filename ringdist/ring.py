"""`TensorRing`: an immutable tensor-ring distribution. Its methods delegate to the module of each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from types import ModuleType
from typing import Any, Self

import numpy as np

from ringdist.backend import Array, backend_name, in_own_precision
from ringdist.engines.choice import Engine
from ringdist.interop import files, networks
from ringdist.network import Column, Network, expression
from ringdist.network.layout import Columns
from ringdist.network.random import CoreKind, Topology, random_parts
from ringdist.queries import (
    dense,
    inner,
    log_prob,
    modes,
    moments,
    pathwise,
    posterior,
    probability,
    sampling,
    trains,
    transforms,
)
from ringdist.variables import Variable


class TensorRing(Network):
    """A distribution over d variables with mass P̂[s] = Tr ∏_k Q_k[s_k] on their components (paper Eq. 1).

    p(x) ∝ Σ_s P̂[s] ∏_k p(x_k | s_k) = Tr ∏_k A_k(x_k) with A_k(x_k) = Σ_s Q_k[s] p(x_k | s) (Eq. 3); for a categorical
    column a component is a value. A tensor train is a ring with a bond of rank 1.

    Queries name columns by index or name: `x[..., k]` is column k. `cores[i]` and `variables[i]` belong to site i.
    `columns[i]` are the columns of that site: column i alone, unless a variable is wide, such as
    `rd.MultivariateGaussianMixture`. A wide variable may cover any columns of x. `num_variables` is the number of
    sites, `num_columns` the number d of columns of x. `order` lists the sites in their sequence around the ring.

    A ring owns its cores: it copies the arrays it is given, unless they record gradients or `copy=False`. It caches
    results, such as log Z, only for cores that it owns. Do not write to its arrays.

    Args:
        cores: non-negative cores Q_k of shape (N_k, m, m'), one for each variable: arrays, or cores of another kind
            such as `rd.CPCore`, all of one backend, dtype (float32, float64) and device.
        variables: one for each column, or for several that share its components; `variables[k].num_components` is N_k.
        order: the variables in ring order, by their index or the name of a column; 0, 1, ... by default. The right bond
            of `cores[order[j]]` is the left bond of `cores[order[j + 1]]`, cyclically.
        columns: for every variable its columns of x: a tuple in the variable's own order, or an index if there is one
            column; together a permutation of 0..d-1. By default those of variable 0 come first, then those of variable
            1, and so on. If no variable is wide, variables and cores are sorted by their columns.
        validate: whether to check values, here and in every x; under tracing they cannot be checked. Shapes and types
            are always checked. On an accelerator a check waits for the device. Without checks, no differentiable query
            waits.
        copy: whether to copy cores that record no gradient. Without copies the ring follows later writes to them.

    Raises:
        ValueError: if shapes do not fit, ranks do not close, a core has negative, NaN, infinite or only zero entries,
            or columns are not a permutation or not as many as their variable has.
        TypeError: if arrays mix backends, dtypes or devices, or are not float32 or float64.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> variables = [rd.Categorical(2), rd.GaussianMixture([-1.0, 1.0], [0.5, 0.5])]
        >>> ring = rd.TensorRing.random(variables, rank=3, rng=0)
        >>> ring.log_prob([[0, 0.3], [1, np.nan]]).shape
        (2,)
    """

    @classmethod
    def random(
        cls,
        variables: Sequence[Variable],
        rank: int | Sequence[int],
        *,
        order: Sequence[Column] | None = None,
        columns: Columns | None = None,
        topology: Topology = "ring",
        core: CoreKind = "dense",
        inner: int | None = None,
        rng: Any = None,
        xp: ModuleType = np,
        dtype: Any = None,
        device: Any = None,
    ) -> Self:
        """A ring with random positive cores, scaled so that Z is near 1; see `ringdist.network.random.random_parts`."""
        parts = random_parts(
            variables,
            rank,
            order=order,
            columns=columns,
            topology=topology,
            core=core,
            inner=inner,
            rng=rng,
            xp=xp,
            dtype=dtype,
            device=device,
        )
        return cls(*parts)

    def __repr__(self) -> str:
        ranks = self.ranks
        rank = str(ranks[0]) if len(set(ranks)) == 1 else f"{min(ranks)}..{max(ranks)}"
        kind = "train" if self.is_train else "ring"
        kinds = {type(core).__name__ for core in self.links} - {"DenseCore"}
        counts: dict[str, int] = {}
        for variable in self.variables:
            counts[type(variable).__name__] = counts.get(type(variable).__name__, 0) + 1
        families = ", ".join(f"{count} {family}" for family, count in counts.items())
        made_of = "" if not kinds else f"{', '.join(sorted(kinds))} cores, "
        dtype = str(self.prototype.dtype).removeprefix("torch.")
        return (
            f"TensorRing({kind} of {self.num_variables} variables: {families}; rank {rank}, {made_of}"
            f"{self.num_parameters} parameters, {backend_name(self.prototype)} {dtype})"
        )

    # ---------------------------------------------------------------------------------------------------- queries

    @in_own_precision
    def log_prob(self, x: Array, *, engine: Engine = "auto") -> Array:
        """log p(x); see `ringdist.queries.log_prob.log_prob`."""
        return log_prob.log_prob(self, x, engine)

    @in_own_precision
    def log_normalizer(self) -> Array:
        """log Z = log Tr ∏_k Σ_s Q_k[s]; see `ringdist.queries.log_prob.log_normalizer`."""
        return log_prob.log_normalizer(self)

    @in_own_precision
    def probability(self, event: Mapping[Column, Any], x: Array | None = None, *, log: bool = False) -> Array:
        """P(event | observed entries of the row); see `ringdist.queries.probability.probability`."""
        return probability.probability(self, event, x, log=log)

    @in_own_precision
    def component_posterior(self, k: Column, x: Array) -> Array:
        """p(s_k | observed entries of the row); see `ringdist.queries.posterior.component_posterior`."""
        return posterior.component_posterior(self, k, x)

    @in_own_precision
    def sample(self, n: int, *, rng: Any = None) -> Array:
        """n exact samples, (n, d); see `ringdist.queries.sampling.sample`."""
        return sampling.sample(self, n, rng=rng)

    @in_own_precision
    def sample_given(
        self, x: Array, n: int | None = None, *, event: Mapping[Column, Any] | None = None, rng: Any = None
    ) -> Array:
        """NaN entries drawn from p(missing | observed, event); see `ringdist.queries.sampling.sample_given`."""
        return sampling.sample_given(self, x, n, event=event, rng=rng)

    @in_own_precision
    def pathwise(self, x: Array, given: Array | None = None) -> Array:
        """Samples x with pathwise gradients (PyTorch, JAX); see `ringdist.queries.pathwise.pathwise`."""
        return pathwise.pathwise(self, x, given)

    @in_own_precision
    def marginal(self, keep: Sequence[Column]) -> Self:
        """The marginal over some columns as a ring; see `ringdist.queries.transforms.marginal`."""
        return transforms.marginal(self, keep)

    @in_own_precision
    def condition(self, evidence: Mapping[Column, Any]) -> Self:
        """The ring given values of some columns and events of others; see `ringdist.queries.transforms.condition`."""
        return transforms.condition(self, evidence)

    @in_own_precision
    def mean(self, x: Array | None = None) -> Array:
        """E[column], or E[column | observed entries]; see `ringdist.queries.moments.mean`."""
        return moments.mean(self, x)

    @in_own_precision
    def covariance(self) -> Array:
        """Exact (d, d) covariance; see `ringdist.queries.moments.covariance`."""
        return moments.covariance(self)

    @in_own_precision
    def cdf(self, k: Column, x: Array) -> Array:
        """P(X_k <= x_k | other observed entries); see `ringdist.queries.posterior.cdf`."""
        return posterior.cdf(self, k, x)

    @in_own_precision
    def quantile(self, k: Column, q: Array, x: Array) -> Array:
        """The smallest value of column k with F >= q; see `ringdist.queries.posterior.quantile`."""
        return posterior.quantile(self, k, q, x)

    @in_own_precision
    def mode(self, x: Array | None = None) -> Array:
        """The best completion found; see `ringdist.queries.modes.mode` for what is guaranteed."""
        return modes.mode(self, x)

    @in_own_precision
    def mutual_information(self) -> Array:
        """(d, d) in nats between component variables; see `ringdist.queries.moments.mutual_information`."""
        return moments.mutual_information(self)

    @in_own_precision
    def entropy(self, n: int = 10_000, rng: Any = None) -> tuple[float, float]:
        """Entropy in nats and its standard error; see `ringdist.queries.dense.entropy`."""
        return dense.entropy(self, n, rng)

    @in_own_precision
    def inner(self, other: TensorRing) -> Array:
        """Σ or ∫ p q; see `ringdist.queries.inner.inner`."""
        return inner.inner(self, other)

    @in_own_precision
    def to_dense(self) -> Array:
        """The table of probabilities of a small discrete ring; see `ringdist.queries.dense.to_dense`."""
        return dense.to_dense(self)

    # ------------------------------------------------------------------------------------------- other forms of it

    def dense(self) -> Self:
        """The same ring with arrays for all cores."""
        if self.is_dense:
            return self
        return self.rebuilt([core.dense() for core in self.links], self.variables, self.order, self.columns)

    @in_own_precision
    def to_train(self) -> Self:
        """The same distribution as a train, exactly; see `ringdist.queries.trains.to_train`."""
        return trains.to_train(self)

    def permute(self, columns: Sequence[Column]) -> Self:
        """The same distribution with columns renumbered; see `ringdist.queries.transforms.permute`."""
        return transforms.permute(self, columns)

    def to(self, xp: ModuleType | None = None, *, dtype: Any = None, device: Any = None) -> Self:
        """The ring in another backend or dtype or on another device; see `ringdist.queries.transforms.to`."""
        return transforms.to(self, xp, dtype, device)

    def to_tensornetwork(self, x: Array | None = None) -> list[Any]:
        """Connected `tensornetwork.Node`s; see `ringdist.interop.networks.to_tensornetwork`."""
        return networks.to_tensornetwork(self, x)

    @classmethod
    def from_tensornetwork(
        cls, nodes: Sequence[Any], variables: Sequence[Variable], columns: Columns | None = None
    ) -> Self:
        """The ring of connected nodes; see `ringdist.interop.networks.from_tensornetwork`."""
        cores, order = networks.from_tensornetwork(nodes, variables)
        return cls(cores, variables, order, columns)

    def einsum(self, open: Sequence[Column] = ()) -> tuple[str, list[Array]]:
        """opt_einsum equation and operands of P̂; see `ringdist.network.expression.einsum`."""
        return expression.einsum(self, open)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the ring to a safetensors file, atomically; see `ringdist.interop.files.save`."""
        files.save(self, path)
