"""EM of rings whose cores are small networks."""

import numpy as np
import pytest

import ringdist as rd
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.oracle import Case
from tests.structured import FACTORS, STRUCTURED, TABLES, dense, make_structured

pytestmark = pytest.mark.slow_on("jax")


@pytest.fixture(params=["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def fitted_backend(request):
    return load_backend(request.param)


def epoch(structured, x, weight, pseudocount=0.0):
    """The table after every factor of every core was replaced, by enumeration."""
    case, parts = structured.case, [(kind, dict(factors)) for kind, factors in structured.parts]

    def joint():
        return Case(tuple(dense(*part) for part in parts), case.columns, case.order).joint

    def masses(table):
        return oracle.component_mass(_Table(table, case), x)

    def counted(k, name):
        """Expected counts of a factor's entries, and the derivative of the normaliser."""
        factor = parts[k][1][name]
        counts, model, mass = np.zeros_like(factor), np.zeros_like(factor), masses(joint())
        for place in np.ndindex(factor.shape):
            parts[k][1][name] = np.zeros_like(factor)
            parts[k][1][name][place] = 1.0
            table = joint()
            model[place] = table.sum()
            counts[place] = factor[place] * (weight * masses(table) / mass).sum()
        parts[k][1][name] = factor
        return counts + pseudocount * ((model > 0) & (factor > 0)), model

    cut = case.ranks.index(min(case.ranks))
    places = [(k, name) for k in (*case.order[cut:], *case.order[:cut]) for name in parts[k][1]]
    if case.ranks[cut] == 1:  # all at once, each a conditional distribution
        axes = {"core": (0, 2), "left": 1, "emission": 0, "right": 1}
        for (k, name), (counts, _) in zip(places, [counted(*place) for place in places], strict=True):
            total = counts.sum(axes[name], keepdims=True)
            parts[k][1][name] = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    else:
        for k, name in places:
            counts, model = counted(k, name)
            parts[k][1][name] = np.divide(counts, model, out=np.zeros_like(counts), where=model > 0)
            parts[k][1][name] /= parts[k][1][name].max()
    table = joint()
    return table / table.sum()


class _Table:
    """What `oracle.component_mass` asks of a case."""

    def __init__(self, joint, case):
        self.joint, self.columns, self.d = joint, case.columns, case.d


EM_TABLES = ("full", "shared components", "mixed", "train")


@pytest.mark.parametrize("pseudocount", [0.0, 0.5])
@pytest.mark.parametrize("name", EM_TABLES)
def test_an_epoch_is_that_of_enumeration(fitted_backend, name, pseudocount):
    structured = TABLES[name]
    x = structured.case.possible_rows(12)
    weight = np.random.default_rng(1).integers(0, 4, len(x)).astype(float)
    ring = structured.ring(fitted_backend)
    fit = rd.fit_em(ring, x, sample_weight=weight, max_epochs=1, pseudocount=pseudocount)
    expected = epoch(structured, x, weight, pseudocount)
    assert_close(fitted_backend.numpy(fit.ring.to_dense()), expected, structured)
    rows = structured.case.possible_rows(12)
    with np.errstate(divide="ignore"):
        after = np.log(oracle.component_mass(_Table(expected, structured.case), rows))
    used = weight > 0
    assert_close(fit.history["train"][-1], np.average(after[used], weights=weight[used]), structured)


@pytest.mark.parametrize("name", STRUCTURED)
def test_the_likelihood_never_falls(fitted_backend, name):
    structured = STRUCTURED[name]
    if "laplace" in {c.kind for c in structured.case.columns}:  # its update is a coordinate step of its own
        kinds = [c.kind if c.kind != "laplace" else "gaussian" for c in structured.case.columns]
        patterns = [kind if kind != "cp" else tuple(factors) for kind, factors in structured.parts]
        structured = make_structured(
            patterns, kinds, structured.case.order, train=name == "train", sparsity=0.1, seed=6
        )
    x = structured.case.possible_rows(60)
    ring = structured.ring(fitted_backend)
    fit = rd.fit_em(ring, x, max_epochs=12, variance_floor=0.0)
    history = [float(fitted_backend.numpy(ring.log_prob(fitted_backend.array(x))).mean()), *fit.history["train"]]
    assert (np.diff(history) > -1e-9).all(), (structured, history)
    for before, after in zip(ring.links, fit.ring.links, strict=True):
        assert type(before) is type(after)
        for factor, array in before.arrays().items():
            zero = fitted_backend.numpy(array) == 0
            assert (fitted_backend.numpy(after.arrays()[factor])[zero] == 0).all(), (structured, factor)
    value = fitted_backend.numpy(fit.ring.log_prob(fitted_backend.array(x))).mean()
    assert_close(value, fit.history["train"][-1], structured)


def planted(patterns, n=4000, seed=0, train=True):
    """A table of a ring that gives most of its mass to few configurations, and samples of it."""
    structured = make_structured(patterns, ["categorical"] * len(patterns), train=train, seed=seed)
    sharp = [{name: a**4 for name, a in factors.items()} for _, factors in structured.parts]
    ring = structured.ring(load_backend("numpy"), arrays=sharp)
    return ring, ring.sample(n, rng=seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_planted_train_is_recovered(seed):
    """The fit explains the data as well as the train that they were drawn from, and other data nearly so."""
    truth, x = planted([FACTORS, ("emission", "right"), ("emission", "right"), FACTORS, FACTORS], seed=seed)
    start = rd.initialize(x, truth.variables, 4, topology="train", core="cp", rng=seed)
    fit = rd.fit_em(start, x, max_epochs=300, restarts=3, rng=seed)
    assert fit.history["train"][-1] > truth.log_prob(x).mean() - 0.005, (seed, fit.history["train"][-1])
    assert isinstance(fit.ring.cores[2], rd.CPCore)
    fresh = truth.sample(4000, rng=seed + 100)
    known = np.isfinite(fit.ring.log_prob(fresh))  # what was never seen is impossible
    assert known.mean() > 0.998
    assert fit.ring.log_prob(fresh[known]).mean() > truth.log_prob(fresh[known]).mean() - 0.03


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_a_planted_mixture_is_recovered(topology):
    rng = np.random.default_rng(0)
    weights, tables = np.array([0.5, 0.3, 0.2]), rng.dirichlet([0.3] * 4, (8, 3))  # (d, K, N)
    cluster = rng.choice(3, 3000, p=weights)
    x = np.stack([[rng.choice(4, p=table[c]) for c in cluster] for table in tables], axis=1).astype(float)
    with np.errstate(divide="ignore"):
        joint = np.log(weights) + sum(np.log(t)[:, x[:, k].astype(int)].T for k, t in enumerate(tables))
    truth = np.log(np.exp(joint).sum(1)).mean()
    start = rd.initialize(x, [rd.Categorical(4)] * 8, 3, topology=topology, core="cp", method="mixture", rng=0)
    assert all(isinstance(core, rd.CPCore) for core in start.cores)
    assert start.log_prob(x).mean() > truth - 0.5
    fit = rd.fit_em(start, x, max_epochs=60)
    assert fit.history["train"][-1] > truth - 0.002, (fit.history["train"][-1], truth)
    exact = rd.initialize(x, [rd.Categorical(4)] * 8, 3, core="cp", method="mixture", spread=0.0, rng=0)
    assert exact.log_prob(x).mean() > truth - 0.02


@pytest.mark.parametrize("method", ["quantile", "kmeans", "mixture"])
def test_starts_of_mixed_columns(fitted_backend, method):
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 2, 300)
    x = np.stack([rng.normal(4.0 * cluster), cluster, rng.poisson(3 + 4 * cluster)], axis=1).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    families = [rd.GaussianMixture, rd.Categorical, rd.PoissonMixture]
    start = rd.initialize(
        x, families, 2, num_components=3, core="cp", method=method, rng=0, xp=fitted_backend.xp, topology="train"
    )
    fit = rd.fit_em(start, x, max_epochs=8)
    history = fit.history["train"]
    assert (np.diff(history) > -1e-9).all() and np.isfinite(history).all(), history
    assert fit.ring.is_train and all(isinstance(core, rd.CPCore) for core in fit.ring.cores)


def test_errors_of_starts():
    x = np.random.default_rng(0).integers(0, 3, (20, 4)).astype(float)
    with pytest.raises(ValueError, match="inner must be None"):
        rd.initialize(x, [None] * 4, 2, core="cp", method="mixture", inner=3, rng=0)
    with pytest.raises(ValueError, match="core"):
        rd.initialize(x, [None] * 4, 2, core="tree", rng=0)


@pytest.mark.slow_on("torch")
@pytest.mark.parametrize("name", ["full", "mixed", "train"])
def test_mini_batches_come_near_the_full_batch(fitted_backend, name):
    structured = TABLES[name]
    rng = np.random.default_rng(0)
    x = structured.ring(load_backend("numpy")).sample(600, rng=1)
    x[rng.random(x.shape) < 0.1] = np.nan
    start = rd.TensorRing.random(
        [rd.Categorical(n) for n in structured.case.shape], 2, core="cp", rng=1, xp=fitted_backend.xp, dtype="float64"
    )
    exact = rd.fit_em(start, x, max_epochs=40).history["train"]
    epochs = 40 if fitted_backend.name != "jax" else 5
    damped = rd.fit_em(start, x, max_epochs=epochs, batch_size=100, rng=0, patience=None).history["train"]
    assert damped[-1] > exact[0] and damped[-1] > exact[min(epochs, len(exact)) - 1] - 0.05, (exact[-1], damped[-1])


def test_weights_count_rows(fitted_backend):
    structured = TABLES["full"]
    x, ring = structured.case.possible_rows(10), structured.ring(fitted_backend)
    count = np.random.default_rng(2).integers(0, 3, len(x))
    one = rd.fit_em(ring, x, sample_weight=count.astype(float), max_epochs=3)
    other = rd.fit_em(ring, np.repeat(x, count, axis=0), max_epochs=3)
    assert_close(*(fitted_backend.numpy(fit.ring.to_dense()) for fit in (one, other)), structured)
