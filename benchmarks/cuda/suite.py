"""The repository's own tests on CUDA, beside the other checks."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from .checks import Row
from .session import Item, Session

WAIT, SECONDS = 12.0, 30.0  # for those that have not ended, and for all that has to be done
LOG, PROCESS = "suite.log", "suite.pid"
running: list[subprocess.Popen[bytes]] = []


def begin(session: Session) -> Iterable[Item]:
    """Start them; they are looked at when the other checks have been made."""
    options = session.options
    if options.device == "cuda" and not options.skip_suite and not session.settled("correctness", "suite"):
        options.scratch.mkdir(parents=True, exist_ok=True)
        workers = str(max(1, min(10, (os.cpu_count() or 2) - 4)))
        command = [sys.executable, "-m", "pytest", "-k", "cuda", "--ignore", "tests/benchmarks", "-q"]
        command += ["-n", workers, "--tb=line", "--continue-on-collection-errors", "-o", "filterwarnings=ignore"]
        command += ["-o", f"cache_dir={options.scratch / 'pytest'}"]
        with (options.scratch / LOG).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        running.append(process)
        (options.scratch / PROCESS).write_text(str(running[0].pid))
    return ()


def stop(scratch: Path) -> None:
    """End what a worker that is no more has left running."""
    path = scratch / PROCESS
    if path.is_file():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(path.read_text()), signal.SIGKILL)
        path.unlink()


def items(session: Session) -> Iterable[Item]:
    """What came of them, if they were started."""
    if not running:
        return ()
    return (Item("suite", lambda: collected(session), SECONDS, always=True),)


def collected(session: Session) -> list[Row]:
    """One row for each failed test and one for all others; those that have not ended in time are stopped."""
    process = running.pop()
    stopped = ""
    end = time.monotonic() + min(WAIT, max(1.0, session.left - 10))
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    if process.poll() is None:
        stopped = "stopped before the end"
        os.killpg(process.pid, signal.SIGINT)  # pytest sums up what it has
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    lines = (session.options.scratch / LOG).read_text(errors="replace").splitlines()
    failed = [line[:300] for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    parts = [line.partition(" - ") for line in failed]
    found = [{"check": test, "error": None, "ok": "no", "message": message} for test, _, message in parts]
    last = next((line for line in reversed(lines) if line.strip()), "")
    passed = {"check": "pytest -k cuda", "error": len(failed), "ok": "no" if failed else "yes"}
    return [passed | {"message": f"{last} {stopped}"}, *found]
