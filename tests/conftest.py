"""Fixtures shared by tests: backends, engines, data types; the command line and a run of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.backends import Backend, load_backend

BACKENDS = ("numpy", "torch", "jax", "torch-cuda")
ENGINES = ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`slow_on`, `fast_on` and `slow_unless` (see pyproject.toml) decide which parameters make a test `slow`.

    Op by op, JAX compiles every operation anew for every shape: the first query of a ring takes it seconds, where NumPy
    takes milliseconds. What is tested in both precisions is tested in JAX in float32, which is its default.
    """
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        backend, dtype = params.get("backend"), params.get("dtype")
        slow, fast, unless = map(item.get_closest_marker, ("slow_on", "fast_on", "slow_unless"))
        is_slow = slow is not None and backend in slow.args and not (fast is not None and backend in fast.args)
        is_slow |= (backend, dtype) == ("jax", "float64")
        if unless is not None:
            is_slow |= unless.kwargs.get(backend.removesuffix("-cuda")) != dtype
        if is_slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def compiled_operations(pytestconfig: pytest.Config) -> None:
    """Keep what JAX compiles in pytest's cache, a folder per worker: a second run takes a third of the time for it."""
    cache = getattr(pytestconfig, "cache", None)  # absent under `-p no:cacheprovider`
    if cache is not None and importlib.util.find_spec("jax") is not None:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache.mkdir(f"jax-{worker}"))
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


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command line without pytest's arguments, a folder to write to, and the run's seed forgotten afterwards."""
    monkeypatch.setattr(sys, "argv", ["ringdist"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the `ringdist` command."""
    from tests.adapters.command import main, tiny

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ringdist"])
        patch.setenv("PL_GLOBAL_SEED", "0")
        main(["fit", "--config", tiny(folder / "run.yaml")])
    return folder / "run" / "version_0"
