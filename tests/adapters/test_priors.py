"""Learnable priors: log_prob, sample, sample_given and rsample describe one distribution, shown by quadrature."""

import copy
import functools
import io
import math
import pickle

import numpy as np
import pytest
import scipy.stats

import ringdist as rd
from ringdist.queries import log_prob as likelihood
from ringdist.queries import top_down

torch = pytest.importorskip("torch")
zuko = pytest.importorskip("zuko")

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
    "vamp": lambda **o: VampPrior(encoder(), (3,), D, 4, bounds=(-2.0, 2.0), **o),
    "vamp trip": lambda **o: VampTRIP(encoder(), (3,), D, 4, 2, 0.3, bounds=(-2.0, 2.0), **o),
    "flow": lambda **o: FlowPrior(
        make("trip"), "maf", transforms=1, hidden_features=(8,), activation=torch.nn.Tanh, **o
    ),
}
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


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


def grid(d: int = D, step: float = 0.125, half: float = 8.0):
    """The points (n, d) of a grid, and the volume of a cell."""
    axis = torch.arange(-half, half + step / 2, step, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d), step**d


# --------------------------------------------------------------------------------------------- one distribution


def test_the_density_integrates_to_one(name):
    points, volume = grid()
    assert (exact(name).log_prob(points).exp() * volume).sum().item() == pytest.approx(1, abs=1e-6)


def test_neural_spline_flows():
    prior = FlowPrior(exact("trip"), passes=2, transforms=1, hidden_features=(8,))
    points, volume = grid()
    assert (prior.log_prob(points).exp() * volume).sum().item() == pytest.approx(1, abs=5e-3)  # splines have kinks


@pytest.mark.parametrize("name", MARGINALISING)
def test_nan_is_marginalised(name):
    prior, step = exact(name), 0.125
    points, _ = grid(step=step)
    side = math.isqrt(len(points))
    density = prior.log_prob(points).exp().reshape(side, side)
    axis = points[:side, 1]
    for k, marginal in enumerate((density.sum(1) * step, density.sum(0) * step)):
        z = torch.full((side, D), nan, dtype=torch.float64)
        z[:, k] = axis
        torch.testing.assert_close(prior.log_prob(z).exp(), marginal, rtol=1e-6, atol=1e-8)
    assert prior.log_prob(torch.full((1, D), nan, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("method", ["sample", "rsample", "sample_components"])
def test_samples_follow_the_density(name, method):
    prior = exact(name)
    drawn = getattr(prior, method)(8000, rng=2)
    assert_samples_follow(prior, drawn[0] if method == "sample_components" else drawn)


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


@pytest.mark.parametrize("name", ["gaussian", "mixture", "trip", "train", "joint", "joint-private", "flow"])
@pytest.mark.parametrize("temperature", [0.3, 1.6])
def test_temperature_multiplies_the_standard_deviations_of_components(name, temperature):
    prior, scaled = exact(name), exact(name)
    with torch.no_grad():
        for label, parameter in scaled.named_parameters():
            if label.split(".")[-1] in ("log_std", "log_stds"):
                parameter += math.log(temperature)
    assert_samples_follow(scaled, prior.sample(8000, temperature=temperature, rng=3))


@pytest.mark.parametrize("name", MARGINALISING)
def test_at_temperature_zero_samples_are_means_of_components(name):
    prior = exact(name)
    if name == "gaussian":
        means = prior.mean[None]
    elif name in ("mixture", "vamp"):
        means = prior.mixture().means
    elif name == "vamp trip":
        means = torch.cartesian_prod(*prior.mixture().means.T)
    else:
        means = torch.cartesian_prod(*prior.means)
    z = prior.sample(500, temperature=0, rng=4)
    found = torch.cdist(z, means).min(1)
    assert found.values.max() < 1e-7 and found.indices.unique().numel() == len(means)


@pytest.mark.parametrize("y", [[1.0, 0.4], [nan, -0.6]])
def test_temperature_leaves_components_and_attributes_as_they_are(y):
    prior, y = mixed(), torch.tensor(y, dtype=torch.float64)
    points, volume = grid()
    weight = prior.log_prob(points, y.expand(len(points), 2)).exp() * volume
    mean = (weight[:, None] * points).sum(0) / weight.sum()
    z = prior.sample(20_000, y, temperature=0.25, rng=0)
    assert ((z.mean(0) - mean).abs() < 4 * z.std(0) / math.sqrt(len(z))).all(), (z.mean(0), mean)
    wide = prior.sample(20_000, y, rng=0)
    assert (z.std(0) < 0.95 * wide.std(0)).all()
    assert torch.equal(wide, prior.sample(20_000, y, temperature=1.0, rng=0))


@pytest.mark.parametrize("temperature", [-0.5, nan, math.inf])
def test_temperatures_are_checked(name, temperature):
    with pytest.raises(ValueError, match=f"temperature must be finite and not negative, found {temperature}"):
        make(name).sample(2, temperature=temperature)


def test_priors_without_attributes_are_given_none(name):
    prior, y = make(name), torch.zeros(2)
    if name.startswith("joint"):
        assert prior.sample(3, y).shape == FlowPrior(prior, "maf", transforms=1).sample(3, y).shape == (3, D)
        return
    with pytest.raises(ValueError, match="has no attributes: y must be None, found a tensor of"):
        prior.sample(3, y)


@pytest.mark.parametrize("name", MARGINALISING)
def test_samples_given_some_entries_follow_the_conditional(name):
    prior = exact(name)
    given = torch.tensor([[nan, 0.7]], dtype=torch.float64).expand(3000, D)
    z = prior.sample_given(given, rng=3)
    assert (z[:, 1] == 0.7).all()
    step = 0.01
    axis = torch.arange(-9, 9, step, dtype=torch.float64)
    density = prior.log_prob(torch.stack([axis, torch.full_like(axis, 0.7)], 1)).exp().detach().numpy()
    cdf = np.cumsum(density) / density.sum()
    p = scipy.stats.kstest(z[:, 0].numpy(), lambda v: np.interp(v, axis.numpy() + step / 2, cdf)).pvalue
    assert p > 1e-3
    observed = torch.randn(4, D, dtype=torch.float64)
    assert torch.equal(prior.sample_given(observed), observed)


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


def test_rsample_has_unbiased_gradients(name):
    prior = exact(name, trainable=True)
    expected = gradients_by_quadrature(prior, prior.log_prob)
    assert_pathwise_gradients(prior, lambda n, rng: prior.rsample(n, rng=rng), expected)


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_pathwise_gradients_are_chained_through_all_columns_before(topology):
    prior = TRIP(3, **RING, topology=topology, seed=5).double()
    expected = gradients_by_quadrature(prior, prior.log_prob, d=3, step=0.4)
    assert_pathwise_gradients(prior, lambda n, rng: prior.rsample(n, rng=rng), expected)


def test_pathwise_gradients_given_attributes():
    prior = exact("joint")
    y = torch.tensor([1.0, nan], dtype=torch.float64)

    def conditional(z):
        rows = y.expand(len(z), 2)
        return prior.log_prob(z, rows) - prior.log_prob(torch.full((1, D), nan, dtype=torch.float64), y[None])

    expected = gradients_by_quadrature(prior, conditional)
    assert_pathwise_gradients(prior, lambda n, rng: prior.rsample(n, y, rng=rng), expected)


def test_rsample_has_the_values_of_sample(name):
    """The surrogate changes gradients, not values."""
    prior = make(name)
    z = prior.rsample(50, rng=6)
    assert torch.equal(z.detach(), prior.sample(50, rng=6))
    assert torch.isfinite(prior.log_prob(z.detach())).all()


# ------------------------------------------------------------------------------------------------- as a module


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_state_dict_round_trips_bit_for_bit(name, dtype, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    source, target = (make(name, seed=s) if "seed" in seeds(name) else make(name) for s in (3, 4))
    encode = copy.deepcopy(encoder()).to(device, getattr(torch, dtype))
    for prior in (source, target):
        prior.to(device, getattr(torch, dtype))
        if name.startswith("vamp"):
            prior._encoder = (encode,)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        next(target.parameters()).add_(1)
    target.load_state_dict(torch.load(file, weights_only=True))
    for (key, a), b in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    z = source.sample(20, rng=0)
    assert z.dtype == getattr(torch, dtype) and z.device.type == device
    assert torch.equal(source.log_prob(z), target.log_prob(z))
    assert torch.equal(target.sample(20, rng=0), z)


def seeds(name: str) -> list[str]:
    return [] if name in ("gaussian", "flow") else ["seed"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_autocast_leaves_the_prior_in_full_precision(name, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    prior = make(name).to(device)
    if name.startswith("vamp"):
        prior._encoder = (copy.deepcopy(encoder()).to(device),)
    z = prior.sample(16, rng=0)
    expected = prior.log_prob(z)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(prior.log_prob(z), expected)
        assert torch.equal(prior.sample(16, rng=0), z)
        assert prior.rsample(4).dtype == torch.float32
        low = prior.log_prob(z.bfloat16())
    assert low.dtype == torch.float32
    assert torch.equal(low, prior.log_prob(z.bfloat16().float()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["copy", "pickle"])
def test_priors_can_be_copied(name, copied):
    prior = make(name)
    z = prior.sample(5)
    other = copied(prior)
    assert torch.equal(other.log_prob(z), prior.log_prob(z))
    with torch.no_grad():
        list(other.parameters())[-1].view(-1)[0].add_(0.5)  # of one entry: a common factor would change nothing
    assert not torch.equal(other.log_prob(z), prior.log_prob(z))


@pytest.mark.parametrize("trainable", [True, False])
def test_fixed_or_learnable(name, trainable):
    prior = make(name, trainable=trainable)
    own = prior.transform if name == "flow" else prior
    assert {p.requires_grad for p in own.parameters()} == {trainable}
    value = prior.log_prob(prior.sample(4)).sum()
    if trainable:
        value.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in own.parameters())
    elif name not in ("vamp", "vamp trip", "flow"):
        assert not value.requires_grad


def test_shapes(name):
    prior = make(name)
    z = prior.sample(6).reshape(2, 3, D)
    assert prior.log_prob(z).shape == (2, 3)
    assert prior.log_prob(z[0, 0]).shape == ()
    assert prior.sample(0).shape == prior.rsample(0).shape == (0, D)
    if name != "flow":
        assert prior.log_prob(z[:, :0]).shape == (2, 0)
        assert prior.sample_given(z).shape == z.shape
        assert prior.sample_given(z[:0, 0]).shape == (0, D)
    assert prior.log_prob(z.double()).dtype == torch.float32


def test_the_callers_tensors_are_not_written(name):
    prior = make(name)
    z = prior.sample(5)
    if name != "flow":
        z[0, 0] = nan
    before = z.clone()
    prior.log_prob(z)
    if name != "flow":
        prior.sample_given(z)
        assert torch.isnan(z[0, 0])
    assert torch.equal(z.nan_to_num(99), before.nan_to_num(99))


def test_random_numbers_are_the_global_ones_or_the_given(name):
    prior = make(name)
    torch.manual_seed(7)
    z = prior.sample(4)
    assert not torch.equal(prior.sample(4), z)
    torch.manual_seed(7)
    assert torch.equal(prior.sample(4), z)
    state = torch.get_rng_state()
    assert torch.equal(prior.sample(4, rng=8), prior.sample(4, rng=torch.Generator().manual_seed(8)))
    assert torch.equal(torch.get_rng_state(), state)


def test_called_it_is_a_distribution(name):
    prior = make(name)
    distribution = prior()
    assert isinstance(distribution, torch.distributions.Distribution)
    assert distribution.event_shape == (D,) and distribution.batch_shape == ()
    assert distribution.sample((3, 2)).shape == (3, 2, D)
    assert distribution.rsample((3,)).requires_grad == any(p.requires_grad for p in prior.parameters())
    z = distribution.sample()
    assert z.shape == (D,)
    assert torch.equal(distribution.log_prob(z), prior.log_prob(z))
    with pytest.raises(NotImplementedError, match=r"has no mode of its own; .*prior"):
        distribution.mode  # noqa: B018
    for ask in (lambda: distribution.cdf(z), lambda: distribution.icdf(z)):
        with pytest.raises(NotImplementedError, match=r"of its own; .*prior"):
            ask()
    batch = distribution.expand((4,))
    assert batch.sample((2,)).shape == (2, 4, D)
    assert batch.log_prob(z).shape == (4,)
    assert distribution.entropy().shape == () and batch.entropy().shape == (4,)
    if name != "flow":
        assert batch.mean.shape == batch.variance.shape == batch.stddev.shape == (4, D)


def test_mean_variance_and_entropy(name):
    prior = exact(name)
    points, volume = grid(step=0.0625)
    log_prob = prior.log_prob(points)
    weight = log_prob.exp() * volume
    if name == "flow":
        with pytest.raises(NotImplementedError, match=r"moments of a FlowPrior .* estimate them from prior.sample"):
            prior().mean  # noqa: B018
    else:
        mean = weight @ points
        torch.testing.assert_close(prior().mean, mean, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(prior().variance, weight @ (points - mean) ** 2, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(prior().stddev, (weight @ (points - mean) ** 2).sqrt(), rtol=1e-5, atol=1e-6)
        assert prior().variance.requires_grad == prior.is_learned
    entropy = -(weight * log_prob).sum()
    if name == "gaussian":
        torch.testing.assert_close(prior().entropy(), entropy, rtol=1e-5, atol=1e-6)
    error = ((weight * log_prob**2).sum() - entropy**2).sqrt() / 20_000**0.5
    assert (prior.entropy(20_000, rng=0) - entropy).abs() < 4 * error + 1e-5
    assert prior.entropy(50, rng=1) == prior.entropy(50, rng=1)


def test_zuko_takes_a_prior_as_the_base_of_a_flow():
    prior = make("trip")
    transform = zuko.flows.MAF(D, context=1, transforms=1, hidden_features=(8,)).transform
    flow = zuko.lazy.Flow(transform, prior)
    context = torch.randn(5, 1)
    z = flow(context).rsample((3,))
    assert z.shape == (3, 5, D)
    flow(context).log_prob(z).sum().backward()
    assert prior.means.grad is not None


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of Inductor, about itself
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
# Dynamo looks at the ring's cores where it breaks the graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        *((name, "eager") for name in MAKERS if name not in ("train", "exp")),
        ("trip", "inductor"),
    ],
)
def test_log_prob_compiles(name, compiler):
    """Values and gradients, by tracing only and by torch's own compiler; graph breaks are allowed."""
    torch._dynamo.reset()
    prior = make(name, trainable=True)
    z = prior.sample(6, rng=0)
    results = []
    for log_prob in (prior.log_prob, torch.compile(prior.log_prob, backend=compiler)):
        prior.zero_grad()
        value = log_prob(z)
        value.sum().backward()
        results.append([value.detach(), *(p.grad.clone() for p in prior.parameters())])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ the KL


def test_kl_of_the_gaussian_prior():
    prior = exact("gaussian")
    mean, std = torch.randn(5, D, dtype=torch.float64), torch.rand(5, D, dtype=torch.float64) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(prior.mean, prior.log_std.exp())).sum(-1)
    torch.testing.assert_close(prior.kl(mean, std), expected)
    assert make("trip").kl(mean, std) is None


# -------------------------------------------------------------------------------------------------- rings in it


def test_the_ring_is_live():
    prior = make("trip")
    ring = prior.ring
    assert isinstance(ring, rd.TensorRing) and ring.order == tuple(prior.order.tolist())
    z = prior.sample(3)
    assert torch.equal(ring.log_prob(z), prior.log_prob(z))
    prior.ring.log_prob(z).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prior.parameters())
    with torch.no_grad():
        prior.means += 1
    assert torch.equal(prior.ring.variables[0].means(), ring.variables[0].means())


def counted(monkeypatch, module, name: str) -> list:
    """One entry for every call of the function."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda ring: calls.append(ring) or function(ring))
    return calls


@pytest.fixture
def normalisers(monkeypatch) -> list:
    """One entry for every time that log Z is computed."""
    return counted(monkeypatch, likelihood, "_computed_log_partition")


@pytest.fixture
def trees(monkeypatch) -> list:
    """One entry for every time that the tree of products is made to draw from it."""
    return counted(monkeypatch, top_down, "_computed_tree")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["trip", "private", "joint", "flow"])
def test_normaliser_and_tree_are_computed_once_per_update(name, context, normalisers, trees):
    prior, z = make(name), torch.zeros(5, D)
    drawn = []
    for update in range(3):
        with context():
            values = [prior.log_prob(z[:n]) for n in (5, 3, 1, 5)]
            drawn.append([prior.sample(50, rng=0) for _ in range(2)])
        assert len(normalisers) == len(trees) == update + 1 and torch.equal(values[0], values[3])
        assert torch.equal(*drawn[-1])
        with torch.no_grad():
            prior.get_parameter("base.cores.0" if name == "flow" else "cores.0").exp_()
    assert not torch.equal(drawn[0][0], drawn[1][0])


def test_fixed_priors_compute_their_normaliser_once(normalisers):
    """Also what was computed in inference mode is of use where codes have gradients, a few or too many to keep."""
    prior = make("trip", trainable=False)
    with torch.inference_mode():
        expected = prior.log_prob(torch.ones(3, D))
    z = torch.ones(3, D, requires_grad=True)
    torch.testing.assert_close(prior.log_prob(z).detach(), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringdist.engines.budget.STORED", 1)
        patch.setattr("ringdist.queries.log_prob.MANY", 0)
        value = prior.log_prob(z)
        value.sum().backward()
    torch.testing.assert_close(value.detach(), expected)
    assert z.grad.abs().sum() > 0 and len(normalisers) == 1


def step(optimizer, **options):
    def change(prior):
        for parameter in prior.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer(prior.parameters(), lr=0.1, **options).step()

    return change


def in_place(prior):
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.3)


def past_the_version_counters(prior):
    for parameter in prior.parameters():
        parameter.data.mul_(1.3)


def load(prior, **options):
    state = {name: v * 1.3 if v.is_floating_point() else v for name, v in prior.state_dict().items()}
    prior.load_state_dict(state, **options)


def from_a_vector(prior):
    for factor in (1.3, 0.7):  # the memory of the first vector is free for the second
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(prior.parameters()).detach() * factor, prior.parameters()
        )
        prior.sample(1)


def averaged(prior):
    average = torch.optim.swa_utils.AveragedModel(prior)
    average.module.sample(1)
    average.update_parameters(prior)
    in_place(prior)
    average.update_parameters(prior)
    return average.module


def changed_copy(copied):
    def change(prior):
        other = copied(prior)
        in_place(other)
        return other

    return change


def rearranged(prior):
    prior.order.copy_(prior.order.flip(0))


CHANGES = {
    "Adam": step(torch.optim.Adam),
    "fused Adam": step(torch.optim.Adam, fused=True),
    "SGD": step(torch.optim.SGD),
    "in place": in_place,
    "data": past_the_version_counters,
    "load": load,
    "assign": lambda prior: load(prior, assign=True),
    "vector": from_a_vector,
    "double": lambda prior: prior.double(),
    "there and back": lambda prior: [prior.double(), past_the_version_counters(prior), prior.float()][0],
    "average": averaged,
    "deepcopy": changed_copy(copy.deepcopy),
    "pickle": changed_copy(lambda prior: pickle.loads(pickle.dumps(prior))),
    "reinitialize": lambda prior: prior.reinitialize(bananas(), method="em", order="mutual_information"),
    "order": rearranged,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_what_queries_keep_is_never_stale(change, context):
    def queries(prior):
        with context():
            z = torch.full((3, 4), 0.3, dtype=prior.dtype)
            return [prior.log_prob(z), prior.sample(3, rng=0), prior.sample_given(z.log(), rng=0)]

    prior = JointTRIP(4, [2, 3], **RING, order="given")
    before, state = queries(prior), list(prior.state_dict())
    result = change(prior)
    prior = result if isinstance(result, Prior) else prior
    assert list(prior.state_dict()) == state
    fresh = JointTRIP(4, [2, 3], **RING).to(prior.dtype)
    fresh.load_state_dict(prior.state_dict())
    found = queries(prior)
    assert all(map(torch.equal, found, queries(fresh)))
    assert found[0].dtype != before[0].dtype or not torch.equal(found[0], before[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, of dual numbers
def test_queries_keep_nothing_of_what_is_traced():
    prior = make("trip").double()
    z = prior.sample(3)
    means, direction = prior.means.detach(), torch.ones_like(prior.means)
    functional = functools.partial(torch.func.functional_call, Called(prior))
    expected = torch.autograd.functional.jvp(lambda m: functional({"prior.means": m}, (z,)), means, direction)[1]
    with torch.no_grad():
        value = prior.log_prob(z)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(means, direction)
            out = torch.autograd.forward_ad.unpack_dual(functional({"prior.means": dual}, (z,)))
        torch.testing.assert_close(out.tangent, expected)
    assert not value.requires_grad and prior.log_prob(z).requires_grad
    tangent = torch.func.jvp(lambda m: functional({"prior.means": m}, (z,)), (means,), (direction,))[1]
    torch.testing.assert_close(tangent.detach(), expected)
    many = torch.func.vmap(lambda m: functional({"prior.means": m}, (z,)))(torch.stack([means, means + 1]))
    torch.testing.assert_close(many[0].detach(), value)
    with torch.no_grad():
        assert torch.equal(prior.log_prob(z), value)


class Called(torch.nn.Module):
    """A prior's log_prob as a module's forward, for `torch.func.functional_call`."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, z):
        return self.prior.log_prob(z)


def test_the_ring_is_the_user_s():
    """Writes into a ring that was handed out do not reach the queries."""
    prior, z = make("trip"), torch.zeros(2, D)
    with torch.no_grad():
        before = prior.log_prob(z)
        prior.ring.cores[0].zero_()
        assert torch.equal(prior.log_prob(z), before)


def test_orders():
    assert TRIP(4, 2, 2, order="given").order.tolist() == [0, 1, 2, 3]
    assert TRIP(4, 2, 2, order=[2, 0, 3, 1]).ring.order == (2, 0, 3, 1)
    assert TRIP(9, 2, 2, seed=1).order.tolist() == TRIP(9, 2, 2, seed=1).order.tolist()
    assert TRIP(9, 2, 2, seed=1).order.tolist() != TRIP(9, 2, 2, seed=2).order.tolist()
    assert TRIP(4, 2, 3, topology="train").ring.ranks == (1, 3, 3, 3)
    assert TRIP(3, 2, [2, 1, 4]).ring.ranks == (2, 1, 4)


@pytest.mark.parametrize("nonnegative", ["abs", "softplus", "exp"])
@pytest.mark.parametrize(("d", "n", "rank"), [(100, 10, 1), (100, 10, 20), (20, 10, 100)])
def test_the_initial_normaliser_is_near_one(d, n, rank, nonnegative):
    prior = TRIP(d, n, rank, nonnegative=nonnegative)
    with torch.no_grad():
        log_z = prior.ring.log_normalizer().item()
    assert abs(log_z) < d, log_z
    assert torch.isfinite(prior.log_prob(prior.sample(3))).all()


def test_ten_thousand_latents():
    prior = TRIP(10_000, 2, 2)
    with torch.no_grad():
        ring = prior.ring
        assert abs(ring.log_normalizer().item()) < 1000
        assert torch.isfinite(ring.log_prob(torch.zeros(1, 10_000))).all()


def test_initial_components():
    prior = TRIP(3, 5, 2, mean_range=(-1, 1))
    torch.testing.assert_close(prior.means[1].detach(), torch.tensor([-1, -0.5, 0, 0.5, 1]))
    assert prior.log_stds.exp().detach().numpy() == pytest.approx(0.4)
    assert TRIP(3, 1, 2).means.tolist() == [[0.0]] * 3


# ---------------------------------------------------------------------------------------------- reinitialisation


def bananas(n: int = 400, seed: int = 0):
    """Codes in four dimensions, two and two of which depend on each other; columns 0 and 2, 1 and 3."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n)) + 3 * rng.integers(-1, 2, (2, n))
    noise = 0.3 * rng.normal(size=(2, n))
    return torch.tensor(np.stack([a, b, a + noise[0], -b + noise[1]], 1), dtype=torch.float32)


@pytest.mark.parametrize("options", [{}, {"topology": "train"}, {"nonnegative": "softplus"}, {"nonnegative": "exp"}])
def test_reinitialize_trip(options):
    torch.manual_seed(0)
    z, held_out = bananas(), bananas(seed=1)
    prior = TRIP(4, 6, 5, order="given", **options)
    scores, parameters = [prior.log_prob(held_out).mean().item()], list(prior.parameters())
    places = [p.data_ptr() for p in parameters]
    for method, order in (("gmm", None), ("em", None), ("em", "mutual_information")):
        prior.reinitialize(z, method=method, order=order)
        scores.append(prior.log_prob(held_out).mean().item())
        assert [p.data_ptr() for p in prior.parameters()] == places
        assert all(a is b for a, b in zip(prior.parameters(), parameters, strict=True))
        assert all(torch.isfinite(p).all() for p in parameters)
    assert scores[1] > scores[0] and scores[2] > scores[1] + 0.3 and scores[3] > scores[2] - 0.2, scores
    order = prior.order.tolist()
    assert abs(order.index(0) - order.index(2)) in (1, 3), order
    assert prior.ring.order == tuple(order) == tuple(prior.state_dict()["order"].tolist())
    assert prior.ring.log_normalizer().item() == pytest.approx(0, abs=1e-3)
    prior.log_prob(z).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in parameters)


def test_the_paper_s_reinitialisation_fits_every_dimension():
    torch.manual_seed(0)
    z = torch.cat([torch.randn(300, 2) * 0.1 - 2, torch.randn(300, 2) * 0.1 + 3])
    prior = TRIP(2, 2, 3)
    prior.reinitialize(z)
    assert prior.means.detach().sort(-1).values.numpy() == pytest.approx(np.array([[-2, 3]] * 2), abs=0.05)
    assert prior.log_stds.exp().detach().numpy() == pytest.approx(0.1, abs=0.02)


def test_reinitialize_the_others():
    torch.manual_seed(0)
    z = bananas()
    for prior in (GaussianPrior(4), GaussianMixturePrior(4, 9), FlowPrior(TRIP(4, 3, 2), "maf", transforms=1)):
        before = prior.log_prob(z).mean().item()
        prior.reinitialize(z)
        assert prior.log_prob(z).mean().item() > before, prior
    with pytest.raises(NotImplementedError, match="VampPrior cannot be re-initialised"):
        make("vamp").reinitialize(z)


def test_reinitialize_with_attributes():
    torch.manual_seed(0)
    z = bananas()
    y = torch.stack([(z[:, 0] > 0).float(), torch.full((400,), nan)], 1)
    y[::3, 0] = nan
    prior = JointTRIP(4, [2, 3], 6, 5)
    prior.reinitialize(z, y, method="em", order="mutual_information")
    predicted = prior.log_prob_attributes(torch.tensor([[1.0, nan]]).expand(400, 2), z) > math.log(0.5)
    assert (predicted == (z[:, 0] > 0)).float().mean() > 0.95
    train = JointTRIP(4, [2, 3], 6, 5, topology="train", order=[4, 0, 1, 2, 3, 5])
    before = {k: v.clone() for k, v in train.state_dict().items()}
    with pytest.raises(ValueError, match="a train with attributes keeps its order"):
        train.reinitialize(z, y, order="mutual_information")
    assert all(torch.equal(v, before[k]) for k, v in train.state_dict().items())
    train.reinitialize(z, y)


CODES = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (torch.where(CODES == CODES[7, 1], nan, CODES), {}, "codes must be finite, found nan in row 7, column 1"),
        (CODES[:, :1], {}, r"z must have shape \(..., 2\), found \(50, 1\)"),
        (CODES[None], {}, r"z must have shape \(n, 2\), found \(1, 50, 2\)"),
        (CODES[:2], {}, "at least 3 rows of codes, found 2"),
        (CODES, {"method": "svd"}, "method must be one of gmm, em, mixture, found 'svd'"),
        (CODES, {"order": "random"}, "order must be one of mutual_information, found 'random'"),
        (CODES, {"method": "em", "max_epochs": 0}, "max_epochs must be at least 1, found 0"),
        (CODES.round().clamp(0, 1), {"method": "em"}, "column 0: 3 components need as many different codes, found 2"),
    ],
)
def test_codes_that_do_not_fit_leave_the_prior_as_it_was(z, options, message):
    prior = make("trip")
    before = copy.deepcopy(prior.state_dict())
    with pytest.raises(ValueError, match=message):
        prior.reinitialize(z, **options)
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())


# ------------------------------------------------------------------------------------------------------- JointTRIP


def test_attributes_sum_to_the_marginal():
    prior = exact("joint")
    z = prior.sample(5, rng=0)
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    joint = torch.stack([prior.log_prob(z, y.expand(5, 2)) for y in pairs], -1)
    torch.testing.assert_close(joint.logsumexp(-1), prior.log_prob(z))
    given = torch.stack([prior.log_prob_attributes(y.expand(5, 2), z) for y in pairs], -1)
    torch.testing.assert_close(given.logsumexp(-1), torch.zeros(5, dtype=torch.float64))
    some = torch.tensor([[1.0, nan]]).expand(5, 2)
    torch.testing.assert_close(prior.log_prob(z, some), joint[:, 3:].logsumexp(-1))


def test_attributes_given_a_code_without_density():
    prior = make("joint")
    y, z = torch.tensor([[1.0, nan]]).expand(4, 2), torch.zeros(4, D)
    for value in (math.inf, -math.inf, 1e30):
        z[2, 1] = value
        assert prior.log_prob(z, y)[2] == prior.log_prob(z)[2] == -math.inf
        with pytest.raises(ValueError, match="z must have a positive density, found 0 in row 2"):
            prior.log_prob_attributes(y, z)
    z[2, 1] = nan
    assert prior.log_prob_attributes(y.reshape(2, 2, 2), z.reshape(2, 2, D)).isfinite().all()


def test_samples_given_attributes():
    prior = exact("joint")
    y = torch.tensor([[0.0, 2.0], [1.0, nan]]).repeat_interleave(3000, 0)
    z = prior.sample(6000, y, rng=0)
    points, volume = grid()
    for rows, attributes in ((z[:3000], y[0]), (z[3000:], y[-1])):
        weight = prior.log_prob(points, attributes.expand(len(points), 2)).exp() * volume
        mean = (weight[:, None] * points).sum(0) / weight.sum()
        error = rows.std(0) / math.sqrt(3000)
        assert ((rows.mean(0) - mean).abs() < 4 * error).all(), (rows.mean(0), mean)
    assert torch.equal(prior.sample(9, y[0], rng=1), prior.sample(9, y[:9], rng=1))
    given = prior.sample_given(torch.tensor([[0.3, nan]] * 4, dtype=torch.float64), y[:4])
    assert (given[:, 0] == 0.3).all() and not given.isnan().any()


def mixed(**options) -> JointTRIP:
    """A categorical and a continuous attribute, parameters that are nobody's default."""
    prior = JointTRIP(D, [2, "continuous"], **RING | options).double()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return prior


def test_continuous_attributes_integrate_to_the_marginal():
    prior, (axis, step) = mixed(), grid(1)
    z = prior.sample(3, rng=0)
    for value in (0.0, 1.0, nan):
        rows = torch.cartesian_prod(torch.arange(3), torch.arange(len(axis)))
        y = torch.stack([torch.full((len(rows),), value, dtype=torch.float64), axis[rows[:, 1], 0]], 1)
        integral = prior.log_prob(z[rows[:, 0]], y).exp().reshape(3, -1).sum(1) * step
        torch.testing.assert_close(integral.log(), prior.log_prob(z, torch.tensor([[value, nan]]).expand(3, 2)))
    prior.log_prob(z, torch.tensor([[1.0, 0.3]]).expand(3, 2)).sum().backward()
    assert prior.means.shape == (D + 1, RING["num_components"]) and (prior.means.grad.abs().sum(1) > 0).all()
    assert list(prior.state_dict()) == list(make("joint").state_dict())


def test_the_posterior_of_attributes():
    prior = mixed()
    z = prior.sample(6, rng=0).reshape(2, 3, D)
    z[0, 0, 1] = nan
    categories, components = prior.attribute_posterior(z)
    y = torch.tensor([[0.0, nan], [1.0, nan]]).expand(2, 3, 2, 2)
    expected = torch.stack([prior.log_prob_attributes(y[..., i, :], z).exp() for i in range(2)], -1)
    torch.testing.assert_close(categories, expected)
    at = torch.tensor(0.4, dtype=torch.float64)
    density = components @ torch.distributions.Normal(prior.means[D], prior.log_stds[D].exp()).log_prob(at).exp()
    torch.testing.assert_close(density, prior.log_prob_attributes(torch.tensor([nan, 0.4]).expand(2, 3, 2), z).exp())


def test_attributes_are_drawn_given_codes_and_each_other():
    prior = mixed()
    z = torch.tensor([[0.5, nan]], dtype=torch.float64).expand(4000, D)
    free = prior.sample_attributes(z, rng=0)
    chance = prior.attribute_posterior(z[0])[0][1].item()
    assert free[:, 0].mean().item() == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / 4000))
    given = prior.sample_attributes(z, torch.tensor([[1.0, nan]]).expand(4000, 2), rng=0)
    assert (given[:, 0] == 1).all()
    axis, step = grid(1)
    y = torch.stack([torch.ones(len(axis)).double(), axis[:, 0]], 1)
    density = prior.log_prob(z[:1].expand(len(axis), D), y).exp().detach().numpy()
    cdf = np.cumsum(density) / density.sum()
    points = axis[:, 0].numpy() + step / 2
    assert scipy.stats.kstest(given[:, 1].numpy(), lambda v: np.interp(v, points, cdf)).pvalue > 1e-3


@pytest.mark.parametrize(("method", "order"), [("gmm", None), ("em", "mutual_information")])
def test_reinitialize_with_continuous_attributes(method, order):
    torch.manual_seed(0)
    z = bananas()
    y = torch.stack([(z[:, 0] > 0).float(), 0.1 * z[:, 1] + 5], 1)
    y[::3, 1] = nan
    prior = JointTRIP(4, [2, "continuous"], 6, 5)
    prior.reinitialize(z, y, method=method, order=order)
    assert (prior.means[4] > 4).all() and (prior.means[4] < 6).all()
    kept = prior.means[4].clone(), prior.log_stds[4].clone()
    y[:, 1] = nan  # never known: its components stay, the rest is fitted
    prior.reinitialize(z + 1, y, method=method, order=order)
    assert torch.equal(prior.means[4], kept[0]) and torch.equal(prior.log_stds[4], kept[1])
    assert prior.log_prob(z + 1, y).mean() > prior.log_prob(z - 3, y).mean()
    assert all(value.isfinite().all() for value in prior.state_dict().values())
    few = torch.tensor([4.6, 5.0, 5.4])  # values for six components: they are not placed anew
    y[: len(few) * 20, 1] = few.repeat(20)
    prior.reinitialize(z, y, method=method, order=order)
    assert torch.equal(prior.means[4], kept[0]) == (method == "gmm")
    assert all(value.isfinite().all() for value in prior.state_dict().values())
    if method == "em":  # but learned from there
        told = torch.stack([torch.full((3,), nan), few], 1)
        rows = torch.full((3, 4), nan)
        between = torch.stack([torch.full((3,), nan), few + 0.2], 1)
        assert (prior.log_prob(rows, told) > prior.log_prob(rows, between)).all()


def test_attribute_posteriors_in_logarithms():
    """Forty codes that each make one value 99 times less likely: float32 does not hold its probability."""
    d = 40
    prior = JointTRIP(d, [2], num_components=2, rank=2, order="given", nonnegative="abs")
    cores = torch.zeros(d + 1, 2, 2, 2)  # (column, value, left bond, right bond)
    for a in range(2):
        cores[:d, a, a, a], cores[:d, 1 - a, a, a], cores[d, a, a, a] = 0.99, 0.01, 1.0
    with torch.no_grad():
        prior.cores[0].copy_(cores)
        prior.means.copy_(torch.tensor([-50.0, 50.0]).expand(d, 2))
        prior.log_stds.zero_()
    z = torch.full((3, d), 50.0)
    z[1] = nan
    (table,), (logs,) = prior.attribute_posterior(z), prior.attribute_posterior(z, log=True)
    far = -d * math.log(99)
    torch.testing.assert_close(logs, torch.tensor([[far, 0.0], [math.log(0.5)] * 2, [far, 0.0]]))
    torch.testing.assert_close(table, logs.exp())
    assert [part.shape for part in prior.attribute_posterior(z[:0])] == [(0, 2)]


# ------------------------------------------------------------------------------------------------------ VampPrior


def test_the_vamp_prior_uses_the_encoder_without_owning_it():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()
            self.prior = VampPrior(self.encoder, (3,), D, 4)

    model = Model()
    assert list(model.prior.state_dict()) == ["raw_inputs"]
    assert len(list(model.parameters())) == 3 and len(list(model.modules())) == 4
    assert ((model.prior.pseudo_inputs > 0) & (model.prior.pseudo_inputs < 1)).all()
    model.prior.log_prob(torch.zeros(1, D)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    other = copy.deepcopy(model)
    assert other.prior.encoder is other.encoder


# ---------------------------------------------------------------------------------------------------------- errors


def gaussian_encoder(x):
    return torch.distributions.Normal(torch.zeros(len(x), D), 1.0)


def test_there_is_no_density_at_infinity_and_no_gradient(name):
    prior = make(name)
    z = torch.zeros(4, D)
    z[0], z[1, 1] = math.inf, -math.inf
    z[2, 0] = nan if name in MARGINALISING else 0
    log_prob = prior.log_prob(z)
    assert log_prob[:2].tolist() == [-math.inf, -math.inf] and log_prob[2:].isfinite().all()
    if log_prob.requires_grad:
        log_prob[2:].sum().backward()
        assert all(p.grad.isfinite().all() for p in prior.parameters() if p.grad is not None)


def test_mixtures_far_from_the_origin_keep_their_digits():
    prior = GaussianMixturePrior(1, 2)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[1e5], [1e5 + 1]]))
        prior.log_stds.fill_(math.log(1e-3))
    expected = scipy.stats.norm(0, 1e-3).logpdf(0) - math.log(2)
    assert prior.log_prob(torch.tensor([[1e5], [1e5 + 1]])).tolist() == pytest.approx([expected] * 2, abs=1e-3)


def test_an_order_that_is_copied_into_place_is_followed():
    torch.manual_seed(0)
    prior = TRIP(4, 3, 2, order="given")
    averaged = torch.optim.swa_utils.AveragedModel(prior, use_buffers=True)
    prior.reinitialize(bananas(), method="em", order="mutual_information")
    assert prior.order.tolist() != [0, 1, 2, 3]
    averaged.update_parameters(prior)
    assert averaged.module.ring.order == tuple(prior.order.tolist())
    assert torch.equal(averaged.module.log_prob(bananas()), prior.log_prob(bananas()))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: JointTRIP(3, []), ValueError, "there must be at least one attribute"),
        (lambda: JointTRIP(3, "continuous"), TypeError, "attributes must be a list .*, found 'continuous'"),
        (lambda: make("trip").half().log_prob(torch.zeros(1, D)), TypeError, "found parameters of torch.float16: keep"),
        (lambda: TRIP(0), ValueError, "num_latents must be at least 1, found 0"),
        (lambda: TRIP(2.5), TypeError, "num_latents must be an integer, found 2.5"),
        (lambda: TRIP(3, 0), ValueError, "num_components must be at least 1, found 0"),
        (lambda: TRIP(3, 2, 0), ValueError, "ranks must be at least 1"),
        (lambda: TRIP(3, 2, [2, 2]), ValueError, "one rank per bond"),
        (lambda: TRIP(3, 2, 2, order="best"), ValueError, "order must be one of random, given, found 'best'"),
        (lambda: TRIP(3, 2, 2, order=[0, 1, 1]), ValueError, "a permutation of the 3 columns"),
        (lambda: TRIP(3, 2, 2, topology="tree"), ValueError, "topology must be one of ring, train, found 'tree'"),
        (lambda: TRIP(3, 2, 2, nonnegative="relu"), ValueError, "nonnegative must be one of abs, softplus, exp"),
        (lambda: TRIP(3, 2, 2, mean_range=(1, 1)), ValueError, "mean_range must be two finite numbers"),
        (lambda: TRIP(3, 2, 2, std=0), ValueError, "std must be positive and finite, found 0"),
        (lambda: JointTRIP(3, [2, 0]), ValueError, "the size of an attribute must be at least 1, found 0"),
        (lambda: JointTRIP(3, ["real"]), ValueError, "must be one of continuous, found 'real'"),
        (lambda: JointTRIP(3, [2.5]), TypeError, "the size of an attribute must be an integer, found 2.5"),
        (
            lambda: mixed().log_prob(torch.zeros(2, D), torch.tensor([[0, 0.5], [0, math.inf]])),
            ValueError,
            "attribute 1 is a finite number, found inf in row 1",
        ),
        (lambda: GaussianMixturePrior(3, 0), ValueError, "num_components must be at least 1"),
        (lambda: VampPrior(3, (3,), 2), TypeError, "encoder must be callable, found int"),
        (lambda: VampPrior(encoder(), (3,), 2, bounds=(1, 0)), ValueError, "bounds must be two finite numbers"),
        (lambda: VampPrior(gaussian_encoder, (3,), 2).sample(1), TypeError, r"Independent\(Normal\), found Normal"),
        (lambda: VampPrior(encoder(), (3,), 3).sample(1), ValueError, r"event shape \(3,\), found \(2,\)"),
        (lambda: FlowPrior(3), TypeError, "base must be a Prior, found int"),
        (lambda: FlowPrior(make("trip"), "glow"), ValueError, "flow must be one of coupling, nsf, maf, found 'glow'"),
        (lambda: FlowPrior(make("trip"), 3), TypeError, "flow must be a name or a module, found int"),
        (
            lambda: FlowPrior(make("trip"), Encoder(), transforms=2),
            ValueError,
            "options belong to a flow given by name",
        ),
        (lambda: make("flow").log_prob(torch.tensor([[0.0, nan]])), ValueError, "cannot marginalise"),
        (lambda: make("flow").sample_given(torch.zeros(1, D)), NotImplementedError, "cannot sample given"),
        (
            lambda: make("trip").log_prob(np.zeros((1, D))),
            TypeError,
            "z must be a floating point tensor, found ndarray",
        ),
        (lambda: make("trip").log_prob(torch.zeros(1, D, dtype=int)), TypeError, "a tensor of torch.int64"),
        (lambda: make("trip").log_prob(torch.zeros(1, 3)), ValueError, r"z must have shape \(..., 2\), found \(1, 3\)"),
        (lambda: make("trip").sample(-1), ValueError, "n must be at least 0, found -1"),
        (lambda: make("trip").sample(2.0), TypeError, "n must be an integer, found 2.0"),
        (lambda: make("trip").sample(1, rng="x"), TypeError, "rng must be an integer, found 'x'"),
        (lambda: make("gaussian").kl(torch.zeros(1, 3), torch.ones(1, 3)), ValueError, "mean must have shape"),
        (
            lambda: make("joint").log_prob(torch.zeros(2, D), torch.tensor([[0, 1], [0, 3]])),
            ValueError,
            "attribute 1 takes integers 0..2, found 3 in row 1",
        ),
        (
            lambda: make("joint").log_prob(torch.zeros(2, D), torch.zeros(3, 2)),
            ValueError,
            r"as many rows as z, \(2,\), found \(3,\)",
        ),
        (lambda: make("joint").sample(2, torch.zeros(3)), ValueError, r"y must have shape \(..., 2\), found"),
    ],
)
def test_errors_name_rule_and_finding(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_state_dict_with_an_order_that_is_none():
    prior = TRIP(3, 2, 2)
    state = prior.state_dict()
    for order, message in (
        (torch.tensor([0, 0, 1]), "order must be random, given or a permutation of the 3 columns"),
        (torch.tensor([0.5, 0, 1]), "an entry of order must be an integer, found 0.5"),
    ):
        state["order"] = order
        with pytest.raises(RuntimeError, match=message):
            prior.load_state_dict(state)
