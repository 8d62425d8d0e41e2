"""Condition satisfaction: against verdicts worked out by hand."""

import math

import pytest

pytest.importorskip("lightning")

import torch

from adapters import FlowPrior, GaussianPrior, JointTRIP
from adapters.conditions import changed_codes, satisfaction
from adapters.models import AttributeClassifier

NAN = math.nan


class Pixels:
    """Sees the attributes, of 3 and 2 values, in the first two pixels of an image."""

    sizes = (3, 2)

    def log_prob(self, x):
        columns = x.flatten(1)[:, :2].long().T
        return [0.9 * torch.eye(size)[column] for size, column in zip(self.sizes, columns, strict=True)]


def images_of(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 1, 1, 2)


def judged(images, requests, batch=2):
    return satisfaction(Pixels(), zip(images_of(images).split(batch), torch.tensor(requests).split(batch), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_accuracies_are_shares_of_requested_entries(batch):
    requests = [[0.0, NAN], [1.0, NAN], [2.0, 1.0], [NAN, 1.0], [NAN, NAN], [1.0, 0.0]]
    images = [[0, 1], [1, 0], [1, 1], [2, 0], [2, 0], [1, 0]]
    found = judged(images, requests, batch)
    assert found.accuracy == pytest.approx(5 / 7)
    assert found.accuracies == pytest.approx((3 / 4, 2 / 3))


def test_the_entropy_of_free_attributes():
    requests = [[NAN, 0.0]] * 4 + [[NAN, 1.0]] * 2
    found = judged([[0, 0], [1, 0], [2, 0], [2, 0], [0, 1], [0, 1]], requests)
    expected = 4 / 6 * (1 / 4 * math.log(4) * 2 + 1 / 2 * math.log(2))
    assert found.entropies == pytest.approx((expected, NAN), nan_ok=True)
    assert found.diversities == pytest.approx((expected / math.log(3), NAN), nan_ok=True)
    assert found.accuracy == 1 and math.isnan(found.accuracies[0])


def test_one_image_per_request_is_not_diverse():
    requests = [[float(i), NAN] for i in range(3) for _ in range(50)]
    same = judged([[i, i % 2] for i in range(3) for _ in range(50)], requests)
    other = judged([[i, n % 2] for i in range(3) for n in range(50)], requests)
    assert same.accuracy == other.accuracy == 1
    assert same.diversities[1] == 0 and other.diversities[1] == pytest.approx(1)


def test_nothing_requested():
    found = judged([[0, 0], [1, 1], [2, 0], [0, 1]], [[NAN, NAN]] * 4)
    assert math.isnan(found.accuracy) and all(map(math.isnan, found.accuracies))
    assert found.diversities[1] == pytest.approx(1)


def test_a_trained_classifier_is_a_judge():
    classifier = AttributeClassifier(torch.nn.Flatten(), 2, [3, 2])
    x = images_of([[0, 1], [2, 0]])
    found = satisfaction(classifier, [(x, classifier.predict(x).float())])
    assert found.accuracy == 1 and found.accuracies == (1, 1)
    assert classifier.training


@pytest.mark.parametrize(
    "requests, message",
    [
        ([[0.0], [0.0]], r"must have shape \(\.\.\., 2\), found \(2, 1\)"),
        ([[0.0, 1.0]], r"2 images need as many requests, found them in \(1, 2\)"),
        ([[0.0, 1.0], [NAN, 2.0]], r"attribute 1 takes integers 0\.\.1, found 2 in row 1"),
        ([[0.5, 1.0], [0.0, 0.0]], r"attribute 0 takes integers 0\.\.2, found 0\.5 in row 0"),
    ],
)
def test_requests_that_make_no_sense(requests, message):
    with pytest.raises(ValueError, match=message):
        satisfaction(Pixels(), [(images_of([[0, 0], [0, 0]]), torch.tensor(requests))])


def test_no_images():
    with pytest.raises(ValueError, match="at least 1 generated image is needed, found 0"):
        satisfaction(Pixels(), [])


# ----------------------------------------------------------------------------------------------------- changed codes


def told_by(column: int) -> JointTRIP:
    """Four latents, of which one says what the attribute is: its component 0 goes with value 0, and 1 with 1."""
    prior = JointTRIP(4, [2], num_components=2, rank=2, order="given", mean_range=(-2.0, 2.0), nonnegative="abs")
    with torch.no_grad():
        for stack in prior.cores:
            stack.copy_(torch.eye(2).expand_as(stack))  # the bond carries a bit that nothing else knows of
            for k in (column, 4):
                stack[k] = torch.stack([torch.diag(row) for row in torch.eye(2)])
    return prior


@pytest.mark.parametrize("column", [0, 2])
def test_only_latents_that_tell_of_the_attribute_change(column):
    prior = told_by(column)
    z = prior.sample(200, torch.tensor([0.0]), rng=0)
    changed = changed_codes(prior, z, torch.ones(200, 1), attribute=0, num_dimensions=1, rng=1)
    others = [k for k in range(4) if k != column]
    assert torch.equal(changed[:, others], z[:, others])
    assert (prior.log_prob_attributes(torch.ones(200, 1), changed).exp() > 0.5).float().mean() > 0.8
    assert (prior.log_prob_attributes(torch.ones(200, 1), z).exp() > 0.5).float().mean() < 0.2


def test_codes_change_as_the_base_of_a_flow_sees_them():
    base = told_by(2)
    flow = FlowPrior(base, "maf", transforms=2, hidden_features=(8,))
    with torch.no_grad():
        for parameter in flow.transform.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    z, wanted = flow.sample(200, torch.tensor([0.0]), rng=0), torch.ones(200, 1)
    changed = flow.to_base(changed_codes(flow, z, wanted, attribute=0, num_dimensions=1, rng=1))
    expected = changed_codes(base, flow.to_base(z), wanted, attribute=0, num_dimensions=1, rng=1)
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-4)
    assert (flow.log_prob_attributes(wanted, flow.from_base(changed)).exp() > 0.5).float().mean() > 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attribute": 1}, r"attribute must be in 0\.\.0, found 1"),
        ({"attribute": -1}, "attribute must be at least 0, found -1"),
        ({"attribute": 0, "num_dimensions": 5}, "num_dimensions must be at most 4, found 5"),
        ({"attribute": 0, "num_dimensions": 0}, "num_dimensions"),
    ],
)
def test_changes_that_are_none(settings, message):
    with pytest.raises(ValueError, match=message):
        changed_codes(told_by(0), torch.zeros(2, 4), torch.zeros(2, 1), **settings)


def test_changes_need_a_prior_with_attributes():
    with pytest.raises(TypeError, match="prior must be a JointTRIP or a FlowPrior over one, found GaussianPrior"):
        changed_codes(GaussianPrior(4), torch.zeros(2, 4), torch.zeros(2, 1), 0)
