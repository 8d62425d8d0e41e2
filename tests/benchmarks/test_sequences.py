"""`python -m benchmarks sequences` at toy sizes, and n-grams against a count by hand."""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pytest

import ringdist as rd
from benchmarks import data, sequences


def options(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    sequences.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_a_run_at_toy_sizes(tmp_path, capsys):
    sizes = ["--ranks", 3, "--epochs", 2, "--batches", 2, "--order", 2, "--windows", 30]
    sequences.main(options(*sizes, "--rival-windows", 5, "--rival-epochs", 1, "--out", tmp_path))
    page, results = (tmp_path / "sequences.md").read_text(), json.loads((tmp_path / "sequences.json").read_text())
    assert page in capsys.readouterr().out
    assert (tmp_path / "sequences.png").exists()
    rows = {row["model"]: row for row in results["results"]["Nats per character"]}
    assert list(rows) == ["1-gram", "2-gram", "untied train", "tied train"]
    assert rows["tied train"]["parameters"] == 3 * 27 + 3 * 2 + 2 < rows["untied train"]["parameters"]
    assert all(-np.log(28) - 1 < float(row["test"]) < 0 for row in rows.values())
    assert {row["model"] for row in results["results"]["Hidden characters"]} > {"tied train", "untied train"}


def test_the_text():
    split = data.manual(32)
    assert [windows.shape[1] for windows in split] == [32] * 3
    assert len(split.train) > 6 * len(split.validation) > 0 and len(split.test) > 1.9 * len(split.validation)
    codes = np.concatenate([windows.ravel() for windows in split])
    assert codes.min() == 0 and codes.max() == 27
    shares = np.bincount(codes) / codes.size
    assert (
        shares[26] > 0.1 and shares[ord("e") - ord("a")] == shares[:26].max()
    )  # white space, and the commonest letter
    assert not np.any((codes[1:] == 26) & (codes[:-1] == 26))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_strings_are_counted_within_windows(n):
    windows = np.random.default_rng(n).integers(28, size=(6, 5))
    counts = sequences.counted(windows, n)
    assert counts.sum() == 6 * (6 - n)
    for row in windows:
        for place in range(6 - n):
            counts[tuple(row[place : place + n])] -= 1
    assert not counts.any()


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_n_grams_are_distributions_of_windows(alpha):
    windows = np.random.default_rng(0).integers(28, size=(40, 6))
    tables = [sequences.smoothed(sequences.counted(windows, n), alpha) for n in (1, 2, 3)]
    pairs = np.array(list(itertools.product(range(28), repeat=2)))
    total = sum(np.exp(2 * sequences.nats(tables, pair[None])) for pair in pairs)
    assert total == pytest.approx(1)
    a, b, c, d = windows[0, :4]
    expected = tables[0][a] * tables[1][a, b] * tables[2][a, b, c] * tables[2][b, c, d]
    assert 4 * sequences.nats(tables, windows[:1, :4]) == pytest.approx(np.log(expected))


def test_hidden_characters_are_found_where_the_others_tell_them():
    """All characters of a window are equal, so that one of them tells all."""
    kinds = np.random.default_rng(0).integers(28, size=50)
    windows = np.repeat(kinds[:, None], 8, axis=1).astype(np.int8)
    split = data.Split(windows, windows, windows)
    same = [rd.CPCore(np.full((1, 28), 1 / 28) if k == 0 else None, np.eye(28), None) for k in range(7)]
    ring = rd.TensorRing([*same, rd.CPCore(None, np.eye(28), np.ones((28, 1)))], [rd.Categorical(28)] * 8)
    rows = sequences.hidden(split, {(28, True): ring})
    assert rows[1]["right"] == "100.0%"
    assert float(rows[0]["right"].rstrip("%")) < 50
