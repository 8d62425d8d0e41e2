"""The backends a test runs over, and how a NumPy case becomes a ring of each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ringdist as rd
from tests.families import LaplaceMixture
from tests.oracle import Case, Column

FAMILIES = {
    "categorical": rd.Categorical,
    "gaussian": rd.GaussianMixture,
    "poisson": rd.PoissonMixture,
    "laplace": LaplaceMixture,
}


@dataclass(frozen=True)
class Backend:
    """An array namespace with what a test needs of it.

    ``examples`` is how many rings a property test draws beside the fixed ones: none for JAX, which op by op compiles
    every operation anew for every shape it has not seen.
    """

    name: str
    xp: ModuleType
    examples: int
    device: Any = None

    def __repr__(self) -> str:
        return self.name

    def dtype(self, name: str = "float64") -> Any:
        return getattr(self.xp, name) if self.name.startswith("torch") else np.dtype(name)

    def array(self, values, dtype: str = "float64") -> Any:
        values = np.array(values)  # a copy: what the library does to it cannot reach the test's own
        if self.name.startswith("torch"):
            return self.xp.tensor(values, dtype=self.dtype(dtype), device=self.device)
        return self.xp.asarray(values, dtype=self.dtype(dtype))

    def numpy(self, array) -> np.ndarray:
        return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)

    def rng(self, seed: int = 0) -> Any:
        """The backend's own generator or key."""
        if self.name == "numpy":
            return np.random.default_rng(seed)
        if self.name == "jax":
            return importlib.import_module("jax").random.key(seed)
        return self.xp.Generator(device=self.device or "cpu").manual_seed(seed)

    def variable(self, column: Column, dtype: str = "float64") -> Any:
        family = FAMILIES[column.kind]
        if column.kind == "categorical":
            return family(column.num_components, name=column.name)
        return family(**{key: self.array(v, dtype) for key, v in column.parameters.items()}, name=column.name)

    def variables(self, case: Case, dtype: str = "float64") -> list:
        return [self.variable(column, dtype) for column in case.columns]

    def ring(self, case: Case, dtype: str = "float64") -> rd.TensorRing:
        cores = [self.array(core, dtype) for core in case.cores]
        return rd.TensorRing(cores, self.variables(case, dtype), order=case.order)


def load_backend(name: str) -> Backend:
    if name == "numpy":
        return Backend(name, np, 30)
    if name == "jax":
        jax = pytest.importorskip("jax")
        jax.config.update("jax_enable_x64", True)  # to compare with the oracle; test_float32 turns it off
        return Backend(name, importlib.import_module("jax.numpy"), 0)
    torch = pytest.importorskip("torch")
    if name == "torch":
        return Backend(name, torch, 12)
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return Backend(name, torch, 8, device="cuda")


def assert_close(actual, expected, subject, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Equality to rounding, −inf included; the object under test is the message."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape, subject)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=repr(subject))
