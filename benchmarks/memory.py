"""How much memory do training, many rows and EM on a large file need, and what does each row cost then?

*Training*: the setting of the paper's Table 5 (100 columns, 10 components, 128 rows, float32). The memory is what one
training step needs on top of model, gradients and data. *Stored* keeps everything that the backward pass needs; the
library does so up to half a gigabyte. *Lean* recomputes products. *Step / forward* is the ratio of the medians of
alternating calls. *Rows*: the log-likelihood of many rows at once (30 columns, 10 Gaussians each, rank 10). *EM*: one
pass over all rows of a memory-mapped file of 0/1 bytes, 10 000 at a time (16 columns, rank 4). The file's own pages,
which the operating system may drop at any time, are not counted.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ringdist as rd
from ringdist.engines import budget, sweep

from . import report
from .measure import in_fresh_process, interleaved, memory_mark, memory_peak
from .rivals import BATCH, COLUMNS, COMPONENTS

MIXED_COLUMNS, RANK = 30, 10
BINARY_COLUMNS, EM_RANK, EM_BATCH = 16, 4, 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--em-rows", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of training and rows; EM is NumPy's")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings behind a median")
    report.add_arguments(parser)


def main(args: argparse.Namespace) -> None:
    sections = {
        "Training": [training(rank, args.device, args.repeats) for rank in args.ranks],
        "Rows": [_row(rows, *in_fresh_process(_streamed, rows, args.device)) for rows in args.rows],
        "EM": [em(rows) for rows in args.em_rows],
    }
    sections = {head: rows for head, rows in sections.items() if rows}
    report.write(
        args.out, "memory", "Memory", __doc__ or "", sections, report.environment(args.device), figure(sections)
    )


def training(rank: int, device: str, repeats: int) -> dict[str, Any]:
    row: dict[str, Any] = {"rank": rank}
    for name, lean in (("stored", False), ("lean", True)):
        row[f"{name}, MB"] = in_fresh_process(_training_memory, rank, lean, device)
        forward, step = _training(rank, lean, device)
        times = interleaved({"forward": forward, "step": step}, repeats=repeats, device=device)
        row |= {f"{name}, forward ms": times["forward"], f"{name}, step / forward": times["step"] / times["forward"]}
    return row


def _training_memory(rank: int, lean: bool, device: str) -> float:
    _training(2, lean, device)[1]()  # libraries allocate their own buffers once
    _, step = _training(rank, lean, device)
    before = memory_mark(device)
    step()
    return (memory_peak(device) - before) / 1e6


def _training(rank: int, lean: bool, device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward pass and training step of a ring whose gradients have their memory."""
    start = rd.TensorRing.random([rd.Categorical(COMPONENTS)] * COLUMNS, rank, rng=0, xp=torch, dtype=torch.float32)
    start = start.to(device=device)
    x = torch.randint(COMPONENTS, (BATCH, COLUMNS), generator=torch.Generator().manual_seed(0)).to(device)
    cores = [core.requires_grad_() for core in start.cores]
    for core in cores:
        core.grad = torch.zeros_like(core)
    ring = rd.TensorRing(cores, start.variables, validate=False)

    def forward() -> None:
        with torch.no_grad():
            ring.log_prob(x)

    def step() -> None:
        limit, rule = BATCH * sweep.numbers_kept(ring) if lean else 2**62, budget.STORED
        budget.STORED = limit  # log Z is one more row
        try:
            ring.log_prob(x).mean().backward()
        finally:
            budget.STORED = rule

    return forward, step


def _streamed(rows: int, device: str) -> tuple[float, float]:
    """Seconds and bytes of one likelihood."""
    means = torch.linspace(-5, 5, COMPONENTS)
    variables = [rd.GaussianMixture(means, torch.ones(COMPONENTS)) for _ in range(MIXED_COLUMNS)]
    ring = rd.TensorRing.random(variables, RANK, rng=0, xp=torch, dtype=torch.float32)
    ring, x = ring.to(device=device), torch.randn(rows, MIXED_COLUMNS, device=device)
    ring.log_prob(x[:100])
    before, begin = memory_mark(device), time.perf_counter()
    ring.log_prob(x).sum().item()  # which waits for the device
    return time.perf_counter() - begin, memory_peak(device) - before


def em(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "rows", np.random.default_rng(0)
        with path.open("wb") as file:
            for start in range(0, rows, 100_000):
                file.write(rng.integers(0, 2, (min(100_000, rows - start), BINARY_COLUMNS), dtype=np.uint8).tobytes())
        return _row(rows, *in_fresh_process(_em, path, rows))


def _em(path: Path, rows: int) -> tuple[float, float]:
    """Seconds and bytes of one visit of all rows."""
    x = np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, BINARY_COLUMNS))
    ring = rd.TensorRing.random([rd.Categorical(2)] * BINARY_COLUMNS, EM_RANK, rng=0)
    rd.fit_em(ring, x[:EM_BATCH], max_epochs=1, batch_size=EM_BATCH // 2, rng=0)
    watch, begin = _Watch(), time.perf_counter()
    with watch:
        rd.fit_em(ring, x, max_epochs=1, batch_size=EM_BATCH, rng=0)
    return time.perf_counter() - begin, watch.taken


def _row(rows: int, seconds: float, taken: float) -> dict[str, Any]:
    return {"rows": rows, "s": seconds, "µs a row": 1e6 * seconds / rows, "MB": taken / 1e6}


class _Watch:
    """How many bytes of memory that no file stands behind were taken at most, looked at every few milliseconds."""

    def __enter__(self) -> "_Watch":
        self._over, self._before, self.taken = threading.Event(), _anonymous(), 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.taken = max(self.taken, _anonymous() - self._before)


def _anonymous() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024.0 * int(status["RssAnon"].split()[0])


def figure(sections: dict[str, list[dict[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (title, rows) in zip(fig.subplots(1, len(sections)), sections.items(), strict=True):
        size = next(iter(rows[0]))
        for key in (key for key in rows[0] if key.endswith("MB")):
            axes.loglog([row[size] for row in rows], [row[key] for row in rows], "o-", label=key)
        axes.set(title=title, xlabel=size, ylabel="MB")
        axes.legend()
    return fig
