"""TRIP: its ring, its order and its first parameters."""

import pytest

import ringdist as rd

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import TRIP  # noqa: E402
from tests.adapters.priors.cases import D, bananas, make  # noqa: E402


def test_the_ring_is_live():
    prior = make("trip")
    ring = prior.ring
    assert isinstance(ring, rd.TensorRing) and ring.order == tuple(prior.order.tolist())
    z = prior.sample(3)
    assert torch.equal(ring.log_prob(z), prior.log_prob(z))
    prior.ring.log_prob(z).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prior.parameters())
    with torch.no_grad():
        prior.means += 1
    assert torch.equal(prior.ring.variables[0].means(), ring.variables[0].means())


def test_the_ring_is_the_user_s():
    """Writes into a ring that was handed out do not reach the queries."""
    prior, z = make("trip"), torch.zeros(2, D)
    with torch.no_grad():
        before = prior.log_prob(z)
        prior.ring.cores[0].zero_()
        assert torch.equal(prior.log_prob(z), before)


def test_orders():
    assert TRIP(4, 2, 2, order="given").order.tolist() == [0, 1, 2, 3]
    assert TRIP(4, 2, 2, order=[2, 0, 3, 1]).ring.order == (2, 0, 3, 1)
    assert TRIP(9, 2, 2, seed=1).order.tolist() == TRIP(9, 2, 2, seed=1).order.tolist()
    assert TRIP(9, 2, 2, seed=1).order.tolist() != TRIP(9, 2, 2, seed=2).order.tolist()
    assert TRIP(4, 2, 3, topology="train").ring.ranks == (1, 3, 3, 3)
    assert TRIP(3, 2, [2, 1, 4]).ring.ranks == (2, 1, 4)


@pytest.mark.parametrize("nonnegative", ["abs", "softplus", "exp"])
@pytest.mark.parametrize(("d", "n", "rank"), [(100, 10, 1), (100, 10, 20), (20, 10, 100)])
def test_the_initial_normaliser_is_near_one(d, n, rank, nonnegative):
    prior = TRIP(d, n, rank, nonnegative=nonnegative)
    with torch.no_grad():
        log_z = prior.ring.log_normalizer().item()
    assert abs(log_z) < d, log_z
    assert torch.isfinite(prior.log_prob(prior.sample(3))).all()


def test_ten_thousand_latents():
    prior = TRIP(10_000, 2, 2)
    with torch.no_grad():
        ring = prior.ring
        assert abs(ring.log_normalizer().item()) < 1000
        assert torch.isfinite(ring.log_prob(torch.zeros(1, 10_000))).all()


def test_initial_components():
    prior = TRIP(3, 5, 2, mean_range=(-1, 1))
    torch.testing.assert_close(prior.means[1].detach(), torch.tensor([-1, -0.5, 0, 0.5, 1]))
    assert prior.log_stds.exp().detach().numpy() == pytest.approx(0.4)
    assert TRIP(3, 1, 2).means.tolist() == [[0.0]] * 3


def test_an_order_that_is_copied_into_place_is_followed():
    torch.manual_seed(0)
    prior = TRIP(4, 3, 2, order="given")
    averaged = torch.optim.swa_utils.AveragedModel(prior, use_buffers=True)
    prior.reinitialize(bananas(), method="em", order="mutual_information")
    assert prior.order.tolist() != [0, 1, 2, 3]
    averaged.update_parameters(prior)
    assert averaged.module.ring.order == tuple(prior.order.tolist())
    assert torch.equal(averaged.module.log_prob(bananas()), prior.log_prob(bananas()))


def test_a_state_dict_with_an_order_that_is_none():
    prior = TRIP(3, 2, 2)
    state = prior.state_dict()
    for order, message in (
        (torch.tensor([0, 0, 1]), "order must be random, given or a permutation of the 3 columns"),
        (torch.tensor([0.5, 0, 1]), "an entry of order must be an integer, found 0.5"),
    ):
        state["order"] = order
        with pytest.raises(RuntimeError, match=message):
            prior.load_state_dict(state)
