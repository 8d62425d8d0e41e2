"""The tables that the benchmarks learn from: read, cut and split, nothing else."""

import io
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHARED = Path("../shared/data")  # beside the repository


class Split(NamedTuple):
    """Rows to learn from, rows to choose by, rows to report on."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def binary(folder: Path, name: str) -> Split:
    """One of the 0/1 tables of the density literature, in its usual split (CSV without a head)."""
    parts = ("train", "valid", "test")
    return Split(*(np.loadtxt(folder / f"{name}.{part}.data", delimiter=",", dtype=np.int8) for part in parts))


def genomes(path: Path) -> Split:
    """Haplotypes as rows, sites as columns, 0/1: 4 008, 500 and 500 rows of 805 sites, no person in two parts."""
    with np.load(path) as arrays:
        return Split(*(arrays[part].astype(np.int8) for part in ("train", "valid", "test")))


def split(x: np.ndarray, rng: np.random.Generator, shares: tuple[float, float] = (0.15, 0.15)) -> Split:
    """Shuffled rows, with these shares for validation and test."""
    rows = x[rng.permutation(len(x))]
    validation, test = (round(share * len(x)) for share in shares)
    return Split(rows[validation + test :], rows[:validation], rows[validation : validation + test])


def patches(path: Path, images: int, per_image: int, rng: np.random.Generator, size: int = 8) -> Split:
    """Grey patches (n, size²) of CIFAR-10 images: dequantised, each with its mean removed, one pixel less.

    A patch without its mean lies in a hyperplane, in which no full-rank Gaussian has a density; the last pixel is
    minus the sum of the others and is left out. Values are in units of 1/256 of the grey scale's range. The three
    parts are cut from different images; train and validation from the training images, test from the test images.
    """
    with zipfile.ZipFile(path) as archive:
        names = {part: sorted(n for n in archive.namelist() if n.startswith(part)) for part in ("train", "test")}
        training = rng.choice(names["train"], images, replace=False)
        held_out = rng.choice(names["test"], images // 4, replace=False)
        cut = [_cut(archive, chosen, per_image, size, rng) for chosen in (training, held_out)]
    border = round(0.8 * images) * per_image
    return Split(cut[0][:border], cut[0][border:], cut[1])


def _cut(archive: zipfile.ZipFile, names: np.ndarray, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    rows = []
    for name in names:
        pixels = np.asarray(Image.open(io.BytesIO(archive.read(str(name)))).convert("L"), dtype=np.float64)
        for top, left in rng.integers(0, np.array(pixels.shape) - size + 1, size=(count, 2)):
            patch = pixels[top : top + size, left : left + size].reshape(-1)
            patch = patch + rng.random(patch.shape)
            rows.append((patch - patch.mean())[:-1])
    return np.array(rows)


def breast_cancer() -> np.ndarray:
    """569 tumours, 30 measurements."""
    from sklearn.datasets import load_breast_cancer

    return np.asarray(load_breast_cancer().data)


def digit_curves(path: Path, rows: int, rng: np.random.Generator) -> dict[str, Split]:
    """Pixels of MNIST digits, ink or none, along a closed contour and along an open line, 28 of each.

    The contour is the border of a square of 8x8 pixels in the middle, clockwise: its last pixel touches its first. The
    line is the middle column from top to bottom. Test rows are MNIST's own.
    """
    with np.load(path) as arrays:
        chosen = rng.choice(len(arrays["x_train"]), rows, replace=False)
        training, test = arrays["x_train"][chosen] > 76, arrays["x_test"] > 76
    border = round(0.85 * rows)
    found = {}
    for name, pixels in {"closed contour": _square(10, 17), "open line": [(i, 14) for i in range(28)]}.items():
        i, j = np.array(pixels).T
        found[name] = Split(training[:border, i, j], training[border:, i, j], test[:, i, j])
    return found


def _square(low: int, high: int) -> list[tuple[int, int]]:
    """The border of a square, clockwise."""
    span = range(low, high)
    top, right = [(low, i) for i in span], [(i, high) for i in span]
    return top + right + [(high, high + low - i) for i in span] + [(high + low - i, low) for i in span]


def manual(length: int = 64) -> Split:
    """English text in windows (n, length) of 28 characters, in the order in which it is read.

    The text is that of Python's own language reference, `pydoc_data.topics` of the standard library, every paragraph
    once. Letters are 0 to 25 in either case, 26 is any run of white space and 27 any other character. Test windows are
    the last fifth, validation windows the tenth before it.
    """
    from pydoc_data.topics import topics

    paragraphs = dict.fromkeys(part for name in sorted(topics) for part in re.split(r"\n\s*\n", topics[name]))
    text = re.sub(r"\s+", " ", " ".join(paragraphs).lower())
    codes = np.array([ord(letter) - ord("a") if "a" <= letter <= "z" else 26 + (letter != " ") for letter in text])
    windows = codes[: len(codes) // length * length].reshape(-1, length).astype(np.int8)
    first, last = round(0.7 * len(windows)), round(0.8 * len(windows))
    return Split(windows[:first], windows[first:last], windows[last:])
