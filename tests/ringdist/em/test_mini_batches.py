"""Stepwise EM on mini-batches: likelihoods, histories, restarts."""

import numpy as np
import pytest

import ringdist as rd
from ringdist.learning import em
from tests.oracle import make_case
from tests.ringdist.em.cases import STREAMED, chain, weights


def test_mini_batches_come_near_the_full_batch(backend):
    x = chain(1500, 8)
    start = rd.TensorRing.random([rd.Categorical(2)] * 8, 3, rng=0).to(
        backend.xp if backend.name != "numpy" else None, device=backend.device
    )
    full = rd.fit_em(start, x, max_epochs=30).history["train"]
    parts = rd.fit_em(start, x, max_epochs=12, batch_size=100, rng=0).history["train"]
    assert parts[-1] > parts[0] and parts[-1] > full[-1] - 0.03 * abs(full[-1])


@pytest.mark.parametrize("kind", ["train", "mixture"])
def test_the_history_of_mini_batches_is_the_average_while_learning(backend, kind):
    x = STREAMED.possible_rows(60, missing=0.2)
    weight = weights(len(x))
    starts = [
        backend.ring(make_case(["categorical", "gaussian", "poisson"], [3, 2, 3], [1, 2, 3], order, seed=seed))
        for seed, order in enumerate(([1, 0, 2], [0, 1, 2]))
    ]
    start = starts[0] if kind == "train" else rd.RingMixture(starts, [0.3, 0.7])
    settings = {"sample_weight": weight, "step_decay": "linear", "rng": 0, "smoothing": 0.3}
    whole = rd.fit_em(start, x, batch_size=60, max_epochs=1, **settings)
    before, after = (
        np.average(backend.numpy(model.log_prob(backend.array(x))), weights=weight) for model in (start, whole.ring)
    )
    np.testing.assert_allclose(whole.history["train"], [before], rtol=1e-9)  # one batch, by the ring before it
    parts = rd.fit_em(start, x, batch_size=20, max_epochs=1, **settings).history["train"][0]
    assert before < parts < after + 0.5


@pytest.mark.parametrize("topology", ["ring", "train"])
def test_restarts_of_mini_batches_are_compared_at_their_ends(topology):
    rng = np.random.default_rng(3)
    x = np.tile(rng.integers(0, 3, (6, 6)), (10, 1))
    start = rd.TensorRing.random([rd.Categorical(3)] * 6, 2, topology=topology, rng=0)
    settings = {"max_epochs": 4, "batch_size": 15, "step_decay": "linear"}
    several = rd.fit_em(start, x, rng=0, restarts=4, **settings).ring.log_prob(x).mean()
    assert several >= rd.fit_em(start, x, rng=0, **settings).ring.log_prob(x).mean() - 1e-9
    random = np.random.default_rng(0)
    tracks = []
    for restart in range(4):
        begin = start if restart == 0 else em._random_like(start, random)
        tracks.append(rd.fit_em(begin, x, rng=random, **settings).ring.log_prob(x).mean())
    assert several == pytest.approx(max(tracks))


def test_mini_batches_of_mixed_columns_with_missing_entries_and_weights(backend):
    x = STREAMED.possible_rows(200, missing=0.2)
    start = backend.ring(make_case(["categorical", "gaussian", "poisson"], [3, 2, 3], [2] * 3, [1, 0, 2], seed=8))
    fitted = rd.fit_em(start, x, sample_weight=weights(len(x)), batch_size=40, max_epochs=6, rng=0, validation=x)
    assert fitted.history["validation"][-1] > float(backend.numpy(start.log_prob(backend.array(x))).mean()) + 0.1
