"""VampTRIP against the sum over all paths of components, against its ring, and against the VampPrior it contains."""

import itertools
import math

import pytest

torch = pytest.importorskip("torch")

from adapters import VampPrior, VampTRIP  # noqa: E402

nan = math.nan


class Encoder(torch.nn.Module):
    """From (n, 3) inputs to a Gaussian over latents."""

    def __init__(self, num_latents: int, scale: float = 1.0):
        super().__init__()
        self.linear, self.scale = torch.nn.Linear(3, 2 * num_latents), scale

    def forward(self, x):
        mean, log_std = (2 * self.linear(x)).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, self.scale * (0.2 * log_std).exp(), validate_args=False)
        return torch.distributions.Independent(normal, 1)


def make(d: int, k: int = 3, rank: int = 2, switching: float = 0.3, scale: float = 1.0, **options) -> VampTRIP:
    """In double precision, with parameters that are nobody's default."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(d)
        encoder = Encoder(d, scale).double()
        prior = VampTRIP(encoder, (3,), d, k, rank, switching, bounds=(-2.0, 2.0), **options).double()
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
    return prior


def codes(d: int, n: int = 8, missing: float = 0.3):
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z.masked_fill(torch.rand(n, d, generator=generator) < missing, nan)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("order", ["given", "random"])
def test_the_density_is_the_sum_over_all_paths(d, order):
    prior = make(d, order=order)
    z, transitions, (means, stds) = codes(d), prior.transitions(), prior.posteriors()
    weights, columns = prior.weight_logits.softmax(0), prior.order.tolist()
    total = torch.zeros(len(z), dtype=torch.float64)
    for path in itertools.product(range(3), repeat=d):
        term = weights[path[0]] * torch.ones_like(total)
        for j, k in enumerate(columns):
            density = torch.distributions.Normal(means[path[j], k], stds[path[j], k]).log_prob(z[:, k].nan_to_num())
            term = term * torch.where(z[:, k].isnan(), 1.0, density.exp())
            term = term * transitions[j, path[j], path[j + 1]] if j + 1 < d else term
        total = total + term
    torch.testing.assert_close(prior.log_prob(z), total.log())
    torch.testing.assert_close(prior.ring.log_prob(z), total.log())
    ring = prior.ring
    assert ring.order == tuple(columns) and ring.is_train and ring.shape == (3,) * d
    torch.testing.assert_close(ring.log_normalizer(), torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("rank", [1, 3])
def test_transitions_are_distributions(rank):
    transitions = make(4, k=6, rank=rank).transitions()
    assert transitions.shape == (3, 6, 6) and (transitions > 0).all()
    torch.testing.assert_close(transitions.sum(-1), torch.ones(3, 6, dtype=torch.float64))
    fresh = VampTRIP(Encoder(4), (3,), 4, 6).transitions()
    assert (fresh - torch.eye(6)).abs().max() < 0.011 and (fresh != torch.eye(6)).all()


@pytest.mark.parametrize("switching", [0.3, 1e-12, 1e-200, 1e-250])
def test_rare_switches_are_not_lost(switching):
    """Codes far from components of tiny deviations: entries of a state differ by thousands of nats."""
    prior = make(12, k=20, switching=switching, scale=0.02)
    z = codes(12).requires_grad_()
    found, expected = prior.log_prob(z), prior.ring.log_prob(z)
    assert found.max() < -1000
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-9)
    gradients = [torch.autograd.grad(value.sum(), z)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def pair(d: int, k: int, **options) -> tuple[VampPrior, VampTRIP]:
    """A VampPrior, and a VampTRIP of the same pseudo-inputs without switching."""
    torch.manual_seed(1)
    encoder = Encoder(d, **options)
    vamp = VampPrior(encoder, (3,), d, k, bounds=None, seed=2)
    return vamp, VampTRIP(encoder, (3,), d, k, switching=0.0, bounds=None, seed=2)


@pytest.mark.parametrize(("d", "k", "scale"), [(1, 5, 1.0), (3, 7, 1.0), (16, 100, 0.1), (40, 50, 0.05)])
def test_without_switching_it_is_the_vamp_prior(d, k, scale):
    """Also in single precision, and of codes that are far from all components."""
    vamp, trip = pair(d, k, scale=scale)
    near, far = vamp.sample(20, rng=0), 3 * torch.randn(20, d, generator=torch.Generator().manual_seed(0))
    z = torch.cat([near, far, codes(d).float()])
    torch.testing.assert_close(trip.log_prob(z), vamp.log_prob(z), rtol=1e-5, atol=1e-4)
    gradients = [torch.autograd.grad(prior.log_prob(z).sum(), prior.raw_inputs)[0] for prior in (vamp, trip)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3 * gradients[0].abs().max().item())
    torch.testing.assert_close(trip.moments(), vamp.moments())
    trip.log_prob(z).sum().backward()
    assert all(p.grad.isfinite().all() for p in trip.parameters() if p.numel())


def test_no_switch_means_one_pseudo_input_for_all_latents():
    _, trip = pair(5, 6, scale=1e-3)
    means, _ = trip.posteriors()
    given = trip.sample(50, rng=1).index_fill(1, torch.arange(3), nan)
    for z in (trip.sample(50, rng=0), trip.sample_given(given)):
        gap = (z[:, None] - means).abs().amax(-1)
        assert (gap.min(1).values < 0.02).all()


def test_samples_have_the_moments_of_the_ring():
    prior = make(3, k=4, scale=0.5)
    ring = prior.ring
    mean, variance = prior.moments()
    torch.testing.assert_close(mean, ring.mean())
    torch.testing.assert_close(variance, ring.covariance().diagonal())
    z = prior.sample(20000, rng=0)
    error = (variance / 20000).sqrt()
    assert ((z.mean(0) - mean).abs() < 4 * error).all()
    assert (z.T.cov() - ring.covariance()).abs().max() < 0.05 * variance.max()
    cold = prior.sample(200, temperature=0.0, rng=0)
    assert (cold[:, None] == prior.posteriors()[0]).any(1).all()


def test_samples_given_some_entries_have_the_moments_of_the_conditional():
    prior = make(4, k=4, scale=0.5, order=[2, 0, 3, 1])
    for known in ([0], [1, 2], [3]):
        row = torch.full((1, 4), nan, dtype=torch.float64)
        row[:, known] = prior.sample(1, rng=3)[:, known]
        z = prior.sample_given(row.expand(8000, 4), rng=0)
        assert (z[:, known] == row[:, known]).all()
        assert ((z.mean(0) - prior.ring.mean(row)[0]).abs() <= 4 * z.std(0) / math.sqrt(8000) + 1e-9).all()


def test_gradients_reach_pseudo_inputs_weights_transitions_and_the_encoder():
    prior = make(3)
    for value in (prior.log_prob(codes(3)).sum(), prior.rsample(100, rng=0).square().sum()):
        prior.zero_grad(), prior.encoder.zero_grad()
        value.backward()
        parameters = [*prior.parameters(), *prior.encoder.parameters()]
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in parameters)
    assert not any(name.startswith("encoder") for name in prior.state_dict())


def test_learning_finds_what_a_vamp_prior_cannot_say():
    """Two halves of a code that are bimodal on their own: four clusters, and two pseudo-inputs."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (500, 2)).float() * 4 - 2
    z = torch.stack([signs[:, 0], signs[:, 0], signs[:, 1], signs[:, 1]], 1) + 0.3 * torch.randn(500, 4)
    scores = []
    for switching in (0.0, 0.05):
        torch.manual_seed(0)
        prior = VampTRIP(Encoder(4, 0.5), (3,), 4, 2, 1, switching, bounds=None)
        optimizer = torch.optim.Adam([*prior.parameters(), *prior.encoder.parameters()], lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            loss = -prior.log_prob(z).mean()
            loss.backward()
            optimizer.step()
        scores.append(-loss.item())
    assert scores[1] > scores[0] + 1, scores


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: VampTRIP(3, (3,), 2), TypeError, "encoder must be callable, found int"),
        (lambda: VampTRIP(Encoder(2), (3,), 2, rank=0), ValueError, "rank must be at least 1, found 0"),
        (lambda: VampTRIP(Encoder(2), (3,), 2, switching=1.0), ValueError, r"switching must be in \[0, 1\), found 1.0"),
        (lambda: VampTRIP(Encoder(2), (3,), 2, order=[0, 0]), ValueError, "permutation of the 2 latents"),
        (lambda: VampTRIP(Encoder(2), (3,), 3).sample(1), ValueError, r"event shape \(3,\), found \(2,\)"),
        (lambda: make(2).reinitialize(codes(2)), NotImplementedError, "VampTRIP cannot be re-initialised"),
    ],
)
def test_errors_name_rule_and_finding(call, error, message):
    with pytest.raises(error, match=message):
        call()
