"""Flows over priors, with attributes that pass around them: by the Jacobian, by enumeration and by quadrature."""

import copy
import itertools
import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import TRIP, FlowPrior, GaussianPrior, JointPrior, JointTRIP, expected_reward  # noqa: E402
from tests.adapters.priors.cases import exact, grid  # noqa: E402

nan = math.nan
ATTRIBUTES = [2, 3]
KINDS = ["coupling", "nsf", "maf"]


def make(d: int = 2, kind: str = "coupling", base: str = "joint", moved: float = 0.3):
    """In double precision, with parameters that are nobody's default."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(d)
        ring = {"num_components": 3, "rank": 2, "mean_range": (-2.0, 2.0), "std": 0.8}
        inner = JointTRIP(d, ATTRIBUTES, **ring) if base == "joint" else TRIP(d, **ring)
        prior = FlowPrior(inner, kind, transforms=2, hidden_features=(8,), activation=torch.nn.Tanh).double()
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter += moved * torch.randn_like(parameter)
    return prior


def codes(prior, n: int = 6):
    return torch.randn(n, prior.num_latents, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rows() -> torch.Tensor:
    """All patterns of what is known, with some values."""
    return torch.tensor([[1, 2], [0, nan], [nan, 0], [nan, nan], [0, 1], [1, nan]], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_density_is_that_of_a_change_of_variables(d, kind):
    prior = make(d, kind)
    z, y = codes(prior), rows()
    jacobians = torch.stack([torch.autograd.functional.jacobian(prior.to_base, row) for row in z])
    volume = jacobians.slogdet().logabsdet
    assert (volume.abs() > 1e-3).all()
    torch.testing.assert_close(prior.log_prob(z, y), prior.base.log_prob(prior.to_base(z), y) + volume)
    torch.testing.assert_close(prior.log_prob(z), prior.base.log_prob(prior.to_base(z)) + volume)
    torch.testing.assert_close(prior.from_base(prior.to_base(z)), z, rtol=1e-6, atol=1e-6)


def test_neural_spline_flows():
    prior = FlowPrior(exact("trip"), passes=2, transforms=1, hidden_features=(8,))
    points, volume = grid()
    assert (prior.log_prob(points).exp() * volume).sum().item() == pytest.approx(1, abs=5e-3)  # splines have kinks


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_given_codes_are_exact_for_every_subset(kind):
    prior = make(3, kind)
    z, y = codes(prior), rows()
    torch.testing.assert_close(prior.log_prob_attributes(y, z), prior.log_prob(z, y) - prior.log_prob(z))
    marginal, attributes = prior.log_probs(z, y)
    torch.testing.assert_close(marginal, prior.log_prob(z))
    torch.testing.assert_close(attributes, prior.log_prob_attributes(y, z))
    for known in itertools.product([False, True], repeat=2):
        choices = [range(size) if told else [nan] for size, told in zip(ATTRIBUTES, known, strict=True)]
        values = [torch.tensor(value, dtype=torch.float64) for value in itertools.product(*choices)]
        total = torch.stack([prior.log_prob(z, value.expand(6, 2)) for value in values]).logsumexp(0)
        torch.testing.assert_close(total, prior.log_prob(z))
    for j, table in enumerate(prior.attribute_posterior(z)):
        for value in range(ATTRIBUTES[j]):
            alone = torch.full((6, 2), nan, dtype=torch.float64)
            alone[:, j] = value
            torch.testing.assert_close(table[:, value], prior.log_prob_attributes(alone, z).exp())
    logarithms = prior.attribute_posterior(z, log=True)
    torch.testing.assert_close([table.exp() for table in logarithms], prior.attribute_posterior(z))


@pytest.mark.parametrize("draw", ["sample", "rsample"])
def test_samples_given_attributes_follow_the_posterior(draw):
    prior = make(kind="maf")
    axis = torch.arange(-9, 9, 0.1, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    for y in torch.tensor([[1.0, 2.0], [nan, 0.0], [nan, nan]], dtype=torch.float64):
        with torch.no_grad():
            weight = prior.log_prob(points, y.expand(len(points), 2)).exp()
            z = getattr(prior, draw)(4000, y, rng=1)
        mean = (weight[:, None] * points).sum(0) / weight.sum()
        product = (weight * points.prod(1)).sum() / weight.sum()
        for values, expected in ((z, mean), (z.prod(1), product)):
            error = values.std(0) / math.sqrt(4000)
            assert ((values.mean(0) - expected).abs() < 4 * error).all(), (y, values.mean(0), expected)


def test_drawn_attributes_follow_their_posterior():
    prior = make()
    z = codes(prior, 1).expand(4000, 2)
    drawn = prior.sample_attributes(z, torch.tensor([[1.0, nan]]).expand(4000, 2), rng=0)
    assert (drawn[:, 0] == 1).all()
    pairs = torch.tensor([[1.0, value] for value in range(3)], dtype=torch.float64)
    expected = prior.log_prob(z[:3], pairs).softmax(0)
    found = torch.bincount(drawn[:, 1].long(), minlength=3) / 4000
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / 4000).sqrt()).all()


def test_gradients_reach_flow_and_ring():
    prior = make(3)
    z = codes(prior).requires_grad_()
    sum(part.sum() for part in prior.log_probs(z, rows())).backward()
    assert all(p.grad.isfinite().all() for p in prior.parameters()) and (z.grad != 0).all()
    assert all(p.grad.abs().sum() > 0 for p in prior.base.parameters())
    prior.zero_grad()
    prior.rsample(50, torch.tensor([1.0, nan]), rng=0).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prior.base.parameters())
    assert any(p.grad.abs().sum() > 0 for p in prior.transform.parameters())
    assert expected_reward(prior, lambda z: z.sum(1), 20, rng=0).requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 5])
def test_a_new_flow_is_near_the_identity(d, kind):
    torch.manual_seed(0)
    prior = FlowPrior(GaussianPrior(d), kind)
    z = torch.linspace(-4, 4, 50)[:, None] * torch.linspace(-1, 1, d + 1)[1:]
    gap = (prior.to_base(z) - z).detach().abs().max().item()
    assert 0 < gap < 0.3
    torch.testing.assert_close(prior.log_prob(z), prior.base.log_prob(z), rtol=0.05, atol=0.5)


def test_the_default_is_three_coupling_layers_of_64_units():
    prior = FlowPrior(GaussianPrior(6))
    assert len(prior.transform.transforms) == 3
    assert all(layer.passes == 2 and layer.hyper[0].out_features == 64 for layer in prior.transform.transforms)


def test_temperatures_are_those_of_the_base():
    prior, y = make(), torch.tensor([1.0, nan])
    cold = prior.sample(40, y, temperature=0.0, rng=0)
    torch.testing.assert_close(prior.to_base(cold), prior.base.sample(40, y, temperature=0.0, rng=0))
    assert len(cold.unique(dim=0)) <= 9


def test_reinitialize_hands_the_codes_of_the_flow_to_the_base():
    prior = make(3)
    z, y = codes(prior, 200), rows()[torch.arange(200) % 6]
    other = copy.deepcopy(prior.base)
    flow = copy.deepcopy(prior.transform.state_dict())
    for target, rows_of in ((prior, z), (other, prior.to_base(z).detach())):
        torch.manual_seed(0)
        target.reinitialize(rows_of, y, "em", max_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(prior.base.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(value, flow[name]) for name, value in prior.transform.state_dict().items())


def test_flows_over_flows_and_their_attributes():
    prior = make()
    torch.manual_seed(0)
    outer = FlowPrior(prior, "maf", transforms=1)
    assert isinstance(outer, JointPrior) and outer.attributes == prior.attributes == tuple(ATTRIBUTES)
    z, y = codes(prior), rows()
    torch.testing.assert_close(outer.log_prob_attributes(y, z), outer.log_prob(z, y) - outer.log_prob(z))
    assert make(base="trip").attributes == ()


def test_codes_without_density():
    prior, z = make(), torch.zeros(3, 2, dtype=torch.float64)
    z[1, 0] = math.inf
    y = torch.tensor([[1.0, nan]]).expand(3, 2)
    assert prior.log_prob(z, y)[1] == prior.log_prob(z)[1] == -math.inf
    assert prior.log_prob(z, y)[[0, 2]].isfinite().all()
    with pytest.raises(ValueError, match="z must have a positive density, found 0 in row 1"):
        prior.log_prob_attributes(y, z)


ONE = torch.zeros(1, 2, dtype=torch.float64)
NONE = "y needs a base with attributes, found a TRIP"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p, t: p.log_prob(ONE * nan), ValueError, "cannot marginalise"),
        (lambda p, t: p.log_probs(ONE * nan, ONE), ValueError, "cannot marginalise"),
        (lambda p, t: p.log_prob_attributes(ONE, ONE * nan), ValueError, "cannot marginalise"),
        (lambda p, t: p.attribute_posterior(ONE * nan), ValueError, "cannot marginalise"),
        (lambda p, t: p.sample_given(ONE, ONE), NotImplementedError, "cannot sample given some entries"),
        (lambda p, t: p.log_prob(ONE, ONE + 5), ValueError, "attribute 0 takes integers 0..1, found 5 in row 0"),
        (lambda p, t: p.log_probs(ONE, ONE[:, :1]), ValueError, r"y must have shape \(..., 2\), found \(1, 1\)"),
        (lambda p, t: t.log_prob(ONE, ONE), ValueError, NONE),
        (lambda p, t: t.rsample(1, ONE), ValueError, NONE),
        (lambda p, t: t.sample(1, ONE), ValueError, "FlowPrior has no attributes"),
        (lambda p, t: t.reinitialize(ONE, ONE), ValueError, NONE),
        (lambda p, t: t.log_probs(ONE, ONE), ValueError, "attributes of its base, found none in a TRIP"),
        (lambda p, t: t.attribute_posterior(ONE), ValueError, "attributes of its base, found none in a TRIP"),
        (lambda p, t: t.sample_attributes(ONE), ValueError, "attributes of its base, found none in a TRIP"),
    ],
)
def test_errors_name_rule_and_finding(call, error, message):
    with pytest.raises(error, match=message):
        call(make(), make(base="trip"))


def test_empty_batches():
    prior = FlowPrior(JointTRIP(2, [2], rank=3, core="cp"))
    z = torch.zeros(0, 2)
    assert prior.log_prob(z).shape == (0,) and prior.attribute_posterior(z)[0].shape == (0, 2)
    assert prior.log_prob_attributes(torch.zeros(0, 1), z).shape == (0,)
