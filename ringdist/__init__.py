"""Exact tensor-ring distributions over discrete, continuous and mixed variables, on NumPy, PyTorch and JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from ringdist import compare, ordering
from ringdist.cores import Core, CPCore
from ringdist.learning import distributed
from ringdist.learning.autofit import autofit
from ringdist.learning.em import fit_em
from ringdist.learning.fitting import FitResult
from ringdist.learning.gradient import fit_gradient
from ringdist.learning.rings import fit_mixture
from ringdist.learning.starts import initialize
from ringdist.ring import TensorRing
from ringdist.ring_mixture import RingMixture, load
from ringdist.variables import (
    BetaMixture,
    Categorical,
    GaussianMixture,
    Interval,
    LogNormalMixture,
    MultivariateGaussianMixture,
    NegativeBinomialMixture,
    PoissonMixture,
    StudentTMixture,
    Truncated,
    TruncatedMultivariateGaussianMixture,
    Variable,
    VonMisesMixture,
    WithAtoms,
)

if TYPE_CHECKING:
    from ringdist.estimator.density import TensorRingDensity
    from ringdist.estimator.plots import plot_conditional, plot_dependence

__version__ = "0.2.0"

__all__ = [
    "BetaMixture",
    "CPCore",
    "Categorical",
    "Core",
    "FitResult",
    "GaussianMixture",
    "Interval",
    "LogNormalMixture",
    "MultivariateGaussianMixture",
    "NegativeBinomialMixture",
    "PoissonMixture",
    "RingMixture",
    "StudentTMixture",
    "TensorRing",
    "TensorRingDensity",
    "Truncated",
    "TruncatedMultivariateGaussianMixture",
    "Variable",
    "VonMisesMixture",
    "WithAtoms",
    "autofit",
    "compare",
    "distributed",
    "fit_em",
    "fit_gradient",
    "fit_mixture",
    "initialize",
    "load",
    "ordering",
    "plot_conditional",
    "plot_dependence",
]

# scikit-learn takes longer to import than all the rest.
_OF_THE_ESTIMATOR = {"TensorRingDensity": "density", "plot_conditional": "plots", "plot_dependence": "plots"}


def __getattr__(name: str) -> Any:
    if name in _OF_THE_ESTIMATOR:
        return getattr(importlib.import_module(f"ringdist.estimator.{_OF_THE_ESTIMATOR[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
