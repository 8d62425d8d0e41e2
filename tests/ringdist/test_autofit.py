"""The library's own choice of rank, smoothing and number of rings."""

import functools

import numpy as np
import pytest

import ringdist as rd
from ringdist.learning import autofit as module
from ringdist.learning.rings import mixture_weights


def clusters(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(99).choice([0.1, 0.9], size=(6, d))
    return (rng.random((n, d)) < rates[rng.integers(6, size=n)]).astype(float)


def independent(x: np.ndarray, rows: np.ndarray) -> float:
    rate = (x.sum(0) + 1) / (len(x) + 2)
    return float(np.mean(np.sum(np.where(rows == 1, np.log(rate), np.log1p(-rate)), axis=1)))


def test_it_finds_clusters_and_stays_below_the_truth():
    x, test = clusters(1500, 12, 0), clusters(4000, 12, 1)
    model, history = rd.autofit(x, [rd.Categorical(2)] * 12, budget=5.0, rng=0)
    found = model.log_prob(test).mean()
    rates = np.random.default_rng(99).choice([0.1, 0.9], size=(6, 12))
    logs = test @ np.log(rates).T + (1 - test) @ np.log1p(-rates).T
    truth = np.mean(np.logaddexp.reduce(logs, axis=1) - np.log(6))
    assert independent(x, test) + 1 < found < truth + 0.02 < found + 0.15
    assert set(history) == {"train", "validation"}


def test_what_has_no_structure_is_not_overfitted():
    rng = np.random.default_rng(2)
    x, test = (rng.integers(2, size=(n, 10)).astype(float) for n in (80, 4000))
    model, _ = rd.autofit(x, [None] * 10, budget=3.0, rng=0)
    assert model.log_prob(test).mean() > 10 * np.log(0.5) - 1.0


def test_mixed_columns_missing_entries_weights_and_other_backends():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    group = rng.integers(2, size=400)
    x = np.stack([group, rng.normal(4 * group, 1.0), rng.poisson(2 + 10 * group)], axis=1).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    given = x.copy()
    model, _ = rd.autofit(
        x,
        [None, rd.GaussianMixture, rd.PoissonMixture],
        sample_weight=np.where(group == 0, 1.0, 2.0),
        validation=x[:50],
        budget=2.0,
        max_rings=2,
        rng=0,
        xp=torch,
    )
    np.testing.assert_array_equal(x, given)
    ring = model.rings[0] if isinstance(model, rd.RingMixture) else model
    assert isinstance(ring.core_arrays()[0], torch.Tensor) and str(ring.core_arrays()[0].dtype) == "torch.float32"
    assert abs(float(model.mean()[0]) - 2 / 3) < 0.1


def test_equal_seeds_give_equal_models_where_time_does_not_decide():
    x = clusters(200, 6, 4)
    options = {"budget": 1e6, "max_rings": 2, "rng": 5}
    first, second = (rd.autofit(x, [rd.Categorical(2)] * 6, **options)[0] for _ in range(2))
    np.testing.assert_array_equal(first.log_prob(x), second.log_prob(x))


def test_a_short_budget_still_gives_a_fit(monkeypatch):
    told = []
    model, _ = rd.autofit(clusters(100, 6, 6), [None] * 6, budget=1e-3, rng=0, progress=told.append)
    assert len(told) == 2 and model.log_prob(clusters(100, 6, 6)).mean() > -4.16
    monkeypatch.setattr(module, "GAIN", 1e6)  # nothing is worth a second ring
    model, _ = rd.autofit(clusters(100, 6, 6), [None] * 6, budget=1e6, rng=0, progress=told.append)
    assert len(told) <= 12


def test_orders_are_those_of_near_dependent_columns_or_as_given():
    x = clusters(300, 9, 10)
    x[:, 1:] = np.where(np.random.default_rng(1).random((300, 8)) < 0.7, x[:, :-1], x[:, 1:])
    expected = rd.ordering.diverse(rd.ordering.dependence(x, [rd.Categorical(2)] * 9), 2, "train")
    options = {"validation": x, "budget": 1e6, "rng": 0}
    for orders in (None, [range(9)], [range(9), expected[1]]):
        model, _ = rd.autofit(x, [rd.Categorical(2)] * 9, orders=orders, max_rings=2, **options)
        found = [ring.order for ring in (model.rings if isinstance(model, rd.RingMixture) else [model])]
        allowed = [*expected, range(9)] if orders is None else orders
        assert set(found) <= {tuple(order) for order in allowed}


def test_chains_within_clusters_are_found(monkeypatch):
    """Rows of one kind mostly repeat the value before, those of the other differ: no column says which it is."""

    def once(*_):
        yield np.random.default_rng(1).permutation(40)
        pytest.fail("chains along the columns' own order need no other order")

    monkeypatch.setattr(module, "successive", once)
    rng = np.random.default_rng(0)
    x = rng.integers(2, size=(2400, 40))
    keep = np.where(rng.integers(2, size=2400) == 0, 0.8, 0.2)
    for k in range(1, 40):
        x[:, k] = np.where(rng.random(2400) < keep, x[:, k - 1], 1 - x[:, k - 1])
    told = []
    model, _ = rd.autofit(x[:800], [rd.Categorical(2)] * 40, budget=8.0, rng=0, max_rings=3, progress=told.append)
    assert any("start='chains', given=True" in line for line in told)
    repeats = (x[800:, 1:] == x[800:, :-1]).sum(axis=1)
    truth = np.mean(np.logaddexp(*(repeats * np.log(p) + (39 - repeats) * np.log(1 - p) for p in (0.8, 0.2))))
    assert model.log_prob(x[800:]).mean() > truth + 2 * np.log(0.5) - 1.5


def test_columns_of_many_components_have_no_chains():
    x, told = np.random.default_rng(0).integers(40, size=(200, 3)), []
    rd.autofit(x, [rd.Categorical(40)] * 3, budget=2.0, max_rings=1, rng=0, progress=told.append)
    assert not any("chains" in line for line in told)


def fitted(logs: np.ndarray, seed: int) -> module.Fitted:
    ring = rd.TensorRing.random([rd.Categorical(2)] * 2, 2, rng=seed)
    return module.Fitted(module.Setting(), ring, logs, {"train": [], "validation": [logs.mean()]}, 0.0)


def test_all_fits_that_have_a_weight_are_in_the_mixture():
    rng = np.random.default_rng(0)
    first = rng.normal(-10, 1, size=400)
    fits = [fitted(first, 0), fitted(first[::-1].copy(), 1), fitted(first - 5, 2)]
    model = module._mixture(fits, fits[0], 8, 1e-3)
    assert model.rings == (fits[0].ring, fits[1].ring) or model.rings == (fits[1].ring, fits[0].ring)
    assert sum(np.asarray(model.weights)) == pytest.approx(1)
    assert module._mixture(fits, fits[0], 1, 1e-3) is fits[0].ring
    assert module._mixture(fits, fits[0], 8, 1e3) is fits[0].ring
    assert module._mixture(fits[:1], fits[0], 8, 1e-3) is fits[0].ring


def test_orders_are_found_when_they_are_asked_for():
    asked = []
    orders = module._Orders((asked.append(k) or (k,) for k in range(3)), free=True)
    assert asked == []
    assert [orders.get(place) for place in (0, 0, 2)] == [(0,), (0,), (2,)] and asked == [0, 1, 2]
    assert orders.get(3) is None and orders.get(1) == (1,)


@pytest.mark.parametrize(
    ("values", "overfits"), [([-3, -2, -1], False), ([-3, -1, -2], True), ([-1.0], False), ([], False)]
)
def test_held_out_rows_that_lose_again_tell_overfitting(values, overfits):
    fit = module.Fitted(module.Setting(), None, np.zeros(1), {"train": [], "validation": values}, 0.0)
    assert fit.overfits == overfits


def test_the_weights_are_those_of_highest_likelihood():
    rng = np.random.default_rng(7)
    logs = rng.normal(-300, 3, size=(3, 500))
    weights = mixture_weights(logs)
    best = np.logaddexp.reduce(logs + np.log(weights)[:, None], axis=0).mean()
    for _ in range(50):
        other = rng.dirichlet(200 * weights + 0.1)
        assert np.logaddexp.reduce(logs + np.log(other + 1e-12)[:, None], axis=0).mean() <= best + 1e-6


def scattered() -> tuple[np.ndarray, list, list]:
    """A table, and variables in another order than its columns: two pairs that share a covariance, and categories."""
    rng = np.random.default_rng(11)
    group = rng.integers(2, size=500)
    first, second = (3 * group[:, None] + rng.normal(size=(500, 2)) @ [[1, 0.9], [0, 0.4]] for _ in range(2))
    flipped = np.where(rng.random(500) < 0.1, 1 - group, group)
    x = np.stack([first[:, 0], group, second[:, 1], first[:, 1], flipped, second[:, 0]], axis=1)
    pair = functools.partial(rd.MultivariateGaussianMixture, names=[None, None])
    return x, [pair, rd.Categorical(2), pair, None], [(5, 2), 4, (0, 3), 1]


def fits(x: np.ndarray, variables: list, columns: list | None, orders: list | None) -> list:
    """Of both functions that fit several rings, with the same choice of rows and seeds."""
    common = {"columns": columns, "orders": orders, "num_components": 3, "validation": x[:100], "rng": 0}
    return [
        rd.autofit(x, variables, budget=1e-3, max_rings=1, **common)[0],
        rd.fit_mixture(x, variables, 4, num_rings=1, max_epochs=3, **common)[0],
    ]


def rings_of(model) -> list:
    return list(model.rings) if isinstance(model, rd.RingMixture) else [model]


@pytest.mark.parametrize("wide", [True, False])
def test_variables_have_the_columns_they_are_given(wide):
    x, variables, columns = scattered()
    if not wide:  # then sites are columns
        variables, columns = (
            [None, rd.Categorical(2), rd.GaussianMixture, None, None, rd.GaussianMixture],
            [5, 4, 0, 1, 2, 3],
        )
    listed = [k for own in columns for k in ([own] if isinstance(own, int) else own)]
    orders = [[3, 0, 2, 1] if wide else [3, 5, 0, 2, 4, 1]]
    both = fits(x, variables, columns, orders), fits(x[:, listed], variables, None, orders)
    for found, expected in zip(*both, strict=True):
        np.testing.assert_allclose(found.log_prob(x), expected.log_prob(x[:, listed]), rtol=1e-4)
        for ring, other in zip(rings_of(found), rings_of(expected), strict=True):
            names = [ring.columns[i] for i in ring.order]
            assert names == [tuple(listed[k] for k in other.columns[i]) for i in other.order]


def test_orders_are_those_of_the_variables():
    x, variables, columns = scattered()
    placed = rd.initialize(x, variables, 1, columns=columns, num_components=3, rng=0).variables
    for model in fits(x, variables, columns, None):
        dependence = rd.ordering.dependence(x, placed, columns)
        allowed = {tuple(order) for order in (*rd.ordering.diverse(dependence, 2, "train"), [2, 3, 0, 1])}
        for ring in rings_of(model):
            assert sorted(ring.columns) == sorted((k,) if isinstance(k, int) else k for k in columns)
            assert ring.order in allowed


def test_columns_that_do_not_fit_are_refused():
    x, variables, columns = scattered()
    for wrong, message in (
        ([(5, 2), 4, (0, 3), 4], "must be a permutation of 0..5"),
        (columns[:3], "found 3 for 4 variables"),
        ([(5, 2), 4, 0, 1], "variable 2 has 2 columns, found"),
    ):
        for fit in (rd.autofit, rd.fit_mixture):
            with pytest.raises(ValueError, match=message):
                fit(x, variables, columns=wrong, rng=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.0}, "budget must be a positive number of seconds, found 0"),
        ({"budget": np.inf}, "budget must be a positive number"),
        ({"orders": []}, "orders must hold an order of the columns, found none"),
        ({"max_rings": 0}, "max_rings must be a positive integer, found 0"),
        ({"sample_weight": np.ones(3)}, "sample_weight must have shape"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rd.autofit(clusters(20, 4, 8), [None] * 4, rng=0, **options)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least two rows"):
        rd.autofit(clusters(1, 4, 9), [None] * 4)
    with pytest.raises(ValueError, match="category 5 is outside"):
        rd.autofit(np.full((20, 2), 5.0), [rd.Categorical(2)] * 2)
