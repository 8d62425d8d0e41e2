"""A seed repeats a fit, and no global state is touched."""

import numpy as np
import pytest

import ringdist as rd
from tests.oracle import TABLE
from tests.ringdist.em.cases import STREAMED, assert_equal_rings, numbers


def test_what_is_drawn_for_a_jax_ring_needs_a_seed(backend):
    ring, x = backend.ring(TABLE), TABLE.possible_rows(20)
    rd.fit_em(ring, x, max_epochs=1)
    for options in ({"batch_size": 5}, {"restarts": 2}):
        if backend.name == "jax":
            with pytest.raises(ValueError, match="a JAX ring needs rng for batches and restarts"):
                rd.fit_em(ring, x, max_epochs=1, **options)
        else:
            rd.fit_em(ring, x, max_epochs=1, **options)


@pytest.mark.parametrize("settings", [{"batch_size": 16}, {"restarts": 3}], ids=["batches", "restarts"])
def test_a_seed_repeats_a_fit(backend, settings):
    x = STREAMED.possible_rows(60)

    def fit(rng):
        return rd.fit_em(backend.ring(STREAMED), x, max_epochs=3, rng=rng, **settings).ring

    assert_equal_rings(backend, fit(5), fit(5))
    assert_equal_rings(backend, fit(backend.rng(5)), fit(backend.rng(5)))
    assert_equal_rings(backend, fit(np.random.default_rng(5)), fit(5))
    if "batch_size" in settings:
        assert not np.array_equal(numbers(backend, fit(5))[0], numbers(backend, fit(6))[0])


def test_the_global_state_of_randomness_is_left_alone(numpy_backend):
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not move
    rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(20), max_epochs=2, batch_size=5, restarts=2)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
