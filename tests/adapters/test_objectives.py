"""Expected rewards: three estimators of the prior's gradient, against quadrature."""

import pytest

pytest.importorskip("lightning")

import torch
from torch.distributions import Independent, Normal

from adapters import TRIP, GaussianPrior, VampPrior, expected_reward
from adapters.hopping import mode_hopping
from adapters.priors import FlowPrior
from tests.adapters.priors.cases import MAKERS, assert_unbiased, exact, f, gradients_by_quadrature

ESTIMATORS = ["reinforce", "hybrid", "pathwise"]


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_unbiased(name, estimator):
    prior = exact(name, trainable=True)
    rng = torch.Generator().manual_seed(4)
    expected = gradients_by_quadrature(prior, prior.log_prob)
    assert_unbiased(prior, lambda: expected_reward(prior, f, 1000, estimator, rng=rng), expected, batches=40)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_value_is_the_mean_reward_of_draws(estimator):
    prior = exact("trip")
    seen = []
    value = expected_reward(prior, lambda z: seen.append(z) or f(z), 50, estimator, rng=3)
    torch.testing.assert_close(value, f(seen[0]).mean())
    assert seen[0].shape == (50, prior.num_latents) and seen[0].requires_grad == (estimator != "reinforce")


def test_the_mean_of_all_shrinks_the_score_function():
    prior, n = exact("trip"), 4
    by = {
        baseline: torch.autograd.grad(
            expected_reward(prior, f, n, "reinforce", baseline=baseline, rng=1), list(prior.parameters())
        )
        for baseline in ("mean", "leave_one_out")
    }
    for shrunk, whole in zip(by["mean"], by["leave_one_out"], strict=True):
        torch.testing.assert_close(shrunk, whole * (n - 1) / n)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_reward_learns_too(estimator):
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    seen = []
    expected_reward(exact("trip"), lambda z: seen.append(z.detach()) or z @ weight, 10, estimator).backward()
    torch.testing.assert_close(weight.grad, seen[0].mean(0))


def test_a_fixed_prior_is_only_sampled(monkeypatch):
    prior = TRIP(3, 4, 2, trainable=False)
    monkeypatch.setattr(TRIP, "log_prob", None)
    assert not expected_reward(prior, lambda z: z.sum(-1), 1, "reinforce").requires_grad
    assert not expected_reward(GaussianPrior(3), lambda z: z.sum(-1), 1).requires_grad


def test_a_prior_that_only_its_encoder_changes_learns():
    encoder = torch.nn.Linear(3, 2)
    prior = VampPrior(lambda x: Independent(Normal(encoder(x), torch.ones(2)), 1), (3,), 2, 4, trainable=False)
    for estimator in ("reinforce", "hybrid", "pathwise"):
        encoder.zero_grad()
        expected_reward(prior, lambda z: z[:, 0] ** 2, 8, estimator).backward()
        assert encoder.weight.grad.abs().max() > 0


def test_rewards_are_real_numbers():
    with pytest.raises(TypeError, match=r"reward must return a floating point tensor, found a tensor of torch\.bool"):
        expected_reward(TRIP(3, 4, 2), lambda z: z[:, 0] > 0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n must be at least 2, found 1"),
        ({"n": 0, "estimator": "pathwise"}, "n must be at least 1, found 0"),
        ({"estimator": "score"}, "estimator must be one of reinforce, hybrid, pathwise, found 'score'"),
        ({"baseline": "none"}, "baseline must be one of leave_one_out, mean, found 'none'"),
        ({"reward": lambda z: z}, r"reward must return shape \(4,\), found \(4, 3\)"),
        ({"reward": lambda z: z.sum()}, r"reward must return shape \(4,\), found \(\)"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        expected_reward(TRIP(3, 4, 2), **{"reward": lambda z: z.sum(-1), "n": 4} | options)


# ------------------------------------------------------------------------------------------------------------- walks


def test_a_walk_changes_a_few_dimensions_at_a_time_and_keeps_the_distribution():
    prior, d = TRIP(4, 3, 2, mean_range=(-4, 4), seed=2), 4
    walks = mode_hopping(prior, rows=4000, steps=3, num_dimensions=2, rng=0)
    assert walks.shape == (4000, 4, d)
    assert ((walks[:, 1:] != walks[:, :-1]).sum(-1) == 2).all()
    reference = prior.sample(4000, rng=9)
    for power in (1, 2):
        error = (reference**power).std(0) / 4000**0.5
        assert (((walks[:, -1] ** power).mean(0) - (reference**power).mean(0)).abs() < 7 * error).all()
    torch.testing.assert_close(walks, mode_hopping(prior, rows=4000, steps=3, num_dimensions=2, rng=0))


def test_walks_need_conditionals_and_dimensions():
    with pytest.raises(ValueError, match="num_dimensions must be at most 3, found 4"):
        mode_hopping(TRIP(3, 4, 2), 2, 2, 4)
    with pytest.raises(NotImplementedError, match="no conditionals"):
        mode_hopping(FlowPrior(TRIP(3, 4, 2), hidden_features=(8,)), 2, 2, 2)
