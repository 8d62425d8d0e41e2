"""The experiments with autoencoders: their settings, and one training run, which picks up where it was stopped."""

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import data, report

Row = dict[str, Any]
METRICS = ("elbo", "reconstruction", "kl", "iwae")


@dataclass(frozen=True)
class Setting:
    """A data set, the networks and the optimiser: what all priors share."""

    load: Callable[[Path | None, int], Any]  # path and batch size to a data module
    likelihood: Callable[[], Any]
    latents: int
    rank: int  # of the TRIP whose number of parameters the other priors match
    channels: tuple[int, ...]
    updates: int
    learning_rate: float
    prior_learning_rate: float
    warm_up: int = 0
    path: Path | None = None  # where the data is
    components: int = 10
    batch: int = 128
    reinitialize: tuple[int, int, int] = (1, 5, 20)  # first, every, last, in epochs

    def again(self, **options: str) -> Row:
        """What `Reinitialize` is told."""
        return dict(zip(("first", "every", "last"), self.reinitialize, strict=True)) | options


def settings() -> dict[str, Setting]:
    """By name; imports what trains them only now."""
    from adapters.data import CIFAR10, MNIST, Digits
    from adapters.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood

    def mnist(binarization: str) -> Callable[[Path | None, int], Any]:
        return lambda path, batch: MNIST(path, batch_size=batch, validation=10_000, binarization=binarization)

    small: Row = {
        "likelihood": BernoulliLikelihood,
        "latents": 40,
        "rank": 14,
        "updates": 8000,
        "learning_rate": 1e-3,
        "prior_learning_rate": 1e-2,
        "warm_up": 800,
        "path": data.SHARED / "mnist.npz",
    }
    paper = small | {"channels": (64, 128), "updates": 80_000, "learning_rate": 1e-4, "prior_learning_rate": 1e-3}
    return {
        "digits": Setting(
            lambda _, batch: Digits(batch_size=batch),
            lambda: DiscretizedLogisticLikelihood(17),
            latents=8,
            rank=8,
            channels=(32, 64),
            updates=1300,
            batch=64,
            reinitialize=(3, 12, 30),
            learning_rate=2e-3,
            prior_learning_rate=1e-2,
            warm_up=250,
        ),
        "mnist-static": Setting(mnist("static"), channels=(16, 32), **small),
        "mnist-dynamic": Setting(mnist("dynamic"), channels=(16, 32), **small),
        "mnist-dynamic-full": Setting(mnist("dynamic"), **paper),
        "cifar10": Setting(
            lambda path, batch: CIFAR10(path, batch_size=batch, validation=5000),
            lambda: DiscretizedLogisticLikelihood(256),
            latents=100,
            rank=20,
            channels=(64, 128, 256, 512),
            updates=80_000,
            learning_rate=1e-4,
            prior_learning_rate=1e-3,
            path=data.SHARED / "cifar10_images.zip",
        ),
    }


@dataclass(frozen=True)
class Candidate:
    """A prior under a name, made anew for each seed, and how it is re-initialised from latent codes, if at all."""

    make: Callable[[int], Any]  # from the seed to a prior, or to a function from the encoder to one
    reinitialize: Row | None = None


def add_arguments(parser: argparse.ArgumentParser, *, datasets: Sequence[str]) -> None:
    parser.add_argument("--datasets", nargs="+", choices=list(settings()), default=list(datasets))
    parser.add_argument("--data", type=Path, help=f"folder with mnist.npz, cifar10_images.zip (default {data.SHARED})")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="optimiser steps of each run instead of the setting's own")
    parser.add_argument("--samples", type=int, default=100, help="of the importance-weighted bound on the test images")
    parser.add_argument("--runs", type=Path, help="folder for checkpoints and results: finished runs are not repeated")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after this time")
    report.add_arguments(parser)


def study(args: argparse.Namespace, name: str, candidates: dict[str, Candidate]) -> list[Row]:
    """One row per candidate: means over the seeds, each with its standard deviation."""
    end, setting, rows = time.monotonic() + args.seconds, settings()[name], []
    for label, candidate in candidates.items():
        runs = []
        for seed in range(args.seeds):
            if (run := _stored(args, name, label, seed)) is None and time.monotonic() < end:
                run = _train(args, name, setting, label, candidate, seed)
            if run is not None:
                runs.append(run)
        if runs:
            rows.append(summary(label, runs))
            print(report.table(rows), flush=True)
    return rows


def summary(label: str, runs: list[Row]) -> Row:
    row: Row = {"prior": label, "seeds": len(runs)}
    for metric in METRICS:
        values = np.array([run[metric] for run in runs])
        spread = f" ± {values.std(ddof=1):.2f}" if len(runs) > 1 else ""
        row[metric] = f"{values.mean():.2f}{spread}"
    parameters, share = runs[0]["parameters"], runs[0]["share"]
    seconds = float(np.mean([run["seconds"] for run in runs]))
    return row | {"learned parameters": parameters, "of all": f"{share:.1%}", "s": seconds}


def _folder(args: argparse.Namespace, name: str, label: str, seed: int) -> Path | None:
    return (
        None if args.runs is None else args.runs / name / "".join(c if c.isalnum() else "-" for c in label) / str(seed)
    )


def _stored(args: argparse.Namespace, name: str, label: str, seed: int) -> Row | None:
    folder = _folder(args, name, label, seed)
    result = None if folder is None else folder / "result.json"
    return json.loads(result.read_text()) if result is not None and result.is_file() else None


def _train(args: argparse.Namespace, name: str, setting: Setting, label: str, candidate: Candidate, seed: int) -> Row:
    """Train from the last checkpoint, if there is one, and test."""
    import torch
    from lightning.pytorch import Trainer, seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint

    from adapters.callbacks import Reinitialize, SeededSteps

    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(seed, verbose=False)
    path = setting.path if args.data is None or setting.path is None else args.data / setting.path.name
    images = setting.load(path, setting.batch)
    model = _model(setting, candidate, seed, images.image_shape, args.samples)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(args, name, label, seed) or Path(scratch)
        callbacks: list[Any] = [SeededSteps(), ModelCheckpoint(folder, filename="last", enable_version_counter=False)]
        if candidate.reinitialize is not None:
            callbacks.append(Reinitialize(**candidate.reinitialize))
        trainer = Trainer(
            max_epochs=math.ceil((args.updates or setting.updates) / len(images.train_dataloader())),
            accelerator="auto",
            devices=1,
            callbacks=callbacks,
            logger=False,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        last = folder / "last.ckpt"
        trainer.fit(model, images, ckpt_path=last if last.is_file() else None, weights_only=True)
        tested = trainer.test(model, images, verbose=False)[0]
        sizes = {
            part: sum(p.numel() for p in module.parameters() if p.requires_grad)
            for part, module in model.named_children()
        }
        row = {metric: tested[f"test_{metric}"] for metric in METRICS}
        row |= {"parameters": sizes["prior"], "share": sizes["prior"] / sum(sizes.values())}
        row |= {"seconds": time.perf_counter() - begin, "updates": trainer.global_step, "torch": torch.__version__}
        (folder / "result.json").write_text(json.dumps(row))
    return row


def _model(setting: Setting, candidate: Candidate, seed: int, shape: Sequence[int], samples: int) -> Any:
    from adapters.models import VAE
    from adapters.networks import ConvDecoder, ConvEncoder

    likelihood = setting.likelihood()
    return VAE(
        ConvEncoder(shape, 2 * setting.latents, setting.channels),
        ConvDecoder(setting.latents, (likelihood.num_channels(shape[0]), *shape[1:]), setting.channels),
        candidate.make(seed),
        likelihood,
        learning_rate=setting.learning_rate,
        prior_learning_rate=setting.prior_learning_rate,
        warm_up_steps=setting.warm_up,
        test_samples=samples,
    )
