"""Cores and variables of which no ring can be made."""

import re

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend
from tests.oracle import MIXED, TABLE
from tests.ringdist.errors.cases import AGE, core, put, ring_of_ages

pytestmark = pytest.mark.slow_on("jax")


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
