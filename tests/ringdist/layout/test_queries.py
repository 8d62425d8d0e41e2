"""Queries of scattered columns are those of the same columns in the order of their variables."""

import copy
import pickle

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.layout.cases import COLUMNS, FLAT, D, pair, rows, scattered

pytestmark = pytest.mark.slow_on("jax")


@pytest.mark.parametrize("engine", ["auto", "sweep", "tree", "log", "opt_einsum"])
def test_log_prob(backend, engine):
    ring, plain = pair(backend)
    x = rows()
    actual = ring.log_prob(backend.array(x), engine=engine)
    expected = plain.log_prob(backend.array(x[:, FLAT]), engine=engine)
    assert_close(backend.numpy(actual), backend.numpy(expected), ring)
    assert_close(backend.numpy(ring.log_normalizer()), backend.numpy(plain.log_normalizer()), ring)


def test_posteriors(backend):
    ring, plain = pair(backend)
    x = rows()
    given, other = backend.array(x), backend.array(x[:, FLAT])
    points = np.where(np.isnan(x), 0.3, x)
    for k in range(D):
        place = FLAT.index(k)
        actual, expected = ring.component_posterior(k, given), plain.component_posterior(place, other)
        assert_close(backend.numpy(actual), backend.numpy(expected), (ring, k))
        here = np.where(np.arange(D) == k, points, x)
        actual = ring.cdf(k, backend.array(here))
        expected = plain.cdf(place, backend.array(here[:, FLAT]))
        assert_close(backend.numpy(actual), backend.numpy(expected), (ring, k))
        actual, expected = ring.quantile(k, 0.3, given), plain.quantile(place, 0.3, other)
        assert_close(backend.numpy(actual), backend.numpy(expected), (ring, k), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("core", ["dense", "cp"])
def test_moments(backend, core):
    ring, plain = pair(backend, core=core)
    x = rows()
    assert_close(backend.numpy(ring.mean()), scattered(backend.numpy(plain.mean())), ring)
    actual, expected = ring.mean(backend.array(x)), plain.mean(backend.array(x[:, FLAT]))
    assert_close(backend.numpy(actual), scattered(backend.numpy(expected)), ring)
    place = np.argsort(FLAT)
    covariance = backend.numpy(plain.covariance())[np.ix_(place, place)]
    assert_close(backend.numpy(ring.covariance()), covariance, ring, atol=1e-9)
    assert_close(backend.numpy(ring.mutual_information()), backend.numpy(plain.mutual_information()), ring)


def test_a_mean_leaves_complete_rows(backend):
    ring, _ = pair(backend)
    x = rows(missing=0)[1:]
    assert_close(backend.numpy(ring.mean(backend.array(x))), x, ring)


def test_samples(backend):
    ring, plain = pair(backend)
    actual, expected = (backend.numpy(each.sample(50, rng=3)) for each in (ring, plain))
    assert_close(actual, scattered(expected), ring)


def test_samples_given(backend):
    ring, plain = pair(backend)
    x = rows()
    actual = backend.numpy(ring.sample_given(backend.array(x), 5, rng=3))
    expected = backend.numpy(plain.sample_given(backend.array(x[:, FLAT]), 5, rng=3))
    assert_close(actual, scattered(expected), ring)
    seen = ~np.isnan(x)
    assert_close(actual[:, seen], np.broadcast_to(x, actual.shape)[:, seen], ring)


def test_events(backend):
    ring, plain = pair(backend)
    x, event = rows(), {"c": rd.Interval(-0.5, 1.0), 5: rd.Interval(0.0, None), "kind": {0, 2}}
    x[:, [3, 5, 1]] = np.nan
    other = {"c": event["c"], FLAT.index(5): event[5], "kind": event["kind"]}
    given, permuted = backend.array(x), backend.array(x[:, FLAT])
    actual, expected = ring.probability(event, given), plain.probability(other, permuted)
    assert_close(backend.numpy(actual), backend.numpy(expected), ring)
    assert_close(backend.numpy(ring.probability(event)), backend.numpy(plain.probability(other)), ring)
    drawn = backend.numpy(ring.sample_given(given, 20, event=event, rng=2))
    assert_close(drawn, scattered(backend.numpy(plain.sample_given(permuted, 20, event=other, rng=2))), ring)
    assert ((drawn[..., 3] >= -0.5) & (drawn[..., 3] <= 1.0) & (drawn[..., 5] >= 0)).all()
    two = {0: rd.Interval(0, 1), 6: rd.Interval(0, 1)}  # of one variable
    other = {FLAT.index(k): interval for k, interval in two.items()}
    assert_close(backend.numpy(ring.probability(two)), backend.numpy(plain.probability(other)), ring)


def test_mode(backend):
    ring, plain = pair(backend)
    x = rows(4)
    actual, expected = ring.mode(backend.array(x)), plain.mode(backend.array(x[:, FLAT]))
    assert_close(backend.numpy(actual), scattered(backend.numpy(expected)), ring)


@pytest.mark.parametrize("keep", [[0, 2, 4], ["a", "c"], [6, 1, 3, 5], [5], [6, 3], [2, 5], [4, 1], list(range(D))])
def test_marginal(backend, keep):
    ring, _ = pair(backend)
    kept = sorted(ring.column(k) for k in keep)
    x = rows()
    some = np.where(np.isin(np.arange(D), kept), x, np.nan)
    marginal = ring.marginal(keep)
    assert marginal.num_columns == len(kept)
    assert [marginal.layout.names[n] for n in range(len(kept))] == [ring.layout.names[k] for k in kept]
    actual, expected = marginal.log_prob(backend.array(x[:, kept])), ring.log_prob(backend.array(some))
    assert_close(backend.numpy(actual), backend.numpy(expected), marginal, atol=1e-9)


@pytest.mark.parametrize(
    "evidence",
    [{0: 0.3}, {"kind": 1}, {6: 0.1, 5: -0.4}, {0: 0.3, 3: 1.0, 6: -0.2}, {2: 0.5, 5: 0.1, "e": 1.0, "kind": 2}],
    ids=str,
)
def test_condition(backend, evidence):
    ring, _ = pair(backend)
    values = {ring.column(k): value for k, value in evidence.items()}
    left = [k for k in range(D) if k not in values]
    x = rows()
    for k, value in values.items():
        x[:, k] = value
    conditional = ring.condition(evidence)
    assert conditional.layout.names == tuple(ring.layout.names[k] for k in left)
    alone = np.where(np.isin(np.arange(D), left), np.nan, x[:1])
    expected = ring.log_prob(backend.array(x)) - ring.log_prob(backend.array(alone))
    actual = conditional.log_prob(backend.array(x[:, left]))
    assert_close(backend.numpy(actual), backend.numpy(expected), conditional, atol=1e-9)


def test_condition_on_an_event_and_values(backend):
    ring, _ = pair(backend)
    conditional = ring.condition({6: 0.2, 0: 0.1, "c": rd.Interval(0.0, None), "kind": {1, 2}})
    assert conditional.num_columns == D - 2
    x = rows()[:, [1, 2, 3, 4, 5]]
    x[:, 2], x[:, 0] = 0.7, 2
    full = np.insert(np.insert(x, 0, 0.1, axis=1), 6, 0.2, axis=1)
    alone = np.full((1, D), np.nan)
    alone[0, [0, 6]] = 0.1, 0.2
    event = ring.probability({"c": rd.Interval(0.0, None), "kind": {1, 2}}, backend.array(alone), log=True)
    expected = ring.log_prob(backend.array(full)) - ring.log_prob(backend.array(alone)) - event
    assert_close(backend.numpy(conditional.log_prob(backend.array(x))), backend.numpy(expected), conditional, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_permute(backend, seed):
    """Any renumbering, also one that separates the columns of a wide variable."""
    columns = np.random.default_rng(seed).permutation(D).tolist()
    for ring, x in zip(pair(backend), (rows(), rows()[:, FLAT]), strict=True):
        permuted = ring.permute(columns)
        assert permuted.layout.names == tuple(ring.layout.names[k] for k in columns)
        actual, expected = permuted.log_prob(backend.array(x[:, columns])), ring.log_prob(backend.array(x))
        assert_close(backend.numpy(actual), backend.numpy(expected), permuted)
        assert permuted.permute(np.argsort(columns).tolist()).layout.names == ring.layout.names


def test_permute_to_consecutive_columns():
    ring, plain = pair(load_backend("numpy"))
    permuted = ring.permute(FLAT)
    assert permuted.layout.is_consecutive
    assert permuted.variables == ring.variables
    assert_close(permuted.mean(), plain.mean(), permuted)
    with pytest.raises(ValueError, match="permutation"):
        ring.permute([0, 0, *range(2, D)])


def test_inner_product(backend):
    ring, plain = pair(backend)
    other, plain_other = pair(backend, seed=5)
    expected = backend.numpy(plain.inner(plain_other))
    assert_close(backend.numpy(ring.inner(other)), expected, ring)
    columns = list(range(D))
    assert_close(backend.numpy(ring.inner(other.permute(columns))), expected, ring)
    assert_close(backend.numpy(ring.permute(columns).inner(other)), expected, ring)
    with pytest.raises(ValueError, match="columns"):
        ring.inner(plain_other)


def test_other_forms(backend):
    ring, plain = pair(backend, core="cp")
    x = backend.array(rows())
    expected = backend.numpy(ring.log_prob(x))
    others = {
        "dense": ring.dense(),
        "train": ring.to_train(),
        "detached": ring.detach(),
        "copy": copy.copy(ring),
        "deep copy": copy.deepcopy(ring),
        "pickle": pickle.loads(pickle.dumps(ring)),
        "values": ring.with_values(ring.links),
        "replaced": ring.replaced(1, ring.links[1], ring.variables[1]),
    }
    for label, other in others.items():
        assert other.columns == COLUMNS, label
        assert_close(backend.numpy(other.log_prob(x)), expected, (label, other), atol=1e-9)
    single = ring.to(dtype="float32")
    assert single.columns == COLUMNS
    assert ring.einsum(open=["c", "kind"])[0] == plain.einsum(open=["c", "kind"])[0]


def test_networks():
    import tensornetwork

    ring, _ = pair(load_backend("numpy"))
    point = rows()[3]
    value = tensornetwork.contractors.auto(ring.to_tensornetwork(point)).tensor
    assert_close(np.log(value), ring.log_prob(point) + ring.log_normalizer(), ring)
    again = rd.TensorRing.from_tensornetwork(ring.to_tensornetwork(), ring.variables, ring.columns)
    assert_close(again.log_prob(rows()), ring.log_prob(rows()), again)


def test_entropy_and_divergence():
    ring, plain = pair(load_backend("numpy"))
    other, _ = pair(load_backend("numpy"), seed=5)
    assert_close(ring.entropy(200, rng=0), plain.entropy(200, rng=0), ring)
    permuted = other.permute(FLAT).permute(np.argsort(FLAT).tolist())
    assert_close(rd.compare.kl(ring, other, rows()), rd.compare.kl(ring, permuted, rows()), ring, atol=1e-9)
    with pytest.raises(ValueError, match=r"the same columns|one space"):
        rd.compare.kl(ring, plain, rows())


def test_pathwise_samples_with_evidence_in_wide_columns():
    backend = load_backend("torch")
    ring, _ = pair(backend)
    x = ring.sample(6, rng=0)
    given = x.clone()
    given[:, 4] = float("nan")
    assert_close(backend.numpy(ring.pathwise(x, given)), backend.numpy(x), ring)


def test_values_outside_the_support_name_their_column():
    ring, _ = pair(load_backend("numpy"))
    x = rows(3)
    x[1, 1] = 3.0
    with pytest.raises(ValueError, match=r"column 1 \('kind'\)"):
        ring.log_prob(x)
    x = rows(3)
    x[1, 3] = np.inf
    with pytest.raises(ValueError, match=r"column 3 \('c'\)"):
        ring.log_prob(x)


@pytest.mark.slow
def test_tracing():
    jax = pytest.importorskip("jax")
    backend = load_backend("jax")
    ring, _ = pair(backend)
    x = backend.array(rows())
    leaves, structure = jax.tree_util.tree_flatten(ring)
    assert jax.tree_util.tree_unflatten(structure, leaves).columns == COLUMNS
    actual = jax.jit(lambda each, points: each.log_prob(points))(ring, x)
    assert_close(backend.numpy(actual), backend.numpy(ring.log_prob(x)), ring)


@pytest.mark.slow
def test_torch_compile():
    torch = pytest.importorskip("torch")
    backend = load_backend("torch")
    ring, _ = pair(backend)
    x = backend.array(rows())
    compiled = torch.compile(lambda points: ring.log_prob(points), backend="eager")
    assert_close(backend.numpy(compiled(x)), backend.numpy(ring.log_prob(x)), ring)
