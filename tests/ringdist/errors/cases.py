"""Rings with named columns, and queries that all take rows."""

import numpy as np

import ringdist as rd

AGE = rd.Categorical(5, name="age")


def ring_of_ages(**changes) -> rd.TensorRing:
    """Four columns, the last one named age, of 2, 3, 4 and 5 categories."""
    rng = np.random.default_rng(0)
    parts = {
        "cores": [rng.random((n, 2, 2)) for n in (2, 3, 4, 5)],
        "variables": [rd.Categorical(2), rd.Categorical(3, name="sex"), rd.Categorical(4), AGE],
        "order": None,
    }
    parts |= changes
    return rd.TensorRing(parts["cores"], parts["variables"], order=parts["order"])


def core(k: int, change) -> list[np.ndarray]:
    """The cores of `ring_of_ages` with one of them changed."""
    cores = list(ring_of_ages().cores)
    cores[k] = change(cores[k].copy())
    return cores


def put(value: float):
    def change(array):
        array[1, 0, 1] = value
        return array

    return change


QUERIES = {
    "log_prob": lambda ring, x: ring.log_prob(x),
    "component_posterior": lambda ring, x: ring.component_posterior(0, x),
    "mean": lambda ring, x: ring.mean(x),
    "cdf": lambda ring, x: ring.cdf(0, x),
    "quantile": lambda ring, x: ring.quantile(0, 0.5, x),
    "mode": lambda ring, x: ring.mode(x),
    "sample_given": lambda ring, x: ring.sample_given(x, rng=0),
}
