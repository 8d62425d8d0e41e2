"""Seeds, generators and keys: what is repeatable, what is not, and that nobody else's randomness is touched."""

import numpy as np
import pytest

from tests.oracle import MIXED

pytestmark = pytest.mark.slow_on("jax")

DRAWS = {
    "sample": lambda ring, x, rng: ring.sample(5, rng=rng),
    "sample_given": lambda ring, x, rng: ring.sample_given(x, 5, rng=rng),
    "entropy": lambda ring, x, rng: ring.cores[0][0, 0, 0] * 0 + ring.entropy(5, rng)[0],
}


@pytest.fixture(params=DRAWS)
def draw(request, backend):
    """A function of rng only, with NumPy's arrays for answers."""
    ring, x = backend.ring(MIXED), backend.array(MIXED.possible_rows(6))
    return lambda rng: backend.numpy(DRAWS[request.param](ring, x, rng))


def test_a_seed_repeats_itself_and_another_does_not(draw):
    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))


def test_numpy_integers_are_seeds(draw):
    np.testing.assert_array_equal(draw(np.int64(3)), draw(3))


def test_the_backends_own_generator_or_key(draw, backend):
    np.testing.assert_array_equal(draw(backend.rng(3)), draw(backend.rng(3)))
    assert not np.array_equal(draw(backend.rng(3)), draw(backend.rng(4)))


def test_a_generator_moves_on_and_a_key_does_not(draw, backend):
    rng = backend.rng(0)
    assert np.array_equal(draw(rng), draw(rng)) == (backend.name == "jax")


@pytest.mark.fast_on("jax")
def test_no_rng_is_fresh_entropy_except_in_jax(draw, backend):
    if backend.name == "jax":
        with pytest.raises(ValueError, match="rng"):
            draw(None)
    else:
        assert not np.array_equal(draw(None), draw(None))


def test_the_legacy_keys_of_jax_are_keys(backend):
    jax = pytest.importorskip("jax")
    if backend.name != "jax":
        pytest.skip("keys are JAX's")
    ring = backend.ring(MIXED)
    old = backend.numpy(ring.sample(3, rng=jax.random.PRNGKey(5)))
    assert np.isfinite(old).all()
    np.testing.assert_array_equal(old, backend.numpy(ring.sample(3, rng=jax.random.PRNGKey(5))))


@pytest.mark.fast_on("jax")
def test_another_kind_of_rng_is_refused(draw, backend):
    foreign = object() if backend.name != "numpy" else "seed"
    for wrong in ("seed", 1.5, foreign):
        with pytest.raises(TypeError, match="rng"):
            draw(wrong)


def test_global_random_states_are_left_alone(draw, backend):
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not move
    torch_state = backend.xp.get_rng_state() if backend.name == "torch" else None
    draw(0)
    draw(backend.rng(0))
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    if torch_state is not None:
        assert bool((torch_state == backend.xp.get_rng_state()).all())


def test_numpy_samples_do_not_depend_on_the_batch_layout(numpy_backend):
    """Completions of the same rows in another batch shape are the same for the same seed."""
    ring, x = numpy_backend.ring(MIXED), MIXED.possible_rows(6)
    flat = ring.sample_given(x, rng=0)
    np.testing.assert_array_equal(flat, ring.sample_given(x.reshape(2, 3, 4), rng=0).reshape(6, 4))
