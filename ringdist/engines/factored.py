"""A sweep through CP cores in PyTorch, with its own backward pass.

A column multiplies the state S by left · diag(h) · right, where h = w · emission are the weights of the hidden states.
Only the states T = S · left are stored for the backward pass. h and T · diag(h) are recomputed, at the cost of N / m of
a product and of one multiplication. With D the gradient of the next state, that of `right` is (T diag(h))ᵀ D; with D' =
D rightᵀ that of h is Σ_r T D', and D' diag(h) goes on to the left. The product with a right factor diag(stay) + leave
enterᵀ is one of vectors. Everything but the kept states stays in a CPU's cache, and in a train a state is a matrix, one
row for each row of data. So do the weights w of Gaussian components, which are computed from the values for a few
columns at a time, in both directions (`Weighing`); those of other components are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ringdist.backend import accepts_own_backward, exp, log_scaled_sum, matrix_minimum
from ringdist.backend.aliases import aliases
from ringdist.backend.subnormal import FlushingSubnormals
from ringdist.cores import LINEAR, CPCore
from ringdist.cores.switch import Switch
from ringdist.engines import budget
from ringdist.engines.arithmetic import Linear, Result
from ringdist.variables.gaussian_torch import is_batch
from ringdist.variables.gaussian_weighing import Densities, Slopes, Weighing


class _Column(NamedTuple):
    """The operands of a column, or what belongs to each of them."""

    left: Any
    weights: Any  # (b, N) evidence weights, None where they are computed here
    emission: Any
    right: Any
    stay: Any  # instead of right, as `leave` and `enter`
    leave: Any
    enter: Any


OF_COLUMN, OF_DENSITIES = len(_Column._fields), len(Densities._fields)  # numbers of operands


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
    evidence, ring = linear.evidence, linear.ring
    computed = {g: found for g, found in evidence.postponed().items() if found[1].are_in_range()}
    visits: list[tuple[int, ...]] = []
    places: dict[int, tuple[int, int]] = {}
    for g, (sites, _) in enumerate(computed.values()):
        position = {k: i for i, k in enumerate(sites)}
        own = [k for k in ring.sequence if k in position]
        visits.append(tuple(position[k] for k in own))
        places |= {k: (g, i) for i, k in enumerate(own)}
    operands: list[Tensor | None] = [array for _, densities in computed.values() for array in densities]
    for k in ring.sequence:
        core: Any = linear.cores[k]
        right = (core.right, None, None, None) if core.switch is None else (None, *core.switch)
        operands += [core.left, None if k in places else evidence.weights(k), core.emission, *right]
    columns = tuple(places.get(k) for k in ring.sequence)
    plan = _Plan(evidence.num_rows, min(ring.ranks), linear.interval, columns, tuple(visits))
    if torch.is_grad_enabled() and any(operand is not None and operand.requires_grad for operand in operands):
        diagonal, logs, low = _Diagonal.apply(plan, *operands)
    else:
        with FlushingSubnormals():
            diagonal, logs, low, *_ = _forward(plan, *_parted(plan, operands), keeps=False)
    return log_scaled_sum(diagonal, logs) + (evidence.offset_without(list(computed)) + linear.log_scale), low


class _Plan(NamedTuple):
    rows: int
    cut: int  # values of the cut bond, which states have as their second axis if there are several
    interval: int  # columns between two divisions of the states by the sums of their rows
    places: tuple[tuple[int, int] | None, ...]  # of each column among densities: which ones, and the visit
    visits: tuple[tuple[int, ...], ...]  # the sites of all densities in the order of the visits


class _Product(NamedTuple):
    diagonal: Tensor  # (b, r) of the product of all matrices
    logs: Tensor  # (b, r) of the scale of its rows, with that of the weights computed here
    low: Tensor  # (b,) smallest entry met
    kept: list[Tensor | None]  # of every column S, where it has a left factor, and T
    scales: dict[int, Tensor]  # divisors of the rows of the state after a column
    tops: list[Tensor]  # logarithms of the divisors of weights computed here, (g, b) each


def _forward(
    plan: _Plan,
    densities: Sequence[Densities],
    columns: Sequence[_Column],
    *,
    keeps: bool,
    scales: Mapping[int, Tensor] | None = None,
) -> _Product:
    """The product; given the scales of an earlier one, it divides by them without gradient."""
    prototype = next(operand for operand in columns[0] if operand is not None)
    state = torch.eye(plan.cut, dtype=prototype.dtype, device=prototype.device).expand(plan.rows, plan.cut, plan.cut)
    state = state[:, 0] if plan.cut == 1 else state
    logs, minimum = prototype.new_zeros(plan.rows, plan.cut, dtype=torch.float64), matrix_minimum(prototype)
    low, found, kept = torch.empty(0), {}, []
    memory = _Memory(plan, columns, reuses=scales is None and (keeps or plan.rows * plan.cut**2 > budget.CACHED))
    weighing = [Weighing(own, visits) for own, visits in zip(densities, plan.visits, strict=True)]
    for k, (left, weights, emission, right, *switch) in enumerate(columns):
        inner = state if left is None else state @ left if keeps else memory.times(state, left)
        if keeps:
            kept += [None if left is None else state, inner]
        if (place := plan.places[k]) is not None:
            weights = weighing[place[0]].at(place[1])
        hidden = _hidden(plan, weights, emission)
        if switch[0] is not None:
            state = Switch(*switch).push(memory.scaled(inner, hidden), LINEAR)
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
            state = state / total if scales is not None else state.div_(total)
    for own in weighing:
        logs += own.tops.to(logs.dtype).sum(0)[:, None]
    diagonal = state if plan.cut == 1 else state.diagonal(dim1=1, dim2=2)
    return _Product(diagonal, logs, low, kept, found, [own.tops for own in weighing])


class _Memory:
    """Memory for results as large as a state: four reused arrays, or none.

    Allocating each result would fragment the memory, because small lasting arrays would be placed between them.
    """

    def __init__(self, plan: _Plan, columns: Sequence[_Column], *, reuses: bool):
        self.flat: list[Tensor] = []
        if reuses:
            factors = [f for left, _, *others in columns for f in (left, *others) if f is not None]
            widest = max(max(factor.shape) for factor in factors)
            self.flat = [factors[0].new_empty(plan.rows * plan.cut * widest) for _ in range(4)]

    def scaled(self, state: Tensor, hidden: Tensor) -> Tensor:
        """state · diag(hidden), valid until the next call."""
        if not self.flat:
            return state * hidden
        return torch.mul(state, hidden, out=self.flat[0][: state.numel()].view(state.shape))

    def summed(self, a: Tensor, b: Tensor) -> Tensor:
        """Σ a b over all axes but the last."""
        return torch.mul(a, b, out=self.flat[3][: a.numel()].view(a.shape)).flatten(0, -2).sum(0)

    def times(self, state: Tensor, factor: Tensor) -> Tensor:
        """state · factor, valid until the second next call."""
        if not self.flat:
            return state @ factor
        self.flat[1:3] = self.flat[2:0:-1]
        shape = (*state.shape[:-1], factor.shape[1])
        out = self.flat[1][: math.prod(shape)].view(-1, factor.shape[1])
        return torch.mm(state.flatten(0, -2), factor, out=out).view(shape)


def _parted(plan: _Plan, operands: Sequence[Any]) -> tuple[list[Densities], list[_Column]]:
    """Operands, or what belongs to each of them, as those of densities and those of columns."""
    first = len(operands) - OF_COLUMN * len(plan.places)
    densities = [Densities(*operands[i : i + OF_DENSITIES]) for i in range(0, first, OF_DENSITIES)]
    return densities, [_Column(*operands[i : i + OF_COLUMN]) for i in range(first, len(operands), OF_COLUMN)]


def _hidden(plan: _Plan, weights: Tensor, emission: Tensor | None) -> Tensor:
    """The weights of the hidden states, (b, c), or (b, 1, c) beside a wider cut."""
    hidden = weights if emission is None else weights @ emission
    return hidden if plan.cut == 1 else hidden[:, None]


def _row_sums(state: Tensor) -> Tensor:
    """Divisors of the rows of a state, 1 where they are zero."""
    total = state.sum(-1, keepdim=True)
    return torch.where(total > 0, total, 1.0)


class _Diagonal(torch.autograd.Function):
    """The first three fields of `_Product` as an autograd function of the operands."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *operands: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        with FlushingSubnormals():
            product = _forward(plan, *_parted(plan, operands), keeps=True)
        ctx.plan, ctx.places, ctx.sizes = plan, tuple(product.scales), (len(operands), len(product.kept))
        ctx.save_for_backward(*operands, *product.kept, *product.tops, *product.scales.values())
        ctx.mark_non_differentiable(product.logs, product.low)
        return product.diagonal, product.logs, product.low

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        plan, needed, saved = ctx.plan, ctx.needs_input_grad[1:], list(ctx.saved_tensors)
        count, size = ctx.sizes
        operands, kept, rest = saved[:count], saved[count : count + size], saved[count + size :]
        tops = rest[: len(rest) - len(ctx.places)]
        scales = dict(zip(ctx.places, rest[len(tops) :], strict=True))
        if torch.is_grad_enabled() or is_batch(gradient):
            return None, *_recorded(plan, operands, tops, scales, gradient, needed)
        with FlushingSubnormals():
            return None, *_gradients(plan, operands, kept, tops, scales, gradient, needed)


def _gradients(
    plan: _Plan,
    operands: Sequence[Any],
    kept: Sequence[Any],
    tops: Sequence[Tensor],
    scales: Mapping[int, Tensor],
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the operands."""
    densities, columns = _parted(plan, operands)
    wanted_of_densities, wanted = _parted(plan, needed)
    weighing = list(map(Weighing, densities, plan.visits, tops))
    slopes = list(map(Slopes, densities, plan.visits, wanted_of_densities))
    gradients: list[_Column] = []  # of the columns, the last one first
    gradient = gradient.clone() if plan.cut == 1 else torch.diag_embed(gradient)
    memory = _Memory(plan, columns, reuses=True)
    for k in reversed(range(len(columns))):
        if k in scales:
            gradient /= scales[k]
        column, asked = columns[k], wanted[k]
        if (place := plan.places[k]) is not None:
            g, i = place
            column = column._replace(weights=weighing[g].at(i))
            asked = asked._replace(weights=any(slopes[g].needed))
        state, inner = kept[2 * k : 2 * k + 2]
        gradient, found = _column_gradients(plan, memory, column, asked, state, inner, gradient)
        if found.weights is not None:
            if place is None:
                found = found._replace(weights=found.weights.clone())  # it may lie in reused memory
            else:
                slopes[g].add(weighing[g], i, found.weights)
                found = found._replace(weights=None)
        gradients.append(found)
    of_columns = [each for found in reversed(gradients) for each in found]
    return [*(array for own in slopes for array in own.found()), *of_columns]


def _column_gradients(
    plan: _Plan,
    memory: _Memory,
    column: _Column,
    wanted: _Column,
    state: Tensor | None,
    inner: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, _Column]:
    """The gradients of the state before a column and of its operands; the gradient after it is overwritten."""
    left, weights, emission, right, stay, leave, enter = column
    found: dict[str, Tensor] = {}
    hidden = _hidden(plan, weights, emission)
    if stay is not None:
        product, entered = memory.scaled(inner, hidden), gradient @ enter
        if wanted.stay:
            found["stay"] = memory.summed(product, gradient)
        if wanted.leave:
            found["leave"] = entered.flatten() @ product.flatten(0, -2)
        if wanted.enter:
            found["enter"] = (product @ leave).flatten() @ gradient.flatten(0, -2)
        gradient = gradient.mul_(stay).addcmul_(entered[..., None], leave)
    if right is not None:
        if wanted.right:
            found["right"] = _pairs(memory.scaled(inner, hidden), gradient)
        gradient = memory.times(gradient, right.T)
    if wanted.weights or wanted.emission:
        along = memory.scaled(inner, gradient)
        along = along if plan.cut == 1 else along.sum(1)
        if wanted.emission:
            found["emission"] = weights.T @ along
        if wanted.weights:
            found["weights"] = along if emission is None else along @ emission.T
    gradient *= hidden
    if left is not None:
        if wanted.left:
            found["left"] = _pairs(state, gradient)
        gradient = memory.times(gradient, left.T)
    return gradient, _Column(*(found.get(name) for name in _Column._fields))


def _pairs(a: Tensor, b: Tensor) -> Tensor:
    """Σ_b Σ_r a[b, r, :] b[b, r, :]ᵀ."""
    return a.flatten(0, -2).T @ b.flatten(0, -2)


def _recorded(
    plan: _Plan,
    operands: Sequence[Tensor | None],
    tops: Sequence[Tensor],
    scales: Mapping[int, Tensor],
    gradient: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the diagonal as operations that have gradients themselves."""
    operands = aliases(operands, needed)
    with torch.enable_grad():
        inputs = [operand for operand, wanted in zip(operands, needed, strict=True) if wanted]
        densities, columns = _parted(plan, operands)
        weights = [
            exp(own.logs()[list(visits)] - top[..., None])
            for own, visits, top in zip(densities, plan.visits, tops, strict=True)
        ]
        columns = [
            column if place is None else column._replace(weights=weights[place[0]][place[1]])
            for column, place in zip(columns, plan.places, strict=True)
        ]
        given = plan._replace(places=(None,) * len(columns), visits=())
        diagonal = _forward(given, [], columns, keeps=False, scales=scales).diagonal
    found = iter(torch.autograd.grad(diagonal, inputs, gradient, create_graph=torch.is_grad_enabled()))
    return [next(found) if wanted else None for wanted in needed]
