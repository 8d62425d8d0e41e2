"""`Prior`, the base class of all learnable priors, and the checks of arguments that they share."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from adapters.priors.distribution import PriorDistribution

Rng: TypeAlias = "int | torch.Generator | None"
Generator: TypeAlias = "torch.Generator | None"  # None: the global one of the device
Attribute = int | Literal["continuous"]  # the number of values 0, 1, ..., or a real number


class Prior(nn.Module, ABC):
    """A distribution over latent codes z (d real numbers) as a module.

    The public methods check their input, convert it to the dtype of the prior's parameters, disable autocast (half
    precision is too coarse for densities) and call the methods of the same name with a leading underscore, which a
    subclass implements. Unless `rng` (a seed or a generator) is given, random numbers come from PyTorch's global
    generator of the prior's device, so they follow `torch.manual_seed` and the random states in checkpoints.

    Args:
        num_latents: d.

    Raises:
        TypeError: if num_latents is not an integer.
        ValueError: if it is less than 1.

    Examples:
        >>> import torch
        >>> from adapters import TRIP, Prior
        >>> prior = TRIP(num_latents=3, num_components=5, rank=4)
        >>> z = prior.sample(2, rng=0)
        >>> z[:, 2] = torch.nan  # marginalised by log_prob, drawn by sample_given
        >>> isinstance(prior, Prior), prior.log_prob(z).shape, prior.sample_given(z).shape
        (True, torch.Size([2]), torch.Size([2, 3]))
    """

    num_latents: int
    attributes: tuple[Attribute, ...] = ()  # kinds of the attributes y, where the prior has any
    has_rsample = True

    def __init__(self, num_latents: int):
        super().__init__()
        self.num_latents = integer_of("num_latents", num_latents)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which the prior computes."""
        return next(self.parameters()).dtype

    @property
    def is_learned(self) -> bool:
        """Whether the distribution depends on a parameter that requires a gradient."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    # ---------------------------------------------------------------------------------------------------- queries

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; NaN entries are marginalised, row by row.

        Args:
            z: (..., d) latent codes. Gradients flow to them and to the prior's parameters.

        Returns:
            (...), in the dtype of the prior's parameters; −inf where an entry is infinite.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if its last axis is not d long.
        """
        return self._log_density(self._checked(z))

    def sample(self, n: int, y: Tensor | None = None, *, temperature: float = 1.0, rng: Rng = None) -> Tensor:
        """n independent samples, (n, d), without gradient.

        Args:
            n: number of samples.
            y: attributes, (a,) for all samples or (n, a), NaN where unknown, for a prior that has `attributes`.
            temperature: factor of the components' standard deviations. At 1 the samples follow the density. Below 1
                they are closer to the means of their components, and at 0 they are these means. The components are
                drawn with their own probabilities at every temperature. A flow passes the temperature to its base.
            rng: a seed or a generator; None: the global generator.

        Raises:
            TypeError: if n is not an integer.
            ValueError: if n or temperature is negative or not finite, or y is given to a prior without attributes.
        """
        n = integer_of("n", n, least=0)
        temperature = nonnegative_of("temperature", temperature)
        if y is not None and not self.attributes:
            raise ValueError(f"a {type(self).__name__} has no attributes: y must be None, found {_kind_of(y)}")
        with torch.no_grad(), full_precision(self.device):
            return self._sample(n, y, temperature, self._generator(rng))

    def rsample(self, n: int, *, rng: Rng = None) -> Tensor:
        """n independent samples, (n, d), with pathwise gradients for the prior's parameters."""
        n = integer_of("n", n, least=0)
        with full_precision(self.device):
            return self._rsample(n, self._generator(rng))

    def sample_components(self, n: int, *, rng: Rng = None) -> tuple[Tensor, Tensor]:
        """Samples that are differentiable in the components' Gaussians, and their log-density for the remaining part.

        z = mean + std · noise of a component that is drawn with its probability. Gradients flow through z to means and
        standard deviations. The probabilities of the components get the score function instead:
        ∇E[f(z)] = E[∇f(z) + f(z) ∇log p(z)]. Here p(z) sums over all components, which has less variance than the
        probability of the drawn component alone (Rao-Blackwell). The variance does not grow with the distance between
        components.

        Returns:
            z (n, d), and log p(z) (n,) in nats, through which gradients reach the probabilities of components only. It
            is 0 for a prior with a single component.
        """
        n = integer_of("n", n, least=0)
        with full_precision(self.device):
            return self._sample_components(n, self._generator(rng))

    def sample_given(self, z: Tensor, *, rng: Rng = None) -> Tensor:
        """The NaN entries of z (..., d) drawn from p(missing | observed), row by row; the others come back unchanged.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if its last axis is not d long.
        """
        z = self._checked(z)
        with torch.no_grad(), full_precision(z):
            return self._sample_given(z.reshape(-1, z.shape[-1]), self._generator(rng)).reshape(z.shape)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each latent, (d,) each, exact and differentiable.

        Raises:
            NotImplementedError: if they have no closed form, as for a flow.
        """
        raise NotImplementedError(
            f"the moments of a {type(self).__name__} have no closed form; estimate them from prior.sample(n)"
        )

    def entropy(self, n: int = 10_000, *, rng: Rng = None) -> Tensor:
        """−E[log p(z)] in nats, a scalar: exact for a Gaussian, otherwise an estimate from n samples without gradient.

        Raises:
            TypeError: if n is not an integer.
            ValueError: if it is less than 1.
        """
        n = integer_of("n", n)
        with torch.no_grad():
            return -self.log_prob(self.sample(n, rng=rng)).mean()

    def kl(self, mean: Tensor, std: Tensor) -> Tensor | None:
        """KL(N(mean, diag std²) ‖ p) in nats, (...), or None where there is no closed form.

        Args:
            mean, std: (..., d).
        """
        return None

    def reinitialize(self, z: Tensor) -> None:
        """Fit the prior to latent codes (n, d), in place: optimisers keep their references to the parameters.

        Raises:
            NotImplementedError: if this prior cannot be fitted to codes.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be re-initialised from latent codes")

    def forward(self, c: None = None) -> PriorDistribution:
        """The prior as a `torch.distributions.Distribution`.

        Args:
            c: a context, always None: these priors are unconditional. zuko passes it to the base of a flow.
        """
        return PriorDistribution(self)

    def extra_repr(self) -> str:
        """The settings in the module's `repr`."""
        return f"num_latents={self.num_latents}"

    # ------------------------------------------------------------------------------- implemented by subclasses

    @abstractmethod
    def _log_prob(self, z: Tensor) -> Tensor: ...

    @abstractmethod
    def _sample(self, n: int, y: Tensor | None, temperature: float, generator: Generator) -> Tensor: ...

    @abstractmethod
    def _rsample(self, n: int, generator: Generator) -> Tensor: ...

    @abstractmethod
    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor: ...

    # ----------------------------------------------------------------------------------------------------- checks

    def _checked(self, z: Tensor) -> Tensor:
        return real_rows("z", z, self.num_latents).to(self.dtype)

    def _log_density(self, rows: Tensor) -> Tensor:
        """`_log_prob` with infinite entries masked: the density there is 0, and its gradient would be NaN."""
        infinite = rows.isinf()
        with full_precision(rows):
            log_prob = self._log_prob(rows.masked_fill(infinite, 0.0))
        return log_prob.masked_fill(infinite.any(-1), -torch.inf)

    def _generator(self, rng: Rng) -> Generator:
        return generator_of(rng, self.device)


def full_precision(where: Tensor | torch.device) -> torch.autocast:
    """A context with autocast disabled on a device, or on that of a tensor."""
    device = where.device if isinstance(where, Tensor) else where
    return torch.autocast(device.type, enabled=False)


def generator_of(rng: Rng, device: torch.device) -> Generator:
    """The generator of a seed, the given generator, or PyTorch's global generator of the device."""
    if rng is None and torch.compiler.is_compiling():
        return None  # stands for the global generator; a graph cannot hold a generator object
    if isinstance(rng, torch.Generator):
        return rng
    if rng is not None:
        return torch.Generator(device).manual_seed(integer_of("rng", rng, least=0))
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


def is_readable(*tensors: Tensor) -> bool:
    """Whether values can be read: not while compiling, tracing or capturing, nor in transforms of `torch.func`."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._functorch.maybe_current_level() is not None:
        return False
    if any(type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors):
        return False
    return not (any(tensor.is_cuda for tensor in tensors) and torch.cuda.is_current_stream_capturing())


def is_settled(*tensors: Tensor) -> bool:
    """Whether results depend on the tensors' values only: no derivative is recorded, and nothing is traced."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return is_readable(*tensors) and all(unpack_dual(tensor).tangent is None for tensor in tensors)


def integer_of(label: str, value: int, *, least: int = 1) -> int:
    """The value if it is an integer of at least `least`; otherwise a `TypeError` or `ValueError` naming the rule."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{label} must be an integer, found {value!r}")
    if value < least:
        raise ValueError(f"{label} must be at least {least}, found {value}")
    return int(value)


def nonnegative_of(label: str, value: float) -> float:
    """The value if it is finite and not negative; otherwise a `TypeError` or `ValueError` naming the rule."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{label} must be a number, found {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{label} must be finite and not negative, found {value}")
    return value


def check_option(label: str, value: str, options: Sequence[str]) -> None:
    """Raise `ValueError` listing the options unless the value is one of them."""
    if value not in options:
        raise ValueError(f"{label} must be one of {', '.join(options)}, found {value!r}")


def real_rows(label: str, value: Tensor, width: int) -> Tensor:
    """The value if it is a floating point tensor (..., width); otherwise a `TypeError` or `ValueError`."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{label} must be a floating point tensor, found {_kind_of(value)}")
    if value.ndim == 0 or value.shape[-1] != width:
        raise ValueError(f"{label} must have shape (..., {width}), found {tuple(value.shape)}")
    return value


def attribute_rows(y: Tensor, attributes: Sequence[Attribute]) -> Tensor:
    """Attributes (..., a) in floating point, NaN where unknown; otherwise an error naming the row and the rule.

    Args:
        y: a tensor of floating point numbers or integers.
        attributes: their kinds. Values are not checked where they cannot be read, as while compiling.

    Raises:
        TypeError: if y is not a tensor of real numbers.
        ValueError: if its last axis is not a long, or a value is outside the range of its attribute.
    """
    if isinstance(y, Tensor) and not y.is_floating_point() and not y.is_complex():
        y = y.to(torch.get_default_dtype())
    y = real_rows("y", y, len(attributes))
    if not is_readable(y):
        return y
    outside = torch.stack([_outside(y[..., i].reshape(-1), kind) for i, kind in enumerate(attributes)])
    if bool(outside.any()):  # a single read, because reading a value waits for the accelerator
        i, row = outside.nonzero()[0].tolist()
        rule = "is a finite number" if attributes[i] == "continuous" else f"takes integers 0..{attributes[i] - 1}"
        raise ValueError(f"attribute {i} {rule}, found {y[..., i].reshape(-1)[row].item():g} in row {row}")
    return y


def _kind_of(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _outside(values: Tensor, kind: Attribute) -> Tensor:
    """Which values are neither NaN nor in the range of an attribute of this kind."""
    if kind == "continuous":
        return values.isinf()
    return ~(values.isnan() | ((values >= 0) & (values < kind) & (values == values.floor())))
