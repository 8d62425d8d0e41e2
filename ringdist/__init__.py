"""Exact tensor-ring distributions over discrete, continuous and mixed variables, on NumPy, PyTorch and JAX."""

from ringdist.io import load
from ringdist.ring import TensorRing
from ringdist.variables import Categorical, GaussianMixture, PoissonMixture, Variable

__version__ = "0.1.0"

__all__ = [
    "Categorical",
    "GaussianMixture",
    "PoissonMixture",
    "TensorRing",
    "Variable",
    "load",
]
