"""Studies of generative models: runs that add up, what is kept of them, what their seconds are."""

import argparse
import json
import time

import pytest

pytest.importorskip("lightning")

import torch
from lightning.pytorch import Callback

from adapters import TRIP
from adapters.data import Digits
from adapters.models import VAE
from adapters.networks import ConvDecoder, ConvEncoder
from benchmarks import training
from tests.lightning_warnings import IGNORED

pytestmark = [
    *IGNORED,
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]


def arguments(runs, **options) -> argparse.Namespace:
    return argparse.Namespace(**{"runs": runs, "seeds": 2, "seconds": float("inf"), "updates": None} | options)


def study(runs, done: list, parts=None, **options):
    """A study of two candidates, and which runs it made."""

    def candidate(label):
        def run(seed, folder):
            done.append((label, seed))
            return {"score": 3.0 + seed, "parameters": 5, "share": 0.5}

        return run

    return training.study(
        arguments(runs, **options), "toy", {label: candidate(label) for label in ("a", "b")}, ("score",), parts=parts
    )


def test_runs_add_up(tmp_path, capsys):
    done = []
    assert [row["prior"] for row in study(tmp_path, done, ["a"], seeds=1)] == ["a"]
    assert done == [("a", 0)]
    rows = study(tmp_path, done, ["b"], seeds=1)
    assert done == [("a", 0), ("b", 0)] and [row["prior"] for row in rows] == ["a", "b"]
    rows = study(tmp_path, done)
    assert sorted(done) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert rows[0]["score"] == "3.50 ± 0.71" and rows[0]["seeds"] == 2
    assert study(tmp_path, done, seeds=1, seconds=0) == rows and len(done) == 4  # all seeds that there are
    with pytest.raises(SystemExit, match="a run with --updates None, not 7: use another --runs"):
        study(tmp_path, done, updates=7)
    for path in tmp_path.rglob("result.json"):  # as older versions wrote them
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "updates"}))
    study(tmp_path, done, updates=7)
    assert len(done) == 4 and not list(tmp_path.rglob("*.part"))


def test_without_a_folder_every_run_is_made(capsys):
    done = []
    study(None, done)
    study(None, done, seconds=0)
    assert len(done) == 4


def make() -> VAE:
    torch.manual_seed(0)
    return VAE(ConvEncoder((1, 8, 8), 8, (8, 16)), ConvDecoder(4, (1, 8, 8), (8, 16)), TRIP(4, 3, 2))


class Stop(Callback):
    """Interrupts at an epoch, and takes its time before every one."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("interrupted")
        time.sleep(0.2)


def test_what_is_kept_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    data = Digits(batch_size=400)
    data.setup()
    updates = 3 * len(data.train_dataloader())  # three epochs
    with pytest.raises(RuntimeError, match="interrupted"):
        training.fit(make(), data, updates, tmp_path / "broken", [Stop(2)])
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["last.ckpt"]
    large = (tmp_path / "broken" / "last.ckpt").stat().st_size
    resumed, whole, again = make(), make(), make()
    training.fit(resumed, data, updates, tmp_path / "broken", [Stop(-1)])
    training.fit(whole, data, updates, tmp_path / "whole")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    (kept,) = (tmp_path / "broken").iterdir()
    assert kept.name == "weights.pt" and kept.stat().st_size < 0.5 * large
    assert torch.load(kept, weights_only=True)["seconds"] >= 3 * 0.2  # before and after the interruption
    trainer = training.fit(again, data, updates, tmp_path / "broken", [Stop(0)])  # nothing is trained
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())
    assert trainer.test(again, data, verbose=False)[0]["test_elbo"] < 0


def test_a_run_that_a_callback_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    data = Digits(batch_size=400)

    class Enough(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    training.fit(make(), data, 8, tmp_path, [Enough()])
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    training.fit(make(), data, 8, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_seconds_are_those_of_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    data = Digits(batch_size=1300)

    def run(seed, folder):
        training.fit(make(), data, 1, folder)
        time.sleep(1.5)  # an evaluation
        return {"score": 1.0, "parameters": 1, "share": 0.1}

    (row,) = training.study(arguments(tmp_path, seeds=1), "toy", {"a": run}, ("score",))
    assert 0 < row["s"] < 1.5
