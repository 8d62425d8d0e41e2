"""Exact tensor-ring distributions over discrete, continuous and mixed variables, on NumPy, PyTorch and JAX."""

from ringdist import distributed, ordering
from ringdist.em import fit_em
from ringdist.fitting import FitResult
from ringdist.gradient import fit_gradient
from ringdist.initialization import initialize
from ringdist.io import load
from ringdist.ring import TensorRing
from ringdist.variables import Categorical, GaussianMixture, PoissonMixture, Variable

__version__ = "0.1.0"

__all__ = [
    "Categorical",
    "FitResult",
    "GaussianMixture",
    "PoissonMixture",
    "TensorRing",
    "Variable",
    "distributed",
    "fit_em",
    "fit_gradient",
    "initialize",
    "load",
    "ordering",
]
