"""The process that holds the clock: it starts workers, and ends those that hang or have no time left."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .. import report
from . import suite
from .session import Options, Session, heartbeat, overdue
from .worker import RESTART

GRACE = 8.0  # seconds that an item may be late before its worker is killed
IDLE = 2  # workers in a row that may end without having measured anything


def launch(args: argparse.Namespace) -> None:
    """Workers until everything is measured or the time is over."""
    begin = time.monotonic()
    end = begin + 60 * args.minutes
    heartbeat(args.scratch, None)
    session = Session(options(args, end, 0))
    session.results["calls"].append(call(args, session.results["calls"]))
    session.save()
    number = len(session.results["calls"])
    before, idle = session.settled_items, 0
    while idle < IDLE and time.monotonic() < end - 5:
        status, cause = work(args, end, number)
        session = Session(options(args, end, number))
        session.bury(cause)
        idle = idle + 1 if session.settled_items == before else 0
        before = session.settled_items
        if status == 0:
            break
    session.results["calls"][-1]["seconds"] = round(time.monotonic() - begin, 1)
    session.save()
    print(summary(session.results), flush=True)


def options(args: argparse.Namespace, end: float, number: int) -> Options:
    return Options(
        device=args.device,
        small=args.dry_run,
        out=args.out,
        scratch=args.scratch,
        end=end,
        call=number,
        data=args.data,
        reference=args.reference,
        skip_suite=args.skip_suite,
    )


def call(args: argparse.Namespace, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Where this run takes place; `SystemExit` if what is in the folder was measured elsewhere or at another size."""
    found = report.environment(args.device) | {"minutes": args.minutes, "dry run": args.dry_run}
    for key in ("device", "dry run"):
        if earlier and earlier[0][key] != found[key]:
            raise SystemExit(
                f"--out {args.out}: runs with one folder must agree, found {key} {earlier[0][key]} and {found[key]}"
            )
    return found


def work(args: argparse.Namespace, end: float, number: int) -> tuple[int, str]:
    """One worker: its exit status, and what happened to it."""
    arguments = ["--minutes", str(args.minutes), "--out", str(args.out), "--device", args.device]
    arguments += ["--scratch", str(args.scratch), "--worker", str(number), repr(end)]
    arguments += ["--dry-run"] if args.dry_run else []
    arguments += ["--skip-suite"] if args.skip_suite else []
    for name in ("data", "reference"):
        path: Path | None = getattr(args, name)
        arguments += [] if path is None else [f"--{name}", str(path)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks", "cuda", *arguments], env=environment)
    cause = ""
    while process.poll() is None:
        now = time.monotonic()
        if now > end + 3:
            cause = "the time was over"
        elif overdue(args.scratch, now, GRACE):
            cause = f"hung: killed {GRACE:.0f} s after its time"
        if cause:
            process.kill()
            process.wait()
            break
        time.sleep(0.2)
    heartbeat(args.scratch, None)
    suite.stop(args.scratch)
    if process.returncode not in (0, RESTART):
        cause = cause or f"the process ended with status {process.returncode}"
    return process.returncode, cause or "the process ended"


def summary(results: dict[str, Any]) -> str:
    """How many items of each part have a value, and how many rows of checks are wrong."""
    lines = []
    for part, items in results["parts"].items():
        good = sum(record["status"] == "ok" for record in items.values())
        rows = [row for r in items.values() if isinstance(r.get("value"), list) for row in r["value"]]
        wrong = sum(row.get("ok") == "no" for row in rows)
        lines.append(f"{part}: {good} of {len(items)} items measured, {wrong} checks wrong")
    return "\n".join(lines)
