"""Gaussian components over several columns, beside scipy's multivariate normal distribution."""

import copy
import pickle

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from ringdist.variables import Family, as_family
from ringdist.variables.multivariate_functions import floored
from ringdist.variables.multivariate_placing import centres_and_covariances
from tests.backends import assert_close

pytestmark = pytest.mark.slow_on("jax")

N, W = 3, 4


def covariances(rng, size=N, width=W):
    factor = rng.normal(size=(size, width, width))
    return factor @ factor.mT + 0.3 * np.eye(width)


def parameters(seed=0, size=N, width=W, unit=1.0):
    rng = np.random.default_rng(seed)
    unit = np.broadcast_to(unit, (width,))
    return unit * rng.normal(size=(size, width)), covariances(rng, size, width) * unit[:, None] * unit


def made(backend, means, matrices, names=None, dtype="float64"):
    return rd.MultivariateGaussianMixture(backend.array(means, dtype), backend.array(matrices, dtype), names=names)


def partial_rows(n=40, width=W, seed=1):
    """Rows of every kind: complete, empty, and with any entries missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    x[rng.random(x.shape) < 0.4] = np.nan
    x[0], x[1] = rng.normal(size=width), np.nan
    return x


def given(mean, matrix, row):
    """Mean and covariance of all entries given those that the row observes, by the textbook's formula."""
    o, m = ~np.isnan(row), np.isnan(row)
    gain = matrix[np.ix_(m, o)] @ np.linalg.inv(matrix[np.ix_(o, o)])
    expected, spread = row.copy(), np.zeros_like(matrix)
    expected[m] = mean[m] + gain @ (row[o] - mean[o])
    spread[np.ix_(m, m)] = matrix[np.ix_(m, m)] - gain @ matrix[np.ix_(o, m)]
    return expected, spread


def log_density(means, matrices, x):
    found = np.zeros((len(x), len(means)))
    for b, row in enumerate(x):
        o = ~np.isnan(row)
        for s in range(len(means)):
            if o.any():
                found[b, s] = stats.multivariate_normal(means[s][o], matrices[s][np.ix_(o, o)]).logpdf(row[o])
    return found


@pytest.mark.parametrize("unit", [1.0, np.array([1e-90, 1.0, 1e60, 1e5])], ids=["plain", "scales"])
def test_log_density_of_any_entries(backend, unit):
    means, matrices = parameters(unit=unit)
    variable, x = made(backend, means, matrices), partial_rows()
    unit = np.broadcast_to(unit, (W,))
    expected = log_density(means / unit, matrices / unit / unit[:, None], x) - (~np.isnan(x) @ np.log(unit))[:, None]
    assert_close(backend.numpy(variable.log_density(backend.array(x * unit))), expected, variable)
    table = variable.log_density(backend.array((x * unit).reshape(5, 8, W)))
    assert_close(backend.numpy(table), expected.reshape(5, 8, N), variable)


def test_more_columns_than_bits(backend):
    means, matrices = parameters(2, 2, 70)
    x = partial_rows(6, 70)
    found = made(backend, means, matrices).log_density(backend.array(x))
    assert_close(backend.numpy(found), log_density(means, matrices, x), "70 columns", rtol=1e-8)


def test_moments_given_any_entries(backend):
    means, matrices = parameters()
    variable, x = made(backend, means, matrices, list("abcd")), partial_rows()
    found = backend.numpy(variable.conditional_means(backend.array(x)))
    for b, row in enumerate(x):
        for s in range(N):
            assert_close(found[b, s], given(means[s], matrices[s], row)[0], (row, s))


@pytest.mark.parametrize("place", range(W))
def test_one_column_given_others(backend, place):
    means, matrices = parameters()
    x = partial_rows()
    column = made(backend, means, matrices, list("abcd")).conditional(backend.array(x), place)
    assert isinstance(column, rd.GaussianMixture) and column.name == "abcd"[place]
    for b, row in enumerate(x):
        others = row.copy()
        others[place] = np.nan
        for s in range(N):
            expected, spread = given(means[s], matrices[s], others)
            assert_close(backend.numpy(column.means())[b, s], expected[place], (row, s))
            assert_close(backend.numpy(column.variances())[b, s], spread[place, place], (row, s))


@pytest.mark.parametrize("places", [[2], [0, 3], [3, 1, 0], [1, 0, 2, 3]])
def test_marginal(backend, places):
    means, matrices = parameters()
    part = made(backend, means, matrices, list("abcd")).marginal(places)
    assert part.names == tuple("abcd"[j] for j in places)
    assert_close(backend.numpy(part.means()).reshape(N, -1), means[:, places], part)
    if len(places) == 1:
        assert_close(backend.numpy(part.variances()), matrices[:, places[0], places[0]], part)
    else:
        assert_close(backend.numpy(part.covariances()), matrices[:, places][:, :, places], part)


def test_conditioned_on_one_row(backend):
    means, matrices = parameters()
    variable = made(backend, means, matrices, list("abcd"))
    for row in ([0.5, np.nan, -1.0, np.nan], [np.nan, 0.1, 2.0, 3.0]):
        row = np.array(row)
        m = np.isnan(row)
        part = variable.conditioned(backend.array(row), np.flatnonzero(m).tolist())
        assert part.names == tuple(np.array(list("abcd"))[m])
        for s in range(N):
            expected, spread = given(means[s], matrices[s], row)
            assert_close(backend.numpy(part.means()).reshape(N, -1)[s], expected[m], part)
            assert_close(backend.numpy(part.covariances())[s], spread[np.ix_(m, m)], part)


def test_covariances_that_are_nearly_singular_stay_positive(backend):
    """The conditional variance of a sum given its terms is the noise in it, 1e-12 of its variance."""
    factor = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1e-6]])
    variable = made(backend, np.zeros((1, 3)), (factor @ factor.T)[None])
    x = backend.array([[0.3, -0.7, np.nan], [np.nan, -0.7, np.nan]])
    column = variable.conditional(x, 2)
    assert_close(backend.numpy(column.means())[:, 0], [-0.4, -0.7], variable, rtol=1e-5)
    assert_close(backend.numpy(column.arrays()["stds"])[:, 0], [1e-6, 1.0], variable, rtol=1e-3)


def test_samples(backend):
    means, matrices = parameters(3)
    variable = made(backend, means, matrices)
    component = np.arange(60_000) % N
    x = backend.numpy(variable.sample(backend.array(component, "int64"), backend.rng()))
    for s in range(N):
        own = x[component == s]
        spread = np.sqrt(np.diagonal(matrices[s]))
        assert np.abs((own.mean(axis=0) - means[s]) / spread).max() < 0.04
        assert np.abs((np.cov(own.T) - matrices[s]) / spread / spread[:, None]).max() < 0.05


def test_samples_given_what_rows_observe(backend):
    means, matrices = parameters(4)
    variable = made(backend, means, matrices)
    kinds = np.array([[0.4, np.nan, -1.0, np.nan], [np.nan, np.nan, np.nan, 2.0], [1.0, 2.0, 3.0, 4.0], [np.nan] * 4])
    component = np.arange(len(kinds)) % N
    rows = np.tile(kinds, (15_000, 1))
    chosen = backend.array(np.tile(component, 15_000), "int64")
    drawn = backend.numpy(variable.sample_given(chosen, backend.array(rows), backend.rng()))
    np.testing.assert_array_equal(drawn[~np.isnan(rows)], rows[~np.isnan(rows)])
    for kind, (row, s) in enumerate(zip(kinds, component, strict=True)):
        own = drawn[kind :: len(kinds)]
        expected, spread = given(means[s], matrices[s], row)
        scale = np.sqrt(np.where(np.diagonal(spread) > 0, np.diagonal(spread), 1.0))
        assert np.abs((own.mean(axis=0) - expected) / scale).max() < 0.05
        assert np.abs((np.cov(own.T) - spread) / scale / scale[:, None]).max() < 0.06


def test_inner_products(backend):
    (means, matrices), (others, more) = parameters(5), parameters(6, 2)
    found = made(backend, means, matrices).inner(made(backend, others, more))
    expected = [
        [stats.multivariate_normal(o, a + b).pdf(m) for o, b in zip(others, more, strict=True)]
        for m, a in zip(means, matrices, strict=True)
    ]
    assert_close(backend.numpy(found), expected, "inner")


# ------------------------------------------------------------------------------------------------ learning


def em_step(means, matrices, x, weights):
    """One M-step by the textbook, row by row."""
    new_means, new_matrices = np.zeros_like(means), np.zeros_like(matrices)
    seen = ~np.isnan(x).all(axis=1)
    for s in range(len(means)):
        moments = [given(means[s], matrices[s], row) for row in x[seen]]
        w = weights[seen, s]
        new_means[s] = sum(v * e for v, (e, _) in zip(w, moments, strict=True)) / w.sum()
        total = sum(
            v * (np.outer(e - new_means[s], e - new_means[s]) + c) for v, (e, c) in zip(w, moments, strict=True)
        )
        new_matrices[s] = total / w.sum()
    return new_means, new_matrices


def test_the_step_of_em_with_missing_entries(backend):
    means, matrices = parameters(7)
    x, weights = partial_rows(60, seed=8), np.random.default_rng(9).dirichlet(np.ones(N), 60)
    variable = made(backend, means, matrices)
    updated = variable.update(backend.array(x), backend.array(weights))
    expected = em_step(means, matrices, x, weights)
    assert_close(backend.numpy(updated.means()), expected[0], variable)
    assert_close(backend.numpy(updated.covariances()), expected[1], variable)


@pytest.mark.parametrize("rows", [0.5, 20.0])
def test_covariances_are_shrunk_to_common_correlations(backend, rows):
    means, matrices = parameters(7)
    x, weights = partial_rows(60, seed=8), np.random.default_rng(9).dirichlet(np.ones(N), 60)
    weights[:, 2] *= 0.1
    variable = made(backend, means, matrices)
    statistics = variable.shrunk(variable.statistics(backend.array(x), backend.array(weights)), rows)
    found = variable.from_statistics(statistics)
    expected, alone = em_step(means, matrices, x, weights)
    counts = weights[~np.isnan(x).all(axis=1)].sum(axis=0)
    shared = np.tensordot(counts, alone, 1) / counts.sum()
    assert_close(backend.numpy(found.means()), expected, variable)
    own = np.diagonal(alone, axis1=1, axis2=2)
    typical = np.exp(counts @ np.log(own) / counts.sum())
    own = own * counts[:, None] + rows / W * typical
    stds = np.sqrt(own / (counts + rows / W)[:, None])
    common = shared / np.sqrt(np.outer(np.diag(shared), np.diag(shared)))
    prior = common * stds[:, :, None] * stds[:, None, :]
    pulled = (counts[:, None, None] * alone + rows * prior) / (counts + rows)[:, None, None]
    assert_close(backend.numpy(found.covariances()), pulled, variable)


def test_expected_statistics_are_those_of_its_own_samples():
    means, matrices = parameters(10)
    variable, rng = rd.MultivariateGaussianMixture(means, matrices), np.random.default_rng(0)
    weights = np.array([0.5, 0.2, 0.3])
    component = rng.choice(N, 50_000, p=weights)
    x = variable.sample(component, rng)
    found = variable.statistics(x, np.eye(N)[component])
    for name, value in variable.expected_statistics(weights).items():
        np.testing.assert_allclose(found[name] / 50_000, value, atol=0.02)


def test_the_floor_is_the_constrained_maximum(backend):
    """No covariance above the floor has a higher likelihood than the one found."""
    rng = np.random.default_rng(11)
    sample, least = covariances(rng, 1, 3) * 0.05, np.array([[0.3, 0.4, 0.5]])
    found = backend.numpy(floored(backend.array(sample), backend.array(least)))[0]
    assert np.linalg.eigvalsh(found / least.T / least).min() >= 1 - 1e-9

    def value(matrix):
        return -0.5 * (np.linalg.slogdet(matrix)[1] + np.trace(np.linalg.solve(matrix, sample[0])))

    for _ in range(300):
        other = found + 0.05 * (lambda a: a + a.T)(rng.normal(size=(3, 3)))
        if np.linalg.eigvalsh(other / least.T / least).min() >= 1:
            assert value(other) <= value(found) + 1e-12
    kept = covariances(rng, 2, 3)
    assert_close(backend.numpy(floored(backend.array(kept), backend.array(np.full((2, 3), 1e-3)))), kept, "above")


@pytest.mark.parametrize("least", [0.0, 0.1])
def test_constant_columns_and_components_without_rows(least):
    means, matrices = parameters(12)
    variable = rd.MultivariateGaussianMixture(means, matrices)
    x = np.random.default_rng(13).normal(size=(50, W))
    x[:, 2] = 7.0
    weights = np.zeros((50, N))
    weights[:25, 0] = weights[25:, 1] = 1.0
    updated = variable.from_statistics(variable.statistics(x, weights), np.full(W, least))
    assert_close(updated.means()[2], means[2], updated)
    assert_close(updated.covariances()[2], matrices[2], updated)
    assert_close(updated.means()[:2, 2], [7.0, 7.0], updated)
    expected = matrices[:2, 2, 2] if least == 0 else np.full(2, least**2)
    assert_close(updated.variances()[:2, 2], expected, updated, rtol=1e-6)
    rd.MultivariateGaussianMixture(**updated.arrays())  # passes every check


def test_fewer_rows_than_columns_leave_a_covariance():
    x = np.random.default_rng(14).normal(size=(3, 6))
    start = rd.MultivariateGaussianMixture(*parameters(15, 1, 6))
    updated = start.update(x, np.ones((3, 1)))
    rd.MultivariateGaussianMixture(**updated.arrays())
    floor = start.from_statistics(start.statistics(x, np.ones((3, 1))), np.full(6, 0.2))
    assert np.linalg.eigvalsh(floor.covariances()[0]).min() > 0.2**2 * 0.999


def test_placed_near_the_clusters():
    rng = np.random.default_rng(16)
    centres = np.array([[0.0, 0.0, 1e6], [8.0, 0.0, 1e6], [0.0, 8.0, 1e6 + 5]])
    shape = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 0.5]])
    x = np.concatenate([rng.multivariate_normal(c, shape, 400) for c in centres])
    x[rng.random(x.shape) < 0.1] = np.nan
    means, matrices = centres_and_covariances(x, 3, np.finfo(np.float64))
    order = [int(np.argmin(np.abs(means - c).sum(axis=1))) for c in centres]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(means[order], centres, atol=0.8)
    assert (matrices[:, 0, 1] > 0.2).all()
    again = centres_and_covariances(x, 3, np.finfo(np.float64))
    assert np.array_equal(means, again[0]) and np.array_equal(matrices, again[1])


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((5, 2)),
        np.array([[1.0, 2.0]]),
        np.array([[1.0, np.nan], [np.nan, 3.0]]),
        np.array([[1e-9, 3.0], [2e-9, 3.0], [np.nan, np.nan]]),
        np.random.default_rng(0).normal(size=(4, 12)),
    ],
    ids=["constant", "one row", "never together", "tiny", "wide"],
)
def test_placed_on_poor_data(rows):
    means, matrices = centres_and_covariances(rows, 3, np.finfo(np.float64))
    rd.MultivariateGaussianMixture(means, matrices)


# ------------------------------------------------------------------------------------------------ the class


def test_gradients_of_means_and_covariances():
    torch = pytest.importorskip("torch")
    means, matrices = (torch.tensor(array, requires_grad=True) for array in parameters(17))
    x = torch.tensor(partial_rows(12), requires_grad=True)

    def density(means, matrices, x):
        symmetric = (matrices + matrices.mT) / 2
        return rd.MultivariateGaussianMixture(means, symmetric).log_density(torch.where(torch.isnan(x), x, x + 0)).sum()

    found = torch.autograd.grad(density(means, matrices, x), [means, matrices, x])
    assert all(torch.isfinite(gradient).all() for gradient in found)
    x = x.detach()
    assert torch.autograd.gradcheck(lambda m, c: density(m, c, x), (means, matrices))


def test_it_is_a_variable():
    variable = rd.MultivariateGaussianMixture(*parameters(), names=["a", None, "c", "d"])
    assert isinstance(variable, rd.Variable) and isinstance(variable, Family) and as_family(variable) is variable
    assert (variable.width, variable.num_components, variable.name) == (W, N, None)
    assert variable.names == ("a", None, "c", "d")
    assert repr(variable) == "MultivariateGaussianMixture(3 of 4 columns, names=['a', None, 'c', 'd'])"
    for again in (copy.deepcopy(variable), pickle.loads(pickle.dumps(variable))):
        assert again.form == variable.form
        assert_close(again.covariances(), variable.covariances(), again)


def test_what_the_caller_writes_later_does_not_reach_it():
    means, matrices = parameters()
    variable = rd.MultivariateGaussianMixture(means, matrices)
    expected = variable.log_density(np.zeros((1, W)))
    means[:], matrices[:] = 9.0, 9.0
    assert_close(variable.log_density(np.zeros((1, W))), expected, variable)


def test_parameters_of_gradient_descent(backend):
    variable = made(backend, *parameters(18))
    again = variable.with_free_arrays(variable.free_arrays())
    assert_close(backend.numpy(again.covariances()), backend.numpy(variable.covariances()), variable)
    free = {name: array + 0.3 for name, array in variable.free_arrays().items()}
    rd.MultivariateGaussianMixture(**variable.with_free_arrays(free).arrays())


EYE = np.eye(2)[None]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, 2.0], EYE), ValueError, r"means must have shape \(N, w\) with w >= 2, found \(2,\)"),
        (([[1.0]], [[[1.0]]]), ValueError, r"found \(1, 1\); one column is an rd.GaussianMixture"),
        (([[1.0, 2.0]], np.eye(3)[None]), ValueError, r"covariances must have shape .* \(1, 2, 2\) .* \(1, 3, 3\)"),
        (([[1.0, np.inf]], EYE), ValueError, "means must be finite, found inf at component 0"),
        (([[0.0, 0.0]] * 2, [np.eye(2), [[1, 0.5], [0.4, 1]]]), ValueError, "symmetric, .* 0.1 at component 1"),
        (([[0.0, 0.0]], [[[1, 2.0], [2, 1]]]), ValueError, "positive definite, .* eigenvalue -1 at component 0; add"),
        (([[0.0, 0.0]], [[[1.0, 0], [0, 0]]]), ValueError, "variances must be positive, found 0 .* component 0"),
        (([[0.0, 0.0]], [[[1.0, np.nan], [0, 1]]]), ValueError, "covariances must be finite, found nan at component 0"),
        (([[0.0, 0.0]], EYE, ["a"]), ValueError, r"one name for each of 2 columns, all different, found \['a'\]"),
        (([[0.0, 0.0]], EYE, ["a", "a"]), ValueError, "all different"),
        (([[0.0, 0.0]], EYE, "ab"), TypeError, "names must be a list of strings or None, found 'ab'"),
        (([[0.0, 0.0]], EYE, ["a", 1]), TypeError, "names must be a list"),
        ((np.array([[0, 0]]), EYE), TypeError, "means must be floating point, found int64"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        rd.MultivariateGaussianMixture(*arguments)
