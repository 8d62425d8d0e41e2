"""A sweep whose backward pass needs little memory, in PyTorch.

P_k = P_{k−1} A_k with P_1 = A_1, every few products divided by the sums of its rows. Only every √d-th
P_k is stored. The backward pass recomputes one block at a time and processes it in reverse: with
D_k the gradient of P_k, that of A_k is P_{k−1}ᵀ D_k, and D_{k−1} = D_k A_kᵀ. This is four products per column instead
of three. All are written into reused memory, because fresh pages cost a CPU as much as the arithmetic on them. A_k is
not stored, because forming it costs only N / m of a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ringdist.backend import log_scaled_sum
from ringdist.backend.aliases import aliases
from ringdist.engines.arithmetic import Linear, Result


def lean_sweep(linear: Linear) -> Result:
    """log Tr ∏_k A_k(x_k) of every row, (b,), and the smallest entry met, (b,); with gradients of any order."""
    ring = linear.ring
    weights = [linear.evidence.weights(k) for k in ring.sequence]
    cores = [linear.cores[k].dense() for k in ring.sequence]
    diagonal, logs, low = _Diagonal.apply(linear.interval, *weights, *cores)
    return log_scaled_sum(diagonal, logs) + linear.offset, low


def lean_numbers(shapes: Sequence[tuple[int, ...]], cut: int) -> int:
    """Numbers in memory per row, from the shapes of the cores and the rank of the thinnest bond."""
    length, widest = _block_length(len(shapes)), max(max(shape[1:]) for shape in shapes)
    return (-(-len(shapes) // length) + length + 1) * cut * widest + 2 * widest**2


def _block_length(d: int) -> int:
    """Columns between two stored products: it minimises the sum of the d / L stored ones and the L of a block."""
    return math.isqrt(d)


class _Diagonal(torch.autograd.Function):
    """The diagonal of P_d (b, m), the logarithms of the scale of its rows (b, m), and the smallest entry met (b,).

    Inputs are the number of products between rescalings, the evidence weights (b, N) and the cores (N, m, n), both in
    the order of the sweep.
    """

    @staticmethod
    def forward(ctx: Any, interval: int, *arrays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, cores = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        size = _Size.of(weights, cores)
        kept = cores[0].new_empty(-(-size.d // size.length) - 1, size.state)
        spare, matrices = cores[0].new_empty(2, size.state), cores[0].new_empty(size.matrix)
        logs = cores[0].new_zeros(size.rows, size.cut, dtype=torch.float64)
        values, low, totals = None, None, []
        for k, (weight, core) in enumerate(zip(weights, cores, strict=True)):
            ends_block = k % size.length == size.length - 1 and k < size.d - 1
            place = kept[k // size.length] if ends_block else spare[k % 2]
            if values is None:
                values = _matrix(weight, core, place)
            else:
                values = _product(values, _matrix(weight, core, matrices), place)
            if k % interval == interval - 1 or k == size.d - 1:
                least = values.flatten(1).amin(1)
                low = least if low is None else torch.minimum(low, least)
            if k % interval == interval - 1:
                total = values.sum(-1, keepdim=True)
                totals.append(torch.where(total > 0, total, 1.0))
                logs += totals[-1][..., 0].to(logs.dtype).log()
                values /= totals[-1]
        assert values is not None and low is not None
        ctx.interval = interval
        ctx.save_for_backward(*arrays, kept, *totals)
        ctx.mark_non_differentiable(logs, low)
        return values.diagonal(dim1=1, dim2=2).clone(), logs, low

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        count, saved = len(ctx.needs_input_grad) - 1, ctx.saved_tensors
        arrays, kept, totals = saved[:count], saved[count], saved[count + 1 :]
        weights, cores = arrays[: count // 2], arrays[count // 2 :]
        scales = {(i + 1) * ctx.interval - 1: total for i, total in enumerate(totals)}
        if torch.is_grad_enabled():
            return None, *_recorded(weights, cores, scales, gradient, ctx.needs_input_grad[1:])
        size = _Size.of(weights, cores)
        states, spare = gradient.new_empty(size.length - 1, size.state), gradient.new_empty(2, size.state)
        matrices, products = gradient.new_empty(2, size.matrix)
        gradients: list[Tensor | None] = [None] * count
        gradient = torch.diag_embed(gradient)
        for first in reversed(range(0, size.d, size.length)):
            start = kept[first // size.length - 1] if first else None
            block = range(first, min(first + size.length, size.d))
            prefixes = [None if start is None else _shaped(start, size.rows, size.cut, cores[first].shape[1])]
            for i, k in enumerate(block[:-1]):
                prefixes.append(_prefix(prefixes[i], weights[k], cores[k], scales.get(k), matrices, states[i]))
            for prefix, k in zip(reversed(prefixes), reversed(block), strict=True):
                if k in scales:
                    gradient /= scales[k]
                along = gradient if prefix is None else _product(prefix.mT, gradient, products)
                along = along.flatten(1)
                if ctx.needs_input_grad[1 + k]:
                    gradients[k] = along @ cores[k].flatten(1).T
                if ctx.needs_input_grad[1 + size.d + k]:
                    gradients[size.d + k] = (weights[k].T @ along).view_as(cores[k])
                if k:
                    gradient = _product(gradient, _matrix(weights[k], cores[k], matrices).mT, spare[k % 2])
        return None, *gradients


class _Size:
    """Lengths and numbers of what a sweep handles."""

    def __init__(self, rows: int, cut: int, d: int, widest: int):
        self.rows, self.cut, self.d, self.length = rows, cut, d, _block_length(d)
        self.state, self.matrix = rows * cut * widest, rows * widest**2

    @classmethod
    def of(cls, weights: Sequence[Tensor], cores: Sequence[Tensor]) -> _Size:
        return cls(weights[0].shape[0], cores[0].shape[1], len(cores), max(max(core.shape[1:]) for core in cores))


def _shaped(memory: Tensor, *shape: int) -> Tensor:
    """The beginning of flat memory as an array."""
    return memory[: math.prod(shape)].view(shape)


def _matrix(weight: Tensor, core: Tensor, memory: Tensor) -> Tensor:
    """A(x) = Σ_s weight[s] core[s], (b, m, n)."""
    _, left, right = core.shape
    out = _shaped(memory, weight.shape[0], left * right)
    return torch.mm(weight, core.reshape(-1, left * right), out=out).view(-1, left, right)


def _product(a: Tensor, b: Tensor, memory: Tensor) -> Tensor:
    return torch.bmm(a, b, out=_shaped(memory, a.shape[0], a.shape[1], b.shape[2]))


def _prefix(
    prefix: Tensor | None, weight: Tensor, core: Tensor, total: Tensor | None, matrices: Tensor, memory: Tensor
) -> Tensor:
    """P_k from P_{k−1}, as the forward pass has scaled it."""
    if prefix is None:
        values = _matrix(weight, core, memory)
    else:
        values = _product(prefix, _matrix(weight, core, matrices), memory)
    return values if total is None else values.div_(total)


def _recorded(
    weights: Sequence[Tensor],
    cores: Sequence[Tensor],
    scales: dict[int, Tensor],
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the diagonal as operations that have gradients themselves, in the memory that these take."""
    arrays = aliases([*weights, *cores], needed)
    values: Tensor | None = None
    for k, (weight, core) in enumerate(zip(arrays[: len(weights)], arrays[len(weights) :], strict=True)):
        matrix = (weight @ core.flatten(1)).view(-1, *core.shape[1:])
        values = matrix if values is None else values @ matrix
        values = values / scales[k] if k in scales else values
    assert values is not None
    inputs = [array for array, wanted in zip(arrays, needed, strict=True) if wanted]
    found = iter(torch.autograd.grad(values.diagonal(dim1=1, dim2=2), inputs, gradient, create_graph=True))
    return [next(found) if wanted else None for wanted in needed]
