"""Folders and zip archives of images with a table of attributes."""

import pytest

pytest.importorskip("lightning")

import torch

from adapters.data import Digits, ImageFolder
from adapters.errors import InputError
from tests.adapters.data.cases import batch_of, zipped


def test_attributes_kept(folder):
    data = ImageFolder(folder, "attributes.csv", keep=["gender"], test=5, validation=5)
    assert batch_of(data)[1].shape == (10, 1) and data.attribute_names == ("gender",)
    rows = torch.cat([split.attributes for split in data.splits.values()])
    assert set(rows[~rows.isnan()].tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="keep: attributes are age, gender, found hat"):
        ImageFolder(folder, "attributes.csv", keep=["gender", "hat"]).setup()


def test_folders_with_attributes(files):
    data = ImageFolder(files, "attributes.csv", batch_size=20, test=5, validation=5)
    data.setup()
    assert data.attribute_names == ["age", "gender"]
    images = torch.cat([split.images for split in data.splits.values()])
    attributes = torch.cat([split.attributes for split in data.splits.values()])
    assert [len(split.images) for split in data.splits.values()] == [10, 5, 5]
    known = ~attributes[:, 0].isnan()
    assert torch.equal(images[known, 0, 0, 0].float(), 10 * attributes[known, 0])
    assert int(attributes[:, 0].isnan().sum()) == 2 and int(attributes[:, 1].isnan().sum()) == 1


def test_a_table_elsewhere(folder, tmp_path):
    table = (folder / "attributes.csv").rename(tmp_path / "table.csv")
    data = ImageFolder(zipped(folder), table, size=4, mode="L", test=5, validation=5)
    assert data.image_shape == (1, 4, 4) and batch_of(data)[1].shape == (10, 2)


def test_a_table_in_the_folder_given_by_its_path(folder):
    data = ImageFolder(folder, folder / "attributes.csv", test=5, validation=5)
    assert batch_of(data)[1].shape == (10, 2) and data.attribute_names == ["age", "gender"]


def test_images_without_a_table(folder):
    (folder / "attributes.csv").unlink()
    assert batch_of(ImageFolder(folder, test=5, validation=5))[1].shape == (10, 0)


def test_tables_that_are_not_used(files):
    data = ImageFolder(files, test=5, validation=5)
    assert batch_of(data)[1].shape == (10, 0) and data.unused == ["attributes.csv"]
    assert data.summary() == [
        "attributes: (none)",
        f"{files}: no table is used, not attributes.csv; the data's option `attributes` chooses",
    ]


def test_names_of_categories(files, folder):
    table, names = folder / "attributes.csv", ("zebra", "ape 2", "nan")
    lines = table.read_text().splitlines()
    lines[0] += ",kind"
    lines[1:] = [f"{line},{names[i % 3]} " for i, line in enumerate(lines[1:])]
    table.write_text("\n".join(lines))
    data = ImageFolder(zipped(folder) if files.suffix else folder, "attributes.csv", test=5, validation=5)
    data.setup()
    assert data.categories == {"kind": ("ape 2", "zebra")}
    assert data.summary()[0] == "attributes: age, gender, kind (ape 2 = 0, zebra = 1)"
    images = torch.cat([split.images for split in data.splits.values()])
    found = torch.cat([split.attributes for split in data.splits.values()])[:, 2]
    expected = torch.tensor([1.0, 0.0, torch.nan])[(images[:, 0, 0, 0] // 10).long() % 3]
    listed = images[:, 0, 0, 0] < 190  # the last image has no row
    assert torch.equal(found[listed].nan_to_num(9), expected[listed].nan_to_num(9)) and bool(found[~listed].isnan())


def test_blank_lines_of_a_table_are_skipped(folder):
    table = folder / "attributes.csv"
    first, second, *others = table.read_text().splitlines()
    table.write_text("\n".join(["", first, "  ", second, "", *others, "", ""]))
    data = ImageFolder(folder, "attributes.csv")
    data.setup()
    assert sum(int(split.attributes[:, 1].isnan().sum()) for split in data.splits.values()) == 1
    table.write_text(table.read_text() + "30.png,1,1\n")
    with pytest.raises(InputError, match=rf"row {len(others) + 7}: each row must name an image"):
        ImageFolder(folder, "attributes.csv").setup()


def test_where_images_are_from(files):
    data = ImageFolder(files, "attributes.csv", test=5, validation=5)
    data.setup()
    for stage, split in data.splits.items():
        for row, image in enumerate(split.images):
            assert data.origin(stage, row) == f"{files}: images/{int(image[0, 0, 0]) // 10:02}.png"
    assert Digits().origin("val", 3) == "image 3 of val"
