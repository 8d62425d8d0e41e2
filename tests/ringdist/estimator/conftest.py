"""A table with columns of every kind, and an estimator fitted on it."""

import pandas as pd
import pytest

from ringdist import TensorRingDensity
from tests.ringdist.estimator.cases import mixed_frame, small


@pytest.fixture(scope="package")
def frame() -> pd.DataFrame:
    return mixed_frame()


@pytest.fixture(scope="package")
def model(frame) -> TensorRingDensity:
    return small(rank=3, max_epochs=15).fit(frame)
