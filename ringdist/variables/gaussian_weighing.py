"""The weights of Gaussian components in PyTorch on a CPU for a sweep, which needs those of one site at a time.

A table of the weights of all sites would be written to memory and read back by every operation on the way from a value
to its weights, and again backward. Here they are done for a few sites, whose part of the table stays in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ringdist.backend import PART
from ringdist.backend.exponential import flushed_exp
from ringdist.variables.gaussian_functions import HALF_LOG_2PI
from ringdist.variables.gaussian_torch import clip_bound, log_density


class Densities(NamedTuple):
    """Gaussian components of some sites and their values, of which the log-densities are not computed yet."""

    values: Tensor  # (g, b), NaN where missing
    means: Tensor  # (g, N)
    stds: Tensor  # (g, N)

    def are_in_range(self) -> bool:
        """Whether no z-score can overflow, nor be clipped; not if a number is infinite or a parameter NaN."""
        if 0 in self.values.shape:
            return False
        values, means, stds = (array.detach() for array in self)
        reach = float(values.nan_to_num(0.0, torch.inf, -torch.inf).abs().amax()) + float(means.abs().amax())
        largest = torch.finfo(means.dtype).max
        return 4 * reach < largest and reach < clip_bound(means) * float(stds.amin()) and float(stds.amax()) <= largest

    def logs(self) -> Tensor:
        """Log-densities of all sites, (g, b, N), and 0 where a value is missing, with gradients of any order."""
        missing = self.values.isnan()
        if not bool(missing.any()):
            return log_density(self.values, self.means[:, None], self.stds[:, None])
        values = torch.where(missing, 0.0, self.values)
        logs = log_density(values, self.means[:, None], self.stds[:, None])
        return torch.where(missing[..., None], 0.0, logs)

    def with_missing_row(self) -> Densities:
        """The rows, followed by one without values."""
        return self._replace(values=torch.nn.functional.pad(self.values, (0, 1), value=torch.nan))

    def rows(self, index: Tensor) -> Densities:
        """The rows with these indices."""
        return self._replace(values=self.values[:, index])

    def detach(self) -> Densities:
        return Densities(*(array.detach() for array in self))


class Weighing:
    """The weights of the components at one site after another, in memory that is used again.

    They are densities divided by the row's largest one, and 1 where a value is missing. Those of as many sites as fit
    the cache are computed together.

    Args:
        visits: the sites in the order of the visits, to which all other indices refer.
        tops: logarithms of the divisors (g, b), where they are known already.
    """

    def __init__(self, densities: Densities, visits: Sequence[int], tops: Tensor | None = None):
        values, means, stds = (array.detach()[list(visits)] for array in densities)
        missing = values.isnan()
        everywhere = missing.all(0)
        self.missing_rows = everywhere.nonzero()[:, 0]
        others = missing & ~everywhere
        self.missing = others if bool(others.any()) else None
        self.values, self.means = torch.where(missing, 0.0, values), means
        self.scales = stds.reciprocal()
        self.heights = -(stds.log() + HALF_LOG_2PI)
        self.tops, self._known = (torch.empty_like(values), False) if tops is None else (tops, True)
        size, rows, width = len(values), values.shape[1], means.shape[1]
        self.step = max(1, min(size, PART // (rows * width)))
        self.scores, self.weights = values.new_empty(2, self.step, rows, width)
        self.sites = slice(0, 0)  # those whose weights there are

    def at(self, i: int) -> Tensor:
        """The weights at site i, (b, N), valid until those of a site that is not computed with it are asked for."""
        if not self.sites.start <= i < self.sites.stop:
            start = i - i % self.step
            self.sites = slice(start, min(start + self.step, len(self.values)))
            self._weigh(self.sites)
        return self.weights[i - self.sites.start]

    def zero_missing(self, table: Tensor) -> None:
        """Write 0 to what belongs to missing values in a table of the sites of the last weights, (n, b, N)."""
        if self.missing_rows.numel():
            table.index_fill_(1, self.missing_rows, 0.0)
        if self.missing is not None:
            table.masked_fill_(self.missing[self.sites, :, None], 0.0)

    def _weigh(self, sites: slice) -> None:
        size = sites.stop - sites.start
        scores = torch.sub(self.values[sites, :, None], self.means[sites, None], out=self.scores[:size])
        scores.mul_(self.scales[sites, None])
        logs = torch.addcmul(self.heights[sites, None], scores, scores, value=-0.5, out=self.weights[:size])
        self.zero_missing(logs)
        if not self._known:
            torch.amax(logs, 2, out=self.tops[sites])
        flushed_exp(logs.sub_(self.tops[sites, :, None]), logs)


class Slopes:
    """Gradients of the arrays of densities, from those of the weights, of all sites from the last to the first."""

    def __init__(self, densities: Densities, visits: Sequence[int], needed: Sequence[bool]):
        self.needed, self._visits = needed, list(visits)
        self._values, self._means, self._stds = (
            torch.empty_like(array) if wanted else None for array, wanted in zip(densities, needed, strict=True)
        )
        self._of_logs: Tensor | None = None

    def add(self, weighing: Weighing, i: int, gradient: Tensor) -> None:
        """Add those of site i, whose weights were asked for last, from the gradient of the weights (b, N)."""
        if self._of_logs is None:
            self._of_logs = torch.empty_like(weighing.weights)
        sites = weighing.sites
        torch.mul(gradient, weighing.at(i), out=self._of_logs[i - sites.start])
        if i == sites.start:
            self._finish(weighing, self._of_logs[: sites.stop - sites.start])

    def found(self) -> list[Tensor | None]:
        """The gradients of values, means and standard deviations; None of those that are not needed."""
        return [self._values, self._means, self._stds]

    def _finish(self, weighing: Weighing, of_logs: Tensor) -> None:
        scores, scale = weighing.scores[: len(of_logs)], weighing.scales[weighing.sites]
        places = self._visits[weighing.sites]
        weighing.zero_missing(of_logs)
        total = None if self._stds is None else of_logs.sum(1)
        slope = of_logs.mul_(scores)
        if self._means is not None:
            self._means[places] = scale * slope.sum(1)
        if self._stds is not None:
            self._stds[places] = scale * (scores.mul_(slope).sum(1) - total)
        if self._values is not None:
            self._values[places] = -slope.mul_(scale[:, None]).sum(2)  # no matrix product, which autocast would round
