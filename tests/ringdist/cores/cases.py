"""Tolerances, every query of a ring, and the comparison of a ring with an enumerated joint."""

from tests import oracle
from tests.backends import assert_close

CLOSE = {"float64": {"rtol": 1e-9, "atol": 1e-11}, "float32": {"rtol": 3e-4, "atol": 3e-4}}


def queries(ring, x, full):
    """Every query whose answer is numbers, of any ring."""
    grid = ring.quantile(0, 0.3, x)
    return {
        "log_normalizer": ring.log_normalizer(),
        **{f"component_posterior {k}": ring.component_posterior(k, x) for k in range(ring.num_variables)},
        "mean": ring.mean(),
        "mean given": ring.mean(x),
        "covariance": ring.covariance(),
        "mutual_information": ring.mutual_information(),
        **{f"cdf {k}": ring.cdf(k, full) for k in range(ring.num_variables)},
        "quantile": grid,
        "quantile of the last": ring.quantile(ring.num_variables - 1, 0.7, x),
        "mode": ring.log_prob(ring.mode(x)),
        "inner": ring.inner(ring),
    }


def agrees(backend, ring, case, x, subject, dtype="float64"):
    actual = backend.numpy(ring.log_prob(backend.array(x, dtype)))
    assert_close(actual, oracle.log_prob(case, x), subject, **CLOSE[dtype])
