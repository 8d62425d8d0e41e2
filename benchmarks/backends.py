"""How fast is the same ring in NumPy, PyTorch and JAX?

The setting is that of the paper's Table 5: 100 columns, 10 Gaussians each, 128 rows, float32. All libraries hold the
same parameters and rows. All calls start from the parameters and alternate; medians are compared. *Ratio* is PyTorch's
time divided by that of the other library: below 1 the other is slower. JAX's calls are compiled by `jax.jit`;
*compilation* is the time of that, which is not counted. *Gradient* is that of the mean log-likelihood with respect to
all parameters. The number of threads is each library's own choice.
"""

import argparse
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np
import torch

import ringdist as rd

from . import report
from .measure import interleaved
from .rivals import BATCH, Start

Parameters = tuple[list[Any], list[Any]]  # cores (N, m, m) and means (N,)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 10, 20, 50, 100])
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings behind a median")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    env = report.environment() | {"jax": jax.__version__}
    sections: dict[str, list[dict[str, Any]]] = {"Log-likelihood": [], "Sampling": [], "Gradient": [], "Agreement": []}
    for rank in args.ranks:
        start = Start.draw(rank, "cpu")
        parameters, x = (
            ([(root**2).numpy() for root in start.roots], [mean.numpy() for mean in start.means]),
            start.x.numpy(),
        )
        libraries: dict[str, Library] = {
            "torch": Torch(parameters, x),
            "numpy": NumPy(parameters, x),
            "jax": Jax(parameters, x),
        }
        for head, method in (("Log-likelihood", "log_prob"), ("Sampling", "sample"), ("Gradient", "gradient")):
            calls = {name: call for name, library in libraries.items() if (call := getattr(library, method, None))}
            begin = time.perf_counter()
            calls["jax"]()
            compilation = time.perf_counter() - begin
            times = interleaved(calls, repeats=args.repeats, device="cpu")
            sections[head].append({"rank": rank} | compared(times) | {"jax compilation, s": compilation})
            print(report.table([{head: "", **sections[head][-1]}]), flush=True)
        values = {name: np.asarray(library.log_prob(), np.float64) for name, library in libraries.items()}
        sections["Agreement"].append({"rank": rank} | agreement(values))
    report.write(args.out, "backends", "Backends", __doc__ or "", sections, env, figure(sections))


def ring(xp: ModuleType, cores: list[Any], means: list[Any]) -> rd.TensorRing:
    variables = [rd.GaussianMixture(mean, xp.ones_like(mean), validate=False) for mean in means]
    return rd.TensorRing(cores, variables, validate=False)


class NumPy:
    def __init__(self, parameters: Parameters, x: np.ndarray) -> None:
        self.parameters, self.x, self.rng = parameters, x, np.random.default_rng(0)

    def log_prob(self) -> Any:
        return ring(np, *self.parameters).log_prob(self.x)

    def sample(self) -> Any:
        return ring(np, *self.parameters).sample(BATCH, rng=self.rng)


class Torch:
    def __init__(self, parameters: Parameters, x: np.ndarray) -> None:
        cores, means = ([torch.tensor(array).requires_grad_() for array in arrays] for arrays in parameters)
        self.parameters, self.x = (cores, means), torch.tensor(x)

    @torch.no_grad()
    def log_prob(self) -> Any:
        return ring(torch, *self.parameters).log_prob(self.x)

    @torch.no_grad()
    def sample(self) -> Any:
        return ring(torch, *self.parameters).sample(BATCH)

    def gradient(self) -> Any:
        cores, means = self.parameters
        return torch.autograd.grad(ring(torch, cores, means).log_prob(self.x).mean(), [*cores, *means])


class Jax:
    def __init__(self, parameters: Parameters, x: np.ndarray) -> None:
        self.arguments = jax.tree.map(jax.numpy.asarray, (*parameters, x))
        self.key = jax.random.key(0)
        self._log_prob = jax.jit(_jax_log_prob)
        self._gradient = jax.jit(jax.grad(lambda *arguments: _jax_log_prob(*arguments).mean(), (0, 1)))
        self._sample = jax.jit(lambda cores, means, key: ring(jax.numpy, cores, means).sample(BATCH, rng=key))

    def log_prob(self) -> Any:
        return jax.block_until_ready(self._log_prob(*self.arguments))

    def sample(self) -> Any:
        self.key, key = jax.random.split(self.key)
        return jax.block_until_ready(self._sample(*self.arguments[:2], key))

    def gradient(self) -> Any:
        return jax.block_until_ready(self._gradient(*self.arguments))


Library = NumPy | Torch | Jax


def _jax_log_prob(cores: list[Any], means: list[Any], x: Any) -> Any:
    return ring(jax.numpy, cores, means).log_prob(x)


def agreement(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest relative differences of the log-densities from NumPy's."""
    known = values["numpy"]
    return {name: np.abs(found / known - 1).max() for name, found in values.items() if name != "numpy"}


def compared(times: Mapping[str, float]) -> dict[str, float]:
    row = {f"{name}, ms": time for name, time in times.items()}
    return row | {f"{name}, ratio": times["torch"] / time for name, time in times.items() if name != "torch"}


def figure(sections: Mapping[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    heads = [head for head in sections if head != "Agreement"]
    fig = Figure(figsize=(4 * len(heads), 3), layout="constrained")
    for axes, head in zip(fig.subplots(1, len(heads)), heads, strict=True):
        rows = sections[head]
        for name in ("torch", "numpy", "jax"):
            if f"{name}, ms" in rows[0]:
                axes.loglog([row["rank"] for row in rows], [row[f"{name}, ms"] for row in rows], "o-", label=name)
        axes.set(title=head, xlabel="rank", ylabel="ms")
        axes.legend()
    return fig
