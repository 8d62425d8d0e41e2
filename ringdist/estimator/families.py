"""The family of a column of numbers: checked if the user gives it, otherwise chosen by held-out likelihood.

For a column of integers, densities per unit are compared with probabilities of integers. That is fair if no component
is much narrower than the distance between integers, which `least_std` guarantees.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ringdist.estimator.columns import Column
from ringdist.learning.em import fit_em
from ringdist.learning.starts import initialize
from ringdist.variables import (
    BetaMixture,
    Categorical,
    Family,
    GaussianMixture,
    LogNormalMixture,
    MultivariateGaussianMixture,
    NegativeBinomialMixture,
    PoissonMixture,
    StudentTMixture,
    VonMisesMixture,
    WithAtoms,
    as_family,
    column_scale,
)

FAMILIES: dict[str, type[Family]] = {
    "gaussian": GaussianMixture,
    "student_t": StudentTMixture,
    "lognormal": LogNormalMixture,
    "beta": BetaMixture,
    "von_mises": VonMisesMixture,
    "count": NegativeBinomialMixture,
    "poisson": PoissonMixture,
    "negative_binomial": NegativeBinomialMixture,
}
LOCATION_SCALE = "gaussian", "student_t"  # families that may be fitted in any unit and from any origin
FEWEST_ROWS = 50  # for a choice; with fewer rows a column is Gaussian
MOST_ROWS = 1500  # used for a choice
COMPONENTS = 2, 6  # of the two mixtures that are fitted for each family; the better one counts
GAINS = {"gaussian": 0.0, "lognormal": -0.01, "count": 0.01, "beta": 0.02, "student_t": 0.02}  # required, nats per row
EXTENT = 0.5  # least range of a column of shares
LARGEST_COUNT = 100  # largest median of a count; for larger numbers a density is as good and faster
SKEWED, HEAVY = 1.0, 2.0  # skewness and excess kurtosis for which other families than the Gaussian are tried
FEW = 3  # number of rows that hardly determine a variance
SIZES = 1e-304, 1e306  # of numbers whose components and samples stay in range, though narrower than the column
GRID = 1 / math.sqrt(2 * math.pi)  # least standard deviation in steps of a column: the density is at most 1 per step


def chosen(
    values: np.ndarray, atoms: Sequence[float], integers: bool, seed: int
) -> tuple[str, tuple[float, float] | None]:
    """The type of a column with values (n,), and its bounds if it is a beta column.

    Args:
        atoms: repeated values, which have probabilities of their own.
        integers: whether all values are integers.
    """
    others = values[~np.isin(values, atoms)]
    if others.size < FEWEST_ROWS or np.unique(others).size < 10:
        return "gaussian", None
    rows = np.random.default_rng(seed).permutation(others)[:MOST_ROWS]
    shares = others.min() >= 0 and others.max() <= 1 and np.ptp(others) > EXTENT
    bounds = bounds_of(others) if shares else None
    candidates = _candidates(rows, others, integers, bounds)
    if len(candidates) == 1:
        return "gaussian", None
    scores = {
        kind: max(_held_out(rows, kind, bounds, integers, number, seed) for number in COMPONENTS) - GAINS[kind]
        for kind in candidates
    }
    best = max(scores, key=lambda kind: scores[kind])
    return best, bounds if best == "beta" else None


def _candidates(rows: np.ndarray, others: np.ndarray, integers: bool, bounds: tuple[float, float] | None) -> list[str]:
    """The Gaussian family, and those that suit the shape of the data."""
    unit = np.abs(rows).max()
    z = rows / unit - (rows / unit).mean()
    std = z.std()
    if not std > 0:
        return ["gaussian"]
    skewness, kurtosis = (z**3).mean() / std**3, (z**4).mean() / std**4 - 3
    found = ["gaussian"]
    near_zero = others.min() >= 0 and (rows / unit).mean() < 3 * std
    if others.min() > 0 and (skewness > SKEWED or near_zero):
        found.append("lognormal")
    if (abs(skewness) > SKEWED or kurtosis > HEAVY) and not (near_zero and skewness > 0):  # has no bound at 0
        found.append("student_t")
    if bounds is not None and near_zero:
        found.append("beta")
    if integers and others.min() >= 0 and np.median(rows) <= LARGEST_COUNT:
        found.append("count")
    return found


def _held_out(rows: np.ndarray, kind: str, bounds: Any, integers: bool, number: int, seed: int) -> float:
    """Mean log-likelihood of every second row under a small mixture of the family that is fitted to the others."""
    table, shift = rows[:, None], 0.0
    if kind in LOCATION_SCALE:
        unit = float(np.abs(rows).max())
        std = float((rows / unit).std()) * unit
        table, shift = (table - rows.mean() if unit < 1e150 else table) / std, math.log(std)
    learn, held_out = table[::2], table[1::2]
    family = _of_kind(kind, bounds)
    try:
        start = initialize(table, [family], 1, num_components=number, topology="train", rng=seed)
        least = least_std(
            as_family(start.variables[0]), table[:, 0], 1e-3, integers / math.exp(shift) if integers else 0.0
        )
        fit = fit_em(
            start, learn, validation=held_out, max_epochs=15, smoothing=1.0, patience=2, rng=seed, least_stds=[least]
        )
        return float(fit.ring.log_prob(held_out).mean()) - shift
    except ValueError:  # values that the family cannot represent, such as numbers with equal logarithms
        return -math.inf


def bounds_of(values: np.ndarray) -> tuple[float, float]:
    """The bounds of a beta column, slightly beyond its ends, so that values at the ends have a density."""
    low, high = ends_of(values)
    margin = (high - low) / max(100, 10 * values.size) or max(abs(high), 1.0)
    return low - margin, high + margin


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """0 and 1, or 0 and 100, if all values (n,) lie between them; otherwise the least and the greatest value."""
    low, high = float(values.min()), float(values.max())
    for known in (1.0, 100.0):
        if low >= 0 and high <= known:
            return 0.0, known
    return low, high


def check_values(
    kind: str, values: np.ndarray, label: str, atoms: Sequence[float] = (), bounds: tuple[float, float] | None = None
) -> None:
    """Raise `ValueError` unless each of the values (n,), none of them missing, fits the type or is an atom."""
    wrong, rule, remedy = _misfit(kind, values, bounds)
    wrong = wrong[~np.isin(wrong, atoms)]
    if wrong.size:
        raise ValueError(f"{label}: a {kind} column must contain {rule}, found {wrong[0]:g}; {remedy}")


def check_sizes(values: np.ndarray, atoms: Sequence[float], label: str) -> None:
    """Raise `ValueError` unless densities and samples of values (n,) stay in the range of float64.

    Densities of subnormal numbers exceed it, and so do samples near the largest numbers.
    """
    size = float(np.abs(values).max(initial=0.0))
    if size > SIZES[1]:
        raise ValueError(
            f"{label}: numbers must be at most {SIZES[1]:g} in size, found {values[np.abs(values).argmax()]:g}; divide "
            "the column by a power of ten, or replace the entry by NaN if it stands for a missing one"
        )
    others = values[~np.isin(values, atoms)]
    size = float(np.abs(others).max(initial=0.0))
    if size == 0:
        return
    eps = 5 * float(np.finfo(np.float64).eps)
    scale = size * float(column_scale((others / size).mean(), (others / size).std(), eps))
    if scale < SIZES[0]:
        finding = f"at most {size:g}" if size < SIZES[0] else f"a standard deviation of {scale:.2g}"
        raise ValueError(
            f"{label}: numbers must differ by {SIZES[0]:g} or more, found {finding}; multiply the column by a power of "
            "ten, such as 1e200, or drop it if its values stand for zero"
        )


def needed_atoms(kind: str) -> tuple[float, ...]:
    """The values outside the support of a type's family, which become atoms."""
    return (0.0,) if kind == "lognormal" else ()


def _misfit(kind: str, values: np.ndarray, bounds: tuple[float, float] | None) -> tuple[np.ndarray, str, str]:
    real = "choose 'gaussian' or 'student_t' for it in column_types"
    match kind:
        case "lognormal":
            return values[values < 0], "positive numbers and zeros", real
        case "count" | "poisson" | "negative_binomial":
            return values[(values < 0) | (values % 1 != 0)], "integers from 0", real
        case "von_mises":
            return values[np.abs(values) > math.pi], "angles between -pi and pi", "convert it to radians, wrapped"
        case "beta" if bounds is not None:
            outside = values[(values <= bounds[0]) | (values >= bounds[1])]
            return outside, f"numbers between {bounds[0]:g} and {bounds[1]:g}", real
    return values[:0], "", ""


def variables_for(
    sites: Sequence[Sequence[int]], columns: Sequence[Column], origin: np.ndarray, unit: np.ndarray
) -> list[Any]:
    """For every site, the family from which `initialize` makes a variable, with the arguments it cannot estimate.

    Args:
        sites: the columns of every variable; several columns share a covariance.
        origin, unit: (d,), columns are fitted as (x - origin) / unit.
    """
    return [
        _of_column(columns[own[0]], float(origin[own[0]]), float(unit[own[0]]))
        if len(own) == 1
        else functools.partial(MultivariateGaussianMixture, names=[None] * len(own))
        for own in sites
    ]


def _of_column(column: Column, origin: float, unit: float) -> Any:
    if column.categories is not None:
        return Categorical(column.num_codes)
    family = _of_kind(column.type, column.bounds)
    if column.atoms:
        atoms = tuple(((np.asarray(column.atoms) - origin) / unit).tolist())
        family = functools.partial(WithAtoms, variable=family, atoms=atoms)
    return family


def _of_kind(kind: str, bounds: tuple[float, float] | None) -> Any:
    if bounds is None or kind != "beta":
        return FAMILIES[kind]
    return functools.partial(BetaMixture, low=bounds[0], high=bounds[1])


def least_stds(
    sites: Sequence[Sequence[int]],
    variables: Sequence[Any],
    rows: np.ndarray,
    columns: Sequence[Column],
    unit: np.ndarray,
    share: float,
) -> list[float | None]:
    """For every column the least standard deviation of a component, None if its family has none.

    Args:
        sites: the columns of every variable.
        rows: (n, d), standardised.
        unit: (d,) units of the columns.
        share: least variance relative to that of the column; it is raised if there are few rows.
    """
    share = max(share, min(1.0, (FEW / len(rows)) ** 2) * (1 + 4 / len(rows)) ** 2)
    found: list[float | None] = [None] * len(columns)
    for own, variable in zip(sites, variables, strict=True):
        family = as_family(variable) if len(own) == 1 else GaussianMixture([0.0], [1.0])
        for k in own:
            step = columns[k].scalars.step if len(own) > 1 or columns[k].type in LOCATION_SCALE else 0.0
            found[k] = least_std(family, rows[:, k], share, step / float(unit[k]))
    return found


def least_std(family: Family, values: np.ndarray, share: float, step: float = 0.0) -> float | None:
    """The least standard deviation of a component, in the unit of the family.

    It is the square root of `share` times the standard deviation of the column, or its estimate from the quartiles if
    that is smaller, so that a few large values do not make it large. A distance `step` between values is a lower bound
    too: no density exceeds 1 per step.
    """
    if not family.has_variance:
        return None
    seen = family.floored(values[~np.isnan(values)])
    seen = seen[~np.isnan(seen)]
    if seen.size == 0:
        return 0.0
    mean, std = float(seen.mean()), float(seen.std())
    scale = float(column_scale(mean, std, float(np.finfo(np.float64).eps)))
    if scale == std:
        low, high = np.quantile(seen, [0.25, 0.75])
        quartiles = float(high - low) / 1.349
        scale = min(scale, quartiles) if quartiles > 1e-3 * scale else scale
    return max(math.sqrt(share) * scale, GRID * step)
