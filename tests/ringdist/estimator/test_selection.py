"""What is chosen on held-out rows: never far worse than simple models, and within a budget."""

import time
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_iris, load_linnerud
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

import ringdist as rd
from ringdist import TensorRingDensity
from ringdist.estimator.columns import Column
from ringdist.estimator.folds import Fold
from ringdist.estimator.hidden import PARTS, Guesses, Hidden
from ringdist.estimator.learner import Setting
from ringdist.estimator.selection import Tried
from ringdist.estimator.stacking import _grown
from ringdist.learning.rings import mixture_weights


def independent(train: np.ndarray, test: np.ndarray) -> float:
    """Mean log-likelihood of a product of Gaussians."""
    return float(stats.norm(train.mean(axis=0), train.std(axis=0)).logpdf(test).sum(axis=1).mean())


def held_out(x: np.ndarray, **options) -> tuple[float, float]:
    """Of the estimator and of independent Gaussians, by cross-validation."""
    scores = []
    for train, test in KFold(4, shuffle=True, random_state=0).split(x):
        model = TensorRingDensity(random_state=0, **options).fit(x[train])
        scores.append((model.score(x[test]), independent(x[train], x[test])))
    ours, simple = np.mean(scores, axis=0)
    return ours, simple


def test_small_tables_are_not_overfitted():
    linnerud = load_linnerud()
    ours, simple = held_out(np.hstack([linnerud.data, linnerud.target]), budget=2)
    assert ours > simple - 2


@pytest.mark.slow
def test_clusters_are_found():
    ours, simple = held_out(load_iris().data, budget=2)
    assert ours > simple + 1.5


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_a_few_rows_do_not_make_narrow_densities(n):
    rng = np.random.default_rng(n)
    x = rng.normal(3, 2, size=(n, 4))
    model = TensorRingDensity(random_state=0).fit(x)
    assert np.isfinite(model.score_samples(rng.normal(3, 2, size=(50, 4)))).all()
    if n > 2:
        assert model.score(rng.normal(3, 2, size=(500, 4))) > -40


@pytest.mark.slow
def test_noise_has_the_smallest_model():
    x = np.random.default_rng(0).normal(size=(150, 5))
    model = TensorRingDensity(num_rings=1, random_state=0, budget=10).fit(x)
    assert max(model.ring_.ranks) <= 2 and model.score(x) < -6.5
    assert TensorRingDensity(random_state=0, budget=10).fit(x).score(x) < -6.5


def test_hard_constraints_stay_hard():
    """Two copies of a one-hot block: whatever is drawn is one of the four rows that there are."""
    block = np.eye(4, dtype=int)[np.random.default_rng(0).integers(0, 4, 100)]
    for options in ({}, {"rank": 8, "num_components": 4}):
        model = TensorRingDensity(random_state=0, budget=10, **options).fit(np.hstack([block, block]))
        drawn = model.sample(1000, random_state=0)
        valid = (drawn[:, :4].sum(axis=1) == 1) & (drawn[:, :4] == drawn[:, 4:]).all(axis=1)
        assert valid.mean() > 0.99, options


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_all_rows_are_learnt_as_well_as_those_of_a_fold(seed):
    """The last fit has fewer distinct rows than those of the search, of which some lack entries."""
    block = np.eye(3, dtype=int)[np.random.default_rng(seed).integers(0, 3, 100)]
    x = np.hstack([block, block])
    model = TensorRingDensity(num_rings=1, random_state=seed, budget=2).fit(x)
    assert model.score(x) > -1.4  # the entropy is log 3


def test_what_is_declared_stays_possible():
    words = pd.Categorical(["a", "b"] * 40, categories=["a", "b", "never"])
    model = TensorRingDensity(random_state=0, budget=2).fit(pd.DataFrame({"w": words, "x": np.arange(80.0) % 7}))
    assert np.isfinite(model.score({"w": "never"}))


def test_the_user_is_told_when_learning_has_not_converged():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 300)
    x = 5.0 * np.stack([group, group % 2, group // 2], axis=1) + rng.normal(size=(300, 3))
    with pytest.warns(ConvergenceWarning, match="max_epochs=2"):
        TensorRingDensity(rank=4, num_components=6, max_epochs=2, start="quantile", random_state=0).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = TensorRingDensity(rank=4, num_components=6, random_state=0).fit(x)
    assert model.n_iter_ > 2


def test_a_budget_is_kept():
    x = np.random.default_rng(0).normal(size=(500, 8)).cumsum(axis=1)
    began = time.perf_counter()
    TensorRingDensity(random_state=0, budget=1.0).fit(x)
    assert time.perf_counter() - began < 20  # what is under way is finished


def test_several_rings_in_different_orders():
    x = np.random.default_rng(0).normal(size=(300, 4)).cumsum(axis=1)
    model = TensorRingDensity(rank=3, num_components=4, max_epochs=10, num_rings=3, random_state=0).fit(x)
    assert isinstance(model.ring_, rd.RingMixture) and model.ring_.num_rings == 3
    assert np.isfinite(model.score(x)) and model.sample(3).shape == (3, 4)
    one = TensorRingDensity(rank=3, num_components=4, max_epochs=10, random_state=0, budget=2)
    assert isinstance(one.fit(x).ring_, rd.TensorRing)
    kept = TensorRingDensity(num_rings=2, max_epochs=10, random_state=0, budget=2, validation_fraction=0.2)
    assert kept.fit(x).ring_.num_rings == 2


@pytest.mark.slow
def test_settings_are_kept_together_where_held_out_rows_gain():
    """Clusters of two columns that hang together beside others on a grid: no single setting says both well."""
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(5), 0.1 * np.eye(5) + 0.9, size=600)
    x[:300, :2] = rng.choice([-2.0, 0.0, 2.0], size=(300, 2)) + rng.normal(scale=0.05, size=(300, 2))
    train, test = (pd.DataFrame(part, columns=list("abcde")) for part in np.split(rng.permutation(x), 2))
    one, several = (TensorRingDensity(num_rings=n, random_state=0, budget=8).fit(train) for n in (1, "auto"))
    assert isinstance(several.ring_, rd.RingMixture) and isinstance(one.ring_, rd.TensorRing)
    assert several.score(test) > one.score(test)
    gaps = test.mask(rng.random(test.shape) < 0.3)
    assert np.isfinite(several.impute(gaps).to_numpy()).all()
    assert several.probability({"a": rd.Interval(-1, 1), "e": rd.Interval(0, None)}, gaps).shape == (300,)
    assert several.condition({"a": rd.Interval(-1, 1)}).sample(50, random_state=0)["a"].between(-1, 1).all()


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.5, 0.5)])
def test_weights_of_a_stack_are_those_of_highest_likelihood(weights):
    """Rows of a mixture of two Gaussians whose densities two candidates are; the third is of no use."""
    rng = np.random.default_rng(1)
    x = np.where(rng.random(4000) < weights[0], rng.normal(-2, 1, 4000), rng.normal(2, 1, 4000))
    values = [stats.norm.logpdf(x, mean) for mean in (-2, 2, 9)]
    none = np.arange(0)
    hidden = Hidden.of_folds(x[:, None], [Fold(none, np.arange(4000), none)], [Column("x")], 0)
    guesses = Guesses(np.zeros((PARTS, 4000)), np.zeros((4000, 1)))  # all the same
    tried = [Tried(Setting(1, 1, 0.0, 0.0, place=k), v, guesses, v, 1, 0.0) for k, v in enumerate(values)]
    tried = [t._replace(scores=hidden.scores(t.values[None], [guesses], np.ones(1))) for t in tried]
    search = SimpleNamespace(criterion=hidden, is_better=lambda found, best: (found - best).mean() > 1e-3)
    stack = _grown(tried[0], tried, lambda _: True, search)
    found = dict(zip([member.setting.place for member in stack.members], stack.weights, strict=True))
    assert 2 not in found and abs(found.get(1, 0.0) - weights[1]) < 0.03


@pytest.mark.parametrize("rank", [[1, 2, 3, 2], np.array([2, 1, 2, 3])])
def test_one_rank_a_bond_beside_what_is_chosen(rank):
    x = np.random.default_rng(0).normal(size=(60, 4)).cumsum(axis=1)
    topology = "train" if rank[0] == 1 else "ring"
    model = TensorRingDensity(rank=rank, topology=topology, random_state=0, budget=1).fit(x)
    assert model.ring_.ranks == tuple(rank) and np.isfinite(model.score(x))


def test_kinds_of_cores():
    x = np.random.default_rng(0).normal(size=(100, 3))
    for core, expected in (("cp", True), ("dense", False), ("auto", False)):
        ring = TensorRingDensity(rank=2, core=core, max_epochs=2, random_state=0).fit(x).ring_
        assert isinstance(ring.cores[0], rd.CPCore) == expected
    chosen = TensorRingDensity(max_epochs=2, num_rings=1, random_state=0, budget=2).fit(x)
    assert isinstance(chosen.ring_.cores[0], rd.CPCore)


@pytest.mark.slow
def test_large_tables_learn_from_batches():
    x = np.random.default_rng(0).normal(size=(200_000, 10)).cumsum(axis=1)
    began = time.perf_counter()
    model = TensorRingDensity(random_state=0).fit(x)
    assert time.perf_counter() - began < 120
    assert model.score(x[:5000]) > independent(x, x[:5000]) + 3


def test_weights_of_rings_count_rows_by_their_weight():
    rng = np.random.default_rng(1)
    x = rng.integers(3, size=(60, 4)).astype(float)
    x[:20, 1:3] = x[:20, :1]  # every order suits some of the rows
    x[20:40, 2:] = x[20:40, 1:2]
    x[40:, 3] = x[40:, 0]
    options = {"rank": 2, "num_rings": 3, "pseudocount": 0.0, "budget": None, "random_state": 0, "max_epochs": 5}
    types = {"column_types": dict.fromkeys(range(4), "categorical")}
    differences = []
    for group in range(3):
        weight = np.where(np.arange(60) // 20 == group, 30.0, 1.0)
        found = TensorRingDensity(**options, **types).fit(x, sample_weight=weight)
        values = np.stack([ring.log_prob(x) for ring in found.ring_.rings])
        np.testing.assert_allclose(found.ring_.weights, mixture_weights(values, weight), rtol=1e-6)
        differences.append(np.abs(mixture_weights(values) - found.ring_.weights).max())
    assert max(differences) > 0.1


def test_weights_of_models_are_those_of_highest_weighted_likelihood():
    rng = np.random.default_rng(4)
    values, weight = np.log(rng.dirichlet(np.ones(3), size=500).T), rng.random(500) * 5
    weights = mixture_weights(values, weight)
    best = weight @ np.log(weights @ np.exp(values))
    assert best >= max(weight @ np.log(other @ np.exp(values)) for other in rng.dirichlet(np.ones(3), size=500)) - 1e-6
