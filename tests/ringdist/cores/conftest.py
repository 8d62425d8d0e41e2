"""Rings of CP, diagonal and dense cores, and files that know diagonal cores."""

import pytest

from ringdist.cores import KINDS
from tests.diagonal_core import DiagonalCore
from tests.structured import STRUCTURED, TABLES


@pytest.fixture(params=STRUCTURED)
def ring_case(request):
    return STRUCTURED[request.param]


@pytest.fixture(params=TABLES)
def table_case(request):
    return TABLES[request.param]


@pytest.fixture
def diagonal_files(monkeypatch):
    monkeypatch.setitem(KINDS, "diagonal", DiagonalCore)
