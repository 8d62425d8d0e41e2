"""The pages of a run, from what is in its folder; nothing is measured."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import report
from . import session

Row = dict[str, Any]
Records = Mapping[str, dict[str, Any]]
PAGES = Path("docs/results")

CHECKS = """\
Every engine, query, sampler, kind of core and gradient of the device is compared with double precision on the CPU. The
*error* of values is the largest difference relative to 1 + |value|; that of gradients is relative to the norm of each
parameter's gradient; that of samplers is √n times the largest Kolmogorov-Smirnov distance of u_k = F_k(x_k | x_<k) from
uniform, with F computed on the CPU; that of cells is the number of standard deviations by which χ² exceeds its mean;
that of waits is how often the host waits for the device."""
SPEED = """\
The setting is that of the paper's Table 5: 100 columns, 10 Gaussians each, 128 rows, float32; see [speed](speed.md) for
the columns. *Graph* is ours, replayed as a captured CUDA graph. *CP* are cores in canonical polyadic form with as many
hidden states as the rank, which the official code does not have. *Rounds* are four steps of the critic and one of the
generator, for a WGAN-GP of the paper's size on CIFAR-10; *share* is the additional time relative to N(0, I)."""
PROFILE = """\
Where the time of a call goes. *Ms* is without the profiler; *kernels* ran on the device, *launches* were made by the
host, *kernel time* is how long the device was busy, *waits* are those of the host for the device. The setting is that
of [speed](speed.md)."""
PRECISION = "What TF32 and bfloat16 products cost in nats, and what time they save; see [precision](precision.md)."
SCALING = """\
How the cost grows with the number of columns (rank 10) and with the rank (12 columns), 32 rows; see
[scaling](scaling.md). Times are the minimum of several calls."""
TRAINING = """\
Models of the paper's size, trained for the remaining minutes: WGAN-GP on CIFAR-10 with a TRIP prior (128 latents, 10
components, rank 40) and with N(0, I), and the conditional model of 64x64 faces (100 latents, 10 components, rank 20;
nine of ten attributes hidden). These runs are not finished. Distances are over the features of a small classifier of
the same data, trained for at most a minute; they are not FID."""


def publish(out: Path, pages: Path) -> None:
    """Write all pages for which there are results."""
    results = session.read(out)
    if not results["calls"]:
        raise SystemExit(f"--publish {out}: there are no results in it")
    env = environment(results["calls"])
    if results["calls"][0]["dry run"] and pages.resolve() == PAGES.resolve():
        raise SystemExit(f"--publish {out}: a dry run is not published, except into other --pages")
    for name, (title, text, sections) in contents(results["parts"]).items():
        sections = {head: rows for head, rows in sections.items() if rows}
        if sections:
            report.write(pages, name, title, text, sections, env, FIGURES.get(name, nothing)(sections), "")
    pictures(results["parts"].get("training", {}), pages)


def environment(calls: list[Row]) -> Row:
    """Where the first run took place and how many there were; on a CPU it is still no page of the CPU's."""
    env = {key: value for key, value in calls[0].items() if key not in ("minutes", "seconds", "dry run")}
    env["device"] = "cpu, a dry run" if calls[0]["dry run"] else env["device"]
    command = re.sub(r"--(data|reference|out|scratch) \S+", lambda m: f"--{m[1]} {m[1].upper()}", env["command"])
    return env | {"command": command, "runs": len(calls)}


def contents(parts: Mapping[str, Records]) -> dict[str, tuple[str, str, dict[str, list[Row]]]]:
    """Title, text and tables of each page."""
    speed, limits = parts.get("speed", {}), parts.get("limits", {})
    return {
        "checks": ("Checks on CUDA", CHECKS, checks(parts.get("correctness", {}))),
        "speed": ("Speed on CUDA", SPEED, speeds(speed) | failures(speed)),
        "profile": ("Profile on CUDA", PROFILE, profiles(limits)),
        "precision": (
            "Precision on CUDA",
            PRECISION,
            {
                "Errors": rows(limits, r"precision, rank \d+"),
                "Times": rows(limits, r"precision, times, rank \d+"),
            },
        ),
        "scaling": ("Scaling on CUDA", SCALING, scalings(limits) | failures(limits)),
        "training": ("Training on CUDA", TRAINING, trainings(parts.get("training", {}))),
    }


def rows(records: Records, pattern: str) -> list[Row]:
    """The rows of all measured items whose name is of this form, with the same keys in all of them, by rank."""
    chosen = [r["value"] for name, r in records.items() if re.fullmatch(pattern, name) and r["status"] == "ok"]
    found = [row for value in chosen for row in value]
    heads = dict.fromkeys(key for row in found for key in row)
    return sorted(({key: row.get(key) for key in heads} for row in found), key=lambda row: row.get("rank", 0))


def failures(records: Records) -> dict[str, list[Row]]:
    """What could not be measured, and why."""
    failed = [{"item": name, "problem": cell(r["error"])} for name, r in records.items() if r["status"] == "failed"]
    return {"Not measured": failed}


def cell(text: str) -> str:
    """Text that keeps within a cell of a table."""
    return " ".join(text.split()).replace("|", "/")[:240]


# ------------------------------------------------------------------------------------------------------------- sections


def checks(records: Records) -> dict[str, list[Row]]:
    """One row for each item: how many checks, how many wrong, the largest error in shares of what is allowed."""
    table, wrong = [], []
    for name, record in records.items():
        if record["status"] != "ok":
            wrong.append({"item": name, "check": "", "dtype": "", "error": None, "problem": cell(record["error"])})
            continue
        found = record["value"]
        bad = [row for row in found if row["ok"] == "no"]
        shares = [row["error"] / row["allowed"] for row in found if row.get("allowed") and row["error"] is not None]
        largest = max(shares, default=None)
        table.append({"item": name, "checks": len(found), "wrong": len(bad), "error / allowed": largest})
        wrong += [
            {"item": name, "check": row["check"], "dtype": row.get("dtype"), "error": row["error"]}
            | {"problem": cell(row.get("message") or "")}
            for row in bad
        ]
    return {"Wrong": wrong, "All": table}


def speeds(records: Records) -> dict[str, list[Row]]:
    """The tables of the speed page, each of ours in a graph beside it."""
    found: dict[str, list[Row]] = {"Limits of the machine": rows(records, "limits of the machine")}
    for kind, suffix in (("dense", ""), ("cp", ", CP cores")):
        for name in ("log-likelihood", "sampling", "training step"):
            table = rows(records, rf"{name}, {kind}, rank \d+")
            replayed = {row["rank"]: row for row in rows(records, rf"{name} in a graph, {kind}, rank \d+")}
            found[name.capitalize() + suffix] = [beside(row, replayed.get(row["rank"])) for row in table]
        found[f"Peak memory of a training step{suffix}"] = rows(records, rf"peak memory, {kind}, rank \d+")
    pieces = {row["part"]: row for row in rows(records, r"the prior alone, .*")}
    for row in rows(records, r"the prior alone in a graph, .*"):
        pieces[row["part"]] = pieces.get(row["part"], {"part": row["part"]}) | row
    found["Engines"] = rows(records, r"engines, .*")
    return found | {"WGAN-GP rounds": rows(records, r"rounds, .*"), "The prior alone": list(pieces.values())}


def beside(row: Row, replayed: Row | None) -> Row:
    """A row of times with those of the graph, if there is one, and its ratio to the reference."""
    row = dict(row) | {"graph, ms": replayed and replayed["graph, ms"]}
    if row.get("reference, ms") is not None:
        ratio = replayed and row["reference, ms"] / replayed["graph, ms"]
        goal = row.get("goal")
        row |= {"graph ratio": ratio, "met by graph": ratio and goal and ("yes" if ratio >= goal else "no")}
    return row


def profiles(records: Records) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {"Totals": []}
    for name, record in records.items():
        if name.startswith("profile, ") and record["status"] == "ok":
            head, value = name.removeprefix("profile, "), record["value"]
            found["Totals"] += [{"call": head} | row for row in value["totals"]]
            found[f"Kernels, {head}"] = [row | {"name": cell(row["name"])} for row in value["kernels"]]
            found[f"Host, {head}"] = [row | {"name": cell(row["name"])} for row in value["operations"]]
    return found


def scalings(records: Records) -> dict[str, list[Row]]:
    merged: dict[tuple[Any, ...], Row] = {}
    for row in rows(records, r"scaling, .*"):
        place = tuple(row[key] for key in ("axis", "topology", "cores", "columns", "rank"))
        measured = {key: value for key, value in row.items() if value is not None}
        merged[place] = {**row, **merged.get(place, {}), **measured}
    found = [merged[place] for place in sorted(merged)]
    return {
        "Growing number of columns": [without(row, "axis") for row in found if row["axis"] == "columns"],
        "Growing rank": [without(row, "axis") for row in found if row["axis"] == "rank"],
    }


def without(row: Row, key: str) -> Row:
    return {name: value for name, value in row.items() if name != key}


def trainings(records: Records) -> dict[str, list[Row]]:
    """One table for each model, a row for each run; the losses alone where the verdict is missing."""
    found: dict[str, list[Row]] = {}
    for name, record in records.items():
        run, _, call = name.rpartition(", call ")
        judged, value = records.get(name.replace(", losses", ""), {}), record.get("value")
        if isinstance(value, dict):
            found.setdefault(run, []).extend({"call": call, **row} for row in value["rows"])
        elif value and "value" not in judged:
            found.setdefault(run.removesuffix(", losses"), []).extend({"call": call, **row} for row in value)
    return found | failures(records)


def pictures(records: Records, pages: Path) -> None:
    """The last samples of each model, named at the end of its page."""
    shown = []
    for name, record in records.items():
        if record["status"] == "ok" and isinstance(record["value"], dict):
            run = name.partition(",")[0]
            path = pages / f"training-cuda-{run}.png"
            path.write_bytes(base64.b64decode(record["value"]["samples"]))
            shown.append(f"![samples of {run}]({path.name})")
    page = pages / "training-cuda.md"
    if shown and page.is_file():
        page.write_text(page.read_text() + "\n" + "\n\n".join(dict.fromkeys(shown)) + "\n")


# -------------------------------------------------------------------------------------------------------------- figures


def nothing(_: Mapping[str, list[Row]]) -> None:
    return None


def lines(axes: Any, table: Iterable[Row], x: str, suffix: str) -> None:
    """One line for each column whose head ends so."""
    table = list(table)
    for key in dict.fromkeys(key for row in table for key in row if key.endswith(suffix)):
        points = [(row[x], row[key]) for row in table if row.get(key) is not None]
        axes.loglog(*zip(*points, strict=True), "o-", label=key.removesuffix(suffix)) if points else None
    axes.set(xlabel=x, ylabel=suffix.removeprefix(", "))
    axes.legend()


def speed_figure(sections: Mapping[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    heads = [head for head in ("Log-likelihood", "Sampling", "Training step") if head in sections]
    fig = Figure(figsize=(12, 3), layout="constrained")
    for axes, head in zip(fig.subplots(1, max(1, len(heads)), squeeze=False)[0], heads, strict=False):
        lines(axes, sections[head], "rank", ", ms")
        axes.set(title=head)
    return fig


def scaling_figure(sections: Mapping[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, (head, x) in zip(
        fig.subplots(1, 2), (("Growing number of columns", "columns"), ("Growing rank", "rank")), strict=True
    ):
        for topology in ("ring", "train"):
            table = [row for row in sections.get(head, []) if (row["topology"], row["cores"]) == (topology, "dense")]
            lines(axes, [{x: r[x], f"{topology}, ms": r["log-likelihood, ms"]} for r in table], x, ", ms")
        axes.set(title=f"{head}, log-likelihood")
    return fig


FIGURES: dict[str, Callable[[Mapping[str, list[Row]]], Any]] = {"speed": speed_figure, "scaling": scaling_figure}
