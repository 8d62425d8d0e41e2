"""What holds of every family beside the first ones: densities, draws and EM against scipy, and queries of a ring."""

import pickle

import numpy as np
import pytest
from scipy import stats

import ringdist as rd
from ringdist.variables import as_family
from tests import oracle
from tests.backends import assert_close, load_backend
from tests.ringdist.variables.specimens import SPECIMENS

pytestmark = pytest.mark.slow_on("jax")

ROUGH = {"float32": {"rtol": 3e-5, "atol": 3e-5}, "float64": {"rtol": 1e-10, "atol": 1e-11}}


@pytest.fixture(params=SPECIMENS, ids=repr)
def specimen(request):
    return request.param


def ring_of(specimen, backend, dtype="float64"):
    """A category beside a column of the family, in no way independent."""
    cores = np.random.default_rng(2).gamma(0.5, size=(4, 2, 3)), np.random.default_rng(3).gamma(0.5, size=(3, 3, 2))
    variables = [rd.Categorical(4, name="kind"), specimen.make(backend, dtype, name="size")]
    return rd.TensorRing([backend.array(core, dtype) for core in cores], variables), np.einsum("sab,tba->st", *cores)


# ------------------------------------------------------------------------------------------------- densities


@pytest.mark.fast_on("jax")
def test_log_density_cdf_and_moments(backend, specimen, dtype):
    variable, x = specimen.make(backend, dtype), specimen.draw(24).astype(dtype).astype(float).reshape(2, 12)
    assert_close(
        backend.numpy(variable.log_density(backend.array(x, dtype))), specimen.log_density(x), specimen, **ROUGH[dtype]
    )
    assert_close(backend.numpy(variable.cdf(backend.array(x, dtype))), specimen.cdf(x), specimen, **ROUGH[dtype])
    assert_close(backend.numpy(variable.means()), specimen.means(), specimen, **ROUGH[dtype])
    assert_close(backend.numpy(variable.variances()), specimen.variances(), specimen, **ROUGH[dtype])
    assert_close(
        backend.numpy(as_family(variable).standard_deviations()), specimen.variances() ** 0.5, specimen, **ROUGH[dtype]
    )
    assert isinstance(variable, rd.Variable) and variable.num_components == len(specimen.scipy)
    assert variable.means().dtype == backend.dtype(dtype)


def test_values_outside_the_support(backend, specimen):
    variable, x = specimen.make(backend, name="size"), backend.array([*specimen.outside, np.nan, specimen.draw(1)[0]])
    inside = backend.numpy(variable.in_support(x))
    assert inside.tolist() == [False] * len(specimen.outside) + [True, True], specimen
    assert (backend.numpy(variable.log_density(x[: len(specimen.outside)])) == -np.inf).all(), specimen
    with pytest.raises(ValueError, match=specimen.finding):
        variable.check(x)
    ring, _ = ring_of(specimen, backend)
    with pytest.raises(ValueError, match=rf"column 1 \('size'\): {specimen.finding}"):
        ring.log_prob(backend.array([[0.0, specimen.outside[0]]]))


def test_inner_products(backend, specimen):
    variable = specimen.make(backend)
    expected = [
        [specimen.integral(lambda x, p=p, q=q: _density(p, x) * _density(q, x)) for q in specimen.scipy]
        for p in specimen.scipy
    ]
    assert_close(backend.numpy(variable.inner(variable)), expected, specimen, rtol=1e-8)
    with pytest.raises(ValueError, match="one family"):
        variable.inner(rd.Categorical(2))


def _density(distribution, x):
    return distribution.pmf(x) if hasattr(distribution, "pmf") else distribution.pdf(x)


def test_draws_of_each_component(backend, specimen, dtype):
    variable = specimen.make(backend, dtype)
    for component, distribution in enumerate(specimen.scipy):
        x = backend.numpy(variable.sample(backend.array(np.full(3000, component), "int64"), backend.rng(component)))
        assert x.shape == (3000,) and x.dtype == dtype and np.isfinite(x).all(), specimen
        assert backend.numpy(variable.in_support(backend.array(x, dtype))).all(), specimen
        if specimen.integer:
            values = np.arange(x.max() + 1)
            tail = 1 - distribution.cdf(x.max())
            assert (
                oracle.chi_square(np.append(np.bincount(x.astype(int)), 0), np.append(distribution.pmf(values), tail))
                > 1e-3
            )
        else:
            assert stats.kstest(distribution.cdf(x), "uniform").pvalue > 1e-3, (specimen, component)


def test_gradients_of_the_log_density(specimen):
    """Against central differences in every parameter and in x, by PyTorch."""
    backend = load_backend("torch")
    x = specimen.draw(9)
    arrays = {key: np.array(values) for key, values in specimen.parameters.items()}

    def value(arrays, x):
        found = specimen.family(**{key: backend.array(v) for key, v in arrays.items()}, **specimen.options)
        return backend.numpy(found.log_density(backend.array(x))).sum()

    moving = {key: backend.array(v).requires_grad_() for key, v in arrays.items()}
    points = backend.array(x).requires_grad_()
    specimen.family(**moving, **specimen.options, validate=False).log_density(points).sum().backward()
    for key, array in arrays.items():
        for i in range(array.size):
            step = 1e-5 * np.eye(array.size)[i] * max(abs(array[i]), 1e-3)
            slope = (value(arrays | {key: array + step}, x) - value(arrays | {key: array - step}, x)) / (2 * step[i])
            assert_close(float(moving[key].grad[i]), slope, (specimen, key, i), rtol=1e-6, atol=1e-6)
    if not specimen.integer:
        slopes = [
            (value(arrays, x[i] * (1 + 1e-6)) - value(arrays, x[i] * (1 - 1e-6))) / (2e-6 * x[i]) for i in range(9)
        ]
        assert_close(backend.numpy(points.grad), slopes, specimen, rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------------- other forms


def test_conversions_and_pickles(backend, specimen):
    variable, x = specimen.make(backend, name="size"), backend.array(specimen.draw(8))
    expected = backend.numpy(variable.log_density(x))
    for again in (as_family(variable).with_arrays(variable.arrays()).variable, pickle.loads(pickle.dumps(variable))):
        np.testing.assert_array_equal(backend.numpy(again.log_density(x)), expected)
        assert (again.name, type(again)) == ("size", type(variable)), specimen
    ring, _ = ring_of(specimen, backend)
    rows = np.array([[np.nan, value] for value in specimen.draw(5)])
    expected = backend.numpy(ring.log_prob(backend.array(rows)))
    assert_close(ring.to(np).log_prob(rows), expected, specimen)
    assert_close(load_backend("numpy").numpy(ring.to(np).to(backend.xp).to(np).log_prob(rows)), expected, specimen)
    assert str(ring.to(dtype=backend.dtype("float32")).log_prob(backend.array(rows, "float32")).dtype).endswith(
        "float32"
    )


def test_saving_and_loading(backend, specimen, tmp_path):
    ring, _ = ring_of(specimen, backend)
    ring.save(tmp_path / "ring.safetensors")
    again = rd.load(tmp_path / "ring.safetensors")
    rows = np.array([[np.nan, value] for value in specimen.draw(5)])
    assert_close(again.log_prob(rows), backend.numpy(ring.log_prob(backend.array(rows))), specimen)
    assert as_family(again.variables[1]).form == as_family(ring.variables[1]).form, specimen


@pytest.mark.slow
def test_rings_within_jit(specimen):
    backend = load_backend("jax")
    jax = pytest.importorskip("jax")
    ring, _ = ring_of(specimen, backend)
    rows = backend.array([[1.0, value] for value in specimen.draw(4)])
    np.testing.assert_allclose(jax.jit(lambda r, x: r.log_prob(x))(ring, rows), ring.log_prob(rows), rtol=1e-10)
    slopes = jax.grad(lambda r: r.log_prob(rows).sum())(ring)
    assert all(np.isfinite(array).all() for array in slopes.variables[1].arrays().values()), specimen


@pytest.mark.slow
def test_one_graph_in_torch_compile(specimen):
    torch = pytest.importorskip("torch")
    backend = load_backend("torch")
    ring, _ = ring_of(specimen, backend)
    x = backend.array(np.stack([np.zeros(5), specimen.draw(5)], axis=1))
    for query in (lambda x: ring.log_prob(x), lambda x: ring.cdf(1, x)):
        compiled = torch.compile(query, fullgraph=True, backend="eager")(x)
        assert_close(backend.numpy(compiled), backend.numpy(query(x)), specimen)
    drawn = torch.compile(lambda: ring.sample(4), fullgraph=True, backend="eager")()
    assert np.isfinite(backend.numpy(ring.log_prob(drawn))).all(), specimen


def test_several_columns_at_once(backend, specimen):
    variables = [specimen.make(backend), specimen.make(backend)]
    family = as_family(variables[0])
    if not family.stacks:
        return
    x = specimen.draw(10).reshape(2, 5)
    both = type(family).stack([as_family(v) for v in variables])
    for name in ("log_density", "cdf"):
        expected = np.stack(
            [backend.numpy(getattr(v, name)(backend.array(row))) for v, row in zip(variables, x, strict=True)]
        )
        assert_close(backend.numpy(getattr(both, name)(backend.array(x))), expected, (specimen, name))
    drawn = both.sample(backend.array(np.zeros((2, 7)), "int64"), backend.rng())
    assert drawn.shape == (2, 7), specimen


# ------------------------------------------------------------------------------------------ queries of a ring


def test_a_ring_with_a_column_of_the_family(backend, specimen):
    ring, joint = ring_of(specimen, backend)
    x = specimen.draw(6)
    rows = np.stack([np.array([0, 1, 2, 3, np.nan, np.nan]), x], axis=1)
    density = np.exp(specimen.log_density(x))
    table = density @ joint.T / joint.sum()  # (rows, kinds)
    with np.errstate(divide="ignore"):
        expected = np.log([*table[np.arange(4), np.arange(4)], *table[4:].sum(1)])
    assert_close(backend.numpy(ring.log_prob(backend.array(rows))), expected, specimen, rtol=1e-8)
    missing = backend.array([[k, np.nan] for k in range(4)])
    weights = joint / joint.sum(1, keepdims=True)
    assert_close(backend.numpy(ring.mean(missing))[:, 1], weights @ specimen.means(), specimen, rtol=1e-8)
    points = np.stack([np.arange(4.0), x[:4]], axis=1)
    cdf = np.sum(weights * specimen.cdf(x[:4]), axis=1)
    assert_close(backend.numpy(ring.cdf(1, backend.array(points))), cdf, specimen, rtol=1e-8)
    condition = ring.condition({"kind": 2})
    assert_close(
        backend.numpy(condition.log_prob(backend.array(x[:, None]))), np.log(density @ weights[2]), specimen, rtol=1e-8
    )
    spread = weights @ (specimen.variances() + specimen.means() ** 2) - (weights @ specimen.means()) ** 2
    assert_close(backend.numpy(condition.covariance())[0, 0], spread[2], specimen, rtol=1e-6)


def test_quantiles_invert_the_cdf(backend, specimen):
    ring, joint = ring_of(specimen, backend)
    q = np.array([1e-6, 0.03, 0.3, 0.5, 0.9, 0.999])
    x = backend.numpy(ring.quantile(1, backend.array(q), backend.array([[1.0, np.nan]])))
    weights = joint[1] / joint[1].sum()
    found = specimen.cdf(x) @ weights
    if specimen.integer:
        assert (found >= q).all() and (specimen.cdf(x - 1) @ weights < q).all(), specimen
    else:
        assert_close(found, q, specimen, rtol=1e-8)
    ends = backend.numpy(ring.quantile(1, backend.array([0.0, 1.0]), backend.array([[1.0, np.nan]])))
    low, high = as_family(ring.variables[1]).support
    assert ends[0] == low, specimen
    assert ends[1] == high or (ends[1] < high < np.inf and specimen.cdf(ends[1:]) @ weights > 1 - 1e-14), specimen


def test_samples_of_a_ring(backend, specimen):
    ring, joint = ring_of(specimen, backend)
    x = backend.numpy(ring.sample(4000, rng=0))
    shares = np.bincount(x[:, 0].astype(int), minlength=4)
    assert oracle.chi_square(shares, joint.sum(1)) > 1e-3, specimen
    given = backend.numpy(ring.sample_given(backend.array([[1.0, np.nan]]), 4000, rng=1))[:, 0]
    weights = joint[1] / joint[1].sum()
    upper, lower = specimen.cdf(given[:, 1]) @ weights, specimen.cdf(given[:, 1] - specimen.integer) @ weights
    u = lower + np.random.default_rng(0).random(4000) * (upper - lower) if specimen.integer else upper
    assert stats.kstest(u, "uniform").pvalue > 1e-3, specimen


def test_modes_have_a_density_that_no_other_point_exceeds(backend, specimen):
    ring, _ = ring_of(specimen, backend)
    mode = ring.mode(backend.array([[1.0, np.nan]]))
    x = np.stack([np.ones(500), specimen.draw(500)], axis=1)
    best = float(backend.numpy(ring.log_prob(mode))[0])
    assert best >= backend.numpy(ring.log_prob(backend.array(x))).max() - 1e-6, specimen


def test_pathwise_samples_keep_their_share_of_the_distribution(specimen):
    """F(z) stands still while z moves: dz / dθ = −(∂F / ∂θ) / p, by central differences of scipy's F."""
    backend = load_backend("torch")
    if not as_family(specimen.make(backend)).can_move:
        return
    arrays = {key: backend.array(values).requires_grad_() for key, values in specimen.parameters.items()}
    ring = rd.TensorRing([backend.array(np.ones((3, 1, 1)))], [specimen.family(**arrays, **specimen.options)])
    x = specimen.draw(6)
    slopes = np.exp(specimen.log_density(x)).mean(axis=1)
    for i in range(6):
        found = backend.xp.autograd.grad(ring.pathwise(backend.array(x[i : i + 1, None])).sum(), list(arrays.values()))
        for (key, values), slope in zip(specimen.parameters.items(), found, strict=True):
            step = 1e-5 * np.array(values)
            up, down = (specimen.moved(key, np.array(values) + sign * step).cdf(x[i]) for sign in (1, -1))
            assert_close(
                backend.numpy(slope), -(up - down) / (2 * step) / 3 / slopes[i], (specimen, key), rtol=1e-5, atol=1e-6
            )


# -------------------------------------------------------------------------------------------------- learning


def expected_log_density(variable, x, responsibilities, backend):
    logs = backend.numpy(variable.log_density(backend.array(x)))
    return np.sum(np.where(responsibilities > 0, responsibilities * logs, 0.0), axis=0)


def test_updates_never_lower_the_expected_log_likelihood(backend, specimen):
    """Of any component, from far off; a component that saw nothing stays, NaN is ignored."""
    rng, variable = np.random.default_rng(0), specimen.make(backend)
    x = specimen.draw(400, seed=1)
    weights = rng.random((400, variable.num_components))
    weights[:, -1] = 0.0
    with_nan, padded = np.append(x, np.nan), np.append(weights, np.full((1, weights.shape[1]), 5.0), axis=0)
    value = expected_log_density(variable, x, weights, backend)
    for _ in range(5):
        changed = variable.update(backend.array(with_nan), backend.array(padded))
        after = expected_log_density(changed, x, weights, backend)
        assert (after >= value - 1e-9 * np.abs(value)).all(), (specimen, after - value)
        variable, value = changed, after
    for array, before in zip(variable.arrays().values(), specimen.make(backend).arrays().values(), strict=True):
        np.testing.assert_allclose(backend.numpy(array)[-1], backend.numpy(before)[-1], rtol=1e-12)


def test_parameters_come_back(specimen):
    """Updates by many draws of each component end at its parameters."""
    backend = load_backend("numpy")
    n = 20_000
    x = np.concatenate([specimen.draw(n, seed=c, component=c) for c in range(len(specimen.scipy))])
    weights = np.repeat(np.eye(len(specimen.scipy)), n, axis=0)
    truth = specimen.make(backend)
    start = {key: 0.5 * values + 0.5 * values.mean() for key, values in truth.arrays().items()}
    variable = specimen.family(**start, **specimen.options)
    for _ in range(60):
        variable = variable.update(x, weights)
    fitted, best = (expected_log_density(v, x, weights, backend) / n for v in (variable, truth))
    assert (fitted > best - 1e-6).all() and (fitted < best + 10 / n).all(), (specimen, variable.arrays())
    for key, array in variable.arrays().items():
        rtol = specimen.vague.get(key, 0.1)
        np.testing.assert_allclose(array, truth.arrays()[key], rtol=rtol, atol=0.05, err_msg=f"{specimen} {key}")


def test_statistics_add_up_and_agree_with_their_expectation(specimen):
    backend = load_backend("numpy")
    family = as_family(specimen.make(backend))
    if not family.streams:
        return
    n, size = 40_000, family.num_components
    x = np.concatenate([specimen.draw(n, seed=c, component=c) for c in range(size)])
    weights = np.repeat(np.eye(size), n, axis=0)
    whole = family.statistics(x, weights)
    parts = [family.statistics(x[i::40], weights[i::40]) for i in range(40)]
    expected = family.expected_statistics(np.ones(size))
    for key, total in whole.items():
        values = np.stack([part[key] for part in parts]) / (n // 40)
        np.testing.assert_allclose(values.mean(axis=0), total / n, rtol=1e-9, atol=1e-9 * np.abs(values).max())
        if key not in specimen.bounds:
            error = values.std(axis=0, ddof=1) / 40**0.5
            assert (np.abs(expected[key] - total / n) <= 4.5 * error + 1e-9).all(), (
                specimen,
                key,
                expected[key],
                total / n,
            )


def test_no_component_is_narrower_than_asked(specimen):
    backend = load_backend("numpy")
    family = as_family(specimen.make(backend))
    if not family.has_variance:
        return
    x = np.full(50, specimen.draw(1)[0])
    weights = np.ones((50, family.num_components))
    width = 0.01
    found = family.from_statistics(family.statistics(x, weights), width)
    for _ in range(20):
        found = found.from_statistics(found.statistics(x, weights), width)
    logs = found.log_density(x[:1])
    assert np.isfinite(logs).all() and (logs < 10).all(), (specimen, logs)


def planted(specimen, n: int, seed: int = 0):
    """Rows of a category and a value whose component it tells, for the most part."""
    rng = np.random.default_rng(seed)
    size = len(specimen.scipy)
    component = rng.integers(size, size=n)
    label = np.where(rng.random(n) < 0.9, component, rng.integers(size, size=n))
    return np.stack([label.astype(float), specimen.of_components(component, rng)], axis=1)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_em_in_a_ring(backend, specimen, missing):
    """From components placed on the data: the likelihood rises in every epoch, near to that of the truth."""
    x = planted(specimen, 600)
    holes = np.random.default_rng(1).random(x.shape) < missing
    x[holes] = np.nan
    size = len(specimen.scipy)
    start = rd.initialize(
        x,
        [rd.Categorical(size), specimen.placeable],
        3,
        num_components=size,
        rng=0,
        xp=backend.xp,
        dtype=backend.dtype(),
    )
    result = rd.fit_em(start, x, max_epochs=30 if backend.name == "numpy" else 4)
    history = np.array(result.history["train"])
    assert (np.diff(history) > -1e-9).all(), (specimen, history)
    if backend.name == "numpy":
        joint = 0.9 * np.eye(size) / size + 0.1 / size**2
        truth = rd.TensorRing(
            [np.eye(size)[:, None, :], joint.T[:, :, None]], [rd.Categorical(size), specimen.make(backend)]
        )
        assert history[-1] > truth.log_prob(x).mean() - 0.02, (specimen, history[-1], truth.log_prob(x).mean())
        batches = rd.fit_em(start, x, max_epochs=5, batch_size=100, rng=0).history["train"]
        assert batches[-1] > history[0] - 0.05, (specimen, batches, history)


def test_em_in_float32(specimen):
    x = planted(specimen, 400).astype(np.float32)
    size = len(specimen.scipy)
    results = []
    for dtype in ("float32", "float64"):
        kinds = [rd.Categorical(size), specimen.placeable]
        start = rd.initialize(x, kinds, 3, num_components=size, rng=0, dtype=dtype)
        fitted = rd.fit_em(start, x, max_epochs=15)
        assert fitted.ring.variables[1].means().dtype == dtype, specimen
        results.append(np.array(fitted.history["train"]))
    assert (np.diff(results[0]) > -2e-4).all(), (specimen, results[0])
    np.testing.assert_allclose(results[0][-1], results[1][-1], atol=0.03, err_msg=repr(specimen))


def test_gradient_descent_in_a_ring(specimen):
    torch = pytest.importorskip("torch")
    x = planted(specimen, 200)
    size = len(specimen.scipy)
    start = rd.initialize(x, [rd.Categorical(size), specimen.placeable], 2, num_components=size, rng=0, xp=torch)
    ring, history = rd.fit_gradient(start, x, lambda p: torch.optim.Adam(p, lr=0.02), max_epochs=8, rng=0)
    assert history["train"][-1] > history["train"][0] + 0.02, (specimen, history)
    assert as_family(ring.variables[1]).form == as_family(start.variables[1]).form, specimen


def test_weights_count_as_repeated_rows(specimen):
    x = planted(specimen, 60)
    weight = np.random.default_rng(0).integers(0, 3, 60)
    size = len(specimen.scipy)
    start = rd.initialize(x, [rd.Categorical(size), specimen.make(load_backend("numpy"))], 2, rng=0)
    one = rd.fit_em(start, x, sample_weight=weight, max_epochs=3).ring
    other = rd.fit_em(start, np.repeat(x, weight, axis=0), max_epochs=3).ring
    for a, b in zip(one.variables[1].arrays().values(), other.variables[1].arrays().values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, err_msg=repr(specimen))


@pytest.mark.parametrize("method", ["quantile", "kmeans", "mixture"])
def test_components_are_placed_on_the_data(specimen, method):
    x = planted(specimen, 200)
    ring = rd.initialize(x, [None, specimen.placeable], 2, num_components=5, method=method, rng=0)
    assert type(ring.variables[1]) is specimen.family and np.isfinite(ring.log_prob(x)).all(), specimen
    constant = np.stack([x[:, 0], np.full(200, x[0, 1])], axis=1)
    ring = rd.initialize(constant, [None, specimen.placeable], 2, num_components=5, method=method, rng=0)
    fitted = rd.fit_em(ring, constant, max_epochs=3)
    assert np.isfinite(fitted.history["train"]).all(), specimen
    with pytest.raises(ValueError, match="column 1"):
        rd.initialize(np.array([[0.0, specimen.outside[0]], [1.0, x[0, 1]]]), [None, specimen.placeable], 2, rng=0)
