"""A normalising flow (zuko) over any other prior."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from adapters.priors.base import Attribute, Generator, Prior, check_option, full_precision

Kind = Literal["nsf", "maf"]


class FlowPrior(Prior):
    """p(z) = p_base(f(z)) |det ∂f/∂z| with an invertible network f: paper Table 7 is `FlowPrior(TRIP(...))`.

    Args:
        base: any prior; its own `trainable` decides whether it is learned.
        flow: `"nsf"` (neural spline flow, Durkan et al. 2019) or `"maf"` (masked autoregressive flow, Papamakarios et
            al. 2017), or a zuko lazy transform from z to the base's space.
        trainable: whether the flow is learned.
        options: of `zuko.flows.NSF` or `zuko.flows.MAF`, e.g. transforms=3, hidden_features=(64, 64); `passes=2`
            makes them coupling flows, which sample fast.

    Raises:
        TypeError: if base is no prior, or flow is neither a name nor a module.
        ValueError: if the name is unknown, or options are given beside a module.
    """

    def __init__(self, base: Prior, flow: Kind | nn.Module = "nsf", *, trainable: bool = True, **options: Any):
        if not isinstance(base, Prior):
            raise TypeError(f"base must be a Prior, found {type(base).__name__}")
        super().__init__(base.num_latents)
        self.base = base
        self.transform = _transform(flow, base.num_latents, options).to(base.dtype)
        if not trainable:
            self.transform.requires_grad_(False)

    @property
    def is_learned(self) -> bool:
        """Whether the flow or the base is."""
        return self.base.is_learned or super().is_learned

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether `rsample` is differentiable: where the base's is."""
        return self.base.has_rsample

    @property
    def attributes(self) -> tuple[Attribute, ...]:  # type: ignore[override]
        """Those of the base."""
        return self.base.attributes

    def reinitialize(self, z: Tensor, **options: Any) -> None:
        """Re-initialise the base from the codes as the flow sees them; the flow stays as it is."""
        with torch.no_grad(), full_precision(self.device):
            self.base.reinitialize(self.transform()(self._checked(z)), **options)

    def _checked(self, z: Tensor) -> Tensor:
        z = super()._checked(z)
        if not torch.compiler.is_compiling() and bool(z.isnan().any()):
            raise ValueError("a FlowPrior cannot marginalise, every entry of z must be observed, found NaN")
        return z

    def _log_prob(self, z: Tensor) -> Tensor:
        inner, ladj = self.transform().call_and_ladj(z)
        return self.base.log_prob(inner) + ladj

    def _sample(self, n: int, y: Tensor | None, temperature: float, generator: Generator) -> Tensor:
        return self.transform().inv(self.base.sample(n, y, temperature=temperature, rng=generator))

    def _rsample(self, n: int, generator: Generator) -> Tensor:
        return self.transform().inv(self.base.rsample(n, rng=generator))

    def _sample_components(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        inner, log_prob = self.base.sample_components(n, rng=generator)
        return self.transform().inv(inner), log_prob

    def sample_given(self, z: Tensor, *, rng: Any = None) -> Tensor:
        """Not available: the conditionals of a flow have no closed form.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a FlowPrior cannot sample given some entries: it has no conditionals")

    def _sample_given(self, z: Tensor, generator: Generator) -> Tensor:
        return self.sample_given(z)


def _transform(flow: Kind | nn.Module, features: int, options: dict[str, Any]) -> nn.Module:
    """The lazy transform from z to the base's space."""
    if isinstance(flow, nn.Module):
        if options:
            raise ValueError(f"options belong to a flow given by name, found {', '.join(options)}")
        return flow
    if not isinstance(flow, str):
        raise TypeError(f"flow must be a name or a module, found {type(flow).__name__}")
    import zuko

    check_option("flow", flow, get_args(Kind))
    family = zuko.flows.NSF if flow == "nsf" else zuko.flows.MAF
    return family(features, **options).transform
