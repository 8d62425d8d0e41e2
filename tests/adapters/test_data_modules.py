"""Data modules: what they hand out, and what they say about broken files."""

import csv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch
from PIL import Image

from adapters.data import CIFAR10, MNIST, CelebA, Digits, ImageFolder, Split
from adapters.data.base import listed
from adapters.data.known import CELEBA_ATTRIBUTES
from adapters.errors import InputError


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


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twenty images, a table with one attribute unknown and one row missing, a hidden file."""
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
    return folder if request.param == "folder" else zipped(folder)


# ----------------------------------------------------------------------------------------------------- what comes out


def test_digits():
    data = Digits(batch_size=100)
    x, y = batch_of(data)
    assert x.shape == (100, 1, 8, 8) and y.shape == (100, 1) and data.image_shape == (1, 8, 8)
    assert x.dtype == torch.float32 and torch.equal(x * 16, (x * 16).round()) and 0 <= x.min() and x.max() == 1
    assert {len(split.images) for split in data.splits.values()} == {1294, 144, 359}
    rows = torch.cat([split.images for split in data.splits.values()]).flatten(1)
    assert len(rows) == 1797 and set(y.flatten().tolist()) <= set(range(10))


def test_splits_do_not_depend_on_the_run():
    first, second = Digits(), Digits()
    first.setup()
    torch.manual_seed(7)
    second.setup()
    assert all(torch.equal(first.splits[name].images, second.splits[name].images) for name in first.splits)
    other = Digits(split_seed=1)
    other.setup()
    assert not torch.equal(first.splits["test"].images, other.splits["test"].images)


def test_epochs_are_shuffled_differently():
    data = Digits(batch_size=2000)
    data.setup()
    loader = data.train_dataloader()
    first = next(iter(loader))[0]
    loader.sampler.set_epoch(1)
    second = next(iter(loader))[0]
    assert not torch.equal(first, second)
    assert torch.equal(first.sum((1, 2, 3)).sort().values, second.sum((1, 2, 3)).sort().values)


def test_static_binarization_draws_once():
    data = Digits(batch_size=2000, binarization="static")
    (x, _), (again, _) = batch_of(data), batch_of(data)
    assert torch.equal(x, again) and set(x.unique().tolist()) == {0.0, 1.0}
    grey = Digits(batch_size=2000)
    assert x.mean().item() == pytest.approx(batch_of(grey)[0].mean().item(), abs=0.005)


def test_static_binarization_takes_little_memory(monkeypatch):
    """The random numbers of a large data set are drawn in parts."""
    sizes, rand = [], torch.rand
    monkeypatch.setattr(torch, "rand", lambda shape, **options: sizes.append(shape[0]) or rand(shape, **options))
    split = Split(torch.full((9000, 1, 2, 2), 4, dtype=torch.uint8), torch.zeros(9000, 0))
    images = Digits(binarization="static")._binarized_once(split).images
    assert sizes == [4096, 4096, 808] and images.shape == split.images.shape
    assert set(images.unique().tolist()) == {0, 16}
    assert (images > 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dynamic_binarization_draws_every_step_and_only_in_training():
    data = Digits(batch_size=2000, binarization="dynamic")
    x, _ = batch_of(data)
    assert torch.equal(x, batch_of(data)[0])  # the same step
    data.trainer = Everywhere(batch=4)
    again, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert set(x.unique().tolist()) == {0.0, 1.0} and not torch.equal(x, again)
    validation = batch_of(data, "val")[0]
    assert set(validation.unique().tolist()) == {0.0, 1.0} and torch.equal(validation, batch_of(data, "val")[0])


def test_training_images_for_callbacks():
    data = Digits(batch_size=30, binarization="dynamic")
    first, again = (torch.cat(list(data.training_images(70, seed=3))) for _ in range(2))
    assert first.shape == (70, 1, 8, 8) and torch.equal(first, again)
    assert data.examples(5).shape == (5, 1, 8, 8)


@pytest.mark.parametrize("binarization", [None, "dynamic"])
def test_training_rows_keep_images_and_attributes_together(binarization):
    data = Digits(batch_size=30, binarization=binarization)
    batches = list(data.training_rows(70, seed=3))
    assert [len(y) for _, y in batches] == [30, 30, 10]
    for (x, _), images in zip(batches, data.training_images(70, seed=3), strict=True):
        assert torch.equal(x, images)
    if binarization is None:
        split = data.splits["train"]
        known = {(*row.flatten().tolist(), *y.tolist()) for row, y in zip(*split, strict=True)}
        found = [
            (*(16 * row).int().flatten().tolist(), *label.tolist())
            for x, y in batches
            for row, label in zip(x, y, strict=True)
        ]
        assert known.issuperset(found) and len(found) == 70


def test_all_rows_of_a_split():
    data = Digits(batch_size=100, binarization="dynamic")
    for stage in ("train", "val", "test"):
        x, y = (torch.cat(part) for part in zip(*data.rows(stage), strict=True))
        assert torch.equal(y, data.splits[stage].attributes) and torch.equal(x[:5], data.examples(5, stage))
        assert set(x.unique().tolist()) == {0.0, 1.0}


def test_hidden_attributes():
    whole, data, again = Digits(strokes=True), Digits(strokes=True, missing=0.9), Digits(strokes=True, missing=0.9)
    for part in (whole, data, again):
        part.setup()
    hidden = data.splits["train"].attributes.isnan()
    assert hidden.float().mean(0).tolist() == pytest.approx([0.9] * 3, abs=0.03)
    assert hidden.all(1).float().mean().item() == pytest.approx(0.9**3, abs=0.04)  # each entry by itself
    assert torch.equal(data.splits["train"].attributes[~hidden], whole.splits["train"].attributes[~hidden])
    assert torch.equal(hidden, again.splits["train"].attributes.isnan())
    for stage in ("val", "test"):
        assert torch.equal(data.splits[stage].attributes, whole.splits[stage].attributes)


def test_attributes_kept(folder):
    data = ImageFolder(folder, "attributes.csv", keep=["gender"], test=5, validation=5)
    assert batch_of(data)[1].shape == (10, 1) and data.attribute_names == ("gender",)
    rows = torch.cat([split.attributes for split in data.splits.values()])
    assert set(rows[~rows.isnan()].tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="keep: attributes are age, gender, found hat"):
        ImageFolder(folder, "attributes.csv", keep=["gender", "hat"]).setup()


def test_mnist_arrays(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 256, (50, 28, 28), np.uint8), "y_train": rng.integers(0, 10, 50)}
    np.savez(tmp_path / "mnist.npz", **arrays, x_test=arrays["x_train"][:9], y_test=arrays["y_train"][:9])
    data = MNIST(tmp_path / "mnist.npz", batch_size=9, validation=10)
    x, y = batch_of(data, "test")
    np.testing.assert_array_equal(x.mul(255).round().numpy()[:, 0], arrays["x_train"][:9])
    np.testing.assert_array_equal(y[:, 0], arrays["y_train"][:9])
    assert len(data.splits["train"].images) == 40


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_as_images(tmp_path, packed):
    root = tmp_path / "cifar"
    for part in ("train", "test"):
        for i, label in enumerate(("cat", "airplane")):
            for n in range(5):
                write_image(root / part / label / f"{n:04}.png", 100 * i + n, (32, 32))
    data = CIFAR10(zipped(root) if packed else root, batch_size=20, validation=2)
    x, y = batch_of(data, "test")
    assert x.shape == (10, 3, 32, 32)
    assert torch.equal((x[:, 0, 0, 0] * 255 > 50).float(), 1 - y[:, 0])  # airplane is class 0, its images are brighter


@pytest.fixture
def celeba(tmp_path, monkeypatch) -> Path:
    """Six images as torchvision's CelebA finds them, two in each part, with a name more than the default ones."""
    from torchvision import datasets

    root = tmp_path / "celeba"
    names = [f"{i:06}.png" for i in range(6)]
    for i, name in enumerate(names):
        write_image(root / "img_align_celeba" / name, 40 * i, (178, 218))
    known = ["Blurry", *CELEBA_ATTRIBUTES]
    values = [["1" if (i + j) % 2 else "-1" for j in range(len(known))] for i in range(len(names))]
    rows = "".join(f"{name} {' '.join(row)}\n" for name, row in zip(names, values, strict=True))
    (root / "list_attr_celeba.txt").write_text(f"{len(names)}\n{' '.join(known)}\n{rows}")
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {i // 2}\n" for i, n in enumerate(names)))
    (root / "identity_CelebA.txt").write_text("".join(f"{n} 1\n" for n in names))
    (root / "list_bbox_celeba.txt").write_text("6\nx y w h\n" + "".join(f"{n} 0 0 1 1\n" for n in names))
    (root / "list_landmarks_align_celeba.txt").write_text("6\na b\n" + "".join(f"{n} 0 0\n" for n in names))
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)
    return tmp_path


def test_celeba_is_cut_as_in_the_paper(celeba):
    x, y = batch_of(CelebA(celeba, keep=["Bangs", "Blurry"], batch_size=2), "val")
    assert x.shape == (2, 3, 64, 64) and y.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_attributes_of_celeba(celeba):
    assert len(set(CELEBA_ATTRIBUTES)) == 14
    data, everything = CelebA(celeba, batch_size=2), CelebA(celeba, keep=None, batch_size=2)
    y, all_of_them = batch_of(data, "val")[1], batch_of(everything, "val")[1]
    assert tuple(data.attribute_names) == CELEBA_ATTRIBUTES
    assert tuple(everything.attribute_names) == ("Blurry", *CELEBA_ATTRIBUTES)
    assert torch.equal(y, all_of_them[:, 1:]) and set(y.flatten().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match=r"keep: attributes are Blurry, Bald, .*, Young, found Old"):
        CelebA(celeba, keep=["Old"]).setup()
    with pytest.raises(ValueError, match="keep must be a list of names, found 'Smiling'"):
        CelebA(celeba, keep="Smiling")


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


def test_categories_of_known_data(tmp_path):
    data = Digits(strokes=True, keep=["slant"])
    assert data.summary() == ["attributes: slant (left = 0, upright = 1, right = 2)"]
    many = listed([f"c{i}" for i in range(30)])
    assert many.startswith("c0 = 0, c1 = 1,") and many.endswith("c11 = 11, ... c29 = 29")


# ---------------------------------------------------------------------------------------------------------- bad input


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


def damaged(file: Path, name: str) -> None:
    """Put other bytes into the middle of what a member of an archive holds."""
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo(name)
    content = bytearray(file.read_bytes())
    start = member.header_offset + 30 + len(name)
    content[start : start + member.compress_size] = b"\xff" * member.compress_size
    file.write_bytes(content)


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


def test_cifar_in_another_layout(tmp_path):
    write_image(tmp_path / "x" / "cat" / "0.png", 0)
    with pytest.raises(InputError, match=r"laid out as train\|test/CLASS/NAME, found x/cat/0\.png"):
        CIFAR10(tmp_path).setup()


def test_arrays_that_are_none(tmp_path):
    file = tmp_path / "mnist.npz"
    with pytest.raises(InputError, match="there is no such file"):
        MNIST(file).setup()
    file.write_text("no")
    with pytest.raises(InputError, match=r"not a readable \.npz file"):
        MNIST(file).setup()
    with file.open("wb") as target:
        np.save(target, np.zeros(3))
    with pytest.raises(InputError, match=r"not a readable \.npz file"):
        MNIST(file).setup()
    np.savez(file, x_train=np.zeros(3))
    with pytest.raises(InputError, match="arrays x_test, y_test, y_train are missing, found x_train"):
        MNIST(file).setup()
    labels, images = np.zeros(3), np.zeros((3, 28, 28))
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(
        InputError, match=r"x_train must be \(n, height, width\) in uint8 .* found \(3, 28, 28\) in float64"
    ):
        MNIST(file).setup()


def test_arrays_that_are_damaged(tmp_path):
    file = tmp_path / "mnist.npz"
    np.savez_compressed(file, x_train=np.arange(1000))
    content = file.read_bytes()
    file.write_bytes(content[:-40])
    with pytest.raises(InputError, match=r"mnist\.npz: not a readable \.npz file \(File is not a zip file"):
        MNIST(file).setup()
    file.write_bytes(content)
    damaged(file, "x_train.npy")
    with pytest.raises(InputError, match=r"mnist\.npz: not a readable \.npz file \(Error -3 while decompressing"):
        MNIST(file).setup()


@pytest.mark.parametrize("make", [MNIST, CIFAR10, CelebA])
def test_folders_without_what_torchvision_looks_for(tmp_path, make):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InputError, match=rf"{tmp_path}: torchvision cannot read {make.__name__} .*Dataset not found"):
        make(tmp_path).setup()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"binarization": "both"}, "binarization must be None or one of static, dynamic, found 'both'"),
        ({"missing": 1.1}, r"missing must be a share in \[0, 1\], found 1.1"),
        ({"missing": -0.1}, r"missing must be a share in \[0, 1\], found -0.1"),
        ({"keep": ["digit", "digit"]}, "keep must name each attribute once, found digit, digit"),
        ({"validation": 5000}, "validation must leave some of the 1438 images on either side, found 5000"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options).setup()
