"""Rings of scattered columns learn and are ordered as rings of consecutive ones."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close, load_backend
from tests.ringdist.layout.cases import COLUMNS, FLAT, D, pair, scattered

pytestmark = pytest.mark.slow_on("jax")


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
