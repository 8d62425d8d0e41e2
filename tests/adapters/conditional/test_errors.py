"""Errors name the row and the rule."""

import pytest

pytest.importorskip("lightning")

import torch
from torch import nn

from adapters import TRIP, FlowPrior, GaussianPrior
from adapters.models import CVAE, JMVAE, TELBO, ConditionalVAE
from tests.adapters.conditional.cases import images, make, nan
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED


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
