"""A sweep through CP cores in PyTorch, with a backward pass of its own.

The product of the matrices is one of steps that alternate: left and right factors, and diagonal matrices of the weights
of the hidden states, of which one product makes all. With S the state before a step and D the gradient of the one
behind it, the gradient of a factor F is Sᵀ D, and D Fᵀ goes on; that of a diagonal h is the sum of S D over the cut
bond, and D h goes on. Kept are the states before the diagonals, from which one multiplication makes those behind them.
In a train a state is a matrix, one row for each row of data, and a column costs two operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ringdist.backend import can_reuse_memory, log_scaled_sum, matrix_minimum
from ringdist.cores import CPCore
from ringdist.engines.arithmetic import Linear, Result


def is_factored(linear: Linear) -> bool:
    """Whether the ring has CP cores only, in PyTorch, whose values can be looked at."""
    return (
        linear.tracks_minimum
        and isinstance(linear.ring.prototype, Tensor)
        and all(isinstance(core, CPCore) for core in linear.cores)
        and getattr(forward_ad, "_current_level", -1) < 0
    )


def factored_sweep(linear: Linear) -> Result:
    """log Tr ∏_k A_k(x_k) of every row, (b,), and the smallest entry met, (b,); with gradients of any order."""
    plan, operands = _plan(linear)
    if can_reuse_memory(*operands):
        diagonal, logs, low, *_ = _forward(plan, operands, keeps=False)
    else:
        diagonal, logs, low = _Diagonal.apply(plan, *operands)
    return log_scaled_sum(diagonal, logs) + linear.offset, low


class _Plan(NamedTuple):
    """What the operands of the steps are, in the order of the sweep."""

    rows: int
    cut: int
    interval: int  # columns between two divisions of the states by the sums of their rows
    diagonal: list[bool]  # whether a step is a diagonal matrix, given as (b, c), or (b, 1, c) beside a wider cut
    columns: list[int]  # how many columns end with a step: 0 or 1


def _plan(linear: Linear) -> tuple[_Plan, list[Tensor]]:
    cut, rows = min(linear.ring.ranks), linear.evidence.num_rows
    hidden: dict[int, Tensor] = {}
    for group in linear.emissions:
        weights = group.hidden(linear.evidence)
        hidden.update(zip(group.columns, (weights if cut == 1 else weights[:, :, None]).unbind(), strict=True))
    plan, operands = _Plan(rows, cut, linear.interval, [], []), []
    for k in linear.ring.sequence:
        core = linear.cores[k]
        for operand in (core.left, hidden[k], core.right):
            if operand is not None:
                operands.append(operand)
                plan.diagonal.append(operand is hidden[k])
                plan.columns.append(0)
        plan.columns[-1] = 1
    return plan, operands


class _Product(NamedTuple):
    diagonal: Tensor  # (b, r) of the product of all matrices
    logs: Tensor  # (b, r) of the scale of its rows
    low: Tensor  # (b,) smallest entry met
    states: list[Tensor | None]  # before each step, where they are kept
    scales: dict[int, Tensor]  # by which the rows behind a step were divided


def _forward(
    plan: _Plan, operands: Sequence[Tensor], *, keeps: bool, scales: Mapping[int, Tensor] | None = None
) -> _Product:
    """The product; with the scales of an earlier one it divides by those, which carry no gradient."""
    first, minimum = operands[0], matrix_minimum(operands[0])
    state = torch.eye(plan.cut, dtype=first.dtype, device=first.device).expand(plan.rows, plan.cut, plan.cut)
    state = state[:, 0] if plan.cut == 1 else state
    logs = first.new_zeros(plan.rows, plan.cut, dtype=torch.float64)
    low, done, states, found = None, 0, [], {}
    for i, (operand, is_diagonal, ends) in enumerate(zip(operands, plan.diagonal, plan.columns, strict=True)):
        if keeps:
            states.append(state if is_diagonal or i == 0 or not plan.diagonal[i - 1] else None)
        state = state * operand if is_diagonal else state @ operand
        done += ends
        if ends and (done % plan.interval == 0 or i == len(operands) - 1):
            least = minimum(state if plan.cut > 1 else state[:, None])
            low = least if low is None else torch.minimum(low, least)
        if ends and done % plan.interval == 0:
            found[i] = total = _row_sums(state) if scales is None else scales[i]
            logs += (total if plan.cut == 1 else total[..., 0]).log()
            state = state / total
    diagonal = state if plan.cut == 1 else state.diagonal(dim1=1, dim2=2)
    return _Product(diagonal, logs, low, states, found)


def _row_sums(state: Tensor) -> Tensor:
    """What divides the rows of a state, 1 where they are zero."""
    total = state.sum(-1, keepdim=True)
    return torch.where(total > 0, total, 1.0)


class _Diagonal(torch.autograd.Function):
    """The first three parts of `_Product`, from the plan and the operands of its steps."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *operands: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        product = _forward(plan, operands, keeps=True)
        ctx.plan, ctx.places = plan, tuple(product.scales)
        ctx.save_for_backward(*operands, *product.states, *product.scales.values())
        ctx.mark_non_differentiable(product.logs, product.low)
        return product.diagonal, product.logs, product.low

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        plan, saved, needed = ctx.plan, ctx.saved_tensors, ctx.needs_input_grad[1:]
        operands, states = saved[: len(needed)], saved[len(needed) : 2 * len(needed)]
        scales = dict(zip(ctx.places, saved[2 * len(needed) :], strict=True))
        if torch.is_grad_enabled():
            return None, *_recorded(plan, operands, scales, gradient, needed)
        gradients: list[Tensor | None] = [None] * len(operands)
        gradient = gradient.clone() if plan.cut == 1 else torch.diag_embed(gradient)
        for i in reversed(range(len(operands))):
            operand, state = operands[i], states[i]
            if i in scales:
                gradient /= scales[i]
            if plan.diagonal[i]:
                if needed[i]:
                    along = gradient * state
                    gradients[i] = along if plan.cut == 1 else along.sum(1, keepdim=True)
                gradient *= operand
                continue
            if needed[i]:
                state = operands[i - 1] * states[i - 1] if state is None else state
                gradients[i] = state.flatten(0, -2).T @ gradient.flatten(0, -2)
            gradient = gradient @ operand.T if i else gradient
        return None, *gradients


def _recorded(
    plan: _Plan,
    operands: Sequence[Tensor],
    scales: dict[int, Tensor],
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the diagonal as operations that have gradients themselves."""
    diagonal = _forward(plan, operands, keeps=False, scales=scales).diagonal
    inputs = [operand for operand, wanted in zip(operands, needed, strict=True) if wanted]
    found = iter(torch.autograd.grad(diagonal, inputs, gradient, create_graph=True))
    return [next(found) if wanted else None for wanted in needed]
