"""`python -m benchmarks genomes` on a toy panel, and its methods against enumeration."""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pytest

from benchmarks import data, genomes


@pytest.fixture
def panel():
    """Haplotypes that are noisy copies of four founders."""
    rng = np.random.default_rng(0)
    founders = rng.integers(2, size=(4, 12))
    x = founders[rng.integers(4, size=120)]
    return np.where(rng.random(x.shape) < 0.05, 1 - x, x).astype(np.uint8)


def test_a_run_on_a_toy_panel(tmp_path, panel, capsys):
    np.savez(tmp_path / "toy.npz", train=panel[:80], valid=panel[80:100], test=panel[100:])
    parser = argparse.ArgumentParser()
    genomes.add_arguments(parser)
    genomes.main(parser.parse_args(["--data", str(tmp_path / "toy.npz"), "--out", str(tmp_path)]))
    results = json.loads((tmp_path / "genomes.json").read_text())["results"]
    assert (tmp_path / "genomes.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "genomes.png").exists()
    for name in genomes.PATTERNS:
        right = {row["method"]: float(row["right"].rstrip("%")) for row in results[f"Hidden: {name}"]}
        assert len(right) == 5
        assert right["train"] > right["most frequent allele"]


def test_the_parts_of_a_panel(tmp_path, panel):
    np.savez(tmp_path / "toy.npz", train=panel[:80], valid=panel[80:100], test=panel[100:])
    split = data.genomes(tmp_path / "toy.npz")
    assert [len(part) for part in split] == [80, 20, 20]
    np.testing.assert_array_equal(split.test, panel[100:])


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("name", list(genomes.PATTERNS))
def test_what_is_hidden(panel, name, share):
    before = panel.copy()
    hidden = np.isnan(genomes.PATTERNS[name](panel, share, np.random.default_rng(0)))
    assert (hidden.sum(axis=1) == round(share * 12)).all()
    assert (hidden == hidden[0]).all() == (name == "same sites")
    np.testing.assert_array_equal(panel, before)


@pytest.mark.parametrize("k", [1, 3])
def test_the_vote_of_the_nearest(panel, k):
    reference, rows = (
        panel[:30].astype(np.float32),
        genomes.hide_random_sites(panel[100:], 0.5, np.random.default_rng(0)),
    )
    for row, found in zip(rows, genomes.vote(reference, rows, k), strict=True):
        typed = ~np.isnan(row)
        mismatches = (reference[:, typed] != row[typed]).sum(axis=1)
        np.testing.assert_allclose(found, reference[np.argsort(mismatches, kind="stable")[:k]].mean(axis=0))


@pytest.mark.parametrize(("change", "error"), [(0.3, 0.1), (0.05, 0.2)])
def test_the_copying_model_against_all_paths(change, error):
    rng = np.random.default_rng(1)
    reference = rng.integers(2, size=(3, 4)).astype(np.float32)
    row = np.array([1, np.nan, 0, np.nan], np.float32)
    mass, ones = 0.0, np.zeros(4)
    for path in itertools.product(range(3), repeat=4):
        weight = np.prod([change / 3 + (1 - change) * (a == b) for a, b in itertools.pairwise(path)])
        copied = reference[list(path), range(4)]
        typed = ~np.isnan(row)
        weight *= np.prod(np.where(copied[typed] == row[typed], 1 - error, error))
        mass, ones = mass + weight, ones + weight * copied
    found = genomes.copying(reference, np.stack([row] * 3), change, error, block=2)
    np.testing.assert_allclose(found, np.stack([ones / mass] * 3), rtol=1e-5)


def test_correlations_count_minor_alleles():
    rng = np.random.default_rng(0)
    truth, dosages = rng.integers(2, size=(200, 4)), rng.random((200, 4))
    frequency = np.array([0.02, 0.97, 0.45, 0.55])
    hidden = rng.random(truth.shape) < 0.5
    found = genomes.correlations(truth, dosages, hidden, frequency)
    flipped, doses = truth.copy(), dosages.copy()
    flipped[:, [1, 3]], doses[:, [1, 3]] = 1 - flipped[:, [1, 3]], 1 - doses[:, [1, 3]]
    for head, columns in (("0-0.05", [0, 1]), ("0.4-0.5", [2, 3])):
        chosen = hidden[:, columns]
        expected = np.corrcoef(flipped[:, columns][chosen], doses[:, columns][chosen])[0, 1] ** 2
        assert float(found[head]) == pytest.approx(expected, abs=6e-4)
    assert found["0.1-0.2"] == ""
    constant = genomes.correlation(truth, np.full_like(dosages, 0.3), hidden)
    assert np.isnan(constant)
