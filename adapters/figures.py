"""Figures of a training run: matplotlib `Figure` objects and grids of images, without global plotting state."""

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

LEAST_HEIGHT = 72  # in pixels, of an image in a grid
NATS = {"elbo", "iwae", "kl", "reconstruction", "attributes", "prediction"}  # logged quantities in nats
GAP = 2  # pixels between images
DPI = 100


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, and create the folder.

    Examples:
        >>> from pathlib import Path
        >>> from matplotlib.figure import Figure
        >>> from adapters.figures import save
        >>> save(Figure(), Path("figures/empty.png"))
        >>> Path("figures/empty.png").is_file()
        True
    """
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
    """Write images (n, C, H, W) with values in [0, 1] as a grid, and create the folder; small images are enlarged.

    Args:
        images: row by row.
        path: file of the picture.
        columns: number of columns; None: about as many as rows.
        row_labels: labels left of the rows.
        column_labels: labels above the columns.
        title: title of the picture.

    Raises:
        ValueError: if there are more labels than rows or columns.

    Examples:
        >>> from pathlib import Path
        >>> import torch
        >>> from adapters.figures import save_grid
        >>> save_grid(torch.rand(6, 1, 8, 8), Path("noise.png"), columns=3, row_labels=["first", "second"])
        >>> Path("noise.png").is_file()
        True
    """
    columns = columns or max(1, round(len(images) ** 0.5))
    rows = math.ceil(len(images) / columns)
    if len(row_labels) > rows or len(column_labels) > columns:
        raise ValueError(
            f"a grid of {rows} rows and {columns} columns has at most as many labels, "
            f"found {len(row_labels)} and {len(column_labels)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    factor = math.ceil(LEAST_HEIGHT / images.shape[-2])
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
    """A grid (C, H, W) of images with these sides, at its resolution, with labels around it."""
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
    """Rows of `columns` images, alternately from `upper` and `lower`: images above their reconstructions.

    Args:
        upper: (n, C, H, W).
        lower: (n, C, H, W).
        columns: images in a row.

    Returns:
        (2 n, C, H, W).

    Examples:
        >>> import torch
        >>> from adapters.figures import interleaved
        >>> interleaved(torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8]), columns=2)
        tensor([1, 2, 5, 6, 3, 4, 7, 8])
    """
    return torch.cat([part for pair in zip(upper.split(columns), lower.split(columns), strict=True) for part in pair])


@torch.no_grad()
def prior_density(
    prior: Prior, codes: Tensor | None = None, dimensions: tuple[int, int] = (0, 1), *, points: int = 100
) -> Figure:
    """The prior's marginal density of two latent dimensions, as in Figure 4 of the paper, and codes over it.

    A flow cannot marginalise; for a flow a histogram of samples is drawn instead.

    Args:
        prior: any prior.
        codes: (n, d) latent codes, drawn as points; None: no points.
        dimensions: the two latent dimensions.
        points: grid points along each axis.

    Raises:
        ValueError: if the dimensions are not two different ones of the prior.

    Examples:
        >>> from adapters import TRIP
        >>> from adapters.figures import prior_density
        >>> prior = TRIP(4, num_components=3, rank=2)
        >>> figure = prior_density(prior, prior.sample(100), dimensions=(0, 2), points=20)
        >>> [axes.get_title() for axes in figure.axes]
        ['prior and codes of training images', '']
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
    """p(z_i, z_j) on a grid, with the first dimension along the columns."""
    second, first = torch.meshgrid(axes[1], axes[0], indexing="ij")
    z = torch.full((first.numel(), prior.num_latents), torch.nan, device=prior.device, dtype=prior.dtype)
    z[:, dimensions[0]], z[:, dimensions[1]] = first.flatten().to(z), second.flatten().to(z)
    return prior.log_prob(z).exp().reshape(first.shape).float().cpu()


def training_curves(log: Path, attributes: Sequence[str] = ()) -> Figure:
    r"""The columns train_* and val_* of a CSV log over epochs, one panel for each quantity.

    Args:
        log: the file.
        attributes: names of the data's attributes, for the titles of accuracy_0, accuracy_1, ...

    Examples:
        >>> from pathlib import Path
        >>> from adapters.figures import training_curves
        >>> log = Path("metrics.csv")
        >>> _ = log.write_text("epoch,train_elbo,val_elbo\n0,-30,\n0,,-28\n1,-25,\n")
        >>> [axes.get_title() for axes in training_curves(log).axes]
        ['elbo']
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
    """The unit of a logged quantity; empty if it has none."""
    if quantity.startswith("accuracy"):
        return "share"
    return "nats per image" if quantity in NATS else ""


def read_curves(log: Path) -> dict[str, list[tuple[int, float]]]:
    r"""(epoch, value) of every train_* and val_* column of a CSV log; empty cells are skipped.

    Examples:
        >>> from pathlib import Path
        >>> from adapters.figures import read_curves
        >>> log = Path("metrics.csv")
        >>> _ = log.write_text("epoch,train_elbo,val_elbo\n0,-30,\n0,,-28\n1,-25,\n")
        >>> read_curves(log)
        {'train_elbo': [(0, -30.0), (1, -25.0)], 'val_elbo': [(0, -28.0)]}
    """
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name.startswith(("train_", "val_")):
                    curves[name].append((int(row["epoch"]), float(value)))
    return dict(curves)
