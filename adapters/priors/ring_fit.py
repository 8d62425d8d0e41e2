"""Parameters of a ring prior from data: the paper's procedure, a mixture of products, and exact EM."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import ringdist as rd
from adapters.priors.fitting import LEAST_STD, fit_gaussians, global_seed
from adapters.priors.mixture import DiagonalMixture
from adapters.priors.ring_parameters import RingParameters
from adapters.priors.ring_structure import Factors, core_of, with_hubs

Method = Literal["gmm", "em", "mixture"]
PSEUDOCOUNT = 1e-2  # rows; keeps entries of cores positive, because gradients could not leave a zero
SMOOTHING = 0.01  # the probability that an initial mixture changes its cluster anywhere along the ring
SPREAD = 0.04  # the same at each column, for a start that EM refines, as in `rd.initialize`
MIXTURE_EPOCHS = 20  # epochs of EM for a mixture with attributes
CLUSTER_ROWS = 0.1  # rows of what an attribute is in all clusters, or a latent in the mean of them, added to each


class ParameterValues(NamedTuple):
    """New values of all parameters: factors of cores by column, means and log_stds of the Gaussian columns."""

    factors: list[Factors]
    means: Tensor
    log_stds: Tensor


def by_gaussians(prior: RingParameters, rows: Tensor, columns: Sequence[int]) -> ParameterValues:
    """One-dimensional mixtures for all continuous columns, and random cores (the paper's procedure)."""
    means, log_stds = (parameter.detach().clone() for parameter in (prior.means, prior.log_stds))
    fitted = _fitted(prior, rows)
    for i, k in enumerate(prior._gaussians):
        if k not in fitted:
            continue
        known = rows[~rows[:, k].isnan(), k : k + 1]
        fit = fit_gaussians(known, prior.num_components, max_iter=100, init="kmeans", seed=global_seed())
        means[i], log_stds[i] = fit.means[:, 0], fit.log_stds[:, 0]
    return ParameterValues(prior._structure.random(columns, torch.default_generator), means, log_stds)


def by_em(prior: RingParameters, rows: Tensor, columns: Sequence[int], max_epochs: int) -> ParameterValues:
    """Exact EM from near a mixture of products if all ranks are equal, otherwise from components at quantiles."""
    if not prior.private_components:
        start = _near_mixture(prior, rows, columns, "quantile" if prior.one_rank is None else "mixture", SPREAD)
    elif prior.one_rank is not None:
        start = _near_mixture_of_gaussians(prior, rows, columns, SPREAD)
    else:
        start = _ring(prior, by_gaussians(prior, rows, columns), columns)
    data = rows.to(prior.device, prior.dtype)
    fit = rd.fit_em(start, data, max_epochs=max_epochs, pseudocount=PSEUDOCOUNT, rng=global_seed())
    return _values(prior, fit.ring)


def by_mixture(prior: RingParameters, rows: Tensor, columns: Sequence[int], attribute_weight: float) -> ParameterValues:
    """A mixture of as many products as the rank, whose cluster rarely changes along the ring."""
    if prior.one_rank is None:
        raise ValueError(f"a mixture is a ring of one rank for all bonds, found ranks {prior.ranks}")
    spread = SMOOTHING / len(columns)
    if prior.private_components:
        return _values(prior, _near_mixture_of_gaussians(prior, rows, columns, spread, attribute_weight))
    return _values(prior, _near_mixture(prior, rows, columns, "mixture", spread))


def from_mixture(prior: RingParameters, mixture: DiagonalMixture, columns: Sequence[int]) -> ParameterValues:
    """That mixture, whose cluster rarely changes along the ring."""
    log_weights, means, stds = (part.detach().double().cpu() for part in mixture)
    clusters = Clusters(log_weights, dict(enumerate(zip(means.T, stds.T, strict=True))), {})
    return _values(prior, _softened(prior, clusters, columns, SMOOTHING / len(columns)))


def _values(prior: RingParameters, ring: rd.TensorRing) -> ParameterValues:
    """The parameters for which the prior is this ring."""
    arrays = [ring.variables[k].arrays() for k in prior._gaussians]
    means, stds = (torch.stack([own[name] for own in arrays]) for name in ("means", "stds"))
    return ParameterValues(prior._structure.conformed(ring), means, stds.log())


def _ring(prior: RingParameters, values: ParameterValues, columns: Sequence[int]) -> rd.TensorRing:
    """The ring with these values of the parameters."""
    variables: list[Any] = list(prior._categories)
    for k, mean, log_std in zip(prior._gaussians, values.means, values.log_stds, strict=True):
        variables[k] = _gaussians(mean, log_std.exp())
    return _as_ring(prior, values.factors, variables, columns)


def _as_ring(
    prior: RingParameters, factors: Sequence[Factors], variables: Sequence[Any], columns: Sequence[int]
) -> rd.TensorRing:
    """The ring with these factors and variables, in the dtype and on the device of the prior."""
    cores = [core_of({name: factor.double().cpu() for name, factor in own.items()}) for own in factors]
    return rd.TensorRing(cores, variables, columns).to(dtype=prior.dtype, device=prior.device)


def _fitted(prior: RingParameters, rows: Tensor) -> Set[int]:
    """The Gaussian columns that are re-initialised: attributes need as many different values as components."""

    def has_enough_values(values: Tensor) -> bool:
        known = values[~values.isnan()]
        return known.unique().numel() >= max(2, prior.num_components)

    return {k for k in prior._gaussians if k < prior.num_latents or has_enough_values(rows[:, k])}


def _near_mixture(
    prior: RingParameters,
    rows: Tensor,
    columns: Sequence[int],
    method: Literal["quantile", "mixture"],
    spread: float,
) -> rd.TensorRing:
    """The start of `rd.initialize`, whose components all clusters share."""
    fitted = _fitted(prior, rows)
    current = prior._ring(prior.means.detach(), prior.log_stds.detach()).variables
    start = rd.initialize(
        rows.to(prior.dtype).cpu().numpy(),
        [rd.GaussianMixture if k in fitted else variable for k, variable in enumerate(current)],
        prior.ranks if prior.one_rank is None else prior.one_rank,
        num_components=prior.num_components,
        order=columns,
        topology=prior.topology,
        method=method,
        spread=spread,
        core="dense" if prior.core == "dense" else "cp",
        inner=prior._structure.inner if prior.core == "cp" and method == "quantile" else None,
        rng=global_seed(),
        xp=torch,
        dtype=prior.dtype,
        device=prior.device,
    )
    for k, (variable, size) in enumerate(zip(start.variables, prior._sizes, strict=True)):
        if variable.num_components != size:
            raise ValueError(
                f"column {k}: {size} components need as many different codes, found {variable.num_components}"
            )
    return start


def _near_mixture_of_gaussians(
    prior: RingParameters, rows: Tensor, columns: Sequence[int], spread: float, attribute_weight: float = 1.0
) -> rd.TensorRing:
    """A mixture of Gaussians with diagonal covariances and attributes, in which each cluster has its own components.

    EM starts from the mixture of the latents alone, and accounts for attributes, also where some are unknown.
    """
    rows, d = rows.cpu(), prior.num_latents
    fit = fit_gaussians(rows[:, :d], prior.num_components, max_iter=100, init="k-means++", seed=global_seed())
    clusters = Clusters(fit.log_weights, dict(enumerate(zip(fit.means.T, fit.log_stds.exp().T, strict=True))), {})
    for _ in range(MIXTURE_EPOCHS if prior.attributes else 0):
        responsibilities = clusters.responsibilities(rows, attribute_weight)
        for k in range(len(columns)):
            if (categories := prior._categories[k]) is not None:
                clusters.tables[k] = _table(rows[:, k], responsibilities, categories.num_components)
            elif k < d:
                clusters.gaussians[k] = _pooled(rows[:, k], responsibilities)
            elif len(rows[:, k][~rows[:, k].isnan()].unique()) > 1:
                clusters.gaussians[k] = _by_responsibilities(rows[:, k], responsibilities)
        counts = responsibilities.sum(0) + CLUSTER_ROWS
        clusters = clusters._replace(log_weights=(counts / counts.sum()).log())
    for i, k in enumerate(prior._gaussians):
        if k not in clusters.gaussians:  # of an attribute of which nothing is known
            clusters.gaussians[k] = prior.means[i].detach(), prior.log_stds[i].detach().exp()
    return _softened(prior, clusters, columns, spread)


def _softened(prior: RingParameters, clusters: Clusters, columns: Sequence[int], spread: float) -> rd.TensorRing:
    """The mixture as a ring in which the cluster changes after each column with probability `spread`."""
    ring = _mixture_ring(prior, clusters, columns)
    return with_hubs(ring, spread) if prior.core == "switching" else _smoothed(ring, spread)


class Clusters(NamedTuple):
    """A mixture of products by column: of Gaussians, means and standard deviations (c,), and of tables (values, c)."""

    log_weights: Tensor
    gaussians: dict[int, tuple[Tensor, Tensor]]
    tables: dict[int, Tensor]

    def responsibilities(self, rows: Tensor, attribute_weight: float) -> Tensor:
        """p(cluster | observed entries) of rows (n, columns), (n, c), where each table was met so many times."""
        continuous = sorted(self.gaussians)
        means, stds = (torch.stack([self.gaussians[k][i] for k in continuous], dim=1) for i in range(2))
        joint = DiagonalMixture(self.log_weights, means, stds).log_joint(rows[:, continuous])
        for k, table in self.tables.items():
            known = ~rows[:, k].isnan()
            joint[known] += attribute_weight * table.log()[rows[known, k].long()]
        return joint.softmax(1)


def _mixture_ring(prior: RingParameters, clusters: Clusters, columns: Sequence[int]) -> rd.TensorRing:
    """Σ_c weights[c] ∏_k p_k(z_k | c) as a ring of CP cores."""
    weights = clusters.log_weights.exp()
    inner = len(weights)
    variables = [_gaussians(*clusters.gaussians[k]) if v is None else v for k, v in enumerate(prior._categories)]
    factors = [{"emission": clusters.tables[k]} if k in clusters.tables else {} for k in range(len(columns))]
    for k, shapes in enumerate(prior._structure.shapes(columns)):
        if "left" in shapes:  # the first core of a train
            factors[k]["left"] = weights[None, :]
        identity = torch.eye(inner, dtype=weights.dtype)
        ends = "right" in shapes and shapes["right"][1] < inner  # the last core of a train
        factors[k]["right"] = identity.sum(1, keepdim=True) if ends else identity
    if prior.topology == "ring":
        factors[columns[-1]]["right"] = torch.diag(weights)
    return _as_ring(prior, factors, variables, columns)


def _smoothed(ring: rd.TensorRing, spread: float) -> rd.TensorRing:
    """The ring in which a share `spread` of each column's mass moves to a random state of the next bond."""
    cores = []
    for core in ring.cores:
        right = core.right
        if (size := right.shape[1]) > 1:
            draws = torch.rand(size, size, dtype=torch.float64)
            change = (1 - spread) * torch.eye(size) - spread * (-draws).log1p() / size
            right = right @ change.to(right)
        cores.append(core.with_arrays({**core.arrays(), "right": right}))
    return rd.TensorRing(cores, ring.variables, ring.order)


def _gaussians(means: Tensor, stds: Tensor) -> rd.GaussianMixture:
    return rd.GaussianMixture(means.detach().double().cpu(), stds.detach().double().cpu())


def _table(values: Tensor, responsibilities: Tensor, size: int) -> Tensor:
    """p(value | cluster), (size, clusters), from the rows (n,) whose value is known."""
    known = ~values.isnan()
    counts = torch.nn.functional.one_hot(values[known].long(), size).to(responsibilities)
    frequencies = (counts.sum(0) + 1) / (counts.sum() + size)
    table = counts.T @ responsibilities[known] + CLUSTER_ROWS * frequencies[:, None]
    return table / table.sum(0)


def _pooled(values: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a latent (n,) in each cluster, its variance drawn to the mean of all clusters'."""
    counts = responsibilities.sum(0)
    means = (values @ responsibilities + LEAST_STD * values.mean()) / (counts + LEAST_STD)
    squares = (responsibilities * (values[:, None] - means) ** 2).sum(0)
    variances = (squares + CLUSTER_ROWS * squares.sum() / counts.sum()) / (counts + CLUSTER_ROWS)
    return means, variances.sqrt().clamp(min=LEAST_STD)


def _by_responsibilities(values: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an attribute in each cluster, from the rows (n,) whose value is known."""
    known = ~values.isnan()
    values, weights = values[known], responsibilities[known].T
    counts = weights.sum(1) + CLUSTER_ROWS
    means = (weights @ values + CLUSTER_ROWS * values.mean()) / counts
    squares = (weights * (values - means[:, None]) ** 2).sum(1) + CLUSTER_ROWS * values.var(correction=0)
    return means, (squares / counts).sqrt().clamp(min=LEAST_STD)
