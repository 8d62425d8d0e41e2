"""The process that measures: one part after the other, each with its share of the time."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from . import checks, engines, gradients, graphs, growth, jaxed, numerics, profile, samplers, speed, suite, train, wgan
from .session import SHORTEST, Item, Options, Session

RESTART = 75  # exit status that asks for another worker


class Part(NamedTuple):
    name: str
    share: float  # of the whole time; what a part leaves goes to the next ones
    items: tuple[Callable[[Session], Iterable[Item]], ...]


CORRECTNESS = (
    suite.begin,
    checks.items,
    graphs.items,
    gradients.items,
    samplers.items,
    graphs.compilations,
    jaxed.items,
    suite.items,
)
PARTS = (
    Part("correctness", 0.31, CORRECTNESS),
    Part("speed", 0.27, (speed.items, engines.items, wgan.items)),
    Part("limits", 0.28, (numerics.items, growth.items, profile.items)),
    Part("training", 0.14, (train.items,)),
)


def run(options: Options, minutes: float) -> int:
    """Measure what is not settled; the exit status, `RESTART` if the device has to be opened anew."""
    session = Session(options)
    end = options.end - 60 * minutes
    for part in PARTS:
        end += 60 * minutes * part.share
        for items in part.items:
            for item in items(session):
                if session.settled(part.name, item.name):
                    continue
                if min(session.left, end - time.monotonic()) < SHORTEST and not item.always:
                    break
                succeeded = session.run(part.name, item, end) and not wrong(session, part.name, item.name)
                print(line(session, part.name, item.name), flush=True)
                if not succeeded and not healthy(options.device):
                    return RESTART
    return 0


def line(session: Session, part: str, name: str) -> str:
    record = session.results["parts"][part][name]
    problem = f": {record['error'][:200]}" if "error" in record else ""
    bad = wrong(session, part, name)
    problem += f": {len(bad)} wrong, first {bad[0]}" if bad else ""
    return f"[{session.left:5.0f} s left] {part}, {name}: {record['status']} in {record['seconds']} s{problem}"


def wrong(session: Session, part: str, name: str) -> list[dict[str, Any]]:
    """The checks of an item that found an error."""
    value = session.results["parts"][part][name].get("value")
    return [row for row in value if row.get("ok") == "no"] if isinstance(value, list) else []


def healthy(device: str) -> bool:
    """Whether the device still calculates: after some errors no call to it works until the process ends."""
    if device != "cuda":
        return True
    try:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        return float(torch.rand(2, device=device).sum()) < 2.0  # random numbers too: a broken capture stops them
    except Exception:
        return False
