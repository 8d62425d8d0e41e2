"""What a prior costs in a round of adversarial training of the paper's size, CIFAR-10."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .. import acceleration, gan
from ..measure import interleaved
from . import graphs
from .session import Item, Options, Session

GOAL = 0.1  # of a round with N(0, I)
SECONDS = 4.0
PIECES = ("codes of four critic steps", "generator step, hybrid", "generator step, reinforce")
FORMS = ("plain", "channels last", "bf16, channels last")
Row = dict[str, Any]


def setting(small: bool) -> gan.Setting:
    """That of the paper; a toy in a dry run."""
    found = gan.settings()["cifar10"]
    toy = {"latents": 6, "rank": 3, "components": 3, "channels": (4, 8, 8), "batch": 8, "mixture": 5}
    return dataclasses.replace(found, **toy) if small else found


def items(session: Session) -> Iterable[Item]:
    options = session.options
    for form in FORMS:
        yield Item(f"rounds, {form}", functools.partial(rounds, options, form), 45.0)
    for name in PIECES:
        yield Item(f"the prior alone, {name}", functools.partial(alone, options, name))
        if options.device == "cuda":
            yield Item(f"the prior alone in a graph, {name}", functools.partial(replayed, options, name))


def candidates(size: gan.Setting) -> dict[str, Callable[[int], tuple[Any, Any]]]:
    wanted = ("N(0, I)", "mixture, learned", "TRIP, fixed", "TRIP, learned, reinforce (paper)", "TRIP, learned, hybrid")
    found = gan.candidates(size)
    return {name: found[name] for name in wanted}


def rounds(options: Options, form: str) -> list[Row]:
    """Milliseconds of four steps of the critic and one of the generator, and what is beyond those with N(0, I)."""
    size = setting(options.small)
    x = torch.rand(size.batch, 3, 32, 32, device=options.device)
    own, context = acceleration.FORMS[form]
    operations = {}
    for name, make in candidates(size).items():
        model = gan.wgan(size, (3, 32, 32), *make(0), **own).to(options.device)
        operations[name] = acceleration.within(gan.training_round(model, x), context, options.device)
    least = {"repeats": 1, "seconds": 0.0} if options.small else {"repeats": 5, "seconds": SECONDS}
    times = interleaved(operations, device=options.device, **least)
    normal = times["N(0, I)"]
    return [
        {
            "form": form,
            "prior": name,
            "ms": time,
            "share": f"{time / normal - 1:.1%}",
            "goal": f"{GOAL:.0%}",
            "met": "yes" if time <= (1 + GOAL) * normal else "no",
        }
        for name, time in times.items()
    ]


def piece(options: Options, name: str) -> Callable[[], Any]:
    """What a round asks of a TRIP."""
    size = setting(options.small)
    prior = candidates(size)["TRIP, learned, hybrid"](0)[0].to(options.device)
    learned = list(prior.parameters())

    def hybrid() -> Any:
        z, log_prob = prior.sample_components(size.batch)
        return torch.autograd.grad((z.sum(1) * log_prob).mean(), learned)

    def reinforce() -> Any:
        z = prior.sample(size.batch)
        return torch.autograd.grad(prior.log_prob(z).mean(), learned)

    codes = functools.partial(prior.sample, 4 * size.batch)
    return dict(zip(PIECES, (codes, hybrid, reinforce), strict=True))[name]


def alone(options: Options, name: str) -> list[Row]:
    repeats, seconds = (1, 0.0) if options.small else (5, 0.5)
    operations = {"it": piece(options, name)}
    times = interleaved(operations, repeats=repeats, device=options.device, seconds=seconds)
    return [{"part": name, "eager, ms": times["it"]}]


def replayed(options: Options, name: str) -> list[Row]:
    replay, _ = graphs.capture(piece(options, name))
    times = interleaved({"it": replay}, repeats=5, device=options.device, seconds=0.3)
    return [{"part": name, "graph, ms": times["it"]}]
