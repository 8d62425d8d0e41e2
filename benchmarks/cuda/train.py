"""Models of the paper's size, trained for the time that is left, from where they were before."""

import argparse
import base64
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import conditional, gan, training
from . import compact, packing
from .session import Item, Options, Session

SHORTEST, SMALL = 20.0, 2.5  # seconds for which a run is worth its start; of one in a dry run
OVERTIME = 15.0  # seconds that the verdict of a run may take beyond its time, at the cost of the next one
JUDGED = 0.3  # share of a run's time that reading data, the classifier and the verdict may take at most
Row = dict[str, Any]
TOY: dict[str, Any] = {"latents": 4, "rank": 2, "channels": (4, 8), "classifier": (8, (4, 8), 4), "samples": 60}


class Run(NamedTuple):
    """A model, its data and who judges it."""

    name: str
    weight: float  # in the sharing of the time that is left
    archive: str
    build: Callable[[Options, Path | None], "Study"]


class Study(NamedTuple):
    model: Any
    images: Any
    callbacks: list[Any]
    verdict: Callable[[Any], Row]
    draw: Callable[[Any, Path], None]
    updates: int


def items(session: Session) -> Iterable[Item]:
    """One item for each run that has its data, with its part of what time is left."""
    options = session.options
    runs = [run for run in RUNS if options.small or packing.find(options.data, run.archive, options.scratch)]
    for i, run in enumerate(runs):
        budget = (session.left - 4) * run.weight / sum(run.weight for run in runs[i:])
        budget = min(budget, SMALL) if options.small else budget
        if budget >= (1.0 if options.small else SHORTEST):
            name = f"{run.name}, call {options.call}"
            yield Item(name, functools.partial(trained, session, run, time.monotonic() + budget), budget + OVERTIME)


def trained(session: Session, run: Run, end: float) -> dict[str, Any]:
    """Train until the time is nearly over, keep the weights, and judge what the model draws."""
    warnings.filterwarnings("ignore", module="lightning")
    options, begin = session.options, time.monotonic()
    study = run.build(options, packing.find(options.data, run.archive, options.scratch))
    folder = options.scratch / "runs" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    carried = None
    if not (folder / "last.ckpt").is_file():
        carried = compact.load(study.model, options.out / run.name)
    before = (carried or {}).get("batches", 0)
    ready = time.monotonic()
    watch = watcher(ready, end - min(JUDGED * (end - begin), ready - begin + 6))
    torch.manual_seed(0)
    training.fit(study.model, study.images, study.updates, folder, [*study.callbacks, watch])
    whole = before + watch.batches_before + watch.batches
    compact.save(study.model, options.out / run.name, batches=whole)
    size = study.images.batch_size
    row: Row = {"run": run.name, "batches": whole, "images seen": whole * size, "seconds": watch.seconds}
    row |= {"images / s": watch.batches * size / watch.seconds, "batches / s": watch.batches / watch.seconds}
    row |= watch.losses
    row["goes on from"] = "carried weights" if carried else "checkpoint" if watch.batches_before else "nothing"
    found: dict[str, Any] = {"rows": [row], "history": watch.history}
    session.record("training", f"{run.name}, losses, call {options.call}", status="ok", value=[row], seconds=0)
    study.model.to(options.device).eval()
    picture = folder / "samples.png"
    study.draw(study.model, picture)
    found["samples"] = base64.b64encode(picture.read_bytes()).decode()
    row |= study.verdict(study.model)
    return found


def watcher(begin: float, end: float) -> Any:
    """A callback that counts batches, keeps the losses of each epoch, and stops training at the end."""
    from lightning.pytorch import Callback

    class Watch(Callback):
        batches, batches_before, seconds = 0, 0, 1e-9
        losses: Row = {}  # noqa: RUF012 (replaced, never written to)

        def __init__(self) -> None:
            self.history: list[Row] = []

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.began = time.monotonic()
            self.batches_before = trainer.fit_loop.epoch_loop.total_batch_idx + 1

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.batches += 1
            if time.monotonic() > end:
                trainer.should_stop = True

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds = time.monotonic() - self.began
            self.losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.history.append({"batches": self.batches, "seconds": self.seconds} | self.losses)

    return Watch()


# ----------------------------------------------------------------------------------------------------------------- runs


def namespace(options: Options, data: Path | None) -> argparse.Namespace:
    """What the studies of the other pages are told on their command lines."""
    return argparse.Namespace(data=data, runs=options.scratch / "judges", samples=None, weights=None, updates=None)


def adversarial(label: str, options: Options, data: Path | None) -> Study:
    """WGAN-GP of the paper's size on CIFAR-10, as adapters/configs/wgan_gp_cifar10.yaml has it."""
    setting, judge = adversarial_judge(options.small, namespace(options, data))
    make = gan.candidates(setting)[label]
    model = gan.wgan(setting, judge.images.image_shape, *make(0), channels_last=True)
    return Study(model, judge.images, [], judge.verdict, draw, setting.updates)


judges: dict[str, Any] = {}  # what was read and learned for one run serves the next


def adversarial_judge(small: bool, args: argparse.Namespace) -> tuple[gan.Setting, Any]:
    setting = gan.settings()["digits" if small else "cifar10"]
    if small:
        setting = dataclasses.replace(setting, **TOY)
    else:
        setting = dataclasses.replace(setting, classifier=(256, (32, 64), 1500), samples=5000)
    if "gan" not in judges:
        judges["gan"] = gan.Judge(args, "gan", setting, setting.images(args.data), "train")
    return setting, judges["gan"]


def draw(model: Any, path: Path) -> None:
    from adapters.figures import save_grid

    save_grid(model.sample(64), path, columns=8)


def faces(options: Options, data: Path | None) -> Study:
    """The conditional model of 64x64 faces of the paper's size; nine of ten attributes are hidden."""
    from adapters.callbacks import Reinitialize

    args = namespace(options, data)
    setting = conditional.settings()["digits" if options.small else "faces"]
    if options.small:
        setting = dataclasses.replace(setting, **TOY)
        setting = dataclasses.replace(setting, fits=(30, 30, 50), components=3)
    else:
        setting = dataclasses.replace(setting, samples=3000, fits=(10, 20, 2000))
    judge = conditional.Judge(args, "faces", setting)
    images = setting.images(data, 0.9)
    candidate = conditional.candidates(setting, judge.sizes, every_order=False)["VAE-TRIP, EM, weighted"]
    common = {
        "likelihood": setting.likelihood(),
        "learning_rate": setting.learning_rate,
        "prior_learning_rate": setting.prior_learning_rate,
        "warm_up_steps": setting.warm_up,
    }
    model = candidate.make(images.image_shape, 0, common)
    again = [Reinitialize(**(candidate.reinitialize or {}))]
    return Study(model, images, again, judge.verdict, judge.draw, setting.updates)


RUNS = (
    Run("wgan-trip", 0.4, "cifar10_images.zip", functools.partial(adversarial, "TRIP, learned, hybrid")),
    Run("wgan-normal", 0.25, "cifar10_images.zip", functools.partial(adversarial, "N(0, I)")),
    Run("faces", 0.35, "faces64.zip", faces),
)
