"""Figures that people look at: matplotlib `Figure` objects and grids of images, without global plotting state."""

from __future__ import annotations

import csv
import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid, save_image

from adapters.priors import FlowPrior, Prior

LEAST_SIDE = 72  # pixels of an image in a grid
NATS = {"elbo", "iwae", "kl", "reconstruction", "attributes", "prediction"}  # logged quantities in nats
GAP = 2  # pixels between images
DPI = 100


def save(figure: Figure, path: Path) -> None:
    """Write a figure, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def save_grid(
    images: Tensor,
    path: Path,
    columns: int | None = None,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
) -> None:
    """Write images (n, C, H, W) with values in [0, 1] as a grid, creating its folder; small ones are enlarged.

    Args:
        images: row by row.
        path: of the picture.
        columns: number of them; None: as many as rows, about.
        row_labels: what stands left of the rows; none if empty.
        column_labels: what stands above the columns; none if empty.
        title: above all; none if empty.

    Raises:
        ValueError: if there are more labels than rows or columns.
    """
    columns = columns or max(1, round(len(images) ** 0.5))
    rows = math.ceil(len(images) / columns)
    if len(row_labels) > rows or len(column_labels) > columns:
        raise ValueError(
            f"a grid of {rows} rows and {columns} columns has at most as many labels, "
            f"found {len(row_labels)} and {len(column_labels)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    factor = math.ceil(LEAST_SIDE / images.shape[-2])
    enlarged = images.clamp(0, 1).repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    grid = make_grid(enlarged, nrow=columns, padding=GAP, pad_value=1.0)
    if not (row_labels or column_labels or title):
        save_image(grid, path)
    else:
        _labelled(grid, enlarged.shape[-2:], row_labels, column_labels, title).savefig(
            path, dpi=DPI, bbox_inches="tight", pad_inches=0.1
        )


def _labelled(
    grid: Tensor, side: Sequence[int], row_labels: Sequence[str], column_labels: Sequence[str], title: str
) -> Figure:
    """A picture (C, H, W) of images with these sides, pixel by pixel, with labels around it."""
    _, height, width = grid.shape
    figure = Figure(figsize=(width / DPI, height / DPI))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(grid.movedim(0, -1).float().cpu().numpy(), interpolation="nearest")
    ax.set_xticks([GAP + (side[1] + GAP) * i + side[1] / 2 for i in range(len(column_labels))], column_labels)
    ax.set_yticks([GAP + (side[0] + GAP) * i + side[0] / 2 for i in range(len(row_labels))], row_labels)
    ax.tick_params(length=0, labelsize=11, top=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(textwrap.fill(title, max(16, width // 9)), fontsize=12, pad=8)
    return figure


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

    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    ax = figure.add_subplot()
    if isinstance(prior, FlowPrior):
        samples = prior.sample(50_000)[:, [i, j]].cpu().numpy()
        span = list(zip(low.tolist(), high.tolist(), strict=True))
        *_, mesh = ax.hist2d(samples[:, 0], samples[:, 1], bins=points // 2, range=span, density=True, cmap="Blues")
    else:
        density = _marginal(prior, dimensions, axes)
        mesh = ax.pcolormesh(*(axis.numpy() for axis in axes), density.numpy(), cmap="Blues", shading="gouraud")
    figure.colorbar(mesh, ax=ax, label=f"density $p(z_{{{i}}}, z_{{{j}}})$ of the {type(prior).__name__}")
    if codes is not None:
        label = f"codes of {len(codes)} training images"
        ax.plot(*pair.numpy().T, ".", color="tab:red", markersize=2, alpha=0.6, label=label)
        ax.legend(loc="upper right", markerscale=4)
    title = "prior" if codes is None else "prior and codes of training images"
    ax.set(xlabel=f"latent $z_{{{i}}}$", ylabel=f"latent $z_{{{j}}}$", title=title)
    return figure


def _marginal(prior: Prior, dimensions: tuple[int, int], axes: list[Tensor]) -> Tensor:
    """p(z_i, z_j) on a grid, first dimension along the columns."""
    second, first = torch.meshgrid(axes[1], axes[0], indexing="ij")
    z = torch.full((first.numel(), prior.num_latents), torch.nan, device=prior.device, dtype=prior.dtype)
    z[:, dimensions[0]], z[:, dimensions[1]] = first.flatten().to(z), second.flatten().to(z)
    return prior.log_prob(z).exp().reshape(first.shape).float().cpu()


def training_curves(log: Path, attributes: Sequence[str] = ()) -> Figure:
    """The columns train_* and val_* of a CSV log over epochs, one panel for each quantity.

    Args:
        log: the file.
        attributes: names of the data's attributes, for the titles of accuracy_0, accuracy_1, ...
    """
    curves = read_curves(log)
    quantities = sorted({name.partition("_")[2] for name in curves})
    titles = {f"accuracy_{j}": f"accuracy of {name}" for j, name in enumerate(attributes)}
    columns = max(1, min(4, len(quantities)))
    lines = math.ceil(max(1, len(quantities)) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), layout="constrained")
    for panel, quantity in enumerate(quantities):
        ax = figure.add_subplot(lines, columns, panel + 1)
        for stage in ("train", "val"):
            if points := curves.get(f"{stage}_{quantity}"):
                ax.plot(*zip(*points, strict=True), label=stage)
        ax.set(xlabel="epoch", ylabel=_unit(quantity), title=titles.get(quantity, quantity))
        ax.legend()
    return figure


def _unit(quantity: str) -> str:
    """What a logged quantity is measured in, as far as it has a unit."""
    if quantity.startswith("accuracy"):
        return "share"
    return "nats per image" if quantity in NATS else ""


def read_curves(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(epoch, value) of every train_* and val_* column of a CSV log."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name.startswith(("train_", "val_")):
                    curves[name].append((int(row["epoch"]), float(value)))
    return dict(curves)
