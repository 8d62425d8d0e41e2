"""Log-densities of Gaussian components in PyTorch on a CPU, with a backward pass of their own.

A large table of them is computed in parts that stay in the cache, forward and backward. With z = (x − mean) / std and
the gradient g of the log-density, those of x, mean and std are −Σ g z / std, Σ g z / std and Σ g (z² − 1) / std.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ringdist.backend import PART, accepts_own_backward, on_accelerator
from ringdist.variables.gaussian_functions import HALF_LOG_2PI, overflowing, standardised

is_batch = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: False)  # as of `is_grads_batched`


def applies(x: Any, means: Any, stds: Any) -> bool:
    """Whether `log_density` takes these arrays: of one dtype, for one variable or a stack of them."""
    return (
        all(isinstance(array, Tensor) and array.dtype == means.dtype for array in (x, means, stds))
        and means.dtype in (torch.float32, torch.float64)
        and (means.ndim == 1 or (means.ndim == 3 and x.ndim == 2 and means.shape[:2] == (len(x), 1)))
        and not on_accelerator(means)
        and accepts_own_backward(x, means, stds)
    )


def log_density(x: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """log N(x; mean, std²): x (...) and (N,) -> (..., N), or x (g, b) and (g, 1, N) -> (g, b, N)."""
    size = means.shape[-1]
    sites = means.reshape(-1, size)
    found: Tensor = _LogDensity.apply(x.reshape(len(sites), -1), sites, stds.reshape(-1, size))
    return found.reshape(*x.shape, size)


class _LogDensity(torch.autograd.Function):
    """x (g, b), means and stds (g, N) -> (g, b, N)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, means: Tensor, stds: Tensor) -> Tensor:
        ctx.save_for_backward(x, means, stds)
        result = x.new_empty(*x.shape, means.shape[1])
        heights = stds.log() + HALF_LOG_2PI
        for sites, rows in _parts(result):
            z = _scores(x[sites, rows], means[sites], stds[sites], result[sites, rows])
            z.mul_(-0.5 * z).sub_(heights[sites, None])
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, means, stds = ctx.saved_tensors
        if torch.is_grad_enabled() or is_batch(gradient):
            return _recorded(gradient, x, means, stds)
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_means, of_stds = torch.zeros_like(means), torch.zeros_like(stds)
        for sites, rows in _parts(gradient):
            part, scale = gradient[sites, rows], stds[sites].reciprocal()
            z = _scores(x[sites, rows], means[sites], stds[sites], torch.empty_like(part))
            slope = part * z
            if z.numel() and not max(map(abs, map(float, z.aminmax()))) < clip_bound(z):
                slope.masked_fill_(z.abs() >= clip_bound(z), 0.0)
            if any(ctx.needs_input_grad[1:]):
                of_means[sites] += scale * slope.sum(1)
                of_stds[sites] += scale * (z.mul_(slope).sum(1) - part.sum(1))
            if of_x is not None:
                of_x[sites, rows] = -slope.mul_(scale[:, None]).sum(2)  # no matrix product, which autocast would round
        return of_x, of_means, of_stds


def _parts(table: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of sites and of rows of a table (g, b, N), with at most `PART` entries if one row has no more."""
    g, b, size = table.shape
    rows = max(1, min(b, PART // max(1, size)))
    sites = max(1, PART // max(1, rows * size)) if rows == b else 1
    for i in range(0, g, sites):
        for j in range(0, b, rows):
            yield slice(i, i + sites), slice(j, j + rows)


def _scores(x: Tensor, means: Tensor, stds: Tensor, out: Tensor) -> Tensor:
    """`standardised`, (g, b, N), written to `out`."""
    bound = overflowing(out)
    torch.sub(0.5 * x[..., None], 0.5 * means[:, None], out=out)
    return out.mul_(2 * stds.reciprocal()[:, None]).clamp_(-bound, bound)


def clip_bound(z: Tensor) -> float:
    """The size from which scores are clipped: the log-density is −inf there, and has no gradient."""
    return 0.99 * overflowing(z)


def _recorded(gradient: Tensor, x: Tensor, means: Tensor, stds: Tensor) -> tuple[Tensor, ...]:
    """The gradients as operations that have gradients themselves."""
    z, scale = standardised(x[..., None], means[:, None], stds[:, None]), stds.reciprocal()
    slope = torch.where(z.abs() < clip_bound(z), gradient * z, 0.0)
    of_x = -(slope * scale[:, None]).sum(2)
    return of_x, scale * slope.sum(1), scale * ((slope * z).sum(1) - gradient.sum(1))
