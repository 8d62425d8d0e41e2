"""Orders, seeds, held-out rows, weights and other parameters."""

import numpy as np
import pytest

from ringdist import TensorRingDensity
from tests.ringdist.estimator.cases import small


def test_orders(frame):
    names = list(frame.columns)
    assert small(order="given").fit(frame).ring_.order == tuple(range(6))
    assert small(order=names[::-1]).fit(frame).ring_.order == (5, 4, 3, 2, 1, 0)
    assert small(order=[1, 0, 2, 3, 5, 4]).fit(frame).ring_.order == (1, 0, 2, 3, 5, 4)
    assert sorted(small(order="random").fit(frame).ring_.order) == list(range(6))
    assert small(topology="train").fit(frame).ring_.is_train
    with pytest.raises(ValueError, match=r"order.*'best'"):
        small(order="best").fit(frame)
    with pytest.raises(ValueError, match="order names 'size'"):
        small(order=["size", *names[1:]]).fit(frame)
    with pytest.raises(ValueError, match="permutation"):
        small(order=[0, 0, 1, 2, 3, 4]).fit(frame)


def test_a_seed_repeats_a_fit(frame):
    settings = {"order": "random", "validation_fraction": 0.3, "batch_size": 16, "restarts": 2}
    a, b = (small(**settings, random_state=3).fit(frame) for _ in range(2))
    np.testing.assert_array_equal(a.score_samples(frame), b.score_samples(frame))
    other = small(**settings, random_state=4).fit(frame)
    assert not np.array_equal(a.score_samples(frame), other.score_samples(frame))
    assert np.isfinite(small(random_state=np.random.RandomState(0)).fit(frame).score(frame))


def test_held_out_rows_stop_the_fit():
    x = np.random.default_rng(0).normal(size=(60, 4))  # nothing to learn but noise
    model = small(rank=6, max_epochs=200, validation_fraction=0.3, patience=2).fit(x)
    assert model.n_iter_ < 200 and len(model.history_["validation"]) == model.n_iter_
    best = max(model.history_["validation"])
    assert model.history_["validation"].index(best) == model.n_iter_ - 3


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "some", np.nan])
def test_a_fraction_that_holds_nothing_out(fraction):
    with pytest.raises(ValueError, match="validation_fraction"):
        small(validation_fraction=fraction).fit(np.eye(4))
    with pytest.raises(ValueError, match="2 rows"):
        small(validation_fraction=0.5).fit(np.eye(1))


def test_weights_count_rows(frame):
    weight = np.random.default_rng(0).integers(0, 3, len(frame))
    repeated = frame.loc[frame.index.repeat(weight)]
    start = {"order": "given", "num_components": 1, "max_epochs": 30, "rank": 1, "pseudocount": 0.0}
    a, b = small(**start).fit(frame, sample_weight=weight), small(**start).fit(repeated)
    np.testing.assert_allclose(a.score_samples(repeated), b.score_samples(repeated), rtol=1e-6)
    with pytest.raises(ValueError, match="zero"):
        small().fit(frame, sample_weight=np.zeros(len(frame)))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        small().fit(frame, sample_weight=-np.ones(len(frame)))


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"num_components": 0}, {"topology": "tree"}, {"max_epochs": -1}, {"batch_size": 0}, {"patience": 0}],
)
def test_parameters_that_do_not_fit(frame, wrong):
    with pytest.raises(ValueError, match="found"):
        small(**wrong).fit(frame)


def test_progress_is_shown_on_request(capsys):
    small(verbose=True).fit(np.eye(3))
    assert "epoch" in capsys.readouterr().err
    small().fit(np.eye(3))
    assert capsys.readouterr().err == ""


def test_the_prior_weighs_the_same_at_every_rank():
    """Rows of prior in the largest core, however many entries it has: a large rank does not drown the data."""
    x = np.random.default_rng(0).integers(0, 2, (300, 1)) * np.ones((1, 6), dtype=int)  # six equal columns
    for rank in (2, 24):
        model = TensorRingDensity(rank=rank, max_epochs=30, random_state=0).fit(x)
        assert model.score(x) > -0.85, (rank, model.score(x))  # log 2, and what 10 rows of prior cost
