"""The exponential function of PyTorch on a CPU, with 0 in place of the smallest results."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ringdist.backend.arrays import PART

MARGIN = 1.5  # beside the logarithm of the smallest normal number; float64 is slow from 0.4 above it


class Exponential(torch.autograd.Function):
    """exp(x), 0 below exp(`MARGIN`) times the smallest normal number: PyTorch takes 50 times as long for such results.

    Most densities of a row under narrow components are such numbers. The threshold of sweeps allows for their loss.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for given, part in zip(x.reshape(-1).split(PART), result.view(-1).split(PART), strict=True):
            flushed_exp(given, part)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0]


def flushed_exp(x: Tensor, out: Tensor) -> Tensor:
    """As `Exponential`, without gradient, written to `out`, which may be x."""
    least = torch.finfo(x.dtype).smallest_normal
    torch.clamp(x, min=math.log(least) + MARGIN, out=out).exp_()
    return torch.nn.functional.threshold_(out, least * math.exp(MARGIN + 0.01), 0.0)
