"""TRIP: the tensor ring induced prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adapters.priors.fitting import codes
from adapters.priors.ring_fit import Method
from adapters.priors.ring_prior import RingPrior
from adapters.priors.ring_start import NewOrder, Order
from adapters.priors.ring_structure import CoreKind, Nonnegative, Topology


class TRIP(RingPrior):
    """p(z) ∝ Tr ∏_k A_k(z_k), A_k(z_k) = Σ_s Q_k[s] N(z_k; means[k, s], stds[k, s]²): a mixture of N^d Gaussians.

    Kuznetsov, Polykovskiy, Vetrov and Zhebrak, NeurIPS 2019, Eq. 3. To begin with, every latent is near N(0, 1) and
    nearly independent of the others: means are at quantiles of a normal distribution, and cores are exponential
    variates with Z near 1.

    Args:
        num_latents: d.
        num_components: N, of every dimension; None: 10, or with private components one for every hidden state.
        rank: of every bond, or one per bond in the sense of `TensorRing.ranks`.
        order: of the dimensions around the ring: "random" as in the paper, "given" (0, 1, ...), or a permutation.
        seed: of the order and the cores.
        topology: "train" leaves the first bond at rank 1. None: "ring" for dense cores, as in the paper, and "train"
            for CP cores: it holds every mixture that a ring of its rank does, at a rank-th of a ring's time.
        trainable: whether means, log_stds and cores are learned.
        core: "dense", (N, m, m') each as in the paper; or "cp", `ringdist.CPCore`: a hidden state of as many values as
            the rank, which chooses the component by "emission" (N, m) and its successor by "right" (m, m').
        private_components: of CP cores, whether every hidden state has its own component in every dimension, and no
            emission: `rank` Gaussians a latent. A ring of rank m then holds all mixtures of m Gaussians with diagonal
            covariances.
        nonnegative: how cores are kept so: "exp", of whose parameters gradient steps change entries in proportion, so
            that few steps do not undo a fit; "abs" in the paper; or "softplus".
        mean_range: of the initial means, evenly spaced. None: at quantiles that give every latent variance 1.
        std: initial standard deviation of the components. None: an N-th of the range, or N^(-1/3) without one.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if a size, order or option does not fit.

    Examples:
        >>> from adapters import TRIP
        >>> TRIP(8, rank=4).means.shape, TRIP(8, core="cp", rank=64, private_components=True).means.shape
        (torch.Size([8, 10]), torch.Size([8, 64]))
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
            method: "gmm", the paper's procedure: a Gaussian mixture per dimension, cores drawn anew. "mixture": a
                mixture of `rank` products over all dimensions, fitted to the codes, whose cluster changes along the
                ring with a probability of about 0.01 only; with private components its Gaussians are the clusters'
                own, else all share those of a dimension, at the codes' quantiles. "em": exact EM for components and
                cores together, `max_epochs` visits, from near such a mixture (where all ranks are equal, else from
                random cores).
            order: "mutual_information" also rearranges the dimensions around the ring, by the codes.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if z is not an (n, d) table of finite numbers with n >= N, or an option is unknown; for "em" and
                "mixture" without private components, if a dimension has fewer than N different codes; for "mixture", if
                ranks differ. The prior is then as it was.
        """
        self._reinitialize(codes(z, self.num_latents, least=max(2, self.num_components)), method, order, max_epochs)
