"""Errors name the image or the archive that cannot be read."""

import zipfile
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from PIL import Image

from adapters.data import CIFAR10, ImageFolder
from adapters.errors import InputError
from tests.adapters.data.cases import damaged, write_image, zipped


def test_a_file_that_is_no_image(files, folder):
    (folder / "images" / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"images/notes\.txt is not an image"):
        ImageFolder(zipped(folder) if files.suffix else folder, "attributes.csv").setup()


def test_an_image_that_is_cut_off(folder):
    file = folder / "images" / "00.png"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match=r"images/00\.png cannot be read"):
        ImageFolder(folder, "attributes.csv").setup()


def test_images_of_two_sizes(folder):
    write_image(folder / "images" / "99.png", 0, (4, 9))
    with pytest.raises(InputError, match=r"images/00\.png is 8x8, images/99\.png is 9x4"):
        ImageFolder(folder, "attributes.csv").setup()


@pytest.mark.parametrize("make", [ImageFolder, CIFAR10])
def test_archives_that_cannot_be_read(tmp_path, make):
    (tmp_path / "broken.zip").write_bytes(b"PK no")
    with pytest.raises(InputError, match=r"broken\.zip: neither a folder nor a readable zip archive"):
        make(tmp_path / "broken.zip").setup()
    with pytest.raises(InputError, match="there is no such folder or archive"):
        make(tmp_path / "nothing").setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there are no files in it"):
        make(tmp_path / "empty").setup()


def encrypted(file: Path, name: str) -> None:
    """Say of a member of an archive that it is encrypted."""
    with zipfile.ZipFile(file) as archive:
        offset = archive.getinfo(name).header_offset
        directory = archive.start_dir
    content = bytearray(file.read_bytes())
    content[offset + 6] |= 1
    entry = content.index(name.encode(), directory) - 46
    content[entry + 8] |= 1
    file.write_bytes(content)


@pytest.mark.parametrize("change", [damaged, encrypted])
@pytest.mark.parametrize("name", ["images/07.png", "attributes.csv"])
def test_members_of_archives_that_cannot_be_read(folder, change, name):
    file = folder.with_suffix(".zip")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    change(file, name)
    with pytest.raises(InputError, match=rf"faces\.zip: {name} cannot be read"):
        ImageFolder(file, "attributes.csv").setup()


def test_an_image_that_is_too_large(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(InputError, match=r"images/00\.png cannot be read \(Image size \(64 pixels\) exceeds limit"):
        ImageFolder(folder, "attributes.csv").setup()
