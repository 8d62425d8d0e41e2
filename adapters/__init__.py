"""Learnable priors for generative models in PyTorch: the tensor ring induced prior (TRIP) and its rivals.

Every prior is a `torch.nn.Module` with `log_prob`, `sample`, `sample_given`, `rsample` and `reinitialize`, and returns
a `torch.distributions.Distribution` when called. `expected_reward` differentiates expectations over a prior, and
`adapters.interop` loads priors trained with other code.
"""

from adapters.objectives import expected_reward
from adapters.priors import (
    TRIP,
    FlowPrior,
    GaussianMixturePrior,
    GaussianPrior,
    JointPrior,
    JointTRIP,
    Prior,
    PriorDistribution,
    VampPrior,
    VampTRIP,
)

__all__ = [
    "TRIP",
    "FlowPrior",
    "GaussianMixturePrior",
    "GaussianPrior",
    "JointPrior",
    "JointTRIP",
    "Prior",
    "PriorDistribution",
    "VampPrior",
    "VampTRIP",
    "expected_reward",
]
