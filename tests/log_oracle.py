"""Every quantity by enumeration in log space and extended precision: nothing overflows, nothing underflows.

A `Table` holds log P̂[s] of all component configurations of some cores, whatever their scale. Nothing here imports
ringdist.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import special, stats

from tests.oracle import Column

LONG = np.longdouble


def logs(array: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(array, dtype=LONG))


def logsumexp(x: np.ndarray, axis=None) -> np.ndarray:
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, LONG(0))
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total.reshape(()) if axis is None else np.squeeze(total, axis=axis)


def log_dense(kind: str, factors: dict[str, np.ndarray]) -> np.ndarray:
    """log Q[s, a, b] of the factors of a core, (N, m, m')."""
    if kind == "dense":
        return logs(factors["core"])
    if kind == "diagonal":
        return logs(factors["weights"])[:, :, None] + logs(np.eye(factors["weights"].shape[1]))
    c = {a.shape[0 if name == "right" else 1] for name, a in factors.items()}.pop()
    left, emission, right = (logs(factors.get(name, np.eye(c))) for name in ("left", "emission", "right"))
    terms = left[None, :, None, :] + emission[:, None, None, :] + right.T[None, None, :, :]
    return logsumexp(terms, axis=-1)


def log_density(column: Column, x: np.ndarray) -> np.ndarray:
    """log p(x | s), (n, N); zeros where x is NaN."""
    missing = np.isnan(x)[:, None]
    z = np.where(missing, 0.0, x[:, None]).astype(LONG)
    p = {name: np.asarray(a, dtype=LONG) for name, a in column.parameters.items()}
    if column.kind == "categorical":
        values = logs(z == np.arange(column.num_components))
    elif column.kind == "gaussian":
        values = -(((z - p["means"]) / p["stds"]) ** 2) / 2 - np.log(p["stds"]) - np.log(2 * LONG(np.pi)) / 2
    elif column.kind == "laplace":
        values = -np.abs(z - p["locations"]) / p["scales"] - np.log(2 * p["scales"])
    else:
        values = z * np.log(p["rates"]) - p["rates"] - special.gammaln(z.astype(np.float64) + 1)
    return np.where(missing, LONG(0), values)


class Table:
    """log P̂[s] of cores in log space (N, m, m') by column, in their order around the ring."""

    def __init__(self, log_cores, columns: tuple[Column, ...], order: tuple[int, ...]):
        self.columns, self.d = columns, len(columns)
        rank = log_cores[order[0]].shape[1]
        state = logs(np.eye(rank))[None]  # (configurations so far, r, m)
        for k in order:
            core = log_cores[k]
            pushed = logsumexp(state[:, None, :, :, None] + core[None, :, None, :, :], axis=3)
            state = pushed.reshape(-1, rank, core.shape[2])
        trace = logsumexp(np.diagonal(state, axis1=1, axis2=2), axis=-1)
        shape = [log_cores[k].shape[0] for k in order]
        self.log_joint = np.transpose(trace.reshape(shape), np.argsort(order))

    @cached_property
    def log_z(self) -> np.ndarray:
        return logsumexp(self.log_joint)

    def log_mass(self, x: np.ndarray, keep: tuple[int, ...] = ()) -> np.ndarray:
        """log Σ_s P̂[s] ∏ p(x_k | s_k), the axes of `keep` left open and their densities included: (n, N_keep...)."""
        total = self.posterior_logs(x)
        others = tuple(1 + k for k in range(self.d) if k not in keep)
        return logsumexp(total, axis=others) if others else total

    def posterior_logs(self, x: np.ndarray) -> np.ndarray:
        """log P̂[s] + Σ_k log p(x_k | s_k), (n, N_1, ..., N_d)."""
        total = self.log_joint[None]
        for k, column in enumerate(self.columns):
            shape = [len(x)] + [1] * self.d
            shape[1 + k] = column.num_components
            total = total + log_density(column, x[:, k]).reshape(shape)
        return total

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return self.log_mass(x) - self.log_z

    def posterior(self, k: int, x: np.ndarray) -> np.ndarray:
        """p(s_k | the row), (n, N_k), for rows of positive mass."""
        weights = self.log_mass(x, (k,))
        return np.exp(weights - logsumexp(weights, axis=-1)[:, None])

    def surprise(self, x: np.ndarray) -> np.ndarray:
        """E[Σ_k |log p(x_k | s_k)|] under the posterior of each row: how far rounding of densities is magnified."""
        total, mass = self.posterior_logs(x), self.log_mass(x)
        mass = np.where(np.isfinite(mass), mass, LONG(0))  # rows without mass have no surprise
        weights = np.exp(total - mass.reshape(-1, *[1] * self.d))
        size = np.zeros(len(x))
        for k, column in enumerate(self.columns):
            shape = [len(x)] + [1] * self.d
            shape[1 + k] = column.num_components
            density = np.abs(log_density(column, x[:, k]))
            density = np.where(np.isfinite(density), density, LONG(0)).reshape(shape)
            size += (weights * density).sum(axis=tuple(range(1, self.d + 1))).astype(np.float64)
        return size

    def depth(self, x: np.ndarray, keep: tuple[int, ...], given: np.ndarray | None = None) -> np.ndarray:
        """How far below the most probable components of `keep` those lie that explain each row best, in nats.

        Other columns are summed over, weighted by what they say of the row `given` (d,).
        """
        dropped = tuple(k for k in range(self.d) if k not in keep)
        prior = self.log_joint if given is None else self.posterior_logs(given[None])[0]
        prior = logsumexp(prior, axis=dropped) if dropped else prior
        explained = np.where(np.isin(np.arange(self.d), keep), x, np.nan)
        weights = np.broadcast_to(prior, (len(x), *prior.shape))
        for axis, k in enumerate(keep):
            shape = [len(x)] + [1] * len(keep)
            shape[1 + axis] = self.columns[k].num_components
            weights = weights + log_density(self.columns[k], explained[:, k]).reshape(shape)
        best = weights.reshape(len(x), -1).argmax(axis=1)
        return (prior.max() - prior.reshape(-1)[best]).astype(np.float64)

    def joint(self, *keep: int) -> np.ndarray:
        """p(s_keep), the axes sorted."""
        p = np.exp(self.log_joint - self.log_z)
        return p.sum(axis=tuple(k for k in range(self.d) if k not in keep))

    def mean(self, x: np.ndarray) -> np.ndarray:
        filled = x.astype(LONG)
        for k, column in enumerate(self.columns):
            missing = np.isnan(x[:, k])
            filled[missing, k] = (self.posterior(k, x) @ column.means().astype(LONG))[missing]
        return filled

    def covariance(self) -> np.ndarray:
        result = np.empty((self.d, self.d), dtype=LONG)
        means = [column.means().astype(LONG) for column in self.columns]
        centred = [m - self.joint(k) @ m for k, m in enumerate(means)]
        for i in range(self.d):
            for j in range(i):
                result[i, j] = result[j, i] = centred[j] @ self.joint(j, i) @ centred[i]
            variances = self.columns[i].variances().astype(LONG)
            result[i, i] = self.joint(i) @ (centred[i] ** 2 + variances)
        return result

    def mutual_information(self) -> np.ndarray:
        result = np.empty((self.d, self.d))
        for i in range(self.d):
            for j in range(i):
                pair = self.joint(j, i)
                independent = np.outer(self.joint(j), self.joint(i))
                seen = pair > 0
                result[i, j] = result[j, i] = (pair[seen] * np.log(pair[seen] / independent[seen])).sum()
            result[i, i] = stats.entropy(self.joint(i).astype(np.float64))
        return result
