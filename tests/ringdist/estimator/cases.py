"""Tables and a quick estimator for the tests of this folder."""

import numpy as np
import pandas as pd

from ringdist import TensorRingDensity


def small(**changes) -> TensorRingDensity:
    return TensorRingDensity(**({"rank": 2, "num_components": 3, "max_epochs": 4, "random_state": 0} | changes))


def mixed_frame(n: int = 120, seed: int = 0) -> pd.DataFrame:
    """A group that moves everything: a string, an integer, a boolean, a declared category and two real numbers."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "city": np.array(["Oslo", "Rome", "Bonn"])[group],
            "height": 170 + 8.0 * group + rng.normal(0, 2, n),
            "rooms": group + rng.integers(0, 2, n) + 1,
            "owner": rng.random(n) < 0.2 + 0.3 * group,
            "grade": pd.Categorical(np.array(["b", "a", "c"])[group], categories=["c", "b", "a", "never"]),
            "income": 1e6 * np.exp(group + rng.normal(0, 0.1, n)),
        }
    )


def with_gaps(frame: pd.DataFrame, share: float = 0.2, seed: int = 1) -> pd.DataFrame:
    """The frame with entries removed, its dtypes those that pandas has for missing values."""
    gaps = np.random.default_rng(seed).random(frame.shape) < share
    frame = frame.astype({"rooms": "Int64", "owner": "boolean"})
    for k in range(frame.shape[1]):
        frame.isetitem(k, frame.iloc[:, k].mask(gaps[:, k]))
    return frame
