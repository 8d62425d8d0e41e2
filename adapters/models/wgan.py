"""Adversarial models with any prior (paper section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from adapters.errors import DivergenceError
from adapters.models.vae import Batch
from adapters.networks import at_least_single
from adapters.objectives import Baseline, Estimator, expected_reward
from adapters.priors import FlowPrior, Prior, VampPrior
from adapters.priors.base import check_option, integer_of

Loss = Literal["wasserstein", "gan"]
Constraint = Literal["gradient_penalty", "clip", "spectral_norm", "none"]


class WGAN(LightningModule):
    """An adversarial model with a learned prior p: min over G and p, max over D (paper Eq. 8, 9).

    With the Wasserstein loss (Arjovsky et al. 2017, arXiv:1701.07875) the critic maximises E[D(x)] − E[D(G(z))] under
    a Lipschitz constraint. With "gan" it maximises E[log σ(D(x))] + E[log σ(−D(G(z)))], and the generator maximises
    E[log σ(D(G(z)))] (Goodfellow et al. 2014, arXiv:1406.2661). The prior is learned together with the generator by
    `expected_reward`. Each batch trains the critic; every `critic_steps` batches, generator and prior take a step. Two
    time scales (Heusel et al. 2017, arXiv:1706.08500) are two learning rates.

    Args:
        generator: network z (batch, d) -> (batch, C, H, W), unbounded; its hyperbolic tangent is the image.
        critic: network (batch, C, H, W), images scaled to [−1, 1] -> (batch, 1).
        prior: over d latents.
        loss: "wasserstein" or "gan".
        constraint: of the critic: "gradient_penalty" (Gulrajani et al. 2017, arXiv:1704.00028), "clip" (its weights),
            "spectral_norm" (of its layers, Miyato et al. 2018, arXiv:1802.05957), or "none".
        penalty: weight of the gradient penalty.
        clip: largest absolute value of the critic's weights, with the constraint "clip".
        critic_steps: steps of the critic for each step of the generator.
        estimator: of the prior's gradient, see `expected_reward`.
        baseline: of the prior's gradient, see `expected_reward`.
        learning_rate: of Adam for the generator.
        critic_learning_rate: of Adam for the critic; None: the same.
        prior_learning_rate: of Adam for the prior; None: the same.
        betas: of Adam.
        max_loss: a loss with a larger absolute value stops the run, and so does a loss or gradient that is not finite.
        channels_last: whether convolutions use this memory format, which is faster on CUDA.
        compile: whether to compile the generator. The critic is not compiled, because its gradient penalty needs second
            derivatives.

    Raises:
        TypeError: if prior is not a prior, or is or contains a VampPrior, which needs an encoder.
        ValueError: if an option is unknown, or critic_steps is less than 1.

    Examples:
        >>> import torch
        >>> from adapters import TRIP
        >>> from adapters.models import WGAN
        >>> from adapters.networks import ConvDecoder, ConvEncoder
        >>> critic = ConvEncoder((1, 8, 8), 1, (8, 16), norm="layer")
        >>> model = WGAN(ConvDecoder(4, (1, 8, 8), (8, 16), norm="batch"), critic, TRIP(4, num_components=5, rank=3))
        >>> loss, gap = model.critic_loss(torch.rand(6, 1, 8, 8))
        >>> loss.requires_grad, gap.requires_grad, model.sample(2).shape
        (True, False, torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        prior: Prior,
        loss: Loss = "wasserstein",
        constraint: Constraint = "gradient_penalty",
        penalty: float = 10.0,
        clip: float = 0.01,
        critic_steps: int = 4,
        estimator: Estimator = "hybrid",
        baseline: Baseline = "leave_one_out",
        learning_rate: float = 1e-4,
        critic_learning_rate: float | None = None,
        prior_learning_rate: float | None = None,
        betas: tuple[float, float] = (0.5, 0.9),
        max_loss: float = 1e6,
        channels_last: bool = False,
        compile: bool = False,
    ):
        super().__init__()
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior, found {type(prior).__name__}")
        innermost = prior
        while isinstance(innermost, FlowPrior):
            innermost = innermost.base
        if isinstance(innermost, VampPrior):  # its encoder would be neither learned nor saved
            raise TypeError("a VampPrior needs a model with an encoder, such as a VAE; a WGAN has none")
        check_option("loss", loss, get_args(Loss))
        check_option("constraint", constraint, get_args(Constraint))
        check_option("estimator", estimator, get_args(Estimator))
        check_option("baseline", baseline, get_args(Baseline))
        self.automatic_optimization = False
        self.generator, self.critic, self.prior = generator, critic, prior
        self.loss: Loss = loss
        self.constraint: Constraint = constraint
        self.penalty, self.clip = penalty, clip
        self.critic_steps = integer_of("critic_steps", critic_steps)
        self._drawn = torch.empty(0, prior.num_latents)  # codes for the critic's next steps
        self.estimator: Estimator = estimator
        self.baseline: Baseline = baseline
        self.learning_rate, self.betas, self.max_loss = learning_rate, betas, max_loss
        self.critic_learning_rate = learning_rate if critic_learning_rate is None else critic_learning_rate
        self.prior_learning_rate = learning_rate if prior_learning_rate is None else prior_learning_rate
        if constraint == "spectral_norm":
            for module in list(critic.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear):
                    spectral_norm(module)
        if channels_last:
            for network in (generator, critic):
                network.to(memory_format=torch.channels_last)
        if compile:
            generator.compile()

    # ---------------------------------------------------------------------------------------------------- queries

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] from codes (n, d)."""
        return (self._images(z) + 1) / 2

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n images, (n, C, H, W), in [0, 1]."""
        return self.generate(self.prior.sample(n))

    def critic_loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's loss, and the difference of its mean scores of real and generated images, without gradient.

        Args:
            x: real images (n, C, H, W) in [0, 1]; as many are generated.
        """
        real = 2 * x - 1
        with torch.no_grad():
            fake = self._images(self._codes(len(real)))
        real_scores, fake_scores = self._scores(real), self._scores(fake)
        gap = real_scores.mean() - fake_scores.mean()
        loss = -gap
        if self.loss == "gan":
            loss = -(F.logsigmoid(real_scores) + F.logsigmoid(-fake_scores)).mean()
        if self.constraint == "gradient_penalty":
            loss = loss + self.penalty * self._gradient_penalty(real, fake)
        return loss, gap.detach()

    def generator_loss(self, n: int) -> Tensor:
        """The loss of generator and prior, from n generated images, at least 2 because of the baseline."""
        return -expected_reward(self.prior, self._reward, max(2, n), self.estimator, baseline=self.baseline)

    def _codes(self, n: int) -> Tensor:
        """n codes from the prior; those for all steps until its next change are drawn at once, which is cheaper."""
        if len(self._drawn) < n:
            self._drawn = self.prior.sample(n * self.critic_steps)
        codes, self._drawn = self._drawn[:n].to(self.device), self._drawn[n:]
        return codes

    def _images(self, z: Tensor) -> Tensor:
        """Images in [−1, 1]."""
        images: Tensor = torch.tanh(self.generator(z))
        return images

    def _scores(self, images: Tensor) -> Tensor:
        """D of images in [−1, 1], (n,), in single precision at least, also if the network runs under autocast."""
        scores: Tensor = at_least_single(self.critic(images)).squeeze(1)
        return scores

    # --------------------------------------------------------------------------------------------------- training

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """A step of the critic and, every `critic_steps` batches, one of generator and prior."""
        critic, generator = self._optimizers()
        loss, gap = self.critic_loss(batch[0])
        self._step(critic, loss)
        if self.constraint == "clip":
            with torch.no_grad():
                for parameter in self.critic.parameters():
                    parameter.clamp_(-self.clip, self.clip)
        self.log_dict({"train_critic": loss.detach(), "train_gap": gap}, on_step=False, on_epoch=True)
        if self.trainer.fit_loop.epoch_loop.total_batch_idx % self.critic_steps == self.critic_steps - 1:
            self.toggle_optimizer(generator)
            loss = self.generator_loss(len(batch[0]))
            self._step(generator, loss)
            self.untoggle_optimizer(generator)
            self._drawn = self._drawn[:0]
            self.log("train_generator", loss.detach(), on_step=False, on_epoch=True, prog_bar=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the difference of the critic's mean scores of validation images and generated ones."""
        real = 2 * batch[0] - 1
        gap = self._scores(real).mean() - self._scores(self._images(self.prior.sample(len(real)))).mean()
        self.log("val_gap", gap, on_epoch=True, batch_size=len(real), sync_dist=True, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the codes that are drawn for the critic's next steps."""
        checkpoint["drawn"] = self._drawn.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the codes for the critic's next steps."""
        self._drawn = checkpoint["drawn"]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the critic, and for the generator and the prior together."""
        learned = [p for p in self.prior.parameters() if p.requires_grad]
        groups = [{"params": list(self.generator.parameters()), "lr": self.learning_rate}]
        groups += [{"params": learned, "lr": self.prior_learning_rate}] if learned else []
        return [
            torch.optim.Adam(self.critic.parameters(), lr=self.critic_learning_rate, betas=self.betas),
            torch.optim.Adam(groups, betas=self.betas),
        ]

    def _reward(self, z: Tensor) -> Tensor:
        """The objective of generator and prior for each code, (n,)."""
        scores = self._scores(self._images(z))
        return scores if self.loss == "wasserstein" else F.logsigmoid(scores)

    def _gradient_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """E[(‖∇D(x)‖ − 1)²] at random points x between real and generated images."""
        share = torch.rand(len(real), *(1,) * (real.ndim - 1), device=real.device)
        between = torch.lerp(real, fake.to(real.dtype), share).requires_grad_()
        (gradient,) = torch.autograd.grad(self._scores(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self._check(loss, [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        optimizer.step()

    def _optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        critic, generator = self.optimizers()
        return critic, generator

    def _check(self, loss: Tensor, gradients: Sequence[Tensor]) -> None:
        """Raise `DivergenceError` before a step that would make parameters, and the next checkpoint, unusable.

        The gradient of a finite loss may be infinite, as that of a square root at 0.
        """
        largest = torch.nn.utils.get_total_norm(gradients, torch.inf).to(loss.device)
        # Both are read at once, because reading a value waits for the device.
        loss_value, gradient = torch.stack([loss.detach().float(), largest.float()]).tolist()
        if not abs(loss_value) <= self.max_loss:
            rule, found = f"the losses must stay within ±{self.max_loss:g}", loss_value
        elif not math.isfinite(gradient) and not self._scales_gradients:
            rule, found = "the gradients must be finite", gradient
        else:
            return
        raise DivergenceError(
            f"step {self.global_step}: {rule}, found {found:g}; lower the learning rates or strengthen the constraint; "
            "the last checkpoint is from before this step"
        )

    @property
    def _scales_gradients(self) -> bool:
        """Whether a gradient scaler (16-mixed) is in use, which skips steps whose gradients overflow."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None
