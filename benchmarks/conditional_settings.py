"""The data sets of `python -m benchmarks conditional`, and what all models on one of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import data, judging, training

WEIGHT = 50.0  # of log p(y | z), as TELBO and JMVAE have it


@dataclass(frozen=True, kw_only=True)
class Setting(judging.Setting):  # `load` takes the missing share too
    likelihood: Callable[[], Any]
    fits: tuple[int, int, int]  # the first and every further, in epochs, where EM fits the ring, and to how many codes
    drawn: tuple[dict[str, int], ...]  # requests that pictures show, all else free
    warm_up: int = 0
    flow_rank: int = 16  # of the CP ring under a flow
    seen_weight: float = WEIGHT  # of log p(y | z) where the decoder sees y too


def settings() -> dict[str, Setting]:
    """By name; validation images are the classifier's, so there are many."""
    from adapters.data import MNIST, CelebA, Digits, ImageFolder
    from adapters.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, PaperLikelihood

    strokes = (
        {"digit": 7},
        {"digit": 7, "thickness": 2},
        {"digit": 3, "slant": 0},
        {"digit": 3, "slant": 2},
        {"thickness": 0},
        {"thickness": 2, "slant": 2},
    )
    people = ({"gender": 0}, {"gender": 1}, {"age_group": 0}, {"age_group": 7}, {"gender": 1, "age_group": 2})
    paper: dict[str, Any] = training.PAPER | {"likelihood": PaperLikelihood, "samples": 30_000}

    def faces(size: int | None) -> Callable[..., Any]:
        return lambda path, batch, missing: ImageFolder(
            path, "attributes.csv", size=size, batch_size=batch, validation=7000, missing=missing
        )

    return {
        "digits": Setting(
            load=lambda _, batch, missing: Digits(batch_size=batch, strokes=True, validation=600, missing=missing),
            likelihood=lambda: DiscretizedLogisticLikelihood(17),
            latents=8,
            rank=16,
            channels=(32, 64),
            updates=1300,
            learning_rate=2e-3,
            prior_learning_rate=1e-3,
            classifier=(128, (64, 128), 1200),
            samples=4000,
            fits=(3, 5, 2000),
            drawn=strokes,
            warm_up=250,
            batch=64,
            reinitialize=(3, 12, 30),
            seen_weight=1.0,  # of few images p(y | z) is learned by heart
        ),
        "mnist": Setting(
            load=lambda path, batch, missing: MNIST(
                path, batch_size=batch, strokes=True, validation=20_000, missing=missing
            ),
            likelihood=BernoulliLikelihood,  # grey levels are probabilities of ink
            latents=16,
            rank=16,
            channels=(16, 32),
            updates=2000,
            learning_rate=1e-3,
            prior_learning_rate=1e-3,
            classifier=(64, (32, 64), 1500),
            samples=10_000,
            fits=(1, 1, 10_000),
            drawn=strokes,
            warm_up=400,
            path=data.SHARED / "mnist.npz",
            reinitialize=(1, 4, 9),
        ),
        "faces-small": Setting(
            load=faces(32),
            likelihood=PaperLikelihood,
            latents=32,
            rank=16,
            channels=(16, 32, 64),
            updates=2000,
            learning_rate=1e-3,
            prior_learning_rate=1e-3,
            classifier=(64, (16, 32, 64), 1000),
            samples=4000,
            fits=(1, 2, 5000),
            drawn=people,
            warm_up=200,
            batch=64,
            path=data.SHARED / "faces64.zip",
            reinitialize=(1, 3, None),
        ),
        "faces": Setting(
            load=faces(None),
            classifier=(128, (32, 64, 128, 256), 1000),
            drawn=people,
            path=data.SHARED / "faces64.zip",
            fits=(30, 30, 10_000),
            reinitialize=(90, 450, None),
            **paper,
        ),
        "celeba": Setting(
            load=lambda path, batch, missing: CelebA(path, batch_size=batch, missing=missing),
            classifier=(128, (32, 64, 128, 256), 4000),
            drawn=({"Male": 0, "Young": 1}, {"Male": 1, "Smiling": 1}, {"Eyeglasses": 1}, {"Blond_Hair": 1}),
            path=data.SHARED / "celeba",
            fits=(4, 4, 20_000),
            reinitialize=(7, 35, None),
            **paper,
        ),
    }
