"""Factors that do not fit are named, and a ring owns the factors of its cores."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close
from tests.structured import FACTORS, STRUCTURED

pytestmark = pytest.mark.slow_on("jax")


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({}, "at least one of left, emission and right"),
        ({"left": np.ones(3)}, r"left must be a matrix.*\(3,\)"),
        ({"emission": np.ones((2, 2, 2))}, r"emission must be a matrix.*\(2, 2, 2\)"),
        ({"right": np.ones((0, 3))}, r"right must be a matrix with no empty axis"),
        ({"left": np.ones((2, 3)), "right": np.ones((2, 3))}, "3 in left, 2 in right"),
        ({"emission": np.ones((2, 3)), "left": np.ones((4, 2))}, "2 in left, 3 in emission"),
    ],
    ids=str,
)
def test_factors_that_do_not_fit(factors, message):
    with pytest.raises(ValueError, match=message):
        rd.CPCore(**factors)


def test_factors_of_several_dtypes_or_backends():
    with pytest.raises(TypeError, match="one dtype, found float32, float64"):
        rd.CPCore(np.ones((2, 2), dtype=np.float32), np.ones((2, 2)))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError):
        rd.CPCore(np.ones((2, 2)), torch.ones((2, 2), dtype=torch.float64))


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize(
    ("value", "message"), [(-1.0, "found -1"), (np.nan, "found nan"), (np.inf, "found inf")], ids=str
)
@pytest.mark.fast_on("jax")
def test_values_of_factors(backend, name, value, message):
    factors = {each: np.ones((2, 2)) for each in FACTORS}
    factors[name][1, 0] = value
    cores = [rd.CPCore(**{each: backend.array(a) for each, a in factors.items()})]
    with pytest.raises(ValueError, match=rf"column 0 \('age'\).*{message}.*entry \(1, 0\) of the {name} factor"):
        rd.TensorRing(cores, [rd.Categorical(2, name="age")])
    factors[name][:] = 0
    cores = [rd.CPCore(**{each: backend.array(a) for each, a in factors.items()})]
    with pytest.raises(ValueError, match=rf"column 0 \('age'\): the {name} factor of the core is all zero"):
        rd.TensorRing(cores, [rd.Categorical(2, name="age")])


def test_what_a_ring_refuses():
    unit, variables = np.ones((2, 2)), [rd.Categorical(2), rd.Categorical(2)]
    cp = rd.CPCore(unit)
    with pytest.raises(TypeError, match="one dtype"):
        rd.TensorRing([cp, np.ones((2, 2, 2), dtype=np.float32)], variables)
    with pytest.raises(TypeError, match="float32 or float64"):
        rd.TensorRing([rd.CPCore(unit.astype(np.float16))], variables[:1])
    with pytest.raises(ValueError, match="3 matrices for 2"):
        rd.TensorRing([cp, rd.CPCore(emission=np.ones((3, 2)))], variables)
    with pytest.raises(ValueError, match=r"rank 2.*rank 3"):
        rd.TensorRing([cp, rd.CPCore(np.ones((3, 2)))], variables)
    with pytest.raises(TypeError, match=r"rd\.Core"):
        rd.TensorRing([cp, object.__new__(type("Other", (), {"with_arrays": None, "arrays": None}))], variables)


def test_a_ring_owns_the_factors(backend):
    structured = STRUCTURED["full"]
    arrays, x = structured.arrays(backend), structured.case.rows(4)
    ring = structured.ring(backend, arrays=arrays)
    before = backend.numpy(ring.log_prob(backend.array(x)))
    if backend.name != "jax":
        for factors in arrays:
            for factor in factors.values():
                factor *= 3.0
        for core in ring.cores:
            if backend.name.startswith("torch"):
                core.left.mul_(2.0)
            else:
                assert not core.left.flags.writeable
    assert_close(backend.numpy(ring.log_prob(backend.array(x))), before, structured)
