"""The log-density of Gaussian components in PyTorch beside the recorded operations."""

import pytest

import ringdist as rd
from ringdist.variables.gaussian_functions import standardised

torch = pytest.importorskip("torch")
gaussian_torch = pytest.importorskip("ringdist.variables.gaussian_torch")  # imports PyTorch

SHAPES = {
    "one variable": ((7,), (3,)),
    "one value": ((), (3,)),
    "many axes": ((2, 4), (3,)),
    "stack": ((5, 7), (5, 1, 3)),
    "no rows": ((0,), (3,)),
}


def arrays(shapes, dtype=torch.float64, scale=1.0):
    rng = torch.Generator().manual_seed(0)
    x, means = (scale * torch.randn(shape, generator=rng, dtype=dtype) for shape in shapes)
    stds = scale * (0.3 + torch.rand(shapes[1], generator=rng, dtype=dtype))
    return [array.requires_grad_() for array in (x, means, stds)]


def expected(x, means, stds):
    return torch.distributions.Normal(means, stds, validate_args=False).log_prob(x[..., None])


@pytest.mark.parametrize("part", [1, 4, 2**17])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_values_and_derivatives_of_both_orders(shapes, part, monkeypatch):
    monkeypatch.setattr(gaussian_torch, "PART", part)
    given = arrays(shapes)
    assert gaussian_torch.applies(*given)
    found = []
    for function in (gaussian_torch.log_density, expected):
        value = function(*given)
        weights = torch.linspace(0.5, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
        plain = torch.autograd.grad((weights * value).sum(), given, retain_graph=True)
        first = torch.autograd.grad((weights * value).sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(slope.square().sum() for slope in first), given)
        found.append([value, *plain, *first, *second])
    for mine, reference in zip(*found, strict=True):
        assert mine.shape == reference.shape
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beyond_the_range_there_is_no_gradient(dtype):
    most = torch.finfo(dtype).max
    x = torch.tensor([0.5, most, -most], dtype=dtype, requires_grad=True)
    means, stds = (torch.tensor([v], dtype=dtype, requires_grad=True) for v in (0.0, 1.0))
    z = standardised(x[:, None], means, stds)
    clipped = -0.5 * z * z - stds.log()  # its gradient of the standard deviation is that of the height
    reference = torch.autograd.grad(clipped.sum(), (x, means, stds))
    for recorded in (False, True):
        value = gaussian_torch.log_density(x, means, stds)
        assert value[0].isfinite() and (value[1:] == -torch.inf).all()
        slopes = torch.autograd.grad(value.sum(), (x, means, stds), create_graph=recorded)
        torch.testing.assert_close(slopes[0], torch.tensor([-0.5, 0.0, 0.0], dtype=dtype))
        torch.testing.assert_close(slopes, reference)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_odd_scales(scale):
    """Squares of these numbers are out of the range of float32, log-densities and their gradients are not."""
    given = arrays(((4,), (3,)), torch.float32, scale)
    slopes = torch.autograd.grad(gaussian_torch.log_density(*given).sum(), given)
    wide = [array.detach().double().requires_grad_() for array in given]
    value = expected(*wide)
    for mine, reference in zip(slopes, torch.autograd.grad(value.sum(), wide), strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4 / scale)
    torch.testing.assert_close(gaussian_torch.log_density(*given).double(), value, rtol=1e-4, atol=1e-4)


def test_integers_and_other_dtypes_take_the_recorded_way():
    variable = rd.GaussianMixture(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    for x in (torch.tensor([0, 1]), torch.tensor([0.0, 1.0], dtype=torch.float64)):
        assert not gaussian_torch.applies(x, variable.arrays()["means"], variable.arrays()["stds"])
        torch.testing.assert_close(
            variable.log_density(x).float(), variable.log_density(x.float()), rtol=1e-6, atol=1e-6
        )


def test_the_arguments_are_not_written_to():
    given = [array.detach() for array in arrays(((5,), (3,)))]
    before = [array.clone() for array in given]
    gaussian_torch.log_density(*given)
    for array, old in zip(given, before, strict=True):
        torch.testing.assert_close(array, old, rtol=0, atol=0)


def test_autocast_does_not_round_gradients():
    given = arrays(SHAPES["stack"], torch.float32)
    slopes = torch.autograd.grad(gaussian_torch.log_density(*given).sum(), given)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = torch.autograd.grad(gaussian_torch.log_density(*given).sum(), given)
    for mine, other in zip(slopes, rounded, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_squares_overflow_no_earlier_than_the_log_density():
    one = torch.ones(1)
    value = gaussian_torch.log_density(torch.tensor([2.2e19]), 0 * one, one)
    assert value.isfinite().all()


def test_batches_of_gradients_and_constants_within_transforms():
    variable = rd.GaussianMixture(torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 0.5, 2.0]))
    y = torch.linspace(-1, 1, 5).requires_grad_()
    value = variable.log_density(y)
    weights = torch.rand(4, *value.shape)
    (batched,) = torch.autograd.grad(value, y, weights, is_grads_batched=True, retain_graph=True)
    for own, found in zip(weights, batched, strict=True):
        torch.testing.assert_close(torch.autograd.grad(value, y, own, retain_graph=True)[0], found)
    ring = rd.TensorRing.random([variable] * 3, 2, rng=0, xp=torch, dtype=torch.float32)
    x = torch.zeros(2, 3)
    found = torch.func.vmap(lambda w: w * ring.log_prob(x).sum())(torch.ones(2))
    torch.testing.assert_close(found, ring.log_prob(x).sum().expand(2).to(found.dtype))
    leave, enter = torch.rand(2, 4)
    matrices = torch.func.vmap(lambda s: rd.CPCore.switching(s, leave, enter, validate=False).right)(torch.rand(3, 4))
    assert matrices.shape == (3, 4, 4)
