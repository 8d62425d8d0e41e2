"""Models of images and attributes: their bounds against enumeration, samples that meet conditions, training."""

import math
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from PIL import Image
from torch import nn

from adapters import TRIP, FlowPrior, GaussianPrior, JointTRIP
from adapters.callbacks import Figures, Reinitialize, SeededSteps, latent_codes
from adapters.data import Digits
from adapters.likelihoods import GaussianLikelihood
from adapters.models import CVAE, JMVAE, TELBO, VAE, ConditionalVAE
from adapters.models.attributes import AttributeExperts, log_prob_known, one_hot
from adapters.networks import ConvDecoder, ConvEncoder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.rank_zero.LightningDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
]

nan = math.nan
LATENTS = 2
SIZES = (10, 3)
MODELS = ["trip", "flow", "cvae", "telbo", "jmvae"]


def make(name: str, **settings):
    """A model of 8x8 images, binary, with two attributes."""
    torch.manual_seed(0)
    encoder = ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8))
    decoder = ConvDecoder(LATENTS + sum(SIZES) * (name == "cvae"), (1, 8, 8), (4, 8))
    settings = {"learning_rate": 1e-2, "val_samples": 2} | settings
    if name in ("trip", "flow"):
        prior = JointTRIP(LATENTS, SIZES, num_components=4, rank=3)
        prior = FlowPrior(prior, transforms=2, hidden_features=(8,)) if name == "flow" else prior
        return ConditionalVAE(encoder, decoder, prior, **settings)
    return {"cvae": CVAE, "telbo": TELBO, "jmvae": JMVAE}[name](encoder, decoder, LATENTS, SIZES, **settings)


@pytest.fixture(params=MODELS)
def model(request):
    return make(request.param)


def images(n: int = 6) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, 1, 8, 8), 0.3), generator=torch.Generator().manual_seed(1))


def attributes() -> torch.Tensor:
    """All patterns of what is known."""
    return torch.tensor([[3, 1], [9, nan], [nan, 2], [nan, nan], [0, 0], [7, 2]])


class Mixture:
    """One latent in two components, each with a value of the attribute that is likelier; x = 2 z + noise."""

    weights = torch.tensor([[0.35, 0.05], [0.12, 0.48]])  # p(component, y)
    means, std, noise = torch.tensor([-2.0, 1.0]), 0.5, 0.8

    def model(self) -> ConditionalVAE:
        """With a posterior N(0.4 x, 0.4²), which is nearly the exact one."""
        prior = JointTRIP(1, [2], num_components=2, rank=2, order="given", nonnegative="abs")
        ring = prior.ring
        with torch.no_grad():
            prior.means.copy_(self.means[None])
            prior.log_stds.fill_(math.log(self.std))
            cores = torch.zeros(2, 2, 2, 2)  # (column, value, left bond, right bond)
            cores[0, 0, 0, 0] = cores[0, 1, 0, 1] = 1.0  # the component is carried to the attribute
            cores[1] = torch.stack([torch.stack([self.weights[:, y], torch.zeros(2)], 1) for y in range(2)])
            prior.cores[0].copy_(cores)
        assert ring.order == (0, 1)
        decoder, linear = nn.Sequential(nn.Linear(1, 1), nn.Unflatten(1, (1, 1, 1))), nn.Linear(1, 2)
        with torch.no_grad():
            decoder[0].weight.fill_(2.0), decoder[0].bias.zero_()
            linear.weight.copy_(torch.tensor([[0.4], [0.0]])), linear.bias.copy_(torch.tensor([0.0, math.log(0.4)]))
        return ConditionalVAE(
            nn.Sequential(nn.Flatten(), linear), decoder, prior, likelihood=GaussianLikelihood(self.noise)
        )

    def log_prob(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """log p(x, y_observed) of images (n, 1, 1, 1), from the mixture's sum."""
        std = math.hypot(2 * self.std, self.noise)
        density = torch.distributions.Normal(2 * self.means, std).log_prob(x.flatten()[:, None]).exp()
        joint = density @ self.weights  # (n, values)
        known = joint.gather(1, y.nan_to_num(0).long())[:, 0]
        return torch.where(y[:, 0].isnan(), joint.sum(1), known).log()

    def log_prior(self, z: torch.Tensor) -> torch.Tensor:
        """log p(z, y) of codes (n,) for both values, (n, 2)."""
        return (torch.distributions.Normal(self.means, self.std).log_prob(z[:, None]).exp() @ self.weights).log()


X = torch.tensor([-5.0, -1.0, 0.0, 2.0, 3.0, 1.0])[:, None, None, None]
Y = torch.tensor([[0.0], [1.0], [nan], [1.0], [0.0], [nan]])


# -------------------------------------------------------------------------------------------------------------- bounds


def test_the_bound_is_that_of_equation_14():
    mixture = Mixture()
    model = mixture.model()
    nodes = torch.linspace(-6, 6, 4001)
    mean, q = 0.4 * X.flatten()[:, None], 0.4
    weight = torch.distributions.Normal(0.0, 1.0).log_prob(nodes).exp() * (nodes[1] - nodes[0])
    z = mean + q * nodes  # (n, nodes)
    likelihood = torch.distributions.Normal(2 * z, mixture.noise).log_prob(X.flatten()[:, None])
    tables = mixture.log_prior(z.flatten()).reshape(*z.shape, 2)
    prior = torch.where(
        Y.isnan(),
        tables.logsumexp(-1),
        tables.gather(-1, Y.nan_to_num(0).long()[:, :, None].expand(-1, 4001, 1))[..., 0],
    )
    exact = ((likelihood + prior - torch.distributions.Normal(mean, q).log_prob(z)) * weight).sum(1)
    torch.manual_seed(0)
    repeats = 4000
    bound = model.elbo(X.repeat(repeats, 1, 1, 1), Y.repeat(repeats, 1))
    estimates = bound.elbo.detach().reshape(repeats, -1)
    error = estimates.std(0) / repeats**0.5
    assert ((estimates.mean(0) - exact).abs() < 5 * error + 1e-4).all(), (estimates.mean(0), exact)
    assert (exact < mixture.log_prob(X, Y)).all()
    assert (bound.attributes.reshape(repeats, -1)[:, Y[:, 0].isnan()].abs() < 1e-5).all()
    assert (bound.attributes <= 1e-5).all()


def test_the_importance_weighted_bound_approaches_the_likelihood_of_image_and_attributes():
    mixture = Mixture()
    torch.manual_seed(0)
    torch.testing.assert_close(mixture.model().iwae(X, 5000, Y), mixture.log_prob(X, Y), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["trip", "flow", "telbo", "jmvae"])
def test_no_attribute_known_is_the_unconditional_bound(name):
    model, x = make(name), images()
    bounds = []
    for y in (None, torch.full((6, 2), nan)):
        torch.manual_seed(1)
        bounds.append(model.elbo(x, y))
        assert (bounds[-1].attributes.abs() < 1e-5).all()
    torch.testing.assert_close(bounds[0].elbo, bounds[1].elbo)
    if name in ("trip", "flow"):
        torch.manual_seed(1)
        plain = VAE.elbo(model, x)
        torch.testing.assert_close(plain.elbo, bounds[0].elbo)


def test_the_bound_is_the_importance_weighted_one_with_one_sample(model):
    x, y = images(), torch.tensor([[3.0, 1.0]]).expand(6, 2)
    model.analytic_kl = False
    torch.manual_seed(0)
    elbo = model.elbo(x, y).elbo
    torch.manual_seed(0)
    torch.testing.assert_close(model.iwae(x, 1, y), elbo)


@pytest.mark.parametrize("max_rows", [1, 4, 7, 12])
def test_memory_does_not_change_the_bound(model, max_rows):
    bounds = []
    for rows in (10_000, max_rows):
        torch.manual_seed(0)
        bounds.append(model.iwae(images(), 5, attributes(), max_rows=rows))
    torch.testing.assert_close(*bounds)


def test_a_codes_scale_in_a_cvae_is_that_of_the_prior():
    """The decoder sees m(y) + s(y) ε: moving p(z | y) moves what it sees, and the divergence stays."""
    model, seen = make("cvae"), []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    noise, y = torch.randn(4, LATENTS), torch.tensor([[3.0, 1.0]]).expand(4, 2)
    with torch.no_grad():
        model.conditional_prior.network[-1].weight.zero_()
        model.conditional_prior.network[-1].bias.copy_(torch.tensor([5.0, -1.0, math.log(2.0), 0.0]))
    model.decode(noise, y)
    torch.testing.assert_close(seen[0][:, :LATENTS], noise * torch.tensor([2.0, 1.0]) + torch.tensor([5.0, -1.0]))
    torch.testing.assert_close(seen[0][:, LATENTS:], one_hot(y, SIZES))


def test_gradients_reach_everything_that_learns(model):
    loss, _ = model._objective(images(), attributes())
    loss.mean().backward()
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for _, p in learned)
    flat = [name for name, p in learned if p.grad.abs().sum() == 0]
    assert not flat, flat


# ------------------------------------------------------------------------------------------------------- what they do


def test_samples_meet_conditions():
    """Images of this model are 2 z, and p(z | y) is known."""
    mixture = Mixture()
    model = mixture.model()
    torch.manual_seed(0)
    y = torch.tensor([[0.0], [1.0], [nan]]).repeat_interleave(4000, 0)
    parts = (model.sample(len(y), y).flatten() / 2).split(4000)
    for part, weights in zip(parts, [*mixture.weights.T, mixture.weights.sum(1)], strict=True):
        share = (weights / weights.sum())[0]
        mean = (share * mixture.means[0] + (1 - share) * mixture.means[1]).item()
        assert part.mean().item() == pytest.approx(mean, abs=5 * part.std().item() / 4000**0.5)


def test_the_temperature_scales_what_codes_are_drawn_from(model):
    y = torch.tensor([4.0, 1.0])
    drawn = []
    for temperature in (1.0, 0.5, 0.0):
        torch.manual_seed(1)
        drawn.append(model._sample_codes(50, y, temperature)[0])
    whole, half, means = drawn
    if isinstance(model, ConditionalVAE):
        means = means if not isinstance(model.prior, FlowPrior) else model.prior.to_base(means)
        assert len(means[:, 0].double().round(decimals=4).unique()) <= 4  # the components' own
        assert half.var(0).sum() < whole.var(0).sum()
    else:
        torch.testing.assert_close(half, (whole + means) / 2)
        assert (means.std(0) < 1e-6).all()
    with pytest.raises(ValueError, match="temperature"):
        model.sample(2, y, temperature=-1.0)


def test_any_subset_of_attributes(model):
    assert model.sample(6, attributes()).shape == (6, 1, 8, 8)
    assert model.sample(3, torch.tensor([4, 2])).shape == model.sample(3).shape == (3, 1, 8, 8)
    assert model.sample(0).shape == (0, 1, 8, 8)
    assert model.generate(torch.zeros(2, LATENTS)).shape == (2, 1, 8, 8)
    assert model.reconstruct(images()).shape == (6, 1, 8, 8)


def test_predictions_are_distributions(model):
    tables = model.predict(images())
    assert [table.shape for table in tables] == [(6, 10), (6, 3)]
    for table in tables:
        torch.testing.assert_close(table.exp().sum(-1), torch.ones(6))
        assert not table.requires_grad


def test_predictions_for_images_that_are_no_numbers(model):
    x = images(3)
    x[1, 0, 2, 2] = nan
    for table in model.predict(x):
        assert table[1].isnan().all() and not table[[0, 2]].isnan().any()


def test_double_precision(model):
    model = model.double()
    x, y = images().double(), attributes()
    loss, bound = model._objective(x, y)
    loss.mean().backward()
    found = [bound.elbo, model.iwae(x, 2, y), model.sample(6, y), *model.predict(x)]
    assert all(value.dtype == torch.float64 and value.isfinite().all() for value in found)


def test_predictions_of_the_mixture():
    mixture = Mixture()
    tables = mixture.log_prior(0.4 * X.flatten())
    torch.testing.assert_close(mixture.model().predict(X)[0], tables.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_what_is_not_given_to_a_cvae_follows_training():
    model = make("cvae")
    y = torch.tensor([[3.0, nan]]).repeat(100, 1)
    y[:50, 1] = 2.0
    for _ in range(60):
        model._objective(images(100), y)
    drawn = model._completed(torch.full((500, 2), nan))
    assert (drawn[:, 0] == 3).float().mean() > 0.99 and (drawn[:, 1] == 2).float().mean() > 0.99
    assert "counts" in model.state_dict()
    kept = model._completed(attributes())
    assert torch.equal(kept[~attributes().isnan()], attributes()[~attributes().isnan()])


def test_experts_multiply():
    torch.manual_seed(0)
    experts = AttributeExperts(3, SIZES)
    y, (means, tables) = attributes(), experts.tables()
    found = experts(y).base_dist
    for row, mean, std in zip(y, found.mean, found.stddev, strict=True):
        chosen = [place for place, value in zip((0, 10), row, strict=True) if not value.isnan()]
        lines = [offset + int(row[int(offset > 0)]) for offset in chosen]
        precisions = tables[lines]
        torch.testing.assert_close(std, (1 + precisions.sum(0)).rsqrt())
        torch.testing.assert_close(mean, (precisions * means[lines]).sum(0) / (1 + precisions.sum(0)))


def test_encodings():
    y = attributes()
    encoded = one_hot(y, SIZES)
    assert torch.equal(encoded.sum(-1), (~y.isnan()).sum(-1).float())
    assert encoded[1].nonzero().tolist() == [[9]] and encoded[2].nonzero().tolist() == [[12]]
    tables = [torch.randn(6, size).log_softmax(-1) for size in SIZES]
    expected = torch.stack([tables[0][0, 3] + tables[1][0, 1], tables[0][1, 9], tables[1][2, 2], torch.tensor(0.0)])
    torch.testing.assert_close(log_prob_known(tables, y)[:4], expected)


def test_continuous_attributes():
    torch.manual_seed(0)
    prior = JointTRIP(LATENTS, [3, "continuous"], num_components=4, rank=2)
    encoder, decoder = ConvEncoder((1, 8, 8), 2 * LATENTS, (4, 8)), ConvDecoder(LATENTS, (1, 8, 8), (4, 8))
    model = ConditionalVAE(encoder, decoder, prior)
    y = torch.tensor([[2.0, 0.3], [nan, -1.2], [1.0, nan]])
    (-model.elbo(images(3), y).elbo.mean()).backward()
    assert (prior.means.grad.abs().sum(-1) > 0).all()
    assert [table.shape for table in model.predict(images())] == [(6, 3), (6, 4)]
    assert model.sample(3, y).shape == (3, 1, 8, 8)
    logged = []
    model._log_mean = lambda name, values, size: logged.append((name, size))
    model._evaluate("val", (images(3), y), 1)
    assert logged[-2:] == [("val_accuracy", 2), ("val_accuracy_0", 2)]


# ------------------------------------------------------------------------------------------------------------ training


class TinyDigits(Digits):
    """The first digits only, with thickness for every third of them."""

    attribute_names = ("digit", "thickness")

    def load(self):
        splits = {}
        for name, part in super().load().items():
            rows = part.rows(torch.arange(150))
            thick = torch.bucketize(rows.images.float().mean((1, 2, 3)), torch.tensor([4.5, 5.2])).float()
            thick[torch.arange(150) % 3 > 0] = nan
            splits[name] = rows._replace(attributes=torch.stack([rows.attributes[:, 0], thick], 1))
        return splits


def tiny_digits() -> TinyDigits:
    return TinyDigits(batch_size=25, validation=50, binarization="dynamic")


def fit(model, folder: Path, *callbacks: pl.Callback, **settings) -> pl.Trainer:
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[SeededSteps(), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"logger": False, "max_epochs": 2} | settings,
    )
    trainer.fit(model, tiny_digits())
    return trainer


@pytest.mark.parametrize("name", MODELS)
def test_training_improves_the_bound_and_logs_its_parts(name, tmp_path):
    model = make(name)
    x, y = next(tiny_digits().training_rows(100, 0))
    before = model.elbo(x, y).elbo.mean()
    logger = pl.loggers.CSVLogger(tmp_path, name="")
    figures = [Figures(num_images=4, num_codes=30)] if name in ("trip", "flow") else []
    fit(model, tmp_path, *figures, logger=logger)
    assert model.elbo(x, y).elbo.mean() > before + 1
    header = set((Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(","))
    parts = {"elbo", "reconstruction", "kl", "attributes"}
    assert {f"{stage}_{part}" for stage in ("train", "val") for part in parts} <= header
    assert {f"val_{part}" for part in ("iwae", "prediction", "accuracy", "accuracy_0", "accuracy_1")} <= header
    if figures:
        with Image.open(Path(logger.log_dir) / "figures" / "conditions.png") as grid:
            width, height = grid.size  # a row for each digit, labels left of the rows and above all
            assert 8 * 74 + 2 < width < 10 * 74 and 10 * 74 + 2 < height < 11 * 74


def test_accuracies_count_known_attributes_only(tmp_path):
    model = make("trip")
    tables = [torch.eye(10)[torch.arange(6)].log(), torch.eye(3)[torch.zeros(6).long()].log()]
    model.predict = lambda x: tables
    found = {}
    model._log_mean = lambda name, values, size: found.update({name: (values.mean().item(), size)})
    y = torch.tensor([[0, 0], [1, nan], [nan, nan], [4, 0], [nan, nan], [nan, nan]])
    model._evaluate("val", (images(), y), 1)
    assert found["val_accuracy"] == (pytest.approx(4 / 5), 5)
    assert found["val_accuracy_0"] == (pytest.approx(2 / 3), 3) and found["val_accuracy_1"] == (1.0, 2)


@pytest.mark.parametrize("name", ["trip", "flow"])
def test_attributes_go_along_when_the_prior_is_fitted_anew(name, tmp_path):
    model, given = make(name), []
    reinitialize = model.prior.reinitialize

    def recording(z, y=None, **options):
        given.append((z.shape, y, options))
        reinitialize(z, y, **options)

    model.prior.reinitialize = recording
    fit(model, tmp_path, Reinitialize(num_codes=70, method="em", order="mutual_information", max_epochs=2))
    ((shape, y, options),) = given
    assert shape == (70, LATENTS) and y.shape == (70, 2) and options["max_epochs"] == 2
    codes, attributes = latent_codes(model, tiny_digits(), 40, seed=0)
    assert codes.shape == attributes.shape == (40, 2) and attributes[:, 1].isnan().any()
    baseline = make("cvae")
    fit(baseline, tmp_path, Reinitialize(num_codes=30), max_epochs=1)


@pytest.mark.parametrize("name", ["trip", "flow"])
def test_the_weight_of_attributes_may_be_of_the_rows_that_have_some(name):
    """Rows without labels, however many there are, then do not make it smaller."""
    model, x, y = make(name, attribute_weight=5.0, weight_per_label=True, beta=0.5), images(), attributes()
    torch.manual_seed(1)
    bound = model.elbo(x, y)
    known = bound.attributes[[0, 1, 2, 4, 5]].mean()
    expected = 0.5 * bound.kl.mean() - bound.reconstruction.mean() - 5 * known
    torch.manual_seed(1)
    torch.testing.assert_close(model._objective(x, y)[0].mean(), expected)
    assert model._objective(x, torch.full((6, 2), nan))[0].isfinite().all()


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (
            torch.tensor([[0.0, 0.0], [10.0, 0.0]]),
            ValueError,
            r"attribute 0 takes integers 0\.\.9, found 10 in row 1",
        ),
        (
            torch.tensor([[nan, 0.5], [0.0, 0.0]]),
            ValueError,
            r"attribute 1 takes integers 0\.\.2, found 0\.5 in row 0",
        ),
        (torch.zeros(2, 3), ValueError, r"y must have shape \(\.\.\., 2\), found \(2, 3\)"),
        (torch.zeros(3, 2), ValueError, "rows"),
        ([[0, 0]], TypeError, "y must be a floating point tensor, found list"),
    ],
)
def test_errors_name_row_and_rule(model, y, error, message):
    def bound(n, y):
        return model.iwae(images(n), 3, y, max_rows=1)

    for call in (model.sample, lambda n, y: model.elbo(images(n), y), bound):
        with pytest.raises(error, match=message):
            call(2, y)


def test_numbers_of_images_that_are_none(model):
    with pytest.raises(ValueError, match="n must be at least 0, found -1"):
        model.sample(-1)
    with pytest.raises(TypeError, match=r"n must be an integer, found 2\.0"):
        model.sample(2.0, torch.tensor([1.0, nan]))


def test_models_that_cannot_be():
    with pytest.raises(ValueError, match="there must be at least one attribute; VAE is the model without"):
        TELBO(nn.Identity(), nn.Identity(), 2, [])
    with pytest.raises(ValueError, match="alpha must be finite and not negative, found -1"):
        JMVAE(nn.Identity(), nn.Identity(), 2, [3], alpha=-1.0)
    for name in ("trip", "telbo"):
        with pytest.raises(ValueError, match="attribute_weight must be finite and not negative, found nan"):
            make(name, attribute_weight=nan)
    with pytest.raises(TypeError, match="prior must be a JointTRIP or a FlowPrior over one, found TRIP"):
        ConditionalVAE(nn.Identity(), nn.Identity(), TRIP(2, 2, 2))
    with pytest.raises(TypeError, match="prior must be a JointTRIP or a FlowPrior over one, found GaussianPrior"):
        ConditionalVAE(nn.Identity(), nn.Identity(), GaussianPrior(2))
    with pytest.raises(TypeError, match="found FlowPrior over a TRIP"):
        ConditionalVAE(nn.Identity(), nn.Identity(), FlowPrior(TRIP(2, 2, 2)))
    with pytest.raises(ValueError, match="the size of an attribute must be at least 1, found 0"):
        CVAE(nn.Identity(), nn.Identity(), 2, [3, 0])
