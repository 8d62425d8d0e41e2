"""Every mixture, and those that are tables of probabilities."""

import pytest

from tests.ringdist.ring_mixture.cases import SUMS, TABLES, Sum


@pytest.fixture(params=SUMS)
def case(request) -> Sum:
    return SUMS[request.param]


@pytest.fixture(params=TABLES)
def table(request) -> Sum:
    return TABLES[request.param]
