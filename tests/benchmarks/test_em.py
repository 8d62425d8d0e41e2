"""`python -m benchmarks em` at toy sizes, and what it compares: the same models on every side."""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pytest

from benchmarks import em, em_rivals
from benchmarks.em_rivals import Hmm, Train


def options(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    em.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


# tensorkrowch, where it is installed, indexes in a way that PyTorch warns of
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_at_toy_sizes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "plants.train.data", rng.integers(2, size=(40, 5)), fmt="%d", delimiter=",")
    for part in ("valid", "test"):
        np.savetxt(tmp_path / f"plants.{part}.data", rng.integers(2, size=(5, 5)), fmt="%d", delimiter=",")
    sizes = ["--rows", 20, 30, "--columns", 4, "--ranks", 2, 3, "--fit-rank", 3, "--target", -3.6]
    em.main(options(*sizes, "--max-epochs", 3, "--epochs", 1, "--repeats", 1, "--data", tmp_path, "--out", tmp_path))
    page, results = (tmp_path / "em.md").read_text(), json.loads((tmp_path / "em.json").read_text())["results"]
    assert page in capsys.readouterr().out
    assert (tmp_path / "em.png").exists()
    assert [row["rows"] for row in results["Cost of an epoch by rows"]] == [20, 30]
    for row in results["Cost of an epoch by ranks"]:
        for pair, categories in (("cp, NumPy", 1), ("dense, PyTorch", 4)):
            units = row["rows"] * row["columns"] * categories * row["rank"] ** 2
            assert row[f"{pair}, ns / unit"] * units == pytest.approx(1e6 * row[f"{pair}, ms"])
    assert {row["core"] for row in results["Seconds to a given likelihood"]} == {"cp", "dense"}
    assert all("/" not in row["function"] for row in results["An epoch by function, NumPy"])
    for row in results["EM of a hidden Markov model"] + results["A gradient step"]:
        assert row["ringdist, ms"] > 0


@pytest.mark.parametrize(
    ("history", "target", "epochs", "seconds"),
    [([-3.0, -2.0, -1.0], -2.0, 2, 5.0), ([-3.0, -2.0], -4.0, 1, 4.0), ([-3.0, -2.0], -1.0, None, None)],
)
def test_seconds_to_a_target(history, target, epochs, seconds):
    found = em.reached(history, target, 1.0, 2.0 * len(history) + (len(history) == 2) * 2.0)
    assert found["epochs"] == epochs
    assert found["seconds"] == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(("states", "categories", "columns"), [(1, 2, 2), (3, 2, 4), (2, 3, 3)])
def test_the_train_is_the_hidden_markov_model(states, categories, columns):
    hmm = Hmm.draw(states, categories, np.random.default_rng(states))
    for row in itertools.product(range(categories), repeat=columns):
        mass = 0.0
        for path in itertools.product(range(states), repeat=columns):
            steps = np.prod([hmm.transition[a, b] for a, b in itertools.pairwise(path)])
            mass += hmm.start[path[0]] * steps * np.prod([hmm.emission[a, s] for a, s in zip(path, row, strict=True)])
        assert float(hmm.train(columns).log_prob(np.array(row))) == pytest.approx(np.log(mass))


def test_sequences_are_drawn_from_the_model():
    rng = np.random.default_rng(0)
    hmm = Hmm.draw(3, 2, rng)
    x = hmm.sample(20_000, 3, rng)
    seen = np.bincount(x @ [4, 2, 1], minlength=8) / len(x)
    expected = np.exp([hmm.train(3).log_prob(np.array(row)) for row in itertools.product(range(2), repeat=3)])
    np.testing.assert_allclose(seen, expected, atol=0.015)


def test_both_gradient_steps_start_from_the_models_likelihood():
    rng = np.random.default_rng(0)
    hmm, train = Hmm.draw(3, 2, rng), Train.draw(4, 2, 3, rng)
    x = rng.integers(2, size=(10, 4))
    assert em_rivals.our_hmm(hmm, x)() == pytest.approx(hmm.train(4).log_prob(x).mean(), rel=1e-5)
    rows = np.array(list(itertools.product(range(2), repeat=4)))
    masses = np.exp([em_rivals.our_train(train, row[None])() for row in rows])
    assert masses.sum() == pytest.approx(1, rel=1e-5)


def test_hmmlearn_learns_from_the_same_start():
    pytest.importorskip("hmmlearn")
    rng = np.random.default_rng(0)
    hmm = Hmm.draw(3, 2, rng)
    x = hmm.sample(50, 4, rng)
    assert em_rivals.hmmlearn(hmm, x, 1)() >= hmm.train(4).log_prob(x).mean()


def test_cirkit_has_the_same_likelihood():
    pytest.importorskip("cirkit")
    rng = np.random.default_rng(0)
    hmm = Hmm.draw(3, 2, rng)
    x = hmm.sample(20, 4, rng)
    assert em_rivals.cirkit_step(hmm, x)() == pytest.approx(em_rivals.our_hmm(hmm, x)(), rel=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensorkrowch_has_the_same_likelihood():
    pytest.importorskip("tensorkrowch")
    rng = np.random.default_rng(0)
    train, x = Train.draw(5, 2, 3, rng), rng.integers(2, size=(6, 5))
    expected = em_rivals.our_train(train, x)()
    for step in em_rivals.tensorkrowch_steps(train, x).values():
        assert step() == pytest.approx(expected, rel=1e-5)
