"""One run of `python -m benchmarks cuda`: its clock, its results on disk, and how an item is measured."""

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

RESULTS = "results.json"
LIMIT = 30.0  # seconds of one measurement
SHORTEST = 2.0  # seconds that must be left for an item to begin
Record = dict[str, Any]


class OutOfTime(Exception):
    """An item took longer than it may."""


class Item(NamedTuple):
    """One measurement, whose value JSON can hold."""

    name: str
    measure: Callable[[], Any]
    limit: float = LIMIT
    always: bool = False  # also where the part has no time left


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all parts need to know."""

    device: str
    small: bool  # a dry run: every size is a toy
    out: Path
    scratch: Path  # outlives the worker, not the machine
    end: float  # on the monotonic clock, which all processes of a machine share
    call: int  # how many runs there have been with this folder
    data: Path | None = None
    reference: Path | None = None
    skip_suite: bool = False


@dataclass
class Session:
    """The results of all runs with one folder, written whenever one is added."""

    options: Options
    results: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.results = read(self.options.out)

    @property
    def left(self) -> float:
        """Seconds of the whole run."""
        return self.options.end - time.monotonic()

    def save(self) -> None:
        write(self.options.out, self.results)

    @property
    def settled_items(self) -> int:
        """How many items need not be measured any more in this run."""
        return sum(self.settled(part, name) for part, items in self.results["parts"].items() for name in items)

    def settled(self, part: str, name: str) -> bool:
        """Whether the item has its value, or has failed in this run already."""
        record = self.results["parts"].get(part, {}).get(name, {})
        return record.get("status") == "ok" or record.get("call") == self.options.call

    def record(self, part: str, name: str, **values: Any) -> None:
        """Keep what is known of an item."""
        self.results["parts"].setdefault(part, {})[name] = {"call": self.options.call, **values}
        self.save()

    def run(self, part: str, item: Item, end: float) -> bool:
        """Measure an item and keep what came of it; whether it succeeded."""
        limit = max(1.0, min(item.limit, self.left, item.limit if item.always else end - time.monotonic()))
        begin = time.monotonic()
        self.record(part, item.name, status="running")
        heartbeat(self.options.scratch, begin + limit)
        try:
            with interrupted_after(limit):
                found: Record = {"status": "ok", "value": item.measure()}
        except Exception as error:  # whatever it is, it is written down, and the next item has its turn
            found = {"status": "failed", "error": explained(error)}
        heartbeat(self.options.scratch, None)
        self.record(part, item.name, **found, seconds=round(time.monotonic() - begin, 2))
        return found["status"] == "ok"

    def bury(self, cause: str) -> None:
        """Mark what a worker was at when it died as failed."""
        for items in self.results["parts"].values():
            for record in items.values():
                if record["status"] == "running":
                    record |= {"status": "failed", "error": cause}
        self.save()


def read(out: Path) -> dict[str, Any]:
    """The results in a folder, empty ones if there are none."""
    path = out / RESULTS
    if not path.is_file():
        return {"calls": [], "parts": {}}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(out: Path, results: dict[str, Any]) -> None:
    """Replace the results: readers and a worker that dies meanwhile leave the old ones or the new ones."""
    out.mkdir(parents=True, exist_ok=True)
    beside = out / f".{RESULTS}"
    beside.write_text(json.dumps(results) + "\n")
    os.replace(beside, out / RESULTS)


def explained(error: BaseException) -> str:
    """Type and message, and the last places of this project that the error came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename][-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:600]} [{places}]"


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the main thread after so long; what is in a library call is interrupted behind it."""

    def ring(_: int, __: FrameType | None) -> None:
        raise OutOfTime(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def heartbeat(scratch: Path, due: float | None) -> None:
    """Tell the launcher when the item at hand must have ended, None between items."""
    scratch.mkdir(parents=True, exist_ok=True)
    beside = scratch / ".due"
    beside.write_text("" if due is None else repr(due))
    os.replace(beside, scratch / "due")


def overdue(scratch: Path, now: float, grace: float) -> bool:
    """Whether the item at hand should have ended some time ago, and so hangs in a call that no signal interrupts."""
    path = scratch / "due"
    text = path.read_text() if path.is_file() else ""
    return bool(text) and now > float(text) + grace
