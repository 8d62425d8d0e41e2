"""Fixtures shared by all tests: backends, engines, data types."""

from __future__ import annotations

import pytest

from tests.backends import Backend, load_backend

BACKENDS = ("numpy", "torch", "jax", "torch-cuda")
ENGINES = ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork")


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return load_backend(request.param)


@pytest.fixture(scope="session")
def numpy_backend() -> Backend:
    """For what no backend changes: files, messages, statistics of large samples."""
    return load_backend("numpy")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=("float32", "float64"))
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param
