"""`python -m benchmarks tables` at toy size, and what it hides and spreads."""

import argparse

import numpy as np
import pandas as pd
import pytest

from benchmarks import tables
from benchmarks.tables_data import dequantised, hidden_at_random, hidden_by_value, table


def frame(n=90):
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=n)
    x = rng.normal(size=(n, 2)) + 3 * group[:, None]
    return pd.DataFrame({"a": x[:, 0].round(1), "b": x[:, 1].round(2), "status": np.array(["no", "yes"])[group]})


@pytest.mark.slow
def test_a_run_at_toy_size(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    frame().to_csv(tmp_path / "data" / "parkinsons.csv", index=False)
    monkeypatch.setattr(tables, "DENSITIES", {"Gaussian": tables.DENSITIES["Gaussian"]})
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    paths = ["--data", str(tmp_path / "data"), "--out", str(tmp_path)]
    tables.main(parser.parse_args([*paths, "--tables", "parkinsons", "--budget", "1", "--folds", "2"]))
    page = (tmp_path / "tables.md").read_text()
    assert "| Imputation |" in page and "at random" in page and "by value" in page
    assert (tmp_path / "tables.png").stat().st_size > 1000


def test_columns_of_a_table():
    read = table("parkinsons", frame(), 1000, np.random.default_rng(0))
    assert read.target == "status" and read.categorical == ["status"]
    assert read.numeric == read.measured == ["a", "b"]


def test_rounded_numbers_are_spread_over_their_resolution():
    read = table("parkinsons", frame(), 1000, np.random.default_rng(0))
    spread = dequantised(read, np.random.default_rng(0)) - read.frame[["a", "b"]].to_numpy()
    assert (spread >= 0).all() and (spread[:, 0] < 0.1 + 1e-9).all() and (spread[:, 1] < 0.01 + 1e-9).all()
    assert len(np.unique(spread)) == spread.size


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_hidden_entries(share):
    rows = pd.concat([frame()] * 30, ignore_index=True)
    rows.loc[::7, "a"] = np.nan
    read = table("parkinsons", rows, 10_000, np.random.default_rng(1))
    for hidden in (
        hidden_at_random(read.frame, share, np.random.default_rng(2)),
        hidden_by_value(read, share, np.random.default_rng(2)),
    ):
        assert abs(hidden[:, 1:].mean() - share) < 0.04
        assert not hidden[read.frame.isna().to_numpy()].any()
    others = read.frame["a"].rank().fillna(0), pd.factorize(read.frame["status"])[0]
    assert max(np.corrcoef(hidden[:, 1], other)[0, 1] for other in others) > 0.1  # one of them drives it
