"""Mixtures of Gaussians whose component may switch between dimensions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adapters.priors.base import Generator
from adapters.priors.mixture import LOG_2PI, draw, log_normal
from ringdist.backend import exp, logsumexp
from ringdist.queries.pathwise import moving


class SwitchingMixture(NamedTuple):
    """p(z) = Σ_s w[s_1] ∏_j T_j[s_j, s_{j+1}] ∏_j N(z_j; means[s_j, j], stds[s_j, j]²), dimensions in `order`.

    T_j = diag(stay[j]) + leave[j] enter[j] has rows that sum to 1. The state of a row of codes is
    log p(observed entries so far, s_j), (n, K), as in the forward algorithm of a hidden Markov model. A transition
    costs O(n K R). The arithmetic is in float64, because entries that are small relative to the largest one of a state
    may dominate after further observations.
    """

    log_weights: Tensor  # (K,) normalised
    means: Tensor  # (K, d), columns in their own order
    stds: Tensor  # (K, d)
    order: list[int]  # the columns in the order of the transitions
    stay: Tensor  # (d - 1, K)
    leave: Tensor  # (d - 1, K, R)
    enter: Tensor  # (d - 1, R, K)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p of the observed entries of z (..., d), (...)."""
        state = self._states(z.reshape(-1, z.shape[-1]))[-1]
        return logsumexp(state).to(z.dtype).reshape(z.shape[:-1])

    def sample(self, n: int, generator: Generator, temperature: float = 1.0) -> Tensor:
        """n samples, (n, d), the standard deviations multiplied by the temperature."""
        return self._emit(self._components(n, generator), generator, temperature)

    def sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """n samples (n, d), differentiable in the components, and log p (n,), differentiable in the rest."""
        z = self._emit(self._components(n, generator), generator)
        fixed = self._replace(means=self.means.detach(), stds=self.stds.detach())
        return z, fixed.log_prob(z.detach())

    @torch.no_grad()
    def sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        """The NaN entries of z (n, d), drawn given the others by forward filtering and backward sampling."""
        states = self._states(z)
        s = draw(states[-1], generator)
        found = [s]
        for j in reversed(range(len(self.order) - 1)):
            s = draw(states[j] + self._column(j, s).log(), generator)
            found.append(s)
        return torch.where(z.isnan(), self._emit(self._in_columns(found[::-1]), generator), z)

    def rsample(self, n: int, generator: Generator) -> Tensor:
        """n samples, (n, d), with pathwise gradients, one dimension at a time, updating the state."""
        log_stay = self._log_stay()
        with torch.no_grad():
            z = self.sample(n, generator)
        state, moved = self.log_weights.expand(n, -1), []
        for j, k in enumerate(self.order):
            state = state if j == 0 else self._after(j - 1, state, log_stay)
            weights = state.softmax(-1)
            value, mean, std = z[:, k], self.means[:, k], self.stds[:, k]
            standardised = (value[:, None] - mean) / std
            cdf = (weights * torch.special.ndtr(standardised)).sum(-1)
            density = (weights * log_normal(standardised, std).exp()).sum(-1)
            moved.append(moving(value, cdf, density))
            state = state + log_normal((moved[-1][:, None] - mean) / std, std)
        return self._in_columns(moved).to(self.means.dtype)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension, (d,) each."""
        marginals = [self.log_weights.exp()]
        for stay, leave, enter in zip(self.stay, self.leave, self.enter, strict=True):
            marginals.append(marginals[-1] * stay + (marginals[-1] @ leave) @ enter)
        weights = self._in_columns(marginals).to(self.means.dtype)  # (K, d)
        mean = (weights * self.means).sum(0)
        return mean, (weights * (self.stds**2 + (self.means - mean) ** 2)).sum(0)

    # -------------------------------------------------------------------------------------------- implementation

    def _states(self, z: Tensor) -> list[Tensor]:
        """The states of rows (n, d) after each dimension's observation."""
        state, states = self.log_weights.expand(len(z), -1), []
        z, known = z.nan_to_num(0.0).to(state.dtype), ~z.isnan()
        precisions = self.stds.to(state.dtype).reciprocal()
        heights = precisions.log() - 0.5 * LOG_2PI
        log_stay = self._log_stay()
        for j, k in enumerate(self.order):
            state = state if j == 0 else self._after(j - 1, state, log_stay)
            standardised = (z[:, k, None] - self.means[:, k]) * precisions[:, k]
            emitted = torch.addcmul(heights[:, k], standardised, standardised, value=-0.5)
            state = torch.addcmul(state, emitted, known[:, k, None])
            states.append(state)
        return states

    def _after(self, j: int, state: Tensor, log_stay: Tensor | None) -> Tensor:
        """The state (n, K) after transition j."""
        top = state.detach().amax(-1, keepdim=True)
        scaled = exp(state - top)
        entered = (scaled @ self.leave[j]) @ self.enter[j]
        if log_stay is None:
            return torch.addcmul(entered, scaled, self.stay[j]).log() + top
        return torch.logaddexp(state + log_stay[j], _log(entered) + top)

    def _log_stay(self) -> Tensor | None:
        """log stay (d − 1, K) if transitions need it; None if so much switches everywhere that sums lose nothing.

        Relative to the largest entry of a state, at least the product of the smallest entries of leave and enter
        enters each component. If this is far above the smallest number, what underflows beside it is below its error.
        """
        entering = self.leave.detach().amin() * self.enter.detach().amin() if self.leave.numel() else torch.inf
        return None if entering > torch.finfo(self.leave.dtype).tiny ** 0.75 else _log(self.stay)

    def _column(self, j: int, s: Tensor) -> Tensor:
        """The columns T_j[:, s] for components s (n,), (n, K)."""
        column = (self.leave[j] @ self.enter[j][:, s]).T
        return column.scatter_add(1, s[:, None], self.stay[j][s][:, None])

    def _components(self, n: int, generator: Generator) -> Tensor:
        """The components of n samples, (n, d)."""
        with torch.no_grad():
            s = draw(self.log_weights.expand(n, -1), generator)
            found = [s]
            for stay, leave, enter in zip(self.stay, self.leave, self.enter, strict=True):
                row = leave[s] @ enter  # T[s], (n, K)
                s = draw(row.scatter_add(1, s[:, None], stay[s][:, None]).log(), generator)
                found.append(s)
        return self._in_columns(found)

    def _in_columns(self, parts: list[Tensor]) -> Tensor:
        """Tensors of the dimensions in `order`, stacked as columns 0, 1, ..., d − 1."""
        place = {k: j for j, k in enumerate(self.order)}
        return torch.stack([parts[place[k]] for k in range(len(parts))], dim=1)

    def _emit(self, components: Tensor, generator: Generator, temperature: float = 1.0) -> Tensor:
        mean, std = self.means.gather(0, components), self.stds.gather(0, components)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + temperature * std * noise


def _log(x: Tensor) -> Tensor:
    """The logarithm; where x is 0 its gradient is 0 instead of NaN."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).log(), -torch.inf)
