"""`rd.fit_mixture`: rings over several orders, learnt one after the other or together."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.learning.rings import mixture_weights


def clusters(seed, n=600, d=8, count=4):
    rng = np.random.default_rng(seed)
    p = rng.random((count, d))
    return (rng.random((n, d)) < p[rng.integers(count, size=n)]).astype(float)


@pytest.mark.parametrize("topology, core", [("train", "cp"), ("ring", "dense")])
def test_one_ring_an_order_and_weights_of_highest_likelihood(topology, core):
    x = clusters(0)
    orders = [list(range(8)), [0, 4, 1, 5, 2, 6, 3, 7]]
    layout = {"topology": topology, "core": core}
    model, history = rd.fit_mixture(
        x, [rd.Categorical(2)] * 8, 3, num_rings=2, orders=orders, rng=0, max_epochs=3, smoothing=0.5, **layout
    )
    assert [list(ring.order) for ring in model.rings] == orders
    assert all(ring.is_dense == (core == "dense") for ring in model.rings)
    parts = np.stack([ring.log_prob(x) for ring in model.rings])
    values = model.log_prob(x).mean()
    for shift in (0.05, -0.05):
        other = np.clip(np.add(model.weights, (shift, -shift)), 1e-9, 1)
        mixed = np.logaddexp.reduce(parts + np.log(other / other.sum())[:, None], axis=0).mean()
        assert mixed <= values + 1e-6
    np.testing.assert_allclose(mixture_weights(parts), model.weights, atol=1e-2)
    assert len(history["train"]) == 3


def test_learning_together_gains_and_is_reproducible():
    x = clusters(1)
    alone, _ = rd.fit_mixture(x, [rd.Categorical(2)] * 8, 2, num_rings=3, rng=0, max_epochs=4)
    joint, history = rd.fit_mixture(x, [rd.Categorical(2)] * 8, 2, num_rings=3, rng=0, max_epochs=4, together=True)
    again, _ = rd.fit_mixture(x, [rd.Categorical(2)] * 8, 2, num_rings=3, rng=0, max_epochs=4, together=True)
    assert joint.log_prob(x).mean() > alone.log_prob(x).mean()
    assert (np.diff(history["train"]) > -1e-9).all()
    np.testing.assert_array_equal(joint.log_prob(x), again.log_prob(x))


def test_validation_rows_choose_the_weights():
    rng = np.random.default_rng(2)
    x = np.concatenate([clusters(2), rng.normal(size=(600, 1))], axis=1)
    x[rng.random(x.shape) < 0.1] = np.nan
    variables = [rd.Categorical(2)] * 8 + [rd.GaussianMixture]
    model, history = rd.fit_mixture(x[100:], variables, 3, num_rings=2, validation=x[:100], rng=0, max_epochs=5)
    parts = np.stack([ring.log_prob(x[:100]) for ring in model.rings])
    np.testing.assert_allclose(mixture_weights(parts), model.weights, atol=1e-2)
    assert set(history) == {"train", "validation"}


def test_masked_entries_are_missing():
    x = clusters(3, n=200)
    hidden = np.random.default_rng(0).random(x.shape) < 0.2
    masked = np.ma.masked_array(np.where(hidden, 1.0, x), mask=hidden)
    options = {"num_rings": 2, "rng": 0, "max_epochs": 2}
    found = [
        rd.fit_mixture(rows, [rd.Categorical(2)] * 8, 2, **options)[0] for rows in (masked, np.where(hidden, np.nan, x))
    ]
    np.testing.assert_array_equal(found[0].log_prob(x), found[1].log_prob(x))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_rings": 0}, "num_rings must be a positive integer, found 0"),
        ({"num_rings": 1.5}, "num_rings must be a positive integer, found 1.5"),
        ({"num_rings": 2, "orders": [[0, 1]]}, "there must be one order for each of 2 rings, found 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        rd.fit_mixture(np.zeros((4, 2)), [rd.Categorical(2)] * 2, **options)


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_the_best_ones_however_alike_the_models(seed):
    """EM alone takes thousands of steps between models that hardly differ."""
    rng = np.random.default_rng(seed)
    count, n = int(rng.integers(2, 7)), 400
    values = rng.normal(size=n) + 10.0 ** rng.uniform(-3, 1) * rng.normal(size=(count, n))
    values[rng.random(values.shape) < 0.05] = -np.inf
    values[:, 0] = -np.inf  # a row that no model explains
    rows = rng.integers(0, 3, n).astype(float) if seed % 2 else None
    weights = mixture_weights(values, rows)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    share = np.ones(n - 1) if rows is None else rows[1:]
    density = np.exp(values[:, 1:])
    gains = density / (weights @ density) @ share / share.sum()
    assert gains.max() < 1 + 1e-8  # which bounds what other weights could gain
    twice = mixture_weights(np.concatenate([values, values]), rows)
    np.testing.assert_allclose(twice[:count] + twice[count:], weights, atol=1e-4)
    np.testing.assert_allclose(mixture_weights(np.full((count, 3), -np.inf)), 1 / count)
