"""Data sets of many small JPEG files in one file each, without the header that they share; nothing is lost."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

NAMES = ("cifar10_images.zip", "faces64.zip")
SUFFIX = ".packed"


def pack_all(source: Path, target: Path) -> None:
    """Pack the archives of a folder that are there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if (source / name).is_file():
            path = target / f"{name}{SUFFIX}"
            pack(source / name, path)
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB instead of {(source / name).stat().st_size / 1e6:.1f}")


def pack(archive: Path, path: Path) -> None:
    """Names and sizes, compressed; the common beginning of all JPEG files; what is left of each."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if not name.endswith("/"))
        contents = {name: files.read(name) for name in names}
    head = shared_start([content for name, content in contents.items() if name.endswith(".jpg")])
    sizes = [len(content) for content in contents.values()]
    index = zlib.compress(json.dumps({"names": names, "sizes": sizes}).encode(), 9)
    with path.open("wb") as file:
        file.write(struct.pack("<QQ", len(index), len(head)) + index + head)
        for name, content in contents.items():
            file.write(content[len(head) :] if name.endswith(".jpg") else content)


def shared_start(contents: list[bytes]) -> bytes:
    """What all begin with."""
    first, last = min(contents, default=b""), max(contents, default=b"")
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length]


def unpack(path: Path, archive: Path) -> None:
    """The archive again, its files as they were."""
    data = memoryview(path.read_bytes())
    index_size, head_size = struct.unpack_from("<QQ", data)
    place = 16 + index_size
    index, head = json.loads(zlib.decompress(data[16:place])), bytes(data[place : place + head_size])
    place += head_size
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as files:
        for name, size in zip(index["names"], index["sizes"], strict=True):
            shared = head if name.endswith(".jpg") else b""
            end = place + size - len(shared)
            files.writestr(name, shared + bytes(data[place:end]))
            place = end
    archive.parent.mkdir(parents=True, exist_ok=True)
    beside = archive.with_suffix(".part")
    beside.write_bytes(buffer.getvalue())
    os.replace(beside, archive)


def find(folder: Path | None, name: str, scratch: Path) -> Path | None:
    """The folder with the archive, unpacked into the scratch folder if need be; None if it is not there."""
    if folder is None:
        return None
    if (folder / name).is_file():
        return folder
    if (scratch / name).is_file():
        return scratch
    if not (folder / f"{name}{SUFFIX}").is_file():
        return None
    unpack(folder / f"{name}{SUFFIX}", scratch / name)
    return scratch
