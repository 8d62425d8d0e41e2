"""Random rings of CP cores: Z near 1, and the sizes that were asked for."""

import pytest

import ringdist as rd

pytestmark = pytest.mark.slow_on("jax")


def test_random_rings(backend, dtype):
    """Z near 1 at every rank, and the sizes that were asked for."""
    variables = [rd.Categorical(3), rd.Categorical(4), rd.Categorical(2)] * 4
    for topology, inner in (("ring", None), ("train", None), ("train", 7), ("ring", 5)):
        ring = rd.TensorRing.random(
            variables,
            6,
            topology=topology,
            core="cp",
            inner=inner,
            rng=0,
            xp=backend.xp,
            dtype=dtype,
            device=backend.device,
        )
        assert all(isinstance(core, rd.CPCore) for core in ring.cores)
        assert ring.is_train == (topology == "train") and max(ring.ranks) == 6
        hidden = {core.inner for core in ring.cores}
        assert hidden == {6 if inner is None else inner}, hidden
        assert abs(float(ring.log_normalizer())) < 6, "its standard deviation over seeds is 1.2"
        assert str(ring.prototype.dtype).endswith(dtype)
        assert "CPCore" in repr(ring)
        sizes = sum(backend.numpy(a).size for core in ring.cores for a in core.arrays().values())
        assert ring.num_parameters == sizes
    with pytest.raises(ValueError, match="dense or cp, found 'sparse'"):
        rd.TensorRing.random(variables, 2, core="sparse", rng=0)
    with pytest.raises(ValueError, match=r"inner .*found 0 for cp"):
        rd.TensorRing.random(variables, 2, core="cp", inner=0, rng=0)
    with pytest.raises(ValueError, match=r"inner .*found 3 for dense"):
        rd.TensorRing.random(variables, 2, core="dense", inner=3, rng=0)
