"""Early stopping, restarts and progress."""

import numpy as np
import pytest

import ringdist as rd
from tests.backends import assert_close
from tests.oracle import MIXED, TABLE


def overfitting(**settings):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (120, 8))
    start = rd.TensorRing.random([rd.Categorical(2)] * 8, 6, rng=1)
    return rd.fit_em(start, x[:60], validation=x[60:], **settings), x


@pytest.mark.parametrize("batch_size", [None, 20])
def test_the_best_ring_on_validation_data_is_returned(batch_size):
    (ring, history), x = overfitting(max_epochs=200, patience=4, pseudocount=0.05, batch_size=batch_size, rng=0)
    values = history["validation"]
    best = int(np.argmax(values))
    assert len(values) == len(history["train"]) == best + 5 < 200
    assert ring.log_prob(x[60:]).mean() == pytest.approx(values[best])
    if batch_size is None:
        assert ring.log_prob(x[:60]).mean() == pytest.approx(history["train"][best])
        assert history["train"][-1] > history["train"][best]


def test_without_patience_every_epoch_is_run():
    (ring, history), x = overfitting(max_epochs=40, patience=None, pseudocount=0.05)
    assert len(history["validation"]) == 40
    assert ring.log_prob(x[60:]).mean() == pytest.approx(max(history["validation"]))


def test_no_epoch_gives_the_start_back(backend):
    ring = backend.ring(MIXED)
    fitted = rd.fit_em(ring, MIXED.possible_rows(6), max_epochs=0)
    x = backend.array(MIXED.possible_rows(6))
    assert fitted.history == {"train": []}
    assert_close(backend.numpy(fitted.ring.log_prob(x)), backend.numpy(ring.log_prob(x)), ring)


def test_restarts_keep_the_best(numpy_backend):
    rng = np.random.default_rng(3)
    x = np.tile(rng.integers(0, 3, (6, 6)), (10, 1))
    start = rd.TensorRing.random([rd.Categorical(3)] * 6, 2, rng=0)
    single = rd.fit_em(start, x, max_epochs=8, rng=0)
    several = rd.fit_em(start, x, max_epochs=8, rng=0, restarts=5)
    assert several.history["train"][-1] > single.history["train"][-1] + 0.01
    assert len(several.history["train"]) == 8
    assert several.ring.log_prob(x).mean() == pytest.approx(several.history["train"][-1])


def test_progress_is_shown_on_request(numpy_backend, capsys):
    rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(6), max_epochs=3, progress=True)
    assert "3/3" in capsys.readouterr().err
    rd.fit_em(numpy_backend.ring(TABLE), TABLE.possible_rows(6), max_epochs=3)
    assert capsys.readouterr().err == ""
