"""A ring with variables of several columns, and the enumeration of all its components."""

import functools
import itertools

import numpy as np
from scipy import stats

import ringdist as rd
from tests.backends import load_backend
from tests.ringdist.variables.test_multivariate_gaussian import covariances, given

D = 7
COLUMNS = ((0,), (1, 2, 3), (4,), (5, 6))
GAUSSIAN = [1, 2, 3, 4, 5, 6]
ORDER, RANKS = [2, 0, 3, 1], [2, 3, 2, 4]


def numbers(seed=0):
    """Parameters of a category, three columns with a covariance, one alone and two with a covariance."""
    rng = np.random.default_rng(seed)
    return {
        "abc": (rng.normal(size=(4, 3)), covariances(rng, 4, 3)),
        "e": (rng.normal(size=2), rng.uniform(0.5, 2.0, size=2)),
        "fg": (rng.normal(size=(2, 2)), covariances(rng, 2, 2)),
    }


def variables(backend, seed=0):
    made = {key: tuple(map(backend.array, values)) for key, values in numbers(seed).items()}
    return [
        rd.Categorical(3, name="kind"),
        rd.MultivariateGaussianMixture(*made["abc"], names=["a", "b", "c"]),
        rd.GaussianMixture(*made["e"], name="e"),
        rd.MultivariateGaussianMixture(*made["fg"]),
    ]


def wide_ring(backend, seed=0, ranks=RANKS, order=ORDER):
    numpy = load_backend("numpy")
    ring = rd.TensorRing.random(variables(numpy, seed), rank=ranks, order=order, rng=seed)
    return ring if backend.name == "numpy" else ring.to(backend.xp, device=backend.device)


class Enumerated:
    """The mixture over all configurations of components, each with one Gaussian over the six columns."""

    def __init__(self, seed=0, ranks=RANKS, order=ORDER):
        ring, values = wide_ring(load_backend("numpy"), seed, ranks, order), numbers(seed)
        self.configurations = list(itertools.product(*map(range, ring.shape)))
        masses = [
            np.trace(functools.reduce(np.matmul, [ring.cores[i][s[i]] for i in ring.order]))
            for s in self.configurations
        ]
        self.weights = np.array(masses) / np.sum(masses)
        self.gaussians = []
        for s in self.configurations:
            mean = np.concatenate([values["abc"][0][s[1]], values["e"][0][s[2], None], values["fg"][0][s[3]]])
            matrix = np.zeros((6, 6))
            matrix[:3, :3], matrix[3, 3] = values["abc"][1][s[1]], values["e"][1][s[2]] ** 2
            matrix[4:, 4:] = values["fg"][1][s[3]]
            self.gaussians.append((mean, matrix))

    def joint(self, row):
        """w_s p(observed | s) of every configuration."""
        o = ~np.isnan(row[GAUSSIAN])
        found = self.weights.copy()
        for c, (s, (mean, matrix)) in enumerate(zip(self.configurations, self.gaussians, strict=True)):
            if not np.isnan(row[0]):
                found[c] *= s[0] == row[0]
            if o.any():
                found[c] *= stats.multivariate_normal(mean[o], matrix[np.ix_(o, o)]).pdf(row[GAUSSIAN][o])
        return found

    def posterior(self, row):
        joint = self.joint(row)
        return joint / joint.sum()

    def log_prob(self, rows):
        return np.log([self.joint(row).sum() for row in rows])

    def moments(self, row):
        """Posterior, and per configuration mean and covariance of all columns given the row."""
        means, spreads = [], []
        for s, (mean, matrix) in zip(self.configurations, self.gaussians, strict=True):
            expected, spread = given(mean, matrix, row[GAUSSIAN])
            means.append(np.append(s[0] if np.isnan(row[0]) else row[0], expected))
            spreads.append(np.pad(spread, (1, 0)))
        return self.posterior(row), np.array(means), np.array(spreads)

    def mean(self, row):
        weights, means, _ = self.moments(row)
        return weights @ means

    def covariance(self):
        weights, means, spreads = self.moments(np.full(D, np.nan))
        centred = means - weights @ means
        return (weights[:, None] * centred).T @ centred + np.tensordot(weights, spreads, 1)

    def cdf(self, k, point, row):
        row = np.where(np.arange(D) == k, np.nan, row)
        weights, means, spreads = self.moments(row)
        return weights @ stats.norm(means[:, k], np.sqrt(spreads[:, k, k])).cdf(point)


ORACLE = Enumerated()


def partial_rows(n=12, seed=1):
    x = np.array(wide_ring(load_backend("numpy")).sample(n, rng=seed))
    x[np.random.default_rng(seed).random(x.shape) < 0.4] = np.nan
    x[0] = np.nan
    return x


ROWS = partial_rows()


def pair(size=2, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 2)), covariances(rng, size, 2)
