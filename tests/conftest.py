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


# Op by op, JAX compiles every operation anew for every shape: the first query of a ring takes it seconds, where NumPy
# takes milliseconds. Of the tests over every backend in these files only the named ones are not `slow` on JAX.
SLOW_ON_JAX = (
    "atoms",
    "beta",
    "boxes",
    "chains",
    "conversions",
    "core_learning",
    "cores",
    "errors",
    "events",
    "every_family",
    "float32",
    "gradients",
    "inference",
    "layout",
    "log_prob",
    "multivariate_gaussian",
    "negative_binomial",
    "numerics",
    "oracle_harness",
    "pathwise",
    "rescue",
    "ring",
    "ring_mixture",
    "ring_mixture_events",
    "ring_mixture_files",
    "rng",
    "sampling",
    "student_t",
    "truncated",
    "variables",
    "von_mises",
    "wide",
    "wide_events",
)
ALSO_ON_JAX = {
    "test_zero_entries_of_a_core_have_the_gradient_of_leaving_zero",
    "test_log_prob_is_that_of_the_enumerated_joint",
    "test_log_normalizer_is_that_of_the_enumerated_joint",
    "test_mean_given_the_observed_entries",
    "test_to_dense",
    "test_to_moves_a_ring_between_backends",
    "test_users_attach_nodes_of_their_own",
    "test_einsum_by_name",
    "test_attributes",
    "test_values_of_factors",
    "test_to_another_backend",
    "test_cores_with_values_that_no_mass_has",
    "test_cores_of_two_backends",
    "test_points_of_a_wrong_shape",
    "test_arrays_of_another_backend",
    "test_no_rng_is_fresh_entropy_except_in_jax",
    "test_a_generator_moves_on_and_a_key_does_not",
    "test_another_kind_of_rng_is_refused",
    "test_log_density_cdf_and_moments",
}
# Thousands of columns take seconds each: of these, NumPy runs float64 and PyTorch float32; the other pairs are `slow`.
LONG = {
    "test_samples_come_from_the_world_that_has_the_mass",
    "test_moments_are_those_of_the_world_that_has_the_mass",
    "test_every_query_follows_the_world_that_takes_over",
    "test_a_column_in_the_middle_of_the_takeover",
}
LONG_PAIRS = {("numpy", "float64"), ("torch", "float32"), ("torch-cuda", "float32")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        heavy = item.path.stem.removeprefix("test_") in SLOW_ON_JAX and item.originalname not in ALSO_ON_JAX
        if params.get("backend") == "jax" and heavy:
            item.add_marker(pytest.mark.slow)
        if item.originalname in LONG and (params["backend"], params.get("dtype")) not in LONG_PAIRS:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def compiled_operations(pytestconfig: pytest.Config) -> None:
    """Keep what JAX compiles in pytest's cache, a folder per worker: a second run takes a third of the time for it."""
    if importlib.util.find_spec("jax") is not None:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pytestconfig.cache.mkdir(f"jax-{worker}"))
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
