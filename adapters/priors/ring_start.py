"""Initial Gaussians of a ring prior, the order of its columns, and the positions of attributes among latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import ringdist as rd
from adapters.priors.base import check_option, integer_of
from adapters.priors.ring_structure import Topology

Order = Literal["random", "given"] | Sequence[int]
Places = Literal["spread", "end"] | Sequence[int]
NewOrder = Literal["mutual_information"]


def initial_components(n: int, mean_range: Sequence[float] | None, std: float | None) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of n components of equal weight, (n,) each.

    With a range, the means are evenly spaced over it, and the default of the standard deviation is an n-th of it.
    Without a range, the means are at the n-quantiles of a normal distribution, scaled so that each latent has variance
    1. The default of the standard deviation is then n^(-1/3): the mixture is within 0.013 nats of N(0, 1) for every n.

    Raises:
        ValueError: if the range is not two finite numbers in ascending order, or std is out of its range.
    """
    if mean_range is None:
        return _near_standard_normal(n, std)
    low, high = mean_range
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"mean_range must be two finite numbers in ascending order, found {mean_range}")
    std = (high - low) / n if std is None else std
    _check_std(std)
    means = torch.linspace(low, high, n) if n > 1 else torch.tensor([(low + high) / 2])
    return means, torch.full((n,), std)


def _near_standard_normal(n: int, std: float | None) -> tuple[Tensor, Tensor]:
    std = n ** (-1 / 3) if std is None else std
    _check_std(std)
    if n == 1:
        return torch.zeros(1), torch.full((1,), std)
    if std >= 1:
        raise ValueError(f"std must be below 1 where mean_range is None, as the variance of a latent is, found {std}")
    quantiles = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    means = quantiles * ((1 - std**2) / quantiles.var(correction=0)).sqrt()
    return means.to(torch.get_default_dtype()), torch.full((n,), std)


def _check_std(std: float) -> None:
    if not 0 < std < math.inf:
        raise ValueError(f"std must be positive and finite, found {std}")


def columns_of(order: Order, d: int, generator: torch.Generator | None = None, label: str = "columns") -> list[int]:
    """The columns 0..d-1 in their order around the ring; `ValueError` or `TypeError` if it is not a permutation."""
    if isinstance(order, str):
        check_option("order", order, ("random", "given"))
        return list(range(d)) if order == "given" else torch.randperm(d, generator=generator).tolist()
    columns = [integer_of("an entry of order", k, least=0) for k in order]
    if sorted(columns) != list(range(d)):
        raise ValueError(f"order must be random, given or a permutation of the {d} {label}, found {columns}")
    return columns


def placed(latents: Sequence[int], attributes: Sequence[int], places: Sequence[int]) -> list[int]:
    """The order with attribute i at places[i], and the latents in their order at the remaining positions."""
    rest = iter(latents)
    at = dict(zip(places, attributes, strict=True))
    return [at[j] if j in at else next(rest) for j in range(len(latents) + len(attributes))]


def places_of(places: Places, num_latents: int, num_attributes: int) -> tuple[int, ...]:
    """The positions of the attributes among all columns, as indices into `TensorRing.order`."""
    count = num_latents + num_attributes
    if isinstance(places, str):
        check_option("attribute_places", places, ("spread", "end"))
        if places == "end":
            return tuple(range(num_latents, count))
        # The latents are cut into as many equal parts; attribute i follows the middle of part i.
        latents_before = [
            ((2 * i + 1) * num_latents + num_attributes) // (2 * num_attributes) for i in range(num_attributes)
        ]
        return tuple(n + i for i, n in enumerate(latents_before))
    found = tuple(integer_of("an entry of attribute_places", place, least=0) for place in places)
    if len(found) != num_attributes or len(set(found)) < len(found) or max(found) >= count:
        raise ValueError(
            f"attribute_places must be spread, end or {num_attributes} different places in 0..{count - 1}, "
            f"found {list(found)}"
        )
    return found


def order_by_dependence(
    rows: np.ndarray, variables: Sequence[rd.Variable], topology: Topology, places: Sequence[int] | None
) -> list[int]:
    """The order that maximises the mutual information of neighbours, from rows (n, columns), NaN where missing.

    If the positions of the attributes (the last columns) are given, the latents are ordered by themselves. Attributes
    are then assigned to the positions so that the mutual information with their neighbours is largest, over all
    rotations of a ring of latents, or both directions of a train.
    """
    if places is None:
        return list(rd.ordering.mutual_information(rows, variables, topology))
    d = len(variables) - len(places)
    dependence = rd.ordering.dependence(rows, variables)
    latents = list(rd.ordering.tour(dependence[:d, :d], topology)) if d > 1 else [0]
    arrangements = [latents[j:] + latents[:j] for j in range(d)] if topology == "ring" else [latents, latents[::-1]]
    assignments = (_assigned(dependence, arranged, places, topology) for arranged in arrangements)
    _, best, latents = max(assignments, key=lambda found: found[0])
    return placed(latents, range(d, len(variables)), best)


def _assigned(
    dependence: np.ndarray, latents: list[int], places: Sequence[int], topology: Topology
) -> tuple[float, list[int], list[int]]:
    """The mutual information of attributes with their neighbours at the best positions, the positions, the latents."""
    sides, d = _neighbours(latents, places, topology), len(latents)
    gain = np.array([[dependence[d + i, near].sum() for near in sides] for i in range(len(places))])
    rows, best = linear_sum_assignment(gain, maximize=True)
    return float(gain[rows, best].sum()), [places[j] for j in best], latents


def _neighbours(latents: Sequence[int], places: Sequence[int], topology: Topology) -> list[list[int]]:
    """The nearest latents on both sides of each position, skipping other attributes."""
    d, found = len(latents), []
    for place in places:
        before = place - sum(other < place for other in places)
        sides = (before - 1, before)
        found.append(sorted({latents[j % d] for j in sides if topology == "ring" or 0 <= j < d}))
    return found
