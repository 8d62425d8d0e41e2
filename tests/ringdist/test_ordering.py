"""Orders from data: estimates against closed forms and peers, tours against enumeration and planted answers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from ringdist import ordering
from ringdist.ordering import information
from ringdist.variables import Categorical, GaussianMixture, PoissonMixture

TOPOLOGIES = ("ring", "train")


def gaussians(count: int) -> list[GaussianMixture]:
    return [GaussianMixture([0.0], [1.0]) for _ in range(count)]


def random_weights(d: int, seed: int) -> np.ndarray:
    weight = np.random.default_rng(seed).random((d, d))
    return weight + weight.T


def best_by_enumeration(weight: np.ndarray, topology: str) -> float:
    return max(ordering.score(order, weight, topology) for order in itertools.permutations(range(len(weight))))


def noisy_chain(rng: np.random.Generator, n: int, d: int, keep: float = 0.85, num_categories: int = 3) -> np.ndarray:
    """(n, d) categories; each column repeats the one before it with probability `keep`, else is uniform."""
    x = rng.integers(num_categories, size=(n, d))
    for k in range(1, d):
        x[:, k] = np.where(rng.random(n) < keep, x[:, k - 1], x[:, k])
    return x


def noisy_cycle(rng: np.random.Generator, n: int, d: int, keep: float = 0.85, num_categories: int = 3) -> np.ndarray:
    """(n, d) categories of P(x) ∝ ∏ T[x_k, x_{k+1}], the last factor T[x_{d-1}, x_0]: the chain above, closed."""
    transition = keep * np.eye(num_categories) + (1 - keep) / num_categories
    x = rng.integers(num_categories, size=(n, d))
    for k in range(1, d):
        weights = transition[x[:, k - 1]] * np.linalg.matrix_power(transition, d - k)[x[:, 0]]
        cumulative = np.cumsum(weights, axis=1)
        x[:, k] = (cumulative < rng.random((n, 1)) * cumulative[:, -1:]).sum(axis=1)
    return x


def same_cycle(order: Sequence[int], truth: Sequence[int]) -> bool:
    d = len(truth)
    place = {column: j for j, column in enumerate(truth)}
    steps = {(place[b] - place[a]) % d for a, b in zip(order, [*order[1:], order[0]], strict=True)}
    return steps in ({1}, {d - 1})


# ------------------------------------------------------------------------------------------- random orders, scores


def test_random_orders_are_permutations_reproducible_and_uniform():
    rng = np.random.default_rng(0)
    orders = [ordering.random(3, rng=rng) for _ in range(6000)]
    counts = {order: orders.count(order) for order in itertools.permutations(range(3))}
    assert sum(counts.values()) == 6000
    assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in counts.values()), counts
    assert ordering.random(50, rng=1) == ordering.random(50, rng=np.random.default_rng(1))
    assert all(type(k) is int for k in ordering.random(5))
    assert ordering.random(1) == (0,)


def test_score_sums_the_neighbours():
    weight = random_weights(5, 0)
    order = (3, 1, 0, 4, 2)
    path = weight[3, 1] + weight[1, 0] + weight[0, 4] + weight[4, 2]
    assert ordering.score(order, weight, "train") == pytest.approx(path)
    assert ordering.score(order, weight) == pytest.approx(path + weight[2, 3])
    assert ordering.score((1, 0), weight[:2, :2]) == pytest.approx(weight[0, 1])
    assert ordering.score((0,), [[7.0]]) == 0


# ----------------------------------------------------------------------------------------------------------- tours


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("d", range(1, 8))
def test_small_tours_are_optimal(d, topology):
    for seed in range(3):
        weight = random_weights(d, seed) - seed
        found = ordering.tour(weight, topology)
        assert ordering.score(found, weight, topology) == pytest.approx(best_by_enumeration(weight, topology))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("d", [1, 2, 3, 4, 11, 12, 13, 14, 30])
def test_tours_are_canonical_and_deterministic(d, topology):
    weight = random_weights(d, d)
    found = ordering.tour(weight, topology)
    assert sorted(found) == list(range(d)) and all(type(k) is int for k in found)
    assert found == ordering.tour(weight.tolist(), topology)
    if topology == "ring":
        assert found[0] == 0
        assert d < 3 or found[1] < found[-1]
    else:
        assert d < 2 or found[0] < found[-1]


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("d", [13, 25, 80])
def test_local_search_finds_a_planted_tour(d, topology):
    rng = np.random.default_rng(d)
    truth = rng.permutation(d)
    weight = np.empty((d, d))
    distance = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    if topology == "ring":
        distance = np.minimum(distance, d - distance)
    weight[np.ix_(truth, truth)] = np.exp(-0.3 * distance)
    best = ordering.score(truth, weight, topology)
    assert ordering.score(ordering.tour(weight, topology), weight, topology) == pytest.approx(best)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_local_search_agrees_with_the_exact_tour(topology, monkeypatch):
    for seed in range(5):
        weight = random_weights(11, seed)
        exact = ordering.score(ordering.tour(weight, topology), weight, topology)
        with monkeypatch.context() as patch:
            patch.setattr("ringdist.ordering.search._EXACT_NODES", 5)
            searched = ordering.score(ordering.tour(weight, topology), weight, topology)
        assert searched == pytest.approx(exact), seed


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_tours_without_any_dependence(topology):
    for d in (4, 20):
        assert sorted(ordering.tour(np.zeros((d, d)), topology)) == list(range(d))


def test_the_diagonal_does_not_matter():
    weight = random_weights(20, 0)
    other = weight.copy()
    np.fill_diagonal(other, np.nan)
    assert ordering.tour(weight) == ordering.tour(other)
    assert ordering.score(range(20), weight) == ordering.score(range(20), other)


# ------------------------------------------------------------------------------------------------------ dependence


@pytest.mark.parametrize(
    ("n", "sizes"), [(300, (2, 2)), (300, (2, 9)), (1000, (5, 5)), (1000, (30, 12)), (500, (40, 40))]
)
@pytest.mark.parametrize("keep", [0.0, 0.6])
def test_categorical_pairs_are_the_plug_in_estimate_less_its_expectation_under_independence(n, sizes, keep):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(size, size=n) for size in sizes)
    b = np.where(rng.random(n) < keep, a % sizes[1], b)
    table = contingency_matrix(a, b)
    expected = mutual_info_score(None, None, contingency=table) - expected_mutual_information(table, n)
    found = ordering.dependence(np.stack([a, b], axis=1), [Categorical(size) for size in sizes])
    assert found[0, 1] == pytest.approx(max(expected, 0.0), abs=3e-3)
    counts = np.bincount(a)
    counts = counts[counts > 0]
    entropy = -(counts / n * np.log(counts / n)).sum() + (len(counts) - 1) / (2 * n)
    assert found[0, 0] == pytest.approx(entropy)


def test_independent_columns_share_nothing_and_equal_ones_all():
    rng = np.random.default_rng(0)
    n = 4000
    x = np.stack([rng.integers(10, size=n), rng.integers(10, size=n), rng.normal(size=n), rng.normal(size=n)], axis=1)
    x = np.concatenate([x, x[:, :1]], axis=1)
    found = ordering.dependence(x, [Categorical(10), Categorical(10), *gaussians(2), Categorical(10)])
    off = found[:4, :4][~np.eye(4, dtype=bool)]
    assert off.min() >= 0 and off.max() < 0.01
    assert found[0, 4] == pytest.approx(np.log(10), abs=0.02)
    np.testing.assert_array_equal(found, found.T)
    assert found.dtype == np.float64


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.3, 0.7, 0.99])
def test_monotone_dependence_is_that_of_a_gaussian_copula(rho):
    rng = np.random.default_rng(1)
    a, e = rng.normal(size=(2, 20_000))
    b = rho * a + np.sqrt(1 - rho**2) * e
    found = ordering.dependence(np.stack([a**3, np.exp(b)], axis=1), gaussians(2))
    assert found[0, 1] == pytest.approx(-0.5 * np.log(1 - rho**2), rel=0.05)


def test_dependence_without_correlation_is_seen():
    rng = np.random.default_rng(2)
    n = 5000
    angle = rng.uniform(0, 2 * np.pi, size=n)
    a = rng.normal(size=n)
    columns = [a, a**2 + 0.3 * rng.normal(size=n), np.cos(angle), np.sin(angle), np.sin(3 * angle)]
    found = ordering.dependence(np.stack(columns, axis=1), gaussians(5))
    assert found[0, 1] > 0.5 and found[2, 3] > 0.5 and found[3, 4] > 0.5
    assert found[0, 2:].max() < 0.01 and found[1, 2:].max() < 0.01


def test_equal_continuous_columns_have_a_finite_dependence():
    a = np.random.default_rng(0).normal(size=100)
    found = ordering.dependence(np.stack([a, a, -a], axis=1), gaussians(3))
    assert np.isfinite(found).all()
    assert 1.5 < found[0, 1] <= np.log(100) and found[0, 2] == pytest.approx(found[0, 1])


def test_mixed_pairs_and_counts():
    rng = np.random.default_rng(3)
    n = 20_000
    kind = rng.integers(3, size=n)
    values = np.stack(
        [kind, rng.normal(size=n) + 8.0 * kind, rng.poisson(10.0 + 60.0 * kind), rng.poisson(30, size=n)], 1
    )
    found = ordering.dependence(
        values, [Categorical(3), *gaussians(1), PoissonMixture([1.0, 2.0]), PoissonMixture([1.0])]
    )
    # The three kinds are told apart by the value and by the count: log 3 nats, less what a bin that two share loses.
    assert 0.8 < found[0, 1] < 1.11 and 0.8 < found[0, 2] < 1.11 and found[1, 2] > 0.8
    assert found[3, :3].max() < 5e-3


def test_small_counts_are_levels_of_their_own():
    rng = np.random.default_rng(4)
    x = np.stack([rng.integers(4, size=500)] * 2, axis=1)
    counted = ordering.dependence(x, [PoissonMixture(np.arange(1.0, 6.0)), Categorical(4)])
    np.testing.assert_allclose(counted, ordering.dependence(x, [Categorical(5), Categorical(4)]))


def test_atoms_of_a_continuous_column_keep_a_bin_of_their_own():
    rng = np.random.default_rng(5)
    empty = rng.random(5000) < 0.6
    amount = np.where(empty, 0.0, rng.lognormal(size=5000))
    found = ordering.dependence(np.stack([empty, amount], axis=1), [Categorical(2), *gaussians(1)])
    assert found[0, 1] == pytest.approx(found[0, 0], abs=2e-3)


# ---------------------------------------------------------------------------------------------------- missing data


def test_every_pair_is_judged_by_the_rows_that_observe_both():
    rng = np.random.default_rng(6)
    categories = noisy_chain(rng, 3000, 4).astype(float)
    categories[rng.random(categories.shape) < 0.3] = np.nan
    variables = [Categorical(3)] * 4
    found = ordering.dependence(categories, variables)
    for i, j in itertools.combinations(range(4), 2):
        both = ~np.isnan(categories[:, i]) & ~np.isnan(categories[:, j])
        alone = ordering.dependence(categories[both][:, [i, j]], [Categorical(3)] * 2)
        assert found[i, j] == pytest.approx(alone[0, 1]), (i, j)


def test_missing_entries_change_little_and_nothing_systematically():
    rng = np.random.default_rng(7)
    n = 20_000
    a = rng.normal(size=n)
    x = np.stack([a, 0.8 * a + 0.6 * rng.normal(size=n), a**2 + 0.5 * rng.normal(size=n), a > 0.5], axis=1)
    variables = [*gaussians(3), Categorical(2)]
    full = ordering.dependence(x, variables)
    x[rng.random(x.shape) < 0.3] = np.nan
    before = x.copy()
    holes = ordering.dependence(x, variables)
    np.testing.assert_allclose(holes, full, rtol=0.08, atol=5e-3)
    np.testing.assert_array_equal(x, before)  # the caller's NaNs are still there


def test_pairs_never_observed_together_and_columns_never_observed():
    x = np.full((40, 5), np.nan)
    x[:20, 0], x[20:, 1] = np.arange(20) % 2, np.arange(20) % 2
    x[:20, 2], x[20:, 3] = np.linspace(0, 1, 20), np.linspace(0, 1, 20)
    found = ordering.dependence(x, [Categorical(2), Categorical(2), *gaussians(3)])
    assert np.isfinite(found).all()
    assert found[0, 1] == found[2, 3] == found[0, 3] == 0
    assert (found[4] == 0).all()


def test_constant_columns_and_few_rows():
    x = np.array([[1.0, 2.5, 3.0]] * 3)
    variables = [Categorical(2), *gaussians(1), PoissonMixture([1.0])]
    np.testing.assert_allclose(ordering.dependence(x, variables), np.zeros((3, 3)), atol=1e-12)
    assert np.isfinite(ordering.dependence(x[:1], variables)).all()
    assert ordering.dependence([[0.0], [1.0]], [Categorical(2)]).shape == (1, 1)


# ----------------------------------------------------------------------------------------------- large and foreign


def mixed_table(n: int = 700) -> tuple[np.ndarray, list]:
    rng = np.random.default_rng(8)
    x = np.concatenate([noisy_chain(rng, n, 4), rng.normal(size=(n, 3)), rng.poisson(9.0, size=(n, 2))], axis=1)
    x[:, 5] += x[:, 4] + x[:, 0]
    x[rng.random(x.shape) < 0.2] = np.nan
    return x, [
        Categorical(3),
        Categorical(4),
        Categorical(3),
        Categorical(3),
        *gaussians(3),
        *[PoissonMixture([9.0])] * 2,
    ]


def test_chunks_of_rows_and_columns_change_nothing(monkeypatch):
    x, variables = mixed_table()
    whole = ordering.dependence(x, variables)
    for limit in ("_READ_ENTRIES", "_INDICATOR_ENTRIES", "_JOINT_ENTRIES", "_TABLE_ENTRIES"):
        monkeypatch.setattr(information, limit, 400)
        np.testing.assert_allclose(ordering.dependence(x, variables), whole, rtol=1e-9, atol=1e-12)


def test_bins_placed_by_a_sample_of_rows(monkeypatch):
    x, variables = mixed_table(6000)
    whole = ordering.dependence(x, variables)
    monkeypatch.setattr(information, "_SAMPLED_ROWS", 1000)
    np.testing.assert_allclose(ordering.dependence(x, variables), whole, rtol=0.1, atol=5e-3)


def test_memmaps_lists_and_read_only_arrays(tmp_path):
    x, variables = mixed_table()
    expected = ordering.dependence(x, variables)
    x.tofile(tmp_path / "table")
    mapped = np.memmap(tmp_path / "table", dtype=np.float64, mode="r", shape=x.shape)
    np.testing.assert_array_equal(ordering.dependence(mapped, variables), expected)
    np.testing.assert_array_equal(ordering.dependence(x.tolist(), variables), expected)
    expected.flags.writeable = False
    assert ordering.tour(expected) == ordering.tour(expected.tolist())


def test_arrays_of_every_backend(backend):
    x, variables = mixed_table(200)
    expected = ordering.dependence(x, variables)
    data, weight = backend.array(x), backend.array(expected)
    if backend.name.startswith("torch"):
        data.requires_grad_(True)
    np.testing.assert_array_equal(ordering.dependence(data, variables), expected)
    assert ordering.tour(weight) == ordering.tour(expected)
    assert ordering.score(range(9), weight) == ordering.score(range(9), expected)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_dtypes_of_data(dtype):
    x = (noisy_chain(np.random.default_rng(0), 200, 5) > 0).astype(dtype)
    expected = ordering.dependence(x.astype(float), [Categorical(2)] * 5)
    np.testing.assert_array_equal(ordering.dependence(x, [Categorical(2)] * 5), expected)


# ------------------------------------------------------------------------------------------------- orders from data


@pytest.mark.parametrize("d", [8, 20, 60])
def test_a_shuffled_cycle_is_recovered(d):
    rng = np.random.default_rng(d)
    truth = rng.permutation(d)
    x = np.empty((4000, d), dtype=np.int64)
    x[:, truth] = noisy_cycle(rng, 4000, d)
    found = ordering.mutual_information(x, [Categorical(3)] * d)
    assert same_cycle(found, truth), (found, truth)
    assert found == ordering.tour(ordering.dependence(x, [Categorical(3)] * d))


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("d", [5, 20, 40])
def test_a_shuffled_chain_is_recovered(d, missing):
    rng = np.random.default_rng(d)
    truth = rng.permutation(d)
    x = np.empty((3000, d))
    x[:, truth] = noisy_chain(rng, 3000, d)
    x[rng.random(x.shape) < missing] = np.nan
    found = ordering.mutual_information(x, [Categorical(3)] * d, "train")
    assert found in (tuple(truth), tuple(truth[::-1]))


def test_a_shuffled_chain_of_mixed_columns_is_recovered():
    rng = np.random.default_rng(9)
    n, d = 5000, 12
    walk = np.empty((n, d))
    walk[:, 0] = rng.normal(size=n)
    for k in range(1, d):
        walk[:, k] = 0.9 * walk[:, k - 1] + np.sqrt(1 - 0.81) * rng.normal(size=n)
    x, variables = walk.copy(), gaussians(d)
    for k in range(0, d, 3):
        x[:, k] = np.digitize(walk[:, k], [-1.0, -0.3, 0.3, 1.0])
        variables[k] = Categorical(5)
    truth = rng.permutation(d)
    place = np.argsort(truth)
    found = ordering.mutual_information(x[:, place], [variables[k] for k in place], "train")
    assert found in (tuple(truth), tuple(truth[::-1]))


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), r"x must have shape \(n, 3\).*found \(3,\)"),
        (np.zeros((4, 2)), r"found \(4, 2\)"),
        (np.zeros((0, 3)), r"found \(0, 3\)"),
        ([[0, 0.0, 0], [7, 0.0, 0]], r"column 0 \('age'\): category 7 is outside 0..4"),
        ([[0.5, 0.0, 0]], r"column 0 \('age'\): .*integers 0..4, found 0.5"),
        ([[-1, 0.0, 0]], r"column 0 \('age'\): category -1 is outside 0..4"),
        ([[0, np.inf, 0]], r"column 1: values must be finite, found inf"),
        ([[0, 0.0, -2]], r"column 2 \('visits'\): counts are integers from 0, found -2"),
    ],
)
def test_data_errors_name_the_rule_the_finding_and_the_column(x, message):
    variables = [Categorical(5, name="age"), *gaussians(1), PoissonMixture([1.0], name="visits")]
    with pytest.raises(ValueError, match=message):
        ordering.dependence(x, variables)


def test_data_that_are_no_real_numbers():
    with pytest.raises(TypeError, match="x must hold real numbers, found dtype complex128"):
        ordering.dependence(np.zeros((2, 1), dtype=complex), gaussians(1))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), r"shape \(d, d\) with d >= 1, found \(2, 3\)"),
        (np.zeros((0, 0)), r"found \(0, 0\)"),
        ([[0.0, 1.0], [2.0, 0.0]], "symmetric, found 1 between columns 0 and 1, 2 between 1 and 0"),
        ([[0.0, np.nan], [np.nan, 0.0]], "finite, found nan between columns 0 and 1"),
        ([[0.0, np.inf], [np.inf, 0.0]], "finite, found inf between columns 0 and 1"),
    ],
)
def test_matrix_errors(matrix, message):
    with pytest.raises(ValueError, match=message):
        ordering.tour(matrix)
    with pytest.raises(ValueError, match=message):
        ordering.score([0, 1], matrix)


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_orders_that_are_no_permutations(order):
    with pytest.raises(ValueError, match=r"every column 0..2 once, found \["):
        ordering.score(order, np.zeros((3, 3)))


def test_unknown_topologies_list_the_valid_ones():
    message = "topology must be one of 'ring', 'train', found 'line'"
    with pytest.raises(ValueError, match=message):
        ordering.tour(np.zeros((3, 3)), "line")
    with pytest.raises(ValueError, match=message):
        ordering.score((0, 1, 2), np.zeros((3, 3)), "line")
    with pytest.raises(ValueError, match=message):
        ordering.mutual_information(np.zeros((3, 1)), gaussians(1), "line")


def test_an_order_of_no_columns():
    with pytest.raises(ValueError, match="at least 1 column, found d = 0"):
        ordering.random(0)


# --------------------------------------------------------------------------------------------------------- duration


@pytest.mark.slow
def test_a_thousand_columns_take_seconds():
    x = noisy_chain(np.random.default_rng(0), 10_000, 1000, num_categories=2)
    start = time.perf_counter()
    weight = ordering.dependence(x, [Categorical(2)] * 1000)
    counted = time.perf_counter()
    found = ordering.tour(weight)
    assert counted - start < 30 and time.perf_counter() - counted < 60  # 2 s and 4 s on two idle cores
    assert ordering.score(found, weight) > 0.99 * ordering.score(range(1000), weight)


def test_very_many_categories_take_bounded_work():
    """Columns of more than 512 categories are binned: memory does not grow with the square of their number."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(6000)
    x = np.stack([codes, codes, rng.permutation(6000)], axis=1)
    information = ordering.dependence(x, [Categorical(6000)] * 3)
    assert information[0, 1] > 1.5 > 0.1 > information[0, 2]
