"""State dicts of the paper's official TRIP module and of GENTRL's prior, against plain NumPy contractions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from adapters import TRIP, JointTRIP  # noqa: E402
from adapters.interop import trip_from_gentrl, trip_from_official  # noqa: E402


def state_dict(sizes, rank, categorical=(), dtype=np.float64, seed=0):
    """parameters.0, ...: means and log_stds of every continuous variable in turn, then all cores."""
    rng = np.random.default_rng(seed)
    vectors = [[rng.normal(size=n), 0.3 * rng.normal(size=n)] for k, n in enumerate(sizes) if k not in categorical]
    cores = [rng.normal(size=(n, rank, rank)) for n in sizes]
    arrays = [*(v for pair in vectors for v in pair), *cores]
    return {f"parameters.{i}": torch.tensor(a.astype(dtype)) for i, a in enumerate(arrays)}


def reference(state, sizes, x, categorical=(), order=None, closed="trace"):
    """log p(x) of rows x by their definition: squared cores, exp(log_stds) as deviations, NaN marginalised."""
    arrays = [state[f"parameters.{i}"].numpy().astype(np.float64) for i in range(len(state))]
    cores = [core**2 for core in arrays[-len(sizes) :]]
    continuous = [k for k in range(len(sizes)) if k not in categorical]
    normals = {k: (arrays[2 * i], np.exp(arrays[2 * i + 1])) for i, k in enumerate(continuous)}
    close = np.trace if closed == "trace" else np.sum
    order = range(len(sizes)) if order is None else order

    def mass(row):
        product = np.eye(cores[0].shape[1])
        for k in order:
            if np.isnan(row[k]):
                weights = np.ones(sizes[k])
            elif k in normals:
                mean, std = normals[k]
                weights = np.exp(-0.5 * ((row[k] - mean) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
            else:
                weights = np.eye(sizes[k])[int(row[k])]
            product = product @ np.einsum("s,sij->ij", weights, cores[k])
        return close(product)

    return np.log([mass(row) for row in x]) - np.log(mass(np.full(len(sizes), np.nan)))


def rows(sizes, categorical=(), n=12, missing=0.2):
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, s, n) if k in categorical else rng.normal(size=n) for k, s in enumerate(sizes)]
    x = np.stack(columns, 1).astype(np.float64)
    x[rng.random(x.shape) < missing] = np.nan
    return x


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_official_trip(dtype):
    sizes = [3] * 5
    state, x = state_dict(sizes, 4, dtype=dtype), rows(sizes)
    prior = trip_from_official(state)
    assert type(prior) is TRIP and prior.ring.order == (0, 1, 2, 3, 4) and not prior.ring.is_train
    assert prior.means.dtype == state["parameters.0"].dtype
    found = prior.log_prob(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, reference(state, sizes, x), rtol=1e-5 if dtype is np.float32 else 1e-12)


def test_official_trip_with_discrete_variables():
    sizes, categorical = [2, 3, 4, 3, 3], (0, 2)
    state, x = state_dict(sizes, 4, categorical), rows([2, 3, 4, 3, 3], categorical)
    prior = trip_from_official(state, categorical=[2, 0])
    assert type(prior) is JointTRIP and prior.ring.shape == (3, 3, 3, 2, 4)
    z, y = torch.tensor(x[:, [1, 3, 4]]), torch.tensor(x[:, [0, 2]])
    expected = reference(state, sizes, x, categorical)
    np.testing.assert_allclose(prior.log_prob(z, y).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("topology", "closed"), [("train", "sum"), ("ring", "trace")])
@pytest.mark.parametrize("order", [None, [3, 1, 4, 0, 2]])
def test_gentrl(topology, closed, order):
    sizes = [3] * 5
    state, x = state_dict(sizes, 4, seed=2), rows(sizes)
    prior = trip_from_gentrl(state, order=order, topology=topology)
    assert prior.ring.is_train == (topology == "train")
    expected = reference(state, sizes, x, order=order, closed=closed)
    np.testing.assert_allclose(prior.log_prob(torch.tensor(x)).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [None, [1, 3, 0, 2], [0, 1, 3, 2]])
def test_gentrl_with_discrete_variables(order):
    sizes, categorical = [3, 2, 3, 4], (1, 3)
    state, x = state_dict(sizes, 3, categorical, seed=3), rows(sizes, categorical)
    prior = trip_from_gentrl(state, categorical=categorical, order=order)
    z, y = torch.tensor(x[:, [0, 2]]), torch.tensor(x[:, [1, 3]])
    expected = reference(state, sizes, x, categorical, order, "sum")
    np.testing.assert_allclose(prior.log_prob(z, y).detach().numpy(), expected, rtol=1e-12)


def test_gentrl_of_one_variable():
    state, x = state_dict([3], 4), rows([3])
    expected = reference(state, [3], x, closed="sum")
    np.testing.assert_allclose(trip_from_gentrl(state).log_prob(torch.tensor(x)).detach().numpy(), expected, atol=1e-12)


def test_the_state_dict_is_not_written_and_not_shared():
    state = state_dict([3, 3], 2)
    before = {name: tensor.clone() for name, tensor in state.items()}
    prior = trip_from_official(state)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(1)
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def without(state, name):
    return {k: v for k, v in state.items() if k != name}


GOOD = state_dict([3, 3], 2)


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({}, {}, "found 0 tensors"),
        (without(GOOD, "parameters.0"), {}, "names must be parameters.0, parameters.1, ..., found"),
        (without(GOOD, "parameters.5"), {}, "one core per variable, found 5 tensors and 0 discrete"),
        (GOOD, {"categorical": [0]}, "found 6 tensors and 1 discrete variables"),
        (GOOD, {"categorical": [-1]}, "an entry of categorical must be at least 0, found -1"),
        (GOOD | {"parameters.5": torch.zeros(3, 2, 1)}, {}, r"variable 1: a core must have shape \(N, 2, 2\)"),
        (GOOD | {"parameters.2": torch.zeros(4)}, {}, "variable 1: means and log_stds must have as many entries"),
        (state_dict([3, 2], 2), {}, "all continuous variables as many, 3"),
        (GOOD, {"order": [0, 0]}, "order must be a permutation of the 2 variables, found"),
        (GOOD, {"topology": "usual"}, "topology must be one of train, ring, found 'usual'"),
    ],
)
def test_errors_name_rule_and_finding(state, options, message):
    with pytest.raises(ValueError, match=message):
        trip_from_gentrl(state, **options)
