"""Families restricted to intervals of some of their columns, for any width."""

from __future__ import annotations

from collections.abc import Mapping

from ringdist.backend import Array
from ringdist.variables.interval import Interval
from ringdist.variables.multivariate_gaussian import MultivariateGaussianMixture
from ringdist.variables.protocol import Family
from ringdist.variables.truncated import Truncated
from ringdist.variables.truncated_multivariate import TruncatedMultivariateGaussianMixture

Bounds = Mapping[int, Interval]  # by the place of a column in its variable


def restricted(family: Family, bounds: Bounds) -> Family:
    """The family given that columns lie in intervals, which must intersect its own.

    Raises:
        ValueError: if a wide family is not Gaussian.
    """
    bounds = {place: interval for place, interval in bounds.items() if not interval.is_unbounded}
    if not bounds:
        return family
    if family.width == 1 and not isinstance(family, TruncatedMultivariateGaussianMixture):
        return Truncated(family.variable, bounds[0])
    return _boxed(family).within(bounds)


def log_density_within(family: Family, x: Array, bounds: Bounds) -> Array:
    """log p(observed entries, missing ones within bounds | s), (..., N), of a wide family and x (..., width).

    It is −inf if an observed entry is outside its bounds.
    """
    return _boxed(family).log_density_within(x, bounds)


def log_probability_within(family: Family, bounds: Bounds) -> Array:
    """log P(columns within bounds | s), (N,)."""
    if family.width == 1:
        (interval,) = bounds.values()
        return family.log_probability(interval.low, interval.high)
    return _boxed(family).log_probability_within(bounds)


def _boxed(family: Family) -> TruncatedMultivariateGaussianMixture:
    if isinstance(family, TruncatedMultivariateGaussianMixture):
        return family
    if isinstance(family, MultivariateGaussianMixture):
        return TruncatedMultivariateGaussianMixture.of(family)
    raise ValueError(f"intervals of a variable with several columns need Gaussian components, found {family!r}")
