"""Files hold the factors of every kind of core that is registered."""

import numpy as np
import pytest

import ringdist as rd
from tests.families import LaplaceMixture
from tests.ringdist.cores.cases import agrees
from tests.structured import STRUCTURED

pytestmark = pytest.mark.slow_on("jax")


def test_files(backend, dtype, diagonal_files, tmp_path, ring_case):
    ring, x = ring_case.ring(backend, dtype), ring_case.case.rows(3).astype(dtype)
    ring.save(tmp_path / "ring")
    again = rd.load(tmp_path / "ring", xp=backend.xp, families=(LaplaceMixture,)).to(device=backend.device)
    assert repr(again) == repr(ring) and again.order == ring.order
    for one, other in zip(again.links, ring.links, strict=True):
        assert type(one) is type(other) and one.arrays().keys() == other.arrays().keys()
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(backend.numpy(array), backend.numpy(other.arrays()[name]))
    agrees(backend, again, ring_case.case, x, ring_case, dtype)


def test_a_kind_that_files_do_not_know(numpy_backend, tmp_path):
    with pytest.raises(ValueError, match=r"column 0: the cores that files hold.*DiagonalCore"):
        STRUCTURED["diagonal"].ring(numpy_backend).save(tmp_path / "ring")
