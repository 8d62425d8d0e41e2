"""A normalising flow (zuko) over any other prior."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from adapters.priors.base import Generator, Prior, Rng, check_option, full_precision
from adapters.priors.joint_prior import JointPrior

Kind = Literal["coupling", "nsf", "maf"]
NEAR_IDENTITY = 1e-2  # factor of the last layer's weights in a new network


class FlowPrior(JointPrior):
    """p(z, y) = p_base(f(z), y) |det ∂f/∂z| with an invertible network f.

    `FlowPrior(TRIP(...))` is the model of the paper's Table 7. The flow transforms codes only, not the attributes of a
    `JointTRIP`. The determinant cancels in p(y | z) = p_base(y | f(z)), which is therefore exact for any subset of
    known attributes. A flow cannot marginalise latents: NaN in z and `sample_given` raise an error. A flow given by
    name is initialised near the identity.

    Args:
        base: any prior; its own `trainable` decides whether it is learned.
        flow: "coupling" (neural spline coupling layers, evaluated and inverted in two passes of their networks), "nsf"
            (autoregressive neural splines, Durkan et al. 2019, arXiv:1906.04032), "maf" (masked autoregressive flow,
            Papamakarios et al. 2017, arXiv:1705.07057), or a zuko lazy transform from z to the base's space.
        trainable: whether the flow is learned.
        options: of `zuko.flows.NSF` or `zuko.flows.MAF`; the defaults are zuko's, such as transforms=3 and
            hidden_features=(64, 64).

    Raises:
        TypeError: if base is not a prior, flow is neither a name nor a module, or an option is unknown.
        ValueError: if the name is unknown, or options are given together with a module.

    Examples:
        >>> import torch
        >>> from adapters import FlowPrior, JointTRIP
        >>> prior = FlowPrior(JointTRIP(4, attributes=[10, 3], num_components=5, rank=4))
        >>> y = torch.tensor([7.0, torch.nan])  # the second attribute is unknown
        >>> z = prior.sample(3, y)
        >>> prior.log_prob(z, y.expand(3, 2)).shape
        torch.Size([3])
        >>> [table.shape for table in prior.attribute_posterior(z)]
        [torch.Size([3, 10]), torch.Size([3, 3])]
    """

    def __init__(self, base: Prior, flow: Kind | nn.Module = "coupling", *, trainable: bool = True, **options: Any):
        if not isinstance(base, Prior):
            raise TypeError(f"base must be a Prior, found {type(base).__name__}")
        super().__init__(base.num_latents)
        self.base = base
        self.attributes = base.attributes
        self.transform = _transform(flow, base.num_latents, options).to(base.dtype)
        if not trainable:
            self.transform.requires_grad_(False)

    @property
    def is_learned(self) -> bool:
        """Whether the flow or the base is."""
        return self.base.is_learned or super().is_learned

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether `rsample` is differentiable, as that of the base."""
        return self.base.has_rsample

    # ---------------------------------------------------------------------------------------------------- the flow

    def to_base(self, z: Tensor) -> Tensor:
        """u = f(z), codes (..., d) in the space of the base.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if its last axis is not d long, or an entry is NaN.
        """
        return self._inner(z)[0]

    def from_base(self, u: Tensor) -> Tensor:
        """z = f⁻¹(u), the inverse of `to_base`, (..., d); errors as `to_base`."""
        u = self._checked(u)
        with full_precision(u):
            inverse: Tensor = self.transform().inv(u)
        return inverse

    def _inner(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and log |det ∂f/∂z|; u is infinite where z is, so that the density of the base is 0 there."""
        z = self._checked(z)
        infinite = z.isinf().any(-1)
        if not z.numel():  # zuko cannot reshape it
            return z, z.sum(-1)
        with full_precision(z):
            inner, ladj = self.transform().call_and_ladj(z.masked_fill(infinite[..., None], 0.0))
        return inner.masked_fill(infinite[..., None], torch.inf), ladj

    def _checked(self, z: Tensor) -> Tensor:
        z = super()._checked(z)
        if not torch.compiler.is_compiling() and bool(z.isnan().any()):
            raise ValueError("a FlowPrior cannot marginalise, every entry of z must be observed, found NaN")
        return z

    # ----------------------------------------------------------------------------------------------------- queries

    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """log p(z, observed entries of y) in nats, (...).

        Args:
            z: (..., d) latent codes without NaN.
            y: (..., a) attributes; None: none is known.

        Raises:
            TypeError, ValueError: as the base's `log_prob`.
            ValueError: if an entry of z is NaN, or y is given and the base has no attributes.
        """
        inner, ladj = self._inner(z)
        return self.base.log_prob(inner, *self._given(y)) + ladj

    def log_probs(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) and log p(observed entries of y | z) in nats, (...) each, in one pass through the flow.

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        inner, ladj = self._inner(z)
        marginal, attributes = self.joint_base.log_probs(inner, y)
        return marginal + ladj, attributes

    def log_prob_attributes(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(observed entries of y | z) in nats, (...), that of the base at f(z).

        Raises:
            TypeError, ValueError: as `log_prob` and `JointTRIP.log_prob_attributes`.
        """
        return self.joint_base.log_prob_attributes(y, self.to_base(z))

    def attribute_posterior(self, z: Tensor, *, log: bool = False) -> list[Tensor]:
        """p(y_i | z) of each attribute, (..., N_i), or the logarithms; see `JointTRIP.attribute_posterior`.

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        return self.joint_base.attribute_posterior(self.to_base(z), log=log)

    def sample_attributes(self, z: Tensor, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """Attributes (..., a): the unknown entries of y, drawn given its known ones and z (..., d).

        Raises:
            TypeError, ValueError: as `log_prob`.
        """
        return self.joint_base.sample_attributes(self.to_base(z), y, rng=rng)

    def rsample(self, n: int, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """As `sample`, at temperature 1, with pathwise gradients.

        Raises:
            TypeError, ValueError: as the base's `rsample`.
            ValueError: if y is given and the base has no attributes.
        """
        return self.from_base(self.base.rsample(n, *self._given(y), rng=rng))

    def sample_given(self, z: Tensor, y: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """Not available: the conditionals of a flow have no closed form.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a FlowPrior cannot sample given some entries: it has no conditionals")

    def reinitialize(self, z: Tensor, y: Tensor | None = None, *arguments: Any, **options: Any) -> None:
        """Re-initialise the base from the transformed codes f(z) and their attributes; the flow is unchanged.

        Args:
            z: (n, d) codes.
            y: (n, a) attributes, if the base has any.
            arguments, options: further arguments of the base's `reinitialize`.

        Raises:
            TypeError, ValueError: as the base's `reinitialize`.
            ValueError: if y is given and the base has no attributes.
        """
        with torch.no_grad():
            self.base.reinitialize(self.to_base(z), *self._given(y), *arguments, **options)

    @property
    def joint_base(self) -> JointPrior:
        """The base, if it has attributes.

        Raises:
            ValueError: if it has none.
        """
        if not self.attributes or not isinstance(self.base, JointPrior):
            raise ValueError(f"a FlowPrior has the attributes of its base, found none in a {type(self.base).__name__}")
        return self.base

    def _given(self, y: Tensor | None) -> tuple[Tensor, ...]:
        """The attributes as an argument of the base's methods, none if they are not given."""
        if y is not None and not self.attributes:
            raise ValueError(f"y needs a base with attributes, found a {type(self.base).__name__}")
        return () if y is None else (y,)

    # -------------------------------------------------------------------------------------------- implementation

    def _log_prob(self, z: Tensor) -> Tensor:
        return self.log_prob(z)

    def _sample(self, n: int, y: Tensor | None, temperature: float, generator: Generator) -> Tensor:
        return self.from_base(self.base.sample(n, *self._given(y), temperature=temperature, rng=generator))

    def _rsample(self, n: int, generator: Generator) -> Tensor:
        return self.rsample(n, rng=generator)

    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        inner, log_prob = self.base.sample_components(n, rng=generator)
        return self.from_base(inner), log_prob

    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        return self.sample_given(z)


def _transform(flow: Kind | nn.Module, features: int, options: dict[str, Any]) -> nn.Module:
    """The zuko lazy transform from z to the base's space."""
    if isinstance(flow, nn.Module):
        if options:
            raise ValueError(f"options belong to a flow given by name, found {', '.join(options)}")
        return flow
    if not isinstance(flow, str):
        raise TypeError(f"flow must be a name or a module, found {type(flow).__name__}")
    import zuko

    check_option("flow", flow, get_args(Kind))
    family = zuko.flows.MAF if flow == "maf" else zuko.flows.NSF
    if flow == "coupling":
        options = {"passes": 2} | options
    try:
        transform: nn.Module = family(features, **options).transform
    except TypeError as error:
        raise TypeError(
            f"options of the flow {flow!r} must be those of zuko.flows.{family.__name__}, such as transforms=3 or "
            f"hidden_features=(64, 64), found {', '.join(options)} ({error})"
        ) from error
    _move_near_identity(transform)
    return transform


@torch.no_grad()
def _move_near_identity(transform: nn.Module) -> None:
    """Make the parameters of univariate transforms small: splines and affine maps with parameters 0 are identities."""
    for layer in transform.modules():
        if isinstance(hyper := getattr(layer, "hyper", None), nn.Sequential):
            last = [module for module in hyper.modules() if isinstance(module, nn.Linear)][-1]
            last.weight.mul_(NEAR_IDENTITY)
            last.bias.zero_()
        for parameter in getattr(layer, "phi", ()):  # a transform of a single feature has no network
            parameter.mul_(NEAR_IDENTITY)
