"""A folder of images with a table of attributes, and its zip archive."""

import csv
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twenty images, a table with one attribute unknown and one row missing, a hidden file."""
    from tests.adapters.data.cases import write_image

    root = tmp_path / "faces"
    rows = [["image", "age", "gender"]]
    for i in range(20):
        write_image(root / "images" / f"{i:02}.png", 10 * i)
        rows.append([f"{i:02}.png", "" if i == 3 else str(i), str(i % 2)])
    with (root / "attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows[:-1])
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.fixture(params=["folder", "zip"])
def files(request, folder) -> Path:
    from tests.adapters.data.cases import zipped

    return folder if request.param == "folder" else zipped(folder)
