"""Covariances, mutual information and modes of mixtures of rings."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests import oracle
from tests.backends import assert_close
from tests.ringdist.ring_mixture.cases import SUMS

pytestmark = pytest.mark.slow_on("jax")


def test_covariance(backend, case):
    mixture = case.mixture(backend)
    nothing = np.full((1, 4), np.nan)
    means = np.stack([oracle.mean(c, nothing)[0] for c in case.cases]) - case.shares @ np.stack(
        [oracle.mean(c, nothing)[0] for c in case.cases]
    )
    covariances = np.stack([oracle.covariance(c) for c in case.cases])
    expected = np.einsum("c,cij->ij", case.shares, covariances + means[:, :, None] * means[:, None, :])
    assert_close(backend.numpy(mixture.covariance()), expected, mixture)


def test_covariance_of_a_table(numpy_backend, table):
    """From the definition, without the law of total covariance."""
    x = oracle.configurations(table.cases[0].shape)
    expected = np.cov(x.T, aweights=table.table.ravel(), ddof=0)
    assert_close(table.mixture(numpy_backend).covariance(), expected, table)


def test_mutual_information_of_values(backend, table):
    mixture = table.mixture(backend)
    expected = oracle.mutual_information(SimpleNamespace(joint=table.table, d=4))
    assert_close(backend.numpy(mixture.mutual_information()), expected, mixture, atol=1e-9)


def test_mutual_information_of_components(numpy_backend):
    """Outside categorical columns a component belongs to its ring: the joint table has a block for each."""
    case = SUMS["mixed"]
    sizes = np.array([[3, *c.shape[1:]] for c in case.cases])
    joint = np.zeros((3, *sizes[:, 1:].sum(0)))
    start = np.zeros(4, dtype=int)
    for w, c in zip(case.shares, case.cases, strict=True):
        block = (slice(None), *(slice(a, a + n) for a, n in zip(start[1:], c.shape[1:], strict=True)))
        joint[block] += w * c.joint / c.joint.sum()
        start[1:] += c.shape[1:]
    expected = oracle.mutual_information(SimpleNamespace(joint=joint, d=4))
    assert_close(case.mixture(numpy_backend).mutual_information(), expected, case, atol=1e-9)


def test_mode_of_tables(backend, table):
    mixture, x = table.mixture(backend), table.possible_rows(5)
    completed = backend.numpy(mixture.mode(backend.array(x)))
    missing = np.isnan(x)
    assert (completed[~missing] == x[~missing]).all()
    cells = oracle.configurations(table.cases[0].shape)
    mass = table.joint(cells).sum(-1)
    fits = ((cells[None] == x[:, None]) | missing[:, None]).all(-1)
    assert_close(table.joint(completed).sum(-1), np.where(fits, mass, 0).max(1), mixture)


def test_mode_is_at_least_as_dense_as_those_of_the_rings(numpy_backend):
    case = SUMS["mixed"]
    mixture, x = case.mixture(numpy_backend), case.possible_rows(4)
    found = mixture.log_prob(mixture.mode(x))
    for ring in mixture.rings:
        assert (found >= mixture.log_prob(ring.mode(x)) - 1e-12).all()
    assert mixture.mode().shape == (4,)
