"""Every benchmark runs at toy size and writes its page, its numbers and its figure."""

from __future__ import annotations

import io
import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.__main__ import benchmarks, main

ROOT = Path(__file__).parents[2]


class Toy(NamedTuple):
    """Options of a small run: `{data}` in them is the folder that `files` fills."""

    options: str
    files: Callable[[Path], object] = lambda folder: None
    figure: bool = True
    needs: tuple[str, ...] = ()
    slow: bool = False


def binary(*names: str) -> Callable[[Path], None]:
    """0/1 tables in the format of the density literature."""

    def write(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for name in names:
            for part, rows in (("train", 60), ("valid", 20), ("test", 20)):
                x = np.repeat(rng.integers(2, size=(rows, 4)), 2, axis=1) ^ (rng.random((rows, 8)) < 0.1)
                np.savetxt(folder / f"{name}.{part}.data", x, fmt="%d", delimiter=",")

    return write


def photographs(folder: Path) -> None:
    """An archive of colour images under the names of CIFAR-10's parts."""
    from PIL import Image

    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for part, count in (("train", 60), ("test", 15)):
            for i in range(count):
                file = io.BytesIO()
                Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(file, format="PNG")
                archive.writestr(f"{part}/{i:03}.png", file.getvalue())


def handwriting(folder: Path) -> None:
    """Random ink in the arrays of mnist.npz."""
    rng = np.random.default_rng(0)
    sizes = {"train": 80, "test": 20}
    images = {f"x_{part}": rng.integers(256, size=(n, 28, 28), dtype=np.uint8) for part, n in sizes.items()}
    labels = {f"y_{part}": rng.integers(10, size=n) for part, n in sizes.items()}
    np.savez(folder / "mnist.npz", **images, **labels)


TOYS = {
    "acceleration": Toy("--datasets digits --repeats 1", figure=False, slow=True),
    "backends": Toy("--ranks 2 --repeats 1", needs=("jax",), slow=True),
    "codes": Toy("--datasets digits --seeds 1 --updates 2 --epochs 1 --sizes 3", slow=True),
    "conditional": Toy(
        "--datasets digits --seeds 1 --updates 2 --missing 0.5 --models CVAE flow --samples 20", slow=True
    ),
    "continuous": Toy("--images {data}/images.zip --patches 200 --epochs 1", photographs, slow=True),
    "cores": Toy("--ranks 3 --device cpu --repeats 1", slow=True),
    "density": Toy("--data {data} --datasets plants --ranks 2 --budget 1", binary("plants")),
    "gan": Toy("--datasets digits --seeds 1 --updates 2 --priors N(0 codes", slow=True),
    "gradients": Toy("--repeats 3 --ranks 2 --batches 4 --gaps 2"),
    "memory": Toy("--ranks 2 --rows 100 --em-rows 20000 --repeats 1", slow=True),
    "mixed": Toy("--repeats 1 --epochs 1", slow=True),
    "ordering": Toy("--data {data} --random 1 --rows 50 --epochs 1", binary("nltcs", "plants"), slow=True),
    "precision": Toy("--ranks 3 --device cpu"),
    "profile": Toy("--ranks 2 --repeats 1", slow=True),
    "rank": Toy("--datasets digits --seeds 1 --updates 2 --ranks 2 --samples 2", slow=True),
    "scaling": Toy("--columns 4 8 --ranks 2 4 --repeats 1", slow=True),
    "speed": Toy("--ranks 2 --device cpu --repeats 1", slow=True),
    "topology": Toy("--mnist {data}/mnist.npz --ranks 2 --rows 60 --epochs 1 --restarts 1", handwriting, slow=True),
    "vae": Toy("--datasets digits --seeds 1 --updates 2 --samples 2 --priors N(0 VampTRIP CP --equal-time", slow=True),
}
ELSEWHERE = {"cuda", "em", "genomes", "sequences", "synthetic", "tables", "demo"}  # in a file of their own


def numbers(value: Any) -> Iterator[float]:
    """Every number in nested lists and dictionaries."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.mark.filterwarnings("default")  # libraries' advice does not matter here
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * toy.slow) for name, toy in TOYS.items()]
)
def test_a_run_at_toy_size(name, tmp_path, monkeypatch, capsys):
    toy, out = TOYS[name], tmp_path / "out"
    for module in toy.needs:
        pytest.importorskip(module)
    toy.files(tmp_path)
    options = toy.options.format(data=tmp_path).split()
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, *options, "--out", str(out)])
    monkeypatch.chdir(tmp_path)
    main()
    page, results = (out / f"{name}.md").read_text(), json.loads((out / f"{name}.json").read_text())["results"]
    assert page in capsys.readouterr().out
    assert (out / f"{name}.png").exists() == toy.figure
    assert results and all(results.values()), results
    found = list(numbers(results))
    assert found and all(math.isfinite(number) for number in found), results


def test_every_benchmark_is_run_by_a_test():
    assert TOYS.keys() | ELSEWHERE == benchmarks().keys()
    assert not TOYS.keys() & ELSEWHERE
    for name in ELSEWHERE:
        assert (ROOT / "tests" / "benchmarks" / f"test_{name}.py").exists(), name
