"""Atomic replacement of regular files: a crash leaves the complete old or the complete new content."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


def check_regular(path: Path) -> os.stat_result:
    """The status of the regular file at `path`, links followed.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it is a directory, a device, a pipe or a socket.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is a directory: name a file in it, such as {path / 'ring.safetensors'}")
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise ValueError(f"{path} must be a regular file, found {kind}")
    return status


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a temporary file in the folder of the target, flush it to disk, and rename it to the target.

    If `path` is a symbolic link, its target is replaced. An existing file keeps its permissions, and a
    new file has those that the process gives to new files. On failure the temporary file is removed.

    Raises:
        ValueError: if there is something at `path` that is not a regular file.
        OSError: if it cannot be written.
    """
    try:
        mode = check_regular(path).st_mode & 0o777
    except FileNotFoundError:
        mode = None
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written, because there is no folder {target.parent}; make it first")
    # A name of its own length: with the target's in it, it would be too long where that one just fits.
    temporary = target.with_name(f".ringdist-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:  # the kernel applies the umask, which a process cannot read safely
            if mode is not None:
                temporary.chmod(mode)  # before there is anything to read in it
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
