"""Parts of the baselines: a CVAE's scale and completion, products of experts, encodings of attributes."""

import math

import pytest

pytest.importorskip("lightning")

import torch

from adapters.models.attributes import AttributeExperts, log_prob_known, one_hot
from tests.adapters.conditional.cases import LATENTS, SIZES, attributes, images, make, nan
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


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
