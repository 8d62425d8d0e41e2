"""How well do rings, mixtures and flows model the codes of a variational autoencoder?

One autoencoder is trained, or read from `--runs`; its codes are a table that every model is fitted to.
"""

from __future__ import annotations

import argparse
import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from . import autoencoder, report, training, vae

TEXT = """\
Codes are one draw from q(z | x) for each image, of a VAE that was trained with the prior N(0, I) as in
`python -m benchmarks vae`. Every model sees those of the training images; those of the validation images stop the
training of flows, and those of the test images are reported: log-likelihoods in nats per code, means over seeds of the
models with their standard deviation. The autoencoder is the same for all of them.

*Mixtures* are scikit-learn's, with diagonal or full covariances. *Dense TRIP* is fitted by EM in the order of mutual
information. *CP from mixture* is a ring with a Gaussian for every hidden state that represents a mixture of the codes;
with *EM*, that mixture is only its starting point. In *switching* rings a hidden state stays or is drawn anew, which
takes three numbers per state and bond. *Flow* has three spline coupling layers over N(0, I), *flow + CP* and *flow +
switching* the same layers over such a ring, which starts from a mixture of the transformed codes. They learn by
gradients."""

METRICS = ("train", "validation", "test")
SIZES = {
    "mixture": (5, 20, 50, 200),
    "full mixture": (2, 5, 10, 20, 50),
    "flow": (8, 16, 32, 64),
    "dense TRIP, EM": (2, 4, 8, 16),
    "CP from mixture": (8, 16, 32, 64),
    "CP from mixture, EM": (8, 16, 32, 64),
    "switching from mixture": (16, 32, 64, 128),
    "flow + CP": (8, 16, 32, 64),
    "flow + switching": (16, 32, 64, 128),
}  # components, the width of the flow's networks, or ranks
FLOW_WIDTH = 16  # under a ring
EPOCHS, PATIENCE, BATCH, RATE = 100, 5, 128, 3e-3  # of learning by gradients


class Codes(NamedTuple):
    """Codes (n, d) of the images of each part."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    autoencoder.add_arguments(parser, datasets=["digits", "mnist-static"])
    parser.add_argument("--models", nargs="+", help="only those with these names, or parts of them")
    parser.add_argument("--sizes", type=int, nargs="+", help="components, widths and ranks instead of each model's own")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most, of flows")


def main(args: argparse.Namespace) -> None:
    sections: dict[str, list[training.Row]] = {}
    for name in args.datasets:
        codes = functools.cache(functools.partial(encoded, args, name))  # trains only if a result is missing
        runs = {
            label(model, size): functools.partial(_measure, args, codes, model, size)
            for model in SIZES
            for size in args.sizes or SIZES[model]
        }
        rows = training.study(args, f"{name}-codes", runs, METRICS, "model", args.models)
        if rows:
            sections[name] = [{key: value for key, value in row.items() if key != "of all"} for row in rows]
    report.write(args.out, "codes", "Codes of an autoencoder", TEXT, sections, report.environment(), figure(sections))


def label(model: str, size: int) -> str:
    """The name of a model of one size."""
    return f"{model}, {size}"


def encoded(args: argparse.Namespace, name: str) -> Codes:
    """Codes of the VAE with the prior N(0, I) and seed 0, which `python -m benchmarks vae` may have trained."""
    from lightning.pytorch import seed_everything

    from adapters.refitting import codes_of

    setting, prior = autoencoder.settings()[name], "N(0, I)"
    candidate = vae.candidates(setting, name)[prior]
    seed_everything(0, verbose=False)
    with training.folder_or_scratch(args.runs and training.place(args.runs, name, prior, 0)) as folder:
        model, images, _ = autoencoder.train(args, setting, candidate, 0, Path(folder))
    model.cpu().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        return Codes(*(codes_of(model, images, stage).z for stage in ("train", "val", "test")))


def _measure(
    args: argparse.Namespace, codes: Callable[[], Codes], model: str, size: int, seed: int, folder: Path
) -> training.Row:
    table = codes()
    density, parameters = fitted(model, size, table, seed, args.epochs)
    found = {metric: density(rows) for metric, rows in zip(METRICS, table, strict=True)}
    return found | {"parameters": parameters, "share": 1.0}


def fitted(model: str, size: int, codes: Codes, seed: int, epochs: int) -> tuple[Callable[[torch.Tensor], float], int]:
    """The mean log-likelihood of codes as a function of them, and the number of parameters."""
    from adapters import TRIP, FlowPrior, GaussianPrior

    d = codes.train.shape[1]
    torch.manual_seed(seed)
    if model in ("mixture", "full mixture"):
        return _mixture(codes, size, "diag" if model == "mixture" else "full", seed)
    if model == "flow":
        prior = by_gradients(FlowPrior(GaussianPrior(d), hidden_features=(size, size)), codes, epochs)
    elif model == "dense TRIP, EM":
        prior = TRIP(d, rank=size, seed=seed)
        prior.reinitialize(codes.train, "em", "mutual_information", max_epochs=20)
    else:
        core: Literal["cp", "switching"] = "switching" if "switching" in model else "cp"
        prior = TRIP(d, rank=size, seed=seed, core=core, private_components=True)
        if model.startswith("flow + "):
            flow = FlowPrior(prior, hidden_features=(FLOW_WIDTH, FLOW_WIDTH))
            flow.reinitialize(codes.train, method="mixture")
            prior = by_gradients(flow, codes, epochs)
        else:
            prior.reinitialize(codes.train, "em" if model.endswith("EM") else "mixture")
    return functools.partial(mean_log_prob, prior), vae.parameters(prior)


def _mixture(codes: Codes, size: int, kind: str, seed: int) -> tuple[Callable[[torch.Tensor], float], int]:
    from sklearn.mixture import GaussianMixture

    d = codes.train.shape[1]
    mixture = GaussianMixture(size, covariance_type=kind, reg_covar=1e-4, max_iter=200, random_state=seed)
    mixture.fit(codes.train.double().numpy())
    parameters = size - 1 + size * d + size * (d if kind == "diag" else d * (d + 1) // 2)
    return lambda rows: float(mixture.score(rows.double().numpy())), parameters


def by_gradients(prior: Any, codes: Codes, epochs: int) -> Any:
    """The prior after the epoch, of at most so many, that is best on the validation codes."""
    optimizer = torch.optim.Adam(prior.parameters(), RATE)
    best, state, since = mean_log_prob(prior, codes.validation), copy.deepcopy(prior.state_dict()), 0
    for _ in range(epochs):
        for rows in codes.train[torch.randperm(len(codes.train))].split(BATCH):
            optimizer.zero_grad()
            (-prior.log_prob(rows).mean()).backward()
            optimizer.step()
        score = mean_log_prob(prior, codes.validation)
        if score > best:
            best, state, since = score, copy.deepcopy(prior.state_dict()), 0
        elif (since := since + 1) == PATIENCE:
            break
    prior.load_state_dict(state)
    return prior


@torch.no_grad()
def mean_log_prob(prior: Any, rows: torch.Tensor) -> float:
    """In nats per code."""
    return float(torch.cat([prior.log_prob(part) for part in rows.split(1000)]).double().mean())


def figure(sections: dict[str, list[training.Row]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(6 * max(1, len(sections)), 4), layout="constrained")
    for axes, (name, rows) in zip(
        fig.subplots(1, max(1, len(sections)), squeeze=False)[0], sections.items(), strict=False
    ):
        for colour, model in enumerate(SIZES):
            own = [row for row in rows if str(row["model"]).rpartition(", ")[0] == model]
            points = sorted((row["learned parameters"], float(row["test"].split(" ± ")[0])) for row in own)
            if points:
                axes.plot(*np.transpose(points), ".-", color=f"C{colour}", label=model)
        axes.set(xscale="log", xlabel="parameters", ylabel="log-likelihood of test codes, nats", title=name)
        axes.legend(fontsize="small")
    return fig
