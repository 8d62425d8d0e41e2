"""Splits, shuffling, binarisation and hidden attributes, on the digits."""

import pytest

pytest.importorskip("lightning")

import torch

from adapters.data import Digits, Split
from adapters.data.base import listed
from tests.adapters.data.cases import Everywhere, batch_of


def test_digits():
    data = Digits(batch_size=100)
    x, y = batch_of(data)
    assert x.shape == (100, 1, 8, 8) and y.shape == (100, 1) and data.image_shape == (1, 8, 8)
    assert x.dtype == torch.float32 and torch.equal(x * 16, (x * 16).round()) and 0 <= x.min() and x.max() == 1
    assert {len(split.images) for split in data.splits.values()} == {1294, 144, 359}
    rows = torch.cat([split.images for split in data.splits.values()]).flatten(1)
    assert len(rows) == 1797 and set(y.flatten().tolist()) <= set(range(10))


def test_splits_do_not_depend_on_the_run():
    first, second = Digits(), Digits()
    first.setup()
    torch.manual_seed(7)
    second.setup()
    assert all(torch.equal(first.splits[name].images, second.splits[name].images) for name in first.splits)
    other = Digits(split_seed=1)
    other.setup()
    assert not torch.equal(first.splits["test"].images, other.splits["test"].images)


def test_epochs_are_shuffled_differently():
    data = Digits(batch_size=2000)
    data.setup()
    loader = data.train_dataloader()
    first = next(iter(loader))[0]
    loader.sampler.set_epoch(1)
    second = next(iter(loader))[0]
    assert not torch.equal(first, second)
    assert torch.equal(first.sum((1, 2, 3)).sort().values, second.sum((1, 2, 3)).sort().values)


def test_static_binarization_draws_once():
    data = Digits(batch_size=2000, binarization="static")
    (x, _), (again, _) = batch_of(data), batch_of(data)
    assert torch.equal(x, again) and set(x.unique().tolist()) == {0.0, 1.0}
    grey = Digits(batch_size=2000)
    assert x.mean().item() == pytest.approx(batch_of(grey)[0].mean().item(), abs=0.005)


def test_static_binarization_takes_little_memory(monkeypatch):
    """The random numbers of a large data set are drawn in parts."""
    sizes, rand = [], torch.rand
    monkeypatch.setattr(torch, "rand", lambda shape, **options: sizes.append(shape[0]) or rand(shape, **options))
    split = Split(torch.full((9000, 1, 2, 2), 4, dtype=torch.uint8), torch.zeros(9000, 0))
    images = Digits(binarization="static")._binarized_once(split).images
    assert sizes == [4096, 4096, 808] and images.shape == split.images.shape
    assert set(images.unique().tolist()) == {0, 16}
    assert (images > 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dynamic_binarization_draws_every_step_and_only_in_training():
    data = Digits(batch_size=2000, binarization="dynamic")
    x, _ = batch_of(data)
    assert torch.equal(x, batch_of(data)[0])  # the same step
    data.trainer = Everywhere(batch=4)
    again, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert set(x.unique().tolist()) == {0.0, 1.0} and not torch.equal(x, again)
    validation = batch_of(data, "val")[0]
    assert set(validation.unique().tolist()) == {0.0, 1.0} and torch.equal(validation, batch_of(data, "val")[0])


def test_training_images_for_callbacks():
    data = Digits(batch_size=30, binarization="dynamic")
    first, again = (torch.cat(list(data.training_images(70, seed=3))) for _ in range(2))
    assert first.shape == (70, 1, 8, 8) and torch.equal(first, again)
    assert data.examples(5).shape == (5, 1, 8, 8)


@pytest.mark.parametrize("binarization", [None, "dynamic"])
def test_training_rows_keep_images_and_attributes_together(binarization):
    data = Digits(batch_size=30, binarization=binarization)
    batches = list(data.training_rows(70, seed=3))
    assert [len(y) for _, y in batches] == [30, 30, 10]
    for (x, _), images in zip(batches, data.training_images(70, seed=3), strict=True):
        assert torch.equal(x, images)
    if binarization is None:
        split = data.splits["train"]
        known = {(*row.flatten().tolist(), *y.tolist()) for row, y in zip(*split, strict=True)}
        found = [
            (*(16 * row).int().flatten().tolist(), *label.tolist())
            for x, y in batches
            for row, label in zip(x, y, strict=True)
        ]
        assert known.issuperset(found) and len(found) == 70


def test_all_rows_of_a_split():
    data = Digits(batch_size=100, binarization="dynamic")
    for stage in ("train", "val", "test"):
        x, y = (torch.cat(part) for part in zip(*data.rows(stage), strict=True))
        assert torch.equal(y, data.splits[stage].attributes) and torch.equal(x[:5], data.examples(5, stage))
        assert set(x.unique().tolist()) == {0.0, 1.0}


def test_hidden_attributes():
    whole, data, again = Digits(strokes=True), Digits(strokes=True, missing=0.9), Digits(strokes=True, missing=0.9)
    for part in (whole, data, again):
        part.setup()
    hidden = data.splits["train"].attributes.isnan()
    assert hidden.float().mean(0).tolist() == pytest.approx([0.9] * 3, abs=0.03)
    assert hidden.all(1).float().mean().item() == pytest.approx(0.9**3, abs=0.04)  # each entry by itself
    assert torch.equal(data.splits["train"].attributes[~hidden], whole.splits["train"].attributes[~hidden])
    assert torch.equal(hidden, again.splits["train"].attributes.isnan())
    for stage in ("val", "test"):
        assert torch.equal(data.splits[stage].attributes, whole.splits[stage].attributes)


def test_categories_of_known_data(tmp_path):
    data = Digits(strokes=True, keep=["slant"])
    assert data.summary() == ["attributes: slant (left = 0, upright = 1, right = 2)"]
    many = listed([f"c{i}" for i in range(30)])
    assert many.startswith("c0 = 0, c1 = 1,") and many.endswith("c11 = 11, ... c29 = 29")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"binarization": "both"}, "binarization must be None or one of static, dynamic, found 'both'"),
        ({"missing": 1.1}, r"missing must be a share in \[0, 1\], found 1.1"),
        ({"missing": -0.1}, r"missing must be a share in \[0, 1\], found -0.1"),
        ({"keep": ["digit", "digit"]}, "keep must name each attribute once, found digit, digit"),
        ({"validation": 5000}, "validation must leave some of the 1438 images on either side, found 5000"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options).setup()
