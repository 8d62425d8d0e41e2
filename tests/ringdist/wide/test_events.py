"""Events of several columns that share a variable, beside enumeration, quadrature and draws without the event."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.wide.cases import GAUSSIAN, ORACLE, ROWS, D, wide_ring

pytestmark = pytest.mark.slow_on("jax")

EVENTS = [
    {"a": rd.Interval(-0.5, 1.0)},
    {"a": rd.Interval(0.0, None), "c": rd.Interval(-1.0, 1.5)},
    {"b": rd.Interval(-0.5, 1.0), "c": rd.Interval(0, None), 6: rd.Interval(None, 0.5), "kind": {0, 2}},
    {"a": rd.Interval(None, 1.0), "b": rd.Interval(-1.0, 0.5), "c": rd.Interval(-1.0, None), 5: rd.Interval(-1, 1)},
]
NOTHING = np.full(D, np.nan)


def tolerance(event):
    """Three columns of one variable are integrated on a lattice."""
    return 1e-3 if {"a", "b", "c"} <= set(event) else 1e-5  # and so are three or more by scipy


def log_probability(event, row):
    """log P(event, observed) of a row by scipy's distribution functions, configuration by configuration."""
    low, high = np.full(D, -np.inf), np.full(D, np.inf)
    for name, allowed in event.items():
        if name != "kind":
            k = {"a": 1, "b": 2, "c": 3}.get(name, name)
            low[k], high[k] = allowed.low, allowed.high
    seen = ~np.isnan(row)
    if ((row < low) | (row > high))[seen].any():
        return -np.inf
    o, total = seen[GAUSSIAN], 0.0
    for weight, (s, (mean, matrix)) in zip(
        ORACLE.joint(row), zip(ORACLE.configurations, ORACLE.gaussians, strict=True), strict=True
    ):
        if weight == 0 or s[0] not in event.get("kind", {0, 1, 2}):
            continue
        gain = matrix[np.ix_(~o, o)] @ np.linalg.inv(matrix[np.ix_(o, o)]) if o.any() else np.zeros(((~o).sum(), 0))
        centre = mean[~o] + gain @ (row[GAUSSIAN][o] - mean[o])
        spread = matrix[np.ix_(~o, ~o)] - gain @ matrix[np.ix_(o, ~o)]
        box = [bound[GAUSSIAN][~o] for bound in (low, high)]
        kept = ~np.isinf(box[0]) | ~np.isinf(box[1])
        if kept.any():
            gaussian = stats.multivariate_normal(centre[kept], spread[np.ix_(kept, kept)])
            weight = weight * gaussian.cdf(box[1][kept], lower_limit=box[0][kept], rng=0)
        total += weight
    return np.log(total) if total > 0 else -np.inf


@pytest.fixture(scope="module", params=range(len(EVENTS)))
def event(request):
    return EVENTS[request.param]


def inside(x, event):
    found = np.ones(len(x), dtype=bool)
    for name, allowed in event.items():
        values = x[:, {"kind": 0, "a": 1, "b": 2, "c": 3}.get(name, name)]
        found &= (
            np.isin(values, list(allowed)) if name == "kind" else (values >= allowed.low) & (values <= allowed.high)
        )
    return found


def test_probability_beside_enumeration(backend, event):
    ring = wide_ring(backend)
    found = backend.numpy(ring.probability(event, backend.array(ROWS)))
    expected = np.exp([log_probability(event, row) - np.log(ORACLE.joint(row).sum()) for row in ROWS])
    assert_close(found, expected, (ring, event), rtol=tolerance(event), atol=1e-7)
    alone = float(backend.numpy(ring.probability(event, log=True)))
    assert abs(alone - log_probability(event, NOTHING)) < tolerance(event)


def test_log_prob_of_a_condition_is_that_of_the_definition(backend, event):
    """log p(x | event) = log p(x) + log P(event | x) − log P(event), whatever entries are missing."""
    ring = wide_ring(backend)
    conditional = ring.condition(event)
    x = np.concatenate([ROWS, wide_ring(load_backend("numpy")).sample_given(ROWS, event=None, rng=0)])
    rows = backend.array(x)
    with np.errstate(divide="ignore"):
        mass = ring.probability(event, rows, log=True) - ring.probability(event, log=True)
    expected = backend.numpy(ring.log_prob(rows) + mass)
    assert_close(backend.numpy(conditional.log_prob(rows)), expected, conditional, rtol=1e-8)


def test_conditions_on_values_and_intervals_in_any_sequence(backend):
    ring, x = wide_ring(backend), backend.array(ROWS[:, [0, 2, 3, 4, 6]])
    first = ring.condition({"a": 0.3, "c": rd.Interval(0, None), 5: 0.1})
    second = ring.condition({"c": rd.Interval(0, None)}).condition({"a": 0.3, 5: 0.1})
    third = ring.condition({"c": rd.Interval(-1, None)}).condition({5: 0.1, "c": rd.Interval(0, 9e9), "a": 0.3})
    expected = backend.numpy(first.log_prob(x))
    assert np.isfinite(expected).any()
    assert_close(backend.numpy(second.log_prob(x)), expected, second, rtol=1e-8)
    assert_close(backend.numpy(third.log_prob(x)), expected, third, rtol=1e-8)


@pytest.mark.slow
def test_moments_and_draws_beside_draws_without_the_event(event):
    ring = wide_ring(load_backend("numpy"))
    free = ring.sample(400_000, rng=0)
    kept = free[inside(free, event)]
    std, n = kept.std(axis=0), len(kept)
    conditional = ring.condition(event)
    assert (np.abs(conditional.mean() - kept.mean(axis=0)) < 5 * std / np.sqrt(n) + 1e-12).all()
    assert (np.abs(conditional.covariance() - np.cov(kept.T)) < 15 * np.outer(std, std) / np.sqrt(n) + 1e-12).all()
    for drawn in (conditional.sample(20_000, rng=1), ring.sample_given(NOTHING, 20_000, event=event, rng=2)):
        assert inside(drawn, event).all()
        assert (np.abs(drawn.mean(axis=0) - kept.mean(axis=0)) < 6 * std / np.sqrt(20_000) + 1e-12).all()
        for k in GAUSSIAN:
            assert stats.ks_2samp(drawn[:, k], kept[:, k]).pvalue > 1e-5


def test_draws_given_values_and_an_event(backend, event):
    if "kind" in event or backend.name == "jax":
        rows = ROWS[:2]
    else:
        rows = ROWS
    ring = wide_ring(backend)
    possible = np.array([log_probability(event, row) > -np.inf for row in rows])
    rows = rows[possible]
    drawn = backend.numpy(ring.sample_given(backend.array(rows), 300, event=event, rng=backend.rng(3)))
    assert inside(drawn.reshape(-1, D), event).all()
    seen = ~np.isnan(rows)
    assert (drawn[:, seen] == rows[seen]).all()
    conditional = ring.condition(event)
    again = backend.numpy(conditional.sample_given(backend.array(rows), 300, rng=backend.rng(4)))
    means = backend.numpy(conditional.mean(backend.array(rows)))
    for x in (drawn, again):
        assert (np.abs(x.mean(axis=0) - means) < 6 * (x.std(axis=0) + 1e-9) / np.sqrt(300) + 1e-9).all()


@pytest.mark.parametrize("name", ["a", "c", 6])
def test_cdf_and_quantile_of_a_condition(event, name):
    ring = wide_ring(load_backend("numpy")).condition(event)
    k = ring.column(name)
    row = np.where(np.arange(D) == 4, 0.3, np.nan)

    grid = np.array([-0.3, 0.45, 2.0])
    found = ring.cdf(name, np.where(np.arange(D) == k, grid[:, None], row))
    nodes, weights = np.polynomial.legendre.leggauss(30)
    beside = len({name, "a", "b", "c"} & {name, *event})  # columns of one variable in the distribution function
    rough = name != 6 and beside > 2
    allowed = event.get(name, rd.Interval())
    for value, share in zip(grid, found, strict=True):
        start, end = max(allowed.low, -30), min(value, allowed.high)
        ends = np.linspace(start, end, 9) if end > start else []
        total = 0.0
        for a, b in itertools.pairwise(ends):
            points = 0.5 * (b - a) * nodes + 0.5 * (a + b)
            rows = np.where(np.arange(D) == k, points[:, None], row)
            total += 0.5 * (b - a) * weights @ np.exp(ring.log_prob(rows) - ring.log_prob(row))
        assert abs(share - total) < (1e-3 if rough else 1e-7)
    levels = np.array([0.1, 0.5, 0.9])
    values = ring.quantile(name, levels, row)
    assert_close(ring.cdf(name, np.where(np.arange(D) == k, values[:, None], row)), levels, ring, rtol=1e-6)


@pytest.mark.slow
def test_marginals_hide_columns_in_intervals(event):
    ring = wide_ring(load_backend("numpy")).condition(event)
    rows = wide_ring(load_backend("numpy")).sample_given(np.full((20, D), np.nan), event=event, rng=0)
    for keep in ([0, 1, 4], [2, 3, 5], [1], [3, 6], [0, 4]):
        part = ring.marginal(keep)
        whole = np.where(np.isin(np.arange(D), keep), rows, np.nan)
        assert_close(
            part.log_prob(rows[:, keep]), ring.log_prob(whole), part, rtol=1e-8 if tolerance(event) < 1e-3 else 1e-3
        )
        assert_close(part.mean(), ring.mean()[keep], part, rtol=tolerance(event), atol=tolerance(event))
        assert_close(
            part.covariance(),
            ring.covariance()[np.ix_(keep, keep)],
            part,
            rtol=5 * tolerance(event),
            atol=tolerance(event),
        )
        k = keep[-1]
        assert_close(
            part.cdf(len(keep) - 1, rows[:, keep]),
            ring.cdf(k, whole),
            part,
            rtol=tolerance(event),
            atol=tolerance(event),
        )
        drawn = part.sample(5000, rng=1)
        std = np.sqrt(np.diag(part.covariance()))
        assert (np.abs(drawn.mean(axis=0) - part.mean()) < 5 * std / np.sqrt(5000)).all()


def test_quantiles_need_few_values_of_a_distribution_function(event, monkeypatch):
    ring = wide_ring(load_backend("numpy")).condition(event)
    family, cdf, calls = rd.TruncatedMultivariateGaussianMixture, rd.TruncatedMultivariateGaussianMixture.cdf, []
    monkeypatch.setattr(family, "cdf", lambda self, x: calls.append(1) or cdf(self, x))
    values = ring.quantile("b", np.array([[0.0], [0.2], [0.5], [1.0]]), NOTHING[None])[:, 0]
    assert 0 < len(calls) < 25
    allowed = event.get("b", rd.Interval())
    assert values[0] == allowed.low and values[3] == allowed.high
    assert (np.diff(values) > 0).all()


def test_files_and_permutations(tmp_path, event):
    ring = wide_ring(load_backend("numpy")).condition(event)
    for part in (ring, ring.marginal([0, 1, 5]), ring.marginal([2])):
        part.save(tmp_path / "ring")
        again = rd.load(tmp_path / "ring")
        x = part.sample(5, rng=0)
        np.testing.assert_array_equal(again.log_prob(x), part.log_prob(x))
        assert repr(again.variables) == repr(part.variables)
        turned = part.permute(range(part.num_columns)[::-1])
        assert_close(
            turned.log_prob(x[:, ::-1]), part.log_prob(x), turned, rtol=1e-8 if tolerance(event) < 1e-3 else 1e-3
        )


def test_inner_product_with_itself_is_the_mean_density():
    ring = wide_ring(load_backend("numpy")).condition({"a": rd.Interval(0, 1), 5: rd.Interval(None, 0)})
    density = np.exp(ring.log_prob(ring.sample(200_000, rng=0)))
    assert abs(ring.inner(ring) - density.mean()) < 5 * density.std() / np.sqrt(200_000)
    with pytest.raises(ValueError, match="without hidden columns"):
        ring.marginal([0, 2, 3, 6]).inner(ring.marginal([0, 2, 3, 6]))


def test_modes_lie_within_the_event(event):
    ring = wide_ring(load_backend("numpy")).condition(event)
    mode = ring.mode(NOTHING)
    assert inside(mode[None], event).all()
    assert ring.log_prob(mode) >= ring.log_prob(ring.sample(300, rng=0)).max() - 0.2


def test_far_in_the_tail():
    """The mass is below the range of the dtype; its logarithm, moments and draws have their digits."""
    matrix = np.array([[[1.0, 0.9999, 0.5], [0.9999, 1.0, 0.5], [0.5, 0.5, 1.0]]])
    ring = rd.TensorRing([np.ones((1, 1, 1))], [rd.MultivariateGaussianMixture(np.zeros((1, 3)), matrix)])
    event = {0: rd.Interval(5, None), 1: rd.Interval(None, -5)}
    assert abs(float(ring.probability(event, log=True)) + 250019.21881806650) < 1e-6
    conditional = ring.condition(event)
    np.testing.assert_allclose(conditional.mean(), [5.00002, -5.00002, 0.0], atol=1e-7)
    drawn = conditional.sample(1000, rng=0)
    assert (drawn[:, 0] >= 5).all() and (drawn[:, 1] <= -5).all()
    assert abs(drawn[:, 0].mean() - 5.00002) < 1e-5
    far = ring.condition({0: rd.Interval(60, None)})
    assert abs(float(far.mean()[0]) - 60.01665741) < 1e-6
    assert abs(float(far.covariance()[2, 2]) - 0.75) < 1e-3


def test_a_condition_integrates_to_one_in_two_dimensions():
    matrix = np.array([[[1.0, 0.7], [0.7, 1.0]], [[2.0, -1.0], [-1.0, 1.0]]])
    pair = rd.MultivariateGaussianMixture(np.array([[0.0, 0.0], [1.0, -1.0]]), matrix)
    ring = rd.TensorRing([np.array([0.3, 0.7])[:, None, None]], [pair])
    conditional = ring.condition({0: rd.Interval(-1, 0.5)})
    total = integrate.dblquad(lambda y, x: np.exp(conditional.log_prob([x, y])), -1, 0.5, -9, 9, epsabs=1e-9)[0]
    assert abs(total - 1) < 1e-7


def test_gradients_of_a_probability_beside_differences():
    import torch

    rng = np.random.default_rng(0)
    means, root = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 3))
    core = torch.tensor(rng.random((2, 1, 1)))
    event = {0: rd.Interval(-1, 1), 2: rd.Interval(0, None)}

    def log_probability_of(means, matrices, x):
        ring = rd.TensorRing([core], [rd.MultivariateGaussianMixture(means, matrices)])
        return ring.probability(event, x, log=True).sum() + ring.condition(event).log_prob(x).sum()

    x = torch.tensor([[np.nan, 0.3, np.nan], [0.2, 0.1, np.nan]])
    parts = torch.tensor(means), torch.tensor(root @ root.swapaxes(1, 2) + np.eye(3))
    moving = [part.clone().requires_grad_() for part in parts]
    log_probability_of(*moving, x).backward()
    for k in range(2):
        direction = torch.tensor(rng.normal(size=parts[k].shape))
        direction = direction + direction.mT if k == 1 else direction
        ends = [
            float(log_probability_of(*(p + sign * 1e-5 * direction if i == k else p for i, p in enumerate(parts)), x))
            for sign in (1, -1)
        ]
        gradient = float((moving[k].grad * direction).sum())
        assert abs(gradient - (ends[0] - ends[1]) / 2e-5) < 1e-5 * max(1, abs(gradient))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"b": rd.Interval(0, 1), "c": rd.Interval(2, 2)}, r"found zero mass for column 3 \('c'\) in Interval\(2, 2\)"),
        ({"a": rd.Interval(0, 0)}, r"positive mass, found zero mass for column 1 \('a'\) in Interval\(0, 0\)"),
        ({"a": rd.Interval(0, 1), "b": {1}}, r"column 2 \('b'\): a set names categories"),
    ],
)
def test_events_that_cannot_happen(event, message):
    with pytest.raises(ValueError, match=message):
        wide_ring(load_backend("numpy")).condition(event)


def test_a_second_event_must_meet_the_first():
    ring = wide_ring(load_backend("numpy")).condition({"a": rd.Interval(0, 1)})
    assert float(ring.probability({"a": rd.Interval(2, 3), "b": rd.Interval(0, 1)})) == 0
    with pytest.raises(ValueError, match="zero mass"):
        ring.condition({"a": rd.Interval(2, 3)})
    with pytest.raises(ValueError, match="intervals must intersect"):
        ring.variables[1].within({0: rd.Interval(2, 3)})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"intervals": [rd.Interval()]}, ValueError, "must be 2 intervals, one for each column, found 1"),
        ({"intervals": [rd.Interval(), (0, 1)]}, TypeError, r"intervals must be a list of rd.Interval, found \(0, 1\)"),
        ({"names": []}, ValueError, "1 to 2 names of visible columns, found 0"),
        ({"covariances": -np.eye(2)[None]}, ValueError, "variances must be positive, found -1"),
    ],
)
def test_what_a_truncated_variable_cannot_be(change, error, message):
    arguments = {"means": np.zeros((1, 2)), "covariances": np.eye(2)[None], "intervals": [rd.Interval(0, 1)] * 2}
    with pytest.raises(error, match=message):
        rd.TruncatedMultivariateGaussianMixture(**{**arguments, **change})


def test_mixtures_of_rings_of_which_one_is_wide_stay_mixtures_within_an_event(tmp_path):
    wide = rd.TensorRing.random([rd.MultivariateGaussianMixture(np.zeros((1, 2)), np.eye(2)[None])], 1, rng=0)
    alone = rd.TensorRing.random([rd.GaussianMixture([0.0], [1.0])] * 2, 1, rng=0)
    within = rd.RingMixture([wide, alone], [0.5, 0.5]).condition({0: rd.Interval(0, 1)})
    within.save(tmp_path / "mixture")
    x = np.array([[0.5, -1.0], [0.1, np.nan]])
    np.testing.assert_array_equal(rd.load(tmp_path / "mixture").log_prob(x), within.log_prob(x))
    np.testing.assert_allclose(rd.RingMixture(within.rings, within.weights).log_prob(x), within.log_prob(x))
