"""Thickness and slant: against drawn strokes of known width and shear."""

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch
from torch.nn import functional

from adapters.data import MNIST, Digits, Split, slant, stroke_thickness
from adapters.data.strokes import terciles, with_strokes

SIZE = 64


def bar(width: float, shear: float = 0.0, middle: float = 0.0, length: float = 40, finer: int = 8) -> torch.Tensor:
    """A smooth-edged vertical bar through the middle, sheared along the rows to the right, in bytes."""
    row, column = (np.indices((SIZE * finer, SIZE * finer)) + 0.5) / finer - SIZE / 2
    ink = (np.abs(row) < length / 2) & (np.abs(column - middle + shear * row) < width / 2)
    fine = torch.from_numpy(ink).double()[None, None]
    return (255 * functional.avg_pool2d(fine, finer)[0]).round().to(torch.uint8)


def digits(n: int = 200) -> torch.Tensor:
    data = Digits(batch_size=n)
    return torch.cat([x for x, _ in data.training_rows(n, seed=0)])[:, 0]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_thickness_of_bars(width):
    measured = stroke_thickness(bar(width, middle=width / 2)).item()  # from one border of pixels to another
    assert measured == pytest.approx(width * 40 / (width + 40), rel=0.02)  # 2 area / border, the two ends counted


@pytest.mark.parametrize("shear", [1.0, -1.0, 0.5])
def test_thickness_of_oblique_bars(shear):
    width = 6 / np.hypot(1, shear)  # across the stroke
    length = 40 * np.hypot(1, shear)
    # the ends are horizontal, 6 long
    assert stroke_thickness(bar(6, shear)).item() == pytest.approx(width * length / (length + 6), rel=0.03)


@pytest.mark.parametrize("shear", [-1.0, -0.3, 0.0, 0.2, 0.7])
def test_slant_of_bars(shear):
    assert slant(bar(4, shear)).item() == pytest.approx(np.rad2deg(np.arctan(shear)), abs=0.5)


@pytest.mark.parametrize("measure", [stroke_thickness, slant])
def test_a_place_and_a_brightness_change_nothing(measure):
    x = functional.pad(digits(), (3, 3, 3, 3))
    torch.testing.assert_close(measure(x.roll((2, -3), dims=(1, 2))), measure(x), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(measure(100 * x), measure(x), atol=1e-3, rtol=1e-4)


def test_mirror_images():
    x = digits()
    torch.testing.assert_close(slant(x.flip(2)), -slant(x), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(stroke_thickness(x.flip(2)), stroke_thickness(x))


def test_a_turn_and_a_dilation():
    x = digits()
    torch.testing.assert_close(stroke_thickness(x.transpose(1, 2)), stroke_thickness(x))
    doubled = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (stroke_thickness(doubled) > stroke_thickness(x)).all()


def test_many_images_are_measured_in_parts():
    x = digits(50).repeat(100, 1, 1)
    for measure in (stroke_thickness, slant):
        torch.testing.assert_close(measure(x), measure(x[:50]).repeat(100))


def test_what_has_no_measure():
    blank, line = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    line[:, 3] = 1
    assert stroke_thickness(blank).isnan() and slant(blank).isnan() and slant(line).isnan()
    for measure in (stroke_thickness, slant):
        with pytest.raises(ValueError, match=r"shape \(n, H, W\), found \(1, 1, 8, 8\)"):
            measure(blank[None])


def test_terciles():
    reference = torch.tensor([float("nan"), *range(30)])
    assert terciles(torch.tensor([-9.0, 9.0, 10.0, 19.0, 20.0, 99.0]), reference).tolist() == [0, 0, 1, 1, 2, 2]
    assert terciles(torch.tensor([torch.nan]), reference).isnan()


def test_classes_are_cut_by_training_images():
    """Test images that are all thicker than the training images are all thick."""
    train = torch.stack([bar(width, shear) for width in (2, 4, 6) for shear in (-0.5, 0, 0.5)])
    test = torch.stack([bar(width, 0.5) for width in (9, 10, 11)])
    splits = with_strokes({"train": Split(train, torch.zeros(9, 1)), "test": Split(test, torch.ones(3, 1))})
    assert splits["train"].attributes.tolist() == [[0, i, j] for i in range(3) for j in range(3)]
    assert splits["test"].attributes.tolist() == [[1, 2, 2]] * 3


def test_digits_with_strokes():
    data = Digits(strokes=True)
    data.setup()
    assert data.attribute_names == ("digit", "thickness", "slant")
    train = torch.cat([data.splits["train"].attributes, data.splits["val"].attributes])
    for column in train[:, 1:].T:
        assert [int((column == value).sum()) for value in range(3)] == pytest.approx([len(train) / 3] * 3, abs=2)
    plain = Digits()
    plain.setup()
    assert torch.equal(plain.splits["test"].attributes, data.splits["test"].attributes[:, :1])


def test_mnist_with_strokes(tmp_path):
    x = (digits(60) * 255).to(torch.uint8).repeat_interleave(3, 1).repeat_interleave(3, 2).numpy()
    y = np.zeros(60)
    np.savez(tmp_path / "mnist.npz", x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])
    data = MNIST(tmp_path / "mnist.npz", strokes=True, validation=10, keep=["slant", "digit"])
    data.setup()
    assert data.attribute_names == ("slant", "digit") and data.splits["test"].attributes.shape == (10, 2)
    assert set(data.splits["train"].attributes[:, 0].tolist()) == {0, 1, 2}
