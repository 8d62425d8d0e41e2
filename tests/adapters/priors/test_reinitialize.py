"""Re-initialisation of priors from latent codes."""

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import TRIP, FlowPrior, GaussianMixturePrior, GaussianPrior, JointTRIP  # noqa: E402
from tests.adapters.priors.cases import D, bananas, make, nan  # noqa: E402


@pytest.mark.parametrize("options", [{}, {"topology": "train"}, {"nonnegative": "softplus"}, {"nonnegative": "exp"}])
def test_reinitialize_trip(options):
    torch.manual_seed(0)
    z, held_out = bananas(), bananas(seed=1)
    prior = TRIP(4, 6, 5, order="given", **options)
    scores, parameters = [prior.log_prob(held_out).mean().item()], list(prior.parameters())
    places = [p.data_ptr() for p in parameters]
    for method, order in (("gmm", None), ("em", None), ("em", "mutual_information")):
        prior.reinitialize(z, method=method, order=order)
        scores.append(prior.log_prob(held_out).mean().item())
        assert [p.data_ptr() for p in prior.parameters()] == places
        assert all(a is b for a, b in zip(prior.parameters(), parameters, strict=True))
        assert all(torch.isfinite(p).all() for p in parameters)
    assert scores[1] > scores[0] and scores[2] > scores[1] + 0.3 and scores[3] > scores[2] - 0.2, scores
    order = prior.order.tolist()
    assert abs(order.index(0) - order.index(2)) in (1, 3), order
    assert prior.ring.order == tuple(order) == tuple(prior.state_dict()["order"].tolist())
    assert prior.ring.log_normalizer().item() == pytest.approx(0, abs=1e-3)
    prior.log_prob(z).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in parameters)


def test_the_paper_s_reinitialisation_fits_every_dimension():
    torch.manual_seed(0)
    z = torch.cat([torch.randn(300, 2) * 0.1 - 2, torch.randn(300, 2) * 0.1 + 3])
    prior = TRIP(2, 2, 3)
    prior.reinitialize(z)
    assert prior.means.detach().sort(-1).values.numpy() == pytest.approx(np.array([[-2, 3]] * 2), abs=0.05)
    assert prior.log_stds.exp().detach().numpy() == pytest.approx(0.1, abs=0.02)


def test_reinitialize_the_others():
    torch.manual_seed(0)
    z = bananas()
    for prior in (GaussianPrior(4), GaussianMixturePrior(4, 9), FlowPrior(TRIP(4, 3, 2), "maf", transforms=1)):
        before = prior.log_prob(z).mean().item()
        prior.reinitialize(z)
        assert prior.log_prob(z).mean().item() > before, prior
    with pytest.raises(NotImplementedError, match="VampPrior cannot be re-initialised"):
        make("vamp").reinitialize(z)


def test_reinitialize_with_attributes():
    torch.manual_seed(0)
    z = bananas()
    y = torch.stack([(z[:, 0] > 0).float(), torch.full((400,), nan)], 1)
    y[::3, 0] = nan
    prior = JointTRIP(4, [2, 3], 6, 5)
    prior.reinitialize(z, y, method="em", order="mutual_information")
    predicted = prior.log_prob_attributes(torch.tensor([[1.0, nan]]).expand(400, 2), z) > math.log(0.5)
    assert (predicted == (z[:, 0] > 0)).float().mean() > 0.95
    train = JointTRIP(4, [2, 3], 6, 5, topology="train", order=[4, 0, 1, 2, 3, 5])
    before = {k: v.clone() for k, v in train.state_dict().items()}
    with pytest.raises(ValueError, match="a train with attributes keeps its order"):
        train.reinitialize(z, y, order="mutual_information")
    assert all(torch.equal(v, before[k]) for k, v in train.state_dict().items())
    train.reinitialize(z, y)


@pytest.mark.parametrize(("method", "order"), [("gmm", None), ("em", "mutual_information")])
def test_reinitialize_with_continuous_attributes(method, order):
    torch.manual_seed(0)
    z = bananas()
    y = torch.stack([(z[:, 0] > 0).float(), 0.1 * z[:, 1] + 5], 1)
    y[::3, 1] = nan
    prior = JointTRIP(4, [2, "continuous"], 6, 5)
    prior.reinitialize(z, y, method=method, order=order)
    assert (prior.means[4] > 4).all() and (prior.means[4] < 6).all()
    kept = prior.means[4].clone(), prior.log_stds[4].clone()
    y[:, 1] = nan  # never known: its components stay, the rest is fitted
    prior.reinitialize(z + 1, y, method=method, order=order)
    assert torch.equal(prior.means[4], kept[0]) and torch.equal(prior.log_stds[4], kept[1])
    assert prior.log_prob(z + 1, y).mean() > prior.log_prob(z - 3, y).mean()
    assert all(value.isfinite().all() for value in prior.state_dict().values())
    few = torch.tensor([4.6, 5.0, 5.4])  # values for six components: they are not placed anew
    y[: len(few) * 20, 1] = few.repeat(20)
    prior.reinitialize(z, y, method=method, order=order)
    assert torch.equal(prior.means[4], kept[0]) == (method == "gmm")
    assert all(value.isfinite().all() for value in prior.state_dict().values())
    if method == "em":  # but learned from there
        told = torch.stack([torch.full((3,), nan), few], 1)
        rows = torch.full((3, 4), nan)
        between = torch.stack([torch.full((3,), nan), few + 0.2], 1)
        assert (prior.log_prob(rows, told) > prior.log_prob(rows, between)).all()


CODES = torch.randn(50, D, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (torch.where(CODES == CODES[7, 1], nan, CODES), {}, "codes must be finite, found nan in row 7, column 1"),
        (CODES[:, :1], {}, r"z must have shape \(..., 2\), found \(50, 1\)"),
        (CODES[None], {}, r"z must have shape \(n, 2\), found \(1, 50, 2\)"),
        (CODES[:2], {}, "at least 3 rows of codes, found 2"),
        (CODES, {"method": "svd"}, "method must be one of gmm, em, mixture, found 'svd'"),
        (CODES, {"order": "random"}, "order must be one of mutual_information, found 'random'"),
        (CODES, {"method": "em", "max_epochs": 0}, "max_epochs must be at least 1, found 0"),
        (CODES.round().clamp(0, 1), {"method": "em"}, "column 0: 3 components need as many different codes, found 2"),
    ],
)
def test_codes_that_do_not_fit_leave_the_prior_as_it_was(z, options, message):
    prior = make("trip")
    before = copy.deepcopy(prior.state_dict())
    with pytest.raises(ValueError, match=message):
        prior.reinitialize(z, **options)
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())
