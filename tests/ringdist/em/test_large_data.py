"""The memory of a fit is that of a batch, and an order that is not stored is a random permutation."""

import itertools
import tracemalloc

import numpy as np
import pytest

import ringdist as rd
from ringdist.learning import data as learning_data
from tests.ringdist.em.cases import (
    chain,
)


@pytest.mark.slow
def test_memory_is_that_of_a_batch(tmp_path, monkeypatch):
    n, d = 40_000, 32
    path = tmp_path / "data"
    chain(n, d).tofile(path)
    x = np.memmap(path, dtype=np.uint8, mode="r", shape=(n, d))
    monkeypatch.setattr(learning_data, "EVALUATION_ROWS", 500)
    start = rd.TensorRing.random([rd.Categorical(2)] * d, 2, rng=0)
    tracemalloc.start()
    history = rd.fit_em(start, x, max_epochs=1, batch_size=500, rng=0).history
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * d * 8 / 2, f"{peak / 2**20:.1f} MiB"
    assert history["train"][0] > start.log_prob(np.asarray(x[:1000])).mean()


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 4096, 4097])
def test_an_order_that_is_not_stored_is_a_permutation(monkeypatch, n):
    monkeypatch.setattr(learning_data, "STORED_ORDER", 0)
    data = learning_data.TrainingData(rd.TensorRing.random([rd.Categorical(2)], 1, rng=0), np.zeros((n, 1)))
    batches = list(data.batches(7, np.random.default_rng(0)))
    assert [len(batch) for batch in batches[:-1]] == [7] * ((n - 1) // 7)
    assert all((np.diff(batch) > 0).all() for batch in batches)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    again, other = (list(data.batches(7, np.random.default_rng(seed))) for seed in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert n < 1000 or not any(np.array_equal(a, b) for a, b in zip(batches[:-1], other[:-1], strict=True))


def test_an_order_that_is_not_stored_is_shuffled():
    """The means of batches scatter as those of simple random samples do, and neighbouring places are independent."""
    n, size = 50_000, 50
    keys = np.random.default_rng(0).integers(0, 2**64, size=learning_data.ROUNDS, dtype=np.uint64)
    order = learning_data.shuffled(slice(0, n), n, keys) / n
    means = order.reshape(-1, size).mean(1)
    assert means.std() == pytest.approx((1 / 12 / size) ** 0.5, rel=0.1)
    for gap in (1, 2, size):
        assert abs(np.corrcoef(order[gap:], order[:-gap])[0, 1]) < 0.02


def test_batches_of_many_rows_take_the_memory_of_one():
    n = 5_000_000
    ring = rd.TensorRing.random([rd.Categorical(2)] * 3, 2, rng=0)
    tracemalloc.start()
    data = learning_data.TrainingData(ring, np.broadcast_to(np.uint8(1), (n, 3)))
    batches = itertools.islice(data.batches(2**14, np.random.default_rng(0)), 3)
    seen = sum(data.batch(ring, index)[1].sum() for index in batches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 3 * 2**14 and peak < n, f"{peak / 2**20:.1f} MiB"
