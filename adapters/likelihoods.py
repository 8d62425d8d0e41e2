"""Decoder likelihoods p(x | z): distributions over images with values in [0, 1] from a decoder's output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, constraints
from torch.nn import functional

from adapters.networks import at_least_single

LearnedStd = Literal["no", "shared", "pixel"]


class Likelihood(nn.Module, ABC):
    """The base class: maps a decoder's output (batch, c', H, W) to a distribution over images (batch, C, H, W).

    The distribution has `log_prob(x)` of shape (batch,), `mean` and `sample()`. It computes in single precision at
    least, also if the decoder runs under autocast. A subclass implements `pixels`.

    Examples:
        >>> import torch
        >>> from torch.distributions import Laplace
        >>> from adapters.likelihoods import Likelihood
        >>> class LaplaceLikelihood(Likelihood):
        ...     def pixels(self, *parameters):
        ...         return Laplace(parameters[0], 0.1)
        >>> LaplaceLikelihood()(torch.zeros(2, 1, 8, 8)).log_prob(torch.ones(2, 1, 8, 8)).shape
        torch.Size([2])
    """

    outputs_per_channel = 1

    def num_channels(self, image_channels: int) -> int:
        """c', the decoder's output channels for images of C channels."""
        return self.outputs_per_channel * image_channels

    def forward(self, output: Tensor) -> Distribution:
        """p(x | z) from the decoder's output (batch, c', H, W)."""
        parameters = at_least_single(output).chunk(self.outputs_per_channel, dim=1)
        return Independent(self.pixels(*parameters), output.ndim - 1)

    @abstractmethod
    def pixels(self, *parameters: Tensor) -> Distribution:
        """The distribution of each value given z, from tensors (batch, C, H, W)."""


class BernoulliLikelihood(Likelihood):
    """Binary pixels: the output is the log-odds of a 1.

    Values between 0 and 1 weight the log-probabilities of both. Values outside are not checked and have no meaning:
    divide images of 0..255 by 255.

    Examples:
        >>> import torch
        >>> from adapters.likelihoods import BernoulliLikelihood
        >>> BernoulliLikelihood()(torch.zeros(1, 1, 2, 2)).log_prob(torch.ones(1, 1, 2, 2))  # 4 log ½
        tensor([-2.7726])
    """

    def pixels(self, *parameters: Tensor) -> Distribution:
        """Bernoulli(sigmoid(output))."""
        return Bernoulli(logits=parameters[0], validate_args=False)


class GaussianLikelihood(Likelihood):
    """N(output, std²) for real values.

    Args:
        std: the standard deviation, or its initial value.
        learned: "no": std is fixed; "shared": one standard deviation for all values is learned; "pixel": the decoder
            outputs one for each value, as a factor of `std`.

    Raises:
        ValueError: if std is not positive, or `learned` is unknown.

    Examples:
        >>> import torch
        >>> from adapters.likelihoods import GaussianLikelihood
        >>> likelihood = GaussianLikelihood(0.2, learned="pixel")
        >>> likelihood.num_channels(3)
        6
        >>> likelihood(torch.zeros(1, 6, 8, 8)).stddev[0, 0, 0, 0]
        tensor(0.2000)
    """

    def __init__(self, std: float = 0.1, learned: LearnedStd = "no"):
        super().__init__()
        if not 0 < std < math.inf:
            raise ValueError(f"std must be positive and finite, found {std}")
        if learned not in get_args(LearnedStd):
            raise ValueError(f"learned must be one of {', '.join(get_args(LearnedStd))}, found {learned!r}")
        self.outputs_per_channel = 2 if learned == "pixel" else 1
        self.log_std = nn.Parameter(torch.tensor(math.log(std)), requires_grad=learned == "shared")

    def pixels(self, *parameters: Tensor) -> Distribution:
        """N(output, std²)."""
        log_std = self.log_std + parameters[1] if len(parameters) > 1 else self.log_std
        return Normal(parameters[0], log_std.exp(), validate_args=False)


class DiscretizedLogisticLikelihood(Likelihood):
    """Probabilities of grey levels: a logistic distribution integrated over each level's interval (PixelCNN++).

    The lowest and the highest level include the tails (Salimans et al. 2017, arXiv:1701.05517, section 2.1, with one
    component).

    Args:
        levels: number of levels; the values are k / (levels − 1) for k = 0, 1, …; 256 for 8-bit images.

    Raises:
        ValueError: if there are fewer than two levels.

    Examples:
        >>> import torch
        >>> from adapters.likelihoods import DiscretizedLogisticLikelihood
        >>> distribution = DiscretizedLogisticLikelihood(levels=3)(torch.zeros(1, 2, 1, 1))
        >>> sum(distribution.log_prob(torch.full((1, 1, 1, 1), k / 2)).exp() for k in range(3))
        tensor([1.0000])
    """

    outputs_per_channel = 2

    def __init__(self, levels: int = 256):
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, found {levels}")
        self.levels = levels

    def pixels(self, *parameters: Tensor) -> Distribution:
        """Location: ½ plus the first output; scale: exp(−3) ≈ 1/20 times the exponential of the second."""
        location, log_scale = parameters
        return DiscretizedLogistic(location + 0.5, log_scale - 3.0, self.levels)


class PaperLikelihood(Likelihood):
    """The reconstruction term of the paper's tables: −Σ (x − x̂)² / C on the scale [−1, 1], with x̂ = tanh(output).

    The official code sums squared errors over height and width and averages them over batch and channels. Up to a
    constant this is a Gaussian of variance C / 2 on that scale. It is not a normalised density: bounds with it are only
    comparable with the paper's.

    Examples:
        >>> import torch
        >>> from adapters.likelihoods import PaperLikelihood
        >>> PaperLikelihood()(torch.zeros(1, 1, 2, 2)).log_prob(torch.ones(1, 1, 2, 2))  # x̂ = 0, four times 1²
        tensor([-4.0000])
    """

    def pixels(self, *parameters: Tensor) -> Distribution:
        """An unnormalised Gaussian; tanh on [−1, 1] is a sigmoid of twice the output on [0, 1]."""
        mean = torch.sigmoid(2 * parameters[0])
        return UnnormalizedNormal(mean, math.sqrt(mean.shape[1] / 8), validate_args=False)


class UnnormalizedNormal(Normal):
    """A Gaussian whose `log_prob` omits the normaliser, so it is 0 at the mean; a sample is the mean, without noise.

    Examples:
        >>> import torch
        >>> from adapters.likelihoods import UnnormalizedNormal
        >>> UnnormalizedNormal(0.0, 2.0).log_prob(torch.tensor([0.0, 2.0]))
        tensor([-0.0000, -0.5000])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """−(value − mean)² / (2 std²)."""
        return -0.5 * ((value - self.loc) / self.scale) ** 2

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The mean."""
        return self.loc.expand(self._extended_shape(sample_shape)).clone()


class DiscretizedLogistic(Distribution):
    """P(level k) = F((k + ½) / (levels − 1)) − F((k − ½) / (levels − 1)) with a logistic cdf F.

    Values are k / (levels − 1) in [0, 1]. The lowest and the highest level include the tails.

    Args:
        location: of any shape.
        log_scale: of the same shape.
        levels: number of levels.

    Examples:
        >>> import torch
        >>> from adapters.likelihoods import DiscretizedLogistic
        >>> distribution = DiscretizedLogistic(torch.tensor(0.5), torch.tensor(-1.0), levels=3)
        >>> distribution.log_prob(torch.tensor([0.0, 0.5, 1.0])).exp()
        tensor([0.3364, 0.3273, 0.3364])
        >>> distribution.mean
        tensor(0.5000)
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the signature of torch.distributions)
    support = constraints.unit_interval

    def __init__(self, location: Tensor, log_scale: Tensor, levels: int):
        self.location, self.log_scale, self.levels = location, log_scale, levels
        super().__init__(location.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P, computed as σ(a) − σ(b) = σ(a) σ(−b) (1 − exp(b − a)), which is accurate in the far tails too."""
        steps = self.levels - 1
        level = torch.round(value * steps)
        inverse_scale = torch.exp(-self.log_scale)
        above = ((level + 0.5) / steps - self.location) * inverse_scale
        below = ((level - 0.5) / steps - self.location) * inverse_scale
        log_cdf, log_survival = functional.logsigmoid(above), functional.logsigmoid(-below)
        inside = log_cdf + log_survival + torch.log(-torch.expm1(-inverse_scale / steps))
        return torch.where(level <= 0, log_cdf, torch.where(level >= steps, log_survival, inside))

    @property
    def mean(self) -> Tensor:
        """The mean, Σ_k k P(k) / (levels − 1) = Σ_{k ≥ 1} P(level ≥ k) / (levels − 1)."""
        steps = self.levels - 1
        edges = (torch.arange(steps, device=self.location.device, dtype=self.location.dtype) + 0.5) / steps
        inverse_scale = torch.exp(-self.log_scale)
        total = torch.zeros_like(self.location)
        for edge in edges:
            total = total + torch.sigmoid((self.location - edge) * inverse_scale)
        return total / steps

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Logistic samples, rounded to their levels."""
        steps = self.levels - 1
        with torch.no_grad():
            uniform = torch.rand(self._extended_shape(sample_shape), device=self.location.device)
            draw = self.location + torch.exp(self.log_scale) * torch.logit(uniform)
            return (draw.clamp(0, 1) * steps).round() / steps
