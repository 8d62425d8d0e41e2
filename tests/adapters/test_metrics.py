"""Distances between images: against closed forms, constructed sets and other implementations."""

import sys
from urllib.error import URLError

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch
from scipy.linalg import sqrtm
from torch import nn

from adapters.errors import InputError
from adapters.metrics import (
    Distances,
    InceptionFeatures,
    distances,
    evaluating,
    frechet_distance,
    inception_features,
    precision_recall,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_with(mean: torch.Tensor, covariance: torch.Tensor, n: int = 50, seed: int = 0) -> torch.Tensor:
    """Rows of exactly this mean and unbiased covariance."""
    rows = normal(n, len(mean), seed=seed)
    rows = rows - rows.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(rows.T.cov()), rows.T, upper=False).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def direct_formula(x: torch.Tensor, y: torch.Tensor) -> float:
    """With the general square root of a matrix."""
    x, y = x.double().numpy(), y.double().numpy()
    first, second = np.cov(x.T), np.cov(y.T)
    root = np.real(sqrtm(first @ second))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


# ---------------------------------------------------------------------------------------------------- Fréchet distance


def test_gaussians_with_a_common_basis():
    basis = torch.linalg.qr(normal(4, 4)).Q
    mean, other = torch.zeros(4).double(), torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    std, stds = torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([2.0, 2.0, 1.5, 0.1]).double()
    x = rows_with(mean, basis * std**2 @ basis.T)
    y = rows_with(other, basis * stds**2 @ basis.T, n=70, seed=1)
    exact = (mean - other).square().sum() + (std - stds).square().sum()
    assert frechet_distance([x], [y]) == pytest.approx(exact.item(), rel=1e-10)


@pytest.mark.parametrize("n", [8, 40])  # fewer rows than features, too
def test_against_other_formulas(n):
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = normal(n, 12), 1.5 * normal(60, 12, seed=1) @ normal(12, 12, seed=2) + 3
    found = frechet_distance([x], [y])
    assert found == pytest.approx(direct_formula(x, y), rel=1e-6)
    identity = nn.Identity()
    identity.num_features = 12
    metric = FrechetInceptionDistance(identity)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert found == pytest.approx(metric.compute().item(), rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streaming_is_all_at_once(offset):
    x, y = normal(97, 6) + offset, 2 * normal(60, 6, seed=1) + offset
    at_once = frechet_distance([x], [y])
    assert frechet_distance(iter(x.split(7)), (rows for rows in y.split(1))) == pytest.approx(at_once, rel=1e-8)
    assert at_once == pytest.approx(frechet_distance([x - offset], [y - offset]), rel=1e-8)


def test_invariances():
    x, y = normal(50, 6), 2 * normal(60, 6, seed=1) + 1
    rotation, shift = torch.linalg.qr(normal(6, 6, seed=2)).Q, normal(6, seed=3)
    found = frechet_distance([x], [y])
    assert found == pytest.approx(frechet_distance([y], [x]), rel=1e-10)
    assert found == pytest.approx(frechet_distance([x @ rotation + shift], [y @ rotation + shift]), rel=1e-10)
    assert 9 * found == pytest.approx(frechet_distance([3 * x], [3 * y]), rel=1e-10)


@pytest.mark.parametrize("n", [2, 20, 300])
def test_a_set_is_at_no_distance_from_itself(n):
    x = normal(n, 100).relu().float()
    x[:, :10] = 4.0  # features without variance
    assert 0 <= frechet_distance([x], [x]) < 1e-9


# ------------------------------------------------------------------------------------------------- precision and recall


def test_equal_and_disjoint_sets():
    x = normal(60, 5)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    assert precision_recall(x.round(), x.round()) == (1, 1)  # with equal rows


def test_a_dropped_mode_costs_recall_only():
    modes = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    real = (modes[:, None] + normal(4, 100, 2).float()).flatten(0, 1)
    fake = (modes[:3, None] + normal(3, 100, 2, seed=1).float()).flatten(0, 1)
    precision, recall = precision_recall(real, fake)
    assert precision > 0.9 and recall == pytest.approx(0.75, abs=0.06)
    assert precision_recall(fake, real) == (recall, precision)
    more = torch.cat([real, real + 1000])  # invented modes cost precision only
    precision, recall = precision_recall(real, more)
    assert precision == pytest.approx(0.5, abs=0.01) and recall == 1


def test_balls_reach_to_the_kth_fellow():
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])  # radii 1, 1, 2, 4 for one neighbour; 3, 2, 3, 6 for two
    fake = torch.tensor([[-1.0], [-2.0], [11.5], [12.5]])
    assert precision_recall(real, fake, 1)[0] == 0.25
    assert precision_recall(real, fake, 2)[0] == 1.0


@pytest.mark.parametrize("chunk_size", [1, 7, 60, 10_000])
def test_memory_does_not_change_the_result(chunk_size):
    x, y = normal(60, 5).float(), normal(45, 5, seed=1).float() + 1
    reference = precision_recall(x, y)
    assert 0 < min(reference) and max(reference) < 1
    assert precision_recall(x, y, chunk_size=chunk_size) == reference


# -------------------------------------------------------------------------------------------------------------- images


class Features(nn.Module):
    """Pixels, under dropout that only evaluation mode turns off."""

    def __init__(self):
        super().__init__()
        self.dropout, self.frozen = nn.Dropout(0.9), nn.Dropout(0.9).eval()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * self.dropout(x.flatten(1))


def test_distances_of_images():
    real, fake = torch.rand(40, 1, 2, 3), torch.rand(50, 1, 2, 3).sqrt()
    features = Features()
    found = distances(real.split(9), (rows for rows in fake.split(8)), features, neighbours=2)
    x, y = real.flatten(1), fake.flatten(1)
    assert found == Distances(pytest.approx(frechet_distance([x], [y]), rel=1e-6), *precision_recall(x, y, 2))
    assert features.training and features.dropout.training and not features.frozen.training


def test_modes_are_restored_after_an_error():
    features = Features()
    with pytest.raises(KeyError), evaluating(features):
        assert not features.dropout.training and not torch.is_grad_enabled()
        raise KeyError
    assert features.dropout.training and not features.frozen.training and torch.is_grad_enabled()


def test_inception_sees_bytes_of_three_colours():
    network = Recorder()
    seen = InceptionFeatures(network)(torch.tensor([-0.5, 100 / 255, 1.7]).reshape(1, 1, 1, 3))
    assert network.seen.dtype == torch.uint8 and network.seen.shape == (1, 3, 1, 3)
    assert network.seen[0, :, 0].tolist() == [[0, 100, 255]] * 3 and torch.equal(seen, torch.ones(1, 2048))


class Recorder(nn.Module):
    """Stands for torch-fidelity's network, which returns a tuple."""

    def forward(self, x):
        self.seen = x
        return (torch.ones(len(x), 2048),)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "real, fake, message",
    [
        (normal(1, 3), normal(9, 3), "at least 2 real rows, found 1"),
        (normal(9, 3), normal(0, 3), "at least 2 generated rows, found 0"),
        (normal(9, 3), normal(9, 4), "the same features, found 3 and 4"),
        (normal(9, 3, 1), normal(9, 3), r"shape \(n, f\), found \(9, 3, 1\)"),
        (normal(9, 3), normal(9, 3).log(), "must be finite.* generated image"),
    ],
)
def test_features_that_cannot_be_compared(real, fake, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance([real], [fake])


def test_batches_of_different_features():
    with pytest.raises(ValueError, match="all real rows must have 3 features, found 4"):
        frechet_distance([normal(5, 3), normal(5, 4)], [normal(5, 3)])


def test_precision_and_recall_of_nothing():
    with pytest.raises(ValueError, match="3 neighbours need at least 4 generated rows, found 3"):
        precision_recall(normal(9, 2), normal(3, 2))
    with pytest.raises(ValueError, match="the same features, found 2 and 1"):
        precision_recall(normal(9, 2), normal(9, 1))
    with pytest.raises(ValueError, match="neighbours must be at least 1, found 0"):
        precision_recall(normal(9, 2), normal(9, 2), 0)
    with pytest.raises(ValueError, match="must be finite"):
        precision_recall(normal(9, 2), normal(9, 2).log())


def test_images_that_cannot_be_compared():
    x = torch.rand(9, 1, 2, 2)
    with pytest.raises(ValueError, match="at least 2 generated images are needed, found 1"):
        distances([x], [x[:1]], nn.Flatten())
    with pytest.raises(ValueError, match="at least 2 real images are needed, found 0"):
        distances([], [x], nn.Flatten())
    with pytest.raises(ValueError, match="one row per image, found 18 for 9 images"):
        distances([x], [x], nn.Flatten(0, 2))
    with pytest.raises(ValueError, match=r"shape \(n, f\), found \(9, 1, 4\)"):
        distances([x], [x], nn.Flatten(2))
    with pytest.raises(ValueError, match="must be finite"):
        distances([x], [x / 0], nn.Flatten())


def test_inception_without_its_library_or_weights(monkeypatch, tmp_path):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(InputError, match=r"no\.pth: there is no such file; the weights are at https"):
        inception_features(tmp_path / "no.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pth")
    for name in ("text.pth", "other.pth"):
        with pytest.raises(InputError, match=f"{name}: not the Inception weights"):
            inception_features(tmp_path / name)

    def no_network(*arguments, **options):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(InputError, match=r"cannot be fetched .*no route.*: put the file at .*hub/checkpoints/weights-"):
        inception_features()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ImportError, match="pip install"):
        inception_features()
