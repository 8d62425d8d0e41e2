"""How many nats does it cost to multiply matrices in less than single precision?

The setting is that of the paper's Table 5 (100 columns, 10 Gaussians each, 128 rows). Errors are those of log p(x),
including log Z, relative to a ring in double precision with the same numbers. *Mean* and *largest* are absolute errors;
*bias* is the mean with its sign. *Gradient* is the error of the mean log-likelihood's gradient with respect to all
cores, relative to its length. *TF32* and *bf16*: both factors of every product are rounded to 11 and 8 significant bits
and multiplied in single precision, as tensor cores do; everything else stays in single precision.

PyTorch multiplies in single precision by default. On CUDA, `torch.set_float32_matmul_precision("high")` switches to
TF32, and "medium" to bfloat16 where the device has it. On CUDA, *high* and *medium* are measured too.
"""

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ringdist as rd

from . import report
from .measure import default_device
from .rivals import Start

MANTISSA = 23  # bits of single precision behind the first
BITS = {"float32": MANTISSA, "TF32": 10, "bf16": 7}
FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "mv": (0, 1), "dot": (0, 1)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default_device())
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    rows = [row for rank in args.ranks for row in measure(rank, args.device)]
    print(report.table(rows))
    env = report.environment(args.device)
    report.write(args.out, "precision", "Precision", __doc__ or "", {"Errors": rows}, env, figure(rows))


def measure(rank: int, device: str) -> list[dict[str, Any]]:
    """The errors of each kind of products at one rank."""
    rows = []
    start = Start.draw(rank, device)
    exact, reference = evaluated(start, torch.float64)
    for name in (*BITS, *(("high", "medium") if device == "cuda" else ())):
        with Rounded(BITS[name]) if name in BITS else switched(name):
            found, gradient = evaluated(start, torch.float32)
        error = found.double() - exact
        rows.append(
            {
                "rank": rank,
                "products": name,
                "mean, nats": error.abs().mean().item(),
                "largest, nats": error.abs().max().item(),
                "bias, nats": error.mean().item(),
                "gradient": ((gradient.double() - reference).norm() / reference.norm()).item(),
                "mean of log p": exact.mean().item(),
            }
        )
    return rows


def evaluated(start: Start, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of the rows, (batch,), and the gradient of its mean with respect to all cores, flat."""
    cores = [(root.to(dtype) ** 2).requires_grad_() for root in start.roots]
    variables = [
        rd.GaussianMixture(mean.to(dtype), log_std.to(dtype).exp())
        for mean, log_std in zip(start.means, start.log_stds, strict=True)
    ]
    values = rd.TensorRing(cores, variables).log_prob(start.x.to(dtype))
    gradient = torch.autograd.grad(values.mean(), cores)
    return values.detach(), torch.cat([part.flatten() for part in gradient])


class Rounded(TorchDispatchMode):
    """Within it, the factors of every matrix product have so many bits behind the first."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        changed = list(args)
        for place in FACTORS.get(func.overloadpacket.__name__, ()):
            changed[place] = rounded(args[place], self.bits)
        return func(*changed, **(kwargs or {}))


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """To the nearest single-precision number with so many bits behind the first, halves away from zero."""
    dropped = MANTISSA - bits
    if dropped == 0:
        return x
    return ((x.contiguous().view(torch.int32) + (1 << (dropped - 1))) & -(1 << dropped)).view(torch.float32)


@contextlib.contextmanager
def switched(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def figure(rows: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9, 3), layout="constrained")
    for axes, quantity in zip(fig.subplots(1, 2), ("mean, nats", "gradient"), strict=True):
        for name in dict.fromkeys(row["products"] for row in rows):
            chosen = [row for row in rows if row["products"] == name]
            axes.loglog([row["rank"] for row in chosen], [row[quantity] for row in chosen], "o-", label=name)
        axes.set(xlabel="rank", ylabel=quantity)
        axes.legend()
    return fig
