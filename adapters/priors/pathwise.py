"""Pathwise (implicitly reparametrised) samples: Graves 2016, arXiv:1607.05690; Figurnov et al. 2018, arXiv:1805.08498.

A sample z_k = F_k^{-1}(u_k | z_<k) moves with the parameters so that F_k(z_k | z_<k) stays at u_k:
dz_k = −dF_k / p_k, with the change of z_<k in dF_k. A tensor whose value is z_k and whose derivative is that
replaces z_k in everything that follows, so that automatic differentiation does the chaining.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ringdist import TensorRing
from ringdist._arithmetic import Linear, State
from ringdist._evidence import Evidence


def moving(value: Tensor, cdf: Tensor, density: Tensor) -> Tensor:
    """A tensor with the value of a sample and its pathwise gradient.

    Args:
        value: samples, treated as constants.
        cdf: F(value | what was drawn before), differentiable.
        density: its derivative by the value, at the value.
    """
    value = value.detach()
    return value - (cdf - cdf.detach()) / density.detach()


def pathwise(ring: TensorRing, drawn: Tensor, given: Tensor | None = None) -> Tensor:
    """Samples of a PyTorch ring with pathwise gradients for cores, components and evidence.

    One sweep in ring order from the thinnest bond, O(n d m² (r + N)): the product of all matrices before column k,
    with the moving values in it, and the stored products behind it give the weights of the column's components.
    The gradient is unbiased; its variance grows with the gap between modes, steeply so beyond a few deviations.

    Args:
        ring: over live parameters.
        drawn: (n, d) samples of the ring, given the evidence.
        given: (n, d) evidence, NaN where an entry was drawn; None where all were.

    Returns:
        (n, d). Observed entries come back as they are. Integer-valued columns cannot move: where they are not
        observed they are marginalised, and come back as they were drawn, without gradient.
    """
    if drawn.shape[0] == 0:
        return drawn
    linear = Linear(ring, Evidence.missing(ring) if given is None else Evidence.of_rows(ring, given))
    suffixes = [linear.start()]
    for k in reversed(ring.sequence[1:]):
        suffixes.append(linear.push(suffixes[-1], k, backward=True))
    columns, state = list(drawn.unbind(1)), linear.start()
    for k in ring.sequence:
        suffix = suffixes.pop()
        if not getattr(ring.variables[k], "integer", False):
            columns[k] = _moved(ring, state, k, suffix, columns[k])
        if given is not None:
            columns[k] = torch.where(given[:, k].isnan(), columns[k], given[:, k])
        if getattr(ring.variables[k], "integer", False):
            state = linear.push(state, k)
        else:
            log_density = ring.variables[k].log_density(columns[k])  # (n, N)
            weights = (log_density - log_density.detach().amax(-1, keepdim=True)).exp()
            state = linear.advance(state, ring.cores[k], weights)
    return torch.stack(columns, dim=1)


def _moved(ring: TensorRing, prefix: State, k: int, suffix: State, value: Tensor) -> Tensor:
    """Column k's values (n,), moving with its conditional distribution given the columns before it."""
    weights = _component_weights(ring.cores[k], prefix, suffix)
    cdf = (weights * ring.variables[k].cdf(value)).sum(-1)
    with torch.no_grad():
        density = (weights * ring.variables[k].log_density(value).exp()).sum(-1)
    return moving(value, cdf, density)


def _component_weights(core: Tensor, prefix: State, suffix: State) -> Tensor:
    """p(s | columns before, evidence behind) of the core's components, (n, N)."""
    logs = prefix.logs + suffix.logs  # of the values of the cut bond, (n or 1, r)
    share = (logs - logs.amax(-1, keepdim=True)).exp().to(core.dtype)
    values = prefix.values * share[..., None]  # (n, r, m)
    if suffix.values.shape[0] == 1:  # one suffix for all rows: a single product once the core is closed with it
        closed = core @ suffix.values[0].mT  # (N, m, r)
        weights = values.flatten(1) @ closed.permute(2, 1, 0).flatten(0, 1)
    else:
        weights = (values.mT @ suffix.values).flatten(1) @ core.flatten(1).T
    return weights / weights.sum(-1, keepdim=True)
