"""Errors name the row of a table and the rule that it violates."""

import pytest

pytest.importorskip("lightning")


from adapters.data import ImageFolder
from adapters.errors import InputError
from tests.adapters.data.cases import write_image, zipped


@pytest.mark.parametrize(
    "change, message",
    [
        ("30.png,1,1", r"attributes\.csv, row 21: each row must name an image, there is none called '30\.png'"),
        ("07.png,1,1", r"attributes\.csv, row 21: an image must have one row, '07\.png' has been in row 9 already"),
        ("19.png,1", r"row 21: a row must have 3 cells, found 2"),
        ("19.png,old,1", r"row 21: age must be a number or empty, found 'old'"),
        ("19.png,inf,1", r"row 21: age must be finite, found 'inf'"),
    ],
)
def test_a_broken_table(files, folder, change, message):
    table = folder / "attributes.csv"
    table.write_text(table.read_text() + change + "\n")
    with pytest.raises(InputError, match=message):
        ImageFolder(zipped(folder) if files.suffix else folder, "attributes.csv").setup()


def test_a_table_with_another_first_column(folder):
    (folder / "attributes.csv").write_text("file,age\n00.png,1\n")
    with pytest.raises(
        InputError, match=r"first row must be image,ATTRIBUTE,\.\.\. with different names, found file,age"
    ):
        ImageFolder(folder, "attributes.csv").setup()


def test_a_table_that_is_not_there(folder):
    with pytest.raises(InputError, match=r"other\.csv: there is no such table"):
        ImageFolder(folder, "other.csv").setup()


def test_names_that_several_images_share(folder):
    write_image(folder / "more" / "07.png", 0)
    with pytest.raises(InputError, match=r"row 9: several images are called '07\.png'"):
        ImageFolder(folder, "attributes.csv").setup()
    table = folder / "attributes.csv"
    table.write_text(table.read_text().replace("07.png", "images/07.png"))
    ImageFolder(folder, "attributes.csv").setup()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"image,\xe4ge\n00.png,1\n", r"attributes\.csv: a table must be in UTF-8 \(.*0xe4"),
        (b"image,age\n00.png," + b"1" * 200_000 + b"\n", r"attributes\.csv, row 2: field larger than field limit"),
    ],
    ids=["not UTF-8", "long field"],
)
def test_a_table_that_cannot_be_read(folder, content, message):
    (folder / "attributes.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        ImageFolder(folder, "attributes.csv").setup()
