"""VampPrior: the encoder that it uses and does not own."""

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import VampPrior  # noqa: E402
from tests.adapters.priors.cases import D, Encoder  # noqa: E402


def test_the_vamp_prior_uses_the_encoder_without_owning_it():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()
            self.prior = VampPrior(self.encoder, (3,), D, 4)

    model = Model()
    assert list(model.prior.state_dict()) == ["raw_inputs"]
    assert len(list(model.parameters())) == 3 and len(list(model.modules())) == 4
    assert ((model.prior.pseudo_inputs > 0) & (model.prior.pseudo_inputs < 1)).all()
    model.prior.log_prob(torch.zeros(1, D)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    other = copy.deepcopy(model)
    assert other.prior.encoder is other.encoder
