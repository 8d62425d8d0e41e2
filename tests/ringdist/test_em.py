"""Exact EM: against enumeration, monotone, and the same whatever way its sums are taken."""

import itertools
import tracemalloc

import numpy as np
import pytest

import ringdist as rd
from ringdist.engines import budget
from ringdist.learning import coordinatewise, em
from ringdist.learning import data as learning_data
from tests.backends import assert_close, load_backend
from tests.families import LaplaceMixture
from tests.oracle import KINDS, MIXED, TABLE, TRAIN, Case, Column, make_case

STREAMED = make_case(["categorical", "gaussian", "poisson"], [3, 2, 3], [2, 3, 2], [1, 0, 2], seed=5)


@pytest.fixture(params=["numpy", "torch", "torch-cuda"])
def backend(request):
    return load_backend(request.param)


def weights(n: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 4, n).astype(float)


def arrays(ring: rd.TensorRing) -> list:
    return [*ring.cores, *(array for v in ring.variables for array in v.arrays().values())]


def numbers(backend, ring: rd.TensorRing) -> list[np.ndarray]:
    return [backend.numpy(array) for array in arrays(ring)]


def assert_equal_rings(backend, ring, other, rtol: float = 0.0):
    for a, b in zip(numbers(backend, ring), numbers(backend, other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 1e-3)


# -------------------------------------------------------------------------------------- the update, by enumeration


def enumerated(case: Case, k: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every row the mass of each (s_k, a_k, a_{k+1}), (n, N, m, m'), and the same of the normaliser (N, m, m').

    A sum over all configurations of the components and of the bonds, one after another.
    """
    density = [column.density(x[:, j]) for j, column in enumerate(case.columns)]
    counts, model = np.zeros((len(x), *case.cores[k].shape)), np.zeros(case.cores[k].shape)
    left = {column: j for j, column in enumerate(case.order)}
    for s in itertools.product(*map(range, case.shape)):
        given = np.prod([density[j][:, s[j]] for j in range(case.d)], axis=0)
        for bonds in itertools.product(*map(range, case.ranks)):
            ends = [(bonds[left[j]], bonds[(left[j] + 1) % case.d]) for j in range(case.d)]
            mass = np.prod([case.cores[j][(s[j], *ends[j])] for j in range(case.d)])
            counts[(slice(None), s[k], *ends[k])] += mass * given
            model[(s[k], *ends[k])] += mass
    return counts, model


def em_epoch(case: Case, x: np.ndarray, weight: np.ndarray, pseudocount: float = 0.0, step: float = 1.0) -> Case:
    """All cores of a train at once; of a ring one after the other, from the thinnest bond on."""
    cut = case.ranks.index(min(case.ranks))
    if case.ranks[cut] == 1:
        return train_epoch(case, x, weight, pseudocount, step)
    cores, columns = list(case.cores), list(case.columns)
    for k in case.order[cut:] + case.order[:cut]:
        counts, model = enumerated(Case(tuple(cores), tuple(columns), case.order), k, x)
        share = counts * (weight / counts.sum((1, 2, 3)))[:, None, None, None]
        expected, share_of_model = share.sum(0), model / model.sum()
        if step < 1:
            expected = (1 - step) * share_of_model + step * expected / weight.sum()
        reached = model > 0
        expected = expected + pseudocount * reached * (step / weight.sum() if step < 1 else 1)
        # Q ← C / G, with the environment G = model / Q independent of s
        environment = model.sum(0) / np.where(cores[k].sum(0) > 0, cores[k].sum(0), 1.0)
        old = cores[k]
        cores[k] = np.where(environment > 0, expected / np.where(environment > 0, environment, 1.0), 0.0)
        assert (cores[k][:, old.sum(0) == 0] == 0).all()
        columns[k] = updated(columns[k], x[:, k], share.sum((2, 3)), share_of_model.sum((1, 2)), step, weight.sum())
    return Case(tuple(cores), tuple(columns), case.order)


def train_epoch(case: Case, x: np.ndarray, weight: np.ndarray, pseudocount: float, step: float) -> Case:
    """Every core the conditional distribution p(s, a_{k+1} | a_k) of its expected counts."""
    cores, columns = list(case.cores), list(case.columns)
    for k in range(case.d):
        counts, model = enumerated(case, k, x)
        share = counts * (weight / counts.sum((1, 2, 3)))[:, None, None, None]
        expected, share_of_model = share.sum(0), model / model.sum()
        prior = pseudocount * (model > 0)
        if step < 1:
            expected = (1 - step) * share_of_model + step * (expected + prior) / weight.sum()
        else:
            expected = expected + prior
        total = expected.sum((0, 2), keepdims=True)
        cores[k] = np.divide(expected, total, out=np.zeros_like(expected), where=total > 0)
        columns[k] = updated(columns[k], x[:, k], share.sum((2, 3)), share_of_model.sum((1, 2)), step, weight.sum())
    return Case(tuple(cores), tuple(columns), case.order)


def updated(column: Column, x: np.ndarray, r: np.ndarray, prior: np.ndarray, step: float, total: float) -> Column:
    """The column of highest expected log-likelihood, or between the model's moments and the data's."""
    seen = ~np.isnan(x)
    x, r = x[seen], r[seen]
    if column.kind == "categorical" or not len(x):
        return column
    if column.kind == "laplace":
        family = load_backend("numpy").variable(column).update(x, r)
        return Column(column.kind, column.num_components, family.arrays(), column.name)
    first, second = column.means(), column.variances() + column.means() ** 2
    old = (1 - step) * prior * (r.sum() / total)
    r = r * (1.0 if step == 1 else step / total)
    old = old * (step < 1)
    count = old + r.sum(0)
    mean = (old * first + r.T @ x) / count
    if column.kind == "poisson":
        return Column(column.kind, column.num_components, {"rates": mean}, column.name)
    variance = (old * second + r.T @ x**2) / count - mean**2
    return Column(column.kind, column.num_components, {"means": mean, "stds": np.sqrt(variance)}, column.name)


def assert_is_case(backend, ring, case: Case):
    """Equal probabilities of components and bonds: a bond's scales may lie on either side. Equal parameters."""
    found = Case(tuple(backend.numpy(core) for core in ring.cores), case.columns, case.order)
    nothing = np.full((1, case.d), np.nan)
    for k in range(case.d):
        shares, expected = (enumerated(each, k, nothing)[1] for each in (found, case))
        assert_close(shares / shares.sum(), expected / expected.sum(), case, rtol=1e-7, atol=1e-10)
        if min(case.ranks) > 1:
            assert found.cores[k].max() == pytest.approx(1)
        for name, array in ring.variables[k].arrays().items():
            assert_close(backend.numpy(array), case.columns[k].parameters[name], case, rtol=1e-7)


@pytest.mark.parametrize("pseudocount", [0.0, 0.3])
@pytest.mark.parametrize("case", [TABLE, TRAIN, STREAMED, MIXED], ids=["table", "train", "streamed", "mixed"])
def test_an_epoch_is_that_of_enumeration(backend, case, pseudocount):
    x = case.possible_rows(14 if case is not MIXED else 10, missing=0.2)
    weight = weights(len(x)) + 0.5
    fitted = rd.fit_em(
        backend.ring(case),
        backend.array(x),
        sample_weight=weight,
        max_epochs=1,
        pseudocount=pseudocount,
        variance_floor=0,
    )
    assert_is_case(backend, fitted.ring, em_epoch(case, x, weight, pseudocount))


@pytest.mark.parametrize("case", [TABLE, STREAMED, TRAIN], ids=["table", "streamed", "train"])
def test_a_damped_step_is_that_of_enumeration(backend, case):
    x = case.possible_rows(12, missing=0.2)
    fitted = rd.fit_em(
        backend.ring(case), x, max_epochs=1, batch_size=len(x), pseudocount=0.2, step_decay=0.7, variance_floor=0, rng=0
    )
    assert_is_case(backend, fitted.ring, em_epoch(case, x, np.ones(len(x)), 0.2, step=2**-0.7))


def test_small_steps_do_not_gather_pseudocounts(numpy_backend):
    """Where exact EM with the same pseudocount has come to rest, damped steps over all rows rest too."""
    case = make_case(["categorical"] * 3, [3] * 3, [1, 2, 2], [0, 1, 2], seed=8)
    x = case.possible_rows(60)
    start = numpy_backend.ring(case)
    exact = rd.fit_em(start, x, max_epochs=500, pseudocount=0.5).ring
    damped = rd.fit_em(exact, x, max_epochs=50, batch_size=60, pseudocount=0.5, rng=0).ring
    np.testing.assert_allclose(damped.to_dense(), exact.to_dense(), atol=1e-3)


# ------------------------------------------------------------------------------------------------------- monotone


MIXES = [[kind] * 4 for kind in KINDS] + [list(KINDS), ["categorical", "gaussian"] * 2]


@pytest.mark.parametrize("topology", ["ring", "train"])
@pytest.mark.parametrize("kinds", MIXES, ids="-".join)
def test_the_likelihood_never_falls(backend, kinds, topology):
    ranks = [3, 2, 4, 3] if topology == "ring" else [1, 3, 2, 3]
    truth = make_case(kinds, [3] * 4, ranks, [0, 2, 1, 3], seed=11)
    x = truth.possible_rows(80, missing=0.2)
    start = backend.ring(make_case(kinds, [3, 3, 4, 3], ranks, [2, 0, 3, 1], seed=12))
    weight = weights(len(x))
    fitted = rd.fit_em(start, x, sample_weight=weight, max_epochs=5, variance_floor=0)  # more, and Laplace degenerates
    history = fitted.history["train"]
    assert len(history) == 5 and list(fitted.history) == ["train"]
    assert (np.diff(history) >= -1e-9).all(), history
    before = np.average(backend.numpy(start.log_prob(backend.array(x))), weights=weight)
    after = np.average(backend.numpy(fitted.ring.log_prob(backend.array(x))), weights=weight)
    assert history[0] >= before - 1e-9 and history[-1] > before + 0.01
    assert after == pytest.approx(history[-1], rel=1e-9)


def test_zeros_stay_and_the_structure_too(backend):
    ring = backend.ring(TABLE)
    fitted = rd.fit_em(ring, TABLE.possible_rows(40), max_epochs=5, pseudocount=0.5).ring
    assert fitted.order == ring.order and fitted.ranks == ring.ranks
    for core, before in zip(numbers(backend, fitted), TABLE.cores, strict=True):
        assert (core[before == 0] == 0).all()


def test_pseudocounts_leave_nothing_impossible():
    start = rd.TensorRing.random([rd.Categorical(3)] * 3, 2, rng=0)
    x = np.zeros((20, 3))
    assert rd.fit_em(start, x, max_epochs=3).ring.log_prob([[1.0, 0, 0]])[0] == -np.inf
    prior = rd.fit_em(start, x, max_epochs=3, pseudocount=0.1).ring
    assert -12 < prior.log_prob([[1.0, 0, 0]])[0] < -1
    stronger = rd.fit_em(start, x, max_epochs=3, pseudocount=10.0).ring
    assert stronger.log_prob([[1.0, 0, 0]])[0] > prior.log_prob([[1.0, 0, 0]])[0]


def test_scales_do_not_gather_on_one_side_of_a_bond(backend):
    """Cores meet in sums of one ratio at every index of a bond; left alone, the ratios drift apart in every epoch."""
    x = STREAMED.possible_rows(40)
    fitted = rd.fit_em(backend.ring(STREAMED), x, max_epochs=300, pseudocount=0.5, patience=None).ring
    cores = [backend.numpy(core) for core in fitted.cores]
    for k, after in zip(fitted.sequence, (*fitted.sequence[1:], fitted.sequence[0]), strict=True):
        ratio = cores[k].sum((0, 1)) / cores[after].sum((0, 2))
        assert ratio.max() <= 1.2 * ratio.min()


# --------------------------------------------------------------------------------- the same sums, taken differently


def test_weights_count_rows(backend):
    x = STREAMED.possible_rows(40, missing=0.2)
    weight = weights(len(x))
    repeated = np.repeat(x, weight.astype(int), axis=0)
    settings = {"max_epochs": 6, "pseudocount": 0.1, "variance_floor": 0.05}
    a = rd.fit_em(backend.ring(STREAMED), x, sample_weight=weight, **settings)
    b = rd.fit_em(backend.ring(STREAMED), repeated, **settings)
    assert_equal_rings(backend, a.ring, b.ring, rtol=1e-8)
    np.testing.assert_allclose(a.history["train"], b.history["train"])


def test_equal_rows_are_merged_without_a_trace(backend, monkeypatch):
    x = np.repeat(TABLE.possible_rows(25), 4, axis=0)[np.random.default_rng(0).permutation(100)]
    weight = weights(len(x))
    merged = rd.fit_em(backend.ring(TABLE), backend.array(x), sample_weight=weight, max_epochs=5)
    rows = []
    visit = coordinatewise.visit
    monkeypatch.setattr(coordinatewise, "visit", lambda *a, **k: rows.append(a[1].shape[0]) or visit(*a, **k))
    rd.fit_em(backend.ring(TABLE), backend.array(x), sample_weight=weight, max_epochs=1)
    assert rows[0] <= 25
    monkeypatch.setattr(em, "merge_equal_rows", lambda ring, data: data)
    plain = rd.fit_em(backend.ring(TABLE), backend.array(x), sample_weight=weight, max_epochs=5)
    assert rows[-1] == 100
    assert_equal_rings(backend, merged.ring, plain.ring, rtol=1e-8)
    np.testing.assert_allclose(merged.history["train"], plain.history["train"])


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 10])
def test_suffixes_from_checkpoints_are_those_stored(backend, monkeypatch, d):
    case = make_case(["categorical", "gaussian"] * (d // 2) + ["poisson"] * (d % 2), [3] * d, [2] * d, range(d), seed=2)
    x = case.possible_rows(20)
    stored = rd.fit_em(backend.ring(case), x, max_epochs=3)
    monkeypatch.setattr(budget, "AT_ONCE", 1)
    assert_equal_rings(backend, rd.fit_em(backend.ring(case), x, max_epochs=3).ring, stored.ring, rtol=1e-12)


@pytest.mark.parametrize("case", [TABLE, STREAMED], ids=["table", "streamed"])
def test_chunks_of_rows_add_up(backend, monkeypatch, case):
    x = case.possible_rows(30)
    whole = rd.fit_em(backend.ring(case), x, max_epochs=3)
    monkeypatch.setattr(budget, "TEMPORARY", 128)
    assert_equal_rings(backend, rd.fit_em(backend.ring(case), x, max_epochs=3).ring, whole.ring, rtol=1e-9)


@pytest.mark.parametrize("shape", [(2, 6), (12, 2)])
def test_both_ways_through_a_core_agree_with_enumeration(numpy_backend, shape):
    """Few components or many per rank: the sums are taken by one product or by environments."""
    size, rank = shape
    case = make_case(["categorical"] * 2, [size, 3], [rank, rank], [0, 1], seed=4)
    x = case.rows(15, 0.2)
    fitted = rd.fit_em(numpy_backend.ring(case), x, max_epochs=1)
    assert_is_case(numpy_backend, fitted.ring, em_epoch(case, x, np.ones(15)))


@pytest.mark.parametrize("batch_size", [None, 16])
def test_numpy_and_torch_agree(batch_size):
    pytest.importorskip("torch")
    x = STREAMED.possible_rows(60)
    results = []
    for name in ("numpy", "torch"):
        backend = load_backend(name)
        fitted = rd.fit_em(backend.ring(STREAMED), x, max_epochs=4, batch_size=batch_size, rng=3, validation=x[:9])
        results.append((numbers(backend, fitted.ring), fitted.history))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
    for name in ("train", "validation"):
        np.testing.assert_allclose(results[0][1][name], results[1][1][name], rtol=1e-9)


def test_data_of_the_rings_backend_or_numpy(backend):
    x = STREAMED.possible_rows(20)
    host = rd.fit_em(backend.ring(STREAMED), x, max_epochs=2)
    own = rd.fit_em(backend.ring(STREAMED), backend.array(x), max_epochs=2)
    lists = rd.fit_em(backend.ring(STREAMED), x.tolist(), max_epochs=2)
    assert_equal_rings(backend, host.ring, own.ring)
    assert_equal_rings(backend, host.ring, lists.ring)


def test_float32(backend):
    x = STREAMED.possible_rows(50)
    history = rd.fit_em(backend.ring(STREAMED, "float32"), x, max_epochs=8).history["train"]
    assert (np.diff(history) > -1e-4).all() and history[-1] > history[0]


# ----------------------------------------------------------------------------------------- floors, stopping, restarts


@pytest.mark.parametrize(("value", "unit"), [(0.1, 0.1), (0.0, 1.0)])
def test_a_constant_column_has_a_floor_too(backend, value, unit):
    """Else rounding would decide how narrow its components become, and by how many nats."""
    x = np.stack([np.full(50, value), np.random.default_rng(0).normal(size=50)], axis=1)
    gaussians = [rd.GaussianMixture(*(backend.array(part) for part in ([-1.4, 0.8], [1.0, 1.0]))) for _ in range(2)]
    start = rd.TensorRing.random(gaussians, 2, rng=0)
    start = rd.TensorRing([backend.array(core) for core in start.cores], gaussians)
    fitted = rd.fit_em(start, backend.array(x), max_epochs=10, variance_floor=1e-4)
    assert backend.numpy(fitted.ring.variables[0].arrays()["stds"]).min() == pytest.approx(1e-2 * unit)


def test_what_is_drawn_for_a_jax_ring_needs_a_seed(backend):
    ring, x = backend.ring(TABLE), TABLE.possible_rows(20)
    rd.fit_em(ring, x, max_epochs=1)
    for options in ({"batch_size": 5}, {"restarts": 2}):
        if backend.name == "jax":
            with pytest.raises(ValueError, match="a JAX ring needs rng for batches and restarts"):
                rd.fit_em(ring, x, max_epochs=1, **options)
        else:
            rd.fit_em(ring, x, max_epochs=1, **options)


@pytest.mark.parametrize("floor", [0.0, 1e-2, 0.2])
def test_the_variance_floor_is_relative_to_the_column(backend, floor):
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros(30), np.ones(30), rng.normal(5, 1, 40)])[:, None] * 1e3
    weight = rng.random(100)
    x[::9] = np.nan
    seen = ~np.isnan(x[:, 0])
    column = x[seen, 0]
    variance = np.cov(column, aweights=weight[seen], ddof=0)
    start = rd.TensorRing(
        [backend.array(np.ones((3, 1, 1)))],
        [rd.GaussianMixture(backend.array([0.0, 1e3, 5e3]), backend.array([300.0, 300.0, 900.0]))],
    )
    fitted = rd.fit_em(start, x, sample_weight=weight, max_epochs=30, variance_floor=floor)
    least = backend.numpy(fitted.ring.variables[0].arrays()["stds"]).min() ** 2
    if floor:
        assert least == pytest.approx(floor * variance)
    else:
        assert least < 1e-4 * variance
    assert np.isfinite(fitted.history["train"]).all()


def overfitting(**settings):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (120, 8))
    start = rd.TensorRing.random([rd.Categorical(2)] * 8, 6, rng=1)
    return rd.fit_em(start, x[:60], validation=x[60:], **settings), x


@pytest.mark.parametrize("batch_size", [None, 20])
def test_the_best_ring_on_validation_data_is_returned(batch_size):
    (ring, history), x = overfitting(max_epochs=200, patience=4, pseudocount=0.05, batch_size=batch_size, rng=0)
    values = history["validation"]
    best = int(np.argmax(values))
    assert len(values) == len(history["train"]) == best + 5 < 200
    assert ring.log_prob(x[60:]).mean() == pytest.approx(values[best])
    if batch_size is None:
        assert ring.log_prob(x[:60]).mean() == pytest.approx(history["train"][best])
        assert history["train"][-1] > history["train"][best]


def test_without_patience_every_epoch_is_run():
    (ring, history), x = overfitting(max_epochs=40, patience=None, pseudocount=0.05)
    assert len(history["validation"]) == 40
    assert ring.log_prob(x[60:]).mean() == pytest.approx(max(history["validation"]))


def test_no_epoch_gives_the_start_back(backend):
    ring = backend.ring(MIXED)
    fitted = rd.fit_em(ring, MIXED.possible_rows(6), max_epochs=0)
    x = backend.array(MIXED.possible_rows(6))
    assert fitted.history == {"train": []}
    assert_close(backend.numpy(fitted.ring.log_prob(x)), backend.numpy(ring.log_prob(x)), ring)


def test_restarts_keep_the_best(numpy_backend):
    rng = np.random.default_rng(3)
    x = np.tile(rng.integers(0, 3, (6, 6)), (10, 1))
    start = rd.TensorRing.random([rd.Categorical(3)] * 6, 2, rng=0)
    single = rd.fit_em(start, x, max_epochs=8, rng=0)
    several = rd.fit_em(start, x, max_epochs=8, rng=0, restarts=5)
    assert several.history["train"][-1] > single.history["train"][-1] + 0.01
    assert len(several.history["train"]) == 8
    assert several.ring.log_prob(x).mean() == pytest.approx(several.history["train"][-1])


# ---------------------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("settings", [{"batch_size": 16}, {"restarts": 3}], ids=["batches", "restarts"])
def test_a_seed_repeats_a_fit(backend, settings):
    x = STREAMED.possible_rows(60)

    def fit(rng):
        return rd.fit_em(backend.ring(STREAMED), x, max_epochs=3, rng=rng, **settings).ring

    assert_equal_rings(backend, fit(5), fit(5))
    assert_equal_rings(backend, fit(backend.rng(5)), fit(backend.rng(5)))
    assert_equal_rings(backend, fit(np.random.default_rng(5)), fit(5))
    if "batch_size" in settings:
        assert not np.array_equal(numbers(backend, fit(5))[0], numbers(backend, fit(6))[0])


def test_the_global_state_of_randomness_is_left_alone(numpy_backend):
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not move
    rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(20), max_epochs=2, batch_size=5, restarts=2)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


# --------------------------------------------------------------------------------------------------- mini-batches


def chain(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (n, d))
    for k in range(1, d):
        x[:, k] = np.where(rng.random(n) < 0.9, x[:, k - 1], x[:, k])
    return x.astype(np.uint8)


def test_mini_batches_come_near_the_full_batch(backend):
    x = chain(1500, 8)
    start = rd.TensorRing.random([rd.Categorical(2)] * 8, 3, rng=0).to(
        backend.xp if backend.name != "numpy" else None, device=backend.device
    )
    full = rd.fit_em(start, x, max_epochs=30).history["train"]
    parts = rd.fit_em(start, x, max_epochs=12, batch_size=100, rng=0).history["train"]
    assert parts[-1] > parts[0] and parts[-1] > full[-1] - 0.03 * abs(full[-1])


@pytest.mark.parametrize("kind", ["train", "mixture"])
def test_the_history_of_mini_batches_is_the_average_while_learning(backend, kind):
    x = STREAMED.possible_rows(60, missing=0.2)
    weight = weights(len(x))
    starts = [
        backend.ring(make_case(["categorical", "gaussian", "poisson"], [3, 2, 3], [1, 2, 3], order, seed=seed))
        for seed, order in enumerate(([1, 0, 2], [0, 1, 2]))
    ]
    start = starts[0] if kind == "train" else rd.RingMixture(starts, [0.3, 0.7])
    settings = {"sample_weight": weight, "step_decay": "linear", "rng": 0, "smoothing": 0.3}
    whole = rd.fit_em(start, x, batch_size=60, max_epochs=1, **settings)
    before, after = (
        np.average(backend.numpy(model.log_prob(backend.array(x))), weights=weight) for model in (start, whole.ring)
    )
    np.testing.assert_allclose(whole.history["train"], [before], rtol=1e-9)  # one batch, by the ring before it
    parts = rd.fit_em(start, x, batch_size=20, max_epochs=1, **settings).history["train"][0]
    assert before < parts < after + 0.5


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_restarts_of_mini_batches_are_compared_at_their_ends(topology):
    rng = np.random.default_rng(3)
    x = np.tile(rng.integers(0, 3, (6, 6)), (10, 1))
    start = rd.TensorRing.random([rd.Categorical(3)] * 6, 2, topology=topology, rng=0)
    settings = {"max_epochs": 4, "batch_size": 15, "step_decay": "linear"}
    several = rd.fit_em(start, x, rng=0, restarts=4, **settings).ring.log_prob(x).mean()
    assert several >= rd.fit_em(start, x, rng=0, **settings).ring.log_prob(x).mean() - 1e-9
    random = np.random.default_rng(0)
    tracks = []
    for restart in range(4):
        begin = start if restart == 0 else em._random_like(start, random)
        tracks.append(rd.fit_em(begin, x, rng=random, **settings).ring.log_prob(x).mean())
    assert several == pytest.approx(max(tracks))


def test_mini_batches_of_mixed_columns_with_missing_entries_and_weights(backend):
    x = STREAMED.possible_rows(200, missing=0.2)
    start = backend.ring(make_case(["categorical", "gaussian", "poisson"], [3, 2, 3], [2] * 3, [1, 0, 2], seed=8))
    fitted = rd.fit_em(start, x, sample_weight=weights(len(x)), batch_size=40, max_epochs=6, rng=0, validation=x)
    assert fitted.history["validation"][-1] > float(backend.numpy(start.log_prob(backend.array(x))).mean()) + 0.1


def test_memory_is_that_of_a_batch(tmp_path, monkeypatch):
    n, d = 40_000, 32
    path = tmp_path / "data"
    chain(n, d).tofile(path)
    x = np.memmap(path, dtype=np.uint8, mode="r", shape=(n, d))
    monkeypatch.setattr(learning_data, "EVALUATION_ROWS", 500)
    start = rd.TensorRing.random([rd.Categorical(2)] * d, 2, rng=0)
    tracemalloc.start()
    history = rd.fit_em(start, x, max_epochs=1, batch_size=500, rng=0).history
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * d * 8 / 2, f"{peak / 2**20:.1f} MiB"
    assert history["train"][0] > start.log_prob(np.asarray(x[:1000])).mean()


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 4096, 4097])
def test_an_order_that_is_not_stored_is_a_permutation(monkeypatch, n):
    monkeypatch.setattr(learning_data, "STORED_ORDER", 0)
    data = learning_data.TrainingData(rd.TensorRing.random([rd.Categorical(2)], 1, rng=0), np.zeros((n, 1)))
    batches = list(data.batches(7, np.random.default_rng(0)))
    assert [len(batch) for batch in batches[:-1]] == [7] * ((n - 1) // 7)
    assert all((np.diff(batch) > 0).all() for batch in batches)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    again, other = (list(data.batches(7, np.random.default_rng(seed))) for seed in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert n < 1000 or not any(np.array_equal(a, b) for a, b in zip(batches[:-1], other[:-1], strict=True))


def test_an_order_that_is_not_stored_is_shuffled():
    """The means of batches scatter as those of simple random samples do, and neighbouring places are independent."""
    n, size = 50_000, 50
    keys = np.random.default_rng(0).integers(0, 2**64, size=learning_data.ROUNDS, dtype=np.uint64)
    order = learning_data.shuffled(slice(0, n), n, keys) / n
    means = order.reshape(-1, size).mean(1)
    assert means.std() == pytest.approx((1 / 12 / size) ** 0.5, rel=0.1)
    for gap in (1, 2, size):
        assert abs(np.corrcoef(order[gap:], order[:-gap])[0, 1]) < 0.02


def test_batches_of_many_rows_take_the_memory_of_one():
    n = 5_000_000
    ring = rd.TensorRing.random([rd.Categorical(2)] * 3, 2, rng=0)
    tracemalloc.start()
    data = learning_data.TrainingData(ring, np.broadcast_to(np.uint8(1), (n, 3)))
    batches = itertools.islice(data.batches(2**14, np.random.default_rng(0)), 3)
    seen = sum(data.batch(ring, index)[1].sum() for index in batches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 3 * 2**14 and peak < n, f"{peak / 2**20:.1f} MiB"


@pytest.mark.parametrize("options", [{}, {"batch_size": 10, "rng": 0}, {"pseudocount": 0.5}], ids=str)
def test_fits_keep_the_dtype(backend, options):
    ring = backend.ring(STREAMED, "float32")
    fitted = rd.fit_em(ring, STREAMED.possible_rows(30), max_epochs=1, **options).ring
    assert fitted.cores[0].dtype == ring.cores[0].dtype
    assert all(
        array.dtype == ring.cores[0].dtype for variable in fitted.variables for array in variable.arrays().values()
    )


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("batch_size", [None, 2])
def test_rows_without_mass_are_named(backend, batch_size):
    cores = [np.ones((3, 1, 1)), np.array([1.0, 1, 0]).reshape(3, 1, 1)]
    ring = rd.TensorRing([backend.array(core) for core in cores], [rd.Categorical(3)] * 2)
    x = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [1, 1], [2, 2], [0, 0]])
    with pytest.raises(ValueError, match="zero mass in row 5"):
        rd.fit_em(ring, x, max_epochs=1, batch_size=batch_size, rng=0)
    weight = (x[:, 0] < 2).astype(float)
    assert np.isfinite(rd.fit_em(ring, x, sample_weight=weight, max_epochs=1).history["train"][0])


def test_rows_beyond_the_range_of_the_dtype_are_named(backend):
    """Two decoupled paths: one is far less likely for half of the ring, and the only possible one in the end."""
    d = 1600
    cores = [np.stack([np.diag([1.0, 0.2]), np.diag([0.2, 1.0])]) for _ in range(d)]
    cores[-1] = np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])])
    ring = rd.TensorRing([backend.array(core) for core in cores], [rd.Categorical(2)] * d)
    x = np.zeros((1, d))
    x[0, d // 2 :] = 1
    assert np.isfinite(float(ring.log_prob(backend.array(x))[0]))
    with pytest.raises(ValueError, match=r"row 0, or an underflow of.*float64"):
        rd.fit_em(ring, x, max_epochs=1)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"max_epochs": -1}, "max_epochs.*-1"),
        ({"max_epochs": 1.5}, "max_epochs.*1.5"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"batch_size": 2.0}, "batch_size.*2.0"),
        ({"restarts": 0}, "restarts.*0"),
        ({"restarts": True}, "restarts.*True"),
        ({"patience": 0}, "patience.*0"),
        ({"pseudocount": -1.0}, "pseudocount.*-1"),
        ({"pseudocount": np.nan}, "pseudocount.*nan"),
        ({"variance_floor": -1e-3}, "variance_floor.*-0.001"),
        ({"variance_floor": np.inf}, "variance_floor.*inf"),
        ({"step_decay": 0.5}, "step_decay.*0.5"),
        ({"step_decay": 1.1}, "step_decay.*1.1"),
        ({"sample_weight": np.ones(3)}, r"sample_weight.*\(3,\)"),
        ({"sample_weight": -np.ones(6)}, "sample_weight.*not negative"),
        ({"sample_weight": np.zeros(6)}, "sample_weight.*positive sum"),
        ({"sample_weight": np.full(6, np.nan)}, "sample_weight.*finite"),
        ({"validation": np.zeros((2, 3))}, r"\(2, 3\)"),
        ({"validation": np.zeros((0, 4))}, r"\(0, 4\)"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(numpy_backend, settings, finding):
    with pytest.raises(ValueError, match=finding):
        rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(6), **settings)


def test_data_that_does_not_fit(backend):
    ring = backend.ring(MIXED)
    for wrong in (np.zeros((3, 5)), np.zeros(4), np.zeros((0, 4)), np.zeros((2, 3, 4))):
        with pytest.raises(ValueError, match=r"\(n, 4\)"):
            rd.fit_em(ring, wrong)
    x = MIXED.possible_rows(6)
    x[2, 0] = 7
    for settings in ({}, {"validation": x}):
        with pytest.raises(ValueError, match=r"column 0 \('label'\): category 7 is outside 0..2"):
            rd.fit_em(ring, MIXED.possible_rows(6) if settings else x, max_epochs=1, **settings)


def test_a_family_that_leaves_the_device():
    """Else the next query would fail, and not say in which column."""
    torch = pytest.importorskip("torch")

    class Leaving(LaplaceMixture):
        def update(self, x, responsibilities):
            return Leaving(*(torch.empty_like(a, device="meta") for a in self.arrays().values()), name=self.name)

    ring = load_backend("torch").ring(MIXED)
    leaving = Leaving(**ring.variables[3].arrays(), name="delay")
    ring = rd.TensorRing(ring.cores, [*ring.variables[:3], leaving], ring.order)
    with pytest.raises(TypeError, match=r"column 3 \('delay'\): what update returns .* cpu, found meta"):
        rd.fit_em(ring, MIXED.possible_rows(6), max_epochs=1)


@pytest.mark.parametrize("turned", [False, True])
def test_minus_one_is_no_missing_category(turned):
    """Where equal rows are merged before they are checked, NaN and -1 stay apart."""
    ring = rd.TensorRing.random([rd.Categorical(2)] * 3, 2, rng=0)
    x = np.array([[np.nan, 0, 1]] * 6 + [[-1, 0, 1]] * 6)
    with pytest.raises(ValueError, match=r"column 0: category -1 is outside 0\.\.1"):
        rd.fit_em(ring, x[::-1] if turned else x)


def test_data_of_another_backend():
    torch = pytest.importorskip("torch")
    numpy_ring = load_backend("numpy").ring(TABLE)
    with pytest.raises(TypeError, match="NumPy array or an array of the ring's backend"):
        rd.fit_em(numpy_ring, torch.zeros(3, 4))


def test_a_family_without_statistics_needs_the_full_batch(numpy_backend):
    for settings in ({"batch_size": 4}, {"reduce": lambda array: array}):
        with pytest.raises(ValueError, match=r"column 3 \('delay'\).*statistics.*LaplaceMixture"):
            rd.fit_em(numpy_backend.ring(MIXED), MIXED.possible_rows(8), **settings)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_nothing_of_the_callers_is_written_to(backend, batch_size):
    ring = backend.ring(STREAMED)
    x, weight, held_out = STREAMED.possible_rows(20), weights(20), STREAMED.possible_rows(6)
    mine = [backend.array(x), weight.copy(), backend.array(held_out)]
    before = [array.copy() for array in numbers(backend, ring)]
    rd.fit_em(ring, mine[0], sample_weight=mine[1], validation=mine[2], max_epochs=2, batch_size=batch_size, rng=0)
    for array, copy in zip(mine, (x, weight, held_out), strict=True):
        np.testing.assert_array_equal(backend.numpy(array) if array is not mine[1] else array, copy)
    for array, copy in zip(numbers(backend, ring), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    read_only = x.copy()
    read_only.setflags(write=False)
    rd.fit_em(ring, read_only, max_epochs=1, batch_size=batch_size, rng=0)


def test_progress_is_shown_on_request(numpy_backend, capsys):
    rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(6), max_epochs=3, progress=True)
    assert "3/3" in capsys.readouterr().err
    rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(6), max_epochs=3)
    assert capsys.readouterr().err == ""


def test_fitting_cannot_be_traced():
    jax = pytest.importorskip("jax")
    ring = load_backend("jax").ring(make_case(["categorical"], [2], [1], [0]))
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.jit(lambda r: rd.fit_em(r, np.zeros((1, 1))).ring.cores[0])(ring)
