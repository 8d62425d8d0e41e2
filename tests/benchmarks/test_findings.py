"""Pages of results open with findings whose numbers are those of their tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.findings import FINDINGS, finding, numbers

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGES = sorted(path.stem for path in RESULTS.glob("*.md") if path.stem != "index")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_with_its_finding(name):
    page = (RESULTS / f"{name}.md").read_text()
    assert re.match(r"# [^\n]+\n\n" + re.escape(FINDINGS[name]) + "\n\n", page)


@pytest.mark.parametrize("name", PAGES)
def test_the_numbers_of_a_finding_are_in_the_tables(name):
    page = (RESULTS / f"{name}.md").read_text().replace(FINDINGS[name], "")
    assert finding(name, page) == FINDINGS[name]
    measured = numbers(FINDINGS[name])
    if measured:
        assert finding(name, page.replace(measured[0].lstrip("-"), "")) == ""


def test_numbers_are_read_as_they_are_meant():
    text = "−12.363 nats, +0.494, 5.56 ± 1.69, 66.0%, 100 000 columns, CIFAR-10, TF32, 2 to 3, 8x8"
    assert numbers(text) == ["-12.363", "0.494", "5.56", "1.69", "66.0", "100000", "2", "3"]
