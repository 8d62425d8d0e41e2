"""Studies of generative models: several runs per candidate, which pick up where they were stopped."""

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import data, report

Row = dict[str, Any]
Run = Callable[[int, Path], Row]  # from a seed and a folder for checkpoints to the measured values


def add_arguments(parser: argparse.ArgumentParser, known: Collection[str], *, datasets: Sequence[str]) -> None:
    parser.add_argument("--datasets", nargs="+", choices=list(known), default=list(datasets))
    parser.add_argument("--data", type=Path, help=f"folder with mnist.npz, cifar10_images.zip (default {data.SHARED})")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="optimiser steps of each run instead of the setting's own")
    parser.add_argument("--runs", type=Path, help="folder for checkpoints and results: finished runs are not repeated")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after this time")
    report.add_arguments(parser)


def study(args: argparse.Namespace, name: str, runs: Mapping[str, Run], metrics: Sequence[str]) -> list[Row]:
    """One row per candidate: means over the seeds, each with its standard deviation."""
    end, rows = time.monotonic() + args.seconds, []
    for label, run in runs.items():
        results = []
        for seed in range(args.seeds):
            place = args.runs and args.runs / name / _file_name(label) / str(seed)
            with folder_or_scratch(place) as folder:
                stored = folder / "result.json"
                if stored.is_file():
                    results.append(json.loads(stored.read_text()))
                elif time.monotonic() < end:
                    results.append(_timed(run, seed, folder))
                    stored.write_text(json.dumps(results[-1]))
        if results:
            rows.append(summary(label, results, metrics))
            print(report.table(rows), flush=True)
    return rows


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
    return run(seed, folder) | {"seconds": time.perf_counter() - begin}


def summary(label: str, results: list[Row], metrics: Sequence[str]) -> Row:
    row: Row = {"prior": label, "seeds": len(results)}
    for metric in metrics:
        values = np.array([result[metric] for result in results])
        digits = 2 if np.abs(values).max() >= 2 else 3
        spread = f" ± {values.std(ddof=1):.{digits}f}" if len(results) > 1 else ""
        row[metric] = f"{values.mean():.{digits}f}{spread}"
    parameters, share = results[0]["parameters"], results[0]["share"]
    seconds = float(np.mean([result["seconds"] for result in results]))
    return row | {"learned parameters": parameters, "of all": f"{share:.1%}", "s": seconds}


def fit(model: Any, images: Any, updates: int, folder: Path, callbacks: Sequence[Any] = ()) -> Any:
    """Train for the epochs that hold so many batches, from the folder's checkpoint if there is one; the trainer."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from adapters.callbacks import SeededSteps

    images.setup()
    trainer = Trainer(
        max_epochs=math.ceil(updates / len(images.train_dataloader())),
        accelerator="auto",
        devices=1,
        callbacks=[SeededSteps(), ModelCheckpoint(folder, filename="last", enable_version_counter=False), *callbacks],
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(model, images, ckpt_path=last if last.is_file() else None, weights_only=True)
    return trainer


def sizes(model: Any) -> Row:
    """How many parameters the prior learns, and their share of all that are learned."""
    learned = {
        part: sum(p.numel() for p in module.parameters() if p.requires_grad) for part, module in model.named_children()
    }
    return {"parameters": learned["prior"], "share": learned["prior"] / sum(learned.values())}


def points(axes: Any, rows: list[Row], metric: str, label: str) -> None:
    """The values of a study with their deviations, one line per candidate."""
    values = [row[metric].split(" ± ") for row in rows]
    errors = [float(v[1]) if len(v) > 1 else 0.0 for v in values]
    axes.errorbar([float(v[0]) for v in values], range(len(rows)), xerr=errors, fmt="o", capsize=3)
    axes.set(xlabel=label)
    axes.set_yticks(range(len(rows)), [row["prior"] for row in rows])
    axes.invert_yaxis()


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label)
