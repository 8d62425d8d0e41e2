"""`python -m benchmarks demo` with fewer epochs, and the summary that ends `make demo`."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import numpy as np
import pytest

from adapters.cli import main
from adapters.data import Digits
from benchmarks import demo
from tests.adapters.command import tiny

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    demo.main(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.slow
def test_a_run_of_one_epoch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "RANK", 2)
    monkeypatch.setattr(demo, "COMPONENTS", 2)
    monkeypatch.setattr(demo, "CLUSTERS", 4)
    run("--out", tmp_path)
    printed = capsys.readouterr()
    scores = [float(score) for score in re.findall(r"-\d+\.\d\d", printed.out)]
    assert len(scores) == 4 and all(-300 < score < -100 for score in scores), printed.out
    assert "epoch" in printed.err, "no progress bar"
    for name in ("completions.png", "samples.png"):
        assert (tmp_path / name).stat().st_size > 1000


def test_a_train_of_bands_reads_labels_off():
    """With a quarter of the clusters; it knows the columns in the order of the table."""
    train, valid, _ = demo.digits(np.random.default_rng(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "CLUSTERS", 10)
        ring = demo.bands(train, seed=1)
    assert demo.labels_read_off(ring, valid) > 0.7
    assert list(demo.hide_label(valid)[0, :64]) == list(valid[0, :64])


def test_the_judge_knows_real_digits():
    data = Digits(strokes=True)
    data.setup()
    judge, right = demo.judge_of_digits(data)
    assert right > 0.97
    images = data.examples(50, "test")
    assert (judge(images) == data.splits["test"].attributes[:50, 0].numpy()).mean() > 0.9
    assert (judge(1 - images) == data.splits["test"].attributes[:50, 0].numpy()).mean() < 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sevens_are_drawn_and_judged(tmp_path, monkeypatch, capsys, command_line):
    main(["fit", "--config", tiny(tmp_path / "run.yaml", "conditional_digits", max_epochs=1)])
    monkeypatch.setattr(demo, "PRIOR_EPOCHS", 1)
    checkpoint = next(tmp_path.rglob("step.ckpt"))
    run("--out", tmp_path, "--sevens", checkpoint)
    printed = capsys.readouterr().out
    assert len(re.findall(r"Of 64 thick sevens asked for .* finds \d+ sevens", printed)) == 2, printed
    assert (tmp_path / "sevens.png").stat().st_size > 1000


def test_the_summary_lists_the_newest_pictures(tmp_path, capsys):
    files = ["completions.png", "vae_digits/version_0/figures/samples.png", "vae_digits/version_1/figures/samples.png"]
    for i, name in enumerate(files):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (i, i))
    run("--out", tmp_path, "--summary")
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith(f"  {tmp_path}")]
    assert listed == [str(tmp_path / files[0]), str(tmp_path / files[2])]
    assert not any("conditional/" in line for line in lines)
    assert any("What was done" in line for line in lines) and any("What to try next" in line for line in lines)


def test_the_summary_names_what_there_is():
    """The files that it recommends exist, and `make demo` ends with it."""
    for path in re.findall(r"(?:docs|adapters)/\S+", demo.NEXT):
        assert (ROOT / path).exists(), path
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
    assert recipe.splitlines()[-1].endswith("benchmarks demo --summary")
