"""What queries of a ring's prior keep between updates, and that it is never stale."""

import copy
import functools
import pickle

import pytest

from ringdist.queries import log_prob as likelihood
from ringdist.queries import top_down

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import JointTRIP, Prior  # noqa: E402
from tests.adapters.priors.cases import RING, D, bananas, make  # noqa: E402


def counted(monkeypatch, module, name: str) -> list:
    """One entry for every call of the function."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda ring: calls.append(ring) or function(ring))
    return calls


@pytest.fixture
def normalisers(monkeypatch) -> list:
    """One entry for every time that log Z is computed."""
    return counted(monkeypatch, likelihood, "_computed_log_partition")


@pytest.fixture
def trees(monkeypatch) -> list:
    """One entry for every time that the tree of products is made to draw from it."""
    return counted(monkeypatch, top_down, "_computed_tree")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["trip", "private", "joint", "flow"])
def test_normaliser_and_tree_are_computed_once_per_update(name, context, normalisers, trees):
    prior, z = make(name), torch.zeros(5, D)
    drawn = []
    for update in range(3):
        with context():
            values = [prior.log_prob(z[:n]) for n in (5, 3, 1, 5)]
            drawn.append([prior.sample(50, rng=0) for _ in range(2)])
        assert len(normalisers) == len(trees) == update + 1 and torch.equal(values[0], values[3])
        assert torch.equal(*drawn[-1])
        with torch.no_grad():
            prior.get_parameter("base.cores.0" if name == "flow" else "cores.0").exp_()
    assert not torch.equal(drawn[0][0], drawn[1][0])


def test_fixed_priors_compute_their_normaliser_once(normalisers):
    """Also what was computed in inference mode is of use where codes have gradients, a few or too many to keep."""
    prior = make("trip", trainable=False)
    with torch.inference_mode():
        expected = prior.log_prob(torch.ones(3, D))
    z = torch.ones(3, D, requires_grad=True)
    torch.testing.assert_close(prior.log_prob(z).detach(), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringdist.engines.budget.STORED", 1)
        patch.setattr("ringdist.queries.log_prob.MANY", 0)
        value = prior.log_prob(z)
        value.sum().backward()
    torch.testing.assert_close(value.detach(), expected)
    assert z.grad.abs().sum() > 0 and len(normalisers) == 1


def step(optimizer, **options):
    def change(prior):
        for parameter in prior.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer(prior.parameters(), lr=0.1, **options).step()

    return change


def in_place(prior):
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.3)


def past_the_version_counters(prior):
    for parameter in prior.parameters():
        parameter.data.mul_(1.3)


def load(prior, **options):
    state = {name: v * 1.3 if v.is_floating_point() else v for name, v in prior.state_dict().items()}
    prior.load_state_dict(state, **options)


def from_a_vector(prior):
    for factor in (1.3, 0.7):  # the memory of the first vector is free for the second
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(prior.parameters()).detach() * factor, prior.parameters()
        )
        prior.sample(1)


def averaged(prior):
    average = torch.optim.swa_utils.AveragedModel(prior)
    average.module.sample(1)
    average.update_parameters(prior)
    in_place(prior)
    average.update_parameters(prior)
    return average.module


def changed_copy(copied):
    def change(prior):
        other = copied(prior)
        in_place(other)
        return other

    return change


def rearranged(prior):
    prior.order.copy_(prior.order.flip(0))


CHANGES = {
    "Adam": step(torch.optim.Adam),
    "fused Adam": step(torch.optim.Adam, fused=True),
    "SGD": step(torch.optim.SGD),
    "in place": in_place,
    "data": past_the_version_counters,
    "load": load,
    "assign": lambda prior: load(prior, assign=True),
    "vector": from_a_vector,
    "double": lambda prior: prior.double(),
    "there and back": lambda prior: [prior.double(), past_the_version_counters(prior), prior.float()][0],
    "average": averaged,
    "deepcopy": changed_copy(copy.deepcopy),
    "pickle": changed_copy(lambda prior: pickle.loads(pickle.dumps(prior))),
    "reinitialize": lambda prior: prior.reinitialize(bananas(), method="em", order="mutual_information"),
    "order": rearranged,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_what_queries_keep_is_never_stale(change, context):
    def queries(prior):
        with context():
            z = torch.full((3, 4), 0.3, dtype=prior.dtype)
            return [prior.log_prob(z), prior.sample(3, rng=0), prior.sample_given(z.log(), rng=0)]

    prior = JointTRIP(4, [2, 3], **RING, order="given")
    before, state = queries(prior), list(prior.state_dict())
    result = change(prior)
    prior = result if isinstance(result, Prior) else prior
    assert list(prior.state_dict()) == state
    fresh = JointTRIP(4, [2, 3], **RING).to(prior.dtype)
    fresh.load_state_dict(prior.state_dict())
    found = queries(prior)
    assert all(map(torch.equal, found, queries(fresh)))
    assert found[0].dtype != before[0].dtype or not torch.equal(found[0], before[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, of dual numbers
def test_queries_keep_nothing_of_what_is_traced():
    prior = make("trip").double()
    z = prior.sample(3)
    means, direction = prior.means.detach(), torch.ones_like(prior.means)
    functional = functools.partial(torch.func.functional_call, Called(prior))
    expected = torch.autograd.functional.jvp(lambda m: functional({"prior.means": m}, (z,)), means, direction)[1]
    with torch.no_grad():
        value = prior.log_prob(z)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(means, direction)
            out = torch.autograd.forward_ad.unpack_dual(functional({"prior.means": dual}, (z,)))
        torch.testing.assert_close(out.tangent, expected)
    assert not value.requires_grad and prior.log_prob(z).requires_grad
    tangent = torch.func.jvp(lambda m: functional({"prior.means": m}, (z,)), (means,), (direction,))[1]
    torch.testing.assert_close(tangent.detach(), expected)
    many = torch.func.vmap(lambda m: functional({"prior.means": m}, (z,)))(torch.stack([means, means + 1]))
    torch.testing.assert_close(many[0].detach(), value)
    with torch.no_grad():
        assert torch.equal(prior.log_prob(z), value)


class Called(torch.nn.Module):
    """A prior's log_prob as a module's forward, for `torch.func.functional_call`."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, z):
        return self.prior.log_prob(z)
