"""Variables whose columns are anywhere in x, beside the same rings with columns in the order of their variables."""

import copy
import json
import pickle

import numpy as np
import pytest

import ringdist as rd
from ringdist.network.layout import Layout
from tests.backends import assert_close, load_backend
from tests.safetensors_files import put_together, taken_apart

pytestmark = pytest.mark.slow_on("jax")

COLUMNS = ((6, 0, 3), (1,), (5, 2), (4,))  # of every variable, those of the wide ones in any order
FLAT = [k for own in COLUMNS for k in own]
D = len(FLAT)
RANKS, ORDER = [2, 3, 2, 4], [2, 0, 3, 1]


def covariances(rng, size, width):
    factors = rng.normal(size=(size, width, width))
    return factors @ factors.mT + 0.3 * np.eye(width)


def variables(seed=0):
    rng = np.random.default_rng(seed)
    return [
        rd.MultivariateGaussianMixture(rng.normal(size=(4, 3)), covariances(rng, 4, 3), names=["a", "b", "c"]),
        rd.Categorical(3, name="kind"),
        rd.MultivariateGaussianMixture(rng.normal(size=(2, 2)), covariances(rng, 2, 2)),
        rd.GaussianMixture(rng.normal(size=2), rng.uniform(0.5, 2.0, size=2), name="e"),
    ]


def pair(backend, seed=0, core="dense"):
    """A ring with scattered columns, and the same with those of its variables side by side."""
    plain = rd.TensorRing.random(variables(seed), rank=RANKS, order=ORDER, core=core, rng=seed)
    ring = rd.TensorRing(plain.cores, plain.variables, plain.order, COLUMNS)
    return tuple(each if backend.name == "numpy" else each.to(backend.xp) for each in (ring, plain))


def rows(n=9, seed=1, missing=0.4):
    """Rows of the scattered ring, some of whose entries are missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    x[:, 1] = rng.integers(3, size=n)
    x[rng.random((n, D)) < missing] = np.nan
    x[0] = np.nan
    return x


def scattered(x):
    """Columns of the consecutive ring as those of the scattered one."""
    return x[..., np.argsort(FLAT)]


# ------------------------------------------------------------------------------------------------------- the layout


def test_what_a_layout_says():
    layout = Layout(variables(), COLUMNS)
    assert layout.columns == COLUMNS
    assert [layout.columns[i][j] for i, j in layout.places] == list(range(D))
    assert layout.names == ("b", "kind", None, "c", "e", None, "a")
    assert not layout.is_consecutive
    consecutive = Layout(variables())
    assert consecutive.columns == ((0, 1, 2), (3,), (4, 5), (6,))
    assert consecutive.is_consecutive
    assert consecutive.in_order is None
    assert Layout(variables(), consecutive.columns).is_consecutive


def test_columns_of_a_ring():
    ring, plain = pair(load_backend("numpy"))
    assert ring.columns == COLUMNS
    assert ring.num_columns == plain.num_columns == D
    assert ring.order == plain.order
    assert ring.place("c") == (0, 2)
    assert ring.column("c") == 3
    assert ring.describe_site(0) == "columns 6, 0, 3 ('a', 'b', 'c')"
    assert rd.TensorRing(ring.cores, ring.variables, ring.order, ring.columns).columns == ring.columns
    named = rd.TensorRing.random(variables(), 2, order=["e", "b", 2, "kind"], columns=COLUMNS, rng=0)
    assert named.order == (3, 0, 2, 1)
    assert named.columns == COLUMNS


def test_an_index_stands_for_one_column():
    ring = rd.TensorRing.random(variables(), 2, columns=[np.array([6, 0, 3]), 1, [5, 2], np.int64(4)], rng=0)
    assert ring.columns == COLUMNS
    assert all(type(k) is int for own in ring.columns for k in own)


def test_variables_of_one_column_each_are_sorted():
    """There sites are columns: variables[k] is the variable of column k."""
    given = [rd.Categorical(2, name="a"), rd.Categorical(3, name="b"), rd.Categorical(4, name="c")]
    plain = rd.TensorRing.random(given, [2, 3, 4], order=[1, 0, 2], rng=0)
    ring = rd.TensorRing(plain.cores, plain.variables, plain.order, [2, 0, 1])
    assert [variable.name for variable in ring.variables] == ["b", "c", "a"]
    assert ring.columns == ((0,), (1,), (2,))
    assert ring.order == (0, 2, 1)
    assert ring.ranks == plain.ranks
    assert_close(ring.to_dense(), np.transpose(plain.to_dense(), (1, 2, 0)), ring)
    drawn = rd.TensorRing.random(given, 2, order=["c", 0, "b"], columns=[2, 0, 1], rng=0)
    assert [variable.name for variable in drawn.variables] == ["b", "c", "a"]
    assert drawn.order == (1, 2, 0)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (((6, 0, 3), 1, (5, 2)), ValueError, "one tuple of indices per variable, found 3 for 4 variables"),
        (((6, 0), 1, (5, 2), (4, 3)), ValueError, r"variable 0 has 3 columns, found \(6, 0\)"),
        (((6, 0, 3), (1, 4), (5,), 2), ValueError, r"variable 1 has 1 columns, found \(1, 4\)"),
        ((6, 1, (5, 2), 4), ValueError, r"variable 0 has 3 columns, found \(6,\)"),
        (((6, 0, 3), 1, (5, 2), 1), ValueError, r"permutation of 0\.\.6, found .*\(6, 0, 3\), \(1,\)"),
        (((7, 0, 3), 1, (5, 2), 4), ValueError, r"permutation of 0\.\.6"),
        (((6, 0, -3), 1, (5, 2), 4), ValueError, r"permutation of 0\.\.6"),
        (((6, 0, 3.0), 1, (5, 2), 4), TypeError, "are indices"),
        (((6, 0, 3), True, (5, 2), 4), TypeError, "index or a tuple|are indices"),
        (((6, 0, 3), 1, "52", 4), TypeError, "index or a tuple"),
        ("abc", TypeError, "one tuple of indices per variable"),
        (7, TypeError, "one tuple of indices per variable"),
    ],
    ids=str,
)
def test_columns_that_do_not_fit(columns, error, message):
    cores = rd.TensorRing.random(variables(), 2, rng=0).cores
    with pytest.raises(error, match=message):
        rd.TensorRing(cores, variables(), None, columns)
    with pytest.raises(error, match=message):
        rd.TensorRing.random(variables(), 2, columns=columns, rng=0)
    with pytest.raises(error, match=message):
        rd.initialize(rows(), variables(), 2, columns=columns, rng=0)


# ---------------------------------------------------------------------------------------------------------- queries


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


# ------------------------------------------------------------------------------------------------------------ files


def test_files(tmp_path):
    ring, plain = pair(load_backend("numpy"))
    ring.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring")
    assert again.columns == COLUMNS
    assert_close(again.log_prob(rows()), ring.log_prob(rows()), again)
    description = taken_apart((tmp_path / "ring").read_bytes()).ring
    assert description["version"] == 3
    assert description["columns"] == [list(own) for own in COLUMNS]
    plain.save(tmp_path / "plain")
    description = taken_apart((tmp_path / "plain").read_bytes()).ring
    assert description["version"] == 2, "a file of columns in the order of variables is readable as before"
    assert "columns" not in description
    assert rd.load(tmp_path / "plain").columns == plain.columns


@pytest.mark.parametrize("columns", [[[6, 0], [1], [5, 2], [4, 3]], [[6, 0, 3], [1], [5, 2], [1]], None, [[0]] * 4])
def test_files_of_columns_that_do_not_fit(tmp_path, columns):
    ring, _ = pair(load_backend("numpy"))
    ring.save(tmp_path / "ring")
    contents = taken_apart((tmp_path / "ring").read_bytes())
    contents.metadata["ring"] = json.dumps({**contents.ring, "columns": columns})
    (tmp_path / "ring").write_bytes(put_together(contents))
    with pytest.raises(ValueError, match="column"):
        rd.load(tmp_path / "ring")


def test_states_of_older_pickles():
    _, plain = pair(load_backend("numpy"))
    state = plain.__getstate__()
    del state["scattered"]
    again = object.__new__(rd.TensorRing)
    again.__setstate__(state)
    assert again.columns == plain.columns


# ------------------------------------------------------------------------------------------------- mixtures of rings


def members(backend):
    """Three rings over the same columns: one scattered layout, another, and one without a wide variable."""
    ring, _ = pair(backend)
    names = ["b", "kind", None, "c", "e", None, "a"]
    rng = np.random.default_rng(7)
    wide = rd.MultivariateGaussianMixture(rng.normal(size=(2, 2)), covariances(rng, 2, 2), names=["b", "e"])
    single = [rd.GaussianMixture(rng.normal(size=3), rng.uniform(0.5, 1.5, size=3), name=name) for name in names]
    kind = rd.Categorical(3, name="kind")
    other = rd.TensorRing.random(
        [wide, kind, *(single[k] for k in (2, 3, 5, 6))], 2, columns=[(0, 4), 1, 2, 3, 5, 6], rng=3
    )
    narrow = rd.TensorRing.random([kind if k == 1 else single[k] for k in range(D)], 3, rng=4)
    return [ring, *(each if backend.name == "numpy" else each.to(backend.xp) for each in (other, narrow))]


def mixture(backend):
    return rd.RingMixture(members(backend), [0.5, 0.2, 0.3])


def test_mixture_densities_and_posteriors(backend):
    rings, whole = members(backend), mixture(backend)
    x = backend.array(rows())
    logs = np.stack([backend.numpy(ring.log_prob(x)) for ring in rings], axis=1) + np.log([0.5, 0.2, 0.3])
    assert_close(backend.numpy(whole.log_prob(x)), np.logaddexp.reduce(logs, axis=1), whole)
    shares = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
    assert_close(backend.numpy(whole.ring_posterior(x)), shares, whole)
    kind = sum(s[:, None] * backend.numpy(r.component_posterior(1, x)) for s, r in zip(shares.T, rings, strict=True))
    assert_close(backend.numpy(whole.component_posterior("kind", x)), kind, whole)
    assert whole.component_posterior(0, x).shape == (len(x), sum(r.shape[r.place(0)[0]] for r in rings))
    event = {"c": rd.Interval(0.0, 1.0), "kind": {0, 1}}
    expected = sum(w * backend.numpy(ring.probability(event)) for w, ring in zip([0.5, 0.2, 0.3], rings, strict=True))
    assert_close(backend.numpy(whole.probability(event)), expected, whole)


def test_mixture_moments_and_quantiles(backend):
    rings, whole = members(backend), mixture(backend)
    means = [backend.numpy(ring.mean()) for ring in rings]
    assert_close(backend.numpy(whole.mean()), np.array([0.5, 0.2, 0.3]) @ means, whole)
    centre = np.array([0.5, 0.2, 0.3]) @ means
    expected = sum(
        w * (backend.numpy(ring.covariance()) + np.outer(m - centre, m - centre))
        for w, ring, m in zip([0.5, 0.2, 0.3], rings, means, strict=True)
    )
    assert_close(backend.numpy(whole.covariance()), expected, whole, atol=1e-9)
    x = rows()
    for k in (0, 1, 2, 4):
        quantile = backend.numpy(whole.quantile(k, 0.4, backend.array(x)))
        x_there = np.where(np.arange(D) == k, quantile[:, None], x)
        reached = backend.numpy(whole.cdf(k, backend.array(x_there)))
        if k == 1:
            assert (reached >= 0.4 - 1e-9).all()
        else:
            assert_close(reached, np.full(len(x), 0.4), (whole, k), atol=1e-9)


def test_quantiles_of_rows_by_levels_in_a_mixture():
    whole = mixture(load_backend("numpy"))
    x, levels = rows(), np.array([[0.1], [0.8]])
    both = whole.quantile(0, levels, x)
    assert both.shape == (2, len(x))
    assert_close(both[1], whole.quantile(0, 0.8, x), whole)


def test_mixture_transforms(backend, tmp_path):
    whole = mixture(backend)
    x = rows()
    kept = [0, 1, 4, 6]
    some = np.where(np.isin(np.arange(D), kept), x, np.nan)
    actual, expected = whole.marginal(kept).log_prob(backend.array(x[:, kept])), whole.log_prob(backend.array(some))
    assert_close(backend.numpy(actual), backend.numpy(expected), whole, atol=1e-9)
    conditional = whole.condition({"b": 0.2, "kind": 1})
    full, alone = x.copy(), np.full(D, np.nan)
    full[:, [0, 1]] = alone[[0, 1]] = 0.2, 1
    expected = whole.log_prob(backend.array(full)) - whole.log_prob(backend.array(alone))
    actual = conditional.log_prob(backend.array(x[:, 2:]))
    assert_close(backend.numpy(actual), backend.numpy(expected), conditional, atol=1e-9)
    columns = np.random.default_rng(3).permutation(D).tolist()
    actual = whole.permute(columns).log_prob(backend.array(x[:, columns]))
    assert_close(backend.numpy(actual), backend.numpy(whole.log_prob(backend.array(x))), whole, atol=1e-9)
    whole.save(tmp_path / "mixture")
    again = rd.load(tmp_path / "mixture")
    assert [ring.columns for ring in again.rings] == [ring.columns for ring in whole.rings]
    assert_close(again.log_prob(x), backend.numpy(whole.log_prob(backend.array(x))), again)


def test_mixture_samples_and_modes(backend):
    whole = mixture(backend)
    x = rows(4)
    drawn = backend.numpy(whole.sample(4000, rng=0))
    spread = np.sqrt(np.diag(backend.numpy(whole.covariance())) / 4000)
    assert (np.abs(drawn.mean(axis=0) - backend.numpy(whole.mean())) < 5 * spread).all()
    drawn = backend.numpy(whole.sample_given(backend.array(x), 5, event={"c": rd.Interval(-5, 5)}, rng=0))
    seen = ~np.isnan(x)
    assert_close(drawn[:, seen], np.broadcast_to(x, drawn.shape)[:, seen], whole)
    best = backend.numpy(whole.mode(backend.array(x)))
    assert_close(best[seen], x[seen], whole)
    at_best, at_drawn = (backend.numpy(whole.log_prob(backend.array(each))) for each in (best, drawn[0]))
    assert (at_best >= at_drawn - 1e-9).all()


def test_queries_of_mixtures_that_need_one_layout():
    whole = mixture(load_backend("numpy"))
    with pytest.raises(ValueError, match="the same columns at each variable"):
        whole.mutual_information()
    assert rd.RingMixture([whole.rings[0]] * 2, [0.5, 0.5]).mutual_information().shape == (4, 4)
    event = {"b": rd.Interval(0, 1), "e": rd.Interval(0, 1)}
    weights, parts = np.asarray(whole.weights), [ring.probability(event) for ring in whole.rings]
    np.testing.assert_allclose(whole.probability(event), weights @ np.array(parts), rtol=1e-10)


def test_rings_of_other_columns_are_refused():
    ring, plain = pair(load_backend("numpy"))
    with pytest.raises(ValueError, match="rings must have the same columns"):
        rd.RingMixture([ring, plain], [0.5, 0.5])


# ---------------------------------------------------------------------------------------------------------- learning


def data(n=300, seed=2, missing=0.1):
    ring, _ = pair(load_backend("numpy"), seed)
    x = ring.sample(n, rng=seed)
    rng = np.random.default_rng(seed)
    x[rng.random(x.shape) < missing] = np.nan
    return x


FAMILIES = [rd.MultivariateGaussianMixture, rd.Categorical(3), rd.MultivariateGaussianMixture, None]


@pytest.mark.parametrize(
    "options",
    [
        {"topology": "train", "core": "cp", "method": "mixture"},
        {"topology": "train", "core": "dense"},
        {"topology": "ring"},
        {"topology": "ring", "core": "cp", "method": "mixture"},
    ],
    ids=str,
)
def test_em_of_scattered_columns_is_that_of_consecutive_ones(options):
    x = data()
    names = [[None] * 3, None, [None] * 2, None]
    start = rd.initialize(x, FAMILIES, 3, num_components=3, columns=COLUMNS, rng=0, **options)
    assert start.columns == COLUMNS
    assert [variable.name for variable in start.variables] == [None] * len(names)
    plain = rd.TensorRing(start.cores, start.variables, start.order)
    assert_close(start.log_prob(x), plain.log_prob(x[:, FLAT]), start)
    found, expected = (rd.fit_em(each, y, max_epochs=4) for each, y in ((start, x), (plain, x[:, FLAT])))
    assert found.ring.columns == COLUMNS
    assert_close(found.history["train"], expected.history["train"], found.ring)
    assert (np.diff(found.history["train"]) > -1e-9).all()
    assert_close(found.ring.mean(), scattered(expected.ring.mean()), found.ring)


def test_initialize_places_components_on_the_columns_of_each_variable():
    x = data()
    start = rd.initialize(x, FAMILIES, 2, num_components=1, columns=COLUMNS, rng=0)
    observed = x[:, [6, 0, 3]]
    assert_close(start.variables[0].means()[0], np.nanmean(observed, axis=0), start, rtol=0.1, atol=0.1)


def test_initialize_of_variables_of_one_column_each():
    x = data()[:, [1, 4, 0]]
    columns = [2, 0, 1]
    kinds = [rd.GaussianMixture, rd.Categorical(3, name="kind"), rd.GaussianMixture]
    for method in ("quantile", "mixture"):
        start = rd.initialize(x, kinds, 2, columns=columns, order=[2, 0, 1], method=method, rng=0)
        same = rd.initialize(x, [kinds[1], kinds[2], kinds[0]], 2, order=[1, 2, 0], method=method, rng=0)
        assert start.variables[0].name == "kind"
        assert start.order == same.order
        assert_close(start.log_prob(x), same.log_prob(x), start)


def test_initialize_checks_the_table():
    with pytest.raises(ValueError, match=r"x must have shape \(n, 7\)"):
        rd.initialize(data()[:, :6], FAMILIES, 2, columns=COLUMNS, rng=0)
    with pytest.raises(ValueError, match="variable 0 has 2 or more columns"):
        rd.initialize(data(), FAMILIES, 2, columns=[6, 1, (5, 2), (4, 0, 3)], rng=0)


def test_mini_batches_and_gradients():
    torch = pytest.importorskip("torch")
    x = data()
    start = rd.initialize(x, FAMILIES, 2, num_components=2, columns=COLUMNS, rng=0)
    ring, _ = rd.fit_em(start, x, batch_size=100, max_epochs=2, rng=0)
    assert ring.columns == COLUMNS
    ring, history = rd.fit_gradient(start.to(torch), x, lambda p: torch.optim.Adam(p, lr=0.02), max_epochs=5)
    assert ring.columns == COLUMNS
    assert history["train"][-1] > history["train"][0]


def test_least_standard_deviations_are_by_column():
    x = data(missing=0)
    x[:, 3], x[:, 4] = x[:, 0], 2.5
    least = [0.1, None, None, 0.4, 0.7, None, 0.2]
    for columns, variables_ in ((COLUMNS, FAMILIES), (None, [None] * D)):
        start = rd.initialize(x, variables_, 2, num_components=2, columns=columns, topology="train", rng=0)
        ring, _ = rd.fit_em(start, x, max_epochs=3, least_stds=least)
        for k, value in enumerate(least):
            i, place = ring.place(k)
            if value is not None:
                spread = np.asarray(ring.variables[i].variances()).reshape(ring.shape[i], -1)[:, place]
                assert (spread >= value**2 * (1 - 1e-6)).all(), (columns, k)
    with pytest.raises(ValueError, match="each of 7 columns, found 4"):
        rd.fit_em(rd.initialize(x, FAMILIES, 2, columns=COLUMNS, rng=0), x, least_stds=[0.1] * 4)
    with pytest.raises(ValueError, match="column 3: least_stds"):
        rd.fit_em(rd.initialize(x, FAMILIES, 2, columns=COLUMNS, rng=0), x, least_stds=[None] * 3 + [-1.0] + [None] * 3)


@pytest.mark.parametrize("least", [None, [0.2] * D])
def test_em_of_a_mixture_of_different_layouts(least):
    x = data()
    rings = [
        rd.initialize(x, FAMILIES, 2, num_components=2, columns=COLUMNS, topology="train", rng=0),
        rd.initialize(x, [None, rd.Categorical(3), *[None] * 5], 2, num_components=2, topology="train", rng=1),
    ]
    found, history = rd.fit_em(rd.RingMixture(rings, [0.5, 0.5]), x, max_epochs=4, least_stds=least)
    assert [ring.columns for ring in found.rings] == [ring.columns for ring in rings]
    assert history["train"][-1] > history["train"][0]


# ---------------------------------------------------------------------------------------------------------- orderings


def test_dependence_and_order():
    x = data(2000)
    ring, _ = pair(load_backend("numpy"))
    found = rd.ordering.dependence(x, ring.variables, COLUMNS)
    assert_close(found, rd.ordering.dependence(x[:, FLAT], ring.variables), ring)
    narrow = [rd.GaussianMixture([0.0], [1.0])] * 2
    two = x[:, [0, 3]]
    assert_close(
        rd.ordering.dependence(two, [*narrow], [1, 0]), rd.ordering.dependence(two[:, ::-1], narrow), "swapped"
    )
    order = rd.ordering.mutual_information(x, ring.variables, "train", columns=COLUMNS)
    assert order == rd.ordering.mutual_information(x[:, FLAT], ring.variables, "train")
    with pytest.raises(ValueError, match="variable 0 has 3 columns"):
        rd.ordering.dependence(x, ring.variables, [(0, 1), 2, (3, 4, 5), 6])
