"""`python -m benchmarks cuda`: the dry run, going on with an earlier run, packing, publishing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cuda import checks, compact, packing, rings, samplers
from benchmarks.cuda.session import Item, Options, Session, heartbeat, overdue, read

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks", "cuda"]


def command(*arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    parts = [*COMMAND, *map(str, arguments)]
    return subprocess.run(parts, cwd=ROOT, env=environment, capture_output=True, text=True, check=check)


def dry_run(folder: Path, minutes: float, *options: object, check: bool = True) -> subprocess.CompletedProcess:
    places = ["--out", folder / "out", "--scratch", folder / "scratch"]
    return command("--dry-run", "--device", "cpu", "--minutes", minutes, *places, *options, check=check)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished dry run."""
    folder = tmp_path_factory.mktemp("cuda")
    dry_run(folder, 2)
    return folder


@pytest.mark.slow
def test_a_dry_run_measures_every_part(ran):
    parts = read(ran / "out")["parts"]
    assert list(parts) == ["correctness", "speed", "limits", "training"]
    problems = {name: r["error"] for items in parts.values() for name, r in items.items() if r["status"] != "ok"}
    assert not problems
    wrong = [row for r in parts["correctness"].values() for row in r["value"] if row["ok"] != "yes"]
    assert not wrong
    files = list((ran / "out").iterdir())
    assert len(files) <= 8
    assert max(file.stat().st_size for file in files) < 16e6


@pytest.mark.slow
def test_another_run_goes_on_with_what_is_there(ran):
    before = read(ran / "out")
    begin = time.monotonic()
    dry_run(ran, 1)
    after = read(ran / "out")
    assert time.monotonic() - begin < 60
    assert len(after["calls"]) == 2
    for part in ("correctness", "speed", "limits"):
        assert json.dumps(after["parts"][part]) == json.dumps(before["parts"][part])  # NaN is not itself
    first, second = (after["parts"]["training"][f"wgan-trip, call {n}"]["value"]["rows"][0] for n in (1, 2))
    assert second["goes on from"] == "checkpoint"
    assert second["batches"] > first["batches"]


@pytest.mark.slow
def test_a_fresh_machine_goes_on_from_the_weights_it_is_given(ran, tmp_path):
    results = read(ran / "out")
    results["parts"].pop("training")
    (tmp_path / "out").mkdir()
    for file in (ran / "out").iterdir():
        (tmp_path / "out" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "out" / "results.json").write_text(json.dumps(results))
    dry_run(tmp_path, 1)
    rows = {r["run"]: r for v in read(tmp_path / "out")["parts"]["training"].values() for r in rows_of(v["value"])}
    assert {row["goes on from"] for row in rows.values()} == {"carried weights"}
    assert all("Fréchet distance" in row for row in rows.values())


def rows_of(value: object) -> list[dict]:
    return value["rows"] if isinstance(value, dict) else value


@pytest.mark.slow
def test_the_pages_of_a_run(ran, tmp_path):
    command("--publish", ran / "out", "--pages", tmp_path)
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.md")}
    kinds = {"checks", "speed", "profile", "precision", "scaling", "training"}
    assert set(pages) == {f"{kind}-cuda" for kind in kinds}
    assert "| rank |" in pages["speed-cuda"]
    for name, page in pages.items():
        assert str(ran) not in page, name  # no path of this machine
    for picture in ("faces", "wgan-trip", "wgan-normal"):
        assert (tmp_path / f"training-cuda-{picture}.png").is_file()


@pytest.mark.slow
def test_a_dry_run_is_not_published_among_the_results(ran):
    assert "dry run is not published" in command("--publish", ran / "out", check=False).stderr


@pytest.mark.slow
def test_runs_of_different_kinds_do_not_share_a_folder(ran):
    found = command("--device", "cpu", "--minutes", 1, "--out", ran / "out", "--scratch", ran / "scratch", check=False)
    assert found.returncode == 1
    assert "must agree" in found.stderr


@pytest.mark.slow
def test_the_budget_is_kept(tmp_path):
    begin = time.monotonic()
    dry_run(tmp_path, 0.3)
    assert time.monotonic() - begin < 35
    assert "correctness" in read(tmp_path / "out")["parts"]


def test_an_item_that_fails_or_takes_too_long_is_written_down(tmp_path):
    session = Session(options(tmp_path, 60))
    assert not session.run("a", Item("broken", lambda: 1 / 0), time.monotonic() + 60)
    assert not session.run("a", Item("slow", lambda: time.sleep(5), limit=1.0), time.monotonic() + 60)
    assert session.run("a", Item("good", lambda: [1.0]), time.monotonic() + 60)
    records = read(tmp_path)["parts"]["a"]
    assert records["broken"]["error"].startswith("ZeroDivisionError")
    assert records["slow"]["error"].startswith("OutOfTime")
    assert records["good"]["value"] == [1.0]
    assert all(session.settled("a", name) for name in records)
    later = Session(options(tmp_path, 60, call=2))
    assert [name for name in records if not later.settled("a", name)] == ["broken", "slow"]


def test_what_a_worker_died_of_is_written_down(tmp_path):
    session = Session(options(tmp_path, 60))
    session.record("a", "crash", status="running")
    Session(options(tmp_path, 60)).bury("signal 11")
    assert read(tmp_path)["parts"]["a"]["crash"] == {"call": 1, "status": "failed", "error": "signal 11"}
    heartbeat(tmp_path, 10.0)
    assert [overdue(tmp_path, now, 5.0) for now in (9.0, 14.0, 16.0)] == [False, False, True]
    heartbeat(tmp_path, None)
    assert not overdue(tmp_path, 1e9, 5.0)


def options(out: Path, seconds: float, call: int = 1) -> Options:
    end = time.monotonic() + seconds
    return Options(device="cpu", small=True, out=out, scratch=out / "scratch", end=end, call=call)


@pytest.mark.parametrize("seed", [0, 1])
def test_packed_archives_come_back_as_they_were(tmp_path, seed):
    from PIL import Image

    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(tmp_path / "faces64.zip", "w") as files:
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "one.jpg")
            files.write(tmp_path / "one.jpg", f"images/{i}.jpg")
        files.writestr("attributes.csv", "image,age\n0.jpg,3\n")
    packing.pack_all(tmp_path, tmp_path / "packed")
    packed = tmp_path / "packed" / "faces64.zip.packed"
    assert packed.stat().st_size < 0.8 * (tmp_path / "faces64.zip").stat().st_size
    folder = packing.find(tmp_path / "packed", "faces64.zip", tmp_path / "scratch")
    assert folder == tmp_path / "scratch"
    assert contents(folder / "faces64.zip") == contents(tmp_path / "faces64.zip")
    assert packing.find(tmp_path / "packed", "cifar10_images.zip", tmp_path / "scratch") is None


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as files:
        return {name: files.read(name) for name in files.namelist()}


def test_weights_are_carried_in_small_files(tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "SHARD", 3000)
    model, other = torch.nn.Linear(40, 50), torch.nn.Linear(40, 50)
    compact.save(model, tmp_path / "run", batches=7)
    assert len(list(tmp_path.glob("run.*"))) > 1
    assert max(path.stat().st_size for path in tmp_path.glob("run.*")) <= 3000
    assert compact.load(other, tmp_path / "run") == {"batches": 7}
    torch.testing.assert_close(other.weight, model.weight, rtol=1e-3, atol=1e-5)
    assert compact.load(other, tmp_path / "none") is None


@pytest.mark.parametrize("name", ["uniform ring", "uneven ranks", "table"])
def test_samples_of_another_ring_are_found_out(name):
    """The measure of samplers is small for the ring's own samples and large for those of a slightly different one."""
    ring = rings.case(name, False).on("cpu", torch.float64).ring
    cores = list(ring.cores)
    cores[1] = cores[1] * torch.linspace(0.5, 2, cores[1].shape[0])[:, None, None]
    other = type(ring)(cores, ring.variables, ring.order)
    assert samplers.unlikeliness(ring, ring.sample(4000, rng=0)) < samplers.ALLOWED
    assert samplers.unlikeliness(ring, other.sample(4000, rng=0)) > samplers.ALLOWED


def test_distances_notice_what_is_not_a_number():
    nan, inf = float("nan"), float("inf")
    assert rings.distance([1.0, nan, -inf], [1.0, nan, -inf]) == 0
    assert rings.distance([1.0, nan], [1.0, 2.0]) == inf
    assert rings.distance([1.0, inf], [1.0, 2.0]) == inf
    assert rings.distance([3.0], [2.0]) == pytest.approx(1 / 3)
    assert rings.distance([3.0], [2.0, 2.0]) == inf


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([-3.0, -1.0], [-3.5, -1.0], 0.0),
        ([-3.0, -1.5], [-3.5, -1.0], 0.5),
        ([-3.0, np.nan], [-3.0, -1.0], np.inf),
        ([-np.inf, -1.0], [-3.0, -1.0], np.inf),
    ],
    ids=["better", "worse", "NaN", "no mass"],
)
def test_a_better_completion_is_no_error(found, expected, error):
    assert checks.shortfall(torch.tensor(found), torch.tensor(expected)) == error
