"""Our ring and the paper's official code as two models of the same parameters, and a training step of either."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

import ringdist as rd

from . import reference

COLUMNS, COMPONENTS, BATCH = 100, 10, 128  # the setting of the paper's Table 5


class Model(Protocol):
    parameters: list[torch.Tensor]

    # Each from the parameters on.
    def log_prob(self) -> torch.Tensor: ...  # with gradients
    def evaluate(self) -> torch.Tensor: ...  # the same without
    def sample(self) -> torch.Tensor: ...


@dataclass(frozen=True)
class Start:
    """What both sides start from: roots of the cores, Gaussians, and rows to evaluate."""

    roots: list[torch.Tensor]  # (N, m, m) each
    means: list[torch.Tensor]  # (N,) each
    log_stds: list[torch.Tensor]  # (N,) each
    x: torch.Tensor  # (batch, d)

    @classmethod
    def draw(cls, rank: int, device: str) -> "Start":
        """Cores of a scale that keeps the normaliser near 1, Gaussians spread as the reference spreads them."""
        rng = torch.Generator().manual_seed(rank)
        scale = (COMPONENTS * rank) ** -0.5
        roots = [scale * torch.randn(COMPONENTS, rank, rank, generator=rng) for _ in range(COLUMNS)]
        means = [10 * torch.rand(COMPONENTS, generator=rng) - 5 for _ in range(COLUMNS)]
        stds = [torch.zeros(COMPONENTS) for _ in range(COLUMNS)]
        chosen = torch.randint(COMPONENTS, (COLUMNS, BATCH), generator=rng)
        centres = torch.stack([mean[s] for mean, s in zip(means, chosen, strict=True)], dim=1)
        x = centres + torch.randn(BATCH, COLUMNS, generator=rng)
        move = functools.partial(map, lambda tensor: tensor.to(device))
        return cls(list(move(roots)), list(move(means)), list(move(stds)), x.to(device))


class Ours:
    def __init__(self, start: Start) -> None:
        self.x = start.x
        self.cores = [(root * root).requires_grad_() for root in start.roots]
        self.means = [mean.clone().requires_grad_() for mean in start.means]
        self.log_stds = [log_std.clone().requires_grad_() for log_std in start.log_stds]
        self.parameters = [*self.cores, *self.means, *self.log_stds]

    def ring(self, *, copy: bool = False) -> rd.TensorRing:
        gaussians = zip(self.means, self.log_stds, strict=True)
        variables = [rd.GaussianMixture(mean, log_std.exp(), validate=False) for mean, log_std in gaussians]
        return rd.TensorRing([core.abs() for core in self.cores], variables, validate=False, copy=copy)

    def log_prob(self) -> torch.Tensor:
        return self.ring().log_prob(self.x)

    @torch.no_grad()
    def evaluate(self) -> torch.Tensor:
        return self.log_prob()

    @torch.no_grad()
    def sample(self) -> torch.Tensor:
        return self.ring().sample(BATCH)


class FixedRing:
    """Our ring as the parameters are now."""

    @torch.no_grad()
    def __init__(self, ours: Ours) -> None:
        self.x, self.ring = ours.x, ours.ring(copy=True)

    @torch.no_grad()
    def evaluate(self) -> torch.Tensor:
        return self.ring.log_prob(self.x)

    @torch.no_grad()
    def sample(self) -> torch.Tensor:
        return self.ring.sample(BATCH)


class Reference:
    def __init__(self, start: Start, trip: type) -> None:
        self.x = start.x
        self.model = reference.build(trip, start.roots, start.means, start.log_stds)
        self.parameters = list(self.model.parameters())

    def log_prob(self) -> torch.Tensor:
        return self.model.log_prob(self.x.clone())  # it erases NaNs where it finds them

    @torch.no_grad()
    def evaluate(self) -> torch.Tensor:
        return self.log_prob()

    @torch.no_grad()
    def sample(self) -> torch.Tensor:
        return self.model.sample(BATCH)


def build(rank: int, device: str, checkout: Path | None) -> dict[str, Any]:
    """The sides by name, each a `Model`."""
    start = Start.draw(rank, device)
    models: dict[str, Any] = {"ours": Ours(start)}
    if checkout:
        models["reference"] = Reference(start, reference.load(checkout))
    return models


def agreement(models: Mapping[str, Model]) -> dict[str, float]:
    """The largest relative difference of the log-densities."""
    ours, theirs = models["ours"].evaluate(), models["reference"].evaluate()
    return {"largest relative difference": ((ours - theirs).abs() / theirs.abs()).max().item(), "allowed": 1e-4}


def trainer(model: Model) -> Callable[[], object]:
    # Fused: the loop over 300 parameters would otherwise take most of a step at low ranks, on both sides.
    optimizer = torch.optim.Adam(model.parameters, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss = -model.log_prob().mean()
        loss.backward()
        optimizer.step()

    return step
