"""Parameters of which no variable can be made."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import load_backend

pytestmark = pytest.mark.slow_on("jax")


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
