"""Starting points for learning: rings near the product of the marginals, or near a mixture of products or chains."""

from __future__ import annotations

import functools
import inspect
import itertools
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
from ringdist.learning.chains import cores_near_chains
from ringdist.learning.mixture import component_densities, component_shares, cores_near, fit_mixture
from ringdist.learning.normal_form import normalized_factors
from ringdist.network.layout import Columns, as_columns
from ringdist.network.random import CoreKind
from ringdist.network.rows import unmasked
from ringdist.network.structure import converted_variable, mapped
from ringdist.ring import TensorRing
from ringdist.variables import BUILT_IN, Categorical, Family, GaussianMixture, Truncated, Variable

SHARE_ROWS = 10_000  # about as many are used for the shares of components
MOST_CATEGORIES = 64  # of a column of integers without a given family


def random_like(ring: TensorRing, rng: np.random.Generator) -> TensorRing:
    """A random ring of the same shape, variables and backend, as the starting point of a restart."""
    prototype, seed = ring.prototype, int(rng.integers(2**31))
    stream = Stream(seed, prototype)

    def redrawn(factor: Array) -> Array:
        draws = uniform(stream.next(), factor.shape, prototype)
        return -namespace(draws).log1p(-draws) * namespace(factor).mean(factor)

    return ring.with_values([mapped(core, redrawn) for core in ring.links])


def initialize(
    x: Any,
    variables: Sequence[Variable | type | functools.partial[Any] | None],
    rank: int | Sequence[int],
    *,
    num_components: int = 8,
    order: Sequence[int | str] | None = None,
    columns: Columns | None = None,
    topology: Literal["ring", "train"] = "ring",
    method: Literal["quantile", "kmeans", "mixture", "chains"] = "quantile",
    spread: float = 0.04,
    core: CoreKind = "dense",
    inner: int | None = None,
    tied: bool = False,
    emphasis: Sequence[float] | None = None,
    rng: Any = None,
    xp: ModuleType = np,
    dtype: Any = None,
    device: Any = None,
) -> TensorRing:
    """A starting ring with its components placed on the data.

    Core entries are the share of each component in its column times independent exponential variates. The ring starts
    near the product of the columns' marginals, but not at it: equal entries are a symmetric saddle point, at which the
    values of a bond would never separate.

    With `method="mixture"` the ring starts near a mixture of `rank` products, fitted here by EM, and the state of every
    bond is the cluster. This is far better for tables with clusters. With `method="chains"` it starts near a mixture of
    Markov chains along the order, and the state of a bond is the cluster and the component. Use it if columns also
    depend on their neighbours within clusters, like sites of genomes.

    Args:
        x: (n, d) data as NumPy array, NaN where missing.
        variables: for every column a variable, which is kept; a family, such as `rd.GaussianMixture`, whose components
            are placed on the data; or None: integers from 0 become categorical if all are below 64, and other columns
            become Gaussian mixtures. Use `functools.partial` of the family for arguments that cannot be estimated. A
            wide variable covers several columns: `functools.partial(rd.MultivariateGaussianMixture, names=["a", "b"])`
            covers two, and `rd.MultivariateGaussianMixture` all columns that the others leave. Its components are
            placed by k-means.
        columns: for every variable the columns of x that it covers, as in `TensorRing`; a family without names covers
            all columns that it is given. By default the columns of the variables follow each other.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`.
        num_components: of every column that is not categorical; fewer if it has fewer distinct values.
        method: components at equally frequent quantiles ("quantile"), at k-means centres ("kmeans"), or at quantiles
            with the cores of a mixture of products ("mixture") or of chains ("chains"). Chains are a train of CP cores
            with `rank // N` clusters, at least one, where N is the largest number of components of a column. The number
            of states of a bond is the number of clusters times that of components.
        spread: with `method="mixture"`, the share of each core's mass that changes the state of the bond at random. 0
            is the mixture itself, which EM then never leaves. With much less than the default, EM is slow to leave the
            mixture; with much more it has to find the clusters again. With `method="chains"` it is also the share of
            each state's components that are spread over all components of the column.
        core, inner: the kind of the cores and the hidden states of CP cores, as in `TensorRing.random`; with
            `method="mixture"` a CP core's hidden state is the cluster, and `inner` is None.
        tied: whether all columns share their factors, as `fit_em(..., tied=True)` needs. With CP cores in a train this
            is a homogeneous hidden Markov model. All columns need the same number of components.
        emphasis: with `method="mixture"`, how many times each variable counts when rows are assigned to clusters,
            positive; once by default. Clusters differ most in the variables that count most, such as a class to be
            predicted.
        order, topology, rng, xp, dtype, device: as in `TensorRing.random`.

    Raises:
        ValueError: if x is not an (n, d) table, a column has no observed entry, or an option is unknown or does not
            fit; with `method="mixture"` or "chains" also if the rank is not one number, `inner` is given, spread is
            outside [0, 1], or an entry is outside its variable's support; "chains" also for a ring or dense cores.

    Examples:
        >>> import numpy as np
        >>> import ringdist as rd
        >>> rng = np.random.default_rng(0)
        >>> x = np.stack([rng.integers(3, size=100), rng.normal(size=100)], axis=1)
        >>> rd.initialize(x, [None, None], rank=2, num_components=4, rng=0)
        TensorRing(ring of 2 variables: 1 Categorical, 1 GaussianMixture; rank 2, 36 parameters, numpy float64)
    """
    x = unmasked(x)
    x = to_numpy(x) if is_array(x) else np.asarray(x)
    if method not in ("quantile", "kmeans", "mixture", "chains"):
        raise ValueError(f"method must be quantile, kmeans, mixture or chains, found {method!r}")
    if method == "chains" and (topology, core) != ("train", "cp"):
        raise ValueError(
            f"method chains needs topology='train' and core='cp', found topology {topology!r} and core {core!r}"
        )
    _check_listed(variables)
    _check_emphasis(emphasis, method, len(variables))
    if not 0 <= spread <= 1:
        raise ValueError(f"spread must be between 0 and 1, found {spread}")
    precision = dtype_name(dtype) if dtype is not None else default_dtype(backend_of_namespace(xp))
    placed, sites = _placed_variables(x, variables, columns, num_components, method, precision)
    known = [converted_variable(variable, np, None, None) for variable in placed]
    ring = TensorRing.random(
        placed,
        rank,
        order=order,
        columns=sites,
        topology=topology,
        core=core,
        inner=inner,
        rng=rng,
        xp=xp,
        dtype=dtype,
        device=device,
    )
    place = {tuple(own): i for i, own in enumerate(sites)}
    sites = [list(own) for own in ring.columns]  # in the ring's order, which is that of columns if none is wide
    known = [known[place[own]] for own in ring.columns]
    if emphasis is not None:
        emphasis = [float(emphasis[place[own]]) for own in ring.columns]
    if tied and method in ("mixture", "chains"):
        raise ValueError(f"tied=True needs method quantile or kmeans, found {method!r}")
    if method in ("mixture", "chains"):
        if not isinstance(rank, int | np.integer):
            raise ValueError(
                f"method {method} needs one rank for all bonds, found {rank!r}; quantile and kmeans accept one per bond"
            )
        if inner is not None:
            raise ValueError(
                f"inner must be None, found {inner}: with method {method} the hidden states are the clusters"
            )
        generator = np.random.default_rng(_seed(rng, ring.prototype))
        clusters = rank if method == "mixture" else max(1, rank // max(variable.num_components for variable in known))
        mixture = fit_mixture(x, known, int(clusters), generator, sites, emphasis)
        cores = (
            cores_near(mixture, ring, spread)
            if method == "mixture"
            else cores_near_chains(mixture, x, known, ring, spread, generator)
        )
        return TensorRing(cores, ring.variables, ring.order, ring.columns)
    sampled = x[:: max(1, len(x) // SHARE_ROWS)]
    shares = [
        component_shares(component_densities(sampled[:, own], variable))
        for own, variable in zip(sites, known, strict=True)
    ]
    if tied:
        return _tied(ring, shares)
    cores = [_by_component(core, share * share.size) for core, share in zip(ring.links, shares, strict=True)]
    return TensorRing(cores, ring.variables, ring.order, ring.columns)


def _check_emphasis(emphasis: Sequence[float] | None, method: str, number: int) -> None:
    if emphasis is None:
        return
    if method != "mixture":
        raise ValueError(f"emphasis needs method mixture, found method {method!r}")
    values = np.asarray(emphasis, dtype=np.float64)
    if values.shape != (number,) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"emphasis must be a positive number for each of {number} variables, found {emphasis!r}")


def placed_variables(
    x: np.ndarray,
    variables: Sequence[Variable | type | functools.partial[Any] | None],
    columns: Columns | None,
    num_components: int,
) -> tuple[list[Variable], list[list[int]]]:
    """NumPy variables with their components placed on the data x (n, d), and the columns of each variable."""
    placed, sites = _placed_variables(x, variables, columns, num_components, "quantile", "float64")
    return [converted_variable(variable, np, "float64", None) for variable in placed], sites


def _placed_variables(
    x: np.ndarray, variables: Sequence[Any], columns: Columns | None, num_components: int, method: str, dtype: str
) -> tuple[list[Variable], list[list[int]]]:
    """As `placed_variables`, but given variables are not converted; components are at least as wide as the rounding."""
    _check_listed(variables)
    sites = _columns(x, variables, columns)
    if num_components < 1:
        raise ValueError(f"num_components must be at least 1, found {num_components}")
    precision = np.float32 if "float32" in (dtype, x.dtype.name) else np.float64
    placed = [
        _variable(x[:, own], variable, num_components, method, own, precision)
        for own, variable in zip(sites, variables, strict=True)
    ]
    return placed, sites


def _tied(ring: TensorRing, shares: Sequence[np.ndarray]) -> TensorRing:
    """The ring with one factor for all factors of equal name and shape, and the mean shares of components."""
    if len({share.size for share in shares}) > 1:
        raise ValueError(
            f"tied=True needs as many components in every column, found {sorted({share.size for share in shares})}"
        )
    share = np.mean(shares, axis=0)
    factors: dict[tuple[str, tuple[int, ...]], Array] = {}
    links = list(ring.links)
    for k in ring.sequence:
        arrays = links[k].arrays()
        links[k] = links[k].with_arrays(
            {name: factors.setdefault((name, tuple(array.shape)), array) for name, array in arrays.items()}
        )
    cores = [_by_component(core, share) for core in links]
    return normalized_factors(ring.rebuilt(cores, ring.variables, ring.order, ring.columns))


def _by_component(core: Core, factor: np.ndarray) -> Core:
    """The core with the slice of each component multiplied by a factor (N,)."""
    arrays = core.arrays()
    name = "core" if "core" in arrays else "emission"
    array = arrays[name]
    factor = factor.reshape(-1, *(1,) * (array.ndim - 1))
    return core.with_arrays({**arrays, name: array * like(factor, array)})


def _seed(rng: Any, core: Any) -> int:
    """A NumPy seed from the random generator of any backend."""
    return int(2**31 * float(uniform(Stream(rng, core).next(), (1,), core)[0]))


def _check_listed(variables: Any) -> None:
    if isinstance(variables, str | type) or not isinstance(variables, Sequence):
        raise TypeError(
            f"variables must be a list with one entry per column, each a variable, a family or None, found "
            f"{variables!r}; write [None] * d to choose all by their values"
        )


def _columns(x: np.ndarray, variables: Sequence[Any], columns: Columns | None) -> list[list[int]]:
    """The columns of x (n, d) that each variable covers; a wide family without names covers the remaining columns."""
    widths = [_width(variable) for variable in variables]
    if columns is not None:
        found = as_columns(columns, widths)
        count = sum(map(len, found))
        if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] != count:
            raise ValueError(f"x must have shape (n, {count}) with n >= 1, found {x.shape}")
        return [list(own) for own in found]
    known = sum(width for width in widths if width is not None)
    if widths.count(None) > 1:
        raise ValueError(
            "only one family may cover all remaining columns, found several without names; write "
            "functools.partial(rd.MultivariateGaussianMixture, names=['a', 'b']) for a family of two columns"
        )
    rest = x.shape[1] - known if x.ndim == 2 else 0
    if x.ndim != 2 or x.shape[0] == 0 or (rest < 2 if None in widths else rest != 0):
        needed = f"{known + 2} or more" if None in widths else str(known)
        raise ValueError(f"x must have shape (n, {needed}) with n >= 1, found {x.shape}")
    ends = np.cumsum([0, *(rest if width is None else width for width in widths)])
    return [list(range(a, b)) for a, b in itertools.pairwise(ends.tolist())]


def _width(variable: Any) -> int | None:
    """The number of columns that a variable, or a family with its options, covers; None if it is not determined."""
    if isinstance(variable, functools.partial) and isinstance(variable.func, type):
        return variable.func.width_of(**variable.keywords) if issubclass(variable.func, Family) else 1
    if isinstance(variable, type):
        return variable.width_of() if issubclass(variable, Family) else 1
    return int(getattr(variable, "width", 1))


def _variable(
    block: np.ndarray, variable: Any, num_components: int, method: str, columns: Sequence[int], precision: Any
) -> Variable:
    """The given variable, checked on its columns (n, w), or one of the family with its components placed on them."""
    text = f"column {columns[0]}" if len(columns) == 1 else f"columns {', '.join(map(str, columns))}"
    if not (variable is None or isinstance(variable, type | functools.partial | Variable)):
        raise TypeError(f"{text}: expected a variable, a family or None, found {variable!r}")
    block = block.astype(np.float64)
    observed = block[~np.isnan(block)]
    try:
        if variable is not None and not isinstance(variable, type | functools.partial):
            converted_variable(variable, np, None, None).check(observed)
            return variable
        if np.isnan(block).all(axis=0).any():
            raise ValueError("placing components needs an observed entry, found none")
        return _placed(variable, block if len(columns) > 1 else observed, num_components, method, precision)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _placed(family: Any, observed: np.ndarray, num_components: int, method: str, precision: Any) -> Variable:
    """A variable of the family with its components placed on the observed values."""
    if np.isinf(observed).any():
        raise ValueError("values must be finite, found infinity")
    options: dict[str, Any] = {}
    if isinstance(family, functools.partial):
        family, given = family.func, inspect.signature(family.func).bind_partial(*family.args, **family.keywords)
        options = given.arguments
    if family is None:
        integers = bool(((observed == np.floor(observed)) & (observed >= 0)).all())
        family = Categorical if integers and observed.max() < MOST_CATEGORIES else GaussianMixture
    if family not in BUILT_IN or family is Truncated:
        known = ", ".join(kind.__name__ for kind in BUILT_IN if kind is not Truncated)
        raise ValueError(f"components can be placed for {known}, found {family!r}; give a variable of it instead")
    placed: Variable = family.placed(observed, num_components, method, np.finfo(precision), **options)
    return placed
