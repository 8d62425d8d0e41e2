"""A sweep through CP cores in PyTorch, with its own backward pass.

A column multiplies the state S by left · diag(h) · right, where h = w · emission are the weights of the hidden states.
Only the states T = S · left are stored for the backward pass. h and T · diag(h) are recomputed, at the cost of N / m of
a product and of one multiplication. With D the gradient of the next state, that of `right` is (T diag(h))ᵀ D; with D' =
D rightᵀ that of h is Σ_r T D', and D' diag(h) goes on to the left. The product with a right factor diag(stay) + leave
enterᵀ is one of vectors. Everything but the kept states stays in a CPU's cache, and in a train a state is a matrix, one
row for each row of data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ringdist.backend import accepts_own_backward, log_scaled_sum, matrix_minimum
from ringdist.cores import LINEAR, CPCore
from ringdist.cores.switch import Switch
from ringdist.engines import budget
from ringdist.engines.arithmetic import Linear, Result

PARTS = 7  # operands of a column: left, evidence weights (b, N), emission, right or stay, leave and enter


def is_factored(linear: Linear) -> bool:
    """Whether the ring has CP cores only, in PyTorch, whose values can be inspected."""
    return (
        linear.tracks_minimum
        and isinstance(linear.ring.prototype, Tensor)
        and all(isinstance(core, CPCore) for core in linear.cores)
        and accepts_own_backward(linear.ring.prototype)
    )


def factored_sweep(linear: Linear) -> Result:
    """log Tr ∏_k A_k(x_k) of every row, (b,), and the smallest entry met, (b,); with gradients of any order."""
    operands: list[Tensor | None] = []
    for k in linear.ring.sequence:
        core: Any = linear.cores[k]
        right = (core.right, None, None, None) if core.switch is None else (None, *core.switch)
        operands += [core.left, linear.evidence.weights(k), core.emission, *right]
    plan = _Plan(linear.evidence.num_rows, min(linear.ring.ranks), linear.interval)
    if torch.is_grad_enabled() and any(operand is not None and operand.requires_grad for operand in operands):
        diagonal, logs, low = _Diagonal.apply(plan, *operands)
    else:
        diagonal, logs, low, *_ = _forward(plan, operands, keeps=False)
    return log_scaled_sum(diagonal, logs) + linear.offset, low


class _Plan(NamedTuple):
    rows: int
    cut: int  # values of the cut bond, which states have as their second axis if there are several
    interval: int  # columns between two divisions of the states by the sums of their rows


class _Product(NamedTuple):
    diagonal: Tensor  # (b, r) of the product of all matrices
    logs: Tensor  # (b, r) of the scale of its rows
    low: Tensor  # (b,) smallest entry met
    kept: list[Tensor | None]  # of every column S, where it has a left factor, and T
    scales: dict[int, Tensor]  # divisors of the rows of the state after a column


def _forward(
    plan: _Plan, operands: Sequence[Tensor | None], *, keeps: bool, scales: Mapping[int, Tensor] | None = None
) -> _Product:
    """The product; given the scales of an earlier one, it divides by them without gradient."""
    columns = _columns(operands)
    weights = columns[0][1]
    state = torch.eye(plan.cut, dtype=weights.dtype, device=weights.device).expand(plan.rows, plan.cut, plan.cut)
    state = state[:, 0] if plan.cut == 1 else state
    logs, minimum = weights.new_zeros(plan.rows, plan.cut, dtype=torch.float64), matrix_minimum(weights)
    low, found, kept = torch.empty(0), {}, []
    large = plan.cut > 1 and (keeps or plan.rows * plan.cut**2 > budget.CACHED)
    memory = _Memory(plan, columns, reuses=large and scales is None)
    for k, (left, weights, emission, right, *switch) in enumerate(columns):
        inner = state if left is None else state @ left if keeps else memory.times(state, left)
        if keeps:
            kept += [None if left is None else state, inner]
        hidden = _hidden(plan, weights, emission)
        if switch[0] is not None:
            state = Switch(*switch).push(inner * hidden, LINEAR)
        elif right is None:
            state = inner * hidden
        else:
            product = memory.scaled(inner, hidden)
            state = product @ right if keeps else memory.times(product, right)
        divides = k % plan.interval == plan.interval - 1
        if divides or k == len(columns) - 1:
            least = minimum(state if plan.cut > 1 else state[:, None])
            low = torch.minimum(low, least) if low.numel() else least
        if divides:
            found[k] = total = _row_sums(state) if scales is None else scales[k]
            logs += (total if plan.cut == 1 else total[..., 0]).log()
            state = state / total
    return _Product(state if plan.cut == 1 else state.diagonal(dim1=1, dim2=2), logs, low, kept, found)


class _Memory:
    """Memory for results as large as a state: three reused arrays if the cut has several values.

    Allocating each result would fragment the memory, because small lasting arrays would be placed between them.
    """

    def __init__(self, plan: _Plan, columns: Sequence[Any], *, reuses: bool):
        self.flat: list[Tensor] = []
        if reuses:
            factors = [f for left, _, *others in columns for f in (left, *others) if f is not None]
            widest = max(max(factor.shape) for factor in factors)
            self.flat = [columns[0][1].new_empty(plan.rows * plan.cut * widest) for _ in range(3)]

    def scaled(self, state: Tensor, hidden: Tensor) -> Tensor:
        """state · diag(hidden), valid until the next call."""
        if not self.flat:
            return state * hidden
        return torch.mul(state, hidden, out=self.flat[0][: state.numel()].view(state.shape))

    def times(self, state: Tensor, factor: Tensor) -> Tensor:
        """state · factor, valid until the second next call."""
        if not self.flat:
            return state @ factor
        self.flat[1:] = self.flat[:0:-1]
        shape = (*state.shape[:-1], factor.shape[1])
        out = self.flat[1][: math.prod(shape)].view(-1, factor.shape[1])
        return torch.mm(state.flatten(0, -2), factor, out=out).view(shape)


def _columns(operands: Sequence[Any]) -> list[Any]:
    return [operands[i : i + PARTS] for i in range(0, len(operands), PARTS)]


def _hidden(plan: _Plan, weights: Tensor, emission: Tensor | None) -> Tensor:
    """The weights of the hidden states, (b, c), or (b, 1, c) beside a wider cut."""
    hidden = weights if emission is None else weights @ emission
    return hidden if plan.cut == 1 else hidden[:, None]


def _row_sums(state: Tensor) -> Tensor:
    """Divisors of the rows of a state, 1 where they are zero."""
    total = state.sum(-1, keepdim=True)
    return torch.where(total > 0, total, 1.0)


class _Diagonal(torch.autograd.Function):
    """The first three fields of `_Product` as an autograd function of the operands of all columns."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *operands: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        product = _forward(plan, operands, keeps=True)
        ctx.plan, ctx.places = plan, tuple(product.scales)
        ctx.save_for_backward(*operands, *product.kept, *product.scales.values())
        ctx.mark_non_differentiable(product.logs, product.low)
        return product.diagonal, product.logs, product.low

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        plan, needed, saved = ctx.plan, ctx.needs_input_grad[1:], ctx.saved_tensors
        count, end = len(needed), len(needed) + 2 * len(needed) // PARTS
        operands, kept = saved[:count], saved[count:end]
        scales = dict(zip(ctx.places, saved[end:], strict=True))
        if torch.is_grad_enabled():
            return None, *_recorded(plan, operands, scales, gradient, needed)
        gradients: list[Tensor | None] = []
        gradient = gradient.clone() if plan.cut == 1 else torch.diag_embed(gradient)
        memory = _Memory(plan, _columns(operands), reuses=plan.cut > 1)
        columns = zip(_columns(operands), _columns(needed), kept[::2], kept[1::2], strict=True)
        for k, (column, wanted, state, inner) in reversed(list(enumerate(columns))):
            if k in scales:
                gradient /= scales[k]
            gradient, found = _column_gradients(plan, memory, column, wanted, state, inner, gradient)
            gradients = [*found, *gradients]
        return None, *gradients


def _column_gradients(
    plan: _Plan, memory: _Memory, column: Any, wanted: Any, state: Tensor | None, inner: Tensor, gradient: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradients of the state before a column and of its operands; the gradient after it is overwritten."""
    left, weights, emission, right, stay, leave, enter = column
    found: list[Tensor | None] = [None] * PARTS
    hidden = _hidden(plan, weights, emission)
    if stay is not None:
        product, entered = memory.scaled(inner, hidden), gradient @ enter
        axes = tuple(range(gradient.ndim - 1))
        found[4] = (product * gradient).sum(axes) if wanted[4] else None
        found[5] = entered.flatten() @ product.flatten(0, -2) if wanted[5] else None
        found[6] = (product @ leave).flatten() @ gradient.flatten(0, -2) if wanted[6] else None
        gradient = (gradient * stay).addcmul_(entered[..., None], leave)
    if right is not None:
        if wanted[3]:
            found[3] = _pairs(memory.scaled(inner, hidden), gradient)
        gradient = memory.times(gradient, right.T)
    if wanted[1] or wanted[2]:
        along = memory.scaled(inner, gradient)
        along = along if plan.cut == 1 else along.sum(1)
        found[1] = along if emission is None else (along @ emission.T if wanted[1] else None)
        found[2] = weights.T @ along if wanted[2] else None
    gradient *= hidden
    if left is not None:
        found[0] = _pairs(state, gradient) if wanted[0] else None
        gradient = memory.times(gradient, left.T)
    return gradient, found


def _pairs(a: Tensor, b: Tensor) -> Tensor:
    """Σ_b Σ_r a[b, r, :] b[b, r, :]ᵀ."""
    return a.flatten(0, -2).T @ b.flatten(0, -2)


def _recorded(
    plan: _Plan,
    operands: Sequence[Tensor | None],
    scales: Mapping[int, Tensor],
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the diagonal as operations that have gradients themselves."""
    diagonal = _forward(plan, operands, keeps=False, scales=scales).diagonal
    inputs = [operand for operand, wanted in zip(operands, needed, strict=True) if wanted]
    found = iter(torch.autograd.grad(diagonal, inputs, gradient, create_graph=True))
    return [next(found) if wanted else None for wanted in needed]
