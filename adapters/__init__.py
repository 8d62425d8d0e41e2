"""Learnable priors for generative models in PyTorch: the tensor ring induced prior (TRIP) and its rivals.

Every prior is a `torch.nn.Module` with the methods `log_prob`, `sample`, `sample_given`, `rsample` and
`reinitialize`. Calling a prior returns a `torch.distributions.Distribution`. `expected_reward` differentiates
expectations over a prior, and `adapters.interop` loads priors trained with other code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that `ringdist --help` does not import PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "adapters.objectives" if name == "expected_reward" else "adapters.priors"
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    """The names of the module, including those that are imported on first access."""
    return sorted({*globals(), *__all__})
