"""TRIP: the tensor ring induced prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adapters.priors.fitting import codes
from adapters.priors.mixture import DiagonalMixture, MixturePrior
from adapters.priors.ring_fit import Method, from_mixture
from adapters.priors.ring_prior import RingPrior
from adapters.priors.ring_start import NewOrder, Order
from adapters.priors.ring_structure import CoreKind, Nonnegative, Topology


class TRIP(RingPrior):
    """p(z) ∝ Tr ∏_k A_k(z_k), A_k(z_k) = Σ_s Q_k[s] N(z_k; means[k, s], stds[k, s]²): a mixture of N^d Gaussians.

    Kuznetsov, Polykovskiy, Vetrov and Zhebrak, NeurIPS 2019, Eq. 3. Initially every latent is near N(0, 1) and nearly
    independent of the others: means are at quantiles of a normal distribution, and cores are exponential variates with
    Z near 1.

    Args:
        num_latents: d.
        num_components: N of every dimension. None: 10, or one for each hidden state with private components.
        rank: of every bond, or one per bond as in `TensorRing.ranks`.
        order: of the dimensions around the ring: "random" as in the paper, "given" (0, 1, ...), or a permutation.
        seed: of the order and the cores.
        topology: "ring", or "train", whose first bond has rank 1. None: "ring" for dense cores, as in the paper, and
            "train" for CP cores: a train of rank m contains the same mixtures as a ring, at 1/m of the time.
        trainable: whether means, log_stds and cores are learned.
        core: "dense", arrays (N, m, m') as in the paper, or "cp" (`ringdist.CPCore`): a hidden state with as many
            values as the rank, which determines the component by "emission" (N, m) and the next state by "right"
            (m, m'). "switching": CP cores of transitions diag(stay) + leave enterᵀ (`CPCore.switching`), which keep the
            state or draw another one independently of it. A state then costs 2d + 3(d − 1) numbers instead of
            2d + m (d − 1), so that there may be hundreds. They need private components and one rank.
        private_components: for CP and switching cores, whether every hidden state has its own component in every
            dimension instead of an emission, so N is the rank. A ring of rank m then contains all mixtures of m
            Gaussians with diagonal covariances.
        nonnegative: the map that makes cores non-negative: "exp", "abs" as in the paper, or "softplus". With "exp"
            gradient steps change entries in proportion, so that a few steps do not undo a fit.
        mean_range: range of the initial means, evenly spaced. None: quantiles that give every latent variance 1.
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
        """Fit the prior to latent codes, in place: optimisers keep their references to the parameters.

        An optimiser's moments belong to the previous values and should be reset. Random numbers come from PyTorch's
        global generator. Ranks do not change.

        Args:
            z: (n, d) codes, n >= N.
            method: "gmm", the paper's procedure: a Gaussian mixture for each dimension, and random cores. "mixture": a
                mixture of `rank` products over all dimensions, whose cluster changes along the ring with a probability
                of about 0.01. With private components each cluster has its own Gaussians, otherwise the clusters share
                those at the codes' quantiles. "em": exact EM for components and cores together, from near such a
                mixture if all ranks are equal, otherwise from random cores.
            order: "mutual_information" also reorders the dimensions around the ring, by the codes.
            max_epochs: passes of EM over the codes.

        Raises:
            TypeError: if z is not a floating point tensor.
            ValueError: if z is not an (n, d) table of finite numbers with n >= N, or an option is unknown; for "em" and
                "mixture" without private components, if a dimension has fewer than N different codes; for "mixture", if
                ranks differ. The prior is then unchanged.
        """
        self._reinitialize(codes(z, self.num_latents, least=max(2, self.num_components)), method, order, max_epochs)

    def start_from(self, prior: MixturePrior) -> None:
        """Become a mixture of Gaussians with diagonal covariances, in place: private components contain every one.

        The hidden state is the component of the mixture. It changes with a probability of 0.01 along the ring, so that
        gradients can turn the mixture into a ring; the log-density is at least that of the mixture less 0.01. Training
        may begin with the mixture, whose updates cost less.

        Args:
            prior: a `GaussianMixturePrior`, or a `VampPrior`, of as many latents and of `num_components` components.

        Raises:
            TypeError: if it is not such a prior.
            ValueError: if it has other numbers of latents or components, or this prior has shared components or
                different ranks.

        Examples:
            >>> import torch
            >>> from adapters import TRIP, GaussianMixturePrior
            >>> mixture = GaussianMixturePrior(4, 20, seed=0)
            >>> trip = TRIP(4, rank=20, core="switching", private_components=True)
            >>> trip.start_from(mixture)
            >>> z = mixture.sample(1000, rng=0)
            >>> bool((trip.log_prob(z) > mixture.log_prob(z) - 0.0101).all())
            True
        """
        mixture = prior.mixture() if isinstance(prior, MixturePrior) else None
        if not isinstance(mixture, DiagonalMixture):
            raise TypeError(f"prior must be a mixture of Gaussians with diagonal covariances, found {prior!r}")
        if not self.private_components or self.one_rank is None:
            raise ValueError(
                "a TRIP contains a mixture if it has private components and one rank for all bonds, found "
                f"private_components={self.private_components} and ranks {self.ranks}"
            )
        expected = self.num_components, self.num_latents
        if (found := tuple(mixture.means.shape)) != expected:
            wanted, given = ("{} components of {} latents".format(*sizes) for sizes in (expected, found))
            raise ValueError(f"the mixture must have {wanted}, found {given}")
        columns = list(self._columns)
        self._write(*from_mixture(self, mixture, columns), columns)
