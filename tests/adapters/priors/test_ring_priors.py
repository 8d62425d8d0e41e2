"""TRIP and JointTRIP: kinds of cores, starts, places of attributes, and re-initialisation from mixtures."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import scipy.stats
from sklearn.mixture import GaussianMixture

import ringdist as rd

torch = pytest.importorskip("torch")

from adapters import TRIP, JointTRIP  # noqa: E402
from tests.adapters.priors.ring_cases import PRIVATE, SWITCHING, clusters, perturbed  # noqa: E402

nan = math.nan

# ---------------------------------------------------------------------------------------------------- kinds of cores


@pytest.mark.parametrize(
    "options",
    [
        {"core": "cp", "rank": 4},
        {"core": "cp", "rank": 4, "topology": "ring", "nonnegative": "abs"},
        {"core": "cp", "rank": [2, 4, 3, 4, 1], "topology": "ring", "nonnegative": "softplus"},
        {"core": "cp", "rank": [1, 4, 2, 2, 3]},
        PRIVATE | {"rank": 4},
        PRIVATE | {"rank": 4, "topology": "ring"},
        PRIVATE | {"rank": [1, 3, 2, 4, 3]},
        SWITCHING | {"rank": 4},
        SWITCHING | {"rank": 4, "topology": "ring", "nonnegative": "abs"},
        SWITCHING | {"rank": 1},
    ],
)
def test_rings_of_cp_cores_are_those_of_their_factors(options):
    prior = perturbed(TRIP(5, num_components=None if "private_components" in options else 3, **options)).double()
    assert all(isinstance(core, rd.CPCore) for core in prior.ring.cores)
    assert all((core.emission is None) == prior.private_components for core in prior.ring.cores)
    assert prior.ring.ranks == prior.ranks and prior.ring.is_train == (1 in prior.ranks)
    z = prior.sample(7, rng=0)
    z[2, 1] = z[3, :4] = nan
    torch.testing.assert_close(prior.log_prob(z), prior.ring.dense().log_prob(z))
    parameters = list(prior.parameters())
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(prior.log_prob(z).sum(), parameters))


def test_factors_of_equal_shape_share_a_parameter():
    shapes = [tuple(stack.shape) for stack in TRIP(9, 3, 4, core="cp").cores]
    assert shapes == [
        (9, 3, 4),
        (1, 1, 4),
        (1, 4, 1),
        (8, 4, 4),
    ]  # emission, left, right
    ring = TRIP(9, rank=4, topology="ring", **PRIVATE)
    assert [tuple(stack.shape) for stack in ring.cores] == [(9, 4, 4)]
    joint = JointTRIP(9, [2, "continuous", 2, 5], rank=4, **PRIVATE)
    assert [tuple(stack.shape) for stack in joint.cores] == [(2, 2, 4), (1, 5, 4), (1, 1, 4), (1, 4, 1), (12, 4, 4)]
    assert joint.means.shape == joint.log_stds.shape == (10, 4)


def test_private_components_are_as_many_as_hidden_states():
    prior = TRIP(8, core="cp", rank=64, private_components=True)
    assert prior.num_components == 64 and prior.means.shape == (8, 64)
    assert TRIP(8, 64, 64, **PRIVATE).num_components == 64
    assert TRIP(8, core="cp", rank=64).num_components == TRIP(8).num_components == 10


@pytest.mark.parametrize("options", [{"core": "cp"}, PRIVATE, SWITCHING, {"core": "cp", "topology": "ring"}])
@pytest.mark.parametrize("places", [None, "spread"])
def test_state_dicts_of_cp_cores_hold_everything(options, places):
    def make(seed):
        return JointTRIP(5, [2, 3], rank=3, seed=seed, attribute_places=places, **options)

    prior, other = perturbed(make(0)), make(7)
    z, y = prior.sample(6, rng=0), torch.tensor([[0.0, 2.0], [nan, 1.0]] * 3)
    file = io.BytesIO()
    torch.save(prior.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for same in (other, copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert torch.equal(same.log_prob(z, y), prior.log_prob(z, y))
        assert same.ring.order == prior.ring.order


def test_a_state_dict_says_how_its_cores_are_kept_non_negative():
    file, module = io.BytesIO(), torch.nn.ModuleDict({"prior": perturbed(TRIP(3, 2, 2, nonnegative="abs"))})
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    with pytest.raises(RuntimeError, match=r"prior.cores: saved with nonnegative='abs', found 'exp' here"):
        torch.nn.ModuleDict({"prior": TRIP(3, 2, 2)}).load_state_dict(state)
    torch.nn.ModuleDict({"prior": TRIP(3, 2, 2)}).load_state_dict(dict(state))  # which has lost what it said
    torch.nn.ModuleDict({"prior": TRIP(3, 2, 2, nonnegative="abs")}).load_state_dict(state)
    del state._metadata["prior"]["nonnegative"]  # as the first edition saved it
    with pytest.warns(UserWarning, match=r"prior.cores: saved by a version .* 'abs' by default; .* read as 'exp'"):
        torch.nn.ModuleDict({"prior": TRIP(3, 2, 2)}).load_state_dict(state)
    torch.nn.ModuleDict({"prior": TRIP(3, 2, 2, nonnegative="abs")}).load_state_dict(state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TRIP(3, core="tucker"), "core must be one of dense, cp, switching, found 'tucker'"),
        (lambda: TRIP(3, private_components=True), "core must be cp or switching, found 'dense'"),
        (lambda: TRIP(3, 5, 4, **PRIVATE), "num_components must be None or the number of hidden states, 4, .* found 5"),
        (lambda: TRIP(3, std=1.2), "std must be below 1 where mean_range is None, .* found 1.2"),
        (lambda: JointTRIP(3, [2], attribute_places="middle"), "attribute_places must be one of spread, end"),
        (lambda: JointTRIP(3, [2, 2], attribute_places=[1]), r"2 different places in 0..4, found \[1\]"),
        (lambda: JointTRIP(3, [2, 2], attribute_places=[1, 1]), r"2 different places in 0..4, found \[1, 1\]"),
        (lambda: JointTRIP(3, [2], attribute_places=[4]), r"1 different places in 0..3, found \[4\]"),
        (lambda: JointTRIP(3, [2], order=[0, 1, 2, 3], attribute_places="end"), "permutation of the 3 latents"),
        (lambda: TRIP(3, 2, [1, 2, 3]).reinitialize(clusters(50, 3)[0], "mixture"), r"one rank .* found ranks"),
    ],
)
def test_errors_name_rule_and_finding(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_prior_says_what_it_is():
    assert "num_latents=8, num_components=10, core=dense, rank=20, topology=ring, nonnegative=exp" in repr(TRIP(8))
    text = repr(JointTRIP(4, [2, "continuous"], rank=3, nonnegative="abs", **PRIVATE))
    assert "num_latents=4, attributes=[2, 'continuous'], num_components=3, core=cp, private_components=True" in text
    assert "rank=3, topology=train, nonnegative=abs" in text
    assert "rank=1..4" in repr(TRIP(3, 2, [2, 1, 4]))


# ------------------------------------------------------------------------------------------------------------ starts


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 500])
def test_components_of_equal_weight_are_near_the_standard_normal(n):
    prior = TRIP(1, n, 1)
    means, stds = prior.means[0].detach().double().numpy(), prior.log_stds[0].detach().double().exp().numpy()
    assert means.mean() == pytest.approx(0, abs=1e-6) and (means**2 + stds**2).mean() == pytest.approx(1, abs=1e-6)
    z = np.linspace(-6, 6, 2001)
    p, q = scipy.stats.norm.pdf(z), scipy.stats.norm.pdf(z[:, None], means, stds).mean(1)
    assert (p * np.log(p / q)).sum() * (z[1] - z[0]) < 0.02
    assert len(np.unique(means)) == n


@pytest.mark.parametrize(
    "prior",
    [
        TRIP(30),
        TRIP(30, topology="train"),
        TRIP(30, rank=64, **PRIVATE),
        TRIP(30, core="cp", rank=64),
        TRIP(30, rank=64, **SWITCHING),
        JointTRIP(30, [2, 5], nonnegative="softplus"),
    ],
    ids=repr,
)
def test_to_begin_with_latents_are_near_n_0_1(prior):
    assert prior().mean.abs().max() < 0.2 and (prior().variance - 1).abs().max() < 0.25
    x = torch.randn(4000, 30, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(0, 1).log_prob(x)
    for k in (0, 13, 29):
        alone = torch.full_like(x, nan)
        alone[:, k] = x[:, k]
        assert (normal[:, k] - prior.log_prob(alone)).mean() < 0.03
    assert (normal.sum(1) - prior.log_prob(x)).mean() < 0.03 * 30


def test_given_ranges_and_stds_are_kept():
    assert TRIP(2, 5, 2, mean_range=(-1, 1)).means[0].tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])
    assert TRIP(2, 5, 2, mean_range=(-1, 1)).log_stds.exp().unique().tolist() == pytest.approx([0.4])
    assert TRIP(2, 5, 2, mean_range=(-1, 1), std=0.1).log_stds.exp().unique().tolist() == pytest.approx([0.1])
    narrow = TRIP(2, 5, 2, std=0.1)
    assert narrow.log_stds.exp().unique().tolist() == pytest.approx([0.1])
    assert (narrow.means**2).mean().item() == pytest.approx(0.99, abs=1e-5)


# ------------------------------------------------------------------------------------------------ places of attributes


def places(prior) -> list[int]:
    return [prior.ring.order.index(prior.num_latents + i) for i in range(len(prior.attributes))]


@pytest.mark.parametrize(("d", "a"), [(16, 3), (8, 2), (3, 1), (5, 5), (2, 4), (1, 1)])
def test_attributes_are_spread_or_at_the_end_or_where_they_are_put(d, a):
    make = lambda asked, **options: JointTRIP(d, [2] * a, 2, 2, attribute_places=asked, seed=3, **options)  # noqa: E731
    assert places(make("end")) == list(range(d, d + a))
    spread = make("spread", order="given")
    assert [k for k in spread.ring.order if k < d] == list(range(d))
    around = np.sort(places(spread))
    gaps = np.append(np.diff(around), around[0] + d + a - around[-1]) - 1  # latents between attributes
    assert max(gaps) - min(gaps) <= 1 and sum(gaps) == d
    asked = list(range(a))[::-1]
    assert places(make(asked)) == asked
    latents = [k for k in make("spread").ring.order if k < d]
    assert sorted(latents) == list(range(d)) and (d < 5 or latents != list(range(d)))


@pytest.mark.parametrize("asked", ["spread", "end", [0, 4]])
@pytest.mark.parametrize("options", [{}, {"core": "cp"}, {"topology": "ring"} | PRIVATE, SWITCHING])
def test_reinitialisation_keeps_the_places_of_attributes(asked, options):
    z, label = clusters(300, 6)
    y = torch.stack([(z[:, 2] > z[:, 2].median()).float(), label.float()], 1)
    y[::3, 1] = nan
    prior = JointTRIP(6, [2, 4], rank=3, attribute_places=asked, seed=2, **options)
    before = set(places(prior))
    prior.reinitialize(z, y, "gmm", order="mutual_information")
    order = prior.ring.order
    assert set(places(prior)) == before and sorted(order) == list(range(8))


def test_an_attribute_is_put_beside_the_latent_that_tells_most_of_it():
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    for k in range(6):
        prior = JointTRIP(6, [2, 3], rank=2, attribute_places="spread")
        y = torch.stack([(z[:, k] > 0).float(), (z[:, (k + 2) % 6] > 0.5).float()], 1)
        prior.reinitialize(z, y, "gmm", order="mutual_information")
        order = prior.ring.order
        assert any(order[(order.index(6) + side) % 8] == k for side in (-1, 1)), (k, order)


# --------------------------------------------------------------------------------------------------- re-initialisation


def diagonal_mixture(prior, z):
    """log Σ_c w_c ∏_k N(z_k; means[k, c], stds[k, c]²), weights at the opening or the close."""
    ring = prior.ring
    first, last = ring.cores[ring.order[0]], ring.cores[ring.order[-1]]
    weights = first.left[0] if first.left is not None else last.right.diagonal()
    normal = torch.distributions.Normal(prior.means, prior.log_stds.exp())
    joint = normal.log_prob(z[:, :, None]).sum(1) + (weights / weights.sum()).log()
    return torch.logsumexp(joint, 1)


@pytest.mark.parametrize("topology", ["train", "ring"])
@pytest.mark.parametrize("nonnegative", ["exp", "abs", "softplus"])
def test_private_components_start_from_a_mixture_of_gaussians(topology, nonnegative):
    z, _ = clusters()
    torch.manual_seed(0)
    prior = TRIP(6, rank=4, topology=topology, nonnegative=nonnegative, **PRIVATE)
    prior.reinitialize(z, "mixture")
    found, expected = prior.log_prob(z), diagonal_mixture(prior, z)
    assert (expected - found).max() < 0.03 and (found - expected).abs().mean() < 0.01
    mixture = GaussianMixture(4, covariance_type="diag", n_init=5, random_state=0).fit(z.numpy())
    assert prior.log_prob(z).mean().item() > mixture.score(z.numpy()) - 0.05
    assert all((stack > 0).all() for stack in prior.ring.core_arrays())  # gradients reach every entry


@pytest.mark.parametrize("options", [{"core": "cp"}, {"core": "dense"}, {"core": "dense", "topology": "train"}])
def test_shared_components_start_from_a_mixture_of_products(options):
    z, _ = clusters()
    torch.manual_seed(0)
    prior = TRIP(6, 8, 4, order="given", **options)
    prior.reinitialize(z, "mixture")
    ring = rd.initialize(
        z.numpy(),
        [rd.GaussianMixture] * 6,
        4,
        num_components=8,
        topology=prior.topology,
        core=prior.core,
        method="mixture",
        spread=0.0,
        rng=0,
    )
    assert prior.log_prob(z).mean().item() == pytest.approx(ring.log_prob(z.numpy()).mean(), abs=0.15)
    alone = TRIP(6, 8, 1)
    alone.reinitialize(z, "gmm")
    assert prior.log_prob(z).mean() > alone.log_prob(z).mean() + 1


@pytest.mark.parametrize("topology", ["train", "ring"])
def test_a_mixture_of_codes_and_attributes(topology):
    """Attributes that no code tells apart from noise, half of them unknown, and one that is real."""
    z, label = clusters(900)
    y = torch.stack([label.float(), torch.randn(900, generator=torch.Generator().manual_seed(2)) * 0.3 + label], 1)
    y[::2, 0], y[::3, 1] = nan, nan
    torch.manual_seed(0)
    prior = JointTRIP(6, [4, "continuous"], rank=6, topology=topology, attribute_places="spread", **PRIVATE)
    prior.reinitialize(z, y, "mixture")
    accuracy = (prior.attribute_posterior(z)[0].argmax(1) == label).float().mean()
    assert accuracy > 0.95
    real = prior.sample_attributes(z, torch.stack([label.float(), torch.full((900,), nan)], 1), rng=0)[:, 1]
    assert (real - label).std() < 0.45
    drawn = prior.sample(2000, torch.tensor([2.0, nan]), rng=0)
    assert (prior.attribute_posterior(drawn)[0].argmax(1) == 2).float().mean() > 0.95


@pytest.mark.parametrize(
    "options",
    [
        PRIVATE | {"rank": 4},
        PRIVATE | {"rank": 4, "topology": "ring"},
        PRIVATE | {"rank": [1, 4, 3, 4, 4, 2]},
        {"core": "cp", "rank": 4},
        {"core": "cp", "rank": [1, 4, 3, 4, 4, 2]},
        {"core": "cp", "rank": [2, 4, 3, 4, 4, 2], "topology": "ring"},
    ],
)
def test_em_polishes_every_kind_of_core(options):
    z, _ = clusters()
    z[:, 1:] += 0.5 * z[:, :-1]  # which a mixture of four does not hold
    torch.manual_seed(0)
    prior = TRIP(6, **options)
    prior.reinitialize(z, "em", order="mutual_information", max_epochs=1)
    one = prior.log_prob(z).mean()
    torch.manual_seed(0)
    prior.reinitialize(z, "em", order="mutual_information", max_epochs=15)
    assert prior.log_prob(z).mean() > one + 0.005
    assert prior.ring.log_normalizer().abs() < 1e-3


def test_a_step_of_adam_does_not_undo_a_fit():
    z, _ = clusters(1000, 12)
    cost = {}
    for nonnegative in ("exp", "abs"):
        torch.manual_seed(0)
        prior = TRIP(12, 10, 16, nonnegative=nonnegative)
        prior.reinitialize(z, "em", max_epochs=5)
        before = prior.log_prob(z).mean().item()
        optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
        (-prior.log_prob(z[:100]).mean()).backward()
        optimizer.step()
        cost[nonnegative] = before - prior.log_prob(z).mean().item()
    assert cost["exp"] < 0.02 < cost["abs"], cost
