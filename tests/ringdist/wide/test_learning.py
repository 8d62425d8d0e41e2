"""Learning of variables of several columns."""

import functools

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.wide.cases import COLUMNS, ORDER, D, wide_ring

pytestmark = pytest.mark.slow_on("jax")

FAMILIES = [
    None,
    functools.partial(rd.MultivariateGaussianMixture, names=["a", "b", "c"]),
    rd.GaussianMixture,
    functools.partial(rd.MultivariateGaussianMixture, names=[None, None]),
]


def data(n=400, missing=0.2, seed=2):
    x = np.array(wide_ring(load_backend("numpy")).sample(n, rng=seed))
    x[np.random.default_rng(seed).random(x.shape) < missing] = np.nan
    return x


@pytest.mark.parametrize("options", [
    {},
    {"topology": "train"},
    {"topology": "train", "core": "cp"},
    {"method": "mixture"},
    {"method": "mixture", "topology": "train", "core": "cp"},
    {"method": "kmeans", "order": [2, 1, 3, 0]},
], ids=str)  # fmt: skip
def test_em_never_falls(options):
    x = data()
    start = rd.initialize(x, FAMILIES, 3, num_components=3, rng=0, **options)
    assert start.columns == COLUMNS
    ring, history = rd.fit_em(start, x, max_epochs=12)
    assert np.diff([start.log_prob(x).mean(), *history["train"]]).min() > -1e-9
    assert_close(ring.log_prob(x).mean(), history["train"][-1], ring, rtol=1e-8)


def test_em_in_other_backends(backend):
    x = data(200)
    start = rd.initialize(x, FAMILIES, 2, num_components=2, topology="train", rng=0)
    expected, _ = rd.fit_em(start, x, max_epochs=3)
    ring, _ = rd.fit_em(start.to(backend.xp, device=backend.device), x, max_epochs=3)
    assert_close(backend.numpy(ring.log_prob(backend.array(x))), expected.log_prob(x), ring, rtol=1e-7)


def test_one_variable_alone_is_the_mixture_of_scikit_learn():
    from sklearn.datasets import load_wine
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = load_wine().data
    start = rd.initialize(x, [rd.MultivariateGaussianMixture], 1, num_components=3, rng=0)
    weights = np.asarray(start.cores[0])[:, 0, 0]
    mixture = GaussianMixture(
        3,
        reg_covar=0,
        tol=0,
        max_iter=20,
        weights_init=weights / weights.sum(),
        means_init=start.variables[0].means(),
        precisions_init=np.linalg.inv(start.variables[0].covariances()),
    )
    with pytest.warns(ConvergenceWarning):
        mixture.fit(x)
    ring, history = rd.fit_em(start, x, max_epochs=20, variance_floor=0)
    assert_close(history["train"][-1], mixture.score(x), ring, rtol=1e-9)
    assert_close(ring.variables[0].means(), mixture.means_, ring, rtol=1e-6)
    assert_close(ring.variables[0].covariances(), mixture.covariances_, ring, rtol=1e-6, atol=1e-6)
    assert_close(ring.log_prob(x), mixture.score_samples(x), ring, rtol=1e-6)
    assert_close(ring.component_posterior(0, x), mixture.predict_proba(x), ring, rtol=1e-5, atol=1e-8)


def test_the_floor_is_relative_to_each_column():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) * [1.0, 1e4, 1e-4]
    x[:, 2] = x[:, 1] * 1e-8  # exactly dependent
    start = rd.initialize(x, [rd.MultivariateGaussianMixture], 1, num_components=2, rng=0)
    ring, history = rd.fit_em(start, x, max_epochs=30, variance_floor=1e-3)
    least = np.sqrt(1e-3) * x.std(axis=0)
    for matrix in ring.variables[0].covariances():
        assert np.linalg.eigvalsh(matrix / least / least[:, None]).min() > 1 - 1e-6
    assert np.diff(history["train"]).min() > -1e-9


def test_units_do_not_matter():
    x = data(300, 0.1)
    unit = np.array([1.0, 1e6, 1e-6, 10.0, 1e3, 1e-3, 1.0])
    start = [rd.initialize(rows, FAMILIES, 2, num_components=3, rng=0) for rows in (x, x * unit)]
    fits = [rd.fit_em(s, rows, max_epochs=10)[0] for s, rows in zip(start, (x, x * unit), strict=True)]
    shift = ~np.isnan(x) @ np.log(unit)
    assert_close(fits[1].log_prob(x * unit) + shift, fits[0].log_prob(x), fits[0], rtol=1e-6)


def test_mini_batches_and_weights():
    x = data()
    start = rd.initialize(x, FAMILIES, 2, num_components=3, topology="train", rng=0)
    _, history = rd.fit_em(start, x, max_epochs=10, batch_size=50, rng=0)
    assert history["train"][-1] > start.log_prob(x).mean()
    doubled = rd.fit_em(start, np.concatenate([x, x[:100]]), max_epochs=4, variance_floor=0)[0]
    weighted = rd.fit_em(start, x, sample_weight=1.0 + (np.arange(400) < 100), max_epochs=4, variance_floor=0)[0]
    assert_close(weighted.log_prob(x), doubled.log_prob(x), weighted, rtol=1e-7)


def test_shrunk_covariances_are_better_where_rows_are_few():
    from sklearn.datasets import load_wine

    x = np.random.default_rng(0).permutation(load_wine().data)
    start = rd.initialize(x[:120], [rd.MultivariateGaussianMixture], 1, num_components=5, rng=0)
    fits = [rd.fit_em(start, x[:120], max_epochs=20, shrinkage=rows)[0] for rows in (0.0, 1.0, 1e9)]
    assert fits[1].log_prob(x[120:]).mean() > fits[0].log_prob(x[120:]).mean() + 1
    matrices = fits[2].variables[0].covariances()
    assert_close(matrices / matrices[:1], np.ones_like(matrices), "one for all", rtol=1e-5)
    with pytest.raises(ValueError, match="shrinkage must be finite and not negative, found -1"):
        rd.fit_em(start, x, shrinkage=-1.0)


@pytest.mark.parametrize("seed", range(3))
def test_components_of_different_widths_keep_them_when_shrunk(seed):
    """Equal correlations and widths that differ by a factor of ten: what is common is not the covariance."""
    rng = np.random.default_rng(seed)
    mixing, width = rng.normal(size=(8, 8)), np.array([[0.1], [1.0]]) * 10.0 ** rng.uniform(-0.3, 0.3, size=(2, 8))
    s = rng.integers(2, size=2040)
    x = (rng.normal(size=(2040, 8)) @ mixing) * width[s] + 20 * s[:, None]
    start = rd.initialize(x[:40], [rd.MultivariateGaussianMixture], 1, num_components=2, rng=0)
    alone, together = (rd.fit_em(start, x[:40], max_epochs=20, shrinkage=rows)[0] for rows in (0.0, 1.0))
    assert together.log_prob(x[40:]).mean() > alone.log_prob(x[40:]).mean() - 0.1
    truth = width**2 * (mixing**2).sum(axis=0)
    ratio = np.sort(together.variables[0].variances(), axis=0) / np.sort(truth, axis=0)
    assert 0.2 < ratio.min() < ratio.max() < 2.5


def test_shrinkage_of_mini_batches_is_that_of_all_rows():
    """With batches of all rows and steps near 1 the two agree but for the share of the model's own expectation."""
    x = data(300, 0.0)
    start = rd.initialize(x, FAMILIES, 1, num_components=2, topology="train", rng=0)
    whole = rd.fit_em(start, x, max_epochs=40, shrinkage=5.0)[0]
    batches = rd.fit_em(start, x, max_epochs=80, shrinkage=5.0, batch_size=300, rng=0)[0]
    assert abs(whole.log_prob(x).mean() - batches.log_prob(x).mean()) < 0.02


def test_statistics_summed_over_processes():
    x = data(100)
    start = rd.initialize(x, FAMILIES, 2, num_components=2, topology="train", rng=0)
    alone = rd.fit_em(start, x, max_epochs=3)[0]
    reduced = rd.fit_em(start, x, max_epochs=3, reduce=lambda array: array)[0]
    assert_close(reduced.log_prob(x), alone.log_prob(x), alone)


def test_gradient_descent():
    torch = pytest.importorskip("torch")
    x = torch.tensor(data(200))
    start = rd.initialize(x.numpy(), FAMILIES, 2, num_components=2, rng=0, xp=torch, dtype="float64")
    ring, history = rd.fit_gradient(start, x, lambda p: torch.optim.Adam(p, lr=0.02), max_epochs=15, rng=0)
    assert history["train"][-1] > float(start.log_prob(x).mean())
    rd.TensorRing(ring.cores, ring.variables, order=ring.order)  # passes every check


def test_data_that_do_not_fit():
    for families, message in [
        ([rd.MultivariateGaussianMixture] * 2, "only one family may cover all remaining columns"),
        ([rd.MultivariateGaussianMixture, *[None] * 6], r"x must have shape \(n, 8 or more\)"),
        (FAMILIES[:3], r"x must have shape \(n, 5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            rd.initialize(data(20), families, 2)
    x = data(20)
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="columns 1, 2, 3: placing components needs an observed entry"):
        rd.initialize(x, FAMILIES, 2)
    with pytest.raises(ValueError, match="columns that share a covariance need standard deviations between"):
        rd.initialize(data(20) * 1e200, [*FAMILIES[1:2], None, *FAMILIES[1:2]], 2)


def test_em_of_a_mixture_of_rings():
    x = data(200)
    rings = [
        rd.initialize(x, FAMILIES, 2, num_components=2, topology="train", order=o, rng=0) for o in ([0, 1, 2, 3], ORDER)
    ]
    _, history = rd.fit_em(rd.RingMixture(rings, [0.5, 0.5]), x, max_epochs=5)
    assert np.diff(history["train"]).min() > -1e-9


def test_autofit():
    x = data(200)
    model, _ = rd.autofit(x, FAMILIES, budget=1.0, max_rings=1, num_components=3, rng=0)
    assert model.num_columns == D
    alone = rd.initialize(x, FAMILIES, 1, num_components=3, rng=0)
    assert model.log_prob(x).mean() > alone.log_prob(x).mean()
