"""Starting points: random rings whose normaliser is near 1 whatever the rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ringdist._backend import (
    backend_name,
    backend_of_namespace,
    convert,
    default_dtype,
    dtype_name,
    like,
    namespace,
)
from ringdist._checks import column_index
from ringdist._random import Stream, uniform
from ringdist.mixture import component_densities, component_shares, cores_near, fit_mixture
from ringdist.variables import (
    BUILT_IN,
    Categorical,
    GaussianMixture,
    PoissonMixture,
    Variable,
    column_scale,
    rebuild,
)

if TYPE_CHECKING:
    from ringdist.ring import TensorRing


def random_ring(
    variables: Sequence[Variable],
    rank: int | Sequence[int],
    *,
    order: Sequence[int | str] | None = None,
    topology: Literal["ring", "train"] = "ring",
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
) -> TensorRing:
    """A ring whose core entries are independent exponential variates of mean 1 / (N_k m_{k+1}).

    The random entries break the symmetry between the values of a bond, without which learning never separates them;
    their mean keeps Z = Tr ∏ Σ_s Q_k[s] near 1 at every rank.

    Args:
        variables: d variables; their arrays are moved to the backend of `xp`.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`. With topology "train" an int leaves the
            first bond at 1, and a sequence must start with 1.
        rng: seed, or the backend's own generator or key.
        xp: numpy, torch or jax.numpy. dtype: float32 or float64, the backend's default if None.

    Raises:
        ValueError: if a rank is not positive, the number of ranks is not d, or a train does not start with rank 1.
    """
    from ringdist.ring import TensorRing

    variables = list(variables)
    if not variables:
        raise ValueError("a ring needs at least one variable, found none")
    ranks = bond_ranks(rank, len(variables), topology)
    columns = range(len(variables)) if order is None else [column_index(k, variables) for k in order]
    if sorted(columns) != list(range(len(variables))):
        raise ValueError(f"order must be a permutation of the {len(variables)} columns, found {list(columns)}")
    backend = backend_of_namespace(xp)
    name = dtype_name(dtype) if dtype is not None else default_dtype(backend)
    prototype = convert(np.zeros(()), xp if backend != "numpy" else None, name, device)
    stream = Stream(rng, prototype)
    cores: list[Any] = [None] * len(variables)
    for j, k in enumerate(columns):
        size, left, right = variables[k].num_components, ranks[j], ranks[(j + 1) % len(ranks)]
        draws = uniform(stream.next(), (size, left, right), prototype)
        cores[k] = -namespace(draws).log1p(-draws) / (size * right)
    moved = [move_variable(v, xp, name, device) for v in variables]
    return TensorRing(cores, moved, columns)


def bond_ranks(rank: int | Sequence[int], d: int, topology: str) -> list[int]:
    """One rank per bond; `ValueError` unless they are positive and fit the topology."""
    if topology not in ("ring", "train"):
        raise ValueError(f"topology must be ring or train, found {topology!r}")
    if not isinstance(rank, Iterable | int | np.integer) or isinstance(rank, bool | str):
        raise TypeError(f"rank must be a whole number or one per bond, found {rank!r}")
    if isinstance(rank, int | np.integer):
        ranks = [int(rank)] * d
        if topology == "train":
            ranks[0] = 1
    else:
        ranks = [int(r) for r in rank]
    if len(ranks) != d:
        raise ValueError(f"there must be one rank per bond, {d} in all, found {len(ranks)}")
    if min(ranks) < 1:
        raise ValueError(f"ranks must be at least 1, found {min(ranks)}")
    if topology == "train" and ranks[0] != 1:
        raise ValueError(f"the first bond of a train has rank 1, found {ranks[0]}")
    return ranks


def move_variable(variable: Variable, xp: ModuleType | None, dtype: Any, device: Any) -> Variable:
    """The variable with its arrays in another backend or dtype or on another device."""
    arrays = variable.arrays()
    if not arrays:
        return variable
    moved = {key: convert(array, xp, dtype, device) for key, array in arrays.items()}
    return rebuild(type(variable), variable.num_components, variable.name, moved)


def shaken(ring: TensorRing, rng: np.random.Generator) -> TensorRing:
    """A random ring of the same shape, variables and backend, to start from once more."""
    core = ring.cores[0]
    device = None if backend_name(core) == "jax" else core.device
    return random_ring(
        ring.variables,
        ring.ranks,
        order=ring.order,
        rng=int(rng.integers(2**31)),
        xp=namespace(core),
        dtype=core.dtype,
        device=device,
    )


def initialize(
    x: Any,
    variables: Sequence[Variable | type | None],
    rank: int | Sequence[int],
    *,
    num_components: int = 8,
    order: Sequence[int | str] | None = None,
    topology: Literal["ring", "train"] = "ring",
    method: Literal["quantile", "kmeans", "mixture"] = "quantile",
    spread: float = 0.1,
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
            `rd.PoissonMixture`) to be placed on the data; or None: whole numbers from 0 become categorical if there are
            at most 64 of them, other columns Gaussian mixtures.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`.
        num_components: of Gaussian and Poisson mixtures; fewer where a column has fewer distinct values.
        method: components at equally frequent quantiles, at k-means centres, or at quantiles with a mixture's cores.
        spread: with `method="mixture"`, the share of each core's mass that changes the state of the bond, at random;
            0 is the mixture itself, which EM then never leaves.
        order, topology, rng, xp, dtype, device: as in `TensorRing.random`.

    Raises:
        ValueError: if x is no (n, d) table, a column has no observed entry to place components on, or an option is
            unknown; with `method="mixture"` also if the rank is not one number, spread is outside [0, 1], or an entry
            is outside its variable's support.
    """
    from ringdist.ring import TensorRing

    x = np.asarray(x)
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
    known = [move_variable(variable, np, None, None) for variable in placed]
    ring = random_ring(placed, rank, order=order, topology=topology, rng=rng, xp=xp, dtype=dtype, device=device)
    if method == "mixture":
        if not isinstance(rank, int | np.integer):
            raise ValueError(f"a start near a mixture has one rank for all bonds, found {rank!r}; others may differ")
        clusters = np.random.default_rng(_seed(rng, ring.cores[0]))
        near = cores_near(fit_mixture(x, known, int(rank), clusters), ring, spread)
        cores = [like(core, old) for core, old in zip(near, ring.cores, strict=True)]
        return TensorRing(cores, ring.variables, ring.order)
    shares = [
        component_shares(component_densities(x[:: max(1, len(x) // 10_000), k], variable))
        for k, variable in enumerate(known)
    ]
    cores = [
        core * like(share * share.size, core)[:, None, None] for core, share in zip(ring.cores, shares, strict=True)
    ]
    return TensorRing(cores, ring.variables, ring.order)


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
            move_variable(variable, np, None, None).check(observed)
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
            raise ValueError(f"categories are whole numbers from 0, found {wrong[0]:g}")
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
