"""Starting points for learning: rings near the data's marginals, or near a mixture of products."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ringdist.backend import (
    Array,
    Stream,
    backend_of_namespace,
    default_dtype,
    dtype_name,
    is_array,
    like,
    namespace,
    to_numpy,
    uniform,
)
from ringdist.cores import Core
from ringdist.learning.mixture import component_densities, component_shares, cores_near, fit_mixture
from ringdist.network.random import CoreKind
from ringdist.network.structure import converted_variable, mapped
from ringdist.ring import TensorRing
from ringdist.variables import BUILT_IN, Categorical, GaussianMixture, PoissonMixture, Variable, column_scale


def random_like(ring: TensorRing, rng: np.random.Generator) -> TensorRing:
    """A random ring of the same shape, variables and backend, to start from once more."""
    prototype, seed = ring.prototype, int(rng.integers(2**31))
    stream = Stream(seed, prototype)

    def redrawn(factor: Array) -> Array:
        draws = uniform(stream.next(), factor.shape, prototype)
        return -namespace(draws).log1p(-draws) * namespace(factor).mean(factor)

    return ring.with_values([mapped(core, redrawn) for core in ring.links])


def initialize(
    x: Any,
    variables: Sequence[Variable | type | None],
    rank: int | Sequence[int],
    *,
    num_components: int = 8,
    order: Sequence[int | str] | None = None,
    topology: Literal["ring", "train"] = "ring",
    method: Literal["quantile", "kmeans", "mixture"] = "quantile",
    spread: float = 0.04,
    core: CoreKind = "dense",
    inner: int | None = None,
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
) -> TensorRing:
    """A starting ring from data: components where the data are, near independence, bonds already told apart.

    Core entries are the share of each component in its column times independent exponential variates, so that the ring
    starts near the product of the columns' marginals, but not at it: with all-equal entries no bond would ever
    separate (a symmetric saddle of the likelihood). With `method="mixture"` the ring starts near a mixture of `rank`
    products, fitted by EM here, whose cluster is the state of every bond: for tables with clusters, by far the better.

    Args:
        x: (n, d) data as NumPy array, NaN where missing.
        variables: per column a variable, which is kept; a family (`rd.Categorical`, `rd.GaussianMixture`,
            `rd.PoissonMixture`) to be placed on the data; or None: integers from 0 become categorical if there are
            at most 64 of them, other columns Gaussian mixtures.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`.
        num_components: of Gaussian and Poisson mixtures; fewer where a column has fewer distinct values.
        method: components at equally frequent quantiles, at k-means centres, or at quantiles with a mixture's cores.
        spread: with `method="mixture"`, the share of each core's mass that changes the state of the bond, at random;
            0 is the mixture itself, which EM then never leaves. From much less than the default EM is slow to leave
            the mixture, from much more it has to find the clusters again, with 16 columns as with 800.
        core, inner: the kind of the cores and the hidden states of CP cores, as in `TensorRing.random`; with
            `method="mixture"` a CP core's hidden state is the cluster, and `inner` is None.
        order, topology, rng, xp, dtype, device: as in `TensorRing.random`.

    Raises:
        ValueError: if x is not an (n, d) table, a column has no observed entry to place components on, or an option is
            unknown; with `method="mixture"` also if the rank is not one number, `inner` is given, spread is outside
            [0, 1], or an entry is outside its variable's support.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> rng = np.random.default_rng(0)
        >>> x = np.stack([rng.integers(3, size=100), rng.normal(size=100)], axis=1)
        >>> rd.initialize(x, [None, None], rank=2, num_components=4, rng=0)
        TensorRing(ring of 2 variables: 1 Categorical, 1 GaussianMixture; rank 2, 36 parameters, numpy float64)
    """
    x = to_numpy(x) if is_array(x) else np.asarray(x)
    if x.ndim != 2 or x.shape[1] != len(variables) or x.shape[0] == 0:
        raise ValueError(f"x must have shape (n, {len(variables)}) with n >= 1, found {x.shape}")
    if method not in ("quantile", "kmeans", "mixture"):
        raise ValueError(f"method must be quantile, kmeans or mixture, found {method!r}")
    if not 0 <= spread <= 1:
        raise ValueError(f"spread must be between 0 and 1, found {spread}")
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, found {num_components}")
    target = dtype_name(dtype) if dtype is not None else default_dtype(backend_of_namespace(xp))
    precision = np.float32 if "float32" in (target, x.dtype.name) else np.float64
    placed = [
        _variable(x[:, k], variable, num_components, method, k, precision) for k, variable in enumerate(variables)
    ]
    known = [converted_variable(variable, np, None, None) for variable in placed]
    ring = TensorRing.random(
        placed,
        rank,
        order=order,
        topology=topology,
        core=core,
        inner=inner,
        rng=rng,
        xp=xp,
        dtype=dtype,
        device=device,
    )
    if method == "mixture":
        if not isinstance(rank, int | np.integer):
            raise ValueError(f"a start near a mixture has one rank for all bonds, found {rank!r}; others may differ")
        if inner is not None:
            raise ValueError(
                f"near a mixture the hidden state of a CP core is the cluster: inner must be None, found {inner}"
            )
        clusters = np.random.default_rng(_seed(rng, ring.prototype))
        cores = cores_near(fit_mixture(x, known, int(rank), clusters), ring, spread)
        return TensorRing(cores, ring.variables, ring.order)
    shares = [
        component_shares(component_densities(x[:: max(1, len(x) // 10_000), k], variable))
        for k, variable in enumerate(known)
    ]
    cores = [_by_component(core, share * share.size) for core, share in zip(ring.links, shares, strict=True)]
    return TensorRing(cores, ring.variables, ring.order)


def _by_component(core: Core, factor: np.ndarray) -> Core:
    """The core times a number for each component, (N,)."""
    arrays = core.arrays()
    name = "core" if "core" in arrays else "emission"
    array = arrays[name]
    factor = factor.reshape(-1, *(1,) * (array.ndim - 1))
    return core.with_arrays({**arrays, name: array * like(factor, array)})


def _seed(rng: Any, core: Any) -> int:
    """A NumPy seed from the randomness of any backend."""
    return int(2**31 * float(uniform(Stream(rng, core).next(), (1,), core)[0]))


def _variable(column: np.ndarray, variable: Any, num_components: int, method: str, k: int, precision: Any) -> Variable:
    """The column's variable as it is given, or one of the family with its components on the data."""
    if not (variable is None or isinstance(variable, type | Variable)):
        raise TypeError(f"column {k}: expected a variable, a family or None, found {variable!r}")
    column = column.astype(np.float64)
    observed = column[~np.isnan(column)]
    try:
        if variable is not None and not isinstance(variable, type):
            converted_variable(variable, np, None, None).check(observed)
            return variable
        if observed.size == 0:
            raise ValueError("components need an observed entry to be placed on, found none")
        return _placed(variable, observed, num_components, method, precision)
    except ValueError as error:
        raise ValueError(f"column {k}: {error}") from None


def _placed(family: Any, observed: np.ndarray, num_components: int, method: str, precision: Any) -> Variable:
    """A variable of the family with its components on the data."""
    if np.isinf(observed).any():
        raise ValueError("values must be finite, found infinity")
    wrong = observed[(observed != np.floor(observed)) | (observed < 0)]
    whole = wrong.size == 0
    if family is None:
        family = Categorical if whole and observed.max() < 64 else GaussianMixture
    if family not in BUILT_IN:
        known = ", ".join(kind.__name__ for kind in BUILT_IN)
        raise ValueError(f"components can be placed for {known}, found {family!r}; give a variable of it instead")
    if family is Categorical:
        if not whole:
            raise ValueError(f"categories are integers from 0, found {wrong[0]:g}")
        return Categorical(int(observed.max()) + 1)
    if family is PoissonMixture:
        return PoissonMixture(np.maximum(_centres(observed, num_components, method), 1e-3))
    return _gaussians(observed, num_components, method, np.finfo(precision))


def _gaussians(observed: np.ndarray, num_components: int, method: str, limits: np.finfo) -> GaussianMixture:
    """Components on the data; one component, as wide as its mean is far from 0, where all values are equal."""
    unit = max(float(np.abs(observed).max()), float(limits.smallest_normal))
    scaled = observed / unit  # in [-1, 1]: squares and differences stay in range
    mean, spread = scaled.mean(), (scaled - scaled[0]).std()
    scale = float(column_scale(mean, spread, float(limits.eps))) if mean or spread else 1 / unit
    if scale == spread:
        centres = _centres(scaled, num_components, method)
        gaps = np.diff(centres)
    else:  # constant but for rounding
        centres, gaps = scaled[:1], np.zeros(0)
    widths = np.full(centres.size, scale)
    if gaps.size:  # each standard deviation about the distance to the neighbours, so that the components overlap
        widths = np.maximum(np.maximum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0])), 1e-2 * scale)
    least = float(limits.smallest_normal)
    with np.errstate(over="ignore"):
        return GaussianMixture(centres * unit, np.clip(widths * unit, least, 0.5 / least))


def _centres(observed: np.ndarray, num_components: int, method: str) -> np.ndarray:
    distinct = np.unique(observed)
    if distinct.size <= num_components:
        return distinct
    if method != "kmeans":
        return np.unique(np.quantile(observed, (np.arange(num_components) + 0.5) / num_components))
    from sklearn.cluster import KMeans

    means = KMeans(num_components, n_init=1, random_state=0).fit(observed[:, None])
    return np.unique(means.cluster_centers_[:, 0])
