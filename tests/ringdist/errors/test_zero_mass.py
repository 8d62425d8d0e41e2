"""Evidence that is impossible."""

import numpy as np
import pytest

import ringdist as rd
from tests.ringdist.errors.cases import QUERIES

pytestmark = pytest.mark.slow_on("jax")


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
