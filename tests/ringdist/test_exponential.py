"""The exponential function of PyTorch, whose smallest results are 0."""

import math

import numpy as np
import pytest

import ringdist as rd
from ringdist.backend import exp, logsumexp
from ringdist.engines.range import FLUSHED

torch = pytest.importorskip("torch")
MARGIN = pytest.importorskip("ringdist.backend.exponential").MARGIN  # imports PyTorch
DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_of_pytorch_or_zero(dtype):
    least = math.log(torch.finfo(dtype).smallest_normal)
    x = torch.linspace(least - 30, least + 30, 1001, dtype=dtype)
    x = torch.cat([x, torch.tensor([0.0, 80.0, -1e30, 1e30, torch.inf, -torch.inf, torch.nan], dtype=dtype)])
    kept = ~(x < least + MARGIN + 0.01)
    assert kept.any() and not kept.all()
    before = x.clone()
    torch.testing.assert_close(exp(x), torch.where(kept, x.exp(), 0.0), rtol=1e-6, atol=0.0, equal_nan=True)
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_left_to_pytorch(dtype):
    x = torch.linspace(-30, 5, 100).to(dtype)
    torch.testing.assert_close(exp(x), x.exp(), rtol=0, atol=0)


def test_the_threshold_of_sweeps_allows_for_what_is_lost():
    assert math.exp(MARGIN + 0.01) < FLUSHED


def test_derivatives_of_both_orders():
    x = torch.tensor([-2000.0, -745.0, -708.0, -30.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    expected = torch.where(x < -700, 0.0, x.exp()).detach()
    (first,) = torch.autograd.grad(exp(x).sum(), x, create_graph=True)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), x)[0], expected)
    assert torch.autograd.gradcheck(lambda t: exp(t), torch.randn(5, dtype=torch.float64, requires_grad=True))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, of dual numbers
def test_transforms_and_forward_mode():
    x = torch.tensor([-200.0, -3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(lambda t: exp(t).sum()))(x), x.exp())
    torch.testing.assert_close(torch.func.jvp(exp, (x,), (torch.ones(3, dtype=x.dtype),))[1], x.exp())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones(3, dtype=x.dtype))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(exp(dual)).tangent, x.exp())


def test_sums_of_logarithms_that_are_far_apart():
    logs = -300 * torch.rand(50, 20)
    torch.testing.assert_close(logsumexp(logs), torch.logsumexp(logs, -1))


def test_a_row_that_only_far_components_explain():
    """Densities that are 0 beside others of their column decide where these are excluded by other columns."""
    means = [[0.0, 25.0], [25.0, 0.0]]  # each observation is 25 standard deviations from one component of each column
    cores = [np.eye(2)[:, None, :], np.eye(2)[:, :, None]]
    variables = [rd.GaussianMixture(mean, [1.0, 1.0]) for mean in means]
    ring = rd.TensorRing([core / 2 for core in cores], variables)
    x = np.array([[0.0, 0.0], [25.0, 25.0], [0.0, 25.0], [-40.0, 60.0]])
    expected = ring.log_prob(x, engine="log")
    found = ring.to(xp=torch, dtype=torch.float32).log_prob(torch.tensor(x, dtype=torch.float32))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
