"""The classifier of attributes: losses with unknown attributes, what it logs, training."""

import math

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from adapters.data import Digits
from adapters.metrics import distances
from adapters.models import AttributeClassifier
from adapters.networks import ConvEncoder
from tests.lightning_warnings import IGNORED

pytestmark = IGNORED

NAN = math.nan


def small_classifier(sizes=(2, 10), **settings) -> AttributeClassifier:
    torch.manual_seed(0)
    return AttributeClassifier(ConvEncoder((1, 8, 8), 16, (8, 16)), 16, sizes, **settings)


def trainer(**settings) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **settings)


def measured(model: AttributeClassifier, x: torch.Tensor, y: torch.Tensor, batch_size: int = 4) -> dict[str, float]:
    loader = DataLoader(TensorDataset(x, y), batch_size=batch_size)
    return trainer().test(model, loader, verbose=False)[0]


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------------------------------- queries


def test_shapes():
    model, x = small_classifier(), images(7)
    log_probs = model.log_prob(x)
    assert [values.shape for values in log_probs] == [(7, 2), (7, 10)]
    assert all(values.exp().sum(-1).allclose(torch.ones(7)) for values in log_probs)
    assert torch.equal(model.predict(x), torch.stack([values.argmax(-1) for values in log_probs], -1))
    features = model.features(x)
    assert features.shape == (7, model.num_features) and not features.requires_grad
    assert torch.equal(model.heads[1](features).log_softmax(-1), log_probs[1])


def test_queries_are_in_evaluation_mode():
    model = AttributeClassifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), 64, [3])
    x = images(5)
    assert torch.equal(model.features(x), x.flatten(1)) and torch.equal(model.predict(x), model.predict(x))
    assert model.training


def test_it_is_a_feature_network():
    model, x = small_classifier(), images(20)
    assert distances(x.split(6), x.split(5), model) == (pytest.approx(0, abs=1e-9), 1, 1)


# --------------------------------------------------------------------------------------------------- loss and accuracy


def test_unknown_attributes_do_not_count():
    model, x = small_classifier(), images(9)
    y = model.predict(x).float()
    y[:3, 0] = 1 - y[:3, 0]  # three wrong
    y[4:, 0] = NAN  # one right
    y[[2, 7], 1] = NAN
    found = measured(model, x, y)
    nats = [
        -values[row, int(y[row, j])] for j, values in enumerate(model.log_prob(x)) for row in range(9) if y[row, j] >= 0
    ]
    assert found["test_accuracy_0"] == 1 / 4 and found["test_accuracy_1"] == 1
    assert found["test_accuracy"] == pytest.approx(8 / 11)
    assert found["test_loss"] == pytest.approx(torch.stack(nats).mean().item(), rel=1e-5)
    assert measured(model, x, y, batch_size=9) == pytest.approx(found, rel=1e-5)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
def test_unknown_attributes_have_no_gradient():
    x, y = images(6), torch.tensor([[1.0, 3.0]]).repeat(6, 1)
    model = small_classifier()
    y[:, 0] = NAN
    model._loss("train", (x, y)).backward()
    assert model.heads[0].weight.grad.count_nonzero() == 0 < model.heads[1].weight.grad.count_nonzero()
    model.zero_grad()
    loss = model._loss("train", (x, y.fill_(NAN)))
    loss.backward()
    assert loss == 0 and all(p.grad.count_nonzero() == 0 for p in model.parameters())


def test_digits_are_learned():
    pl.seed_everything(0, verbose=False)
    data = Digits(batch_size=64)
    model = small_classifier((10,), learning_rate=5e-3)
    run = trainer(max_epochs=8)
    run.fit(model, data)
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_accuracy_0"} <= run.callback_metrics.keys()
    found = run.test(model, data, verbose=False)[0]
    assert found["test_accuracy"] == found["test_accuracy_0"] > 0.9
    split = data.splits["test"]
    right = model.predict(split.images.float() / 16) == split.attributes
    assert right.float().mean().item() == pytest.approx(found["test_accuracy"])


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "attributes, message",
    [
        (torch.zeros(4, 3), r"y must have shape \(\.\.\., 2\), found \(4, 3\)"),
        (torch.zeros(4), r"y must have shape \(\.\.\., 2\), found \(4,\)"),
        (torch.tensor([[0.0, 3.0], [2.0, 1.0]]), r"attribute 0 takes integers 0\.\.1, found 2 in row 1"),
        (torch.tensor([[NAN, -1.0]]), r"attribute 1 takes integers 0\.\.9, found -1 in row 0"),
        (torch.tensor([[NAN, 0.5]]), r"attribute 1 .* found 0\.5"),
    ],
)
def test_data_with_other_attributes(attributes, message):
    with pytest.raises(ValueError, match=message):
        small_classifier().training_step((images(len(attributes)), attributes), 0)


@pytest.mark.parametrize("sizes", [[], [3, 1]])
def test_sizes(sizes):
    with pytest.raises(ValueError, match="sizes must be"):
        small_classifier(sizes)
