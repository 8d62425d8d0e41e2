"""Distances between generated and real images, computed from the features of a network.

FID is the Fréchet distance for the features of the Inception network. Fréchet distances for other networks are not
comparable with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adapters.errors import InputError


class Distances(NamedTuple):
    """Fréchet distance (0 is best), precision and recall (1 is best) of generated images.

    Examples:
        >>> from adapters.metrics import Distances
        >>> Distances(frechet=1.5, precision=0.8, recall=0.6).recall
        0.6
    """

    frechet: float
    precision: float
    recall: float


def distances(
    real: Iterable[Tensor], generated: Iterable[Tensor], features: nn.Module, *, neighbours: int = 3
) -> Distances:
    """Compare two sets of images by the features of a network in evaluation mode.

    Images are processed batch by batch; the features of all images are held in memory.

    Args:
        real: batches of images (n, C, H, W) in [0, 1], on the network's device.
        generated: batches of images, likewise.
        features: network (n, C, H, W) -> (n, f).
        neighbours: k of `precision_recall`.

    Raises:
        ValueError: if the network's outputs are not finite rows of one length, one for each image, or a set has fewer
            than two images or no more than `neighbours`.

    Examples:
        >>> import torch
        >>> from adapters.metrics import distances
        >>> images = torch.rand(2, 20, 1, 4, 4, generator=torch.Generator().manual_seed(0))  # two batches
        >>> frechet, precision, recall = distances(images, images, torch.nn.Flatten())
        >>> round(frechet, 6), precision, recall
        (0.0, 1.0, 1.0)
    """
    with evaluating(features):
        rows = [_features_of(real, features, "real"), _features_of(generated, features, "generated")]
    return Distances(frechet_distance(*rows), *precision_recall(*(torch.cat(part) for part in rows), neighbours))


def frechet_distance(real_features: Iterable[Tensor], fake_features: Iterable[Tensor]) -> float:
    """‖μ − μ'‖² + Tr(Σ + Σ' − 2 (Σ Σ')^½) of the Gaussians fitted to features (Heusel et al. 2017, arXiv:1706.08500).

    With Σ = R Rᵀ and Σ' = R' R'ᵀ, the trace of the root is the sum of the singular values of Rᵀ R'. This avoids the
    square root of a non-symmetric matrix and is stable with fewer rows than features. The computation is in double
    precision from running moments, so memory is O(f²) for any number of batches.

    Args:
        real_features: batches (n, f).
        fake_features: batches (n', f).

    Raises:
        ValueError: if the batches are not finite and of one f, or there are fewer than two rows on either side.

    Examples:
        >>> import torch
        >>> from adapters.metrics import frechet_distance
        >>> rows = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance([rows], [rows + 1]), 4)  # the means differ by (1, 1, 1)
        3.0
    """
    real, fake = _moments(real_features, "real"), _moments(fake_features, "generated")
    if real.mean.shape != fake.mean.shape:
        raise ValueError(f"both sides must have the same features, found {len(real.mean)} and {len(fake.mean)}")
    root, other = real.root(), fake.root()
    fitted = (real.mean - fake.mean).square().sum() + root.square().sum() + other.square().sum()
    return max(0.0, float(fitted - 2 * torch.linalg.svdvals(root.T @ other).sum()))


@torch.no_grad()
def precision_recall(
    real_features: Tensor, fake_features: Tensor, neighbours: int = 3, *, chunk_size: int = 1024
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    A generated row is precise if its distance to some real row is at most that row's distance to its k-th nearest
    neighbour among the real rows. Precision is the share of such rows. Recall is the same with real and generated rows
    exchanged.

    Args:
        real_features: (n, f).
        fake_features: (n', f).
        neighbours: k.
        chunk_size: rows whose distances to all others are in memory at once; the result does not depend on it.

    Returns:
        Precision and recall.

    Raises:
        ValueError: if the features are not finite matrices of the same f with more than k rows, or k or chunk_size is
            less than 1.

    Examples:
        >>> import torch
        >>> from adapters.metrics import precision_recall
        >>> rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> precision_recall(rows, rows[:100] / 10)  # close to real rows, but with too little variety
        (1.0, ...)
    """
    for name, value in (("neighbours", neighbours), ("chunk_size", chunk_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, found {value}")
    for name, rows in (("real", real_features), ("generated", fake_features)):
        _check_rows(rows, name)
        if len(rows) <= neighbours:
            raise ValueError(f"{neighbours} neighbours need at least {neighbours + 1} {name} rows, found {len(rows)}")
    if real_features.shape[1] != fake_features.shape[1]:
        raise ValueError(
            f"both sides must have the same features, found {real_features.shape[1]} and {fake_features.shape[1]}"
        )
    real_radii = _radii(real_features, neighbours, chunk_size)
    fake_radii = _radii(fake_features, neighbours, chunk_size)
    precise = torch.zeros_like(fake_radii, dtype=torch.bool)
    recalled = []
    for rows, radii in zip(real_features.split(chunk_size), real_radii.split(chunk_size), strict=True):
        between = _pairwise(rows, fake_features)  # (rows, n')
        precise |= (between <= radii[:, None]).any(0)
        recalled.append((between <= fake_radii).any(1))
    return float(precise.double().mean()), float(torch.cat(recalled).double().mean())


# ------------------------------------------------------------------------------------------------------------ networks


class InceptionFeatures(nn.Module):
    """Images (n, 1 or 3, H, W) in [0, 1] -> (n, 2048), with the preprocessing of the published FID: 8 bits, 299x299.

    Args:
        network: torch-fidelity's feature extractor of images in uint8.

    Examples:
        >>> import torch
        >>> from adapters.metrics import InceptionFeatures
        >>> network = lambda pixels: (pixels.float().mean((2, 3)),)  # instead of Inception, whose weights are large
        >>> InceptionFeatures(network)(torch.ones(2, 1, 8, 8))
        tensor([[255., 255., 255.],
                [255., 255., 255.]])
    """

    num_features = 2048

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The pooled activations before the classifier; grey images get three equal channels."""
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        return self.network(pixels.expand(-1, 3, -1, -1))[0]


def inception_features(weights: Path | None = None) -> nn.Module:
    """The Inception network of the published FID, from torch-fidelity.

    Args:
        weights: torch-fidelity's file; None: the file in the cache of `torch.hub`, which is downloaded if necessary.

    Raises:
        ImportError: if torch-fidelity is not installed.
        InputError: if the file can be neither found nor downloaded, or is not the weights file.

    Examples:
        >>> from adapters.metrics import inception_features
        >>> inception_features().num_features  # doctest: +SKIP
        2048
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError('FID needs torch-fidelity: pip install "ringdist[train]"') from error
    path = _fetched(URL_INCEPTION_V3) if weights is None else weights
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; the weights are at {URL_INCEPTION_V3}")
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity itself would execute a pickle's code
        return InceptionFeatures(FeatureExtractorInceptionV3("inception", ["2048"], str(path))).eval()
    except Exception as error:  # an unpickler raises errors of many kinds for other files
        raise InputError(f"{path}: not the Inception weights of {URL_INCEPTION_V3}") from error


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A context with the network in evaluation mode and without gradients; afterwards each module has its mode again.

    Examples:
        >>> import torch
        >>> from adapters.metrics import evaluating
        >>> network = torch.nn.Dropout()
        >>> with evaluating(network):
        ...     network(torch.ones(3))
        tensor([1., 1., 1.])
        >>> network.training
        True
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _fetched(address: str) -> Path:
    """The file in the cache of `torch.hub`, downloaded if it is not there."""
    name = address.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path), Path(name).stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{address} cannot be fetched ({error}): put the file at {path}") from error
    return path


# ------------------------------------------------------------------------------------------------------------- details


@dataclass(frozen=True)
class _Moments:
    """Number of rows, mean (f,) and scatter matrix (f, f) about the mean, in double precision."""

    count: int
    mean: Tensor
    scatter: Tensor

    def merge(self, other: _Moments) -> _Moments:
        """The moments of the union (Chan et al. 1983), without cancellation for means far from 0."""
        count, shift = self.count + other.count, other.mean - self.mean
        scatter = self.scatter + other.scatter + self.count * other.count / count * torch.outer(shift, shift)
        return _Moments(count, self.mean + other.count / count * shift, scatter)

    def root(self) -> Tensor:
        """R (f, r) such that R Rᵀ is the unbiased covariance, with r its numerical rank."""
        values, vectors = torch.linalg.eigh(self.scatter / (self.count - 1))
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        return vectors[:, kept] * values[kept].sqrt()


def _moments(batches: Iterable[Tensor], name: str) -> _Moments:
    total: _Moments | None = None
    for rows in batches:
        _check_rows(rows, name)
        if total is not None and rows.shape[1] != len(total.mean):
            raise ValueError(f"all {name} rows must have {len(total.mean)} features, found {rows.shape[1]}")
        if len(rows):
            wide = rows.detach().double()
            centred = wide - (mean := wide.mean(0))
            new = _Moments(len(rows), mean, centred.T @ centred)
            total = new if total is None else total.merge(new)
    if total is None or total.count < 2:
        raise ValueError(f"a covariance needs at least 2 {name} rows, found {0 if total is None else total.count}")
    return total


def _features_of(images: Iterable[Tensor], network: nn.Module, name: str) -> list[Tensor]:
    """The features of each batch."""
    rows = []
    for batch in images:
        rows.append(network(batch))
        _check_rows(rows[-1], name)
        if len(rows[-1]) != len(batch):
            raise ValueError(f"features must be one row per image, found {len(rows[-1])} for {len(batch)} images")
    if sum(map(len, rows)) < 2:
        raise ValueError(f"at least 2 {name} images are needed, found {sum(map(len, rows))}")
    return rows


def _check_rows(rows: Tensor, name: str) -> None:
    if rows.ndim != 2:
        raise ValueError(f"features must have shape (n, f), found {tuple(rows.shape)} for {name} images")
    if not rows.isfinite().all():
        bad = int((~rows.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"features must be finite, found another value for {name} image {bad} of a batch")


def _radii(rows: Tensor, neighbours: int, chunk_size: int) -> Tensor:
    """The distance of each row to its k-th nearest neighbour, (n,)."""
    nearest = [_pairwise(chunk, rows).kthvalue(neighbours + 1) for chunk in rows.split(chunk_size)]  # 1st is itself
    return torch.cat([found.values for found in nearest])


def _pairwise(rows: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances (n, n'), computed from differences so that those of equal rows are exactly 0."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
