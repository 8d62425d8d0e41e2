"""Every prior with parameters that are not the defaults, and what its tests compare: grids, samples, gradients."""

import copy
import functools
import math

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import (  # noqa: E402
    TRIP,
    FlowPrior,
    GaussianMixturePrior,
    GaussianPrior,
    JointTRIP,
    Prior,
    VampPrior,
    VampTRIP,
)

D = 2
nan = math.nan


class Encoder(torch.nn.Module):
    """From (n, 3) inputs to a Gaussian over latents."""

    def __init__(self, num_latents: int = D):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2 * num_latents)

    def forward(self, x):
        mean, log_std = (2 * self.linear(x)).chunk(2, dim=-1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, (0.2 * log_std).exp()), 1)


@functools.cache
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder()


RING = {"num_components": 3, "rank": 2, "mean_range": (-2.0, 2.0), "std": 0.8}
PRIVATE = {"rank": 3, "core": "cp", "private_components": True, "mean_range": (-2.0, 2.0), "std": 0.8}
MAKERS = {
    "gaussian": lambda **o: GaussianPrior(D, **o),
    "mixture": lambda **o: GaussianMixturePrior(D, 3, **o),
    "trip": lambda **o: TRIP(D, **RING, nonnegative="abs", **o),
    "train": lambda **o: TRIP(D, **RING, topology="train", nonnegative="softplus", **o),
    "exp": lambda **o: TRIP(D, **RING, nonnegative="exp", **o),
    "cp": lambda **o: TRIP(D, **RING, core="cp", **o),
    "private": lambda **o: TRIP(D, **PRIVATE, topology="ring", **o),
    "joint": lambda **o: JointTRIP(D, [2, 3], **RING, **o),
    "joint-private": lambda **o: JointTRIP(D, [2, 3], **PRIVATE, order="given", attribute_places="spread", **o),
    "joint-switching": lambda **o: JointTRIP(
        D, [2, 3], **PRIVATE | {"core": "switching"}, order="given", attribute_places="spread", **o
    ),
    "vamp": lambda **o: VampPrior(encoder(), (3,), D, 4, bounds=(-2.0, 2.0), **o),
    "vamp trip": lambda **o: VampTRIP(encoder(), (3,), D, 4, 2, 0.3, bounds=(-2.0, 2.0), **o),
    "flow": lambda **o: FlowPrior(
        make("trip"), "maf", transforms=1, hidden_features=(8,), activation=torch.nn.Tanh, **o
    ),
}
every_prior = pytest.mark.parametrize("name", MAKERS)
MARGINALISING = [name for name in MAKERS if name != "flow"]


def make(name: str, **options) -> Prior:
    """A prior with parameters that are nobody's default, so that symmetries hide nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        prior = MAKERS[name](**options)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return prior


def exact(name: str, **options) -> Prior:
    prior = make(name, **options).double()
    if name.startswith("vamp"):
        prior._encoder = (copy.deepcopy(encoder()).double(),)
    return prior


def mixed(**options) -> JointTRIP:
    """A categorical and a continuous attribute, parameters that are nobody's default."""
    prior = JointTRIP(D, [2, "continuous"], **RING | options).double()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return prior


def grid(d: int = D, step: float = 0.125, half: float = 8.0):
    """The points (n, d) of a grid, and the volume of a cell."""
    axis = torch.arange(-half, half + step / 2, step, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d), step**d


def bananas(n: int = 400, seed: int = 0):
    """Codes in four dimensions, two and two of which depend on each other; columns 0 and 2, 1 and 3."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n)) + 3 * rng.integers(-1, 2, (2, n))
    noise = 0.3 * rng.normal(size=(2, n))
    return torch.tensor(np.stack([a, b, a + noise[0], -b + noise[1]], 1), dtype=torch.float32)


def assert_samples_follow(prior: Prior, z) -> None:
    """A chi-squared test of two-dimensional samples against the prior's density."""
    z = z.detach().numpy()
    assert z.shape == (8000, D)
    points, volume = grid(step=0.0625)
    # half a step aside, so that no grid point lies on an edge
    edges = np.array([-8.03, -2.03, -1.03, -0.28, 0.47, 1.22, 2.22, 8.03])
    mass = prior.log_prob(points).exp().detach().numpy() * volume
    expected, _, _ = np.histogram2d(*points.numpy().T, bins=edges, weights=mass)
    observed, _, _ = np.histogram2d(*np.clip(z, -8, 8).T, bins=edges)
    expected = expected / expected.sum() * len(z)
    large = expected.ravel() >= 5
    fold = lambda cells: np.append(cells.ravel()[large], cells.ravel()[~large].sum() + 1e-9)  # noqa: E731
    p = scipy.stats.chisquare(fold(observed), fold(expected), sum_check=False).pvalue
    assert p > 1e-3, (observed, expected)


def f(z):
    """A test function whose expectation every parameter moves."""
    return (z * torch.arange(1.0, z.shape[-1] + 1)).sum(-1).sin() + z.prod(-1)


def gradients_by_quadrature(prior, log_prob, d: int = D, step: float = 0.125):
    points, volume = grid(d, step)
    value = (log_prob(points).exp() * f(points)).sum() * volume
    return torch.autograd.grad(value, list(prior.parameters()), allow_unused=True)


def assert_pathwise_gradients(prior, draw, expected, batches: int = 20):
    """`assert_unbiased` of the mean of f over draws."""
    rng = torch.Generator().manual_seed(4)
    assert_unbiased(prior, lambda: f(draw(2000, rng)).mean(), expected, batches)


def assert_unbiased(prior, value, expected, batches: int):
    """The mean over batches of the gradients of `value()` is within 6 standard errors of `expected`."""
    parameters = list(prior.parameters())
    found = [torch.autograd.grad(value(), parameters, allow_unused=True) for _ in range(batches)]
    for samples, wanted in zip(zip(*found, strict=True), expected, strict=True):
        if wanted is None:
            assert all(s is None for s in samples)
            continue
        estimates = torch.stack(samples)
        error = estimates.std(0) / math.sqrt(batches)
        assert ((estimates.mean(0) - wanted).abs() <= 6 * error + 1e-3).all(), (estimates.mean(0), wanted, error)
        assert wanted.abs().max() > 1e-3
