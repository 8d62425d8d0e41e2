"""Grids of images and figures: sizes, labels, axes."""

import pytest

pytest.importorskip("lightning")

import numpy as np
import torch
from PIL import Image

from adapters import TRIP, FlowPrior, GaussianPrior, figures


@pytest.mark.parametrize("side, factor", [(8, 9), (28, 3), (32, 3), (64, 2), (72, 1), (100, 1)])
def test_images_in_a_grid_are_large_enough_to_be_looked_at(side, factor, tmp_path):
    images = torch.rand(6, 3, side, side, generator=torch.Generator().manual_seed(0))
    figures.save_grid(images, tmp_path / "new" / "grid.png", columns=3)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        pixels = np.asarray(picture)
    assert side * factor >= 72 and pixels.shape == (2 * (side * factor + 2) + 2, 3 * (side * factor + 2) + 2, 3)
    corner = np.asarray(images[4, :, 0, 0] * 255)
    top, left = 2 + (side * factor + 2), 2 + (side * factor + 2)  # of the image in row 1, column 1
    block = pixels[top : top + factor, left : left + factor]
    np.testing.assert_allclose(block, np.broadcast_to(corner, block.shape), atol=1)


def test_labels_around_a_grid(tmp_path):
    grid = torch.rand(1, 100, 150)
    figure = figures._labelled(grid, (32, 48), ["one", "two"], ["a", "b", "c"], "what it shows")
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert ax.get_title() == "what it shows"
    assert list(ax.get_yticks()) == [18, 52] and list(ax.get_xticks()) == [26, 76, 126]  # the middles of the images
    images = torch.rand(6, 1, 8, 8)
    figures.save_grid(images, tmp_path / "plain.png", 3)
    figures.save_grid(images, tmp_path / "labelled.png", 3, row_labels=["one", "two"], title="title")
    sizes = []
    for name in ("plain", "labelled"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            sizes.append(picture.size)
    assert all(labelled > plain for plain, labelled in zip(*sizes, strict=True))
    for labels in ({"row_labels": "abc"}, {"column_labels": "abcd"}):
        with pytest.raises(ValueError, match="a grid of 2 rows and 3 columns has at most as many labels"):
            figures.save_grid(images, tmp_path / "no.png", 3, **labels)


@pytest.mark.parametrize("prior", [TRIP(3, 2, 2), FlowPrior(GaussianPrior(3), transforms=1, hidden_features=(4,))])
@pytest.mark.parametrize("given", [False, True])
def test_axes_of_a_density(prior, given):
    codes = torch.randn(50, 3) if given else None
    figure = figures.prior_density(prior, codes, (2, 0), points=10)
    ax, bar = figure.axes
    assert ax.get_xlabel() == "latent $z_{2}$" and ax.get_ylabel() == "latent $z_{0}$" and ax.get_title()
    assert bar.get_ylabel() == f"density $p(z_{{2}}, z_{{0}})$ of the {type(prior).__name__}"
    assert (ax.get_legend() is not None) == given


def test_axes_of_curves(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,train_elbo,val_elbo,val_accuracy_1,train_loss_g\n0,-3,,,1\n0,,-4,0.5,\n1,-2,-3,0.6,2\n")
    axes = figures.training_curves(log, ["digit", "slant"]).axes
    labels = {ax.get_title(): (ax.get_xlabel(), ax.get_ylabel()) for ax in axes}
    assert labels == {
        "elbo": ("epoch", "nats per image"),
        "accuracy of slant": ("epoch", "share"),
        "loss_g": ("epoch", ""),
    }
