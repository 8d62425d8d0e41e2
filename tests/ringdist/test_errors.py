"""Bad input: ValueError or TypeError that names the rule, the finding and the column; and nobody's arrays change."""

import re

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend
from tests.oracle import MIXED, TABLE

pytestmark = pytest.mark.slow_on("jax")

AGE = rd.Categorical(5, name="age")


def ring_of_ages(**changes) -> rd.TensorRing:
    """Four columns, the last one named age, of 2, 3, 4 and 5 categories."""
    rng = np.random.default_rng(0)
    parts = {
        "cores": [rng.random((n, 2, 2)) for n in (2, 3, 4, 5)],
        "variables": [rd.Categorical(2), rd.Categorical(3, name="sex"), rd.Categorical(4), AGE],
        "order": None,
    }
    parts |= changes
    return rd.TensorRing(parts["cores"], parts["variables"], order=parts["order"])


def core(k: int, change) -> list[np.ndarray]:
    """The cores of `ring_of_ages` with one of them changed."""
    cores = list(ring_of_ages().cores)
    cores[k] = change(cores[k].copy())
    return cores


def put(value: float):
    def change(array):
        array[1, 0, 1] = value
        return array

    return change


# -------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("value", [-0.5, np.nan, np.inf, -np.inf])
@pytest.mark.fast_on("jax")
def test_cores_with_values_that_no_mass_has(backend, value):
    cores = [backend.array(c) for c in core(3, put(value))]
    with pytest.raises(ValueError, match=r"column 3 \('age'\)") as error:
        ring_of_ages(cores=cores)
    assert str(value) in str(error.value), error.value


def test_a_core_of_zeros(backend):
    cores = [backend.array(c) for c in core(1, np.zeros_like)]
    with pytest.raises(ValueError, match=r"column 1 \('sex'\).*zero"):
        ring_of_ages(cores=cores)


def test_cores_without_a_closed_path_have_no_mass(backend):
    """Each core has positive entries, but Tr ∏ is 0: the error comes at the latest when a density is asked for."""
    up = np.zeros((2, 2, 2))
    up[:, 0, 1] = 1.0
    variables = [rd.Categorical(2)] * 3
    with pytest.raises(ValueError, match=r"mass|zero"):
        rd.TensorRing([backend.array(up)] * 3, variables).log_prob(backend.array([[0.0, 0, 0]]))


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "float16", "complex128"])
def test_cores_of_another_dtype(numpy_backend, dtype):
    cores = [c.astype(dtype) for c in ring_of_ages().cores]
    with pytest.raises(TypeError, match=dtype):
        ring_of_ages(cores=cores)


def test_cores_of_two_dtypes():
    cores = core(2, lambda c: c.astype(np.float32))
    with pytest.raises(TypeError, match="float32"):
        ring_of_ages(cores=cores)


@pytest.mark.fast_on("jax")
def test_cores_of_two_backends(backend):
    if backend.name == "numpy":
        pytest.skip("needs another backend beside NumPy")
    cores = core(2, backend.array)
    with pytest.raises(TypeError, match=r"numpy|backend"):
        ring_of_ages(cores=cores)


def test_variables_of_another_backend(backend):
    if backend.name == "numpy":
        pytest.skip("needs another backend beside NumPy")
    cores = [backend.array(c) for c in MIXED.cores]
    with pytest.raises(TypeError):
        rd.TensorRing(cores, load_backend("numpy").variables(MIXED), order=MIXED.order)


def test_points_of_another_backend(backend):
    other = load_backend("torch" if backend.name == "numpy" else "numpy")
    ring, x = backend.ring(MIXED), other.array(MIXED.rows(6))
    for query in (
        ring.log_prob,
        ring.mean,
        ring.mode,
        ring.sample_given,
        lambda x: ring.component_posterior(0, x),
        lambda x: ring.cdf(1, x),
        lambda x: ring.quantile(1, 0.5, x),
    ):
        with pytest.raises(TypeError):
            query(x)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_parts_on_two_devices(place):
    """The device `meta`, whose arrays hold no values, stands for an accelerator."""
    torch = pytest.importorskip("torch")

    def part(index, *shape):
        return torch.ones(shape, dtype=torch.float64, device="meta" if index == place else "cpu")

    def variable(index, name):
        return rd.GaussianMixture(part(index, 2), part(index, 2), name=name, validate=False)

    with pytest.raises(TypeError, match=r"column [01] \('(height|age)'\): cores and variables .* cpu, found meta"):
        rd.TensorRing(
            [part(-1, 2, 3, 3), part(0, 2, 3, 3)],
            [variable(1, "height"), variable(2, "age")],
            validate=False,
        )


def test_points_on_another_device():
    torch = pytest.importorskip("torch")
    ring, x = load_backend("torch").ring(MIXED), torch.zeros((3, 4), dtype=torch.float64, device="meta")
    for query in (ring.log_prob, ring.mean, ring.mode, ring.sample_given, lambda x: ring.quantile(1, 0.5, x)):
        with pytest.raises(TypeError, match="x must be on the device of the ring's first core, cpu, found meta"):
            query(x)


def test_rings_of_two_backends_have_no_inner_product(backend):
    other = load_backend("torch" if backend.name == "numpy" else "numpy")
    with pytest.raises(TypeError):
        backend.ring(TABLE).inner(other.ring(TABLE))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda c: c[0], r"\(2, 2\)"),
        (lambda c: c[None], r"\(1, 4, 2, 2\)"),
        (lambda c: c[:3], "3"),
        (lambda c: c[:0], "0"),
        (lambda c: c[:, :, :0], "0"),
        (lambda c: c[:, :, :1], "1"),
        (lambda c: np.concatenate([c, c], axis=1), "4"),
    ],
)
def test_cores_of_a_wrong_shape(change, finding):
    """Also ranks that do not close: a core's right bond is the next one's left bond."""
    with pytest.raises(ValueError, match=f"column 2.*{finding}|{finding}.*column 2"):
        ring_of_ages(cores=core(2, change))


def test_ranks_that_do_not_close_the_ring():
    cores = [np.ones((2, 1, 3)), np.ones((2, 3, 2))]
    with pytest.raises(ValueError, match=r"column [01].*column [01]"):
        rd.TensorRing(cores, [rd.Categorical(2)] * 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cores": []}, "one core per variable, found 0 cores, 4 variables"),
        ({"cores": [], "variables": []}, "found 0 cores, 0 variables"),
        ({"variables": [AGE]}, "found 4 cores, 1 variables"),
        ({"order": [0, 1, 2]}, r"order .*found \[0, 1, 2\]"),
        ({"order": [0, 1, 2, 2]}, r"order .*found \[0, 1, 2, 2\]"),
        ({"order": [0, 1, 2, 4]}, "no column 4"),
        ({"order": [-1, 0, 1, 2]}, "no column -1"),
        ({"order": [0, 1, 2, "height"]}, "no column 'height'"),
        ({"variables": [AGE, AGE, AGE, AGE]}, "names must differ, found .*'age'"),
        ({"variables": [rd.Categorical(n, name="same") for n in (2, 3, 4, 5)]}, "names must differ, found .*'same'"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        ring_of_ages(**changes)


@pytest.mark.parametrize("thing", [None, 5, "age", object()])
def test_variables_that_are_none(thing):
    with pytest.raises(TypeError, match="column 2"):
        ring_of_ages(variables=[rd.Categorical(2), rd.Categorical(3), thing, AGE])


@pytest.mark.parametrize("rank", [0, -1, [2, 3], [2, 0, 2, 2], []])
def test_random_rings_of_impossible_rank(rank):
    with pytest.raises(ValueError, match="rank"):
        rd.TensorRing.random([AGE, rd.Categorical(2), rd.Categorical(2), rd.Categorical(3)], rank, rng=0)


def test_random_rings_of_impossible_kind():
    variables = [AGE, rd.Categorical(2)]
    with pytest.raises(ValueError, match=r"ring.*train|train.*ring"):
        rd.TensorRing.random(variables, 2, topology="tree", rng=0)
    with pytest.raises(TypeError, match="rank"):
        rd.TensorRing.random(variables, 1.5, rng=0)
    with pytest.raises(TypeError, match="float16"):
        rd.TensorRing.random(variables, 2, rng=0, dtype=np.float16)
    with pytest.raises(TypeError, match="xp"):
        rd.TensorRing.random(variables, 2, rng=0, xp=re)
    with pytest.raises(ValueError, match="at least one variable"):
        rd.TensorRing.random([], 2, rng=0)


# ----------------------------------------------------------------------------------------------- variables


@pytest.mark.parametrize("n", [0, -3])
def test_categoricals_of_no_category(n):
    with pytest.raises(ValueError, match=str(n)):
        rd.Categorical(n)


@pytest.mark.parametrize("n", [2.0, "3", None, [2], True])
def test_categoricals_of_no_whole_number(n):
    with pytest.raises(TypeError):
        rd.Categorical(n)


@pytest.mark.parametrize("name", [3, b"age", ["age"]])
def test_names_are_strings(name):
    for make in (
        lambda: rd.Categorical(3, name=name),
        lambda: rd.GaussianMixture([0.0], [1.0], name=name),
        lambda: rd.PoissonMixture([1.0], name=name),
    ):
        with pytest.raises(TypeError, match="name"):
            make()


@pytest.mark.parametrize("std", [0.0, -1.0, np.nan, np.inf])
def test_deviations_that_are_not_positive(backend, std):
    with pytest.raises(ValueError, match=r"stds.*positive"):
        rd.GaussianMixture(backend.array([0.0, 1.0]), backend.array([1.0, std]))


@pytest.mark.parametrize("mean", [np.nan, np.inf])
def test_means_that_are_not_finite(backend, mean):
    with pytest.raises(ValueError, match=r"means.*finite"):
        rd.GaussianMixture(backend.array([0.0, mean]), backend.array([1.0, 1.0]))


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_rates_that_are_no_rates(backend, rate):
    with pytest.raises(ValueError, match="rates"):
        rd.PoissonMixture(backend.array([1.0, rate]))


@pytest.mark.parametrize(
    ("means", "stds"),
    [([0.0, 1.0], [1.0]), ([], []), (0.0, 1.0), ([[0.0]], [[1.0]])],
)
def test_parameters_of_a_wrong_shape(means, stds):
    with pytest.raises(ValueError, match="shape"):
        rd.GaussianMixture(np.array(means), np.array(stds))
    with pytest.raises(ValueError, match="shape"):
        rd.PoissonMixture(np.zeros((2, 2)))


def test_parameters_of_a_wrong_dtype(backend):
    with pytest.raises(TypeError, match="int"):
        rd.GaussianMixture(backend.array([0, 1], "int64"), backend.array([1, 1], "int64"))
    with pytest.raises(TypeError, match="int"):
        rd.PoissonMixture(backend.array([0, 1], "int64"))


def test_parameters_of_two_backends(backend):
    other = load_backend("torch" if backend.name == "numpy" else "numpy")
    with pytest.raises(TypeError):
        rd.GaussianMixture(backend.array([0.0, 1.0]), other.array([1.0, 1.0]))


# -------------------------------------------------------------------------------------------------- points


QUERIES = {
    "log_prob": lambda ring, x: ring.log_prob(x),
    "component_posterior": lambda ring, x: ring.component_posterior(0, x),
    "mean": lambda ring, x: ring.mean(x),
    "cdf": lambda ring, x: ring.cdf(0, x),
    "quantile": lambda ring, x: ring.quantile(0, 0.5, x),
    "mode": lambda ring, x: ring.mode(x),
    "sample_given": lambda ring, x: ring.sample_given(x, rng=0),
}


@pytest.fixture(params=QUERIES)
def query(request):
    return QUERIES[request.param]


def test_categories_out_of_range(backend, query):
    cores = [backend.array(c) for c in ring_of_ages().cores]
    ring, x = ring_of_ages(cores=cores), np.zeros((3, 4))
    x[1, 3] = 7
    message = re.escape("column 3 ('age'): category 7 is outside 0..4")
    with pytest.raises(ValueError, match=message):
        query(ring, backend.array(x))
    x[1, 3] = -1
    with pytest.raises(ValueError, match=re.escape("column 3 ('age'): category -1 is outside 0..4")):
        query(ring, backend.array(x))
    x[1, 3], x[2, 2] = 0, 4
    with pytest.raises(ValueError, match=re.escape("column 2: category 4 is outside 0..3")):
        query(ring, backend.array(x))


@pytest.mark.parametrize("value", [0.5, np.inf, -np.inf])
def test_categories_that_are_no_whole_numbers(query, value):
    with pytest.raises(ValueError, match=r"column 3 \('age'\)"):
        query(ring_of_ages(), np.array([[0, 0, 0, value]]))


def test_integer_categories_out_of_range(backend):
    cores = [backend.array(c) for c in ring_of_ages().cores]
    with pytest.raises(ValueError, match=r"column 3 \('age'\): category 5"):
        ring_of_ages(cores=cores).log_prob(backend.array([[0, 0, 0, 5]], "int64"))


@pytest.mark.parametrize(("column", "value"), [("count", -1.0), ("count", 1.5), ("count", np.inf)])
def test_counts_that_are_none(backend, query, column, value):
    x = MIXED.rows(6, missing=0.0)
    x[1, 2] = value
    with pytest.raises(ValueError, match=r"column 2 \('count'\)"):
        query(backend.ring(MIXED), backend.array(x))


def test_infinite_values(backend, query):
    x = MIXED.rows(6, missing=0.0)
    x[1, 1] = np.inf
    with pytest.raises(ValueError, match=r"column 1 \('height'\).*inf"):
        query(backend.ring(MIXED), backend.array(x))


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 2, 3), (0,), (0, 3), (4, 1)], ids=str)
@pytest.mark.fast_on("jax")
def test_points_of_a_wrong_shape(backend, query, shape):
    with pytest.raises(ValueError, match=r"shape|column"):
        query(backend.ring(MIXED), backend.array(np.zeros(shape)))


def test_a_scalar_is_no_point(query):
    with pytest.raises(ValueError, match=r"shape|column"):
        query(ring_of_ages(), np.array(1.0))


@pytest.mark.parametrize("x", [["a", "b", "c", "d"], np.array([[1j] * 4]), "0123", None, [[None] * 4]])
def test_points_that_are_no_numbers(x):
    with pytest.raises(TypeError):
        ring_of_ages().log_prob(x)


def test_ragged_lists_are_no_points():
    with pytest.raises((TypeError, ValueError)):
        ring_of_ages().log_prob([[0, 0, 0, 0], [0, 0]])


def test_an_unknown_engine_lists_the_known_ones(backend):
    ring, x = backend.ring(MIXED), backend.array(MIXED.rows(6))
    with pytest.raises(ValueError) as error:
        ring.log_prob(x, engine="fast")
    for name in ("fast", "auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        assert name in str(error.value), error.value
    with pytest.raises(ValueError, match="sweep"):
        ring.log_prob(x[:0], engine="fast")


# ------------------------------------------------------------------------------------------------- columns


UNKNOWN = {
    "component_posterior": lambda ring, x, k: ring.component_posterior(k, x),
    "cdf": lambda ring, x, k: ring.cdf(k, x),
    "quantile": lambda ring, x, k: ring.quantile(k, 0.5, x),
    "marginal": lambda ring, x, k: ring.marginal([0, k]),
    "condition": lambda ring, x, k: ring.condition({k: 0}),
    "permute": lambda ring, x, k: ring.permute([0, 1, 2, k]),
    "einsum": lambda ring, x, k: ring.einsum(open=[k]),
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("k", [4, -1, "weight"])
def test_unknown_columns(name, k):
    with pytest.raises(ValueError, match=str(k)):
        UNKNOWN[name](ring_of_ages(), np.zeros((1, 4)), k)


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("k", [1.0, None, True, (0,)], ids=str)
def test_columns_that_are_neither_index_nor_name(name, k):
    with pytest.raises(TypeError):
        UNKNOWN[name](ring_of_ages(), np.zeros((1, 4)), k)


def test_numpy_integers_are_columns(numpy_backend):
    ring, x = numpy_backend.ring(MIXED), MIXED.rows(6)
    k = np.int64(2)
    np.testing.assert_array_equal(ring.component_posterior(k, x), ring.component_posterior(2, x))
    assert ring.marginal(np.array([2, 0])).shape == (3, 4), ring


@pytest.mark.parametrize("keep", [[], [1, 1], ["age", 3]], ids=str)
def test_marginals_over_no_column_or_one_twice(keep):
    with pytest.raises(ValueError, match=r"at least one column|columns to keep must differ"):
        ring_of_ages().marginal(keep)


@pytest.mark.parametrize("columns", [[], [0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3]], ids=str)
def test_permutations_that_are_none(columns):
    with pytest.raises(ValueError, match=re.escape(f"permutation of the 4 columns, found {columns}")):
        ring_of_ages().permute(columns)


@pytest.mark.parametrize(
    ("evidence", "finding"),
    [
        ({3: 7}, r"column 3 \('age'\): category 7 is outside 0\.\.4"),
        ({"age": 7}, r"column 3 \('age'\): category 7 is outside 0\.\.4"),
        ({0: 0, 1: 0, 2: 0, 3: 0}, "remain|left|all"),
        ({3: 1, "age": 2}, "age"),
        ({3: float("nan")}, "age"),
    ],
    ids=str,
)
def test_evidence_that_cannot_be_conditioned_on(evidence, finding):
    with pytest.raises(ValueError, match=finding):
        ring_of_ages().condition(evidence)


def test_evidence_that_is_no_number():
    for value in ("old", None, np.zeros(2)):
        with pytest.raises((TypeError, ValueError)):
            ring_of_ages().condition({"age": value})


# ------------------------------------------------------------------------------------- evidence of zero mass


@pytest.mark.parametrize("name", [q for q in QUERIES if q != "log_prob"])
def test_evidence_of_zero_mass(backend, name):
    """Columns 1 and 2 always agree; the error names the first row in which they do not."""
    left, right = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    cores = [np.array([[[0.3]], [[0.7]]]), left, right]
    ring = rd.TensorRing([backend.array(c) for c in cores], [rd.Categorical(2)] * 3)
    first = 1.0 if name == "cdf" else np.nan
    good, bad = [first, 1, 1], [first, 0, 1]
    with pytest.raises(ValueError, match=r"mass") as error:
        QUERIES[name](ring, backend.array([good, good, bad, good, bad]))
    assert "row 2" in str(error.value), error.value
    with pytest.raises(ValueError, match=r"mass.*row 1|row 1.*mass"):  # whatever is missing in the other rows
        QUERIES[name](ring, backend.array([[first, np.nan, 1], [first, 1, 0]]))
    QUERIES[name](ring, backend.array([good, good]))


def test_conditioning_on_zero_mass():
    ring = rd.TensorRing(
        [np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1.0], [0.0]], [[0.0], [1.0]], [[0.0], [0.0]]])],
        [rd.Categorical(2), rd.Categorical(3)],
    )
    with pytest.raises(ValueError, match="mass"):
        ring.condition({1: 2})
    ring.condition({1: 1})


# --------------------------------------------------------------------------------------------- other queries


@pytest.mark.parametrize("q", [-0.1, 1.1, np.nan, [0.5, 2.0]], ids=str)
def test_quantiles_of_no_probability(backend, q):
    x = backend.array(np.full((2, 4), np.nan))
    q = backend.array(q) if isinstance(q, list) else q
    with pytest.raises(ValueError, match="q"):
        backend.ring(MIXED).quantile(1, q, x)


def test_quantiles_of_another_batch():
    x = np.full((3, 4), np.nan)
    with pytest.raises(ValueError):
        ring_of_ages().quantile(1, np.full(2, 0.5), x)


def test_the_cdf_needs_a_point():
    """A missing entry is no point to evaluate F at."""
    x = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, np.nan]])
    with pytest.raises(ValueError, match=r"column 3 \('age'\)|missing|NaN"):
        ring_of_ages().cdf("age", x)


@pytest.mark.parametrize("n", [-1, 1.5, "3", None], ids=str)
def test_numbers_of_samples_that_are_none(backend, n):
    with pytest.raises((ValueError, TypeError), match="n"):
        backend.ring(MIXED).sample(n, rng=0)


@pytest.mark.parametrize("n", [-1, 1.5, "3"], ids=str)
def test_numbers_of_completions_that_are_none(n):
    with pytest.raises((ValueError, TypeError), match="n"):
        ring_of_ages().sample_given(np.zeros((1, 4)), n, rng=0)


def test_entropy_of_too_few_samples(numpy_backend):
    with pytest.raises(ValueError, match="n"):
        numpy_backend.ring(MIXED).entropy(0, 0)


def test_dense_tables_of_what_has_none(numpy_backend):
    with pytest.raises(ValueError, match=r"height|continuous|categorical|discrete"):
        numpy_backend.ring(MIXED).to_dense()
    large = rd.TensorRing.random([rd.Categorical(10)] * 50, 2, rng=0)
    with pytest.raises(ValueError, match=r"10|large|entries"):
        large.to_dense()


def test_inner_products_of_rings_that_do_not_fit():
    four = ring_of_ages()
    with pytest.raises(ValueError, match="order"):
        four.inner(ring_of_ages(order=[0, 2, 1, 3]))
    with pytest.raises(ValueError, match="found 4 and 3"):
        four.inner(four.marginal([0, 1, 2]))
    with pytest.raises(ValueError, match="column 3"):
        other = rd.GaussianMixture(np.zeros(5), np.ones(5))
        four.inner(ring_of_ages(variables=[*four.variables[:3], other]))
    with pytest.raises(ValueError, match="column 3"):
        wider = [*four.cores[:3], np.ones((6, 2, 2))]
        four.inner(ring_of_ages(cores=wider, variables=[*four.variables[:3], rd.Categorical(6)]))
    with pytest.raises(TypeError, match="found str"):
        four.inner("ring")


def test_networks_at_points_that_do_not_fit():
    ring = ring_of_ages()
    with pytest.raises(ValueError, match="shape"):
        ring.to_tensornetwork(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"column 3 \('age'\)"):
        ring.to_tensornetwork(np.array([0.0, 0, 0, 9]))


def test_networks_that_are_no_rings():
    tn = pytest.importorskip("tensornetwork")
    ring = ring_of_ages()
    nodes = ring.to_tensornetwork()
    with pytest.raises(ValueError, match="found 4 nodes, 3 variables"):
        rd.TensorRing.from_tensornetwork(nodes, ring.variables[:3])
    with pytest.raises(ValueError, match="found 0 nodes"):
        rd.TensorRing.from_tensornetwork([], [])
    nodes[0]["right"].disconnect()
    with pytest.raises(ValueError, match="dangling"):
        rd.TensorRing.from_tensornetwork(nodes, ring.variables)
    bare = tn.Node(np.ones((2, 1, 1)))
    with pytest.raises(ValueError, match="left, right and component"):
        rd.TensorRing.from_tensornetwork([bare], [rd.Categorical(2)])


def test_open_columns_named_twice():
    with pytest.raises(ValueError, match="open columns must differ"):
        ring_of_ages().einsum(open=[3, "age"])


def test_moving_to_what_is_no_backend():
    ring = ring_of_ages()
    with pytest.raises(TypeError, match="xp"):
        ring.to(xp=re)
    with pytest.raises(TypeError, match="float16"):
        ring.to(dtype=np.float16)
    with pytest.raises(TypeError, match="int"):
        ring.to(dtype=np.int64)


def test_validate_false_skips_values_and_not_shapes():
    cores = core(3, put(-0.5))
    variables = list(ring_of_ages().variables)
    rd.TensorRing(cores, variables, validate=False)
    with pytest.raises(ValueError, match="found 3 cores, 4 variables"):
        rd.TensorRing(cores[:3], variables, validate=False)
    with pytest.raises(TypeError, match="found int64"):
        rd.TensorRing([c.astype(np.int64) for c in cores], variables, validate=False)


# ---------------------------------------------------------------------------------- what must not be changed


@pytest.mark.parametrize("copy", [True, False])
def test_no_query_writes_into_what_it_is_given(backend, copy, tmp_path):
    """Cores, parameters and points are the caller's; NaN stays NaN. Without copies the ring holds the very arrays."""
    cores = [backend.array(c) for c in MIXED.cores]
    variables, x = backend.variables(MIXED), backend.array(MIXED.possible_rows(6))
    full = backend.array(MIXED.rows(6, missing=0.0))
    ring = rd.TensorRing(cores, variables, order=MIXED.order, copy=copy)
    arrays = [*cores, *ring.cores, x, full, *(a for v in variables for a in v.arrays().values())]
    before = [backend.numpy(a).copy() for a in arrays]
    assert np.isnan(backend.numpy(x)).any() and not np.isnan(backend.numpy(full)).any()
    order = list(MIXED.order)
    evidence = {"label": 1, 1: 0.5}
    for engine in ("auto", "sweep", "tree", "log", "opt_einsum", "tensornetwork"):
        ring.log_prob(x, engine=engine)
    for k in range(4):
        ring.component_posterior(k, x)
        ring.cdf(k, full)
        ring.quantile(k, 0.4, x)
    ring.mean(x), ring.mean(), ring.covariance(), ring.mutual_information(), ring.entropy(5, 0)
    ring.mode(), ring.mode(x), ring.sample(5, rng=0), ring.sample_given(x, rng=0)
    ring.sample_given(x, 3, rng=0), ring.condition(evidence), ring.marginal([0, 2])
    ring.inner(ring), ring.to_train(), ring.permute([3, 1, 0, 2]), ring.einsum(), repr(ring)
    ring.to(dtype=backend.dtype("float32")), ring.to_tensornetwork(), ring.to_tensornetwork(x[0])
    ring.save(tmp_path / "ring.safetensors")
    rd.TensorRing(cores, variables, order=order)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(backend.numpy(array), copy)
    assert evidence == {"label": 1, 1: 0.5} and order == list(MIXED.order)


def test_read_only_arrays_are_good_enough():
    cores = [c.copy() for c in TABLE.cores]
    x = TABLE.possible_rows(6)
    for array in (*cores, x):
        array.flags.writeable = False
    variables, own = load_backend("numpy").variables(TABLE), load_backend("numpy").ring(TABLE)
    ring = rd.TensorRing(cores, variables, order=TABLE.order, copy=False)
    for query in (rd.TensorRing.log_prob, rd.TensorRing.mode, rd.TensorRing.mean):
        np.testing.assert_array_equal(query(ring, x), query(own, x.copy()), err_msg=query.__name__)
    np.testing.assert_array_equal(ring.sample_given(x, rng=0), own.sample_given(x.copy(), rng=0))


def test_answers_are_not_views_of_the_question(backend):
    """Writing into an answer does not change the caller's points or the ring."""
    if backend.name == "jax":
        pytest.skip("JAX arrays are immutable")
    ring, full = backend.ring(MIXED), backend.array(MIXED.rows(6, missing=0.0))
    before = backend.numpy(full).copy()
    for query in (ring.mean, ring.mode, lambda x: ring.sample_given(x, rng=0)):
        query(full)[...] = 5.0
        np.testing.assert_array_equal(backend.numpy(full), before, err_msg=repr(query))
    np.testing.assert_array_equal(backend.numpy(ring.mean(full)), before)
