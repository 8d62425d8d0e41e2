"""What saving does to the file system: links, permissions, names, and what is not a regular file."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import ringdist as rd
from tests.oracle import TABLE, TRAIN
from tests.safetensors_files import within

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ring(numpy_backend):
    return numpy_backend.ring(TABLE)


@pytest.fixture
def other(numpy_backend):
    return numpy_backend.ring(TRAIN)


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ----------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("there", [True, False], ids=["target", "dangling"])
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
@pytest.mark.parametrize("links", [1, 3])
def test_a_link_stays_and_its_target_is_written(ring, other, tmp_path, links, relative, there):
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "ring"
    if there:
        other.save(target)
    path = target
    for k in range(links):
        link = tmp_path / f"link{k}"
        link.symlink_to(os.path.relpath(path, tmp_path) if relative else path)
        path = link
    ring.save(path)
    assert path.is_symlink() and not target.is_symlink()
    assert repr(rd.load(target)) == repr(rd.load(path)) == repr(ring)
    assert everything_in(tmp_path) == [*(f"link{k}" for k in range(links)), "store", "store/ring"]


def test_a_linked_folder_is_written_through(ring, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    ring.save(tmp_path / "link" / "ring")
    assert everything_in(tmp_path) == ["link", "store", "store/ring"]


def test_a_link_to_itself(ring, tmp_path):
    (tmp_path / "ring").symlink_to("ring")
    for action in (ring.save, rd.load):
        with pytest.raises(OSError):
            action(tmp_path / "ring")
    assert everything_in(tmp_path) == ["ring"]


def test_a_dangling_link_is_a_missing_file(tmp_path):
    (tmp_path / "ring").symlink_to("nothing")
    with pytest.raises(FileNotFoundError):
        rd.load(tmp_path / "ring")


# ------------------------------------------------------------------------------------ what is not a regular file


def _socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _device(path):
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices are made by root only")


SPECIAL = {
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (_socket, "a socket"),
    "device": (_device, "a device"),
    "folder": (os.mkdir, "a directory: name a file in it"),
}


@pytest.mark.parametrize("linked", [False, True], ids=["", "linked"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_not_a_regular_file_is_refused_and_stays(ring, tmp_path, monkeypatch, kind, linked):
    make, finding = SPECIAL[kind]
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make("it")
    path = Path("it")
    if linked:
        path = Path("link")
        path.symlink_to("it")
    before = os.stat("it"), everything_in(tmp_path)
    for action in (ring.save, rd.load, rd.TensorRingDensity.load):
        with within(20), pytest.raises(ValueError, match=finding):
            action(path)
    assert before[0].st_ino == os.stat("it").st_ino and before[0].st_mode == os.stat("it").st_mode
    assert before[1] == everything_in(tmp_path)


@pytest.mark.parametrize("path", ["", ".", "..", "/"])
def test_names_of_folders(ring, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for action in (ring.save, rd.load):
        with pytest.raises(ValueError, match="directory"):
            action(path)
    assert not any(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ permissions


@pytest.fixture(params=[0o000, 0o022, 0o027, 0o077, 0o777], ids="{:03o}".format)
def mask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_new_file_has_the_permissions_of_new_files(ring, tmp_path, mask):
    ring.save(tmp_path / "ring")
    assert stat.S_IMODE((tmp_path / "ring").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o444, 0o400])
def test_a_file_keeps_its_permissions(ring, other, tmp_path, mask, mode):
    path = tmp_path / "ring"
    other.save(path)
    path.chmod(mode)
    ring.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_nobody_reads_a_private_file_while_it_is_written(ring, tmp_path, monkeypatch, mask):
    path = tmp_path / "ring"
    ring.save(path)
    path.chmod(0o600)
    seen = []

    def look(handle):
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))

    monkeypatch.setattr(os, "fsync", look)
    ring.save(path)
    assert seen == [0o600]


def test_the_umask_of_the_process_is_left_alone(ring, tmp_path, monkeypatch):
    """It belongs to all threads: who sets it to read it makes another thread's new file open to everybody."""

    def touched(mask):
        raise AssertionError("the umask was set")

    monkeypatch.setattr(os, "umask", touched)
    for _ in range(2):
        ring.save(tmp_path / "ring")


def test_threads_that_save_to_one_file(numpy_backend, ring, other, tmp_path):
    path, errors = tmp_path / "ring", []

    def work(mine):
        try:
            for _ in range(20):
                mine.save(path)
                assert repr(rd.load(path)) in (repr(ring), repr(other))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (ring, other) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and everything_in(tmp_path) == ["ring"]


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name", ["a", "a" * 249, "a" * 250, "a" * 255, "ü" * 127, "環" * 85, " ", "-", ".ring", "a\nb"]
)
def test_names_of_any_length(ring, other, tmp_path, name):
    for mine in (other, ring):
        mine.save(tmp_path / name)
        assert repr(rd.load(tmp_path / name)) == repr(mine)
    assert os.listdir(tmp_path) == [name]


def test_names_that_no_file_has(ring, tmp_path):
    for name, error in (("a" * 256, OSError), ("a\0b", ValueError)):
        for action in (ring.save, rd.load):
            with pytest.raises(error):
                action(tmp_path / name)
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- failures


FULL = """
import resource, signal, sys
import ringdist as rd
ring = rd.TensorRing.random([rd.Categorical(10)] * 4, 20, rng=0)
if sys.argv[2] == "killed":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
ring.save(sys.argv[1])
"""


@pytest.mark.parametrize("limit", [0, 1, 4096, 100_000])
@pytest.mark.parametrize("end", ["killed", "told"])
def test_a_write_that_ends_in_the_middle_leaves_the_old_file(ring, tmp_path, end, limit):
    """Where the limit of a file's size is reached, the process dies in `write`, or `write` fails."""
    path = tmp_path / "ring"
    ring.save(path)
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL, str(path), end, str(limit)]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert path.read_bytes() == before
    if end == "told":
        assert "File too large" in result.stderr, result
        assert everything_in(tmp_path) == ["ring"]
    else:
        assert result.returncode == -signal.SIGXFSZ, result
        left = [p for p in tmp_path.iterdir() if p != path]
        assert [p.stat().st_size for p in left] == [limit], "the process was not in the middle of the write"
    ring.save(path)  # what a dead process left is in nobody's way
    assert repr(rd.load(path)) == repr(ring)


@pytest.mark.parametrize("step", ["chmod", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_whatever_stops_a_write_leaves_nothing_behind(ring, other, tmp_path, monkeypatch, step, error):
    path = tmp_path / "ring"
    (tmp_path / "link").symlink_to("ring")
    other.save(path)
    before = path.read_bytes()

    def stop(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "chmod") if step == "chmod" else (os, step), stop)
        with pytest.raises(type(error)):
            ring.save(tmp_path / "link")
    assert path.read_bytes() == before
    assert everything_in(tmp_path) == ["link", "ring"]


def test_a_folder_that_cannot_be_written_to(ring, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        ring.save(tmp_path / "ring")
    tmp_path.chmod(0o700)
    assert not any(tmp_path.iterdir())


def test_the_arrays_of_a_ring_are_not_touched(ring, tmp_path):
    before = [np.array(core) for core in ring.cores]
    ring.save(tmp_path / "ring")
    for a, b in zip(ring.cores, before, strict=True):
        np.testing.assert_array_equal(a, b)
