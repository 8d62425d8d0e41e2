"""The family of a column of numbers: checked where the user names it, else chosen by held-out likelihood.

A column of integers is compared in probabilities of integers: a density per unit is one where no component is narrower
than the distance between them, which `least_std` sees to.
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
FEWEST_ROWS = 50  # to choose a family from
MOST_ROWS = 1500
COMPONENTS = 2, 6  # of the mixtures compared, for each family the better one
GAINS = {"gaussian": 0.0, "lognormal": -0.01, "count": 0.01, "beta": 0.02, "student_t": 0.02}  # nats a row
EXTENT = 0.5  # of a column of shares
LARGEST_COUNT = 100  # of a typical row: a density is as good for larger ones, and quicker
SKEWED, HEAVY = 1.0, 2.0  # skewness and excess kurtosis
FEW = 3  # rows
SIZES = 1e-304, 1e306  # between them components and samples stay in range: a component may be narrower than its column
GRID = 1 / math.sqrt(2 * math.pi)  # least standard deviation in steps of a column: no density above 1 a step


def chosen(
    values: np.ndarray, atoms: Sequence[float], integers: bool, seed: int
) -> tuple[str, tuple[float, float] | None]:
    """The type of a column with values (n,), and its bounds if it is a beta column.

    Args:
        atoms: repeated values, which are not part of the density.
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
    """Gaussian, and the families that suit the shape of the data."""
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
    if (abs(skewness) > SKEWED or kurtosis > HEAVY) and not (near_zero and skewness > 0):  # it has no end at 0
        found.append("student_t")
    if bounds is not None and near_zero:
        found.append("beta")
    if integers and others.min() >= 0 and np.median(rows) <= LARGEST_COUNT:
        found.append("count")
    return found


def _held_out(rows: np.ndarray, kind: str, bounds: Any, integers: bool, number: int, seed: int) -> float:
    """Mean log-likelihood of every other row under a small mixture of the family, fitted to the rest."""
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
    except ValueError:  # a family that cannot hold these values, such as numbers whose logarithms are all one
        return -math.inf


def bounds_of(values: np.ndarray) -> tuple[float, float]:
    """The bounds of a beta column, somewhat beyond its ends: those themselves have a density too."""
    low, high = ends_of(values)
    margin = (high - low) / max(100, 10 * values.size) or max(abs(high), 1.0)
    return low - margin, high + margin


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """0 and 1 or 0 and 100 where values (n,) lie between, else the least and the greatest."""
    low, high = float(values.min()), float(values.max())
    for known in (1.0, 100.0):
        if low >= 0 and high <= known:
            return 0.0, known
    return low, high


def check_values(
    kind: str, values: np.ndarray, label: str, atoms: Sequence[float] = (), bounds: tuple[float, float] | None = None
) -> None:
    """Raise `ValueError` unless values (n,), none of them missing, are of a type, or atoms in addition to it."""
    wrong, rule, remedy = _misfit(kind, values, bounds)
    wrong = wrong[~np.isin(wrong, atoms)]
    if wrong.size:
        raise ValueError(f"{label}: a {kind} column holds {rule}, found {wrong[0]:g}; {remedy}")


def check_sizes(values: np.ndarray, atoms: Sequence[float], label: str) -> None:
    """Raise `ValueError` unless values (n,) are in a unit in which densities and samples stay in range.

    The density of subnormal numbers exceeds the range of float64, as samples beyond the largest numbers do.
    """
    size = float(np.abs(values).max(initial=0.0))
    if size > SIZES[1]:
        raise ValueError(
            f"{label}: numbers must be at most {SIZES[1]:g} in size, found {values[np.abs(values).argmax()]:g}; divide "
            "the column by a power of ten, or replace the entry by NaN where it stands for a missing one"
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
    """The values that the family of a type cannot hold, so that they have a probability of their own."""
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
    sites: Sequence[Sequence[int]], columns: Sequence[Column], place: np.ndarray, unit: np.ndarray
) -> list[Any]:
    """What `initialize` makes variables from, by site: a family, or one with what no data tell.

    Args:
        sites: the columns of every variable; several share a covariance.
        place, unit: (d,) of the columns as they are fitted, (x - place) / unit.
    """
    return [
        _of_column(columns[own[0]], float(place[own[0]]), float(unit[own[0]]))
        if len(own) == 1
        else functools.partial(MultivariateGaussianMixture, names=[None] * len(own))
        for own in sites
    ]


def _of_column(column: Column, place: float, unit: float) -> Any:
    if column.categories is not None:
        return Categorical(column.num_codes)
    family = _of_kind(column.type, column.bounds)
    if column.atoms:
        atoms = tuple(((np.asarray(column.atoms) - place) / unit).tolist())
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
    """By column the least standard deviation of a component, None for a family without.

    Args:
        sites: the columns of every variable.
        rows: (n, d) as they are fitted.
        unit: (d,) of the columns.
        share: of the variance; more where rows are so few that they hardly tell it.
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

    The square root of `share` times the smaller one of the standard deviation and what the quartiles say of it, so that
    a few large values do not make it large; at least what a distance `step` between the values allows.
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
