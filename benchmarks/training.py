"""Studies of generative models: several runs per candidate, which pick up where they were stopped."""

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import data, report

Row = dict[str, Any]
Run = Callable[[int, Path], Row]  # from a seed and a folder for checkpoints to the measured values


RESULT = "result.json"  # in the folder of a run that has ended
WEIGHTS = "weights.pt"  # in that of one whose training has: what is kept of its checkpoint
LAST = "last.ckpt"  # in that of one that may go on
PAPER: Row = {  # the paper's size of an autoencoder and its prior
    "latents": 100,
    "rank": 20,
    "channels": (64, 128, 256, 512),
    "updates": 80_000,
    "learning_rate": 1e-4,
    "prior_learning_rate": 1e-3,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A data set, the size of the networks and the optimiser: what all candidates share."""

    load: Callable[..., Any]  # from path and batch size to a data module
    latents: int
    rank: int  # of the TRIP whose number of parameters other priors match
    channels: tuple[int, ...]
    updates: int  # batches
    learning_rate: float
    prior_learning_rate: float
    batch: int = 128
    components: int = 10
    path: Path | None = None  # where the data is
    reinitialize: tuple[int, int, int | None] = (1, 5, 20)  # first, every, last, in epochs

    def images(self, folder: Path | None, *options: Any) -> Any:
        """The data module, with its file in another folder if one is given."""
        path = self.path if folder is None or self.path is None else folder / self.path.name
        return self.load(path, self.batch, *options)

    def again(self, **options: str) -> Row:
        """What `Reinitialize` is told."""
        return dict(zip(("first", "every", "last"), self.reinitialize, strict=True)) | options


def add_arguments(parser: argparse.ArgumentParser, known: Collection[str], *, datasets: Sequence[str]) -> None:
    parser.add_argument("--datasets", nargs="+", choices=list(known), default=list(datasets))
    parser.add_argument("--data", type=Path, help=f"folder with mnist.npz, cifar10_images.zip (default {data.SHARED})")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="optimiser steps of each run instead of the setting's own")
    parser.add_argument(
        "--runs",
        type=Path,
        help="folder for weights and results, which add up: finished runs are not repeated, those of other candidates "
        "and seeds are shown too, and an interrupted run goes on",
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after this time")
    report.add_arguments(parser)


def study(
    args: argparse.Namespace,
    name: str,
    runs: Mapping[str, Run],
    metrics: Sequence[str],
    head: str = "prior",
    parts: Sequence[str] | None = None,
) -> list[Row]:
    """One row per candidate under `head`: means over the seeds, each with its standard deviation.

    Only the candidates named by `parts` are run; of the others, stored results are shown.
    """
    end, rows = time.monotonic() + args.seconds, []
    chosen = named(runs, parts)
    for label, run in runs.items():
        results = stored_results(args, name, label)
        for seed in range(args.seeds) if label in chosen else ():
            if seed not in results and time.monotonic() < end:
                with folder_or_scratch(args.runs and place(args.runs, name, label, seed)) as folder:
                    results[seed] = _timed(run, seed, folder) | {"updates": args.updates}
                    write(folder / RESULT, results[seed])
        if results:
            rows.append({head: label} | summary([results[seed] for seed in sorted(results)], metrics))
            print(report.table(rows), flush=True)
    return rows


def stored_results(args: argparse.Namespace, name: str, label: str) -> dict[int, Row]:
    """The results of a candidate by seed, as far as there are any; those of other lengths are refused."""
    if args.runs is None:
        return {}
    found = {}
    for path in place(args.runs, name, label, 0).parent.glob(f"*/{RESULT}"):
        row = found[int(path.parent.name)] = json.loads(path.read_text())
        if row.get("updates", args.updates) != args.updates:  # rows of older versions do not tell
            raise SystemExit(f"{path}: a run with --updates {row['updates']}, not {args.updates}: use another --runs")
    return found


def write(path: Path, row: Row) -> None:
    """Write a result so that an interruption leaves none rather than a part."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(row))
    part.replace(path)


def place(runs: Path, name: str, label: str, seed: int) -> Path:
    """The folder of one run of a study."""
    return runs / name / file_name(label) / str(seed)


@contextmanager
def folder_or_scratch(folder: Path | None) -> Iterator[Path]:
    """The folder, made if need be, or one that does not outlast its use."""
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def _timed(run: Run, seed: int, folder: Path) -> Row:
    from lightning.pytorch import seed_everything

    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(seed, verbose=False)
    begin = time.perf_counter()
    row = run(seed, folder)
    spent = seconds_of(folder) if (folder / WEIGHTS).is_file() else time.perf_counter() - begin
    return row | {"seconds": spent + row.get("further seconds", 0.0)}  # of what followed that training


def named(candidates: Mapping[str, Any], parts: Sequence[str] | None) -> dict[str, Any]:
    """Those with these names, or whose names contain one that is nobody's; all if none is given."""
    if not parts:
        return dict(candidates)
    inside = [part for part in parts if part not in candidates]
    return {
        label: value for label, value in candidates.items() if label in parts or any(part in label for part in inside)
    }


def summary(results: list[Row], metrics: Sequence[str]) -> Row:
    row: Row = {"seeds": len(results)}
    for metric in metrics:
        if not all(metric in result for result in results):  # of runs from before it was measured
            continue
        values = np.array([result[metric] for result in results])
        digits = 2 if np.abs(values).max() >= 2 else 3
        spread = f" ± {values.std(ddof=1):.{digits}f}" if len(results) > 1 else ""
        row[metric] = f"{values.mean():.{digits}f}{spread}"
    parameters, share = results[0]["parameters"], results[0]["share"]
    seconds = min(result["seconds"] for result in results)  # of the run that other processes disturbed least
    return row | {"learned parameters": parameters, "of all": f"{share:.1%}", "s": seconds}


def fit(model: Any, images: Any, updates: int, folder: Path, callbacks: Sequence[Any] = ()) -> Any:
    """Train for the epochs that hold so many batches, from the folder's checkpoint if there is one; the trainer.

    When training has ended, the model's weights and the seconds of training, without those of any evaluation, are all
    that stays in the folder; the next call reads them.
    """
    import torch
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from adapters.callbacks import SeededSteps

    images.setup()
    watch, last, weights = stopwatch(), folder / LAST, folder / WEIGHTS
    saving = ModelCheckpoint(folder, filename=last.stem, enable_version_counter=False)
    trainer = Trainer(
        max_epochs=math.ceil(updates / len(images.train_dataloader())),
        accelerator="auto",
        devices=1,
        callbacks=[SeededSteps(), watch, saving, *callbacks],
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if weights.is_file():
        model.load_state_dict(_read(weights)["state_dict"])
        return trainer
    trainer.fit(model, images, ckpt_path=last if last.is_file() else None, weights_only=True)
    if trainer.current_epoch < trainer.max_epochs:  # a callback has stopped it, and the next call goes on
        return trainer
    part = weights.with_suffix(".part")
    torch.save({"state_dict": model.state_dict(), "seconds": watch.seconds}, part)
    part.replace(weights)
    last.unlink(missing_ok=True)  # whose optimiser states are twice as large
    return trainer


def seconds_of(folder: Path) -> float:
    """Those of the training that has ended there."""
    return float(_read(folder / WEIGHTS)["seconds"])


def _read(weights: Path) -> Row:
    import torch

    found: Row = torch.load(weights, map_location="cpu", weights_only=True)
    return found


def stopwatch() -> Any:
    """A callback whose `seconds` are those of training, over all interruptions; checkpoints hold them."""
    from lightning.pytorch import Callback

    class Stopwatch(Callback):
        seconds = 0.0
        begin: float | None = None

        def on_train_start(self, *_: Any) -> None:
            self.begin = time.perf_counter()

        def on_train_end(self, *_: Any) -> None:
            self.seconds, self.begin = self.so_far(), None

        def so_far(self) -> float:
            return self.seconds + (0.0 if self.begin is None else time.perf_counter() - self.begin)

        def state_dict(self) -> Row:
            return {"seconds": self.so_far()}

        def load_state_dict(self, state_dict: Row) -> None:
            self.seconds = state_dict["seconds"]

    return Stopwatch()


def sizes(model: Any, *networks: str) -> Row:
    """How many parameters are learned beyond those networks of the model, and their share of all."""
    learned = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    own = sum(n for name, n in learned.items() if name.partition(".")[0] not in networks)
    return {"parameters": own, "share": own / sum(learned.values())}


def points(axes: Any, rows: list[Row], metric: str, label: str) -> None:
    """The values of a study with their standard deviations, one line per candidate."""
    values = [row[metric].split(" ± ") for row in rows]
    errors = [float(v[1]) if len(v) > 1 else 0.0 for v in values]
    axes.errorbar([float(v[0]) for v in values], range(len(rows)), xerr=errors, fmt="o", capsize=3)
    axes.set(xlabel=label)
    axes.set_yticks(range(len(rows)), [next(iter(row.values())) for row in rows])
    axes.invert_yaxis()


def file_name(label: str) -> str:
    """The label as a part of a path."""
    return "".join(c if c.isalnum() else "-" for c in label)
