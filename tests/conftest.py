"""Fixtures shared by all tests: backends, engines, data types."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tests.backends import Backend, load_backend

BACKENDS = ("numpy", "torch", "jax", "torch-cuda")
ENGINES = ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork")


@pytest.fixture(scope="session", autouse=True)
def compiled_operations(pytestconfig: pytest.Config) -> None:
    """Keep what JAX compiles in pytest's cache: the second run of the suite spends a quarter of the time on it."""
    if importlib.util.find_spec("jax") is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pytestconfig.cache.mkdir("jax"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


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
