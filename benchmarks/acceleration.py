"""Do bfloat16, channels-last memory and compilation speed up adversarial training?

One round of training is four steps of the critic and one of the generator. The models are those of `python -m
benchmarks gan` with a TRIP prior (hybrid estimator); the images are random. *Channels last* is the memory format of the
convolutions. *Bf16* is autocast to bfloat16, which leaves out the prior. *Compiled* is `torch.compile` of the
generator; the time of compilation is not counted. Rounds of all forms alternate, and *speed* is relative to the plain
round.
"""

import argparse
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch

from . import gan, report, training
from .measure import default_device, interleaved

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
BF16 = functools.partial(torch.autocast, dtype=torch.bfloat16)
FORMS: dict[str, tuple[dict[str, bool], Any]] = {  # options of the model, and what its rounds run in
    "plain": ({}, None),
    "channels last": ({"channels_last": True}, None),
    "compiled": ({"compile": True}, None),
    "bf16": ({}, BF16),
    "bf16, channels last": ({"channels_last": True}, BF16),
    "bf16, channels last, compiled": ({"channels_last": True, "compile": True}, BF16),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datasets", nargs="+", choices=list(SHAPES), default=["digits", "mnist"])
    parser.add_argument("--repeats", type=int, default=10)
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    device = default_device()
    sections = {name: study(name, args.repeats, device) for name in args.datasets}
    env = report.environment(device)
    report.write(args.out, "acceleration", "Acceleration", __doc__ or "", sections, env, None)


def study(name: str, repeats: int, device: str) -> list[training.Row]:
    setting = gan.settings()[name]
    x = torch.rand(setting.batch, *SHAPES[name], device=device)
    times = interleaved({form: rounds(setting, x, form) for form in FORMS}, repeats=repeats, device=device)
    return [{"form": form, "ms": time, "speed": times["plain"] / time} for form, time in times.items()]


def rounds(setting: gan.Setting, x: torch.Tensor, form: str) -> Callable[[], object]:
    from adapters import TRIP

    options, context = FORMS[form]
    sizes = setting.latents, setting.components, setting.rank
    prior = TRIP(*sizes, nonnegative="abs", mean_range=(-1.0, 1.0), std=1 / setting.components)
    once = gan.training_round(gan.wgan(setting, x.shape[1:], prior, **options).to(x.device), x)
    return within(once, context, x.device.type)


def within(once: Callable[[], object], context: Any, device: str) -> Callable[[], object]:
    """A round in a context of this device, if there is one."""

    def inside() -> None:
        with contextlib.nullcontext() if context is None else context(device):
            once()

    return inside
