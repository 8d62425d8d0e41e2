"""Orders whose dependent columns are near each other: values of moves against full sums, local optimality by trial."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ringdist import ordering
from ringdist.ordering import arrangement
from ringdist.ordering.arrangement import _Path, arranged
from ringdist.variables import Categorical

TOPOLOGIES = ("ring", "train")
REACHES = (0.2, 0.7, 0.95)


def random_weights(d: int, seed: int) -> np.ndarray:
    weight = np.random.default_rng(seed).random((d, d)) ** 3
    weight = weight + weight.T
    np.fill_diagonal(weight, 0.0)
    return weight


def worth(order, weight: np.ndarray, reach: float, topology: str = "train") -> float:
    """Pair by pair."""
    d, total = len(order), 0.0
    for i, j in itertools.combinations(range(d), 2):
        distance = min(j - i, d - j + i) if topology == "ring" else j - i
        total += weight[order[i], order[j]] * reach ** (distance - 1)
    return total


def moves(order: list[int], longest: int):
    """Every order in which one stretch lies elsewhere or reversed."""
    for length in range(1, min(longest, len(order) - 1) + 1):
        for first in range(len(order) - length + 1):
            stretch, others = order[first : first + length], order[:first] + order[first + length :]
            for slot in range(len(others) + 1):
                yield others[:slot] + stretch + others[slot:]
                yield others[:slot] + stretch[::-1] + others[slot:]


@pytest.fixture
def all_distances(monkeypatch):
    monkeypatch.setattr(arrangement, "_LEAST", 1e-30)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_the_score_counts_every_pair(d, reach, topology):
    weight = random_weights(d, d)
    order = np.random.default_rng(d).permutation(d).tolist()
    assert ordering.score(order, weight, topology, reach) == pytest.approx(worth(order, weight, reach, topology))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_without_reach_only_neighbours_count(topology):
    weight = random_weights(7, 0)
    order = ordering.random(7, 0)
    limit = ordering.score(order, weight, topology, 1e-12)
    assert ordering.score(order, weight, topology, 0.0) == pytest.approx(limit)
    assert ordering.tour(weight, topology, 0.0) == ordering.tour(weight, topology)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("d", [2, 3, 5, 9])
def test_every_slot_is_valued_as_the_whole_order_is(d, reach, all_distances):
    weight = random_weights(d, d)
    order = np.random.default_rng(d).permutation(d)
    path = _Path(weight, order.tolist(), reach)
    for length in range(1, d):
        for first in range(d - length + 1):
            stretch, others = order[first : first + length], np.delete(order, np.s_[first : first + length])
            found = path.values(others, stretch)
            expected = [
                [worth(np.concatenate([others[:t], part, others[t:]]), weight, reach) for t in range(d - length + 1)]
                for part in (stretch, stretch[::-1])
            ]
            np.testing.assert_allclose(np.array(found) - found[0][0], np.array(expected) - expected[0][0], atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("d", [6, 12])
def test_distances_of_no_weight_are_left_out(d, length, monkeypatch):
    monkeypatch.setattr(arrangement, "_LEAST", 0.1)  # reach 0.5: distances 1 to 4 remain
    weight, order = random_weights(d, d), np.arange(d)
    distance = np.abs(np.subtract.outer(order, order))
    power = np.where(distance <= 4, 0.5 ** (distance - 1.0), 0.0)
    stretch, others = order[:length], order[length:]
    found, _ = _Path(weight, order.tolist(), 0.5).values(others, stretch)
    slots = [np.concatenate([others[:t], stretch, others[t:]]) for t in range(d - length + 1)]
    expected = np.array([(weight[np.ix_(moved, moved)] * power).sum() / 2 for moved in slots])
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-12)


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("d", [4, 7, 10])
def test_no_single_move_is_better(d, reach, all_distances):
    weight = random_weights(d, d)
    start = np.random.default_rng(d).permutation(d).tolist()
    found = arranged(weight, start, reach)
    best = worth(found, weight, reach)
    assert sorted(found) == list(range(d)) and start == np.random.default_rng(d).permutation(d).tolist()
    assert best >= worth(start, weight, reach)
    assert max(worth(other, weight, reach) for other in moves(found, 4)) <= best + 1e-9


@pytest.mark.parametrize("reach", REACHES)
def test_small_orders_are_near_the_best(reach):
    for seed in range(4):
        weight = random_weights(6, seed)
        best = max(worth(order, weight, reach) for order in itertools.permutations(range(6)))
        assert ordering.score(ordering.tour(weight, "train", reach), weight, "train", reach) > 0.97 * best


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("d", [1, 2, 3, 4, 13, 30])
def test_orders_are_canonical_and_deterministic(d, topology):
    weight = random_weights(d, d)
    given = weight.copy()
    found = ordering.tour(weight, topology, 0.9)
    assert sorted(found) == list(range(d)) and all(type(k) is int for k in found)
    assert found == ordering.tour(weight.tolist(), topology, 0.9)
    np.testing.assert_array_equal(weight, given)
    if topology == "ring":
        assert found[0] == 0
        assert d < 3 or found[1] < found[-1]
    else:
        assert d < 2 or found[0] < found[-1]


def test_a_train_of_two_interleaved_chains_keeps_each_chain_in_its_sequence():
    """Neighbours in a chain depend on each other, the chains weakly on one another at the same place."""
    d = 20
    place, chain = np.arange(d) // 2, np.arange(d) % 2
    weight = np.exp(-np.abs(np.subtract.outer(place, place))) * np.where(np.equal.outer(chain, chain), 1.0, 0.3)
    found = list(ordering.tour(weight, "train", 0.9))
    tour = ordering.tour(weight, "train")
    for own in (0, 1):
        places = [place[k] for k in found if chain[k] == own]
        assert places in (sorted(places), sorted(places, reverse=True))
    assert ordering.score(found, weight, "train", 0.9) > ordering.score(tour, weight, "train", 0.9)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_zero_and_negative_dependence(topology):
    for weight in (np.zeros((20, 20)), random_weights(20, 0) - 0.5):
        assert sorted(ordering.tour(weight, topology, 0.9)) == list(range(20))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("reach", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_diverse_orders_start_with_the_best_and_differ(topology, reach):
    places = np.random.default_rng(3).random((25, 2))
    weight = np.exp(-10 * ((places[:, None] - places) ** 2).sum(axis=2))
    given = weight.copy()
    orders = ordering.diverse(weight, 4, topology, reach)
    np.testing.assert_array_equal(weight, given)
    assert orders == ordering.diverse(weight, 4, topology, reach)
    assert orders[0] == ordering.tour(weight, topology, reach)
    assert len(set(orders)) == 4
    scores = [ordering.score(order, weight, topology, reach) for order in orders]
    assert min(scores) > 0.8 * scores[0]
    random = [ordering.score(ordering.random(25, seed), weight, topology, reach) for seed in range(20)]
    assert min(scores) > max(random)
    assert ordering.diverse(weight, 2, topology, reach) == orders[:2]


def test_orders_of_few_columns_may_repeat():
    assert ordering.diverse(np.zeros((1, 1)), 3) == [(0,)] * 3
    assert len(ordering.diverse(random_weights(3, 0), 5, "train")) == 5


def test_reach_reaches_the_order_of_data():
    rng = np.random.default_rng(0)
    x = rng.integers(2, size=(300, 8))
    x[:, 4:] = np.where(rng.random((300, 4)) < 0.8, x[:, :4], x[:, 4:])
    variables = [Categorical(2)] * 8
    information = ordering.dependence(x, variables)
    for topology in TOPOLOGIES:
        found = ordering.mutual_information(x, variables, topology, 0.9)
        assert found == ordering.tour(information, topology, 0.9)


@pytest.mark.parametrize("reach", [-0.1, 1.0, 2.0, float("nan")])
def test_a_reach_outside_its_range_is_refused(reach):
    weight, message = random_weights(4, 0), "reach must be at least 0 and less than 1"
    calls = (
        lambda: ordering.tour(weight, "train", reach),
        lambda: ordering.score(range(4), weight, "train", reach),
        lambda: ordering.diverse(weight, 2, "train", reach),
        lambda: ordering.mutual_information(np.zeros((3, 4)), [Categorical(2)] * 4, "train", reach),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_counts_and_topologies_that_do_not_fit_are_refused():
    weight = random_weights(4, 0)
    with pytest.raises(ValueError, match="count must be at least 1, found 0"):
        ordering.diverse(weight, 0)
    with pytest.raises(ValueError, match="topology must be one of 'ring', 'train', found 'tree'"):
        ordering.diverse(weight, 2, "tree")
    with pytest.raises(ValueError, match="dependence must be symmetric"):
        ordering.diverse(np.triu(weight), 2)
