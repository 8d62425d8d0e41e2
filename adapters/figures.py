"""Figures that people look at: matplotlib `Figure` objects and grids of images, without global plotting state."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import save_image

from adapters.priors import FlowPrior, Prior

LEAST_SIDE = 32  # pixels of an image in a grid


def save(figure: Figure, path: Path) -> None:
    """Write a figure, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Write images (n, C, H, W) with values in [0, 1] as a grid, creating its folder; small ones are enlarged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    factor = max(1, LEAST_SIDE // images.shape[-2])
    enlarged = images.clamp(0, 1).repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    save_image(enlarged, path, nrow=columns or max(1, round(len(images) ** 0.5)), pad_value=1.0)


def interleaved(upper: Tensor, lower: Tensor, columns: int = 8) -> Tensor:
    """Rows of `columns` images, those of `upper` and `lower` in turn: images above their reconstructions."""
    return torch.cat([part for pair in zip(upper.split(columns), lower.split(columns), strict=True) for part in pair])


@torch.no_grad()
def prior_density(
    prior: Prior, codes: Tensor | None = None, dimensions: tuple[int, int] = (0, 1), *, points: int = 100
) -> Figure:
    """The prior's density over two latent dimensions, all others marginalised, and codes (n, d) over it, if given.

    Like Figure 4 of the paper. Of a flow, which cannot marginalise, a histogram of samples stands for the density.

    Raises:
        ValueError: if the dimensions are not two different ones of the prior.
    """
    i, j = dimensions
    if i == j or not {i, j} <= set(range(prior.num_latents)):
        raise ValueError(f"dimensions must be two different ones below {prior.num_latents}, found {dimensions}")
    pair = (prior.sample(10_000) if codes is None else codes)[:, [i, j]].float().cpu()
    low, high = pair.min(0).values, pair.max(0).values
    low, high = low - 0.2 * (high - low), high + 0.2 * (high - low)
    axes = [torch.linspace(float(a), float(b), points) for a, b in zip(low, high, strict=True)]

    figure = Figure(figsize=(5, 4.5))
    ax = figure.add_subplot()
    if isinstance(prior, FlowPrior):
        samples = prior.sample(50_000)[:, [i, j]].cpu().numpy()
        ax.hist2d(
            samples[:, 0],
            samples[:, 1],
            bins=points // 2,
            range=list(zip(low.tolist(), high.tolist(), strict=True)),
            cmap="Blues",
        )
    else:
        density = _marginal(prior, dimensions, axes)
        ax.pcolormesh(*(axis.numpy() for axis in axes), density.numpy(), cmap="Blues", shading="gouraud")
    if codes is not None:
        ax.plot(*pair.numpy().T, ".", color="tab:red", markersize=1.5, alpha=0.6)
    title = "prior" if codes is None else "prior and codes of training images"
    ax.set(xlabel=f"$z_{{{i}}}$", ylabel=f"$z_{{{j}}}$", title=title)
    return figure


def _marginal(prior: Prior, dimensions: tuple[int, int], axes: list[Tensor]) -> Tensor:
    """p(z_i, z_j) on a grid, first dimension along the columns."""
    second, first = torch.meshgrid(axes[1], axes[0], indexing="ij")
    z = torch.full((first.numel(), prior.num_latents), torch.nan, device=prior.device, dtype=prior.dtype)
    z[:, dimensions[0]], z[:, dimensions[1]] = first.flatten().to(z), second.flatten().to(z)
    return prior.log_prob(z).exp().reshape(first.shape).float().cpu()


def training_curves(log: Path) -> Figure:
    """The columns train_* and val_* of a CSV log over epochs, one panel for each quantity."""
    curves = read_curves(log)
    quantities = sorted({name.partition("_")[2] for name in curves})
    figure = Figure(figsize=(4 * max(1, len(quantities)), 3.2), layout="constrained")
    for panel, quantity in enumerate(quantities):
        ax = figure.add_subplot(1, len(quantities), panel + 1)
        for stage in ("train", "val"):
            if points := curves.get(f"{stage}_{quantity}"):
                ax.plot(*zip(*points, strict=True), label=stage)
        ax.set(xlabel="epoch", title=quantity)
        ax.legend()
    return figure


def read_curves(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(epoch, value) of every train_* and val_* column of a CSV log."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name.startswith(("train_", "val_")):
                    curves[name].append((int(row["epoch"]), float(value)))
    return dict(curves)
