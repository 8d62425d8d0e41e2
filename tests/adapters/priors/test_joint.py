"""JointTRIP: attributes, categorical and continuous, given codes and codes given attributes."""

import math

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import JointTRIP  # noqa: E402
from tests.adapters.priors.cases import RING, D, exact, grid, make, mixed, nan  # noqa: E402


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
