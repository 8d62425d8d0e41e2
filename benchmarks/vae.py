"""What does a learned prior bring to a variational autoencoder?

The same encoder and decoder under eighteen priors with about as many parameters: the paper's Tables 1 (bounds) and 7.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from . import autoencoder, report, training
from .measure import default_device

TEXT = """\
Bounds on the test images in nats per image, with one code (*elbo*, its *reconstruction* and *kl*) and
importance-weighted (*iwae*). Values are means over seeds with their standard deviation. All candidates have the same
networks, optimiser and updates. Learned priors have nearly equal numbers of parameters; a standard Gaussian has none,
and a mixture has 1 000 components on MNIST, which gives it as many as the TRIP. TRIP and the mixture are refitted to
latent codes: on MNIST after the first epoch and then every five epochs up to the twentieth, on the digits after epochs
3, 15 and 27 of 62. The refit is a mixture per dimension with new random cores (*paper*), or exact EM in the order of
mutual information. *Exp*: cores are exponentials of the parameters instead of absolute values, so that a step of Adam
changes all entries in proportion; most entries are small. *CP from mixture*: CP cores with a Gaussian for every hidden
state, refitted as a mixture of codes. *Switching*: the same, but a transition keeps the state or draws another one, so
that there are parameters for nine times as many states on MNIST. *Mixture, then*: a mixture of as many components as
such a train has states is the prior for the first three fifths of the updates, and the train goes on from it.
*VampTRIP*: a train of the encoder's posteriors at pseudo-inputs. Under a *flow* the base has half of the parameters.
*Equal time*, where shown: as many updates as each prior makes while the slowest makes those of the first table; what an
update costs is measured in turns of ten updates of each prior, before training, and refits are not counted. *Fixed*
priors stay as they were initialised. The last epoch is tested. A tighter bound, where shown, is that
of all test images plus the *gain* of more samples on the first 200 of them."""

GROUPS = 2  # of pseudo-inputs, through which a VampTRIP switches

PUBLISHED = """\
For scale, published with fully connected networks of 2 x 300 units, 40 latents and 5 000 importance samples on
dynamically binarised MNIST (Tomczak and Welling 2018): Gaussian −84.45, VampPrior −82.43."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    autoencoder.add_arguments(parser, datasets=["digits", "mnist-static", "mnist-dynamic"])
    parser.add_argument("--priors", nargs="+", help="only those with these names, or parts of them")
    parser.add_argument("--equal-time", action="store_true", help="also for as long as the slowest")
    autoencoder.add_final_arguments(parser)


def main(args: argparse.Namespace) -> None:
    sections: dict[str, list[dict[str, Any]]] = {}
    timed, finals = {}, {}
    for name in args.datasets:
        found = candidates(autoencoder.settings()[name], name)
        sections[name] = autoencoder.study(args, name, found, args.priors)
        if args.equal_time:
            timed[f"{name}, equal time"] = autoencoder.equal_time(args, name, found, args.priors)
        if args.final_samples:
            chosen = training.named(found, args.priors)
            finals[f"{name}, {args.final_samples} samples"] = autoencoder.final(args, name, chosen)
    text = TEXT + ("\n\n" + PUBLISHED if any(name.startswith("mnist-dynamic") for name in args.datasets) else "")
    env = report.environment(default_device())
    picture = figure(sections)
    tables = {title: rows for title, rows in (sections | timed | finals).items() if rows}
    report.write(args.out, "vae", "Priors of a variational autoencoder", text, tables, env, picture)


def candidates(setting: autoencoder.Setting, name: str) -> dict[str, autoencoder.Candidate]:
    """The priors; sizes follow from the number of parameters of the TRIP."""
    from adapters import TRIP, FlowPrior, GaussianMixturePrior, GaussianPrior, VampPrior, VampTRIP

    d, n = setting.latents, setting.components
    budget = d * (2 * n + n * setting.rank**2)
    half_rank = max(1, round(((budget / 2 / d - 2 * n) / n) ** 0.5))
    mixture = 1000 if name != "digits" else round(budget / (2 * d + 1))
    shape = (3, 32, 32) if name.startswith("cifar10") else (1, 8, 8) if name == "digits" else (1, 28, 28)
    pseudo_inputs = max(2, budget // (shape[0] * shape[1] * shape[2]))

    def trip(seed: int, rank: int = setting.rank, nonnegative: Any = "abs", **options: Any) -> Any:
        return TRIP(d, n, rank, seed=seed, nonnegative=nonnegative, mean_range=(-3.0, 3.0), **options)

    def cp(seed: int, rank: int, core: Literal["cp", "switching"] = "cp") -> Any:
        return TRIP(d, rank=rank, seed=seed, core=core, private_components=True)

    def vamp_trip(seed: int, inputs: int) -> Callable[[Any], Any]:
        return lambda encoder: VampTRIP(encoder, shape, d, inputs, GROUPS, seed=seed)

    def flow(base: Callable[[int], Any], size: float) -> Callable[[int], Any]:
        return lambda seed: FlowPrior(base(seed), "nsf", **sized_flow(d, size))

    def flow_over_vamp(seed: int) -> Callable[[Any], Any]:
        base = functools.partial(VampPrior, input_shape=shape, num_latents=d, num_pseudo_inputs=pseudo_inputs // 2)
        return lambda encoder: FlowPrior(base(encoder, seed=seed), "nsf", **sized_flow(d, budget / 2))

    ranks = range(2, 400)
    rank, half_cp = (nearest(ranks, lambda m: parameters(cp(0, m)), size) for size in (budget, budget / 2))
    states, half_states = (
        nearest(ranks, lambda m: parameters(cp(0, m, "switching")), size) for size in (budget, budget / 2)
    )
    inputs = nearest(range(2, pseudo_inputs + 1), lambda k: parameters(vamp_trip(0, k)(lambda x: x)), budget)
    mixed = setting.again(method="mixture")
    make, em = autoencoder.Candidate, setting.again(method="em", order="mutual_information")
    return {
        "N(0, I)": make(lambda seed: GaussianPrior(d)),
        "mixture, fixed": make(lambda seed: GaussianMixturePrior(d, mixture, trainable=False, seed=seed)),
        "mixture, learned": make(lambda seed: GaussianMixturePrior(d, mixture, seed=seed), setting.again()),
        "TRIP, fixed": make(lambda seed: trip(seed, trainable=False)),
        "TRIP, learned (paper)": make(trip, setting.again(method="gmm")),
        "TRIP, learned (EM, order by MI)": make(trip, em),
        "TRIP, learned (EM, order by MI, exp)": make(lambda seed: trip(seed, nonnegative="exp"), em),
        "TRIP, CP from mixture": make(lambda seed: cp(seed, rank), mixed),
        "TRIP, switching": make(lambda seed: cp(seed, states, "switching"), mixed),
        "mixture, then TRIP, switching": make(
            lambda seed: cp(seed, states, "switching"),
            first=make(lambda seed: GaussianMixturePrior(d, states, seed=seed), setting.again()),
        ),
        "VampPrior": make(lambda seed: lambda encoder: VampPrior(encoder, shape, d, pseudo_inputs, seed=seed)),
        "VampTRIP": make(lambda seed: vamp_trip(seed, inputs)),
        "flow": make(flow(lambda seed: GaussianPrior(d), budget)),
        "flow + mixture": make(
            flow(lambda seed: GaussianMixturePrior(d, mixture // 2, seed=seed), budget / 2), setting.again()
        ),
        "flow + VampPrior": make(flow_over_vamp),
        "flow + TRIP": make(flow(lambda seed: trip(seed, rank=half_rank), budget / 2)),
        "flow + TRIP, CP": make(flow(lambda seed: cp(seed, half_cp), budget / 2), mixed),
        "flow + TRIP, switching": make(flow(lambda seed: cp(seed, half_states, "switching"), budget / 2), mixed),
    }


def parameters(prior: Any) -> int:
    """How many a prior learns."""
    return sum(parameter.numel() for parameter in prior.parameters())


def nearest(values: Sequence[int], size: Callable[[int], float], wanted: float) -> int:
    """The value, of which sizes grow, whose size is nearest to what is wanted."""
    best, distance = values[0], abs(size(values[0]) - wanted)
    for value in values[1:]:
        if (found := abs(size(value) - wanted)) > distance:
            break
        best, distance = value, found
    return best


def sized_flow(d: int, wanted: float) -> dict[str, Any]:
    """Options of a spline flow with about that many parameters."""
    from adapters import FlowPrior, GaussianPrior

    def size(width: int) -> int:
        return parameters(FlowPrior(GaussianPrior(d), "nsf", transforms=2, hidden_features=(width, width)))

    width = nearest(range(2, 400, 2), size, wanted)
    return {"transforms": 2, "hidden_features": (width, width)}


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5 * len(sections), 3.5), layout="constrained")
    for axes, (name, rows) in zip(fig.subplots(1, len(sections), squeeze=False)[0], sections.items(), strict=True):
        training.points(axes, rows, "iwae", "importance-weighted bound, nats")
        axes.set_title(name)
    return fig
