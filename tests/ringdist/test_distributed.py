"""A fit spread over two processes is the fit of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend

ROOT = Path(__file__).parents[2]


def test_two_processes_fit_as_one_does(tmp_path):
    pytest.importorskip("torch")
    from tests.ringdist.distributed_fit import SETTINGS, problem

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc_per_node", "2", "-m", "tests.ringdist.distributed_fit", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    for xp in ("numpy", "torch"):
        ring, x, weight = problem(xp)
        alone = rd.fit_em(ring, x, sample_weight=weight, **SETTINGS)
        reference = alone.ring.to(np)
        parts = [rd.load(tmp_path / f"{xp}-{rank}") for rank in range(2)]
        for k, core in enumerate(reference.cores):
            for part in parts:
                np.testing.assert_allclose(part.cores[k], core, rtol=1e-8, atol=1e-12)
                for name, array in reference.variables[k].arrays().items():
                    np.testing.assert_allclose(part.variables[k].arrays()[name], array, rtol=1e-8)
            np.testing.assert_array_equal(parts[0].cores[k], parts[1].cores[k])
        for rank in range(2):
            history = np.load(tmp_path / f"{xp}-{rank}.npy")
            np.testing.assert_allclose(history, alone.history["train"], rtol=1e-9)


def test_a_sum_needs_a_group():
    torch = pytest.importorskip("torch")
    with pytest.raises((RuntimeError, ValueError), match=r"[Pp]rocess group"):
        rd.distributed.all_reduce(torch.zeros(2))


def test_a_sum_of_another_backend():
    jax = load_backend("jax")
    pytest.importorskip("torch")
    with pytest.raises(TypeError, match="found jax"):
        rd.distributed.all_reduce(jax.array([1.0]))
