"""VampTRIP: a tensor train whose components are an encoder's posteriors at pseudo-inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import ringdist as rd
from adapters.priors.base import integer_of
from adapters.priors.mixture import MixturePrior
from adapters.priors.ring_start import Order, columns_of
from adapters.priors.ring_structure import core_of
from adapters.priors.switching import SwitchingMixture
from adapters.priors.vamp import Encoder, PseudoInputs


class VampTRIP(MixturePrior, PseudoInputs):
    r"""A tensor train whose bonds select the pseudo-input of each latent; it contains the VampPrior.

    p(z) = Σ_s w[s_1] q_1(z_1 | u_{s_1}) ∏_{j>1} T_j[s_{j-1}, s_j] q_j(z_j | u_{s_j})

    The latents are in their order along the train, and q_j(· | u_k) is the encoder's posterior of latent j at
    pseudo-input u_k. A transition stays at a pseudo-input or switches to another one through one of `rank` groups:

    T_j[a, b] = (1 − ε_j[a]) δ_ab + ε_j[a] Σ_c leave_j[a, c] enter_j[c, b]

    Rows of leave and enter are distributions. A transition has 2 K rank + K parameters, and rank = K allows every
    transition matrix. Without switching all latents share one pseudo-input, which is the VampPrior (Tomczak and Welling
    2018, arXiv:1705.07120) with weights w. `ring` is the train as a `ringdist.TensorRing`: its cores are CP cores with
    `emission=None` and the transition as `right`. The methods of the prior exploit that transitions have low rank: log
    p of n codes costs O(n d K rank) instead of O(n d K²). As in `VampPrior`, the encoder is not a submodule.

    Args:
        encoder: from inputs (K, *input_shape) to `Independent(Normal(mean, std), 1)` of event shape (d,).
        input_shape: of one input, e.g. (1, 28, 28).
        num_latents: d.
        num_pseudo_inputs: K.
        rank: number of groups in each transition.
        switching: initial ε, the same everywhere; 0 keeps it at 0.
        order: of the latents along the train: "given" (0, 1, ...), "random", or a permutation.
        bounds: range of the inputs, to which a sigmoid restricts u_k; None if inputs are unbounded.
        trainable: whether pseudo-inputs, weights and transitions are learned.
        seed: of the pseudo-inputs, the transitions and a random order.

    Raises:
        TypeError: if the encoder is not callable or does not return `Independent(Normal)`, or a size is not an integer.
        ValueError: if the encoder's result does not have event shape (d,), bounds are not in ascending order, switching
            is not in [0, 1), or a size or the order does not fit.

    Examples:
        >>> import torch
        >>> from adapters import VampTRIP
        >>> from adapters.networks import GaussianEncoder
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2 * 4))
        >>> prior = VampTRIP(GaussianEncoder(network), (1, 8, 8), num_latents=4, num_pseudo_inputs=20)
        >>> z = prior.sample(3)
        >>> z[:, 2] = torch.nan
        >>> prior.log_prob(z).shape, prior.sample_given(z).shape
        (torch.Size([3]), torch.Size([3, 4]))
        >>> prior.ring.ranks
        (1, 20, 20, 20)
    """

    order: Tensor

    def __init__(
        self,
        encoder: Encoder,
        input_shape: Sequence[int],
        num_latents: int,
        num_pseudo_inputs: int = 500,
        rank: int = 8,
        switching: float = 0.01,
        order: Order = "given",
        *,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        trainable: bool = True,
        seed: int = 0,
    ):
        super().__init__(encoder, input_shape, num_latents, num_pseudo_inputs, bounds=bounds, seed=seed)
        if not 0 <= switching < 1:
            raise ValueError(f"switching must be in [0, 1), found {switching}")
        self.rank = integer_of("rank", rank)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("order", torch.tensor(columns_of(order, self.num_latents, generator, "latents")))
        steps, size = self.num_latents - 1, self.num_pseudo_inputs
        start = -math.inf if switching == 0 else math.log(switching) - math.log1p(-switching)
        self.weight_logits = nn.Parameter(torch.zeros(size))
        self.switch_logits = nn.Parameter(torch.full((steps, size), start))
        self.leave_logits = nn.Parameter(torch.randn(steps, size, self.rank, generator=generator))
        self.enter_logits = nn.Parameter(torch.randn(steps, self.rank, size, generator=generator))
        self.requires_grad_(trainable)

    @property
    def ring(self) -> rd.TensorRing:
        """The train with the current parameters and encoder, built at each access; gradients flow to both."""
        means, stds = self.posteriors()
        ones = means.new_ones(self.num_pseudo_inputs, 1)
        factors = [{"right": right} for right in [*self.transitions(), ones]]
        factors[0] |= {"left": self.weight_logits.softmax(0)[None]}
        columns = self.order.tolist()
        cores: list[Any] = [None] * self.num_latents
        for k, own in zip(columns, factors, strict=True):
            cores[k] = core_of(own)
        gaussians = zip(means.unbind(1), stds.unbind(1), strict=True)
        variables = [rd.GaussianMixture(mean, std, validate=False) for mean, std in gaussians]
        return rd.TensorRing(cores, variables, columns, validate=False, copy=False)

    def transitions(self) -> Tensor:
        """T (d − 1, K, K), whose rows are distributions, from each latent to the next in the order."""
        stay, leave, enter = (part.to(self.dtype) for part in self._switches())
        return stay.diag_embed() + leave @ enter

    def mixture(self) -> SwitchingMixture:
        """The encoder's current posteriors at the pseudo-inputs, with the transitions."""
        means, stds = self.posteriors()
        stay, leave, enter = self._switches()
        order = self.order.tolist()
        return SwitchingMixture(self._wide(self.weight_logits).log_softmax(0), means, stds, order, stay, leave, enter)

    def _switches(self) -> tuple[Tensor, Tensor, Tensor]:
        """1 − ε (d − 1, K), ε leave (d − 1, K, rank) and enter (d − 1, rank, K)."""
        logits = self._wide(self.switch_logits)
        leave = logits.sigmoid()[..., None] * self._wide(self.leave_logits).softmax(-1)
        return (-logits).sigmoid(), leave, self._wide(self.enter_logits).softmax(-1)

    def _wide(self, values: Tensor) -> Tensor:
        """The values in float64, where the device has it."""
        return values if values.device.type == "mps" else values.double()

    def extra_repr(self) -> str:
        """The settings in the module's `repr`."""
        return f"{super().extra_repr()}, num_pseudo_inputs={self.num_pseudo_inputs}, rank={self.rank}"
