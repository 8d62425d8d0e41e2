"""`python -m benchmarks synthetic` at toy size, with a judge and rivals that need no further packages."""

from __future__ import annotations

import argparse
import json
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import ringdist as rd
from benchmarks import synthetic


def houses(n: int) -> pd.DataFrame:
    """A table in the columns of california.csv that the rare condition names, and one more."""
    rng = np.random.default_rng(0)
    near = rng.random(n) < 0.3
    return pd.DataFrame(
        {
            "rooms": rng.normal(5 + 2 * near).round(2),
            "median_income": (6 + 2 * near + rng.normal(size=n)).round(2),
            "ocean_proximity": np.where(near, "NEAR BAY", "INLAND"),
        }
    )


class Shuffled:
    """A rival without a model: columns of the rows it learns from, each shuffled by itself."""

    title = "shuffled"

    def __init__(self, *_: object) -> None:
        self.rng = np.random.default_rng(0)

    def fit(self, _: object, frame: pd.DataFrame) -> None:
        self.frame = frame

    def sample(self, n: int) -> pd.DataFrame:
        rows = {name: self.rng.choice(column, n) for name, column in self.frame.items()}
        return pd.DataFrame(rows)


class Report:
    """A judge in the place of sdmetrics: how far the means and the pairs of drawn rows are from the real ones."""

    def generate(self, real, drawn, metadata, verbose):
        real, drawn = real["table"], drawn["table"]
        assert list(real.columns) == list(drawn.columns) == list(metadata["tables"]["table"]["columns"])
        numeric = ["rooms", "median_income"]
        self.shape = 1 / (1 + np.abs(real[numeric].mean() - drawn[numeric].mean()).mean())
        self.trend = 1 / (1 + np.abs(real[numeric].corr() - drawn[numeric].corr()).mean().mean())

    def get_properties(self):
        scores = {"Column Shapes": self.shape, "Column Pair Trends": self.trend}
        return pd.DataFrame({"Property": list(scores), "Score": list(scores.values())})


@pytest.mark.slow
def test_a_run_at_toy_size(tmp_path, monkeypatch):
    reports = ModuleType("sdmetrics.reports")
    reports.QualityReport = Report
    monkeypatch.setitem(sys.modules, "sdmetrics", ModuleType("sdmetrics"))
    monkeypatch.setitem(sys.modules, "sdmetrics.reports", reports)
    monkeypatch.setattr(synthetic, "Copula", Shuffled)
    monkeypatch.setattr(synthetic, "Autoencoder", Shuffled)
    houses(240).to_csv(tmp_path / "california.csv", index=False)
    parser = argparse.ArgumentParser()
    synthetic.add_arguments(parser)
    sizes = ["--tables", "california", "--budget", "1", "--conditional-rows", "20"]
    synthetic.main(parser.parse_args([*sizes, "--data", str(tmp_path), "--out", str(tmp_path)]))
    results = json.loads((tmp_path / "synthetic.json").read_text())["results"]
    rows = {row["rows"]: row for row in results["california"]}
    assert list(rows) == ["other real rows", "ring", "shuffled"]
    assert float(rows["ring"]["trend"]) > float(rows["shuffled"]["trend"])
    asked = next(rows for title, rows in results.items() if "under" in title)
    assert len(asked) == 3


@pytest.mark.parametrize(("low", "valid"), [(0, 4), (7, 2), (20, 0)])
def test_rows_that_meet_a_condition(low, valid):
    frame = pd.DataFrame({"income": [5.0, 6.9, 7.0, 8.0], "place": list("abab")})
    assert synthetic.valid(frame, {"income": rd.Interval(low, None)}).sum() == valid
    assert synthetic.valid(frame, {"income": rd.Interval(low, None), "place": {"b"}}).sum() == valid // 2
