"""MNIST, CIFAR-10 and CelebA as files, and errors for files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch

from adapters.data import CIFAR10, MNIST, CelebA
from adapters.data.known import CELEBA_ATTRIBUTES
from adapters.errors import InputError
from tests.adapters.data.cases import batch_of, damaged, write_image, zipped


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
