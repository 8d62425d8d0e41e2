"""What all tests of the library share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="package", autouse=True)
def budgets_of_processor_seconds() -> Iterator[None]:
    """What is chosen within a budget of seconds then does not depend on how busy the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", time.process_time)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ring may be saved."""
    return tmp_path / "ring.safetensors"
