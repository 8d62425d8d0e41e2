"""TRIP: the tensor ring induced prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adapters.priors.fitting import codes
from adapters.priors.ring_prior import CoreKind, Method, NewOrder, Nonnegative, Order, RingPrior, Topology


class TRIP(RingPrior):
    """p(z) ∝ Tr ∏_k A_k(z_k), A_k(z_k) = Σ_s Q_k[s] N(z_k; means[k, s], stds[k, s]²): a mixture of N^d Gaussians.

    Kuznetsov, Polykovskiy, Vetrov and Zhebrak, NeurIPS 2019, Eq. 3. To begin with, the means are evenly spaced over
    `mean_range` in every dimension, and the cores are exponential variates with Z near 1.

    Args:
        num_latents: d.
        num_components: N, of every dimension.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`.
        order: of the dimensions around the ring: "random" as in the paper, "given" (0, 1, ...), or a permutation.
        seed: of the order and the cores.
        topology: "train" leaves the first bond at rank 1.
        trainable: whether means, log_stds and cores are learned.
        nonnegative: how cores are kept so, "abs" in the paper.
        mean_range: of the initial means.
        std: initial standard deviation of the components, an N-th of the range if None.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if a size, order or option does not fit.
    """

    def __init__(
        self,
        num_latents: int = 100,
        num_components: int | None = None,
        rank: int | Sequence[int] = 20,
        order: Order = "random",
        seed: int = 0,
        topology: Topology | None = None,
        trainable: bool = True,
        *,
        core: CoreKind = "dense",
        private_components: bool = False,
        nonnegative: Nonnegative = "exp",
        mean_range: tuple[float, float] | None = None,
        std: float | None = None,
    ):
        super().__init__(
            num_latents,
            (),
            num_components,
            rank,
            order,
            core=core,
            private_components=private_components,
            seed=seed,
            topology=topology,
            trainable=trainable,
            nonnegative=nonnegative,
            mean_range=mean_range,
            std=std,
        )

    def reinitialize(
        self,
        z: Tensor,
        method: Method = "gmm",
        order: NewOrder | None = None,
        *,
        max_epochs: int = 10,
    ) -> None:
        """Fit the prior to latent codes anew, in place: optimisers keep their references, but should forget moments.

        Random numbers come from PyTorch's global generator. Ranks do not change.

        Args:
            z: (n, d) codes, n >= N.
            method: "gmm", the paper's procedure: a Gaussian mixture per dimension, cores drawn anew. "em": exact EM for
                components and cores together, `max_epochs` visits, from a mixture of products (where all ranks are
                equal, else from random cores).
            order: "mutual_information" also rearranges the dimensions around the ring, by the codes.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if z is no (n, d) table of finite numbers with n >= N, or an option is unknown; for "em", if a
                dimension has fewer than N different codes. The prior is then as it was.
        """
        self._reinitialize(codes(z, self.num_latents, least=max(2, self.num_components)), method, order, max_epochs)
