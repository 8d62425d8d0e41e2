"""Mixtures of rings and questions that are refused."""

import numpy as np
import pytest

import ringdist as rd
from tests.ringdist.ring_mixture.cases import SUMS

pytestmark = pytest.mark.slow_on("jax")


def one(variable, dtype=np.float64) -> rd.TensorRing:
    return rd.TensorRing([np.ones((variable.num_components, 1, 1), dtype=dtype)], [variable])


AGE = rd.Categorical(3, name="age")
TWO = [one(AGE), one(AGE)]


@pytest.mark.parametrize(
    ("rings", "weights", "kind", "finding"),
    [
        ([], [], ValueError, "at least one ring"),
        ([AGE], [1.0], TypeError, "of rings, found Categorical"),
        (TWO, [1.0], ValueError, r"one weight per ring.*\(1,\) for 2 rings"),
        (TWO, [[0.5, 0.5]], ValueError, "one weight per ring"),
        (TWO, 1.0, ValueError, "one weight per ring"),
        (TWO, [0.5, -0.1], ValueError, "not negative, found -0.1 for ring 1"),
        (TWO, [np.nan, 1.0], ValueError, "finite.*nan for ring 0"),
        (TWO, [1.0, np.inf], ValueError, "finite.*inf for ring 1"),
        (TWO, [0.0, 0.0], ValueError, "only zeros"),
        (TWO, np.array([1j, 1.0]), TypeError, "real numbers"),
        ([one(AGE), one(rd.Categorical(3))], [1, 1], ValueError, r"column 0 \('age'\) and column 0 \(ring 1\)"),
        ([one(AGE), one(rd.Categorical(3, name="b"))], [1, 1], ValueError, r"'age'.*'b'.*ring 1"),
        ([one(AGE), one(rd.Categorical(4, name="age"))], [1, 1], ValueError, r"column 0 \('age'\).*one space"),
        (
            [one(rd.PoissonMixture([1.0])), one(rd.GaussianMixture([1.0], [1.0]))],
            [1, 1],
            ValueError,
            "column 0: rings must have values in one space",
        ),
        ([one(AGE), one(AGE, np.float32)], [1, 1], TypeError, "one dtype.*float64 and float32"),
        (
            [one(AGE), rd.TensorRing.random([AGE, rd.Categorical(2)], 2, rng=0)],
            [1, 1],
            ValueError,
            "1 columns and 2",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mixtures_that_are_refused(rings, weights, kind, finding):
    with pytest.raises(kind, match=finding):
        rd.RingMixture(rings, weights)


def test_backends_do_not_mix():
    torch = pytest.importorskip("torch")
    other = rd.TensorRing([torch.ones((3, 1, 1), dtype=torch.float64)], [AGE])
    with pytest.raises(TypeError, match="one backend"):
        rd.RingMixture([one(AGE), other], [1.0, 1.0])
    with pytest.raises(TypeError, match="one backend"):
        rd.RingMixture(TWO, torch.tensor([1.0, 1.0]))
    with pytest.raises(TypeError, match="one backend"):
        rd.RingMixture(TWO, [1.0, 1.0]).log_prob(torch.zeros((2, 1)))


def test_unchecked_weights():
    assert np.isnan(rd.RingMixture(TWO, [1.0, np.nan], validate=False).weights).all()


def test_questions_that_are_refused(numpy_backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(2)
    with pytest.raises(ValueError, match=r"shape \(..., 4\)"):
        mixture.log_prob(x[:, :3])
    with pytest.raises(ValueError, match=r"column 0 \('label'\)"):
        mixture.log_prob([[7, 0, 0, 0]])
    with pytest.raises(ValueError, match="no column 'age'"):
        mixture.component_posterior("age", x)
    with pytest.raises(ValueError, match=r"column 1 \('height'\): q must lie"):
        mixture.quantile(1, 1.5, x)
    with pytest.raises(ValueError, match="point of a cdf"):
        mixture.cdf(1, np.full((1, 4), np.nan))
    with pytest.raises(TypeError, match="mapping"):
        mixture.condition([0])
    with pytest.raises(ValueError, match="evidence must be a number, found NaN"):
        mixture.condition({0: np.nan})
    with pytest.raises(ValueError, match="must leave at least one column"):
        mixture.condition(dict.fromkeys(range(4), 0))
    with pytest.raises(ValueError, match="at least one column"):
        mixture.marginal([])
    for n in (-1, True, 1.5):
        with pytest.raises((ValueError, TypeError), match="n must be"):
            mixture.sample(n)
        with pytest.raises((ValueError, TypeError), match="n must be"):
            mixture.sample_given(x, n)
    with pytest.raises(ValueError, match="dense table needs categorical columns"):
        mixture.to_dense()
