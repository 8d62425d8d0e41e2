"""The README's code runs, and its numbers are those of the pages that it links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CLAIMS = [line.strip("| ").split(" | ") for line in README.splitlines() if re.match(r"\| .*docs/results/\w+\.md", line)]


def test_the_blocks_run_one_after_the_other():
    for needed in ("torch", "pandas", "lightning"):
        pytest.importorskip(needed)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_blocks_are_python(block):
    compile(block, "README.md", "exec")


@pytest.mark.parametrize("claim", CLAIMS, ids=[f"{claim[2]}-{number}" for number, claim in enumerate(CLAIMS)])
def test_numbers_stand_on_the_linked_page(claim):
    text, number, link = claim
    page = (ROOT / re.search(r"\((.*)\)", link)[1]).read_text().replace("−", "-")
    quoted = re.findall(r"-?\d+(?:\.\d+)?", number.replace("−", "-"))
    quoted += re.findall(r"-?\d+\.\d+", text.replace("−", "-"))
    assert number and quoted
    assert not [value for value in quoted if not re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", page)]
