"""What does a learned prior bring to an adversarial model?

The same generator and critic (WGAN-GP) under fixed and learned priors: the paper's Tables 1 (FID rows) and 2.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import autoencoder, data, judging, report, training, vae
from .measure import default_device, interleaved

TEXT = """\
Samples are compared with training images over the features of a small classifier, which is trained on the training
images first. *Fréchet distance*: lower is better; it is not FID, whose features are Inception's. *Precision* and
*recall* are those of Kynkäänniemi et al. (2019). All three depend on the number of images: 2 000 samples on the digits,
10 000 on MNIST and 50 000 on CIFAR-10, unless `--samples` says otherwise, and as many training images, or all if there
are fewer. *Real* uses held-out images instead of samples. On the digits (503) and CIFAR-10 (15 000) fewer are held out,
so its Fréchet distance is too large by comparison. Values are means over seeds with their standard deviation. All
candidates of a section have the same networks, optimiser and number of batches; a mixture has about as many parameters
as the TRIP.

The estimators of the prior's gradient are those of `python -m benchmarks gradients`. The variational autoencoders are
those of `python -m benchmarks vae`; on MNIST they model binarised images, and their means are compared. *From codes*:
such an autoencoder with the latents and channels of the adversarial model is trained first, and the CP ring that it has
learned from a mixture of its codes is the prior at the start, fixed or learned on; its seconds are not counted. *Cost*
is one round of training, four steps of the critic and one of the generator, without logging; rounds of all priors
alternate. *Share* is the additional time relative to a round with N(0, I)."""

TWO_TIME_SCALES = """\
Two time scales (Heusel et al. 2017, arXiv:1706.08500): one step of the critic for each step of the generator, at three
times its learning rate. The number of batches is that of [the other runs](gan.md). The critic therefore takes as many
steps as there, generator and prior four times as many."""

METRICS = ("Fréchet distance", "precision", "recall")
AUTOENCODERS = {"mnist": "mnist-dynamic"}  # settings with another name; they generate grey levels too


@dataclass(frozen=True, kw_only=True)
class Setting(judging.Setting):
    mixture: int | None = None  # components; None: as many parameters as the TRIP


def settings() -> dict[str, Setting]:
    from adapters.data import CIFAR10, MNIST, Digits

    return {
        "digits": Setting(
            load=lambda _, batch: Digits(batch_size=batch),
            latents=16,
            rank=8,
            channels=(32, 64),
            updates=2200,
            learning_rate=5e-4,
            prior_learning_rate=5e-4,
            batch=64,
            classifier=(64, (32, 64), 660),
            samples=2000,
        ),
        "mnist": Setting(
            load=lambda path, batch: MNIST(path, batch_size=batch, validation=10_000),
            latents=32,
            rank=10,
            channels=(16, 32),
            updates=2500,
            learning_rate=5e-4,
            prior_learning_rate=5e-4,
            batch=64,
            classifier=(64, (32, 64), 2000),
            samples=10_000,
            path=data.SHARED / "mnist.npz",
        ),
        "cifar10": Setting(
            load=lambda path, batch: CIFAR10(path, batch_size=batch, validation=5000),
            latents=128,
            rank=40,
            channels=(128, 256, 512),
            updates=400_000,
            learning_rate=1e-4,
            prior_learning_rate=1e-4,
            batch=128,
            classifier=(256, (32, 64), 20_000),
            mixture=1280,
            path=data.SHARED / "cifar10_images.zip",
            samples=50_000,
        ),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training.add_arguments(parser, settings(), datasets=["digits", "mnist"])
    judging.add_arguments(parser)
    parser.add_argument("--priors", nargs="+", help="only those with these names, or parts of them")
    parser.add_argument("--weights", type=Path, help="torch-fidelity's weights of Inception: FID beside the others")
    parser.add_argument("--two-time-scales", action="store_true", help="one critic step, at three times the rate")


def main(args: argparse.Namespace) -> None:
    sections: dict[str, list[dict[str, Any]]] = {}
    for name in args.datasets:
        setting = settings()[name]
        judge = Judge(args, name, setting, setting.images(args.data), "train")
        runs = {label: functools.partial(_train, args, judge, make) for label, make in candidates(setting).items()}
        if not args.two_time_scales:
            runs |= from_codes(args, judge, name)
        if not args.two_time_scales:
            sections[f"Cost, {name}"] = cost(judge)
        sections[f"WGAN-GP, {name}"] = [
            judge.reference(),
            *training.study(args, name, runs, judge.metrics, parts=args.priors),
        ]
        if not args.two_time_scales:
            runs = autoencoders(args, judge, name)
            found = training.study(args, f"{name}-vae", runs, judge.metrics, parts=args.priors)
            sections[f"Autoencoders, {name}"] = found
    sections = {title: rows for title, rows in sections.items() if rows}
    env = report.environment(default_device())
    name, title, text = "gan", "Priors of an adversarial model", TEXT
    if args.two_time_scales:
        name, title, text = "gan-ttur", f"{title}, two time scales", f"{TWO_TIME_SCALES}\n\n{TEXT}"
    report.write(args.out, name, title, text, sections, env, figure(sections))


def candidates(setting: Setting) -> dict[str, Callable[[int], tuple[Any, Any]]]:
    """From a seed to a prior and the estimator of its gradient."""
    from adapters import TRIP, GaussianMixturePrior, GaussianPrior

    d, n, m = setting.latents, setting.components, setting.rank
    mixture = setting.mixture or round(d * (2 * n + n * m**2) / (2 * d + 1))

    def trip(estimator: Any, trainable: bool = True) -> Any:
        options: dict[str, Any] = {"nonnegative": "abs", "mean_range": (-1.0, 1.0), "std": 1 / n}
        return lambda seed: (TRIP(d, n, m, seed=seed, trainable=trainable, **options), estimator)

    return {
        "N(0, I)": lambda seed: (GaussianPrior(d), "hybrid"),
        "mixture, fixed": lambda seed: (GaussianMixturePrior(d, mixture, trainable=False, seed=seed), "hybrid"),
        "mixture, learned": lambda seed: (GaussianMixturePrior(d, mixture, seed=seed), "hybrid"),
        "TRIP, fixed": trip("hybrid", trainable=False),
        "TRIP, learned, reinforce (paper)": trip("reinforce"),
        "TRIP, learned, hybrid": trip("hybrid"),
        "TRIP, learned, pathwise": trip("pathwise"),
    }


def from_codes(args: argparse.Namespace, judge: "Judge", name: str) -> dict[str, training.Run]:
    """Runs that start from the prior of an autoencoder with the same latents, a ring from a mixture of its codes."""
    like = autoencoder.settings()[AUTOENCODERS.get(name, name)]
    setting = dataclasses.replace(like, latents=judge.setting.latents, channels=judge.setting.channels)
    candidate = vae.candidates(setting, name)["TRIP, CP from mixture"]

    def run(trainable: bool, seed: int, folder: Path) -> training.Row:
        prior = autoencoder.train(args, setting, candidate, seed, folder / "autoencoder")[0].prior
        return _train(args, judge, lambda _: (prior.requires_grad_(trainable), "hybrid"), seed, folder)

    return {
        "TRIP, CP from codes, fixed": functools.partial(run, False),
        "TRIP, CP from codes, learned": functools.partial(run, True),
    }


def autoencoders(args: argparse.Namespace, judge: "Judge", name: str) -> dict[str, training.Run]:
    """Runs of the autoencoders, with samples compared like those of the adversarial models."""
    setting = autoencoder.settings()[AUTOENCODERS.get(name, name)]

    def run(candidate: Any, seed: int, folder: Path) -> training.Row:
        model, _, _ = autoencoder.train(args, setting, candidate, seed, folder)
        return judge.verdict(model) | training.sizes(model, "encoder", "decoder")

    found = vae.candidates(setting, name)
    chosen = ("N(0, I)", "mixture, fixed", "mixture, learned", "TRIP, fixed", "TRIP, learned (EM, order by MI)")
    return {label: functools.partial(run, found[label]) for label in chosen}


def _train(args: argparse.Namespace, judge: "Judge", make: Any, seed: int, folder: Path) -> training.Row:
    options: dict[str, Any] = {}
    if args.two_time_scales:
        options = {"critic_learning_rate": 3 * judge.setting.learning_rate, "critic_steps": 1}
    model = wgan(judge.setting, judge.images.image_shape, *make(seed), **options)
    training.fit(model, judge.images, args.updates or judge.setting.updates, folder)
    return judge.verdict(model) | training.sizes(model, "generator", "critic")


def wgan(setting: Setting, shape: tuple[int, int, int], prior: Any, estimator: Any = "hybrid", **options: Any) -> Any:
    """The model of a setting for images of this shape."""
    from adapters.models import WGAN
    from adapters.networks import ConvDecoder, ConvEncoder

    return WGAN(
        ConvDecoder(setting.latents, shape, setting.channels, norm="batch"),
        ConvEncoder(shape, 1, setting.channels, norm="layer"),
        prior,
        estimator=estimator,
        baseline="mean" if estimator == "reinforce" else "leave_one_out",
        learning_rate=setting.learning_rate,
        prior_learning_rate=setting.prior_learning_rate,
        **options,
    )


def cost(judge: "Judge") -> list[training.Row]:
    """Milliseconds of a round of training under each prior, and what that is beyond a round with N(0, I)."""
    device = default_device()
    x = next(judge.images.training_images(judge.setting.batch, 0)).to(device)
    models = {label: wgan(judge.setting, x.shape[1:], *make(0)) for label, make in candidates(judge.setting).items()}
    rounds = {label: training_round(model.to(device), x) for label, model in models.items()}
    times = interleaved(rounds, repeats=10, device=device)
    return [
        {"prior": label, "ms": time, "share": f"{time / times['N(0, I)'] - 1:.0%}"} for label, time in times.items()
    ]


def training_round(model: Any, x: torch.Tensor) -> Callable[[], object]:
    """Steps of the critic on images x and one of the generator."""
    critic, generator = model.configure_optimizers()

    def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def once() -> None:
        for _ in range(model.critic_steps):
            step(critic, model.critic_loss(x)[0])
        model.critic.requires_grad_(False)
        step(generator, model.generator_loss(len(x)))
        model.critic.requires_grad_(True)

    return once


class Judge(judging.Judge):
    """How far samples are from the training images, over the features of a classifier trained on these."""

    def __init__(self, args: argparse.Namespace, name: str, setting: Setting, images: Any, split: str):
        from adapters.metrics import inception_features

        super().__init__(args, name, setting, images, split)
        self.inception = None if args.weights is None else inception_features(args.weights).to(self.device)
        self.metrics = METRICS if self.inception is None else (*METRICS, "FID")

    def reference(self) -> training.Row:
        """Held-out images as if they were samples."""
        held_out = torch.cat([self.images.examples(self.samples, stage) for stage in ("val", "test")])
        found = self._distances(held_out[: self.samples].split(self.setting.batch))
        return {"prior": "real", "seeds": None} | judging.shown(found)

    @torch.no_grad()
    def verdict(self, model: Any) -> training.Row:
        """Samples of a model."""
        model.to(self.device).eval()
        counts = [min(500, self.samples - start) for start in range(0, self.samples, 500)]
        return self._distances([model.sample(n).cpu() for n in counts])

    def _distances(self, generated: Sequence[torch.Tensor]) -> training.Row:
        from adapters.metrics import distances

        def against(network: Any) -> Any:
            real = (images.to(self.device) for images in self.images.training_images(self.samples, 0))
            return distances(real, (images.to(self.device) for images in generated), network)

        found = dict(zip(METRICS, against(self.classifier), strict=True))
        return found if self.inception is None else found | {"FID": against(self.inception).frechet}


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    studies = {title: rows for title, rows in sections.items() if METRICS[0] in rows[0]}
    fig = Figure(figsize=(6 * len(studies), 3.5), layout="constrained")
    for axes, (title, rows) in zip(fig.subplots(1, len(studies), squeeze=False)[0], studies.items(), strict=True):
        training.points(axes, rows, METRICS[0], "Fréchet distance, features of a classifier")
        axes.set_title(title)
    return fig
