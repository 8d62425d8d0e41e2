"""The variational autoencoder: its bounds, its networks and what it refuses."""

import math

import pytest

pytest.importorskip("lightning")

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from adapters import TRIP, GaussianPrior, VampPrior, VampTRIP
from adapters.likelihoods import BernoulliLikelihood, GaussianLikelihood
from adapters.models import VAE
from adapters.networks import ConvDecoder, ConvEncoder, GaussianEncoder
from tests.adapters.small_models import LATENTS, images, small_trip, small_vae
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


class LinearGaussian:
    """x = W z + b + noise: everything about this VAE is known in closed form."""

    def __init__(self, pixels: int = 5, latents: int = 2, std: float = 0.7):
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(pixels, latents, generator=generator)
        self.bias = torch.randn(pixels, generator=generator)
        self.std, self.pixels, self.latents = std, pixels, latents

    def vae(self, blur: float = 1.0) -> VAE:
        """With the exact posterior's means; `blur` times larger than the deviations that fit best."""
        decoder = nn.Sequential(nn.Linear(self.latents, self.pixels), nn.Unflatten(1, (self.pixels, 1, 1)))
        decoder[0].weight.data, decoder[0].bias.data = self.weight, self.bias
        precision = torch.eye(self.latents) + self.weight.T @ self.weight / self.std**2
        gain = torch.linalg.solve(precision, self.weight.T) / self.std**2
        linear = nn.Linear(self.pixels, 2 * self.latents)
        linear.weight.data = torch.cat([gain, torch.zeros_like(gain)])
        log_std = -0.5 * precision.diagonal().log() + math.log(blur)
        linear.bias.data = torch.cat([-gain @ self.bias, log_std])
        encoder = nn.Sequential(nn.Flatten(), linear)
        return VAE(encoder, decoder, GaussianPrior(self.latents), GaussianLikelihood(self.std))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        covariance = self.weight @ self.weight.T + self.std**2 * torch.eye(self.pixels)
        return MultivariateNormal(self.bias, covariance).log_prob(x.flatten(1))

    def sample(self, n: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(4)
        z = torch.randn(n, self.latents, generator=generator)
        noise = torch.randn(n, self.pixels, generator=generator)
        return (z @ self.weight.T + self.bias + self.std * noise)[:, :, None, None]


# ------------------------------------------------------------------------------------------------------------- bounds


def test_the_importance_weighted_bound_of_a_linear_model_approaches_the_exact_likelihood():
    model = LinearGaussian()
    x, vae = model.sample(20), model.vae(blur=1.3)
    torch.manual_seed(0)
    exact = model.log_prob(x)
    elbo = torch.stack([vae.elbo(x).elbo for _ in range(200)]).mean(0)
    bounds = [vae.iwae(x, k).mean() for k in (1, 10, 5000)]
    assert elbo.mean() < bounds[1] < exact.mean()
    torch.testing.assert_close(vae.iwae(x, 5000), exact, atol=0.05, rtol=0)
    torch.testing.assert_close(bounds[2], exact.mean(), atol=0.02, rtol=0)


@pytest.mark.parametrize("max_rows", [1, 7, 20, 10_000])
def test_memory_does_not_change_the_bound(max_rows):
    vae, x = small_vae(small_trip()), images()
    torch.manual_seed(0)
    reference = vae.iwae(x, 13)
    torch.manual_seed(0)
    torch.testing.assert_close(vae.iwae(x, 13, max_rows=max_rows), reference)


def test_memory_is_bounded():
    vae, rows = small_vae(), []
    vae.decoder.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    vae.iwae(images(), 50, max_rows=20)
    assert max(rows) <= 20 and sum(rows) == 50 * 6
    rows.clear()
    vae.iwae(images(), 3, max_rows=4)  # fewer than there are images
    assert rows == [4, 2] * 3
    with pytest.raises(ValueError, match="max_rows must be at least 1, found 0"):
        vae.iwae(images(), 3, max_rows=0)


def test_the_closed_form_of_the_divergence_is_the_mean_of_its_estimates():
    x = images()
    exact = small_vae(analytic_kl=True).elbo(x).kl
    sampled = small_vae(analytic_kl=False)
    torch.manual_seed(0)
    estimates = torch.stack([sampled.elbo(x).kl for _ in range(500)]).detach()
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact).abs() < 5 * error + 1e-4).all()


def test_the_elbo_is_the_bound_with_one_sample():
    vae, x = small_vae(small_trip()), images()
    torch.manual_seed(0)
    elbo = vae.elbo(x).elbo
    torch.manual_seed(0)
    torch.testing.assert_close(vae.iwae(x, 1), elbo)


# ------------------------------------------------------------------------------------------------- what it is made of


def test_gradients_reach_the_prior_and_a_fixed_one_stays():
    for trainable in (True, False):
        vae = small_vae(TRIP(LATENTS, 4, 2, trainable=trainable))
        bound = vae.elbo(images())
        (-bound.elbo.mean()).backward()
        assert all((p.grad is not None and p.grad.abs().sum() > 0) == trainable for p in vae.prior.parameters())
        assert all(p.grad is not None for p in vae.encoder.parameters())
        assert len(vae.configure_optimizers().param_groups) == 1 + trainable


def test_the_prior_has_its_own_learning_rate():
    groups = small_vae(small_trip(), prior_learning_rate=0.5).configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == [1e-2, 0.5]


@pytest.mark.parametrize("kind", [VampPrior, VampTRIP])
def test_a_vamp_prior_shares_the_encoder(kind):
    vae = small_vae(lambda encoder: kind(encoder, (1, 8, 8), LATENTS, num_pseudo_inputs=5))
    weight = vae.encoder.network[0].weight
    vae.prior.log_prob(torch.zeros(1, LATENTS)).sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert not any("encoder" in name for name, _ in vae.prior.named_parameters())
    before = vae.prior.log_prob(torch.zeros(1, LATENTS)).detach()
    weight.data += 0.1
    assert vae.prior.log_prob(torch.zeros(1, LATENTS)) != before
    assert sum(len(group["params"]) for group in vae.configure_optimizers().param_groups) == len(list(vae.parameters()))


def test_a_prior_that_is_none():
    with pytest.raises(TypeError, match="must be a Prior or a function that returns one, found Linear"):
        small_vae(lambda encoder: nn.Linear(1, 1))


@pytest.mark.parametrize("thing", [3, None, torch.distributions.Normal(0.0, 1.0), "TRIP"])
def test_a_prior_that_is_neither_a_prior_nor_a_function(thing):
    with pytest.raises(
        TypeError, match=f"must be a Prior or a function that returns one, found {type(thing).__name__}"
    ):
        VAE(nn.Linear(4, 2), nn.Linear(1, 4), thing)


@pytest.mark.parametrize(("latents", "kind"), [(2, GaussianPrior), (5, GaussianPrior), (4, TRIP)])
def test_an_encoder_and_a_prior_of_different_sizes(latents, kind):
    vae = small_vae(kind(latents))
    message = f"for the prior's {latents} latents must have {2 * latents} outputs, found {2 * LATENTS}"
    for ask in (vae.elbo, lambda x: vae.iwae(x, 2)):
        with pytest.raises(ValueError, match=message):
            ask(images())


def test_a_network_that_is_an_encoder_already():
    network = GaussianEncoder(nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * LATENTS)))
    vae = VAE(network, ConvDecoder(LATENTS, (1, 8, 8), (4, 8)), GaussianPrior(LATENTS))
    with pytest.raises(TypeError, match=r"must return a tensor .* found Independent; a VAE wraps its network"):
        vae.elbo(images())


@pytest.mark.parametrize("outputs", [1, 5, 7])
def test_an_odd_number_of_outputs(outputs):
    encoder = GaussianEncoder(nn.Linear(4, outputs))
    with pytest.raises(ValueError, match=f"must have 2 d outputs, found {outputs}"):
        encoder(torch.zeros(3, 4))


def test_images_out():
    vae = small_vae(small_trip(), likelihood=BernoulliLikelihood())
    assert vae.sample(5).shape == (5, 1, 8, 8) and vae.reconstruct(images()).shape == (6, 1, 8, 8)
    assert 0 <= vae.sample(5).min() and vae.sample(5).max() <= 1


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64)])
def test_the_papers_networks(shape):
    encoder, decoder = ConvEncoder(shape, 200), ConvDecoder(100, shape)
    assert [m.out_channels for m in encoder if isinstance(m, nn.Conv2d)] == [64, 128, 256, 512]
    assert encoder(torch.zeros(2, *shape)).shape == (2, 200)
    assert decoder(torch.zeros(2, 100)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((1, 8, 8), (), r"channels must be positive numbers, one for each layer, found \[\]"),
        ((1, 8, 8), (4, 0), r"channels must be positive numbers, one for each layer, found \[4, 0\]"),
        ((8, 8), (4,), r"image_shape must be three positive numbers \(C, H, W\), found \[8, 8\]"),
        ((1, 0, 8), (4,), r"image_shape must be three positive numbers \(C, H, W\), found \[1, 0, 8\]"),
    ],
)
@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_sizes_that_are_none(network, shape, channels, message):
    arguments = (shape, 2) if network is ConvEncoder else (2, shape)
    with pytest.raises(ValueError, match=message):
        network(*arguments, channels)


def test_an_image_that_cannot_be_halved():
    with pytest.raises(ValueError, match="sides that are multiples of 8, found 28x28"):
        ConvEncoder((1, 28, 28), 2, (1, 2, 3))
