"""A data module outside of a trainer, and files of images."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")

from PIL import Image


class Everywhere:
    """As much of a trainer as a data module looks at outside of one."""

    world_size, global_rank, training = 1, 0, True

    def __init__(self, batch: int = 0):
        epochs = SimpleNamespace(current=SimpleNamespace(processed=0))
        self.fit_loop = SimpleNamespace(batch_idx=batch - 1, epoch_progress=epochs)


def batch_of(data, stage="train"):
    """A batch as the model gets it."""
    data.trainer = Everywhere()
    data.setup()
    loader = getattr(data, f"{stage}_dataloader")()
    data.trainer.training = stage == "train"
    return data.on_after_batch_transfer(next(iter(loader)), 0)


def write_image(path: Path, value: int, size=(8, 8), mode="RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, value, 255 - value)).save(path)


def zipped(folder: Path) -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return target


def damaged(file: Path, name: str) -> None:
    """Put other bytes into the middle of what a member of an archive holds."""
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo(name)
    content = bytearray(file.read_bytes())
    start = member.header_offset + 30 + len(name)
    content[start : start + member.compress_size] = b"\xff" * member.compress_size
    file.write_bytes(content)
