"""Pathwise (implicitly reparametrised) samples: Graves 2016, arXiv:1607.05690; Figurnov et al. 2018, arXiv:1805.08498.

A sample z_k = F_k^{-1}(u_k | z_<k) moves with the parameters so that F_k(z_k | z_<k) stays at u_k:
dz_k = −dF_k / p_k, with the change of z_<k in dF_k. An array whose value is z_k and whose derivative is that
replaces z_k in everything that follows, so that automatic differentiation does the chaining.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ringdist.backend import (
    Array,
    accumulator,
    astype,
    backend_name,
    is_concrete,
    like,
    like_zeros,
    namespace,
    nonzero_rows,
    stop_gradient,
    take,
)
from ringdist.engines.arithmetic import Linear, State
from ringdist.engines.range import can_inspect_values, threshold
from ringdist.engines.rescue import replace_rows
from ringdist.engines.sweep import suffix_states
from ringdist.network import Evidence, Network
from ringdist.network.rows import as_rows, side_by_side, site_values
from ringdist.queries.transforms import to
from ringdist.variables import Family


def pathwise(ring: Network, x: Any, given: Any = None) -> Array:
    """The samples x with pathwise gradients for cores, components and evidence.

    E[f(ring.pathwise(x))] has the gradient of E[f(x)], estimated without bias; its variance grows with the gap between
    modes, steeply beyond a few standard deviations. One sweep in ring order from the thinnest bond, O(n d m² (r + N)):
    the weights of the components of column k follow from the product of all matrices before it, with the moving values,
    and the stored products after it. Rows whose mass comes near underflow in float32 are recomputed in float64, except
    under tracing.

    Args:
        x: (..., d) samples, from `ring.sample` or, with evidence, from `ring.sample_given`. NaN entries are
            marginalised. Integers, and values of columns with atoms, cannot move: in such a column an entry is evidence
            or NaN.
        given: (..., d) the evidence, NaN where an entry was drawn; None if all were drawn.

    Returns:
        (..., d) in the cores' dtype. Entries of the evidence are unchanged.

    Raises:
        TypeError: if the ring's backend is NumPy, which has no gradients, or an array has another backend.
        ValueError: if shapes do not fit, a value is outside its variable's support, x differs from the evidence, an
            integer was drawn, or a row has no density that float64 can hold.

    Examples:
        >>> import torch
        >>> import ringdist as rd
        >>> means = torch.tensor([-1.0, 1.0], requires_grad=True)
        >>> variable = rd.GaussianMixture(means, torch.tensor([0.5, 0.5]))
        >>> ring = rd.TensorRing([torch.ones(2, 1, 1)], [variable])
        >>> x = ring.sample(10_000, rng=torch.Generator().manual_seed(0))
        >>> ring.pathwise(x).mean().backward()
        >>> bool(torch.allclose(means.grad, torch.tensor([0.5, 0.5]), atol=0.05))  # each component's weight
        True
    """
    rows, fixed, shape = _checked(ring, x, given)
    xp = namespace(rows)
    if rows.shape[0] == 0:
        return xp.reshape(rows, (*shape, ring.num_columns))
    values, density, total = _forward_sweep(ring, rows, fixed, given is None)
    if is_concrete(total) and can_inspect_values(ring) and rows.dtype != accumulator(rows):
        lost = ~((total >= threshold(ring)) & (density > 0))
        if bool(xp.any(lost)):
            values, density = _sweep_in_double(ring, rows, fixed, given is None, lost)
    _check_density(ring, density)
    return xp.reshape(values, (*shape, ring.num_columns))


def _forward_sweep(ring: Network, rows: Array, fixed: Array, nothing_given: bool) -> tuple[Array, Array, Array]:
    """The moving samples (n, d), and for each row the least density and the least mass in the products, (n,).

    The masses are relative to what the products were scaled by: one near underflow means that the paths with the mass
    may have been lost.
    """
    xp = namespace(rows)
    linear = Linear(ring, Evidence.missing(ring) if nothing_given else Evidence.of_rows(ring, fixed))
    suffixes = suffix_states(linear, first=1)[::-1]
    values, state = [rows[:, 0]] * ring.num_variables, linear.start()
    least_density = least_total = like_zeros((rows.shape[0],), rows) + 1
    for k in ring.sequence:
        suffix = suffixes.pop()
        if not ring.families[k].can_move:
            values[k], state = site_values(ring, rows, k), linear.push(state, k)
            continue
        column, evidence = site_values(ring, rows, k), site_values(ring, fixed, k)
        weights, total = _component_weights(linear, state, k, suffix)
        if ring.families[k].width == 1:
            typical = _typical(ring, k)
            value, density = _moved(ring.families[k], weights, column, evidence, typical)
            missing = xp.isnan(column)
            known = xp.where(missing, typical, value)
        else:
            value, density = _moved_row(ring.families[k], weights, column, evidence)
            missing, known = xp.all(xp.isnan(column), axis=-1), value
        least_density, least_total = xp.minimum(least_density, density), xp.minimum(least_total, total)
        state = linear.advance(state, linear.cores[k], _evidence_weights(ring, k, known, missing))
        values[k] = value
    return side_by_side(ring, values), least_density, least_total


def _sweep_in_double(ring: Network, rows: Array, fixed: Array, nothing_given: bool, lost: Array) -> tuple[Array, Array]:
    """The moving samples and their least density, those of the rows `lost` (n,) in float64.

    In the sweep of the others they observe nothing: a row without a finite density would make every gradient NaN.
    """
    xp, index = namespace(rows), nonzero_rows(lost)
    others, others_fixed = (xp.where(lost[:, None], xp.nan, part) for part in (rows, fixed))
    values = _forward_sweep(ring, others, others_fixed, nothing_given)
    wide, wide_fixed = (astype(take(part, index), accumulator(part)) for part in (rows, fixed))
    again = _forward_sweep(to(ring, dtype=accumulator(rows)), wide, wide_fixed, nothing_given)
    density = replace_rows(astype(values[1], again[1].dtype), index, again[1])  # float32 may not hold that of the rows
    return replace_rows(values[0], index, again[0]), density


def moving(value: Array, cdf: Array, density: Array) -> Array:
    """An array with the value of a sample and its pathwise gradient, −dF / p.

    Args:
        value: samples, treated as constants.
        cdf: F(value | what was drawn before), differentiable.
        density: its derivative by the value, at the value; treated as constant.

    Examples:
        >>> import torch
        >>> mean = torch.tensor(0.0, requires_grad=True)
        >>> normal = torch.distributions.Normal(mean, 1.0)
        >>> value = torch.tensor(0.3)
        >>> moved = moving(value, normal.cdf(value), normal.log_prob(value).exp())
        >>> torch.autograd.grad(moved, mean)  # a sample moves as its mean does
        (tensor(1.),)
    """
    return stop_gradient(value) - (cdf - stop_gradient(cdf)) / stop_gradient(density)


def _moved(family: Family, weights: Array, column: Array, evidence: Array, typical: Any) -> tuple[Array, Array]:
    """The moving samples (n,) of one column, and their density, 1 where nothing moves.

    Args:
        weights: (n, N) of its components.
        column, evidence: (n,) samples, NaN where missing, and what of them is known.
        typical: a value in the support.
    """
    xp = namespace(weights)
    missing, free = xp.isnan(column), xp.isnan(evidence)
    value = xp.where(missing, typical, column)
    cdf = xp.sum(weights * like(family.cdf(value), weights), axis=-1)
    log_density = stop_gradient(like(family.log_density(value), weights))
    density = xp.sum(stop_gradient(weights) * xp.exp(log_density), axis=-1)
    density = xp.where(free & ~missing, density, 1.0)  # entries without a gradient must not divide by zero
    value = xp.where(free, moving(value, cdf, density), evidence)
    return xp.where(missing, xp.nan, value), density


def _moved_row(family: Family, weights: Array, rows: Array, evidence: Array) -> tuple[Array, Array]:
    """`_moved` of the columns of a wide variable, (n, width), one given those before it and the evidence in others."""
    xp, moved = namespace(weights), evidence
    least = like_zeros((rows.shape[0],), rows) + 1
    for place in range(family.width):
        logs = like(family.log_density(moved), weights)
        joint = weights * xp.exp(logs - stop_gradient(xp.max(logs, axis=-1, keepdims=True)))
        own = joint / xp.sum(joint, axis=-1, keepdims=True)
        column = family.conditional(moved, place)
        value, density = _moved(column, own, rows[:, place], evidence[:, place], 0.0)
        here = like(np.arange(family.width) == place, rows, xp.bool)
        moved, least = xp.where(here, value[:, None], moved), xp.minimum(least, density)
    return moved, least


def _component_weights(linear: Linear, prefix: State, k: int, suffix: State) -> tuple[Array, Array]:
    """p(s | earlier columns, later evidence) of column k's components, (n or 1, N), and their sum before division."""
    weights = linear.component_masses(prefix, k, suffix)
    total = linear.xp.sum(weights, axis=-1, keepdims=True)
    return weights / total, stop_gradient(total[:, 0])


def _evidence_weights(ring: Network, k: int, value: Array, missing: Array) -> Array:
    """p(value | s) of column k relative to the largest, (n, N); 1 where the value is missing."""
    xp = namespace(value)
    log_density = like(ring.variables[k].log_density(value), ring.prototype)
    top = stop_gradient(xp.max(log_density, axis=-1, keepdims=True))
    top = xp.where(top == -xp.inf, 0.0, top)
    return xp.exp(xp.where(missing[:, None], 0.0, log_density - top))


def _typical(ring: Network, k: int) -> Array:
    """A value that the support of column k is sure to hold, to stand where there is none."""
    return stop_gradient(like(ring.families[k].centres(), ring.prototype))[0]


def _checked(ring: Network, x: Any, given: Any) -> tuple[Array, Array, tuple[int, ...]]:
    """Samples (n, d), evidence (n, d) that is NaN where there is none, and the leading shape."""
    core = ring.prototype
    if backend_name(core) == "numpy":
        raise TypeError("pathwise samples need a ring whose backend has gradients, PyTorch or JAX, found NumPy")
    rows, shape = as_rows(ring, x)
    wanted, found = (*shape, ring.num_columns), None if given is None else tuple(np.shape(given))
    if found is None:
        fixed = like_zeros(tuple(rows.shape), core) + np.nan
    elif found != wanted:
        raise ValueError(f"given must have the shape of x, {wanted}, found {found}")
    else:
        fixed, _ = as_rows(ring, given)
    if ring.validate and is_concrete(core, rows, fixed):
        _check_evidence(ring, rows, fixed)
    return rows, fixed, shape


def _check_evidence(ring: Network, rows: Array, fixed: Array) -> None:
    """Raise `ValueError` naming column and row unless x repeats the evidence, and integers are evidence."""
    xp = namespace(rows)
    for k in range(ring.num_columns):
        drawn, observed = rows[:, k], ~xp.isnan(fixed[:, k])
        differ = nonzero_rows(observed & (drawn != fixed[:, k]))
        if differ.shape[0]:
            i = int(differ[0])
            raise ValueError(
                f"{ring.describe(k)}: x must repeat the evidence, found {float(drawn[i]):g} "
                f"instead of {float(fixed[i, k]):g} in row {i}"
            )
        family = ring.families[ring.place(k)[0]]
        stuck = differ if family.can_move else nonzero_rows(~observed & ~xp.isnan(drawn))
        if stuck.shape[0]:
            what = "integers" if family.integer else "values of a column with atoms"
            raise ValueError(
                f"{ring.describe(k)}: {what} cannot move; they must be evidence, or NaN to be marginalised, "
                f"found {float(drawn[int(stuck[0])]):g} drawn in row {int(stuck[0])}"
            )


def _check_density(ring: Network, density: Array) -> None:
    """Raise `ValueError` naming the first row where a drawn value has no density."""
    if ring.validate and is_concrete(density):
        none = nonzero_rows(~(density > 0))
        if none.shape[0]:
            raise ValueError(f"samples must have positive density given the evidence, found none in row {int(none[0])}")
