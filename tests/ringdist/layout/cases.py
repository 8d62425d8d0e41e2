"""A ring whose variables have columns anywhere in x, and the same ring with columns in the order of its variables."""

import numpy as np

import ringdist as rd

COLUMNS = ((6, 0, 3), (1,), (5, 2), (4,))  # of every variable, those of the wide ones in any order
FLAT = [k for own in COLUMNS for k in own]
D = len(FLAT)
RANKS, ORDER = [2, 3, 2, 4], [2, 0, 3, 1]


def covariances(rng, size, width):
    factors = rng.normal(size=(size, width, width))
    return factors @ factors.mT + 0.3 * np.eye(width)


def variables(seed=0):
    rng = np.random.default_rng(seed)
    return [
        rd.MultivariateGaussianMixture(rng.normal(size=(4, 3)), covariances(rng, 4, 3), names=["a", "b", "c"]),
        rd.Categorical(3, name="kind"),
        rd.MultivariateGaussianMixture(rng.normal(size=(2, 2)), covariances(rng, 2, 2)),
        rd.GaussianMixture(rng.normal(size=2), rng.uniform(0.5, 2.0, size=2), name="e"),
    ]


def pair(backend, seed=0, core="dense"):
    """A ring with scattered columns, and the same with those of its variables side by side."""
    plain = rd.TensorRing.random(variables(seed), rank=RANKS, order=ORDER, core=core, rng=seed)
    ring = rd.TensorRing(plain.cores, plain.variables, plain.order, COLUMNS)
    return tuple(each if backend.name == "numpy" else each.to(backend.xp) for each in (ring, plain))


def rows(n=9, seed=1, missing=0.4):
    """Rows of the scattered ring, some of whose entries are missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    x[:, 1] = rng.integers(3, size=n)
    x[rng.random((n, D)) < missing] = np.nan
    x[0] = np.nan
    return x


def scattered(x):
    """Columns of the consecutive ring as those of the scattered one."""
    return x[..., np.argsort(FLAT)]
