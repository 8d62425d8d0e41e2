"""Starting points: random rings whose normaliser is near 1 whatever the rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ringdist._backend import (
    Stream,
    backend_name,
    backend_of_namespace,
    convert,
    default_dtype,
    dtype_name,
    like,
    namespace,
    uniform,
)
from ringdist.variables import Categorical, GaussianMixture, PoissonMixture, Variable, rebuild

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
    from ringdist.ring import TensorRing, column_index

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
    method: Literal["quantile", "kmeans"] = "quantile",
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
) -> TensorRing:
    """A starting ring from data: components where the data are, near independence, bonds already told apart.

    Core entries are the share of each component in its column times independent exponential variates, so that the ring
    starts near the product of the columns' marginals, but not at it: with all-equal entries no bond would ever
    separate (a symmetric saddle of the likelihood).

    Args:
        x: (n, d) data as NumPy array, NaN where missing.
        variables: per column a variable, which is kept; a family (`rd.Categorical`, `rd.GaussianMixture`,
            `rd.PoissonMixture`) to be placed on the data; or None: whole numbers from 0 become categorical if there are
            at most 64 of them, other columns Gaussian mixtures.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`.
        num_components: of Gaussian and Poisson mixtures; fewer where a column has fewer distinct values.
        method: components at equally frequent quantiles, or at k-means centres.
        order, topology, rng, xp, dtype, device: as in `TensorRing.random`.

    Raises:
        ValueError: if x is no (n, d) table, a column has no observed entry to place components on, or an option is
            unknown.
    """
    from ringdist.ring import TensorRing

    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != len(variables) or x.shape[0] == 0:
        raise ValueError(f"x must have shape (n, {len(variables)}) with n >= 1, found {x.shape}")
    if method not in ("quantile", "kmeans"):
        raise ValueError(f"method must be quantile or kmeans, found {method!r}")
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, found {num_components}")
    placed, shares = [], []
    for k, variable in enumerate(variables):
        column = x[:, k].astype(np.float64)
        observed = column[~np.isnan(column)]
        if variable is None or isinstance(variable, type):
            if observed.size == 0:
                raise ValueError(f"column {k}: components need an observed entry to be placed on, found none")
            try:
                variable = _placed(variable, observed, num_components, method)
            except ValueError as error:
                raise ValueError(f"column {k}: {error}") from None
        placed.append(variable)
        shares.append(_shares(variable, observed))
    ring = random_ring(placed, rank, order=order, topology=topology, rng=rng, xp=xp, dtype=dtype, device=device)
    cores = [
        core * like(share * share.size, core)[:, None, None] for core, share in zip(ring.cores, shares, strict=True)
    ]
    return TensorRing(cores, ring.variables, ring.order)


def _placed(family: Any, observed: np.ndarray, num_components: int, method: str) -> Variable:
    """A variable of the family with its components on the data."""
    if np.isinf(observed).any():
        raise ValueError("values must be finite, found infinity")
    wrong = observed[(observed != np.floor(observed)) | (observed < 0)]
    whole = wrong.size == 0
    if family is None:
        family = Categorical if whole and observed.max() < 64 else GaussianMixture
    if issubclass(family, Categorical):
        if not whole:
            raise ValueError(f"categories are whole numbers from 0, found {wrong[0]:g}")
        return Categorical(int(observed.max()) + 1)
    centres = _centres(observed, num_components, method)
    if issubclass(family, PoissonMixture):
        return PoissonMixture(np.maximum(centres, 1e-3))
    spread = observed.std() or 1.0
    gaps = np.diff(centres)
    widths = np.full(centres.size, spread)
    if gaps.size:  # each deviation about the distance to the neighbours, so that the components overlap
        widths = np.maximum(np.maximum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0])), 1e-2 * spread)
    return GaussianMixture(centres, widths)


def _centres(observed: np.ndarray, num_components: int, method: str) -> np.ndarray:
    distinct = np.unique(observed)
    if distinct.size <= num_components:
        return distinct
    if method == "quantile":
        return np.unique(np.quantile(observed, (np.arange(num_components) + 0.5) / num_components))
    from sklearn.cluster import KMeans

    means = KMeans(num_components, n_init=1, random_state=0).fit(observed[:, None])
    return np.unique(means.cluster_centers_[:, 0])


def _shares(variable: Variable, observed: np.ndarray) -> np.ndarray:
    """How much of the data each component answers for under equal weights, none of it zero."""
    if observed.size == 0 or any(backend_name(a) != "numpy" for a in variable.arrays().values()):
        return np.full(variable.num_components, 1 / variable.num_components)
    sample = observed[:: max(1, observed.size // 10_000)]
    logits = np.asarray(variable.log_density(sample))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    share = (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0) + 1
    return share / share.sum()
