"""Which estimator of a prior's gradient is unbiased, has the least variance and the lowest cost?

The gradient is that of E[f(z)] with respect to the parameters of a TRIP. f is a random quadratic form, so the exact
gradient follows from the ring's mean and covariance. *Size* is the projection of the mean estimate on the exact
gradient, relative to its length, with its standard error: 1 is unbiased. *Variance* is the trace of the covariance of a
batch's estimate divided by the squared length of the exact gradient, for each kind of parameter: noise over signal.
*Deviations* are the standard deviations of the Gaussians. *Time* is that of value and gradient, beside the time of a
fixed prior, which only samples. All estimators alternate in one run.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import report
from .measure import interleaved

ESTIMATORS = (
    ("reinforce, mean of all (paper)", "reinforce", "mean"),
    ("reinforce, leave one out", "reinforce", "leave_one_out"),
    ("hybrid, leave one out", "hybrid", "leave_one_out"),
    ("pathwise", "pathwise", "leave_one_out"),
)
KINDS = ("means", "log_stds", "cores")
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One point of the study; the others vary one number of it."""

    rank: int = 8
    batch: int = 32
    gap: float = 4.0  # between neighbouring means, in standard deviations
    latents: int = 8
    components: int = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=400, help="estimates behind each mean and variance")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 16, 40])
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8, 32, 128])
    parser.add_argument("--gaps", type=float, nargs="+", default=[1, 2, 4, 6, 8])
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    env = report.environment()
    sections = {
        "Batch": [row for batch in args.batches for row in study(Setting(batch=batch), "batch", args.repeats)],
        "Rank": [row for rank in args.ranks for row in study(Setting(rank=rank), "rank", args.repeats)],
        "Gap between modes": [row for gap in args.gaps for row in study(Setting(gap=gap), "gap", args.repeats)],
    }
    report.write(args.out, "gradients", "Gradients of a prior", __doc__ or "", sections, env, figure(sections))


def study(setting: Setting, varied: str, repeats: int) -> list[Row]:
    """One row per estimator."""
    from adapters import expected_reward

    prior = make_prior(setting)
    reward, expectation = quadratic(setting.latents)
    parameters = [prior.means, prior.log_stds, *prior.cores]
    value = expectation(prior)
    exact = [gradient.flatten() for gradient in torch.autograd.grad(value, parameters)]
    fixed = make_prior(setting).requires_grad_(False)
    rng = torch.Generator().manual_seed(1)

    def estimate(estimator: Any, baseline: Any) -> Callable[[], list[torch.Tensor]]:
        def gradient() -> list[torch.Tensor]:
            value = expected_reward(prior, reward, setting.batch, estimator, baseline=baseline, rng=rng)
            return [gradient.flatten() for gradient in torch.autograd.grad(value, parameters)]

        return gradient

    estimators = {label: estimate(*options) for label, *options in ESTIMATORS}
    costs = interleaved(
        estimators | {"fixed": lambda: expected_reward(fixed, reward, setting.batch, rng=rng)},
        repeats=20,
        device="cpu",
        seconds=0.5,
    )
    rows = []
    for label, gradient in estimators.items():
        estimates = [gradient() for _ in range(repeats)]
        row = {varied: getattr(setting, varied), "estimator": label}
        row |= measured([torch.stack(parts) for parts in zip(*estimates, strict=True)], exact)
        rows.append(row | {"time, ms": costs[label], "fixed prior, ms": costs["fixed"]})
    print(report.table(rows), flush=True)
    return rows


def make_prior(setting: Setting) -> Any:
    """A TRIP in float64 with evenly spaced means, perturbed so that no symmetry makes a gradient vanish."""
    from adapters import TRIP

    half = (setting.components - 1) / 2 * setting.gap
    sizes = setting.latents, setting.components, setting.rank
    prior = TRIP(*sizes, nonnegative="abs", mean_range=(-half, half), std=1.0).double()
    with torch.no_grad():
        rng = torch.Generator().manual_seed(0)
        prior.means += 0.2 * torch.randn(prior.means.shape, generator=rng, dtype=prior.dtype)
    return prior


def quadratic(d: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Any], torch.Tensor]]:
    """f(z) = aᵀ z + zᵀ B z / d, and its exact expectation over a prior."""
    rng = torch.Generator().manual_seed(2)
    a, b = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((d,), (d, d)))

    def reward(z: torch.Tensor) -> torch.Tensor:
        return z @ a + ((z @ b) * z).sum(-1) / d

    def expectation(prior: Any) -> torch.Tensor:
        mean, covariance = prior.ring.mean(), prior.ring.covariance()
        return mean @ a + (b * (covariance + torch.outer(mean, mean))).sum() / d

    return reward, expectation


def measured(estimates: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> Row:
    """Size along the exact gradient, and variances relative to it, of estimates (repeats, parameters) of each kind."""
    groups = {"means": ([0], "means"), "log_stds": ([1], "deviations"), "cores": (range(2, len(exact)), "cores")}
    sizes, row = [], {}
    for kind in KINDS:
        members, label = groups[kind]
        gradient = torch.cat([exact[i] for i in members])
        found = torch.cat([estimates[i] for i in members], dim=1)
        sizes.append((found @ gradient) / gradient.square().sum())
        row[f"variance, {label}"] = float(found.var(0).sum() / gradient.square().sum())
    scores = {"size, Gaussians": (sizes[0] + sizes[1]) / 2, "size, cores": sizes[2]}
    return {
        label: f"{score.mean():.3f} ± {score.std() / len(score) ** 0.5:.3f}" for label, score in scores.items()
    } | row


def figure(sections: dict[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13, 3.8), layout="constrained")
    for axes, (title, rows) in zip(fig.subplots(1, len(sections)), sections.items(), strict=True):
        varied = next(iter(rows[0]))
        for label, *_ in ESTIMATORS:
            chosen = [row for row in rows if row["estimator"] == label]
            axes.plot([row[varied] for row in chosen], [row["variance, cores"] for row in chosen], "o-", label=label)
        axes.set(title=title, xlabel=varied, yscale="log", ylabel="variance, cores")
        if varied != "gap":
            axes.set_xscale("log", base=2)
    axes.legend(fontsize="small")
    return fig
