"""The experiments with autoencoders: their settings, and one training run."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import data, training
from .measure import default_device, interleaved

Row = dict[str, Any]
METRICS = ("elbo", "reconstruction", "kl", "iwae")
FIRST = 0.6  # of the updates, in which a mixture is trained that a prior then starts from
TIMES = ("ms per update", "updates of each")


@dataclass(frozen=True, kw_only=True)
class Setting(training.Setting):
    likelihood: Callable[[], Any]
    warm_up: int = 0


def settings() -> dict[str, Setting]:
    """By name; imports what trains them only now."""
    from adapters.data import CIFAR10, MNIST, Digits
    from adapters.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, PaperLikelihood

    def mnist(binarization: str) -> Callable[[Path | None, int], Any]:
        return lambda path, batch: MNIST(path, batch_size=batch, validation=10_000, binarization=binarization)

    small: Row = {
        "likelihood": BernoulliLikelihood,
        "latents": 40,
        "rank": 14,
        "updates": 4000,
        "learning_rate": 1e-3,
        "prior_learning_rate": 1e-2,
        "warm_up": 800,
        "path": data.SHARED / "mnist.npz",
    }
    paper = small | {"channels": (64, 128), "updates": 80_000, "learning_rate": 1e-4, "prior_learning_rate": 1e-3}
    cifar10: Row = training.PAPER | {
        "load": lambda path, batch: CIFAR10(path, batch_size=batch, validation=5000),
        "path": data.SHARED / "cifar10_images.zip",
    }
    return {
        "digits": Setting(
            load=lambda _, batch: Digits(batch_size=batch),
            likelihood=lambda: DiscretizedLogisticLikelihood(17),
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
        "mnist-static": Setting(load=mnist("static"), channels=(16, 32), **small),
        "mnist-dynamic": Setting(load=mnist("dynamic"), channels=(16, 32), **small),
        "mnist-dynamic-full": Setting(load=mnist("dynamic"), **paper),
        "cifar10": Setting(likelihood=lambda: DiscretizedLogisticLikelihood(256), **cifar10),
        "cifar10-paper": Setting(likelihood=PaperLikelihood, **cifar10),  # the scale of the paper's tables
    }


@dataclass(frozen=True)
class Candidate:
    """A prior under a name, made anew for each seed, and how it is trained beyond gradient steps.

    Args:
        make: from the seed to a prior, or to a function from the encoder to one.
        reinitialize: how it is re-initialised from latent codes, if at all.
        first: a mixture that is trained before it for the share `FIRST` of the updates, and that it then starts from.
    """

    make: Callable[[int], Any]
    reinitialize: Row | None = None
    first: Candidate | None = None


def add_arguments(parser: argparse.ArgumentParser, *, datasets: Sequence[str]) -> None:
    training.add_arguments(parser, settings(), datasets=datasets)
    parser.add_argument("--samples", type=int, default=100, help="of the importance-weighted bound on the test images")


def study(
    args: argparse.Namespace, name: str, candidates: dict[str, Candidate], parts: Sequence[str] | None = None
) -> list[Row]:
    """One row of bounds per candidate; only those named by `parts` are run, see `training.study`."""
    setting = settings()[name]
    runs = {label: functools.partial(_measure, args, setting, candidate) for label, candidate in candidates.items()}
    return training.study(args, name, runs, METRICS, parts=parts)


def equal_time(
    args: argparse.Namespace, name: str, candidates: dict[str, Candidate], parts: Sequence[str] | None = None
) -> list[Row]:
    """The study's candidates again, each for as many batches as it takes while the slowest takes the study's."""
    setting = settings()[name]
    costs = update_costs(args, setting, candidates)  # before any run, whose random numbers it would change

    def run(label: str, seed: int, folder: Path) -> Row:
        updates = round((args.updates or setting.updates) * max(costs.values()) / costs[label])
        own = argparse.Namespace(**vars(args) | {"updates": updates})
        timed = {"ms per update": costs[label], "updates of each": updates}
        return _measure(own, setting, candidates[label], seed, folder) | timed

    runs = {label: functools.partial(run, label) for label in candidates}
    return training.study(args, f"{name}-equal-time", runs, (*METRICS, *TIMES), parts=parts)


def update_costs(args: argparse.Namespace, setting: Setting, candidates: dict[str, Candidate]) -> dict[str, float]:
    """Milliseconds of one update under each prior, in turns of ten updates: those after the first find caches warm."""
    images = setting.images(args.data)
    images.setup()
    device = default_device()
    batches = [next(images.training_images(setting.batch, seed)).to(device) for seed in range(10)]

    def turns_of(candidate: Candidate) -> Callable[[], object]:
        model = _model(setting, candidate, 0, images.image_shape, 1).to(device)
        optimizer = model.configure_optimizers()

        def turn() -> None:
            for x in batches:
                optimizer.zero_grad()
                (-model.elbo(x).elbo.mean()).backward()
                optimizer.step()

        return turn

    turns = {(label, False): turns_of(candidate) for label, candidate in candidates.items()}
    turns |= {(label, True): turns_of(each.first) for label, each in candidates.items() if each.first is not None}
    ms = {key: found / len(batches) for key, found in interleaved(turns, repeats=7, device=device).items()}
    shares = {label: 0.0 if candidate.first is None else FIRST for label, candidate in candidates.items()}
    return {
        label: (1 - share) * ms[label, False] + share * ms.get((label, True), 0.0) for label, share in shares.items()
    }


def add_final_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--final-samples", type=int, help="of a tighter bound, on trained models (needs --runs)")
    parser.add_argument("--final-images", type=int, default=200, help="test images that it is found with")


def final(args: argparse.Namespace, name: str, candidates: dict[str, Candidate]) -> list[Row]:
    """One row per candidate: the bound with many more samples, from that of all test images and its gain on some."""
    if args.runs is None:
        raise SystemExit("--final-samples needs --runs, where trained models are")
    setting = settings()[name]
    runs = {
        label: functools.partial(
            _tighten, args, setting, candidate, functools.partial(training.place, args.runs, name, label)
        )
        for label, candidate in candidates.items()
    }
    return training.study(args, f"{name}-{args.final_samples}", runs, ("iwae", "gain", f"iwae-{args.final_samples}"))


def train(
    args: argparse.Namespace, setting: Setting, candidate: Candidate, seed: int, folder: Path
) -> tuple[Any, Any, Any]:
    """Model, images and trainer of one run."""
    from adapters.callbacks import Reinitialize

    images = setting.images(args.data)
    model = _model(setting, candidate, seed, images.image_shape, args.samples or 1)  # `gan` tests no bound
    updates = args.updates or setting.updates
    if candidate.first is not None:
        before = argparse.Namespace(**vars(args) | {"updates": round(FIRST * updates)})
        updates -= before.updates
        (folder / "first").mkdir(exist_ok=True)
        found, *_ = train(before, setting, candidate.first, seed, folder / "first")
        model.encoder.load_state_dict(found.encoder.state_dict())
        model.decoder.load_state_dict(found.decoder.state_dict())
        model.prior.start_from(found.prior)
        model.warm_up_steps = 0
    callbacks = [] if candidate.reinitialize is None else [Reinitialize(**candidate.reinitialize)]
    return model, images, training.fit(model, images, updates, folder, callbacks)


def _measure(args: argparse.Namespace, setting: Setting, candidate: Candidate, seed: int, folder: Path) -> Row:
    model, images, trainer = train(args, setting, candidate, seed, folder)
    tested = trainer.test(model, images, verbose=False)[0]
    row = {metric: tested[f"test_{metric}"] for metric in METRICS} | training.sizes(model, "encoder", "decoder")
    return row if candidate.first is None else row | {"further seconds": training.seconds_of(folder / "first")}


def _tighten(
    args: argparse.Namespace,
    setting: Setting,
    candidate: Candidate,
    trained: Callable[[int], Path],
    seed: int,
    folder: Path,
) -> Row:
    result = json.loads((trained(seed) / training.RESULT).read_text())
    model, images, _ = train(args, setting, candidate, seed, trained(seed))  # only reads it if that has ended
    x = images.examples(args.final_images, "test").to(model.device)
    few, many = (model.iwae(x, samples).mean().item() for samples in (args.samples, args.final_samples))
    found = {"iwae": result["iwae"], "gain": many - few, f"iwae-{args.final_samples}": result["iwae"] + many - few}
    return found | {key: result[key] for key in ("parameters", "share")}


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
