"""How a ring prior starts: its Gaussians, the order of its columns, and the places of attributes among latents."""

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

    With a range the means are evenly spaced over it, and the standard deviation is an n-th of it unless given. Without,
    the means are at the n-quantiles of a normal distribution whose variance and that of the components add up to 1;
    the standard deviation is n^(-1/3), with which the mixture is within 0.013 nats of N(0, 1) for every n.
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
    """The columns 0..d-1 as they follow each other around the ring."""
    if isinstance(order, str):
        check_option("order", order, ("random", "given"))
        return list(range(d)) if order == "given" else torch.randperm(d, generator=generator).tolist()
    columns = [integer_of("an entry of order", k, least=0) for k in order]
    if sorted(columns) != list(range(d)):
        raise ValueError(f"order must be random, given or a permutation of the {d} {label}, found {columns}")
    return columns


def placed(latents: Sequence[int], attributes: Sequence[int], places: Sequence[int]) -> list[int]:
    """The order in which attribute i stands at place i, and the latents follow each other in the others."""
    rest = iter(latents)
    at = dict(zip(places, attributes, strict=True))
    return [at[j] if j in at else next(rest) for j in range(len(latents) + len(attributes))]


def places_of(places: Places, num_latents: int, num_attributes: int) -> tuple[int, ...]:
    """Where the attributes stand among all columns, in the sense of `TensorRing.order`."""
    count = num_latents + num_attributes
    if isinstance(places, str):
        check_option("attribute_places", places, ("spread", "end"))
        if places == "end":
            return tuple(range(num_latents, count))
        # attribute i behind the latents up to the middle of the i-th of as many equal parts
        behind = [((2 * i + 1) * num_latents + num_attributes) // (2 * num_attributes) for i in range(num_attributes)]
        return tuple(n + i for i, n in enumerate(behind))
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
    """The order whose neighbours share most information in the rows (n, columns), NaN where missing.

    With places for the attributes, which are the last columns, the latents are ordered among themselves, and each
    attribute gets the place whose neighbours it shares most information with. A ring of latents is turned, and a train
    of them reversed, to the best of such positions.
    """
    if places is None:
        return list(rd.ordering.mutual_information(rows, variables, topology))
    d = len(variables) - len(places)
    dependence = rd.ordering.dependence(rows, variables)
    latents = list(rd.ordering.tour(dependence[:d, :d], topology)) if d > 1 else [0]
    turned = [latents[j:] + latents[:j] for j in range(d)] if topology == "ring" else [latents, latents[::-1]]
    _, best, latents = max((_assigned(dependence, own, places, topology) for own in turned), key=lambda found: found[0])
    return placed(latents, range(d, len(variables)), best)


def _assigned(
    dependence: np.ndarray, latents: list[int], places: Sequence[int], topology: Topology
) -> tuple[float, list[int], list[int]]:
    """What attributes share with their neighbours at their best places, these places, and the latents."""
    sides, d = _neighbours(latents, places, topology), len(latents)
    gain = np.array([[dependence[d + i, near].sum() for near in sides] for i in range(len(places))])
    rows, best = linear_sum_assignment(gain, maximize=True)
    return float(gain[rows, best].sum()), [places[j] for j in best], latents


def _neighbours(latents: Sequence[int], places: Sequence[int], topology: Topology) -> list[list[int]]:
    """Of each place the latents on both sides of it, beyond other attributes."""
    d, found = len(latents), []
    for place in places:
        before = place - sum(other < place for other in places)
        sides = (before - 1, before)
        found.append(sorted({latents[j % d] for j in sides if topology == "ring" or 0 <= j < d}))
    return found
