"""Rings in which one tensor has several places, in every sweep with a backward pass of its own."""

import pytest

import ringdist as rd
from ringdist.engines import budget
from ringdist.queries import log_prob as likelihood

torch = pytest.importorskip("torch")

OPTIONS = {"generator": torch.Generator().manual_seed(0), "dtype": torch.float64}
MATRIX, PARTS, DENSE = (torch.rand(*shape, **OPTIONS) + 0.1 for shape in ((2, 2), (3, 2), (3, 2, 2)))


def switching(parts):
    return rd.CPCore.switching(*parts)


CORES = {
    "dense": (DENSE / 4, lambda core: core),  # near 1, so that the sweep uses it as it is
    "left": (MATRIX, lambda matrix: rd.CPCore(left=matrix)),
    "dependent": (MATRIX, lambda matrix: rd.CPCore(left=2 * matrix, right=matrix)),
    "switch": (PARTS, switching),
}


@pytest.mark.parametrize("stored", [None, 1], ids=["ordinary", "lean"])
@pytest.mark.parametrize("name", CORES)
def test_gradients_with_and_without_a_graph_are_equal(name, stored, monkeypatch):
    """One core in all columns; its factors may be functions of each other."""
    if stored is not None:
        monkeypatch.setattr(budget, "STORED", stored)
        monkeypatch.setattr(likelihood, "MANY", 1)
    values, core_of = CORES[name]
    parameter = values.clone().requires_grad_()
    if name == "dense":
        variable, x = rd.Categorical(3), torch.randint(3, (6, 5), generator=torch.Generator().manual_seed(1)).double()
    else:
        means, stds = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        variable, x = rd.GaussianMixture(means, stds), torch.randn(6, 5, **OPTIONS)

    def log_prob(engine="sweep"):
        return rd.TensorRing([core_of(parameter)] * 5, [variable] * 5, validate=False).log_prob(x, engine=engine)

    (expected,) = torch.autograd.grad(log_prob("log").sum(), parameter)
    for create_graph in (False, True):
        (found,) = torch.autograd.grad(log_prob().sum(), parameter, create_graph=create_graph)
        torch.testing.assert_close(found.detach(), expected)
    if stored is None:
        value = log_prob()
        rows = torch.autograd.grad(value, parameter, torch.eye(6, dtype=torch.float64), is_grads_batched=True)[0]
        torch.testing.assert_close(rows.sum(0), expected)
