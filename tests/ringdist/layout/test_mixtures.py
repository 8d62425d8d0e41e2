"""Mixtures of rings of different layouts."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.layout.cases import D, covariances, pair, rows

pytestmark = pytest.mark.slow_on("jax")


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
