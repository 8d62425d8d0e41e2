"""Learnable priors as PyTorch modules."""

from adapters.priors.base import Prior
from adapters.priors.distribution import PriorDistribution
from adapters.priors.flow import FlowPrior
from adapters.priors.gaussian import GaussianMixturePrior, GaussianPrior
from adapters.priors.joint import JointTRIP
from adapters.priors.joint_prior import JointPrior
from adapters.priors.trip import TRIP
from adapters.priors.vamp import VampPrior
from adapters.priors.vamp_trip import VampTRIP

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
]
