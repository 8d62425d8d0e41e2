"""save in the face of full disks and killed processes: the old file or the new one, whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ringdist as rd
from tests.oracle import TABLE, TRAIN

ROOT = Path(__file__).parents[2]


class Crash(OSError):
    """A disk that is full, a machine that stops."""


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_crash_leaves_the_old_file(numpy_backend, path, monkeypatch, function):
    old, new = numpy_backend.ring(TABLE), numpy_backend.ring(TRAIN)
    old.save(path)

    def crash(*args, **kwargs):
        raise Crash(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, crash)
        if function == "replace":
            patch.setattr(os, "rename", crash)
        try:
            new.save(path)
        except Crash:
            assert repr(rd.load(path)) == repr(old)
            assert os.listdir(path.parent) == [path.name], "a temporary file is left behind"
            return
    assert function == "fsync", "save went through although nothing could be replaced"
    assert repr(rd.load(path)) == repr(new)


def test_a_failed_write_leaves_the_old_file(numpy_backend, path, monkeypatch):
    """The bytes themselves cannot be made or written."""
    old, new = numpy_backend.ring(TABLE), numpy_backend.ring(TRAIN)
    old.save(path)

    def crash(*args, **kwargs):
        raise Crash(28, "No space left on device")

    import safetensors.numpy

    with monkeypatch.context() as patch:
        for module, name in [
            (safetensors.numpy, "save"),
            (safetensors.numpy, "save_file"),
            (safetensors.numpy, "serialize"),
            (safetensors.numpy, "serialize_file"),
        ]:
            patch.setattr(module, name, crash)
        with pytest.raises(Crash):
            new.save(path)
    assert repr(rd.load(path)) == repr(old)
    assert os.listdir(path.parent) == [path.name], "a temporary file is left behind"


KILLED = """
import os, signal, sys
import numpy as np
import ringdist as rd
ring = rd.TensorRing.random([rd.Categorical(4)] * 3, 8, rng=2)
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = os.rename = die
ring.save(sys.argv[1])
"""


def test_a_process_killed_before_the_replacement_leaves_the_old_file(numpy_backend, path):
    old = numpy_backend.ring(TABLE)
    old.save(path)
    result = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL, result
    assert repr(rd.load(path)) == repr(old)
    numpy_backend.ring(TRAIN).save(path)  # what the dead process left is in nobody's way
    assert repr(rd.load(path)) == repr(numpy_backend.ring(TRAIN))


SAVING = """
import sys
import ringdist as rd
rings = [rd.TensorRing.random([rd.Categorical(10)] * 40, 40, rng=seed) for seed in (0, 1)]
rings[0].save(sys.argv[1])
print("ready", flush=True)
while True:
    for ring in rings:
        ring.save(sys.argv[1])
"""


def test_a_process_killed_at_any_time_leaves_a_whole_file(path):
    """kill -9 in the middle of one of many writes of 5 MB: one of the two rings is there, whole."""
    process = subprocess.Popen([sys.executable, "-c", SAVING, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline().strip() == b"ready"
        for _ in range(5):  # a reader never meets half a file either
            assert rd.load(path).num_variables == 40
            time.sleep(0.02)
        process.kill()
    ring = rd.load(path)
    expected = [rd.TensorRing.random([rd.Categorical(10)] * 40, 40, rng=seed) for seed in (0, 1)]
    assert any(all(map(np.array_equal, ring.cores, e.cores)) for e in expected), ring


def test_saving_into_a_folder_that_is_not_there(numpy_backend, tmp_path):
    with pytest.raises(OSError):
        numpy_backend.ring(TABLE).save(tmp_path / "nowhere" / "ring")


def test_saving_keeps_the_permissions_new_files_have(numpy_backend, path, tmp_path):
    """A temporary file is private by default; the ring that replaces it should not be."""
    (tmp_path / "plain").write_bytes(b"")
    numpy_backend.ring(TABLE).save(path)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
