"""Differentiable expectations over a learned prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from adapters.priors import Prior
from adapters.priors.base import Rng, check_option, integer_of

Estimator = Literal["reinforce", "hybrid", "pathwise"]
Baseline = Literal["leave_one_out", "mean"]


def expected_reward(
    prior: Prior,
    reward: Callable[[Tensor], Tensor],
    n: int,
    estimator: Estimator = "hybrid",
    *,
    baseline: Baseline = "leave_one_out",
    rng: Rng = None,
) -> Tensor:
    """An estimate of E[reward(z)] from n codes of the prior, a scalar whose gradient estimates that of the expectation.

    Gradients reach the prior's parameters and all parameters of the reward. There are three estimators of the prior's
    gradient, which are all unbiased with the leave-one-out baseline:

    - "reinforce": the score function, ∇log p(z_i) (r_i − b_i) (paper Eq. 10). The reward need not be differentiable.
    - "hybrid": ∇r(z_i) for the means and standard deviations of the Gaussians, and the score function for the cores of
      a ring or the weights of a mixture (`Prior.sample_components`).
    - "pathwise": implicit reparameterisation by conditional distribution functions (`TensorRing.pathwise`), without a
      score function. Its variance grows steeply with the distance between modes.

    Args:
        prior: any prior; a fixed one is only sampled.
        reward: maps codes (n, d) to rewards (n,), row by row.
        n: number of codes, at least 2 with a score function.
        estimator: of the prior's gradient.
        baseline: b_i: the mean reward of the other codes, or of all codes ("mean", as in the paper), which scales the
            score function part of the gradient by (n − 1)/n.
        rng: a seed or a generator; None: PyTorch's global generator.

    Returns:
        A scalar.

    Raises:
        TypeError: if n is not an integer, or the reward is not a floating point tensor.
        ValueError: if n is too small, an option is unknown, or the reward is not (n,).

    Examples:
        >>> from adapters import TRIP, expected_reward
        >>> prior = TRIP(3, num_components=5, rank=4)
        >>> loss = -expected_reward(prior, lambda z: -(z - 2).square().sum(-1), n=64)
        >>> loss.backward()
        >>> prior.means.grad.shape, prior.cores[0].grad.shape
        (torch.Size([3, 5]), torch.Size([3, 5, 4, 4]))
    """
    check_option("estimator", estimator, get_args(Estimator))
    check_option("baseline", baseline, get_args(Baseline))
    learned = prior.is_learned
    integer_of("n", n, least=2 if learned and estimator != "pathwise" else 1)
    if not learned:
        return _rewards(reward, prior.sample(n, rng=rng)).mean()
    if estimator == "pathwise":
        return _rewards(reward, prior.rsample(n, rng=rng)).mean()
    if estimator == "reinforce":
        z = prior.sample(n, rng=rng)
        log_prob = prior.log_prob(z)
    else:
        z, log_prob = prior.sample_components(n, rng=rng)
    rewards = _rewards(reward, z)
    advantage = (rewards - rewards.mean()).detach().to(log_prob.dtype)
    if baseline == "leave_one_out":  # r_i less the mean of the others: (r_i − mean of all) n / (n − 1)
        advantage = advantage * n / (n - 1)
    return rewards.mean() + (advantage * (log_prob - log_prob.detach())).mean()


def _rewards(reward: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    rewards = reward(z)
    if not isinstance(rewards, Tensor) or not rewards.is_floating_point():
        kind = f"a tensor of {rewards.dtype}" if isinstance(rewards, Tensor) else type(rewards).__name__
        raise TypeError(f"reward must return a floating point tensor, found {kind}")
    if rewards.shape != z.shape[:1]:
        raise ValueError(f"reward must return shape {tuple(z.shape[:1])}, found {tuple(rewards.shape)}")
    return rewards
