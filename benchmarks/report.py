"""What every benchmark writes: where it ran, a table, a figure, the numbers behind them."""

import argparse
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from .findings import FINDINGS, finding

Row = Mapping[str, Any]
LONG = 12  # rows: longer tables are folded
PANELS = 2  # of a figure in one row: the labels of more are too small on a page
PANEL_INCHES = (4.5, 3.3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the results go."""
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder for tables and figures")


def environment(device: str = "cpu") -> dict[str, Any]:
    """The machine and the versions that a number belongs to."""
    import torch

    return {
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "torch": torch.__version__,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "load": round(os.getloadavg()[0], 2),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: Sequence[Row]) -> str:
    """A markdown table with the keys of the first row as its head; ``None`` is an empty cell."""
    heads = list(rows[0])
    cells = [[cell(row.get(head)) for head in heads] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [heads, ["-" * (width - 1) + ":" for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def write(
    out: Path,
    name: str,
    title: str,
    text: str,
    sections: Mapping[str, Sequence[Row]],
    env: Row,
    figure: "Figure | None",
    appendix: str = "",
) -> None:
    """Print the page and write ``name.md``, which the appendix ends, ``name.json`` and ``name.png`` into ``out``.

    What was measured on CUDA has names of its own, ``name-cuda``.
    """
    out.mkdir(parents=True, exist_ok=True)
    name += "" if env["device"] == "cpu" else "-cuda"
    where = ", ".join(f"{key} {value}" for key, value in env.items() if key != "command")
    made = f"Made by `{env['command']}` with {where}."
    if figure is not None:
        arranged(figure).savefig(out / f"{name}.png", dpi=150, bbox_inches="tight")
    tables = {head: table(rows) for head, rows in sections.items()}
    text = page(name, title, text, tables, made, figure is not None, appendix)
    (out / f"{name}.md").write_text(text)
    (out / f"{name}.json").write_text(json.dumps({"environment": env, "results": sections}, indent=1) + "\n")
    print(text)


def arranged(figure: "Figure") -> "Figure":
    """The figure, with panels that were drawn in one row in rows of two."""
    panels = figure.axes
    grid = panels[0].get_gridspec()
    if grid is None or grid.nrows > 1 or len(panels) <= PANELS:
        return figure
    rows = math.ceil(len(panels) / PANELS)
    places = figure.add_gridspec(rows, PANELS)
    for i, panel in enumerate(panels):
        panel.set_subplotspec(places[divmod(i, PANELS)])
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    figure.set_size_inches(PANELS * PANEL_INCHES[0], rows * PANEL_INCHES[1])
    return figure


def page(
    name: str, title: str, text: str, tables: Mapping[str, str], made: str, figure: bool, appendix: str = ""
) -> str:
    """Finding and figure first, then what was measured and how; long tables are folded."""
    opening = finding(name, "\n".join([text, *tables, *tables.values()]))
    if name in FINDINGS and not opening:
        print(f"The finding of {name} in benchmarks/findings.py has numbers that this run has not: it is left out.")
    parts = [f"# {title}", opening, f"![{title}]({name}.png)" if figure else "", text.strip(), made]
    parts += [f"## {head}\n\n{folded(rows)}" for head, rows in tables.items()]
    return "\n\n".join(part for part in [*parts, appendix] if part) + "\n"


def folded(rows: str) -> str:
    """A table, behind a line to click on if it is long."""
    count = rows.count("\n") - 1
    if count <= LONG:
        return rows
    return f'<details markdown="1">\n<summary>Table of {count} rows</summary>\n\n{rows}\n\n</details>'
